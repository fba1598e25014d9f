"""Frames out of kSA files, in the process that asks for them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SourceChangedError, SourceFormatError
from ingest.sources.base import SourceSpec
from ingest.sources.colours import grey
from ingest.sources.ksa_header import HEADER_BYTES, decode_header, geometry_of, is_ksa
from ingest.sources.plain_file import PlainFile
from ingest.sources.reader import FilesReader

__all__ = ["DTYPES", "KsaSource", "open_source"]

# By bytes a pixel; colour is three little-endian numbers: blue, green, red (FORMATS.md 1.1).
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"),
    2: np.dtype("<u2"),
    4: np.dtype("<u4"),
    12: np.dtype("<u4"),
}


def open_source(spec: SourceSpec) -> KsaSource:
    """Open an inspected run for reading in this process; see `KsaSource`."""
    return KsaSource(spec)


class KsaFile:
    """One open file of a run, and where its frames are."""

    def __init__(self, path: str, shape: tuple[int, int], pixel_bytes: int, colour: str) -> None:
        self.path = path
        self._file = PlainFile(path)
        height_px, width_px = shape
        try:
            head = self._file.read(0, HEADER_BYTES)
            if not is_ksa(head):
                raise FrameDataError(f"{path}: damaged: there is no kSA header at its beginning")
            header = decode_header(head)
            if (header.height_px, header.width_px) != shape:
                raise FrameDataError(
                    f"{path}: a frame of {header.width_px} x {header.height_px} px; the run's are {width_px} x "
                    f"{height_px} px"
                )
        except BaseException:
            self._file.close()
            raise
        self._geometry = geometry_of(head)
        self._stride = header.header_bytes + height_px * width_px * pixel_bytes
        self._header = np.zeros(header.header_bytes, np.uint8)
        self._colour = colour
        self._colours = np.empty((*shape, 3), DTYPES[pixel_bytes]) if pixel_bytes == 12 else None

    @property
    def frames(self) -> int:
        """How many whole frames there is room for."""
        return self._file.size_bytes // self._stride

    def read(self, first: int, out: NDArray[Any], run_first: int) -> None:
        """Read frames; see `StoredFrames`."""
        for i, frame in enumerate(out, first):
            got = self._file.read_into(
                [self._header, frame if self._colours is None else self._colours], i * self._stride
            )
            where = f"{self.path}: frame {run_first + i}"
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
        self._colour = str(spec.option("colour") or "mean")
        self._file_frames = spec.file_frames
        # Not by the number of paths: a worker's part of many images may be one of them.
        self._is_movie = bool(spec.option("movie"))

    def _open(self, number: int) -> KsaFile:
        path, needed = self._paths[number], self._file_frames[number]
        try:
            opened = KsaFile(path, self._shape, self._pixel_bytes, self._colour)
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
