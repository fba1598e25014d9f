"""When a recording began: evidence in order of trust. Pure, but for the time zone database."""

from __future__ import annotations

import datetime as dt
import re
from dataclasses import dataclass
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from ingest.errors import SettingsError, SourceTimeError
from ingest.sources.base import StartFrom, StartSaidBy
from ingest.timing import Finding

__all__ = [
    "NameTime",
    "ResolvedStart",
    "StartEvidence",
    "local_to_unix_ns",
    "parse_time",
    "resolve_start",
    "time_in_name",
    "unix_number_to_ns",
]

NS = 1_000_000_000
# A plain number is a Unix time if it falls between 2001-09-09 and 2103, in one of these units per second.
UNIX_FIRST_S, UNIX_END_S = 1_000_000_000, 4_200_000_000
UNITS_PER_S = (1, 10**3, 10**6, 10**9)
ZONE_HINT = "pass the zone of the lab's clock (timezone, such as Europe/Copenhagen), or the start itself"

_ISO = re.compile(
    r"^\s*(\d{4})-(\d{2})-(\d{2})[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9})\d*)?)?\s*(Z|UTC|[+-]\d{2}:?\d{2})?\s*$",
    re.IGNORECASE,
)
# Seen in FORMATS.md 1.2, 6.9 and the samples: 20231003-161713, 2023-10-03_16-17-13, 20231003T161713Z,
# 20231003_161713.250, 2025-12-22___15-39-57.878
_NAME = re.compile(
    r"(?<!\d)(\d{4})([-_.]?)(\d{2})\2(\d{2})[-_T .]{1,3}"
    r"(\d{2})([-_.h:]?)(\d{2})[-_.m:]?(\d{2})(?:([.,_-])(\d{3}))?(Z|UTC)?(?!\d)"
)


@dataclass(frozen=True, slots=True)
class StartEvidence:
    """All that is known of a run's start; None where there is nothing.

    Attributes
    ----------
    user_ns : int or None
        What the user says, Unix ns UTC.
    user_from : {"user", "sidecar", "file name"}
        By which way: himself, a ``growth.yaml``, or a rule of his over the path.
    frame_ns : int or None
        The first frame's own absolute stamp, Unix ns UTC.
    attribute : str, int, float or None
        A start time in the file: ISO text, or Unix seconds, ms, us or ns.
    attribute_name : str
        Its name, for messages.
    file_name : str or None
        Name of the file; None: says nothing of this run.
    container_tag : str or None
        ISO text of a video container's ``creation_time``.
    mtime_ns : int or None
        When the file was last written, Unix ns UTC; None: not to be used.
    duration_ns : int or None
        From first to last frame.
    timezone : str or None
        IANA zone of times without one.
    """

    user_ns: int | None = None
    user_from: StartSaidBy = "user"
    frame_ns: int | None = None
    attribute: str | int | float | None = None
    attribute_name: str = "start_time"
    file_name: str | None = None
    container_tag: str | None = None
    mtime_ns: int | None = None
    duration_ns: int | None = None
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class ResolvedStart:
    """When a run began, Unix ns UTC, who says so, and what was noticed on the way."""

    start_ns: int | None
    start_from: StartFrom | None
    findings: tuple[Finding, ...] = ()


def resolve_start(evidence: StartEvidence) -> ResolvedStart:
    """Decide when a run began: user, sidecar, frame stamps, file attributes, file name, container tag, mtime.

    Parameters
    ----------
    evidence : StartEvidence
        What is known.

    Returns
    -------
    ResolvedStart
        With None where nothing is known well enough.

    Raises
    ------
    SourceTimeError
        A time in the file without a zone, and none was given; a local time that the zone's clock showed twice or
        never; mtime asked for where the run's duration is unknown.
    SettingsError
        There is no such zone.
    """
    if evidence.user_ns is not None and evidence.user_from != "file name":
        return ResolvedStart(evidence.user_ns, evidence.user_from)
    if evidence.frame_ns is not None:
        return ResolvedStart(evidence.frame_ns, "frame stamps")
    findings: tuple[Finding, ...] = ()
    if evidence.attribute is not None:
        what = f"{evidence.attribute_name} = {evidence.attribute!r}"
        start_ns = _attribute_ns(evidence.attribute, what, evidence.timezone)
        if start_ns is not None:
            return ResolvedStart(start_ns, "file attributes")
        findings += (Finding("start time", f"{what} in the file is not understood as a time"),)
    if evidence.user_ns is not None:  # what a rule of the user's read from the path says more than our own reading
        return ResolvedStart(evidence.user_ns, "file name", findings)
    if evidence.file_name is not None:
        start_ns, more = _name_ns(evidence.file_name, evidence.timezone)
        findings += more
        if start_ns is not None:
            return ResolvedStart(start_ns, "file name", findings)
    if evidence.container_tag is not None:
        start_ns = _attribute_ns(evidence.container_tag, "the container's creation_time", evidence.timezone)
        if start_ns is not None:
            findings += (Finding("start time", "it is the container's creation_time, often that of an export"),)
            return ResolvedStart(start_ns, "container tag", findings)
    if evidence.mtime_ns is not None:
        if evidence.duration_ns is None:
            raise SourceTimeError(
                "the file's mtime says when the recording ended, but how long it took is not known",
                hint="pass fps, or the start itself",
            )
        return ResolvedStart(evidence.mtime_ns - evidence.duration_ns, "mtime", findings)
    return ResolvedStart(None, None, findings)


