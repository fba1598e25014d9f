"""Part of a run's frames, and part of each frame."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import SettingsError, SourceTimeError
from ingest.frames import FrameScale
from ingest.plan import PlanOptions, plan_run
from ingest.sources import FrameView, FrameWindow, SourceOptions, SourceSpec, inspect, open_source
from ingest.sources.base import SourceInfo
from ingest.sources.view import ViewedSource, turned, viewed_info
from tests.sources.contract import Made, SourceContract
from tests.sources.files import NS, START_S, look, pixels, write

TURNS = {
    "none": lambda f: f,
    "rot90": lambda f: np.rot90(f),
    "rot180": lambda f: np.rot90(f, 2),
    "rot270": lambda f: np.rot90(f, 3),
    "flip-lr": np.fliplr,
    "flip-ud": np.flipud,
    "transpose": np.transpose,
    "transverse": lambda f: np.rot90(f, 2).T,
}


@pytest.mark.parametrize("orientation", TURNS)
def test_turns_are_numpys(orientation):
    frames = pixels(3, 4, 5)
    np.testing.assert_array_equal(turned(frames, orientation), [TURNS[orientation](frame) for frame in frames])


def movie(tmp_path, frames=None, **columns):
    frames = pixels(40, 12, 16) if frames is None else frames
    stamps = 1.7e9 + np.arange(len(frames)) / 20
    return write(tmp_path / "a.h5", {"frames": frames, "timestamps": stamps, **columns})


class TestViewed(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(60, 12, 16)
        window = FrameWindow(from_s=0.49, until_s=2.59, every=2, roi=(3, 2, 9, 7), orientation="rot90")
        info = look(movie(tmp_path, frames), window=window)
        expected = np.stack([np.rot90(frame[2:9, 3:12]) for frame in frames[10:52:2]])
        return Made(info, expected)

    def test_info_tells_the_shape(self, made):
        info = made.info
        assert (info.frames, info.height_px, info.width_px) == made.frames.shape
        assert info.bytes_in == made.frames.size

    def test_a_bare_spec_is_refused_by_name(self, made):
        with pytest.raises(SettingsError):
            open_source(SourceSpec(made.info.spec.kind, made.info.spec.paths, view=made.info.spec.view))


def test_times_are_those_of_the_frames_that_are_taken(tmp_path):
    path = movie(tmp_path)
    whole = look(path)
    part = look(path, window=FrameWindow(from_s=0.5, every=4))
    np.testing.assert_array_equal(part.timestamps_ns, whole.timestamps_ns[10::4])
    assert (part.start_ns, part.start_from) == (int(whole.timestamps_ns[10]), "frame stamps")
    assert part.fingerprint == whole.fingerprint, "a part is of the same recording"
    assert part.findings[-1].message == "as asked: frames 10 to 38 of 40, one of 4"


def test_absolute_times_mean_the_same(tmp_path):
    path = movie(tmp_path)
    start = look(path).start_ns
    by_clock = look(path, window=FrameWindow(from_ns=start + NS // 2, until_ns=start + NS))
    assert by_clock.spec == look(path, window=FrameWindow(from_s=0.5, until_s=1.0)).spec
    assert by_clock.frames == 10


def test_without_stamps_the_rate_says_which_frames(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": pixels(40)})
    info = look(path, window=FrameWindow(from_s=1.0, until_s=2.0), fps=10.0, start_ns=5 * NS)
    assert (info.spec.view, info.start_ns) == (FrameView(10, 10), 6 * NS)
    with pytest.raises(SourceTimeError, match="neither stamps nor a frame rate") as caught:
        look(path, window=FrameWindow(from_s=1.0))
    assert "--fps" in caught.value.hint
    with pytest.raises(SourceTimeError, match="nothing says when the run began"):
        look(path, window=FrameWindow(from_ns=NS), fps=10.0)


@pytest.mark.parametrize("roi", [(-1, 0, 4, 4), (0, 0, 17, 4), (0, 9, 4, 4), (0, 0, 0, 4), (16, 0, 1, 1)])
def test_a_region_outside_of_the_frame_is_refused(tmp_path, roi):
    with pytest.raises(SettingsError, match="is not inside frames of 16 x 12 px"):
        look(movie(tmp_path), window=FrameWindow(roi=roi))


def test_an_empty_time_range_and_a_step_of_zero_are_refused(tmp_path):
    path = movie(tmp_path)
    with pytest.raises(SettingsError, match=r"no frame lies .* the run lasts 1\.950 s"):
        look(path, window=FrameWindow(from_s=9.0))
    with pytest.raises(SettingsError, match="every 0th"):
        look(path, window=FrameWindow(every=0))


def test_findings_keep_their_frames(tmp_path):
    stamps = 1.7e9 + np.arange(40) / 20
    info = look(write(tmp_path / "a.h5", {"frames": pixels(40), "timestamps": stamps}))
    from ingest.timing import Finding

    marked = replace(info, findings=(Finding("a", "x", 5), Finding("b", "y", 20), Finding("c", "z")))
    found = viewed_info(marked, FrameWindow(from_s=0.5, every=2)).findings
    assert [(f.kind, f.frame) for f in found] == [("b", 5), ("c", None), ("view", None)]


def test_lost_frames_are_not_made_up_by_a_step(tmp_path):
    from ingest.sources.synthetic import GrowthRun
    from ingest.sources.synthetic_hdf5 import write_hdf5

    write_hdf5(tmp_path / "a.h5", GrowthRun(400, 16, 16))
    for window in (FrameWindow(every=2), FrameWindow(from_s=0.1), FrameWindow(every=3, from_s=0.1)):
        info = look(tmp_path / "a.h5", window=window)
        assert info.frame_numbers is not None
        assert not [found for found in plan_run(info, PlanOptions()).findings if found.kind == "lost frames"]


@pytest.mark.parametrize("window", [FrameWindow(every=2), FrameWindow(from_s=20.5), FrameWindow(every=5, from_s=3.0)])
def test_holes_in_numbers_keep_their_times_in_a_part(window):
    """Pictures that are numbered and not stamped: 300 of 600 numbers are missing in the middle."""
    numbers = np.r_[np.arange(300), np.arange(600, 900)]
    whole = SourceInfo(
        SourceSpec("images", ("/x",), file_frames=(600,)), "x", "pictures", 600, 4, 4,
        FrameScale("uint8", None, "8 bit"), None, START_S * NS,
        "user", 30.0, numbers, 1, "f", 9600,
    )  # fmt: skip
    part = viewed_info(whole, window)
    np.testing.assert_allclose((part.timestamps_ns - START_S * NS) / NS, part.frame_numbers / 30.0, atol=1e-6)
    assert (part.timestamps_ns[-1] - START_S * NS) / NS > 29


class Counting:
    """A source that notes what is asked of it."""

    def __init__(self, frames) -> None:
        self.frames, self.asked = frames, []

    def read(self, start, stop, memory=None):
        self.asked.append(stop - start)
        return self.frames[start:stop].copy()

    def close(self) -> None: ...


def test_memory_is_bounded_where_frames_are_left_out():
    frames = np.zeros((400, 512, 512), np.uint8)
    source = Counting(frames)
    ViewedSource(source, FrameView(0, 100, 4, None, "rot90")).read(0, 100)
    assert max(source.asked) * 512 * 512 <= 16 * 2**20
    assert sum(source.asked) > 300


@settings(max_examples=50, deadline=None)
@given(
    first=st.integers(0, 30),
    every=st.integers(1, 7),
    count=st.integers(1, 40),
    data=st.data(),
)
def test_any_part_of_any_part(first, every, count, data):
    frames = pixels(30 + 7 * 40, 3, 4)
    start = data.draw(st.integers(0, count - 1))
    stop = data.draw(st.integers(start + 1, count))
    with ViewedSource(Counting(frames), FrameView(first, count, every, None, "flip-ud")) as source:
        got = source.read(start, stop)
    np.testing.assert_array_equal(got, frames[first::every][start:stop, ::-1])


@pytest.mark.parametrize("view", [None, FrameView(7, 30, 3), FrameView(0, 100, 1, None, "rot180")])
def test_an_order_names_only_the_files_that_it_reads(tmp_path, view):
    sizes = tuple(range(5, 19))  # 161 frames in 14 files
    paths = []
    for i, size in enumerate(sizes):
        paths.append(write(tmp_path / f"{i}.h5", {"frames": pixels(size, seed=i)}))
    whole = np.concatenate([pixels(size, seed=i) for i, size in enumerate(sizes)])
    info = inspect(SourceSpec("hdf5", tuple(paths)), SourceOptions())
    spec = replace(info.spec, view=view)
    with open_source(spec) as source:
        everything = source.read(0, 30)
    for start, stop in ((0, 3), (4, 11), (0, 30), (29, 30)):
        part, a, b = spec.part(start, stop)
        assert len(part.paths) < len(paths)
        with open_source(part) as source:
            np.testing.assert_array_equal(source.read(a, b), everything[start:stop])
    if view is None:
        np.testing.assert_array_equal(everything, whole[:30])
