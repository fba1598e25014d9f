"""A destination that counts and forgets: what reading and packing cost without one."""

from __future__ import annotations

import hashlib

from ingest.contents import HeldStream, StreamContents, StreamOrigin
from ingest.destinations.base import MissingNames, ResolvedLinks
from ingest.errors import StreamGoneError
from ingest.plan import StreamSettings
from ingest.shard import Shard
from ingest.wire.models import ChunkMetadata, Delivery, check_settings

__all__ = ["NullDestination"]


class NullDestination:
    """Takes everything, keeps the counts.

    Attributes
    ----------
    chunks, frames, n_bytes : int
        Deliveries, their frames, and their shards' bytes, repeated ones included.
    """

    finishes_streams = False

    async def held(self, data_id: str) -> HeldStream | None:
        """Return None: nothing is kept."""

    def __init__(self) -> None:
        self.chunks = 0
        self.frames = 0
        self.n_bytes = 0
        self._closed: dict[str, bool] = {}

    async def missing_names(self, settings: StreamSettings) -> MissingNames:  # noqa: ARG002 - the contract's signature
        """Return that nothing would be created."""
        return MissingNames()

    async def resolve(self, settings: StreamSettings) -> ResolvedLinks:  # noqa: ARG002 - the contract's signature
        """Return no links."""
        return ResolvedLinks()

    async def open_stream(
        self,
        settings: StreamSettings,
        idempotency_key: str,
        origin: StreamOrigin | None = None,  # noqa: ARG002
    ) -> str:
        """Return a ``data_id`` that depends on the key alone. Safe to repeat."""
        check_settings(settings)
        data_id = f"null-{hashlib.sha256(idempotency_key.encode()).hexdigest()[:16]}"
        self._closed.setdefault(data_id, False)
        return data_id

    async def link(self, data_id: str, settings: StreamSettings, resolved: ResolvedLinks) -> None:  # noqa: ARG002
        """Do nothing, to a stream that takes chunks."""
        self._check_open(data_id, "link")

    async def deliver(self, data_id: str, index: int, meta: ChunkMetadata, shard: Shard) -> Delivery:
        """Count one chunk. Counts again when repeated."""
        self._check_open(data_id, f"put chunk {index} of")
        self.chunks += 1
        self.frames += meta.frames
        self.n_bytes += shard.n_bytes
        return Delivery(None, 1)

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:  # noqa: ARG002
        """Take no more chunks of this stream."""
        self._check_open(data_id, "close")
        self._closed[data_id] = True

    async def aclose(self) -> None:
        """Keep the counts."""

    def _check_open(self, data_id: str, asked: str) -> None:
        if self._closed.get(data_id, True):
            why = "it is closed" if data_id in self._closed else "there is none"
            raise StreamGoneError(f"could not {asked} stream {data_id} of the null destination: {why}")
