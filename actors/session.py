"""A process's door to the actors of one destination and key: starts Ray and them, talks to them, ends them at exit."""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import ray

from actors.handles import Handle
from actors.live_actors import LiveActorClasses, LiveActors
from actors.live_setup import LiveSetup
from actors.pool import PackerPool
from actors.producer import ProducedStream
from actors.runtime import SharedRay, connect, disconnect, refuse_client, usable_cpus
from actors.sync_clock import ClockSync
from ingest.errors import ClusterError, IngestError, StreamerError

__all__ = ["OBJECT_STORE_BYTES", "LiveSession", "SessionOptions", "session_of"]

logger = logging.getLogger("rheed_ingest")

T = TypeVar("T")

START_TIMEOUT_S = 120.0
PACKERS_UP_S = 20.0
EXIT_FOR_S = 30.0
OBJECT_STORE_BYTES = 512 << 20
MAX_PACKERS = 4
RATE_OVER_S = 60.0
NOTICES_S = 2.0


@dataclass(frozen=True)
class SessionOptions:
    """What a process's session is; streamers with equal ones share it.

    Attributes
    ----------
    setup : LiveSetup
        Its actors; the ``session_id`` is made when it starts.
    address : str or None
        Of a Ray cluster; None: the Ray that this process is connected to, else a local one.
    object_store_bytes : int
        Size of a local Ray's store; two thirds of it may be pushed and not yet durable.
    preallocate : bool
        Whether a local Ray touches all of its store at the start, so that the first pushes are as quick as later ones.
    classes : LiveActorClasses
        The actors'.
    """

    setup: LiveSetup
    address: str | None = None
    object_store_bytes: int = OBJECT_STORE_BYTES
    preallocate: bool = True
    classes: LiveActorClasses = field(default_factory=LiveActorClasses)

    @property
    def window_bytes(self) -> int:
        """Frames that may be pushed and not yet durable."""
        return self.object_store_bytes * 2 // 3


_shared_ray = SharedRay(connect, disconnect)
_sessions: dict[str, LiveSession] = {}
_sessions_lock = threading.Lock()


def session_of(options: SessionOptions) -> LiveSession:
    """Return this process's session of these options, started if need be; to be given back by `LiveSession.leave`.

    Raises
    ------
    ClusterError
        Ray or the actors do not start.
    """
    setup = options.setup
    name = f"{setup.account} {setup.state_dir} {setup.spool_dir} {setup.options} {options.address} {options.classes}"
    with _sessions_lock:
        session = _sessions.get(name)
        if session is None or session.is_closed:
            session = _sessions[name] = LiveSession(options)
            session.start()
        session.users += 1
        return session


