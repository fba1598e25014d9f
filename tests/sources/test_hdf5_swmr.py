"""Files that a SWMR writer never closed: read once they are quiet, as far as they go."""

import os
import subprocess
import sys

import h5py
import numpy as np
import pytest

from ingest.errors import FrameDataError, TruncatedSourceError, UnclosedSourceError
from ingest.sources import open_source
from ingest.sources.hdf5_file import open_file, release_files
from ingest.sources.hdf5_runs import count_growing_frames
from tests.sources.contract import Made, SourceContract
from tests.sources.files import START_S, kinds, look, pixels, write

WRITER = """if True:
    import os, sys, h5py, numpy as np
    path, how, compression, frames, stamps = sys.argv[1], sys.argv[2], sys.argv[3] or None, *map(int, sys.argv[4:6])
    values = np.random.default_rng(0).integers(0, 256, (frames, 12, 16)).astype("u1")
    f = h5py.File(path, "w", libver="latest")
    storage = dict(maxshape=(None, 12, 16), chunks=(1, 12, 16), compression=compression)
    d = f.create_dataset("frames", (0, 12, 16), "u1", **storage)
    t = f.create_dataset("timestamps", (0,), "f8", maxshape=(None,), chunks=(16,))
    if how != "plain":
        f.swmr_mode = True
    for i in range(frames):
        d.resize(i + 1, 0)
        d[i] = values[i]
        d.flush()
    for i in range(stamps):
        t.resize(i + 1, 0)
        t[i] = 1_700_000_000 + i / 8
        t.flush()
    f.flush()
    if how == "live":
        print("on", flush=True)
        input()
        d.resize(frames + 5, 0)
        d[frames:] = 7
        d.flush()
        print("on", flush=True)
        input()
    os._exit(9)
"""


def killed(path, how="swmr", compression="", frames=20, stamps=20, age_s=60.0) -> str:
    """Let a writer write and die; the file was then last written `age_s` ago."""
    arguments = [sys.executable, "-c", WRITER, str(path), how, compression, str(frames), str(stamps)]
    assert subprocess.run(arguments, check=False, capture_output=True).returncode == 9
    aged(path, age_s)
    return str(path)


def aged(path, age_s):
    then = os.stat(path).st_mtime - age_s
    os.utime(path, (then, then))


@pytest.fixture(scope="module", params=["", "gzip"])
def made(tmp_path_factory, request):
    return Made(look(killed(tmp_path_factory.mktemp("s") / "a.h5", compression=request.param)), pixels(20))


class TestKilled(SourceContract):
    def test_is_said(self, made):
        assert kinds(made.info) == ["unclosed"]
        assert "20 frames" in made.info.findings[0].message
        assert made.info.start_ns == START_S * 10**9


@pytest.mark.parametrize(("frames", "stamps"), [(20, 13), (13, 20)])
def test_frames_and_columns_that_grew_apart_are_cut_to_the_shortest(tmp_path, frames, stamps):
    info = look(killed(tmp_path / "a.h5", frames=frames, stamps=stamps))
    assert (info.frames, len(info.timestamps_ns)) == (13, 13)
    assert sorted(kinds(info)) == ["column length", "unclosed"]


def test_what_was_written_just_now_is_refused(tmp_path):
    path = killed(tmp_path / "a.h5", age_s=0)
    with pytest.raises(UnclosedSourceError, match="in the last 10 s") as caught:
        look(path)
    assert "--follow" in caught.value.hint
    with open_file(path, clock=lambda: os.stat(path).st_mtime + 10) as file:
        assert file.swmr_mode
    with pytest.raises(UnclosedSourceError):
        open_file(path, clock=lambda: os.stat(path).st_mtime + 9.9)


def test_a_plain_writer_that_was_killed_is_refused_however_quiet(tmp_path):
    with pytest.raises(UnclosedSourceError, match="already open for write") as caught:
        look(killed(tmp_path / "a.h5", "plain"))
    assert "h5clear" in caught.value.hint


def test_a_cut_copy_has_no_black_frames(tmp_path):
    path = killed(tmp_path / "a.h5")
    os.truncate(path, os.path.getsize(path) - 300)
    aged(path, 60)
    with pytest.raises(TruncatedSourceError, match="data end at byte"):
        look(path)


def test_a_cut_copy_of_a_closed_file_of_an_old_format_is_refused(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": {"data": pixels(20), "chunks": (1, 12, 16)}})
    os.truncate(path, os.path.getsize(path) - 300)
    with pytest.raises(TruncatedSourceError):
        look(path)


def test_a_writer_that_goes_on(tmp_path):
    path = str(tmp_path / "a.h5")
    arguments = [sys.executable, "-c", WRITER, path, "live", "", "20", "20"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        writer.stdout.readline()
        with pytest.raises(UnclosedSourceError):
            look(path)
        assert count_growing_frames(path) == 20
        aged(path, 60)
        info = look(path)
        assert info.frames == 20
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 20), pixels(20))
            writer.stdin.write("\n")
            writer.stdin.flush()
            writer.stdout.readline()
            release_files()
            assert count_growing_frames(path) == 25
            np.testing.assert_array_equal(source.read(5, 20), pixels(20)[5:])
        writer.communicate("\n")


def test_frames_of_closed_files_are_not_counted(tmp_path):
    assert count_growing_frames(write(tmp_path / "a.h5", {"frames": pixels(3)})) is None
    assert count_growing_frames(killed(tmp_path / "b.h5", "plain")) is None


def test_a_damaged_frame_spares_its_neighbours(tmp_path):
    path = killed(tmp_path / "a.h5", compression="gzip")
    with h5py.File(path, "r", swmr=True, libver="latest") as file:
        chunk = file["frames"].id.get_chunk_info(4)
    with open(path, "r+b") as file:
        file.seek(chunk.byte_offset + 10)
        file.write(b"\xff" * 40)
    aged(path, 60)
    with open_source(look(path).spec) as source:
        with pytest.raises(FrameDataError, match="frames 4 to 4"):
            source.read(0, 20)
        np.testing.assert_array_equal(source.read(5, 20), pixels(20)[5:])
