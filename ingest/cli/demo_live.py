"""The live half of the demo: a run's log and its first frames through the streamers, read back and compared."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

if TYPE_CHECKING:
    from ingest.server.run import ServerProcess
    from ingest.sources.synthetic import GrowthRun
    from ingest.sources.synthetic_log import LogChannel

__all__ = ["stream_frames", "stream_log"]

POINTS_PER_CHUNK = 100
CHUNKS = 3
NS_PER_MS = 1_000_000


def stream_log(server: ServerProcess, run: GrowthRun, state: Path, number: int) -> int:
    """Stream a run's instrument log, read it back and say so; return how many points differ.

    Parameters
    ----------
    server : ServerProcess
        The platform.
    run : GrowthRun
        The movie that the log is beside.
    state : Path
        Folder of the journal and the spool.
    number : int
        Of the line that is printed.
    """
    from actors.timeseries_streamer import TimeseriesStreamer
    from ingest.sources.synthetic_log import GrowthLog

    channels = GrowthLog(run).channels()
    points = len(channels["temperature"].values)
    began_s = time.monotonic()
    with TimeseriesStreamer(server.api_key.reveal(), server.url, POINTS_PER_CHUNK, state_dir=state) as streamer:
        data_id = streamer.initialize(stream_name="STO homoepitaxy log", physical_sample="STO demo", tags=["demo"])
        for chunk, start in enumerate(range(0, points, POINTS_PER_CHUNK)):
            part = slice(start, start + POINTS_PER_CHUNK)
            streamer.push_multi(
                data_id,
                chunk,
                {
                    name: {"timestamps": log.timestamps_s[part], "values": log.values[part], "units": log.units}
                    for name, log in channels.items()
                },
            )
        report = streamer.finalize(data_id)
    seconds = time.monotonic() - began_s
    differ, status = asyncio.run(_compare_log(server, data_id, channels))
    named = ", ".join(f"{name} in {log.units}" for name, log in channels.items())
    click.echo(
        f"{number}. its log through TimeseriesStreamer: {len(channels)} x {points} points at 10 Hz ({named}), "
        f"{report['chunks_uploaded']} chunks confirmed, {seconds:.1f} s; read back: "
        f"{len(channels) * points - differ} points identical in time, value and unit; stream {status}"
    )
    return differ


async def _compare_log(server: ServerProcess, data_id: str, channels: Mapping[str, LogChannel]) -> tuple[int, str]:
    from ingest.wire.client import PlatformClient

    differ = 0
    async with PlatformClient(server.url, server.api_key) as client:
        for name, log in channels.items():
            stored = await client.get_points(data_id, name)
            made = list(zip(log.timestamps_s.tolist(), log.values.tolist(), strict=True))
            kept = list(zip(stored["timestamps"], stored["values"], strict=True))
            same = sum(a == b for a, b in zip(made, kept, strict=False)) if stored["units"] == log.units else 0
            differ += max(len(made), len(kept)) - same
        status = (await client.timeseries_stream(data_id))["status"]
    return differ, str(status)


def stream_frames(server: ServerProcess, run: GrowthRun, state: Path, number: int) -> int:
    """Push a run's first chunks as a camera loop would, read them back and say so; return how many frames differ.

    Parameters are those of `stream_log`.
    """
    from actors.rheed_streamer import RHEEDStreamer

    size = round(2 * run.fps)
    starts = range(0, min(CHUNKS * size, run.count), size)
    stamps_ms = run.timestamps_ns()[::size][: len(starts)] // NS_PER_MS
    chunks = [run.frames(start, min(start + size, run.count)) for start in starts]
    pushes_ms = []
    began_s = time.monotonic()
    with RHEEDStreamer(server.api_key.reveal(), server.url, state_dir=state) as streamer:
        data_id = streamer.initialize(run.fps, 0.0, size, "STO homoepitaxy live", physical_sample="STO demo")
        for index, frames in enumerate(chunks):
            push_s = time.monotonic()
            streamer.push(data_id, index, frames, int(stamps_ms[index]))
            pushes_ms.append(1000 * (time.monotonic() - push_s))
        report = streamer.finalize(data_id)
    seconds = time.monotonic() - began_s
    same, stored, status = asyncio.run(_compare_frames(server, data_id, chunks, stamps_ms.tolist()))
    made = sum(map(len, chunks))
    click.echo(
        f"{number}. the first {made} frames through RHEEDStreamer: push of {chunks[0].nbytes / 1e6:.0f} MB took "
        f"{max(pushes_ms):.0f} ms at most, {report['chunks_uploaded']} of {len(chunks)} chunks confirmed, "
        f"{seconds:.1f} s; read back: {stored} frames, {same} identical, starts as given; stream {status}"
    )
    return made - same + abs(made - stored)


async def _compare_frames(
    server: ServerProcess, data_id: str, chunks: list[np.ndarray], starts_ms: list[int]
) -> tuple[int, int, str]:
    """Return how many frames are the same, their chunk's start included, how many are stored, and the status."""
    from ingest.destinations.readback import read_back
    from ingest.wire.client import PlatformClient

    same = stored = 0
    async with PlatformClient(server.url, server.api_key) as client:
        async for chunk in read_back(client, data_id):
            stored += len(chunk.frames)
            made = chunks[chunk.index] if chunk.index < len(chunks) else chunk.frames[:0]
            if len(made) == len(chunk.frames) and chunk.timestamps_ms[0] == starts_ms[chunk.index]:
                same += sum(np.array_equal(a, b) for a, b in zip(made, chunk.frames, strict=True))
        status = (await client.stream(data_id))["status"]
    return same, stored, str(status)
