"""A few trials in every test run; `make chaos` does them all."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from tests.chaos.__main__ import LEAST_HITS, LEAST_LIVE_HITS, LIVE_MUTANT_TRIALS, MUTANT_TRIALS
from tests.chaos.hooks import LIVE_PHASES, PHASES, Kill
from tests.chaos.live_mutants import LIVE_MUTANTS
from tests.chaos.live_trial import planned_live_kills, run_live_trial
from tests.chaos.mutants import MUTANTS
from tests.chaos.trial import planned_kills, run_trial

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(280)]


@pytest.mark.parametrize("seed", [5, 7])
def test_killed_jobs_end_whole(seed: int, tmp_path: Path) -> None:
    """Seed 5 kills streamer, server, driver and dispatcher; seed 7 server, driver and dispatcher around the close."""
    result = run_trial(seed, tmp_path / "trial")
    assert result.kills
    assert result.wrong == []


def test_the_oracle_catches_a_flipped_byte(tmp_path: Path) -> None:
    result = run_trial(901, tmp_path / "trial", mutant="one flipped byte", kills=[])
    assert any("chunk 1 has other frames" in text for text in result.wrong)


def test_the_plan_of_20_seeds_aims_at_every_phase_often_enough() -> None:
    aimed = Counter(kill.event for seed in range(20) for kill in planned_kills(seed))
    assert all(aimed[event] >= LEAST_HITS for event in PHASES), aimed


def test_every_mutant_has_its_trial() -> None:
    assert set(MUTANT_TRIALS) == set(MUTANTS) - {"none"}
    assert set(LIVE_MUTANT_TRIALS) == set(LIVE_MUTANTS) - {"none"}


def test_a_killed_live_script_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """A packer with spooled chunks and the aggregator die, then the script; the next session delivers the rest."""
    kills = [
        Kill("chunk_spooled", 3, "self", "live_packer"),
        Kill("ChunkConfirmed_committed", 20, "self", "aggregator"),
        Kill("chunk_spooled", 25, "driver"),
    ]
    result = run_live_trial(4, tmp_path / "trial", kills=kills, direct_s=0.0)
    assert len(result.kills) == 3
    assert result.wrong == []


def test_the_plan_of_20_seeds_aims_at_every_live_phase_often_enough() -> None:
    aimed = Counter((kill.event, kill.role) for seed in range(20) for kill in planned_live_kills(seed))
    assert all(aimed[phase] > LEAST_LIVE_HITS for phase in LIVE_PHASES), aimed
