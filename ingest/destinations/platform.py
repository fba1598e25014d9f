"""The platform as a destination, thin over the wire client."""

from __future__ import annotations

from ingest.contents import HeldStream, StreamContents, StreamOrigin
from ingest.destinations.base import LinkedSettings, MissingNames, ResolvedLinks
from ingest.plan import StreamSettings
from ingest.shard import Shard
from ingest.wire.client import PlatformClient
from ingest.wire.models import ChunkMetadata, Delivery

__all__ = ["PlatformDestination", "PlatformLinks"]


class PlatformLinks:
    """What streams of every kind share at a platform: their links, and the connections.

    Parameters
    ----------
    client : PlatformClient
        Is closed with the destination; also gives the calls that are not a destination's, such as the clock's.
    """

    finishes_streams = False

    async def held(self, data_id: str) -> HeldStream | None:
        """Return None: a platform does not say what is in a stream."""

    def __init__(self, client: PlatformClient) -> None:
        self.client = client

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.client.endpoint!r})"

    async def missing_names(self, settings: LinkedSettings) -> MissingNames:
        """Return which sample and tags the platform does not have yet. Changes nothing."""
        sample, tags = await self.client.missing_names(settings.physical_sample, settings.tags)
        return MissingNames(sample, tuple(tags))

    async def resolve(self, settings: LinkedSettings) -> ResolvedLinks:
        """Find or create the sample and the tags. Safe to repeat."""
        sample_id = None
        if settings.physical_sample is not None:
            sample_id = await self.client.resolve_sample(settings.physical_sample)
        return ResolvedLinks(sample_id, tuple(await self.client.resolve_tags(settings.tags)))

    async def link(self, data_id: str, settings: LinkedSettings, resolved: ResolvedLinks) -> None:
        """Link the sample, let the project track it, link the tags. Safe to repeat."""
        if resolved.physical_sample_id is not None:
            await self.client.link_sample(data_id, resolved.physical_sample_id)
            if settings.project_id is not None:
                await self.client.track_sample(settings.project_id, resolved.physical_sample_id)
        await self.client.link_tags(data_id, resolved.tag_ids)

    async def aclose(self) -> None:
        """Close the connections. Safe to repeat."""
        await self.client.aclose()


class PlatformDestination(PlatformLinks):
    """Sends RHEED streams to a platform over HTTP.

    Parameters
    ----------
    client : PlatformClient
        As for `PlatformLinks`.
    """

    async def open_stream(
        self,
        settings: StreamSettings,
        idempotency_key: str,
        origin: StreamOrigin | None = None,  # noqa: ARG002
    ) -> str:
        """Create a RHEED stream; return its ``data_id``."""
        return await self.client.create_rheed_stream(settings, idempotency_key)

    async def deliver(self, data_id: str, index: int, meta: ChunkMetadata, shard: Shard) -> Delivery:
        """Upload one chunk. Safe to repeat."""
        return await self.client.put_shard(data_id, index, meta, shard)

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:  # noqa: ARG002
        """End the stream."""
        await self.client.end_rheed_stream(data_id)
