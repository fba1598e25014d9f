"""Points become JSON: exact, in the form of each generation, or refused by name."""

import json
import math
import timeit
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import SettingsError
from ingest.timeseries import TimeseriesMeta, encode_channel, encode_channels, unknown_keys

T0 = 1_700_000_000.125


def values_of(given, timestamps=None):
    stamps = [float(i) for i in range(len(given))] if timestamps is None else timestamps
    return json.loads(encode_channel("d", 0, "T", stamps, given)[1])["values"]


def test_one_channel_is_as_the_protocol_says():
    meta, body = encode_channel("d1", 3, "T", [T0, T0 + 1], [1, 2.5], "C")
    assert meta == TimeseriesMeta(3, ("T",), 2, 1_700_000_000_125, 1_700_000_001_125, False)
    assert body == (
        b'{"data_id":"d1","chunk_index":3,"channel_name":"T","timestamps":[1700000000.125,1700000001.125],'
        b'"values":[1.0,2.5],"units":"C"}'
    )


def test_without_units_there_is_no_key():
    assert "units" not in json.loads(encode_channel("d", 0, "T", [1.0], [1.0])[1])


def test_an_empty_channel_pushed_alone_is_a_request():
    meta, body = encode_channel("d", 0, "T", [], ())
    assert meta == TimeseriesMeta(0, ("T",), 0, 0, 0, False)
    assert json.loads(body) == {"data_id": "d", "chunk_index": 0, "channel_name": "T", "timestamps": [], "values": []}


def test_the_span_covers_every_stamp_in_whole_ms():
    meta, _ = encode_channel("d", 0, "T", [5.0001, 4.9999, 6.0001], [0, 0, 0])
    assert (meta.start_unix_ms_utc, meta.end_unix_ms_utc) == (4999, 6001)


CHANNELS = {
    "a": {"timestamps": [2.0, 3.0], "values": [1, math.nan], "units": "V"},
    "e": {"timestamps": [], "values": []},
    "b": {"timestamps": [1.5], "values": [-math.inf], "units": None},
}


def test_several_channels_are_one_request_without_the_empty_ones():
    [(meta, body)] = encode_channels("d", 4, CHANNELS, "tool-state")
    assert meta == TimeseriesMeta(4, ("a", "b"), 3, 1500, 3000, True)
    assert json.loads(body) == {
        "data_id": "d",
        "chunk_index": 4,
        "channels": {
            "a": {"timestamps": [2.0, 3.0], "values": [1.0, None], "units": "V"},
            "b": {"timestamps": [1.5], "values": [None]},
        },
    }


@pytest.mark.parametrize("channels", [{}, {"e": {"timestamps": [], "values": np.empty(0)}}])
def test_without_points_nothing_is_sent(channels):
    assert encode_channels("d", 4, channels, "tool-state") == []


def test_metrology_sends_each_channel_empty_ones_too():
    requests = encode_channels("d", 4, CHANNELS, "metrology")
    assert [meta.channels for meta, _ in requests] == [("a",), ("e",), ("b",)]
    assert not any(meta.is_multi for meta, _ in requests)
    assert [json.loads(body)["channel_name"] for _, body in requests] == ["a", "e", "b"]
    assert requests[1] == encode_channel("d", 4, "e", [], [])


def test_channels_that_share_an_axis_all_have_it():
    axis, other = np.array([T0, T0 + 0.1]), [7.0, 8.0]
    channels = {
        name: {"timestamps": t, "values": [1, 2]}
        for name, t in zip("abcde", [axis, axis, axis, other, axis], strict=True)
    }
    [(_, body)] = encode_channels("d", 0, channels, "tool-state")
    got = {name: fields["timestamps"] for name, fields in json.loads(body)["channels"].items()}
    assert got == {**dict.fromkeys("abce", axis.tolist()), "d": other}


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False)))
def test_every_float_comes_back_exactly(numbers):
    got = values_of(numbers)
    assert [number.hex() for number in got] == [number.hex() for number in numbers]
    assert values_of(np.array(numbers)) == got


@given(st.lists(st.floats(-9e9, 9e9)))
def test_every_stamp_comes_back_exactly(stamps):
    meta, body = encode_channel("d", 0, "T", tuple(stamps), stamps)
    assert json.loads(body)["timestamps"] == stamps
    if stamps:
        assert meta.start_unix_ms_utc <= min(stamps) * 1000
        assert meta.end_unix_ms_utc >= max(stamps) * 1000


@pytest.mark.parametrize(
    "given",
    [
        [1, 2],
        (1.0, 2),
        range(1, 3),
        [np.float32(1), np.int64(2)],
        [True, Fraction(2)],
        np.array([1, 2], np.uint8),
        np.array([1, 2], ">f8"),
        np.array([1, 9, 2, 9], np.float16)[::2],
        np.array([1, Fraction(2)], object),
    ],
    ids=repr,
)
def test_any_numbers_are_floats(given):
    got = values_of(given)
    assert got == [1.0, 2.0]
    assert {type(number) for number in got} == {float}


