"""Damage that FFmpeg covers with what it decoded before, without an error: the frame would depend on how one reads."""

from __future__ import annotations

import zlib
from collections.abc import Callable

from av.video.codeccontext import VideoCodecContext

__all__ = ["damage_check"]

# After each slice: its size in 3 bytes; with checksums also a status byte and a CRC of 4 (RFC 9043, 4.9).
SIZE_BYTES = 3
TAIL_BYTES = 8
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))  # zlib's CRC begins at the other end of a byte
# What a CRC begins with, and so ends with once its own value is taken in, as zlib counts it: 0; or of version 4, as
# FFmpeg writes it, 0x7A8C4079.
REFERENCES = (0xFFFFFFFF, 0x9E02315E ^ 0xFFFFFFFF)
MAX_SLICES = 1024
# JPEG's markers (ISO 10918-1, table B.1): those without a length, start of scan, and starts of frame, C0 to CF but for
# DHT, JPG and DAC.
ALONE = frozenset({0x01, *range(0xD0, 0xD9)})
SCAN = 0xDA
FRAME_STARTS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def damage_check(context: VideoCodecContext) -> Callable[[bytes], bool] | None:
    """Return what tells of a packet whether it is damaged; None: FFmpeg says it itself, or nobody can.

    Parameters
    ----------
    context : av.VideoCodecContext
        Of the movie.
    """
    if context.name == "mjpeg":
        return is_broken_jpeg
    return is_broken_ffv1 if context.name == "ffv1" and context.extradata is not None else None  # as from version 3 on


def is_broken_jpeg(data: bytes) -> bool:
    """Whether the segments of a JPEG do not lead to a start of frame, and on to a start of scan."""
    at, has_frame = 0, False
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == SCAN:
            return not has_frame
        if marker == 0xFF:
            at += 1
        elif marker in ALONE:
            at += 2
        else:
            has_frame |= marker in FRAME_STARTS
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return True


def is_broken_ffv1(data: bytes) -> bool:
    """Whether a frame of FFV1 version 3 or 4 does not consist of slices, or one has a wrong checksum.

    Parameters
    ----------
    data : bytes
        A packet.

    Notes
    -----
    Holds a copy of one slice.
    """
    if _slices(data, SIZE_BYTES):
        return False
    slices = _slices(data, TAIL_BYTES)
    return not slices or not any(_all_fit(data, slices, reference) for reference in REFERENCES)


def _all_fit(data: bytes, slices: list[tuple[int, int]], reference: int) -> bool:
    return all(zlib.crc32(data[begin:end].translate(REVERSED), reference) == reference for begin, end in slices)


def _slices(data: bytes, tail_bytes: int) -> list[tuple[int, int]]:
    """Return the bytes of each slice with its tail, from the last one back; none if they do not fill the packet."""
    slices: list[tuple[int, int]] = []
    end = len(data)
    while end > 0 and len(slices) < MAX_SLICES:
        at = end - tail_bytes
        begin = at - int.from_bytes(data[at : at + SIZE_BYTES], "big") if at >= 0 else -1
        if begin < 0:
            return []
        slices.append((begin, end))
        end = begin
    return [] if end else slices
