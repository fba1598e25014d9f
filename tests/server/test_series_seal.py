"""Time series in their final form: readable without us, whatever the channels are called."""

import sqlite3
import time

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import given
from hypothesis import strategies as st

from ingest.server.rows import ChannelRow, SeriesRow
from ingest.server.series_seal import channel_folders, seal_series
from tests.lake.memory_store import MemoryStore
from tests.server.conftest import CutStore, frames_of
from tests.server.test_timeseries import T0, details, finalize, initialize, points, send, send_multi

NAMES = [
    "T",
    "a/b",
    "../../x",
    ".",
    "..",
    "",
    " ",
    "zarr.json",
    "Temp °C",
    "\x00",
    "x" * 900,
    "é" * 500,
    "t",
    "%",
    "%2F",
]


def sealed(api, data_id):
    for _ in range(2000):
        if details(api, data_id)["sealed"]:
            return api.platform.store.sealed_path(data_id)
        time.sleep(0.005)
    raise TimeoutError(details(api, data_id))


def group_of(path, name):
    """Find a channel by its real name, as any reader would."""
    groups = [group for _, group in zarr.open_group(str(path), mode="r")["timeseries"].groups()]
    [found] = [group for group in groups if group.attrs["name"] == name]
    return found


def test_the_points_are_sealed_in_order_of_their_chunks(api):
    data_id = initialize(api)
    send(api, data_id, 3, "T", [T0 + 3, T0 + 4], [3, 4])
    send(api, data_id, 0, "T", [T0, T0 + 0.1], [0.1, None], units="C")
    send(api, data_id, 1, "T", [], [])
    before = points(api, data_id, "T")
    finalize(api, data_id)
    path = sealed(api, data_id)
    group = zarr.open_group(str(path / "timeseries/T"), mode="r")
    assert (group["time"].dtype, group["value"].dtype) == (np.float64, np.float64)
    assert group["time"][:].tolist() == [T0, T0 + 0.1, T0 + 3, T0 + 4]
    np.testing.assert_array_equal(group["value"][:], [0.1, np.nan, 3, 4])
    assert group["time"].metadata.dimension_names == group["value"].metadata.dimension_names == ("time",)
    assert dict(group.attrs) == {"name": "T", "units": "C"}
    assert points(api, data_id, "T") == before
    assert group.metadata.zarr_format == 3


def test_xarray_shows_the_dates(api):
    data_id = initialize(api)
    send(api, data_id, 0, "T", [1_700_000_000.125, None, 1_700_000_000.375], [1, 2, 3], units="C")
    finalize(api, data_id)
    with xarray.open_zarr(str(sealed(api, data_id)), group="timeseries/T", consolidated=False) as data:
        # xarray multiplies float seconds by 1e9, and is up to 128 ns off.
        off = data["time"].values[[0, 2]] - np.array(["2023-11-14T22:13:20.125", "2023-11-14T22:13:20.375"], "M8[ns]")
        assert (np.abs(off) < np.timedelta64(1, "us")).all()
        assert np.isnat(data["time"].values[1])
        assert data["value"].dims == ("time",)
        assert (data["value"].attrs["units"], data["value"].attrs["long_name"]) == ("C", "T")


def test_the_earliest_and_latest_stamps_have_dates(api):
    data_id = initialize(api)
    assert send(api, data_id, 0, "T", [-9e9, 0, 9e9], [1, 2, 3]).status_code == 200
    finalize(api, data_id)
    with xarray.open_zarr(str(sealed(api, data_id)), group="timeseries/T", consolidated=False) as data:
        assert [str(value)[:4] for value in data["time"].values] == ["1684", "1970", "2255"]


def test_the_group_says_what_the_stream_is(api):
    data_id = initialize(api, name="growth", project_id="p", synth_source_id=7)
    sample_id = api.post("/physical_samples/", {"name": "GaN"}).json()["physical_sample_id"]
    tag_id = api.post("/tags/", {"name": "run"}).json()["id"]
    api.post("/data_entries/physical_sample", {"data_ids": [data_id], "physical_sample_id": sample_id})
    api.post("/tags/data-items/", {"data_ids": [data_id], "tag_ids": [tag_id]})
    send_multi(api, data_id, 0, {name: {"timestamps": [T0], "values": [1]} for name in ("b", "a")})
    finalize(api, data_id)
    assert dict(zarr.open_group(str(sealed(api, data_id)), mode="r").attrs) == {
        "format": "rheed-ingest",
        "format_version": 1,
        "data_id": data_id,
        "name": "growth",
        "points_per_chunk": 100,
        "synth_source_id": 7,
        "sample": "GaN",
        "project": "p",
        "tags": ["run"],
        "channels": ["b", "a"],
        "points_stored": 2,
        "chunks_stored": 1,
    }


def test_a_link_made_after_sealing_shows_in_the_attributes(api):
    data_id = initialize(api)
    send(api, data_id, 0, "T", [T0], [1])
    finalize(api, data_id)
    path = sealed(api, data_id)
    sample_id = api.post("/physical_samples/", {"name": "late"}).json()["physical_sample_id"]
    api.post("/data_entries/physical_sample", {"data_ids": [data_id], "physical_sample_id": sample_id})
    api.platform._sealer.submit(int).result()
    assert zarr.open_group(str(path), mode="r").attrs["sample"] == "late"
    assert api.platform.catalogue.unsealed() == []
    assert points(api, data_id, "T")["values"] == [1.0]


