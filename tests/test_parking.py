"""Chunks that wait in a store: what lies there, what it is worth, and when a destination is asked again."""

from __future__ import annotations

import asyncio
import json
import struct
from dataclasses import replace

import google_crc32c
import numpy as np
import pytest

from ingest.chunks import ChunkLabel, EncodedChunk, encoded_points, readdressed
from ingest.errors import (
    FrameDataError,
    LakeDamagedError,
    MissingObjectError,
    RefusedError,
    SettingsError,
    UnreachableError,
)
from ingest.failover import Breaker, Failover, FailoverOptions, Outlets
from ingest.lake.opening import open_store
from ingest.orders import ChunkOrder, StreamFacts
from ingest.parking import Parking
from ingest.plan import ChunkTask, StreamSettings
from ingest.retry import RetryPolicy
from ingest.shard import frames_digest, pack, unpack
from ingest.sources.base import SourceSpec
from ingest.timeseries import encode_channels
from ingest.wire.models import ChunkMetadata, Delivery
from tests.lake.memory_store import MemoryStore

TO = "https://platform.test"
KEY = "ab" * 16
FACTS = StreamFacts("/data/a.h5", "archive", "5" * 64, 7, StreamSettings("a", 20.0, 0.0, 40, tags=("x",)))
META = ChunkMetadata(3, 4, 5, 40, 20.0000001, False, 1_700_000_000_123, lost_frames=(1,), first_frame=80)
FRAMES = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)


def chunk_of(index: int = 2, frames=FRAMES, data_id: str = "d-1") -> EncodedChunk:
    shard = pack(frames, lost=META.lost_frames)
    label = ChunkLabel(KEY, data_id, index, index, META, frames_digest(frames))
    return EncodedChunk(label, shard, shard.crc32c())


def points_of(data_id: str) -> EncodedChunk:
    channels = {"T": {"timestamps": [1.25, 2.1], "values": [20.1, None or float("nan")], "units": "°C"}}
    [(meta, body)] = encode_channels(data_id, 4, channels, "tool-state")
    return encoded_points(KEY, data_id, 9, meta, body)


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def parking(store) -> Parking:
    return Parking(store)


@pytest.mark.parametrize("chunk", [chunk_of(), chunk_of(data_id=""), points_of("d-1"), points_of("")])
def test_a_chunk_comes_back_as_it_was(parking, chunk):
    parking.put(TO, chunk, FACTS)
    [stream] = parking.streams()
    [parked] = stream.chunks
    assert (stream.key, stream.note) == (KEY, None)
    assert (parked.index, parked.digest) == (chunk.label.index, chunk.label.digest)
    back = parking.load(parked)
    assert (back.chunk.label, back.chunk.crc32c, back.origin) == (chunk.label, chunk.crc32c, FACTS.origin)
    assert back.chunk.body.tobytes() == chunk.body.tobytes()


def test_an_object_begins_with_the_shard_itself(store, parking):
    parking.put(TO, chunk_of(), FACTS)
    [raw] = store.contents.values()
    np.testing.assert_array_equal(unpack(raw[: chunk_of().body.n_bytes], (3, 4, 5))[[0, 2]], FRAMES[[0, 2]])


def test_the_same_chunk_twice_is_one_object_and_another_one_another(store, parking):
    for chunk in (chunk_of(), chunk_of(), chunk_of(data_id=""), chunk_of(3), chunk_of(3, FRAMES + 1)):
        parking.put(TO, chunk, FACTS)
    parking.put("https://other.test", chunk_of(), FACTS)
    here, there = sorted(parking.streams(), key=lambda stream: -len(stream.chunks))
    assert [chunk.index for chunk in here.chunks] == [2, 3, 3]
    assert [chunk.index for chunk in there.chunks] == [2]
    assert here.folder != there.folder


def test_a_note_says_what_it_is_of_and_shows_no_secret(store, parking):
    parking.put_note("https://user:pass@platform.test/x?token=1", KEY, None, FACTS)
    [stream] = parking.streams()
    assert stream.chunks == []
    note = stream.note
    assert (note.destination, note.key, note.data_id) == ("https://platform.test/x", KEY, None)
    assert (note.source, note.kind, note.origin, note.chunks) == ("/data/a.h5", "archive", "5" * 64, 7)
    assert note.settings["tags"] == ["x"]
    [raw] = store.contents.values()
    assert b"pass" not in raw
    assert b"token" not in raw


def test_a_note_that_cannot_be_read_is_none_and_what_is_not_ours_is_not_shown(store, parking):
    parking.put(TO, chunk_of(), FACTS)
    [name] = store.contents
    folder = name.rpartition("/")[0]
    store.contents[f"{folder}/stream.json"] = b"{"
    store.contents[f"{folder}/notes.txt"] = b"hello"
    store.contents[".rheed-ingest/parked/elsewhere/notes.txt"] = b"hello"
    [stream] = parking.streams()
    assert (stream.note, len(stream.chunks)) == (None, 1)


