"""A believable growth run out of nothing but a seed: for the demo, for tests and benchmarks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SettingsError

__all__ = ["GrowthRun"]

NS = 1_000_000_000
NOISE_OFFSETS = 1_048_573  # prime: a stride through it visits each offset once, so no two frames share their noise
OFFSET_STRIDE = 618_034
DARK_LEVEL = 6
MAX_JITTER_PERIODS = 0.45  # stamps never run backwards


@dataclass(frozen=True)
class Scene:
    """What does not change from frame to frame: still picture, noise, and the spots that oscillate, each with a place.

    Attributes
    ----------
    still : ndarray of uint8, (y, x)
        Background, streaks and Laue arc.
    noise : ndarray of uint8, (offset,)
        A frame's noise is one stretch of it.
    spots : tuple of (rows, columns, profile)
        Profile: (y, x) float32 grey levels at full brightness.
    """

    still: NDArray[np.uint8]
    noise: NDArray[np.uint8]
    spots: tuple[tuple[slice, slice, NDArray[np.float32]], ...]


@dataclass(frozen=True)
class GrowthRun:
    """A RHEED movie of layer-by-layer growth; the same pixels and stamps for the same arguments, however it is sliced.

    A specular and two diffracted streaks whose intensity oscillates with every monolayer and dies away, still streaks,
    a Laue arc, a glow, and camera noise. One scene is kept per process: ``height * width * 2 + 1 MiB`` bytes.

    Attributes
    ----------
    count : int
        Frames.
    height_px, width_px : int
        Size of a frame.
    fps : float
        Frames per second.
    seed : int
        Another seed, another noise and jitter.
    start_ns : int
        Capture time of the first frame but for its jitter, Unix ns UTC.
    jitter_s : float
        Standard deviation of the stamps about the regular grid; at most 0.45 periods away.
    gaps : tuple of (after_frame, extra_s)
        The camera lost frames: that many seconds more than a period between this frame and the next.
    growth_period_s : float
        Time of one monolayer.
    noise : float
        Standard deviation of the camera noise in grey levels; 6 gives zstd ratios of 1.5 to 2, as real cameras do.

    Raises
    ------
    SettingsError
        No frames, or too small ones, or a rate or period that is not positive.
    """

    count: int
    height_px: int = 480
    width_px: int = 640
    fps: float = 30.0
    seed: int = 0
    start_ns: int = 1_700_000_000 * NS
    jitter_s: float = 0.0
    gaps: tuple[tuple[int, float], ...] = ()
    growth_period_s: float = 8.0
    noise: float = 6.0

    def __post_init__(self) -> None:
        if self.count < 1 or self.height_px < 8 or self.width_px < 8:
            raise SettingsError(f"a growth run of {self.count} frames of {self.height_px} x {self.width_px} px")
        if not (self.fps > 0 and self.growth_period_s > 0 and 0 <= self.noise <= 12 and self.jitter_s >= 0):
            raise SettingsError(
                f"fps {self.fps}, growth period {self.growth_period_s} s, noise {self.noise}, jitter {self.jitter_s} s",
                hint="rate and period are positive, noise is 0 to 12, jitter is not negative",
            )
        if any(extra_s < 0 for _, extra_s in self.gaps):
            raise SettingsError(f"gaps {self.gaps} would make time run backwards")

    def timestamps_ns(self) -> NDArray[np.int64]:
        """Return the capture times, (frame,) int64 Unix ns UTC."""
        index = np.arange(self.count, dtype=np.float64)
        grid = np.rint(index * (NS / self.fps)).astype(np.int64)
        late = np.zeros(self.count, np.int64)
        for after_frame, extra_s in self.gaps:
            late[after_frame + 1 :] += round(extra_s * NS)
        limit_s = MAX_JITTER_PERIODS / self.fps
        off_s = np.random.default_rng((self.seed, 1)).normal(0.0, 1.0, self.count) * self.jitter_s
        jitter = np.rint(np.clip(off_s, -limit_s, limit_s) * NS).astype(np.int64)
        stamps: NDArray[np.int64] = self.start_ns + grid + late + jitter
        return stamps

    def frame_numbers(self) -> NDArray[np.int64]:
        """Return the camera's own count, (frame,) int64: it goes on counting while frames are lost in a gap."""
        numbers = np.arange(self.count, dtype=np.int64)
        for after_frame, extra_s in self.gaps:
            numbers[after_frame + 1 :] += round(extra_s * self.fps)
        return numbers

    def frames(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Return frames `start` to `stop` (exclusive), (frame, y, x) uint8.

        Parameters
        ----------
        start, stop : int
            ``0 <= start <= stop <= count``.

        Returns
        -------
        ndarray of uint8, (frame, y, x)
            A new array.

        Raises
        ------
        SettingsError
            The run has no such frames.
        """
        if not 0 <= start <= stop <= self.count:
            raise SettingsError(f"frames {start} to {stop} were asked of a run of {self.count}")
        scene = _scene(self.height_px, self.width_px, self.seed, self.noise)
        size = self.height_px * self.width_px
        out = np.empty((stop - start, self.height_px, self.width_px), np.uint8)
        for i in range(start, stop):
            offset = (i + self.seed) * OFFSET_STRIDE % NOISE_OFFSETS
            noise = scene.noise[offset : offset + size].reshape(self.height_px, self.width_px)
            frame = out[i - start]
            np.add(scene.still, noise, out=frame)
            for order, (rows, columns, profile) in enumerate(scene.spots):
                frame[rows, columns] += (profile * self.brightness(i, order)).astype(np.uint8)
        return out

    def brightness(self, frame: int, order: int = 0) -> np.float32:
        """Return the intensity, 0 to 1, of the specular spot (order 0) or a diffracted one (1, 2) at a frame."""
        time_s = frame / self.fps
        damping = np.exp(-time_s / (12 * self.growth_period_s))
        depth = (0.38, 0.22, 0.15)[order]
        phase = 2 * np.pi * time_s / self.growth_period_s + 0.7 * order
        return np.float32(0.6 + depth * damping * np.cos(phase))


@lru_cache(maxsize=2)
def _scene(height: int, width: int, seed: int, noise: float) -> Scene:
    rng = np.random.default_rng((seed, 0))
    # Kept within 4 sigma, and the still picture below what that leaves, so that no sum ever passes 255.
    ceiling = round(8 * noise)
    grain = rng.standard_normal(height * width + NOISE_OFFSETS, np.float32) * np.float32(noise) + np.float32(4 * noise)
    bank = np.clip(np.rint(grain, out=grain), 0, ceiling, out=grain).astype(np.uint8)
    y, x = np.mgrid[0 : 1 : complex(0, height), 0 : 1 : complex(0, width)].astype(np.float32)
    glow = 18 * np.exp(-((x - 0.5) ** 2 + (y - 0.35) ** 2) / 0.12)
    streaks = np.zeros((height, width), np.float32)
    for order in range(-3, 4):
        streaks += 34 / (1 + abs(order)) * _streak(x, y, 0.5 + 0.13 * order, 0.45, 0.010, 0.22)
    radius = np.hypot(x - 0.5, (y + 0.1) * 0.9)
    arc = 26 * np.exp(-(((radius - 0.62) / 0.012) ** 2)) * np.exp(-(((x - 0.5) / 0.28) ** 2))
    still = np.minimum(DARK_LEVEL + glow + streaks + arc, 84)
    spots = tuple(_spot(x, y, *place) for place in ((0.5, 0.42, 70.0), (0.37, 0.45, 46.0), (0.63, 0.45, 46.0)))
    return Scene(still.astype(np.uint8), bank, spots)


def _streak(
    x: NDArray[np.float32], y: NDArray[np.float32], at_x: float, at_y: float, wide: float, tall: float
) -> NDArray[np.float32]:
    profile: NDArray[np.float32] = np.exp(-(((x - at_x) / wide) ** 2) - ((y - at_y) / tall) ** 2).astype(np.float32)
    return profile


def _spot(
    x: NDArray[np.float32], y: NDArray[np.float32], at_x: float, at_y: float, grey: float
) -> tuple[slice, slice, NDArray[np.float32]]:
    height, width = x.shape
    rows = slice(max(0, int((at_y - 0.15) * height)), int((at_y + 0.15) * height) + 1)
    columns = slice(max(0, int((at_x - 0.05) * width)), int((at_x + 0.05) * width) + 1)
    return rows, columns, grey * _streak(x[rows, columns], y[rows, columns], at_x, at_y, 0.014, 0.05)
