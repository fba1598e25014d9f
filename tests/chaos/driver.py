"""One backfill in a process of its own, with chaos hooks in its actors: what the trials start, kill and start again."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

from actors.backfill import BackfillRequest, run_backfill
from ingest.cli.planning import find_candidates
from ingest.config import BackfillSettings
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret
from tests.chaos.hooks import ChaosTelemetry, write_pid
from tests.chaos.mutants import MUTANTS


def main() -> int:
    config = json.loads(Path(sys.argv[1]).read_text())
    folder = Path(config["folder"])
    write_pid(folder, "driver", os.getpid())
    settings = BackfillSettings(sample="chaos sample", tag=("chaos",), rotations_per_min=0.0)
    candidates = find_candidates(config["files"], settings, planning=True)
    request = BackfillRequest(
        plans=[c.plan for c in candidates if c.plan is not None],
        destinations=[config["url"]],
        api_key=Secret(os.environ["AS_API_KEY"]),
        state_dir=Path(config["state"]),
        packers=2,
        retry=RetryPolicy(first_s=0.02, max_s=0.3, retry_for_s=60),
        lease_s=config["lease_s"],
        classes=MUTANTS[config["mutant"]],
        telemetry=ChaosTelemetry(str(folder)),
    )
    results = run_backfill(request, lambda rows: None, threading.Event())
    print(
        json.dumps(
            [[r.plan.spec.canonical_path, r.end.status, r.end.error, r.row.key if r.row else None] for r in results]
        )
    )
    return 0 if all(r.end.status in ("complete", "skipped") for r in results) else 3


if __name__ == "__main__":
    sys.exit(main())
