"""A run's capture times and camera numbers, one each a frame, packed small enough to travel in its plan. Pure."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import zstandard
from numpy.typing import NDArray

__all__ = ["FrameTimes"]

LEVEL = 3


@dataclass(frozen=True, slots=True)
class FrameTimes:
    """What a lake writes beside the frames. Pickles; holds 1 to 5 bytes a frame.

    Attributes
    ----------
    frames : int
        How many.
    packed : str
        Base64 of the zstd of the steps between stamps, and between numbers, as little-endian int64.
    """

    frames: int
    packed: str

    @classmethod
    def of(cls, timestamps_ns: NDArray[np.int64], frame_numbers: NDArray[np.int64] | None = None) -> FrameTimes:
        """Pack them.

        Parameters
        ----------
        timestamps_ns : ndarray of int64, (frame,)
            Capture times, ns since 1970 UTC.
        frame_numbers : ndarray of int64, (frame,), optional
            The camera's own count; default 0, 1, ...
        """
        n = len(timestamps_ns)
        numbers = np.arange(n) if frame_numbers is None else frame_numbers
        rows = np.stack([timestamps_ns, numbers]).astype("<i8")
        # Steps wrap around like any int64, and so does their sum: nothing is lost.
        steps = np.diff(rows, axis=1, prepend=np.int64(0))
        packed = zstandard.ZstdCompressor(level=LEVEL).compress(_by_byte(steps))
        return cls(n, base64.b64encode(packed).decode("ascii"))

    def rows(self) -> NDArray[np.int64]:
        """Return (2, frame): times in ns, and numbers."""
        size = 16 * self.frames
        raw = zstandard.ZstdDecompressor().decompress(base64.b64decode(self.packed), max_output_size=max(size, 1))
        columns = np.frombuffer(raw, np.uint8).reshape(8, 2 * self.frames)
        steps = np.ascontiguousarray(columns.T).view("<i8").reshape(2, self.frames)
        return np.cumsum(steps, axis=1, dtype=np.int64)


def _by_byte(steps: NDArray[np.int64]) -> bytes:
    """Return all lowest bytes, then all next ones, ...: steps are alike, so that most of these columns are constant."""
    return np.ascontiguousarray(np.ascontiguousarray(steps).view(np.uint8).reshape(-1, 8).T).tobytes()
