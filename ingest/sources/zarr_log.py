"""Instrument readings in Zarr lakes, as the embedded platform seals them: a log to move or to replay."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import orjson
import xxhash
from numpy.typing import NDArray

from ingest.errors import FrameDataError, MissingFilterError, NoFramesError, SourceChangedError, SourceFormatError
from ingest.sources.assemble import run_name
from ingest.sources.base import SourceOptions
from ingest.sources.fingerprint import Fingerprint
from ingest.sources.found import Discovered
from ingest.sources.log_blocks import BlockReader, content_of_file
from ingest.sources.log_facts import SHOWN, TableFacts, channel_facts
from ingest.sources.series_base import ChannelSpec, LogTable, Rows, SeriesInfo, SeriesSpec
from ingest.sources.stored_rows import RowScan, read_stored
from ingest.sources.urls import is_url
from ingest.sources.zarr_documents import documents_of
from ingest.sources.zarr_earlier import earlier_findings, earlier_stream
from ingest.sources.zarr_files import add_to_fingerprint, chunk_files
from ingest.sources.zarr_layout import LAKE_FORMAT, ArrayFact, Store, list_arrays
from ingest.sources.zarr_log_tables import GROUP, StoredChannel, StoredColumn, epoch_of, find_channels, times_ns
from ingest.timing import Finding

__all__ = ["find_logs", "inspect", "open_series"]

KIND = "zarr-log"
PART = "timeseries"
BLOCK_ROWS = 65_536  # those of a Zarr chunk of ours (ingest/server/series_seal.py)
BLOCK_VALUES = 2**22

OpenColumn = Callable[[str], StoredColumn]


def find_logs(store: Store, dataset: str | None) -> list[Discovered]:
    """List the run of readings in a Zarr folder, by metadata.

    Parameters
    ----------
    store : Store
        What it holds.
    dataset : str or None
        The group of a channel, or the array of its values, that was asked for; None, ``"timeseries"``: all.

    Returns
    -------
    list of Discovered
        One, or none.
    """
    all_of_it = dataset is None or dataset.strip("/") == PART
    channels, _ = find_channels(store, None if all_of_it else dataset)
    part = PART if all_of_it else "/" + (dataset or "").strip("/")
    return [Discovered(store.path, SeriesSpec(KIND, (store.path,), dataset=part))] if channels else []


@dataclass(frozen=True)
class _Times:
    """What the times of a channel count, and a digest of them all."""

    unit_ns: int
    epoch_ns: int
    rows: int
    digest: str


@dataclass(frozen=True)
class _Look:
    """What one table was found to be."""

    channels: list[StoredChannel]
    table: LogTable
    facts: TableFacts
    findings: list[Finding]


def inspect(spec: SeriesSpec, options: SourceOptions) -> SeriesInfo:
    """Find out what the readings of a lake are: they are gone through once, and their times once more.

    Parameters
    ----------
    spec : SeriesSpec
        As `find_logs` gave it.
    options : SourceOptions
        Zone of dates that have none.

    Returns
    -------
    SeriesInfo
        Channels whose times are the same to the last row are one table, so that they are sent together as they once
        were. A damaged time costs its channel; of damaged values those that can be read are kept, with a finding.

    Raises
    ------
    NoFramesError
        No readings.
    SourceTimeError
        A date without a zone, and none was given.
    SourceFormatError, SourceReadError, SourceNotFoundError
        See `list_arrays` and `StoredColumn`.

    Notes
    -----
    Holds one block of a table, 32 MiB, and a few Zarr chunks.
    """
    (path,) = spec.paths
    store = list_arrays(path)
    only = None if spec.dataset in (None, PART) else spec.dataset
    channels, findings = find_channels(store, only)
    known = {array.folder: array.documents for array in store.arrays}

    @cache  # most of the work, where channels are short, is to open them
    def column(folder: str) -> StoredColumn:
        return StoredColumn(folder, known[folder])

    groups = _same_times(channels, column, options.timezone, findings)
    looks = [look for group, times in groups for look in _scan_group(path, group, times, column)]
    findings += [finding for look in looks for finding in look.findings]
    looks = [look for look in looks if look.facts.rows]
    if not looks:
        reasons = "; ".join(finding.message for finding in findings[:SHOWN]) or f"nothing in {GROUP}"
        raise NoFramesError(f"{path}: no readings: {reasons}", hint="nothing was ever recorded: leave it out")
    if options.series_start_ns is not None:
        message = "its rows have dates of their own: what was said of its start is not used"
        findings.append(Finding("start time", message))
    facts = channel_facts([look.table for look in looks], [look.facts for look in looks], [0] * len(looks))
    arrays = [array for look in looks for channel in look.channels for array in (channel.time, channel.value)]
    named = store.attributes.get("name") if store.attributes.get("format") == LAKE_FORMAT else None
    return SeriesInfo(
        spec=replace(spec, tables=tuple(look.table for look in looks)),
        name=named if isinstance(named, str) and named else run_name(spec.paths),
        format="Zarr lake",
        channels=facts,
        start_ns=min(fact.first_ns for fact in facts),
        start_from="frame stamps",
        fingerprint=_fingerprint(arrays, column, only),
        bytes_in=sum(array.bytes for array in arrays),
        findings=(*findings, *earlier_findings(store, findings)),
        earlier=earlier_stream(store),
    )


def _fingerprint(arrays: Sequence[ArrayFact], column: OpenColumn, only: str | None) -> str:
    """Return what tells these readings from others; attributes of the group, such as its sample, may change."""
    fingerprint = Fingerprint("log" if only is None else f"log {only}")
    for array in sorted(arrays, key=lambda array: array.path):
        grid = column(array.folder).grid
        add_to_fingerprint(fingerprint, grid, chunk_files(grid), f"{array.path}/", array.documents)
    return fingerprint.hexdigest()


def _same_times(
    channels: Sequence[StoredChannel], column: OpenColumn, timezone: str | None, findings: list[Finding]
) -> list[tuple[list[StoredChannel], _Times]]:
    """Put together channels whose times are the same, as many as a block has room for."""
    groups: list[tuple[list[StoredChannel], _Times]] = []
    latest: dict[_Times, list[StoredChannel]] = {}
    for channel in channels:
        try:
            times = _times_of(channel, column, timezone)
        except (FrameDataError, MissingFilterError, SourceFormatError) as error:
            findings.append(Finding("channel left out", str(error)))
            continue
        together = latest.get(times)
        if together is None or (len(together) + 2) * min(times.rows, BLOCK_ROWS) > BLOCK_VALUES:
            together = latest[times] = []
            groups.append((together, times))
        together.append(channel)
    return groups


def _times_of(channel: StoredChannel, column: OpenColumn, timezone: str | None) -> _Times:
    epoch = epoch_of(channel, timezone)
    if epoch is None:
        raise SourceFormatError(f"{channel.time.folder}: {channel.since!r} is not understood as a time")
    column(channel.value.folder)  # what cannot be read at all costs the channel, too
    times = column(channel.time.folder)
    digest = xxhash.xxh3_128()
    for first in range(0, channel.rows, BLOCK_ROWS):
        ns, readable = times_ns(times.read(first, min(first + BLOCK_ROWS, channel.rows)), *epoch)
        digest.update(ns.tobytes())
        digest.update(readable.tobytes())
    return _Times(*epoch, channel.rows, digest.hexdigest())


def _scan_group(path: str, channels: list[StoredChannel], times: _Times, column: OpenColumn) -> list[_Look]:
    """Go through the rows of channels that share their times; those that are damaged become tables of their own."""
    block_rows = min(BLOCK_ROWS, times.rows)
    scan = RowScan(TableFacts("row"), block_rows)
    stored_times = column(channels[0].time.folder)
    columns = [column(channel.value.folder) for channel in channels]
    damage: dict[int, Finding] = {}
    for first in range(0, times.rows, block_rows):
        stop = min(first + block_rows, times.rows)
        ns, readable = times_ns(stored_times.read(first, stop), times.unit_ns, times.epoch_ns)
        values = np.full((len(columns), stop - first), np.nan)
        for i, values_column in enumerate(columns):
            try:
                values[i] = values_column.read(first, stop)
            except FrameDataError as error:
                damage.setdefault(i, Finding("damage", str(error)))
        scan.add(first, ns, readable, values)
    if damage and len(channels) > 1:
        # What cannot be read of one must not cost the rows of the others.
        whole = [channel for i, channel in enumerate(channels) if i not in damage]
        parts = ([whole] if whole else []) + [[channels[i]] for i in damage]
        return [look for part in parts for look in _scan_group(path, part, times, column)]
    where = f"{GROUP}/{channels[0].folder}" + (f" and {len(channels) - 1} more" if len(channels) > 1 else "")
    findings = [*damage.values(), *_findings(scan, channels[0], where)]
    return [_Look(channels, _table(path, channels, times, scan), scan.facts, findings)]


def _findings(scan: RowScan, first: StoredChannel, where: str) -> list[Finding]:
    if not scan.facts.rows:
        return [Finding("channel left out", f"{where}: none of {scan.left_out} times is a number")]
    return scan.findings(first.time.path, where)


def _table(path: str, channels: list[StoredChannel], times: _Times, scan: RowScan) -> LogTable:
    layout = {
        "folders": [channel.folder for channel in channels],
        "rows": times.rows,
        "unit_ns": times.unit_ns,
        "epoch_ns": times.epoch_ns,
    }
    return LogTable(
        path,
        tuple(ChannelSpec(channel.name, channel.units) for channel in channels),
        scan.facts.rows,
        where=f"{GROUP}/{channels[0].folder}",
        block_offsets=scan.block_offsets,
        block_rows=scan.block_rows,
        holds=scan.facts.holds,
        layout=orjson.dumps(layout).decode(),
    )


def open_series(spec: SeriesSpec) -> BlockReader:
    """Open the inspected readings of a lake in this process; no file stays open.

    Parameters
    ----------
    spec : SeriesSpec
        As `inspect` gave it.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    """
    tables = [_OpenTable(table) for table in spec.tables]

    def load(number: int, block: int) -> Rows:
        table = spec.tables[number]
        return tables[number].read(block, 0, min(table.block_rows, table.rows - block * table.block_rows))

    def load_part(number: int, block: int, begin: int, end: int) -> Rows:
        return tables[number].read(block, begin, end)

    return BlockReader(spec, load, [0] * len(tables), load_part, _content)


def _content(path: str) -> Hashable:
    if not is_url(path):
        return content_of_file(path)
    (documents,) = documents_of([path], kept=True)
    return path, xxhash.xxh3_128_hexdigest(b"".join(documents.values()))


class _OpenTable:
    """The columns of one table; opened when first asked for."""

    def __init__(self, table: LogTable) -> None:
        self._table = table
        self._layout: dict[str, Any] = orjson.loads(table.layout) if table.layout else {}
        self._opened: list[StoredColumn] = []

    def read(self, block: int, begin: int, end: int) -> Rows:
        times, *values = self._columns()
        unit_ns, epoch_ns, rows = (int(self._layout[name]) for name in ("unit_ns", "epoch_ns", "rows"))

        def read_times(first: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
            return times_ns(times.read(first, stop), unit_ns, epoch_ns)

        def read_values(channel: int, first: int, stop: int) -> NDArray[Any]:
            return values[channel].read(first, stop)

        return read_stored(self._table, rows, (block, begin, end), read_times, read_values)

    def _columns(self) -> list[StoredColumn]:
        if not self._opened:
            path, folders, rows = self._table.path, self._layout["folders"], self._layout["rows"]
            names = [f"{folders[0]}/time", *(f"{folder}/value" for folder in folders)]
            columns = [StoredColumn(f"{path}{GROUP}/{name}", kept=True) for name in names]
            short = [name for name, column in zip(names, columns, strict=True) if column.rows < rows]
            if short:
                raise SourceChangedError(
                    f"{path}: {GROUP}/{short[0]} has not the {rows} rows that it had when it was inspected"
                )
            self._opened = columns
        return self._opened
