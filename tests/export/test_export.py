"""A file that is exported holds the frames and times that the run has, by our own readers and by others."""

import json
import os
import resource
import signal
from dataclasses import replace
from fractions import Fraction

import av
import h5py
import numpy as np
import pytest
import tifffile

from ingest.errors import DestinationError, FrameDataError, SettingsError, SourceReadError, SourceTimeError
from ingest.export import ExportOptions, export_run, file_name
from ingest.export import base as export_base
from ingest.sources import open_source
from tests.sources.files import NS, START_S, kinds, look, pixels, write
from tests.sources.video_files import pictures
from tests.sources.zarrs import NOT_A_TIME, lake

EXACT = [
    ExportOptions("hdf5"),
    ExportOptions("hdf5", compression="zlib"),
    ExportOptions("tiff"),
    ExportOptions("tiff", compression="zlib"),
    ExportOptions("mp4", lossless=True),
]
ALL = [*EXACT, ExportOptions("mp4")]
START_NS = START_S * NS + 123_456_789
LOST = [0, 7, 8, 9, 30]

each_exact = pytest.mark.parametrize("options", EXACT, ids=str)
each = pytest.mark.parametrize("options", ALL, ids=str)


def name_of(options) -> str:
    return file_name("out", options.format)


def jittered(count, seed=0) -> np.ndarray:
    steps = np.random.default_rng(seed).integers(90_000_000, 110_000_000, count)
    steps[count // 2] = 4_000_000_000  # the growth was paused
    return START_NS + np.cumsum(steps) - steps[0]


def run_of(tmp_path, frames, *, lost=(), name="a.zarr", **attributes):
    times, index = jittered(len(frames)), np.arange(len(frames)) + 100
    times[list(lost)], index[list(lost)] = NOT_A_TIME, -1
    return look(lake(tmp_path / name, frames, times=times, index=index, attributes=attributes))


def read_all(info) -> np.ndarray:
    with open_source(info.spec) as source:
        return source.read(0, info.frames)


def tolerance_ns(options) -> int:
    """A movie counts us; the others are exact."""
    return 1_000 if options.format == "mp4" else 0


@each_exact
@pytest.mark.parametrize("size", [(12, 16), (33, 47)], ids=str)
def test_frames_stamps_and_start_come_back(tmp_path, monkeypatch, options, size):
    monkeypatch.setattr(export_base, "SLICE_BYTES", 7 * size[0] * size[1])
    frames = pixels(50, *size)
    info = run_of(tmp_path, frames)
    done = export_run(info, tmp_path / name_of(options), options)
    assert (done.lost, done.frames, done.start_ns) == ((), 50, START_NS)
    assert done.bytes_out == done.path.stat().st_size > 0
    back = look(done.path)
    np.testing.assert_array_equal(read_all(back), frames)
    np.testing.assert_allclose(
        back.timestamps_ns - START_NS, jittered(50) - START_NS, rtol=0, atol=tolerance_ns(options)
    )
    assert back.start_ns == START_NS
    assert back.start_from in ("frame stamps", "file attributes", "container tag")
    assert "unwritten frames" not in kinds(back)


@each_exact
def test_a_lost_frame_is_no_black_one(tmp_path, monkeypatch, options):
    monkeypatch.setattr(export_base, "SLICE_BYTES", 3 * 12 * 16)
    frames = pixels(50)
    info = run_of(tmp_path, frames, lost=LOST)
    done = export_run(info, tmp_path / name_of(options), options)
    assert done.lost == tuple(LOST)
    (said,) = [found for found in done.findings if found.kind == "frames left out"]
    assert (said.frame, "5 of 50 frames cannot be read (0,7-9,30)" in said.message) == (0, True)
    back = look(done.path)
    kept = np.setdiff1d(np.arange(50), LOST)
    if options.format == "hdf5":
        # In their places, and known to be no measurement, by a plain reader and by ours.
        assert back.frames == 50
        np.testing.assert_array_equal(read_all(back)[kept], frames[kept])
        assert [(f.kind, f.frame) for f in back.findings] == [("unwritten frames", 0)]
        np.testing.assert_array_equal(back.timestamps_ns, info.timestamps_ns)
    else:
        assert back.frames == 45
        np.testing.assert_array_equal(read_all(back), frames[kept])
        wanted = info.timestamps_ns[kept]
        np.testing.assert_allclose(
            back.timestamps_ns - wanted[0], wanted - wanted[0], rtol=0, atol=tolerance_ns(options)
        )
        assert back.start_ns == wanted[0]


def test_plain_h5py_reads_all_of_it(tmp_path):
    frames = pixels(50)
    info = run_of(tmp_path, frames, lost=LOST, sample="STO-17")
    export_run(info, tmp_path / "out.h5", ExportOptions("hdf5", compression="zlib"))
    with h5py.File(tmp_path / "out.h5") as file:
        entry = file[file.attrs["default"]]
        data = entry[entry.attrs["default"]]
        shown = data[data.attrs["signal"]]
        assert data.attrs["axes"].tolist() == ["time", ".", "."]
        assert (shown.dtype, shown.chunks, shown.compression) == (np.uint8, (1, 12, 16), "gzip")
        np.testing.assert_array_equal(np.flatnonzero(data["lost"][:]), LOST)
        np.testing.assert_array_equal(np.flatnonzero(~shown[:].any(axis=(1, 2))), LOST)
        np.testing.assert_array_equal(np.flatnonzero(data["frame_index"][:] == -1), LOST)
        assert data["frame_index"][49] == 149
        assert data["time"].dtype == np.int64
        assert data["time"].attrs["units"] == "nanoseconds since 1970-01-01T00:00:00Z"
        said = dict(entry.attrs)
        assert (said["name"], said["fps"], said["rotations_per_min"]) == ("a growth", 10.0, 12.0)
        assert said["source_fingerprint"] == info.fingerprint
        assert said["source"] == info.spec.canonical_path
        assert entry["title"].asstr()[()] == "a growth"
    back = look(tmp_path / "out.h5")
    assert (back.fps_claimed, back.rotations_per_min) == (10.0, 12.0)


def test_plain_tifffile_reads_all_of_it(tmp_path):
    frames = pixels(50)
    info = replace(run_of(tmp_path, frames, lost=LOST), name='5 < 6 & "Ü" \x01')
    export_run(info, tmp_path / "out.ome.tif", ExportOptions("tiff"))
    kept = np.setdiff1d(np.arange(50), LOST)
    with tifffile.TiffFile(tmp_path / "out.ome.tif") as file:
        assert (file.is_bigtiff, file.is_ome, len(file.series)) == (True, True, 1)
        assert (file.series[0].axes, file.series[0].shape) == ("TYX", (45, 12, 16))
        np.testing.assert_array_equal(file.asarray(), frames[kept])
        image = tifffile.xml2dict(file.ome_metadata)["OME"]["Image"]
        assert image["Name"] == '5 < 6 & "Ü" _'
        assert image["AcquisitionDate"] == f"2023-11-14T22:13:20.{info.timestamps_ns[1] % NS:09d}Z"
        planes = image["Pixels"]["Plane"]
        seconds = [float(plane["DeltaT"]) for plane in planes]
        np.testing.assert_allclose(seconds, (info.timestamps_ns[kept] - info.timestamps_ns[kept[0]]) / NS, atol=1e-9)
        assert file.pages[0].tags["DateTime"].value == "2023:11:14 22:13:20"
        assert file.pages[44].aspage().tags["DateTime"].value == "2023:11:14 22:13:28"
        assert "0,7-9,30" in file.ome_metadata


def test_a_plain_player_shows_frames_when_they_were_taken(tmp_path):
    frames = pictures(50, low=0, high=255)
    info = run_of(tmp_path, frames)
    done = export_run(info, tmp_path / "out.mp4", ExportOptions("mp4"))
    assert "lossy" in [found.kind for found in done.findings]
    with av.open(str(tmp_path / "out.mp4")) as movie:
        stream = movie.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuvj420p")
        shown = list(movie.decode(stream))
        times_ns = [round(frame.pts * frame.time_base * NS) for frame in shown]
        np.testing.assert_allclose(times_ns, info.timestamps_ns - START_NS, rtol=0, atol=501)
        assert stream.time_base == Fraction(1, 1_000_000)
        assert movie.metadata["creation_time"] == "2023-11-14T22:13:20.123456789Z"
        assert movie.metadata["title"] == "a growth"
        assert json.loads(movie.metadata["comment"])["source_fingerprint"] == info.fingerprint
    back = read_all(look(tmp_path / "out.mp4"))
    assert np.abs(back.astype(int) - frames).mean() < 3, "of noise with a standard deviation of 6"


def test_a_movie_of_odd_size_is_padded_and_says_so(tmp_path):
    frames = pictures(5, 33, 47)
    done = export_run(run_of(tmp_path, frames), tmp_path / "out.mp4", ExportOptions("mp4", crf=1))
    (said,) = [found.message for found in done.findings if found.kind == "padded frames"]
    assert "47 x 33 px became 48 x 34 px" in said
    assert "--roi 0,0,47,33" in said
    back = read_all(look(tmp_path / "out.mp4"))
    assert back.shape == (5, 34, 48)
    assert np.abs(back[:, :33, :47].astype(int) - frames).mean() < 1
    assert np.abs(back[:, :33, 47].astype(int) - frames[:, :, 46]).mean() < 2
    assert np.abs(back[:, 33, :47].astype(int) - frames[:, 32]).mean() < 2


def test_crf_says_how_much_is_lost(tmp_path):
    info = run_of(tmp_path, pictures(20))
    sizes = [export_run(info, tmp_path / f"{crf}.mp4", ExportOptions("mp4", crf=crf)).bytes_out for crf in (1, 17, 40)]
    default = export_run(info, tmp_path / "default.mp4", ExportOptions("mp4")).bytes_out
    assert sizes[0] > sizes[1] == default > sizes[2]


@pytest.mark.parametrize(("hours", "per_s"), [(0.5, 1_000_000), (5, 90_000), (50, 10_000), (500, 1_000)])
def test_a_long_run_is_counted_in_what_fits(tmp_path, hours, per_s):
    times = START_NS + np.array([0, 100_000_000, round(hours * 3600 * NS)])
    info = look(lake(tmp_path / "a.zarr", pixels(3), times=times))
    export_run(info, tmp_path / "out.mp4", ExportOptions("mp4", lossless=True))
    back = look(tmp_path / "out.mp4")
    np.testing.assert_allclose(back.timestamps_ns - times[0], times - times[0], rtol=0, atol=0.5 * NS / per_s + 1)
    with av.open(str(tmp_path / "out.mp4")) as movie:
        assert movie.streams.video[0].time_base == Fraction(1, per_s)


def test_a_run_of_over_24_days_is_no_movie(tmp_path):
    times = START_NS + np.array([0, 25 * 86400 * NS])
    info = look(lake(tmp_path / "a.zarr", pixels(2), times=times))
    with pytest.raises(SettingsError, match=r"25\.0 days"):
        export_run(info, tmp_path / "out.mp4", ExportOptions("mp4"))
    assert os.listdir(tmp_path) == ["a.zarr"]


@each
def test_stamps_that_do_not_rise_lose_no_frame(tmp_path, options):
    times = START_NS + 100_000_000 * np.arange(20)
    times[[5, 12]] = times[4], times[10]
    info = look(lake(tmp_path / "a.zarr", pixels(20, 32, 32), times=times))
    done = export_run(info, tmp_path / name_of(options), options)
    said = [found.message for found in done.findings if found.kind == "times in the file"]
    assert len(said) == (options.format != "hdf5")
    if options.format == "mp4":
        assert "2 stamps are not later" in said[0]
    back = look(done.path)
    assert back.frames == 20
    if options.format == "hdf5":
        np.testing.assert_array_equal(back.timestamps_ns, times)


@each
def test_a_run_without_a_start_keeps_its_steps(tmp_path, options):
    elapsed_ms = np.cumsum(np.random.default_rng(1).integers(40, 60, 20))
    path = write(tmp_path / "a.h5", {"frames": pixels(20, 32, 32), "time": elapsed_ms}, {"time@units": "ms"})
    info = look(path)
    assert info.start_ns is None
    done = export_run(info, tmp_path / f"b{name_of(options)}", options)
    assert done.start_ns is None
    back = look(done.path)
    assert back.start_ns is None
    np.testing.assert_allclose(
        back.timestamps_ns - back.timestamps_ns[0], (elapsed_ms - elapsed_ms[0]) * 1_000_000, rtol=0, atol=1
    )


def test_a_run_without_stamps_takes_its_rate_or_says_that_there_is_none(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": pixels(20)})
    with pytest.raises(SourceTimeError, match="neither stamps nor a frame rate"):
        export_run(look(path), tmp_path / "out.h5", ExportOptions("hdf5"))
    done = export_run(look(path, fps=4.0, start_ns=START_NS), tmp_path / "out.h5", ExportOptions("hdf5"))
    np.testing.assert_array_equal(look(done.path).timestamps_ns, START_NS + 250_000_000 * np.arange(20))


@each
def test_there_is_never_half_a_file(tmp_path, monkeypatch, options):
    """Nor is one replaced: not without being asked, and not by one that fails."""
    monkeypatch.setattr(export_base, "SLICE_BYTES", 5 * 32 * 32)
    info = run_of(tmp_path, pixels(20, 32, 32))
    out = tmp_path / name_of(options)
    out.write_text("mine")
    with pytest.raises(SettingsError, match="exists"):
        export_run(info, out, options)

    def fails(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_run(info, out, options, force=True, progress=fails)
    assert out.read_text() == "mine"
    assert sorted(os.listdir(tmp_path)) == ["a.zarr", out.name]
    export_run(info, out, options, force=True)
    assert look(out).frames == 20
    assert sorted(os.listdir(tmp_path)) == ["a.zarr", out.name]


@each
def test_a_file_that_came_meanwhile_is_kept(tmp_path, options):
    info = run_of(tmp_path, pixels(20, 32, 32))
    out = tmp_path / name_of(options)
    with pytest.raises(SettingsError, match="exists"):
        export_run(info, out, options, progress=lambda done, total: out.write_text("another's"))
    assert out.read_text() == "another's"
    assert sorted(os.listdir(tmp_path)) == ["a.zarr", out.name]


@pytest.fixture
def small_files():
    """The kernel refuses to write past 64 KiB, as a full disk does."""
    before, old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, old)


@each
def test_a_disk_that_is_full_is_said(tmp_path, options, request):
    info = run_of(tmp_path, pixels(60, 64, 64))
    request.getfixturevalue("small_files")
    with pytest.raises(DestinationError, match=r"could not be written: [^\n]+\nhint:") as refused:
        export_run(info, tmp_path / name_of(options), options)
    assert ".part" not in str(refused.value)
    assert refused.value.hint
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_a_folder_that_is_not_there_or_is_one(tmp_path):
    info = run_of(tmp_path, pixels(3))
    with pytest.raises(SettingsError, match="no folder"):
        export_run(info, tmp_path / "no" / "out.h5", ExportOptions("hdf5"))
    with pytest.raises(SettingsError, match="is a folder"):
        export_run(info, tmp_path, ExportOptions("hdf5"), force=True)


def test_the_source_is_never_written_over(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": pixels(20)}, {"frames@fps": 10.0})
    os.symlink(path, tmp_path / "b.h5")
    for name in ("a.h5", "b.h5"):
        with pytest.raises(SettingsError, match="is, or lies in, the run"):
            export_run(look(path), tmp_path / name, ExportOptions("hdf5"), force=True)
    with pytest.raises(SettingsError, match="is, or lies in, the run"):
        export_run(run_of(tmp_path, pixels(3)), tmp_path / "a.zarr" / "out.h5", ExportOptions("hdf5"), force=True)


@each
def test_a_run_of_which_nothing_can_be_read_leaves_no_file(tmp_path, options):
    info = run_of(tmp_path, pixels(20), lost=())
    for shard in (tmp_path / "a.zarr" / "frames" / "c").glob("*/0/0"):
        shard.write_bytes(b"")
    with pytest.raises(FrameDataError, match="is empty"):
        export_run(info, tmp_path / name_of(options), options)
    assert os.listdir(tmp_path) == ["a.zarr"]


def test_what_may_pass_is_not_taken_for_lost_frames(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": pixels(20)}, {"frames@fps": 10.0})
    info = look(path)
    os.remove(path)
    with pytest.raises((SourceReadError, FileNotFoundError)):
        export_run(info, tmp_path / "out.h5", ExportOptions("hdf5"))
    assert os.listdir(tmp_path) == []


def test_only_a_slice_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(export_base, "SLICE_BYTES", 45 * 12 * 16)
    info = run_of(tmp_path, pixels(100))
    seen = []
    export_run(
        info, tmp_path / "out.h5", ExportOptions("hdf5"), progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(40, 100), (80, 100), (100, 100)], "whole shards of 20 frames, 45 at most"


@pytest.mark.parametrize(
    "given",
    [
        {"format": "avi"},
        {"format": "hdf5", "crf": 17},
        {"format": "tiff", "lossless": True},
        {"format": "mp4", "compression": "zlib"},
        {"format": "mp4", "crf": 0},
        {"format": "mp4", "crf": 52},
        {"format": "mp4", "crf": 17, "lossless": True},
    ],
    ids=str,
)
def test_options_that_cannot_be(given):
    with pytest.raises(SettingsError) as refused:
        ExportOptions(**given)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a growth", "a growth.mp4"),
        ("../../etc/x", "_.._etc_x.mp4"),
        ('a\\b:c*d?"e<f>g|h\n', "a_b_c_d_e_f_g_h_.mp4"),
        (" . ", "run.mp4"),
        ("é" * 300, "é" * 100 + ".mp4"),
    ],
)
def test_names_that_file_systems_take(name, wanted):
    assert file_name(name, "mp4") == wanted
    assert file_name(name, "tiff", 2) == wanted.removesuffix(".mp4") + "-2.ome.tif"
