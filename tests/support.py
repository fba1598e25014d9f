"""Helpers of several tests: runs on disk, a server that can be made to misbehave, the system without Ray."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path

import uvicorn

from actors.aggregator import Aggregator
from actors.dispatcher import Dispatcher, DispatcherOptions
from actors.handles import Handle, LocalHandle
from actors.packer import Packer
from actors.streamer_states import StreamerState
from ingest.cli.planning import find_candidates
from ingest.config import BackfillSettings
from ingest.destinations import open_destination, open_timeseries
from ingest.failover import FailoverOptions
from ingest.journal import Journal, StreamRow
from ingest.plan import RunPlan
from ingest.retry import RetryPolicy
from ingest.server.app import create_app
from ingest.server.settings import ServerSettings
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from ingest.telemetry import Secret, Telemetry

KEY = Secret("test-key-0123456789")
QUICK = RetryPolicy(first_s=0.01, max_s=0.05, retry_for_s=3.0)


def make_run(path: Path, *, frames: int = 200, seed: int = 0, gap: int | None = 70, **more) -> GrowthRun:
    """Write a small areaDetector run and return what it is."""
    run = GrowthRun(
        frames, 24, 32, fps=20.0, seed=seed, jitter_s=0.002, gaps=() if gap is None else ((gap, 0.8),), **more
    )
    write_hdf5(path, run)
    return run


def plan_of(path: Path, to: Sequence[str] = (), **settings) -> tuple[str, RunPlan]:
    """Return a run's canonical name and its plan; stationary unless said otherwise."""
    settings = {"rotations_per_min": 0.0, **settings}
    [candidate] = find_candidates([str(path)], BackfillSettings(**settings), planning=True, to=to)
    assert candidate.plan is not None, candidate.error
    return candidate.path, candidate.plan


class Interference:
    """ASGI middleware whose `act(scope, receive, send)` may answer itself; None lets the request through."""

    def __init__(self, app) -> None:
        self.app = app
        self.act: Callable | None = None
        self.requests: list[tuple[str, str]] = []

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            self.requests.append((scope["method"], scope["path"]))
            if self.act is not None:
                taken = await self.act(scope, receive, send)
                if taken:
                    return None
        return await self.app(scope, receive, send)


async def answer(send, status: int, body: bytes = b'{"detail":"no"}', headers: Sequence[tuple[bytes, bytes]] = ()):
    """Answer a request with a status and a JSON body; True."""
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
    return True


class ThreadServer:
    """The embedded platform behind an `Interference`, in a thread, on a free port; a context manager."""

    def __init__(self, data: Path, **settings) -> None:
        self.platform_app = create_app(ServerSettings(data=data, api_keys=(KEY,), fsync=False, **settings))
        self.wire = Interference(self.platform_app)
        config = uvicorn.Config(self.wire, host="127.0.0.1", port=0, log_level="critical", lifespan="on", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self):
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *exc) -> None:
        self._server.should_exit = True
        self._thread.join(20)


class System:
    """A job's parts in one event loop, without Ray: the reference for what the actors do."""

    def __init__(
        self,
        url: str | Sequence[str],
        state: Path,
        *,
        job_id: str = "job",
        packers: int = 2,
        lease_s: float = 2.0,
        retry: RetryPolicy = QUICK,
        key: Secret = KEY,
        spawn: Callable[[int], Handle] | None = None,
        telemetry: Telemetry | None = None,
        aggregator: Handle | None = None,
        failover: FailoverOptions | None = None,
    ) -> None:
        self.journal = Journal(state, time.time)
        self.urls, self.job_id = [url] if isinstance(url, str) else list(url), job_id
        self.aggregator = aggregator or LocalHandle(Aggregator(str(state), lease_s))
        primary = retry if failover is None else failover.primary(retry)
        self._streamer = StreamerState(self.aggregator, key, primary, telemetry)
        self._packers: list[Packer] = []

        def new_packer(_number: int) -> Handle:
            self._packers.append(Packer(key, retry, 1, telemetry, failover))
            return LocalHandle(self._packers[-1])

        self.dispatcher = Dispatcher(
            DispatcherOptions(job_id, packers=packers, lease_s=lease_s, failover=failover),
            self.aggregator,
            LocalHandle(self._streamer),
            spawn or new_packer,
            lambda to: open_destination(to, key, retry=primary),
            lambda to: open_timeseries(to, key, retry=primary),
            telemetry,
        )

    def register(self, *runs: tuple[str, RunPlan], restart: bool = False) -> list[str]:
        targets = [(to, path, plan) for path, plan in runs for to in self.urls]
        return [
            self.journal.register(self.job_id, seq, to, path, plan, restart=restart).key
            for seq, (to, path, plan) in enumerate(targets)
        ]

    def work(self, timeout_s: float = 30.0) -> list[StreamRow]:
        """Work off the registered runs; return what the journal says of them."""

        self.run(self.until_finished(), timeout_s)
        return self.journal.job(self.job_id)

    async def until_finished(self) -> None:
        self.dispatcher.start()
        while not (await self.dispatcher.finished())[0]:
            await asyncio.sleep(0.01)

    def run(self, coroutine: Coroutine, timeout_s: float = 30.0) -> None:
        """Run a coroutine in a loop of its own; what is left of the job at its end is dropped, as by a kill."""

        async def and_drop() -> None:
            try:
                async with asyncio.timeout(timeout_s):
                    await coroutine
            finally:
                await self.drop()

        asyncio.run(and_drop())

    async def drop(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.drop_parts()

    async def drop_parts(self) -> None:
        for part in (*self._packers, self._streamer):
            await part.aclose()


def backfill_without_ray(
    url: str | Sequence[str], state: Path, *runs: tuple[str, RunPlan], **options
) -> list[StreamRow]:
    """Register and work off runs."""
    system = System(url, state, **options)
    system.register(*runs)
    return system.work()
