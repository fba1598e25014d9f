import errno
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from ingest.lake import layout as layout_module
from ingest.lake.layout import NOT_A_TIME
from ingest.server.seal import seal
from ingest.shard import assemble, pack, unpack
from tests.server.conftest import START_MS, CutStore, frames_of, metadata

SIZE = 20


def stream_of(api, lengths, **more):
    """Stream chunks of these lengths, not sealed yet; return id, bodies, frames and the first time of each."""
    data_id = api.create(**more)
    frames = [frames_of(length, seed) for seed, length in enumerate(lengths)]
    starts = [START_MS + 10_000 * number for number in range(len(lengths))]
    bodies = [api.upload(data_id, i, part, starts[i], SIZE) for i, part in enumerate(frames)]
    return data_id, bodies, frames, starts


def sealed_data(api, data_id):
    path = api.platform.store.sealed_path(data_id)
    with xarray.open_zarr(str(path), consolidated=False) as data:
        return data.load()


def times_ns(data):
    return data["time"].values.astype("datetime64[ns]").astype(np.int64)


def expected_times_ns(starts, lengths, fps=10.0):
    parts = [
        s * 1_000_000 + np.rint(np.arange(n) * 1e9 / fps).astype(np.int64) for s, n in zip(starts, lengths, strict=True)
    ]
    return np.concatenate(parts)


@pytest.mark.parametrize(
    "lengths",
    [
        (1,),
        (19,),
        (20,),
        (21,),
        (20, 20),
        (20, 20, 1),
        (20, 19),
        (7, 13, 20),
        (7, 20, 20, 3),
        (45,),
        (3, 41, 1, 20),
        (1,) * 23,
    ],
    ids=str,
)
def test_what_was_uploaded_is_what_is_sealed(api, lengths):
    data_id, bodies, frames, starts = stream_of(api, lengths)
    api.end(data_id)
    api.sealed(data_id)
    data = sealed_data(api, data_id)
    np.testing.assert_array_equal(data["frames"].values, np.concatenate(frames))
    np.testing.assert_array_equal(times_ns(data), expected_times_ns(starts, lengths))
    np.testing.assert_array_equal(data["frame_index"].values, np.arange(sum(lengths)))
    for index, body in enumerate(bodies):
        assert api.get(f"/rheed/stream/{data_id}/chunks/{index}").content == body


@hypothesis_settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=6), black=st.sets(st.integers(0, 300)))
def test_any_lengths_and_any_frames_left_out(api, lengths, black):
    data_id = api.create()
    first, expected, bodies = 0, [], []
    for index, length in enumerate(lengths):
        frames = frames_of(length, index)
        encoded = [None if first + i in black else part for i, part in enumerate(pack(frames).parts[:length])]
        frames[[i for i in range(length) if first + i in black]] = 0
        bodies.append(assemble(encoded).tobytes())
        answer = api.put(api.url(data_id, index, metadata(frames.shape, START_MS, SIZE)), bodies[-1])
        assert answer.status_code == 200
        expected.append(frames)
        first += length
    api.end(data_id)
    api.sealed(data_id)
    group = zarr.open_group(str(api.platform.store.sealed_path(data_id)), mode="r")
    np.testing.assert_array_equal(group["frames"][:], np.concatenate(expected))
    for index, body in enumerate(bodies):
        assert api.get(f"/rheed/stream/{data_id}/chunks/{index}").content == body


def test_the_array_is_as_the_design_says(api):
    data_id, *_ = stream_of(api, (20, 5), name="growth", rotations_per_min=12.0, project_id="p", azimuth_label="[110]")
    api.end(data_id)
    api.sealed(data_id)
    group = zarr.open_group(str(api.platform.store.sealed_path(data_id)), mode="r")
    frames = group["frames"]
    assert (frames.shape, frames.shards, frames.chunks, frames.dtype) == ((25, 6, 8), (20, 6, 8), (1, 6, 8), np.uint8)
    assert frames.metadata.dimension_names == ("frame", "y", "x")
    assert group["time"].dtype == group["frame_index"].dtype == np.int64
    assert dict(group.attrs) == {
        "format": "rheed-ingest",
        "format_version": 1,
        "data_id": data_id,
        "name": "growth",
        "fps": 10.0,
        "rotations_per_min": 12.0,
        "azimuth_label": "[110]",
        "sample": None,
        "project": "p",
        "tags": [],
        "frames_stored": 25,
        "frames_lost": 0,
        "chunks_stored": 2,
        "missing_chunks": [],
    }


