"""Times of instrument logs: what a column of texts means, and each text as exact ns. Pure."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SettingsError, SourceTimeError
from ingest.sources.start import NS, UNITS_PER_S, UNIX_END_S, UNIX_FIRST_S, local_to_unix_ns
from ingest.timing import Finding

__all__ = [
    "UNIT_NS",
    "CellKind",
    "TimeRule",
    "cell_kind",
    "check_zone",
    "day_order",
    "has_zone",
    "number_rule",
    "numbers_ns",
    "read_times",
]

UNIT_NS = {
    **dict.fromkeys(("ns", "nsec", "nanosecond", "nanoseconds"), 1),
    **dict.fromkeys(("us", "usec", "µs", "μs", "microsecond", "microseconds"), 10**3),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 10**6),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds", "sek"), NS),
    **dict.fromkeys(("min", "mins", "minute", "minutes"), 60 * NS),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3600 * NS),
    **dict.fromkeys(("d", "day", "days"), 86_400 * NS),
}
"""Units of time, as headers write them, in ns."""
# LabVIEW counts seconds from 1904-01-01 UTC (NI, "LabVIEW Timestamp Overview"): its numbers of today, read as Unix
# times, lie in 2066 and later.
LABVIEW_EPOCH_S = -2_082_844_800
MAX_NS = 2**62  # a margin of one bit, so that epochs can be added and differences taken
DAY_NS = 86_400 * NS
MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

CellKind = Literal["number", "moment", "day", "clock"]
DayOrder = Literal["dmy", "mdy"]

_DAY = (
    r"(?:(?P<year>\d{4})(?P<dash>[-/.])(?P<month>\d{1,2})(?P=dash)(?P<day>\d{1,2})"
    r"|(?P<first>\d{1,2})(?P<mark>[./-])(?P<second_part>\d{1,2})(?P=mark)(?P<last_year>\d{4})"
    r"|(?P<named_day>\d{1,2})[- ](?P<month_name>[A-Za-z]{3})[a-z]*[- ](?P<named_year>\d{4}))"
)
_CLOCK = (
    r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?)?"
    r"(?:\s*(?P<half>[AaPp])\.?[Mm]\.?)?"
)
_MOMENT = re.compile(
    rf"\s*{_DAY}(?:\s*[T,]\s*|\s+){_CLOCK}\s*(?P<zone>Z|UTC|GMT|[+-]\d{{2}}:?\d{{2}})?\s*", re.IGNORECASE | re.ASCII
)
_DAY_ONLY = re.compile(rf"\s*{_DAY}\s*", re.ASCII)
_CLOCK_ONLY = re.compile(
    r"\s*(?P<sign>-?)(?P<hour>\d+):(?P<minute>\d{2}):(?P<second>\d{2})(?:[.,](?P<fraction>\d+))?\s*", re.ASCII
)
_SECONDS = re.compile(r"([0-5]\d)(?:[.,](\d+))?", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(?:\d+(?:[.,]\d*)?|[.,]\d+)(?:[eE][+-]?\d+)?\s*", re.ASCII)


@dataclass(frozen=True, slots=True)
class TimeRule:
    """How the times of a log are read.

    Attributes
    ----------
    columns : tuple of int
        The field that holds them; two where date and time of day stand apart.
    kind : {"elapsed", "unix", "clock", "moment"}
        A number from an unknown start; a number from a known epoch; ``h:mm:ss`` from an unknown start; a date and time.
    unit_ns : int
        Of a number.
    epoch_ns : int
        Unix ns of a number's 0.
    day_order : {"dmy", "mdy"} or None
        Of dates such as 03/10/2023; None: there are none, or it is not known.
    timezone : str or None
        IANA zone of dates and times without one.
    """

    columns: tuple[int, ...]
    kind: Literal["elapsed", "unix", "clock", "moment"]
    unit_ns: int = NS
    epoch_ns: int = 0
    day_order: DayOrder | None = None
    timezone: str | None = None

    @property
    def absolute(self) -> bool:
        """Whether its times are Unix ns; else they count from an unknown start."""
        return self.kind in ("unix", "moment")


def cell_kind(text: str) -> CellKind | None:
    """Return what a field holds: a number, a date and time, only one of these, or (None) something else.

    A comma counts as a decimal point here.
    """
    if _NUMBER.fullmatch(text):
        return "number"
    if _MOMENT.fullmatch(text):
        return "moment"
    if _CLOCK_ONLY.fullmatch(text):
        return "clock"
    return "day" if _DAY_ONLY.fullmatch(text) else None


def has_zone(text: str) -> bool:
    """Whether a date and time says its offset from UTC."""
    match = _MOMENT.fullmatch(text)
    return match is not None and match["zone"] is not None


def check_zone(timezone: str) -> None:
    """Raise `SettingsError` if there is no such zone."""
    local_to_unix_ns(dt.datetime(2000, 1, 1, 12), timezone, "noon")  # noqa: DTZ001  that is the question


def day_order(texts: Iterable[str]) -> tuple[bool, DayOrder | None]:
    """Tell whether dates such as 10/03/2023 begin with the day or the month, by a number over 12.

    Returns
    -------
    needed : bool
        Whether there are such dates. 03.10.2023 is none: with dots the day comes first.
    order : {"dmy", "mdy"} or None
        None: any of them can be read both ways.
    """
    needed = False
    for text in texts:
        match = _MOMENT.fullmatch(text)
        if match is None or match["mark"] in (None, "."):
            continue
        needed = True
        if int(match["first"]) > 12:
            return True, "dmy"
        if int(match["second_part"]) > 12:
            return True, "mdy"
    return needed, None


def number_rule(
    column: int, first: float, unit: str | None, latest_ns: int, *, from_start: bool = False
) -> tuple[TimeRule, tuple[Finding, ...]]:
    """Decide what a column of numbers counts, and from when.

    Parameters
    ----------
    column : int
        The field.
    first : float
        One of its numbers.
    unit : str or None
        A key of `UNIT_NS`; None: not said.
    latest_ns : int
        Now: no recording is from the future.
    from_start : bool
        The column says that it counts from the log's start.

    Returns
    -------
    TimeRule
        Numbers that are Unix times between 2001 and 2103, in `unit` (else in s, ms, us or ns), are that; others count
        from an unknown start, in `unit` (else in seconds).
    tuple of Finding
        Where the epoch is LabVIEW's, or no unit was said.
    """
    units = [NS // per_s for per_s in UNITS_PER_S] if unit is None else [UNIT_NS[unit]]
    for unit_ns in units if not from_start else ():
        if unit_ns > NS or not UNIX_FIRST_S <= first * (unit_ns / NS) < UNIX_END_S:
            continue
        from_1904_s = first + LABVIEW_EPOCH_S
        if unit_ns == NS and first * NS > latest_ns + DAY_NS and UNIX_FIRST_S <= from_1904_s <= latest_ns / NS:
            message = "times count seconds from 1904 (LabVIEW): as Unix times they would lie in the future"
            return TimeRule((column,), "unix", NS, LABVIEW_EPOCH_S * NS), (Finding("time column", message),)
        return TimeRule((column,), "unix", unit_ns), ()
    rule = TimeRule((column,), "elapsed", NS if unit is None else UNIT_NS[unit])
    if unit is not None:
        return rule, ()
    return rule, (Finding("time column", "its unit is not said: taken as seconds from the log's start"),)


def read_times(rule: TimeRule, texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_], list[int]]:
    """Read a column of times, to the last digit.

    Parameters
    ----------
    rule : TimeRule
        How.
    texts : sequence of str
        (row,); decimal points, not commas.

    Returns
    -------
    times_ns : ndarray of int64, (row,)
        Unix ns UTC if `rule.absolute`, else from an unknown start; 0 where it is not readable.
    readable : ndarray of bool, (row,)
        Which are.
    unclear : list of int
        Rows that are not because the zone's clock showed that time twice or never.

    Raises
    ------
    SettingsError
        There is no such zone.
    """
    read = _reader(rule)
    try:
        return np.fromiter(map(read, texts), np.int64, len(texts)), np.ones(len(texts), np.bool_), []
    except SettingsError:
        raise
    except (ValueError, ArithmeticError):
        pass
    times_ns, readable, unclear = np.zeros(len(texts), np.int64), np.zeros(len(texts), np.bool_), []
    for row, text in enumerate(texts):
        try:
            times_ns[row] = read(text)
            readable[row] = True
        except SourceTimeError:
            unclear.append(row)
        except (ValueError, ArithmeticError):
            continue
    return times_ns, readable, unclear


def numbers_ns(values: NDArray[Any], unit_ns: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Bring a column of numbers to ns.

    Parameters
    ----------
    values : ndarray of int or float, (row,)
        Times.
    unit_ns : int
        Their unit.

    Returns
    -------
    times_ns : ndarray of int64, (row,)
        0 where it is not readable.
    readable : ndarray of bool, (row,)
        Where values are finite, and within 146 years.
    """
    limit = MAX_NS // unit_ns
    if values.dtype.kind in "ui":
        readable = (values <= limit) & (values >= -limit)
        return np.where(readable, values, 0).astype(np.int64) * unit_ns, readable
    wide = values.astype(np.float64)
    readable = np.abs(wide) < limit  # NaN is not
    wide = np.where(readable, wide, 0.0)
    # The whole part apart: a float64 of Unix ns would be off by 256 ns.
    whole = np.floor(wide)
    return whole.astype(np.int64) * unit_ns + np.rint((wide - whole) * unit_ns).astype(np.int64), readable


