"""The contract of log sources: instrument readings on disk, as tables of rows that have a time."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ingest.sources.base import EarlierStream, ReaderOption, StartFrom
from ingest.sources.urls import redacted
from ingest.timing import Finding

__all__ = ["ChannelFact", "ChannelSpec", "LogTable", "Rows", "SeriesInfo", "SeriesReader", "SeriesSpec"]


@dataclass(frozen=True, slots=True)
class ChannelSpec:
    """One channel of a log.

    Attributes
    ----------
    name : str
        Unique in its run; what the platform is told.
    units : str or None
        As the file says.
    """

    name: str
    units: str | None = None


@dataclass(frozen=True, slots=True)
class LogTable:
    """Rows of a log that share one time column.

    Attributes
    ----------
    path : str
        The file that holds them.
    channels : tuple of ChannelSpec
        Its columns of values, in order.
    rows : int
        How many there are.
    where : str or None
        Where in the file: the path of an HDF5 group or dataset.
    block_offsets : tuple of int
        Where each block of `block_rows` rows begins: of a text file the byte, so that a worker reads its own rows; of
        HDF5 columns the row, where rows without a time are passed over.
    block_rows : int
        Rows from one of these to the next.
    holds : bool
        Whether a value stays until the next one is written (change-of-value, as of shutters): never interpolated.
    layout : str
        What its reader has to know of it besides, as JSON.
    """

    path: str
    channels: tuple[ChannelSpec, ...]
    rows: int
    where: str | None = None
    block_offsets: tuple[int, ...] = ()
    block_rows: int = 0
    holds: bool = False
    layout: str = ""


@dataclass(frozen=True, slots=True)
class SeriesSpec:
    """A run of instrument readings by name: pickles, small, opened only in the process that reads it.

    Attributes
    ----------
    kind : str
        Which reader; see `ingest.sources.SERIES_READERS`.
    paths : tuple of str
        Absolute path of each file of the run.
    tables : tuple of LogTable
        Once inspected; empty: not yet.
    zero_ns : int
        Added to every recorded time: Unix ns of elapsed 0 where a log counts from its start, else 0.
    dataset : str or None
        The one part of the file that was asked for.
    options : tuple of (str, value)
        What the reader of this kind has to know besides.
    """

    kind: str
    paths: tuple[str, ...]
    tables: tuple[LogTable, ...] = ()
    zero_ns: int = 0
    dataset: str | None = None
    options: tuple[tuple[str, ReaderOption], ...] = ()

    @property
    def canonical_path(self) -> str:
        """The run's one name: its file (the folder, for several files) and the part inside."""
        first = redacted(self.paths[0])
        path = first if len(self.paths) == 1 else os.path.join(os.path.dirname(first), "")
        return path if self.dataset is None else f"{path}::{self.dataset}"

    def option(self, name: str) -> ReaderOption | None:
        """Return one of `options`, or None."""
        return dict(self.options).get(name)

    def part(self, table: int) -> SeriesSpec:
        """Return what reads one table alone, as table 0; all files of a large run would be much to send to a worker."""
        only = self.tables[table]
        return replace(self, paths=(only.path,), tables=(only,))


@dataclass(frozen=True, slots=True)
class ChannelFact:
    """What was found of a channel.

    Attributes
    ----------
    name, units
        As in `ChannelSpec`.
    points : int
        Rows, those without a value included.
    first_ns, last_ns : int
        Its earliest and latest time: Unix ns UTC if the run's start is known, else from an unknown start.
    holds : bool
        As in `LogTable`.
    """

    name: str
    units: str | None
    points: int
    first_ns: int
    last_ns: int
    holds: bool = False


@dataclass(frozen=True)
class SeriesInfo:
    """What a run of readings is. Holds some 100 bytes per channel.

    Attributes
    ----------
    spec : SeriesSpec
        Opens the run in any process; with tables and `zero_ns`.
    name : str
        A name for the stream.
    format : str
        The layout found, for people.
    channels : tuple of ChannelFact
        In the order of the tables.
    start_ns : int or None
        Earliest time of all, Unix ns UTC; None: not known.
    start_from : str or None
        Who says so.
    fingerprint : str
        As of frames: tells one recording from another; neither path nor start enters.
    bytes_in : int
        Size of the files' rows.
    findings : tuple of Finding
        What is odd about it.
    earlier : EarlierStream or None
        As in `SourceInfo`.
    """

    spec: SeriesSpec
    name: str
    format: str
    channels: tuple[ChannelFact, ...]
    start_ns: int | None
    start_from: StartFrom | None
    fingerprint: str
    bytes_in: int
    findings: tuple[Finding, ...] = field(default=())
    earlier: EarlierStream | None = None

    @property
    def points(self) -> int:
        """Points of all channels."""
        return sum(table.rows * len(table.channels) for table in self.spec.tables)


@dataclass(frozen=True, slots=True)
class Rows:
    """Some rows of a table.

    Attributes
    ----------
    timestamps_ns : ndarray of int64, (row,)
        Unix ns UTC (`SeriesSpec.zero_ns` is in it), in the order of the file.
    values : ndarray of float64, (channel, row)
        NaN where there is no value.
    """

    timestamps_ns: NDArray[np.int64]
    values: NDArray[np.float64]


class SeriesReader(Protocol):
    """An open run of readings; made in the process that reads, never pickled."""

    def read(self, table: int, start: int, stop: int) -> Rows:
        """Return rows `start` to `stop` (exclusive) of a table.

        Raises
        ------
        FrameDataError
            Rows that no second read will mend.
        SourceReadError
            The operating system could not read; trying again may help.
        SourceChangedError
            The file is not what it was when it was inspected.
        SettingsError
            The run has no such rows.
        """
        ...

    def close(self) -> None:
        """Let go of the file; safe to repeat."""
        ...
