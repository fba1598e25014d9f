"""Shards: round trips, three foreign readers, a foreign writer, and what must not decode."""

import hashlib
import json
import struct
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import google_crc32c
import numpy as np
import pytest
import tensorstore
import xxhash
import zarr
import zarr.codecs
import zarr.storage
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ingest.errors import FrameDataError, SettingsError
from ingest.shard import (
    MISSING,
    Shard,
    assemble,
    frames_digest,
    index_bytes,
    pack,
    pack_and_digest,
    read_index,
    unpack,
)

SHAPES = [(1, 6, 8), (4, 5, 7), (17, 32, 48), (240, 3, 2), (1, 1, 1)]

shapes = st.tuples(st.integers(1, 12), st.integers(1, 9), st.integers(1, 9))


def frames_of(shape, seed=0, high=255):
    return np.random.default_rng(seed).integers(0, high, shape, np.uint8, endpoint=True)


def metadata(shape):
    """Describe the array whose only chunk a shard is, as PROTOCOL.md does."""
    inner = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": 3, "checksum": False}}]
    index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    sharding = {
        "chunk_shape": [1, *shape[1:]],
        "codecs": inner,
        "index_codecs": index,
        "index_location": "end",
    }
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": list(shape),
        "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(shape)}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
        "attributes": {},
    }


def read_zarr(path):
    return zarr.open_array(path, mode="r")[...]


def read_zarrs(path):
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        array = zarr.open_array(path, mode="r")
        assert type(array.async_array.codec_pipeline).__name__ == "ZarrsCodecPipeline"
        return array[...]


def read_tensorstore(path):
    store = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(path)}}
    return tensorstore.open(store).result().read().result()


READERS = [read_zarr, read_zarrs, read_tensorstore]


def stored(path, shard: Shard, shape):
    """Make `shard` the only object of an array in the folder `path`."""
    (path / "c/0/0").mkdir(parents=True)
    (path / "zarr.json").write_text(json.dumps(metadata(shape)))
    (path / "c/0/0/0").write_bytes(shard.tobytes())
    return path


@given(shapes, st.integers(0, 2**32 - 1), st.sampled_from([-7, 1, 3, 19]), st.integers(1, 5), st.sampled_from([1, 255]))
@example((1, 1, 1), 0, 1, 4, 255)
@settings(max_examples=60, deadline=None)
def test_frames_come_back_whatever_the_level_and_the_threads(shape, seed, level, threads, high):
    frames = frames_of(shape, seed, high)
    with ThreadPoolExecutor(2) as executor:
        shard = pack(frames, level=level, executor=executor, threads=threads)
    body = shard.tobytes()
    assert shard.n_bytes == len(body)
    np.testing.assert_array_equal(unpack(body, shape), frames)
    np.testing.assert_array_equal(unpack(memoryview(body), shape), frames)
    assert shard == pack(frames, level=level)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("high", [0, 3, 255])
def test_others_read_our_shards(tmp_path, reader, shape, high):
    """Black ones, compressible ones and noise."""
    frames = frames_of(shape, 1, high)
    np.testing.assert_array_equal(reader(stored(tmp_path, pack(frames), shape)), frames)


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("missing", [{1}, {0, 3}, {0, 1, 2, 3}], ids=str)
def test_frames_that_are_left_out_read_as_black_everywhere(tmp_path, reader, missing):
    shape = (4, 5, 7)
    frames = frames_of(shape, 2)
    parts = [None if i in missing else part for i, part in enumerate(pack(frames).parts[:-1])]
    shard = assemble(parts)
    frames[sorted(missing)] = 0
    np.testing.assert_array_equal(unpack(shard.tobytes(), shape), frames)
    np.testing.assert_array_equal(reader(stored(tmp_path, shard, shape)), frames)
    assert [i for i, entry in enumerate(read_index(shard.tobytes(), 4)) if entry is None] == sorted(missing)


