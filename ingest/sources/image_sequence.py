"""Runs of very many files of one picture each: what they are, by a few of them and by what lies beside them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SourceError, SourceFormatError, TruncatedSourceError
from ingest.frames import FrameScale
from ingest.sources.assemble import RunFacts, run_name, source_info
from ingest.sources.base import ReaderOption, SourceInfo, SourceOptions, SourceSpec
from ingest.sources.facts import Fact
from ingest.sources.fingerprint import spread
from ingest.sources.hdf5_times import Stamps
from ingest.sources.image_common import (
    as_format_error,
    decide_colour,
    sampled_maximum,
    steps_of,
    usable_start,
)
from ingest.sources.image_files import PictureHead, picture_head, picture_pixels
from ingest.sources.image_read import PICTURES, SEVERAL_TYPES
from ingest.sources.image_sidecars import full_scale_said, read_frame_table, read_recording
from ingest.sources.lost import lost_frames
from ingest.sources.many_files import fingerprint_of_files, sizes_of
from ingest.sources.picture_names import frame_numbers_in, stamps_in_names
from ingest.sources.plain_file import PlainFile
from ingest.sources.scale import decide_scale, is_wide, largest_pixel, sample_frames, sampled
from ingest.sources.tiff_ifd import Tiff
from ingest.sources.tiff_stack import page_time
from ingest.sources.tiff_times import PAGE_TIMES, START_NAMES, json_facts, rate_said
from ingest.sources.time_texts import stamps_of
from ingest.timing import Finding

__all__ = ["inspect_sequence"]

EXAMINED = 18
MAX_SUSPECTS = 32
MAX_ODD_PART = 10


@dataclass
class _Look:
    """What a sequence was found to be; `lost` has a reason for each frame that is known not to be readable."""

    paths: tuple[str, ...]
    sizes_bytes: NDArray[np.int64]
    heads: dict[int, PictureHead]
    lost: dict[int, str]
    shape: tuple[int, int] = (0, 0)
    is_colour: bool = False
    dtype: np.dtype[Any] = np.dtype("u1")  # noqa: RUF009  immutable

    @property
    def is_pgm(self) -> bool:
        """Whether the pictures are PGM files."""
        return any(head.format == "PGM" for head in self.heads.values())

    @property
    def good(self) -> list[int]:
        """Frames that are not known to be lost."""
        return [i for i in range(len(self.paths)) if i not in self.lost]

    @property
    def run_heads(self) -> list[PictureHead]:
        """Headers of pictures that are of the run."""
        return [head for i, head in self.heads.items() if i not in self.lost]


def inspect_sequence(spec: SourceSpec, options: SourceOptions) -> SourceInfo:
    """Find out what a sequence of pictures is.

    Parameters
    ----------
    spec : SourceSpec
        One picture a file, in order of capture.
    options : SourceOptions
        What the user says of it.

    Returns
    -------
    SourceInfo
        A picture that is empty, cut or of another size is a lost frame: it keeps its place.

    Raises
    ------
    TruncatedSourceError
        Most files are empty.
    SourceFormatError
        None of them is a picture; pictures of several sizes; colour, and nobody says what to take of it.
    MissingFilterError
        Compressed in a way that nothing installed here can undo.
    SourceReadError
        A file cannot be read.
    SourceTimeError, SettingsError
        See `resolve_start` and `local_to_unix_ns`.

    Notes
    -----
    Reads the size of every file, the headers of 18, decodes one and up to 32 that are suspiciously small, and up to 16
    that are wider than 8 bit; those of all TIFFs only if the first one says when it was taken. Holds about 300 bytes a
    file.
    """
    look = _examine(spec.paths)
    findings: list[Finding] = []
    known: dict[str, ReaderOption] = {"form": PICTURES, "height_px": look.shape[0], "width_px": look.shape[1]}
    _decode_some(look)
    if look.is_pgm:
        known[SEVERAL_TYPES] = True
    if look.is_colour:
        numbers = [look.good[i] for i in spread(len(look.good), EXAMINED)]
        colour, finding = decide_colour(spec.paths[0], options, numbers, lambda i: picture_pixels(spec.paths[i]))
        known["colour"] = colour
        findings.append(finding)
    if any(head.is_inverted for head in look.run_heads):
        findings.append(Finding("inverted", "0 is white in these files: their values are turned over"))
    findings = lost_frames(look.lost) + findings
    table = read_frame_table(spec.paths, options.timezone)
    facts = _facts_beside(spec.paths, table is None or table.is_of_run, findings)
    own = _first_facts(look)
    bare = SourceSpec(
        spec.kind, spec.paths, spec.dataset, file_frames=(1,) * len(spec.paths), options=tuple(sorted(known.items()))
    )
    scale = _scale(bare, look, {**own, **facts}, options, findings)
    stamps, numbers_ns = None, frame_numbers_in(spec.paths)
    if table is not None:
        findings += table.findings
        stamps = table.stamps
        numbers_ns = numbers_ns if table.frame_numbers is None else table.frame_numbers
    stamps = stamps or _stamps(look, options.timezone, findings)
    start = usable_start(_start(look, own, facts), options.timezone, findings)
    head = look.run_heads[0]
    return source_info(
        RunFacts(
            spec=replace(bare, scale=scale),
            name=str(spec.option("name") or run_name(spec.paths)),
            format=f"{head.format} {'pictures' if len(spec.paths) > 1 else 'picture'}",
            height_px=look.shape[0],
            width_px=look.shape[1],
            pixel_bytes=look.dtype.itemsize,
            fingerprint=fingerprint_of_files(spec.paths, look.sizes_bytes, steps_of(stamps)),
            stamps=stamps,
            attribute=None if start is None else start[1],
            attribute_name="start_time" if start is None else start[0],
            file_name=os.path.basename(spec.paths[0]),
            mtime_path=spec.paths[-1],
            fps_claimed=rate_said({**own, **facts}),
            frame_numbers=numbers_ns,
            findings=tuple(findings),
        ),
        options,
    )


def _examine(paths: tuple[str, ...]) -> _Look:
    """Look at sizes of all, and at the headers of some."""
    look = _Look(paths, sizes_of(paths), {}, {})
    empty = np.flatnonzero(look.sizes_bytes == 0).tolist()
    look.lost = dict.fromkeys(empty, "the file is empty")
    if 2 * len(empty) > len(paths):
        raise TruncatedSourceError(
            f"{paths[empty[0]]}: is empty, and so are {len(empty) - 1} more of {len(paths)} files",
            hint="copy them again from where they were recorded",
        )
    problem: SourceError | None = None
    good = look.good
    for i in sorted({*(good[k] for k in spread(len(good), EXAMINED)), *_suspects(look)}):
        try:
            look.heads[i] = picture_head(paths[i])
        except FrameDataError as error:
            problem = problem or error
            look.lost[i] = str(error)
    if not look.heads:
        raise as_format_error(problem or TruncatedSourceError(f"{paths[0]}: is empty"))
    _decide_kind(look)
    return look


def _suspects(look: _Look) -> list[int]:
    """Return files that are much smaller than most, or at all where most are of one size."""
    sizes = look.sizes_bytes
    usual, count = Counter(sizes.tolist()).most_common(1)[0]
    limit = usual if 2 * count > len(sizes) else float(np.median(sizes)) / 2
    small = np.flatnonzero((sizes > 0) & (sizes < limit))
    return [int(i) for i in small[np.argsort(sizes[small], kind="stable")][:MAX_SUSPECTS]]


def _decide_kind(look: _Look) -> None:
    """Choose size and type of most; the others are lost, or, where there are many, too many."""
    heads = look.heads
    (look.shape, look.is_colour), _ = Counter((head.shape, head.is_colour) for head in heads.values()).most_common(1)[0]
    odd = {i: head for i, head in heads.items() if head.shape != look.shape or (head.is_colour and not look.is_colour)}
    dtypes = [head.dtype for i, head in heads.items() if i not in odd]
    if look.is_pgm:  # each names its own maximum, by which it takes one byte or two a pixel
        look.dtype = max(dtypes, key=lambda dtype: dtype.itemsize)
    else:
        look.dtype, _ = Counter(dtypes).most_common(1)[0]
        odd |= {i: head for i, head in heads.items() if head.dtype.itemsize != look.dtype.itemsize}
    if len(odd) > max(2, len(heads) // MAX_ODD_PART) or 2 * len(odd) >= len(heads):
        i, head = next(iter(odd.items()))
        usual = next(k for k in heads if k not in odd)
        raise SourceFormatError(
            f"{look.paths[i]}: {_kind_text(head)}, but {look.paths[usual]}: {_kind_text(heads[usual])}; a run has one",
            hint="ingest them as runs of their own: keep them in folders of their own, or name them apart",
        )
    usual_text = f"{look.shape[1]} x {look.shape[0]} px {look.dtype.name}"
    look.lost |= {i: f"{_kind_text(head)} among {usual_text}" for i, head in odd.items()}


def _kind_text(head: PictureHead) -> str:
    return f"{head.width_px} x {head.height_px} px {'colour' if head.is_colour else 'grey'} {head.dtype.name}"


def _decode_some(look: _Look) -> None:
    """Decode a picture, so that what cannot be decoded here is known; and the suspiciously small ones."""
    for i in _suspects(look):
        if i not in look.lost:
            try:
                picture_pixels(look.paths[i])
            except FrameDataError as error:
                look.lost[i] = str(error)
    good = look.good
    some = [good[k] for k in spread(len(good), EXAMINED)]
    (first,) = sample_frames(some, lambda i: picture_pixels(look.paths[i]), enough=1)
    if any(head.format == "TIFF" for head in look.run_heads):
        look.dtype = max((look.dtype, first.dtype.newbyteorder("=")), key=lambda dtype: dtype.itemsize)


def _facts_beside(paths: Sequence[str], is_of_run: bool, findings: list[Finding]) -> dict[str, Fact]:
    if not is_of_run:
        return {}
    facts, more = read_recording(os.path.dirname(paths[0]))
    findings += more
    return facts


def _first_facts(look: _Look) -> dict[str, Fact]:
    """Return what the first TIFF's JSON description says."""
    first = look.good[0]
    if look.run_heads[0].format != "TIFF":
        return {}
    try:
        with PlainFile(look.paths[first]) as file:
            tiff = Tiff(file)
            return json_facts(tiff.descriptions(tiff.page(tiff.first)[0]))
    except FrameDataError:
        return {}


