"""Every way in which a file cannot be read has its own name, and says what to do."""

import os
import subprocess
import sys
import time
import zlib

import h5py
import numpy as np
import pytest
from h5py import h5d, h5p, h5s, h5t, h5z

from ingest.errors import (
    FrameDataError,
    MissingFilterError,
    NoFramesError,
    SourceChangedError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
    TruncatedSourceError,
    UnclosedSourceError,
)
from ingest.frames import to_uint8
from ingest.sources import SourceOptions, discover, inspect, open_source
from ingest.sources.hdf5_file import borrow, release_files
from tests.sources.files import kinds, look, pixels, write


def in_child(code: str, *args: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False, **options)


def test_missing():
    with pytest.raises(SourceNotFoundError, match="no such file"):
        look("/nowhere/a.h5")


@pytest.mark.parametrize(("content", "words"), [(b"", "is empty"), (b"RIFF" * 300, "not an HDF5 file")])
def test_not_hdf5(tmp_path, content, words):
    (tmp_path / "a.h5").write_bytes(content)
    with pytest.raises(SourceFormatError, match=f"{words} .file signature not found"):
        look(tmp_path / "a.h5")


@pytest.mark.parametrize("name", ["a.avi", "a.tif", "a.csv", "a"])
def test_a_wrong_suffix_does_not_matter(tmp_path, name):
    assert look(write(tmp_path / name, {"frames": pixels(3)})).frames == 3


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.h5")
    with pytest.raises(SourceFormatError, match="pipe"):
        look(tmp_path / "a.h5")


@pytest.mark.parametrize("what", ["file", "folder"])
def test_permission_denied(what):
    # Root may read everything: the child becomes nobody, once it has loaded what it needs.
    code = """if True:
        import os, sys, tempfile, h5py, hdf5plugin, ingest.sources.hdf5_runs
        from ingest.sources.discovery import SourceOptions, discover
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, 'a.h5')
            h5py.File(path, 'w').close()
            os.chmod(folder, 0o711 if sys.argv[1] == 'file' else 0)
            os.chmod(path, 0)
            as_root = os.geteuid() == 0
            if as_root:
                os.seteuid(65534)
            print(repr(discover([path], SourceOptions())[0].error))
            if as_root:
                os.seteuid(0)
            os.chmod(folder, 0o700)"""
    done = in_child(code, what)
    assert "SourceReadError" in done.stdout, done.stderr
    assert "permission denied" in done.stdout


def test_io_error():
    # A file that opens, but gives EIO where nothing is mapped: as a failing disk does.
    with pytest.raises(SourceReadError, match="Input/output error"):
        look("/proc/self/mem")


