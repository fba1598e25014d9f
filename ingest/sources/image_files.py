"""One picture in one file, whatever its format; which one is told by its first bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError
from ingest.sources import pgm
from ingest.sources.bmp import BmpLayout, bmp_layout
from ingest.sources.pillow_file import PillowFile
from ingest.sources.plain_file import MAX_FRAME_BYTES, PlainFile
from ingest.sources.tiff_ifd import PALETTE, RGB, UNCOMPRESSED, is_tiff
from ingest.sources.tiff_pages import PageReader

__all__ = ["PictureHead", "is_picture", "picture_head", "picture_pixels"]

YCBCR = 6  # JPEG inside; what decodes it gives red, green, blue
GREY_PHOTOMETRICS = frozenset({0, 1, 32803, 34892})  # TIFF 6.0; sensor mosaics as DNG has them


@dataclass(frozen=True, slots=True)
class PictureHead:
    """What a picture is, by its header.

    Attributes
    ----------
    format : str
        ``"TIFF"``, ``"PNG"``, ``"BMP"``, ``"JPEG"`` or ``"PGM"``.
    width_px, height_px : int
        Its size.
    dtype : numpy.dtype
        Of a number, in native byte order.
    is_colour : bool
        Whether a pixel has red, green and blue.
    maximum : int or None
        What the file itself calls white; only PGM says it.
    is_inverted : bool
        Whether 0 is white in the file; what is read is turned over.
    """

    format: str
    width_px: int
    height_px: int
    dtype: np.dtype[Any]
    is_colour: bool
    maximum: int | None = None
    is_inverted: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width."""
        return self.height_px, self.width_px

    @property
    def frame_bytes(self) -> int:
        """Size of the picture, decoded."""
        return self.height_px * self.width_px * self.dtype.itemsize * (3 if self.is_colour else 1)


def is_picture(head: bytes) -> bool:
    """Whether a file that begins like this is a picture of a known format."""
    return is_tiff(head) or pgm.is_pgm(head) or head.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM"))


def picture_head(path: str) -> PictureHead:
    """Return what a picture is; of a TIFF its first page.

    Parameters
    ----------
    path : str
        The file. Reads some KiB of it.

    Returns
    -------
    PictureHead
        What its header says.

    Raises
    ------
    FrameDataError
        Empty, damaged, of no known format, or of over 512 MB.
    SourceNotFoundError, SourceReadError
        It cannot be read.
    """
    with PlainFile(path) as file:
        start = file.read(0, pgm.HEAD_BYTES)
        if is_tiff(start):
            head = _tiff_head(file)
        elif pgm.is_pgm(start):
            said = pgm.decode_head(start, path)
            dtype = np.dtype("u2" if said.is_ascii and said.maximum > 255 else said.dtype.newbyteorder("="))
            head = PictureHead("PGM", said.width_px, said.height_px, dtype, False, said.maximum)
        else:
            with PillowFile(path) as picture:
                found = picture.head
            head = PictureHead(found.format, found.width_px, found.height_px, found.dtype, found.is_colour)
    if head.frame_bytes > MAX_FRAME_BYTES:
        raise FrameDataError(
            f"{path}: its header says {head.width_px} x {head.height_px} px, {head.frame_bytes / 1e6:.0f} MB; at most "
            "512 MB can be"
        )
    return head


def _tiff_head(file: PlainFile) -> PictureHead:
    with PageReader(file) as reader:
        page, _ = reader.tiff.page(reader.tiff.first)
        known = {*GREY_PHOTOMETRICS, PALETTE, RGB, *(() if page.compression == UNCOMPRESSED else (YCBCR,))}
        if page.photometric not in known:
            raise FrameDataError(
                f"{file.path}: a TIFF of photometric interpretation {page.photometric}; grey and RGB ones can be read"
            )
        colour = page.photometric not in GREY_PHOTOMETRICS and page.samples >= 3
        dtype = page.dtype
        if page.frame_bytes <= MAX_FRAME_BYTES and (dtype is None or page.photometric == PALETTE):
            pixels = reader.pixels(page)  # only decoding tells what these become
            dtype, colour = pixels.dtype, pixels.ndim == 3
        if dtype is None:
            dtype = np.dtype("u2")
        inverted = page.photometric == 0
        return PictureHead("TIFF", page.width_px, page.height_px, dtype.newbyteorder("="), colour, is_inverted=inverted)


def picture_pixels(path: str, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Decode a picture; of a TIFF its first page.

    Parameters
    ----------
    path : str
        The file.
    dtype : numpy.dtype, optional
        What the values of an ASCII PGM, which has no type, are to be clipped to; default uint16.

    Returns
    -------
    ndarray, (y, x) or (y, x, 3)
        Grey, or red, green, blue. Holds up to three times its size meanwhile.

    Raises
    ------
    FrameDataError
        Empty, damaged, cut, of no known format, or of over 512 MB.
    MissingFilterError
        Compressed in a way that nothing installed here can undo.
    SourceNotFoundError, SourceReadError
        It cannot be read.
    """
    with PlainFile(path) as file:
        start = file.read(0, pgm.HEAD_BYTES)
        if is_tiff(start):
            with PageReader(file) as reader:
                page, _ = reader.tiff.page(reader.tiff.first)
                return reader.pixels(page)
        if pgm.is_pgm(start):
            head = pgm.decode_head(start, path)
            if head.width_px * head.height_px * head.dtype.itemsize > MAX_FRAME_BYTES:
                raise FrameDataError(f"{path}: its header says {head.width_px} x {head.height_px} px: over 512 MB")
            values = pgm.decode_pixels(file.read(0, file.size_bytes), head, path)
            return np.minimum(values, 255).astype(np.uint8) if head.is_ascii and dtype == np.uint8 else values
        layout = bmp_layout(start)
        if layout is not None and layout.width_px * layout.height_px <= MAX_FRAME_BYTES:
            return _bmp_pixels(file, layout)
    with PillowFile(path) as picture:
        return picture.pixels()


def _bmp_pixels(file: PlainFile, layout: BmpLayout) -> NDArray[np.uint8]:
    rows = np.empty((layout.height_px, layout.row_bytes), np.uint8)
    got = file.read_into([rows], layout.offset)
    # The padding of the last row may be missing.
    if got < rows.nbytes - (layout.row_bytes - layout.width_px):
        raise FrameDataError(f"{file.path}: cut: {got} of its {rows.nbytes} bytes of pixels are there")
    pixels = rows[:, : layout.width_px]
    return pixels[::-1] if layout.is_bottom_up else pixels
