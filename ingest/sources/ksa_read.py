"""Frames out of kSA files, in the process that asks for them."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SettingsError, SourceChangedError, SourceFormatError
from ingest.frames import FrameScale, to_uint8
from ingest.sources.base import SourceSpec
from ingest.sources.colours import grey
from ingest.sources.ksa_header import HEADER_BYTES, decode_header, geometry_of, is_ksa
from ingest.sources.memory import result_array
from ingest.sources.plain_file import PlainFile

__all__ = ["DTYPES", "KsaSource", "open_source", "stored_frame"]

BLOCK_BYTES = 4 * 2**20  # stays in a processor's cache on its way through the scale
# By bytes a pixel; colour is three little-endian numbers: blue, green, red (FORMATS.md 1.1).
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    12: np.dtype("<u4"),
}


def open_source(spec: SourceSpec) -> KsaSource:
    """Open an inspected run for reading in this process.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it.

    Returns
    -------
    KsaSource
        Has one file open at a time, from the first frame that is asked of it.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    """
    return KsaSource(spec)


class KsaFile:
    """One open file of a run, and where its frames are."""

    def __init__(self, path: str, height_px: int, width_px: int, pixel_bytes: int) -> None:
        self.file = PlainFile(path)
        try:
            head = self.file.read(0, HEADER_BYTES)
            if not is_ksa(head):
                raise FrameDataError(f"{path}: damaged: there is no kSA header at its beginning")
            header = decode_header(head)
            if (header.height_px, header.width_px) != (height_px, width_px):
                raise FrameDataError(
                    f"{path}: a frame of {header.width_px} x {header.height_px} px; the run's are {width_px} x "
                    f"{height_px} px"
                )
        except BaseException:
            self.file.close()
            raise
        self.geometry = geometry_of(head)
        self.frame_bytes = height_px * width_px * pixel_bytes
        self.stride = header.header_bytes + self.frame_bytes
        self._header = np.zeros(header.header_bytes, np.uint8)

    def read_frame(self, number: int, first: int, out: NDArray[Any]) -> None:
        """Read the file's frame `number` into a C-contiguous array; `first` is the run's number of its frame 0."""
        got = self.file.read_into([self._header, out], number * self.stride)
        where = f"{self.file.path}: frame {first + number}"
        if got < self.stride:
            raise FrameDataError(f"{where}: cut: {got} of its {self.stride} bytes are there")
        if geometry_of(self._header[:HEADER_BYTES].tobytes()) != self.geometry:
            raise FrameDataError(
                f"{where}: damaged: no kSA header of this movie where it should be",
                hint="copy the file again from where it was recorded",
            )


class KsaSource:
    """One run in one kSA movie or in several images; see `ingest.sources.base.Source`.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it.
    """

    def __init__(self, spec: SourceSpec) -> None:
        known = dict(spec.options)
        if spec.scale is None or not spec.file_frames or not {"pixel_bytes", "movie"} <= known.keys():
            raise SettingsError(
                f"{spec.paths[0]}: scale, frame counts or geometry are missing in the spec",
                hint="open the spec that inspect returns, so that all workers read alike",
            )
        self._paths = spec.paths
        self._scale: FrameScale = spec.scale
        self._starts = [0, *accumulate(spec.file_frames)]
        self._shape = (int(known["height_px"]), int(known["width_px"]))
        self._pixel_bytes = int(known["pixel_bytes"])
        self._colour = str(known.get("colour", "mean"))
        # Not by the number of paths: a worker's part of many images may be one of them.
        self._is_movie = bool(known["movie"])
        self._open: KsaFile | None = None

    @property
    def frames(self) -> int:
        """Frames of the run."""
        return self._starts[-1]

    def read(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return frames `start` to `stop` (exclusive).

        Parameters
        ----------
        start, stop : int
            Frame numbers in the run, across its files.
        memory : ndarray of uint8, (byte,), optional
            Where to put them, if it is long enough.

        Returns
        -------
        ndarray of uint8, (frame, y, x)
            A new array, or a view of `memory`.

        Raises
        ------
        SettingsError
            The run has no such frames.
        FrameDataError
            A frame whose header is damaged, or of which a part is missing; named by its number in the run.
        SourceReadError
            The operating system could not read; trying again may help.
        SourceChangedError
            The movie is shorter than when it was inspected.

        Notes
        -----
        Holds ``(stop - start) * height * width`` bytes; for frames wider than 8 bit also 4 MiB, or one frame if that
        is more; colour frames 3 times as much.
        """
        if not 0 <= start < stop <= self.frames:
            raise SettingsError(f"frames {start} to {stop} were asked of a run of {self.frames}: {self._paths[0]}")
        out = result_array((stop - start, *self._shape), memory)
        for number, path in enumerate(self._paths):
            first, end = self._starts[number], self._starts[number + 1]
            begin, finish = max(start, first), min(stop, end)
            if begin < finish:
                file = self._file(path, end - first)
                self._read_file(file, first, range(begin - first, finish - first), out[begin - start : finish - start])
        return out

    def close(self) -> None:
        """Close the file; safe to repeat."""
        if self._open is not None:
            self._open.file.close()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _file(self, path: str, needed: int) -> KsaFile:
        if self._open is None or self._open.file.path != path:
            self.close()
            try:
                opened = KsaFile(path, *self._shape, self._pixel_bytes)
            except SourceFormatError as error:
                raise SourceChangedError(str(error)) from error
            except FrameDataError as error:
                if not self._is_movie:
                    raise
                raise SourceChangedError(f"{error} any more, as there was when inspected") from error
            self._open = opened
            if self._is_movie and opened.file.size_bytes < needed * opened.stride:
                frames = opened.file.size_bytes // opened.stride
                self.close()
                raise SourceChangedError(f"{path}: has {frames} frames; {needed} were there when inspected")
        return self._open

    def _read_file(self, file: KsaFile, first: int, numbers: range, out: NDArray[np.uint8]) -> None:
        if self._pixel_bytes == 1 and self._scale.full_scale is None:
            for i, number in enumerate(numbers):
                file.read_frame(number, first, out[i])
            return
        block = max(1, min(len(numbers), BLOCK_BYTES // file.frame_bytes))
        dtype = DTYPES[self._pixel_bytes]
        values = np.empty((block, *self._shape), dtype)
        colours = np.empty((*self._shape, 3), dtype) if self._pixel_bytes == 12 else None
        for position in range(0, len(numbers), block):
            part = numbers[position : position + block]
            for i, number in enumerate(part):
                file.read_frame(number, first, values[i] if colours is None else colours)
                if colours is not None:
                    values[i] = grey(colours[..., ::-1], self._colour)
            target = out[position : position + len(part)]
            to_uint8(values[: len(part)], self._scale, out=target, first_frame=first + part[0])


def stored_frame(path: str, number: int, height_px: int, width_px: int, pixel_bytes: int, colour: str) -> NDArray[Any]:
    """Return one frame of one file as stored: (y, x), colour already taken to grey.

    Raises
    ------
    FrameDataError, SourceReadError
        As `KsaSource.read`.
    """
    opened = KsaFile(path, height_px, width_px, pixel_bytes)
    try:
        shape = (height_px, width_px, 3) if pixel_bytes == 12 else (height_px, width_px)
        frame = np.empty(shape, DTYPES[pixel_bytes])
        opened.read_frame(number, 0, frame)
    finally:
        opened.file.close()
    return grey(frame[..., ::-1], colour) if pixel_bytes == 12 else frame
