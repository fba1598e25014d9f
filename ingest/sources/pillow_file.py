"""Pictures by Pillow: its plugins called by name, its warnings and errors turned into ours."""

from __future__ import annotations

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ingest.errors import FrameDataError, SourceError, SourceFormatError
from ingest.sources.plain_file import MAX_FRAME_BYTES, explain_os, os_errors
from ingest.sources.tiff_ifd import is_tiff

__all__ = ["PillowFile", "PillowHead", "pillow_format"]

# What Pillow's plugins raise on damaged files; OSError with an errno is the operating system's.
PILLOW_ERRORS = (
    OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, AttributeError,
    RuntimeError, ArithmeticError, struct.error, zlib.error, MemoryError, Image.DecompressionBombError,
)  # fmt: skip
_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP"}
_PLUGINS = {
    "PNG": ("PIL.PngImagePlugin", "PngImageFile"),
    "JPEG": ("PIL.JpegImagePlugin", "JpegImageFile"),
    "BMP": ("PIL.BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("PIL.TiffImagePlugin", "TiffImageFile"),
}
# Mode to the type of its pixels, as NumPy names it; others are colour of 8 bit.
_GREY = {"1": "u1", "L": "u1", "LA": "u1", "La": "u1", "I": "i4", "F": "f4"}
_filters = threading.Lock()  # warnings' filters belong to the whole process


def pillow_format(head: bytes) -> str | None:
    """Return the format of a file that begins like this, of those that Pillow is asked to read; None: another."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


@dataclass(frozen=True, slots=True)
class PillowHead:
    """What a picture is.

    Attributes
    ----------
    format : str
        ``"PNG"``, ``"JPEG"``, ``"BMP"`` or ``"TIFF"``.
    width_px, height_px : int
        Its size.
    dtype : numpy.dtype
        Of a number.
    is_colour : bool
        Whether a pixel has red, green and blue.
    """

    format: str
    width_px: int
    height_px: int
    dtype: np.dtype[Any]
    is_colour: bool


class PillowFile:
    """A picture, or the pages of a TIFF.

    Parameters
    ----------
    path : str
        The file.

    Raises
    ------
    FrameDataError
        It cannot be a picture: damaged, cut, or of over 512 MB.
    SourceFormatError
        A kind of TIFF that Pillow does not know.
    SourceReadError
        The operating system could not read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._image: Any = None
        with os_errors(path):
            self._stream = stream = open(path, "rb")  # noqa: SIM115  Pillow keeps it
        self._head = b""
        try:
            self._head = stream.read(8)
            stream.seek(0)
            with _quiet():
                self._image = _plugin(self._head, path)(stream)
            if self._image.width * self._image.height > MAX_FRAME_BYTES:
                raise FrameDataError(
                    f"{path}: its header says {self._image.width} x {self._image.height} px; at most 512 MB can be"
                )
        except SourceError:
            self.close()
            raise
        except PILLOW_ERRORS as error:
            self.close()
            raise self._explained(error, opening=True) from error

    @property
    def head(self) -> PillowHead:
        """What the picture is, by its header; one with a palette is decoded for it, and may be damaged."""
        image = self._image
        try:
            dtype, is_colour = self._kind()
        except PILLOW_ERRORS as error:
            raise self._explained(error, opening=False) from error
        return PillowHead(str(image.format), image.width, image.height, dtype, is_colour)

    def pixels(self, number: int = 0) -> NDArray[Any]:
        """Decode the picture, or page `number` of a TIFF.

        Returns
        -------
        ndarray, (y, x) or (y, x, 3)
            Grey, or red, green, blue; without an alpha channel. Holds the picture up to three times.

        Raises
        ------
        FrameDataError
            Damaged or cut.
        SourceFormatError
            A kind of TIFF that Pillow does not know.
        SourceReadError
            The operating system could not read.
        """
        try:
            if self._image.format != "TIFF":
                return self._decoded()
            with _quiet():  # TIFF's directories are read as late as here
                self._image.seek(number)
                return self._decoded()
        except PILLOW_ERRORS as error:
            raise self._explained(error, opening=False) from error

    def _decoded(self) -> NDArray[Any]:
        image = self._image
        _, is_colour = self._kind()
        if is_colour:
            return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))
        if image.mode in ("P", "PA"):
            return self._by_palette()
        array = np.asarray(image.convert("L") if image.mode == "1" else image)
        return array if array.ndim == 2 else array[..., 0]

    def close(self) -> None:
        """Close it; safe to repeat."""
        if self._image is not None:
            self._image.close()
            self._image = None
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _kind(self) -> tuple[np.dtype[Any], bool]:
        mode = self._image.mode
        if mode.startswith("I;16"):
            return np.dtype("u2"), False
        if mode in _GREY:
            return np.dtype(_GREY[mode]), False
        return np.dtype("u1"), not (mode in ("P", "PA") and _is_grey(self._palette()))

    def _palette(self) -> NDArray[np.uint8]:
        flat = self._image.getpalette("RGB") or []
        table = np.zeros((256, 3), np.uint8)
        table[: len(flat) // 3] = np.array(flat, np.uint8).reshape(-1, 3)
        return table

    def _by_palette(self) -> NDArray[Any]:
        image = self._image
        indices = np.asarray(image) if image.mode == "P" else np.asarray(image)[..., 0]
        return np.asarray(self._palette()[:, 0][indices])

    def _explained(self, error: Exception, *, opening: bool) -> SourceError:
        if isinstance(error, OSError) and error.errno:
            return explain_os(self._path, error)
        if opening and isinstance(error, SyntaxError | KeyError) and is_tiff(self._head):
            return SourceFormatError(f"{self._path}: a kind of TIFF that cannot be read here: {error}")
        return FrameDataError(
            f"{self._path}: damaged: {error or type(error).__name__}",
            hint="copy the file again from where it was recorded",
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep Pillow's warnings away: what they say comes as our errors."""
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _is_grey(palette: NDArray[np.uint8]) -> bool:
    return bool((palette == palette[:, :1]).all())


def _plugin(head: bytes, path: str) -> Any:
    kind = "TIFF" if is_tiff(head) else pillow_format(head)
    if kind is None:
        what = "is empty" if not head else f"damaged: it begins with {head[:4]!r}, as no picture does"
        raise FrameDataError(f"{path}: {what}")
    # The plugin itself, not Image.open: that loads all plugins, and warns of sizes that are checked here.
    module, name = _PLUGINS[kind]
    return getattr(import_module(module), name)
