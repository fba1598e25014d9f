"""kSA files for tests, with headers built from the table of FORMATS.md 1.1."""

import struct
from pathlib import Path

import numpy as np


def ksa_header(height: int, width: int, *, stamp_ms: int = 0, overlays: int = 0, **said) -> bytes:
    """Return a header: 640 bytes and 15 for each overlay."""
    data = bytearray(640)
    data[0] = 1
    data[39:45] = said.get("version", "KSA00F").encode()
    struct.pack_into(">H", data, 21, overlays)
    struct.pack_into(">I", data, 47, width)
    struct.pack_into(">H", data, 310, said.get("full_scale", 4096))
    struct.pack_into(">I", data, 319, height)
    struct.pack_into(">IH", data, 323, *divmod(stamp_ms, 1000))
    struct.pack_into(">hh", data, 329, said.get("minutes_west", 300), said.get("dst", 0))
    struct.pack_into(">H", data, 333, said.get("bits", 12))
    struct.pack_into("<f", data, 352, said.get("exposure_s", 0.05))
    return bytes(data) + b"\x01\0\x10\0\x10\0\x20\0\x20\0\0\0\xff\0\0" * overlays


def write_ksa(path: Path, frames: np.ndarray, stamps_ms=None, **said) -> str:
    """Write frames (frame, y, x) or (frame, y, x, 3), each with a header of its own."""
    times = stamps_ms if stamps_ms is not None else [1_500_000_000_000 + 50 * i for i in range(len(frames))]
    with open(path, "wb") as file:
        for frame, stamp_ms in zip(frames, times, strict=True):
            file.write(ksa_header(*frame.shape[:2], stamp_ms=int(stamp_ms), **said))
            file.write(frame.astype(frame.dtype.newbyteorder("<")).tobytes())
    return str(path)
