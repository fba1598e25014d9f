"""Recorded stamps of any unit and epoch, brought to int64 ns. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.sources.start import NS, UNITS_PER_S, UNIX_END_S, UNIX_FIRST_S, parse_time
from ingest.timing import Finding

__all__ = ["EPICS_EPOCH_S", "Stamps", "decode_epics", "decode_plain", "per_second_of", "spread"]

# EPICS counts from 1990-01-01 UTC; ADCore writes that into files (FORMATS.md 1.5).
EPICS_EPOCH_S = 631_152_000
EPICS_FIRST_S = 347_155_200  # 2001-01-01: less is time since some driver's start
_PER_S = {
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "ms": 10**3, "msec": 10**3, "millisecond": 10**3, "milliseconds": 10**3,
    "us": 10**6, "usec": 10**6, "µs": 10**6, "microsecond": 10**6, "microseconds": 10**6,
    "ns": 10**9, "nsec": 10**9, "nanosecond": 10**9, "nanoseconds": 10**9,
}  # fmt: skip
# What CF counts in besides; no camera is that slow, but a time axis may be written so.
_SECONDS = {"minute": 60, "minutes": 60, "min": 60, "hour": 3600, "hours": 3600, "h": 3600, "day": 86400, "days": 86400}
_SINCE = re.compile(r"^\s*([a-zµ]+)\s+since\s+(.+?)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Stamps:
    """Recorded stamps: (frame,) int64 ns, Unix UTC if `absolute`, else from an unknown start; and their origin."""

    ns: NDArray[np.int64]
    absolute: bool
    origin: str


def per_second_of(units: str) -> float | None:
    """Return how many of a unit of time (``"ms"``, ``"days since 2023-10-03"``) make a second; None: not a time."""
    since = _SINCE.match(units)
    word = (since[1] if since else units).strip().lower()
    if word in _SECONDS:
        return 1 / _SECONDS[word]
    return _PER_S.get(word)


def spread(start_ns: int, end_ns: int, frames: int) -> NDArray[np.int64]:
    """Return stamps spread evenly over a chunk file's span: ``start + i * (end - start) / frames``, exact integers."""
    index = np.arange(frames, dtype=np.int64)
    whole, rest = divmod(end_ns - start_ns, frames)
    return start_ns + index * whole + index * rest // frames


def decode_epics(
    seconds: NDArray[np.generic], nanoseconds: NDArray[np.generic] | None, latest_ns: int
) -> tuple[NDArray[np.int64], bool, tuple[Finding, ...]]:
    """Bring areaDetector stamps to Unix ns.

    Parameters
    ----------
    seconds : ndarray of int or float, (frame,)
        ``NDArrayEpicsTSSec`` or ``NDArrayTimeStamp``, seconds since 1990.
    nanoseconds : ndarray of int, (frame,), or None
        ``NDArrayEpicsTSnSec``.
    latest_ns : int
        Now: no recording is from the future.

    Returns
    -------
    timestamps_ns : ndarray of int64, (frame,)
        Unix ns UTC, or from an unknown start.
    absolute : bool
        Which of these.
    findings : tuple of Finding
        Where another epoch than EPICS's was inferred: seconds that would lie in the future are Unix already, seconds
        before 2001 are from a driver that counts from its own start (ADCore NDArray.h:122).
    """
    ns = _to_ns(seconds, 1)
    if nanoseconds is not None:
        ns = ns + nanoseconds.astype(np.int64)
    first_s = int(ns[0]) // NS
    if first_s < EPICS_FIRST_S:
        return ns, False, (Finding("stamps", f"stamps begin at {first_s} s: from the driver's start, not from 1990"),)
    epics = ns + EPICS_EPOCH_S * NS
    if int(epics[0]) <= latest_ns:
        return epics, True, ()
    if int(ns[0]) <= latest_ns:
        return ns, True, (Finding("stamps", "stamps are Unix times, where EPICS ones (from 1990) were expected"),)
    return (
        ns,
        False,
        (Finding("stamps", f"stamps begin at {first_s} s, in the future by any epoch: taken as relative"),),
    )


