"""Instrument logs as text: CSV and TSV with a header, PARADIM GM1 (one channel a file), SAFIRE point scans."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import orjson

from ingest.errors import IngestError, NoFramesError, SourceChangedError, SourceFormatError
from ingest.sources.base import SourceOptions
from ingest.sources.found import Discovered
from ingest.sources.log_blocks import BlockReader
from ingest.sources.log_facts import log_start, says_when, series_info
from ingest.sources.log_times import TimeRule
from ingest.sources.natural import natural_key
from ingest.sources.plain_file import PlainFile
from ingest.sources.series_base import LogTable, Rows, SeriesInfo, SeriesSpec
from ingest.sources.start import ResolvedStart
from ingest.sources.text_layout import TextLayout, text_layout
from ingest.sources.text_scan import ScannedTable, scan_table
from ingest.sources.text_tables import RowParser, head_lines, read_pieces
from ingest.timing import Finding

__all__ = ["find_runs", "inspect", "open_series"]

KIND = "text-log"
PART = "logs"  # tells the run of a folder's logs from that of its pictures
LAYOUT = "layout"
EXTENSIONS = frozenset({".txt", ".asc", ".csv", ".tsv"})


def find_runs(paths: Sequence[str], options: SourceOptions) -> list[Discovered]:  # noqa: ARG001  as of every kind
    """List the runs of some text files of one folder, by their first lines.

    Parameters
    ----------
    paths : sequence of str
        The files.
    options : SourceOptions
        Not used.

    Returns
    -------
    list of Discovered
        All GM1 files are one run; each other log is one. A table of numbers that is no log, and what cannot be read,
        is an entry with its error; a file without a number in it is none.
    """
    entries: list[Discovered] = []
    together: list[str] = []
    for path in sorted(paths, key=natural_key):
        try:
            layout = _layout(path)
        except IngestError as error:
            entries.append(Discovered(path, error=error))
            continue
        if layout is None:
            continue
        if layout.gm1:
            together.append(path)
        else:
            entries.append(Discovered(path, SeriesSpec(KIND, (path,))))
    if together:
        entries.append(Discovered(together[0], SeriesSpec(KIND, tuple(together), dataset=PART)))
    return sorted(entries, key=lambda entry: natural_key(entry.path))


def _layout(path: str) -> TextLayout | None:
    lines, whole = head_lines(path)
    return text_layout(lines, path, time.time_ns(), whole=whole)


def inspect(spec: SeriesSpec, options: SourceOptions) -> SeriesInfo:
    """Find out what a text log is: each file is gone through once.

    Parameters
    ----------
    spec : SeriesSpec
        As `find_runs` gave it.
    options : SourceOptions
        Zone of times that have none; when elapsed time was 0.

    Returns
    -------
    SeriesInfo
        Where times are elapsed and nothing says since when, without a start.

    Raises
    ------
    NoFramesError
        No rows, or no numbers in them.
    SourceFormatError
        Not text, or not a log.
    SourceTimeError
        Times, or the time of elapsed 0, without a zone, and none was given; see also `text_layout` and `resolve_start`.
    SettingsError
        There is no such zone.
    SourceReadError, SourceNotFoundError
        A file could not be read.

    Notes
    -----
    Holds one piece of a file (2 MiB) as fields and numbers, and 8 bytes for each block of 4096 rows.
    """
    layouts, scans, findings = _scan_files(spec.paths, options)
    first = layouts[0]
    start, zero_ns = _start(first, scans, options)
    tables = tuple(
        replace(scan.table, layout=orjson.dumps({"width": layout.width, "end": scan.end}).decode())
        for scan, layout in zip(scans, layouts, strict=True)
    )
    return series_info(
        SeriesSpec(KIND, spec.paths, tables, zero_ns, spec.dataset, ((LAYOUT, _packed(first, scans[0])),)),
        [scan.facts for scan in scans],
        [zero_ns] * len(scans),
        replace(start, findings=(*findings, *start.findings)),
        elapsed=not scans[0].time.absolute,
        layout=first.format,
        bytes_in=sum(scan.end - layout.rows_offset for scan, layout in zip(scans, layouts, strict=True)),
    )


def _scan_files(
    paths: Sequence[str], options: SourceOptions
) -> tuple[list[TextLayout], list[ScannedTable], list[Finding]]:
    """Go through all files; one of several that holds nothing is a finding."""
    layouts: list[TextLayout] = []
    scans: list[ScannedTable] = []
    findings: list[Finding] = []
    for path in paths:
        try:
            layout = _layout(path)
            if layout is None or (len(paths) > 1 and not layout.gm1):
                raise SourceFormatError(
                    f"{path}: {'no numbers in it' if layout is None else 'not one channel of many'}"
                )
            if layout.gm1:
                layout = replace(layout, names=(_channel_name(path, [known.names[0] for known in layouts]),))
            scan = scan_table(path, layout, options)
        except SourceFormatError as error:
            if len(paths) == 1:
                raise
            findings.append(Finding("channel left out", str(error)))
            continue
        layouts.append(layout)
        scans.append(scan)
        findings += [*layout.findings, *scan.findings]
    if not scans:
        raise NoFramesError(f"{os.path.dirname(paths[0])}: no rows in any of {len(paths)} logs")
    return layouts, scans, findings


def _channel_name(path: str, taken: Sequence[str]) -> str:
    """Return what a GM1 file is called: its device and kind, as ``GM1_MainShutter_Control.Value``."""
    name = os.path.basename(path)
    stem, extension = os.path.splitext(name)
    return stem if extension.lower() in EXTENSIONS and stem not in taken else name


def _start(layout: TextLayout, scans: Sequence[ScannedTable], options: SourceOptions) -> tuple[ResolvedStart, int]:
    """Return who says when the log began, and what is added to its times."""
    if scans[0].time.absolute:
        if options.series_start_ns is None:
            return ResolvedStart(None, None), 0
        message = "its rows have dates of their own: what was said of its start is not used"
        return ResolvedStart(None, None, (Finding("start time", message),)), 0
    start = log_start(
        options,
        paths=[scan.table.path for scan in scans],
        ends_ns=[scan.facts.last_ns for scan in scans],
        attribute=layout.recorded_at,
        attribute_name=f"{scans[0].table.path}: Recorded at",
        # Without a zone it says too little to go before what the user says.
        own=layout.recorded_at is not None
        and (options.series_start_ns is None or says_when(layout.recorded_at, options.timezone)),
        several=layout.gm1,
    )
    return start, start.start_ns or 0


def _packed(layout: TextLayout, scan: ScannedTable) -> str:
    """Return how rows are read, for a worker: what all files of a run share."""
    facts = {
        "delimiter": layout.delimiter,
        "decimal": layout.decimal,
        "time": asdict(scan.time),
        "columns": scan.columns,
    }
    return orjson.dumps(facts).decode()


def open_series(spec: SeriesSpec) -> BlockReader:
    """Open an inspected text log for reading in this process; a file is open only while a block is read.

    Parameters
    ----------
    spec : SeriesSpec
        As `inspect` gave it.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    """
    packed = spec.option(LAYOUT)
    layout: dict[str, Any] = orjson.loads(packed) if isinstance(packed, str) else {}

    def load(table: int, number: int) -> Rows:
        facts = spec.tables[table]
        own = orjson.loads(facts.layout)
        return _load_block(facts, own["end"], _parser(layout, own["width"]), number)

    return BlockReader(spec if layout else replace(spec, tables=()), load, [spec.zero_ns] * len(spec.tables))


def _parser(layout: dict[str, Any], width: int) -> RowParser:
    rule = TimeRule(**{**layout["time"], "columns": tuple(layout["time"]["columns"])})
    columns = tuple(layout["columns"])
    return RowParser(layout["delimiter"], layout["decimal"], width, rule, columns)


def _load_block(table: LogTable, end: int, parser: RowParser, number: int) -> Rows:
    """Read a block's rows; the file's end is what it was when it was inspected, however it has grown since."""
    rows = min(table.block_rows, table.rows - number * table.block_rows)
    stop = table.block_offsets[number + 1] if number + 1 < len(table.block_offsets) else end
    times_ns = np.empty(rows, np.int64)
    values = np.empty((len(table.channels), rows))
    filled = 0
    with PlainFile(table.path) as file:
        for piece in read_pieces(file, table.block_offsets[number], stop):
            parsed = parser.parse(piece.text)
            after = filled + len(parsed.times_ns)
            if after <= rows:
                times_ns[filled:after] = parsed.times_ns
                values[:, filled:after] = parsed.values
            filled = after
    if filled != rows:
        raise SourceChangedError(
            f"{table.path}: rows {number * table.block_rows} and on are {filled}; they were {rows} when inspected",
            hint="inspect it again",
        )
    return Rows(times_ns, values)