@pytest.mark.parametrize("black", [(), (0,), (1, 2), (0, 1, 2, 3)], ids=str)
@pytest.mark.parametrize("empty", [False, True])
def test_we_read_the_shards_of_zarr_python(tmp_path, black, empty):
    """Zarr leaves inner chunks out that equal the fill value; our frames then are black."""
    frames = frames_of((4, 6, 8), 3)
    frames[list(black)] = 0
    array = zarr.create_array(
        tmp_path,
        shape=frames.shape,
        shards=frames.shape,
        chunks=(1, 6, 8),
        dtype="u1",
        fill_value=0,
        compressors=zarr.codecs.ZstdCodec(level=3),
        config={"write_empty_chunks": empty},
    )
    array[...] = frames
    key = tmp_path / "c/0/0/0"
    if len(black) == 4 and not empty:
        assert not key.exists()
    else:
        np.testing.assert_array_equal(unpack(key.read_bytes(), (4, 6, 8)), frames)
        assert (None in read_index(key.read_bytes(), 4)) == (bool(black) and not empty)


def test_we_read_ragged_and_one_frame_shards_of_zarr_python(tmp_path):
    frames = frames_of((7, 6, 8), 4)
    for size in (4, 1):
        path = tmp_path / str(size)
        array = zarr.create_array(path, shape=(7, 6, 8), shards=(size, 6, 8), chunks=(1, 6, 8), dtype="u1")
        array[...] = frames
        shards = [unpack((path / f"c/{i}/0/0").read_bytes(), (size, 6, 8)) for i in range(-(-7 // size))]
        np.testing.assert_array_equal(np.concatenate(shards)[:7], frames)


def test_the_same_frames_give_the_same_bytes():
    frames = frames_of((9, 16, 16), 5)
    once = pack(frames, level=1)
    with ThreadPoolExecutor(3) as executor:
        assert pack(frames.copy(), level=1, executor=executor, threads=4) == once
    assert pack(frames, level=1) == once
    frames[8, 15, 15] ^= 1
    assert pack(frames, level=1) != once


@pytest.mark.parametrize("lost", [(), (0, 4)])
@pytest.mark.parametrize("view", [lambda a: a, lambda a: a[::-1, 1:]])
def test_digest_and_checksum_on_the_way_are_those_of_the_whole(view, lost):
    frames = view(frames_of((5, 33, 47), 9))
    frames.flags.writeable = False
    shard, digest = pack_and_digest(frames, level=2, lost=lost)
    assert shard == pack(frames, level=2, lost=lost)
    assert shard.crc32c() == pack(frames, level=2, lost=lost).crc32c() == google_crc32c.value(shard.tobytes())
    assert digest == frames_digest(frames)
    with pytest.raises(FrameDataError, match="not empty"):
        pack_and_digest(frames[:0])


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::2],
        lambda a: a[::-1],
        lambda a: a[:, ::-1, 1::2],
        lambda a: a.transpose(0, 2, 1),
        np.asfortranarray,
    ],
)
def test_frames_need_not_be_contiguous(view):
    frames = view(frames_of((6, 8, 10), 6))
    assert not frames.flags.c_contiguous
    assert pack(frames) == pack(frames.copy(order="C"))
    np.testing.assert_array_equal(unpack(pack(frames).tobytes(), frames.shape), frames)
    assert frames_digest(frames) == frames_digest(frames.copy(order="C"))


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((2, 3), np.uint8),
        np.zeros((1, 2, 3, 3), np.uint8),
        np.zeros((0, 3, 3), np.uint8),
        np.zeros((2, 0, 3), np.uint8),
        np.zeros((2, 3, 3), np.int8),
        np.zeros((2, 3, 3), np.uint16),
        np.zeros((2, 3, 3), bool),
    ],
    ids=lambda a: f"{a.shape} {a.dtype}",
)
def test_what_is_no_chunk_is_refused(frames):
    with pytest.raises(FrameDataError, match="uint8"):
        pack(frames)


@pytest.mark.parametrize("level", [-131073, 23, 100])
def test_levels_that_zstd_has_not(level):
    with pytest.raises(SettingsError, match=str(level)):
        pack(np.zeros((1, 2, 2), np.uint8), level=level)


# -- the body ----------------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 3 << 19), max_size=12))
@settings(max_examples=60, deadline=None)
def test_blocks_are_the_body_in_pieces_of_about_a_mebibyte(sizes):
    shard = assemble([bytes([i]) * size for i, size in enumerate(sizes)])
    blocks = list(shard.blocks())
    assert b"".join(blocks) == shard.tobytes()
    largest = max([1 << 20, *sizes])
    assert all(0 < len(block) <= largest for block in blocks)
    assert all(len(a) + len(b) > 1 << 20 for a, b in pairwise(blocks))


