"""A lab script that streams to measure, with our streamers or the official SDK's; a process of its own.

``python -m tests.benchmarks.live_client ours|sdk TASK JSON``. It prints what it has reached, one word a line, and waits
for a line before it goes on where whoever started it has something to do; its last line is JSON.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import memory

WAIT_S = 0.02
SETTLE_S = 4.0
"""Ray's own processes go on starting for seconds behind the first answer; both libraries wait, and count it nowhere."""


def reached(what: str) -> None:
    """Tell whoever started this process, and wait until it says to go on."""
    print(what, flush=True)
    if not sys.stdin.readline():
        sys.exit("whoever measures is gone")


def streamers(who: str) -> Any:
    if who == "sdk":
        import atomscale.streaming

        return atomscale.streaming
    import actors

    return actors


def ring_of(path: str) -> NDArray[np.uint8]:
    """Return the chunks to stream one after the other, again and again, in memory: (chunk, frame, y, x)."""
    return np.load(path)


def begun(who: str, task: dict[str, Any], name: str) -> tuple[Any, str, float]:
    """Return a streamer with a stream, and how long its start took; the import is not counted."""
    module = streamers(who)
    began = time.perf_counter()
    streamer = module.RHEEDStreamer(os.environ["AS_API_KEY"], task["url"])
    data_id = streamer.initialize(task["fps"], 0.0, task["chunk_size"], stream_name=name)
    return streamer, data_id, time.perf_counter() - began


def run(who: str, task: dict[str, Any]) -> dict[str, Any]:
    """`run()` over a number of chunks."""
    ring = ring_of(task["ring"])
    streamer, data_id, start_s = begun(who, task, f"{who} run")
    asked: list[float] = []

    def chunks() -> Iterator[NDArray[np.uint8]]:
        for index in range(task["chunks"]):
            asked.append(time.perf_counter())
            yield ring[index % len(ring)]

    reached("initialized")
    time.sleep(SETTLE_S)
    before = memory.cpu_s(os.getpid())
    began = time.perf_counter()
    streamer.run(data_id, chunks())
    run_s = time.perf_counter() - began
    cpu_s = memory.cpu_since(os.getpid(), before)
    streamer.finalize(data_id)
    return {
        "data_id": data_id,
        "start_s": start_s,
        "run_s": run_s,
        "cpu_s": cpu_s,
        "bytes": ring[0].nbytes * task["chunks"],
        "asked_s": [when - began for when in asked],
    }


def timed_push(streamer: Any, data_id: str, index: int, chunk: NDArray[np.uint8]) -> float:
    began = time.perf_counter()
    streamer.push(data_id, index, chunk)
    return (time.perf_counter() - began) * 1000


def push(who: str, task: dict[str, Any]) -> dict[str, Any]:
    """`push()` at a camera's pace, then as fast as it takes them into another stream."""
    ring = ring_of(task["ring"])
    streamer, data_id, start_s = begun(who, task, f"{who} push")
    reached("initialized")
    paced, late = [], 0
    due = time.perf_counter()
    for index in range(task["pushes"]):
        paced.append(timed_push(streamer, data_id, index, ring[index % len(ring)]))
        due += task["pause_s"]
        late += time.perf_counter() > due
        time.sleep(max(due - time.perf_counter(), 0))
    reached("pushed")
    report = streamer.finalize(data_id)
    burst: list[float] = []
    if task["burst"]:
        second = streamer.initialize(task["fps"], 0.0, task["chunk_size"], stream_name=f"{who} burst")
        burst = [timed_push(streamer, second, index, ring[index % len(ring)]) for index in range(task["burst"])]
        streamer.finalize(second)
    return {
        "data_id": data_id,
        "start_s": start_s,
        "paced_ms": paced,
        "burst_ms": burst,
        "late": late,
        "uploaded": report["chunks_uploaded"],
        "lost": report["chunks_not_uploaded"],
    }


def points(who: str, task: dict[str, Any]) -> dict[str, Any]:
    """`push_multi` of all channels' chunks as fast as it takes them."""
    size, pushes = task["points_per_chunk"], task["pushes"]
    values = np.random.default_rng(0).normal(20, 1, size * pushes)
    chunks = []
    for index in range(pushes):
        stamps = (1.7e9 + np.arange(index * size, (index + 1) * size) / task["rate_hz"]).tolist()
        readings = values[index * size : (index + 1) * size]
        chunks.append(
            {
                f"channel {number}": {"timestamps": stamps, "values": (readings + number).tolist(), "units": "C"}
                for number in range(task["channels"])
            }
        )
    module = streamers(who)
    streamer = module.TimeseriesStreamer(os.environ["AS_API_KEY"], task["url"], size)
    data_id = streamer.initialize(f"{who} points")
    reached(data_id)
    before = memory.cpu_s(os.getpid())
    began = time.perf_counter()
    for index, channels in enumerate(chunks):
        streamer.push_multi(data_id, index, channels)
    pushed_s = time.perf_counter() - began
    if task["waits"]:  # until the server holds all that it will: only the server can say of the SDK's
        reached("pushed")
    streamer.finalize(data_id)
    return {
        "data_id": data_id,
        "pushed_s": pushed_s,
        "done_s": time.perf_counter() - began,
        "cpu_s": memory.cpu_since(os.getpid(), before),
    }


def stalled(who: str, task: dict[str, Any]) -> dict[str, Any]:
    """`push()` at full rate while the server answers nothing; then everything goes out."""
    base = np.load(task["ring"], mmap_mode="r")[0]
    chunk = np.empty_like(base)
    streamer, data_id, _ = begun(who, task, f"{who} stalled")
    reached("initialized")
    pushes, spooled, index = [], 0, 0
    began = due = time.perf_counter()
    while due - began < task["seconds"]:
        np.bitwise_xor(base, np.uint8(index % 8), out=chunk)  # one buffer, which belongs to the caller again at once
        pushes.append(timed_push(streamer, data_id, index, chunk))
        index += 1
        due += task["pause_s"]
        time.sleep(max(due - time.perf_counter(), 0))
    spool = streamer.spool_status()
    spooled = spool["chunks_pending"]
    reached("pushed")
    report = streamer.finalize(data_id)
    return {
        "data_id": data_id,
        "push_ms": pushes,
        "spooled": spooled,
        "spool_bytes": spool["bytes"],
        "uploaded": report["chunks_uploaded"],
        "lost": report["chunks_not_uploaded"],
        "caller_bytes": chunk.nbytes + base.nbytes,
    }


TASKS = {"run": run, "push": push, "points": points, "stalled": stalled}


def main() -> None:
    who, task, options = sys.argv[1:4]
    print(json.dumps(TASKS[task](who, json.loads(options))), flush=True)


if __name__ == "__main__":
    main()
