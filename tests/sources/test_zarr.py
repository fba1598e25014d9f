"""What Zarr folders say of times, what is chosen in them, and every way in which they are damaged."""

import json
import os
import shutil
import warnings
import zlib

import numcodecs
import numpy as np
import pytest
import zarr

from ingest.errors import (
    FrameDataError,
    IngestError,
    MissingFilterError,
    NoFramesError,
    SourceChangedError,
    SourceFormatError,
    SourceReadError,
    SourceTimeError,
    TruncatedSourceError,
    UnclosedSourceError,
)
from ingest.sources import SourceOptions, SourceSpec, discover, inspect, open_source
from ingest.sources.zarr_read import FrameArray
from tests.sources.files import NS, START_S, kinds, look, pixels
from tests.sources.zarrs import NOT_A_TIME, lake, make

N = 20
FRAMES = pixels(N)
TIMES_NS = START_S * NS + 50_000_000 * np.arange(N)
SHAPE = FRAMES.shape[1:]


def group(path, arrays, attributes=None) -> str:
    """Write a group: path to values, or to what `make` takes."""
    zarr.create_group(str(path), attributes=attributes)
    for name, value in arrays.items():
        make(path / name, **(value if isinstance(value, dict) else {"values": value}))
    return str(path)


def timed(values, units=None, **more):
    return {"values": values, "dims": ("time",), "attributes": {} if units is None else {"units": units}, **more}


class TestTimes:
    @pytest.mark.parametrize(
        ("values", "units", "absolute"),
        [
            (TIMES_NS, "nanoseconds since 1970-01-01", True),
            (50 * np.arange(N), "milliseconds since 2023-11-14T22:13:20Z", True),
            (np.arange(N) * 0.05, "seconds since 2023-11-14 22:13:20+00:00", True),
            (np.arange(N) / 1200, "minutes since 2023-11-14T22:13:20Z", True),
            (np.arange(N) / 20 / 86400, "days since 2023-11-14T22:13:20Z", True),
            (TIMES_NS / NS, None, True),
            (50 * np.arange(N), "ms", False),
        ],
    )
    def test_units(self, tmp_path, values, units, absolute):
        frames = {"values": FRAMES, "dims": ("time", "y", "x")}
        info = look(group(tmp_path / "a.zarr", {"frames": frames, "time": timed(values, units)}))
        np.testing.assert_allclose(
            info.timestamps_ns - (START_S * NS if absolute else 0), TIMES_NS - TIMES_NS[0], atol=300
        )
        assert info.start_from == ("frame stamps" if absolute else None)

    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_numpy_dates(self, tmp_path, zarr_format):
        zarr.create_group(str(tmp_path / "a.zarr"), zarr_format=zarr_format)
        make(tmp_path / "a.zarr" / "frames", FRAMES, zarr_format=zarr_format)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # format 3 does not specify dates
            make(tmp_path / "a.zarr" / "when", TIMES_NS.astype("M8[ns]"), zarr_format=zarr_format)
        np.testing.assert_array_equal(look(tmp_path / "a.zarr").timestamps_ns, TIMES_NS)

    def test_the_axis_of_the_frames_goes_first(self, tmp_path):
        arrays = {
            "frames": {"values": FRAMES, "dims": ("when", "y", "x")},
            "when": {"values": TIMES_NS, "dims": ("when",), "attributes": {"units": "ns"}},
            "time": timed(np.arange(N), "s"),
            "temperature": np.arange(N),
        }
        assert look(group(tmp_path / "a.zarr", arrays)).start_ns == TIMES_NS[0]

    def test_the_user_names_them(self, tmp_path):
        path = group(
            tmp_path / "a.zarr", {"frames": FRAMES, "time": np.arange(N), "log/t": TIMES_NS, "short": np.arange(3)}
        )
        assert look(path, timestamps="log/t").start_ns == TIMES_NS[0]
        with pytest.raises(SourceTimeError, match="/log/t") as caught:
            look(path, timestamps="nowhere")
        assert caught.value.hint
        with pytest.raises(SourceTimeError, match="all zero"):
            look(group(tmp_path / "b.zarr", {"frames": FRAMES, "t": np.zeros(N)}), timestamps="t")

    def test_a_naive_date_asks_for_its_zone(self, tmp_path):
        path = group(
            tmp_path / "a.zarr", {"frames": FRAMES, "time": timed(np.arange(N), "seconds since 2023-11-14 22:13:20")}
        )
        with pytest.raises(SourceTimeError, match="zone"):
            look(path)
        assert look(path, timezone="UTC").start_ns == START_S * NS

    def test_attributes(self, tmp_path):
        attributes = {"start_time": "2023-11-14T22:13:20Z", "fps": "25"}
        info = look(make(tmp_path / "a.zarr", FRAMES, attributes=attributes))
        assert (info.start_ns, info.start_from, info.fps_claimed) == (START_S * NS, "file attributes", 25.0)

    def test_name_and_mtime(self, tmp_path):
        path = make(tmp_path / "STO_20231114-221320.zarr", FRAMES, chunks=(5, *SHAPE))
        assert look(path, timezone="UTC").start_ns == START_S * NS
        os.utime(tmp_path / "STO_20231114-221320.zarr" / "c" / "3" / "0" / "0", (START_S, START_S))
        info = look(path, start_from_mtime=True, fps=10.0)
        assert (info.start_ns, info.start_from) == ((START_S - 2) * NS, "mtime")

    def test_a_frame_without_a_time_is_still_a_frame(self, tmp_path):
        times = TIMES_NS / NS
        times[[0, 7]] = np.nan
        info = look(group(tmp_path / "a.zarr", {"frames": FRAMES, "time": timed(times, "s")}))
        np.testing.assert_allclose(info.timestamps_ns, TIMES_NS, atol=300)
        assert [(found.kind, found.frame) for found in info.findings] == [("stamps", 0)]
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, N), FRAMES)

    def test_frames_that_have_no_time_yet_are_left_out(self, tmp_path):
        frames = {"values": FRAMES, "dims": ("time", "y", "x")}
        info = look(group(tmp_path / "a.zarr", {"frames": frames, "time": timed(TIMES_NS[:17])}))
        assert (info.frames, len(info.timestamps_ns), kinds(info)) == (17, 17, ["column length"])