def _time_of(path: str) -> tuple[str, Any] | None:
    try:
        with PlainFile(path) as file:
            tiff = Tiff(file)
            return page_time(tiff, tiff.page(tiff.first)[0])
    except FrameDataError:
        return None


def _stamps(look: _Look, timezone: str | None, findings: list[Finding]) -> Stamps | None:
    """Return times by what the program wrote into each picture, else by their names, else by a date in each."""
    good = look.good
    name = None
    if len(good) > 1 and look.run_heads[0].format == "TIFF":
        first, last = _time_of(look.paths[good[0]]), _time_of(look.paths[good[-1]])
        if first is not None and last is not None and first[0] == last[0] and first[1] != last[1]:
            name = first[0]
    stamps = _stamps_within(look, name, timezone, findings) if name in PAGE_TIMES else None
    if stamps is not None:
        return stamps
    stamps, more = stamps_in_names([os.path.basename(path) for path in look.paths], timezone)
    findings += more
    if stamps is not None or name is None or name in PAGE_TIMES:
        return stamps
    return _stamps_within(look, name, timezone, findings)


def _stamps_within(look: _Look, name: str | None, timezone: str | None, findings: list[Finding]) -> Stamps | None:
    times = [_time_of(path) for path in look.paths]
    values = [None if time is None or time[0] != name else time[1] for time in times]
    unit = str(name).rpartition("_")[2]
    return stamps_of(values, f"{name} in each picture", timezone, findings, unit if unit in ("s", "ms", "ns") else None)


