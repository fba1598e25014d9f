"""What is kept of a log while its rows go by, how its start is decided, and what it is in the end."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceTimeError
from ingest.sources.assemble import run_name
from ingest.sources.base import SourceOptions
from ingest.sources.fingerprint import Fingerprint
from ingest.sources.plain_file import os_errors
from ingest.sources.series_base import ChannelFact, LogTable, SeriesInfo, SeriesSpec
from ingest.sources.start import ResolvedStart, StartEvidence, parse_time, resolve_start
from ingest.sources.urls import is_url, redacted
from ingest.timing import Finding

__all__ = ["TableFacts", "channel_facts", "log_start", "numbered", "says_when", "series_info"]

SHOWN = 3
MAX_STATES = 32


@dataclass
class TableFacts:
    """Running facts of one table; nothing in it grows with the rows.

    Attributes
    ----------
    unit : str
        What numbers its rows for people: ``"line"`` or ``"row"``.
    rows : int
        So far.
    first_ns, last_ns : int
        Earliest and latest time as recorded.
    """

    unit: str
    rows: int = 0
    first_ns: int = 2**63 - 1
    last_ns: int = -(2**63)
    _previous_ns: int | None = None
    _previous: NDArray[np.float64] | None = None
    _backward: list[int] = field(default_factory=lambda: [0, 0])
    _repeated: list[int] = field(default_factory=lambda: [0, 0])
    _steps: list[int] = field(default_factory=lambda: [2**63 - 1, 0])
    _changes_only: bool = True
    _states: set[float] = field(default_factory=set)

    def add(self, times_ns: NDArray[np.int64], values: NDArray[np.float64], numbers: NDArray[np.int64]) -> None:
        """Take note of the next rows.

        Parameters
        ----------
        times_ns : ndarray of int64, (row,)
            As recorded.
        values : ndarray of float64, (channel, row)
            NaN where there is none.
        numbers : ndarray of int64, (row,)
            Of their lines or rows in the file.
        """
        if not len(times_ns):
            return
        self.first_ns = min(self.first_ns, int(times_ns.min()))
        self.last_ns = max(self.last_ns, int(times_ns.max()))
        known = self._previous_ns is not None
        steps = np.diff(times_ns, prepend=times_ns[0] if self._previous_ns is None else self._previous_ns)
        steps, at = (steps, numbers) if known else (steps[1:], numbers[1:])
        for count, found in ((self._backward, steps < 0), (self._repeated, steps == 0)):
            if found.any():
                count[1] = count[1] or int(at[found.argmax()])
                count[0] += int(found.sum())
        if len(steps):
            self._steps = [min(self._steps[0], int(steps.min())), max(self._steps[1], int(steps.max()))]
        if self._changes_only:
            self._changes_only = self._only_changes(values)
        self._previous_ns, self._previous = int(times_ns[-1]), values[:, -1].copy()
        self.rows += len(times_ns)

    def _only_changes(self, values: NDArray[np.float64]) -> bool:
        """Whether these are whole numbers, and no row is what the one before was."""
        if not np.array_equal(values, np.trunc(values), equal_nan=True):
            return False
        self._states.update(np.unique(values[~np.isnan(values)])[: MAX_STATES + 1].tolist())
        if len(self._states) > MAX_STATES:
            return False
        if self._previous is not None:
            values = np.concatenate([self._previous[:, np.newaxis], values], axis=1)
        before, after = values[:, :-1], values[:, 1:]
        same = (before == after) | (np.isnan(before) & np.isnan(after))
        return not same.all(axis=0).any()

    @property
    def holds(self) -> bool:
        """Whether rows were written only when a value changed: few whole numbers, none repeated, at odd times."""
        return self._changes_only and (self.rows < 3 or 10 * self._steps[1] > 11 * self._steps[0])

    def findings(self, what: str) -> list[Finding]:
        """Return what is odd about the times of `what`."""
        found = []
        for kind, (count, first), text in (
            ("backward stamps", self._backward, "go back in time"),
            ("repeated stamps", self._repeated, "have the time of the row before"),
        ):
            if count:
                message = f"{what}: {count} of {self.rows} rows {text}, the first at {self.unit} {first}; kept in order"
                found.append(Finding(kind, message))
        return found


def numbered(unit: str, count: int, first: Sequence[int]) -> str:
    """Name lines or rows by the first few numbers: ``lines 3, 4, 9, ...``."""
    shown = ", ".join(str(number) for number in first[:SHOWN])
    more = ", ..." if count > len(first[:SHOWN]) else ""
    return f"{unit}{'s' if count > 1 else ''} {shown}{more}"


def channel_facts(
    tables: Sequence[LogTable], facts: Sequence[TableFacts], zeros_ns: Sequence[int]
) -> tuple[ChannelFact, ...]:
    """Return what is known of each channel, in the order of the tables; `zeros_ns` is added to each table's times."""
    return tuple(
        ChannelFact(
            channel.name,
            channel.units,
            table.rows,
            known.first_ns + zero_ns,
            known.last_ns + zero_ns,
            table.holds,
        )
        for table, known, zero_ns in zip(tables, facts, zeros_ns, strict=True)
        for channel in table.channels
    )