def test_a_stream_without_channels_is_sealed_too(api):
    data_id = initialize(api)
    assert finalize(api, data_id).json()["points"] == 0
    group = zarr.open_group(str(sealed(api, data_id)), mode="r")
    assert (group.attrs["channels"], list(group["timeseries"])) == ([], [])


def test_no_name_leaves_its_place(api, settings):
    data_id = initialize(api)
    for number, name in enumerate(NAMES):
        assert send(api, data_id, 0, name, [T0], [number]).status_code == 200
    finalize(api, data_id)
    path = sealed(api, data_id)
    folders = {entry.name for entry in (path / "timeseries").iterdir()}
    assert folders == {*channel_folders(NAMES), "zarr.json"}
    assert {entry.name for entry in path.iterdir()} == {"timeseries", "zarr.json"}
    assert {entry.name for entry in settings.data.iterdir() if entry.suffix == ".zarr"} == {path.name}
    for number, name in enumerate(NAMES):
        assert group_of(path, name)["value"][:].tolist() == [number]
        assert points(api, data_id, name)["values"] == [number]


@given(st.lists(st.text(max_size=300), unique=True, max_size=30))
def test_every_name_has_a_folder_of_its_own(names):
    folders = channel_folders(names)
    assert len({folder.casefold() for folder in folders}) == len(names)
    for folder in folders:
        assert 0 < len(folder) <= 120
        assert set(folder) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-%.")
        assert not folder.startswith(".")


def test_plain_names_stay_readable():
    assert channel_folders(["Temp_1-a", "a b", "a.b", "°C"]) == ["Temp_1-a", "a%20b", "a%2Eb", "%C2%B0C"]


@pytest.mark.parametrize("changes", range(12))
def test_a_seal_that_was_cut_off_is_continued(api, start, caplog, changes):
    data_id = initialize(api)
    for index in range(3):
        fields = {"timestamps": [T0 + index, T0 + index + 0.5], "values": [index, None], "units": "K"}
        send_multi(api, data_id, index, {"a": fields, "b/c": fields})
    before = {name: points(api, data_id, name) for name in ("a", "b/c")}
    api.platform.lake = CutStore(api.platform.lake, changes)
    finalize(api, data_id)
    api.platform._sealer.submit(int).result()
    assert not (api.platform.store.sealed_path(data_id) / "zarr.json").exists()
    assert details(api, data_id)["sealed"] is False
    assert {name: points(api, data_id, name) for name in before} == before
    api.platform.close()
    again = start()
    path = sealed(again, data_id)
    assert {name: points(again, data_id, name) for name in before} == before
    for channel in before:
        np.testing.assert_array_equal(group_of(path, channel)["time"][:], before[channel]["timestamps"])
    assert list(path.rglob("*.part")) == []
    assert "sealing stream" in caplog.text


def test_a_crash_before_the_catalogue_knows_seals_again(api, start, monkeypatch):
    data_id = initialize(api)
    send(api, data_id, 0, "T", [T0], [1.5])

    def crashing(*_):
        raise sqlite3.OperationalError("disk I/O error")

    monkeypatch.setattr(api.platform.series, "mark_sealed", crashing)
    finalize(api, data_id)
    api.platform._sealer.submit(int).result()
    assert (api.platform.store.sealed_path(data_id) / "zarr.json").exists()
    assert points(api, data_id, "T")["values"] == [1.5]
    api.platform.close()
    again = start()
    sealed(again, data_id)
    assert points(again, data_id, "T")["values"] == [1.5]


def test_sealed_points_are_not_kept_twice(api):
    data_id, other = initialize(api), initialize(api)
    for stream in (data_id, other):
        send(api, stream, 0, "T", [T0], [1])
    finalize(api, data_id)
    sealed(api, data_id)
    held = api.platform._database.read(
        lambda db: dict(db.execute("SELECT data_id, data FROM points JOIN channels USING (channel_id)").fetchall())
    )
    assert held[data_id] is None
    assert len(held[other]) == 16


def test_both_kinds_are_sealed_side_by_side(api):
    frames, series = api.create(), initialize(api)
    api.upload(frames, 0, frames_of(4))
    send(api, series, 0, "T", [T0], [1])
    api.end(frames)
    finalize(api, series)
    sealed(api, series)
    assert api.sealed(frames)["frames"] == 4


def test_the_commit_marker_is_written_last():
    store = MemoryStore()
    stream = SeriesRow("d", "n", 5, None, None, "closed", 0.0, 0.0, 1, 1, 1, None, (), 1, 1, 0, None)
    channel = ChannelRow(1, "T", None, ())
    seal_series(stream, [channel], lambda _: (np.zeros(1), np.ones(1)), store)
    assert {"d.zarr/timeseries/zarr.json", "d.zarr/timeseries/T/time/c/0", "d.zarr/timeseries/T/zarr.json"} <= set(
        store.puts
    )
    assert store.puts[-1] == "d.zarr/zarr.json"
