"""Instrument readings in HDF5 files: NXlog groups, and columns that share a time column."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import h5py
import numpy as np
import orjson
from numpy.typing import NDArray

from ingest.errors import FrameDataError, MissingFilterError, NoFramesError, SourceChangedError
from ingest.sources.base import SourceOptions
from ingest.sources.facts import START_FACTS, Fact, first_named
from ingest.sources.found import Discovered
from ingest.sources.hdf5_errors import h5_damage
from ingest.sources.hdf5_file import borrow, h5_errors, open_file
from ingest.sources.hdf5_layout import Contents, list_contents, read_facts
from ingest.sources.hdf5_log_tables import StoredTable, StoredTime, find_tables, stored_time
from ingest.sources.hdf5_storage import stored_rows
from ingest.sources.log_blocks import BlockReader
from ingest.sources.log_facts import SHOWN, TableFacts, log_start, says_when, series_info
from ingest.sources.log_times import numbers_ns
from ingest.sources.series_base import ChannelSpec, LogTable, Rows, SeriesInfo, SeriesSpec
from ingest.sources.start import ResolvedStart, parse_time
from ingest.sources.stored_rows import RowScan, read_stored
from ingest.sources.urls import redacted
from ingest.timing import Finding

__all__ = ["find_logs", "inspect", "open_series"]

KIND = "hdf5-log"
PART = "logs"
BLOCK_ROWS = 65_536
BLOCK_VALUES = 2**20


def find_logs(file: h5py.File, contents: Contents, path: str, dataset: str | None) -> list[Discovered]:
    """List the run of readings in a file, by headers.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    contents : Contents
        What it holds.
    path : str
        The file.
    dataset : str or None
        The group, or the dataset of values, that was asked for; None: all.

    Returns
    -------
    list of Discovered
        One, or none.
    """
    with h5_errors(path):
        tables, _ = find_tables(file, contents, dataset)
    part = PART if dataset is None else "/" + dataset.strip("/")
    return [Discovered(redacted(path), SeriesSpec(KIND, (path,), dataset=part))] if tables else []


@dataclass(frozen=True)
class _Look:
    """What one table was found to be; times in `facts` count from `time`'s epoch."""

    stored: StoredTable
    time: StoredTime
    table: LogTable
    facts: TableFacts
    bytes_in: int


def inspect(spec: SeriesSpec, options: SourceOptions) -> SeriesInfo:
    """Find out what the readings of an HDF5 file are: they are gone through once, block by block.

    Parameters
    ----------
    spec : SeriesSpec
        As `find_logs` gave it.
    options : SourceOptions
        Zone of times that have none; when elapsed time was 0.

    Returns
    -------
    SeriesInfo
        Where times are elapsed and nothing says since when, without a start. Elapsed times that begin at different
        dates (NXlog's ``@start``) keep their distance.

    Raises
    ------
    NoFramesError
        No readings.
    SourceTimeError
        A date without a zone, and none was given.
    SettingsError
        There is no such zone.
    SourceFormatError, SourceReadError, SourceNotFoundError
        See `open_file` and `explain_read`.

    Notes
    -----
    Holds one block of a table, ``65536 * (channels + 1) * 8`` bytes.
    """
    (path,) = spec.paths
    only = None if spec.dataset in (None, PART) else spec.dataset
    findings: list[Finding] = []
    with open_file(path) as file, h5_errors(path):
        contents = list_contents(file)
        tables, findings = find_tables(file, contents, only)
        looks = [look for stored in tables if (look := _scan_table(file, path, stored, options, findings)) is not None]
        if not looks:
            raise NoFramesError(f"{redacted(path)}: no readings: {_left_out(findings)}")
        file_facts = read_facts(file, looks[0].stored.time, contents)
    start, offsets_ns = _start(path, looks, file_facts, options)
    zero_ns = start.start_ns or 0
    layouts = [
        {**asdict(look.stored), **asdict(look.time), "offset_ns": ns}
        for look, ns in zip(looks, offsets_ns, strict=True)
    ]
    tables_read = tuple(
        replace(look.table, layout=orjson.dumps(layout).decode()) for look, layout in zip(looks, layouts, strict=True)
    )
    return series_info(
        replace(spec, tables=tables_read, zero_ns=zero_ns),
        [look.facts for look in looks],
        [_zero_ns(layout, zero_ns) for layout in layouts],
        replace(start, findings=(*findings, *start.findings)),
        elapsed=any(not look.time.absolute for look in looks),
        layout="NXlog" if all(look.stored.values[0].endswith("/value") for look in looks) else "HDF5 columns",
        part=only,
        bytes_in=sum(look.bytes_in for look in looks),
    )


