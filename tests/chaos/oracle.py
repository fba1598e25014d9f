"""Compares what the server and the journal hold with what was made; every difference is a sentence."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import numpy as np

from ingest.destinations.readback import read_back
from ingest.errors import IngestError
from ingest.journal import Journal
from ingest.plan import RunPlan
from ingest.sources.synthetic import GrowthRun
from ingest.telemetry import Secret
from ingest.wire.client import PlatformClient
from tests.chaos.hooks import committed, stale_commits


def differences(
    url: str,
    api_key: Secret,
    made: dict[str, GrowthRun],
    state: Path,
    folder: Path,
    *,
    lost_creates: int,
    thawed: bool,
) -> list[str]:
    """Return everything that is wrong: empty if nothing was lost, doubled, changed, shifted or closed wrongly.

    `thawed`: a job that was frozen went on; the PUTs that it had begun need no fence, only its journalling does.
    """
    journal = Journal(state, time.time)
    try:
        return asyncio.run(_differences(url, api_key, made, journal, folder, lost_creates, thawed))
    finally:
        journal.close()


async def _differences(url, api_key, made, journal, folder, lost_creates, thawed) -> list[str]:
    wrong = stale_commits(folder)
    rows = journal.streams()
    if len(rows) != len(made):
        wrong.append(f"the journal has {len(rows)} streams for {len(made)} runs")
    async with PlatformClient(url, api_key) as client:
        streams = {stream["id"]: stream for stream in await client.list_streams()}
        known = {row.data_id for row in rows}
        orphans = [stream for data_id, stream in streams.items() if data_id not in known]
        if any(orphan["chunks"] for orphan in orphans):
            wrong.append("a stream with frames that no run knows")
        if len(orphans) > lost_creates:
            wrong.append(f"{len(orphans)} streams that no run knows, {lost_creates} lost create replies")
        for row in rows:
            run = next((run for name, run in made.items() if row.path.startswith(name)), None)
            if run is None or row.data_id not in streams:
                wrong.append(f"{row.path}: no stream on the server")
                continue
            plan = journal.plan(row.key)
            if row.state != "closed" or row.confirmed != row.chunks or row.lost:
                wrong.append(f"{row.path}: journal says {row.state}, {row.confirmed} of {row.chunks}, {row.lost} lost")
            try:
                wrong += [f"{row.path}: {text}" for text in await _stream_differences(client, row.data_id, run, plan)]
            except IngestError as exc:
                wrong.append(f"{row.path}: {exc}")
            wrong += [f"{row.path}: {text}" for text in ([] if thawed else _repeats(row, folder))]
    return wrong


async def _stream_differences(client: PlatformClient, data_id: str, run: GrowthRun, plan: RunPlan) -> list[str]:
    wrong = []
    stream = await client.stream(data_id)
    if stream["status"] != "closed" or stream["times_closed"] != 1:
        wrong.append(f"the stream is {stream['status']}, closed {stream['times_closed']} times")
    if stream["sample"] is None or stream["sample"]["name"] != "chaos sample" or len(stream["tags"]) != 1:
        wrong.append("sample or tag is not linked")
    stamps_ms = run.timestamps_ns() / 1e6
    seen = 0
    async for chunk in read_back(client, data_id):
        task = plan.chunks[chunk.index]
        expected = run.frames(task.start, task.stop)
        if chunk.frames.shape != expected.shape or not np.array_equal(chunk.frames, expected):
            wrong.append(f"chunk {chunk.index} has other frames than were made")
            continue
        error = np.abs(chunk.timestamps_ms - stamps_ms[task.start : task.stop]).max()
        if error > 500 / task.fps + 1:
            wrong.append(f"chunk {chunk.index} is {error:.1f} ms from its stamps")
        seen += task.frames
    if seen != run.count:
        wrong.append(f"{seen} of {run.count} frames are there")
    return wrong


def _repeats(row, folder: Path) -> list[str]:
    """Chunks that were PUT again after their receipt was committed."""
    receipts = committed(folder)
    log = folder / "puts.log"
    late = []
    for line in log.read_text().splitlines() if log.exists() else ():
        when, path = line.split(" ")
        _, _, data_id, index = path.split("/")[:4]
        done = receipts.get((row.key, int(index))) if data_id == row.data_id else None
        if done is not None and float(when) > done:
            late.append(f"chunk {index} was PUT again {float(when) - done:.2f} s after its receipt was committed")
    return late
