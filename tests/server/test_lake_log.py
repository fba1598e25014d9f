"""What a log was when it was streamed, the source of Zarr lakes gives back row for row: time, value and unit."""

import json
import shutil

import numpy as np
import pytest

from ingest.series_plan import SeriesOptions, plan_series
from ingest.series_rows import encode_rows
from ingest.sources import SeriesSpec, SourceSpec, discover, inspect, inspect_series, open_series
from tests.server.conftest import START_MS, frames_of
from tests.server.test_series_seal import sealed
from tests.server.test_timeseries import T0, finalize, initialize, send, send_multi
from tests.sources.series_contract import look_at_log, read_all

NS = 1_000_000_000


def requests_of(info, points_per_chunk=100):
    """Yield what a backfill sends of a log."""
    for task in plan_series(info, SeriesOptions(points_per_chunk=points_per_chunk)).chunks:
        rows = open_series(info.spec).read(task.table, task.start, task.stop)
        meta, body = encode_rows("", task.chunk_index, info.spec.tables[task.table].channels, rows)
        yield meta.is_multi, json.loads(body)


def moved(api, info) -> str:
    """Stream a log into the platform; return the sealed lake."""
    data_id = initialize(api, name=info.name)
    for is_multi, body in requests_of(info):
        answer = api.post(f"/tool-state/stream/chunk{'/multi' if is_multi else ''}", {**body, "data_id": data_id})
        assert answer.status_code == 200, answer.text
    finalize(api, data_id)
    return str(sealed(api, data_id))


def write_log(path, rows=431):
    rng = np.random.default_rng(0)
    ms = 1_700_000_000_123 + np.cumsum(rng.integers(1, 900, rows))
    lines = [
        f"{int(t) / 1000:.3f},{a!r},{'' if i % 7 else repr(b)},{i // 50 % 2}"
        for i, (t, a, b) in enumerate(zip(ms, rng.normal(size=rows).tolist(), rng.random(rows).tolist(), strict=True))
    ]
    path.write_text("\n".join(["Time (s),Temp (°C),p/chamber (mbar),Shutter", *lines]))
    return ms


def test_row_for_row(api, tmp_path):
    ms = write_log(tmp_path / "growth 7.csv")
    log = look_at_log(tmp_path / "growth 7.csv")
    path = moved(api, log)
    info = look_at_log(path)
    assert (info.name, info.start_from, info.findings) == ("growth 7", "frame stamps", ())
    assert info.channels == log.channels
    assert [(c.name, c.units) for c in info.channels] == [("Temp", "°C"), ("p/chamber", "mbar"), ("Shutter", None)]
    np.testing.assert_array_equal(read_all(info)[0], ms * 1_000_000)
    np.testing.assert_array_equal(read_all(info)[1], read_all(log)[1])
    assert np.isnan(read_all(info)[1][1]).sum() == 369
    assert list(requests_of(info)) == list(requests_of(log))


def test_moved_twice_is_still_the_same(api, tmp_path):
    write_log(tmp_path / "a.csv")
    first = moved(api, look_at_log(tmp_path / "a.csv"))
    second = moved(api, look_at_log(first))
    assert look_at_log(first).fingerprint == look_at_log(second).fingerprint
    assert list(requests_of(look_at_log(second), 7)) == list(requests_of(look_at_log(first), 7))


def test_chunks_in_any_order_without_times_and_values(api):
    data_id = initialize(api)
    send(api, data_id, 3, "T", [T0 + 3, None, T0 + 4], [3, 7, None])
    send(api, data_id, 0, "T", [T0, T0 + 0.1], [0.1, None], units="C")
    send(api, data_id, 1, "T", [], [])
    send(api, data_id, 0, "nothing", [], [])
    finalize(api, data_id)
    info = look_at_log(sealed(api, data_id))
    assert [(c.name, c.units, c.points) for c in info.channels] == [("T", "C", 4)]
    times, values = read_all(info)
    assert (times - 1_700_000_000_125_000_000).tolist() == [0, NS // 10, 3 * NS, 4 * NS]
    np.testing.assert_array_equal(values, [[0.1, np.nan, 3, np.nan]])
    assert sorted(finding.kind for finding in info.findings) == [
        "channel left out",
        "channel left out",
        "rows left out",
    ]


def test_values_that_are_all_missing(api):
    data_id = initialize(api)
    fields = {"timestamps": [T0, T0 + 1], "values": [None, None]}
    send_multi(api, data_id, 0, {"a": fields, "b": {**fields, "values": [1, 2]}})
    finalize(api, data_id)
    info = look_at_log(sealed(api, data_id))
    assert info.findings == ()
    np.testing.assert_array_equal(read_all(info)[1], [[np.nan, np.nan], [1, 2]])


@pytest.mark.parametrize("together", [False, True])
def test_beside_a_movie(api, settings, together):
    frames = frames_of(12)
    movie, log = api.create(), initialize(api, name="heater")
    api.upload(movie, 0, frames, START_MS)
    send(api, log, 0, "T", [T0, T0 + 1], [1, 2], units="C")
    api.end(movie)
    api.sealed(movie)
    finalize(api, log)
    where = sealed(api, log)
    if together:  # a lake has both in one group
        shutil.move(where / "timeseries", settings.data / f"{movie}.zarr" / "timeseries")
        shutil.rmtree(where)
    found = discover([str(settings.data)])
    assert [entry.error for entry in found] == [None, None]
    specs = {type(entry.spec): entry.spec for entry in found}
    assert len(inspect(specs[SourceSpec]).timestamps_ns) == 12
    info = inspect_series(specs[SeriesSpec])
    assert (info.name, info.spec.dataset) == ("a stream" if together else "heater", "timeseries")
    assert read_all(info)[1].tolist() == [[1, 2]]
