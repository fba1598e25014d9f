"""Synthetic growth runs written as HDF5 files, in the layouts that labs have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Literal

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.errors import SettingsError
from ingest.sources.facts import FILE_END, FILE_START
from ingest.sources.hdf5_times import EPICS_EPOCH_S
from ingest.sources.synthetic import NS, GrowthRun

__all__ = ["Layout", "write_hdf5"]

Layout = Literal["areadetector", "frames_timestamps", "chunk_files"]
BLOCK_BYTES = 16 * 2**20
MS = 1_000_000


def write_hdf5(
    path: str | os.PathLike[str],
    run: GrowthRun,
    layout: Layout = "areadetector",
    *,
    hdf5_chunk_frames: int | None = 1,
    compression: str | None = None,
    frames_per_file: int = 50,
) -> list[str]:
    """Write a growth run as HDF5, block by block.

    Parameters
    ----------
    path : str or path
        The file; for ``"chunk_files"`` a folder, which is made. Files of these names are overwritten.
    run : GrowthRun
        What to write.
    layout : {"areadetector", "frames_timestamps", "chunk_files"}
        EPICS areaDetector's default layout with its 1990 epoch (ADCore NDFileHDF5LayoutXML.cpp); ``/frames`` and
        ``/timestamps`` in Unix seconds; or Atomscale chunk files (FORMATS.md 1.5), which keep only each file's span.
    hdf5_chunk_frames : int or None
        Frames that are stored together; None: contiguous.
    compression : str or None
        One of h5py's: ``"gzip"``, ``"lzf"``.
    frames_per_file : int
        For chunk files.

    Returns
    -------
    list of str
        The files, in order of capture.

    Raises
    ------
    SettingsError
        There is no such layout, or compression without hdf5_chunks.
    OSError
        A file cannot be written.

    Notes
    -----
    Holds 16 MiB of frames, or one hdf5_chunk if that is more, and 8 bytes per frame and column.
    """
    if compression is not None and hdf5_chunk_frames is None:
        raise SettingsError("contiguous HDF5 datasets cannot be compressed", hint="give hdf5_chunk_frames")
    storage = {"hdf5_chunk_frames": hdf5_chunk_frames, "compression": compression}
    if layout == "chunk_files":
        return _write_chunk_files(os.fspath(path), run, frames_per_file, storage)
    if layout not in ("areadetector", "frames_timestamps"):
        raise SettingsError(f"there is no layout {layout!r}", hint="areadetector, frames_timestamps or chunk_files")
    with h5py.File(path, "w") as file:
        if layout == "areadetector":
            _write_areadetector(file, run, storage)
        else:
            _write_frames(file, "frames", run, 0, run.count, storage)
            column = file.create_dataset("timestamps", data=run.timestamps_ns() / NS)
            column.attrs["units"] = "s"
            file.create_group("metadata").attrs["source_fps"] = run.fps
    return [os.fspath(path)]


def _blocks(run: GrowthRun, start: int, stop: int, hdf5_chunk_frames: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    frame_bytes = run.height_px * run.width_px
    block = max(1, BLOCK_BYTES // frame_bytes // hdf5_chunk_frames) * hdf5_chunk_frames
    for begin in range(start, stop, block):
        yield begin - start, run.frames(begin, min(begin + block, stop))


def _write_frames(group: Any, name: str, run: GrowthRun, start: int, stop: int, storage: dict[str, Any]) -> Any:
    frames = stop - start
    together = storage["hdf5_chunk_frames"]
    dataset = group.create_dataset(
        name,
        (frames, run.height_px, run.width_px),
        np.uint8,
        chunks=None if together is None else (min(together, frames), run.height_px, run.width_px),
        compression=storage["compression"],
    )
    for position, block in _blocks(run, start, stop, together or 1):
        dataset[position : position + len(block)] = block
    return dataset


def _write_areadetector(file: h5py.File, run: GrowthRun, storage: dict[str, Any]) -> None:
    entry = file.create_group("entry")
    instrument = entry.create_group("instrument")
    for group, nexus_class in ((entry, "NXentry"), (instrument, "NXinstrument")):
        group.attrs["NX_class"] = nexus_class
    detector = instrument.create_group("detector")
    detector.attrs["NX_class"] = "NXdetector"
    frames = _write_frames(detector, "data", run, 0, run.count, storage)
    frames.attrs["signal"] = 1
    data = entry.create_group("data")
    data.attrs["NX_class"] = "NXdata"
    data["data"] = frames  # a hard link, as ADCore makes it
    stamps_ns = run.timestamps_ns() - EPICS_EPOCH_S * NS
    columns = instrument.create_group("NDAttributes")
    columns.attrs["NX_class"] = "NXcollection"
    columns["NDArrayEpicsTSSec"] = (stamps_ns // NS).astype(np.uint32)
    columns["NDArrayEpicsTSnSec"] = (stamps_ns % NS).astype(np.uint32)
    columns["NDArrayTimeStamp"] = stamps_ns / NS
    columns["NDArrayUniqueId"] = (run.frame_numbers() + 1).astype(np.int32)


def _write_chunk_files(folder: str, run: GrowthRun, frames_per_file: int, storage: dict[str, Any]) -> list[str]:
    os.makedirs(folder, exist_ok=True)
    stamps_ms = run.timestamps_ns() // MS
    period_ms = round(1000 / run.fps)
    paths = []
    for start in range(0, run.count, frames_per_file):
        stop = min(start + frames_per_file, run.count)
        path = os.path.join(folder, f"{stop}.h5")
        with h5py.File(path, "w") as file:
            _write_frames(file, "frames", run, start, stop, storage)
            end_ms = int(stamps_ms[stop - 1]) + period_ms
            texts = {
                "data_stream": "rheed",
                "data_id": f"synthetic-{run.seed}",
                FILE_START: str(stamps_ms[start]),
                FILE_END: str(end_ms),
                "raw_frame_rate": str(run.fps),
                "avg_frame_rate": str(run.fps),
                "is_rotating": "0",
            }
            for name, text in texts.items():
                file.attrs[name] = np.bytes_(text)
        paths.append(path)
    return paths
