"""PGM pictures, ASCII (P2) and binary (P5), with values as they are written.

Pillow refuses values above the file's own maximum, as SAFIRE writes them, and stretches binary ones to 16 bit
(FORMATS.md 1.2). Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError

__all__ = ["HEAD_BYTES", "PgmHead", "decode_head", "decode_pixels", "is_pgm"]

HEAD_BYTES = 4096
_BLANKS = b"\t\n\v\f\r "
_COMMENT = re.compile(rb"#[^\r\n]*")
_TOKEN = re.compile(rb"(?:[\t\n\v\f\r ]|#[^\r\n]*)*([0-9]+)")


@dataclass(frozen=True, slots=True)
class PgmHead:
    """A PGM's header.

    Attributes
    ----------
    is_ascii : bool
        Whether pixels are decimal numbers.
    width_px, height_px : int
        Its size.
    maximum : int
        What the file calls white, 1 to 65535.
    offset : int
        Where the pixels begin.
    """

    is_ascii: bool
    width_px: int
    height_px: int
    maximum: int
    offset: int

    @property
    def dtype(self) -> np.dtype[Any]:
        """How a binary file stores a pixel (Netpbm's pgm(5)): a byte, or two, the high one first."""
        return np.dtype("u1" if self.maximum < 256 else ">u2")


def is_pgm(head: bytes) -> bool:
    """Whether a file that begins like this is a PGM."""
    return head[:2] in (b"P2", b"P5") and head[2:3] in tuple(bytes([blank]) for blank in _BLANKS + b"#")


def decode_head(head: bytes, path: str) -> PgmHead:
    """Decode a header.

    Parameters
    ----------
    head : bytes
        The beginning of a file of which `is_pgm` is true; comments count.
    path : str
        For messages.

    Returns
    -------
    PgmHead
        Width, height and maximum as written.

    Raises
    ------
    FrameDataError
        It is cut, or holds numbers that cannot be.
    """
    numbers = []
    end = 2
    for _ in range(3):
        match = _TOKEN.match(head, end)
        if match is None or len(match[1]) > 10:
            raise FrameDataError(f"{path}: damaged: its PGM header does not hold width, height and maximum")
        numbers.append(int(match[1]))
        end = match.end()
    width_px, height_px, maximum = numbers
    if width_px == 0 or height_px == 0 or not 0 < maximum < 65536:
        raise FrameDataError(f"{path}: damaged: a PGM of {width_px} x {height_px} px with maximum {maximum}")
    if head[end : end + 1] not in tuple(bytes([blank]) for blank in _BLANKS):
        raise FrameDataError(f"{path}: damaged: its PGM header does not end with a blank")
    return PgmHead(head[:2] == b"P2", width_px, height_px, maximum, end + 1)


def decode_pixels(data: bytes, head: PgmHead, path: str) -> NDArray[Any]:
    """Decode a picture.

    Parameters
    ----------
    data : bytes
        The whole file.
    head : PgmHead
        Its header.
    path : str
        For messages.

    Returns
    -------
    ndarray, (y, x)
        Binary: a view of `data`, of `head.dtype`. ASCII: uint16; values of 65536 and more become 65535. Holds one more
        copy of the text and 8 bytes per pixel meanwhile.

    Raises
    ------
    FrameDataError
        Fewer pixels than the header promises, or something else than numbers among them.
    """
    shape = (head.height_px, head.width_px)
    wanted = head.width_px * head.height_px
    if not head.is_ascii:
        needed = head.offset + wanted * head.dtype.itemsize
        if len(data) < needed:
            raise FrameDataError(f"{path}: cut: {len(data)} of its {needed} bytes are there")
        return np.frombuffer(data, head.dtype, wanted, head.offset).reshape(shape)
    text = data[head.offset :]
    if b"#" in text:
        text = _COMMENT.sub(b"", text)
    other = text.translate(None, b"0123456789" + _BLANKS)
    if other:
        raise FrameDataError(f"{path}: damaged: {other[:8]!r} stands among its pixel values")
    values = np.fromstring(text, np.int64, sep=" ")[:wanted] if text.strip() else np.empty(0, np.int64)
    if len(values) < wanted:
        raise FrameDataError(f"{path}: cut: {len(values)} of its {wanted} pixels are there")
    return np.minimum(values, 65535).astype(np.uint16).reshape(shape)
