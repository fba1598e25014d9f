"""What a worker is asked to do: one chunk of a stream, by descriptors, no frames. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from ingest.contents import StreamOrigin
from ingest.plan import ChunkTask, RunPlan, StreamSettings
from ingest.series_plan import ArchivePlan, SeriesTask
from ingest.sources.base import SourceSpec
from ingest.sources.series_base import SeriesSpec
from ingest.timeseries import TimeseriesSettings
from ingest.wire.models import ChunkMetadata

__all__ = ["LIVE_KINDS", "ChunkOrder", "Order", "PointsOrder", "StreamFacts", "orders_of"]

LIVE_KINDS = ("rheed", "timeseries")


@dataclass(frozen=True, slots=True)
class StreamFacts:
    """What a worker is told of a whole stream, so that it can be written beside chunks that have to wait.

    Attributes
    ----------
    source : str
        Where it comes from, as the journal names it.
    kind : {"archive", "archive-log", "rheed", "timeseries"}
        Frames or readings, of an archive or of a live stream.
    origin : str
        Digest of source and settings, see `StreamOrigin`; of a live stream its key.
    chunks : int
        How many it has; 0: nobody knows, it is live.
    settings : StreamSettings or TimeseriesSettings
        What it is created with.
    spools : str or None
        Folder of the spools that have a live stream's entries, on the producer's node.
    """

    source: str
    kind: str
    origin: str
    chunks: int
    settings: StreamSettings | TimeseriesSettings
    spools: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether a streamer makes it, not a backfill."""
        return self.kind in LIVE_KINDS

    @classmethod
    def of_live(cls, key: str, settings: StreamSettings | TimeseriesSettings, spools: str) -> StreamFacts:
        """Return the facts of a live stream."""
        kind = "timeseries" if isinstance(settings, TimeseriesSettings) else "rheed"
        return cls(f"live:{settings.name or 'time series'}", kind, key, 0, settings, spools)

    @classmethod
    def of(cls, source: str, plan: ArchivePlan) -> StreamFacts:
        """Return the facts of an archived run."""
        kind = "archive" if isinstance(plan, RunPlan) else "archive-log"
        return cls(source, kind, StreamOrigin.of(plan).digest, len(plan.chunks), plan.settings)


@dataclass(frozen=True, slots=True)
class ChunkOrder:
    """Everything a worker needs to deliver one chunk: descriptors, no frames.

    Attributes
    ----------
    key : str
        The stream's key in the journal.
    data_id : str
        The stream at its destination; empty: it could not be created yet.
    spec : SourceSpec
        Opens the source.
    task : ChunkTask
        Which frames, when.
    meta : ChunkMetadata
        What the destination is told of them.
    destination : str
        Where the stream is.
    copies : int
        Streams of the job that get these very frames, each at another destination.
    stream : StreamFacts or None
        Only for a job with a failover.
    """

    key: str
    data_id: str
    spec: SourceSpec
    task: ChunkTask
    meta: ChunkMetadata
    destination: str = ""
    copies: int = 1
    stream: StreamFacts | None = None

    @property
    def n_bytes(self) -> int:
        """Size of its frames as uint8."""
        return self.meta.frames * self.meta.height_px * self.meta.width_px


@dataclass(frozen=True, slots=True)
class PointsOrder:
    """Everything a worker needs to deliver one request of a log's rows.

    Attributes
    ----------
    key, data_id, destination, stream
        As in `ChunkOrder`.
    spec : SeriesSpec
        Opens the log; has the one table that is read.
    task : SeriesTask
        Which rows.
    """

    key: str
    data_id: str
    spec: SeriesSpec
    task: SeriesTask
    destination: str = ""
    stream: StreamFacts | None = None

    @property
    def n_bytes(self) -> int:
        """About the size of its request."""
        return (self.task.stop - self.task.start) * (len(self.spec.tables[0].channels) + 1) * 20


Order = ChunkOrder | PointsOrder
OrderT = TypeVar("OrderT", bound=Order)


def orders_of(
    key: str, data_id: str, plan: ArchivePlan, indices: Sequence[int], destination: str = "", copies: int = 1
) -> list[Order]:
    """Return the orders for some chunks of a plan, each with no more of the source's name than it needs."""
    if isinstance(plan, RunPlan):
        made = [_chunk_order(key, data_id, plan, plan.chunks[index]) for index in indices]
        return [replace(order, destination=destination, copies=copies) for order in made]
    orders: list[Order] = []
    for index in indices:
        task = plan.chunks[index]
        orders.append(PointsOrder(key, data_id, plan.spec.part(task.table), replace(task, table=0), destination))
    return orders


def _chunk_order(key: str, data_id: str, plan: RunPlan, task: ChunkTask) -> ChunkOrder:
    meta = ChunkMetadata(
        frames=task.frames,
        height_px=plan.height_px,
        width_px=plan.width_px,
        chunk_size=plan.settings.chunk_size,
        fps=task.fps,
        is_rotating=plan.settings.rotations_per_min > 0,
        start_unix_ms_utc=task.start_unix_ms_utc,
        first_frame=task.start,
    )
    spec, start, stop = plan.spec.part(task.start, task.stop)
    return ChunkOrder(key, data_id, spec, replace(task, start=start, stop=stop), meta)
