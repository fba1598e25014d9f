import errno
import os
import random

import google_crc32c
import pytest

import ingest.server.store as store_module
from ingest.server.problems import ApiError
from ingest.server.store import Incoming, Store
from ingest.shard import index_bytes, pack
from tests.server.conftest import frames_of


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path, fsync=True)


def receive(store, body, frames, index=0, step=700):
    incoming = store.begin("id", index, 10**8)
    for start in range(0, len(body), step):
        incoming.feed(body[start : start + step])
    incoming.finish(frames, fsync=store.fsync)
    return incoming


def test_an_upload_is_on_disk_with_its_checksum(store):
    body = pack(frames_of(5)).tobytes()
    incoming = receive(store, body, 5)
    assert incoming.path.read_bytes() == body
    assert (incoming.n_bytes, incoming.crc32c) == (len(body), google_crc32c.value(body))


def test_a_short_write_is_completed(store, monkeypatch):
    real = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: real(fd, data[:50_001], offset))
    for body, frames in ((pack(frames_of(5)).tobytes(), 5), (large_body(), 3)):
        assert receive(store, body, frames, index=frames, step=100_000).path.read_bytes() == body


def large_body(n_bytes=7_000_001):
    """Return a shard of three frames that no one decodes, of several blocks and an odd length."""
    lengths = [n_bytes // 3, n_bytes // 3, n_bytes - 2 * (n_bytes // 3)]
    return random.Random(n_bytes).randbytes(n_bytes) + index_bytes(lengths)


@pytest.mark.parametrize("direct", [True, False], ids=["direct", "page cache"])
@pytest.mark.parametrize("n_bytes", [2 << 20, (2 << 20) - 52, (4 << 20) - 52, 7_000_001])
def test_a_body_of_several_blocks_is_on_disk_byte_for_byte(store, monkeypatch, direct, n_bytes):
    if not direct:
        monkeypatch.setattr(store_module, "O_DIRECT", 0)
    body = large_body(n_bytes)
    incoming = receive(store, body, 3, step=65_536)
    assert incoming.path.read_bytes() == body
    assert incoming.crc32c == google_crc32c.value(body)


def test_a_disk_that_fills_up_in_the_middle_is_said_and_leaves_nothing(store, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "pwrite", full)
    incoming = store.begin("id", 0, 10**8)
    with pytest.raises(OSError, match="no space left"):
        incoming.feed(large_body())
    incoming.discard()
    assert list(store.staging_path("id").iterdir()) == []


def test_an_index_that_points_outside_is_refused(store):
    for lengths in ([10, 20], [0, 10]):
        body = b"x" * 10 + index_bytes(lengths)
        with pytest.raises(ApiError, match="frame"):
            receive(store, body, 2)


def test_discarding_leaves_nothing(store):
    incoming = store.begin("id", 0, 100)
    incoming.feed(b"x")
    incoming.discard()
    incoming.discard()
    assert list(store.staging_path("id").iterdir()) == []


def test_counting_only_writes_nothing(tmp_path):
    incoming = Incoming(None, 10)
    incoming.feed(b"12345")
    assert (incoming.n_bytes, incoming.crc32c) == (5, google_crc32c.value(b"12345"))
    with pytest.raises(ApiError, match="at most 10"):
        incoming.feed(b"123456")
    incoming.discard()


def test_cleaning_keeps_what_counts(store):
    body = pack(frames_of(2)).tobytes()
    keep, lose = receive(store, body, 2).path, receive(store, body, 2).path
    (store.root / ".staging" / "unknown").mkdir()
    (store.root / ".staging" / "unknown" / "0.abc").write_bytes(b"x")
    assert store.clean({"id": {keep.name}}) == 2
    assert keep.exists()
    assert not lose.exists()
    assert not (store.root / ".staging" / "unknown").exists()
