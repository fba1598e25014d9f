"""Samples and tags: matching, creating, and the races with others who do the same."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from ingest.errors import RefusedError, SettingsError, UnknownNameError
from ingest.wire.linking import wanted_tags
from tests.wire.fakes import OTHER_UUID, UUID, Rig, ok, refuse

SAMPLES = [{"id": UUID, "name": " GaAs 12 "}, {"id": "x2", "name": None}, {"id": "x3", "name": "STO"}]


def sample(rig: Rig, wanted: str) -> str:
    return asyncio.run(rig.client.resolve_sample(wanted))


def tags(rig: Rig, *wanted: str) -> list[str]:
    return asyncio.run(rig.client.resolve_tags(wanted))


@pytest.mark.parametrize(
    ("wanted", "found"), [("gaas 12", UUID), ("  STO\t", "x3"), (UUID.upper(), UUID), (UUID, UUID)]
)
def test_finds_a_sample_by_trimmed_name_or_id(wanted: str, found: str) -> None:
    rig = Rig()
    rig.platform.samples = list(SAMPLES)
    assert sample(rig, wanted) == found
    assert [r.method for r in rig.platform.requests] == ["GET"]


def test_prefers_the_exact_spelling() -> None:
    rig = Rig()
    rig.platform.samples = [{"id": "x1", "name": "sto"}, {"id": "x2", "name": "STO"}]
    assert sample(rig, "STO") == "x2"


def test_takes_the_first_of_several_where_none_is_exact() -> None:
    rig = Rig()
    rig.platform.samples = [{"id": "x1", "name": "sto"}, {"id": "x2", "name": "STO"}]
    assert sample(rig, "Sto") == "x1"


def test_creates_a_sample_that_is_not_there() -> None:
    rig = Rig()
    assert sample(rig, " New one ") == "sample-0"
    assert [(r.method, r.content) for r in rig.platform.requests] == [("GET", b""), ("POST", b'{"name": "New one"}')]
    assert rig.names() == ["sample_created"]


def test_reads_a_created_sample_by_its_other_key() -> None:
    rig = Rig()
    rig.platform.plan("POST", "/physical_samples/", ok({"id": "x9"}))
    assert sample(rig, "New") == "x9"


@pytest.mark.parametrize("kind", ["sample", "tag"])
def test_refuses_an_id_that_is_not_listed(kind: str) -> None:
    rig = Rig()
    rig.platform.samples = list(SAMPLES)
    ask = rig.client.resolve_sample(OTHER_UUID) if kind == "sample" else rig.client.resolve_tags(["new", OTHER_UUID])
    with pytest.raises(UnknownNameError, match=OTHER_UUID):
        asyncio.run(ask)
    assert rig.platform.sent("POST") == []


def test_refuses_a_blank_sample() -> None:
    rig = Rig()
    with pytest.raises(SettingsError, match="blank"):
        sample(rig, "  ")
    assert rig.platform.requests == []


def test_takes_the_sample_that_someone_else_made_meanwhile() -> None:
    rig = Rig()
    rig.platform.plan("POST", "/physical_samples/", refuse(409, {"physical_sample_id": "theirs"}))
    assert sample(rig, "New") == "theirs"
    assert rig.names() == []


def test_lists_again_when_the_conflict_names_no_id() -> None:
    rig = Rig()
    rig.platform.plan("GET", "/physical_samples/", ok([]), ok([{"id": "theirs", "name": "new"}]))
    rig.platform.plan("POST", "/physical_samples/", refuse(409, "exists"))
    assert sample(rig, "New") == "theirs"


def test_a_conflict_that_nothing_explains_is_a_refusal() -> None:
    rig = Rig()
    rig.platform.plan("POST", "/physical_samples/", refuse(409, "exists"))
    with pytest.raises(RefusedError, match=r"physical sample 'New'.*409.*exists"):
        sample(rig, "New")


@pytest.mark.parametrize("kind", ["sample", "tag"])
def test_a_create_whose_reply_was_lost_is_found_and_not_repeated(kind: str) -> None:
    rig = Rig()

    def create_and_lose(request: httpx.Request) -> httpx.Response:
        rig.platform.answer(request)
        raise httpx.ReadError("reset")

    if kind == "sample":
        rig.platform.plan("POST", "/physical_samples/", create_and_lose)
        assert sample(rig, "New") == "sample-0"
        assert len(rig.platform.samples) == 1
    else:
        rig.platform.plan("POST", "/tags/", create_and_lose)
        assert tags(rig, "New") == ["tag-0"]
        assert len(rig.platform.tags) == 1
    assert len(rig.platform.sent("POST")) == 1


def test_tags_are_trimmed_and_their_repeats_dropped() -> None:
    assert wanted_tags([" MBE ", "", "mbe", "  ", "Straße", "STRASSE", "b"]) == ["MBE", "Straße", "b"]


def test_creates_only_the_tags_that_are_not_there_and_keeps_the_order() -> None:
    rig = Rig()
    rig.platform.tags = [{"id": UUID, "name": "mbe"}, {"id": "t2", "name": "Old"}]
    assert tags(rig, "New", "MBE", "old", "new", UUID) == ["tag-2", UUID, "t2"]
    assert [r.content for r in rig.platform.sent("POST")] == [b'{"name": "New"}']


def test_a_refused_tag_that_someone_else_made_is_found_in_the_list() -> None:
    rig = Rig()
    rig.platform.plan("GET", "/tags/", ok([]), ok([{"id": "theirs", "name": "NEW"}]))
    rig.platform.plan("POST", "/tags/", refuse(400, "exists"))
    assert tags(rig, "new") == ["theirs"]


def test_a_refused_tag_that_nobody_made_is_a_refusal() -> None:
    rig = Rig()
    rig.platform.plan("POST", "/tags/", refuse(400, "too long"))
    with pytest.raises(RefusedError, match=r"tags new.*400.*too long"):
        tags(rig, "new")
    assert [r.method for r in rig.platform.requests] == ["GET", "POST", "GET"]


def test_says_what_would_be_created_without_creating_it() -> None:
    rig = Rig()
    rig.platform.samples = list(SAMPLES)
    rig.platform.tags = [{"id": UUID, "name": "mbe"}]

    async def run() -> None:
        assert await rig.client.missing_names("sto", ["MBE", "b ", "B"]) == (False, ["b"])
        assert await rig.client.missing_names("new", []) == (True, [])
        assert await rig.client.missing_names(None, [UUID]) == (False, [])
        assert await rig.client.missing_names(UUID, []) == (False, [])
        with pytest.raises(UnknownNameError):
            await rig.client.missing_names(OTHER_UUID, [])

    asyncio.run(run())
    assert rig.platform.sent("POST") == []
