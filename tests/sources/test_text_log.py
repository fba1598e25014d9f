"""Text logs: the contract of each kind, real ones, damaged ones, long ones."""

import csv
import math
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ingest.errors import (
    NoFramesError,
    SettingsError,
    SourceChangedError,
    SourceFormatError,
    SourceNotFoundError,
    SourceTimeError,
)
from ingest.sources import SeriesSpec, SourceOptions, discover, inspect_series, open_series
from ingest.sources.log_blocks import forget_blocks
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_log import GrowthLog
from tests.sources.files import NS, START_S
from tests.sources.series_contract import MadeLog, SeriesContract, look_at_log, read_all

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
needs_samples = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not on this machine")
GM1_HEADER = "Elapsed time [s]\tValue [0,100]\r\n"


def kinds(info):
    return [finding.kind for finding in info.findings]


def messages(info, kind):
    return " ".join(finding.message for finding in info.findings if finding.kind == kind)


def write_text(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


def steady(path, rows, columns=2):
    """A CSV of elapsed seconds, 10 rows a second, and what it must give."""
    values = np.random.default_rng(0).normal(size=(columns, rows)).round(6)
    times = np.arange(rows)
    with open(path, "w") as file:
        file.write("time [s]," + ",".join(f"c{i}" for i in range(columns)) + "\n")
        file.writelines(
            f"{i / 10:.1f}," + ",".join(repr(float(value)) for value in values[:, i]) + "\n" for i in range(rows)
        )
    return times * (NS // 10), values


class TestCsvOfSeveralBlocks(SeriesContract):
    @pytest.fixture
    def made(self, tmp_path):
        times, values = steady(tmp_path / "a.csv", 9001)
        info = look_at_log(tmp_path / "a.csv", series_start_ns=START_S * NS)
        assert len(info.spec.tables[0].block_offsets) == 3
        return MadeLog(info, [(times + START_S * NS, values)])


class TestUnknownStart(SeriesContract):
    @pytest.fixture
    def made(self, tmp_path):
        table = steady(tmp_path / "a.csv", 50)
        return MadeLog(look_at_log(tmp_path / "a.csv"), [table])


class TestRowsLeftOutInEveryPlace(SeriesContract):
    @pytest.fixture
    def made(self, tmp_path):
        times, values = steady(tmp_path / "a.csv", 9000)
        lines = (tmp_path / "a.csv").read_text().splitlines(keepends=True)
        for at in (8999, 4098, 4097, 4096, 1):
            lines.insert(at, "# a remark\n\nno,row\nbad,1,2\n")
        write_text(tmp_path / "a.csv", "".join(lines))
        return MadeLog(look_at_log(tmp_path / "a.csv"), [(times, values)])


class TestGm1(SeriesContract):
    @pytest.fixture
    def made(self, tmp_path):
        (tmp_path / "growth_12").mkdir()
        tables = []
        for device in (1, 2, 10):
            seconds = np.cumsum(np.random.default_rng(device).uniform(1.0, 3.0, 150)).round(3)
            values = np.random.default_rng(device).normal(size=150).round(5)
            rows = "".join(f"{t:.3f}\t{v:.5f}\r\n" for t, v in zip(seconds, values, strict=True))
            write_text(tmp_path / "growth_12" / f"T{device}.Measured.txt", GM1_HEADER + rows)
            tables.append((np.rint(seconds * 1000).astype(np.int64) * 10**6 + START_S * NS, values[np.newaxis]))
        info = look_at_log(tmp_path / "growth_12", start_ns=START_S * NS)
        assert (info.name, info.start_from) == ("growth_12", "user")
        assert [channel.name for channel in info.channels] == ["T1.Measured", "T2.Measured", "T10.Measured"]
        return MadeLog(info, tables)


class TestGrowthLogWithGermanExcel(SeriesContract):
    @pytest.fixture
    def made(self, tmp_path):
        log = GrowthLog(GrowthRun(400, 8, 8, fps=20.0))
        channels = log.channels()
        times = np.rint(log.timestamps_s() * 1000).astype(np.int64)
        rows = [
            ";".join([str(ms), *(repr(float(c.values[i])).replace(".", ",") for c in channels.values())])
            for i, ms in enumerate(times.tolist())
        ]
        text = "\ufeffZeit (ms);temperature [°C];pressure (mbar)\r\n" + "\r\n".join(rows) + "\r\n"
        info = look_at_log(write_text(tmp_path / "a.csv", text))
        assert [(c.name, c.units) for c in info.channels] == [("temperature", "°C"), ("pressure", "mbar")]
        assert (info.start_from, info.findings) == ("frame stamps", ())
        return MadeLog(info, [(times * 10**6, np.array([c.values for c in channels.values()]))])


@needs_samples
class TestRealGm1(SeriesContract):
    @pytest.fixture
    def made(self):
        info = look_at_log(SAMPLES / "mbe_logs", series_start_ns=START_S * NS)
        tables = []
        for table in info.spec.tables:
            with open(table.path, newline="") as file:
                rows = list(csv.reader(file, delimiter="\t"))[1:]
            ms = np.array([round(float(row[0]) * 1000) for row in rows])
            tables.append((ms * 10**6 + START_S * NS, np.array([[float(row[1]) for row in rows]])))
        return MadeLog(info, tables)

    def test_facts(self):
        info = look_at_log(SAMPLES / "mbe_logs")
        assert (info.name, info.format, info.start_ns) == ("mbe_logs", "PARADIM GM1 logs", None)
        assert [(c.name, c.points, c.last_ns, c.holds) for c in info.channels] == [
            ("GM1_MainShutter_Control.Value", 1, 0, True),
            ("GM1_Shutter_Control.Value", 3, 3_922_078_000_000, True),
            ("GM1_subs_Laser.Measured", 2004, 4_227_422_000_000, False),
            ("GM1_subs_center.Measured", 2023, 4_228_921_000_000, False),
            ("O3_Nozzle_IonGauge.Measured", 1277, 4_228_941_000_000, False),
        ]
        assert all(c.units is None and c.first_ns == 0 for c in info.channels)
        assert not info.findings
        times, values = read_all(info, 1)
        assert times.tolist() == [0, 2_137_416_000_000, 3_922_078_000_000]
        assert values.tolist() == [[0.0, 36.0, 0.0]]
        assert read_all(info, 4)[1][0, :2].tolist() == [2.30733e-7, 2.30703e-7]

    def test_mtime_is_the_end_of_it(self, tmp_path):
        for source in (SAMPLES / "mbe_logs").iterdir():
            (tmp_path / source.name).write_bytes(source.read_bytes())
            os.utime(tmp_path / source.name, (START_S + 5000, START_S + 5000))
        info = look_at_log(tmp_path, start_from_mtime=True)
        assert (info.start_from, info.spec.zero_ns) == ("mtime", (START_S + 5000) * NS - 4_228_941_000_000)


@needs_samples
class TestRealSafire(SeriesContract):
    @pytest.fixture
    def made(self):
        path = SAMPLES / "safire" / "export point scan.asc"
        rows = [line.split() for line in path.read_text().splitlines()[4:]]
        values = np.array([[float(cell) for cell in row[1:]] for row in rows]).T
        zero_ns = 1_766_414_377_869_000_000  # 15:39:37.869 in Berlin is 14:39:37.869 UTC
        info = look_at_log(path, timezone="Europe/Berlin")
        return MadeLog(info, [(zero_ns + np.arange(32) * NS, values)])

    def test_facts(self, made):
        info = made.info
        assert (info.format, info.start_from) == ("SAFIRE point scan", "file attributes")
        assert [channel.name for channel in info.channels] == ["Sensor 1", "Sensor 2", "Sensor 3"]
        assert info.start_ns == 1_766_414_377_869_000_000
        assert read_all(info)[1][:, 3].tolist() == [224.561, 1.5964, 40.8148]
        assert not info.findings

    def test_its_time_needs_a_zone_whatever_is_said_of_the_movie(self):
        path = SAMPLES / "safire" / "export point scan.asc"
        for options in ({}, {"start_ns": 5 * NS}):
            with pytest.raises(SourceTimeError, match="no time zone") as caught:
                look_at_log(path, **options)
            assert caught.value.hint
        info = look_at_log(path, series_start_ns=5 * NS)  # it names no zone
        assert (info.start_ns, info.start_from) == (5 * NS, "user")

    def test_its_own_time_stays_whatever_is_said_of_logs(self, made):
        path = SAMPLES / "safire" / "export point scan.asc"
        info = look_at_log(path, series_start_ns=5 * NS, timezone="Europe/Berlin")
        assert info.start_from == "file attributes"
        assert abs(info.start_ns - made.info.start_ns) < 13 * 3600 * NS
        assert "is not used" in messages(info, "start time")


class TestStart:
    def elapsed(self, path):
        path.parent.mkdir(exist_ok=True)
        return write_text(path, "time [s],T\n1.5,20\n2.5,21\n")

    def test_unknown(self, tmp_path):
        info = look_at_log(self.elapsed(tmp_path / "a.csv"))
        assert (info.start_ns, info.start_from, info.spec.zero_ns) == (None, None, 0)
        assert info.channels[0].first_ns == 1_500_000_000

    def test_zero_is_when_elapsed_time_was_0(self, tmp_path):
        info = look_at_log(self.elapsed(tmp_path / "a.csv"), start_ns=100 * NS, start_said_by="sidecar")
        assert (info.spec.zero_ns, info.start_ns, info.start_from) == (100 * NS, 101_500_000_000, "sidecar")

    def test_the_logs_start_goes_before_the_movies(self, tmp_path):
        info = look_at_log(self.elapsed(tmp_path / "a.csv"), start_ns=100 * NS, series_start_ns=90 * NS)
        assert info.spec.zero_ns == 90 * NS

    @pytest.mark.parametrize("name", ["T_20231003-161713.csv", "2023-10-03_16-17-13/T.csv"])
    def test_a_name_of_file_or_folder(self, tmp_path, name):
        info = look_at_log(self.elapsed(tmp_path / name), timezone="Europe/Copenhagen")
        assert (info.start_from, info.spec.zero_ns) == ("file name", 1_696_342_633 * NS)
        without = look_at_log(self.elapsed(tmp_path / name))
        assert without.start_from is None
        assert "zone" in messages(without, "start time")

    def test_a_gm1_folder_says_when(self, tmp_path):
        folder = tmp_path / "growth 2023-10-03_16-17-13"
        folder.mkdir()
        for name in ("a", "b"):
            write_text(folder / f"{name}.Measured.txt", GM1_HEADER + "0.0\t1.5\r\n1.0\t2.5\r\n")
        assert look_at_log(folder, timezone="Europe/Copenhagen").spec.zero_ns == 1_696_342_633 * NS

    def test_mtime_minus_duration(self, tmp_path):
        path = self.elapsed(tmp_path / "a.csv")
        os.utime(path, (1000, 1000))
        info = look_at_log(path, start_from_mtime=True)
        assert (info.spec.zero_ns, info.start_from) == (997_500_000_000, "mtime")

    def test_dates_are_never_shifted(self, tmp_path):
        path = write_text(tmp_path / "20200101-000000.csv", "time,T\n2023-10-03T14:17:13Z,1\n2023-10-03T14:17:14Z,2\n")
        info = look_at_log(path, start_ns=5, start_from_mtime=True, timezone="UTC")
        assert (info.start_ns, info.start_from, info.spec.zero_ns) == (1_696_342_633 * NS, "frame stamps", 0)
        assert not info.findings
        assert "not used" in messages(look_at_log(path, series_start_ns=5), "start time")

    def test_a_zone_that_is_none(self, tmp_path):
        path = write_text(tmp_path / "a.csv", "time,T\n2023-10-03 14:17:13,1\n")
        with pytest.raises(SettingsError, match="no time zone"):
            look_at_log(path, timezone="Europe/Kopenhagen")

    def test_the_clock_goes_back_as_summer_time_ends(self, tmp_path):
        hours = "".join(f"2023-10-29 {hour:02}:30:00,{hour}\n" for hour in (0, 1, 2, 3, 4))
        info = look_at_log(write_text(tmp_path / "a.csv", "time,T\n" + hours), timezone="Europe/Copenhagen")
        times, values = read_all(info)
        assert values.tolist() == [[0, 1, 3, 4]]
        assert np.diff(times).tolist() == [3600 * NS, 3 * 3600 * NS, 3600 * NS]
        assert "1 row has a local time that the clock showed twice, or never" in messages(info, "rows left out")


class TestFolders:
    def test_each_file_is_what_it_is(self, tmp_path):
        write_text(tmp_path / "T1.Measured.txt", GM1_HEADER + "0.0\t1.5\r\n")
        write_text(tmp_path / "T2.Measured.txt", GM1_HEADER + "0.0\t1.5\r\n")
        write_text(tmp_path / "good.csv", "time [s],T\n1,2\n")
        write_text(tmp_path / "spectrum.csv", "wavelength [nm],counts\n400,2\n401,3\n")
        write_text(tmp_path / "samples.csv", "name,owner\nSTO 12,Ada\nSTO 13,Bob\n")
        write_text(tmp_path / "notes.txt", "nothing")
        write_text(tmp_path / "empty.csv", "")
        write_text(tmp_path / "header.csv", "time [s],T\n")
        (tmp_path / "binary.csv").write_bytes(bytes(range(256)) * 8)
        found = {os.path.basename(entry.path): entry for entry in discover([str(tmp_path)])}
        assert {name: type(entry.error) for name, entry in found.items()} == {
            "T1.Measured.txt": type(None),
            "good.csv": type(None),
            "spectrum.csv": SourceFormatError,
            "empty.csv": NoFramesError,
            "header.csv": NoFramesError,
            "binary.csv": SourceFormatError,
        }
        assert all(entry.error is None or entry.error.hint or "no rows" in str(entry.error) for entry in found.values())
        assert len(found["T1.Measured.txt"].spec.paths) == 2
        assert found["T1.Measured.txt"].spec.canonical_path == f"{tmp_path}/::logs"

    def test_a_gm1_file_that_holds_nothing_is_a_finding(self, tmp_path):
        write_text(tmp_path / "T1.Measured.txt", GM1_HEADER + "0.0\t1.5\r\n")
        write_text(tmp_path / "T2.Measured.txt", GM1_HEADER)
        write_text(tmp_path / "T3.Measured.txt", GM1_HEADER + "0.0\tx\r\n")
        info = look_at_log(tmp_path)
        assert [channel.name for channel in info.channels] == ["T1.Measured"]
        left_out = messages(info, "channel left out")
        assert "T2.Measured.txt: no rows" in left_out
        assert "T3.Measured.txt: no numbers" in left_out

    def test_all_gm1_files_hold_nothing(self, tmp_path):
        for name in ("a", "b"):
            write_text(tmp_path / f"{name}.Measured.txt", GM1_HEADER)
        with pytest.raises(NoFramesError, match="no rows in any of 2"):
            look_at_log(tmp_path)

    def test_a_copy_has_the_same_fingerprint(self, tmp_path):
        infos = []
        for folder, last in (("a", "1.5"), ("b", "1.5"), ("c", "1.6")):
            (tmp_path / folder).mkdir()
            write_text(tmp_path / folder / "T2.Measured.txt", GM1_HEADER + "0.0\t1.5\r\n")
            write_text(tmp_path / folder / "T10.Measured.txt", GM1_HEADER + f"0.0\t{last}\r\n")
            infos.append(look_at_log(tmp_path / folder))
        assert infos[0].fingerprint == infos[1].fingerprint != infos[2].fingerprint
        assert look_at_log(tmp_path / "a", start_ns=5).fingerprint == infos[0].fingerprint

    def test_gone_since_it_was_found(self, tmp_path):
        with pytest.raises(SourceNotFoundError):
            inspect_series(SeriesSpec("text-log", (str(tmp_path / "a.csv"),)), SourceOptions())


class TestDamage:
    def test_rows_of_other_lengths_and_times_are_counted(self, tmp_path):
        text = "time [s],T,P\n0,1,2\n1,1\n2,1,2\n3,1,2,3\nx,1,2\n,1,2\nnan,1,2\n1e999999999,1,2\n4,1,2\n,,\n"
        info = look_at_log(write_text(tmp_path / "a.csv", text))
        assert read_all(info)[0].tolist() == [0, 2 * NS, 4 * NS]
        left_out = messages(info, "rows left out")
        assert "a.csv: 2 rows have other than 3 fields (lines 3, 5): left out" in left_out
        assert "4 rows have a time that cannot be read (lines 6, 7, 8, ...): left out" in left_out

    def test_a_cut_last_line(self, tmp_path):
        info = look_at_log(write_text(tmp_path / "a.csv", "time [s],T,P\n0,1,2\n1,1,2\n2,1"))
        assert read_all(info)[0].tolist() == [0, NS]
        assert kinds(info) == ["cut last line"]
        assert "line 4" in info.findings[0].message

    def test_a_last_line_without_an_end_may_be_cut(self, tmp_path):
        info = look_at_log(write_text(tmp_path / "a.csv", "time [s],T\n0,1\n1,15"))
        assert read_all(info)[1].tolist() == [[1, 15]]
        assert kinds(info) == ["last line"]
        assert not look_at_log(write_text(tmp_path / "b.csv", "time [s],T\n0,1\n1,15\n# end")).findings

    def test_backward_and_repeated_times_stay_where_they_are(self, tmp_path):
        info = look_at_log(write_text(tmp_path / "a.csv", "time [s],T\n0,1.5\n2,2\n1,3\n1,4\n5,5\n"))
        assert read_all(info)[0].tolist() == [0, 2 * NS, NS, NS, 5 * NS]
        assert "1 of 5 rows go back in time, the first at line 4" in messages(info, "backward stamps")
        assert "1 of 5 rows have the time of the row before, the first at line 5" in messages(info, "repeated stamps")
        assert (info.channels[0].first_ns, info.channels[0].last_ns) == (0, 5 * NS)

    def test_steps_are_seen_across_blocks(self, tmp_path):
        steady(tmp_path / "a.csv", 30_000, columns=8)  # several pieces of 1 MiB
        lines = (tmp_path / "a.csv").read_text().splitlines(keepends=True)
        write_text(tmp_path / "a.csv", "".join([*lines[:1], *lines[2:], lines[1], lines[1]]))
        info = look_at_log(tmp_path / "a.csv")
        assert "1 of 30001 rows go back in time, the first at line 30001" in messages(info, "backward stamps")
        assert "1 of 30001 rows have the time of the row before, the first at line 30002" in messages(
            info, "repeated stamps"
        )

    def test_values_that_are_no_numbers_are_null(self, tmp_path):
        text = "time [s],T,P,note,gap\n0,OVER,1,up,\n1,,n/a,down,\n2,-,-inf,up,\n3,3_0,nan,up,\n"
        info = look_at_log(write_text(tmp_path / "a.csv", text + "4,5,6,up,\n"))
        _, values = read_all(info)
        np.testing.assert_array_equal(values, [[np.nan] * 4 + [5], [1, np.nan, -np.inf, np.nan, 6]])
        assert "2 values of 'T' are no numbers, such as 'OVER' (lines 2, 5)" in messages(info, "values")
        assert messages(info, "columns left out") == "a.csv: no numbers in note, gap"

    def test_a_stray_quote_costs_its_line_only(self, tmp_path):
        text = 'time [s],T,note\n0,1,"a, b"\n1,2,"x\n2,3,y\n"3","4",z\n'
        info = look_at_log(write_text(tmp_path / "a.csv", text))
        times, values = read_all(info)
        assert (times.tolist(), values.tolist()) == ([0, NS, 2 * NS, 3 * NS], [[1, 2, 3, 4]])

    def test_a_line_of_megabytes_costs_itself_only(self, tmp_path):
        long = "5," + "1" * (3 * 2**20) + "\n"
        path = write_text(tmp_path / "a.csv", f"time [s],T\n0,1\n{long}1,2\n{long}{long}2,3\n")
        forget_blocks()
        tracemalloc.start()
        info = look_at_log(path)
        assert read_all(info)[1].tolist() == [[1, 2, 3]]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 40 * 2**20
        assert "3 rows have other than 2 fields (lines 3, 5, 6)" in messages(info, "rows left out")

    @pytest.mark.parametrize("extra", [-1, 0, 1, 2])
    def test_lines_about_as_long_as_may_be(self, tmp_path, extra):
        for end in ("\n", "\r\n"):
            long = "1," + "0" * (2**20 - 3 + extra) + "7" + end
            info = look_at_log(write_text(tmp_path / "a.csv", f"time [s],T{end}0,1{end}{long}2,3{end}3,4{end}"))
            fits = len(long) - 1 <= 2**20
            assert len(read_all(info)[0]) == (4 if fits else 3), (extra, end)

    def test_one_endless_line(self, tmp_path):
        with pytest.raises(SourceFormatError, match="its first line has more than"):
            look_at_log(write_text(tmp_path / "a.csv", "1" * (10 * 2**20)))

    def test_too_many_columns(self, tmp_path):
        text = "time [s]" + ",c" * 20_000 + "\n" + "0" + ",1" * 20_000 + "\n"
        with pytest.raises(SourceFormatError, match="20001 columns"):
            look_at_log(write_text(tmp_path / "a.csv", text * 2))

    def test_utf_16(self, tmp_path):
        with pytest.raises(SourceFormatError, match="UTF-16") as caught:
            look_at_log(write_text(tmp_path / "a.csv", "time,T\n1,2\n", "utf-16"))
        assert "iconv" in caught.value.hint


class TestChanges:
    def test_what_was_written_since_is_not_read(self, tmp_path):
        path = write_text(tmp_path / "a.csv", "time [s],T\n0,1\n1,15")
        info = look_at_log(path)
        with open(path, "a") as file:
            file.write("6\n2,3\n")
        forget_blocks()
        assert read_all(info)[1].tolist() == [[1, 15]]
        with pytest.raises(SettingsError):
            open_series(info.spec).read(0, 0, 3)

    @pytest.mark.parametrize(
        "text", ["time [s],T\n0,1\n", "time [s],T\n0,1\nx,y\n2,3\n", "time [s],T\n0,1\n1\n,2\n2,3\n"]
    )
    def test_fewer_rows_are_another_file(self, tmp_path, text):
        path = write_text(tmp_path / "a.csv", "time [s],T\n0,1\n1,2\n2,3\n")
        info = look_at_log(path)
        assert len(read_all(info)[0]) == 3
        write_text(path, text)
        with pytest.raises(SourceChangedError):
            read_all(info)

    def test_gone(self, tmp_path):
        info = look_at_log(write_text(tmp_path / "a.csv", "time [s],T\n0,1\n"))
        os.remove(tmp_path / "a.csv")
        with pytest.raises(SourceNotFoundError):
            read_all(info)

    def test_written_anew_in_place_is_read_anew(self, tmp_path):
        path = write_text(tmp_path / "a.csv", "time [s],T\n0,1\n")
        info = look_at_log(path)
        assert read_all(info)[1].tolist() == [[1]]
        write_text(path, "time [s],T\n0,2\n")
        os.utime(path, ns=(1, 1))
        assert read_all(info)[1].tolist() == [[2]]


@pytest.mark.parametrize(
    ("rows", "holds"),
    [
        ("0\t0\n2137.416\t36\n3922.078\t0\n", True),
        ("0\t1\n", True),
        ("0\t0\n1\t1\n2\t2\n3\t3\n", False),  # a counter, once a second
        ("0\t0\n1\t0\n5\t1\n", False),  # a value twice
        ("0\t0.5\n1\t1\n5\t0\n", False),  # not whole
        ("".join(f"{i * i}\t{i}\n" for i in range(50)), False),  # too many states
    ],
)
def test_change_of_value_holds(tmp_path, rows, holds):
    info = look_at_log(write_text(tmp_path / "a.Value.txt", GM1_HEADER.replace("\r\n", "\n") + rows))
    assert info.channels[0].holds is holds
    assert info.spec.tables[0].holds is holds


def test_codes_with_words_hold(tmp_path):
    text = "Elapsed time [s]\tNumeric value\tDescription [Open,Close]\r\n0.0\t1\tClose\r\n1.0\t1\tClose\r\n"
    info = look_at_log(write_text(tmp_path / "Main.Status.txt", text))
    assert [(c.name, c.points, c.holds) for c in info.channels] == [("Main.Status", 2, True)]
    assert not info.findings


def test_memory_does_not_depend_on_length(tmp_path):
    peaks = [_peak(tmp_path, rows) for rows in (40_000, 80_000)]
    assert max(peaks) < 40 * 2**20
    assert peaks[1] < 1.3 * peaks[0] + 2**20


def _peak(tmp_path, rows):
    with open(tmp_path / "a.csv", "w") as file:
        file.write("time [s],T,P,F\n")
        file.writelines(f"{i / 10},{i % 977}.5,1.5e-7,{i % 13}\n" for i in range(rows))
    forget_blocks()
    tracemalloc.start()
    info = look_at_log(tmp_path / "a.csv")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert info.points == 3 * rows
    return peak


def test_a_block_is_parsed_once_for_its_chunks(tmp_path, monkeypatch):
    steady(tmp_path / "a.csv", 8192)
    info = look_at_log(tmp_path / "a.csv")
    forget_blocks()
    loads = []
    from ingest.sources import text_log

    original = text_log._load_block
    monkeypatch.setattr(text_log, "_load_block", lambda *args: loads.append(args[-1]) or original(*args))
    for start in range(0, 8192, 100):
        open_series(info.spec).read(0, start, min(start + 100, 8192))  # as tasks of one worker do
    assert loads == [0, 1]


numbers = st.floats(width=64)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(st.integers(-(10**17), 10**17), numbers, numbers), min_size=1, max_size=40),
    delimiter=st.sampled_from([",", ";", "\t"]),
    end=st.sampled_from(["\n", "\r\n"]),
)
@example(rows=[(0, math.nan, math.nan)], delimiter=",", end="\n")
def test_what_was_written_is_read(tmp_path, rows, delimiter, end):
    comma = delimiter == ";"
    with open(tmp_path / "a.csv", "w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter, lineterminator=end)
        writer.writerow(["elapsed [s]", "T [K]", "p (mbar)"])
        for ns, *values in rows:
            texts = [f"{'-' if ns < 0 else ''}{abs(ns) // NS}.{abs(ns) % NS:09}", *(repr(value) for value in values)]
            writer.writerow([text.replace(".", ",") if comma else text for text in texts])
    info = look_at_log(tmp_path / "a.csv")
    times, values = read_all(info)
    assert times.tolist() == [ns for ns, *_ in rows]
    np.testing.assert_array_equal(values.T, [list(values) for _, *values in rows])
    assert [(channel.name, channel.units) for channel in info.channels] == [("T", "K"), ("p", "mbar")]


@pytest.fixture(scope="module")
def sliced(tmp_path_factory):
    path = tmp_path_factory.mktemp("log") / "a.csv"
    times, values = steady(path, 9500)
    return look_at_log(path), times, values


@settings(max_examples=60, deadline=None)
@given(start=st.integers(0, 9499), length=st.integers(1, 9500))
def test_any_slice_is_of_the_whole(sliced, start, length):
    info, times, values = sliced
    stop = min(9500, start + length)
    rows = open_series(info.spec).read(0, start, stop)
    np.testing.assert_array_equal(rows.timestamps_ns, times[start:stop])
    np.testing.assert_array_equal(rows.values, values[:, start:stop])
