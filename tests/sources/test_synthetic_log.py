"""The synthetic log: by the movie's clock, plausible, and the same every time."""

import numpy as np
import pytest

from ingest.errors import SettingsError
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_log import GrowthLog

RUN = GrowthRun(1500, 24, 32, fps=50.0, jitter_s=0.002, gaps=((900, 1.3),))


def test_it_lasts_as_long_as_the_movie_by_its_clock() -> None:
    times_s = GrowthLog(RUN).timestamps_s()
    stamps_s = RUN.timestamps_ns() / 1e9
    assert times_s[0] == stamps_s[0]
    assert 0 <= stamps_s[-1] - times_s[-1] < 0.1
    assert np.diff(times_s) == pytest.approx(0.1, abs=1e-6), "no gap where the camera has one"


def test_its_channels_are_plausible() -> None:
    channels = GrowthLog(RUN).channels()
    temperature, pressure = channels["temperature"], channels["pressure"]
    assert (temperature.units, pressure.units) == ("C", "mbar")
    assert temperature.values[0] == pytest.approx(420, abs=2)
    assert temperature.values[-1] == pytest.approx(680, abs=2)
    assert 685 < temperature.values.max() < 695, "it overshoots"
    assert pressure.values.min() > 0
    assert pressure.values[0] < 1e-6 < 1e-3 < pressure.values[-1]
    assert all(len(log.values) == len(log.timestamps_s) == 313 for log in channels.values())


def test_it_is_the_same_every_time_and_another_with_another_seed() -> None:
    one, two, other = (GrowthLog(RUN, seed=seed).channels() for seed in (0, 0, 1))
    assert np.array_equal(one["pressure"].values, two["pressure"].values)
    assert not np.array_equal(one["pressure"].values, other["pressure"].values)


def test_a_movie_of_one_frame_has_one_reading_and_a_rate_is_positive() -> None:
    assert len(GrowthLog(GrowthRun(1, 24, 32)).channels()["temperature"].values) == 1
    with pytest.raises(SettingsError, match="readings per second"):
        GrowthLog(RUN, rate_hz=0)
