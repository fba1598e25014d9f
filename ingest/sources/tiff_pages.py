"""Pictures out of TIFF pages: plain and deflated ones here, others by tifffile, or by Pillow if that lacks a codec."""

from __future__ import annotations

import logging
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, MissingFilterError, SourceError, SourceFormatError
from ingest.sources.pillow_file import PillowFile
from ingest.sources.plain_file import MAX_FRAME_BYTES, PlainFile
from ingest.sources.tiff_ifd import DEFLATE, PALETTE, RGB, UNCOMPRESSED, WHITE_IS_ZERO, Tiff, TiffPage

__all__ = ["PageReader"]

# Those that labs' software writes, by TIFF 6.0 and libtiff's tiff.h; others are named by number.
COMPRESSIONS = {
    2: "CCITT", 3: "CCITT fax 3", 4: "CCITT fax 4", 5: "LZW", 6: "old JPEG", 7: "JPEG", 8: "deflate",
    32773: "PackBits", 33003: "JPEG 2000", 34712: "JPEG 2000", 34887: "LERC", 34925: "LZMA", 50000: "zstd",
    50001: "WebP", 52546: "JPEG XL",
}  # fmt: skip
TIFFFILE_ERRORS = (
    OSError, ValueError, KeyError, IndexError, TypeError, AttributeError, RuntimeError, ImportError, struct.error,
    zlib.error, ArithmeticError, MemoryError, EOFError,
)  # fmt: skip


