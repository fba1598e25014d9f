"""The instrument log beside a synthetic growth run: heater temperature and chamber pressure, by the movie's clock."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SettingsError
from ingest.sources.synthetic import GrowthRun

__all__ = ["GrowthLog", "LogChannel"]

NS_PER_S = 1e9
IDLE_C, GROWTH_C = 420.0, 680.0
BASE_MBAR, GROWTH_MBAR = 2.0e-7, 1.3e-3


@dataclass(frozen=True)
class LogChannel:
    """One instrument's readings.

    Attributes
    ----------
    timestamps_s : ndarray of float64, (point,)
        Unix seconds UTC.
    values : ndarray of float64, (point,)
        As the instrument shows them.
    units : str
        Of the values.
    """

    timestamps_s: NDArray[np.float64]
    values: NDArray[np.float64]
    units: str


@dataclass(frozen=True)
class GrowthLog:
    """What a growth chamber logs during a run; the same points for the same arguments.

    The heater ramps to growth temperature within a third of the run, with an overshoot that dies away; oxygen is let
    in after a tenth. It goes on while the camera loses frames.

    Attributes
    ----------
    run : GrowthRun
        The movie; the log begins with its first frame and ends with its last.
    rate_hz : float
        Readings per second of each channel.
    seed : int
        Another seed, another noise.

    Raises
    ------
    SettingsError
        A rate that is not positive.
    """

    run: GrowthRun
    rate_hz: float = 10.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.rate_hz > 0:
            raise SettingsError(f"a log of {self.rate_hz} readings per second")

    def timestamps_s(self) -> NDArray[np.float64]:
        """Return when it is read, (point,) float64 Unix seconds."""
        stamps_ns = self.run.timestamps_ns()
        duration_s = float(stamps_ns[-1] - stamps_ns[0]) / NS_PER_S
        points = np.arange(int(duration_s * self.rate_hz) + 1, dtype=np.float64)
        times: NDArray[np.float64] = float(stamps_ns[0]) / NS_PER_S + points / self.rate_hz
        return times

    def channels(self) -> dict[str, LogChannel]:
        """Return the readings: ``temperature`` in C and ``pressure`` (of oxygen) in mbar."""
        times_s = self.timestamps_s()
        part = (times_s - times_s[0]) / max(times_s[-1] - times_s[0], 1 / self.rate_hz)
        rng = np.random.default_rng((self.seed, 2))
        since_ramp = np.maximum(part - 1 / 3, 0.0)
        overshoot = 18.0 * np.sin(25 * since_ramp) * np.exp(-14 * since_ramp)
        temperature = IDLE_C + (GROWTH_C - IDLE_C) * np.minimum(3 * part, 1.0) + overshoot
        let_in = 1 - np.exp(-12 * np.maximum(part - 0.1, 0.0))
        pressure = (BASE_MBAR + (GROWTH_MBAR - BASE_MBAR) * let_in) * np.exp(rng.normal(0.0, 0.01, len(part)))
        return {
            # Instruments show so many digits, and no more.
            "temperature": LogChannel(times_s, np.round(temperature + rng.normal(0.0, 0.15, len(part)), 2), "C"),
            "pressure": LogChannel(times_s, np.round(pressure, 10), "mbar"),
        }