class TestChoice:
    def test_the_largest(self, tmp_path):
        path = group(tmp_path / "a.zarr", {"small": pixels(3), "deep/big": FRAMES, "image": FRAMES[0]})
        assert look(path).spec.dataset == "/deep/big"
        assert look(path, dataset="small").spec.dataset == "/small"
        with pytest.raises(NoFramesError, match=r"'image'; there are: /small.*/deep/big"):
            look(path, dataset="image")

    def test_an_axis_of_time_before_size(self, tmp_path):
        arrays = {"volume": pixels(N, 30, 30), "movie": {"values": FRAMES, "dims": ("time", "y", "x")}}
        assert look(group(tmp_path / "a.zarr", arrays)).spec.dataset == "/movie"

    def test_runs_that_are_named_alike(self, tmp_path):
        arrays = {f"growth_{i}/frames": pixels(3, seed=i) for i in (1, 10, 2)}
        entries = discover([group(tmp_path / "a.zarr", {**arrays, "dark": pixels(1)})])
        assert [entry.spec.dataset for entry in entries] == [f"/growth_{i}/frames" for i in (1, 2, 10)]
        infos = [inspect(entry.spec) for entry in entries]
        assert infos[1].name == "a growth_2/frames"
        assert len({info.fingerprint for info in infos}) == 3

    def test_a_pyramid_is_one_run(self, tmp_path):
        levels = {"0": FRAMES, "1": FRAMES[:, ::2, ::2], "2": FRAMES[:, ::4, ::3]}
        assert [entry.spec.dataset for entry in discover([group(tmp_path / "a.zarr", levels)])] == ["/0"]

    def test_a_folder_of_stores(self, tmp_path):
        make(tmp_path / "runs" / "b10.zarr", FRAMES)
        lake(tmp_path / "runs" / "b2.zarr", FRAMES)
        make(tmp_path / "runs" / "unfinished.zarr" / "frames", FRAMES)  # without the group, the lake's commit marker
        entries = discover([str(tmp_path / "runs")])
        assert [os.path.basename(entry.path) for entry in entries] == ["b2.zarr", "b10.zarr", "unfinished.zarr"]
        assert isinstance(entries[2].error, UnclosedSourceError)

    @pytest.mark.parametrize(
        ("arrays", "attributes", "words"),
        [
            ({}, None, "no array"),
            ({"x": np.arange(5)}, None, "nothing of the shape"),
            ({"rgb": np.zeros((4, 12, 16, 3), "u1")}, None, "colour"),
            ({"frames": np.zeros((0, 12, 16), "u1")}, None, "zero frames"),
            ({"stack": np.zeros((4, 12, 16), "c8")}, None, "nothing of the shape"),
            ({"timeseries/x/value": np.arange(5.0)}, {"format": "rheed-ingest", "channels": ["x"]}, "readings"),
        ],
    )
    def test_no_frames(self, tmp_path, arrays, attributes, words):
        arrays = {name: {"values": values, "chunks": (1,) * values.ndim} for name, values in arrays.items()}
        with pytest.raises(NoFramesError, match=words) as caught:
            look(group(tmp_path / "a.zarr", arrays, attributes))
        assert caught.value.hint


