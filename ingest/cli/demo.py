"""``rheed-ingest demo``: a growth run from nothing to the platform and back, frame by frame, point by point."""

from __future__ import annotations

import asyncio
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

from ingest.cli.exits import FAILED, OK

if TYPE_CHECKING:
    from actors.backfill import RunResult
    from ingest.plan import RunPlan
    from ingest.server.run import ServerProcess
    from ingest.sources.synthetic import GrowthRun

__all__ = ["demo"]

NS_PER_MS = 1e6


@click.command()
@click.option("--dir", "folder", type=click.Path(path_type=Path), help="Where to keep it all; default: a new folder.")
@click.option("--frames", type=click.IntRange(60, 100_000), default=1500, show_default=True, help="Length of the run.")
def demo(folder: Path | None, frames: int) -> int:
    """Make a growth run, backfill it into an embedded platform, stream its log live, read all back and compare."""
    from ingest.server.run import start_server_process
    from ingest.sources.synthetic import GrowthRun
    from ingest.sources.synthetic_hdf5 import write_hdf5

    folder = (folder or Path(tempfile.mkdtemp(prefix="rheed-ingest-demo-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    run = GrowthRun(frames, 300, 500, fps=50.0, jitter_s=0.002, gaps=((frames * 3 // 5, 1.3),))
    path = folder / "STO-homoepitaxy.h5"
    click.echo(f"1. a growth run: {frames} frames of 500 x 300 px at 50 fps, 2 ms jitter, one gap of 1.3 s")
    write_hdf5(path, run)
    click.echo(f"   {path} ({path.stat().st_size / 1e6:.0f} MB, areaDetector layout)")
    with start_server_process(folder / "platform") as server:
        click.echo(f"2. an embedded platform: {server.url}, data in {server.data}")
        return _send(folder, server, run, _plan(path))


def _send(folder: Path, server: ServerProcess, run: GrowthRun, plan: RunPlan) -> int:
    """Send the run by every way there is, and compare; return the exit code."""
    from actors.runtime import ray_runtime
    from ingest.cli.demo_lake import fill_lake
    from ingest.cli.demo_live import stream_frames, stream_log

    state = folder / "state"
    began_s = time.monotonic()
    with ray_runtime(None):  # which the backfill and the streamers share
        started_s = time.monotonic() - began_s
        result, seconds = _backfill(plan, server, state)
        if result.row is None or result.end.status not in ("complete", "skipped"):
            click.echo(f"   the backfill ended as {result.end.status}: {result.end.error}")
            return FAILED
        data_id = result.row.data_id or ""
        _say_delivered(result, seconds, started_s)
        differences = asyncio.run(_compare(server, data_id, run, plan))
        again, again_s = _backfill(plan, server, state)
        click.echo(f"5. the same backfill again: {again.end.status} in {again_s:.2f} s, nothing was sent")
        differences += stream_log(server, run, state, 6)
        differences += stream_frames(server, run, state, 7)
        _wait_for_seal(server, data_id)
        click.echo(f"8. the sealed run: {folder / 'platform' / data_id}.zarr (zarr, xarray, napari open it)")
        differences += fill_lake(Path(plan.spec.paths[0]), folder, 9)
    return OK if not differences and again.end.status == "skipped" else FAILED


def _plan(path: Path) -> RunPlan:
    from ingest.cli.plan_report import plan_lines
    from ingest.cli.planning import find_candidates
    from ingest.config import BackfillSettings
    from ingest.plan import RunPlan as FramesPlan

    [candidate] = find_candidates(
        [str(path)], BackfillSettings(sample="STO demo", tag=("demo",), rotations_per_min=0.0), planning=True
    )
    click.echo("\n".join(f"   {line}" for line in plan_lines([candidate])[1:]))
    if not isinstance(candidate.plan, FramesPlan):
        raise candidate.error or RuntimeError("no plan")
    return candidate.plan


def _backfill(plan: RunPlan, server: ServerProcess, state: Path) -> tuple[RunResult, float]:
    from rich.console import Console

    from actors.backfill import BackfillRequest, run_backfill
    from ingest.cli.progress import JobProgress

    began_s = time.monotonic()
    with JobProgress(Console(stderr=True)) as progress:
        request = BackfillRequest([plan], [server.url], server.api_key, state)
        [result] = run_backfill(request, progress.show, threading.Event())
    return result, time.monotonic() - began_s


def _say_delivered(result: RunResult, seconds: float, started_s: float) -> None:
    row = result.row
    if row is None:
        return
    click.echo(
        f"3. backfilled on a local Ray: {row.confirmed} of {row.chunks} chunks confirmed, "
        f"{row.bytes_in / 1e6:.0f} MB in, {row.bytes_out / 1e6:.0f} MB out, {seconds:.1f} s (after {started_s:.1f} s "
        "for the start of Ray)"
    )


async def _compare(server: ServerProcess, data_id: str, run: GrowthRun, plan: RunPlan) -> int:
    """Compare what the platform holds with what was made, frame by frame; return how many frames differ."""
    from ingest.destinations.readback import read_back
    from ingest.shard import frames_digest
    from ingest.wire.client import PlatformClient

    stamps_ms = run.timestamps_ns() / NS_PER_MS
    position = same = 0
    errors = []
    async with PlatformClient(server.url, server.api_key) as client:
        async for chunk in read_back(client, data_id):
            n = len(chunk.frames)
            made = run.frames(position, position + n)
            same += sum(
                frames_digest(a[None]) == frames_digest(b[None]) for a, b in zip(chunk.frames, made, strict=True)
            )
            errors.append(np.abs(chunk.timestamps_ms - stamps_ms[position : position + n]))
            position += n
        stream = await client.stream(data_id)
    worst = np.concatenate(errors)
    click.echo(
        f"4. read back: {position} frames, {same} identical by XXH3-128; capture times within "
        f"{worst.max():.2f} ms (p99 {np.percentile(worst, 99):.2f} ms; half a period is "
        f"{500 / plan.settings.fps:.1f} ms); stream {stream['status']}, closed {stream['times_closed']} time(s)"
    )
    return run.count - same + abs(run.count - position)


def _wait_for_seal(server: ServerProcess, data_id: str) -> None:
    from ingest.wire.client import PlatformClient

    async def sealed() -> bool:
        async with PlatformClient(server.url, server.api_key) as client:
            return bool((await client.stream(data_id))["sealed"])

    deadline_s = time.monotonic() + 60
    while time.monotonic() < deadline_s and not asyncio.run(sealed()):
        time.sleep(0.1)
