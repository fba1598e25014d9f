"""Frames out of Zarr arrays, in the process that asks for them."""

from __future__ import annotations

import math
import os
import stat
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype

from ingest.errors import FrameDataError, SourceChangedError
from ingest.sources.base import SourceSpec
from ingest.sources.memory import result_array
from ingest.sources.plain_file import is_overfull
from ingest.sources.reader import FramesReader
from ingest.sources.zarr_files import explain, open_array
from ingest.sources.zarr_layout import ArrayFact, list_arrays
from ingest.sources.zarr_times import is_lost, read_values

__all__ = ["MARKS", "MAX_KEPT_ROW_BYTES", "UNWRITTEN", "FrameArray", "ZarrSource", "open_source"]

BLOCK_BYTES = 32 * 2**20
MAX_KEPT_ROW_BYTES = 256 * 2**20
UNWRITTEN = "unwritten"
"""Option: what a chunk file that is not there means: ``"lost"`` frames, or the ``"fill"`` value."""
MARKS = "marks"
"""Option: the arrays, separated by spaces, that mark lost frames."""

# Of each thread: the Zarr chunks that were decompressed last, and what they are of. A run is read by many sources, one
# after the other, and each would decompress them again.
_local = threading.local()


class FrameArray:
    """An array of frames on the disk, read exactly: what is not there is an error, or known to be the fill value.

    Parameters
    ----------
    path : str
        The run, for messages.
    folder : str
        Where the array is.
    unwritten : {"lost", "fill"} or None
        What a missing chunk file means; None: none was missing when the run was inspected.

    Attributes
    ----------
    array : zarr.Array
        As zarr opened it.
    grid : Grid
        How it is stored.
    """

    def __init__(self, path: str, folder: str, unwritten: str | None) -> None:
        self.path = path
        self.array, self.grid = open_array(folder)
        self._unwritten = unwritten

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width in px."""
        height, width = self.grid.shape[-2:]
        return height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type, in the byte order of this machine."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    def check_files(self, start: int, stop: int) -> None:
        """Look whether all files of frames `start` to `stop` are there.

        Raises
        ------
        FrameDataError
            One is empty, which zarr may read as black frames; or missing, so that its frames were lost; or far larger
            than its frames.
        SourceChangedError
            One is missing that was there when the run was inspected.
        """
        for row in self.grid.rows(start, stop):
            for number in self._numbers(row):
                size_bytes = self._size(number)
                if size_bytes and is_overfull(size_bytes, self._file_bytes):
                    first, end = max(start, row * self.grid.outer[0]), min(stop, (row + 1) * self.grid.outer[0])
                    raise FrameDataError(
                        f"{self.path}: frames {first} to {end - 1} of the run: damaged: {self.grid.key(number)} has "
                        f"{size_bytes} bytes for {self._file_bytes} of pixels"
                    )
                if size_bytes or (size_bytes is None and self._unwritten == "fill"):
                    continue
                first, end = max(start, row * self.grid.outer[0]), min(stop, (row + 1) * self.grid.outer[0])
                what = "is not there" if size_bytes is None else "is empty"
                message = f"{self.path}: frames {first} to {end - 1} of the run: {self.grid.key(number)} {what}"
                if size_bytes is None and self._unwritten is None:
                    raise SourceChangedError(f"{message} any more")
                raise FrameDataError(message)

    @property
    def _file_bytes(self) -> int:
        """Size of the pixels of a file, and of a shard's index."""
        together = math.prod(self.grid.outer) // math.prod(self.grid.inner)
        return math.prod(self.grid.outer) * self.dtype.itemsize + (32 * together if together > 1 else 0)

    def _size(self, number: int) -> int | None:
        """Return the size of a file; None: there is none."""
        try:
            now = os.stat(self.grid.path(number))
        except OSError:
            return None
        return now.st_size if stat.S_ISREG(now.st_mode) else None

    def _numbers(self, row: int) -> range:
        return range(row * self.grid.tiles, (row + 1) * self.grid.tiles)

    def read(self, start: int, out: NDArray[Any]) -> None:
        """Fill `out`, (frame, y, x) of the stored type in this machine's byte order, with frames from `start` on.

        Raises
        ------
        FrameDataError
            Damaged frames, named by their numbers in the run.
        SourceReadError
            The operating system could not read; trying again may help.

        Notes
        -----
        Holds 10 decompressed Zarr chunks, or the row of them that covers one frame; where these cover many frames, the
        last row is kept for the next read of this thread, up to 256 MiB.
        """
        stop, together, total = start + len(out), self.grid.inner[0], self.grid.shape[0]
        block = max(1, BLOCK_BYTES // max(1, self.row_bytes)) * together
        position = start
        while position < stop:
            first = position // together * together
            row_end = min(first + together, total)
            if position == first and stop >= row_end:
                whole_rows = stop if stop == total else stop // together * together
                end = min(whole_rows, position + block)
                self._read(position, end, out[position - start : end - start])
            else:
                end = min(stop, row_end)
                out[position - start : end - start] = self._row(first, row_end)[position - first : end - first]
            position = end

    @property
    def row_bytes(self) -> int:
        """Size of what has to be decompressed for any one frame."""
        return self.grid.row_bytes(self.dtype.itemsize)

    def _row(self, first: int, end: int) -> NDArray[Any]:
        """Return the frames that are decompressed together, as they were kept, or anew."""
        states = [self._state(number) for number in self._numbers(first // self.grid.outer[0])]
        key = (self.grid, first, states)
        kept_key, kept = getattr(_local, "row", (None, None))
        if kept is not None and kept_key == key:
            values: NDArray[Any] = kept
            return values
        values = np.empty((end - first, *self.frame_shape), self.dtype)
        self._read(first, end, values)
        if values.nbytes <= MAX_KEPT_ROW_BYTES:
            _local.row = key, values
        return values

    def _state(self, number: int) -> tuple[int, int, int] | None:
        try:
            now = os.stat(self.grid.path(number))
        except OSError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns

    def _read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        try:
            self._select(start, stop, out)
        except Exception as error:
            first, end = self._find_damage(start, stop)
            explained = explain(f"{self.path}: frames {first} to {end - 1} of the run", error)
            raise explained from error

    def _select(self, start: int, stop: int, out: NDArray[Any]) -> None:
        where: Any = (slice(start, stop), *(0,) * (len(self.grid.shape) - 3), slice(None), slice(None))
        if np.dtype(self.array.dtype) == out.dtype and len(where) == 3:
            # Straight into the result, without an array of zarr's own in between.
            buffer = default_buffer_prototype().nd_buffer.from_numpy_array(out)
            self.array.get_basic_selection(where, out=buffer)
        else:
            out[...] = self.array[where]

    def _find_damage(self, start: int, stop: int) -> tuple[int, int]:
        """Return the first frames, of those that failed to read together, that fail by themselves."""
        together = self.grid.inner[0]
        position = start
        while position < stop:
            end = min((position // together + 1) * together, stop)
            try:
                self._select(position, end, np.empty((end - position, *self.frame_shape), self.dtype))
            except Exception:  # noqa: BLE001  what it was is known
                return position, end
            position = end
        return start, stop


def open_source(spec: SourceSpec) -> ZarrSource:
    """Open an inspected run for reading in this process; see `ZarrSource`."""
    return ZarrSource(spec)


class ZarrSource(FramesReader):
    """One run in a Zarr array; see `FramesReader`. Nothing is opened until frames are asked for, and no file kept open.

    Reading holds what `FrameArray.read` holds, too.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it: with scale and frame count.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    FrameDataError
        By `read`: frames that were lost or are damaged; NaN pixels.
    SourceChangedError
        By `read`: the array is not what it was when it was inspected.
    """

    block_bytes = BLOCK_BYTES

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec)
        self._path = spec.paths[0]
        self._folder = os.path.join(self._path, (spec.dataset or "").strip("/")).rstrip("/")
        unwritten = spec.option(UNWRITTEN)
        self._unwritten = None if unwritten is None else str(unwritten)
        self._marks = str(spec.option(MARKS) or "").split()
        self._opened: tuple[FrameArray, list[ArrayFact]] | None = None

    def _read(self, start: int, stop: int, memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        frames, marks = self._open()
        frames.check_files(start, stop)
        self._check_marks(marks, start, stop)
        out = result_array((stop - start, *frames.frame_shape), memory)
        self._read_scaled(frames.read, start, out, frames.dtype)
        return out

    def _open(self) -> tuple[FrameArray, list[ArrayFact]]:
        if self._opened is None:
            frames = FrameArray(self._path, self._folder, self._unwritten)
            shape, dtype = frames.grid.shape, frames.dtype.name
            if len(shape) < 3 or shape[0] < self.frames or dtype != self._scale.dtype:
                raise SourceChangedError(
                    f"{self._folder}: is {shape} {dtype}; {self.frames} frames of {self._scale.dtype} were there when "
                    "inspected"
                )
            known = [fact for fact in list_arrays(self._path).arrays if fact.path in self._marks] if self._marks else []
            self._opened = frames, known
        return self._opened

    def _check_marks(self, marks: list[ArrayFact], start: int, stop: int) -> None:
        for fact in marks:
            try:
                lost = is_lost(read_values(fact, start, stop), fact.attributes, fact.path)
            except FrameDataError as error:
                raise SourceChangedError(str(error)) from error
            if lost.any():
                first = start + int(np.argmax(lost))
                count = int(np.argmin(np.append(lost[first - start :], False)))
                raise FrameDataError(
                    f"{self._path}: frames {first} to {first + count - 1} of the run were lost when they were recorded "
                    f"({fact.path} says so)"
                )
