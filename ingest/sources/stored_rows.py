"""Rows of columns that are stored by number: which have a time, and reading only these, block by block."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceChangedError
from ingest.sources.log_facts import SHOWN, TableFacts, numbered
from ingest.sources.series_base import LogTable, Rows
from ingest.sources.urls import redacted
from ingest.timing import Finding

__all__ = ["RowScan", "read_stored"]

ReadTimes = Callable[[int, int], tuple[NDArray[np.int64], NDArray[np.bool_]]]
ReadValues = Callable[[int, int, int], NDArray[Any]]


@dataclass
class RowScan:
    """What a pass over the rows of one table keeps; 8 bytes a block where rows are left out.

    Attributes
    ----------
    facts : TableFacts
        Of the rows that have a time.
    block_rows : int
        Of these, from one offset to the next.
    left_out : int
        Rows without a time.
    """

    facts: TableFacts
    block_rows: int
    left_out: int = 0
    _offsets: list[int] = field(default_factory=list)
    _first_left_out: list[int] = field(default_factory=list)

    def add(
        self, first: int, times_ns: NDArray[np.int64], readable: NDArray[np.bool_], values: NDArray[np.float64]
    ) -> None:
        """Take note of the next rows.

        Parameters
        ----------
        first : int
            Number of the first, as stored.
        times_ns : ndarray of int64, (row,)
            As recorded.
        readable : ndarray of bool, (row,)
            Which of them are times.
        values : ndarray of float64, (channel, row)
            NaN where there is none.
        """
        bad = first + np.flatnonzero(~readable)
        self.left_out += len(bad)
        self._first_left_out += bad[: SHOWN - len(self._first_left_out)].tolist()
        kept = first + np.flatnonzero(readable)
        self._offsets += kept[-self.facts.rows % self.block_rows :: self.block_rows].tolist()
        self.facts.add(times_ns[readable], values[:, readable], kept)

    @property
    def block_offsets(self) -> tuple[int, ...]:
        """Where each block begins, by number as stored; nothing where no row was left out, so that one can tell."""
        return tuple(self._offsets) if self.left_out else ()

    def findings(self, column: str, where: str) -> list[Finding]:
        """Return what is odd about the times of a table: the column that holds them, and what the table is called."""
        found = []
        if self.left_out:
            rows = self.facts.rows + self.left_out
            shown = numbered("row", self.left_out, self._first_left_out)
            message = f"{column}: {self.left_out} of {rows} times cannot be read ({shown}): left out"
            found.append(Finding("rows left out", message))
        return found + self.facts.findings(where)


def read_stored(
    table: LogTable,
    stored_rows: int,
    part: tuple[int, int, int],
    read_times: ReadTimes,
    read_values: ReadValues,
) -> Rows:
    """Read some rows of a block; those without a time are passed over.

    Parameters
    ----------
    table : LogTable
        The table; its `block_offsets` as of `RowScan`.
    stored_rows : int
        How many it has with those.
    part : (block, begin, end)
        Number of the block, and rows counted within it, `end` exclusive.
    read_times : callable
        Returns times (ns) of stored rows from a first to a last (exclusive), and which of them are times.
    read_values : callable
        Returns values of a channel, by its number, of stored rows from a first to a last (exclusive).

    Raises
    ------
    SourceChangedError
        There are fewer rows than when it was inspected.

    Notes
    -----
    Holds the rows, ``(channels + 1) * 8`` bytes each, and one column of a block.
    """
    block, begin, end = part
    times_ns = np.empty(end - begin, np.int64)
    values = np.empty((len(table.channels), end - begin))
    first = table.block_offsets[block] if table.block_offsets else block * table.block_rows
    seen = 0
    while seen < end and first < stored_rows:
        after = min(first + table.block_rows, stored_rows)
        ns, readable = read_times(first, after)
        at = np.flatnonzero(readable)
        wanted = at[max(0, begin - seen) : max(0, end - seen)]
        if len(wanted):
            into = slice(max(seen, begin) - begin, max(seen, begin) - begin + len(wanted))
            times_ns[into] = ns[wanted]
            low, high = first + int(wanted[0]), first + int(wanted[-1]) + 1
            for channel in range(len(values)):
                values[channel, into] = read_values(channel, low, high)[wanted - wanted[0]]
        seen += len(at)
        first = after
    if seen < end:
        raise SourceChangedError(f"{redacted(table.path)}: {table.where} has fewer rows than when it was inspected")
    return Rows(times_ns, values)
