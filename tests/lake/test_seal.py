"""The end of a stream of frames in a lake: whatever is cut off, doing it again gives the same lake."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.contents import StreamContents
from ingest.destinations import LakeDestination
from ingest.errors import LakeDamagedError, RefusedError, UnreachableError
from ingest.lake.layout import StagedName, commit_name, lake_data_id, shard_name, staging_folder
from ingest.lake.seal import seal_frames
from ingest.ledger import Receipt
from ingest.manifest import live_manifest
from ingest.plan import StreamSettings
from ingest.shard import frames_digest, pack, unpack
from ingest.wire.models import ChunkMetadata
from tests.lake.memory_store import MemoryStore

ID = "growth-0a1b2c3d"
SIZE, HEIGHT, WIDTH = 4, 3, 5
SETTINGS = StreamSettings("Growth", 2.0, 0.0, SIZE)
FRAMES = np.random.default_rng(0).integers(0, 255, (64, HEIGHT, WIDTH), np.uint8)


def delivered(lengths, lost=()):
    """Stage live chunks of these lengths, and return store and contents; frames follow each other."""
    store = MemoryStore()
    destination = LakeDestination(store)
    receipts, losses, at = [], {}, 0

    async def put_all() -> None:
        nonlocal at
        for index, n in enumerate(lengths):
            frames = FRAMES[at : at + n]
            meta = ChunkMetadata(n, HEIGHT, WIDTH, SIZE, 2.0, False, 1_700_000_000_000 + 500 * at)
            if index in lost:
                losses[index] = "refused"
                continue
            shard = pack(frames)
            await destination.deliver(ID, index, meta, shard)
            receipts.append(
                Receipt(index, n, meta.start_unix_ms_utc, meta.end_unix_ms_utc, shard.n_bytes, shard.crc32c(),
                        frames_digest(frames), None, 1, "n", 0)
            )  # fmt: skip
            at += n

    asyncio.run(put_all())
    told = live_manifest(SETTINGS, ID, "closed", receipts, losses, is_sealed=True)
    return store, StreamContents(SETTINGS, None, tuple(receipts), losses, told)


def told(receipts):
    losses = {} if len(receipts) == 3 else {2: "refused"}
    return live_manifest(SETTINGS, ID, "closed", receipts, losses, is_sealed=True)


def stored_frames(store, n):
    shards = [store.contents[shard_name(ID, i)] for i in range(-(-n // SIZE))]
    return np.concatenate([unpack(shard, (SIZE, HEIGHT, WIDTH)) for shard in shards])[:n]


def seal(store, contents):
    with ThreadPoolExecutor(2) as executor:
        seal_frames(store, ID, contents, executor)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=7))
def test_chunks_of_any_length_become_a_regular_grid(lengths):
    store, contents = delivered(lengths)
    seal(store, contents)
    n = sum(lengths)
    np.testing.assert_array_equal(stored_frames(store, n), FRAMES[:n])
    assert not any(name.startswith(f"{staging_folder(ID)}/") for name in store.contents)
    assert store.puts[-1] == commit_name(ID)


@pytest.mark.parametrize("lengths", [[4, 4], [3, 6, 2], [9]])
def test_cut_off_at_any_change_it_is_continued(lengths):
    store, contents = delivered(lengths)
    whole = MemoryStore(store.contents)
    seal(whole, contents)
    cut = 0
    while True:
        again = MemoryStore(store.contents, changes_left=cut)
        try:
            seal(again, contents)
        except UnreachableError:
            was_committed = commit_name(ID) in again.contents
            again.changes_left = None
            if not was_committed:  # else the destination sees that all is done, and clears what is left
                seal(again, contents)
            else:
                again.delete_below(staging_folder(ID))
            assert again.contents == whole.contents
            cut += 1
        else:
            break
    assert cut > 8


def test_the_destination_finishes_what_was_committed_and_not_cleared():
    store, contents = delivered([3, 6, 2])
    staged = {name: body for name, body in store.contents.items() if name.startswith(f"{staging_folder(ID)}/")}
    destination = LakeDestination(store)
    asyncio.run(destination.close_stream(ID, contents))
    before = dict(store.contents)
    store.contents |= dict(list(staged.items())[:1])
    puts = list(store.puts)
    asyncio.run(destination.close_stream(ID, contents))
    assert (store.contents, store.puts) == (before, puts)


def test_of_two_versions_the_one_with_the_receipt_counts():
    store, contents = delivered([3, 6, 2])
    meta = ChunkMetadata(6, HEIGHT, WIDTH, SIZE, 2.0, False, contents.receipts[1].start_unix_ms_utc)
    asyncio.run(LakeDestination(store).deliver(ID, 1, meta, pack(np.zeros((6, HEIGHT, WIDTH), np.uint8))))
    seal(store, contents)
    np.testing.assert_array_equal(stored_frames(store, 11), FRAMES[:11])


def test_a_lost_chunk_moves_no_time():
    store, contents = delivered([4, 4, 4], lost=(1,))
    seal(store, contents)
    np.testing.assert_array_equal(stored_frames(store, 8), FRAMES[:8])
    attributes = json.loads(store.contents[commit_name(ID)])["attributes"]
    assert (attributes["missing_chunks"], attributes["losses"]) == ([1], {"1": "refused"})


def test_what_was_staged_and_is_gone_is_said_and_nothing_is_committed():
    store, contents = delivered([3, 6, 2])
    gone = next(name for name in store.contents if StagedName.parse(name) and StagedName.parse(name).index == 1)
    del store.contents[gone]
    with pytest.raises(LakeDamagedError, match="chunk 1 was stored there and is gone"):
        seal(store, contents)
    assert commit_name(ID) not in store.contents


def test_a_torn_body_is_said():
    store, contents = delivered([3, 6, 2])
    torn = next(name for name in store.contents if StagedName.parse(name) and StagedName.parse(name).index == 1)
    store.contents[torn] = store.contents[torn][:-7]
    with pytest.raises(LakeDamagedError):
        seal(store, contents)
    assert commit_name(ID) not in store.contents


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("STO-17 growth", "sto-17-growth"), ("Übergang/äöü", "ubergang-aou"), ("../../etc", "etc"), ("", "stream"),
        ("日本", "stream"), ("x" * 200, "x" * 60), ("a.b:c*d", "a-b-c-d"), ("con", "con"),
    ],
)  # fmt: skip
def test_a_stream_is_called_what_any_store_takes(name, slug):
    data_id = lake_data_id(name, "ff")
    assert data_id.rpartition("-")[0] == slug
    assert len(data_id.rpartition("-")[2]) == 8
    assert lake_data_id(name, "fe") != data_id
    assert lake_data_id(name, "ff", 2) == f"{data_id}-2"


@given(st.integers(0, 10**9), st.integers(1, 10**4), st.integers(-(10**13), 10**13), st.floats(1e-3, 1e5))
def test_names_of_staged_chunks_come_back(index, frames, start_ms, fps):
    meta = ChunkMetadata(frames, 7, 9, 100, fps, False, start_ms)
    named = StagedName.of(index, meta, 0xDEADBEEF)
    assert StagedName.parse(named.below(ID)) == named
    assert StagedName.parse(f"{staging_folder(ID)}/else") is None


def test_what_another_sealer_finished_meanwhile_is_no_damage():
    store, contents = delivered([3, 6, 2])
    destination = LakeDestination(store)

    def overtaken(of, data_id, what, executor):
        seal(of, what)  # on another machine, after this one has looked
        seal_frames(of, data_id, what, executor)

    asyncio.run(destination._finish(overtaken, ID, contents))
    np.testing.assert_array_equal(stored_frames(store, 11), FRAMES[:11])


def test_more_than_was_closed_takes_its_place_and_something_else_does_not():
    store, contents = delivered([4, 4, 4])
    less = replace(
        contents, receipts=contents.receipts[:2], losses={2: "refused"}, manifest=told(contents.receipts[:2])
    )
    staged = dict(store.contents)
    asyncio.run(LakeDestination(store).close_stream(ID, less))
    store.contents |= staged
    asyncio.run(LakeDestination(store).close_stream(ID, contents))
    np.testing.assert_array_equal(stored_frames(store, 12), FRAMES[:12])
    other = replace(contents, receipts=(replace(contents.receipts[0], frames_digest="0" * 32), *contents.receipts[1:]))
    before = dict(store.contents)
    with pytest.raises(RefusedError, match="closed by another job"):
        asyncio.run(LakeDestination(store).close_stream(ID, other))
    assert store.contents == before
