"""Frames out of pictures, stacks and headerless files, in the process that asks for them."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SettingsError, SourceChangedError
from ingest.frames import FrameScale, to_uint8
from ingest.sources.base import SourceSpec
from ingest.sources.colours import COLOUR_HINT, grey
from ingest.sources.image_files import picture_pixels
from ingest.sources.memory import result_array
from ingest.sources.plain_file import PlainFile, os_errors
from ingest.sources.tiff_ifd import Tiff
from ingest.sources.tiff_pages import PageReader

__all__ = ["FLAT", "PAGES", "PICTURES", "ImageSource", "frame_pages", "open_source"]

# How frames are stored: at even distances in a file; as pages of a TIFF; one a file.
FLAT, PAGES, PICTURES = "flat", "pages", "pictures"
BLOCK_BYTES = 4 * 2**20  # stays in a processor's cache on its way through the scale


def open_source(spec: SourceSpec) -> ImageSource:
    """Open an inspected run for reading in this process.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it.

    Returns
    -------
    ImageSource
        Has one file open at a time, from the first frame that is asked of it.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    """
    return ImageSource(spec)


class StoredFrames(Protocol):
    """One open file of a run."""

    path: str

    def read(self, first: int, out: NDArray[Any], run_first: int) -> None:
        """Read the file's frames from `first` on into `out`, (frame, y, x); `run_first` is its frame 0 in the run."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class FlatFile:
    """Frames that stand in a file as they are, each so many bytes after the one before."""

    def __init__(self, path: str, spec: SourceSpec, frames: int) -> None:
        known = dict(spec.options)
        self.path = path
        self._file = PlainFile(path)
        self._offset, self._stride = int(known["offset"]), int(known["stride"])
        height, width = int(known["height_px"]), int(known["width_px"])
        self._frame_bytes = height * width * np.dtype(str(known["dtype"])).itemsize
        needed = self._offset + (frames - 1) * self._stride + self._frame_bytes
        if self._file.size_bytes < needed:
            self._file.close()
            message = f"{path}: has {self._file.size_bytes} bytes; {needed} are needed for {frames} frames"
            if not known.get("one_each"):  # not by the number of paths: a worker's part of many may be one
                raise SourceChangedError(f"{message}, which were there when inspected")
            raise FrameDataError(f"{message}: cut")

    def read(self, first: int, out: NDArray[Any], run_first: int) -> None:
        """Read frames; see `StoredFrames`."""
        if self._stride == self._frame_bytes:
            got, wanted = self._file.read_into([out], self._offset + first * self._stride), out.nbytes
        else:
            got, wanted = 0, len(out) * self._frame_bytes
            for i, frame in enumerate(out):
                got += self._file.read_into([frame], self._offset + (first + i) * self._stride)
        if got < wanted:
            last = run_first + first + len(out) - 1
            raise FrameDataError(f"{self.path}: frames {run_first + first} to {last}: cut while they were read")

    def close(self) -> None:
        """Close the file; safe to repeat."""
        self._file.close()


class PagesFile:
    """Pages of a TIFF."""

    def __init__(self, path: str, spec: SourceSpec, frames: int) -> None:
        self.path = path
        self._colour = spec.option("colour")
        self._file = PlainFile(path)
        try:
            self._reader = PageReader(self._file)
            self._offsets, self._numbers = frame_pages(path)
        except FrameDataError as error:
            self._file.close()
            raise SourceChangedError(f"{error}; it was a TIFF when inspected") from error
        except BaseException:
            self._file.close()
            raise
        if len(self._offsets) < frames:
            self.close()
            raise SourceChangedError(f"{path}: has {len(self._offsets)} pages; {frames} were there when inspected")

    def read(self, first: int, out: NDArray[Any], run_first: int) -> None:
        """Read frames; see `StoredFrames`."""
        for i in range(len(out)):
            where = f"{self.path}: frame {run_first + first + i}"
            try:
                page, _ = self._reader.tiff.page(int(self._offsets[first + i]))
                pixels = self._reader.pixels(page, int(self._numbers[first + i]))
            except FrameDataError as error:
                raise FrameDataError(f"{where}: {error}", hint=error.hint) from error
            _put(pixels, self._colour, out[i], where)

    def close(self) -> None:
        """Close the file; safe to repeat."""
        self._reader.close()
        self._file.close()


class PictureFile:
    """A picture of its own."""

    def __init__(self, path: str, spec: SourceSpec, frames: int) -> None:  # noqa: ARG002  as its siblings
        self.path = path
        self._colour = spec.option("colour")

    def read(self, first: int, out: NDArray[Any], run_first: int) -> None:
        """Read frames; see `StoredFrames`."""
        _put(picture_pixels(self.path, out.dtype), self._colour, out[0], f"{self.path}: frame {run_first + first}")

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


_FORMS: dict[str, Callable[[str, SourceSpec, int], StoredFrames]] = {
    FLAT: FlatFile,
    PAGES: PagesFile,
    PICTURES: PictureFile,
}


