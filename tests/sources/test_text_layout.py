"""How text logs are read: delimiters, headers, units, times."""

import datetime as dt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import NoFramesError, SourceFormatError, SourceTimeError
from ingest.sources.log_columns import is_unit, split_units, time_name, unique_names
from ingest.sources.log_times import TimeRule, numbers_ns, read_times
from tests.sources.files import NS
from tests.sources.series_contract import look_at_log, read_all

AT_S = 1_696_342_633  # 2023-10-03T14:17:13Z, 16:17:13 in Copenhagen
AT_NS = AT_S * NS
CPH = "Europe/Copenhagen"


def log_of(tmp_path, text, encoding="utf-8", **options):
    (tmp_path / "a.csv").write_bytes(text.encode(encoding))
    return look_at_log(tmp_path / "a.csv", **options)


def channels_of(info):
    return [(channel.name, channel.units) for channel in info.channels]


@pytest.mark.parametrize(
    ("text", "channels", "first"),
    [
        ("time [s],T [C],p (mbar)\n0,1,2\n1,3,4\n", [("T", "C"), ("p", "mbar")], [1, 2]),
        ("t,T/K\n0,1\n1,3\n", [("T", "K")], [1]),
        ("time;T\n0,5;1,5\n1,5;2,5\n", [("T", None)], [1.5]),
        ("time;T\n0.5;1.5\n1.5;2.5\n", [("T", None)], [1.5]),
        ("time;T\n1;2\n2;3\n", [("T", None)], [2]),
        ("time\tT\n0,5\t1,5\n1,5\t2,5\n", [("T", None)], [1.5]),
        ("time  T  P\n0 1 2\n1 3 4\n", [("T", None), ("P", None)], [1, 2]),
        (
            "  Time [s]   Sensor 1   Sensor 2\n  0    1    2\n  1    3    4\n",
            [("Sensor 1", None), ("Sensor 2", None)],
            [1, 2],
        ),
        ("time,T\ns,°C\n0,1\n1,2\n", [("T", "°C")], [1]),
        ("time,T,P\n[s],[degC],\n0,1,2\n1,2,3\n", [("T", "degC"), ("P", None)], [1, 2]),
        ("time [s],T [K]\ns,°C\n0,1\n1,2\n", [("T", "K")], [1]),  # the header says it better
        ("# made by a logger\n# time [s], T [K]\n0,1\n1,2\n", [("T", "K")], [1]),
        ("Logger: X\nPoints,500\nRate,2 Hz\n\ntime [s],T\n0,1\n1,2\n", [("T", None)], [1]),
        ('"time [s]","T, upper [C]"\n"0","1"\n"1","2"\n', [("T, upper", "C")], [1]),
        ("time [s],T,\n0,1,\n1,2,\n", [("T", None)], [1]),
        ("time [s],T\n0,1,\n1,2,\n", [("T", None)], [1]),
        ("time [s],T,P\n0,1,\n1,2,\n2,,5\n", [("T", None), ("P", None)], [1, np.nan]),
        ("time [s],T,\n0,1,7\n1,2,8\n", [("T", None), ("column 3", None)], [1, 7]),
        (",time [s],T\n0,10,1\n1,11,2\n", [("column 1", None), ("T", None)], [0, 1]),  # a pandas index
        ("time [s],T,T,T (2)\n0,1,2,3\n1,1,1,1\n", [("T", None), ("T (3)", None), ("T (2)", None)], [1, 2, 3]),
        ("time [s]\tValue [0,100]\tOpen [Y,N]\n0\t1\t2\n1\t2\t3\n", [("Value", None), ("Open", None)], [1, 2]),
        ("time [s],T (heater)\n0,1\n1,2\n", [("T (heater)", None)], [1]),
        ("time [s],1,2\n0,1,5\n1,2,6\n", [("1", None), ("2", None)], [1, 5]),
        ("time [s],T\nERR,5\n0,1\n1,2\n", [("T", None)], [1]),
    ],
)
def test_headers(tmp_path, text, channels, first):
    for sent in (text, text.replace("\n", "\r\n"), "\ufeff" + text):
        info = log_of(tmp_path, sent)
        assert channels_of(info) == channels
        np.testing.assert_array_equal(read_all(info)[1][:, 0], first)


def test_latin_1(tmp_path):
    assert channels_of(log_of(tmp_path, "time [s],Ofen [°C]\n0,1\n", "latin-1")) == [("Ofen", "°C")]


def test_a_name_twice_is_a_finding(tmp_path):
    info = log_of(tmp_path, "time [s],T,T\n0,1,2\n")
    assert [finding.kind for finding in info.findings] == ["channel names"]
    assert "T (2)" in info.findings[0].message


