"""The platform's clock against the host's: NTP's four time stamps, and what they do to live stamps. Pure.

Only live stamps are ever corrected; a recorded one never is (DESIGN.md "Time").
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "ClockCorrection",
    "ClockFilter",
    "ClockSample",
    "ClockStatus",
    "CorrectedStamp",
    "is_clock_sync_skipped",
    "next_sample_in_s",
]

FIRST_SAMPLES = 4
FIRST_SAMPLES_APART_S = 2.0
LATER_SAMPLES_APART_S = 300.0
KEPT_SAMPLES = 8

SLEW_MS_PER_S = 5
"""How fast a backward correction is made, in ms per second of host time.

Ten times what ``adjtime`` does, so that a second is undone within minutes; yet at 120 fps a frame moves by 0.04 ms, far
less than the whole ms of the wire.
"""

MAX_DRIFT = 200e-6
"""Two clocks drift apart by at most so much: quartz does 100 ppm, and each of them may."""
STEP_MARGIN_MS = 2.0
"""What a server that rounds its stamps, and ours, may add to a contradiction of two samples."""
FLOAT_NOISE_MS = 1e-3
"""Unix time as a float has steps of 0.24 us; four of them can make a delay of nothing negative."""

SKIP_VARIABLE = "ATOMSCALE_SKIP_CLOCK_SYNC"


@dataclass(frozen=True, slots=True)
class ClockSample:
    """One exchange with the platform's clock.

    Attributes
    ----------
    offset_ms : float
        Platform minus host: what has to be added to the host's time.
    delay_ms : float
        Round trip without what the platform spent on it.
    at_unix_s : float
        When the answer came, by the host's clock.
    """

    offset_ms: float
    delay_ms: float
    at_unix_s: float

    @property
    def uncertainty_ms(self) -> float:
        """The most that `offset_ms` is wrong by, however the delay falls on the two ways."""
        return self.delay_ms / 2

    @classmethod
    def of(cls, sent_s: float, received_ms: float, transmitted_ms: float, answered_s: float) -> ClockSample | None:
        """Return what an exchange says (RFC 5905, section 8).

        Parameters
        ----------
        sent_s, answered_s : float
            When the request left and the answer came, in Unix seconds of the host.
        received_ms, transmitted_ms : float
            When the request came and the answer left, in Unix ms of the platform.

        Returns
        -------
        ClockSample or None
            None: it says nothing, as a stamp is not a number, or a clock was set during it (its delay or the platform's
            part of it is negative). Take another.
        """
        sent_ms, answered_ms = sent_s * 1000, answered_s * 1000
        delay_ms = (answered_ms - sent_ms) - (transmitted_ms - received_ms)
        offset_ms = ((received_ms - sent_ms) + (transmitted_ms - answered_ms)) / 2
        if not (math.isfinite(delay_ms) and math.isfinite(offset_ms)):
            return None
        if delay_ms < -FLOAT_NOISE_MS or transmitted_ms < received_ms:
            return None
        return cls(offset_ms, max(delay_ms, 0.0), answered_s)


class ClockFilter:
    """The last 8 samples; the one of least delay is believed, of equals the newest.

    A sample that contradicts the believed one (their bounds do not meet, whatever the clocks drifted) proves that a
    clock was set in between: the older samples are forgotten, else a fast one of them would be believed for 40 minutes.

    Not thread-safe: that is the caller's job. Pickles.
    """

    def __init__(self) -> None:
        self._samples: deque[ClockSample] = deque(maxlen=KEPT_SAMPLES)
        self.taken = 0
        """Samples added, those that are forgotten too."""

    def add(self, sample: ClockSample) -> None:
        """Take a sample, in the order in which they were made."""
        best = self.estimate
        if best is not None:
            drift_ms = abs(sample.at_unix_s - best.at_unix_s) * 1000 * MAX_DRIFT
            bound_ms = sample.uncertainty_ms + best.uncertainty_ms + drift_ms + STEP_MARGIN_MS
            if abs(sample.offset_ms - best.offset_ms) > bound_ms:
                self._samples.clear()
        self._samples.append(sample)
        self.taken += 1

    @property
    def estimate(self) -> ClockSample | None:
        """The sample to believe; None: there is none yet."""
        return min(reversed(self._samples), key=lambda sample: sample.delay_ms, default=None)

    @property
    def last_sample_unix_s(self) -> float | None:
        """When the newest sample was taken, by the host's clock."""
        return self._samples[-1].at_unix_s if self._samples else None