def series_info(
    spec: SeriesSpec,
    facts: Sequence[TableFacts],
    zeros_ns: Sequence[int],
    start: ResolvedStart,
    *,
    elapsed: bool,
    layout: str,
    bytes_in: int,
    part: str | None = None,
) -> SeriesInfo:
    """Put together what a log is.

    Parameters
    ----------
    spec : SeriesSpec
        Complete.
    facts : sequence of TableFacts
        Of each of its tables.
    zeros_ns : sequence of int
        What is added to the recorded times of each.
    start : ResolvedStart
        When elapsed time was 0; its findings are those of the log.
    elapsed : bool
        Whether that matters: some table counts from its start.
    layout : str
        For people.
    bytes_in : int
        Size of the rows.
    part : str, optional
        The one part of the file that was asked for, which tells its fingerprint from the whole file's.

    Raises
    ------
    SourceNotFoundError, SourceReadError
        A file cannot be read; see `Fingerprint.add_file`.
    """
    fingerprint = Fingerprint("log" if part is None else f"log {part}")
    for path in spec.paths:
        with os_errors(redacted(path)):
            fingerprint.add_file(path)
    channels = channel_facts(spec.tables, facts, zeros_ns)
    has_start = not elapsed or start.start_ns is not None
    return SeriesInfo(
        spec=spec,
        name=run_name(spec.paths),
        format=layout,
        channels=channels,
        start_ns=min(channel.first_ns for channel in channels) if has_start else None,
        start_from=start.start_from if elapsed else "frame stamps",
        fingerprint=fingerprint.hexdigest(),
        bytes_in=bytes_in,
        findings=start.findings,
    )


def log_start(
    options: SourceOptions,
    *,
    paths: Sequence[str],
    ends_ns: Sequence[int],
    attribute: str | int | float | None = None,
    attribute_name: str = "start_time",
    own: bool = False,
    several: bool = False,
) -> ResolvedStart:
    """Decide when elapsed time was 0.

    Parameters
    ----------
    options : SourceOptions
        What the user says.
    paths : sequence of str
        The file of each table.
    ends_ns : sequence of int
        The latest elapsed time of each table.
    attribute, attribute_name
        What the file says of it; see `StartEvidence`.
    own : bool
        Whether that is said of the log itself, so that nothing goes before it: ``start_ns`` is when a movie began, and
        ``series_start_ns`` is for logs that say nothing. There is a finding where it is given and not used.
    several : bool
        Whether the run is several files, of which only the folder's name can say when it began.

    Raises
    ------
    SourceTimeError, SettingsError
        As `resolve_start`.
    """
    user_ns = options.series_start_ns
    findings: tuple[Finding, ...] = ()
    if own and user_ns is not None:
        user_ns = None
        message = f"{attribute_name} says {attribute}: the start that was given for logs is not used"
        findings = (Finding("start time", message),)
    elif user_ns is None and not own:
        user_ns = options.start_ns
    latest = max(range(len(paths)), key=lambda i: ends_ns[i])
    mtime_ns = None
    if options.start_from_mtime and not is_url(paths[latest]):
        with os_errors(paths[latest]):
            mtime_ns = os.stat(paths[latest]).st_mtime_ns
    folder, name = os.path.split(redacted(paths[latest]))
    folder_name = os.path.basename(folder)
    resolved = resolve_start(
        StartEvidence(
            user_ns=user_ns,
            user_from=options.start_said_by,
            attribute=attribute,
            attribute_name=attribute_name,
            file_name=folder_name if several else f"{name} in {folder_name}",
            mtime_ns=mtime_ns,
            duration_ns=ends_ns[latest],
            timezone=options.timezone,
        )
    )
    return replace(resolved, findings=(*findings, *resolved.findings))


def says_when(text: str, timezone: str | None) -> bool:
    """Whether a text is a date and time of a known zone."""
    try:
        return parse_time(text, "start", timezone) is not None
    except SourceTimeError:
        return False
