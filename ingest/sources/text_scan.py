"""One pass over a text log: how many rows, where its blocks begin, and what is odd about it."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace

import numpy as np

from ingest.errors import NoFramesError, SourceTimeError
from ingest.sources.base import SourceOptions
from ingest.sources.log_facts import SHOWN, TableFacts, numbered
from ingest.sources.log_times import TimeRule, check_zone, day_order, has_zone
from ingest.sources.plain_file import PlainFile
from ingest.sources.series_base import ChannelSpec, LogTable
from ingest.sources.start import ZONE_HINT
from ingest.sources.text_layout import TextLayout
from ingest.sources.text_tables import ParsedRows, RowParser, read_pieces
from ingest.timing import Finding

__all__ = ["BLOCK_ROWS", "ScannedTable", "scan_table"]

BLOCK_ROWS = 4096
BLOCK_FIELDS = 2**20
SAMPLE_BYTES = 64 * 2**10


@dataclass(frozen=True)
class ScannedTable:
    """A file of a log after the pass; `columns` are the fields that have numbers, `end` the byte where rows end."""

    table: LogTable
    facts: TableFacts
    time: TimeRule
    columns: tuple[int, ...]
    end: int
    findings: tuple[Finding, ...]


def scan_table(path: str, layout: TextLayout, options: SourceOptions) -> ScannedTable:
    """Go through a file once.

    Parameters
    ----------
    path : str
        The file.
    layout : TextLayout
        How it is read.
    options : SourceOptions
        With the zone of times that have none.

    Returns
    -------
    ScannedTable
        Its rows are those whose fields are as many as the header's and whose time is readable; others are findings.

    Raises
    ------
    NoFramesError
        No rows, or no numbers in them.
    SourceTimeError
        Times without a zone, and none was given; dates that can be read two ways.
    SettingsError
        There is no such zone.
    SourceReadError
        The file could not be read.

    Notes
    -----
    Holds one piece of the file (2 MiB) as fields and numbers, and 8 bytes for each block of 4096 rows.
    """
    with PlainFile(path) as file:
        end = file.size_bytes
        rule = _settled(file, layout, options)
        parser = RowParser(layout.delimiter, layout.decimal, layout.width, rule, layout.columns)
        scan = _Scan(path, layout, max(1, min(BLOCK_ROWS, BLOCK_FIELDS // (layout.width + 1))))
        for piece in read_pieces(file, layout.rows_offset, end):
            if piece.too_long:
                scan.skip_line()
            else:
                scan.add(piece.offset, parser.parse(piece.text))
        unended = end > 0 and file.read(end - 1, 1) != b"\n"
    return scan.result(rule, end, unended=unended)


def _settled(file: PlainFile, layout: TextLayout, options: SourceOptions) -> TimeRule:
    """Return the time rule with what the head of the file alone does not say: zone, and order of day and month."""
    rule = layout.time
    if rule.kind != "moment":
        return rule
    parser = RowParser(layout.delimiter, layout.decimal, layout.width, rule, ())
    head_end = min(file.size_bytes, layout.rows_offset + SAMPLE_BYTES)
    sample = next(read_pieces(file, layout.rows_offset, head_end), None)
    texts = [] if sample is None else parser.times_in(sample.text)
    needed, order = day_order(texts)
    if needed and order is None:
        tail = file.read(max(layout.rows_offset, file.size_bytes - SAMPLE_BYTES), SAMPLE_BYTES).decode("latin-1")
        _, order = day_order(parser.times_in(tail))
    if needed and order is None:
        raise SourceTimeError(
            f"{file.path}: dates such as {texts[0]!r} can begin with the day or with the month",
            hint="write them as 2023-10-03, or with dots (03.10.2023: the day comes first)",
        )
    zone = rule.timezone or options.timezone
    naive = next((text for text in texts if not has_zone(text)), None)
    if zone is not None:
        check_zone(zone)
    elif naive is not None:
        raise SourceTimeError(f"{file.path}: its times, such as {naive!r}, have no time zone", hint=ZONE_HINT)
    return replace(rule, day_order=order, timezone=zone)


@dataclass
class _Count:
    """How often something was met, in which lines first, and in which last."""

    count: int = 0
    first: list[int] = field(default_factory=list)
    last: int = 0

    def add(self, lines: list[int], before: int) -> None:
        if lines:
            self.count += len(lines)
            self.first += [before + line for line in lines[: SHOWN - len(self.first)]]
            self.last = before + lines[-1]

    def take_out(self, line: int) -> bool:
        """Forget the last one if it was in this line."""
        if self.last != line:
            return False
        self.count -= 1
        self.first = [first for first in self.first if first != line]
        return True


class _Scan:
    """What the pass keeps."""

    def __init__(self, path: str, layout: TextLayout, block_rows: int) -> None:
        self.path, self.layout, self.block_rows = path, layout, block_rows
        self.name = os.path.basename(path)
        self.facts = TableFacts("line")
        self.offsets: list[int] = []
        self.line = layout.rows_line
        self.last_row_line = 0
        self.wrong_fields, self.wrong_times, self.unclear_times = _Count(), _Count(), _Count()
        self.numbers = [0] * len(layout.columns)
        self.words = [_Count() for _ in layout.columns]
        self.examples: list[str] = [""] * len(layout.columns)

    def skip_line(self) -> None:
        self.wrong_fields.add([0], self.line)
        self.line += 1

    def add(self, offset: int, parsed: ParsedRows) -> None:
        rows, before = len(parsed.times_ns), self.facts.rows
        if rows:
            starts = offset + np.cumsum([0, *parsed.line_bytes[:-1]])
            first = -before % self.block_rows
            self.offsets += starts[parsed.lines[first :: self.block_rows]].tolist()
            self.last_row_line = self.line + int(parsed.lines[-1])
        self.facts.add(parsed.times_ns, parsed.values, parsed.lines + self.line)
        for count, lines in (
            (self.wrong_fields, parsed.wrong_fields),
            (self.wrong_times, parsed.wrong_times),
            (self.unclear_times, parsed.unclear_times),
        ):
            count.add(lines, self.line)
        for column, (numbers, words) in enumerate(zip(parsed.numbers, parsed.words, strict=True)):
            self.numbers[column] += numbers
            if words:
                self.examples[column] = self.examples[column] or words[0][1].strip()[:24]
                self.words[column].add([line for line, _ in words], self.line)
        self.line += len(parsed.line_bytes)

    def result(self, rule: TimeRule, end: int, *, unended: bool) -> ScannedTable:
        layout = self.layout
        left_out = self._rows_left_out(unended=unended)
        if not self.facts.rows:
            why = f" ({left_out[0].message})" if left_out else ""
            raise NoFramesError(f"{self.path}: no rows{why}", hint="the logger never wrote: leave the file out")
        kept = [i for i, numbers in enumerate(self.numbers) if numbers]
        if not kept:
            raise NoFramesError(f"{self.path}: no numbers in its {self.facts.rows} rows beside their time")
        table = LogTable(
            self.path,
            tuple(ChannelSpec(layout.names[i], layout.units[i]) for i in kept),
            self.facts.rows,
            block_offsets=tuple(self.offsets),
            block_rows=self.block_rows,
            holds=layout.coded or self.facts.holds,
        )
        findings = (*left_out, *self._columns(kept), *self.facts.findings(self.name))
        return ScannedTable(table, self.facts, rule, tuple(layout.columns[i] for i in kept), end, findings)

    def _rows_left_out(self, *, unended: bool) -> list[Finding]:
        found = []
        last = self.line - 1
        cut = unended and any(count.take_out(last) for count in (self.wrong_fields, self.wrong_times))
        for count, why in (
            (self.wrong_fields, f"other than {self.layout.width} fields"),
            (self.wrong_times, "a time that cannot be read"),
            (self.unclear_times, "a local time that the clock showed twice, or never, as summer time ended or began"),
        ):
            if count.count:
                many = "1 row has" if count.count == 1 else f"{count.count} rows have"
                where = numbered("line", count.count, count.first)
                found.append(Finding("rows left out", f"{self.name}: {many} {why} ({where}): left out"))
        if cut:
            found.append(Finding("cut last line", f"{self.name}: line {last}, the last, is cut short: left out"))
        elif unended and self.last_row_line == last:
            message = f"{self.name}: line {last}, the last, has no line end: its last value may be cut short"
            found.append(Finding("last line", message))
        return found

    def _columns(self, kept: list[int]) -> list[Finding]:
        found = []
        names = self.layout.names
        without = [names[i] for i in range(len(names)) if i not in kept]
        if without:
            shown = ", ".join(without[:5]) + (", ..." if len(without) > 5 else "")
            found.append(Finding("columns left out", f"{self.name}: no numbers in {shown}"))
        for i in kept:
            if self.words[i].count:
                where = numbered("line", self.words[i].count, self.words[i].first)
                message = (
                    f"{self.name}: {self.words[i].count} values of {names[i]!r} are no numbers, such as "
                    f"{self.examples[i]!r} ({where}): sent as null"
                )
                found.append(Finding("values", message))
        return found
