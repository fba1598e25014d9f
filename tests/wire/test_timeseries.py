"""The time-series calls: their exact requests, and what failures make of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import httpx
import pytest

from ingest.errors import AuthenticationError, RefusedError, SettingsError, StreamGoneError, UnreachableError
from ingest.retry import RetryPolicy
from ingest.timeseries import TimeseriesSettings, encode_channel, encode_channels
from ingest.wire.client import PlatformClient
from ingest.wire.models import Delivery
from tests.wire.fakes import KEY, UUID, Rig, ok, refuse

SETTINGS = TimeseriesSettings("Growth 7")
ONE = encode_channel("s0", 3, "T", [1.0, 2.0], [5.0, float("nan")], "C")
[SEVERAL] = encode_channels("s0", 4, {"T": {"timestamps": [1.0], "values": [5.0]}}, "tool-state")

Call = Callable[[PlatformClient], Awaitable[object]]

CALLS: list[tuple[str, Call, str, str, object]] = [
    (
        "create",
        lambda c: c.create_timeseries_stream(TimeseriesSettings(None, 50), "k0"),
        "POST",
        "/tool-state/stream/initialize",
        {"stream_name": None, "points_per_chunk": 50, "project_id": None},
    ),
    (
        "create, all keys",
        lambda c: c.create_timeseries_stream(
            TimeseriesSettings("Ä", 100, 7, "ignored", UUID, ("t",)), "k0", "metrology"
        ),
        "POST",
        "/metrology/stream/initialize",
        {"stream_name": "Ä", "synth_source_id": 7, "points_per_chunk": 100, "project_id": UUID},
    ),
    ("one", lambda c: c.put_timeseries_chunk("s0", *ONE), "POST", "/tool-state/stream/chunk", ONE[1]),
    ("one, old", lambda c: c.put_timeseries_chunk("s0", *ONE, "metrology"), "POST", "/metrology/stream/chunk", ONE[1]),
    ("several", lambda c: c.put_timeseries_chunk("s0", *SEVERAL), "POST", "/tool-state/stream/chunk/multi", SEVERAL[1]),
    ("end", lambda c: c.end_timeseries_stream("s0"), "POST", "/tool-state/stream/s0/finalize", None),
    ("end, old", lambda c: c.end_timeseries_stream("s0", "metrology"), "POST", "/metrology/stream/s0/finalize", None),
    ("list", lambda c: c.list_timeseries_streams(), "GET", "/tool-state/stream", None),
    ("stream", lambda c: c.timeseries_stream("s0"), "GET", "/tool-state/stream/s0", None),
    ("points", lambda c: c.get_points("s0", "T"), "GET", "/tool-state/stream/s0/points?channel=T", None),
    (
        "points, odd",
        lambda c: c.get_points("s0", "a/b c&ä?"),
        "GET",
        "/tool-state/stream/s0/points?channel=a%2Fb%20c%26%C3%A4%3F",
        None,
    ),
]


def opened(retry: RetryPolicy | None = None) -> Rig:
    rig = Rig(retry)
    rig.platform.streams["s0"] = "Growth 7"
    return rig


@pytest.mark.parametrize(("call", "method", "path", "body"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_sends_what_the_protocol_says(call: Call, method: str, path: str, body: object) -> None:
    rig = opened()
    asyncio.run(call(rig.client))
    (request,) = rig.platform.requests
    assert request.method == method
    assert request.url.raw_path.decode() == path
    assert request.headers["x-api-key"] == KEY
    assert request.headers.get("content-type") == (None if body is None else "application/json")
    if isinstance(body, bytes):
        assert request.content == body
    elif body is not None:
        assert json.loads(request.content) == body
    else:
        assert request.content == b""


def test_answers_what_the_platform_says() -> None:
    rig = Rig()

    async def run() -> None:
        client = rig.client
        assert await client.create_timeseries_stream(SETTINGS, "k0") == "s0"
        assert await client.create_timeseries_stream(SETTINGS, "k0") == "s0"
        assert await client.put_timeseries_chunk("s0", *ONE) == Delivery(None, 1)
        assert await client.end_timeseries_stream("s0") == {"data_id": "s0", "status": "completed"}
        assert await client.list_timeseries_streams() == [{"id": "s0"}]
        assert (await client.get_points("s0", "T"))["values"] == [None]

    asyncio.run(run())
    assert [r.headers.get("idempotency-key") for r in rig.platform.requests] == ["k0", "k0", *[None] * 4]
    assert rig.names() == ["stream_created", "stream_created", "chunk_put", "stream_closed"]
    assert rig.events[2].detail == f"1 channels, 2 points, {len(ONE[1])} bytes, attempt 1"


def test_a_passing_failure_of_a_chunk_is_tried_again_with_the_same_bytes() -> None:
    rig = opened()
    path = "/tool-state/stream/chunk"
    rig.platform.plan("POST", path, httpx.ReadError("reset"), refuse(503), refuse(429))
    assert asyncio.run(rig.client.put_timeseries_chunk("s0", *ONE)).attempts == 4
    assert [r.content for r in rig.platform.requests] == [ONE[1]] * 4
    assert rig.names() == ["attempt_failed"] * 3 + ["chunk_put"]
    assert {event.index for event in rig.events} == {3}


def test_a_chunk_gives_up_as_unreachable() -> None:
    rig = opened(RetryPolicy(retry_for_s=60))
    rig.platform.plan("POST", ".*", *[httpx.ConnectError("refused")] * 100)
    with pytest.raises(UnreachableError, match="put chunk 3 of time series s0"):
        asyncio.run(rig.client.put_timeseries_chunk("s0", *ONE))


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RefusedError),
        (401, AuthenticationError),
        (404, StreamGoneError),
        (409, StreamGoneError),
        (422, RefusedError),
    ],
)
@pytest.mark.parametrize("call", [CALLS[2][1], CALLS[4][1], CALLS[5][1]], ids=["one", "several", "end"])
def test_a_final_answer_ends_it_at_once(call: Call, status: int, error: type[RefusedError]) -> None:
    rig = opened()
    rig.platform.plan("POST", ".*", refuse(status, "because"))
    with pytest.raises(RefusedError, match="because") as caught:
        asyncio.run(call(rig.client))
    assert type(caught.value) is error
    assert rig.time.slept_s == []


def test_a_busy_close_is_tried_for_three_minutes_whatever_the_budget() -> None:
    rig = opened(RetryPolicy(retry_for_s=5))
    rig.platform.plan("POST", "/tool-state/stream/s0/finalize", *[refuse(503, "analysing")] * 1000)
    with pytest.raises(UnreachableError, match="analysing"):
        asyncio.run(rig.client.end_timeseries_stream("s0"))
    assert sum(rig.time.slept_s) == pytest.approx(180)


def test_a_close_whose_reply_was_lost_counts_when_the_stream_is_closed_then() -> None:
    rig = opened()
    rig.platform.plan("POST", "/tool-state/stream/s0/finalize", httpx.ReadError("reset"), refuse(409, "closed already"))
    assert asyncio.run(rig.client.end_timeseries_stream("s0")) == {}
    assert rig.names() == ["attempt_failed", "stream_closed"]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (CALLS[0][1], ok("s0")),
        (CALLS[0][1], ok({"processed_data_id": "s0"})),
        (CALLS[0][1], ok({"data_id": "../x"})),
        (CALLS[0][1], httpx.Response(200, text="<html>")),
        (CALLS[7][1], ok({})),
        (CALLS[8][1], ok([])),
        (CALLS[9][1], ok({"timestamps": []})),
    ],
)
def test_a_garbled_2xx_is_a_failed_attempt(call: Call, answer: httpx.Response) -> None:
    rig = opened()
    rig.platform.plan("POST", ".*", answer)
    rig.platform.plan("GET", ".*", answer)
    asyncio.run(call(rig.client))
    assert rig.names()[0] == "attempt_failed"
    assert "expected" in rig.events[0].detail


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.create_timeseries_stream(TimeseriesSettings("n", 0), "k"),
        lambda c: c.create_timeseries_stream(TimeseriesSettings("n", 1.5), "k"),
        lambda c: c.create_timeseries_stream(TimeseriesSettings("n", True), "k"),
        lambda c: c.create_timeseries_stream(TimeseriesSettings("n", 5, "7"), "k"),
        lambda c: c.create_timeseries_stream(TimeseriesSettings("\udcff"), "k"),
        lambda c: c.create_timeseries_stream(SETTINGS, "a\nb"),
        lambda c: c.create_timeseries_stream(SETTINGS, "k", "other"),
        lambda c: c.put_timeseries_chunk("s0", *SEVERAL, "metrology"),
        lambda c: c.put_timeseries_chunk("../s0", *ONE),
        lambda c: c.end_timeseries_stream("a/b"),
        lambda c: c.timeseries_stream(".."),
        lambda c: c.get_points("", "T"),
        lambda c: c.get_points("s0", "\udcff"),
    ],
)
def test_refuses_what_no_platform_takes_before_anything_is_sent(call: Call) -> None:
    rig = opened()
    with pytest.raises(SettingsError):
        asyncio.run(call(rig.client))
    assert rig.platform.requests == []
