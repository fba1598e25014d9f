"""What a failing network, store or platform makes of each call."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from email.utils import formatdate

import httpx
import pytest

from ingest.errors import (
    AuthenticationError,
    DestinationError,
    RefusedError,
    StreamGoneError,
    UnreachableError,
)
from ingest.plan import StreamSettings
from ingest.retry import RetryPolicy
from ingest.wire.client import PlatformClient
from ingest.wire.models import Delivery
from tests.wire.fakes import META, SHARD, Answer, Rig, ok, refuse

SETTINGS = StreamSettings("Run 7", 120.0, 0.0, 240)
URLS = "/data_entries/raw_data/staged/upload_urls/"

PASSING: list[Answer] = [
    httpx.ConnectError("refused"),
    httpx.ConnectTimeout("slow"),
    httpx.ReadTimeout("slow"),
    httpx.ReadError("reset"),
    httpx.WriteError("reset mid-body"),
    httpx.RemoteProtocolError("Server disconnected without sending a response."),
    httpx.DecodingError("bad gzip"),
    ConnectionResetError("a socket error that httpx let through"),
    TimeoutError(),
    *(httpx.Response(status, text="try later") for status in (408, 429, 500, 502, 503, 504)),
    httpx.Response(400, text="<Error><Code>RequestTimeout</Code><Message>stalled</Message></Error>"),
]


def opened(retry: RetryPolicy | None = None) -> Rig:
    rig = Rig(retry)
    rig.platform.streams["s0"] = SETTINGS.name
    return rig


def put(rig: Rig) -> Delivery:
    return asyncio.run(rig.client.put_shard("s0", 3, META, SHARD))


@pytest.mark.parametrize("answer", PASSING, ids=repr)
def test_an_api_call_is_tried_again(answer: Answer) -> None:
    rig = Rig()
    rig.platform.plan("POST", "/rheed/stream/", answer)
    assert asyncio.run(rig.client.create_rheed_stream(SETTINGS, "k0")) == "s0"
    assert len(rig.platform.requests) == 2
    assert {r.headers["idempotency-key"] for r in rig.platform.requests} == {"k0"}
    assert len(rig.time.slept_s) == 1
    assert 0.25 <= rig.time.slept_s[0] < 0.5
    assert rig.names() == ["attempt_failed", "stream_created"]


@pytest.mark.parametrize("answer", [*PASSING, *(refuse(s) for s in (400, 401, 403, 404, 409, 422))], ids=repr)
def test_any_failure_of_a_put_is_tried_again_with_a_fresh_url(answer: Answer) -> None:
    rig = opened()
    rig.platform.plan("PUT", ".*", answer)
    assert put(rig) == Delivery(SHARD.md5(), 2)
    first, second = rig.platform.sent("PUT")
    assert first.url.params["X-Amz-Signature"] != second.url.params["X-Amz-Signature"]
    assert [r.method for r in rig.platform.requests] == ["POST", "PUT", "POST", "PUT"]
    assert rig.names() == ["attempt_failed", "chunk_put"]
    assert {event.index for event in rig.events} == {3}


def test_a_shard_that_the_store_finds_too_large_is_refused_at_once() -> None:
    rig = opened()
    rig.platform.plan("PUT", ".*", refuse(413))
    with pytest.raises(RefusedError) as caught:
        put(rig)
    assert caught.value.status == 413
    assert len(rig.platform.sent("PUT")) == 1


def test_a_reset_in_the_middle_of_a_body_sends_the_whole_body_again() -> None:
    rig = opened()
    rig.platform.plan("PUT", ".*", httpx.WriteError("reset"), httpx.ReadError("reset"))
    assert put(rig).attempts == 3
    assert [r.content for r in rig.platform.sent("PUT")] == [SHARD.tobytes()] * 3


@pytest.mark.parametrize(
    ("etag", "headers", "good"),
    [
        ('"' + "0" * 32 + '"', {}, False),
        ('W/"' + "0" * 32 + '"', {}, False),
        (f'W/"{SHARD.md5().upper()}"', {}, True),
        (SHARD.md5(), {}, True),
        ('"crc32c-00000000"', {}, False),
        (f'"crc32c-{SHARD.crc32c():08x}"', {}, True),
        ('"' + "0" * 32 + '-2"', {}, True),
        ('"0x8DC"', {}, True),
        ('"' + "0" * 32 + '"', {"x-amz-server-side-encryption": "aws:kms"}, True),
        ('"' + "0" * 32 + '"', {"x-amz-server-side-encryption": "AES256"}, False),
        ('"' + "0" * 32 + '"', {"x-amz-server-side-encryption-customer-algorithm": "AES256"}, True),
    ],
)
def test_compares_the_etag_where_it_is_a_checksum(etag: str, headers: dict[str, str], good: bool) -> None:
    rig = opened()
    rig.platform.plan("PUT", ".*", httpx.Response(200, headers={"etag": etag, **headers}))
    delivery = put(rig)
    assert delivery.attempts == (1 if good else 2)
    if good:
        assert delivery.etag == etag.removeprefix("W/").strip('"')
    else:
        assert "other bytes than were sent" in rig.events[0].detail


def test_a_store_without_an_etag_is_believed() -> None:
    rig = opened()
    rig.platform.plan("PUT", ".*", httpx.Response(204))
    assert put(rig) == Delivery(None, 1)


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, RefusedError),
        (401, AuthenticationError),
        (403, AuthenticationError),
        (404, StreamGoneError),
        (409, StreamGoneError),
        (422, RefusedError),
    ],
)
def test_the_call_for_the_url_gives_the_final_answer(status: int, error: type[RefusedError]) -> None:
    rig = opened()
    rig.platform.plan("PUT", ".*", refuse(409))
    rig.platform.plan("POST", URLS, lambda r: rig.platform.answer(r), refuse(status, "because"))
    with pytest.raises(RefusedError) as caught:
        put(rig)
    assert type(caught.value) is error
    assert caught.value.status == status
    assert "put chunk 3 of stream s0" in str(caught.value)
    assert "because" in str(caught.value)
    assert len(rig.time.slept_s) == 1
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.status, copy.hint, str(copy)) == (status, caught.value.hint, str(caught.value))


def test_a_stream_closed_by_the_platform_ends_a_put_at_once() -> None:
    rig = opened()
    rig.platform.closed.add("s0")
    with pytest.raises(StreamGoneError, match="the stream is closed"):
        put(rig)
    assert rig.time.slept_s == []


@pytest.mark.parametrize(
    ("status", "error"),
    [(401, AuthenticationError), (403, AuthenticationError), (404, RefusedError), (409, RefusedError)],
)
def test_an_api_call_ends_with_a_final_answer(status: int, error: type[RefusedError]) -> None:
    rig = Rig()
    rig.platform.plan("POST", "/rheed/stream/", refuse(status, "x" * 2000))
    with pytest.raises(RefusedError) as caught:
        asyncio.run(rig.client.create_rheed_stream(SETTINGS, "k0"))
    assert type(caught.value) is error
    assert len(rig.platform.requests) == 1
    assert 400 < str(caught.value).count("x") <= 500


NAN_TIME = '{"receivedAtUnixMs": NaN, "transmittedAtUnixMs": 1}'

GARBLED: list[tuple[str, Callable[[PlatformClient], Awaitable[object]], str, str, httpx.Response]] = [
    ("create", lambda c: c.create_rheed_stream(SETTINGS, "k"), "POST", "/rheed/stream/", ok({"data_id": "s0"})),
    ("create html", lambda c: c.create_rheed_stream(SETTINGS, "k"), "POST", "/rheed/stream/", httpx.Response(200)),
    ("create path", lambda c: c.create_rheed_stream(SETTINGS, "k"), "POST", "/rheed/stream/", ok("../x")),
    ("url none", lambda c: c.upload_url("s0", 0, META), "POST", URLS, ok([])),
    ("url scheme", lambda c: c.upload_url("s0", 0, META), "POST", URLS, ok({"url": "file:///etc/passwd"})),
    ("url broken", lambda c: c.upload_url("s0", 0, META), "POST", URLS, ok({"url": "http://h:port/"})),
    ("url text", lambda c: c.upload_url("s0", 0, META), "POST", URLS, httpx.Response(200, text="<html>")),
    ("time", lambda c: c.server_time(), "GET", "/gateway/time", ok({"receivedAtUnixMs": 1.0})),
    ("time nan", lambda c: c.server_time(), "GET", "/gateway/time", httpx.Response(200, text=NAN_TIME)),
    ("streams", lambda c: c.list_streams(), "GET", "/rheed/stream/", ok({"streams": []})),
    ("stream", lambda c: c.stream("s0"), "GET", "/rheed/stream/s0", ok([])),
    ("samples", lambda c: c.resolve_sample("a"), "GET", "/physical_samples/", ok({"items": []})),
    ("sample id", lambda c: c.resolve_sample("a"), "GET", "/physical_samples/", ok([{"id": 3, "name": "a"}])),
    ("sample made", lambda c: c.resolve_sample("a"), "POST", "/physical_samples/", ok({})),
    ("tag made", lambda c: c.resolve_tags(["a"]), "POST", "/tags/", ok("tag-1")),
    ("end", lambda c: c.end_rheed_stream("s0"), "POST", "/rheed/stream/s0/end", httpx.Response(200, text="<html>")),
]  # fmt: skip


@pytest.mark.parametrize(("call", "method", "path", "answer"), [g[1:] for g in GARBLED], ids=[g[0] for g in GARBLED])
def test_a_garbled_2xx_is_a_failed_attempt(
    call: Callable[[PlatformClient], Awaitable[object]], method: str, path: str, answer: httpx.Response
) -> None:
    rig = opened()
    rig.platform.plan(method, path, answer)
    asyncio.run(call(rig.client))
    assert rig.names()[0] == "attempt_failed"
    assert "expected" in rig.events[0].detail or "upload URL" in rig.events[0].detail
    assert len(rig.time.slept_s) == 1


def test_waits_as_long_as_retry_after_says_in_seconds_or_as_a_date() -> None:
    rig = Rig()
    in_a_minute = formatdate(rig.time.now_s + 120 + 61, usegmt=True)
    rig.platform.plan(
        "GET",
        "/gateway/time",
        refuse(503, retry_after="120"),
        refuse(429, retry_after=in_a_minute),
        refuse(503, retry_after="soon"),
        refuse(503, retry_after=formatdate(0, usegmt=True)),
    )
    asyncio.run(rig.client.server_time())
    assert rig.time.slept_s[:2] == pytest.approx([120, 61])
    assert 1 <= rig.time.slept_s[2] < 2
    assert 2 <= rig.time.slept_s[3] < 4


@pytest.mark.parametrize("answer", [httpx.ConnectError("Name or service not known"), refuse(502, "bad gateway")])
def test_gives_up_as_unreachable_when_the_budget_ends(answer: Answer) -> None:
    rig = opened(RetryPolicy(retry_for_s=100))
    rig.platform.plan("POST", URLS, *[answer] * 1000)
    with pytest.raises(UnreachableError) as caught:
        put(rig)
    assert sum(rig.time.slept_s) == pytest.approx(100)
    assert "https://platform.test" in str(caught.value)
    assert "attempts in 100 s" in str(caught.value)
    assert ("Name or service" in str(caught.value)) or ("502" in str(caught.value))
    assert pickle.loads(pickle.dumps(caught.value)).hint


def test_a_put_refused_for_ever_ends_with_the_budget() -> None:
    rig = opened(RetryPolicy(retry_for_s=60))
    rig.platform.plan("PUT", ".*", *[refuse(403, "SignatureDoesNotMatch")] * 1000)
    with pytest.raises(UnreachableError, match=r"upload 403: .*SignatureDoesNotMatch"):
        put(rig)
    assert sum(rig.time.slept_s) == pytest.approx(60)


def test_no_budget_means_one_attempt() -> None:
    rig = Rig(RetryPolicy(retry_for_s=0))
    rig.platform.plan("GET", ".*", httpx.ConnectError("refused"))
    with pytest.raises(UnreachableError, match="1 attempt, the last one: connection: ConnectError: refused"):
        asyncio.run(rig.client.list_streams())
    assert rig.time.slept_s == []


def test_a_busy_close_is_tried_for_three_minutes_whatever_the_budget() -> None:
    rig = opened(RetryPolicy(retry_for_s=5))
    rig.platform.plan("POST", "/rheed/stream/s0/end", *[refuse(503, "analysing")] * 1000)
    with pytest.raises(UnreachableError, match="analysing"):
        asyncio.run(rig.client.end_rheed_stream("s0"))
    assert sum(rig.time.slept_s) == pytest.approx(180)


def test_a_busy_close_is_tried_for_the_budget_when_that_is_longer() -> None:
    rig = opened(RetryPolicy(retry_for_s=400))
    rig.platform.plan("POST", "/rheed/stream/s0/end", *[refuse(503)] * 1000)
    with pytest.raises(UnreachableError):
        asyncio.run(rig.client.end_rheed_stream("s0"))
    assert sum(rig.time.slept_s) == pytest.approx(400)


def test_an_unreachable_close_keeps_to_the_budget() -> None:
    rig = opened(RetryPolicy(retry_for_s=5))
    rig.platform.plan("POST", "/rheed/stream/s0/end", *[httpx.ConnectError("refused")] * 1000)
    with pytest.raises(UnreachableError):
        asyncio.run(rig.client.end_rheed_stream("s0"))
    assert sum(rig.time.slept_s) == pytest.approx(5)


def test_a_close_succeeds_once_the_analysis_is_through() -> None:
    rig = opened()
    rig.platform.plan("POST", "/rheed/stream/s0/end", *[refuse(503)] * 4)
    assert asyncio.run(rig.client.end_rheed_stream("s0"))["status"] == "ended"
    assert rig.names() == ["attempt_failed"] * 4 + ["stream_closed"]


@pytest.mark.parametrize("lost", [httpx.ReadError("reset"), refuse(504, "gateway")])
def test_a_close_whose_reply_was_lost_counts_when_the_stream_is_closed_then(lost: Answer) -> None:
    rig = opened()

    def close_and_lose(request: httpx.Request) -> httpx.Response:
        rig.platform.answer(request)
        if isinstance(lost, Exception):
            raise lost
        assert isinstance(lost, httpx.Response)
        return lost

    rig.platform.plan("POST", "/rheed/stream/s0/end", close_and_lose)
    assert asyncio.run(rig.client.end_rheed_stream("s0")) == {}
    assert rig.names() == ["attempt_failed", "stream_closed"]


@pytest.mark.parametrize("first", [None, refuse(503)])
@pytest.mark.parametrize("status", [404, 409])
def test_closing_a_stream_that_is_gone_says_so(first: httpx.Response | None, status: int) -> None:
    rig = opened()
    answers = [refuse(status, "gone")] if first is None else [first, refuse(status, "gone")]
    rig.platform.plan("POST", "/rheed/stream/s0/end", *answers)
    with pytest.raises(StreamGoneError, match="gone") as caught:
        asyncio.run(rig.client.end_rheed_stream("s0"))
    assert caught.value.status == status


def test_reading_a_chunk_that_is_not_there_is_refused_with_its_status() -> None:
    rig = Rig()
    rig.platform.plan("GET", ".*", refuse(404, "no such chunk"))
    with pytest.raises(RefusedError, match="no such chunk") as caught:
        asyncio.run(rig.client.get_chunk("s0", 9))
    assert caught.value.status == 404
    assert isinstance(caught.value, DestinationError)


def test_cancelling_stops_at_once() -> None:
    rig = opened()

    async def run() -> None:
        def cancel(_request: httpx.Request) -> httpx.Response:
            raise asyncio.CancelledError

        rig.platform.plan("PUT", ".*", cancel)
        with pytest.raises(asyncio.CancelledError):
            await rig.client.put_shard("s0", 0, META, SHARD)

    asyncio.run(run())
    assert len(rig.platform.sent("PUT")) == 1
