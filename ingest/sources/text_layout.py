"""What a text log is, by its first lines: delimiter, header, columns, and where its rows begin. Pure."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ingest.errors import NoFramesError, SourceFormatError
from ingest.sources.log_columns import MISSING, Header, is_unit, split_units, time_name, time_rule, unique_names
from ingest.sources.log_times import TimeRule, cell_kind
from ingest.timing import Finding

__all__ = ["MAX_COLUMNS", "Line", "TextLayout", "split_line", "text_layout"]

MAX_COLUMNS = 16_384  # as many as a spreadsheet has
DELIMITERS = ("\t", ";", ",", " ")
DELIMITER_NAMES = {"\t": "TAB", ";": "semicolons", ",": "commas", " ": "spaces"}
# PARADIM's GM1 and SAFIRE (FORMATS.md 1.6, 1.2).
_GM1 = re.compile(r"Elapsed time \[s\]\t(?P<value>Value|Numeric value)\b")
_RECORDED = re.compile(r"Recorded at\s+(\d{4}-\d{2}-\d{2})\s+(\d{2}:\d{2}:\d{2}(?:\.\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a file: its number from 1, its text without the line end, and the byte where the next one begins."""

    number: int
    text: str
    end: int


@dataclass(frozen=True)
class TextLayout:
    """How a text log is read.

    Attributes
    ----------
    format : str
        For people.
    delimiter : str
        Between fields; a space stands for any white space.
    decimal : {".", ","}
        In numbers.
    width : int
        Fields of a row.
    time : TimeRule
        Where its times are.
    columns : tuple of int
        The other fields, in order.
    names : tuple of str
        Of these.
    units : tuple of (str or None)
        Of these.
    rows_offset : int
        The byte where rows begin.
    rows_line : int
        The number of that line.
    recorded_at : str or None
        Local date and time of elapsed 0, as the file says.
    gm1 : bool
        Whether the file is one channel of many.
    coded : bool
        Whether its numbers stand for words (Open, Close).
    findings : tuple of Finding
        What is odd about the header.
    """

    format: str
    delimiter: str
    decimal: str
    width: int
    time: TimeRule
    columns: tuple[int, ...]
    names: tuple[str, ...]
    units: tuple[str | None, ...]
    rows_offset: int
    rows_line: int
    recorded_at: str | None = None
    gm1: bool = False
    coded: bool = False
    findings: tuple[Finding, ...] = field(default=())


def split_line(text: str, delimiter: str) -> list[str]:
    """Return the fields of a line; quotes never reach beyond it. White space as delimiter: its runs are one."""
    if delimiter == " ":
        return text.split()
    if '"' not in text:
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []


@dataclass(frozen=True)
class _Table:
    """Lines, each split; `width` is that of most rows, `numeric` its columns of numbers and times."""

    lines: Sequence[Line]
    cells: list[list[str]]
    delimiter: str
    width: int
    score: float
    numeric: tuple[int, ...] = ()

    def is_row(self, cells: Sequence[str]) -> bool:
        given = [cells[i] for i in self.numeric if not _missing(cells[i])] if len(cells) == self.width else []
        return bool(given) and all(cell_kind(cell) for cell in given)

    @property
    def rows(self) -> list[list[str]]:
        return [cells for cells in self.cells if self.is_row(cells)]


def text_layout(lines: Sequence[Line], path: str, latest_ns: int, *, whole: bool) -> TextLayout | None:
    """Find out how a text log is read.

    Parameters
    ----------
    lines : sequence of Line
        The first ones.
    path : str
        The file, for messages.
    latest_ns : int
        Now, Unix ns.
    whole : bool
        Whether these are all.

    Returns
    -------
    TextLayout or None
        None: there is not a number in it, so that it never was meant as a log.

    Raises
    ------
    NoFramesError
        Nothing, or a header without rows.
    SourceFormatError
        Numbers, but no header, no time, or only one column.
    SourceTimeError
        As `time_rule`.
    """
    filled = [line for line in lines if line.text.strip()]
    if not filled:
        raise NoFramesError(f"{path}: no rows: there is nothing in it")
    match = _GM1.match(filled[0].text)
    if match and filled[0].text.count("\t") <= 2:
        return _gm1_layout(filled[0], coded=match["value"] != "Value")
    recorded = _RECORDED.fullmatch(filled[0].text)
    body = [line for line in filled[1 if recorded else 0 :] if not line.text.lstrip().startswith("#")]
    table = _sniff(body)
    if table is None:
        _check_without_numbers(body, path, whole=whole)
        return None
    layout = _table_layout(table, filled, path, latest_ns)
    if recorded is None:
        return layout
    return replace(layout, format="SAFIRE point scan", recorded_at=f"{recorded[1]} {recorded[2]}")


