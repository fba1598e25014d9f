"""Which of several uploads past the server is a chunk's content."""

import pytest

from ingest.server.database import Database
from ingest.server.grants import GrantingCatalogue, Upload
from ingest.server.messages import ChunkInfo, NewStream

NOW_S = 1_700_000_000.0


@pytest.fixture
def catalogue(tmp_path):
    database = Database(tmp_path / "catalogue.sqlite", fsync=False)
    yield GrantingCatalogue(database, 100.0)
    database.close()


@pytest.fixture
def data_id(catalogue):
    return catalogue.create_stream(NewStream("n", 10.0, 0.0, None, None, None), NOW_S)


def grant(catalogue, data_id, file, frames=4, index=0, late_s=NOW_S + 900):
    catalogue.grant(data_id, index, ChunkInfo(frames, 6, 8, 20, 10.0, False, 5, 9), file, late_s, NOW_S)


def came(file, at_s, etag="e", is_shard=True, n_bytes=100):
    return Upload(file, n_bytes, etag, at_s, None, is_shard)


def content(catalogue, data_id):
    chunk = catalogue.chunk(data_id, 0)
    return chunk.file, chunk.etag, chunk.puts


def test_the_latest_counts_in_whatever_order_they_are_seen(catalogue, data_id):
    for file in ("a", "b", "c"):
        grant(catalogue, data_id, file)
    catalogue.confirm(data_id, [came("b", 20), came("a", 30)], NOW_S)
    catalogue.confirm(data_id, [came("c", 10)], NOW_S)
    assert content(catalogue, data_id) == ("a", "e", 3)


def test_of_two_in_one_second_the_later_grant_counts(catalogue, data_id):
    for file in ("a", "b"):
        grant(catalogue, data_id, file)
    catalogue.confirm(data_id, [came("b", 20)], NOW_S)
    catalogue.confirm(data_id, [came("a", 20)], NOW_S)
    assert content(catalogue, data_id) == ("b", "e", 2)


def test_what_is_seen_again_changes_nothing_and_what_was_seen_before_it_neither(catalogue, data_id):
    grant(catalogue, data_id, "a")
    catalogue.confirm(data_id, [came("a", 20, "new")], NOW_S)
    catalogue.confirm(data_id, [came("a", 20, "new")], NOW_S)
    catalogue.confirm(data_id, [came("a", 10, "old")], NOW_S)
    assert content(catalogue, data_id) == ("a", "new", 1)
    [row] = catalogue.grants(data_id)
    assert (row.etag, row.modified_unix_s) == ("new", 20)


def test_a_shard_overwritten_by_none_gives_way_to_the_one_before(catalogue, data_id):
    grant(catalogue, data_id, "a", frames=3)
    grant(catalogue, data_id, "b", frames=4)
    catalogue.confirm(data_id, [came("a", 10), came("b", 20)], NOW_S)
    assert catalogue.stream(data_id, NOW_S).frames == 4
    catalogue.confirm(data_id, [came("b", 30, "torn", is_shard=False)], NOW_S)
    assert content(catalogue, data_id) == ("a", "e", 2)
    assert catalogue.stream(data_id, NOW_S).frames == 3
    catalogue.confirm(data_id, [came("a", 40, "torn", is_shard=False)], NOW_S)
    assert (content(catalogue, data_id), catalogue.chunk(data_id, 0).stored) == ((None, None, 2), None)
    assert catalogue.end_stream(data_id, NOW_S).missing_chunks == (0,)


def test_nothing_changes_once_the_stream_is_closed(catalogue, data_id):
    grant(catalogue, data_id, "a")
    catalogue.end_stream(data_id, NOW_S)
    catalogue.confirm(data_id, [came("a", 20)], NOW_S)
    assert content(catalogue, data_id) == (None, None, 0)


def test_an_upload_keeps_a_stream_alive_from_when_it_came(catalogue, data_id):
    grant(catalogue, data_id, "a")
    catalogue.confirm(data_id, [came("a", NOW_S + 90)], NOW_S + 150)
    assert catalogue.stream(data_id, NOW_S + 150).status == "open"
    assert catalogue.stream(data_id, NOW_S + 191).status == "failed"


def test_a_clock_that_is_ahead_gives_no_longer_life(catalogue, data_id):
    grant(catalogue, data_id, "a")
    catalogue.confirm(data_id, [came("a", NOW_S + 9e5)], NOW_S + 10)
    assert catalogue.stream(data_id, NOW_S + 111).status == "failed"


def test_what_may_come_yet_is_awaited_and_kept(catalogue, data_id):
    grant(catalogue, data_id, "a")
    assert catalogue.awaiting(NOW_S) == [data_id]
    assert catalogue.awaiting(NOW_S + 900) == []
    catalogue.confirm(data_id, [came("a", 20)], NOW_S)
    assert catalogue.awaiting(NOW_S) == []
    grant(catalogue, data_id, "b", index=1)
    assert catalogue.staged_files() == {data_id: {"a", "b"}}
    catalogue.end_stream(data_id, NOW_S)
    assert catalogue.awaiting(NOW_S) == []
    catalogue.mark_sealed(data_id, 0)
    assert (catalogue.staged_files(), catalogue.grants(data_id)) == ({}, [])