def _reader(rule: TimeRule) -> Callable[[str], int]:
    """Return what reads one text; raises `SourceTimeError` for an unclear one, else ValueError or ArithmeticError."""
    if rule.kind == "clock":
        return _elapsed_clock_ns
    if rule.kind == "moment":
        return _moment_reader(rule)
    unit, epoch_ns = Decimal(rule.unit_ns), rule.epoch_ns

    def number_ns(text: str) -> int:
        if "_" in text:  # Python's own digit groups
            raise ValueError(text)
        value = Decimal(text) * unit
        # Compared before it becomes an integer, which 1e999999 must not.
        if not -MAX_NS < value < MAX_NS:
            raise ValueError(text)
        return int(value.to_integral_value()) + epoch_ns

    return number_ns


def _elapsed_clock_ns(text: str) -> int:
    match = _CLOCK_ONLY.fullmatch(text)
    if match is None or len(match["hour"]) > 6 or match["minute"] > "59" or match["second"] > "59":
        raise ValueError(text)
    seconds = (int(match["hour"]) * 60 + int(match["minute"])) * 60 + int(match["second"])
    ns = seconds * NS + _fraction_ns(match["fraction"])
    return -ns if match["sign"] else ns


def _fraction_ns(digits: str | None) -> int:
    return int(digits[:9].ljust(9, "0")) if digits else 0