def _gm1_layout(header: Line, *, coded: bool) -> TextLayout:
    return TextLayout(
        format="PARADIM GM1 logs",
        delimiter="\t",
        decimal=".",
        width=header.text.count("\t") + 1,
        time=TimeRule((0,), "elapsed"),
        columns=(1,),
        names=("value",),
        units=(None,),
        rows_offset=header.end,
        rows_line=header.number + 1,
        gm1=True,
        coded=coded,
    )


def _sniff(lines: Sequence[Line]) -> _Table | None:
    """Split lines by the delimiter that makes the most numbers and times of them; None: there are no two in a line."""
    best: _Table | None = None
    for delimiter in DELIMITERS:
        cells = [split_line(line.text, delimiter) for line in lines]
        kinds = [[cell_kind(cell) for cell in row] for row in cells]
        widths = Counter(len(row) for row in kinds if len(row) > 1 and any(row))
        if not widths:
            continue
        width = max(widths, key=lambda width: (widths[width], width))
        rows = [(row, known) for row, known in zip(cells, kinds, strict=True) if len(row) == width and any(known)]
        given = sum(not _missing(cell) for row, _ in rows for cell in row)
        score = sum(kind is not None for _, known in rows for kind in known) / given * len(rows) / len(lines)
        if best is None or score > best.score:
            numeric = tuple(i for i in range(width) if _mostly_known([(row[i], known[i]) for row, known in rows]))
            best = _Table(lines, cells, delimiter, width, score, numeric)
    return best


def _mostly_known(cells: Sequence[tuple[str, object]]) -> bool:
    given = [kind for cell, kind in cells if not _missing(cell)]
    return bool(given) and 2 * sum(kind is not None for kind in given) > len(given)


def _missing(cell: str) -> bool:
    return cell.strip().lower() in MISSING


def _check_without_numbers(body: Sequence[Line], path: str, *, whole: bool) -> None:
    """Say what is wrong with a file that has no two numbers in a line, if it looks like a log at all."""
    if any(cell_kind(line.text) == "number" for line in body):
        raise SourceFormatError(
            f"{path}: only one column: a log has a time and at least one value",
            hint="add a column with the time of each value",
        )
    if not whole or len(body) != 1:
        return
    for delimiter in DELIMITERS:
        titles = split_line(body[0].text, delimiter)
        if len(titles) > 1 and any(time_name(*split_units(title)) for title in titles):
            raise NoFramesError(f"{path}: no rows: only a header", hint="the logger never wrote: leave it out")


def _table_layout(table: _Table, filled: Sequence[Line], path: str, latest_ns: int) -> TextLayout:
    if table.width > MAX_COLUMNS:
        raise SourceFormatError(f"{path}: {table.width} columns: a log has {MAX_COLUMNS} at most")
    rows = table.rows
    if not rows:
        raise SourceFormatError(f"{path}: no column of numbers in it", hint="leave it out if it is no log")
    header, after = _header(table, filled, path)
    width = len(header.names)
    found = time_rule(header, [row[:width] for row in rows], latest_ns)
    if found is None:
        raise SourceFormatError(
            f"{path}: no column says when its rows were written; columns: {', '.join(header.names[:12])}",
            hint="name it `time [s]`, `elapsed [s]`, `timestamp`, or `date` and `time`; leave the file out if it is "
            "no log",
        )
    rule, findings = found
    columns = tuple(i for i in range(width) if i not in rule.columns)
    if not columns:
        raise SourceFormatError(f"{path}: nothing in it but times: a log has at least one value")
    names, doubled = unique_names([header.names[i] or f"column {i + 1}" for i in columns])
    at = next(i for i, line in enumerate(table.lines) if line.number > after and len(table.cells[i]) == table.width)
    before = [line for line in filled if line.number < table.lines[at].number]
    return TextLayout(
        format=f"text log with {DELIMITER_NAMES[table.delimiter]}",
        delimiter=table.delimiter,
        decimal=_decimal(table.delimiter, rows),
        width=width,
        time=rule,
        columns=columns,
        names=tuple(names),
        units=tuple(header.units[i] for i in columns),
        rows_offset=before[-1].end,
        rows_line=before[-1].number + 1,
        findings=(*findings, *doubled),
    )


