"""Time series at a platform: the order of linking, and both generations of paths, against the embedded platform too."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ingest.destinations import (
    MissingNames,
    PlatformTimeseries,
    ResolvedLinks,
    link_or_close,
    open_and_link,
    open_timeseries,
)
from ingest.errors import AuthenticationError, LinkError, SettingsError, StreamGoneError, UnreachableError
from ingest.retry import RetryPolicy
from ingest.server.app import create_app
from ingest.server.settings import ServerSettings
from ingest.telemetry import Secret
from ingest.timeseries import ApiGeneration, TimeseriesSettings, encode_channels
from tests.wire.fakes import KEY, FakePlatform, Rig, refuse

LINKED = TimeseriesSettings("Growth 8", 100, 7, "GaAs", "p-1", ("a", "b"))
CHANNELS = {
    "T": {"timestamps": [1.5, 2.5], "values": [20.0, math.nan], "units": "C"},
    "none": {"timestamps": [], "values": []},
    "p/q": {"timestamps": [1.5], "values": [1e-9]},
}


def test_resolves_then_creates_then_journals_then_links() -> None:
    rig = Rig()

    async def created(data_id: str) -> None:
        assert data_id == "s0"
        rig.platform.requests.append(httpx.Request("JOURNAL", "https://journal.test/journal"))

    asyncio.run(open_and_link(PlatformTimeseries(rig.client), LINKED, "k", created))
    assert [(r.method, r.url.path) for r in rig.platform.requests] == [
        ("GET", "/physical_samples/"),
        ("POST", "/physical_samples/"),
        ("GET", "/tags/"),
        ("POST", "/tags/"),
        ("POST", "/tags/"),
        ("POST", "/tool-state/stream/initialize"),
        ("JOURNAL", "/journal"),
        ("POST", "/data_entries/physical_sample"),
        ("POST", "/projects/p-1/configuration/tracking_samples"),
        ("POST", "/tags/data-items/"),
    ]


@pytest.mark.parametrize(
    ("answer", "closed", "says"),
    [(refuse(422, "no"), True, "it was closed"), (httpx.ConnectError("refused"), False, "it was left open")],
)
def test_a_stream_that_cannot_be_linked_is_closed(answer: httpx.Response | Exception, closed: bool, says: str) -> None:
    rig = Rig(RetryPolicy(retry_for_s=0))

    async def run() -> None:
        destination = PlatformTimeseries(rig.client, "metrology")
        data_id = await destination.open_stream(LINKED, "k")
        rig.platform.plan("POST", "/data_entries/physical_sample", answer)
        await link_or_close(destination, data_id, LINKED, ResolvedLinks("sample-0"))

    with pytest.raises(LinkError, match=says) as caught:
        asyncio.run(run())
    assert caught.value.data_id == "s0"
    assert rig.platform.closed == ({"s0"} if closed else set())
    assert isinstance(caught.value.__cause__, UnreachableError) is not closed
    assert bool(rig.platform.sent("POST", "/metrology/stream/s0/finalize")) is closed


def test_a_dry_run_names_what_would_be_created() -> None:
    rig = Rig()
    assert asyncio.run(PlatformTimeseries(rig.client).missing_names(LINKED)) == MissingNames(True, ("a", "b"))
    assert rig.platform.sent("POST") == []
    assert repr(PlatformTimeseries(rig.client)) == "PlatformTimeseries('https://platform.test')"


@pytest.fixture
def app(tmp_path: Path):
    app = create_app(ServerSettings(tmp_path / "data", (Secret(KEY),), fsync=False))
    yield app
    app.state.platform.close()


@pytest.mark.parametrize("generation", ["tool-state", "metrology"])
def test_the_embedded_platform_holds_what_was_delivered(app: Callable, generation: ApiGeneration) -> None:
    async def run() -> None:
        destination = open_timeseries(
            "http://platform.test",
            Secret(KEY),
            generation=generation,
            transport=httpx.ASGITransport(app),
            retry=RetryPolicy(retry_for_s=0),
        )
        assert destination.generation == generation
        resolved = await destination.resolve(LINKED)
        data_id = await destination.open_stream(LINKED, "k")
        assert await destination.open_stream(LINKED, "k") == data_id
        await link_or_close(destination, data_id, LINKED, resolved)
        for index in (1, 0, 1):
            for request in encode_channels(data_id, index, CHANNELS, generation):
                assert (await destination.deliver(data_id, *request)).attempts == 1
        await destination.close_stream(data_id)
        await destination.close_stream(data_id)
        with pytest.raises(StreamGoneError, match="closed"):
            await destination.deliver(data_id, *request)
        details = await destination.client.timeseries_stream(data_id)
        assert (details["name"], details["project"], details["times_closed"]) == ("Growth 8", "p-1", 1)
        assert details["sample"]["name"] == "GaAs"
        assert [tag["name"] for tag in details["tags"]] == ["a", "b"]
        names = [channel["name"] for channel in details["channels"]]
        assert names == (["T", "p/q"] if generation == "tool-state" else ["T", "none", "p/q"])
        assert [channel["chunk_puts"] for channel in details["channels"]] == [[1, 2]] * len(names)
        points = await destination.client.get_points(data_id, "T")
        assert points["timestamps"] == [1.5, 2.5, 1.5, 2.5]
        assert (points["values"], points["units"]) == ([20.0, None, 20.0, None], "C")
        assert (await destination.client.get_points(data_id, "p/q"))["values"] == [1e-9, 1e-9]
        assert [stream["id"] for stream in await destination.client.list_timeseries_streams()] == [data_id]
        await destination.aclose()
        await destination.aclose()

    asyncio.run(run())


def test_a_stream_that_does_not_exist_takes_and_closes_nothing(app: Callable) -> None:
    async def run() -> None:
        destination = open_timeseries("http://platform.test", Secret(KEY), transport=httpx.ASGITransport(app))
        [request] = encode_channels("nobody", 0, CHANNELS, "tool-state")
        with pytest.raises(StreamGoneError):
            await destination.deliver("nobody", *request)
        with pytest.raises(StreamGoneError):
            await destination.close_stream("nobody")
        await destination.aclose()

    asyncio.run(run())


@pytest.mark.parametrize("url", ["null:", "s3://user:pw@bucket/lake?key=pw", "", "http:h"])
def test_what_takes_no_time_series(url: str) -> None:
    with pytest.raises(SettingsError, match=r"no time series|must not hold a|no lake|neither a folder") as caught:
        open_timeseries(url, Secret(KEY))
    assert "pw" not in str(caught.value)


def test_needs_a_key_and_a_generation() -> None:
    with pytest.raises(AuthenticationError, match="https://h needs an API key"):
        open_timeseries("https://h")
    with pytest.raises(SettingsError, match="'lab' is no generation"):
        open_timeseries("https://h", Secret(KEY), generation="lab", transport=FakePlatform())
