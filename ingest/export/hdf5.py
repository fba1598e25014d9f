"""A run as an HDF5 file in the way of NeXus: frames, times, and which frames were lost.

::

    /entry                NXentry; title, start_time; attributes of the run
    /entry/data           NXdata; @signal frames, @axes time . .
    /entry/data/frames    (frame, y, x) uint8, one hdf5_chunk a frame; one that was lost is not stored and reads as 0
    /entry/data/time      (frame,) int64, nanoseconds since 1970 (UTC); of a lost frame, where it would have been
    /entry/data/frame_index (frame,) int64, the recorder's own count, or 0, 1, ...; -1: lost
    /entry/data/lost      (frame,) uint8, 1: lost

Source: nexusformat/definitions, NXentry and NXdata.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.export.base import CREATOR, ExportOptions, RunToWrite, iso_ns, runs_of
from ingest.timing import Finding

__all__ = ["Hdf5Writer", "open_writer"]

ZLIB_LEVEL = 1
NOT_A_FRAME = -1


class Hdf5Writer:
    """Writes one HDF5 file that any HDF5 library reads: no compression, or gzip, which each of them has.

    Holds a byte per frame, and 8 while it writes a column. See `ingest.export.base.FrameWriter`.
    """

    def __init__(self, path: Path, run: RunToWrite, options: ExportOptions) -> None:
        self._run = run
        self._present = np.zeros(run.shape[0], bool)
        # Frames are written whole: a cache would only copy them, and tell of a full disk late.
        self._file: Any = h5py.File(path, "w", rdcc_nbytes=0)
        self._frames: Any = self._file.create_dataset(
            "entry/data/frames",
            shape=run.shape,
            dtype=np.uint8,
            chunks=(1, *run.shape[1:]),
            fillvalue=0,
            **({"compression": "gzip", "compression_opts": ZLIB_LEVEL} if options.compression == "zlib" else {}),
        )

    def write(self, first: int, frames: NDArray[np.uint8], present: NDArray[np.bool_]) -> None:
        """Store what is present."""
        self._present[first : first + len(frames)] = present
        for begin, end in runs_of(present):
            try:
                self._frames[first + begin : first + end] = frames[begin:end]
            except RuntimeError as error:  # what h5py makes of some HDF5 errors
                raise OSError(str(error)) from error

    def finish(self) -> tuple[Finding, ...]:
        """Write columns and attributes, and close the file."""
        run, data = self._run, self._file["entry/data"]
        numbers = np.arange(run.shape[0]) if run.info.frame_numbers is None else run.info.frame_numbers
        try:
            time = data.create_dataset("time", data=run.since_ns + (run.start_ns or 0))
            time.attrs["units"] = "ns" if run.start_ns is None else "nanoseconds since 1970-01-01T00:00:00Z"
            index = data.create_dataset("frame_index", data=np.where(self._present, numbers, NOT_A_FRAME))
            index.attrs["long_name"] = "number of the frame by the recorder's count; -1: lost"
            lost = data.create_dataset("lost", data=(~self._present).astype(np.uint8))
            lost.attrs["long_name"] = "1: the frame was lost, its pixels are no measurement"
            self._describe()
            self._file.close()
        except RuntimeError as error:
            raise OSError(str(error)) from error
        return ()

    def _describe(self) -> None:
        run, root = self._run, self._file
        root.attrs.update({"default": "entry", "creator": CREATOR})
        entry, data = root["entry"], root["entry/data"]
        entry.attrs.update({"NX_class": "NXentry", "default": "data", **run.provenance()})
        entry["title"] = run.info.name
        if run.start_ns is not None:
            entry["start_time"] = iso_ns(run.start_ns)
        data.attrs.update({"NX_class": "NXdata", "signal": "frames", "axes": ["time", ".", "."]})
        data.attrs.update({"time_indices": 0, "frame_index_indices": 0, "lost_indices": 0})
        self._frames.attrs.update({"long_name": "intensity", "units": "counts"})
        self._frames.attrs["frames_lost"] = int(np.count_nonzero(~self._present))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with suppress(OSError, RuntimeError):
            self._file.close()


def open_writer(path: Path, run: RunToWrite, options: ExportOptions) -> Hdf5Writer:
    """Open a file for writing; see `Hdf5Writer`."""
    return Hdf5Writer(path, run, options)
