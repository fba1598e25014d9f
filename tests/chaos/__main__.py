"""``python -m tests.chaos --seeds 20``: trials of backfills and of live sessions, phases hit, mutants."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from tests.chaos.hooks import LIVE_PHASES, PHASES, Kill
from tests.chaos.live_made import PUSH
from tests.chaos.live_mutants import LIVE_MUTANTS
from tests.chaos.live_trial import Scenario, live_phase, run_live_trial
from tests.chaos.mutants import MUTANTS
from tests.chaos.trial import TrialResult, run_trial

LEAST_HITS = 3
LEAST_LIVE_HITS = 1

MUTANT_TRIALS: dict[str, dict[str, Any]] = {
    "receipt before PUT": {"kills": [Kill("late_put", 2, "self")]},
    "fencing off": {"kills": [], "freeze": True},
    "early close": {"kills": []},
    "one flipped byte": {"kills": []},
    "two chunks swapped": {"kills": []},
}

LIVE_MUTANT_TRIALS: dict[str, dict[str, Any]] = {
    "acknowledged before it is durable": {"kills": [Kill("late_carry", 2, "self")], "streams": (PUSH,)},
    "removed before its receipt": {
        "kills": [Kill("chunk_read", 6, "self", "live_dispatcher")],
        "direct_s": 0.0,
        "streams": (PUSH,),
    },
    "closed without waiting for the spool": {"kills": [], "direct_s": 0.0, "streams": (PUSH,)},
    "one flipped byte": {"kills": []},
    "two chunks swapped": {"kills": []},
    "one digit of the points": {"kills": []},
    "a live session's lease ignored": {"scenario": "theft"},
}

LIVE_SCENARIOS: dict[str, tuple[Scenario, int]] = {
    "frozen past its lease while it pushes": ("frozen", 900),
    "frozen past its lease before finalize": ("frozen", 901),
    "two scripts, one killed": ("two scripts", 902),
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", choices=("live", "backfill", "all"), default="all")
    parser.add_argument("--no-mutants", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the folders of all trials")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    bad = 0
    if options.only != "live":
        bad += _backfill(options, folder)
    if options.only != "backfill":
        bad += _live(options, folder)
    if bad or options.keep:
        print(f"the trials' folders are kept in {folder}")
    else:
        shutil.rmtree(folder)
    print(f"{'FAILED' if bad else 'all as it should be'}: {bad} wrong")
    return 1 if bad else 0


def _backfill(options: argparse.Namespace, folder: Path) -> int:
    summary = _Summary(PHASES, lambda event, _: event)
    bad = 0
    for seed in range(options.first, options.first + options.seeds):
        result = run_trial(seed, folder / f"seed{seed}")
        bad += summary.add(f"seed {seed}", result)
    bad += summary.add(
        "frozen past its lease, fencing on",
        run_trial(900, folder / "freeze", kills=[], freeze=True),
    )
    bad += summary.tell("backfill", LEAST_HITS if options.seeds >= 20 else 0)
    for name in MUTANTS if not options.no_mutants else ():
        if name != "none":
            result = run_trial(901, folder / name.replace(" ", "-"), mutant=name, **MUTANT_TRIALS[name])
            bad += summary.add(f"mutant {name!r}", result, expect_wrong=True)
    return bad


def _live(options: argparse.Namespace, folder: Path) -> int:
    summary = _Summary(LIVE_PHASES, live_phase)
    bad = 0
    for seed in range(options.first, options.first + options.seeds):
        bad += summary.add(f"live seed {seed}", run_live_trial(seed, folder / f"live-seed{seed}"))
    for name, (scenario, seed) in LIVE_SCENARIOS.items():
        result = run_live_trial(seed, folder / f"live-{seed}", scenario=scenario)
        bad += summary.add(f"live, {name}", result)
    bad += summary.tell("live", LEAST_LIVE_HITS if options.seeds >= 20 else 0)
    for name in LIVE_MUTANTS if not options.no_mutants else ():
        if name != "none":
            place = folder / f"live-{name.replace(' ', '-')}"
            result = run_live_trial(903, place, mutant=name, **LIVE_MUTANT_TRIALS[name])
            bad += summary.add(f"live mutant {name!r}", result, expect_wrong=True)
    return bad


class _Summary:
    """Prints trials as they end, and counts phases and targets."""

    def __init__(self, phases: dict[Any, str], phase: Callable[[str, str], Any]) -> None:
        self._phases, self._phase = phases, phase
        self._hits: Counter[Any] = Counter()
        self._targets: Counter[str] = Counter()

    def add(self, name: str, result: TrialResult, *, expect_wrong: bool = False) -> int:
        """Print one trial; return 1 if it is not as expected."""
        if not expect_wrong:
            for event, target, role in result.kills:
                self._hits[self._phase(event, role)] += 1
                self._targets[role if target == "self" else target] += 1
        good = bool(result.wrong) is expect_wrong
        kills = ", ".join(self._kill(*kill) for kill in result.kills)
        print(
            f"{'ok   ' if good else 'WRONG'} {name}: {result.seconds:.0f} s, {result.drivers} driver(s), "
            f"{result.servers} server(s); kills: {kills or 'none'}",
            flush=True,
        )
        for text in result.wrong[:6]:
            print(f"      {'caught' if expect_wrong else 'wrong'}: {text}", flush=True)
        return 0 if good else 1

    def _kill(self, event: str, target: str, role: str) -> str:
        return f"{self._phases.get(self._phase(event, role), event)} -> {role if target == 'self' else target}"

    def tell(self, what: str, least: int) -> int:
        """Print what was hit and killed; return 1 if some phase was hit too seldom."""
        print(f"{what}, phases hit: " + _listed((text, self._hits[phase]) for phase, text in self._phases.items()))
        print(f"{what}, killed: " + _listed(sorted(self._targets.items())))
        short = [text for phase, text in self._phases.items() if self._hits[phase] < least]
        if short:
            print(f"WRONG: hit less than {least} times: {', '.join(short)}")
        return 1 if short else 0


def _listed(counts: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts)


if __name__ == "__main__":
    sys.exit(main())