def _moment_reader(rule: TimeRule) -> Callable[[str], int]:
    """Return what reads one date and time; those within one minute differ in their seconds only."""
    head, tail, minute_ns = "never the beginning of a time", "", 0

    def moment_ns(text: str) -> int:
        nonlocal head, tail, minute_ns
        if text.startswith(head):
            seconds = _SECONDS.match(text, len(head))
            if seconds is not None and text[seconds.end() :] == tail:
                return minute_ns + int(seconds[1]) * NS + _fraction_ns(seconds[2])
        match = _MOMENT.fullmatch(text)
        if match is None:
            raise ValueError(text)
        began_ns = _minute_of(match, rule)
        second = int(match["second"] or 0)
        if second > 59:
            raise ValueError(text)
        if match["second"] is not None:
            head, minute_ns = text[: match.start("second")], began_ns
            tail = text[match.end("second") if match["fraction"] is None else match.end("fraction") :]
        return began_ns + second * NS + _fraction_ns(match["fraction"])

    return moment_ns


def _minute_of(match: re.Match[str], rule: TimeRule) -> int:
    hour, half = int(match["hour"]), match["half"]
    if half is not None:
        if not 1 <= hour <= 12:
            raise ValueError(match[0])
        hour = hour % 12 + (12 if half in "pP" else 0)
    return _minute_ns(*_day(match, rule.day_order), hour, int(match["minute"]), match["zone"], rule.timezone)


def _day(match: re.Match[str], order: DayOrder | None) -> tuple[int, int, int]:
    if match["year"] is not None:
        return int(match["year"]), int(match["month"]), int(match["day"])
    if match["named_year"] is not None:
        return int(match["named_year"]), MONTHS.index(match["month_name"].lower()) + 1, int(match["named_day"])
    if match["mark"] != "." and order is None:
        raise ValueError(match[0])
    first, second = int(match["first"]), int(match["second_part"])
    day, month = (second, first) if match["mark"] != "." and order == "mdy" else (first, second)
    return int(match["last_year"]), month, day


@lru_cache(maxsize=4096)
def _minute_ns(year: int, month: int, day: int, hour: int, minute: int, zone: str | None, timezone: str | None) -> int:
    local = dt.datetime(year, month, day, hour, minute)  # noqa: DTZ001  the zone comes next
    if zone is None:
        if timezone is None:
            raise ValueError("no zone")
        return local_to_unix_ns(local, timezone, "a row")
    offset = dt.timedelta()
    if zone[0] in "+-":
        offset = dt.timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:])) * (-1 if zone[0] == "-" else 1)
    return (local - offset - dt.datetime(1970, 1, 1)) // dt.timedelta(seconds=1) * NS  # noqa: DTZ001  both are UTC
