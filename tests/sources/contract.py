"""What every source must do, whatever its format."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from ingest.errors import IngestError, SettingsError
from ingest.sources import SourceInfo, SourceSpec, open_source


@dataclass(frozen=True)
class Made:
    """A run on disk, and the frames that it must give."""

    info: SourceInfo
    frames: np.ndarray


def read_elsewhere(spec: SourceSpec, start: int, stop: int) -> np.ndarray:
    """Runs in another process."""
    with open_source(spec) as source:
        return source.read(start, stop)


class SourceContract:
    """Subclasses give a fixture `made`; everything else is the same for all formats."""

    def test_info_tells_the_shape(self, made):
        info = made.info
        assert (info.frames, info.height_px, info.width_px) == made.frames.shape
        assert sum(info.spec.file_frames) == info.frames
        assert info.bytes_in == made.frames.size * np.dtype(info.scale.dtype).itemsize

    def test_columns_have_one_value_a_frame(self, made):
        for column in (made.info.timestamps_ns, made.info.frame_numbers):
            assert column is None or (column.shape, column.dtype) == ((made.info.frames,), np.dtype(np.int64))

    def test_start_is_the_first_stamp(self, made):
        info = made.info
        assert (info.start_ns is None) == (info.start_from is None)
        if info.start_ns is not None and info.timestamps_ns is not None:
            assert info.timestamps_ns[0] == info.start_ns

    def test_spec_pickles_small(self, made):
        data = pickle.dumps(made.info.spec)
        assert pickle.loads(data) == made.info.spec
        assert len(data) < 600 + 200 * len(made.info.spec.paths)

    def test_all_frames_at_once(self, made):
        with open_source(made.info.spec) as source:
            frames = source.read(0, made.info.frames)
        assert frames.dtype == np.uint8
        assert frames.flags.c_contiguous
        np.testing.assert_array_equal(frames, made.frames)

    @pytest.mark.parametrize("step", [1, 3, 7])
    def test_slices_cover_exactly(self, made, step):
        with open_source(made.info.spec) as source:
            parts = [source.read(i, min(i + step, made.info.frames)) for i in range(0, made.info.frames, step)]
        np.testing.assert_array_equal(np.concatenate(parts), made.frames)

    def test_any_order_gives_the_same(self, made):
        order = np.random.default_rng(1).permutation(made.info.frames)
        with open_source(made.info.spec) as source:
            for i in order:
                np.testing.assert_array_equal(source.read(int(i), int(i) + 1), made.frames[i : i + 1])

    def test_another_process_reads_the_same(self, made, elsewhere):
        middle = made.info.frames // 2
        with open_source(made.info.spec) as source:
            source.read(0, 1)  # an open file here must not matter there
        there = elsewhere.submit(read_elsewhere, made.info.spec, middle - 1, made.info.frames).result()
        np.testing.assert_array_equal(there, made.frames[middle - 1 :])

    def test_what_was_read_is_the_callers(self, made):
        with open_source(made.info.spec) as source:
            first = source.read(0, 2)
            kept = first.copy()
            source.read(1, 3)[:] = 7
            np.testing.assert_array_equal(first, kept)
            np.testing.assert_array_equal(source.read(0, 2), kept)

    @pytest.mark.parametrize(("start", "stop"), [(-1, 1), (0, 10**6), (2, 2), (3, 1)])
    def test_frames_that_are_not_there(self, made, start, stop):
        with open_source(made.info.spec) as source, pytest.raises(SettingsError):
            source.read(start, stop)

    def test_close_is_safe_to_repeat(self, made):
        source = open_source(made.info.spec)
        source.close()
        source.close()

    def test_a_bare_spec_is_refused_by_name(self, made):
        with pytest.raises(IngestError) as caught:
            open_source(SourceSpec(made.info.spec.kind, made.info.spec.paths))
        assert caught.value.hint