class LiveSession:
    """Ray, the actors, and the background thread that all streamers of a process with equal options share.

    Parameters
    ----------
    options : SessionOptions
        What it is.

    Attributes
    ----------
    users : int
        Streamers that have it.
    is_closed : bool
        Whether it was left by all, or its end was reached.
    clock : ClockSync
        The platform's clock; a lake has none.
    """

    def __init__(self, options: SessionOptions) -> None:
        setup = options.setup
        packers = setup.options.packers or min(usable_cpus(), MAX_PACKERS)
        self.options = options
        self.setup = replace(setup, session_id=uuid.uuid4().hex[:12], options=replace(setup.options, packers=packers))
        self.users = 0
        self.is_closed = False
        self.clock = ClockSync(None if setup.is_lake else setup.destination, setup.api_key)
        self.streams: list[ProducedStream] = []
        self._lock = threading.RLock()
        self._is_closing = False
        self._pushes: deque[tuple[float, int]] = deque()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="rheed-ingest", daemon=True)
        self._actors: LiveActors | None = None
        self._pool: PackerPool | None = None

    def start(self) -> None:
        """Connect to Ray, start the actors that every stream needs, and wait for them.

        Raises
        ------
        ClusterError
            They do not start.
        """
        options = self.options
        refuse_client(options.address)
        _shared_ray.join(
            options.address, object_store_bytes=options.object_store_bytes, preallocate=options.preallocate
        )
        # The journal and the spool are folders of this node, so the actors stay here.
        node_id = ray.get_runtime_context().get_node_id()
        self._actors = LiveActors(self.setup, node_id, options.classes)
        self._thread.start()
        # Before Ray's own, which takes the actors away: the last registered runs first.
        atexit.register(self.close)
        try:
            for role in ("aggregator", "live_dispatcher"):
                self.handle(role)
            for role in ("aggregator", "live_dispatcher"):
                self.ask(role, "ping")
        except IngestError:
            self.close(0.0)
            raise
        self.post(self.clock.run())
        self.post(self._hear())

    def check_open(self) -> None:
        """Raise StreamerError if nothing can be done with it any more; Ray would start anew by itself."""
        if self.is_closed:
            raise StreamerError("the streamer is closed", hint="make a new one")
        if not ray.is_initialized():
            raise StreamerError("the Ray that the streamer ran on was shut down", hint="make a new streamer")

    def handle(self, role: str) -> Handle:
        """Return the session's actor of a role, made if need be."""
        with self._lock:
            if self._actors is None or self.is_closed:
                raise StreamerError("the streamer is closed", hint="make a new one")
            return self._actors.handle(role)

    def pool(self) -> PackerPool:
        """Return the packers, begun if need be."""
        with self._lock:
            if self._pool is None:
                if self._actors is None:
                    raise StreamerError("the streamer is closed", hint="make a new one")
                calls = self.setup.options.orders_per_packer
                self._pool = PackerPool(self._actors.new_packer, self.setup.options.packers, calls, asyncio.sleep)
                self._loop.call_soon_threadsafe(self._pool.start)
            return self._pool

    def wait_for_packers(self) -> None:
        """Wait a while for packers that are starting, so that the first pushes are as quick as later ones."""
        with suppress(IngestError):
            self.wait(self.pool().wait_up(), "the packers are not up", PACKERS_UP_S)

    def ask(self, role: str, method: str, *args: Any, timeout_s: float = START_TIMEOUT_S) -> Any:
        """Call an actor's method and return what it returns; for any thread but the session's own.

        Raises
        ------
        ClusterError
            No answer in time.
        IngestError
            What the method raised.
        """
        return self.wait(self.handle(role).call(method, *args), f"the {role} has not answered {method!r}", timeout_s)

    def wait(self, coroutine: Coroutine[Any, Any, T], failure: str, timeout_s: float = START_TIMEOUT_S) -> T:
        """Run a coroutine in the session's thread and return what it returns.

        Raises
        ------
        ClusterError
            Not done in time.
        """
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result(timeout_s)
        except TimeoutError as exc:
            if not future.done():
                future.cancel()
                raise ClusterError(
                    f"{failure} in {timeout_s:.0f} s", hint="is there room for Ray's actors? See `ray status`"
                ) from exc
            raise

    def post(self, coroutine: Coroutine[Any, Any, object]) -> None:
        """Run a coroutine in the session's thread, some time."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).add_done_callback(_say_failure)

    def call_soon(self, function: Any, *args: Any) -> None:
        """Call a function in the session's thread, soon."""
        self._loop.call_soon_threadsafe(function, *args)

    async def poke(self, key: str) -> None:
        """Have the dispatcher look at a stream's spool; it would do so by itself a little later."""
        try:
            await self.handle("live_dispatcher").call("poke", key)
        except IngestError as exc:
            logger.info("the dispatcher did not hear of stream %s: %s", key, exc)

    async def _hear(self) -> None:
        """Log in this process what the dispatcher has to say."""
        while True:
            await asyncio.sleep(NOTICES_S)
            with suppress(IngestError):
                for notice in await self.handle("live_dispatcher").call("notices"):
                    logger.warning(notice)

    def count_bytes(self, n_bytes: int) -> None:
        """Count what is pushed, for the rate."""
        with self._lock:
            now_s = time.monotonic()
            self._pushes.append((now_s, n_bytes))
            while self._pushes[0][0] < now_s - RATE_OVER_S:
                self._pushes.popleft()

    def pushed_bytes_per_s(self) -> float:
        """Return the rate of pushes over the last minute, before packing; 0: there were none."""
        with self._lock:
            now_s = time.monotonic()
            recent = [(when_s, n_bytes) for when_s, n_bytes in self._pushes if when_s >= now_s - RATE_OVER_S]
        if not recent:
            return 0.0
        return sum(n_bytes for _, n_bytes in recent) / max(now_s - recent[0][0], 1.0)

    def leave(self) -> None:
        """Say that one streamer is done with it; the last one closes it."""
        with _sessions_lock:
            self.users -= 1
            last = self.users <= 0
            if last:  # a streamer that is made from now on begins another one
                for name in [name for name, session in _sessions.items() if session is self]:
                    del _sessions[name]
        if last:
            self.close()

    def close(self, timeout_s: float = EXIT_FOR_S) -> None:
        """Wait until everything pushed is durable, name what is not, give leases back, end the actors. Safe to repeat.

        Parameters
        ----------
        timeout_s : float, default 30
            How long to wait.
        """
        with self._lock:
            if self._is_closing:
                return
            self._is_closing = True
        # Without Ray there is nothing to wait for.
        ends_s = time.monotonic() + (timeout_s if ray.is_initialized() else 0.0)
        for stream in self.streams:
            if not stream.wait_settled(max(ends_s - time.monotonic(), 0.0)):
                names = stream.on_their_way()
                logger.error(
                    "stream %s: %d chunk(s) were not durable within %.0f s, or Ray was shut down, and are lost: %s",
                    stream.data_id, len(names), timeout_s, ", ".join(names),
                )  # fmt: skip
        self._take_leave()
        self.is_closed = True
        atexit.unregister(self.close)
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(5.0)
        if not self._loop.is_running():
            self._loop.close()
        _shared_ray.leave()

    def _take_leave(self) -> None:
        if self._actors is None or not self._thread.is_alive():
            return
        try:
            if ray.is_initialized():
                self._say_what_waits()
                self.ask("live_dispatcher", "release", timeout_s=5.0)
            self.wait(self._drop_tasks(), "the background has not stopped", 5.0)
        except (IngestError, RuntimeError) as exc:
            logger.info("leases were not given back, they will expire: %s", exc)
        if ray.is_initialized():
            self._actors.end()

    async def _drop_tasks(self) -> None:
        if self._pool is not None:
            self._pool.stop()
        await self.clock.aclose()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _say_what_waits(self) -> None:
        for stream in self.streams:
            progress = self.ask("live_dispatcher", "progress", stream.key, timeout_s=5.0)
            if progress.spooled:
                same = "for the same lake" if self.setup.is_lake else "with the same endpoint and key"
                logger.warning(
                    "stream %s: %d chunk(s), %d bytes, wait in the spool %s; the next streamer or "
                    "`rheed-ingest spool deliver` of this machine, %s, delivers them",
                    stream.data_id, progress.spooled, progress.spooled_bytes, self.setup.spool_folder, same,
                )  # fmt: skip
            for url, chunks in progress.parked.items():
                logger.warning(
                    "stream %s: the bodies of %d of them wait at the failover %s; `rheed-ingest reconcile` delivers "
                    "them, too", stream.data_id, chunks, url,
                )  # fmt: skip


def _say_failure(done: Future[object]) -> None:
    if not done.cancelled() and done.exception() is not None:
        logger.error("a background task of the streamer ended", exc_info=done.exception())
