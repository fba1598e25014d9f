"""The synthetic growth run, and the files that it is written to."""

import pickle

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import SettingsError
from ingest.sources import open_source
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from tests.sources.files import NS, look

RUN = GrowthRun(200, 60, 80, fps=20.0, jitter_s=0.003, gaps=((50, 1.5), (120, 0.25)))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 200), st.integers(0, 200))
def test_any_slice_gives_the_same_pixels(one, other):
    start, stop = sorted((one, other))
    np.testing.assert_array_equal(RUN.frames(start, stop), whole()[start:stop])


def whole():
    return RUN.frames(0, 200)


def test_the_seed_decides():
    assert (GrowthRun(3, 32, 32, seed=1).frames(0, 3) != GrowthRun(3, 32, 32, seed=2).frames(0, 3)).any()
    copy = pickle.loads(pickle.dumps(RUN))
    np.testing.assert_array_equal(copy.frames(5, 9), RUN.frames(5, 9))
    np.testing.assert_array_equal(copy.timestamps_ns(), RUN.timestamps_ns())


def test_no_two_frames_are_alike():
    assert len({frame.tobytes() for frame in GrowthRun(3000, 16, 16, noise=3.0).frames(0, 3000)}) == 3000


def test_stamps():
    stamps = RUN.timestamps_ns()
    assert stamps.dtype == np.int64
    steps_s = np.diff(stamps) / NS
    assert (steps_s > 0).all()
    assert steps_s[50] == pytest.approx(1.55, abs=0.02)
    assert steps_s[120] == pytest.approx(0.3, abs=0.02)
    assert np.delete(steps_s, [50, 120]).std() == pytest.approx(0.003 * np.sqrt(2), rel=0.3)
    assert np.diff(RUN.frame_numbers())[[49, 50, 120]].tolist() == [1, 31, 6]
    even = GrowthRun(7, 16, 16, fps=30.0).timestamps_ns()
    assert even.tolist() == [1_700_000_000 * NS + round(i * NS / 30) for i in range(7)]


def test_wild_jitter_never_runs_backwards():
    assert (np.diff(GrowthRun(2000, 16, 16, jitter_s=1.0).timestamps_ns()) > 0).all()


def test_the_specular_spot_oscillates_and_the_rest_does_not():
    run = GrowthRun(300, 120, 160, fps=10.0, growth_period_s=3.0)
    frames = run.frames(0, 300).astype(float)
    spot = frames[:, 46:56, 77:83].mean(axis=(1, 2))
    dark = frames[:, -20:, :20].mean(axis=(1, 2))
    spectrum = np.abs(np.fft.rfft(spot - spot.mean()))
    assert np.argmax(spectrum) == pytest.approx(10, abs=1)  # 30 s / 3 s
    assert np.ptp(spot) > 10 * np.ptp(dark)
    assert np.ptp(spot[:60]) > 1.5 * np.ptp(spot[-60:])


@pytest.mark.parametrize("noise", [5.0, 6.0, 8.0])
def test_it_compresses_like_a_camera(noise):
    frame = GrowthRun(2, 480, 640, noise=noise).frames(1, 2)
    ratio = frame.nbytes / len(zstandard.ZstdCompressor(level=1).compress(frame.tobytes()))
    assert 1.3 < ratio < 2


def test_no_pixel_wraps():
    for noise in (0.0, 12.0):
        frames = GrowthRun(50, 64, 64, noise=noise).frames(0, 50)
        assert np.abs(np.diff(frames.astype(int), axis=0)).max() <= 8 * noise + 70


@pytest.mark.parametrize(
    "change",
    [
        {"count": 0}, {"height_px": 4}, {"fps": 0.0}, {"fps": -1.0}, {"noise": 40.0}, {"jitter_s": -1.0},
        {"growth_period_s": 0.0}, {"gaps": ((3, -1.0),)},
    ],
)  # fmt: skip
def test_settings_that_cannot_be(change):
    with pytest.raises(SettingsError):
        GrowthRun(**{"count": 5, **change})


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (0, 201), (5, 3)])
def test_frames_that_are_not_there(start, stop):
    with pytest.raises(SettingsError):
        RUN.frames(start, stop)


@pytest.mark.parametrize("storage", [{}, {"hdf5_chunk_frames": None}, {"hdf5_chunk_frames": 7, "compression": "gzip"}])
@pytest.mark.parametrize(("layout", "within_ns"), [("areadetector", 0), ("frames_timestamps", 300)])
def test_files_hold_the_run(tmp_path, layout, within_ns, storage):
    write_hdf5(tmp_path / "a.h5", RUN, layout, **storage)
    info = look(tmp_path / "a.h5")
    assert (info.start_from, info.findings) == ("frame stamps", ())
    np.testing.assert_allclose(info.timestamps_ns, RUN.timestamps_ns(), rtol=0, atol=within_ns)
    if layout == "areadetector":
        np.testing.assert_array_equal(info.frame_numbers, RUN.frame_numbers() + 1)
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(0, 200), whole())


def test_files_that_cannot_be(tmp_path):
    with pytest.raises(SettingsError, match="contiguous"):
        write_hdf5(tmp_path / "a.h5", RUN, hdf5_chunk_frames=None, compression="gzip")
    with pytest.raises(SettingsError, match="no layout"):
        write_hdf5(tmp_path / "a.h5", RUN, "nexus")