def test_every_cut_and_every_flipped_byte_is_noticed(store, parking):
    parking.put(TO, chunk_of(), FACTS)
    [(name, whole)] = store.contents.items()
    [stream] = parking.streams()
    for length in range(len(whole)):
        store.contents[name] = whole[:length]
        with pytest.raises(LakeDamagedError, match="damaged, and kept"):
            parking.load(stream.chunks[0])
    for at in range(len(whole)):
        store.contents[name] = whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :]
        with pytest.raises(LakeDamagedError, match="damaged, and kept"):
            parking.load(stream.chunks[0])
    assert store.contents.keys() == {name}


def test_a_chunk_under_anothers_name_is_noticed_and_one_that_is_gone_too(store, parking):
    parking.put(TO, chunk_of(2), FACTS)
    parking.put(TO, chunk_of(3, FRAMES + 1), FACTS)
    [stream] = parking.streams()
    two, three = stream.chunks
    store.contents[two.name] = store.contents.pop(three.name)
    with pytest.raises(LakeDamagedError, match="it holds chunk 3"):
        parking.load(two)
    with pytest.raises(MissingObjectError):
        parking.load(three)


def test_what_a_later_version_parked_is_refused(store, parking):
    parking.put(TO, chunk_of(), FACTS)
    [(name, whole)] = store.contents.items()
    told = whole[chunk_of().body.n_bytes : -16].replace(b'"format":1', b'"format":2')
    trailer = struct.pack("<8sII", b"RHEEDPRK", len(told), google_crc32c.value(told))
    store.contents[name] = chunk_of().body.tobytes() + told + trailer
    [stream] = parking.streams()
    with pytest.raises(RefusedError, match="format 2; this version knows 1"):
        parking.load(stream.chunks[0])


def test_a_folder_goes_only_when_no_chunk_is_left(store, parking):
    parking.put_note(TO, KEY, "d-1", FACTS)
    parking.put(TO, chunk_of(), FACTS)
    [stream] = parking.streams()
    assert not parking.remove_stream(stream.folder)
    assert len(store.contents) == 2
    parking.remove(stream.chunks)
    assert parking.remove_stream(stream.folder)
    assert store.contents == {}
    parking.remove(stream.chunks)


@pytest.mark.parametrize("url", ["folder", "s3://lab-runs/waits"])
def test_it_is_the_same_in_every_store(tmp_path, s3, url):
    parking = Parking(open_store(url if "://" in url else str(tmp_path / url), retry=RetryPolicy(retry_for_s=2.0)))
    assert parking.streams() == []
    parking.put_note(TO, KEY, None, FACTS)
    parking.put(TO, chunk_of(), FACTS)
    [stream] = parking.streams()
    assert stream.note.origin == FACTS.origin
    assert parking.load(stream.chunks[0]).chunk.label == chunk_of().label
    assert not parking.remove_stream(stream.folder)
    parking.remove(stream.chunks)
    assert parking.remove_stream(stream.folder)
    assert parking.streams() == []
    parking.close()


def test_a_request_that_gets_its_stream_is_the_one_that_would_have_been_sent():
    assert readdressed(points_of(""), KEY, 'd"é') == points_of('d"é')
    moved = readdressed(chunk_of(data_id=""), "k2", "d-2")
    assert (moved.label.key, moved.label.data_id, moved.body) == ("k2", "d-2", chunk_of().body)
    strange = encoded_points(KEY, "d-1", 0, points_of("").label.meta, b'{"chunk_index":0,"data_id":"d-1"}')
    with pytest.raises(FrameDataError, match="does not begin with its data_id"):
        readdressed(strange, KEY, "d-2")


def test_a_receipt_names_lost_frames():
    assert chunk_of().receipt(Delivery("e", 1), "here", 5).lost_frames == (1,)
    assert points_of("d").receipt(Delivery("e", 1), "here", 5).lost_frames == ()


# -- when a destination is asked again ---------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Outlet:
    """Takes chunks, or does not."""

    finishes_streams = False

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked = 0
        self.is_closed = False

    async def deliver(self, chunk):
        self.asked += 1
        if self.error is not None:
            raise self.error
        return Delivery("etag", 1)

    async def aclose(self):
        self.is_closed = True


AWAY = UnreachableError("platform.test does not answer")