def _start(look: _Look, own: dict[str, Fact], facts: dict[str, Fact]) -> tuple[str, Fact] | None:
    """Return what says when the run began: the first picture, else ``recording.json``."""
    if 0 not in look.lost and look.run_heads[0].format == "TIFF":
        time = _time_of(look.paths[0])
        if time is not None:
            return time
    for said, where in ((own, ""), (facts, " in recording.json")):
        name = next((name for name in START_NAMES if name in said), None)
        if name is not None:
            return f"{name}{where}", said[name]
    return None


def _scale(
    bare: SourceSpec, look: _Look, facts: dict[str, Fact], options: SourceOptions, findings: list[Finding]
) -> FrameScale:
    said = full_scale_said(facts) if is_wide(look.dtype) else None
    maxima = {head.maximum for head in look.run_heads if head.maximum is not None}
    maximum = None
    if maxima:
        said, maximum = _pgm_scale(look, maxima, said, findings)
    elif is_wide(look.dtype):
        maximum = sampled_maximum(bare, look.dtype, look.good)
    scale, more = decide_scale(look.dtype, options.full_scale, said, maximum)
    findings += more
    return scale


def _pgm_scale(
    look: _Look, maxima: set[int], said: float | None, findings: list[Finding]
) -> tuple[float | None, float | None]:
    """Return what is white in PGM files, and the sampled maximum; widen the type where values do not fit it."""
    numbers = sampled(look.good, look.shape[0] * look.shape[1] * 2)
    maximum = largest_pixel(numbers, lambda i: picture_pixels(look.paths[i])) or 0.0
    if maximum > 255:
        look.dtype = np.dtype("u2")
    white = max(maxima)
    if said is not None:
        return said, maximum
    if maximum > white:
        message = f"pixels up to {maximum:g} were seen, above the maximum {white} that the files themselves name"
        findings.append(Finding("scale", f"{message}: the scale is by what was seen"))
        return None, maximum
    if len(maxima) > 1:
        message = f"the files name different maxima ({min(maxima)} to {white}): taken as each picture's brightest pixel"
        findings.append(Finding("scale", message))
        return None, float(white)
    return (None if white == 255 and look.dtype == np.uint8 else float(white)), maximum
