"""Frames out of pictures, stacks and headerless files, in the process that asks for them."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SourceChangedError
from ingest.sources.base import SourceSpec
from ingest.sources.colours import COLOUR_HINT, grey
from ingest.sources.image_files import picture_pixels
from ingest.sources.plain_file import PlainFile, version_of
from ingest.sources.reader import FilesReader, StoredFrames
from ingest.sources.tiff_ifd import Tiff
from ingest.sources.tiff_pages import PageReader

__all__ = ["FLAT", "PAGES", "PICTURES", "SEVERAL_TYPES", "ImageSource", "frame_pages", "open_source"]

# How frames are stored: at even distances in a file; as pages of a TIFF; one a file.
FLAT, PAGES, PICTURES = "flat", "pages", "pictures"
SEVERAL_TYPES = "several_types"
"""Option of pictures that may differ in type, as PGM files of one run do."""


def open_source(spec: SourceSpec) -> ImageSource:
    """Open an inspected run for reading in this process; see `ImageSource`."""
    return ImageSource(spec)


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
            _put(pixels, self._colour, out[i], where, one_type=True)

    def close(self) -> None:
        """Close the file; safe to repeat."""
        self._reader.close()
        self._file.close()


class PictureFile:
    """A picture of its own."""

    def __init__(self, path: str, spec: SourceSpec, frames: int) -> None:  # noqa: ARG002  as its siblings
        self.path = path
        self._colour = spec.option("colour")
        self._one_type = not spec.option(SEVERAL_TYPES)

    def read(self, first: int, out: NDArray[Any], run_first: int) -> None:
        """Read frames; see `StoredFrames`."""
        where = f"{self.path}: frame {run_first + first}"
        _put(picture_pixels(self.path, out.dtype), self._colour, out[0], where, one_type=self._one_type)

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""


_FORMS: dict[str, Callable[[str, SourceSpec, int], StoredFrames]] = {
    FLAT: FlatFile,
    PAGES: PagesFile,
    PICTURES: PictureFile,
}


def _put(pixels: NDArray[Any], colour: object, out: NDArray[Any], where: str, *, one_type: bool) -> None:
    """Put a picture where a frame goes, if it is one of the run."""
    if pixels.shape[:2] != out.shape:
        size, runs = (f"{shape[1]} x {shape[0]}" for shape in (pixels.shape, out.shape))
        raise FrameDataError(f"{where}: a picture of {size} px; the run's are {runs} px")
    if one_type and pixels.dtype.itemsize != out.dtype.itemsize:
        # 8 bit would fit into 16, but their white is not the run's.
        raise FrameDataError(f"{where}: a picture of {pixels.dtype}; the run's are {out.dtype}")
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
    return _frame_pages(path, *version_of(path))


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


class ImageSource(FilesReader):
    """One run of pictures; see `FilesReader`.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it. Of a compressed or colour picture, up to three times its size is held beside what `read`
        holds.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    FrameDataError
        By `read`: a picture that is empty, cut, damaged, or of another size or type than the run's; NaN pixels.
    MissingFilterError
        By `read`: compressed in a way that nothing installed here can undo.
    SourceNotFoundError
        By `read`: a picture is not there any more.
    SourceChangedError
        By `read`: a stack is shorter than when it was inspected.
    """

    def __init__(self, spec: SourceSpec) -> None:
        form = str(spec.option("form"))
        super().__init__(spec, form=_FORMS.get(form))
        self._spec = spec
        self._dtype = np.dtype(str(spec.option("dtype") or self._scale.dtype))
        self._form = _FORMS[form]

    def _open(self, number: int) -> StoredFrames:
        return self._form(self._paths[number], self._spec, self._spec.file_frames[number])
