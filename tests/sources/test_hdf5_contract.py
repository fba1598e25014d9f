"""The contract of sources, for each way that HDF5 stores frames."""

from itertools import pairwise

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.frames import to_uint8
from ingest.sources import open_source
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from tests.sources.contract import Made, SourceContract
from tests.sources.files import look, pixels, write


def test_wide_frames_that_take_several_blocks(tmp_path):
    frames = pixels(20, 1000, 1000, dtype="u2", top=4096)  # 2 MB each: 8 in a block
    info = look(write(tmp_path / "a.h5", {"frames": {"data": frames, "chunks": (3, 1000, 1000)}}))
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(1, 20), to_uint8(frames[1:], info.scale))


class TestContiguous(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        return Made(look(write(tmp_path / "a.h5", {"frames": frames})), frames)


class TestAreaDetector(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        run = GrowthRun(23, 16, 24, jitter_s=0.002, gaps=((9, 0.5),))
        path = tmp_path / "a.h5"
        write_hdf5(path, run, compression="lzf")
        return Made(look(path), run.frames(0, 23))


class TestChunkFiles(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        run = GrowthRun(50, 16, 24)
        folder = tmp_path / "run"
        write_hdf5(folder, run, "chunk_files", frames_per_file=8)  # 7 files: more than stay open
        return Made(look(folder), run.frames(0, 50))


class TestFramesStoredPlain(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        path = write(tmp_path / "a.h5", {"frames": {"shape": (20, 12, 16), "dtype": "u1", "chunks": (1, 12, 16)}})
        with h5py.File(path, "r+") as file:
            for i in (*range(7), *range(9, 20)):  # 7 and 8: never written, and so of the fill value
                file["frames"][i] = frames[i]
        frames[7:9] = 0
        return Made(look(path), frames)

    def test_what_was_never_written_is_said(self, made):
        assert [(found.kind, found.frame) for found in made.info.findings] == [("unwritten frames", 7)]


class TestGzipOfManyFramesAndTiles(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(21)
        storage = {"data": frames, "chunks": (8, 5, 7), "compression": "gzip"}
        return Made(look(write(tmp_path / "a.h5", {"frames": storage})), frames)


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "<i2", "i1", "<u4", "<i8", "<f4", ">f8", "?"])
class TestWide(SourceContract):
    @pytest.fixture
    def made(self, tmp_path, dtype):
        frames = pixels(19, dtype=dtype, top=2 if dtype == "?" else 100 if dtype == "i1" else 4000)
        if np.dtype(dtype).kind == "i":
            frames[3] = -5
        storage = {"data": frames, "chunks": (4, 12, 16)}
        info = look(write(tmp_path / "a.h5", {"frames": storage}))
        expected = np.clip(np.floor(frames.astype(np.float64) * 255 / info.scale.full_scale + 1e-9), 0, 255)
        return Made(info, expected.astype(np.uint8))


@pytest.fixture(scope="module")
def sliced(tmp_path_factory):
    run = GrowthRun(64, 10, 12)
    folder = tmp_path_factory.mktemp("h") / "run"
    write_hdf5(folder, run, "chunk_files", frames_per_file=9, hdf5_chunk_frames=4, compression="gzip")
    return look(folder), run


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.sets(st.integers(1, 63)), seed=st.integers(0, 100))
def test_any_cover_in_any_order_is_the_run(sliced, cuts, seed):
    info, run = sliced
    edges = [0, *sorted(cuts), 64]
    pieces = list(pairwise(edges))
    np.random.default_rng(seed).shuffle(pieces)
    out = np.zeros((64, 10, 12), np.uint8)
    with open_source(info.spec) as source:
        for start, stop in pieces:
            out[start:stop] = source.read(start, stop)
    np.testing.assert_array_equal(out, run.frames(0, 64))


@settings(max_examples=30, deadline=None)
@given(start=st.integers(0, 62), length=st.integers(1, 64))
def test_wide_slices_are_scaled_alike(tmp_path_factory, start, length):
    path = tmp_path_factory.getbasetemp() / "wide.h5"
    frames = pixels(63, 60, 80, dtype="u2", top=4096)
    if not path.exists():
        write(path, {"frames": {"data": frames, "chunks": (16, 30, 80), "compression": "lzf"}})
    info = look(path)
    stop = min(63, start + length)
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(start, stop), to_uint8(frames[start:stop], info.scale))
