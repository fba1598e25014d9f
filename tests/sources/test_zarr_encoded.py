"""Frames that are taken as they are stored: those that a shard of ours would hold, and nothing unproven."""

import asyncio

import numcodecs
import numpy as np
import pytest
import zarr
import zarr.codecs
import zstandard

from ingest.errors import FrameDataError, SettingsError
from ingest.orders import ChunkOrder
from ingest.packing import AS_STORED, PackRoom
from ingest.plan import ChunkTask
from ingest.shard import assemble, encoded_digest, frames_digest, pack, unpack
from ingest.sources import FrameView, FrameWindow, SourceOptions, inspect, open_source
from ingest.telemetry import Telemetry
from ingest.wire.models import ChunkMetadata
from tests.sources.files import look, pixels
from tests.sources.zarrs import NOT_A_TIME, lake, make

SHAPE = (12, 16)
ZSTD = zarr.codecs.ZstdCodec(level=5)


def encoded_of(info, start, stop):
    with open_source(info.spec) as source:
        return source.read_encoded(start, stop)


def black(part) -> bool:
    return not any(zstandard.decompress(part))


@pytest.mark.parametrize(
    "storage",
    [
        {"zarr_format": 3, "chunks": (1, *SHAPE), "compressors": ZSTD},
        {"zarr_format": 3, "chunks": (1, *SHAPE), "compressors": zarr.codecs.ZstdCodec(level=1, checksum=True)},
        {"zarr_format": 3, "chunks": (1, *SHAPE), "shards": (8, *SHAPE), "compressors": ZSTD},
        {"zarr_format": 3, "chunks": (1, *SHAPE), "shards": (30, *SHAPE), "compressors": ZSTD},
        {"zarr_format": 2, "chunks": (1, *SHAPE), "compressors": numcodecs.Zstd(level=3)},
    ],
    ids=str,
)
def test_as_stored(tmp_path, storage):
    frames = pixels(21)
    info = look(make(tmp_path / "a.zarr", frames, **storage))
    for start, stop in ((0, 21), (0, 8), (8, 16), (3, 4), (7, 19), (20, 21)):
        encoded = encoded_of(info, start, stop)
        np.testing.assert_array_equal(unpack(assemble(encoded).tobytes(), (stop - start, *SHAPE)), frames[start:stop])
        assert encoded_digest(encoded, SHAPE) == frames_digest(frames[start:stop])
    with pytest.raises(SettingsError):
        encoded_of(info, 0, 22)


def test_axes_of_one_in_between_are_nothing(tmp_path):
    info = look(make(tmp_path / "a.zarr", pixels(6)[:, None, None], chunks=(1, 1, 1, *SHAPE)))
    assert encoded_digest(encoded_of(info, 0, 6), SHAPE) == frames_digest(pixels(6))


@pytest.mark.parametrize(
    ("storage", "options"),
    [
        ({"chunks": (2, *SHAPE)}, {}),
        ({"chunks": (1, 6, 16)}, {}),
        ({"chunks": (1, 13, 16)}, {}),
        ({"chunks": (1, *SHAPE), "compressors": None}, {}),
        ({"chunks": (1, *SHAPE), "compressors": zarr.codecs.GzipCodec()}, {}),
        ({"chunks": (1, *SHAPE), "compressors": (ZSTD, zarr.codecs.Crc32cCodec())}, {}),
        ({"chunks": (1, *SHAPE), "filters": zarr.codecs.TransposeCodec(order=(0, 2, 1))}, {}),
        ({"chunks": (1, *SHAPE), "shards": (8, 24, 16)}, {}),
        ({"chunks": (1, *SHAPE), "zarr_format": 2, "compressors": numcodecs.Blosc("zstd")}, {}),
        ({"chunks": (1, *SHAPE), "zarr_format": 2, "compressors": numcodecs.Zstd(), "order": "F"}, {}),
        (
            {
                "chunks": (1, *SHAPE),
                "zarr_format": 2,
                "compressors": numcodecs.Zstd(),
                "filters": [numcodecs.Delta("u1")],
            },
            {},
        ),
        ({"chunks": (1, *SHAPE)}, {"full_scale": 100.0}),
        ({"chunks": (1, *SHAPE)}, {"window": FrameWindow(every=2)}),
        ({"chunks": (1, *SHAPE)}, {"window": FrameWindow(roi=(0, 0, 16, 11))}),
        ({"chunks": (1, *SHAPE)}, {"window": FrameWindow(orientation="rot180")}),
    ],
    ids=str,
)
def test_what_is_stored_or_wanted_in_another_way(tmp_path, storage, options):
    info = look(make(tmp_path / "a.zarr", pixels(20), **storage))
    info = inspect(info.spec, SourceOptions(fps=10.0, **options))
    assert encoded_of(info, 0, 5) is None