def test_xarray_shows_the_exact_dates(api):
    data_id = api.create(fps=30.0)
    api.upload(data_id, 0, frames_of(4), START_MS, SIZE, 30.0)
    api.end(data_id)
    api.sealed(data_id)
    data = sealed_data(api, data_id)
    assert data["frames"].coords["time"].dtype == "datetime64[ns]"
    assert [str(value) for value in data["time"].values] == [
        "2023-11-14T22:13:20.123000000",
        "2023-11-14T22:13:20.156333333",
        "2023-11-14T22:13:20.189666667",
        "2023-11-14T22:13:20.223000000",
    ]


def test_a_full_shard_is_not_copied(api):
    data_id, *_ = stream_of(api, (20, 20, 7))
    staging, sealed = api.platform.store.staging_path(data_id), api.platform.store.sealed_path(data_id)
    inodes = {path.name.split(".")[0]: path.stat().st_ino for path in staging.iterdir()}
    api.end(data_id)
    api.sealed(data_id)
    assert [(sealed / f"frames/c/{i}/0/0").stat().st_ino == inodes[str(i)] for i in range(3)] == [True, True, False]


def test_a_chunk_nobody_announced_takes_no_room(api):
    data_id = api.create()
    api.upload(data_id, 0, frames_of(3, 0))
    api.upload(data_id, 4, frames_of(3, 4))
    assert api.end(data_id)["missing_chunks"] == [1, 2, 3]
    api.sealed(data_id)
    data = sealed_data(api, data_id)
    np.testing.assert_array_equal(data["frames"].values, np.concatenate([frames_of(3, 0), frames_of(3, 4)]))
    assert data.attrs["missing_chunks"] == [1, 2, 3]
    assert data["frame_index"].values.tolist() == [0, 1, 2, 3, 4, 5]


def test_a_chunk_that_was_announced_and_never_came_has_no_time(api):
    data_id = api.create()
    api.upload(data_id, 0, frames_of(20, 0))
    api.url(data_id, 1, metadata((20, 6, 8), START_MS + 2000))
    api.upload(data_id, 2, frames_of(5, 2), START_MS + 4000)
    assert api.end(data_id)["missing_chunks"] == [1]
    api.sealed(data_id)
    data = sealed_data(api, data_id)
    assert data["frames"].shape[0] == 45
    assert data["frame_index"].values.tolist() == [*range(20), *[-1] * 20, *range(40, 45)]
    assert np.isnat(data["time"].values[20:40]).all()
    np.testing.assert_array_equal(times_ns(data)[40:], expected_times_ns([START_MS + 4000], [5]))
    assert not (api.platform.store.sealed_path(data_id) / "frames/c/1/0/0").exists()
    group = zarr.open_group(str(api.platform.store.sealed_path(data_id)), mode="r")
    assert set(group["time"][20:40].tolist()) == {NOT_A_TIME}


def test_a_stream_without_chunks_is_sealed_too(api):
    data_id = api.create()
    assert api.end(data_id)["chunks"] == 0
    assert api.sealed(data_id)["frames"] == 0
    group = zarr.open_group(str(api.platform.store.sealed_path(data_id)), mode="r")
    assert (sorted(group), group["time"].shape) == (["frame_index", "time"], (0,))


