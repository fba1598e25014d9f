"""Readings in a lake: joined from requests that came in any order, and the same whatever was cut off."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
import xxhash
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.chunks import encoded_points
from ingest.contents import StreamContents
from ingest.errors import LakeDamagedError, UnreachableError
from ingest.lake.layout import commit_name, manifest_name, staging_folder
from ingest.lake.series_bodies import read_body
from ingest.lake.series_layout import staged_body_name
from ingest.lake.series_seal import seal_series
from ingest.ledger import Receipt
from ingest.manifest import live_manifest
from ingest.plan import StreamSettings
from ingest.timeseries import TimeseriesMeta, TimeseriesSettings, encode_channel, encode_channels
from ingest.wire.models import Delivery
from tests.lake.memory_store import MemoryStore

ID = "growth-0a1b2c3d"
T0 = 1_700_000_000.0
SETTINGS = TimeseriesSettings("Growth", 3, 7, "GaAs", "p-1", ("a", "b"))
STAGING = f"{staging_folder(ID)}/"

Request = tuple[TimeseriesMeta, bytes]


@pytest.fixture(scope="module")
def threads() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def one_thread() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def several(index: int, **channels: list[float]) -> Request:
    """One request of some channels, whose points are a quarter of a second apart."""
    fields = {
        name: {"timestamps": [T0 + index + i / 4 for i in range(len(values))], "values": values, "units": "K"}
        for name, values in channels.items()
    }
    return encode_channels(ID, index, fields, "tool-state")[0]


REQUESTS = (
    several(0, T=[1, math.nan, 3], t=[-1, -2]),
    several(1, T=[4, 5], t=[-3]),
    several(2, T=[6], t=[-4, -5, -6]),
    encode_channel(ID, 0, "p/q", [T0 + 9, T0 + 8], [1e-9, 2e-9], "mbar"),
)


def receipt(index: int, request: Request) -> Receipt:
    return encoded_points("k", ID, index, *request).receipt(Delivery(None, 1), "n", 0)


def contents_of(*requests: Request, losses: dict[int, str] | None = None) -> StreamContents:
    """What a live stream holds that took these."""
    receipts = tuple(receipt(i, request) for i, request in enumerate(requests) if i not in (losses or {}))
    told = live_manifest(SETTINGS, ID, "closed", receipts, losses or {}, is_sealed=True)
    return StreamContents(SETTINGS, None, receipts, losses or {}, told)


def name_of(request: Request) -> str:
    return staged_body_name(ID, xxhash.xxh3_128(request[1]).hexdigest())


def staged(*requests: Request) -> MemoryStore:
    return MemoryStore({name_of(request): request[1] for request in requests})


def group_of(store: MemoryStore, folder: Path) -> zarr.Group:
    return zarr.open_group(str(store.write_to(folder) / f"{ID}.zarr"), mode="r")


def rows(group: zarr.Group, folder: str) -> tuple[list[float], list[float]]:
    channel = group[f"timeseries/{folder}"]
    return (channel["time"][:] - T0).tolist(), channel["value"][:].tolist()


def test_channels_are_joined_by_chunk_index_and_named_even_without_case(tmp_path: Path, threads: Executor) -> None:
    order = [REQUESTS[i] for i in (2, 0, 3, 1)]
    store = staged(*order)
    seal_series(store, ID, contents_of(*order), threads)
    group = group_of(store, tmp_path)
    assert group.attrs["channels"] == ["T", "t", "p/q"] == group["timeseries"].attrs["channels"]
    folders = {channel.attrs["name"]: name for name, channel in group["timeseries"].groups()}
    assert (folders["T"], folders["p/q"]) == ("T", "p%2Fq")
    assert len({folder.casefold() for folder in folders.values()}) == 3
    times, values = rows(group, "T")
    assert times == [0, 0.25, 0.5, 1, 1.25, 2]
    np.testing.assert_array_equal(values, [1, np.nan, 3, 4, 5, 6])
    assert rows(group, folders["t"]) == ([0, 0.25, 1, 2, 2.25, 2.5], [-1, -2, -3, -4, -5, -6])
    assert rows(group, "p%2Fq") == ([9, 8], [1e-9, 2e-9])
    value = group["timeseries/p%2Fq/value"]
    assert dict(value.attrs) == {"long_name": "p/q", "units": "mbar"}
    assert (value.dtype, value.metadata.dimension_names) == (np.float64, ("time",))
    assert not any(name.startswith(STAGING) for name in store.contents)
    assert store.puts[-2:] == [manifest_name(ID), commit_name(ID)]


def test_units_are_the_last_that_were_said(tmp_path: Path, threads: Executor) -> None:
    said = (None, "K", "C", None)
    requests = [encode_channel(ID, index, "T", [T0], [1], units) for index, units in enumerate(said)]
    store = staged(*requests)
    seal_series(store, ID, contents_of(*requests), threads)
    channel = group_of(store, tmp_path)["timeseries/T"]
    assert (channel.attrs["units"], channel["value"].attrs["units"]) == ("C", "C")


def test_the_group_says_what_the_stream_is(tmp_path: Path, threads: Executor) -> None:
    store = staged(*REQUESTS)
    contents = contents_of(*REQUESTS, losses={1: "refused"})
    seal_series(store, ID, contents, threads)
    attributes = group_of(store, tmp_path).attrs
    expected = {
        "format": "rheed-ingest",
        "format_version": 1,
        "data_id": ID,
        "name": "Growth",
        "sample": "GaAs",
        "project": "p-1",
        "tags": ["a", "b"],
        "points_per_chunk": 3,
        "synth_source_id": 7,
        "points_stored": 11,
        "chunks_stored": 3,
        "missing_chunks": [1],
        "losses": {"1": "refused"},
        "manifest_digest": contents.manifest["digest"],
    }
    assert {name: attributes[name] for name in expected} == expected


CHANNEL = st.sampled_from(["T", "t", "µ m", "p/q"])
NUMBER = st.floats(-1e6, 1e6) | st.just(math.nan)


@settings(max_examples=60, deadline=None)
@given(data=st.data(), max_points=st.sampled_from([1, 7, 1000]))
def test_any_requests_in_any_order_give_the_points_of_the_last_for_each_chunk(data, max_points, threads) -> None:
    given_points = st.dictionaries(CHANNEL, st.lists(NUMBER, min_size=1, max_size=4), min_size=1)
    asked = data.draw(st.lists(st.tuples(st.integers(0, 5), given_points), min_size=1, max_size=8))
    requests = [several(index, **channels) for index, channels in asked]
    store = staged(*data.draw(st.permutations(requests)))
    seal_series(store, ID, contents_of(*requests), threads, max_points=max_points)
    last: dict[str, dict[int, list[float]]] = {}
    for index, channels in asked:
        for name, values in channels.items():
            last.setdefault(name, {})[index] = values
    group = zarr.open_group(zarr.storage.MemoryStore(_zarr_objects(store)), mode="r")
    assert group.attrs["channels"] == list(last)
    for channel in (channel for _, channel in group["timeseries"].groups()):
        chunks = sorted(last[channel.attrs["name"]].items())
        np.testing.assert_array_equal(channel["value"][:], [value for _, values in chunks for value in values])
        stamps = [T0 + index + i / 4 for index, values in chunks for i in range(len(values))]
        assert channel["time"][:].tolist() == stamps


def _zarr_objects(store: MemoryStore) -> dict:
    folder = f"{ID}.zarr/"
    buffers = zarr.core.buffer.default_buffer_prototype().buffer
    return {name[len(folder) :]: buffers.from_bytes(body) for name, body in store.contents.items() if folder in name}


@pytest.mark.parametrize("max_points", [1, 6, 1000])
def test_a_seal_that_is_cut_anywhere_is_continued_by_doing_it_again(max_points: int, one_thread: Executor) -> None:
    contents = contents_of(*REQUESTS)
    # What an earlier seal of another revision left, whose channels are not all among these.
    old = (several(0, T=[7, 8, 9, 10], gone=[1, 2]),)
    start = staged(*old)
    seal_series(start, ID, contents_of(*old), one_thread)
    before = start.contents | staged(*REQUESTS).contents
    whole = MemoryStore(before)
    seal_series(whole, ID, contents, one_thread, max_points=max_points)
    assert not any("gone" in name for name in whole.contents)
    for changes in itertools.count():
        store = MemoryStore(before, changes)
        try:
            seal_series(store, ID, contents, one_thread, max_points=max_points)
            break
        except UnreachableError:
            left = {name: body for name, body in store.contents.items() if not name.startswith(STAGING)}
            is_committed = commit_name(ID) in left
            assert not is_committed or left in (whole.contents, start.contents)
            if left == whole.contents:
                continue  # nothing but the staging is left: `LakeStreams` knows that, and does not seal again
        again = MemoryStore(store.contents)
        seal_series(again, ID, contents, one_thread)
        assert again.contents == whole.contents
    assert changes > len(whole.contents)


def test_what_no_receipt_is_about_stays_out(tmp_path: Path, threads: Executor) -> None:
    other = several(0, T=[100, 200], t=[300])
    store = staged(*REQUESTS, other, several(7, new=[1]))
    seal_series(store, ID, contents_of(*REQUESTS), threads)
    alone = staged(*REQUESTS)
    seal_series(alone, ID, contents_of(*REQUESTS), threads)
    assert store.contents == alone.contents


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda body: None, "chunk 1 of T, t was stored there and is gone"),
        (lambda body: body[:-1], r"has \d+ bytes and"),
        (lambda body: body.replace(b"-3", b"-4"), "CRC-32C"),
    ],
)
def test_a_request_that_is_not_there_as_it_was_sent_is_damage_and_costs_nothing(damage, says, threads) -> None:
    store = staged(*REQUESTS)
    seal_series(store, ID, contents_of(*REQUESTS), threads)
    store.contents |= staged(*REQUESTS).contents
    name = name_of(REQUESTS[1])
    damaged = damage(store.contents.pop(name))
    if damaged is not None:
        store.contents[name] = damaged
    before = dict(store.contents)
    with pytest.raises(LakeDamagedError, match=says) as caught:
        seal_series(store, ID, contents_of(*REQUESTS), threads)
    assert name in str(caught.value)
    assert "--restart" in str(caught.value.hint)
    assert store.contents == before


@pytest.mark.parametrize("body", [b"no JSON", b"[1]", b'{"channels": {}}', b'{"channel_name": "T"}'])
def test_a_request_that_is_none_is_damage(body: bytes, threads: Executor) -> None:
    request = REQUESTS[0][0], body
    with pytest.raises(LakeDamagedError, match=r"must be|not JSON"):
        seal_series(staged(request), ID, contents_of(request), threads)


def test_a_stream_without_requests_is_sealed_too(tmp_path: Path, threads: Executor) -> None:
    store = MemoryStore()
    seal_series(store, ID, contents_of(), threads)
    group = group_of(store, tmp_path)
    assert (group.attrs["channels"], list(group["timeseries"])) == ([], [])


def test_a_stream_of_frames_is_refused(threads: Executor) -> None:
    contents = contents_of()
    frames = StreamContents(StreamSettings("n", 1.0, 0.0, 2), None, (), {}, contents.manifest)
    with pytest.raises(TypeError, match="holds no readings"):
        seal_series(MemoryStore(), ID, frames, threads)


def test_a_body_is_read_as_it_was_sent() -> None:
    for meta, body in REQUESTS:
        chunk = read_body(body)
        assert (chunk.data_id, chunk.index, chunk.points) == (ID, meta.chunk_index, meta.points)
        assert tuple(channel.name for channel in chunk.channels) == meta.channels
        assert google_crc32c.value(body) == receipt(0, (meta, body)).crc32c
