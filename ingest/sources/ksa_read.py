"""Frames out of kSA files, in the process that asks for them."""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SourceChangedError, SourceFormatError
from ingest.sources.base import SourceSpec
from ingest.sources.colours import grey
from ingest.sources.ksa_header import HEADER_BYTES, OVERLAY_BYTES, decode_header, geometry_of, geometry_said, is_ksa
from ingest.sources.plain_file import PlainFile
from ingest.sources.reader import FilesReader

__all__ = ["DTYPES", "HEADLESS", "SEGMENTS", "KsaSource", "open_source"]

# By bytes a pixel; colour is three little-endian numbers: blue, green, red (FORMATS.md 1.1).
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    12: np.dtype("<u4"),
}


# Options of a movie: number and byte of the first frame of each stretch, where they are several; overlays of each
# frame, where the first header is damaged.
SEGMENTS, HEADLESS = "segments", "overlays"


def open_source(spec: SourceSpec) -> KsaSource:
    """Open an inspected run for reading in this process; see `KsaSource`."""
    return KsaSource(spec)


class KsaFile:
    """One open file of a run, and where its frames are."""

    def __init__(self, path: str, spec: SourceSpec, shape: tuple[int, int], pixel_bytes: int) -> None:
        self.path = path
        self._file = PlainFile(path)
        height_px, width_px = shape
        overlays = spec.option(HEADLESS)
        try:
            overlays = self._overlays(shape) if overlays is None else int(overlays)
        except BaseException:
            self._file.close()
            raise
        self._geometry = geometry_said(height_px, width_px, overlays)
        self._header = np.zeros(HEADER_BYTES + OVERLAY_BYTES * overlays, np.uint8)
        self._stride = len(self._header) + height_px * width_px * pixel_bytes
        segments = [part.split(":") for part in str(spec.option(SEGMENTS) or "0:0").split()]
        self._firsts = [int(number) for number, _ in segments]
        self._places = [int(at) for _, at in segments]
        self._colour = str(spec.option("colour") or "mean")
        self._colours = np.empty((*shape, 3), DTYPES[pixel_bytes]) if pixel_bytes == 12 else None

    def _overlays(self, shape: tuple[int, int]) -> int:
        """Return how many overlays the first header has, if it is one of the run."""
        head = self._file.read(0, HEADER_BYTES)
        if not is_ksa(head):
            raise FrameDataError(f"{self.path}: damaged: there is no kSA header at its beginning")
        header = decode_header(head)
        if (header.height_px, header.width_px) != shape:
            raise FrameDataError(
                f"{self.path}: a frame of {header.width_px} x {header.height_px} px; the run's are {shape[1]} x "
                f"{shape[0]} px"
            )
        return header.overlays

    @property
    def frames(self) -> int:
        """How many whole frames there is room for."""
        return self._firsts[-1] + max(0, self._file.size_bytes - self._places[-1]) // self._stride

    def _place(self, number: int) -> int:
        """Return the byte where a frame begins; -1: it is lost."""
        part = bisect_right(self._firsts, number) - 1
        at = self._places[part]
        return at if at < 0 else at + (number - self._firsts[part]) * self._stride

    def read(self, first: int, out: NDArray[Any], run_first: int) -> None:
        """Read frames; see `StoredFrames`."""
        for i, frame in enumerate(out, first):
            at = self._place(i)
            where = f"{self.path}: frame {run_first + i}"
            if at < 0:
                raise FrameDataError(f"{where}: a piece of the file is missing or too much in it, or after it")
            got = self._file.read_into([self._header, frame if self._colours is None else self._colours], at)
            if got < self._stride:
                raise FrameDataError(f"{where}: cut: {got} of its {self._stride} bytes are there")
            if geometry_of(self._header[:HEADER_BYTES].tobytes()) != self._geometry:
                raise FrameDataError(
                    f"{where}: damaged: no kSA header of this movie where it should be",
                    hint="copy the file again from where it was recorded",
                )
            if self._colours is not None:
                frame[...] = grey(self._colours[..., ::-1], self._colour)

    def close(self) -> None:
        """Close the file; safe to repeat."""
        self._file.close()


class KsaSource(FilesReader):
    """One run in one kSA movie or in several images; see `FilesReader`.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it. Of colour frames, one is held as stored beside what `read` holds.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    FrameDataError
        By `read`: a frame whose header is damaged, or of which a part is missing.
    SourceChangedError
        By `read`: the movie is shorter than when it was inspected.
    """

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec, geometry=spec.option("pixel_bytes"))
        self._pixel_bytes = int(spec.option("pixel_bytes") or 0)
        self._dtype = DTYPES[self._pixel_bytes]
        self._spec = spec
        self._file_frames = spec.file_frames
        # Not by the number of paths: a worker's part of many images may be one of them.
        self._is_movie = bool(spec.option("movie"))

    def _open(self, number: int) -> KsaFile:
        path, needed = self._paths[number], self._file_frames[number]
        try:
            opened = KsaFile(path, self._spec, self._shape, self._pixel_bytes)
        except SourceFormatError as error:
            raise SourceChangedError(str(error)) from error
        except FrameDataError as error:
            if not self._is_movie:
                raise
            raise SourceChangedError(f"{error} any more, as there was when inspected") from error
        if self._is_movie and opened.frames < needed:
            opened.close()
            raise SourceChangedError(f"{path}: has {opened.frames} frames; {needed} were there when inspected")
        return opened
