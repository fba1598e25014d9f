"""The live parts in one event loop, without Ray: the reference for what streamers and their actors do."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from actors.aggregator import Aggregator
from actors.handles import Handle, LocalHandle
from actors.live_dispatcher import LiveDispatcher
from actors.live_packer import LivePacker
from actors.live_setup import LiveOptions, LiveSetup
from actors.live_states import LiveRHEEDState, LiveTimeseriesState, PointsItem
from actors.pool import PackerPool
from actors.producer import ProducedStream, PushWindow
from actors.senders import FramesItem, FramesSender, OnFull, PointsSender
from ingest.chunks import ChunkLabel, EncodedChunk
from ingest.contents import StreamContents
from ingest.destinations.readback import StoredChunk, read_back
from ingest.journal import Journal
from ingest.ledger import Sealed, StreamState
from ingest.plan import StreamSettings
from ingest.retry import RetryPolicy
from ingest.shard import Shard, frames_digest, pack
from ingest.telemetry import Secret
from ingest.timeseries import TimeseriesMeta, TimeseriesSettings, encode_channel
from ingest.wire.client import PlatformClient
from ingest.wire.models import ChunkMetadata, Delivery
from tests.support import KEY, ThreadServer, answer

FRAMES = StreamSettings("live", fps=20.0, rotations_per_min=0.0, chunk_size=40)
POINTS = TimeseriesSettings("log")
START_MS = 1_700_000_000_000
KEYS = (f"{i:032x}" for i in itertools.count(1))


def frames_of(seed: int, n: int = 8, height: int = 12, width: int = 16) -> np.ndarray:
    """Return noisy frames."""
    return np.random.default_rng(seed).integers(0, 256, (n, height, width), np.uint8)


def encoded(key: str, seq: int, index: int | None = None, *, frames: np.ndarray | None = None) -> EncodedChunk:
    """Return a chunk of frames as a packer would give it; different for each `seq`."""
    index = seq if index is None else index
    frames = frames_of(seq) if frames is None else frames
    shard = pack(frames)
    meta = ChunkMetadata(*frames.shape, 40, 20.0, False, START_MS + 400 * index)
    return EncodedChunk(ChunkLabel(key, "data-1", seq, index, meta, frames_digest(frames)), shard, shard.crc32c())


def encoded_points(key: str, seq: int, chunk_index: int, *channels: str) -> EncodedChunk:
    """Return a request of points as the time-series actor would give it; different for each `seq`."""
    body = b'{"seq":%d}' % seq
    meta = TimeseriesMeta(chunk_index, channels or ("T",), 2, 1, 2, len(channels) > 1)
    shard = Shard((body,), len(body))
    return EncodedChunk(ChunkLabel(key, "data-1", seq, seq, meta, f"{seq:032x}"), shard, shard.crc32c())


class FakeOutlet:
    """An outlet that remembers what it took; `act(chunk)` may wait or raise before, `act_on_close` before a close."""

    def __init__(self, act: Callable[[EncodedChunk], Any] | None = None) -> None:
        self.act = act
        self.act_on_close: Callable[[], Any] | None = None
        self.taken: list[EncodedChunk] = []
        self.asked: list[int] = []
        self.at_once = self.most_at_once = 0
        self.closed: list[str] = []

    @property
    def seqs(self) -> list[int]:
        return [chunk.label.seq for chunk in self.taken]

    async def deliver(self, chunk: EncodedChunk) -> Delivery:
        self.asked.append(chunk.label.seq)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.sleep(0)
            if self.act is not None:
                result = self.act(chunk)
                if asyncio.iscoroutine(result):
                    await result
        finally:
            self.at_once -= 1
        self.taken.append(chunk)
        return Delivery("etag", 1)

    finishes_streams = False

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:
        if self.act_on_close is not None:
            self.act_on_close()
        self.closed.append(data_id)

    async def aclose(self) -> None:
        pass


class Trouble:
    """Has a server misbehave on the requests that `on(method, path, query)` names, for as long as `kind` says so.

    `kind`: None, "stall" (takes the request and answers when the trouble is over), or a status to answer with.
    """

    def __init__(
        self,
        server: ThreadServer,
        kind: str | int | None = None,
        on: Callable[[str, str, str], bool] = lambda method, path, query: path != "/gateway/time",
        detail: bytes = b"not to our taste",
    ) -> None:
        self.kind, self.on, self.detail = kind, on, detail
        self.hits = 0
        server.wire.act = self

    async def __call__(self, scope, receive, send) -> bool:
        query = scope["query_string"].decode().replace("%2F", "/")
        if self.kind is None or not self.on(scope["method"], scope["path"].rstrip("/"), query):
            return False
        self.hits += 1
        while self.kind == "stall":
            await asyncio.sleep(0.01)
        return isinstance(self.kind, int) and await answer(send, self.kind, b'{"detail":"%s"}' % self.detail)


def uploads(_method: str, path: str, _query: str) -> bool:
    """Whether a request brings frames or points."""
    return path.endswith(("upload_urls", "/chunk", "/multi")) or path.startswith("/uploads/")


def of_chunk(index: int) -> Callable[[str, str, str], bool]:
    """Return whether a request asks for the upload URL of one chunk."""
    return lambda _method, _path, query: f"/c/{index}/0/0" in query


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ServerAt(ThreadServer):
    """A `ThreadServer` on a port of ours, so that it may be down and come back."""

    def __init__(self, data: Path, port: int, **settings) -> None:
        super().__init__(data, **settings)
        self._server.config.port = port


class LiveSystem:
    """A session's parts in one event loop, without Ray.

    Parameters
    ----------
    url, state
        The platform, and the state folder.
    session_id : str
        Names its leases.
    quick : bool
        Whether the dispatcher's pauses are cut short, which last seconds.
    pokes : bool
        Whether the dispatcher hears of streams and chunks at once, and not only by looking for them.
    options
        Of `LiveOptions`.
    """

    def __init__(
        self,
        url: str,
        state: Path,
        *,
        session_id: str = "session-a",
        key: Secret | None = KEY,
        on_full: OnFull = "block",
        packers: int = 2,
        quick: bool = True,
        aggregator: Handle | None = None,
        window: int = 4,
        pokes: bool = True,
        **options,
    ) -> None:
        defaults = {
            "packers": packers,
            "lease_s": 2.0,
            "scan_s": 0.05,
            "drain_retry": RetryPolicy(first_s=0.01, max_s=0.02, retry_for_s=0.1),
        }
        self.setup = LiveSetup(session_id, url, key, str(state), options=LiveOptions(**{**defaults, **options}))
        self.journal = Journal(state, time.time)
        self.aggregator = aggregator or LocalHandle(Aggregator(str(state), self.setup.options.lease_s))
        self.spool = self.setup.spool()
        self.rheed = LiveRHEEDState(self.setup, self.aggregator)
        self.series = LiveTimeseriesState(self.setup, self.aggregator)
        sleep = _cut_short if quick else asyncio.sleep
        self.dispatcher = LiveDispatcher(self.setup, self.aggregator, sleep=sleep)
        self.packers: list[LivePacker] = []
        self.pool = PackerPool(self._new_packer, packers, 2, asyncio.sleep)
        self._poke = self.dispatcher.poke if pokes else _unheard
        self.frames = FramesSender(LocalHandle(self.rheed), self.pool, self._poke, on_full)
        self.points = PointsSender(LocalHandle(self.series), self._poke, on_full)
        self._window = window
        self._on_full = on_full

    def _new_packer(self, _number: int) -> Handle:
        self.packers.append(LivePacker(self.setup, self.aggregator))
        return LocalHandle(self.packers[-1])

    # -- what a streamer does ------------------------------------------------------------------------------------------

    async def begin(self, settings: StreamSettings | TimeseriesSettings = FRAMES) -> ProducedStream:
        state = self.series if isinstance(settings, TimeseriesSettings) else self.rheed
        key = uuid.uuid4().hex
        data_id = await state.initialize(key, settings)
        await self._poke(key)
        return ProducedStream(key, data_id, settings, PushWindow(self._window, 64 << 20))

    def push(
        self, stream: ProducedStream, index: int, frames: np.ndarray | None = None, start_ms: int | None = None
    ) -> None:
        frames = frames_of(index) if frames is None else frames
        seq, index = stream.begin(index, f"chunk {index}")
        if not stream.window.admit(frames.nbytes, block=False):
            assert self._on_full == "drop", "the test pushes more than its window"
            stream.drop(seq, index, "the window was full")
            return
        start_ms = START_MS + 400 * index if start_ms is None else start_ms
        self.frames.send(stream, FramesItem(seq, index, frames, frames.shape, start_ms, (None, None), frames.nbytes))

    def push_points(
        self, stream: ProducedStream, chunk_index: int, values: Sequence[float], channel: str = "T"
    ) -> None:
        times = [1000.0 + chunk_index * 10 + i for i in range(len(values))]
        meta, body = encode_channel(stream.data_id, chunk_index, channel, times, values, "K")
        seq, _ = stream.begin(None, f"chunk {chunk_index} of {channel}")
        stream.window.admit(len(body), block=False)
        self.points.send(stream, PointsItem(seq, meta, body))

    async def durable(self, stream: ProducedStream) -> None:
        await until(lambda: stream.window.held[0] == 0)

    async def finalize(self, stream: ProducedStream):
        """Seal a stream and wait until it is closed; return its progress."""
        stream.finalize()
        await self.durable(stream)
        expected, lost = stream.expected()
        await self.dispatcher.seal(stream.key, Sealed.of(expected), lost)
        return await self.closed(stream.key)

    async def closed(self, key: str):
        while True:
            progress = await self.dispatcher.progress(key)
            if progress.journal.state is StreamState.CLOSED:
                return progress
            assert progress.journal.state is not StreamState.GONE, progress.journal.gone_reason
            await asyncio.sleep(0.005)

    async def delivered(self, stream: ProducedStream) -> None:
        """Wait until nothing of a stream is on its way or in the spool."""
        await self.durable(stream)
        await until(lambda: not self.spool.has(stream.key))

    # -- a life --------------------------------------------------------------------------------------------------------

    async def __aenter__(self):
        self.dispatcher.start()
        return self

    async def __aexit__(self, *exc) -> None:
        await self.die()

    async def leave(self) -> None:
        """End in good order."""
        await self.dispatcher.release()
        await self.die()

    async def die(self) -> None:
        """Stop dead: leases stay as they are."""
        mine = [*self.dispatcher._looping, *(h.task for h in self.dispatcher._held.values() if h.task is not None)]
        mine += [*self.frames._tasks.values(), *self.points._working.values()]
        for task in mine:
            task.cancel()
        await asyncio.gather(*mine, return_exceptions=True)
        for outlet in self.dispatcher._outlets.values():
            await outlet.aclose()
        for part in (*self.packers, self.rheed, self.series):
            await part.aclose()
        self.journal.close()


async def _unheard(_key: str) -> None:
    pass


async def _cut_short(seconds: float) -> None:
    await asyncio.sleep(min(seconds, 0.02))


async def until(is_so: Callable[[], Any], timeout_s: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(timeout_s):
        while not is_so():
            await asyncio.sleep(0.005)


def run(coroutine: Coroutine, timeout_s: float = 30.0) -> Any:
    """Run a scenario in a loop of its own."""

    async def limited() -> Any:
        async with asyncio.timeout(timeout_s):
            return await coroutine

    return asyncio.run(limited())


def stored_chunks(url: str, data_id: str, key: Secret = KEY) -> tuple[dict, list[StoredChunk]]:
    """Return a stream and its chunks as the platform holds them; for a thread without a loop."""

    async def read():
        async with PlatformClient(url, key) as client:
            return await client.stream(data_id), [chunk async for chunk in read_back(client, data_id)]

    result: list = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(read())))
    thread.start()
    thread.join(30)
    return result[0]


def stored_points(url: str, data_id: str, channel: str = "T", key: Secret = KEY) -> dict:
    """Return a channel's points as the platform holds them; for a thread without a loop."""

    async def read():
        async with PlatformClient(url, key) as client:
            return await client.get_points(data_id, channel)

    result: list = []
    thread = threading.Thread(target=lambda: result.append(asyncio.run(read())))
    thread.start()
    thread.join(30)
    return result[0]


def assert_stored(url: str, data_id: str, frames: dict[int, np.ndarray], *, puts: int | None = None) -> dict:
    """Assert that a stream holds just these frames, byte for byte, each put so often if that is said; return it.

    A busy machine may make a direct delivery late, which is then sent again: so only some tests can say how often.
    """
    stream, chunks = stored_chunks(url, data_id)
    assert [chunk.index for chunk in chunks] == sorted(frames)
    for chunk in chunks:
        assert np.array_equal(chunk.frames, frames[chunk.index]), chunk.index
    if puts is not None:
        assert {chunk.puts for chunk in chunks} <= {puts}
    return stream
