"""Instrument readings in HDF5 files: NXlog groups and columns that share a time column."""

import os

import fsspec
import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import (
    FrameDataError,
    NoFramesError,
    SettingsError,
    SourceChangedError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
    SourceTimeError,
)
from ingest.sources import SeriesSpec, SourceOptions, SourceSpec, discover, inspect_series, open_series
from ingest.sources.hdf5_file import release_files
from ingest.sources.log_blocks import forget_blocks
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from ingest.sources.synthetic_log import GrowthLog
from tests.sources.files import NS, START_S, pixels, write
from tests.sources.files import SAMPLES as HDF5_SAMPLES
from tests.sources.series_contract import MadeLog, SeriesContract, look_at_log, read_all

START = "2023-11-14T22:13:20Z"  # START_S


def add_nxlog(file, where, times, values, *, units="C", time_units="s", start=START, **more):
    group = file.create_group(where)
    group.attrs["NX_class"] = "NXlog"
    group.create_dataset("time", data=times, **more)
    group.create_dataset("value", data=values, **more)
    for name, value in (("units", time_units), ("start", start)):
        if value is not None:
            group["time"].attrs[name] = value
    if units is not None:
        group["value"].attrs["units"] = units
    return group


def messages(info, kind):
    return " ".join(finding.message for finding in info.findings if finding.kind == kind)


class TestNXlogs(SeriesContract):
    @pytest.fixture
    def made(self, tmp_path):
        log = GrowthLog(GrowthRun(200, 8, 8, fps=20.0))
        channels = log.channels()
        ms = np.rint((log.timestamps_s() - START_S) * 1000).astype(np.int64)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, channel in channels.items():
                where = f"entry/instrument/{name}"
                add_nxlog(file, where, ms, channel.values[:, np.newaxis], units=channel.units, time_units="ms")
        info = look_at_log(tmp_path / "a.h5")
        assert [(c.name, c.units) for c in info.channels] == [("pressure", "mbar"), ("temperature", "C")]
        assert (info.format, info.start_from, info.name) == ("NXlog", "file attributes", "a")
        assert not info.findings
        times = START_S * NS + ms * 10**6
        return MadeLog(info, [(times, channels[name].values[np.newaxis]) for name in ("pressure", "temperature")])


