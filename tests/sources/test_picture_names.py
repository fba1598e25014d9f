"""What the names of pictures tell."""

import numpy as np
import pytest

from ingest.errors import SourceTimeError
from ingest.sources.picture_names import elapsed_in_names, frame_numbers_in, sequences, stamps_in_names
from tests.sources.files import NS


def grouped(*names):
    return {
        label: [path.rpartition("/")[2] for path in run] for label, run in sequences([f"/d/{n}" for n in names]).items()
    }


class TestSequences:
    def test_numbers_make_the_difference(self):
        assert grouped("a10.png", "a9.png", "b1.png", "a9.bmp", "a1.PNG", "x.png") == {
            "a#.png": ["a1.PNG", "a9.png", "a10.png"], "b#.png": ["b1.png"], "a#.bmp": ["a9.bmp"], "x.png": ["x.png"],
        }  # fmt: skip

    def test_a_count_that_begins_anew_is_another_recording(self):
        names = [f"S_20251222_rec-{n}_{i:05d}.tiff" for n in (1, 2) for i in (1, 2, 3)]
        assert list(grouped(*names)) == ["S_20251222_rec-1_#.tiff", "S_20251222_rec-2_#.tiff"]
        names = [f"Vid_20231003-16{m}13_{i:03d}.png" for m in (17, 18) for i in range(12)]
        assert [len(run) for run in grouped(*names).values()] == [12, 12]

    def test_times_are_no_counts(self):
        names = [f"a_2025-12-22_15-{39 + s // 60}-{s % 60:02d}.png" for s in range(120)]
        assert len(grouped(*names)) == 1
        names = [f"image_2025-12-22___15-39-{57 + t // 1000}.{t % 1000:03d}.pgm" for t in range(0, 3000, 100)]
        assert len(grouped(*names)) == 1

    def test_a_count_that_goes_on_is_one_recording(self):
        assert len(grouped("a-1-001.png", "a-1-002.png", "a-2-003.png", "a-2-004.png")) == 1


class TestFrameNumbers:
    @pytest.mark.parametrize(
        ("names", "numbers"),
        [
            (["a7.png", "a8.png", "a10.png", "a11.png"], [7, 8, 10, 11]),
            (["r2_7.png", "r2_8.png"], [7, 8]),
            (["a5.png", "a10.png", "a15.png"], None),
            (["a.png", "b.png"], None),
            (["a7.png"], None),
            (["a_2025-12-22_15-39-57.878.pgm", "a_2025-12-22_15-39-57.879.pgm"], None),
            (["a_2025-12-22_15-39-57_001.pgm", "a_2025-12-22_15-39-57_002.pgm"], [1, 2]),
        ],
    )
    def test_of_names(self, names, numbers):
        found = frame_numbers_in(names)
        assert (None if found is None else found.tolist()) == numbers


class TestTimes:
    SAFIRE = ("image_2025-12-22___15-39-57.878.pgm", "image_2025-12-22___15-39-58.110.pgm")

    def test_in_a_zone(self):
        stamps, findings = stamps_in_names(self.SAFIRE, "Europe/Berlin")
        assert (stamps.absolute, findings) == (True, ())
        assert stamps.ns.tolist() == [1_766_414_397_878_000_000, 1_766_414_398_110_000_000]

    def test_without_one_they_are_relative(self):
        stamps, _ = stamps_in_names(self.SAFIRE, None)
        assert (stamps.absolute, np.diff(stamps.ns).tolist()) == (False, [232_000_000])

    def test_utc_says_itself(self):
        stamps, _ = stamps_in_names(["a_20231003T161713Z.png", "a_20231003T161714Z.png"], None)
        assert (stamps.absolute, stamps.ns[0]) == (True, 1_696_349_833 * NS)

    def test_a_shared_time_is_none_of_each(self):
        assert stamps_in_names(["a_20231003-161713_0001.png", "a_20231003-161713_0002.png"], None) == (None, ())

    def test_a_count_is_no_fraction(self):
        names = [f"a_20231003_161713_{i:03d}.png" for i in range(20)]
        assert stamps_in_names(names, "UTC") == (None, ())

    def test_some_without_a_time(self):
        assert stamps_in_names([*self.SAFIRE, "image_3.pgm"], "UTC") == (None, ())

    def test_those_that_do_not_rise_are_found(self):
        stamps, (finding,) = stamps_in_names([*self.SAFIRE, self.SAFIRE[0]], "UTC")
        assert (stamps, finding.kind, finding.frame) == (None, "stamps", 2)

    def test_across_the_end_of_summer_time(self):
        names = ["a_2025-10-26_01-59-59.png", "a_2025-10-26_03-00-01.png"]
        stamps, _ = stamps_in_names(names, "Europe/Berlin")
        assert np.diff(stamps.ns).tolist() == [7202 * NS]  # an hour more than the clock on the wall says
        with pytest.raises(SourceTimeError, match="twice"):
            stamps_in_names(["a_2025-10-26_01-59-59.png", "a_2025-10-26_02-30-01.png"], "Europe/Berlin")


class TestElapsed:
    @pytest.mark.parametrize(
        ("names", "seconds"),
        [
            (["g-0.5-a.bin", "g-1.25-a.bin"], [0.5, 1.25]),
            (["g-10-a.bin", "g-12-a.bin", "g-15-a.bin"], [10, 12, 15]),
            (["g-1-a.bin", "g-2-a.bin", "g-3-a.bin"], None),
            (["g-2.5-a.bin", "g-1.5-a.bin"], None),
            (["g-1.5-a.bin", "g.bin"], None),
        ],
    )
    def test_between_dashes(self, names, seconds):
        stamps, findings = elapsed_in_names(names)
        assert (None if stamps is None else (stamps.ns / NS).tolist()) == seconds
        assert bool(findings) == (seconds is not None)
