"""Where encoded chunks leave the node: one door for frames and one for each generation of time-series paths."""

from __future__ import annotations

from typing import Protocol

from ingest.chunks import EncodedChunk
from ingest.contents import StreamContents
from ingest.destinations import Destination, open_destination, open_timeseries
from ingest.destinations.base import TimeseriesDestination
from ingest.errors import SettingsError, StreamGoneError
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret, Telemetry
from ingest.timeseries import ApiGeneration, TimeseriesMeta
from ingest.wire.models import Delivery

__all__ = ["FramesOutlet", "Outlet", "PointsOutlet", "close_repeatably", "open_frames_outlet", "open_points_outlet"]

CLOSED_WORDS = ("already closed", "completed", "already ended")


class Closable(Protocol):
    """What has streams that can be closed."""

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:
        """Close a stream."""
        ...


async def close_repeatably(destination: Closable, data_id: str, contents: StreamContents | None = None) -> None:
    """Close a stream whose close may have been asked for before, with the answer lost.

    Raises
    ------
    StreamGoneError
        There is none, or it failed; a platform that answers a repeated close with an error says in words that it had
        closed the stream, and that is no error here.
    """
    try:
        await destination.close_stream(data_id, contents)
    except StreamGoneError as exc:
        if not any(word in str(exc).lower() for word in CLOSED_WORDS):
            raise


class Outlet(Protocol):
    """Takes encoded chunks of one kind and closes their streams. One for each event loop, shared by its tasks."""

    @property
    def finishes_streams(self) -> bool:
        """Whether `close_stream` needs to be told all that is in a stream; see `Destination`."""
        ...

    async def deliver(self, chunk: EncodedChunk) -> Delivery:
        """Deliver one chunk; return once the destination has confirmed it. Safe to repeat.

        Raises
        ------
        DestinationError
            As `Destination.deliver`.
        """
        ...

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:
        """Close a stream; one that is closed already is fine.

        Raises
        ------
        DestinationError
            As `Destination.close_stream`.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections. Safe to repeat."""
        ...


class FramesOutlet:
    """Delivers shards of frames.

    Parameters
    ----------
    destination : Destination
        Is closed with the outlet.
    """

    def __init__(self, destination: Destination) -> None:
        self.destination = destination

    async def deliver(self, chunk: EncodedChunk) -> Delivery:
        """Deliver one shard."""
        label = chunk.label
        if isinstance(label.meta, TimeseriesMeta):
            raise SettingsError(f"{label.text} of stream {label.data_id} holds no frames")
        return await self.destination.deliver(label.data_id, label.index, label.meta, chunk.body)

    @property
    def finishes_streams(self) -> bool:
        """As that of its destination."""
        return self.destination.finishes_streams

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:
        """End the stream."""
        await close_repeatably(self.destination, data_id, contents)

    async def aclose(self) -> None:
        """Let go of connections. Safe to repeat."""
        await self.destination.aclose()


class PointsOutlet:
    """Delivers requests of time-series points.

    Parameters
    ----------
    destination : TimeseriesDestination
        Is closed with the outlet.
    """

    def __init__(self, destination: TimeseriesDestination) -> None:
        self.destination = destination

    async def deliver(self, chunk: EncodedChunk) -> Delivery:
        """Send one request."""
        label = chunk.label
        if not isinstance(label.meta, TimeseriesMeta):
            raise SettingsError(f"{label.text} of stream {label.data_id} holds no points")
        return await self.destination.deliver(label.data_id, label.meta, chunk.body.tobytes())

    @property
    def finishes_streams(self) -> bool:
        """As that of its destination."""
        return self.destination.finishes_streams

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:
        """Finalize the stream."""
        await close_repeatably(self.destination, data_id, contents)

    async def aclose(self) -> None:
        """Let go of connections. Safe to repeat."""
        await self.destination.aclose()


def open_frames_outlet(
    url: str,
    api_key: Secret | None,
    *,
    retry: RetryPolicy | None = None,
    telemetry: Telemetry | None = None,
    max_connections: int = 8,
) -> FramesOutlet:
    """Return the outlet for frames to a destination; nothing is connected yet. Arguments as `open_destination`."""
    return FramesOutlet(
        open_destination(url, api_key, retry=retry, telemetry=telemetry, max_connections=max_connections)
    )


def open_points_outlet(
    url: str,
    api_key: Secret | None,
    *,
    generation: ApiGeneration = "tool-state",
    retry: RetryPolicy | None = None,
    telemetry: Telemetry | None = None,
    max_connections: int = 8,
) -> PointsOutlet:
    """Return the outlet for points to a platform; nothing is connected yet. Arguments as `open_timeseries`."""
    return PointsOutlet(
        open_timeseries(
            url, api_key, generation=generation, retry=retry, telemetry=telemetry, max_connections=max_connections
        )
    )
