"""Stamps of every layout, written to files and read back."""

import h5py
import numpy as np
import pytest

from ingest.errors import SourceFormatError, SourceTimeError
from ingest.sources.hdf5_times import EPICS_EPOCH_S
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from tests.sources.files import NS, START_S, kinds, look, pixels, write

N = 10
FRAMES = pixels(N)
STEPS_NS = np.arange(N, dtype=np.int64) * 50_000_000
STEPS_S = STEPS_NS / NS
ATTRIBUTES = "/entry/instrument/NDAttributes"
DETECTOR = "/entry/instrument/detector/data"


def epics(first_s=START_S - EPICS_EPOCH_S, count=N):
    ns = np.arange(count, dtype=np.int64) * 50_000_000
    return {
        f"{ATTRIBUTES}/NDArrayEpicsTSSec": (first_s + ns // NS).astype("u4"),
        f"{ATTRIBUTES}/NDArrayEpicsTSnSec": (ns % NS).astype("u4"),
    }


@pytest.mark.parametrize(
    ("column", "units", "absolute"),
    [
        (STEPS_S, None, False),
        (STEPS_S + 3.25, "s", False),
        (STEPS_S * 1e3, "ms", False),
        (STEPS_NS // 1000, "us", False),
        (STEPS_NS, "ns", False),
        (STEPS_NS, None, False),
        (STEPS_NS // 1000, None, False),
        (STEPS_NS // 10**6, None, False),
        (START_S + STEPS_S, None, True),
        (START_S + STEPS_S, "s", True),
        ((START_S + STEPS_S) * 1e3, None, True),
        (START_S * 1000 + STEPS_NS // 10**6, "ms", True),
        (START_S * 10**6 + STEPS_NS // 1000, None, True),
        (START_S * NS + STEPS_NS, None, True),
        ((START_S * NS + STEPS_NS).astype("u8"), "ns", True),
        ((START_S * NS + STEPS_NS).astype(">i8"), None, True),
        (STEPS_S, "seconds since 2023-11-14T22:13:20Z", True),
        (STEPS_NS // 10**6, "milliseconds since 2023-11-14 22:13:20+00:00", True),
        (START_S + STEPS_S, "seconds since 1970-01-01", True),
    ],
)
def test_plain_columns(tmp_path, column, units, absolute):
    attrs = {} if units is None else {"timestamps@units": units}
    info = look(write(tmp_path / "a.h5", {"frames": FRAMES, "timestamps": column}, attrs))
    begin = START_S * NS if absolute else round(float(column[0]) * NS) if column[0] < 4 else 0
    np.testing.assert_allclose(info.timestamps_ns - begin, STEPS_NS, atol=300)
    assert info.start_from == ("frame stamps" if absolute else None)


def test_unix_ns_are_exact(tmp_path):
    stamps = START_S * NS + STEPS_NS + 1
    np.testing.assert_array_equal(look(write(tmp_path / "a.h5", {"frames": FRAMES, "t": stamps})).timestamps_ns, stamps)


@pytest.mark.parametrize("name", ["time", "time(s)", "t", "times", "Timestamps", "frame_times", "time_s", "time [s]"])
def test_names_of_columns(tmp_path, name):
    info = look(write(tmp_path / "a.h5", {"movie/stack": FRAMES, f"movie/{name}": STEPS_S}))
    np.testing.assert_allclose(info.timestamps_ns, STEPS_NS, atol=1)


def test_a_log_of_another_length_is_not_the_stamps(tmp_path):
    info = look(write(tmp_path / "a.h5", {"frames": FRAMES, "time": np.arange(N - 1.0), "temperature": STEPS_S}))
    assert info.timestamps_ns is None


def test_stamps_that_the_user_names(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": FRAMES, "timestamps": STEPS_S, "log/when": START_S + STEPS_S})
    assert look(path, timestamps="log/when").start_ns == START_S * NS
    with pytest.raises(SourceTimeError, match="/log/when") as caught:
        look(path, timestamps="when")
    assert caught.value.hint


def test_the_claimed_rate_tells_the_unit(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": FRAMES, "timestamps": np.arange(N)}, {"@fps": "1000"})
    info = look(path)
    assert info.timestamps_ns[1] == 1_000_000
    assert info.fps_claimed == 1000.0
    assert "stamp unit" in kinds(info)


def test_nexus_column_with_its_start(tmp_path):
    path = write(
        tmp_path / "a.h5",
        {"entry/data/data": FRAMES, "entry/data/time": STEPS_S + 1},
        {"entry/data/time@start": "2023-11-14T22:13:20+00:00", "entry/data/time@units": "s"},
    )
    assert look(path).start_ns == (START_S + 1) * NS


def test_areadetector_is_from_1990(tmp_path):
    path = write(tmp_path / "a.h5", {DETECTOR: FRAMES, **epics()})
    info = look(path)
    np.testing.assert_array_equal(info.timestamps_ns, START_S * NS + STEPS_NS)
    assert (info.start_from, info.format, info.findings) == ("frame stamps", "areaDetector HDF5", ())


@pytest.mark.parametrize(
    ("stamps", "start_ns", "finding"),
    [
        (START_S - EPICS_EPOCH_S + STEPS_S, START_S * NS, False),
        (START_S + STEPS_S, START_S * NS, True),  # a driver that writes Unix time: as EPICS it would be 2043
        (1000 + STEPS_S, None, True),  # a driver that counts from its own start
        (4e9 + STEPS_S, None, True),
    ],
)
def test_nd_time_stamp_alone(tmp_path, stamps, start_ns, finding):
    info = look(write(tmp_path / "a.h5", {DETECTOR: FRAMES, f"{ATTRIBUTES}/NDArrayTimeStamp": stamps}))
    assert info.start_ns == start_ns
    np.testing.assert_allclose(np.diff(info.timestamps_ns), 50_000_000, atol=2000)
    assert bool(info.findings) == finding


def test_epics_zero_falls_back_to_the_driver(tmp_path):
    zero = {name: np.zeros(N, "u4") for name in epics()}
    driver = {f"{ATTRIBUTES}/NDArrayTimeStamp": START_S - EPICS_EPOCH_S + STEPS_S}
    info = look(write(tmp_path / "a.h5", {DETECTOR: FRAMES, **zero, **driver}))
    assert info.start_ns == START_S * NS
    assert "all zero" in info.findings[0].message


@pytest.mark.parametrize("column", [np.zeros(N), np.full(N, np.nan), np.full(N, 1e300), np.full(N, 2**64 - 1, "u8")])
def test_stamps_that_say_nothing_are_ignored(tmp_path, column):
    info = look(write(tmp_path / "a.h5", {"frames": FRAMES, "timestamps": column}))
    assert info.timestamps_ns is None
    assert kinds(info) == ["stamps"]


@pytest.mark.parametrize(("stamps", "frames"), [(N - 2, N - 2), (N + 5, N)])
def test_columns_of_another_length(tmp_path, stamps, frames):
    numbers = {f"{ATTRIBUTES}/NDArrayUniqueId": np.arange(N, dtype="i4")}
    info = look(write(tmp_path / "a.h5", {DETECTOR: FRAMES, **epics(count=stamps), **numbers}))
    assert (info.frames, len(info.timestamps_ns), len(info.frame_numbers)) == (frames, frames, frames)
    assert info.spec.file_frames == (frames,)
    assert "column length" in kinds(info)


def test_a_stamp_for_the_whole_file_does_not_cut_it(tmp_path):
    info = look(write(tmp_path / "a.h5", {DETECTOR: FRAMES, **epics(count=1)}))
    assert (info.frames, info.timestamps_ns) == (N, None)
    assert "column length" in kinds(info)


@pytest.mark.parametrize(
    ("attrs", "options", "start_ns"),
    [
        ({"@start_time": "2023-11-14T22:13:20Z"}, {}, START_S * NS),
        ({"@start_time": np.bytes_("2023-11-14 23:13:20")}, {"timezone": "Europe/Copenhagen"}, START_S * NS),
        ({"frames@start_time": START_S, "@start_time": 1_600_000_000}, {}, START_S * NS),
        ({"metadata@start_time": "2023-11-14T22:13:20Z"}, {}, START_S * NS),
        ({"@start_time": "2023-11-14T22:13:20Z"}, {"start_ns": 7 * NS}, 7 * NS),
    ],
)
def test_start_attributes_place_relative_stamps(tmp_path, attrs, options, start_ns):
    info = look(write(tmp_path / "a.h5", {"frames": FRAMES, "timestamps": STEPS_S + 0.5}, attrs), **options)
    assert info.start_ns == start_ns
    np.testing.assert_allclose(info.timestamps_ns - start_ns, STEPS_NS, atol=1)


def test_nexus_start_time_field(tmp_path):
    path = write(tmp_path / "a.h5", {"entry/data/data": FRAMES, "entry/start_time": "2023-11-14T22:13:20Z"})
    assert look(path).start_ns == START_S * NS


def test_a_naive_start_asks_for_its_zone(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": FRAMES}, {"@start_time": "2023-11-14T22:13:20"})
    with pytest.raises(SourceTimeError, match="no time zone"):
        look(path)
    assert look(path, start_ns=5 * NS).start_from == "user"


def test_name_and_mtime(tmp_path):
    path = write(tmp_path / "20231114-221320.h5", {"frames": FRAMES, "timestamps": STEPS_S})
    assert (look(path).start_ns, kinds(look(path))) == (None, ["start time"])
    assert look(path, timezone="UTC").start_ns == START_S * NS
    plain = write(tmp_path / "a.h5", {"frames": FRAMES, "timestamps": STEPS_S})
    info = look(plain, start_from_mtime=True)
    mtime_ns = (tmp_path / "a.h5").stat().st_mtime_ns
    assert (info.start_from, info.timestamps_ns[-1]) == ("mtime", mtime_ns)


def test_a_shared_start_is_not_that_of_each_growth(tmp_path):
    stacks = {"growth_1": FRAMES, "growth_2": FRAMES}
    path = write(tmp_path / "20231114-221320.h5", stacks, {"@start_time": "2023-11-14T22:13:20Z"})
    assert look(path, dataset="growth_2", timezone="UTC").start_ns is None


class TestChunkFiles:
    def test_spans_are_kept(self, tmp_path):
        run = GrowthRun(30, 16, 16, fps=10.0, gaps=((9, 2.0),))
        write_hdf5(tmp_path / "run", run, "chunk_files", frames_per_file=10)
        info = look(tmp_path / "run")
        np.testing.assert_allclose(info.timestamps_ns, run.timestamps_ns(), atol=2_000_000)
        assert (info.start_from, info.name, info.fps_claimed) == ("file attributes", "run", 10.0)

    def test_user_start_shifts_all(self, tmp_path):
        write_hdf5(tmp_path / "run", GrowthRun(30, 16, 16), "chunk_files", frames_per_file=10)
        recorded, shifted = look(tmp_path / "run"), look(tmp_path / "run", start_ns=9 * NS)
        np.testing.assert_array_equal(
            shifted.timestamps_ns - 9 * NS, recorded.timestamps_ns - recorded.timestamps_ns[0]
        )

    @pytest.mark.parametrize(("change", "kind"), [("end", "stamps"), ("overlap", "overlap")])
    def test_odd_spans_are_findings(self, tmp_path, change, kind):
        write_hdf5(tmp_path / "run", GrowthRun(30, 16, 16), "chunk_files", frames_per_file=10)
        with h5py.File(tmp_path / "run" / "10.h5", "r+") as file:
            if change == "end":
                del file.attrs["end_unix_ms_utc"]
            else:
                file.attrs["end_unix_ms_utc"] = np.bytes_(str(START_S * 1000 + 60_000))
        assert kind in kinds(look(tmp_path / "run"))

    def test_frames_of_one_run_have_one_size(self, tmp_path):
        for name, width, start in (("1.h5", 16, 0), ("2.h5", 17, 1)):
            attrs = {"@data_stream": "rheed", "@data_id": "x", "@start_unix_ms_utc": str((START_S + start) * 1000)}
            write(tmp_path / name, {"frames": pixels(3, 12, width)}, attrs)
        with pytest.raises(SourceFormatError, match=r"2\.h5.*1\.h5"):
            look(tmp_path)