def test_wide_frames_are_not(tmp_path):
    assert encoded_of(look(make(tmp_path / "a.zarr", pixels(6, dtype="u2"), chunks=(1, *SHAPE))), 0, 6) is None


def test_an_index_that_stands_elsewhere(tmp_path):
    array = zarr.create_array(
        tmp_path / "a.zarr", shape=(20, *SHAPE), dtype="u1", chunks=(1, *SHAPE),
        shards={"shape": (10, *SHAPE), "index_location": "start"},
    )  # fmt: skip
    array[...] = pixels(20)
    assert encoded_of(look(tmp_path / "a.zarr"), 0, 20) is None


def test_a_part_of_the_run(tmp_path):
    info = look(make(tmp_path / "a.zarr", pixels(20), chunks=(1, *SHAPE)))
    info = inspect(info.spec, SourceOptions(fps=10.0, window=FrameWindow(from_s=0.5, until_s=1.5)))
    assert info.spec.view == FrameView(5, 10)
    assert encoded_digest(encoded_of(info, 2, 10), SHAPE) == frames_digest(pixels(20)[7:15])


class TestWhatIsNotStored:
    def test_black_frames_that_others_leave_out_are_frames(self, tmp_path):
        frames = pixels(40)
        frames[[3, 25]] = 0
        path = lake(tmp_path / "x.zarr", frames)  # zarr-python leaves them out of its shards
        encoded = encoded_of(look(path), 0, 40)
        assert black(encoded[3])
        assert black(encoded[25])
        assert encoded_digest(encoded, SHAPE) == frames_digest(frames)
        for sharded in ({}, {"shards": (10, *SHAPE)}):
            info = look(make(tmp_path / f"{len(sharded)}.zarr", frames, chunks=(1, *SHAPE), fill_value=7, **sharded))
            assert encoded_digest(encoded_of(info, 0, 40), SHAPE) == frames_digest(frames)

    def test_another_fill_value(self, tmp_path):
        frames = pixels(20)
        frames[4] = 7
        info = look(make(tmp_path / "a.zarr", frames, chunks=(1, *SHAPE), fill_value=7))
        assert not (tmp_path / "a.zarr" / "c" / "4").exists()
        assert encoded_digest(encoded_of(info, 0, 20), SHAPE) == frames_digest(frames)

    def test_marked_ones_are_lost(self, tmp_path):
        times = 1_700_000_000_000_000_000 + 100_000_000 * np.arange(40)
        times[5] = NOT_A_TIME
        index = np.where(np.isin(np.arange(40), (30, 39)), -1, np.arange(40))
        info = look(lake(tmp_path / "x.zarr", pixels(40), times=times, index=index))
        assert [i for i, part in enumerate(encoded_of(info, 0, 40)) if part is None] == [5, 30, 39]
        assert encoded_of(info, 30, 31) is None  # `read` says why

    def test_a_shard_that_is_gone(self, tmp_path):
        path = lake(tmp_path / "x.zarr", pixels(60))
        before = look(path)
        (tmp_path / "x.zarr" / "frames" / "c" / "1" / "0" / "0").unlink()
        assert encoded_of(before, 0, 60) is None  # something changed: `read` says what
        assert [part is None for part in encoded_of(look(path), 0, 60)] == [False] * 20 + [True] * 20 + [False] * 20
        assert encoded_of(look(path), 20, 40) is None


class TestProof:
    def test_only_whole_frames_of_their_size(self):
        good = list(pack(pixels(3)).parts[:3])
        digest = encoded_digest(good, SHAPE)
        assert digest == frames_digest(pixels(3))
        holed = pixels(3)
        holed[1] = 0
        assert encoded_digest([good[0], None, good[2]], SHAPE) == frames_digest(holed)
        sizeless = zstandard.ZstdCompressor(write_content_size=False).compress(pixels(1).tobytes())
        for bad in (
            b"", b"x", good[1][:-1], good[1] + b"x", good[1] + good[2], pack(pixels(1, 6)).parts[0], sizeless,
        ):  # fmt: skip
            with pytest.raises(FrameDataError, match="encoded frame 1"):
                encoded_digest([good[0], bad, good[2]], SHAPE)