class Bench:
    """A failover with a clock, a primary outlet and a probe that can be made to fail."""

    def __init__(self, store: MemoryStore, rest_s: float = 30.0) -> None:
        self.clock, self.store = Clock(), store
        self.primary, self.probe = Outlet(), Outlet()
        self.failover = Failover(
            Parking(store), TO, Breaker(rest_s, self.clock), lambda: Outlets(self.probe, self.probe)
        )

    def away(self, error: Exception | None = AWAY) -> None:
        self.primary.error = self.probe.error = error

    def deliver(self, data_id: str = "d-1", stream: StreamFacts | None = FACTS):
        task = ChunkTask(2, 80, 83, META.start_unix_ms_utc, META.fps)
        order = ChunkOrder(KEY, data_id, SourceSpec("hdf5", ("/data/a.h5",)), task, META, TO, stream=stream)
        return asyncio.run(self.failover.deliver(order, chunk_of(data_id=data_id), self.primary))

    @property
    def asked(self) -> tuple[int, int]:
        return self.primary.asked, self.probe.asked


def test_a_destination_that_answers_gets_everything(store):
    bench = Bench(store)
    for _ in range(3):
        assert bench.deliver() == Delivery("etag", 1)
    assert (bench.asked, store.contents) == ((3, 0), {})


def test_a_destination_that_is_away_is_asked_once_and_then_every_30_s(store):
    bench = Bench(store)
    bench.away()
    assert [bench.deliver() for _ in range(3)] == [str(AWAY)] * 3
    assert bench.asked == (1, 0)
    bench.clock.now += 29.9
    assert bench.deliver() == str(AWAY)
    assert bench.asked == (1, 0)
    bench.clock.now += 0.1
    assert [bench.deliver() for _ in range(3)] == [str(AWAY)] * 3
    assert bench.asked == (1, 1), "by one attempt, of one chunk"
    bench.away(None)
    assert bench.deliver() == str(AWAY)
    bench.clock.now += 30.0
    assert bench.deliver() == Delivery("etag", 1)
    assert bench.deliver() == Delivery("etag", 1)
    assert bench.asked == (2, 2), "once it answers, it gets all"
    assert {name.rpartition("/")[2] for name in store.contents} == {
        "stream.json",
        f"{2:010d}-{frames_digest(FRAMES)}.chunk",
    }


def test_a_no_is_an_answer(store):
    bench = Bench(store)
    bench.away()
    bench.deliver()
    bench.clock.now += 30.0
    bench.away(RefusedError("no", status=422))
    with pytest.raises(RefusedError, match="no"):
        bench.deliver()
    bench.away(None)
    assert bench.deliver() == Delivery("etag", 1)


def test_a_stream_that_is_not_created_waits_whole(store):
    bench = Bench(store)
    assert "could not be created" in bench.deliver("")
    assert bench.asked == (0, 0)
    [note] = [json.loads(raw) for name, raw in store.contents.items() if name.endswith("stream.json")]
    assert note["data_id"] is None


def test_the_note_is_there_before_the_first_chunk_and_written_once(store):
    bench = Bench(store)
    bench.away()
    for _ in range(3):
        bench.deliver()
    assert [name.rpartition("/")[2][-5:] for name in store.puts] == [".json", "chunk", "chunk", "chunk"]


def test_when_both_are_away_both_are_named(store):
    bench = Bench(store)
    bench.away()
    store.changes_left = 0
    with pytest.raises(UnreachableError, match=r"platform.test does not answer; and the failover .* memory://lake"):
        bench.deliver()
    with pytest.raises(UnreachableError, match=r"platform.test does not answer; and the failover"):
        bench.deliver()  # also while the destination is not asked


def test_an_order_that_names_no_stream_cannot_wait(store):
    bench = Bench(store)
    bench.away()
    with pytest.raises(UnreachableError, match="its order names no stream"):
        bench.deliver(stream=None)


def test_closing_lets_go_of_both(store):
    bench = Bench(store, rest_s=0.0)
    bench.away()
    bench.deliver()
    bench.deliver()
    asyncio.run(bench.failover.aclose())
    assert (store.is_closed, bench.probe.is_closed) == (True, True)


def test_a_destination_without_a_way_for_readings_says_so():
    with pytest.raises(SettingsError, match="takes no readings"):
        Outlets(Outlet()).of(points_of("d"))


def test_options_shorten_the_retries_and_name_the_command():
    options = FailoverOptions("/mnt/a b", after_s=60.0)
    assert options.primary(RetryPolicy(retry_for_s=900.0)) == RetryPolicy(retry_for_s=60.0)
    assert options.primary(RetryPolicy(retry_for_s=5.0)) == RetryPolicy(retry_for_s=5.0)
    assert "rheed-ingest reconcile '/mnt/a b'`" in options.hint
    assert "reconcile s3://b/f --state /st`" in replace(options, url="s3://b/f", state="/st").hint