def test_checksums_are_those_of_the_body():
    frames = frames_of((5, 30, 40), 7)
    shard = pack(frames)
    body = shard.tobytes()
    assert shard.crc32c() == google_crc32c.value(body)
    assert shard.md5() == hashlib.md5(body).hexdigest()
    assert frames_digest(frames) == xxhash.xxh3_128_hexdigest(frames.tobytes())
    # Castagnoli's own check value, so that the library is known to be the right one.
    assert Shard((b"1234", b"56789"), 9).crc32c() == 0xE3069283


def test_the_index_is_as_the_specification_draws_it():
    body = assemble([b"abc", None, b"", b"de"]).tobytes()
    index = struct.pack("<8Q", 0, 3, MISSING, MISSING, 3, 0, 3, 2)
    assert body == b"abcde" + index + struct.pack("<I", google_crc32c.value(index))
    assert read_index(body, 4) == [(0, 3), None, (3, 0), (3, 2)]
    assert index_bytes([3, None, 0, 2]) == body[5:]


# -- what must not decode ----------------------------------------------------------------------------------------------

SHAPE = (4, 6, 8)
BODY = pack(frames_of(SHAPE, 8)).tobytes()
INDEX = 4 * 16 + 4


@given(st.integers(0, INDEX * 8 - 1))
def test_any_flipped_bit_of_the_index_is_seen(bit):
    body = bytearray(BODY)
    body[len(BODY) - INDEX + bit // 8] ^= 1 << bit % 8
    with pytest.raises(FrameDataError, match="CRC-32C"):
        unpack(bytes(body), SHAPE)


@given(st.integers(0, len(BODY) - 1))
def test_any_truncation_is_seen(length):
    with pytest.raises(FrameDataError):
        unpack(BODY[:length], SHAPE)


@pytest.mark.parametrize("n", [1, 3, 5, 400])
def test_another_number_of_frames_is_seen(n):
    with pytest.raises(FrameDataError, match=f"{n} frames"):
        unpack(BODY, (n, 6, 8))


@pytest.mark.parametrize("shape", [(4, 6, 7), (4, 7, 8), (4, 60, 80), (4, 1, 1)])
def test_another_frame_shape_is_seen(shape):
    with pytest.raises(FrameDataError, match="frame 0"):
        unpack(BODY, shape)


def with_index(*entries):
    """Return `BODY`'s frames under an index of our making, with a good checksum."""
    index = struct.pack(f"<{2 * len(entries)}Q", *(number for entry in entries for number in entry))
    return BODY[:-INDEX] + index + struct.pack("<I", google_crc32c.value(index))


@pytest.mark.parametrize(
    "entry", [(0, 0), (0, 5), (10**6, 5), (MISSING, 5), (5, MISSING), (2**63, 2**63), (1, 40)], ids=str
)
def test_an_index_that_points_nowhere_is_seen(entry):
    """Its checksum is good, so the frames themselves must be looked at."""
    good = read_index(BODY, 4)
    with pytest.raises(FrameDataError, match="frame 2"):
        unpack(with_index(good[0], good[1], entry, good[3]), SHAPE)


@pytest.mark.parametrize("size", [0, 47, 49, 1 << 50], ids=str)
def test_a_frame_of_another_size_is_refused_without_making_room_for_it(size):
    """A zstd header may claim a petabyte."""
    header = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", size)
    part = zstandard.compress(bytes(size)) if size < 100 else header + b"\x01\x00\x00"
    with pytest.raises(FrameDataError, match="frame 0"):
        unpack(assemble([part]).tobytes(), (1, 6, 8))


def test_a_frame_that_does_not_say_its_size_decodes():
    """Streaming writers leave the size out."""
    frame = frames_of((1, 6, 8), 9)
    part = zstandard.ZstdCompressor(write_content_size=False).compress(frame.tobytes())
    assert zstandard.frame_content_size(part) == -1
    np.testing.assert_array_equal(unpack(assemble([part]).tobytes(), (1, 6, 8)), frame)


def test_any_tail_that_holds_the_index_will_do():
    assert read_index(BODY[-INDEX:], 4) == read_index(memoryview(BODY), 4) == read_index(BODY, 4)
    with pytest.raises(FrameDataError, match="got 67"):
        read_index(BODY[-INDEX + 1 :], 4)