def _put(pixels: NDArray[Any], colour: object, out: NDArray[Any], where: str) -> None:
    """Put a picture where a frame goes, if it is one of the run."""
    if pixels.shape[:2] != out.shape:
        size, runs = (f"{shape[1]} x {shape[0]}" for shape in (pixels.shape, out.shape))
        raise FrameDataError(f"{where}: a picture of {size} px; the run's are {runs} px")
    if pixels.ndim == 3:
        if colour is None:
            raise FrameDataError(f"{where}: a colour picture in a grey run", hint=COLOUR_HINT)
        pixels = grey(pixels, str(colour))
    if not np.can_cast(pixels.dtype, out.dtype, "safe"):
        raise FrameDataError(f"{where}: a picture of {pixels.dtype}; the run's are {out.dtype}")
    out[...] = pixels


def frame_pages(path: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return where the pages of a TIFF that are frames begin, and their places in the chain of pages.

    Parameters
    ----------
    path : str
        The file. Its chain is gone through once in a process, unless the file changes; the last four are kept.

    Returns
    -------
    offsets, numbers : ndarray of int64, (frame,)
        Of all pages but thumbnails, up to where the chain breaks off. Hold 16 bytes a page.

    Raises
    ------
    FrameDataError
        Not a TIFF.
    SourceNotFoundError, SourceReadError
        It cannot be read.
    """
    with os_errors(path):
        now = os.stat(path)
    return _frame_pages(path, now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)


@lru_cache(maxsize=4)
def _frame_pages(path: str, *_: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    found: list[tuple[int, int]] = []
    with PlainFile(path) as file:
        pages = Tiff(file).pages()
        number = 0
        while True:
            try:
                page = next(pages)
            except (StopIteration, FrameDataError):
                break
            if not page.is_reduced:
                found.append((page.offset, number))
            number += 1
    table = np.array(found, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


class ImageSource:
    """One run of pictures; see `ingest.sources.base.Source`.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it.
    """

    def __init__(self, spec: SourceSpec) -> None:
        known = dict(spec.options)
        if spec.scale is None or not spec.file_frames or known.get("form") not in _FORMS:
            raise SettingsError(
                f"{spec.paths[0]}: scale, frame counts or form are missing in the spec",
                hint="open the spec that inspect returns, so that all workers read alike",
            )
        self._spec = spec
        self._scale: FrameScale = spec.scale
        self._starts = [0, *accumulate(spec.file_frames)]
        self._shape = (int(known["height_px"]), int(known["width_px"]))
        self._dtype = np.dtype(str(known.get("dtype", spec.scale.dtype)))
        self._form = _FORMS[str(known["form"])]
        self._open: StoredFrames | None = None

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
            A picture that is empty, cut, damaged, or of another size or type than the run's; NaN pixels.
        MissingFilterError
            Compressed in a way that nothing installed here can undo.
        SourceNotFoundError
            A picture is not there any more.
        SourceReadError
            The operating system could not read; trying again may help.
        SourceChangedError
            A stack is shorter than when it was inspected.

        Notes
        -----
        Holds ``(stop - start) * height * width`` bytes; for frames wider than 8 bit also 4 MiB, or one frame if that
        is more; and of a compressed or colour picture up to three times its size.
        """
        if not 0 <= start < stop <= self.frames:
            raise SettingsError(f"frames {start} to {stop} were asked of a run of {self.frames}: {self._spec.paths[0]}")
        out = result_array((stop - start, *self._shape), memory)
        if self._scale.full_scale is None and self._dtype == np.uint8:
            self._read_stored(start, out)
            return out
        block = max(1, min(stop - start, BLOCK_BYTES // max(1, out[0].size * self._dtype.itemsize)))
        values = np.empty((block, *self._shape), self._dtype)
        for position in range(start, stop, block):
            part = values[: min(block, stop - position)]
            self._read_stored(position, part)
            target = out[position - start : position - start + len(part)]
            to_uint8(part, self._scale, out=target, first_frame=position)
        return out

    def close(self) -> None:
        """Close the file; safe to repeat."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def stored(self, number: int) -> NDArray[Any]:
        """Return one frame as stored, not scaled: (y, x)."""
        values = np.empty((1, *self._shape), self._dtype)
        self._read_stored(number, values)
        return np.asarray(values[0])

    def _read_stored(self, start: int, out: NDArray[Any]) -> None:
        """Fill `out`, (frame, y, x), with frames from `start` on, as they are stored."""
        stop = start + len(out)
        number = int(np.searchsorted(self._starts, start, side="right")) - 1
        while start < stop:
            first, end = self._starts[number], min(self._starts[number + 1], stop)
            if first < end:
                file = self._file(number)
                file.read(start - first, out[len(out) - (stop - start) :][: end - start], first)
                start = end
            number += 1

    def _file(self, number: int) -> StoredFrames:
        path = self._spec.paths[number]
        if self._open is None or self._open.path != path:
            self.close()
            self._open = self._form(path, self._spec, self._spec.file_frames[number])
        return self._open