def order_of(info, start, stop) -> ChunkOrder:
    meta = ChunkMetadata(
        frames=stop - start, height_px=info.height_px, width_px=info.width_px, chunk_size=20, fps=10.0,
        is_rotating=False, start_unix_ms_utc=0,
    )  # fmt: skip
    return ChunkOrder("run", "id", info.spec, ChunkTask(0, start, stop, 0, 10.0), meta)


def packed(info, start, stop, **more):
    """Pack a chunk; return it, and how each step was done."""
    events = []
    room = PackRoom(telemetry=Telemetry(lambda event: events.append((event.name, event.detail))), **more)

    async def work():
        return await room.packed(order_of(info, start, stop))

    try:
        return asyncio.run(work()), events
    finally:
        room.close()


class TestPacking:
    def test_the_bytes_stay_whatever_the_level(self, tmp_path):
        frames = pixels(40)
        info = look(make(tmp_path / "a.zarr", frames, chunks=(1, *SHAPE), shards=(20, *SHAPE), compressors=ZSTD))
        made, events = packed(info, 20, 40, level=-50)
        assert made.shard.tobytes() == (tmp_path / "a.zarr" / "c" / "1" / "0" / "0").read_bytes()
        assert (made.digest, made.lost) == (frames_digest(frames[20:]), ())
        assert events == [("chunk_read", AS_STORED), ("chunk_packed", AS_STORED)]

    def test_nor_do_those_of_single_files_change(self, tmp_path):
        info = look(make(tmp_path / "a.zarr", pixels(40), chunks=(1, *SHAPE), compressors=ZSTD))
        made, _ = packed(info, 20, 40, level=-50)
        files = [(tmp_path / "a.zarr" / "c" / str(i) / "0" / "0").read_bytes() for i in range(20, 40)]
        assert made.shard.tobytes() == assemble(files).tobytes()

    def test_others_are_compressed(self, tmp_path):
        info = look(make(tmp_path / "a.zarr", pixels(40), chunks=(4, *SHAPE)))
        made, events = packed(info, 0, 20, level=7)
        assert made.shard.tobytes() == pack(pixels(40)[:20], level=7).tobytes()
        assert events == [("chunk_read", ""), ("chunk_packed", "")]

    @pytest.mark.parametrize("sharded", [False, True])
    def test_one_damaged_frame_costs_no_other(self, tmp_path, sharded):
        more = {"shards": (20, *SHAPE)} if sharded else {}
        path = make(tmp_path / "a.zarr", pixels(20), chunks=(1, *SHAPE), **more)
        info = look(path)
        file = tmp_path / "a.zarr" / "c" / ("0" if sharded else "7") / "0" / "0"
        content = bytearray(file.read_bytes())
        at = content.find(b"\x28\xb5\x2f\xfd", 1400 if sharded else 0)
        content[at : at + 12] = bytes(12)
        file.write_bytes(content)
        made, events = packed(info, 0, 20)
        assert len(made.lost) == 1
        kept = [i for i in range(20) if i not in made.lost]
        np.testing.assert_array_equal(unpack(made.shard.tobytes(), (20, *SHAPE))[kept], pixels(20)[kept])
        assert events[-1] == ("chunk_packed", "")

    def test_lost_frames_stay_lost(self, tmp_path):
        index = np.where(np.isin(np.arange(40), (3, 19)), -1, np.arange(40))
        info = look(lake(tmp_path / "x.zarr", pixels(40), index=index))
        made, events = packed(info, 0, 20)
        assert (made.lost, events[-1]) == ((3, 19), ("chunk_packed", AS_STORED))
        frames = pixels(40)[:20]
        frames[[3, 19]] = 0
        assert made.digest == frames_digest(frames)
        np.testing.assert_array_equal(unpack(made.shard.tobytes(), (20, *SHAPE)), frames)

    def test_all_of_a_chunk_lost_is_said(self, tmp_path):
        index = np.where(np.arange(40) < 20, -1, np.arange(40))
        info = look(lake(tmp_path / "x.zarr", pixels(40), index=index))
        with pytest.raises(FrameDataError, match="frames 0 to"):
            packed(info, 0, 20)

    def test_a_digest_alone(self, tmp_path):
        info = look(make(tmp_path / "a.zarr", pixels(20), chunks=(1, *SHAPE)))
        room = PackRoom()
        assert room.read_digest(order_of(info, 3, 17)) == frames_digest(pixels(20)[3:17])
        room.close()