def _attribute_ns(value: str | int | float, what: str, timezone: str | None) -> int | None:
    if not isinstance(value, str):
        return unix_number_to_ns(value)
    for number in (int, float):
        try:
            return unix_number_to_ns(number(value))
        except ValueError:
            continue
    return parse_time(value, what, timezone)


def unix_number_to_ns(value: int | float) -> int | None:
    """Return a Unix time in s, ms, us or ns (told by its size) as ns; None if it is none between 2001 and 2103."""
    for per_s in UNITS_PER_S:
        if UNIX_FIRST_S * per_s <= value < UNIX_END_S * per_s:
            whole = int(value)
            return whole * (NS // per_s) + round((value - whole) * (NS // per_s))
    return None


def parse_time(text: str, what: str, timezone: str | None) -> int | None:
    """Return an ISO 8601 date and time as Unix ns.

    Parameters
    ----------
    text : str
        Such as ``2023-10-03T16:17:13.250+02:00``.
    what : str
        Where it was found, for messages.
    timezone : str or None
        IANA zone, for a text without an offset.

    Returns
    -------
    int or None
        Unix ns UTC; None: not such a text.

    Raises
    ------
    SourceTimeError
        No offset and no zone; or see `local_to_unix_ns`.
    """
    match = _ISO.match(text)
    if match is None:
        return None
    year, month, day, hour, minute = (int(part) for part in match.groups()[:5])
    try:
        local = dt.datetime(year, month, day, hour, minute, int(match[6] or 0))  # noqa: DTZ001  the zone comes next
    except ValueError:
        return None
    fraction_ns = int((match[7] or "0").ljust(9, "0"))
    zone = match[8]
    if zone is None:
        if timezone is None:
            raise SourceTimeError(f"{what} has no time zone", hint=ZONE_HINT)
        return local_to_unix_ns(local, timezone, what) + fraction_ns
    if zone.upper() in ("Z", "UTC"):
        offset = dt.timedelta()
    else:
        sign = -1 if zone[0] == "-" else 1
        offset = sign * dt.timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
    return _unix_s(local - offset) * NS + fraction_ns


def _unix_s(utc: dt.datetime) -> int:
    return (utc - dt.datetime(1970, 1, 1)) // dt.timedelta(seconds=1)  # noqa: DTZ001  both are UTC without saying so


def local_to_unix_ns(local: dt.datetime, timezone: str, what: str) -> int:
    """Return a wall clock time of a zone as Unix ns.

    Parameters
    ----------
    local : datetime, naive
        What the clock showed.
    timezone : str
        IANA zone.
    what : str
        Where it was found, for messages.

    Returns
    -------
    int
        Unix ns UTC.

    Raises
    ------
    SourceTimeError
        The zone's clock showed this time twice (end of summer time), or never (its begin).
    SettingsError
        There is no such zone.
    """
    try:
        zone = ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise SettingsError(
            f"there is no time zone {timezone!r}", hint="use an IANA name, such as Europe/Copenhagen or UTC"
        ) from error
    early, late = (local.replace(tzinfo=zone, fold=fold) for fold in (0, 1))
    if early.utcoffset() != late.utcoffset():
        # In a gap, going to UTC and back lands on another wall clock time; in an overlap it does not.
        back = early.astimezone(dt.UTC).astimezone(zone).replace(tzinfo=None)
        often = "twice, as summer time ended (ambiguous)" if back == local else "never, as summer time began"
        raise SourceTimeError(
            f"{what}: the clock of {timezone} showed {local.isoformat(' ')} {often}",
            hint="pass the start itself, with its offset from UTC",
        )
    return _unix_s(early.astimezone(dt.UTC).replace(tzinfo=None)) * NS + local.microsecond * 1000


def _name_ns(file_name: str, timezone: str | None) -> tuple[int | None, tuple[Finding, ...]]:
    found = time_in_name(file_name)
    if found is None:
        return None, ()
    zone = "UTC" if found.is_utc else timezone
    if zone is None:
        message = f"the file name says {found.local.isoformat(' ')}, but not in which time zone: {ZONE_HINT}"
        return None, (Finding("start time", message),)
    return local_to_unix_ns(found.local, zone, f"file name {file_name}") + found.fraction_ns, ()


@dataclass(frozen=True, slots=True)
class NameTime:
    """A date and time in a name.

    Attributes
    ----------
    local : datetime, naive
        What it says, to the second.
    fraction_ns : int
        The rest of it.
    is_utc : bool
        Whether it says so; else it is of some zone.
    seconds_end : int
        Where in the name its seconds end.
    end : int
        Where all of it ends.
    fraction_is_sure : bool
        Whether three digits after the seconds follow a point or comma; after another sign they may be a count.
    """

    local: dt.datetime
    fraction_ns: int
    is_utc: bool
    seconds_end: int
    end: int
    fraction_is_sure: bool


def time_in_name(name: str) -> NameTime | None:
    """Return the first date with time between 1990 and 2103 in a file's name; None: there is none."""
    for match in _NAME.finditer(name):
        year, month, day, hour, minute, second = (int(match[i]) for i in (1, 3, 4, 5, 7, 8))
        try:
            local = dt.datetime(year, month, day, hour, minute, second)  # noqa: DTZ001  the zone comes next
        except ValueError:
            continue
        if 1990 <= year < 2103:
            fraction_ns = int(match[10] or 0) * 1_000_000
            return NameTime(local, fraction_ns, bool(match[11]), match.end(8), match.end(), match[9] in (".", ","))
    return None
