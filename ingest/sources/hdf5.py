"""HDF5 runs: what they are, read from headers, columns and samples; the frames themselves are `hdf5_read`'s."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceFormatError
from ingest.sources.assemble import RunFacts, run_name, source_info
from ingest.sources.base import SourceInfo, SourceOptions, SourceSpec
from ingest.sources.facts import FILE_START, FPS_FACTS, START_FACTS, Fact, first_named, first_number
from ingest.sources.fingerprint import Fingerprint
from ingest.sources.hdf5_columns import Columns, check_axes, read_columns
from ingest.sources.hdf5_file import h5_errors, open_file
from ingest.sources.hdf5_images import ImageGroup, frames_at
from ingest.sources.hdf5_layout import CHUNK_FILE_STREAM, Contents, choose_frames, list_contents, read_facts, runs_in
from ingest.sources.hdf5_nexus import claimed_fps, holders
from ingest.sources.hdf5_read import Hdf5Source, open_source
from ingest.sources.hdf5_scale import sampled_maximum
from ingest.sources.hdf5_storage import check_filters, check_frame_size, stored_frames
from ingest.sources.hdf5_times import Stamps
from ingest.sources.plain_file import os_errors
from ingest.sources.scale import SAMPLED_FRAMES, decide_scale, full_scale_in, is_wide
from ingest.sources.urls import is_url, redacted
from ingest.timing import Finding

__all__ = ["Hdf5Source", "inspect", "open_source"]


OTHER_FRAMES = "other frames"
MAX_NAMED = 8


@dataclass(frozen=True)
class FileLook:
    """What one file of a run was found to be; frame numbers in `columns` count from its own first frame."""

    path: str
    dataset: str
    layout: str
    siblings: int
    shape: tuple[int, int]
    dtype: np.dtype[Any]
    block_frames: int
    columns: Columns
    fps: float | None
    facts: dict[str, Fact]
    start_facts: dict[str, Fact]
    maximum: float | None


def inspect(spec: SourceSpec, options: SourceOptions) -> SourceInfo:
    """Find out what a run is, without reading its frames: each file is opened once.

    Parameters
    ----------
    spec : SourceSpec
        Files in order of capture; `dataset` None: found out.
    options : SourceOptions
        What the user says of it.

    Returns
    -------
    SourceInfo
        Its `spec` has dataset, scale and frame counts, for every worker alike.

    Raises
    ------
    SourceError
        See `open_file`, `choose_frames`, `check_filters`, `stored_frames`, `read_columns` and `resolve_start`; files
        of one run whose frames differ in size or type.

    Notes
    -----
    Reads headers, per-frame columns, 18 x 64 KiB of each file, and for frames wider than 8 bit up to 16 frames of the
    run. Holds 8 bytes per frame and column.
    """
    looks: list[FileLook] = []
    fingerprint: Fingerprint | None = None
    samples = _samples_of_files(len(spec.paths))
    for path, sampled in zip(spec.paths, samples, strict=True):
        look = _look(path, spec.dataset or options.dataset, options, sampled)
        if looks:
            _same_frames(looks[0], look)
        fingerprint = fingerprint or Fingerprint(look.dataset)
        with os_errors(redacted(path)):
            fingerprint.add_file(path)
        looks.append(look)
    if fingerprint is None:
        raise SourceFormatError("a run without files")
    return _join(spec, options, looks, fingerprint)


def _samples_of_files(files: int) -> list[int]:
    """Share the sampled frames out over a run's files, evenly."""
    edges = [i * SAMPLED_FRAMES // files for i in range(files + 1)]
    shares = [after - before for before, after in pairwise(edges)]
    return shares if files > SAMPLED_FRAMES else [max(1, share) for share in shares]


def _look(path: str, dataset: str | None, options: SourceOptions, samples: int) -> FileLook:
    shown = redacted(path)
    with open_file(path) as file, h5_errors(path):
        contents = list_contents(file, dataset)
        name = choose_frames(contents, shown, dataset)
        check_axes(contents, name, shown)
        frames_dataset = frames_at(file, name)
        where = f"{shown}: {name}"
        frames, findings = _stored(file, frames_dataset, path, where)
        if options.dataset is None:
            findings += _not_taken(file, contents, name, shown)
        facts = read_facts(file, name, contents)
        siblings = _siblings(file, contents, name, shown)
        start_facts = facts if siblings == 1 else read_facts(file, name, contents, own_only=True)
        fps = first_number(facts, FPS_FACTS)
        if fps is None:
            fps, more = claimed_fps(file, holders(file, contents.classes, name))
            findings += more
        columns = read_columns(
            file,
            contents,
            name,
            frames,
            start_facts,
            timestamps=options.timestamps,
            timezone=options.timezone,
            fps=fps,
            latest_ns=time.time_ns(),
            named=Stamps(frames_dataset.timestamps_ns, True, name) if isinstance(frames_dataset, ImageGroup) else None,
        )
        is_sampled = samples and is_wide(frames_dataset.dtype)
        return FileLook(
            path=path,
            dataset=name,
            layout=_layout(columns, facts, name),
            siblings=siblings,
            shape=(int(frames_dataset.shape[1]), int(frames_dataset.shape[2])),
            dtype=frames_dataset.dtype,
            block_frames=int(frames_dataset.chunks[0]) if frames_dataset.chunks else 1,
            columns=replace(columns, findings=findings + columns.findings),
            fps=fps,
            facts=facts,
            start_facts=start_facts,
            maximum=sampled_maximum(frames_dataset, columns.frames, samples, where) if is_sampled else None,
        )


def _not_taken(file: h5py.File, contents: Contents, name: str, shown: str) -> tuple[Finding, ...]:
    """Name the stacks of a file that are none of its runs."""
    taken = {name, *runs_in(contents, shown)}
    frames = file[name]
    if isinstance(frames, h5py.Dataset) and frames.is_virtual:
        taken |= {
            part.dset_name for part in frames.virtual_sources() if part.file_name == "." and part.dset_name in file
        }
    runs = [file[run] for run in taken]
    others = [
        found
        for found in contents.datasets
        if found.stack and found.shape[0] > 1 and not any(file[found.path] == run for run in runs)
    ]
    return tuple(
        Finding(OTHER_FRAMES, f"{found} is not read: --dataset {found.path} reads it instead")
        for found in others[:MAX_NAMED]
    )


def _stored(file: h5py.File, frames_dataset: Any, path: str, where: str) -> tuple[int, tuple[Finding, ...]]:
    if isinstance(frames_dataset, ImageGroup):
        check_frame_size(frames_dataset, where)
        check_filters(frames_dataset.image(0), where)
        frames_dataset.check()
        return frames_dataset.shape[0], _unclosed(file, frames_dataset.shape[0])
    check_filters(frames_dataset, where)
    frames, findings = stored_frames(frames_dataset, path, where)
    return frames, (*findings, *_unclosed(file, frames))


def _unclosed(file: h5py.File, frames: int) -> tuple[Finding, ...]:
    if not file.swmr_mode:
        return ()
    message = f"never closed: its writer was killed or still runs; {frames} frames can be read"
    return (Finding("unclosed", message),)


def _siblings(file: h5py.File, contents: Contents, name: str, shown: str) -> int:
    """Count the runs of the file that are like this one."""
    runs = runs_in(contents, shown)
    if any(file[run] == file[name] for run in runs):
        return len(runs)
    return sum(found.stack and found.shape[0] > 0 for found in contents.datasets)


def _layout(columns: Columns, facts: dict[str, Fact], name: str) -> str:
    if columns.stamps is not None and columns.stamps.origin.startswith("NDArray"):
        return "areaDetector HDF5"
    if facts.get("data_stream") == CHUNK_FILE_STREAM:
        return "Atomscale chunk files"
    if columns.stamps is not None:
        return f"HDF5 with {columns.stamps.origin}"
    return f"HDF5 {name}"


def _same_frames(first: FileLook, other: FileLook) -> None:
    for what, one, two in (("size", first.shape, other.shape), ("type", first.dtype, other.dtype)):
        if one != two:
            raise SourceFormatError(
                f"{redacted(other.path)}: frames of {what} {two}, but {redacted(first.path)}: {one}; "
                f"a run has one {what}",
                hint="ingest them as runs of their own",
            )


def _join(spec: SourceSpec, options: SourceOptions, looks: Sequence[FileLook], fingerprint: Fingerprint) -> SourceInfo:
    first = looks[0]
    findings: list[Finding] = []
    before = 0
    for look in looks:
        found = [replace(f, frame=None if f.frame is None else f.frame + before) for f in look.columns.findings]
        findings += [f for f in found if f.kind != OTHER_FRAMES or f not in findings]
        before += look.columns.frames
    stamps = _join_stamps(looks, findings)
    fingerprint.add_stamps(stamps.ns if stamps else None)
    maxima = [look.maximum for look in looks if look.maximum is not None]
    said = full_scale_in(first.facts, first.dtype)
    scale, more = decide_scale(first.dtype, options.full_scale, said, max(maxima, default=None))
    findings += more
    named = first_named(first.start_facts, START_FACTS)
    alone = first.siblings == 1
    facts = RunFacts(
        spec=SourceSpec(spec.kind, spec.paths, first.dataset, scale, tuple(look.columns.frames for look in looks)),
        name=_name(looks),
        format=first.layout,
        height_px=first.shape[0],
        width_px=first.shape[1],
        pixel_bytes=first.dtype.itemsize,
        fingerprint=fingerprint.hexdigest(),
        stamps=stamps,
        stamps_are_start=stamps is not None and stamps.origin != FILE_START,
        attribute=None if named is None else first.start_facts[named],
        attribute_name=named or "start_time",
        file_name=os.path.basename(redacted(first.path)) if alone else None,
        # What a store calls the time of change is that of the upload.
        mtime_path=looks[-1].path if alone and not is_url(first.path) else None,
        fps_claimed=first.fps,
        frame_numbers=_join_numbers(looks),
        block_frames=max(look.block_frames for look in looks),
        rotations_per_min=_rotation(first.facts),
        findings=tuple(findings),
    )
    return source_info(facts, options)


def _join_stamps(looks: Sequence[FileLook], findings: list[Finding]) -> Stamps | None:
    parts = [look.columns.stamps for look in looks]
    known = [part for part in parts if part is not None]
    if not known:
        return None
    if len(looks) > 1 and not (len(known) == len(parts) and all(part.absolute for part in known)):
        lacking = next(
            redacted(look.path) for look, part in zip(looks, parts, strict=True) if part is None or not part.absolute
        )
        findings.append(Finding("stamps", f"{lacking} has no absolute stamps: those of the other files are ignored"))
        return None
    end = 0
    for (look, part), (_, later) in pairwise(zip(looks, known, strict=True)):
        end += look.columns.frames
        if later.ns[0] <= part.ns[-1]:
            findings.append(Finding("overlap", f"the file after {redacted(look.path)} begins before that ends", end))
    return Stamps(np.concatenate([part.ns for part in known]), known[0].absolute, known[0].origin)


def _join_numbers(looks: Sequence[FileLook]) -> NDArray[np.int64] | None:
    parts = [look.columns.frame_numbers for look in looks]
    known = [part for part in parts if part is not None]
    return np.concatenate(known) if len(known) == len(parts) else None


def _rotation(facts: dict[str, Fact]) -> float | None:
    """What the file says of rotation; chunk files say that there was some, but not how fast."""
    rpm = facts.get("rotations_per_min")
    if isinstance(rpm, int | float) and np.isfinite(rpm):
        return float(rpm)
    return 0.0 if str(facts.get("is_rotating", "")).lower() in ("0", "false") else None


def _name(looks: Sequence[FileLook]) -> str:
    first = looks[0]
    name = run_name([redacted(look.path) for look in looks])
    return name if len(looks) > 1 or first.siblings == 1 else f"{name} {first.dataset.strip('/')}"
