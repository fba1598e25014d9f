"""A log, decided: the time-series stream to create, and the requests that carry every row exactly once. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass

from ingest.errors import SettingsError, SourceTimeError
from ingest.plan import RunPlan
from ingest.sources.base import StartFrom
from ingest.sources.series_base import ChannelFact, SeriesInfo, SeriesSpec
from ingest.timeseries import MAX_UNIX_S, TimeseriesSettings
from ingest.timing import NS_PER_MS, Finding, cut

__all__ = ["ArchivePlan", "SeriesOptions", "SeriesPlan", "SeriesTask", "origin_digest", "origin_of", "plan_series"]

MAX_POINTS_PER_CHUNK = 100_000


@dataclass(frozen=True, slots=True)
class SeriesTask:
    """One request: some rows of a table, all its channels.

    Attributes
    ----------
    index : int
        Its place in the ledger.
    table : int
        Which table of the spec.
    chunk_index : int
        Its place among the table's requests, from 0; what the platform orders a channel's chunks by.
    start, stop : int
        Rows, `stop` exclusive.
    """

    index: int
    table: int
    chunk_index: int
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class SeriesOptions:
    """What the user wants of a log's stream.

    Attributes
    ----------
    name : str or None
        Default: the log's own.
    points_per_chunk : int
        Points of each channel in one request.
    synth_source_id : int or None
        Growth instrument.
    physical_sample, project_id, tags
        As in `StreamSettings`.
    """

    name: str | None = None
    points_per_chunk: int = 100
    synth_source_id: int | None = None
    physical_sample: str | None = None
    project_id: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class SeriesPlan:
    """A run of instrument readings, decided. Holds about 60 bytes per request.

    Attributes
    ----------
    spec : SeriesSpec
        Opens the log in any process.
    settings : TimeseriesSettings
        The stream to create.
    channels : tuple of ChannelFact
        What is in it.
    chunks : tuple of SeriesTask
        Cover every row of every table exactly once.
    fingerprint, format, start_from, findings, bytes_in
        As in `SeriesInfo`.
    start_unix_ms_utc : int
        Earliest time of all.
    """

    spec: SeriesSpec
    settings: TimeseriesSettings
    channels: tuple[ChannelFact, ...]
    chunks: tuple[SeriesTask, ...]
    fingerprint: str
    format: str
    start_unix_ms_utc: int
    start_from: StartFrom
    findings: tuple[Finding, ...]
    bytes_in: int

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.settings.name or "time series"

    @property
    def frames(self) -> int:
        """Points of all channels; a plan of frames counts frames under this name."""
        return sum(table.rows * len(table.channels) for table in self.spec.tables)

    def identity(self) -> dict[str, object]:
        """Return the settings that change what is sent, for telling whether a re-run asks for the same stream."""
        return {
            "dataset": self.spec.dataset,
            "points_per_chunk": self.settings.points_per_chunk,
            "synth_source_id": self.settings.synth_source_id,
            "start_unix_ms_utc": self.start_unix_ms_utc,
        }


ArchivePlan = RunPlan | SeriesPlan
"""What a backfill sends: the plan of a movie, or of a log."""


def origin_digest(plan: ArchivePlan) -> str:
    """Return what tells a recording, and the settings that change what is sent of it, from others, as hex."""
    return origin_of(plan.fingerprint, plan.identity())


def origin_of(fingerprint: str, identity: object) -> str:
    """Return the same of a plan's fingerprint and identity, also of those that were read from JSON."""
    return hashlib.sha256(json.dumps([fingerprint, identity], sort_keys=True).encode()).hexdigest()


def plan_series(info: SeriesInfo, options: SeriesOptions) -> SeriesPlan:
    """Decide a log's stream and requests.

    Parameters
    ----------
    info : SeriesInfo
        What `inspect_series` found.
    options : SeriesOptions
        What the user wants.

    Raises
    ------
    SourceTimeError
        Nothing trustworthy says when the log began, or its times are beyond those that the platform takes.
    SettingsError
        `points_per_chunk` that cannot be.
    """
    if info.start_from is None or info.start_ns is None:
        raise SourceTimeError(
            f"{info.name}: nothing trustworthy says when the log began",
            hint="pass --log-start 2023-10-18T08:00:00+02:00 (when its elapsed time was 0), put `log_start` into a "
            "growth.yaml beside it, pass --timezone if a local time was found, or --start-from mtime",
        )
    size = options.points_per_chunk
    if not 1 <= size <= MAX_POINTS_PER_CHUNK:
        raise SettingsError(
            f"{info.name}: {size} points per chunk; a request carries 1 to {MAX_POINTS_PER_CHUNK} of each channel",
            hint="pass --points-per-chunk 100",
        )
    latest_s = max(abs(fact.last_ns) for fact in info.channels) / 1e9
    if latest_s > MAX_UNIX_S:
        raise SourceTimeError(
            f"{info.name}: its times reach {latest_s:g} s, which is no date", hint="check --log-start and the time unit"
        )
    tasks: list[SeriesTask] = []
    for number, table in enumerate(info.spec.tables):
        for chunk_index, (start, stop) in enumerate(cut(table.rows, size)):
            tasks.append(SeriesTask(len(tasks), number, chunk_index, start, stop))
    return SeriesPlan(
        spec=info.spec,
        settings=TimeseriesSettings(
            name=(options.name or "").strip() or info.name,
            points_per_chunk=size,
            synth_source_id=options.synth_source_id,
            physical_sample=options.physical_sample,
            project_id=options.project_id,
            tags=options.tags,
        ),
        channels=info.channels,
        chunks=tuple(tasks),
        fingerprint=info.fingerprint,
        format=info.format,
        start_unix_ms_utc=round(info.start_ns / NS_PER_MS),
        start_from=info.start_from,
        findings=info.findings,
        bytes_in=info.bytes_in,
    )
