"""Zarr runs, of formats 2 and 3: found, and what they are; the frames themselves are `zarr_read`'s."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, IngestError, NoFramesError, SourceFormatError, TruncatedSourceError
from ingest.frames import FrameScale
from ingest.sources.assemble import RunFacts, run_name, source_info
from ingest.sources.base import ReaderOption, SourceInfo, SourceOptions, SourceSpec
from ingest.sources.facts import FPS_FACTS, START_FACTS, Fact, add_fact, first_named, first_number
from ingest.sources.fingerprint import Fingerprint
from ingest.sources.found import Discovered
from ingest.sources.hdf5_times import Stamps, per_second_of
from ingest.sources.plain_file import MAX_FRAME_BYTES
from ingest.sources.remote_folder import MAX_AT_ONCE
from ingest.sources.scale import decide_scale, full_scale_in, is_wide, largest_pixel, sampled
from ingest.sources.urls import is_url
from ingest.sources.zarr_earlier import earlier_findings, earlier_stream
from ingest.sources.zarr_files import ChunkFiles, Grid, add_to_fingerprint, chunk_files
from ingest.sources.zarr_layout import ArrayFact, Store, choose_runs, list_arrays, ome_time_axis
from ingest.sources.zarr_log import find_logs
from ingest.sources.zarr_read import MARKS, UNWRITTEN, FrameArray, ZarrSource, open_source
from ingest.sources.zarr_times import FrameColumns, read_columns
from ingest.timing import Finding

__all__ = ["ZarrSource", "find_runs", "inspect", "open_source"]

KIND = "zarr"
MAX_ROW_BYTES = 2**30
INDEX_ENTRY_BYTES = 16  # of a shard's index (Zarr v3, sharding codec 1.0)
MAX_PLACES = 2**62
MAX_LAKE_FRAMES = 2**27  # over three days at 500 frames per second


def find_runs(paths: Sequence[str], options: SourceOptions) -> list[Discovered]:
    """List the runs of some Zarr folders, by their metadata.

    Parameters
    ----------
    paths : sequence of str
        Folders of arrays or groups.
    options : SourceOptions
        `dataset` restricts every group to that array.

    Returns
    -------
    list of Discovered
        One for each run, as `choose_runs` finds them, or for the reason why there is none. The instrument readings of a
        lake are a run of their own, after its frames; it may hold nothing else.
    """

    def runs_of(path: str) -> list[Discovered]:
        try:
            return _runs_of(path, options)
        except IngestError as error:
            return [Discovered(path, error=error)]

    if len(paths) < 2 or not is_url(paths[0]):
        return [entry for path in paths for entry in runs_of(path)]
    with ThreadPoolExecutor(MAX_AT_ONCE) as threads:  # each waits for a few answers, one after the other
        return [entry for entries in threads.map(runs_of, paths) for entry in entries]


def _runs_of(path: str, options: SourceOptions) -> list[Discovered]:
    store = list_arrays(path)
    logs = find_logs(store, options.dataset)
    try:
        runs = choose_runs(store, options.dataset)
    except NoFramesError:
        if not logs:
            raise
        return logs
    return [*(Discovered(path, SourceSpec(KIND, (path,), _dataset(run))) for run in runs), *logs]


def _dataset(frames: ArrayFact) -> str | None:
    return None if frames.path == "/" else frames.path


def inspect(spec: SourceSpec, options: SourceOptions) -> SourceInfo:
    """Find out what a run is, without reading its frames.

    Parameters
    ----------
    spec : SourceSpec
        The folder; `dataset` None: found out.
    options : SourceOptions
        What the user says of it.

    Returns
    -------
    SourceInfo
        Its `spec` has dataset, scale, frame count and what marks lost frames, for every worker alike. Frames that a
        lake marks as lost (``frame_index`` -1, ``time`` NaT), or whose shard is not there, are in it, with stamps
        between those of their neighbours and a finding; reading them raises `FrameDataError`.

    Raises
    ------
    SourceError
        See `list_arrays`, `choose_runs`, `open_array`, `read_columns`, `stored_frames` and `resolve_start`.

    Notes
    -----
    Reads metadata, the names of all chunk files, per-frame columns, both ends of up to 18 files, and for frames wider
    than 8 bit up to 16 frames. Holds 24 bytes per frame, and 8 per chunk file.
    """
    (path,) = spec.paths
    store = list_arrays(path)
    frames = choose_runs(store, spec.dataset or options.dataset)[0]
    siblings = _siblings(store, frames)
    grid = FrameArray(path, frames.folder, None, frames.documents).grid
    _check_sizes(grid, frames, path)
    files = chunk_files(grid)
    facts = _facts(store, frames)
    fps = first_number(facts, FPS_FACTS) or _ome_fps(store, frames)
    stored = _stored_frames(grid, files.numbers, path, is_lake=store.is_lake)
    columns = read_columns(store, frames, timestamps=options.timestamps, timezone=options.timezone, fps=fps)
    count = min(stored.frames, columns.frames)
    lost = columns.lost[:count] | (stored.missing[:count] & store.is_lake)
    if lost.all():
        raise TruncatedSourceError(f"{path}: not one of the {count} frames of {frames.path} is stored")
    reader = FrameArray(path, frames.folder, "lost" if store.is_lake else "fill", frames.documents)
    scale, more = _scale(reader, lost, options, facts)
    spec = SourceSpec(KIND, spec.paths, _dataset(frames), scale, (count,), options=_options(columns, stored, store))
    stamps = columns.stamps and Stamps(columns.stamps.ns[:count], columns.stamps.absolute, columns.stamps.origin)
    named = first_named(facts, START_FACTS) if siblings == 1 else None
    rotation = facts.get("rotations_per_min")
    facts_of_run = RunFacts(
        spec=spec,
        name=_name(store, frames, siblings),
        format=_format(store, frames, stamps),
        height_px=reader.frame_shape[0],
        width_px=reader.frame_shape[1],
        pixel_bytes=reader.dtype.itemsize,
        fingerprint=_fingerprint(frames, grid, files, stamps),
        stamps=stamps,
        attribute=None if named is None else facts[named],
        attribute_name=named or "start_time",
        file_name=os.path.basename(path) if siblings == 1 else None,
        mtime_path=grid.path(int(files.numbers[-1])) if siblings == 1 and not is_url(path) else None,
        fps_claimed=fps,
        frame_numbers=None if columns.numbers is None else columns.numbers[:count],
        block_frames=min(grid.outer[0], count),
        rotations_per_min=float(rotation) if isinstance(rotation, int | float) else None,
        findings=(*stored.findings, *columns.findings, *more, *_lost_frames(lost)),
    )
    info = source_info(facts_of_run, options)
    earlier = earlier_findings(store, info.findings)
    return replace(info, findings=info.findings + earlier, earlier=earlier_stream(store, grid.outer[0]))


def _siblings(store: Store, frames: ArrayFact) -> int:
    """Count the runs of the group that are like this one."""
    runs = [run.path for run in choose_runs(store, None)]
    return len(runs) if frames.path in runs else sum(found.stack and found.shape[0] > 0 for found in store.arrays)


def _check_sizes(grid: Grid, frames: ArrayFact, path: str) -> None:
    """Refuse what would fill memory, by numbers of the metadata alone."""
    height, width = grid.shape[-2:]
    itemsize = frames.dtype.itemsize
    if height * width * itemsize > MAX_FRAME_BYTES:
        raise SourceFormatError(f"{path}: {frames}: frames of {height * width * itemsize} bytes each")
    row_bytes = grid.row_bytes
    if row_bytes > MAX_ROW_BYTES:
        raise SourceFormatError(
            f"{path}: {frames} in Zarr chunks of {grid.inner}: {row_bytes} bytes to decompress for any frame",
            hint=f"write it anew with chunks of (1, {height}, {width})",
        )
    in_a_shard = math.prod(size // part for size, part in zip(grid.outer, grid.inner, strict=True))
    files = math.prod(-(-size // part) for size, part in zip(grid.shape, grid.outer, strict=True))
    if in_a_shard * INDEX_ENTRY_BYTES > MAX_ROW_BYTES or files >= MAX_PLACES:
        raise SourceFormatError(f"{path}: {frames} in {files} files of {in_a_shard} Zarr chunks: too many to be real")


@dataclass(frozen=True)
class StoredFrames:
    """How many frames there are, which of them lack a file, and what is odd about that."""

    frames: int
    missing: NDArray[np.bool_]
    findings: tuple[Finding, ...] = ()


def _stored_frames(grid: Grid, files: NDArray[np.int64], path: str, *, is_lake: bool) -> StoredFrames:
    """Compare the frames that the metadata promise with the files that are there.

    In a lake, a file that is missing at the end was announced and lost, too; elsewhere such frames are left out.
    """
    frames, together = grid.shape[0], grid.outer[0]
    rows, counts = np.unique(files // grid.tiles, return_counts=True)
    used = int(rows[-1]) + 1 if len(rows) else 0
    kept = min(frames, used * together)
    if (
        not used
        or frames > MAX_LAKE_FRAMES
        or (not is_lake and (2 * len(files) < used * grid.tiles or 2 * kept < frames))
    ):
        raise TruncatedSourceError(
            f"{path}: the metadata promise {frames} frames, about {len(files) * together // grid.tiles} are stored",
            hint="if the recording was cut short, copy the frames that exist to a new array",
        )
    count = frames if is_lake else kept
    whole = np.zeros(-(-count // together), bool)
    whole[rows[counts == grid.tiles]] = True
    missing = ~np.repeat(whole, together)[:count]
    findings = []
    if count < frames:
        message = f"{frames} frames promised, {kept} written: the last {frames - kept} are left out"
        findings.append(Finding("unwritten frames", message, kept))
    if missing.any() and not is_lake:
        message = f"{int(missing.sum())} frames are in no file and read as the fill value"
        findings.append(Finding("unwritten frames", message, int(np.argmax(missing))))
    return StoredFrames(count, missing, tuple(findings))


def _lost_frames(lost: NDArray[np.bool_]) -> tuple[Finding, ...]:
    if not lost.any():
        return ()
    message = f"{int(lost.sum())} of {len(lost)} frames were lost when they were recorded or stored: not made up"
    return (Finding("lost frames", message, int(np.argmax(lost))),)


def _options(columns: FrameColumns, stored: StoredFrames, store: Store) -> tuple[tuple[str, ReaderOption], ...]:
    decided: list[tuple[str, ReaderOption]] = []
    if columns.marks:
        decided.append((MARKS, " ".join(columns.marks)))
    if stored.missing.any():
        decided.append((UNWRITTEN, "lost" if store.is_lake else "fill"))
    return tuple(decided)


def _facts(store: Store, frames: ArrayFact) -> dict[str, Fact]:
    """Collect the attributes of the root and of the frames; what is nearer to the frames hides what is further away."""
    facts: dict[str, Fact] = {}
    for attributes in (store.attributes, frames.attributes):
        for name, value in attributes.items():
            add_fact(facts, name, value)
    return facts


def _ome_fps(store: Store, frames: ArrayFact) -> float | None:
    axis = ome_time_axis(store, frames)
    per_s = per_second_of(axis["unit"]) if axis else None
    return per_s / axis["scale"] if per_s is not None and axis["scale"] > 0 else None


def _scale(
    reader: FrameArray, lost: NDArray[np.bool_], options: SourceOptions, facts: dict[str, Fact]
) -> tuple[FrameScale, tuple[Finding, ...]]:
    def read(number: int) -> NDArray[np.generic]:
        if lost[number]:
            raise FrameDataError(f"{reader.path}: frame {number} was lost")
        frames: NDArray[np.generic] = np.empty((1, *reader.frame_shape), reader.dtype)
        reader.check_files(number, number + 1)
        reader.read(number, frames)
        return frames.reshape(reader.frame_shape)

    maximum = None
    if is_wide(reader.dtype):
        maximum = largest_pixel(sampled(range(len(lost)), reader.grid.row_bytes), read)
    return decide_scale(reader.dtype, options.full_scale, full_scale_in(facts, reader.dtype), maximum)


def _fingerprint(frames: ArrayFact, grid: Grid, files: ChunkFiles, stamps: Stamps | None) -> str:
    """Return what tells this recording from another; attributes of the group, such as its sample, may change."""
    fingerprint = Fingerprint(frames.path)
    add_to_fingerprint(fingerprint, grid, files, documents=frames.documents)
    fingerprint.add_stamps(stamps.ns if stamps else None)
    return fingerprint.hexdigest()


def _name(store: Store, frames: ArrayFact, siblings: int) -> str:
    given = store.attributes.get("name")
    name = given if store.is_lake and isinstance(given, str) and given else run_name((store.path,))
    return name if siblings == 1 else f"{name} {frames.path.strip('/')}"


def _format(store: Store, frames: ArrayFact, stamps: Stamps | None) -> str:
    if store.is_lake:
        return "Zarr lake"
    return f"Zarr with {stamps.origin}" if stamps else f"Zarr {frames.path}"
