"""The platform destination: the contract, and the order of linking."""

from __future__ import annotations

import asyncio
import pickle

import httpx
import pytest

from ingest.destinations import Destination, MissingNames, PlatformDestination, link_or_close, open_and_link
from ingest.errors import LinkError, RefusedError, UnknownNameError, UnreachableError
from ingest.plan import StreamSettings
from ingest.retry import RetryPolicy
from tests.destinations.contract import LINKED, SETTINGS, DestinationContract
from tests.wire.fakes import OTHER_UUID, Rig, refuse


class TestPlatformDestination(DestinationContract):
    def make(self) -> Destination:
        return PlatformDestination(Rig().client)


def linked(rig: Rig, settings: StreamSettings = LINKED) -> list[str]:
    seen: list[str] = []

    async def created(data_id: str) -> None:
        seen.append(data_id)
        rig.platform.requests.append(httpx.Request("JOURNAL", "https://journal.test/journal"))

    asyncio.run(open_and_link(PlatformDestination(rig.client), settings, "k", created))
    return seen


def test_resolves_then_creates_then_journals_then_links() -> None:
    rig = Rig()
    assert linked(rig) == ["s0"]
    assert [(r.method, r.url.path) for r in rig.platform.requests] == [
        ("GET", "/physical_samples/"),
        ("POST", "/physical_samples/"),
        ("GET", "/tags/"),
        ("POST", "/tags/"),
        ("POST", "/tags/"),
        ("POST", "/rheed/stream/"),
        ("JOURNAL", "/journal"),
        ("POST", "/data_entries/physical_sample"),
        ("POST", "/projects/p-1/configuration/tracking_samples"),
        ("POST", "/tags/data-items/"),
    ]
    assert rig.platform.links == [
        ("/data_entries/physical_sample", {"data_ids": ["s0"], "physical_sample_id": "sample-0"}),
        ("/projects/p-1/configuration/tracking_samples", {"physical_sample_id": "sample-0", "set_active": True}),
        ("/tags/data-items/", {"data_ids": ["s0"], "tag_ids": ["tag-0", "tag-1"]}),
    ]


def test_without_sample_and_tags_nothing_is_looked_up_or_linked() -> None:
    rig = Rig()
    linked(rig, StreamSettings("n", 120.0, 0.0, 240, project_id="p-1"))
    assert [r.url.path for r in rig.platform.requests] == ["/rheed/stream/", "/journal"]


def test_a_bad_name_creates_no_stream() -> None:
    rig = Rig()
    with pytest.raises(UnknownNameError, match=OTHER_UUID):
        linked(rig, StreamSettings("n", 120.0, 0.0, 240, None, OTHER_UUID))
    assert rig.platform.streams == {}


def test_a_failed_link_closes_the_stream_and_names_it() -> None:
    rig = Rig()
    rig.platform.plan("POST", "/projects/.*", refuse(404, "no such project"))
    with pytest.raises(LinkError) as caught:
        linked(rig)
    assert caught.value.data_id == "s0"
    assert "s0" in str(caught.value)
    assert "it was closed" in str(caught.value)
    assert "no such project" in str(caught.value)
    assert isinstance(caught.value.__cause__, RefusedError)
    assert rig.platform.closed == {"s0"}
    assert pickle.loads(pickle.dumps(caught.value)).data_id == "s0"


def test_says_when_closing_failed_too() -> None:
    rig = Rig()
    rig.platform.plan("POST", "/tags/data-items/", refuse(422, "bad tags"))
    rig.platform.plan("POST", "/rheed/stream/s0/end", refuse(403, "not yours"))
    with pytest.raises(LinkError, match=r"closing it failed too.*not yours.*bad tags"):
        linked(rig)


def test_does_not_wait_twice_for_a_platform_that_does_not_answer() -> None:
    rig = Rig(RetryPolicy(retry_for_s=60))
    rig.platform.plan("POST", "/data_entries/physical_sample", *[httpx.ConnectError("gone")] * 100)
    with pytest.raises(LinkError, match=r"s0 .*left open") as caught:
        linked(rig)
    assert isinstance(caught.value.__cause__, UnreachableError)
    assert rig.platform.closed == set()
    assert sum(rig.time.slept_s) == pytest.approx(60)


def test_linking_again_is_harmless() -> None:
    rig = Rig()

    async def run() -> None:
        destination = PlatformDestination(rig.client)
        resolved = await destination.resolve(LINKED)
        data_id = await destination.open_stream(SETTINGS, "k")
        for _ in range(2):
            await link_or_close(destination, data_id, LINKED, resolved)

    asyncio.run(run())
    assert rig.platform.links[:3] == rig.platform.links[3:]


def test_a_dry_run_names_what_would_be_created() -> None:
    rig = Rig()
    rig.platform.tags = [{"id": "t", "name": "A"}]
    destination = PlatformDestination(rig.client)
    assert asyncio.run(destination.missing_names(LINKED)) == MissingNames(True, ("b",))
    assert rig.platform.sent("POST") == []
    assert repr(destination) == "PlatformDestination('https://platform.test')"