class TestLostFrames:
    def test_are_marked_filled_and_never_read(self, tmp_path):
        times, index = TIMES_NS.copy(), np.arange(N)
        times[5:8], index[[5, 6, 7, 12]] = NOT_A_TIME, -1
        info = look(lake(tmp_path / "a.zarr", FRAMES, times=times, index=index, size=4))
        np.testing.assert_array_equal(info.timestamps_ns, TIMES_NS)
        np.testing.assert_array_equal(info.frame_numbers, np.arange(N))
        assert [(found.kind, found.frame, found.message[:7]) for found in info.findings] == [
            ("lost frames", 5, "4 of 20")
        ]
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="frames 5 to 7 of the run were lost"):
                source.read(0, N)
            for i in range(N):
                if i in (5, 6, 7, 12):
                    with pytest.raises(FrameDataError):
                        source.read(i, i + 1)
                else:
                    np.testing.assert_array_equal(source.read(i, i + 1), FRAMES[i : i + 1])

    def test_a_shard_that_is_gone_is_lost(self, tmp_path):
        path = lake(tmp_path / "a.zarr", FRAMES, size=8)
        os.unlink(tmp_path / "a.zarr" / "frames" / "c" / "2" / "0" / "0")
        info = look(path)
        assert [(found.kind, found.frame) for found in info.findings] == [("lost frames", 16)]
        assert info.frames == N
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 16), FRAMES[:16])
            with pytest.raises(FrameDataError, match=r"frames 16 to 17 of the run: c/2/0/0 is not there"):
                source.read(15, 18)

    def test_all_of_them(self, tmp_path):
        with pytest.raises(TruncatedSourceError, match="not one of the 20 frames"):
            look(lake(tmp_path / "a.zarr", FRAMES, index=np.full(N, -1)))

    def test_wide_ones_are_passed_over_when_sampling(self, tmp_path):
        index = np.arange(N)
        index[1:-1] = -1
        assert look(lake(tmp_path / "a.zarr", pixels(N, dtype="u2", top=1000), index=index)).scale.full_scale == 1023.0


