"""``python -m tests.chaos --seeds 20``: trials, phases hit, mutants."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos.hooks import PHASES, Kill
from tests.chaos.mutants import MUTANTS
from tests.chaos.trial import TrialResult, run_trial

LEAST_HITS = 3

MUTANT_TRIALS = {
    "receipt before PUT": {"kills": [Kill("late_put", 2, "self")]},
    "fencing off": {"kills": [], "freeze": True},
    "early close": {"kills": []},
    "one flipped byte": {"kills": []},
    "two chunks swapped": {"kills": []},
}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--no-mutants", action="store_true")
    parser.add_argument("--keep", action="store_true", help="keep the folders of all trials")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="chaos-"))
    hits: Counter[str] = Counter()
    targets: Counter[str] = Counter()
    bad = 0
    for seed in range(options.first, options.first + options.seeds):
        result = run_trial(seed, folder / f"seed{seed}")
        for event, target, role in result.kills:
            hits[event] += 1
            targets[role if target == "self" else target] += 1
        bad += _say(f"seed {seed}", result, expect_wrong=False)
    bad += _say(
        "frozen past its lease, fencing on",
        run_trial(900, folder / "freeze", kills=[], freeze=True),
        expect_wrong=False,
    )
    print("phases hit: " + ", ".join(f"{PHASES[event]} {hits[event]}" for event in PHASES))
    print("killed: " + ", ".join(f"{target} {count}" for target, count in sorted(targets.items())))
    short = [PHASES[event] for event in PHASES if hits[event] < LEAST_HITS]
    if short and options.seeds >= 20:
        bad += 1
        print(f"WRONG: hit less than {LEAST_HITS} times: {', '.join(short)}")
    if not options.no_mutants:
        for name in MUTANTS:
            if name != "none":
                result = run_trial(901, folder / name.replace(" ", "-"), mutant=name, **MUTANT_TRIALS[name])
                bad += _say(f"mutant {name!r}", result, expect_wrong=True)
    if bad or options.keep:
        print(f"the trials' folders are kept in {folder}")
    else:
        shutil.rmtree(folder)
    print(f"{'FAILED' if bad else 'all as it should be'}: {bad} wrong")
    return 1 if bad else 0


def _say(name: str, result: TrialResult, *, expect_wrong: bool) -> int:
    good = bool(result.wrong) is expect_wrong
    kills = ", ".join(f"{PHASES.get(event, event)} -> {role if t == 'self' else t}" for event, t, role in result.kills)
    print(
        f"{'ok   ' if good else 'WRONG'} {name}: {result.seconds:.0f} s, {result.drivers} driver(s), "
        f"{result.servers} server(s); kills: {kills or 'none'}",
        flush=True,
    )
    for text in result.wrong[:6]:
        print(f"      {'caught' if expect_wrong else 'wrong'}: {text}", flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
