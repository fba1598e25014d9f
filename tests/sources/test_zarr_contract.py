"""The contract of sources, for each way that Zarr stores frames."""

import warnings

import numpy as np
import pytest
import xarray
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.frames import to_uint8
from ingest.sources import open_source
from tests.sources.contract import Made, SourceContract
from tests.sources.files import NS, START_S, look, pixels
from tests.sources.zarrs import lake, make


@pytest.mark.parametrize(
    "storage",
    [
        {"zarr_format": 3, "chunks": (1, 12, 16)},
        {"zarr_format": 3, "chunks": (4, 6, 8), "shards": (8, 12, 16)},
        {"zarr_format": 3, "chunks": (7, 5, 7), "compressors": None},
        {"zarr_format": 3, "chunks": (3, 12, 16), "chunk_key_encoding": {"name": "v2", "separator": "."}},
        {"zarr_format": 3, "chunks": (3, 5, 16), "chunk_key_encoding": {"name": "default", "separator": "."}},
        {"zarr_format": 2, "chunks": (1, 12, 16)},
        {"zarr_format": 2, "chunks": (5, 12, 7), "chunk_key_encoding": {"name": "v2", "separator": "/"}},
        {"zarr_format": 2, "chunks": (21, 12, 16), "compressors": None, "order": "F"},
    ],
    ids=str,
)
class TestLoneArrays(SourceContract):
    @pytest.fixture
    def made(self, tmp_path, storage):
        frames = pixels(21)
        return Made(look(make(tmp_path / "a.zarr", frames, **storage)), frames)


@pytest.mark.parametrize(("dtype", "zarr_format"), [("<u2", 3), (">u2", 2), ("<i2", 3), ("<f4", 2), ("?", 3)])
class TestWide(SourceContract):
    @pytest.fixture
    def made(self, tmp_path, dtype, zarr_format):
        frames = pixels(19, dtype=dtype, top=2 if dtype == "?" else 4000)
        if np.dtype(dtype).kind == "i":
            frames[3] = -5
        info = look(make(tmp_path / "a.zarr", frames, chunks=(4, 12, 16), zarr_format=zarr_format))
        return Made(info, to_uint8(frames, info.scale))


class TestOmeZarr(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        group = zarr.create_group(tmp_path / "a.zarr", zarr_format=2)
        for level, step in enumerate((1, 2)):
            make(tmp_path / "a.zarr" / str(level), frames[:, None, None, ::step, ::step], zarr_format=2)
        axes = [{"name": "t", "type": "time", "unit": "millisecond"}, *({"name": name} for name in "czyx")]
        scale = [{"type": "scale", "scale": [40.0, 1, 1, 1, 1]}]
        levels = [{"path": str(i), "coordinateTransformations": scale} for i in (0, 1)]
        group.attrs["multiscales"] = [{"axes": axes, "datasets": levels}]
        return Made(look(tmp_path / "a.zarr"), frames)

    def test_full_resolution_and_its_rate(self, made):
        assert (made.info.spec.dataset, made.info.fps_claimed) == ("/0", 25.0)


@pytest.mark.parametrize(("zarr_format", "consolidated"), [(2, True), (3, True), (3, False)])
class TestXarray(SourceContract):
    @pytest.fixture
    def made(self, tmp_path, zarr_format, consolidated):
        frames = pixels(20)
        times = START_S * NS + 50_000_000 * np.arange(20) + 7
        data = xarray.Dataset(
            {"intensity": ("time", np.arange(20.0)), "rheed": (("time", "y", "x"), frames)},
            coords={"time": times.astype("M8[ns]"), "y": np.arange(12.0)},
            attrs={"fps": 20.0},
        )
        encoding = {"time": {"units": "nanoseconds since 1970-01-01", "dtype": "i8"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # format 3 does not specify consolidated metadata
            data.to_zarr(tmp_path / "a.zarr", zarr_format=zarr_format, consolidated=consolidated, encoding=encoding)
        return Made(look(tmp_path / "a.zarr"), frames)

    def test_its_times(self, made):
        info = made.info
        np.testing.assert_array_equal(info.timestamps_ns, START_S * NS + 50_000_000 * np.arange(20) + 7)
        assert (info.start_from, info.fps_claimed, info.spec.dataset) == ("frame stamps", 20.0, "/rheed")


class TestLake(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(50)
        return Made(look(lake(tmp_path / "x.zarr", frames)), frames)

    def test_what_it_says(self, made):
        info = made.info
        assert (info.name, info.format, info.fps_claimed, info.rotations_per_min) == (
            "a growth",
            "Zarr lake",
            10.0,
            12.0,
        )
        assert (info.block_frames, info.findings) == (20, ())
        np.testing.assert_array_equal(info.timestamps_ns, START_S * NS + 100_000_000 * np.arange(50))


@pytest.fixture(scope="module")
def sliced(tmp_path_factory):
    frames = pixels(63, 60, 80, dtype="u2", top=4096)
    path = tmp_path_factory.mktemp("z") / "a.zarr"
    return look(make(path, frames, chunks=(4, 30, 80), shards=(16, 60, 80))), frames


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.integers(0, 62), length=st.integers(1, 64))
def test_any_slice_is_the_run(sliced, start, length):
    info, frames = sliced
    stop = min(63, start + length)
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(start, stop), to_uint8(frames[start:stop], info.scale))


def test_wide_frames_that_take_several_blocks(tmp_path, monkeypatch):
    for name in ("BLOCK_BYTES", "ZarrSource.block_bytes"):
        monkeypatch.setattr(f"ingest.sources.zarr_read.{name}", 3 * 12 * 16 * 2)
    frames = pixels(20, dtype="u2", top=4096)
    for chunks in (1, 2, 8):
        info = look(make(tmp_path / f"{chunks}.zarr", frames, chunks=(chunks, 12, 16)))
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(1, 20), to_uint8(frames[1:], info.scale))


def test_zarr_chunks_of_many_frames_are_decompressed_once(tmp_path, monkeypatch):
    from ingest.sources.zarr_read import FrameArray

    frames = pixels(70)
    info = look(make(tmp_path / "a.zarr", frames, chunks=(32, 12, 16)))
    reads, real = [], FrameArray._select
    monkeypatch.setattr(FrameArray, "_select", lambda self, *args: reads.append(args[:2]) or real(self, *args))
    out = np.zeros_like(frames)
    for i in range(70):
        with open_source(info.spec) as source:
            out[i] = source.read(i, i + 1)[0]
    np.testing.assert_array_equal(out, frames)
    assert reads == [(0, 32), (32, 64), (64, 70)]
