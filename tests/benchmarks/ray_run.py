"""A backfill by Ray's actors."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

from actors.backfill import BackfillRequest, run_backfill
from ingest.journal import Journal
from ingest.plan import RunPlan
from ingest.telemetry import Secret


def with_ray(plan: RunPlan, url: str, key: Secret | None, folder: Path) -> tuple[float, float]:
    """Return a job's seconds on a Ray that runs, with the start of its actors, and from first to last receipt."""
    state = Path(tempfile.mkdtemp(dir=folder))
    began = time.perf_counter()
    [result] = run_backfill(BackfillRequest([plan], [url], key, state), lambda rows: None, threading.Event())
    seconds = time.perf_counter() - began
    if result.end.status != "complete" or result.row is None:
        raise RuntimeError(f"{result.end}")
    journal = Journal(state, time.time)
    stamps = [receipt.put_unix_ms for receipt in journal.receipts(result.row.key)]
    journal.close()
    shutil.rmtree(state)
    # The first chunks of all packers come together; the rest of the run is what is timed.
    ordered = sorted(stamps)
    steady = (ordered[-1] - ordered[3]) / 1000 * len(ordered) / (len(ordered) - 4)
    return seconds, steady
