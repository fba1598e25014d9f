"""The platform's clock, measured in the background: live stamps follow it, and its absence is said."""

from __future__ import annotations

import asyncio
import time

import pytest

from actors.sync_clock import AFTER_FAILURE_S, ClockSync
from tests.live_support import Trouble, free_port, run, until
from tests.support import KEY, ThreadServer

AHEAD_S = -7.25


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with ThreadServer(tmp_path_factory.mktemp("server"), clock=lambda: time.time() + AHEAD_S) as server:
        yield server


@pytest.fixture(autouse=True)
def no_trouble(server):
    yield
    server.wire.act = None
    server.wire.requests.clear()


class Sleeps:
    """Remembers how long was asked for, and sleeps no time; the last one it allows lasts for ever."""

    def __init__(self, allowed: int) -> None:
        self.allowed = allowed
        self.asked: list[float] = []

    async def __call__(self, seconds: float) -> None:
        self.asked.append(seconds)
        if len(self.asked) >= self.allowed:
            await asyncio.Event().wait()


async def sampled(clock: ClockSync, sleeps: Sleeps) -> None:
    task = asyncio.create_task(clock.run())
    await until(lambda: len(sleeps.asked) >= sleeps.allowed or task.done())
    await clock.aclose()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_measures_corrects_and_says_so(server):
    async def scenario():
        sleeps = Sleeps(5)
        clock = ClockSync(server.url, KEY, {}, sleep=sleeps)
        before = clock.stamp(1_000_000)
        assert (before.unix_ms, before.offset_ms, before.uncertainty_ms) == (1_000_000, None, None)
        assert "no sample" in clock.status().reason
        await sampled(clock, sleeps)
        status = clock.status()
        assert status.is_applied
        assert abs(status.offset_ms - 1000 * AHEAD_S) <= status.uncertainty_ms + 1
        assert (status.samples, status.reason) == (5, "")
        assert sleeps.asked == [2.0, 2.0, 2.0, 300.0, 300.0]
        fresh = ClockSync(server.url, KEY, {}, sleep=Sleeps(1))
        await sampled(fresh, fresh._sleep)
        stamp = fresh.stamp(1_000_000)
        assert stamp.unix_ms == 1_000_000 + stamp.offset_ms
        assert abs(stamp.offset_ms - 1000 * AHEAD_S) <= stamp.uncertainty_ms + 1

    run(scenario())


@pytest.mark.parametrize(("value", "skipped"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_is_left_alone_if_that_was_asked(server, value, skipped):
    async def scenario():
        sleeps = Sleeps(1)
        clock = ClockSync(server.url, KEY, {"ATOMSCALE_SKIP_CLOCK_SYNC": value}, sleep=sleeps)
        assert clock.is_skipped is skipped
        await sampled(clock, sleeps)
        assert clock.status().is_applied is not skipped
        if skipped:
            assert "ATOMSCALE_SKIP_CLOCK_SYNC" in clock.status().reason
            clock.wait_first(60)  # and does not wait

    run(scenario())
    assert bool(server.wire.requests) is not skipped


def test_a_platform_that_does_not_say_the_time_is_asked_again_later(server):
    async def scenario():
        trouble = Trouble(server, 503, on=lambda _method, path, _query: path == "/gateway/time")
        sleeps = Sleeps(2)
        clock = ClockSync(server.url, KEY, {}, sleep=sleeps)
        await sampled(clock, sleeps)
        assert sleeps.asked == [AFTER_FAILURE_S] * 2
        status = clock.status()
        assert not status.is_applied
        assert "503" in status.reason
        assert clock.stamp(5).offset_ms is None
        clock.wait_first(60)  # it knows already that there is none
        trouble.kind = None

    run(scenario())


def test_a_platform_that_is_down_is_said(tmp_path):
    async def scenario():
        sleeps = Sleeps(1)
        clock = ClockSync(f"http://127.0.0.1:{free_port()}", KEY, {}, sleep=sleeps)
        await sampled(clock, sleeps)
        assert "cannot be asked" in clock.status().reason

    run(scenario())


def test_the_key_is_not_sent_to_the_clock(server):
    seen = []

    async def look(scope, receive, send):
        seen.append(dict(scope["headers"]))
        return False

    async def scenario():
        sleeps = Sleeps(1)
        await sampled(ClockSync(server.url, KEY, {}, sleep=sleeps), sleeps)

    server.wire.act = look
    run(scenario())
    assert seen
    assert not any(KEY.reveal().encode() in headers.values() for headers in seen)