class TestUnwritten:
    def store(self, tmp_path, written, **storage):
        storage = {"chunks": (1, *SHAPE), **storage}
        array = zarr.create_array(str(tmp_path / "a.zarr"), shape=FRAMES.shape, dtype="u1", **storage)
        for part in written:
            array[part] = FRAMES[part]
        return str(tmp_path / "a.zarr")

    def test_holes_are_a_finding(self, tmp_path):
        info = look(self.store(tmp_path, [slice(0, 7), slice(9, N)]))
        assert [(found.kind, found.frame, found.message[:8]) for found in info.findings] == [
            ("unwritten frames", 7, "2 frames")
        ]
        with open_source(info.spec) as source:
            assert not source.read(7, 9).any()

    def test_the_end_is_left_out(self, tmp_path):
        info = look(self.store(tmp_path, [slice(0, 16)], chunks=(4, 6, 8), zarr_format=2))
        assert (info.frames, kinds(info)) == (16, ["unwritten frames"])
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 16), FRAMES[:16])

    def test_a_tile_that_is_gone_makes_its_frames_unwritten(self, tmp_path):
        path = self.store(tmp_path, [slice(0, N)], chunks=(4, 6, 8))
        os.unlink(tmp_path / "a.zarr" / "c" / "1" / "0" / "1")
        assert [(found.kind, found.frame) for found in look(path).findings] == [("unwritten frames", 4)]

    def test_what_goes_after_it_was_inspected_is_a_change(self, tmp_path):
        info = look(self.store(tmp_path, [slice(0, N)]))
        os.unlink(tmp_path / "a.zarr" / "c" / "3" / "0" / "0")
        with open_source(info.spec) as source:
            with pytest.raises(SourceChangedError, match="frames 3 to 3"):
                source.read(0, N)
            assert len(source.read(4, N)) == 16

    @pytest.mark.parametrize("written", [[], [slice(0, 3)]])
    def test_mostly_nothing_is_refused(self, tmp_path, written):
        with pytest.raises(TruncatedSourceError, match="promise 20 frames"):
            look(self.store(tmp_path, written))


def change(path, **more):
    """Change the metadata of an array."""
    name = "zarr.json" if os.path.exists(os.path.join(path, "zarr.json")) else ".zarray"
    with open(os.path.join(path, name)) as file:
        metadata = json.load(file)
    metadata.update(more)
    with open(os.path.join(path, name), "w") as file:
        json.dump(metadata, file)
    return path


class TestBombs:
    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_frames_that_are_not_there(self, tmp_path, zarr_format):
        path = make(tmp_path / "a.zarr", FRAMES, chunks=(1, *SHAPE), zarr_format=zarr_format)
        with pytest.raises(TruncatedSourceError, match=f"promise {10**12} frames, about 20 are stored"):
            look(change(path, shape=[10**12, *SHAPE]))

    def test_frames_of_a_lake_that_are_not_there(self, tmp_path):
        path = lake(tmp_path / "a.zarr", FRAMES)
        for name in ("frames", "time", "frame_index"):
            change(os.path.join(path, name), shape=[10**12, *(SHAPE if name == "frames" else ())])
        with pytest.raises(TruncatedSourceError, match=f"promise {10**12} frames"):
            look(path)

    def test_frames_that_no_camera_has(self, tmp_path):
        zarr.create_array(str(tmp_path / "a.zarr"), shape=(3, 10**6, 10**6), dtype="u1", chunks=(1, 1000, 1000))
        with pytest.raises(SourceFormatError, match="bytes each"):
            look(tmp_path / "a.zarr")

    def test_zarr_chunks_that_fill_memory(self, tmp_path):
        zarr.create_array(str(tmp_path / "a.zarr"), shape=(2100, 1024, 1024), dtype="u1", chunks=(2100, 1024, 1024))
        with pytest.raises(SourceFormatError, match="to decompress") as caught:
            look(tmp_path / "a.zarr")
        assert "(1, 1024, 1024)" in caught.value.hint

    def test_a_column_that_fills_memory(self, tmp_path):
        path = lake(tmp_path / "a.zarr", FRAMES)
        grid = {"name": "regular", "configuration": {"chunk_shape": [10**12]}}
        change(os.path.join(path, "time"), chunk_grid=grid)
        with pytest.raises(SourceFormatError, match="too long to be real"):
            look(path)

    def test_a_shard_of_too_many(self, tmp_path):
        shards = (10**10, *SHAPE)
        zarr.create_array(
            str(tmp_path / "a.zarr"), shape=(10**10, *SHAPE), dtype="u1", chunks=(1, *SHAPE), shards=shards
        )
        with pytest.raises(SourceFormatError, match="too many to be real"):
            look(tmp_path / "a.zarr")

    def test_a_frame_that_claims_to_be_huge(self, tmp_path):
        path = make(tmp_path / "a.zarr", FRAMES, chunks=(1, *SHAPE))
        info = look(path)
        # A zstd frame whose header claims 2**62 bytes.
        (tmp_path / "a.zarr" / "c" / "2" / "0" / "0").write_bytes(
            b"\x28\xb5\x2f\xfd\xe0" + (2**62).to_bytes(8, "little") + b"x" * 20
        )
        with open_source(info.spec) as source, pytest.raises(FrameDataError, match="frames 2 to 2"):
            source.read(0, N)


