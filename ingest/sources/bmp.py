"""Grey BMP pictures of 8 bit, uncompressed, whose pixels are read as they stand; all others are Pillow's. Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

__all__ = ["BmpLayout", "bmp_layout"]

COLOURS = 256
# BITMAPFILEHEADER and BITMAPINFOHEADER, as Windows defines them: type, size, reserved, offset of the pixels; size of
# the second header, width, height (negative: rows from the top down), planes, bits, compression, ..., colours used.
_HEADER = struct.Struct("<2sIIIIiiHHIIiiI")
_RAMP = np.repeat(np.arange(COLOURS, dtype=np.uint8)[:, np.newaxis], 3, axis=1)


@dataclass(frozen=True, slots=True)
class BmpLayout:
    """Where a BMP's pixels stand.

    Attributes
    ----------
    width_px, height_px : int
        Its size.
    offset : int
        Of the first row.
    row_bytes : int
        Of a row with its padding.
    is_bottom_up : bool
        Whether the first row is the lowest.
    """

    width_px: int
    height_px: int
    offset: int
    row_bytes: int
    is_bottom_up: bool


def bmp_layout(head: bytes) -> BmpLayout | None:
    """Return the layout of a BMP whose pixel values are grey values.

    Parameters
    ----------
    head : bytes
        The first 1078 bytes at least.

    Returns
    -------
    BmpLayout or None
        None: another kind of BMP: coloured, compressed, of other bits, or with a palette that is not 0 to 255.
    """
    if len(head) < _HEADER.size or head[:2] != b"BM":
        return None
    _, _, _, offset, size, width, height, _, bits, compression, _, _, _, colours = _HEADER.unpack_from(head)
    start = 14 + size
    if size < 40 or bits != 8 or compression != 0 or colours not in (0, COLOURS) or width < 1 or height == 0:
        return None
    end = start + 4 * COLOURS
    if len(head) < end or offset < end:
        return None
    palette = np.frombuffer(head[start:end], np.uint8).reshape(COLOURS, 4)
    if not np.array_equal(palette[:, :3], _RAMP):
        return None
    return BmpLayout(width, abs(height), offset, (width + 3) // 4 * 4, height > 0)
