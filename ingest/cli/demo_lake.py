"""The lake's part of the demo: the same run into a folder, then checked against its source."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path

import click

__all__ = ["fill_lake"]


def fill_lake(path: Path, folder: Path, step: int) -> int:
    """Backfill a run into a lake of its own and verify it; return how many things differ."""
    from actors.backfill import BackfillRequest, run_backfill
    from ingest.cli.planning import find_candidates
    from ingest.config import BackfillSettings
    from ingest.lake.layout import STATE_FOLDER
    from ingest.verify.here import verify_here
    from ingest.verify.job import VerifyRequest

    lake = folder / "lake"
    settings = BackfillSettings(rotations_per_min=0.0, sample="STO demo", tag=("demo",))
    [candidate] = find_candidates([str(path)], settings, planning=True, to=[str(lake)])
    plan = candidate.plan
    if plan is None:
        raise candidate.error or RuntimeError("no plan")
    began_s = time.monotonic()
    [result] = run_backfill(
        BackfillRequest([plan], [str(lake)], None, lake / STATE_FOLDER), lambda _: None, threading.Event()
    )
    seconds = time.monotonic() - began_s
    if result.row is None or result.end.status not in ("complete", "skipped"):
        click.echo(f"{step}. into a lake: it ended as {result.end.status}: {result.end.error}")
        return 1
    click.echo(f"{step}. into a lake: {lake}/{result.row.data_id}.zarr, {result.row.confirmed} shards, {seconds:.1f} s")
    request = VerifyRequest([str(lake)], [(candidate.path, plan)], lake / STATE_FOLDER)
    [report] = asyncio.run(verify_here(request))
    click.echo(
        f"   verified against its source: {report.frames} frames and times, {report.n_bytes / 1e6:.0f} MB "
        f"in {report.seconds:.1f} s: {'all as recorded' if report.status == 'verified' else report.status}"
    )
    return 0 if report.status == "verified" else 1