@pytest.mark.parametrize(
    ("header", "times", "options", "seconds"),
    [
        ("time [s]", ("0", "1.5"), {}, (0, 1.5)),
        ("time(s)", ("-0.5", "1e-3"), {}, (-0.5, 0.001)),
        ("Elapsed time [s]", ("1700000000", "1700000001"), {}, (1_700_000_000, 1_700_000_001)),
        ("elapsed_ms", ("0", "1500"), {}, (0, 1.5)),
        ("Time (min)", ("0.5", "2"), {}, (30, 120)),
        ("time/h", ("0.5", "2"), {}, (1800, 7200)),
        ("elapsed", ("0:00:01.5", "100:00:00"), {}, (1.5, 360_000)),
        ("x", ("0", "1"), None, None),
        ("2theta", ("0", "1"), {}, (0, 1)),  # nothing says that it is no time
        ("time", (f"{AT_S}", f"{AT_S + 1}"), {}, AT_S),
        ("time", (f"{AT_S}.25", f"{AT_S + 1}.25"), {}, AT_S + 0.25),
        ("timestamp", (f"{AT_S}000", f"{AT_S + 1}000"), {}, AT_S),
        ("unix_us", (f"{AT_S}000000", f"{AT_S + 1}000000"), {}, AT_S),
        ("epoch", (f"{AT_S}000000000", f"{AT_S + 1}000000000"), {}, AT_S),
        ("time", (f"{AT_S + 2_082_844_800}", f"{AT_S + 2_082_844_801}"), {}, AT_S),  # LabVIEW
        ("time", ("2023-10-03T14:17:13Z", "2023-10-03T14:17:14Z"), {}, AT_S),
        ("Date/Time", ("2023-10-03T16:17:13.5+02:00", "2023-10-03T16:17:14.5+02:00"), {}, AT_S + 0.5),
        ("DateTime", ("2023-10-03 16:17:13", "2023-10-03 16:17:14"), {"timezone": CPH}, AT_S),
        ("Datum", ("03.10.2023 16:17:13", "03.10.2023 16:17:14"), {"timezone": CPH}, AT_S),
        ("time", ("2023/10/3 16:17:13", "2023/10/3 16:17:14"), {"timezone": CPH}, AT_S),
        ("time", ("03-Oct-2023 16:17:13", "03-Oct-2023 16:17:14"), {"timezone": CPH}, AT_S),
        ("time", ("10/03/2023 4:17:13 PM", "10/13/2023 4:17:13 PM"), {"timezone": CPH}, AT_S),
        ("time", ("03/10/2023 16:17:13", "13/10/2023 16:17:13"), {"timezone": CPH}, AT_S),
        ("time (UTC)", ("2023-10-03 14:17:13", "2023-10-03 14:17:14"), {}, AT_S),
        ("time_utc", ("2023-10-03 14:17:13", "2023-10-03 14:17:14"), {"timezone": CPH}, AT_S),
        ("", ("2023-10-03T14:17:13Z", "2023-10-03T14:17:14Z"), {}, AT_S),
    ],
)
def test_time_columns(tmp_path, header, times, options, seconds):
    text = f"{header};T;U\n" + "".join(f"{time};1;2\n" for time in times)
    if options is None:
        with pytest.raises(SourceFormatError, match="no column says when") as caught:
            log_of(tmp_path, text)
        assert caught.value.hint
        return
    info = log_of(tmp_path, text, **options)
    found = read_all(info)[0]
    if isinstance(seconds, tuple):
        assert ((found / NS).tolist(), info.start_ns) == (list(seconds), None)
    else:
        assert (info.start_ns, info.start_from) == (int(seconds * 4) * NS // 4, "frame stamps")
        assert found[0] == info.start_ns
    assert channels_of(info) == [("T", None), ("U", None)]


@pytest.mark.parametrize(
    "text",
    [
        "Date,Time,T\n2023-10-03,16:17:13.25,1\n2023-10-03,16:17:14,1\n",
        "T,Day,Date,Time\n1,Tue,03.10.2023,16:17:13.25\n1,Tue,03.10.2023,16:17:14\n",
        "Date       Time          T\n2023-10-03 16:17:13.25   1\n2023-10-03 16:17:14.25   2\n",
        "timestamp T\n2023-10-03 16:17:13.25 1\n2023-10-03 16:17:14.25 2\n",
        "Date;Time;T\n03.10.2023;16:17:13,25;1,5\n03.10.2023;16:17:14,25;2,5\n",
    ],
)
def test_day_and_clock_in_two_columns(tmp_path, text):
    info = log_of(tmp_path, text, timezone=CPH)
    assert info.start_ns == AT_NS + NS // 4
    assert channels_of(info) == [("T", None)]


def test_absolute_times_go_before_elapsed_ones(tmp_path):
    info = log_of(tmp_path, f"Elapsed [s],unix,T\n0,{AT_S},1\n1,{AT_S + 1},1\n")
    assert (info.start_ns, channels_of(info)) == (AT_NS, [("Elapsed", "s"), ("T", None)])


def test_a_unit_that_is_not_said_is_a_finding(tmp_path):
    assert [finding.kind for finding in log_of(tmp_path, "time,T\n0,1\n").findings] == ["time column"]
    info = log_of(tmp_path, "A,T\n0,1\n1,1\n")
    assert "no column is named as a time; 'A', the first, rises" in info.findings[0].message


@pytest.mark.parametrize(
    ("text", "error", "words"),
    [
        ("", NoFramesError, "nothing in it"),
        ("\n \n", NoFramesError, "no rows"),
        ("# remark\n", NoFramesError, "neither frames nor readings"),
        ("time [s],T\n", NoFramesError, "only a header"),
        ("time [s],T\n\n# remark\n", NoFramesError, "only a header"),
        ("time [s],T\nx,1\ny,2\n", SourceFormatError, "no column says when"),
        ("1,2\n3,4\n", SourceFormatError, "no header"),
        ("1\n2\n3\n", SourceFormatError, "only one column"),
        ("time [s]\n1\n2\n", SourceFormatError, "only one column"),
        ("name,age\nAda,36\nBob,40\n", SourceFormatError, "no column says when"),
        ("frame,T\n0,1\n1,2\n", SourceFormatError, "no column says when"),
        ("wavelength [nm],T\n0,1\n1,2\n", SourceFormatError, "no column says when"),
        ("Date,T\n45202.5,1\n45202.6,2\n", SourceFormatError, "no column says when"),  # days since 1900, or 1904
        ("A,T\n1,1\n0,2\n", SourceFormatError, "no column says when"),
        ("a [s],T\n0,1\n", SourceFormatError, "no column says when"),  # one row does not rise
        ("Date,Time\n2023-10-03,16:17:13\n", SourceFormatError, "nothing in it but times"),
        ("time [s],note\n0,up\n1,down\n", NoFramesError, "no numbers in its 2 rows"),
        ("time,T\n16:17:13,1\n16:17:14,1\n", SourceTimeError, "times of day"),
        ("time,T\n2023-10-03 16:17:13,1\n", SourceTimeError, "no time zone"),
        ("time,T\n03/10/2023 16:17:13,1\n04/10/2023 16:17:13,1\n", SourceTimeError, "with the day or with the month"),
    ],
)
def test_what_is_no_log(tmp_path, text, error, words):
    if error is None:
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ValueError, match="not enough values"):
            look_at_log(tmp_path / "a.csv")  # no entry at all
        return
    with pytest.raises(error, match=words) as caught:
        log_of(tmp_path, text)
    assert str(tmp_path / "a.csv") in str(caught.value) or words == "times of day"
    if words not in ("nothing in it", "no rows", "no numbers in its 2 rows", "nothing in it but times"):
        assert caught.value.hint


