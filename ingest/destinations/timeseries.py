"""The platform as a destination of instrument time series, thin over the wire client."""

from __future__ import annotations

from ingest.contents import StreamContents, StreamOrigin
from ingest.destinations.platform import PlatformLinks
from ingest.timeseries import ApiGeneration, TimeseriesMeta, TimeseriesSettings
from ingest.wire.client import PlatformClient
from ingest.wire.models import Delivery

__all__ = ["PlatformTimeseries"]


class PlatformTimeseries(PlatformLinks):
    """Sends time series to a platform over HTTP. One for each event loop, shared by its tasks.

    Every method raises a `DestinationError` and nothing of a third party: `RefusedError` and its kin are final,
    `UnreachableError` comes after its own retries, so that callers need none.

    Parameters
    ----------
    client : PlatformClient
        As for `PlatformLinks`.
    generation : {"tool-state", "metrology"}
        Of the platform's paths; also says how `ingest.timeseries.encode_channels` must encode.
    """

    def __init__(self, client: PlatformClient, generation: ApiGeneration = "tool-state") -> None:
        super().__init__(client)
        self.generation: ApiGeneration = generation

    async def open_stream(
        self,
        settings: TimeseriesSettings,
        idempotency_key: str,
        origin: StreamOrigin | None = None,  # noqa: ARG002
    ) -> str:
        """Create a stream; return its ``data_id``. Repeating it: as `Destination.open_stream`."""
        return await self.client.create_timeseries_stream(settings, idempotency_key, self.generation)

    async def deliver(self, data_id: str, meta: TimeseriesMeta, body: bytes) -> Delivery:
        """Send one request, and return once the platform has confirmed it. Safe to repeat, in any order.

        Raises
        ------
        StreamGoneError
            The stream does not exist or takes nothing more.
        """
        return await self.client.put_timeseries_chunk(data_id, meta, body, self.generation)

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:  # noqa: ARG002
        """Finalize the stream: it takes nothing more.

        Raises
        ------
        StreamGoneError
            There is no such stream, or it was closed or failed before.
        """
        await self.client.end_timeseries_stream(data_id, self.generation)
