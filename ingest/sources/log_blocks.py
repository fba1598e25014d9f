"""Reading of logs in blocks of rows, of which this process keeps the last ones it made."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import Self

import numpy as np

from ingest.errors import FrameDataError, SettingsError
from ingest.sources.plain_file import version_of
from ingest.sources.remote import remote_stat
from ingest.sources.series_base import LogTable, Rows, SeriesSpec
from ingest.sources.urls import is_url

__all__ = ["BlockReader", "forget_blocks"]

# All 647 channels of a GM1 run (FORMATS.md 1.6) fit, so that reading them side by side parses each once.
MAX_KEPT_BYTES = 64 * 2**20

_lock = threading.Lock()
_kept: OrderedDict[Hashable, Rows] = OrderedDict()
_kept_bytes = 0

Load = Callable[[int, int], Rows]
LoadPart = Callable[[int, int, int, int], Rows]


class BlockReader:
    """Rows of a log's tables, by blocks; see `ingest.sources.series_base.SeriesReader`.

    Parameters
    ----------
    spec : SeriesSpec
        With tables, each with `block_rows`.
    load : callable
        Returns one whole block, from the numbers of its table and of itself, with times as recorded.
    zeros_ns : sequence of int
        For each table, what is added to its recorded times.
    load_part : callable, optional
        Returns only some rows of a block, the first and the last (exclusive) of which are counted within it: asked
        where the whole block raises `FrameDataError`.
    content : callable, optional
        Returns what tells the content of a table's path from what it was before; default: as of files.
    """

    def __init__(
        self,
        spec: SeriesSpec,
        load: Load,
        zeros_ns: Sequence[int],
        load_part: LoadPart | None = None,
        content: Callable[[str], Hashable] | None = None,
    ) -> None:
        if not spec.tables or any(table.block_rows < 1 for table in spec.tables):
            raise SettingsError(
                f"{spec.canonical_path}: the tables are missing in the spec",
                hint="open the spec that inspect_series returns, so that all workers read alike",
            )
        self._spec, self._load, self._load_part = spec, load, load_part
        self._zeros_ns = tuple(zeros_ns)
        self._content = content or content_of_file

    def read(self, table: int, start: int, stop: int) -> Rows:
        """Return rows `start` to `stop` (exclusive) of a table.

        Parameters
        ----------
        table : int
            Number in ``spec.tables``.
        start, stop : int
            Rows of it.

        Returns
        -------
        Rows
            New arrays.

        Raises
        ------
        SettingsError
            The run has no such rows.
        FrameDataError, SourceChangedError, SourceReadError
            As `SeriesReader.read`.

        Notes
        -----
        Holds ``(stop - start) * (channels + 1) * 8`` bytes, and the process's last blocks: 64 MiB, or one block if
        that is more.
        """
        path = self._spec.canonical_path
        if not 0 <= table < len(self._spec.tables):
            raise SettingsError(f"table {table} was asked of a log of {len(self._spec.tables)}: {path}")
        facts = self._spec.tables[table]
        if not 0 <= start < stop <= facts.rows:
            raise SettingsError(f"rows {start} to {stop} were asked of a log of {facts.rows}: {facts.path}")
        times_ns = np.empty(stop - start, np.int64)
        values = np.empty((len(facts.channels), stop - start))
        size = facts.block_rows
        for number in range(start // size, (stop - 1) // size + 1):
            first = number * size
            begin, end = max(start, first), min(stop, first + size)
            rows = self._rows(table, facts, number, slice(begin - first, end - first))
            times_ns[begin - start : end - start] = rows.timestamps_ns
            values[:, begin - start : end - start] = rows.values
        times_ns += self._zeros_ns[table]
        return Rows(times_ns, values)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _rows(self, table: int, facts: LogTable, number: int, part: slice) -> Rows:
        try:
            block = self._block(table, facts, number)
        except FrameDataError:
            if self._load_part is None:
                raise
            return self._load_part(table, number, int(part.start), int(part.stop))
        return Rows(block.timestamps_ns[part], block.values[:, part])

    def _block(self, table: int, facts: LogTable, number: int) -> Rows:
        global _kept_bytes
        offset = facts.block_offsets[number] if facts.block_offsets else None
        key = (
            self._content(facts.path),
            facts.where,
            offset,
            number,
            facts.block_rows,
            facts.layout,
            self._spec.options,
        )
        with _lock:
            if key in _kept:
                _kept.move_to_end(key)
                return _kept[key]
        block = self._load(table, number)
        with _lock:
            if key not in _kept:
                _kept[key] = block
                _kept_bytes += _bytes(block)
            while _kept_bytes > MAX_KEPT_BYTES and len(_kept) > 1:
                _kept_bytes -= _bytes(_kept.popitem(last=False)[1])
        return block


def content_of_file(path: str) -> Hashable:
    """Return what tells a file's content from what it was before."""
    if is_url(path):
        return remote_stat(path)
    return path, version_of(path)


def _bytes(block: Rows) -> int:
    return block.timestamps_ns.nbytes + block.values.nbytes


def forget_blocks() -> None:
    """Let go of all blocks that this process keeps."""
    global _kept_bytes
    with _lock:
        _kept.clear()
        _kept_bytes = 0
