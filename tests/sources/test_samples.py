"""Real recordings, against what the samples' manifest says of them."""

import numpy as np
import pytest

from ingest.sources import SourceOptions, discover, inspect, open_source
from tests.sources.files import NS, SAMPLES, look

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not on this machine")


def test_the_folder_holds_five_runs():
    found = discover([str(SAMPLES)], SourceOptions())
    assert [(entry.error, entry.spec.dataset) for entry in found] == [
        (None, "/frames"),
        (None, "/entry/instrument/detector/data"),
        (None, "/frames"),
        (None, "/growth_1"),
        (None, "/growth_2"),
    ]


def test_areadetector():
    info = look(SAMPLES / "deposition_areadetector.h5")
    assert (info.frames, info.height_px, info.width_px) == (12, 1038, 1388)
    assert info.start_from == "frame stamps"
    assert abs(info.start_ns - (1_697_616_000 * NS + 250_000_000)) <= 10_000_000  # 2023-10-18T08:00:00.250Z
    steps_s = np.diff(info.timestamps_ns) / NS
    assert np.delete(steps_s, 6) == pytest.approx(0.2, abs=0.015)
    assert steps_s[6] == pytest.approx(0.4, abs=0.015)
    assert sorted(set(range(100, 113)) - set(info.frame_numbers.tolist())) == [107]
    with open_source(info.spec) as source:
        assert source.read(0, 12).max() > 50


def test_atomscale_chunks_keep_their_true_spans():
    info = look(SAMPLES / "atomscale_chunks")
    assert info.frames == 100
    assert info.fps_claimed == 10.0
    assert [path.rpartition("/")[2] for path in info.spec.paths] == ["50.h5", "100.h5"]
    assert (info.start_ns, info.start_from) == (1_696_342_633_120_000_000, "file attributes")
    assert info.timestamps_ns[1] - info.timestamps_ns[0] == 22_490_000_000 // 50
    assert info.timestamps_ns[50] == 1_696_342_655_655_000_000
    assert info.timestamps_ns[51] - info.timestamps_ns[50] == 5_267_000_000 // 50
    assert info.name == "atomscale_chunks"


def test_frames_timestamps_has_no_start():
    info = look(SAMPLES / "frames_timestamps.h5")
    assert (info.frames, info.fps_claimed, info.start_ns, info.start_from) == (60, 15.0, None, None)
    assert np.diff(info.timestamps_ns)[32] / NS == pytest.approx(2.4 + 1 / 15, abs=0.1)
    given = look(SAMPLES / "frames_timestamps.h5", start_ns=1_700_000_000 * NS)
    assert given.start_from == "user"
    np.testing.assert_array_equal(np.diff(given.timestamps_ns), np.diff(info.timestamps_ns))
    assert given.fingerprint == info.fingerprint  # when it began is a setting, not the recording


def test_growths_are_two_runs_of_12_bit():
    entries = discover([str(SAMPLES / "growths_12bit.h5")], SourceOptions())
    infos = [inspect(entry.spec) for entry in entries]
    assert [(info.frames, info.name) for info in infos] == [
        (40, "growths_12bit growth_1"),
        (25, "growths_12bit growth_2"),
    ]
    assert {(info.scale.full_scale, info.scale.full_scale_from) for info in infos} == {(4096.0, "sampled maximum")}
    assert infos[0].fingerprint != infos[1].fingerprint
    assert infos[0].block_frames == 8
    assert all(info.timestamps_ns is None for info in infos)
    with open_source(infos[0].spec) as source:
        assert source.read(0, 40).max() == 255  # saturated pixels stay white
