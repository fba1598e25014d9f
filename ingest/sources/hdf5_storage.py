"""Whether the frames that an HDF5 header promises are really stored, and readable here."""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, MissingFilterError, SourceFormatError, TruncatedSourceError
from ingest.sources.hdf5_file import MAX_ROW_BYTES, chunk_row_bytes, file_size_bytes
from ingest.sources.hdf5_virtual import missing_frames
from ingest.sources.plain_file import MAX_FRAME_BYTES, is_overfull
from ingest.sources.urls import is_url
from ingest.timing import Finding

__all__ = ["check_chunks", "check_filters", "check_frame_size", "stored_frames", "stored_rows"]

# Registered at https://github.com/HDFGroup/hdf5_plugins (RegisteredFilterPlugins.md); ids as in FORMATS.md 4.
FILTER_NAMES = {
    1: "gzip", 2: "shuffle", 3: "fletcher32", 4: "szip", 5: "nbit", 6: "scaleoffset", 32000: "lzf", 32001: "blosc",
    32004: "lz4", 32008: "bitshuffle", 32013: "zfp", 32015: "zstd", 32019: "jpeg", 32026: "blosc2",
}  # fmt: skip


def check_filters(dataset: Any, where: str) -> None:
    """Refuse a dataset that needs an HDF5 filter which is not installed.

    Parameters
    ----------
    dataset : h5py.Dataset
        The frames.
    where : str
        File and dataset, for messages.

    Raises
    ------
    MissingFilterError
        Names the filter's id and name. An optional filter that no hdf5_chunk went through is let pass.
    """
    plan = dataset.id.get_create_plist()
    for position in range(plan.get_nfilters()):
        code, _, _, name = plan.get_filter(position)
        if h5py.h5z.filter_avail(code) or not _is_used(dataset, position):
            continue
        label = name.decode("utf-8", "replace") or FILTER_NAMES.get(code, "unknown")
        raise MissingFilterError(
            f"{where}: compressed with HDF5 filter {code} ({label}), which is not installed",
            hint=f"install a plugin for filter {code} and set HDF5_PLUGIN_PATH, or repack with `h5repack -f GZIP=1`",
        )


def _is_used(dataset: Any, position: int) -> bool:
    # What the callback returns ends the iteration, unless it is None.
    return bool(dataset.id.chunk_iter(lambda chunk: None if chunk.filter_mask >> position & 1 else True))


def stored_frames(dataset: Any, path: str, where: str) -> tuple[int, tuple[Finding, ...]]:
    """Count the frames that are stored, which may be fewer than the header promises.

    Parameters
    ----------
    dataset : h5py.Dataset, (frame, y, x)
        The frames.
    path : str
        The file.
    where : str
        File and dataset, for messages.

    Returns
    -------
    frames : int
        Up to the last frame that was written.
    findings : tuple of Finding
        ``"unwritten frames"``: promised ones at the end, left out; or holes, which read as the fill value.

    Raises
    ------
    TruncatedSourceError
        Nothing, or less than half of what the header promises, is stored; or data lie beyond the end of the file.
    SourceFormatError
        Frames over 512 MB, or hdf5_chunks that together take over 1 GiB for one frame.
    NoFramesError
        A virtual dataset one of whose files is missing.

    Notes
    -----
    Holds 8 bytes per hdf5_chunk where some are missing or the file was never closed; a byte per frame of a virtual
    dataset; else nothing.
    """
    frames = int(dataset.shape[0])
    if not is_url(path):
        path = dataset.file.filename  # an external link may have led elsewhere
    check_frame_size(dataset, where)
    if chunk_row_bytes(dataset) > MAX_ROW_BYTES and dataset.id.get_create_plist().get_nfilters():
        raise SourceFormatError(
            f"{where}: hdf5_chunks {dataset.chunks}: {chunk_row_bytes(dataset)} bytes to decompress for any frame",
            hint=f"repack it: `h5repack -l CHUNK=1x{dataset.shape[1]}x{dataset.shape[2]}`",
        )
    if dataset.is_virtual:
        return _kept(~missing_frames(dataset, path, where), frames, where)
    if dataset.id.get_storage_size() == 0:
        raise _unwritten(where, frames, 0)
    if dataset.chunks is None:
        if (offset := dataset.id.get_offset()) is not None:
            _check_inside(offset + dataset.id.get_storage_size(), path, where)
        return frames, ()
    if dataset.file.swmr_mode:
        # Of others HDF5 itself compares the size with the header's when it opens them. Past the end it reads zeros.
        ends: list[int] = []
        dataset.id.chunk_iter(lambda chunk: ends.append(chunk.byte_offset + chunk.size))
        _check_inside(max(ends, default=0), path, where)
    return _count_chunks(dataset, where)