class TestDamage:
    def damaged(self, tmp_path, key, change_bytes, **storage):
        path = make(tmp_path / "a.zarr", FRAMES, **storage)
        info = look(path)
        file = tmp_path / "a.zarr" / key
        file.write_bytes(change_bytes(file.read_bytes()))
        return info

    @pytest.mark.parametrize(
        "cut", [lambda raw: raw[:-3], lambda raw: b"", lambda raw: raw[:40], lambda raw: raw[:-9] + b"x" + raw[-8:]]
    )
    def test_a_torn_shard(self, tmp_path, cut):
        info = self.damaged(tmp_path, "c/1/0/0", cut, chunks=(1, *SHAPE), shards=(8, *SHAPE))
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match=r"frames 8 to (8|15) of the run"):
                source.read(0, N)
            for i in range(8, 16):
                with pytest.raises(FrameDataError):
                    source.read(i, i + 1)
            np.testing.assert_array_equal(source.read(0, 8), FRAMES[:8])
            np.testing.assert_array_equal(source.read(16, N), FRAMES[16:])

    def test_a_chunk_that_would_fill_memory(self, tmp_path, monkeypatch):
        bomb = zlib.compress(bytes(2 * 10**8), 9)  # 200 kB
        storage = {"zarr_format": 2, "chunks": (1, *SHAPE), "compressors": numcodecs.Zlib()}
        info = self.damaged(tmp_path, "5.0.0", lambda raw: bomb, **storage)
        monkeypatch.setattr(FrameArray, "_select", lambda *_: pytest.fail("decompressed"))
        with (
            open_source(info.spec) as source,
            pytest.raises(FrameDataError, match=r"frames 5 to 5 .* for 192 of pixels"),
        ):
            source.read(4, 7)
        monkeypatch.undo()
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(6, N), FRAMES[6:])

    def test_one_frame_of_a_shard(self, tmp_path):
        info = self.damaged(
            tmp_path, "c/0/0/0", lambda raw: b"\xff" * 8 + raw[8:], chunks=(1, *SHAPE), shards=(8, *SHAPE)
        )
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="frames 0 to 0"):
                source.read(0, N)
            np.testing.assert_array_equal(source.read(1, N), FRAMES[1:])

    @pytest.mark.parametrize("compressors", [None, "auto"])
    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_a_cut_file(self, tmp_path, zarr_format, compressors):
        key = "1.0.0" if zarr_format == 2 else "c/1/0/0"
        storage = {"chunks": (4, *SHAPE), "zarr_format": zarr_format, "compressors": compressors}
        info = self.damaged(tmp_path, key, lambda raw: raw[:-30], **storage)
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="frames 4 to 7"):
                source.read(0, N)
            with pytest.raises(FrameDataError, match="frames 4 to 7"):
                source.read(5, 6)
            np.testing.assert_array_equal(source.read(8, 11), FRAMES[8:11])

    @pytest.mark.parametrize(
        "codec",
        [
            zarr.codecs.BloscCodec(),
            zarr.codecs.GzipCodec(),
            zarr.codecs.ZstdCodec(checksum=True),
            zarr.codecs.Crc32cCodec(),
        ],
    )
    def test_whatever_the_codec_raises(self, tmp_path, codec):
        rng = np.random.default_rng(0)
        make(tmp_path / "a.zarr", FRAMES, chunks=(2, *SHAPE), compressors=[codec])
        info = look(tmp_path / "a.zarr")
        file = tmp_path / "a.zarr" / "c" / "4" / "0" / "0"
        good = file.read_bytes()
        for _ in range(12):
            bad = bytearray(good)
            for place in rng.integers(0, len(good), 6):
                bad[place] = rng.integers(256)
            file.write_bytes(bad[: rng.integers(1, len(good) + 1)])
            with open_source(info.spec) as source:
                try:
                    assert source.read(0, N).shape == FRAMES.shape
                except FrameDataError as error:
                    assert "frames 8 to 9" in str(error)  # noqa: PT017

    def test_a_folder_in_place_of_a_file_is_no_black_frame(self, tmp_path):
        info = look(make(tmp_path / "a.zarr", FRAMES, chunks=(1, *SHAPE)))
        file = tmp_path / "a.zarr" / "c" / "3" / "0" / "0"
        file.unlink()
        file.mkdir()
        with open_source(info.spec) as source, pytest.raises(SourceChangedError):
            source.read(3, 4)

    def test_an_error_of_the_disk_may_be_tried_again(self, tmp_path, monkeypatch):
        info = look(make(tmp_path / "a.zarr", FRAMES, chunks=(1, *SHAPE)))
        real = zarr.storage.LocalStore.get

        async def failing(self, *args, **kwargs):
            raise OSError(5, "Input/output error")

        with open_source(info.spec) as source:
            source.read(0, 1)
            monkeypatch.setattr(zarr.storage.LocalStore, "get", failing)
            with pytest.raises(SourceReadError, match="Input/output error"):
                source.read(0, N)
            monkeypatch.setattr(zarr.storage.LocalStore, "get", real)
            np.testing.assert_array_equal(source.read(0, N), FRAMES)

    def test_nan_pixels_are_named(self, tmp_path):
        frames = pixels(N, dtype="f4")
        frames[6, 2, 2] = np.nan
        info = look(make(tmp_path / "a.zarr", frames, chunks=(1, *SHAPE)))
        with open_source(info.spec) as source, pytest.raises(FrameDataError, match="frame 6 has NaN"):
            source.read(4, N)


