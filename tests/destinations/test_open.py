"""The null destination, and which URL means which destination."""

from __future__ import annotations

import asyncio

import pytest

from ingest.destinations import (
    Destination,
    LakeDestination,
    LakeTimeseries,
    NullDestination,
    PlatformDestination,
    open_destination,
    open_timeseries,
)
from ingest.errors import AuthenticationError, SettingsError
from ingest.telemetry import Secret
from tests.destinations.contract import SETTINGS, DestinationContract
from tests.wire.fakes import KEY, META, SHARD, FakePlatform


class TestNullDestination(DestinationContract):
    def make(self) -> Destination:
        return NullDestination()


def test_null_counts() -> None:
    async def run() -> NullDestination:
        null = NullDestination()
        data_id = await null.open_stream(SETTINGS, "k")
        for index in range(3):
            await null.deliver(data_id, index, META, SHARD)
        return null

    null = asyncio.run(run())
    assert (null.chunks, null.frames, null.n_bytes) == (3, 720, 36)


def test_opens_a_platform_or_nothing() -> None:
    platform = open_destination("HTTP://127.0.0.1:1/", Secret(KEY), transport=FakePlatform())
    assert isinstance(platform, PlatformDestination)
    assert platform.client.endpoint == "http://127.0.0.1:1"
    assert isinstance(open_destination("null:"), NullDestination)


@pytest.mark.parametrize("url", ["/data/lake", "lake", "memory://x"])
def test_other_urls_are_lakes(url: str) -> None:
    assert isinstance(open_destination(url), LakeDestination)
    assert isinstance(open_timeseries(url), LakeTimeseries)


@pytest.mark.parametrize(
    "url", ["s3://user:pw@bucket/lake", "s3://bucket/lake?key=pw", "", "http:h", "htp://x", "x://[pw?pw"]
)
def test_what_is_no_lake_either(url: str) -> None:
    with pytest.raises(SettingsError) as caught:
        open_destination(url, Secret(KEY))
    assert caught.value.hint
    assert "pw?" not in str(caught.value)
    assert ":pw" not in str(caught.value)
    assert "=pw" not in str(caught.value)


def test_a_platform_needs_a_key() -> None:
    with pytest.raises(AuthenticationError, match="https://h needs an API key"):
        open_destination("https://h?token=x")
