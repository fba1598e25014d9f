"""What all readers of frames share: bounds, files, blocks of wide frames, and what a spec must hold."""

import numpy as np
import pytest

from ingest.errors import FrameDataError, SettingsError
from ingest.frames import FrameScale, to_uint8
from ingest.sources import SourceSpec
from ingest.sources.memory import result_array
from ingest.sources.reader import FilesReader, FramesReader
from tests.sources.contract import Made, SourceContract
from tests.sources.files import look, pixels, write

SHAPE = (12, 16)
EIGHT_BIT = FrameScale("uint8", None, "8 bit")
WIDE = FrameScale("uint16", 4095.0, "file")


class Blocks(FramesReader):
    """Frames out of memory; notes which are read together."""

    block_bytes = 4 * 12 * 16 * 2  # four wide frames

    def __init__(self, frames, spec, **storage):
        super().__init__(spec)
        self.blocks, self._stored, self._storage = [], frames, storage

    def _read(self, start, stop, memory):
        out = result_array((stop - start, *SHAPE), memory)
        self._read_scaled(self._read_stored, start, out, self._stored.dtype, **self._storage)
        return out

    def _read_stored(self, start, out):
        self.blocks.append((start, start + len(out)))
        out[...] = self._stored[start : start + len(out)]


def spec_of(frames: int, scale: FrameScale) -> SourceSpec:
    return SourceSpec("memory", ("/a",), scale=scale, file_frames=(frames,))


def test_8_bit_frames_go_straight_into_memory():
    frames, memory = pixels(30), np.zeros(30 * 12 * 16, np.uint8)
    reader = Blocks(frames, spec_of(30, EIGHT_BIT))
    np.testing.assert_array_equal(reader.read(2, 29, memory), frames[2:29])
    np.testing.assert_array_equal(memory[: frames[2:29].size], frames[2:29].reshape(-1))
    assert reader.blocks == [(2, 29)]


@pytest.mark.parametrize(
    ("storage", "blocks"),
    [
        ({}, [(1, 5), (5, 9), (9, 10)]),
        ({"together": 3}, [(1, 3), (3, 6), (6, 9), (9, 10)]),
        ({"together": 3, "origin": 1}, [(1, 4), (4, 7), (7, 10)]),
        ({"together": 8}, [(1, 5), (5, 8), (8, 10)]),  # more than a block has room for
    ],
)
def test_blocks_of_wide_frames_end_where_what_is_decompressed_does(storage, blocks):
    frames = pixels(12, dtype="u2", top=4096)
    reader = Blocks(frames, spec_of(12, WIDE), **storage)
    np.testing.assert_array_equal(reader.read(1, 10), to_uint8(frames[1:10], WIDE))
    assert reader.blocks == blocks


def test_a_bad_pixel_is_named_by_its_frame_in_the_run():
    frames = pixels(12, dtype="f4", top=2)
    frames[7, 1, 1] = np.nan
    with pytest.raises(FrameDataError, match="frame 7 "):
        Blocks(frames, spec_of(12, FrameScale("float32", 1.0, "file"))).read(5, 12)


def test_frames_that_the_run_has_not_are_refused_without_showing_a_key():
    spec = SourceSpec("memory", ("s3://lab/a.h5?key=secret",), scale=EIGHT_BIT, file_frames=(3,))
    with pytest.raises(SettingsError, match=r"frames 2 to 4 were asked of a run of 3: s3://lab/a.h5$"):
        Blocks(pixels(3), spec).read(2, 4)


def test_what_lacks_in_a_spec_is_named():
    with pytest.raises(SettingsError, match="/a: scale, frame counts, form missing in the spec") as caught:
        Files({}, SourceSpec("memory", ("/a",)))
    assert "inspect" in caught.value.hint


class Files(FilesReader):
    """Files out of memory."""

    _dtype = np.dtype("u1")

    def __init__(self, files, spec):
        super().__init__(spec, form=spec.option("form"))
        self.log, self._files = [], files

    def _open(self, number):
        path = self._paths[number]
        self.log.append(f"open {path}")
        return MemoryFile(path, self._files[path], self.log)


class MemoryFile:
    def __init__(self, path, frames, log):
        self.path, self._frames, self._log = path, frames, log

    def read(self, first, out, run_first):
        self._log.append(f"{first} to {first + len(out)} of {self.path} at {run_first}")
        out[...] = self._frames[first : first + len(out)]

    def close(self):
        self._log.append(f"close {self.path}")


def test_only_files_that_hold_the_frames_are_opened_one_at_a_time():
    frames = pixels(9)
    files = {"/a": frames[:4], "/b": frames[4:4], "/c": frames[4:5], "/d": frames[5:]}
    known = (("form", "memory"), ("height_px", 12), ("width_px", 16))
    spec = SourceSpec("memory", tuple(files), scale=EIGHT_BIT, file_frames=(4, 0, 1, 4), options=known)
    with Files(files, spec) as reader:
        np.testing.assert_array_equal(reader.read(4, 7), frames[4:7])
        assert reader.log == ["open /c", "0 to 1 of /c at 4", "close /c", "open /d", "0 to 2 of /d at 5"]
        reader.log.clear()
        np.testing.assert_array_equal(reader.stored(8), frames[8])
        assert reader.log == ["3 to 4 of /d at 5"]
        for start in range(9):
            for stop in range(start + 1, 10):
                np.testing.assert_array_equal(reader.read(start, stop), frames[start:stop])
        reader.read(0, 1)
        reader.log.clear()
    assert reader.log == ["close /a"]


class TestWideImagesNamedByTheirTime(SourceContract):
    """HDF5 with a dataset for each frame, which is read as one of all frames would be."""

    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(11, dtype="u2", top=4096)
        info = look(write(tmp_path / "a.h5", {f"{1_700_000_000 + i}": frame for i, frame in enumerate(frames)}))
        return Made(info, to_uint8(frames, info.scale))