class TestMetadata:
    @pytest.mark.parametrize("zarr_format", [2, 3])
    def test_a_codec_that_is_missing_is_named(self, tmp_path, zarr_format):
        path = make(tmp_path / "a.zarr", FRAMES, zarr_format=zarr_format)
        unknown = (
            {"compressor": {"id": "jetraw"}}
            if zarr_format == 2
            else {"codecs": [{"name": "bytes"}, {"name": "jetraw"}]}
        )
        with pytest.raises(MissingFilterError, match="jetraw") as caught:
            look(change(path, **unknown))
        assert caught.value.hint

    @pytest.mark.parametrize(
        "content", ["", "{", "[]", '{"zarr_format": 3}', '{"zarr_format": 3, "node_type": "array"}']
    )
    def test_that_make_no_sense(self, tmp_path, content):
        (tmp_path / "a.zarr").mkdir()
        (tmp_path / "a.zarr" / "zarr.json").write_text(content)
        with pytest.raises(SourceFormatError, match="make no sense"):
            look(tmp_path / "a.zarr")

    @pytest.mark.parametrize(
        "more",
        [
            {"zarr_format": 7}, {"data_type": "float128"}, {"shape": [20, -12, 16]}, {"shape": "many"},
            {"shape": [20, 12]},
            {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 12, 16]}}},
            {"chunk_grid": {"name": "spiral", "configuration": {}}}, {"codecs": []}, {"fill_value": "x"},
            {"chunk_key_encoding": {"name": "odd"}}, {"attributes": 5}, {"storage_transformers": [{"name": "x"}]},
        ],
        ids=str,
    )  # fmt: skip
    def test_every_field_of_them(self, tmp_path, more):
        with pytest.raises(SourceFormatError):
            look(change(make(tmp_path / "a.zarr", FRAMES), **more))

    def test_a_bad_neighbour_does_not_matter(self, tmp_path):
        path = group(tmp_path / "a.zarr", {"frames": FRAMES, "other": FRAMES[:3]})
        (tmp_path / "a.zarr" / "other" / "zarr.json").write_text("{")
        assert look(path).frames == N

    def test_fuzzed_ones_never_escape_our_errors(self, tmp_path):
        path = make(tmp_path / "a.zarr", FRAMES, chunks=(2, *SHAPE), shards=(4, *SHAPE))
        file = tmp_path / "a.zarr" / "zarr.json"
        good, rng = file.read_bytes(), np.random.default_rng(3)
        for _ in range(150):
            bad = bytearray(good)
            for place in rng.integers(0, len(good), 2):
                bad[place] = rng.choice(list(b'0123456789{}[]",:ax'))
            file.write_bytes(bad)
            for entry in discover([path], SourceOptions()):
                if entry.spec is None:
                    continue
                try:
                    with open_source(inspect(entry.spec).spec) as source:
                        source.read(0, 1)
                except IngestError:
                    pass

    def test_an_array_that_changed_is_named(self, tmp_path):
        info = look(make(tmp_path / "a.zarr", FRAMES))
        for other in (FRAMES[:5], FRAMES.astype("u2")):
            make(tmp_path / "a.zarr", other)
            with open_source(info.spec) as source, pytest.raises(SourceChangedError, match="when inspected"):
                source.read(0, N)

    def test_another_of_its_kind_in_the_same_place_is_read(self, tmp_path):
        info = look(make(tmp_path / "a.zarr", FRAMES))
        with open_source(info.spec) as source:
            source.read(3, 4)
        make(tmp_path / "a.zarr", pixels(N, seed=1))
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(3, 4), pixels(N, seed=1)[3:4])

    def test_a_folder_that_is_gone(self, tmp_path):
        info = look(make(tmp_path / "a.zarr", FRAMES))
        shutil.rmtree(tmp_path / "a.zarr")
        with open_source(info.spec) as source, pytest.raises(IngestError):
            source.read(0, N)
        with pytest.raises(IngestError):
            inspect(SourceSpec("zarr", (str(tmp_path / "a.zarr"),)))


class TestFingerprint:
    def test_tells_recordings_apart(self, tmp_path):
        path = lake(tmp_path / "a.zarr", FRAMES, size=4)
        shutil.copytree(path, tmp_path / "copy.zarr")
        made = look(path).fingerprint
        assert look(tmp_path / "copy.zarr").fingerprint == made
        with open(tmp_path / "copy.zarr" / "zarr.json", "r+") as file:
            text = file.read().replace("a growth", "my growth")
            file.seek(0)
            file.write(text)
        assert look(tmp_path / "copy.zarr").fingerprint == made  # a name is given later
        others = {
            look(lake(tmp_path / "b.zarr", pixels(N, seed=1), size=4)).fingerprint,
            look(lake(tmp_path / "c.zarr", FRAMES, size=5)).fingerprint,
            look(lake(tmp_path / "d.zarr", FRAMES, size=4, times=TIMES_NS + 1)).fingerprint,
            look(lake(tmp_path / "e.zarr", FRAMES[:19], size=4)).fingerprint,
        }
        assert len(others | {made}) == 5