def test_what_is_no_value_is_null():
    assert values_of([math.nan, math.inf, -math.inf, 1]) == [None, None, None, 1.0]
    assert values_of(np.ma.masked_array([5, 6], [True, False])) == [None, 6.0]
    assert values_of([2**70]) == [float(2**70)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.7e12, 1e306])
@pytest.mark.parametrize("form", [list, np.array])
def test_a_stamp_that_is_no_time_is_refused(form, bad):
    with pytest.raises(SettingsError, match=r"channel 'T': .* is no timestamp in Unix seconds"):
        encode_channel("d", 0, "T", form([1.0, bad, 2.0]), [1, 2, 3])


@pytest.mark.parametrize(
    ("channel", "cause"),
    [
        ({"timestamps": [1.0], "values": [1.0, 2.0]}, "same length; they have 1 and 2"),
        ({"timestamps": [1.0], "values": ["1"]}, "values are not a list of numbers: must be real number, not str"),
        ({"timestamps": [1.0], "values": [None]}, "values are not a list of numbers"),
        ({"timestamps": [1.0], "values": [10**400]}, "values are too large for numbers: int too large"),
        ({"timestamps": [1.0], "values": np.array(["1"])}, "values are not a list of numbers"),
        ({"timestamps": [1.0], "values": np.array([1j])}, "values are not a list of numbers"),
        ({"timestamps": [1.0], "values": [[1.0]]}, "values are not a list of numbers"),
        ({"timestamps": [1.0], "values": np.array([[1.0]])}, "values are not a list of numbers, but have 2 dimensions"),
        ({"timestamps": [1.0], "values": 1.0}, "values are not a list of numbers"),
        ({"timestamps": [1.0], "values": "1"}, "values are not a list of numbers"),
        ({"timestamps": np.array(["2023-01-01"], "datetime64[s]"), "values": [1]}, "timestamps are not a list"),
        ({"timestamps": np.ma.masked_array([1.0], [True]), "values": [1]}, "nan is no timestamp"),
        ({"timestamps": [1.0]}, "missing 'values' key"),
        ({"values": [1.0]}, "missing 'timestamps' key"),
        ({"timestamps": [1.0], "values": [1.0], "units": 5}, "units are a int"),
        ([1.0], "a list, not a mapping"),
    ],
)
@pytest.mark.parametrize("generation", ["tool-state", "metrology"])
def test_a_bad_channel_is_named_with_its_cause(channel, cause, generation):
    channels = {"good": {"timestamps": [1.0], "values": [1.0]}, "bad one": channel}
    with pytest.raises(SettingsError, match="channel 'bad one'") as caught:
        encode_channels("d", 0, channels, generation)
    assert cause in str(caught.value)


def test_unknown_keys_are_left_out_and_can_be_told():
    channels = {"T": {"timestamps": [1.0], "values": [2.0], "unit": "C"}, "p": {"timestamps": [1.0], "values": [2.0]}}
    [(_, body)] = encode_channels("d", 0, channels, "tool-state")
    assert b"unit" not in body
    assert unknown_keys(channels) == {"T": ["unit"]}


@pytest.mark.parametrize("name", ["", "  ", None, 5, b"T"])
def test_a_name_that_says_nothing_is_refused(name):
    with pytest.raises(SettingsError, match="its name"):
        encode_channel("d", 0, name, [1.0], [1.0])


@pytest.mark.parametrize("index", [-1, True, False, 1.0, "1", None, np.True_])
def test_an_index_that_is_none_is_refused(index):
    with pytest.raises(SettingsError, match="chunk_index"):
        encode_channel("d", index, "T", [1.0], [1.0])
    with pytest.raises(SettingsError, match="chunk_index"):
        encode_channels("d", index, {}, "tool-state")


def test_an_index_of_numpy_is_one():
    meta, body = encode_channel("d", np.int64(7), "T", [1.0], [1.0])
    assert type(meta.chunk_index) is int
    assert json.loads(body)["chunk_index"] == 7


@pytest.mark.parametrize(("name", "units"), [("\udcff", None), ("T", "\ud800")])
def test_text_that_is_not_unicode_is_refused(name, units):
    with pytest.raises(SettingsError, match="not Unicode text"):
        encode_channel("d", 0, name, [1.0], [1.0], units)


def test_channels_must_be_a_mapping():
    with pytest.raises(SettingsError, match="not a mapping"):
        encode_channels("d", 0, [("a", {})], "tool-state")


@pytest.mark.parametrize("form", [np.asarray, list])
def test_encoding_takes_little(form):
    """50 channels of 100 points take about 0.3 ms alone on a core; the bound leaves room for a busy machine."""
    axis = form(T0 + np.arange(100) / 7)
    values = np.random.default_rng(0).random((50, 100))
    channels = {f"channel {i}": {"timestamps": axis, "values": form(row), "units": "K"} for i, row in enumerate(values)}
    best_s = min(timeit.repeat(lambda: encode_channels("d", 0, channels, "tool-state"), number=5, repeat=10)) / 5
    assert best_s < 2e-3