def decode_plain(
    values: NDArray[np.generic], units: str | None, timezone: str | None, fps: float | None = None
) -> tuple[NDArray[np.int64], bool, tuple[Finding, ...]]:
    """Bring a column of times to ns.

    Parameters
    ----------
    values : ndarray of int or float, (frame,)
        Stamps.
    units : str or None
        ``"ms"``, ``"seconds since 2023-10-03 16:17:13"``, ...; None: told by size. Absolute times are those between
        2001 and 2103 in s, ms, us or ns; the unit of others is the one whose rate is nearest to `fps`, else seconds
        for floats, and for integers the coarsest unit that gives under 2000 frames per second.
    timezone : str or None
        IANA zone of a date in `units` that has none.
    fps : float or None
        The rate that the file claims.

    Returns
    -------
    timestamps_ns : ndarray of int64, (frame,)
        Unix ns UTC, or from an unknown start.
    absolute : bool
        Which of these.
    findings : tuple of Finding
        Where a unit was inferred that is not seconds.

    Raises
    ------
    SourceTimeError
        A date in `units` without a zone.
    OverflowError
        Stamps of over 146 years.
    """
    first = values[0].item()
    since = _SINCE.match(units) if units else None
    if since is not None and (seconds := _SECONDS.get(since[1].lower())) is not None:
        return decode_plain(values.astype(np.float64) * seconds, f"s since {since[2]}", timezone, fps)
    if since is not None and since[1].lower() in _PER_S:
        epoch_ns = _epoch(since[2], timezone)
        if epoch_ns is not None:
            return epoch_ns + _to_ns(values, _PER_S[since[1].lower()]), True, ()
    per_s = _PER_S.get(units.strip().lower()) if units else None
    known = (per_s,) if per_s is not None else UNITS_PER_S
    for candidate in known:
        if UNIX_FIRST_S * candidate <= first < UNIX_END_S * candidate:
            return _to_ns(values, candidate), True, ()
    if per_s is not None:
        return _to_ns(values, per_s), False, ()
    per_s = _guess_unit(values, fps)
    name = {1: "s", 10**3: "ms", 10**6: "us", 10**9: "ns"}[per_s]
    guess = () if per_s == 1 else (Finding("stamp unit", f"stamps have no unit; by their steps they are in {name}"),)
    return _to_ns(values, per_s), False, guess


def _epoch(text: str, timezone: str | None) -> int | None:
    iso = text if ":" in text else f"{text} 00:00"
    # CF: a date without an offset is UTC only by custom; a lab's file may mean its wall clock, so a zone is asked for,
    # but for the Unix epoch, which nobody means locally.
    if re.match(r"^1970-0?1-0?1", text):
        return 0
    return parse_time(iso, f"the stamps' unit ({text})", timezone)


def _guess_unit(values: NDArray[np.generic], fps: float | None) -> int:
    step = float(np.median(np.diff(values.astype(np.float64)))) if len(values) > 1 else 0.0
    if step <= 0:
        return 1
    if fps:
        return min(UNITS_PER_S, key=lambda per_s: abs(np.log(per_s / step / fps)))
    if values.dtype.kind == "f":
        return 1
    return next((per_s for per_s in reversed(UNITS_PER_S) if per_s / step < 2000), 1)


def _to_ns(values: NDArray[np.generic], per_s: int) -> NDArray[np.int64]:
    factor = NS // per_s
    # A margin of one bit, so that epochs can be added and differences taken.
    if max(abs(int(values.max())), abs(int(values.min()))) * factor >= 2**62:
        raise OverflowError(f"{values.max()} does not fit")
    if values.dtype.kind in "ui":
        return values.astype(np.int64) * factor
    # The whole part apart: a float64 of Unix ns would be off by 256 ns.
    wide = values.astype(np.float64)
    whole = np.floor(wide)
    return whole.astype(np.int64) * factor + np.rint((wide - whole) * factor).astype(np.int64)
