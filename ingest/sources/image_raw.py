"""Headerless frames: what the user says of them, against what the files hold."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import NoFramesError, SettingsError, TruncatedSourceError
from ingest.sources.assemble import RunFacts, run_name, source_info
from ingest.sources.base import ReaderOption, SourceInfo, SourceOptions, SourceSpec
from ingest.sources.hdf5_times import Stamps
from ingest.sources.image_common import sampled_maximum, steps_of
from ingest.sources.image_read import FLAT
from ingest.sources.lost import lost_frames
from ingest.sources.many_files import fingerprint_of_files, sizes_of
from ingest.sources.picture_names import elapsed_in_names, frame_numbers_in, stamps_in_names
from ingest.sources.plain_file import MAX_FRAME_BYTES
from ingest.sources.scale import decide_scale, is_wide
from ingest.timing import Finding

__all__ = ["RAW_HINT", "RawLayout", "inspect_raw", "raw_layout"]

RAW_HINT = "pass --raw-shape HEIGHTxWIDTH --raw-dtype '>u2' (the file's own), and --raw-header-bytes if it has a header"


@dataclass(frozen=True, slots=True)
class RawLayout:
    """Headerless frames, as the user describes them."""

    height_px: int
    width_px: int
    dtype: np.dtype[Any]
    header_bytes: int

    @property
    def frame_bytes(self) -> int:
        """Size of a frame."""
        return self.height_px * self.width_px * self.dtype.itemsize


def raw_layout(options: SourceOptions, path: str) -> RawLayout:
    """Return what the user says of headerless frames.

    Raises
    ------
    SettingsError
        Nothing, not all of it, or what cannot be.
    """
    if options.raw_shape is None or options.raw_dtype is None:
        raise SettingsError(f"{path}: has no header that says what its frames are", hint=RAW_HINT)
    height_px, width_px = options.raw_shape
    try:
        dtype = np.dtype(options.raw_dtype)
    except TypeError as error:
        raise SettingsError(f"there is no pixel type {options.raw_dtype!r}", hint=RAW_HINT) from error
    if dtype.kind not in "uif" or dtype.itemsize > 8:
        raise SettingsError(f"pixels of type {options.raw_dtype!r} have no grey value", hint=RAW_HINT)
    if height_px < 1 or width_px < 1 or options.raw_header_bytes < 0:
        raise SettingsError(
            f"raw frames of {height_px} x {width_px} px after {options.raw_header_bytes} bytes cannot be", hint=RAW_HINT
        )
    layout = RawLayout(height_px, width_px, dtype, options.raw_header_bytes)
    if layout.frame_bytes > MAX_FRAME_BYTES:
        raise SettingsError(
            f"raw frames of {height_px} x {width_px} px have {layout.frame_bytes / 1e6:.0f} MB; at most 512 MB can be",
            hint=RAW_HINT,
        )
    return layout


def inspect_raw(spec: SourceSpec, options: SourceOptions) -> SourceInfo:
    """Find out what a run of headerless frames is.

    Parameters
    ----------
    spec : SourceSpec
        One file of any number of frames, or files of one frame each.
    options : SourceOptions
        Shape and type of the frames.

    Returns
    -------
    SourceInfo
        Times by the names, where these have some.

    Raises
    ------
    SettingsError
        As `raw_layout`.
    TruncatedSourceError
        A single file that is smaller than a frame.
    NoFramesError
        Several files, all of them smaller.
    SourceReadError
        A file cannot be read.

    Notes
    -----
    Reads 18 x 64 KiB of up to 18 files, and for pixels wider than 8 bit up to 16 frames.
    """
    layout = raw_layout(options, spec.paths[0])
    sizes_bytes = sizes_of(spec.paths)
    findings: list[Finding] = []
    counts, good = _counted(spec.paths, sizes_bytes, layout, findings)
    known: dict[str, ReaderOption] = {
        "dtype": layout.dtype.str,
        "form": FLAT,
        "height_px": layout.height_px,
        "offset": layout.header_bytes,
        "one_each": len(spec.paths) > 1,
        "stride": layout.frame_bytes,
        "width_px": layout.width_px,
    }
    bare = SourceSpec(spec.kind, spec.paths, spec.dataset, file_frames=counts, options=tuple(known.items()))
    maximum = sampled_maximum(bare, layout.dtype, good) if is_wide(layout.dtype) else None
    scale, more = decide_scale(layout.dtype, options.full_scale, None, maximum)
    stamps = _stamps(spec.paths, options, findings)
    facts = RunFacts(
        spec=replace(bare, scale=scale),
        name=str(spec.option("name") or run_name(spec.paths)),
        format=f"headerless {layout.dtype.str.lstrip('|')}",
        height_px=layout.height_px,
        width_px=layout.width_px,
        pixel_bytes=layout.dtype.itemsize,
        fingerprint=fingerprint_of_files(spec.paths, sizes_bytes, steps_of(stamps)),
        stamps=stamps,
        file_name=os.path.basename(spec.paths[0]),
        mtime_path=spec.paths[-1],
        frame_numbers=frame_numbers_in(spec.paths) if len(spec.paths) > 1 and stamps is None else None,
        findings=(*findings, *more),
    )
    return source_info(facts, options)


def _counted(
    paths: Sequence[str], sizes_bytes: NDArray[np.int64], layout: RawLayout, findings: list[Finding]
) -> tuple[tuple[int, ...], Sequence[int]]:
    """Return the frames of each file, and the numbers of those that are whole."""
    needed = layout.header_bytes + layout.frame_bytes
    if len(paths) > 1:
        short = {
            i: f"{os.path.basename(paths[i])} has {sizes_bytes[i]} bytes; a frame takes {needed}"
            for i in np.flatnonzero(sizes_bytes < needed).tolist()
        }
        if len(short) == len(paths):
            raise NoFramesError(f"{paths[0]}: {short[0]}, and so it is with all {len(paths)} files", hint=RAW_HINT)
        findings += lost_frames(short)
        over = np.flatnonzero(sizes_bytes > needed)
        if len(over):
            i = int(over[0])
            message = f"{len(over)} files are longer than a frame of {needed} bytes ({os.path.basename(paths[i])}: "
            findings.append(Finding("raw shape", f"{message}{sizes_bytes[i]}): is --raw-shape right?", i))
        return (1,) * len(paths), [i for i in range(len(paths)) if i not in short]
    size = int(sizes_bytes[0])
    if size < needed:
        raise TruncatedSourceError(f"{paths[0]}: has {size} bytes; one frame takes {needed}", hint=RAW_HINT)
    frames, rest = divmod(size - layout.header_bytes, layout.frame_bytes)
    if rest:
        message = (
            f"after {frames} frames {rest} of {layout.frame_bytes} bytes are left: the last frame is cut, or "
            "--raw-shape, --raw-dtype or --raw-header-bytes is wrong"
        )
        findings.append(Finding("cut frame", message))
    return (frames,), range(frames)


def _stamps(paths: Sequence[str], options: SourceOptions, findings: list[Finding]) -> Stamps | None:
    names = [os.path.basename(path) for path in paths]
    stamps, more = stamps_in_names(names, options.timezone)
    if stamps is None and not more and options.fps is None:
        stamps, more = elapsed_in_names(names)
    findings += more
    return stamps
