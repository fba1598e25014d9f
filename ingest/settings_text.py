"""Values as people write them: lengths of time, times, regions, shapes, types of pixels. Pure."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Sequence
from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np

from ingest.errors import SettingsError
from ingest.sources.base import Roi

__all__ = [
    "FOLLOW_S",
    "check_zone",
    "parse_dtype",
    "parse_duration_s",
    "parse_follow_s",
    "parse_moment",
    "parse_roi",
    "parse_shape",
    "parse_start_ns",
    "shown",
]

FOLLOW_S = 30.0
"""How long a file must be quiet before it is taken as finished, unless the user says so himself."""

_DURATION = re.compile(r"(?P<number>[0-9]+(?:\.[0-9]+)?)\s*(?P<unit>s|min|m|h)?")
_UNIT_S = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
# What int64 nanoseconds hold, in whole years.
_FIRST_YEAR, _LAST_YEAR = 1678, 2261

_DTYPE = re.compile(r"(?P<order>[<>|=]?)(?P<name>u?int(?:8|16|32|64)|float(?:16|32|64)|[ui][1248]|f[248])")

_REPR = reprlib.Repr()
_REPR.maxlevel = 2


def shown(value: object) -> str:
    """Return a value for a message: short, however much YAML's aliases would unfold."""
    return _REPR.repr(value)


def check_zone(timezone: str) -> str:
    """Return the name of a time zone, if there is one of that name.

    Raises
    ------
    SettingsError
        There is none.
    """
    try:
        ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
        raise SettingsError(f"there is no time zone {timezone!r}", hint="use an IANA name: Europe/Berlin") from exc
    return timezone


def parse_duration_s(text: object) -> float:
    """Return seconds from ``90``, ``"90s"``, ``"15m"`` or ``"2h"``.

    Raises
    ------
    SettingsError
        Anything else.
    """
    if isinstance(text, int | float) and not isinstance(text, bool) and math.isfinite(text) and text >= 0:
        return float(text)
    match = _DURATION.fullmatch(text.strip()) if isinstance(text, str) else None
    seconds = math.inf if match is None else float(match["number"]) * _UNIT_S[match["unit"]]
    if not math.isfinite(seconds):
        raise SettingsError(
            f"{shown(text)} is no length of time", hint="write seconds (90, 90s), minutes (15m) or hours (2h)"
        )
    return seconds


def parse_follow_s(value: object) -> float | None:
    """Return how many seconds a file must be quiet; 30 for True, None for False and None.

    Raises
    ------
    SettingsError
        No length of time, or none at all.
    """
    if value is None or value is False:
        return None
    if value is True:
        return FOLLOW_S
    try:
        seconds = parse_duration_s(value)
    except SettingsError as exc:
        raise SettingsError(str(exc), hint="write --follow=30s (or 2m); alone, --follow comes last") from exc
    if seconds == 0:
        raise SettingsError("a file that must be quiet for 0 s is never waited for", hint="leave follow out, or 30s")
    return seconds


def parse_moment(value: object) -> float | str:
    """Return a moment of a run: seconds from the first frame on, or the text of an ISO 8601 time.

    Parameters
    ----------
    value : str, float or datetime
        Such as ``12.5``, ``"90s"``, ``"2m"``, ``"2023-10-18T08:00:00+02:00"``; YAML reads times by itself.

    Raises
    ------
    SettingsError
        Anything else.
    """
    if isinstance(value, datetime):
        return value.isoformat()
    try:
        return parse_duration_s(value)
    except SettingsError as exc:
        text = value.strip() if isinstance(value, str) else ""
        try:
            datetime.fromisoformat(text)
        except ValueError:
            raise SettingsError(
                f"{shown(value)} is neither seconds nor a time",
                hint="write seconds from the first frame on (12.5, 90s, 2m), or 2023-10-18T08:00:00+02:00",
            ) from exc
        return text