def test_a_link_made_after_sealing_shows_in_the_attributes(api):
    data_id, *_ = stream_of(api, (5,))
    api.end(data_id)
    api.sealed(data_id)
    sample_id = api.post("/physical_samples/", {"name": "late"}).json()["physical_sample_id"]
    api.post("/data_entries/physical_sample", {"data_ids": [data_id], "physical_sample_id": sample_id})
    api.platform._sealer.submit(int).result()
    path = str(api.platform.store.sealed_path(data_id))
    assert zarr.open_group(path, mode="r").attrs["sample"] == "late"
    assert api.platform.catalogue.unsealed() == []


@pytest.mark.parametrize("changes", range(9))
def test_a_seal_that_was_cut_off_is_continued(api, start, caplog, changes):
    lengths = (20, 7, 30, 1)
    data_id, bodies, frames, starts = stream_of(api, lengths)
    api.platform.lake = CutStore(api.platform.lake, changes)
    api.end(data_id)
    api.platform._sealer.submit(int).result()
    assert not (api.platform.store.sealed_path(data_id) / "zarr.json").exists()
    assert api.details(data_id)["sealed"] is False
    for index, body in enumerate(bodies):
        assert api.get(f"/rheed/stream/{data_id}/chunks/{index}").content == body
    api.platform.close()
    shards = list(api.platform.store.sealed_path(data_id).rglob("frames/c/*/0/0"))
    before = {path: path.stat().st_ino for path in shards}
    assert len(shards) == min(changes, 3)
    again = start()
    again.sealed(data_id)
    assert {path: path.stat().st_ino for path in shards} == before
    data = sealed_data(again, data_id)
    np.testing.assert_array_equal(data["frames"].values, np.concatenate(frames))
    np.testing.assert_array_equal(times_ns(data), expected_times_ns(starts, lengths))
    for index, body in enumerate(bodies):
        assert again.get(f"/rheed/stream/{data_id}/chunks/{index}").content == body
    parts = list(again.platform.store.sealed_path(data_id).rglob("*.part"))
    assert parts == []
    assert "sealing stream" in caplog.text


def test_without_hard_links_shards_are_copied(api, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", refuse)
    data_id, _, frames, _ = stream_of(api, (20, 20))
    api.end(data_id)
    api.sealed(data_id)
    np.testing.assert_array_equal(sealed_data(api, data_id)["frames"].values, np.concatenate(frames))


def test_chunks_can_be_read_while_the_stream_is_sealed(api):
    data_id, bodies, *_ = stream_of(api, (7,) * 12)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(api.end, data_id)
        for _ in range(8):
            for index, body in enumerate(bodies):
                assert api.get(f"/rheed/stream/{data_id}/chunks/{index}").content == body
        ended.result()
    api.sealed(data_id)


def test_times_of_long_streams_are_written_in_blocks(api, monkeypatch):
    monkeypatch.setattr(layout_module, "VALUES_PER_CHUNK", 16)
    lengths = (20, 7, 33, 1)
    data_id, _, _, starts = stream_of(api, lengths)
    api.end(data_id)
    api.sealed(data_id)
    data = sealed_data(api, data_id)
    np.testing.assert_array_equal(times_ns(data), expected_times_ns(starts, lengths))
    np.testing.assert_array_equal(data["frame_index"].values, np.arange(61))
    assert len(list((api.platform.store.sealed_path(data_id) / "time/c").iterdir())) == 4


def test_sealing_twice_changes_nothing(api, settings):
    data_id, bodies, *_ = stream_of(api, (20, 7, 30))
    catalogue, store = api.platform.catalogue, api.platform.store
    catalogue.end_stream(data_id, 1.7e9)
    stream, chunks = catalogue.stream(data_id, 1.7e9), catalogue.chunks(data_id)
    path = store.sealed_path(data_id)

    def sealed_files():
        with ThreadPoolExecutor(2) as pool:
            seal(stream, chunks, api.platform.lake, pool)
        files = [file for file in path.rglob("*") if file.is_file()]
        shards = [file for file in files if "frames" in file.parts and file.name == "0"]
        return {file: file.read_bytes() for file in files}, {file: file.stat().st_ino for file in shards}

    assert sealed_files() == sealed_files()
    assert unpack(bodies[0], (20, 6, 8)).shape == (20, 6, 8)
