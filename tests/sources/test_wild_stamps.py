"""Single stamps that are out of all order are mended; what a clock really did stays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.sources.wild_stamps import mend_wild_stamps
from tests.sources.files import NS, START_S, look, pixels, write

REGULAR = START_S * NS + np.arange(200, dtype=np.int64) * (NS // 20)


@pytest.mark.parametrize("value", [0, 7, 4_200_000_000 * NS, -5 * NS])
@pytest.mark.parametrize("frame", [0, 1, 77, 198, 199])
def test_one_wild_stamp_is_put_between_its_neighbours(frame, value):
    stamps = REGULAR.copy()
    stamps[frame] = value
    mended, (finding,) = mend_wild_stamps(stamps)
    np.testing.assert_array_equal(mended, REGULAR)
    assert (finding.kind, finding.frame) == ("wild stamps", frame)


@given(
    gaps=st.lists(st.tuples(st.integers(1, 199), st.integers(1, 500_000)), max_size=5),
    jitter_ms=st.integers(0, 200),
    seed=st.integers(0, 50),
)
def test_gaps_and_jitter_are_left_alone(gaps, jitter_ms, seed):
    """Five pauses of less than six days: even together less than the month that makes an end frame stand alone."""
    stamps = REGULAR.copy()
    for frame, seconds in gaps:
        stamps[frame:] += seconds * NS
    stamps += np.random.default_rng(seed).integers(-jitter_ms, jitter_ms + 1, 200) * 1_000_000
    mended, findings = mend_wild_stamps(stamps)
    np.testing.assert_array_equal(mended, stamps)
    assert findings == ()


@pytest.mark.parametrize("frames", [5, 60, 150])
def test_a_clock_that_was_set_stays_set(frames):
    stamps = REGULAR.copy()
    stamps[frames:] -= 3600 * NS
    mended, findings = mend_wild_stamps(stamps)
    np.testing.assert_array_equal(mended, stamps)
    assert findings == ()


@pytest.mark.parametrize("stamps", [[], [5], [9, 1], [3, 2, 1]])
def test_too_few_to_say(stamps):
    mended, findings = mend_wild_stamps(np.array(stamps, np.int64))
    assert (mended.tolist(), findings) == (stamps, ())


def test_a_zero_among_a_file_s_stamps_moves_no_other_frame(tmp_path):
    from ingest.plan import PlanOptions, plan_run

    stamps = 1.7e9 + np.arange(60) / 20
    stamps[10] = 0
    made = plan_run(look(write(tmp_path / "a.h5", {"frames": pixels(60), "timestamps": stamps})), PlanOptions())
    assert made.settings.fps == pytest.approx(20, rel=1e-6)
    assert made.time_error.worst_ms < 1
    assert made.start_unix_ms_utc == 1_700_000_000_000


def test_stamps_are_left_out_when_the_user_says_so(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": pixels(60), "timestamps": 1.7e9 + np.arange(60) / 20})
    info = look(path, ignore_stamps=True, fps=5.0, start_ns=NS)
    assert (info.timestamps_ns, info.start_ns, info.start_from) == (None, NS, "user")