@dataclass(frozen=True, slots=True)
class CorrectedStamp:
    """A live stamp as it goes on the wire.

    Attributes
    ----------
    unix_ms : int
        Corrected, Unix UTC.
    offset_ms : int or None
        What was added to the host's time to get it, exactly; None: nothing is known, nothing was added.
    uncertainty_ms : float or None
        The most that `unix_ms` is wrong by: half the round trip, rounding, and what a slew has still to undo. A host
        clock that drifted since the sample adds to it.
    """

    unix_ms: int
    offset_ms: int | None
    uncertainty_ms: float | None


@dataclass(frozen=True, slots=True)
class ClockStatus:
    """The clock correction, for users.

    Attributes
    ----------
    offset_ms : float or None
        Platform minus host, as measured.
    uncertainty_ms : float or None
        The most that it is wrong by.
    samples : int
        Taken so far.
    last_sample_unix_s : float or None
        When the newest was taken, by the host's clock.
    is_applied : bool
        Whether live stamps are corrected.
    reason : str
        Why they are not; empty when they are.
    """

    offset_ms: float | None
    uncertainty_ms: float | None
    samples: int
    last_sample_unix_s: float | None
    is_applied: bool
    reason: str


class ClockCorrection:
    """Host time to corrected time, by the estimate of a filter that is fed beside it.

    A larger offset takes effect at once; a smaller one is reached at 5 ms per second of host time, so that of two
    stamps in a row the second is never earlier than the first unless the host's own time is. If the host's clock is set
    back, corrected stamps go back with it until the next sample shows the step, which then takes effect at once. The
    first offset is reached the same way from 0 if stamps were already given without one, at once if not.

    Not thread-safe: that is the caller's job. Pickles.

    Parameters
    ----------
    clock_filter : ClockFilter
        Where the offset comes from; read at every stamp.
    """

    def __init__(self, clock_filter: ClockFilter) -> None:
        self._filter = clock_filter
        self._applied_ms: int | None = None
        self._last_host_ms: int | None = None
        self._slew_credit_us = 0

    def stamp(self, host_unix_ms: int) -> CorrectedStamp:
        """Return a host time corrected; changes the state of a slew, so ask once for each stamp, in order."""
        estimate = self._filter.estimate
        last_ms = host_unix_ms if self._last_host_ms is None else self._last_host_ms
        is_first = self._last_host_ms is None
        self._last_host_ms = host_unix_ms
        if estimate is None:
            return CorrectedStamp(host_unix_ms, None, None)
        target_ms = round(estimate.offset_ms)
        if is_first:
            self._applied_ms = target_ms
        self._applied_ms = applied_ms = self._towards(target_ms, self._applied_ms or 0, max(host_unix_ms - last_ms, 0))
        error_ms = estimate.uncertainty_ms + abs(applied_ms - estimate.offset_ms)
        return CorrectedStamp(host_unix_ms + applied_ms, applied_ms, error_ms)

    def _towards(self, target_ms: int, applied_ms: int, elapsed_ms: int) -> int:
        if target_ms >= applied_ms:
            self._slew_credit_us = 0
            return target_ms
        # Whole ms only, the rest is kept: at most 999 us, so that a step is never longer than the host's own.
        steps_ms, self._slew_credit_us = divmod(self._slew_credit_us + elapsed_ms * SLEW_MS_PER_S, 1000)
        return max(target_ms, applied_ms - steps_ms)

    def status(self, reason: str = "no sample of the platform's clock yet") -> ClockStatus:
        """Return the state for users; `reason` says why nothing is applied, if so."""
        estimate = self._filter.estimate
        return ClockStatus(
            offset_ms=None if estimate is None else estimate.offset_ms,
            uncertainty_ms=None if estimate is None else estimate.uncertainty_ms,
            samples=self._filter.taken,
            last_sample_unix_s=self._filter.last_sample_unix_s,
            is_applied=estimate is not None,
            reason="" if estimate is not None else reason,
        )


def next_sample_in_s(samples_taken: int) -> float:
    """Return in how many seconds the next sample is due: at once, then 4 in all 2 s apart, then every 5 minutes."""
    if samples_taken < 1:
        return 0.0
    return FIRST_SAMPLES_APART_S if samples_taken < FIRST_SAMPLES else LATER_SAMPLES_APART_S


def is_clock_sync_skipped(environ: Mapping[str, str]) -> bool:
    """Return whether ``ATOMSCALE_SKIP_CLOCK_SYNC`` is set and neither blank nor 0."""
    return environ.get(SKIP_VARIABLE, "").strip() not in ("", "0")