def _header(table: _Table, filled: Sequence[Line], path: str) -> tuple[Header, int]:
    """Return names and units, and the number of the last line that gave them."""
    first = next(i for i, cells in enumerate(table.cells) if table.is_row(cells))
    number = table.lines[first].number
    above = [line for line in filled if line.number < number]
    comments = [line for line in above if line.text.lstrip().startswith("#")]
    plain = [line for line in above if line not in comments]
    candidates = [(line, cells) for line in reversed(plain) if (cells := _header_cells(line.text, table))]
    if not candidates and comments:
        line = comments[-1]
        cells = _header_cells(line.text.lstrip().lstrip("#").strip(), table)
        candidates = [(line, cells)] if cells else []
    if not candidates:
        raise SourceFormatError(
            f"{path}: no header above its first row of numbers (line {number})",
            hint="write one line of column names above them, such as time [s],temperature [C]",
        )
    words = [found for found in candidates if not any(cell_kind(cell) for cell in found[1])]
    line, cells = (words or candidates)[0]
    stated: list[str | None] = [None] * len(cells)
    if len(words) > 1 and _is_units_row(cells):
        stated = [cell.strip().strip("[]()").strip() or None for cell in cells]
        after, (line, cells) = line.number, words[1]
    else:
        after = line.number
    titles = [split_units(cell) for cell in cells]
    names = tuple(name or f"column {i + 1}" if i else name for i, (name, _) in enumerate(titles))
    width = min(len(names), len(stated))
    units = tuple(own or told for (_, own), told in zip(titles[:width], stated[:width], strict=True))
    return Header(names[:width], units), after


def _is_units_row(cells: Sequence[str]) -> bool:
    given = [cell.strip().strip("[]()") for cell in cells if cell.strip()]
    if not given or any(time_name(*split_units(cell)) for cell in cells):
        return False
    return 2 * sum(is_unit(cell) for cell in given) > len(given)


def _header_cells(text: str, table: _Table) -> list[str] | None:
    """Return a line's fields if there is one for each column; what is blank at the end of every row is no column."""
    rows = table.rows
    used = max(i + 1 for row in rows for i, cell in enumerate(row) if not _missing(cell))
    splits = [split_line(text, table.delimiter)]
    if table.delimiter == " ":
        splits.insert(0, re.split(r"\s{2,}|\t", text.strip()))  # names with a space in them
    for cells in splits:
        named = len(cells)
        while named and not cells[named - 1].strip():
            named -= 1
        if named and (len(cells) == table.width or used <= named <= table.width):
            return [*cells, *[""] * table.width][: max(named, used)]
        day = next((i for i, cell in enumerate(rows[0][:-1]) if cell_kind(cell) == "day"), None)
        if table.delimiter == " " and named == table.width - 1 and day is not None:
            return [*cells[: day + 1], "", *cells[day + 1 :]]  # one name for day and clock
    return None


def _decimal(delimiter: str, rows: Sequence[Sequence[str]]) -> str:
    """Tell decimal commas, which most files with semicolons have, from points."""
    numbers = [cell for row in rows for cell in row if cell_kind(cell) == "number"]
    point, comma = any("." in number for number in numbers), any("," in number for number in numbers)
    if delimiter == ";":
        return "." if point and not comma else ","
    return "," if delimiter != "," and comma and not point else "."