def _zero_ns(layout: dict[str, Any], zero_ns: int) -> int:
    """Return what is added to a table's recorded times."""
    return 0 if layout["absolute"] else zero_ns + int(layout["offset_ns"])


def _left_out(findings: Sequence[Finding]) -> str:
    return "; ".join(finding.message for finding in findings[:SHOWN]) or "neither NXlog nor columns with a time"


def _there(file: h5py.File, stored: StoredTable, findings: list[Finding]) -> StoredTable | None:
    """Leave out rows whose times were never written: a header may promise any number of them."""
    rows = min(stored.rows, stored_rows(file[stored.time]))
    if rows == stored.rows:
        return stored
    kind, message = "channel left out", f"{stored.time}: {stored.rows} rows promised, but none are stored"
    if rows:
        message = f"{stored.time}: {stored.rows} rows promised, {rows} stored: the others are left out"
        kind = "unwritten rows"
    findings.append(Finding(kind, message))
    return replace(stored, rows=rows) if rows else None


def _scan_table(
    file: h5py.File, path: str, found: StoredTable, options: SourceOptions, findings: list[Finding]
) -> _Look | None:
    """Go through one table; None, with a finding, if none of its times can be read."""
    times, shown = file[found.time], redacted(path)
    block_rows = max(1, min(BLOCK_ROWS, BLOCK_VALUES // (len(found.values) + 1)))
    scan = RowScan(TableFacts("row"), block_rows)
    damaged: set[str] = set()
    try:
        with h5_damage(f"{shown}: {found.time}"):
            if (stored := _there(file, found, findings)) is None:
                return None
            told, more = stored_time(times, stored.time, options.timezone, time.time_ns())
        for first in range(0, stored.rows, block_rows):
            end = min(first + block_rows, stored.rows)
            with h5_damage(f"{shown}: {stored.time}, rows {first} to {end - 1}"):
                ns, readable = _times_ns(times[first:end], told)
            values = np.full((len(stored.values), end - first), np.nan)
            for i, name in enumerate(stored.values):
                try:
                    with h5_damage(f"{shown}: {name}, rows {first} to {end - 1}"):
                        values[i] = file[name][first:end].reshape(-1)
                except FrameDataError as error:
                    findings += [] if name in damaged else [Finding("damage", str(error))]
                    damaged.add(name)
            scan.add(first, ns, readable, values)
    except (FrameDataError, MissingFilterError) as error:
        findings.append(Finding("channel left out", str(error)))
        return None
    findings += more
    if not scan.facts.rows:
        findings.append(Finding("channel left out", f"{stored.time}: none of {stored.rows} times is a number"))
        return None
    findings += scan.findings(stored.time, stored.where or "/")
    return _Look(stored, told, _table(path, stored, scan), scan.facts, _bytes(file, stored))


def _table(path: str, stored: StoredTable, scan: RowScan) -> LogTable:
    channels = tuple(ChannelSpec(name, units) for name, units in zip(stored.names, stored.units, strict=True))
    return LogTable(
        path,
        channels,
        scan.facts.rows,
        where=stored.where or "/",
        block_offsets=scan.block_offsets,
        block_rows=scan.block_rows,
        holds=scan.facts.holds,
    )


def _bytes(file: h5py.File, stored: StoredTable) -> int:
    return stored.rows * sum(int(file[name].dtype.itemsize) for name in (stored.time, *stored.values))


def _times_ns(values: NDArray[Any], told: StoredTime) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    flat = values.reshape(-1)
    ns, readable = numbers_ns(flat if told.factor == 1 else flat * told.factor, told.unit_ns)
    return ns + told.epoch_ns, readable


def _start(
    path: str, looks: Sequence[_Look], file_facts: dict[str, Fact], options: SourceOptions
) -> tuple[ResolvedStart, list[int]]:
    """Return when elapsed time was 0, and for each table how much later its own was."""
    starts: list[int | None] = []
    findings: list[Finding] = []
    said = [look.time.start for look in looks if look.time.start is not None]
    # Without a zone they say too little to go before what the user says; then only their distance counts, for which
    # any zone will do.
    own_first = options.series_start_ns is None or all(says_when(text, options.timezone) for text in said)
    zone = options.timezone or (None if own_first else "UTC")
    for look in looks:
        text, what = look.time.start, f"{look.stored.time} @start"
        start_ns = None if text is None else parse_time(text, f"{redacted(path)}: {what} = {text!r}", zone)
        if text is not None and start_ns is None:
            findings.append(Finding("start time", f"{what} = {text!r} is not understood as a time"))
        starts.append(start_ns)
    elapsed = [i for i, look in enumerate(looks) if not look.time.absolute]
    if not elapsed:
        return ResolvedStart(None, None, tuple(findings)), [0] * len(looks)
    own = [i for i in elapsed if starts[i] is not None]
    first = min(own, key=lambda i: starts[i] or 0, default=None)
    offsets_ns = [0 if start is None or first is None else start - (starts[first] or 0) for start in starts]
    named = first_named(file_facts, START_FACTS)
    attribute: str | int | float | None = None if named is None else file_facts[named]
    if first is not None:
        named, attribute = f"{looks[first].stored.time} @start", looks[first].time.start
    resolved = log_start(
        options,
        paths=[path] * len(elapsed),
        ends_ns=[looks[i].facts.last_ns + offsets_ns[i] for i in elapsed],
        attribute=attribute,
        attribute_name=f"{redacted(path)}: {named or 'start_time'}",
        own=first is not None and own_first,
    )
    return replace(resolved, findings=(*findings, *resolved.findings)), offsets_ns


def open_series(spec: SeriesSpec) -> BlockReader:
    """Open the inspected readings of an HDF5 file in this process; the file is borrowed while a block is read.

    Parameters
    ----------
    spec : SeriesSpec
        As `inspect` gave it.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    """
    layouts: list[dict[str, Any]] = [orjson.loads(table.layout) for table in spec.tables]

    def load(table: int, number: int) -> Rows:
        facts = spec.tables[table]
        rows = min(facts.block_rows, facts.rows - number * facts.block_rows)
        return _load(facts, layouts[table], number, 0, rows)

    def load_part(table: int, number: int, begin: int, end: int) -> Rows:
        return _load(spec.tables[table], layouts[table], number, begin, end)

    return BlockReader(spec, load, [_zero_ns(layout, spec.zero_ns) for layout in layouts], load_part)


def _load(table: LogTable, layout: dict[str, Any], number: int, begin: int, end: int) -> Rows:
    """Read some rows of a block, counted from its first; rows without a time are passed over."""
    told = StoredTime(layout["unit_ns"], layout["factor"], layout["epoch_ns"])
    names, shown = (layout["time"], *layout["values"]), redacted(table.path)
    with borrow(table.path) as open_:
        columns = [_column(open_.file, name, table.path, layout["rows"]) for name in names]

        def read(column: int, first: int, stop: int) -> NDArray[Any]:
            with h5_damage(f"{shown}: {names[column]}, rows {first} to {stop - 1}"):
                values: NDArray[Any] = columns[column][first:stop].reshape(-1)
            return values

        return read_stored(
            table,
            layout["rows"],
            (number, begin, end),
            lambda first, stop: _times_ns(read(0, first, stop), told),
            lambda channel, first, stop: read(channel + 1, first, stop),
        )


def _column(file: h5py.File, name: str, path: str, rows: int) -> Any:
    with h5_errors(path):
        if name not in file or file[name].shape[:1] < (rows,):
            raise SourceChangedError(
                f"{redacted(path)}: {name} has not the {rows} rows that it had when it was inspected"
            )
        return file[name]