class TestColumnsOfSeveralBlocks(SeriesContract):
    @pytest.fixture
    def made(self, tmp_path):
        times = np.arange(150_000) / 64 + START_S
        values = np.random.default_rng(0).normal(size=(2, len(times)))
        path = write(
            tmp_path / "a.h5",
            {
                "log/time": {"data": times, "chunks": (4096,), "compression": "gzip"},
                "log/T (C)": {"data": values[0], "chunks": (1000,), "compression": "lzf"},
                "log/p": {"data": values[1]},
            },
            {"log/p@units": b"mbar"},
        )
        info = look_at_log(path)
        assert [(c.name, c.units) for c in info.channels] == [("T", "C"), ("p", "mbar")]
        assert (info.start_from, info.bytes_in) == ("frame stamps", 24 * len(times))
        assert info.spec.tables[0].block_offsets == ()
        return MadeLog(info, [(START_S * NS + np.arange(len(times)) * (NS // 64), values)])


class TestRowsWithoutATime(SeriesContract):
    @pytest.fixture
    def made(self, tmp_path):
        seconds = np.arange(140_000, dtype=np.float64)
        values = np.random.default_rng(0).normal(size=(1, len(seconds)))
        bad = np.r_[0, 5:900, 65_530:65_540, 100_000:140_000]
        seconds[bad] = np.nan
        path = write(tmp_path / "a.h5", {"time": seconds, "T": values[0]})
        info = look_at_log(path, series_start_ns=0)
        left_out = messages(info, "rows left out")
        assert f"/time: {len(bad)} of 140000 times cannot be read (rows 0, 5, 6, ...): left out" in left_out
        good = np.isfinite(seconds)
        return MadeLog(info, [(seconds[good].astype(np.int64) * NS, values[:, good])])


class TestManyTables(SeriesContract):
    @pytest.fixture
    def made(self, tmp_path):
        tables = []
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for i in range(12):
                seconds = np.arange(20 + i)
                values = np.random.default_rng(i).integers(0, 5, (1, 20 + i))
                add_nxlog(file, f"entry/log{i:02}/value_log", seconds, values[0], units=None, time_units=None)
                tables.append(((START_S + seconds) * NS, values.astype(np.float64)))
        info = look_at_log(tmp_path / "a.h5")
        assert [c.name for c in info.channels] == [f"log{i:02}" for i in range(12)]
        return MadeLog(info, tables)


class TestTimes:
    def look(self, tmp_path, times, attrs=None, name="time", **options):
        where = {f"log/{name}@{key}": value for key, value in (attrs or {}).items()}
        path = tmp_path / f"{len(os.listdir(tmp_path))}.h5"  # what was read stays open
        return look_at_log(write(path, {f"log/{name}": times, "log/T": np.zeros(len(times))}, where), **options)

    @pytest.mark.parametrize(
        ("name", "times", "attrs", "options"),
        [
            ("time", np.array([START_S, START_S + 1]), {}, {}),
            ("timestamps", np.array([START_S, START_S + 1]) * 1000, {}, {}),
            ("time", np.array([START_S, START_S + 1], "f8"), {"units": "s"}, {}),
            ("time", np.array([START_S, START_S + 1]) * 10**9, {"units": "ns"}, {}),
            ("time", np.array([0, 1]), {"units": "seconds since 2023-11-14 22:13:20Z"}, {}),
            (
                "time",
                np.array([0, 1 / 60]),
                {"units": "minutes since 2023-11-14 23:13:20"},
                {"timezone": "Europe/Berlin"},
            ),
            ("time", np.array([START_S, START_S + 1]), {"units": "s", "start": "1970-01-01T00:00:00Z"}, {}),
        ],
    )
    def test_absolute(self, tmp_path, name, times, attrs, options):
        info = self.look(tmp_path, times, attrs, name, **options, start_ns=5)
        assert (info.start_ns, info.start_from) == (START_S * NS, "frame stamps")
        assert np.diff(read_all(info)[0]).tolist() == [NS]

    @pytest.mark.parametrize(
        ("name", "times", "attrs"),
        [
            ("time", np.array([0.0, 1.0]), {}),
            ("time", np.array([0, 1]), {"units": "second"}),
            ("time", np.array([0, 1000]), {"units": b"ms"}),
            ("time", np.array([0, 1 / 60]), {"units": "min"}),
            ("elapsed_ms", np.array([0, 1000]), {}),
            ("time(s)", np.array([0, 1], "f4"), {}),
            ("t", np.array([[0], [1]], "u2"), {}),
            ("time", np.array([0, 10]), {"scaling_factor": 0.1, "units": "s"}),
        ],
    )
    def test_elapsed(self, tmp_path, name, times, attrs):
        info = self.look(tmp_path, times, attrs, name)
        assert (info.start_ns, info.start_from) == (None, None)
        assert read_all(info)[0].tolist() == [0, NS]
        given = self.look(tmp_path, times, attrs, name, start_ns=START_S * NS)
        assert (given.start_ns, given.start_from) == (START_S * NS, "user")
        assert given.fingerprint == info.fingerprint

    def test_integers_without_a_unit_are_seconds_with_a_finding(self, tmp_path):
        info = self.look(tmp_path, np.array([0, 1000]))
        assert read_all(info)[0].tolist() == [0, 1000 * NS]
        assert "its unit is not said" in messages(info, "time column")

    def test_the_files_start_time(self, tmp_path):
        path = write(tmp_path / "a.h5", {"log/time": [0.0, 1.0], "log/T": [1, 2]}, {"@start_time": START})
        info = look_at_log(path)
        assert (info.start_ns, info.start_from) == (START_S * NS, "file attributes")
        assert look_at_log(path, start_ns=5 * NS).start_from == "user"

    def test_the_file_name_and_mtime(self, tmp_path):
        path = write(tmp_path / "20231003-161713.h5", {"log/time": [0.0, 1.0], "log/T": [1, 2]})
        assert look_at_log(path, timezone="Europe/Copenhagen").start_ns == 1_696_342_633 * NS
        os.rename(path, tmp_path / "a.h5")
        os.utime(tmp_path / "a.h5", (100, 100))
        assert look_at_log(tmp_path / "a.h5", start_from_mtime=True).start_ns == 99 * NS

    def test_starts_of_nxlogs_keep_their_distance(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            add_nxlog(file, "a", [0.0, 1.0], [1, 2], start="2023-11-14T22:13:30Z")
            add_nxlog(file, "b", [0.0, 1.0], [1, 2])
            add_nxlog(file, "c", [START_S - 7, START_S], [1, 2], start=None)
        info = look_at_log(tmp_path / "a.h5", start_ns=5)  # the movie's
        assert (info.start_from, info.start_ns) == ("file attributes", (START_S - 7) * NS)
        assert [c.first_ns // NS - START_S for c in info.channels] == [10, 0, -7]
        said = look_at_log(tmp_path / "a.h5", series_start_ns=100 * NS)
        assert [c.first_ns // NS - START_S for c in said.channels] == [10, 0, -7]
        assert [read_all(said, i)[0][0] // NS - START_S for i in range(3)] == [10, 0, -7]
        assert "not used" in messages(said, "start time")

    def test_a_start_without_a_zone(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            add_nxlog(file, "a", [0.0, 1.0], [1, 2], start="2023-11-14 23:13:20")
        with pytest.raises(SourceTimeError, match="no time zone"):
            look_at_log(tmp_path / "a.h5")
        assert look_at_log(tmp_path / "a.h5", timezone="Europe/Berlin").start_ns == START_S * NS
        assert look_at_log(tmp_path / "a.h5", series_start_ns=7).start_ns == 7

    def test_a_start_that_is_none(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            add_nxlog(file, "a", [0.0, 1.0], [1, 2], start="noon")
        info = look_at_log(tmp_path / "a.h5")
        assert info.start_ns is None
        assert "'noon' is not understood" in messages(info, "start time")

    def test_order_is_kept_and_reported(self, tmp_path):
        info = self.look(tmp_path, np.array([0.0, 2.0, 1.0, 1.0]))
        assert read_all(info)[0].tolist() == [0, 2 * NS, NS, NS]
        assert "/log: 1 of 4 rows go back in time, the first at row 2" in messages(info, "backward stamps")
        assert "row 3" in messages(info, "repeated stamps")

    def test_none_is_a_number(self, tmp_path):
        with pytest.raises(NoFramesError, match="none of 2 times"):
            self.look(tmp_path, np.array([np.nan, np.nan]))


class TestWhatIsALog:
    def found(self, path, **options):
        return [
            (entry.error, entry.spec and entry.spec.dataset)
            for entry in discover([str(path)], SourceOptions(**options))
        ]

    def test_after_the_frames(self, tmp_path):
        path = write(tmp_path / "a.h5", {"frames": pixels(5), "log/time": [0.0, 1.0], "log/T": [1, 2]})
        frames, logs = discover([path])
        assert isinstance(frames.spec, SourceSpec)
        assert logs.spec == SeriesSpec("hdf5-log", (path,), dataset="logs")
        assert frames.spec.canonical_path != logs.spec.canonical_path == f"{path}::logs"

    def test_none_beside_frames_is_fine(self, tmp_path):
        write_hdf5(tmp_path / "a.h5", GrowthRun(5, 16, 16))
        write_hdf5(tmp_path / "b", GrowthRun(20, 16, 16), "chunk_files", frames_per_file=10)
        assert all(isinstance(entry.spec, SourceSpec) for entry in discover([str(tmp_path)]))

    def test_columns_of_the_frames_are_theirs(self, tmp_path):
        columns = {
            "timestamps": np.arange(5.0),
            "frame_indices": np.arange(5),
            "time": np.arange(9.0),
            "T": np.arange(9),
        }
        attributes = "entry/instrument/NDAttributes"
        more = {f"{attributes}/timestamp": np.arange(5.0), f"{attributes}/Temperature": np.arange(5.0)}
        path = write(tmp_path / "a.h5", {"frames": pixels(5), **columns, **more})
        _, logs = discover([path])
        assert [channel.name for channel in inspect_series(logs.spec).channels] == ["T"]

    def test_chunk_files_with_logs(self, tmp_path):
        paths = write_hdf5(tmp_path, GrowthRun(20, 16, 16), "chunk_files", frames_per_file=10)
        with h5py.File(paths[1], "a") as file:
            add_nxlog(file, "T", [0.0, 1.0], [1, 2])
        frames, logs = discover([str(tmp_path)])
        assert len(frames.spec.paths) == 2
        assert logs.spec.paths == (paths[1],)

    @pytest.mark.parametrize(("dataset", "channels"), [("log", ["T", "p"]), ("/log/p", ["p"]), ("other", ["value"])])
    def test_the_user_chooses(self, tmp_path, dataset, channels):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            add_nxlog(file, "other", [0.0], [1])
            for name in ("time", "T", "p"):
                file[f"log/{name}"] = [0.0, 1.0]
            file["frames"] = pixels(5)
        info = look_at_log(tmp_path / "a.h5", dataset=dataset)
        assert [channel.name for channel in info.channels] == (["other"] if dataset == "other" else channels)
        assert info.spec.dataset == "/" + dataset.strip("/")
        assert info.fingerprint != inspect_series(discover([str(tmp_path / "a.h5")])[1].spec).fingerprint

    def test_the_user_chooses_frames_or_nothing(self, tmp_path):
        path = write(tmp_path / "a.h5", {"frames": pixels(5), "log/time": [0.0, 1.0], "log/T": [1, 2]})
        assert self.found(path, dataset="frames") == [(None, "/frames")]
        ((error, spec),) = self.found(path, dataset="nowhere")
        assert (type(error), spec) == (NoFramesError, None)

    def test_a_file_with_neither(self, tmp_path):
        path = write(tmp_path / "a.h5", {"log/T": [1, 2], "spectrum/energy": [1.0, 2.0], "spectrum/counts": [1, 2]})
        ((error, _),) = self.found(path)
        assert isinstance(error, NoFramesError)

    def test_a_time_column_shared_by_links(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            first = add_nxlog(file, "a", np.arange(3.0), [1, 2, 3])
            second = file.create_group("b")
            second.attrs["NX_class"] = "NXlog"
            second["time"], second["value"] = first["time"], [4, 5, 6]
            file["c/time"], file["c/T"] = first["time"], [7, 8, 9]
        info = look_at_log(tmp_path / "a.h5")
        assert [channel.name for channel in info.channels] == ["a", "b", "T"]
        assert [read_all(info, i)[1].tolist() for i in range(3)] == [[[1, 2, 3]], [[4, 5, 6]], [[7, 8, 9]]]

    def test_names_that_occur_twice(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for where in ("upper/T", "lower/T"):
                add_nxlog(file, where, [0.0, 1.0], [1, 2])
        assert [channel.name for channel in look_at_log(tmp_path / "a.h5").channels] == ["lower/T", "upper/T"]

    def test_what_is_left_out_is_said(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            add_nxlog(file, "good", [0.0, 1.0], [1, 2])
            add_nxlog(file, "vector", [0.0, 1.0], [[1, 2], [3, 4]])
            add_nxlog(file, "text", [0.0, 1.0], [b"up", b"down"])
            add_nxlog(file, "empty", np.zeros(0), np.zeros(0))
            add_nxlog(file, "short", [0.0, 1.0], [1])
            del add_nxlog(file, "timeless", [0.0], [1])["time"]
            file["log/time"], file["log/T"], file["log/xy"] = [0.0, 1.0], [1, 2], [[1, 2], [3, 4]]
            file["log/state"] = [b"up", b"down"]
        info = look_at_log(tmp_path / "a.h5")
        assert [(c.name, c.points) for c in info.channels] == [("good", 2), ("T", 2), ("short", 1)]
        left_out = messages(info, "channel left out")
        for words in (
            "/vector/value: (2, 2) int64 is not one value a row",
            "/text/value: texts, not numbers",
            "/empty: no rows",
            "/timeless: an NXlog without a time",
            "/log/xy (2, 2) int64: more than one value a row",
            "/log/state: texts, not numbers",
        ):
            assert words in left_out
        assert "/short: 2 times but 1 values" in messages(info, "column length")

    def test_shutters_hold(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            add_nxlog(file, "shutter", [0.0, 2137.416, 3922.078], [0, 36, 0])
            add_nxlog(file, "T", [0.0, 1.0, 2.0], [0.5, 0.25, 0.75])
        assert [(c.name, c.holds) for c in look_at_log(tmp_path / "a.h5").channels] == [("T", False), ("shutter", True)]

    def test_types_of_values(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name, dtype in (("a", "?"), ("b", ">i2"), ("c", "f4"), ("d", "u8")):
                add_nxlog(file, name, [0.0, 1.0], np.array([0, 1], dtype))
        info = look_at_log(tmp_path / "a.h5")
        assert [read_all(info, i)[1].tolist() for i in range(4)] == [[[0.0, 1.0]]] * 4


class TestDamage:
    @pytest.mark.parametrize("written", [0, 70])
    def test_rows_that_were_never_written(self, tmp_path, written):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for where, rows in (("log", 10), ("bomb", 10**12)):
                columns = [file.create_dataset(f"{where}/{name}", (rows,), "f8", chunks=(5,)) for name in ("time", "T")]
                for column in columns:
                    column[: written if rows > 10 else 10] = np.arange(written if rows > 10 else 10)
        info = look_at_log(tmp_path / "a.h5", start_ns=0)
        rows = {table.where: table.rows for table in info.spec.tables}
        if written:
            assert rows == {"/log": 10, "/bomb": 70}
            assert "70 stored" in messages(info, "unwritten rows")
        else:
            assert rows == {"/log": 10}
            assert "none are stored" in messages(info, "channel left out")

    def damaged(self, tmp_path, name="value"):
        rng = np.random.default_rng(0)
        with h5py.File(tmp_path / "a.h5", "w") as file:
            add_nxlog(file, "good", np.arange(10.0), rng.normal(size=10))
            columns = np.arange(4000.0), rng.normal(size=4000)
            bad = add_nxlog(file, "T", *columns, chunks=(100,), compression="gzip", shuffle=True, fletcher32=True)
            where = bad[name].id.get_chunk_info(20)
        with open(tmp_path / "a.h5", "r+b") as file:
            file.seek(where.byte_offset + where.size // 2)
            file.write(b"\xff" * 16)
        return columns

    def test_good_rows_of_a_damaged_column_are_read(self, tmp_path):
        seconds, values = self.damaged(tmp_path)
        info = look_at_log(tmp_path / "a.h5")
        assert [channel.name for channel in info.channels] == ["T", "good"]
        assert "/T/value" in messages(info, "damage")
        reader = open_series(info.spec)
        with pytest.raises(FrameDataError, match=r"/T/value, rows 1990 to 2010"):
            reader.read(0, 1990, 2011)
        for start, stop in ((0, 2000), (2100, 4000), (1999, 2000), (2100, 2101)):
            rows = reader.read(0, start, stop)
            np.testing.assert_array_equal(rows.values[0], values[start:stop])
            np.testing.assert_array_equal(rows.timestamps_ns, (seconds[start:stop] + START_S) * NS)
        with pytest.raises(FrameDataError):
            reader.read(0, 2050, 2051)

    def test_a_damaged_time_column_costs_its_channels(self, tmp_path):
        self.damaged(tmp_path, "time")
        info = look_at_log(tmp_path / "a.h5")
        assert [channel.name for channel in info.channels] == ["good"]
        assert "/T/time, rows" in messages(info, "channel left out")

    def test_changes(self, tmp_path):
        path = write(tmp_path / "a.h5", {"log/time": np.arange(5.0), "log/T": np.arange(5)})
        info = look_at_log(path)

        def replace(**columns):
            os.replace(write(tmp_path / "new.h5", {f"log/{name}": column for name, column in columns.items()}), path)

        replace(time=np.arange(4.0), T=np.arange(4))
        with pytest.raises(SourceChangedError):
            read_all(info)
        replace(time=np.arange(5.0))
        with pytest.raises(SourceChangedError):
            read_all(info)
        replace(time=np.arange(9.0), T=np.arange(9))
        assert read_all(info)[1].tolist() == [[0, 1, 2, 3, 4]]
        os.remove(path)
        with pytest.raises(SourceNotFoundError):
            read_all(info)
        forget_blocks()

    def test_an_inspected_file_without_logs(self, tmp_path):
        path = write(tmp_path / "a.h5", {"frames": pixels(5)})
        with pytest.raises(NoFramesError, match="neither NXlog nor columns"):
            inspect_series(SeriesSpec("hdf5-log", (path,), dataset="logs"))


def test_fuzzed_headers_never_escape_our_errors(tmp_path):
    with h5py.File(tmp_path / "good.h5", "w") as file:
        add_nxlog(file, "a", np.arange(9.0), np.arange(9), chunks=(4,))
        file["log/time"], file["log/T"] = np.arange(5.0), np.arange(5)
    content = (tmp_path / "good.h5").read_bytes()
    rng = np.random.default_rng(5)
    read = 0
    for _ in range(120):
        bad = bytearray(content)
        for place in rng.integers(0, len(content), 8):
            bad[place] = rng.integers(256)
        (tmp_path / "bad.h5").write_bytes(bad)
        for entry in discover([str(tmp_path / "bad.h5")]):
            if not isinstance(entry.spec, SeriesSpec):
                continue
            try:
                info = inspect_series(entry.spec, SourceOptions(timezone="UTC"))
                for number, table in enumerate(info.spec.tables):
                    open_series(info.spec).read(number, 0, table.rows)
                    read += 1
            except (SourceFormatError, SourceReadError, FrameDataError):
                pass
    assert read > 20


def test_at_a_url(tmp_path):
    path = write(tmp_path / "a.h5", {"log/time": np.arange(5.0) + START_S, "log/T": np.arange(5)})
    store = fsspec.filesystem("memory")
    store.put(path, "/logs/a.h5")
    try:
        there, here = look_at_log("memory://logs/a.h5", start_from_mtime=True), look_at_log(path)
        assert there.fingerprint == here.fingerprint
        assert there.channels == here.channels
        assert read_all(there)[0].tolist() == read_all(here)[0].tolist() == [(START_S + i) * NS for i in range(5)]
    finally:
        store.rm("/logs", recursive=True)
        release_files()


@pytest.mark.skipif(not HDF5_SAMPLES.is_dir(), reason="the shared samples are not on this machine")
def test_the_samples_hold_frames_only():
    assert all(isinstance(entry.spec, SourceSpec) for entry in discover([str(HDF5_SAMPLES)]))


@settings(max_examples=40, deadline=None)
@given(
    times=st.lists(st.one_of(st.integers(0, 10**6), st.none()), min_size=1, max_size=60),
    cut=st.integers(0, 59),
)
def test_any_rows_left_out_and_any_slice(tmp_path_factory, times, cut):
    path = tmp_path_factory.mktemp("h") / "a.h5"
    seconds = np.array([np.nan if time is None else time for time in times], np.float64)
    write(path, {"time": seconds, "T": np.arange(len(times))})
    good = np.flatnonzero(np.isfinite(seconds))
    if not len(good):
        with pytest.raises(NoFramesError):
            look_at_log(path)
        return
    info = look_at_log(path)
    start = cut % len(good)
    rows = open_series(info.spec).read(0, start, len(good))
    assert rows.values[0].tolist() == good[start:].tolist()
    assert rows.timestamps_ns.tolist() == [times[i] * NS for i in good[start:]]
    with pytest.raises(SettingsError):
        open_series(info.spec).read(0, start, len(good) + 1)