def test_the_order_of_day_and_month_may_show_at_the_end(tmp_path):
    days = [dt.date(2023, 10, 1) + dt.timedelta(i) for i in range(20)]
    rows = "".join(f"{day:%m/%d/%Y} 10:{i % 60:02}:00,1\n" for day in days for i in range(500))
    assert len(rows[: 12 * 500 * 22]) > 64 * 1024
    info = log_of(tmp_path, "time,T\n" + rows, timezone="UTC")
    times = read_all(info)[0]
    assert (times[-1] - times[0]) // (86_400 * NS) == 19


def test_rows_of_another_zone(tmp_path):
    text = "time,T\n2023-10-03T14:17:13Z,1\n2023-10-03T16:17:14+0200,2\n2023-10-03T14:17:15,3\n"
    with pytest.raises(SourceTimeError, match="'2023-10-03T14:17:15', have no time zone"):
        log_of(tmp_path, text)
    times = read_all(log_of(tmp_path, text, timezone="UTC"))[0]
    assert (times - AT_NS).tolist() == [0, NS, 2 * NS]


@pytest.mark.parametrize(
    ("title", "name", "units"),
    [
        ("Temperature [C]", "Temperature", "C"),
        ("pressure (mbar)", "pressure", "mbar"),
        ("T/K", "T", "K"),
        ("T / °C", "T", "°C"),
        ("flux [1/(cm^2 s)]", "flux", "1/(cm^2 s)"),
        ("rate (Å/s)", "rate", "Å/s"),
        ("fluence (J/cm^2)", "fluence", "J/cm^2"),
        ("signal (arb. units)", "signal", "arb. units"),
        ("power (%)", "power", "%"),
        ("Value [0,65540]", "Value", None),
        ("Pressure (chamber)", "Pressure (chamber)", None),
        ("Sensor (1)", "Sensor (1)", None),
        ("on/off", "on/off", None),
        ("A/B", "A/B", None),
        ("[C]", "[C]", None),
        ("", "", None),
    ],
)
def test_units_in_names(title, name, units):
    assert split_units(title) == (name, units)