class PageReader:
    """Reads pages of one open TIFF file.

    Parameters
    ----------
    file : PlainFile
        The caller closes it.

    Raises
    ------
    FrameDataError
        Not a TIFF.
    """

    def __init__(self, file: PlainFile) -> None:
        self.tiff = Tiff(file)
        self._file = file
        self._tifffile: Any = None
        self._pillow: PillowFile | None = None
        self._no_codec: set[int] = set()

    def pixels(self, page: TiffPage, number: int = 0) -> NDArray[Any]:
        """Return a page's picture.

        Parameters
        ----------
        page : TiffPage
            Which.
        number : int
            Its place in the chain of pages.

        Returns
        -------
        ndarray, (y, x) or (y, x, 3)
            Grey, or red, green, blue; without an alpha channel. Where 0 is white it is turned over. Holds the picture
            once more, and for compressed ones its strips.

        Raises
        ------
        FrameDataError
            Damaged, cut, or of over 512 MB.
        MissingFilterError
            Compressed in a way that nothing installed here can undo.
        """
        if page.frame_bytes > MAX_FRAME_BYTES:
            raise FrameDataError(
                f"{self._file.path}: a page of {page.width_px} x {page.height_px} px of {page.samples} x {page.bits} "
                f"bit; at most 512 MB can be"
            )
        if page.photometric == PALETTE:
            return self._by_pillow(page, number)
        array = self._here(page) if _is_simple(page) else self._by_tifffile(page, number)
        if page.photometric == WHITE_IS_ZERO and array.dtype.kind == "u":
            array = np.subtract(2**page.bits - 1, array, dtype=array.dtype.newbyteorder("="))
        return array

    def close(self) -> None:
        """Let go of what tifffile and Pillow have open; safe to repeat."""
        if self._tifffile is not None:
            self._tifffile.close()
            self._tifffile = None
        if self._pillow is not None:
            self._pillow.close()
            self._pillow = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _here(self, page: TiffPage) -> NDArray[Any]:
        strips = -(-page.height_px // page.rows_per_strip)
        if len(page.offsets) != strips or len(page.counts) != strips or page.dtype is None:
            raise FrameDataError(f"{self._where(page)}: damaged: it has {len(page.offsets)} strips instead of {strips}")
        array = np.empty((page.height_px, page.width_px, page.samples), page.dtype)
        for i, (offset, count) in enumerate(zip(page.offsets, page.counts, strict=True)):
            rows = array[i * page.rows_per_strip : (i + 1) * page.rows_per_strip]
            if page.compression == UNCOMPRESSED:
                got = self._file.read_into([rows], offset)
            else:
                got = self._inflate(page, offset, count, rows)
            if got < rows.nbytes:
                raise FrameDataError(f"{self._where(page)}: cut: strip {i} has {got} of its {rows.nbytes} bytes")
        if page.predictor == 2:
            native = array.astype(page.dtype.newbyteorder("="), copy=False)
            array = np.cumsum(native, axis=1, dtype=native.dtype)
        return _channels(array)

    def _inflate(self, page: TiffPage, offset: int, count: int, rows: NDArray[Any]) -> int:
        if offset + count > self._file.size_bytes:
            raise FrameDataError(
                f"{self._where(page)}: cut: it needs bytes up to {offset + count}; the file has {self._file.size_bytes}"
            )
        try:
            # Bounded: a few KiB of zeros may unpack to gigabytes.
            data = zlib.decompressobj().decompress(self._file.read(offset, count), rows.nbytes)
        except zlib.error as error:
            raise FrameDataError(f"{self._where(page)}: damaged: {error}") from error
        if len(data) == rows.nbytes:
            rows[...] = np.frombuffer(data, rows.dtype).reshape(rows.shape)
        return len(data)

    def _by_tifffile(self, page: TiffPage, number: int) -> NDArray[Any]:
        import tifffile

        if page.compression in self._no_codec:
            return self._by_pillow(page, number)
        try:
            with _quiet_tifffile():
                if self._tifffile is None:
                    self._tifffile = tifffile.TiffFile(self._file.path)
                self._tifffile.filehandle.seek(page.offset)
                array = np.asarray(tifffile.TiffPage(self._tifffile, index=number).asarray())
        except TIFFFILE_ERRORS as error:
            if isinstance(error, ImportError) or "imagecodecs" in str(error):
                self._no_codec.add(page.compression)
                return self._by_pillow(page, number)
            raise FrameDataError(f"{self._where(page)}: damaged: {error}") from error
        if array.ndim == 3 and page.planar == 2:
            array = np.moveaxis(array, 0, -1)
        return self._checked(page, _channels(array) if array.ndim == 3 else array)

    def _by_pillow(self, page: TiffPage, number: int) -> NDArray[Any]:
        try:
            if self._pillow is None:
                self._pillow = PillowFile(self._file.path)
            array = self._pillow.pixels(number)
        except SourceFormatError as error:
            raise self._missing(page) from error
        except SourceError:
            self.close()  # what failed may be in any state
            raise
        return self._checked(page, array)

    def _checked(self, page: TiffPage, array: NDArray[Any]) -> NDArray[Any]:
        if array.shape[:2] != (page.height_px, page.width_px):
            raise FrameDataError(
                f"{self._where(page)}: damaged: it is {array.shape}, not {page.height_px} x {page.width_px}"
            )
        return array

    def _missing(self, page: TiffPage) -> MissingFilterError:
        name = COMPRESSIONS.get(page.compression, "unknown")
        return MissingFilterError(
            f"{self._file.path}: pages of {page.samples} x {page.bits} bit with TIFF compression {page.compression} "
            f"({name}), which needs imagecodecs",
            hint="pip install 'rheed-ingest[codecs]', or save the file uncompressed",
        )

    def _where(self, page: TiffPage) -> str:
        return f"{self._file.path}: the page at byte {page.offset}"


def _is_simple(page: TiffPage) -> bool:
    if page.is_tiled or page.dtype is None or page.planar != 1 or page.fill_order != 1:
        return False
    if page.photometric not in (WHITE_IS_ZERO, 1, RGB) or page.compression not in {UNCOMPRESSED, *DEFLATE}:
        return False
    return page.predictor == 1 or (page.predictor == 2 and page.dtype.kind in "ui" and page.compression in DEFLATE)


def _channels(array: NDArray[Any]) -> NDArray[Any]:
    """Return (y, x) of one or two samples a pixel, (y, x, 3) of three or more: the rest is alpha."""
    return array[..., 0] if array.shape[-1] < 3 else array[..., :3]


@contextmanager
def _quiet_tifffile() -> Iterator[None]:
    """Keep tifffile's own log lines away: what they say comes as our errors and findings."""
    logger = logging.getLogger("tifffile")
    was = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = was
