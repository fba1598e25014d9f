"""Columns of instrument logs by their headers: names, units, and which of them is the time. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from ingest.errors import SourceTimeError
from ingest.sources.log_times import UNIT_NS, CellKind, TimeRule, cell_kind, number_rule
from ingest.timing import Finding

__all__ = ["MISSING", "Header", "is_unit", "split_units", "time_name", "time_rule", "time_unit", "unique_names"]

MISSING = frozenset({"", "nan", "na", "n/a", "#n/a", "null", "none", "-", "--", "---"})
"""What loggers write where there is no value, in lower case."""

_PREFIX = "(?:da|[fpnuµμmcdhkMGT])?"
_BASE = (
    "m|g|s|A|K|mol|cd|Hz|N|Pa|J|W|C|V|F|Ω|ohm|Ohm|S|Wb|T|H|l|L|eV|bar|Torr|torr|Å|°|°C|°F|℃|degC|degF|deg|rad|sr|%|"
    "min|h|d|sec|rpm|RPM|sccm|SCCM|slm|slpm|ccm|ppm|ppb|psi|PSI|atm|ML|counts?|cts|cps|px|mil|Oe|G|Gauss|VA|dB|dBm"
)
_UNIT_PART = re.compile(rf"(?:{_PREFIX}(?:{_BASE}))(?:\^?-?\d+|[²³])?")
_UNIT_WORDS = frozenset(
    {"a.u.", "au", "arb.", "arb", "arb.u.", "arb. units", "arb.units", "arbitrary units", "unitless"}
)
_TIME_NAME = re.compile(
    r"(?:(?:elapsed|relative|absolute|unix|epoch|utc|local|run|log|sample) )?"
    r"(?:times?(?: ?stamps?)?|date ?time|date(?:/| & | and )time)(?: (?:elapsed|utc|local))?"
    r"|elapsed|unix|epoch|utc|zeit|zeitstempel|datum|date|clock|uhrzeit|relative time"
)
_DATE_NAME = re.compile(r"dat(?:e|um)\b")
_FROM_START = re.compile(r"elapsed|relative|\brun\b")
# Rising numbers that count something other than time.
_INDEX_NAME = re.compile(
    r"|#|no\.?|nr\.?|n|i|index|idx|row|line|point|frame.*|sample.*|scan.*|step|cycle.*|id|count.*|x"
)
_SUFFIX_UNIT = re.compile(r"^(.*?)(?:[_ ]| in )([a-zµμ]+)$", re.IGNORECASE)


@dataclass(frozen=True)
class Header:
    """What stands above the rows of a log: a name and a unit (or None) for each field."""

    names: tuple[str, ...]
    units: tuple[str | None, ...]


def is_unit(text: str) -> bool:
    """Whether a text is a unit of measurement: ``mbar``, ``°C``, ``nm/s``, ``J/cm^2``, ``arb. units``."""
    stripped = text.strip()
    if stripped.lower() in _UNIT_WORDS:
        return True
    parts = [part for part in re.split(r"[*/·\s]+", stripped.removeprefix("1/")) if part]
    return bool(parts) and all(_UNIT_PART.fullmatch(part) or part in UNIT_NS for part in parts)


def split_units(title: str) -> tuple[str, str | None]:
    """Split a header field into name and unit.

    Parameters
    ----------
    title : str
        ``Temperature [C]``, ``pressure (mbar)``, ``T/K``, or only a name.

    Returns
    -------
    name : str
        Without the unit; all of `title` where what follows is no unit, such as ``Temperature (heater)``.
    units : str or None
        As written. A range or list in brackets, such as ``Value [0,100]``, is none, and is left out of the name.
    """
    whole = title.strip()
    if match := re.fullmatch(r"(.*\S)\s*\[([^\[\]]*)\]", whole):
        inner = match[2].strip()
        return match[1], inner if inner and len(inner) <= 24 and "," not in inner else None
    if (match := re.fullmatch(r"(.*\S)\s*\(([^()]*)\)", whole)) and is_unit(match[2]):
        return match[1], match[2].strip()
    if (match := re.fullmatch(r"(.*[^\s/])\s*/\s*(\S.*)", whole)) and is_unit(match[2]):
        return match[1], match[2].strip()
    return whole, None


def unique_names(names: Sequence[str]) -> tuple[list[str], tuple[Finding, ...]]:
    """Make names unique by a number in parentheses behind those that came before, with a finding."""
    taken, repeated, unique = set(names), [], []
    seen: Counter[str] = Counter()
    for name in names:
        seen[name] += 1
        fresh, number = name, seen[name]
        if number > 1:
            while (fresh := f"{name} ({number})") in taken:
                number += 1
            repeated.append(fresh)
            taken.add(fresh)
        unique.append(fresh)
    if not repeated:
        return unique, ()
    shown = ", ".join(repeated[:5]) + (", ..." if len(repeated) > 5 else "")
    return unique, (Finding("channel names", f"{len(repeated)} names occur again, and are now {shown}"),)


def time_rule(
    header: Header, rows: Sequence[Sequence[str]], latest_ns: int
) -> tuple[TimeRule, tuple[Finding, ...]] | None:
    """Find the column that says when each row was written.

    Parameters
    ----------
    header : Header
        Names and units.
    rows : sequence of sequence of str
        Some rows, each with as many fields as the header.
    latest_ns : int
        Now, Unix ns.

    Returns
    -------
    tuple of TimeRule and findings, or None
        Day and time of day in two columns; else the first column named as a time, absolute ones first; else the first
        column if it holds dates, or rises and neither name nor unit says that it is something else. None: there is
        no such column.

    Raises
    ------
    SourceTimeError
        Only times of day, without a date.
    """
    kinds = [_column_kind([row[i] for row in rows]) for i in range(len(header.names))]
    names = [time_name(name, unit) for name, unit in zip(header.names, header.units, strict=True)]
    named = [i for i, name in enumerate(names) if name is not None]
    for day in (i for i in named if kinds[i] == "day"):
        # The clock stands beside the day, or is named as a time.
        clock = next((i for i in (day + 1, *named) if i < len(kinds) and kinds[i] == "clock"), None)
        if clock is not None:
            return TimeRule((day, clock), "moment", timezone=_said_zone(header, day, clock)), ()
    for i in (i for i in named if kinds[i] == "moment"):
        return TimeRule((i,), "moment", timezone=_said_zone(header, i)), ()
    numbers = [_number_rule(header, names, rows, i, latest_ns) for i in named if kinds[i] == "number"]
    for rule, findings in sorted(numbers, key=lambda found: not found[0].absolute):
        # A number under "date" that is no Unix time counts days, from an epoch that is not known.
        if rule.absolute or not _DATE_NAME.search(names[rule.columns[0]] or ""):
            return rule, findings
    for i in (i for i in named if kinds[i] == "clock"):
        if _FROM_START.search(names[i] or ""):
            return TimeRule((i,), "clock"), ()
        raise SourceTimeError(
            f"column {header.names[i]!r} has times of day, such as {rows[0][i]!r}, and no column has dates",
            hint="add a column of dates, or name it Elapsed time if it counts from the log's start",
        )
    return _first_column(header, names, kinds, rows, latest_ns)


def _first_column(
    header: Header,
    names: Sequence[str | None],
    kinds: Sequence[CellKind | None],
    rows: Sequence[Sequence[str]],
    latest_ns: int,
) -> tuple[TimeRule, tuple[Finding, ...]] | None:
    if kinds[0] == "moment":
        return TimeRule((0,), "moment"), ()
    unit = header.units[0]
    name = header.names[0].lower()
    says_else = (unit is not None and unit not in UNIT_NS) or _INDEX_NAME.fullmatch(name) or _DATE_NAME.search(name)
    if kinds[0] != "number" or says_else:
        return None
    values = [value for row in rows if (value := _float(row[0])) is not None]
    if len(values) < 2 or not all(b >= a for a, b in pairwise(values)) or values[0] == values[-1]:
        return None
    rule, findings = _number_rule(header, names, rows, 0, latest_ns)
    message = f"no column is named as a time; {header.names[0]!r}, the first, rises and is taken as that"
    return rule, (Finding("time column", message), *findings)


def _number_rule(
    header: Header, names: Sequence[str | None], rows: Sequence[Sequence[str]], column: int, latest_ns: int
) -> tuple[TimeRule, tuple[Finding, ...]]:
    unit = time_unit(header.names[column], header.units[column])
    first = next(value for row in rows if (value := _float(row[column])) is not None)
    return number_rule(column, first, unit, latest_ns, from_start=_FROM_START.search(names[column] or "") is not None)


def time_name(name: str, unit: str | None) -> str | None:
    """Return a column's name, brought to one way of writing, if it is that of a time; None: it is not.

    Parameters
    ----------
    name : str
        ``Time``, ``time_stamp``, ``Elapsed time``, ``t_ms``, ``date``, ...
    unit : str or None
        What the header gives as its unit; one that is not of time makes it none.
    """
    if unit is not None and unit not in UNIT_NS and unit.lower() not in ("utc", "local", "iso"):
        return None
    if name == "t":  # T is a temperature
        return name
    bare = re.sub(r"[([].*?[)\]]", " ", name) if unit is None else name
    plain = " ".join(re.sub(r"[_\-.:]+", " ", bare).lower().split())
    for candidate in (plain, _suffix_unit(plain)[0]):
        if _TIME_NAME.fullmatch(candidate) or (candidate == "t" and name.startswith("t") and plain != "t"):
            return plain
    return None


def time_unit(name: str, unit: str | None) -> str | None:
    """Return the unit of a column of times, a key of `UNIT_NS`: as the header says, or as its name ends (``t_ms``)."""
    if unit is not None and unit.strip().lower() in UNIT_NS:
        return unit.strip().lower()
    return _suffix_unit(name)[1]


def _suffix_unit(name: str) -> tuple[str, str | None]:
    """Split ``time_ms`` and ``time in s``."""
    match = _SUFFIX_UNIT.match(name.strip())
    if match is None or match[2].lower() not in UNIT_NS:
        return name, None
    return match[1].strip(), match[2].lower()


def _said_zone(header: Header, *columns: int) -> str | None:
    """Return UTC where a header says so."""
    titles = " ".join(f"{header.names[i]} {header.units[i]}" for i in columns)
    return "UTC" if re.search(r"(?<![a-z])(?:utc|gmt)(?![a-z])", titles, re.IGNORECASE) else None


def _column_kind(cells: Sequence[str]) -> CellKind | None:
    """Return what most of a column's cells are, those without a value aside."""
    kinds = Counter(cell_kind(cell) for cell in cells if cell.strip().lower() not in MISSING)
    if not kinds:
        return None
    kind, count = kinds.most_common(1)[0]
    return kind if count >= 0.8 * sum(kinds.values()) else None


def _float(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None