@pytest.mark.parametrize("text", ["C", "mTorr", "kHz", "µm", "ML/s", "sccm", "m s-1", "W/m²", "a.u.", "min"])
def test_units(text):
    assert is_unit(text)


@pytest.mark.parametrize("text", ["", " ", "heater", "1", "Open", "abc", "max"])
def test_no_units(text):
    assert not is_unit(text)


TIME_NAMES = (
    "time,Time,TIMESTAMP,time_stamp,Elapsed time,date,Date Time,t,t_ms,Unix time,time (UTC),epoch_ms,Zeit,time in s"
)


@pytest.mark.parametrize("name", TIME_NAMES.split(","))
def test_names_of_times(name):
    assert time_name(name, None) is not None


@pytest.mark.parametrize(
    "name", ["T", "T_s", "temperature", "timeout", "lifetime", "updated", "tilt", "runs", "Time constant"]
)
def test_names_of_other_things(name):
    assert time_name(name, None) is None
    assert time_name("time", "C") is None


@given(st.lists(st.sampled_from(["a", "b", "a (2)", "a (3)", ""]), max_size=8))
def test_unique_names(names):
    unique, findings = unique_names(names)
    assert len(set(unique)) == len(names)
    assert all(new == old or new.startswith(f"{old} (") for old, new in zip(names, unique, strict=True))
    assert bool(findings) == (len(set(names)) < len(names))


@given(st.integers(0, 2**62), st.sampled_from([1, 10**3, 10**6, NS]))
def test_numbers_are_exact(ns, unit_ns):
    whole, rest = divmod(ns, unit_ns)
    digits = len(str(unit_ns)) - 1
    text = f"{whole}.{rest:0{digits}}" if digits else str(whole)
    times, readable, _ = read_times(TimeRule((0,), "elapsed", unit_ns), [text])
    assert (times[0], readable[0]) == ((ns, True) if ns < 2**62 else (0, False))


@given(st.integers(1_000_000_000, 4_000_000_000), st.integers(0, 999_999), st.integers(0, 999))
def test_dates_of_one_minute_and_others(second, micro, rest):
    moment = dt.datetime.fromtimestamp(second, dt.UTC).replace(microsecond=micro)
    near = moment.replace(second=(moment.second + 7) % 60)
    texts = [f"{when:%Y-%m-%dT%H:%M:%S}.{when.microsecond:06}{rest:03}Z" for when in (moment, near, moment)]
    texts += [texts[0].replace("Z", "+01:00"), texts[0][:19] + "Z", texts[0][:17] + "61Z"]
    times, readable, unclear = read_times(TimeRule((0,), "moment"), texts)
    whole = (
        int(moment.timestamp()) * NS if moment.microsecond == 0 else int(moment.replace(microsecond=0).timestamp()) * NS
    )
    fraction = moment.microsecond * 1000 + rest
    assert times[0] == times[2] == whole + fraction
    assert times[1] == int(near.replace(microsecond=0).timestamp()) * NS + fraction
    assert times[3] == times[0] - 3600 * NS
    assert times[4] == whole
    assert (readable.tolist(), unclear) == ([True] * 5 + [False], [])


@pytest.mark.parametrize("dtype", ["<i4", ">i8", "u1", "u8", "f4", ">f8"])
def test_columns_of_numbers(dtype):
    times, readable = numbers_ns(np.array([0, 1, 100], dtype), NS)
    assert (times.tolist(), readable.tolist()) == ([0, NS, 100 * NS], [True] * 3)


def test_columns_with_what_is_no_time():
    times, readable = numbers_ns(np.array([np.nan, np.inf, -np.inf, 1e300, 5e9, AT_S + 0.25]), NS)
    assert (times.tolist(), readable.tolist()) == ([0, 0, 0, 0, 0, AT_NS + NS // 4], [False] * 5 + [True])
    times, readable = numbers_ns(np.array([2**64 - 1, 3], np.uint64), 1)
    assert (times.tolist(), readable.tolist()) == ([0, 3], [False, True])