def stored_rows(dataset: Any) -> int:
    """Count the rows of a column up to the last that is stored; none where less than half of these are.

    Parameters
    ----------
    dataset : h5py.Dataset, (row,) or (row, 1)
        The column.

    Returns
    -------
    int
        All of them for virtual columns, and for contiguous ones that have a place in the file. Holds 8 bytes per
        hdf5_chunk where some are missing.
    """
    rows = int(dataset.shape[0])
    if dataset.is_virtual:
        return rows
    if dataset.id.get_storage_size() == 0:
        return 0
    if dataset.chunks is None or dataset.id.get_num_chunks() == -(-rows // dataset.chunks[0]):
        return rows
    begins: list[int] = []
    dataset.id.chunk_iter(lambda chunk: begins.append(int(chunk.chunk_offset[0])))
    end = max(begins) + int(dataset.chunks[0])
    return min(rows, end) if 2 * len(begins) * int(dataset.chunks[0]) >= end else 0


def check_chunks(dataset: Any, start: int, stop: int, where: str, first: int = 0) -> None:
    """Refuse frames whose compressed hdf5_chunks are far larger than their pixels, before they are decompressed.

    Parameters
    ----------
    dataset : h5py.Dataset, (frame, y, x)
        The frames.
    start, stop : int
        Which of them, `stop` exclusive.
    where : str
        The file, for messages.
    first : int
        The run's number of the dataset's frame 0.

    Raises
    ------
    FrameDataError
        Names the frames.
    """
    if dataset.chunks is None or dataset.is_virtual or not dataset.id.get_create_plist().get_nfilters():
        return
    raw_bytes = math.prod(dataset.chunks) * dataset.dtype.itemsize
    if not is_overfull(dataset.id.get_storage_size(), raw_bytes):
        return
    together = dataset.chunks[0]
    tiles = [range(0, size, part) for size, part in zip(dataset.shape[1:], dataset.chunks[1:], strict=True)]
    for row in range(start // together * together, stop, together):
        for place in product(*tiles):
            size_bytes = dataset.id.get_chunk_info_by_coord((row, *place)).size
            if is_overfull(size_bytes, raw_bytes):
                begin, end = first + max(start, row), first + min(stop, row + together)
                raise FrameDataError(
                    f"{where}: frames {begin} to {end - 1} of the run: damaged: an hdf5_chunk of {size_bytes} bytes "
                    f"for {raw_bytes} of pixels"
                )


def check_frame_size(dataset: Any, where: str) -> None:
    """Refuse frames over 512 MB.

    Raises
    ------
    SourceFormatError
        They are larger.
    """
    frame_bytes = math.prod(int(n) for n in dataset.shape[1:]) * dataset.dtype.itemsize
    if frame_bytes > MAX_FRAME_BYTES:
        raise SourceFormatError(f"{where}: frames of {dataset.shape[1:]} {dataset.dtype}, {frame_bytes} bytes each")


def _count_chunks(dataset: Any, where: str) -> tuple[int, tuple[Finding, ...]]:
    frames = int(dataset.shape[0])
    chunk_frames = dataset.chunks[0]
    per_row = 1
    for size, part in zip(dataset.shape[1:], dataset.chunks[1:], strict=True):
        per_row *= -(-size // part)
    stored = dataset.id.get_num_chunks()
    if stored == -(-frames // chunk_frames) * per_row:
        return frames, ()
    rows: list[int] = []
    dataset.id.chunk_iter(lambda chunk: rows.append(chunk.chunk_offset[0] // chunk_frames))
    numbers, counts = np.unique(np.array(rows, np.int64), return_counts=True)
    used = int(numbers[-1]) + 1
    if 2 * len(rows) < used * per_row or 2 * used * chunk_frames < frames:
        raise _unwritten(where, frames, int(len(rows) / per_row * chunk_frames))
    whole = np.zeros(used, bool)
    whole[numbers[counts == per_row]] = True
    written = np.zeros(min(frames, used * chunk_frames), bool)
    written[:] = np.repeat(whole, chunk_frames)[: len(written)]
    return _kept(written, frames, where, even_last=True)


def _kept(
    written: NDArray[np.bool_], frames: int, where: str, *, even_last: bool = False
) -> tuple[int, tuple[Finding, ...]]:
    """Leave out what was not written at the end (but for a last one that is there in part), and count what lacks."""
    there = np.flatnonzero(written)
    kept = len(written) if even_last else int(there[-1]) + 1 if len(there) else 0
    if 2 * kept < frames or (2 * len(there) < kept and not even_last):
        raise _unwritten(where, frames, len(there))
    findings = []
    if kept < frames:
        message = f"{frames} frames promised, {kept} written: the last {frames - kept} are left out"
        findings.append(Finding("unwritten frames", message, kept))
    holes = np.flatnonzero(~written[:kept])
    if len(holes):
        message = f"{len(holes)} frames were never wholly written and read as the fill value"
        findings.append(Finding("unwritten frames", message, int(holes[0])))
    return kept, tuple(findings)


def _unwritten(where: str, frames: int, stored: int) -> TruncatedSourceError:
    return TruncatedSourceError(
        f"{where}: the header promises {frames} frames, about {stored} are stored",
        hint="if the recording was cut short, copy the frames that exist to a new file",
    )


def _check_inside(end: int, path: str, where: str) -> None:
    """Refuse data that lie beyond the file's end (a forged or cut file)."""
    size_bytes = file_size_bytes(path)
    if end > size_bytes:
        raise TruncatedSourceError(f"{where}: data end at byte {end}, the file at byte {size_bytes}")
