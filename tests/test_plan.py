"""Plans: every frame once, chunk sizes, refusals, identity and findings."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from ingest.errors import SettingsError, SourceTimeError
from ingest.frames import FrameScale
from ingest.plan import PlanOptions, RunPlan, StreamSettings, plan_run
from ingest.sources.base import SourceInfo, SourceSpec
from ingest.timing import Finding, TimeError

START_NS = 1_700_000_000_123_456_789
START_MS = 1_700_000_000_123
EIGHT_BIT = FrameScale("uint8", None, "8 bit")


def source(frames=600, fps=120.0, **changes) -> SourceInfo:
    """What `inspect` would say of a regular run with stamps."""
    spec = SourceSpec("hdf5", ("/data/run.h5",), "/entry/data", EIGHT_BIT, (frames,))
    info = SourceInfo(
        spec=spec,
        name="run",
        format="a test's",
        frames=frames,
        height_px=6,
        width_px=8,
        scale=EIGHT_BIT,
        timestamps_ns=START_NS + np.rint(np.arange(frames) * 1e9 / fps).astype(np.int64),
        start_ns=START_NS,
        start_from="frame stamps",
        fps_claimed=None,
        frame_numbers=None,
        block_frames=1,
        fingerprint="f1",
        bytes_in=frames * 48,
    )
    if "timestamps_ns" in changes and changes["timestamps_ns"] is not None:
        changes = {"frames": len(changes["timestamps_ns"]), **changes}
    return dataclasses.replace(info, **changes)


def unstamped(frames=600, fps=30.0, **changes) -> SourceInfo:
    return source(frames, timestamps_ns=None, fps_claimed=fps, **changes)


def plan(info=None, **options) -> RunPlan:
    return plan_run(info or source(), PlanOptions(**options))


def kinds(plan):
    return [finding.kind for finding in plan.findings]


def assert_covers(plan, frames):
    assert [i for c in plan.chunks for i in range(c.start, c.stop)] == list(range(frames))
    assert [c.index for c in plan.chunks] == list(range(len(plan.chunks)))
    assert all(0 < c.frames <= plan.settings.chunk_size for c in plan.chunks)
    assert plan.frames == frames


# -- what a plan says --------------------------------------------------------------------------------------------------


def test_a_regular_run():
    made = plan()
    assert made.settings == StreamSettings("run", 120.0, 0.0, 240)
    assert [(c.start, c.stop, c.fps) for c in made.chunks] == [(0, 240, 120.0), (240, 480, 120.0), (480, 600, 120.0)]
    assert [c.start_unix_ms_utc for c in made.chunks] == [START_MS, START_MS + 2000, START_MS + 4000]
    assert (made.start_unix_ms_utc, made.start_from) == (START_MS, "frame stamps")
    assert (made.height_px, made.width_px, made.bytes_in, made.fingerprint) == (6, 8, 600 * 48, "f1")
    assert made.findings == ()
    assert made.time_error.worst_ms < 0.51
    assert made.time_error.over_bound == 0
    assert made.ideal_chunks == 3


def test_a_run_without_stamps_is_laid_out_by_the_rate():
    made = plan(unstamped(100, 29.97))
    assert made.settings.chunk_size == 60
    assert [c.start_unix_ms_utc for c in made.chunks] == [START_MS, round(START_NS / 1e6 + 60 / 29.97 * 1000)]
    assert made.time_error == TimeError()
    assert_covers(made, 100)


def test_stamps_win_over_a_rate_that_was_asked_for_and_this_is_said():
    made = plan(fps=60.0)
    assert made.settings.fps == pytest.approx(120.0)
    assert made.time_error.worst_ms < 1
    assert "60 fps was asked for; the stamps say 120" in made.findings[-1].message
    near = plan(fps=119.0)
    assert {c.fps for c in near.chunks} == {119.0}, "what agrees with the stamps is declared as asked"
    assert plan(unstamped(), fps=60.0).settings.fps == 60.0, "over what a file claims it wins"


@pytest.mark.parametrize("step", [1, 10])
def test_holes_in_the_numbering_are_gaps_also_without_stamps(step):
    numbers = np.delete(np.arange(100) * step, [10, 11, 40])
    made = plan(unstamped(97, 20.0, frame_numbers=numbers))
    starts = [(chunk.start, chunk.start_unix_ms_utc - START_MS) for chunk in made.chunks]
    assert starts == [(0, 0), (10, 600), (38, 2050), (78, 4050)]
    assert made.time_error.worst_ms <= 1
    assert [f.frame for f in made.findings if f.kind == "gap"] == [10, 38]


@pytest.mark.parametrize("numbers", [[3, 2, 1, 0], [0, 0, 1, 2], [0, 7, 9, 100]])
def test_numbers_that_count_no_frames_move_none(numbers):
    made = plan(unstamped(4, 2.0, frame_numbers=np.array(numbers)))
    assert [chunk.start_unix_ms_utc - START_MS for chunk in made.chunks] == [0]


def test_stamps_that_do_not_advance_are_no_rate_but_the_user_s_will_do():
    info = source(timestamps_ns=np.full(600, START_NS))
    with pytest.raises(SourceTimeError, match="do not advance"):
        plan(info)
    made = plan(info, fps=100.0)
    assert [c.start_unix_ms_utc for c in made.chunks] == [START_MS, START_MS + 2000, START_MS + 4000]


@pytest.mark.parametrize("stamped", [True, False])
def test_a_single_frame_needs_a_rate(stamped):
    info = source(1) if stamped else source(1, timestamps_ns=None)
    with pytest.raises(SourceTimeError) as caught:
        plan(info)
    assert "--fps" in caught.value.hint
    assert_covers(plan(info, fps=10.0), 1)


@pytest.mark.parametrize(
    ("asked", "given"), [(None, "run"), ("", "run"), ("  ", "run"), (" a name ", "a name"), ("0", "0")], ids=repr
)
def test_the_name(asked, given):
    assert plan(name=asked).settings.name == given


def test_settings_are_passed_on():
    options = {"physical_sample": "s", "project_id": "p", "tags": ("a", "b"), "azimuth": "[110]"}
    assert plan(**options).settings == StreamSettings("run", 120.0, 0.0, 240, "[110]", "s", "p", ("a", "b"))


@pytest.mark.parametrize(("rpm", "refused"), [(10.0, True), (0.0, False), (-1.0, False)])
def test_only_a_stationary_stream_has_an_azimuth(rpm, refused):
    if refused:
        with pytest.raises(SettingsError, match="azimuth"):
            plan(azimuth="[110]", rotations_per_min=rpm)
    else:
        assert plan(azimuth="[110]", rotations_per_min=rpm).settings.azimuth == "[110]"


# -- chunk sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [0.4, 0.5, 1, 10, 29.97, 59.94, 60.01, 120, 1000])
def test_the_default_is_two_seconds_of_frames(fps):
    assert plan(unstamped(10, fps)).settings.chunk_size == math.ceil(2 * fps)
    assert plan(unstamped(10, fps)).settings.chunk_size >= 1


@pytest.mark.parametrize(
    ("hdf5_chunk", "chunk_size"),
    [(1, 240), (7, 245), (16, 240), (100, 300), (240, 240), (241, 241), (480, 480), (481, 240), (10_000, 240)],
)  # 481: whole ones would more than double it
def test_the_default_is_rounded_up_to_whole_hdf5_chunks(hdf5_chunk, chunk_size):
    assert plan(source(2000, block_frames=hdf5_chunk)).settings.chunk_size == chunk_size


def test_rounding_stops_at_the_largest_chunk():
    info = source(block_frames=400, height_px=1000, width_px=2000)
    assert plan(info).settings.chunk_size == 240


def test_the_fastest_segment_decides_the_default():
    stamps = START_NS + np.cumsum(np.concatenate([np.full(4000, 10**9 // 60), np.full(2000, 10**9 // 120)]))
    made = plan(source(timestamps_ns=stamps))
    assert made.settings.fps == pytest.approx(60, rel=1e-5)
    assert made.settings.chunk_size in (240, 241)
    assert made.chunks[-1].fps == pytest.approx(120, rel=1e-5)
    assert made.chunks[0].fps == pytest.approx(60, rel=1e-5)
    assert_covers(made, 6000)


@pytest.mark.parametrize("fps", [120.0, 119.6])
def test_less_than_two_seconds_are_refused(fps):
    with pytest.raises(ValueError, match="chunk_size 239 is less") as caught:
        plan(unstamped(600, fps), chunk_size=239)
    assert isinstance(caught.value, SettingsError)
    assert "--chunk-size 240" in caught.value.hint
    assert plan(unstamped(600, fps), chunk_size=240).settings.chunk_size == 240


@pytest.mark.parametrize("chunk_size", [None, 300])
def test_a_chunk_that_cannot_be_sent_is_refused(chunk_size):
    info = unstamped(600, 120.0, height_px=2048, width_px=2048)
    with pytest.raises(SettingsError, match=r"2048 x 2048 px has 1\d{3} MB; at most 512 MB") as caught:
        plan(info, chunk_size=chunk_size)
    assert "--chunk-size" in caught.value.hint


def test_the_largest_chunk_is_512_megabytes():
    assert plan(unstamped(10, 1.0, height_px=1000, width_px=1000), chunk_size=512).settings.chunk_size == 512
    with pytest.raises(SettingsError, match="513 MB"):
        plan(unstamped(10, 1.0, height_px=1000, width_px=1000), chunk_size=513)


@pytest.mark.parametrize("chunking", ["gap-aware", "regular"])
def test_a_gap_ends_a_chunk_only_if_asked(chunking):
    stamps = np.delete(source(700).timestamps_ns, slice(100, 200))
    made = plan(source(timestamps_ns=stamps), chunking=chunking)
    assert_covers(made, 600)
    sizes = [c.frames for c in made.chunks]
    if chunking == "regular":
        assert sizes == [240, 240, 120]
        assert made.time_error.over_bound > 100
        assert "jitter" in kinds(made)
    else:
        assert sizes == [100, 240, 240, 20]
        assert made.time_error.over_bound == 0
        assert made.chunks[1].start_unix_ms_utc == round(stamps[100] / 1e6)
    assert made.chunking == chunking
    assert "gap" in kinds(made)


# -- refusals ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [{"start_ns": None}, {"start_from": None}])
def test_without_a_start_there_is_no_plan(changes):
    with pytest.raises(SourceTimeError, match="run: nothing trustworthy says when") as caught:
        plan(source(**changes))
    assert "--start" in caught.value.hint


def test_without_a_rate_there_is_no_plan():
    with pytest.raises(SourceTimeError, match="no frame rate") as caught:
        plan(source(timestamps_ns=None))
    assert "--fps" in caught.value.hint


@pytest.mark.parametrize("fps", [0.0, -5.0, math.nan, math.inf, 1e9])
@pytest.mark.parametrize("info", [source(), unstamped()], ids=["stamps", "none"])
def test_rates_that_no_camera_has(info, fps):
    with pytest.raises(SettingsError, match="frame rate"):
        plan(info, fps=fps)


@pytest.mark.parametrize("fps", [0.0, math.nan, 1e9])
def test_claims_that_no_camera_has(fps):
    with pytest.raises(SettingsError, match="claims"):
        plan(unstamped(fps=fps))


@pytest.mark.parametrize("rpm", [math.nan, math.inf])
def test_rotations_that_are_no_number(rpm):
    with pytest.raises(SettingsError, match="rotations per minute"):
        plan(rotations_per_min=rpm)


# -- identity ----------------------------------------------------------------------------------------------------------

SCALED = FrameScale("uint16", 4095.0, "file")

CHANGES = {
    "chunk_size": (source(), {"chunk_size": 300}),
    "chunking": (source(), {"chunking": "regular"}),
    "fps": (source(), {"fps": 119.0, "chunk_size": 240}),
    "rotations_per_min": (source(), {"rotations_per_min": 6.0}),
    "azimuth": (source(), {"azimuth": "[110]"}),
    "start_unix_ms_utc": (source(start_ns=START_NS + 10**9), {}),
    "dataset": (source(spec=SourceSpec("hdf5", ("/data/run.h5",), "/other", EIGHT_BIT)), {}),
    "full_scale": (source(spec=SourceSpec("hdf5", ("/data/run.h5",), "/entry/data", SCALED)), {}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_bytes_or_times_changes_the_identity(name):
    info, options = CHANGES[name]
    before, now = plan().identity(), plan(info, **options).identity()
    assert [key for key in now if now[key] != before[key]] == [name]


def test_every_part_of_the_identity_is_tested():
    assert set(plan().identity()) == set(CHANGES)


@pytest.mark.parametrize(
    ("info", "options"),
    [
        (source(), {}),
        (source(), {"name": "another", "physical_sample": "s", "project_id": "p", "tags": ("t",)}),
        (source(), {"chunk_size": 240, "fps": 120.0}),
        (source(spec=SourceSpec("hdf5", ("/moved/run.h5",), "/entry/data", EIGHT_BIT)), {}),
        (source(findings=(Finding("odd", "something"),)), {}),
    ],
    ids=["again", "labels", "said aloud", "moved", "findings"],
)
def test_what_changes_neither_does_not(info, options):
    assert plan(info, **options).identity() == plan().identity()


# -- findings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("claimed", "found"), [(None, False), (121.0, False), (118.0, False), (60.0, True)])
def test_a_wrong_claim_is_a_finding(claimed, found):
    made = plan(source(fps_claimed=claimed))
    assert ("claimed fps" in kinds(made)) == found
    assert made.settings.fps == 120.0
    assert made.fps_claimed == claimed


def test_jitter_beyond_the_bound_is_a_finding():
    stamps = source(1200).timestamps_ns.copy()
    stamps[100:1100:100] += 30_000_000
    made = plan(source(timestamps_ns=stamps))
    finding = next(f for f in made.findings if f.kind == "jitter")
    assert "10 of 1200 frames" in finding.message
    assert "worst 29." in finding.message or "worst 30." in finding.message


def test_many_more_chunks_than_ideal_are_a_finding():
    kept = np.delete(np.arange(1200), slice(0, None, 40))
    made = plan(source(timestamps_ns=source(1200).timestamps_ns[kept]))
    assert len(made.chunks) == 30
    assert made.ideal_chunks == 5
    assert "30 chunks where 5 would do" in next(f.message for f in made.findings if f.kind == "many chunks")


def test_the_camera_s_count_tells_lost_frames():
    numbers = np.delete(np.arange(603), [10, 300, 301])
    made = plan(source(frame_numbers=numbers))
    finding = next(f for f in made.findings if f.kind == "lost frames")
    assert "lacks 3 frame" in finding.message
    assert finding.frame == 10
    assert "lost frames" not in kinds(plan(source(frame_numbers=np.arange(5, 605))))


def test_findings_of_the_source_come_first():
    odd = Finding("odd", "something", 3)
    stamps = np.delete(source(700).timestamps_ns, slice(100, 200))
    assert kinds(plan(source(timestamps_ns=stamps, findings=(odd,), fps_claimed=60.0))) == ["odd", "gap", "claimed fps"]


# -- properties --------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.integers(-(10**8), 10**9), min_size=1, max_size=300),
    st.sampled_from([None, 3, 50, 1000]),
    st.sampled_from(["gap-aware", "regular"]),
)
@settings(deadline=None)
def test_any_stamps_are_covered_once_or_refused(steps, chunk_size, chunking):
    """Whatever the clock did, a plan has every frame exactly once and in order, and survives its JSON form."""
    stamps = START_NS + np.cumsum(np.array(steps, np.int64))
    info = source(timestamps_ns=stamps, start_ns=int(stamps[0]))
    try:
        made = plan(info, chunk_size=chunk_size, chunking=chunking)
    except (SourceTimeError, SettingsError):
        made = plan(info, fps=1.0, chunking=chunking)
    assert_covers(made, len(stamps))
    adapter = TypeAdapter(RunPlan)
    assert adapter.validate_json(adapter.dump_json(made)) == made
