"""Frames out of Zarr arrays, in the process that asks for them."""

from __future__ import annotations

import os
import stat
import threading
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.buffer import default_buffer_prototype

from ingest.errors import FrameDataError, SourceChangedError, SourceError, SourceFormatError
from ingest.shard import pack
from ingest.sources.base import SourceSpec
from ingest.sources.memory import result_array
from ingest.sources.plain_file import is_overfull
from ingest.sources.reader import FramesReader
from ingest.sources.remote_folder import stat_or_none
from ingest.sources.urls import is_url
from ingest.sources.zarr_documents import Documents, documents_of, node_folder
from ingest.sources.zarr_encoded import EncodedFrames
from ingest.sources.zarr_files import explain, open_array
from ingest.sources.zarr_layout import ArrayFact, array_at
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
        Where the array is: a path or a URL.
    unwritten : {"lost", "fill"} or None
        What a missing chunk file means; None: none was missing when the run was inspected.
    documents : Documents, optional
        Its metadata, of an array at a URL; default: read there.

    Attributes
    ----------
    array : zarr.Array
        As zarr opened it.
    grid : Grid
        How it is stored.
    """

    def __init__(self, path: str, folder: str, unwritten: str | None, documents: Documents | None = None) -> None:
        self.path = path
        self.unwritten = unwritten
        self._is_remote = is_url(folder)
        held = documents or (documents_of([folder], kept=True)[0] if self._is_remote else None)
        self.array, self.grid = open_array(folder, held, gone=self._gone)

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width in px."""
        height, width = self.grid.shape[-2:]
        return height, width

    @property
    def dtype(self) -> np.dtype[Any]:
        """The stored type, in the byte order of this machine."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    @cached_property
    def encoded(self) -> EncodedFrames | None:
        """How its frames are read without decoding; None: they are stored in another way."""
        return EncodedFrames.of(self.array, self.grid)

    @cached_property
    def encoded_fill(self) -> bytes:
        """A frame that is the fill value all over, encoded."""
        fill = self.array.fill_value
        return pack(np.full((1, *self.frame_shape), 0 if fill is None else fill, np.uint8)).parts[0]

    def check_files(self, start: int, stop: int) -> None:
        """Look whether all files of frames `start` to `stop` are there; at a URL, reading them says so.

        Raises
        ------
        FrameDataError
            One is empty, which zarr may read as black frames; or missing, so that its frames were lost; or far larger
            than its frames.
        SourceChangedError
            One is missing that was there when the run was inspected.
        """
        if self._is_remote:
            return
        for row in self.grid.rows(start, stop):
            for number in self._numbers(row):
                size_bytes = self._size(number)
                first, end = max(start, row * self.grid.outer[0]), min(stop, (row + 1) * self.grid.outer[0])
                where = f"frames {first} to {end - 1} of the run"
                if size_bytes is None:
                    self._refuse(number, where)
                elif not size_bytes:
                    raise FrameDataError(f"{self.path}: {where}: {self.grid.key(number)} is empty")
                elif is_overfull(size_bytes, self.grid.file_bytes):
                    raise FrameDataError(
                        f"{self.path}: {where}: damaged: {self.grid.key(number)} has {size_bytes} bytes for "
                        f"{self.grid.file_bytes} of pixels"
                    )

    def _refuse(self, number: int, where: str) -> None:
        if (error := self._missing(number, where)) is not None:
            raise error

    def _missing(self, number: int, where: str) -> FrameDataError | SourceChangedError | None:
        """Return the error that it is that a file is not there; None: its frames are the fill value."""
        message = f"{self.path}: {where}: {self.grid.key(number)} is not there"
        if self.unwritten is None:
            return SourceChangedError(f"{message} any more")
        return None if self.unwritten == "fill" else FrameDataError(message)

    def _gone(self, key: str) -> FrameDataError | SourceChangedError | None:
        number = self.grid.number(key)
        if number is None:
            return FrameDataError(f"{self.path}: {key} is not there")
        first = number // self.grid.tiles * self.grid.outer[0]
        end = min(first + self.grid.outer[0], self.grid.shape[0])
        return self._missing(number, f"frames {first} to {end - 1} of the run")

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
        block = max(1, BLOCK_BYTES // max(1, self.grid.row_bytes)) * together
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

    def _state(self, number: int) -> tuple[object, ...] | None:
        if self._is_remote:
            found = stat_or_none(self.grid.path(number))
            return None if found is None else (found.size_bytes, found.version)
        try:
            now = os.stat(self.grid.path(number))
        except OSError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns

    def _read(self, start: int, stop: int, out: NDArray[Any]) -> None:
        try:
            self._select(start, stop, out)
        except SourceError:
            raise  # of our own requests to a URL: it says all
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
        self._folder = node_folder(self._path, spec.dataset or "")
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

    def read_encoded(self, start: int, stop: int) -> list[bytes | None] | None:
        """Return frames as they are stored; see `Source.read_encoded`.

        Frames that whoever wrote the array left out, since all of them is the fill value, are frames like others: they
        are encoded here. Those that are marked as lost, or whose file is not there in a lake of ours, are None.

        Raises
        ------
        SourceReadError
            The store, or the operating system, could not read.
        SourceChangedError
            The array is not what it was when it was inspected.
        """
        self._check_range(start, stop)
        frames, marks = self._open()
        encoded = frames.encoded
        if encoded is None or self._scale.full_scale is not None:
            return None
        try:
            files = encoded.read(start, stop)
        except (FrameDataError, SourceFormatError):
            return None  # damaged: the ordinary way sorts out which frames
        if frames.unwritten is None and None in files:
            return None
        out: list[bytes | None] = []
        for file, row in zip(files, frames.grid.rows(start, stop), strict=True):
            size = frames.grid.outer[0]
            count = min(stop, (row + 1) * size) - max(start, row * size)
            if file is None and frames.unwritten == "lost":
                out += [None] * count
            else:
                out += [part or frames.encoded_fill for part in file or [None] * count]
        for fact in marks:
            for i in np.flatnonzero(self._lost(fact, start, stop)).tolist():
                out[i] = None
        return out if any(part is not None for part in out) else None

    def _open(self) -> tuple[FrameArray, list[ArrayFact]]:
        if self._opened is None:
            frames = FrameArray(self._path, self._folder, self._unwritten)
            shape, dtype = frames.grid.shape, frames.dtype.name
            if len(shape) < 3 or shape[0] < self.frames or dtype != self._scale.dtype:
                raise SourceChangedError(
                    f"{self._folder}: is {shape} {dtype}; {self.frames} frames of {self._scale.dtype} were there when "
                    "inspected"
                )
            known = [array_at(self._path, mark) for mark in self._marks]
            self._opened = frames, [fact for fact in known if fact is not None]
        return self._opened

    def _lost(self, fact: ArrayFact, start: int, stop: int) -> NDArray[np.bool_]:
        """Return which frames a column marks as lost."""
        try:
            return is_lost(read_values(fact, start, stop, kept=True), fact.attributes, fact.path)
        except FrameDataError as error:
            raise SourceChangedError(str(error)) from error

    def _check_marks(self, marks: list[ArrayFact], start: int, stop: int) -> None:
        for fact in marks:
            lost = self._lost(fact, start, stop)
            if lost.any():
                first = start + int(np.argmax(lost))
                count = int(np.argmin(np.append(lost[first - start :], False)))
                raise FrameDataError(
                    f"{self._path}: frames {first} to {first + count - 1} of the run were lost when they were recorded "
                    f"({fact.path} says so)"
                )
