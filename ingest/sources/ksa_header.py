"""Headers of k-Space kSA 400 images, as decoded from real files (FORMATS.md 1.1). Pure."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "HEADER_BYTES",
    "KsaHeader",
    "decode_header",
    "geometry_of",
    "geometry_said",
    "is_ksa",
    "looks_like",
    "stamps_in",
]

HEADER_BYTES = 640
"""The fixed part; overlay records follow it, then the pixels."""

OVERLAY_BYTES = 15
MAGIC = slice(39, 42)
VERSION = slice(39, 45)
# Width, height (big-endian u32) and the number of overlays (u16): what says where a frame's pixels are.
GEOMETRY = (slice(21, 23), slice(39, 42), slice(47, 51), slice(319, 323))
SECONDS = slice(323, 327)
MILLISECONDS = slice(327, 329)


@dataclass(frozen=True, slots=True)
class KsaHeader:
    """What a frame's header says.

    Attributes
    ----------
    version : str
        ``"KSA00F"``, ``"KSA00J"``, ...
    width_px, height_px : int
        Frame size.
    overlays : int
        Records of regions drawn over the picture; they lengthen the header.
    full_scale : int
        The brightest pixel value: 4096 of 12-bit cameras, 16383 of 14-bit ones; 0: not said.
    unix_s, milliseconds : int
        Capture time, UTC, as C's ``struct timeb`` has it; 0: none.
    minutes_west : int
        Of the recording computer's zone from UTC.
    dst : int
        Its summer time flag, 0 or 1.
    bits : int
        Per pixel of the camera.
    exposure_s : float
        Exposure time, by inference only.
    """

    version: str
    width_px: int
    height_px: int
    overlays: int
    full_scale: int
    unix_s: int
    milliseconds: int
    minutes_west: int
    dst: int
    bits: int
    exposure_s: float

    @property
    def header_bytes(self) -> int:
        """Where the pixels begin: 640 + 15 for each overlay."""
        return HEADER_BYTES + OVERLAY_BYTES * self.overlays

    @property
    def pixels(self) -> int:
        """Pixels of a frame."""
        return self.width_px * self.height_px

    @property
    def is_odd_zone(self) -> bool:
        """Whether the zone fields are none that a computer's clock can have."""
        return abs(self.minutes_west) > 14 * 60 or self.dst not in (0, 1)


def is_ksa(head: bytes) -> bool:
    """Whether a file that begins like this is a kSA image or movie."""
    return len(head) >= HEADER_BYTES and head[MAGIC] == b"KSA"


def looks_like(head: bytes) -> str:
    """Say, for people, what a file is that has no kSA header."""
    if not head:
        return "is empty"
    if b"NX" in head[:64] and b"\r\n" in head[:64]:
        return "is a Rigaku (CrysAlis) image: its header is text with NX and NY"
    if head[:1] == b"{" and b"HEADER_BYTES" in head[:64]:
        return "is an SMV or ADSC diffraction image: its header is text"
    if len(head) < HEADER_BYTES and head[MAGIC] in (b"KSA", b""):
        return f"has {len(head)} bytes, less than one kSA header of {HEADER_BYTES}"
    return f"has no kSA header: bytes 39 to 41 are {head[MAGIC]!r} instead of b'KSA'"


def decode_header(head: bytes) -> KsaHeader:
    """Decode a header.

    Parameters
    ----------
    head : bytes
        640 of them at least, of which `is_ksa` is true.

    Returns
    -------
    KsaHeader
        Offsets and byte orders as in FORMATS.md 1.1.
    """
    minutes_west, dst, bits = struct.unpack_from(">hhH", head, 329)
    return KsaHeader(
        version=head[VERSION].decode("ascii", "replace").rstrip("\0 "),
        width_px=struct.unpack_from(">I", head, 47)[0],
        height_px=struct.unpack_from(">I", head, 319)[0],
        overlays=struct.unpack_from(">H", head, 21)[0],
        full_scale=struct.unpack_from(">H", head, 310)[0],
        unix_s=struct.unpack_from(">I", head, 323)[0],
        milliseconds=struct.unpack_from(">H", head, 327)[0],
        minutes_west=minutes_west,
        dst=dst,
        bits=bits,
        exposure_s=float(struct.unpack_from("<f", head, 352)[0]),
    )


def geometry_said(height_px: int, width_px: int, overlays: int) -> bytes:
    """Return what `geometry_of` gives for headers of such frames."""
    return struct.pack(">H3sII", overlays, b"KSA", width_px, height_px)


def geometry_of(head: bytes) -> bytes:
    """Return what all frames of a movie have in common: magic, width, height, overlays."""
    return b"".join([head[part] for part in GEOMETRY])


def stamps_in(headers: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the capture times in many headers.

    Parameters
    ----------
    headers : ndarray of uint8, (frame, byte)
        The first 640 bytes of each frame at least.

    Returns
    -------
    ndarray of int64, (frame,)
        Unix ns UTC; below 1 s where there is none.
    """
    seconds = np.ascontiguousarray(headers[:, SECONDS]).view(">u4").ravel().astype(np.int64)
    milliseconds = np.ascontiguousarray(headers[:, MILLISECONDS]).view(">u2").ravel().astype(np.int64)
    return seconds * 1_000_000_000 + milliseconds * 1_000_000
