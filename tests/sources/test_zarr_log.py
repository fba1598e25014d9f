"""Instrument readings in Zarr lakes: exact to the row, and nothing made up for what is missing."""

import json
import os
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.errors import (
    FrameDataError,
    NoFramesError,
    SettingsError,
    SourceChangedError,
    SourceError,
    SourceNotFoundError,
    SourceReadError,
    SourceTimeError,
)
from ingest.lake.local_store import LocalStore
from ingest.series_rows import unix_seconds
from ingest.server.rows import ChannelRow, SeriesRow
from ingest.server.series_seal import seal_series
from ingest.sources import SeriesSpec, SourceOptions, SourceSpec, discover, inspect, inspect_series, open_series
from ingest.sources.log_blocks import forget_blocks
from ingest.sources.zarr_log_tables import times_ns
from tests.sources.files import NS, START_S, pixels
from tests.sources.series_contract import MadeLog, SeriesContract, look_at_log, read_all
from tests.sources.zarrs import NOT_A_TIME, TIME, lake, make

SECONDS = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
TIMES_S = START_S + np.arange(10) / 4
TIMES_NS = START_S * NS + np.arange(10) * (NS // 4)
VALUES = np.arange(10) / 2


@pytest.fixture(autouse=True)
def _forget():
    yield
    forget_blocks()


def seal(folder, channels, name="a log") -> str:
    """Seal channels, name to (times, values, units), as the embedded platform does."""
    rows = [ChannelRow(i, name, units, ()) for i, (name, (_, _, units)) in enumerate(channels.items())]
    stream = SeriesRow("d", name, 5, None, None, "closed", 0.0, 0.0, 1, 1, 1, None, (), 1, 1, 0, None)
    seal_series(stream, rows, lambda row: channels[row.name][:2], LocalStore(folder))
    return str(folder / "d.zarr")


def add(path, folder, times=TIMES_S, values=VALUES, *, time_attrs=SECONDS, value_attrs=None, **more):
    """Write one channel with plain zarr, as the layout says."""
    where = path / "timeseries" / folder
    make(where / "time", times, attributes=time_attrs, fill_value=np.asarray(times).dtype.type(0), **more)
    make(where / "value", values, attributes=value_attrs, **more)


def plain(path, *folders, attributes=None, **more):
    zarr.create_group(str(path), attributes=attributes)
    for folder in folders:
        add(path, folder, **more)
    return path


def messages(info, kind):
    return " ".join(finding.message for finding in info.findings if finding.kind == kind)


def names(info):
    return [(channel.name, channel.units) for channel in info.channels]


@pytest.fixture(scope="class")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lake")


class TestSealed(SeriesContract):
    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, folder):
        times = START_S + np.arange(150_000) / 64
        values = np.random.default_rng(0).normal(size=(2, len(times)))
        values[0, 70_000:71_000] = np.nan
        path = seal(folder, {"p/Pa": (times, values[0], "Pa"), "T": (times, values[1], None)})
        info = look_at_log(path)
        assert (names(info), info.name, info.format) == ([("p/Pa", "Pa"), ("T", None)], "a log", "Zarr lake")
        assert (info.start_from, info.findings) == ("frame stamps", ())
        assert info.bytes_in == 4 * 8 * len(times)
        assert info.spec.tables[0].block_offsets == ()
        return MadeLog(info, [(START_S * NS + np.arange(len(times)) * (NS // 64), values)])


class TestTimesOfTheirOwn(SeriesContract):
    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, folder):
        channels, tables = {}, []
        for i in range(12):
            ms = np.cumsum(np.random.default_rng(i).integers(1, 900, 20 + i))
            values = np.random.default_rng(i).integers(0, 5, (1, 20 + i)) / 3
            channels[f"log{i}"] = (START_S + ms / 1000, values[0], "°C")
            tables.append((START_S * NS + ms * 10**6, values))
        info = look_at_log(seal(folder, channels))
        assert names(info) == [(f"log{i}", "°C") for i in range(12)]
        return MadeLog(info, tables)


class TestRowsWithoutATime(SeriesContract):
    @pytest.fixture(scope="class")
    @classmethod
    def made(cls, folder):
        seconds = np.arange(140_000, dtype=np.float64)
        values = np.random.default_rng(0).normal(size=(1, len(seconds)))
        bad = np.r_[0, 5:900, 65_530:65_540, 100_000:140_000]
        seconds[bad] = np.nan
        info = look_at_log(seal(folder, {"T": (seconds, values[0], None)}))
        left_out = messages(info, "rows left out")
        assert f"/T/time: {len(bad)} of 140000 times cannot be read (rows 0, 5, 6, ...): left out" in left_out
        good = np.isfinite(seconds)
        return MadeLog(info, [(seconds[good].astype(np.int64) * NS, values[:, good])])


class TestWholeNanoseconds(SeriesContract):
    @pytest.fixture(scope="class", params=[2, 3])
    @classmethod
    def made(cls, folder, request):
        ns = START_S * NS + np.cumsum(np.random.default_rng(1).integers(1, 10**9, 5000))
        stored = ns.copy()
        stored[[7, 4000]] = NOT_A_TIME
        values = np.arange(5000) % 7
        path = plain(folder / f"{request.param}.zarr")
        add(path, "T", stored, values, time_attrs=TIME, chunks=(999,), zarr_format=request.param)
        info = look_at_log(path)
        assert messages(info, "rows left out").endswith("(rows 7, 4000): left out")
        kept = stored != NOT_A_TIME
        return MadeLog(info, [(ns[kept], values[np.newaxis, kept].astype(np.float64))])


class TestWhatWasSent:
    @settings(max_examples=200, deadline=None)
    @given(st.integers(-(2**52), 2**52), st.sampled_from([1, 1000, 10**6]))
    def test_microseconds_come_back_as_they_were(self, us, step):
        us = us // step * step
        ns, readable = times_ns(unix_seconds(np.array([us * 1000])), NS, 0)
        assert (ns.tolist(), readable.tolist()) == ([us * 1000 if readable[0] else 0], [abs(us) < 2**62 // 1000])

    @settings(max_examples=200, deadline=None)
    @given(st.floats(1e8, 4e9) | st.floats(-4e9, -1e8))
    @example(1_700_000_000.0000002)
    def test_any_time_is_sent_again_as_the_same_number(self, seconds):
        ns, readable = times_ns(np.array([seconds]), NS, 0)
        assert readable.all()
        assert unix_seconds(ns).tolist() == [seconds]

    @pytest.mark.parametrize("seconds", [np.nan, np.inf, -np.inf, 5e9, -1e300])
    def test_what_is_no_time_is_none(self, seconds):
        ns, readable = times_ns(np.array([0.5, seconds]), NS, 0)
        assert (readable.tolist(), ns.tolist()) == ([True, False], [NS // 2, 0])

    @pytest.mark.parametrize(
        ("times", "units", "zone"),
        [
            (np.arange(10) * 250, "milliseconds since 2023-11-14T22:13:20Z", None),
            (np.arange(10, dtype="u4") * 250, "ms since 2023-11-14 23:13:20", "Europe/Berlin"),
            (np.arange(10, dtype="f4") / 4, "Seconds since 2023-11-14T22:13:20+00:00", None),
            (np.arange(10) / 240, "minutes since 2023-11-14T22:13:20Z", None),
            (TIMES_NS, "nanoseconds since 1970-1-1 00:00:00", None),
        ],
    )
    def test_units(self, tmp_path, times, units, zone):
        info = look_at_log(plain(tmp_path / "a.zarr", "T", times=times, time_attrs={"units": units}), timezone=zone)
        np.testing.assert_array_equal(read_all(info)[0], TIMES_NS)

    def test_a_date_without_a_zone(self, tmp_path):
        path = plain(tmp_path / "a.zarr", "T", time_attrs={"units": "seconds since 2023-11-14"})
        with pytest.raises(SourceTimeError, match="zone"):
            look_at_log(path)

    def test_order_is_kept_and_reported(self, tmp_path):
        info = look_at_log(plain(tmp_path / "a.zarr", "T", times=START_S + np.array([0, 2, 1, 1]), values=np.arange(4)))
        assert (read_all(info)[0] // NS - START_S).tolist() == [0, 2, 1, 1]
        assert "/timeseries/T: 1 of 4 rows go back in time, the first at row 2" in messages(info, "backward stamps")

    def test_infinities_and_nothing(self, tmp_path):
        values = np.array([np.nan, np.inf, -np.inf, -0.0])
        info = look_at_log(seal(tmp_path, {"T": (START_S + np.arange(4), values, None)}))
        np.testing.assert_array_equal(read_all(info)[1], [values])

    def test_values_that_are_all_missing_are_not_damage(self, tmp_path):
        times = np.arange(70_000.0)
        values = np.full(len(times), np.nan)
        values[-1] = 1
        info = look_at_log(seal(tmp_path, {"T": (times, values, None)}))
        assert info.findings == ()
        np.testing.assert_array_equal(read_all(info)[1], [values])

    def test_shutters_hold(self, tmp_path):
        slow = (START_S + np.array([0, 2137.416, 3922.078]), np.array([0.0, 36, 0]), None)
        info = look_at_log(seal(tmp_path, {"shutter": slow, "T": (TIMES_S, VALUES, None)}))
        assert [(channel.name, channel.holds) for channel in info.channels] == [("shutter", True), ("T", False)]

    def test_a_start_that_was_said_is_not_used(self, tmp_path):
        info = look_at_log(seal(tmp_path, {"T": (TIMES_S, VALUES, None)}), series_start_ns=5)
        assert info.start_ns == TIMES_NS[0]
        assert "not used" in messages(info, "start time")


class TestTables:
    def test_channels_with_the_same_times_are_together(self, tmp_path):
        late = TIMES_S.copy()
        late[-1] += 1e-6
        logs = {"a": TIMES_S, "b": late, "c": TIMES_S, "d": TIMES_S[:9], "e": late}
        info = look_at_log(seal(tmp_path, {name: (times, VALUES[: len(times)], name) for name, times in logs.items()}))
        assert [[channel.name for channel in table.channels] for table in info.spec.tables] == [
            ["a", "c"],
            ["b", "e"],
            ["d"],
        ]
        assert names(info) == [(name, name) for name in "acbed"]

    def test_as_many_as_a_block_has_room_for(self, tmp_path, monkeypatch):
        monkeypatch.setattr("ingest.sources.zarr_log.BLOCK_VALUES", 4 * 10)
        info = look_at_log(seal(tmp_path, {f"c{i}": (TIMES_S, VALUES + i, None) for i in range(8)}))
        assert [len(table.channels) for table in info.spec.tables] == [3, 3, 2]
        assert [read_all(info, i)[1][0, 0] for i in range(3)] == [0, 3, 6]

    def test_many_channels_come_in_their_order(self, tmp_path):
        logs = {f"{(7 * i) % 20}": (TIMES_S, VALUES + i, None) for i in range(20)}
        info = look_at_log(seal(tmp_path, logs))
        assert [channel.name for channel in info.channels] == list(logs)
        np.testing.assert_array_equal(read_all(info)[1], [values for _, values, _ in logs.values()])


class TestNames:
    @pytest.mark.parametrize(
        "name", ["Temp °C", "a/b", "..", "zarr.json", "x" * 900, "é" * 300, "%2F", "T\n", "time", "\x00"]
    )
    def test_any_that_was_sealed(self, tmp_path, name):
        assert names(look_at_log(seal(tmp_path, {name: (TIMES_S, VALUES, " K ")}))) == [(name, " K ")]

    def test_those_of_the_folders(self, tmp_path):
        path = plain(tmp_path / "a.zarr", "%C2%B0C", "p", value_attrs={"units": "mbar", "long_name": ["no text"]})
        assert names(look_at_log(path)) == [("°C", "mbar"), ("p", "mbar")]
        assert look_at_log(path).name == "a"

    def test_a_blank_one_is_sent_as_its_folder(self, tmp_path):
        assert [name for name, _ in names(look_at_log(seal(tmp_path, {"": (TIMES_S, VALUES, None)})))] == ["%"]

    def test_one_that_is_there_twice(self, tmp_path):
        path = plain(tmp_path / "a.zarr", "a", "b", value_attrs={"long_name": "T"})
        info = look_at_log(path)
        assert [name for name, _ in names(info)] == ["T", "T (2)"]
        assert messages(info, "channel names")

    def test_what_is_not_text(self, tmp_path):
        path = plain(tmp_path / "a.zarr", "T", value_attrs={"long_name": "\ud800", "units": "\udfff"})
        assert names(look_at_log(path)) == [("T", None)]
        folder = os.fsencode(path / "timeseries") + b"/\xff"
        shutil.copytree(path / "timeseries" / "T", os.fsdecode(folder))
        info = look_at_log(path)
        assert (names(info), "not text" in messages(info, "channel left out")) == ([("T", None)], True)


class TestWhatIsALog:
    def found(self, path, **options):
        entries = discover([str(path)], SourceOptions(**options))
        return [type(entry.error) if entry.error else (entry.spec.kind, entry.spec.dataset) for entry in entries]

    def test_after_the_frames(self, tmp_path):
        frames = pixels(5)
        path = lake(tmp_path / "a.zarr", frames)
        before = inspect(discover([path])[0].spec)
        add(tmp_path / "a.zarr", "T")
        movie, log = discover([path])
        assert isinstance(movie.spec, SourceSpec)
        assert inspect(movie.spec).fingerprint == before.fingerprint
        assert log.spec == SeriesSpec("zarr-log", (path,), dataset="timeseries")
        assert log.spec.canonical_path == f"{path}::timeseries"
        assert movie.spec.canonical_path != log.spec.canonical_path
        info = inspect_series(log.spec)
        assert (info.name, info.fingerprint != before.fingerprint) == ("a growth", True)
        np.testing.assert_array_equal(read_all(info)[1], [VALUES])

    def test_one_part(self, tmp_path):
        path = tmp_path / "a.zarr"
        lake(path, pixels(5))
        add(path, "T")
        add(path, "p", values=VALUES + 1)
        assert self.found(path, dataset="frames") == [("zarr", "/frames")]
        assert self.found(path, dataset="/timeseries/") == [("zarr-log", "timeseries")]
        assert self.found(path, dataset="nowhere") == [NoFramesError]
        for part in ("timeseries/p", "/timeseries/p/value"):
            info = look_at_log(path, dataset=part)
            assert (info.spec.dataset, names(info)) == ("/" + part.strip("/"), [("p", None)])
            assert read_all(info)[1].tolist() == [(VALUES + 1).tolist()]
        assert len({look_at_log(path, dataset=part).fingerprint for part in ("timeseries", "timeseries/p")}) == 2

    @pytest.mark.parametrize(
        ("arrays", "found"),
        [
            ({"frames": pixels(5), "log/T/time": TIMES_S, "log/T/value": VALUES}, [("zarr", "/frames")]),
            ({"frames": pixels(5), "timeseries/T/time": TIMES_S, "timeseries/T/value": VALUES}, [("zarr", "/frames")]),
            ({"frames": pixels(5), "timeseries/time": TIMES_S, "timeseries/value": VALUES}, [("zarr", "/frames")]),
            ({"timeseries/T/value": VALUES}, [NoFramesError]),
            ({"x/timeseries/T/time": TIMES_S, "x/timeseries/T/value": VALUES}, [NoFramesError]),
        ],
    )
    def test_groups_of_others_are_left_alone(self, tmp_path, arrays, found):
        zarr.create_group(str(tmp_path / "a.zarr"))
        for name, values in arrays.items():
            make(tmp_path / "a.zarr" / name, values)
        assert self.found(tmp_path / "a.zarr") == found

    @pytest.mark.parametrize("channels", [{}, {"T": (np.zeros(0), np.zeros(0), None)}])
    def test_a_stream_without_readings(self, tmp_path, channels):
        (found,) = discover([seal(tmp_path, channels)])
        assert isinstance(found.error, NoFramesError)
        assert "instrument readings, without any" in str(found.error)

    def test_what_is_left_out_is_said(self, tmp_path):
        listed = {"format": "rheed-ingest", "channels": ["good", "gone"]}
        path = plain(tmp_path / "a.zarr", "good", "timeless", "short", attributes=listed)
        shutil.rmtree(path / "timeseries" / "timeless" / "time")
        add(path, "short", values=VALUES[:3])
        add(path, "vector", values=np.zeros((10, 2)))
        add(path, "complex", values=VALUES.astype("c8"))
        add(path, "packed", values=np.arange(10), value_attrs={"scale_factor": 0.1})
        add(path, "empty", np.zeros(0), np.zeros(0), chunks=(1,))
        add(path, "unitless", time_attrs={"units": "s"})
        add(path, "undated", time_attrs={"units": "s since growth"})
        add(path, "broken")
        (path / "timeseries" / "broken" / "value" / "zarr.json").write_text("{}")
        add(path, "sharded", chunks=(2,), shards=(4,))
        info = look_at_log(path)
        assert [(channel.name, channel.points) for channel in info.channels] == [("good", 10), ("short", 3)]
        left_out = messages(info, "channel left out")
        for words in (
            "/timeseries/timeless: has no time",
            "/timeseries/vector/value (10, 2) float64 is not one number a row",
            "complex64 is not one number",
            "/timeseries/packed: its values are packed",
            "/timeseries/empty: no rows",
            "/timeseries/unitless: its times have units 's'",
            "'s since growth' is not understood",
            "/timeseries/broken/value: its metadata make no sense",
            "/timeseries/broken: has no value",
            "stored in shards",
            "names 2, of which 1 are not there: 'gone'",
        ):
            assert words in left_out
        assert "/timeseries/short: 10 times but 3 values" in messages(info, "column length")


class TestDamage:
    ROWS = 150_000

    def sealed(self, tmp_path):
        times = START_S + np.arange(self.ROWS) / 64
        values = np.random.default_rng(0).normal(size=(2, self.ROWS))
        path = seal(tmp_path, {"good": (times, values[0], None), "T": (times, values[1], None)})
        return path, values

    def damage(self, path, name, how, block=1):
        file = os.path.join(path, "timeseries", name, "c", str(block))
        size = os.path.getsize(file)
        if how == "gone":
            os.unlink(file)
        elif how == "torn":
            os.truncate(file, size // 2)
        elif how == "empty":
            os.truncate(file, 0)
        elif how == "a folder":
            os.unlink(file)
            os.mkdir(file)
        else:
            with open(file, "r+b") as opened:
                opened.write(b"\xff" * 64)

    @pytest.mark.parametrize("how", ["gone", "torn", "empty", "garbage", "a folder"])
    def test_good_rows_of_a_damaged_channel_are_read(self, tmp_path, how):
        path, values = self.sealed(tmp_path)
        self.damage(path, "T/value", how)
        info = look_at_log(path)
        assert [channel.name for channel in info.channels] == ["good", "T"]
        assert "timeseries/T/value: rows 65536 to 131071" in messages(info, "damage")
        np.testing.assert_array_equal(read_all(info, 0)[1], values[:1])
        reader = open_series(info.spec)
        for start, stop in ((65_530, 65_540), (70_000, 70_001), (131_071, 131_072), (0, self.ROWS)):
            with pytest.raises(FrameDataError, match="T/value: rows"):
                reader.read(1, start, stop)
        for start, stop in ((0, 65_536), (65_535, 65_536), (131_072, self.ROWS)):
            rows = reader.read(1, start, stop)
            np.testing.assert_array_equal(rows.values, values[1:, start:stop])
            np.testing.assert_array_equal(rows.timestamps_ns, START_S * NS + np.arange(start, stop) * (NS // 64))

    @pytest.mark.parametrize("how", ["gone", "torn", "empty", "garbage", "a folder"])
    def test_damage_after_it_was_inspected(self, tmp_path, how):
        path, _ = self.sealed(tmp_path)
        info = look_at_log(path)
        assert len(info.spec.tables) == 1
        self.damage(path, "T/value", how)
        with pytest.raises(FrameDataError, match="T/value"):
            open_series(info.spec).read(0, 100_000, 100_001)
        assert open_series(info.spec).read(0, 5, 7).values.shape == (2, 2)

    @pytest.mark.parametrize("how", ["gone", "torn", "empty", "garbage", "a folder"])
    def test_a_damaged_time_costs_its_channel(self, tmp_path, how):
        path, values = self.sealed(tmp_path)
        self.damage(path, "good/time", how, block=2)
        info = look_at_log(path)
        assert [channel.name for channel in info.channels] == ["T"]
        assert "good/time: rows 131072 to 149999" in messages(info, "channel left out")
        np.testing.assert_array_equal(read_all(info)[1], values[1:])

    def test_nothing_left(self, tmp_path):
        path, _ = self.sealed(tmp_path)
        (spec,) = [found.spec for found in discover([path])]
        for name in ("good/time", "T/time"):
            self.damage(path, name, "gone")
        with pytest.raises(NoFramesError, match="good/time: rows 65536 to 131071: c/1 is not there"):
            inspect_series(spec)

    def test_changes(self, tmp_path):
        path = plain(tmp_path / "a.zarr", "T")
        info = look_at_log(path)
        add(path, "T", TIMES_S[:9], VALUES[:9])
        with pytest.raises(SourceChangedError, match="has not the 10 rows"):
            read_all(info)
        add(path, "T", np.where(np.arange(10) > 4, np.nan, TIMES_S), VALUES)
        with pytest.raises(SourceChangedError, match="fewer rows"):
            read_all(info)
        shutil.rmtree(path / "timeseries" / "T")
        with pytest.raises(SourceNotFoundError):
            read_all(info)

    def test_a_disk_that_is_gone_is_no_damage(self, tmp_path):
        path = plain(tmp_path / "a.zarr", "T")
        info = look_at_log(path)
        reader = open_series(info.spec)
        reader.read(0, 0, 1)
        forget_blocks()
        os.rename(path, tmp_path / "b.zarr")
        with pytest.raises(SourceNotFoundError):
            reader.read(0, 0, 1)
        os.rename(tmp_path / "b.zarr", path)
        assert len(reader.read(0, 0, 10).timestamps_ns) == 10

    def test_what_the_system_cannot_read_may_be_tried_again(self, tmp_path):
        path = plain(tmp_path / "a.zarr", "T")
        info = look_at_log(path)
        file = path / "timeseries/T/value/c/0"
        os.unlink(file)
        os.symlink(file, file)
        with pytest.raises(SourceReadError):
            read_all(info)
        with pytest.raises(SourceReadError):
            look_at_log(path)

    @pytest.mark.parametrize(
        ("shape", "chunks"), [((10**12,), (10,)), ((10**15,), (10**15,)), ((2**70,), (10,)), ((10**9,), (10**9,))]
    )
    def test_numbers_that_are_too_large_to_be_real(self, tmp_path, shape, chunks):
        path = plain(tmp_path / "a.zarr", "T", "good")
        for name in ("time", "value"):
            file = path / "timeseries" / "T" / name / "zarr.json"
            said = json.loads(file.read_text())
            said["shape"], said["chunk_grid"]["configuration"]["chunk_shape"] = shape, chunks
            file.write_text(json.dumps(said))
        info = look_at_log(path)
        assert [channel.name for channel in info.channels] == ["good"]
        assert "/timeseries/T/" in messages(info, "channel left out")

    def test_an_empty_spec(self, tmp_path):
        with pytest.raises(NoFramesError, match="nothing in /timeseries"):
            inspect_series(SeriesSpec("zarr-log", (str(plain(tmp_path / "a.zarr")),), dataset="timeseries"))


class TestFingerprint:
    def test_is_that_of_the_readings(self, tmp_path):
        path = seal(tmp_path, {"T": (TIMES_S, VALUES, "K"), "p": (TIMES_S, VALUES, None)})
        known = look_at_log(path).fingerprint
        shutil.copytree(path, tmp_path / "copy.zarr")
        root = tmp_path / "copy.zarr" / "zarr.json"
        said = json.loads(root.read_text())
        said["attributes"]["sample"] = "linked later"
        root.write_text(json.dumps(said))
        assert look_at_log(tmp_path / "copy.zarr").fingerprint == known
        (tmp_path / "other").mkdir()
        other = VALUES.copy()
        other[5] += 1
        for logs in (
            {"T": (TIMES_S, other, "K"), "p": (TIMES_S, VALUES, None)},
            {"T": (TIMES_S + 1, VALUES, "K"), "p": (TIMES_S, VALUES, None)},
            {"T": (TIMES_S, VALUES, "C"), "p": (TIMES_S, VALUES, None)},
            {"T": (TIMES_S, VALUES, "K")},
        ):
            shutil.rmtree(tmp_path / "other")
            assert look_at_log(seal(tmp_path / "other", logs)).fingerprint != known


def test_fuzzed_stores_never_escape_our_errors(tmp_path):
    good = tmp_path / "good.zarr"
    plain(good, "T", "p", attributes={"format": "rheed-ingest", "channels": ["p", "T"]}, chunks=(4,))
    files = sorted(path.relative_to(good) for path in good.rglob("*") if path.is_file())
    rng = np.random.default_rng(5)
    read = 0
    for number in range(50):
        bad = tmp_path / f"{number}.zarr"
        shutil.copytree(good, bad)
        for file in rng.choice(np.array(files, object), 3):
            content = bytearray((bad / file).read_bytes())
            for place in rng.integers(0, len(content), 2):
                content[place] = rng.integers(256)
            (bad / file).write_bytes(content)
        for entry in discover([str(bad)]):
            if not isinstance(entry.spec, SeriesSpec):
                continue
            try:
                info = inspect_series(entry.spec, SourceOptions(timezone="UTC"))
                for table in range(len(info.spec.tables)):
                    read += len(read_all(info, table)[0]) > 0
            except SourceError:
                pass
    assert read > 12


@settings(max_examples=20, deadline=None)
@given(
    times=st.lists(st.one_of(st.integers(0, 10**6), st.none()), min_size=1, max_size=60),
    cut=st.integers(0, 59),
    chunk=st.integers(1, 60),
)
def test_any_rows_left_out_and_any_slice(tmp_path_factory, times, cut, chunk):
    path = plain(tmp_path_factory.mktemp("z") / "a.zarr")
    seconds = np.array([np.nan if time is None else time for time in times], np.float64)
    add(path, "T", seconds, np.arange(len(times)), chunks=(chunk,), config={"write_empty_chunks": True})
    good = np.flatnonzero(np.isfinite(seconds))
    if not len(good):
        with pytest.raises(NoFramesError, match="times is a number"):
            look_at_log(path)
        return
    info = look_at_log(path)
    start = cut % len(good)
    rows = open_series(info.spec).read(0, start, len(good))
    assert rows.values[0].tolist() == good[start:].tolist()
    assert rows.timestamps_ns.tolist() == [times[i] * NS for i in good[start:]]
    with pytest.raises(SettingsError):
        open_series(info.spec).read(0, start, len(good) + 1)
