"""Dates and times as people write them into the names of files and folders. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time

from ingest.errors import SettingsError

__all__ = ["check_date_format", "read_date", "read_moment", "read_time", "start_text"]

# Years that a growth run may be of; what lies outside is another order of the digits.
FIRST_YEAR, END_YEAR = 1970, 2103
FORMAT_HINT = (
    "say in the rule how to read it, as strptime does: date_format: '%m%d%Y' (or '%Y%m%d', '%d%m%Y', '%y%m%d')"
)

_YEAR_FIRST = re.compile(r"([0-9]{4})([-_./])([0-9]{1,2})\2([0-9]{1,2})")
_DOTTED = re.compile(r"([0-9]{1,2})\.([0-9]{1,2})\.([0-9]{4})")
_YEAR_LAST = re.compile(r"([0-9]{1,2})([-_/])([0-9]{1,2})\2([0-9]{4})")
_DIGITS = re.compile(r"[0-9]{8}")
_TIME = re.compile(
    r"([0-9]{2})(?:([-_.:]?)([0-9]{2})\2([0-9]{2})|h([0-9]{2})m([0-9]{2})s?)(?:[.,]([0-9]{1,9})|[-_]([0-9]{3}))?"
)
_MOMENT = re.compile(
    r"(?P<date>[0-9]{8}|[0-9]{1,4}([-_./])[0-9]{1,2}\2[0-9]{1,4})[-_ T.]{0,3}"
    r"(?P<time>[0-9]{2}.*?)\s*(?P<zone>Z|UTC|[+-][0-9]{2}:?[0-9]{2})?"
)


def read_date(text: str, date_format: str | None = None) -> date:
    """Return the date that a text can only be.

    Parameters
    ----------
    text : str
        ``20220629``, ``2022-06-29``, ``29.06.2022`` (a dotted date has the day first), ``06292022`` or ``06-29-2022``.
    date_format : str, optional
        How to read it, as `datetime.strptime` does.

    Raises
    ------
    SettingsError
        No date, or several: 06072022 is of June or of July.
    """
    if date_format is not None:
        return _by_format(text, date_format).date()
    found = sorted(set(_dates(text)))
    if not found:
        raise SettingsError(f"{text!r} is no date", hint=FORMAT_HINT)
    if len(found) > 1:
        raise SettingsError(f"{text!r} is {' or '.join(day.isoformat() for day in found)}", hint=FORMAT_HINT)
    return found[0]


def _dates(text: str) -> Iterable[date]:
    """Return all dates that a text may be."""
    orders: list[tuple[str, str, str]] = []
    if match := _YEAR_FIRST.fullmatch(text):
        orders = [(match[1], match[3], match[4])]
    elif match := _DOTTED.fullmatch(text):
        orders = [(match[3], match[2], match[1])]
    elif match := _YEAR_LAST.fullmatch(text):
        orders = [(match[4], match[1], match[3]), (match[4], match[3], match[1])]
    elif _DIGITS.fullmatch(text):
        orders = [
            (text[:4], text[4:6], text[6:]),
            (text[4:], text[:2], text[2:4]),
            (text[4:], text[2:4], text[:2]),
        ]
    for year, month, day in orders:
        try:
            found = date(int(year), int(month), int(day))
        except ValueError:
            continue
        if FIRST_YEAR <= found.year < END_YEAR:
            yield found


def read_time(text: str) -> time:
    """Return the time of day, to the microsecond, from ``161713``, ``16-17-13``, ``16:17:13.250`` or ``16h17m13``.

    Raises
    ------
    SettingsError
        Anything else; hours and minutes alone, too.
    """
    match = _TIME.fullmatch(text)
    hint = "write hours, minutes and seconds (161713, 16-17-13, 16:17:13.250), or give the rule a start in `set`"
    if match is None:
        raise SettingsError(f"{text!r} is no time of day", hint=hint)
    minute, second = match[3] or match[5], match[4] or match[6]
    fraction = (match[7] or match[8] or "0")[:6].ljust(6, "0")
    try:
        return time(int(match[1]), int(minute), int(second), int(fraction))
    except ValueError as exc:
        raise SettingsError(f"{text!r} is no time of day: {exc}", hint=hint) from exc


def read_moment(text: str, date_format: str | None = None) -> str:
    """Return the ISO 8601 text, with a zone where there is one, of date and time such as ``20231003-161713``.

    Raises
    ------
    SettingsError
        As `read_date` and `read_time`.
    """
    if date_format is not None:
        return _by_format(text, date_format).isoformat()
    match = _MOMENT.fullmatch(text)
    if match is None:
        raise SettingsError(f"{text!r} is not a date and a time", hint=FORMAT_HINT)
    zone = match["zone"] or ""
    return start_text(read_date(match["date"]), read_time(match["time"])) + ("Z" if zone == "UTC" else zone)


def start_text(day: date, clock: time) -> str:
    """Return the ISO 8601 text of a date and a time of day, without a zone."""
    return datetime.combine(day, clock).isoformat()


def check_date_format(date_format: str, *, with_time: bool) -> None:
    """Refuse a format of `datetime.strptime` that does not say the whole date (and time).

    Raises
    ------
    SettingsError
        No such directive, or one is missing: a year, say.
    """
    probe = datetime(2003, 11, 17, 14, 25, 36, tzinfo=UTC)
    try:
        back = datetime.strptime(probe.strftime(date_format), date_format)  # noqa: DTZ007 - compared without zones
    except (ValueError, re.error) as exc:
        raise SettingsError(
            f"date_format {date_format!r} cannot be: {exc}", hint="write it as of strptime: '%m%d%Y', '%Y%m%d_%H%M%S'"
        ) from exc
    if back.date() != probe.date() or (with_time and (back.hour, back.minute) != (14, 25)):
        what = "date and time" if with_time else "date"
        raise SettingsError(
            f"date_format {date_format!r} does not say the whole {what}",
            hint="a date has %Y (or %y), %m and %d; the group datetime also %H, %M and %S",
        )


def _by_format(text: str, date_format: str) -> datetime:
    try:
        return datetime.strptime(text, date_format)  # noqa: DTZ007 - the zone comes later
    except (ValueError, re.error) as exc:
        raise SettingsError(f"{text!r} is not written as date_format {date_format!r} says") from exc
