"""The exact requests of every call, as PROTOCOL.md records them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace

import httpx
import pytest

from ingest.errors import FrameDataError, RefusedError, SettingsError
from ingest.plan import StreamSettings
from ingest.wire.client import PlatformClient
from ingest.wire.models import ChunkMetadata
from tests.wire.fakes import KEY, META, SHARD, SIGNATURE, UUID, Rig, ok

SETTINGS = StreamSettings("Run 7", 120.0, 0.0, 240)
META_BODY = {
    "data_id": "s0",
    "data_stream": "rheed",
    "is_stream": "1",
    "is_rotating": "0",
    "raw_frame_rate": "120.0",
    "avg_frame_rate": "120.0",
    "chunk_size": "240",
    "dims": "240,300,500",
    "start_unix_ms_utc": "1700000000123",
    "end_unix_ms_utc": "1700000002123",
}

UPLOAD_URLS = (
    "/data_entries/raw_data/staged/upload_urls/"
    "?original_filename=frames.zarr/frames/c/3/0/0&num_parts=1&staging_type=stream"
)

Call = Callable[[PlatformClient], Awaitable[object]]


async def _put(client: PlatformClient) -> object:
    await client.create_rheed_stream(SETTINGS, "k0")
    return await client.put_shard("s0", 3, META, SHARD)


CALLS: list[tuple[str, Call, str, str, object]] = [
    (
        "create",
        lambda c: c.create_rheed_stream(SETTINGS, "k0"),
        "POST",
        "/rheed/stream/",
        {
            "data_item_name": "Run 7",
            "rotational_period": None,
            "rotations_per_min": 0.0,
            "fps_capture_rate": 120.0,
        },
    ),
    (
        "create, all keys",
        lambda c: c.create_rheed_stream(StreamSettings("Ä", 60, -1, 120, "[110]", "ignored", UUID, ("t",)), "k0"),
        "POST",
        "/rheed/stream/",
        {
            "data_item_name": "Ä",
            "rotational_period": None,
            "rotations_per_min": -1.0,
            "fps_capture_rate": 60.0,
            "project_id": UUID,
            "azimuth_label": "[110]",
        },
    ),
    (
        "create, rotating",
        lambda c: c.create_rheed_stream(StreamSettings("r", 120, 12, 240), "k0"),
        "POST",
        "/rheed/stream/",
        {"data_item_name": "r", "rotational_period": 600.0, "rotations_per_min": 12.0, "fps_capture_rate": 120.0},
    ),
    (
        "upload url",
        _put,
        "POST",
        UPLOAD_URLS,
        META_BODY,
    ),
    (
        "link sample",
        lambda c: c.link_sample("s0", "x1"),
        "POST",
        "/data_entries/physical_sample",
        {"data_ids": ["s0"], "physical_sample_id": "x1"},
    ),
    (
        "track sample",
        lambda c: c.track_sample("p-1", "x1"),
        "POST",
        "/projects/p-1/configuration/tracking_samples",
        {"physical_sample_id": "x1", "set_active": True},
    ),
    (
        "link tags",
        lambda c: c.link_tags("s0", ["a", "b"]),
        "POST",
        "/tags/data-items/",
        {"data_ids": ["s0"], "tag_ids": ["a", "b"]},
    ),
    ("list streams", lambda c: c.list_streams(), "GET", "/rheed/stream/", None),
    ("stream", lambda c: c.stream("s0"), "GET", "/rheed/stream/s0", None),
    ("chunk", lambda c: c.get_chunk("s0", 4), "GET", "/rheed/stream/s0/chunks/4", None),
]


@pytest.mark.parametrize(("call", "method", "path", "body"), [c[1:] for c in CALLS], ids=[c[0] for c in CALLS])
def test_sends_what_the_protocol_says(call: Call, method: str, path: str, body: object) -> None:
    rig = Rig()
    asyncio.run(call(rig.client))
    request = [r for r in rig.platform.requests if r.method != "PUT"][-1]
    assert request.method == method
    assert request.url.host == "platform.test"
    assert request.url.raw_path.decode() == path
    assert request.headers["x-api-key"] == KEY
    if body is None:
        assert request.content == b""
    else:
        assert request.headers["content-type"] == "application/json"
        assert json.loads(request.content) == body


def test_sends_the_idempotency_key_with_a_create_alone() -> None:
    rig = Rig()
    asyncio.run(_put(rig.client))
    assert [r.headers.get("idempotency-key") for r in rig.platform.requests] == ["k0", None, None]


def test_ends_a_stream_without_a_body() -> None:
    rig = Rig()

    async def run() -> dict[str, object]:
        await rig.client.create_rheed_stream(SETTINGS, "k0")
        return await rig.client.end_rheed_stream("s0")

    assert asyncio.run(run()) == {"data_id": "s0", "status": "ended"}
    (request,) = rig.platform.sent("POST", "/rheed/stream/s0")
    assert request.url.raw_path == b"/rheed/stream/s0/end"
    assert request.content == b""
    assert "content-type" not in request.headers


def test_puts_the_bytes_with_an_empty_content_type_and_no_key() -> None:
    rig = Rig()
    delivery = asyncio.run(_put(rig.client))
    (request,) = rig.platform.sent("PUT")
    assert str(request.url) == f"https://store.test/s0/frames.zarr/frames/c/3/0/0?X-Amz-Signature={SIGNATURE}1"
    assert request.content == SHARD.tobytes()
    assert request.headers.get("content-type") == ""
    assert request.headers.get("content-length") == "12"
    assert not {"x-api-key", "authorization", "transfer-encoding"} & set(request.headers)
    assert delivery.attempts == 1
    assert delivery.etag == SHARD.md5()


def test_gives_a_put_time_for_its_size_and_a_call_a_minute() -> None:
    rig = Rig()
    asyncio.run(_put(rig.client))
    times = [r.extensions["timeout"] for r in rig.platform.requests]
    assert [t["connect"] for t in times] == [10.0] * 3
    assert [t["read"] for t in times] == pytest.approx([60.0, 60.0, 60.00012])


def test_asks_for_the_time_without_a_key() -> None:
    rig = Rig()
    assert asyncio.run(rig.client.server_time()) == (1.5, 2.0)
    (request,) = rig.platform.requests
    assert request.url.raw_path == b"/gateway/time"
    assert "x-api-key" not in request.headers


def test_sends_a_clock_correction_as_strings_or_not_at_all() -> None:
    rig = Rig()

    async def run() -> None:
        await rig.client.create_rheed_stream(SETTINGS, "k0")
        await rig.client.upload_url("s0", 0, ChunkMetadata(2, 3, 4, 20, 9.5, True, 5, -12, 0.25))

    asyncio.run(run())
    body = json.loads(rig.platform.requests[-1].content)
    assert body["clock_offset_ms"] == "-12"
    assert body["clock_uncertainty_ms"] == "0.2"
    assert (body["dims"], body["raw_frame_rate"], body["is_rotating"]) == ("2,3,4", "9.5", "1")
    assert body["end_unix_ms_utc"] == str(5 + 210)


@pytest.mark.parametrize(("lost", "header"), [((), None), ((3,), "3"), ((3, 17, 18, 239), "3,17-18,239")])
def test_names_lost_frames_in_a_header_of_the_url_s_request_alone(lost: tuple[int, ...], header: str | None) -> None:
    rig = Rig()

    async def run() -> None:
        await rig.client.create_rheed_stream(SETTINGS, "k0")
        await rig.client.put_shard("s0", 3, replace(META, lost_frames=lost), SHARD)

    asyncio.run(run())
    assert [r.headers.get("x-rheed-lost-frames") for r in rig.platform.requests] == [None, header, None]
    assert json.loads(rig.platform.requests[1].content) == META_BODY


def test_a_chunk_of_which_nothing_is_lost_has_the_same_headers_as_ever() -> None:
    rig = Rig()
    asyncio.run(_put(rig.client))
    (request,) = rig.platform.sent("POST", "/data_entries")
    assert set(request.headers) == {
        "host", "accept", "accept-encoding", "connection", "user-agent", "x-api-key", "content-type", "content-length",
    }  # fmt: skip


def test_sends_nothing_of_a_chunk_with_more_losses_than_a_header_carries() -> None:
    rig = Rig()
    meta = replace(META, frames=4000, lost_frames=tuple(range(0, 4000, 2)))
    with pytest.raises(FrameDataError, match=r"lost in 2000 places of one chunk.*smaller chunk_size"):
        asyncio.run(rig.client.put_shard("s0", 3, meta, SHARD))
    assert rig.platform.requests == []


@pytest.mark.parametrize("form", [lambda u: {"url": u}, lambda u: [{"url": u, "part": 0}, {"url": "http://other"}]])
def test_reads_an_upload_url_from_a_list_or_an_object(form: Callable[[str], object]) -> None:
    rig = Rig()
    rig.platform.plan("POST", "/data_entries/.*", ok(form("http://store.test/x?sig=1")))
    assert asyncio.run(rig.client.upload_url("s0", 0, META)) == "http://store.test/x?sig=1"


def test_without_tags_nothing_is_sent() -> None:
    rig = Rig()
    asyncio.run(rig.client.link_tags("s0", []))
    assert asyncio.run(rig.client.resolve_tags([" ", ""])) == []
    assert rig.platform.requests == []


@pytest.mark.parametrize("data_id", ["", ".", "..", "a/b", "a\\b", "../x", "a\nb", "a..b", "\udcff"])
def test_refuses_an_id_that_would_leave_its_place(data_id: str) -> None:
    rig = Rig()
    for call in (
        lambda: rig.client.stream(data_id),
        lambda: rig.client.get_chunk(data_id, 0),
        lambda: rig.client.end_rheed_stream(data_id),
        lambda: rig.client.put_shard(data_id, 0, META, SHARD),
        lambda: rig.client.track_sample(data_id, "x"),
    ):
        with pytest.raises(SettingsError, match="no id that a platform gives"):
            asyncio.run(call())
    assert rig.platform.requests == []


def test_quotes_an_odd_id() -> None:
    rig = Rig()
    rig.platform.plan("GET", ".*", ok({}))
    asyncio.run(rig.client.stream("a b?c#d%e"))
    assert rig.platform.requests[0].url.raw_path == b"/rheed/stream/a%20b%3Fc%23d%25e"


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (StreamSettings("n", 120, 0, 239), "k"),
        (StreamSettings("n", 120, 5, 240, azimuth="[110]"), "k"),
        (StreamSettings("\udcff.h5", 120, 0, 240), "k"),
        (SETTINGS, ""),
        (SETTINGS, "sch\u00fcssel"),
        (SETTINGS, "a\nb"),
    ],
)
def test_refuses_settings_before_anything_is_sent(settings: StreamSettings, key: str) -> None:
    rig = Rig()
    with pytest.raises(SettingsError):
        asyncio.run(rig.client.create_rheed_stream(settings, key))
    assert rig.platform.requests == []


def test_refuses_a_negative_chunk() -> None:
    with pytest.raises(SettingsError, match="count from 0"):
        asyncio.run(Rig().client.put_shard("s0", -1, META, SHARD))


def test_does_not_follow_a_redirect_with_the_key() -> None:
    rig = Rig()
    rig.platform.plan("GET", ".*", httpx.Response(307, headers={"location": "https://evil.test/?a=b"}))
    with pytest.raises(RefusedError, match=r"answered 307: it is at https://evil.test/"):
        asyncio.run(rig.client.list_streams())
    assert len(rig.platform.requests) == 1
