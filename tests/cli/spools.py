"""Builds what live streamers leave behind, without any: streams on a platform, in a journal, and chunks in a spool."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import numpy as np
import xxhash

from ingest.chunks import ChunkLabel, EncodedChunk
from ingest.journal import Journal
from ingest.journal.live import account_of
from ingest.ledger import CreateBegun, Sealed, StreamCreated, StreamEvent, StreamLinked
from ingest.plan import StreamSettings
from ingest.shard import Shard, frames_digest, pack
from ingest.spool import Spool
from ingest.telemetry import Secret
from ingest.timeseries import TimeseriesSettings, encode_channel
from ingest.wire.client import PlatformClient
from ingest.wire.models import ChunkMetadata
from tests.support import KEY

START_MS = 1_700_000_000_000
FRAMES = StreamSettings("STO live", 10.0, 0.0, 20)
POINTS = TimeseriesSettings("heater log", 50)


def frames_of(index: int, count: int = 20) -> np.ndarray:
    return np.random.default_rng(index).integers(0, 255, (count, 6, 8), np.uint8)


def points_of(index: int) -> tuple[np.ndarray, np.ndarray]:
    return 1.7e9 + np.arange(50) / 10 + 5 * index, 600 + np.arange(50) + 50.0 * index


class Leftover:
    """A live stream as a dead session leaves it: on the platform, in the journal, and chunks in the spool.

    With `url` "" there is no platform, and the stream only looks as if it were on one.
    """

    def __init__(
        self,
        state: Path,
        url: str,
        settings: StreamSettings | TimeseriesSettings = FRAMES,
        *,
        key: Secret = KEY,
        destination: str | None = None,
    ) -> None:
        self.state, self.settings = state, settings
        self.destination = destination or url or "http://127.0.0.1:9"
        self.key = uuid.uuid4().hex
        self.account = account_of(self.destination, key)
        self.spool = Spool(state / "spool" / self.account, self.destination)
        self.data_id = asyncio.run(self._create(url, key)) if url else str(uuid.uuid4())
        with self.journal() as journal:
            journal.register_live(self.key, self.destination, self.account, settings)
        self.record(CreateBegun(), StreamCreated(self.data_id), StreamLinked())

    async def _create(self, url: str, key: Secret) -> str:
        async with PlatformClient(url, key) as client:
            if isinstance(self.settings, TimeseriesSettings):
                return await client.create_timeseries_stream(self.settings, self.key)
            return await client.create_rheed_stream(self.settings, self.key)

    def journal(self):
        return _Open(self.state)

    def record(self, *events: StreamEvent) -> None:
        with self.journal() as journal:
            epoch = journal.lease(self.key, "setup", 60.0)
            for event in events:
                journal.record(self.key, epoch, [event])
            journal.release(self.key, epoch)

    def put(self, *indices: int, seal: bool = False) -> list[Path]:
        """Spool chunks, and say that there are no others."""
        paths = [self.spool.put(self.chunk(index)).path for index in indices]
        if seal:
            self.record(Sealed.of(indices))
        return paths

    def chunk(self, index: int) -> EncodedChunk:
        if isinstance(self.settings, TimeseriesSettings):
            times, values = points_of(index)
            meta, body = encode_channel(self.data_id, index, "temperature", times, values, "C")
            label = ChunkLabel(self.key, self.data_id, index, index, meta, xxhash.xxh3_128(body).hexdigest())
            return EncodedChunk(label, Shard((body,), len(body)), int(google_crc32c.value(body)))
        frames = frames_of(index)
        shard = pack(frames)
        meta = ChunkMetadata(*frames.shape, 20, 10.0, False, START_MS + 2000 * index)
        label = ChunkLabel(self.key, self.data_id, index, index, meta, frames_digest(frames))
        return EncodedChunk(label, shard, shard.crc32c())

    def lease(self, holder: str, ttl_s: float) -> int:
        with self.journal() as journal:
            return journal.lease(self.key, holder, ttl_s)

    def losses(self) -> dict[int, str]:
        with self.journal() as journal:
            return journal.load(self.key).lost

    def stream(self):
        with self.journal() as journal:
            return journal.live_stream(self.key)


class _Open:
    def __init__(self, state: Path) -> None:
        self._journal = Journal(state, time.time)

    def __enter__(self) -> Journal:
        return self._journal

    def __exit__(self, *exc) -> None:
        self._journal.close()


def stored_frames(url: str, data_id: str) -> list[np.ndarray]:
    from ingest.destinations.readback import read_back

    async def read() -> list[np.ndarray]:
        async with PlatformClient(url, KEY) as client:
            return [chunk.frames async for chunk in read_back(client, data_id)]

    return asyncio.run(read())


def stored_points(url: str, data_id: str, channel: str = "temperature") -> tuple[Sequence[float], Sequence[float]]:
    async def read():
        async with PlatformClient(url, KEY) as client:
            return await client.get_points(data_id, channel)

    points = asyncio.run(read())
    return points["timestamps"], points["values"]


def stream_status(url: str, data_id: str) -> str:
    async def read() -> str:
        async with PlatformClient(url, KEY) as client:
            return str((await client.stream(data_id))["status"])

    return asyncio.run(read())