def parse_start_ns(text: str, timezone: str | None, what: str = "start") -> int:
    """Return Unix ns UTC from an ISO 8601 time.

    Parameters
    ----------
    text : str
        Such as ``2023-10-18T08:00:00.250+02:00``; a time without a zone needs `timezone`.
    timezone : str or None
        IANA name.
    what : str
        What it is the time of, for messages.

    Raises
    ------
    SettingsError
        Not ISO 8601, no zone, an unknown one, a time that its clock showed twice or never, or before 1678 or after
        2261 (64 bit of nanoseconds hold no more).
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as exc:
        raise SettingsError(f"{what} {text!r} is not an ISO 8601 time", hint="write 2023-10-18T08:00:00+02:00") from exc
    if not _FIRST_YEAR <= time.year <= _LAST_YEAR:
        raise SettingsError(
            f"{what} {text!r} is before {_FIRST_YEAR} or after {_LAST_YEAR}", hint="check the year: YYYY-MM-DD"
        )
    if time.tzinfo is None:
        if timezone is None:
            raise SettingsError(
                f"{what} {text!r} has no zone",
                hint="add it (2023-10-18T08:00:00+02:00, or Z for UTC), or pass --timezone",
            )
        time = time.replace(tzinfo=ZoneInfo(check_zone(timezone)))
        if time.utcoffset() != time.replace(fold=1).utcoffset():
            raise SettingsError(
                f"{what} {text!r}: the clock of {timezone} showed that twice or never, as summer time ended or began",
                hint="add the offset from UTC (2023-10-29T02:30:00+02:00)",
            )
    whole = int(time.replace(microsecond=0).timestamp())
    return whole * 1_000_000_000 + time.microsecond * 1000


def parse_roi(value: object) -> Roi:
    """Return left, top, width and height in px from ``"LEFT,TOP,WIDTH,HEIGHT"`` or four numbers.

    Raises
    ------
    SettingsError
        Anything else; nothing to the left or above of the frame, or of no size.
    """
    numbers = _whole_numbers(value, r"\s*,\s*")
    if numbers is None or len(numbers) != 4 or min(numbers[2:]) < 1:
        raise SettingsError(
            f"{shown(value)} is no region of a frame",
            hint="write LEFT,TOP,WIDTH,HEIGHT in px of the recorded frame: 100,50,400,300",
        )
    left, top, width, height = numbers
    return left, top, width, height


def parse_shape(value: object) -> tuple[int, int]:
    """Return height and width in px from ``"HEIGHTxWIDTH"`` or two numbers.

    Raises
    ------
    SettingsError
        Anything else, or no size.
    """
    numbers = _whole_numbers(value, r"\s*x\s*")
    if numbers is None or len(numbers) != 2 or min(numbers) < 1:
        raise SettingsError(
            f"{shown(value)} is no shape of a frame", hint="write HEIGHTxWIDTH in px: 480x640 (height first)"
        )
    return numbers[0], numbers[1]


def _whole_numbers(value: object, separator: str) -> tuple[int, ...] | None:
    """Return the numbers >= 0 of a text or a list; None if there is anything else in it."""
    if isinstance(value, str):
        parts = re.split(separator, value.strip())
        return tuple(int(part) for part in parts) if all(re.fullmatch("[0-9]{1,9}", part) for part in parts) else None
    if not isinstance(value, Sequence) or not all(type(part) is int and 0 <= part < 10**9 for part in value):
        return None
    return tuple(value)


def parse_dtype(value: object) -> str:
    """Return NumPy's short name of a pixel type, with its byte order: ``">u2"``, ``"<f4"``, ``"u1"``.

    Parameters
    ----------
    value : str
        A short or a long name (``"<uint16"``); one of more than one byte needs ``<`` or ``>``.

    Raises
    ------
    SettingsError
        No type of integers or floats, or none that says in which order its bytes are.
    """
    hint = "write <u2 (16 bit, low byte first, as PCs and most cameras write), >u2 (high byte first), u1 or <f4"
    match = _DTYPE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise SettingsError(f"{shown(value)} is no type of pixels", hint=hint)
    dtype = np.dtype(match["name"])
    if dtype.itemsize == 1:
        return dtype.str.lstrip("|")
    if match["order"] not in ("<", ">"):
        raise SettingsError(f"pixels of type {value!r}: nothing says in which order their bytes are", hint=hint)
    return match["order"] + dtype.str[1:]