def test_truncated_says_how_much_is_missing(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": pixels(50)})
    size = os.path.getsize(path)
    os.truncate(path, size - 3000)
    with pytest.raises(TruncatedSourceError, match=f"{size - 3000} bytes.*{size}: 3000 bytes are missing"):
        look(path)


def test_open_for_writing_elsewhere(tmp_path):
    path = str(tmp_path / "a.h5")
    code = "import sys, h5py; f = h5py.File(sys.argv[1], 'w'); f['x'] = 1; f.flush(); print('on', flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", code, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        writer.stdout.readline()
        with pytest.raises(UnclosedSourceError, match="open for writing") as caught:
            look(path)
        writer.communicate("\n")
    assert "h5clear" in caught.value.hint


def test_writer_was_killed(tmp_path):
    path = str(tmp_path / "a.h5")
    code = """if True:
        import os, sys, h5py
        f = h5py.File(sys.argv[1], 'w', libver='latest')
        f.create_dataset('frames', (3, 9, 9), 'u1', chunks=(1, 9, 9))
        f.swmr_mode = True
        f.flush()
        os._exit(9)"""
    assert in_child(code, path).returncode == 9
    with pytest.raises(UnclosedSourceError):
        look(path)


def filtered(path, code: int, name: bytes, masks: list[int]) -> str:
    """Write a dataset whose header asks for a filter that this machine may not have; mask 1: frame stored plain."""
    with h5py.File(path, "w") as file:
        plan = h5p.create(h5p.DATASET_CREATE)
        plan.set_chunk((1, 8, 8))
        plan.set_filter(code, h5z.FLAG_OPTIONAL)
        space = h5s.create_simple((len(masks), 8, 8))
        dataset = h5d.create(file.id, name, h5t.NATIVE_UINT8, space, plan)
        for i, mask in enumerate(masks):
            dataset.write_direct_chunk((i, 0, 0), bytes([i] * 64), mask)
    return str(path)


class TestMissingFilter:
    def test_is_named(self, tmp_path):
        path = filtered(tmp_path / "a.h5", 32019, b"frames", [1, 1, 0])
        with pytest.raises(MissingFilterError, match=r"filter 32019 \(jpeg\)") as caught:
            look(path)
        assert "32019" in caught.value.hint

    def test_unknown_is_numbered(self, tmp_path):
        with pytest.raises(MissingFilterError, match="filter 511 "):
            look(filtered(tmp_path / "a.h5", 511, b"frames", [0]))

    def test_optional_and_unused_is_let_pass(self, tmp_path):
        info = look(filtered(tmp_path / "a.h5", 32019, b"frames", [1, 1, 1]))
        with open_source(info.spec) as source:
            assert source.read(0, 3)[:, 0, 0].tolist() == [0, 1, 2]

    def test_those_of_hdf5plugin_are_there(self, tmp_path, elsewhere):
        code = """if True:
            import sys, h5py, hdf5plugin, numpy as np
            data = np.arange(192, dtype='u1').reshape(3, 8, 8)
            with h5py.File(sys.argv[1], 'w') as f:
                f.create_dataset('frames', data=data, **hdf5plugin.Bitshuffle())"""
        path = str(tmp_path / "a.h5")
        assert in_child(code, path).returncode == 0
        with open_source(look(path).spec) as source:
            np.testing.assert_array_equal(source.read(0, 3).ravel(), np.arange(192))


@pytest.mark.parametrize(
    ("datasets", "words"),
    [
        ({}, "no dataset"),
        ({"image": pixels(1)[0]}, "two-dimensional"),
        ({"x": np.arange(5)}, "nothing of the shape"),
        ({"frames": np.zeros((4, 12, 16, 3), "u1")}, "colour"),
        ({"image": np.zeros((12, 16, 3), "u1")}, "colour"),
        ({"frames": {"shape": (0, 12, 16), "dtype": "u1"}}, "zero frames"),
        ({"frames": np.zeros((4, 12, 16), "c8")}, "grey values.*complex64"),
        ({"frames": np.zeros((4, 12, 16), [("a", "u1"), ("b", "f4")])}, "grey values"),
        ({"frames": np.full((4, 12, 16), b"abc")}, "grey values"),
    ],
)
def test_no_frames(tmp_path, datasets, words):
    with pytest.raises(NoFramesError, match=words) as caught:
        look(write(tmp_path / "a.h5", datasets))
    assert caught.value.hint


def test_links_that_lead_nowhere_are_named(tmp_path):
    path = write(tmp_path / "a.h5", {"x": np.arange(5)})
    with h5py.File(path, "r+") as file:
        file["frames"] = h5py.ExternalLink("gone.h5", "/frames")
        file["loop"] = h5py.SoftLink("/")
    with pytest.raises(NoFramesError, match="nowhere: /frames"):
        look(path)


def test_external_and_soft_links_are_followed(tmp_path):
    write(tmp_path / "b.h5", {"stack": pixels(3)})
    path = write(tmp_path / "a.h5", {"x": np.arange(5)})
    with h5py.File(path, "r+") as file:
        file["frames"] = h5py.ExternalLink("b.h5", "/stack")
    with open_source(look(path).spec) as source:
        np.testing.assert_array_equal(source.read(0, 3), pixels(3))


def test_a_dataset_that_is_not_there_lists_those_that_are(tmp_path):
    path = write(tmp_path / "a.h5", {"growth_1": pixels(3), "growth_2": pixels(3)})
    with pytest.raises(NoFramesError, match=r"growth_3.*growth_1.*growth_2") as caught:
        look(path, dataset="growth_3")
    assert caught.value.hint


class TestPromises:
    """Headers that promise more than is stored."""

    @pytest.mark.parametrize("storage", [{"chunks": (1, 64, 64)}, {"chunks": (1, 64, 64), "compression": "gzip"}])
    @pytest.mark.parametrize("written", [0, 3])
    def test_bomb(self, tmp_path, storage, written):
        path = tmp_path / "a.h5"
        with h5py.File(path, "w") as file:
            dataset = file.create_dataset("frames", (10**12, 64, 64), "u1", **storage)
            dataset[:written] = 1
        with pytest.raises(TruncatedSourceError, match=f"promises {10**12} frames, about {written} are stored"):
            look(path)

    def test_contiguous_and_never_written(self, tmp_path):
        with pytest.raises(TruncatedSourceError, match="about 0"):
            look(write(tmp_path / "a.h5", {"frames": {"shape": (10, 8, 8), "dtype": "u1"}}))

    def test_one_frame_far_away(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("frames", (10**12, 8, 8), "u1", chunks=(1, 8, 8))[10**12 - 1] = 1
        with pytest.raises(TruncatedSourceError):
            look(tmp_path / "a.h5")

    def test_frames_that_no_camera_has(self, tmp_path):
        storage = {"shape": (3, 10**6, 10**6), "dtype": "u1", "chunks": (1, 1000, 1000)}
        with pytest.raises(SourceFormatError, match="bytes each"):
            look(write(tmp_path / "a.h5", {"frames": storage}))

    def test_hdf5_chunks_that_fill_memory(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("frames", (2100, 1024, 1024), "u1", chunks=(2100, 1024, 1024), compression="gzip")
        with pytest.raises(SourceFormatError, match="to decompress") as caught:
            look(tmp_path / "a.h5")
        assert "h5repack" in caught.value.hint

    def test_frames_at_the_end_that_were_never_written_are_left_out(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_dataset("frames", (10, 8, 8), "u1", chunks=(1, 8, 8))[:7] = 5
            file["timestamps"] = 1.7e9 + np.arange(10)
        info = look(tmp_path / "a.h5")
        assert (info.frames, len(info.timestamps_ns)) == (7, 7)
        assert "unwritten frames" in kinds(info)

    def test_holes_are_findings(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            dataset = file.create_dataset("frames", (10, 8, 8), "u1", chunks=(1, 8, 8))
            dataset[:4] = 5
            dataset[5:] = 5
        info = look(tmp_path / "a.h5")
        assert [(found.kind, found.frame) for found in info.findings] == [("unwritten frames", 4)]

    def test_virtual_with_a_missing_part(self, tmp_path):
        write(tmp_path / "part.h5", {"data": pixels(4)})
        layout = h5py.VirtualLayout((4, 12, 16), "u1")
        layout[:] = h5py.VirtualSource("part.h5", "data", (4, 12, 16))
        with h5py.File(tmp_path / "a.h5", "w") as file:
            file.create_virtual_dataset("frames", layout)
        with open_source(look(tmp_path / "a.h5").spec) as source:
            np.testing.assert_array_equal(source.read(0, 4), pixels(4))
        (tmp_path / "part.h5").unlink()
        with pytest.raises(NoFramesError, match=r"part\.h5 is missing"):
            look(tmp_path / "a.h5")


class TestDamage:
    def damaged(self, tmp_path, dtype="u1"):
        path = tmp_path / "a.h5"
        storage = {"data": pixels(16, dtype=dtype), "chunks": (4, 12, 16), "compression": "gzip"}
        with h5py.File(write(path, {"frames": storage})) as file:
            chunk = file["frames"].id.get_chunk_info(2)
        with open(path, "r+b") as file:
            file.seek(chunk.byte_offset + 10)
            file.write(b"\xff" * 40)
        return look(path)

    @pytest.mark.parametrize("dtype", ["u1", "u2"])
    def test_names_the_frames_and_spares_their_neighbours(self, tmp_path, dtype):
        info = self.damaged(tmp_path, dtype)
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="frames 8 to 11 of the run"):
                source.read(0, 16)
            assert len(source.read(0, 8)) == 8
            assert len(source.read(12, 16)) == 4

    def test_fuzzed_headers_never_escape_our_errors(self, tmp_path):
        good = (tmp_path / "good.h5", tmp_path / "bad.h5")
        write(
            good[0], {"frames": {"data": pixels(6), "chunks": (1, 12, 16)}, "timestamps": np.arange(6.0)}, {"@fps": 9}
        )
        content = good[0].read_bytes()
        rng = np.random.default_rng(5)
        for _ in range(80):
            bad = bytearray(content)
            for place in rng.integers(0, 3000, 6):
                bad[place] = rng.integers(256)
            good[1].write_bytes(bad)
            for entry in discover([str(good[1])], SourceOptions()):
                if entry.spec is None:
                    continue
                try:
                    info = inspect(entry.spec)
                    with open_source(info.spec) as source:
                        source.read(0, min(info.frames, 6))
                except (SourceFormatError, SourceReadError, FrameDataError):
                    pass


class TestHandles:
    def test_a_replaced_file_is_opened_anew(self, tmp_path):
        path = write(tmp_path / "a.h5", {"frames": pixels(5, seed=1)})
        info = look(path)
        with open_source(info.spec) as source:
            source.read(0, 5)
            write(tmp_path / "b.h5", {"frames": pixels(5, seed=2)})
            os.replace(tmp_path / "b.h5", path)
            np.testing.assert_array_equal(source.read(0, 5), pixels(5, seed=2))

    def test_a_file_written_anew_in_place_is_read_anew(self, tmp_path):
        path = write(tmp_path / "a.h5", {"frames": pixels(5, seed=1)})
        with open_source(look(path).spec) as source:
            source.read(0, 5)
        other = write(tmp_path / "b.h5", {"frames": pixels(7, seed=2)})
        with open(other, "rb") as new, open(path, "r+b") as old:
            old.write(new.read())
        info = look(path)
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 7), pixels(7, seed=2))

    @pytest.mark.parametrize("frames", [pixels(3), pixels(5, dtype="u2")])
    def test_a_file_that_no_longer_fits_is_named(self, tmp_path, frames):
        info = look(write(tmp_path / "a.h5", {"frames": pixels(5)}))
        release_files()
        write(tmp_path / "a.h5", {"frames": frames})
        with open_source(info.spec) as source, pytest.raises(SourceChangedError, match=r"a\.h5"):
            source.read(0, 5)

    def test_one_frame_at_a_time_decompresses_each_hdf5_chunk_once(self, tmp_path):
        storage = {"data": pixels(128, 400, 400, top=2), "chunks": (64, 400, 400), "compression": "gzip"}
        path = write(tmp_path / "a.h5", {"frames": storage})
        info = look(path)

        def seconds(step):
            release_files()
            begin = time.process_time()
            with open_source(info.spec) as source:
                for i in range(0, 128, step):
                    source.read(i, i + step)
            return time.process_time() - begin

        # Without a cache of the right size it takes 64 times as long (FORMATS.md 4).
        assert min(seconds(1) for _ in range(2)) < 8 * min(seconds(64) for _ in range(2))

    def test_a_file_that_is_gone(self, tmp_path):
        info = look(write(tmp_path / "a.h5", {"frames": pixels(5)}))
        os.unlink(tmp_path / "a.h5")
        with open_source(info.spec) as source, pytest.raises(SourceNotFoundError):
            source.read(0, 5)

    def test_release_lets_writers_in(self, tmp_path):
        path = write(tmp_path / "a.h5", {"frames": pixels(5)})
        with open_source(look(path).spec) as source:
            source.read(0, 5)
        release_files()
        with h5py.File(path, "r+") as file:
            file["x"] = 1

    def test_no_hdf5_chunk_is_decompressed_twice_in_sequence(self, tmp_path):
        storage = {"data": pixels(70, 400, 400, top=2), "chunks": (64, 400, 400), "compression": "lzf"}  # over 8 MiB
        path = write(tmp_path / "a.h5", {"frames": storage})
        release_files()
        with open_source(look(path).spec) as source:
            source.read(0, 10)
            with borrow(path) as file:
                chunk = file.file["frames"].id.get_chunk_info(0)
                # What is cached is read from memory: the file's own bytes may go.
                with open(path, "r+b") as raw:
                    mtime = os.stat(path).st_mtime_ns
                    raw.seek(chunk.byte_offset)
                    raw.write(b"\xff" * chunk.size)
                os.utime(path, ns=(mtime, mtime))
            np.testing.assert_array_equal(source.read(10, 60), storage["data"][10:60])


def test_frames_whose_last_axis_is_time(tmp_path):
    frames = np.moveaxis(pixels(60, 48, 64), 0, 2)
    path = write(tmp_path / "a.h5", {"frames": frames, "timestamps": np.arange(60.0)})
    with pytest.raises(NoFramesError, match=r"axis 2, not its first") as caught:
        look(path)
    assert "moveaxis(frames, 2, 0)" in caught.value.hint
    # Nothing is said where the first axis fits, or the length is that of no axis.
    for length in (48, 47):
        assert (
            look(write(tmp_path / "b.h5", {"frames": frames, "timestamps": np.arange(length) + 1.0})).frames == length
        )


def test_a_second_stack_is_named(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": pixels(20), "roi/frames": pixels(20, 6, 8)})
    info = look(path)
    (found,) = info.findings
    assert (info.frames, info.height_px) == (20, 12)
    assert found.kind == "other frames"
    assert "/roi/frames (20, 6, 8) uint8" in found.message
    assert "--dataset /roi/frames" in found.message
    other = look(path, dataset="/roi/frames")
    assert (other.height_px, other.findings) == (6, ())


@pytest.mark.parametrize("dtype", ["u1", "u2"])
def test_an_hdf5_chunk_that_would_fill_memory(tmp_path, dtype):
    frames = pixels(20, dtype=dtype, top=200)
    frames[0, 0, 0] = 255
    path = write(tmp_path / "a.h5", {"frames": {"data": frames, "chunks": (2, 12, 16), "compression": "gzip"}})
    bomb = zlib.compress(bytes(2 * 10**8), 9)  # 200 kB
    with h5py.File(path, "r+") as file:
        file["frames"].id.write_direct_chunk((4, 0, 0), bomb)
    info = look(path)
    with open_source(info.spec) as source:
        with pytest.raises(FrameDataError, match=r"frames 4 to 5 .* of pixels"):
            source.read(2, 20)
        with pytest.raises(FrameDataError, match=r"frames 5 to 5 "):
            source.read(5, 6)
        np.testing.assert_array_equal(source.read(6, 20), to_uint8(frames[6:], info.scale))
