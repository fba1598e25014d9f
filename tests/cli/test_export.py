"""``rheed-ingest export`` as a user types it: which file, which words, which exit code."""

import json
import os

import numpy as np
import pytest

from ingest.sources import open_source
from tests.sources.files import NS, START_S, look, pixels, write
from tests.sources.zarrs import NOT_A_TIME, lake


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def lossy_lake(path, frames):
    times, index = START_S * NS + 100_000_000 * np.arange(len(frames)), np.arange(len(frames))
    times[[3, 4, 9]], index[[3, 4, 9]] = NOT_A_TIME, -1
    return lake(path, frames, times=times, index=index)


@pytest.mark.parametrize(("asked", "name"), [("mp4", ".mp4"), ("hdf5", ".h5"), ("tiff", ".ome.tif")])
def test_a_stream_becomes_a_file_of_its_name_here(run, tmp_path, here, asked, name):
    lake(tmp_path / "x.zarr", pixels(50, 32, 32))
    ran = run("export", tmp_path / "x.zarr", "--format", asked)
    assert (ran.code, ran.err) == (0, "")
    assert os.listdir(here) == [f"a growth{name}"]
    assert "50 frames from 2023-11-14T22:13:20.000Z (frame stamps)" in ran.out
    assert look(here / f"a growth{name}").frames == 50


def test_the_report(run, tmp_path, here):
    lossy_lake(tmp_path / "x.zarr", pixels(50))
    ran = run("export", tmp_path / "x.zarr", "--out", "y.h5", "--json")
    assert ran.code == 3
    document = json.loads(ran.out)
    (one,) = document["runs"]
    assert one["out"] == str(here / "y.h5")
    assert (one["status"], one["frames"], one["frames_lost"], one["lost"]) == ("partial", 50, 3, [[3, 4], [9, 9]])
    assert (one["start_unix_ms_utc"], one["start_unix_ns_utc"]) == (START_S * 1000, START_S * NS)
    assert one["bytes_out"] == (here / "y.h5").stat().st_size == document["totals"]["bytes_out"]
    assert any("3-4,9" in finding for finding in one["findings"])
    assert (one["error"], one["hint"]) == (None, None)
    assert document["totals"]["runs"] == 1
    assert document["totals"]["complete"] == 0


def test_options_of_sources_mean_what_they_mean_elsewhere(run, tmp_path, here):
    frames = pixels(50, 20, 30)
    path = write(tmp_path / "a.h5", {"frames": frames}, {"frames@fps": 10.0})
    ran = run(
        "export", path, "--out", "b.h5", "--start", "2023-11-14T22:13:20Z", "--from", "1", "--until", "3",
        "--every", "2", "--roi", "2,3,10,12", "--orientation", "rot90",
    )  # fmt: skip
    assert ran.code == 0, ran.out
    info = look(here / "b.h5")
    with open_source(info.spec) as source:
        wanted = np.rot90(frames[10:30:2, 3:15, 2:12], 1, axes=(1, 2))
        np.testing.assert_array_equal(source.read(0, info.frames), wanted)
    np.testing.assert_array_equal(info.timestamps_ns, (START_S + 1) * NS + 200_000_000 * np.arange(10))


def test_several_runs_go_to_a_folder_each_under_its_own_name(run, tmp_path, here):
    for name in ("x", "y"):
        lake(tmp_path / "lake" / f"{name}.zarr", pixels(5))
    (tmp_path / "lake" / "broken.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    ran = run("export", tmp_path / "lake", "--format", "hdf5", "--out", "all", "--json")
    assert ran.code == 3
    assert sorted(os.listdir(here / "all")) == ["a growth-2.h5", "a growth.h5"]
    runs = json.loads(ran.out)["runs"]
    assert sorted(one["status"] for one in runs) == ["complete", "complete", "failed"]
    (bad,) = [one for one in runs if one["status"] == "failed"]
    assert bad["error"]
    assert bad["out"] is None


def test_several_runs_into_one_file_are_refused(run, tmp_path, here):
    (here / "all.h5").touch()
    for name in ("x", "y"):
        lake(tmp_path / f"{name}.zarr", pixels(5))
    ran = run("export", tmp_path / "x.zarr", tmp_path / "y.zarr", "--out", "all.h5")
    assert (ran.code, ran.out) == (2, "")
    assert "several runs" in ran.err


def test_nothing_is_overwritten_unless_asked(run, tmp_path, here):
    lake(tmp_path / "x.zarr", pixels(5))
    (here / "a growth.h5").write_text("mine")
    ran = run("export", tmp_path / "x.zarr", "--format", "hdf5")
    assert ran.code == 2
    assert "exists" in ran.out
    assert "--force" in ran.out
    assert (here / "a growth.h5").read_text() == "mine"
    assert run("export", tmp_path / "x.zarr", "--format", "hdf5", "--force").code == 0
    assert look(here / "a growth.h5").frames == 5


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no format"),
        (("--out", "x.avi"), "no format"),
        (("--format", "mp4", "--out", "x.h5"), "named like hdf5"),
        (("--format", "hdf5", "--out", "s3://lab/x.h5"), "local files"),
        (("--format", "hdf5", "--lossless"), "of mp4"),
        (("--format", "mp4", "--crf", "60"), "between 1 and 51"),
        (("--format", "mp4", "--compression", "zlib"), "of hdf5 and tiff"),
        (("--format", "gif"), "gif"),
        (("--format", "hdf5", "--roi", "no"), "roi"),
    ],
)
def test_what_cannot_be_is_usage(run, tmp_path, here, arguments, words):
    lake(tmp_path / "x.zarr", pixels(5))
    ran = run("export", tmp_path / "x.zarr", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert words in ran.err
    assert os.listdir(here) == []


def test_what_holds_no_frames_is_said(run, tmp_path, here):
    (tmp_path / "log.csv").write_text("Time (s),T\n" + "".join(f"{1_700_000_000 + i},{i}\n" for i in range(20)))
    ran = run("export", tmp_path / "log.csv", "--format", "hdf5")
    assert ran.code == 1
    assert "holds readings, no frames" in ran.out
    write(tmp_path / "a.h5", {"frames": pixels(5)}, {"frames@fps": 10.0})
    ran = run("export", tmp_path, "--format", "hdf5", "--out", "b.h5")
    assert (ran.code, os.listdir(here)) == (0, ["b.h5"])
    assert "log.csv: readings, not frames: not exported" in ran.err
    ran = run("export", tmp_path / "no.h5", "--format", "hdf5")
    assert ran.code == 1
    assert "no such file" in ran.out


def test_a_run_without_times_says_what_to_pass(run, tmp_path, here):
    write(tmp_path / "a.h5", {"frames": pixels(5)})
    ran = run("export", tmp_path / "a.h5", "--format", "mp4")
    assert (ran.code, os.listdir(here)) == (1, [])
    assert "--fps" in ran.out
    ran = run("export", tmp_path / "a.h5", "--format", "hdf5", "--fps", "10")
    assert ran.code == 0
    assert "start not known" in ran.out
