"""A log becomes requests that carry every row once, at its time."""

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import SettingsError, SourceTimeError
from ingest.series_plan import SeriesOptions, plan_series
from ingest.series_rows import encode_rows, unix_seconds
from ingest.sources.series_base import ChannelFact, ChannelSpec, LogTable, Rows, SeriesInfo, SeriesSpec

NS = 1_000_000_000
START = 1_700_000_000 * NS


def info(*tables, start_ns=START, start_from="user", last_ns=None):
    made = tuple(
        LogTable(f"/logs/{i}.txt", tuple(ChannelSpec(f"c{i}.{j}", "K") for j in range(channels)), rows)
        for i, (rows, channels) in enumerate(tables)
    )
    facts = tuple(
        ChannelFact(channel.name, channel.units, table.rows, START, last_ns or START + NS)
        for table in made
        for channel in table.channels
    )
    spec = SeriesSpec("text-log", tuple(table.path for table in made), made, START)
    return SeriesInfo(spec, "logs", "CSV", facts, start_ns, start_from, "f00", 1000)


@given(
    tables=st.lists(st.tuples(st.integers(1, 400), st.integers(1, 5)), min_size=1, max_size=4),
    size=st.integers(1, 150),
)
def test_every_row_once_in_order(tables, size):
    plan = plan_series(info(*tables), SeriesOptions(points_per_chunk=size))
    assert [task.index for task in plan.chunks] == list(range(len(plan.chunks)))
    for number, (rows, _) in enumerate(tables):
        own = [task for task in plan.chunks if task.table == number]
        assert [task.chunk_index for task in own] == list(range(len(own)))
        assert [row for task in own for row in range(task.start, task.stop)] == list(range(rows))
        assert all(task.stop - task.start <= size for task in own)
    assert plan.frames == sum(rows * channels for rows, channels in tables)


def test_what_is_asked_for_is_in_the_settings():
    plan = plan_series(info((5, 1)), SeriesOptions(" Furnace ", 50, 7, "STO-17", None, ("a",)))
    settings = plan.settings
    assert (plan.name, settings.points_per_chunk, settings.synth_source_id) == ("Furnace", 50, 7)
    assert (settings.physical_sample, settings.tags) == ("STO-17", ("a",))
    assert plan_series(info((5, 1)), SeriesOptions()).name == "logs"


def test_a_log_without_a_start_is_asked_for_one():
    with pytest.raises(SourceTimeError, match="nothing trustworthy says when the log began") as caught:
        plan_series(info((5, 1), start_ns=None, start_from=None), SeriesOptions())
    assert "--log-start" in caught.value.hint


@pytest.mark.parametrize("size", [0, -3, 100_001])
def test_sizes_that_no_request_has(size):
    with pytest.raises(SettingsError, match="points per chunk"):
        plan_series(info((5, 1)), SeriesOptions(points_per_chunk=size))


def test_times_that_are_no_dates():
    with pytest.raises(SourceTimeError, match="which is no date"):
        plan_series(info((5, 1), last_ns=9_100_000_000 * NS), SeriesOptions())


def test_identity_has_what_changes_the_requests_and_nothing_else():
    plain = plan_series(info((5, 1)), SeriesOptions()).identity()
    assert plan_series(info((5, 1)), SeriesOptions(name="other", tags=("x",))).identity() == plain
    for changed in (SeriesOptions(points_per_chunk=7), SeriesOptions(synth_source_id=3)):
        assert plan_series(info((5, 1)), changed).identity() != plain
    assert plan_series(info((5, 1), start_ns=START + NS), SeriesOptions()).identity() != plain


@given(st.integers(0, 4_000_000_000_000))
def test_milliseconds_survive_as_seconds(unix_ms):
    [seconds] = unix_seconds(np.array([unix_ms * 1_000_000], np.int64))
    assert seconds == unix_ms / 1000


@pytest.mark.parametrize("channels", [1, 3])
def test_a_request_says_what_the_rows_say(channels):
    values = np.arange(channels * 4, dtype=np.float64).reshape(channels, 4)
    values[0, 2] = math.nan
    rows = Rows(START + np.arange(4) * NS // 10, values)
    specs = [ChannelSpec("T", "C"), ChannelSpec("p", "mbar"), ChannelSpec("x")][:channels]
    meta, body = encode_rows("id", 3, specs, rows)
    sent = json.loads(body)
    assert (meta.chunk_index, meta.points, sent["chunk_index"], sent["data_id"]) == (3, 4 * channels, 3, "id")
    first = sent if channels == 1 else sent["channels"]["T"]
    assert first["values"] == [0.0, 1.0, None, 3.0], "no value is null, and none is made up"
    assert first["timestamps"] == [1.7e9, 1.7e9 + 0.1, 1.7e9 + 0.2, 1.7e9 + 0.3]
    assert first["units"] == "C"
    if channels == 3:
        assert "units" not in sent["channels"]["x"]
