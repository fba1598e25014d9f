"""Runs a soak: quiet for a while, then with a platform that fails, cuts and freezes; every difference is a sentence."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from ingest.destinations.readback import read_back
from ingest.errors import IngestError
from ingest.server.settings import KEY_VARIABLE
from ingest.shard import frames_digest
from ingest.telemetry import Secret
from ingest.wire.client import PlatformClient
from tests.benchmarks.memory import MemoryWatch
from tests.soak.client import CHANNELS, PERIOD_S, POINTS, Camera, explicit_ms, readings
from tests.soak.wire import SWITCH

KEY = Secret("soak-key-0123456789")
ROOT = Path(__file__).parents[2]
FREEZE_EVERY_S = 120.0
FREEZE_S = 20.0
AFTER_FREEZE_S = 10.0
STAMP_TOLERANCE_MS = 50.0
FINALIZE_FOR_S = 900.0


class Platform:
    """The platform behind its wire; a context manager."""

    def __init__(self, folder: Path, seed: int, harder: float) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.data = folder / "platform"
        command = [sys.executable, "-m", "tests.soak.wire", "--data", str(self.data)]
        self._process = subprocess.Popen(
            [*command, "--port", str(port), "--seed", str(seed), "--harder", str(harder)],
            env={**os.environ, KEY_VARIABLE: KEY.reveal()},
            cwd=ROOT,
        )
        self.pid = self._process.pid

    def __enter__(self):
        for _ in range(600):
            try:
                httpx.get(f"{self.url}/healthz", timeout=2.0, trust_env=False)
                return self
            except httpx.TransportError:
                if self._process.poll() is not None:
                    break
                time.sleep(0.05)
        self.__exit__()
        raise RuntimeError("the platform does not start")

    def __exit__(self, *exc) -> None:
        self.thaw()
        self._process.terminate()
        self._process.wait(30)

    def faults(self, on: bool) -> dict[str, int]:
        """Turn the faults on or off; return what there were."""
        return httpx.post(f"{self.url}{SWITCH}/{'on' if on else 'off'}", timeout=60.0, trust_env=False).json()

    def freeze(self) -> None:
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)


class SpoolWatch:
    """Samples what lies in the spool, in a thread; a context manager. `highest` is in bytes."""

    def __init__(self, folder: Path) -> None:
        self.highest = 0
        self._folder = folder
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def _watch(self) -> None:
        while not self._end.wait(0.5):
            self.highest = max(self.highest, _bytes_below(self._folder))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc) -> None:
        self._end.set()
        self._thread.join()


def _bytes_below(folder: Path) -> int:
    n_bytes = 0
    for path in folder.rglob("*"):
        try:
            n_bytes += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return n_bytes


def freezes(seed: int, quiet_s: float, seconds: float, freeze_s: float) -> list[tuple[float, float]]:
    """Return when the platform freezes, in seconds from the first push: once about every two minutes."""
    dice = random.Random(seed)
    found, at = [], quiet_s + dice.uniform(0.1, 0.3) * min(FREEZE_EVERY_S, seconds)
    while at + freeze_s < quiet_s + seconds:
        found.append((at, at + freeze_s))
        at += FREEZE_EVERY_S * dice.uniform(0.75, 1.25)
    return found


def trouble(platform: Platform, began: float, quiet_s: float, frozen: list[tuple[float, float]], end: threading.Event):
    """Do to the platform what is planned, in a thread."""
    if end.wait(max(began + quiet_s - time.time(), 0)):
        return
    platform.faults(on=True)
    for start, stop in frozen:
        if end.wait(max(began + start - time.time(), 0)):
            return
        platform.freeze()
        end.wait(max(began + stop - time.time(), 0))
        platform.thaw()


# -- comparing ---------------------------------------------------------------------------------------------------------


async def differences(url: str, ids: dict[str, Any], done: dict[str, Any], seed: int) -> tuple[list[str], list[str]]:
    """Return everything that is wrong with what the platform holds, and what else is worth saying."""
    async with PlatformClient(url, KEY) as client:
        wrong: list[str] = []
        streams = (await client.list_streams(), await client.list_timeseries_streams())
        if [len(kind) for kind in streams] != [1, 1]:
            wrong.append(f"{len(streams[0])} and {len(streams[1])} streams, and not one of each kind")
        frames_wrong, said = await _frames(client, ids, done["frames"], seed)
        series_wrong, more = await _series(client, ids, done["series"])
    return wrong + frames_wrong + series_wrong, [said, more]


async def _frames(client: PlatformClient, ids: dict[str, Any], log: list[Any], seed: int) -> tuple[list[str], str]:
    camera, wrong, again, seen, worst_ms = Camera(seed), [], 0, [], 0.0
    stream = await client.stream(ids["frames_id"])
    if stream["status"] != "closed" or stream["times_closed"] != 1:
        wrong.append(f"frames: the stream is {stream['status']}, closed {stream['times_closed']} times")
    if stream["sample"] is None or len(stream["tags"]) != 1:
        wrong.append("frames: sample or tag is not linked")
    pushed = {index: when_s for index, when_s, _ in log}
    async for chunk in read_back(client, ids["frames_id"]):
        seen.append(chunk.index)
        again += chunk.puts > 1
        if chunk.index not in pushed:
            continue
        expected = await asyncio.to_thread(camera.chunk, chunk.index)
        if frames_digest(chunk.frames) != frames_digest(expected):
            wrong.append(f"frames: chunk {chunk.index} has other frames than were pushed")
        explicit = explicit_ms(chunk.index, ids["start_ms"])
        off_ms = chunk.timestamps_ms[0] - (pushed[chunk.index] * 1000 if explicit is None else explicit)
        if explicit is None:
            worst_ms = max(worst_ms, abs(off_ms))
        if abs(off_ms) > (STAMP_TOLERANCE_MS if explicit is None else 0):
            wrong.append(f"frames: chunk {chunk.index} is {off_ms:.1f} ms from its time")
    if missing := sorted(set(pushed) - set(seen)):
        wrong.append(f"frames: {len(missing)} chunks lost: {missing[:20]}")
    if doubled := len(seen) - len(set(seen)):
        wrong.append(f"frames: {doubled} chunks are there twice")
    if unknown := sorted(set(seen) - set(pushed)):
        wrong.append(f"frames: chunks that nobody pushed: {unknown[:20]}")
    return wrong, (
        f"frames: {len(seen)} of {len(pushed)} chunks held once with their bytes and times, {again} of them were PUT "
        f"more than once; live stamps at most {worst_ms:.1f} ms from the caller's clock"
    )


async def _series(client: PlatformClient, ids: dict[str, Any], log: list[Any]) -> tuple[list[str], str]:
    wrong, chunks = [], len(log)
    stream = await client.timeseries_stream(ids["series_id"])
    if stream["status"] != "closed" or stream["times_closed"] != 1:
        wrong.append(f"series: the stream is {stream['status']}, closed {stream['times_closed']} times")
    expected = [readings(index, ids["start_ms"] / 1000) for index in range(chunks)]
    names = [channel["name"] for channel in stream["channels"]]
    if sorted(names) != sorted(expected[0]):
        wrong.append(f"series: channels {names}")
    for name in names:
        held = await client.get_points(ids["series_id"], name)
        for what in ("timestamps", "values"):
            if not np.array_equal(held[what], np.concatenate([chunk[name][what] for chunk in expected])):
                wrong.append(f"series: {name} has other {what} than were pushed: {len(held[what])} of them")
        if held["chunk_indices"] != list(range(chunks)) or held["units"] != "C":
            wrong.append(f"series: {name} has {len(held['chunk_indices'])} of {chunks} chunks, units {held['units']}")
    again = sum(puts > 1 for puts in stream["channels"][0]["chunk_puts"]) if names else 0
    return wrong, (
        f"series: {stream['points']} of {chunks * CHANNELS * POINTS} points held once, {again} of {chunks} requests "
        "were stored more than once"
    )


# -- reporting ---------------------------------------------------------------------------------------------------------


def spread(milliseconds: list[float]) -> str:
    if not milliseconds:
        return "none"
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return f"{len(milliseconds)}: p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max(milliseconds):.1f} ms"


def by_phase(log: list[Any], began: float, quiet_s: float, frozen: list[tuple[float, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"quiet": [], "failing": [], "frozen": []}
    for _, when_s, ms in log:
        at = when_s - began
        is_frozen = any(start <= at < stop + AFTER_FREEZE_S for start, stop in frozen)
        found["quiet" if at < quiet_s else "frozen" if is_frozen else "failing"].append(ms)
    return found


def soak(folder: Path, seconds: float, quiet_s: float, freeze_s: float, seed: int, harder: float = 1.0) -> list[str]:
    """Run one soak, print what there is to say, and return what is wrong."""
    frozen = freezes(seed, quiet_s, seconds, freeze_s)
    print(
        f"soak, seed {seed}: {quiet_s:.0f} s quiet, {seconds:.0f} s with faults, frozen for {freeze_s:.0f} s at "
        f"{', '.join(f'{start:.0f}' for start, _ in frozen) or 'no time'} s",
        flush=True,
    )
    with Platform(folder, seed, harder) as platform, (folder / "client.log").open("wb") as errors:
        command = [sys.executable, "-m", "tests.soak.client", platform.url, str(folder), str(quiet_s + seconds)]
        client = subprocess.Popen(
            [*command, str(seed)],
            env={**os.environ, "AS_API_KEY": KEY.reveal(), "HOME": str(folder)},
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        end = threading.Event()
        limit = threading.Timer(120 + quiet_s + seconds + FINALIZE_FOR_S, client.kill)
        limit.daemon = True
        limit.start()
        try:
            with MemoryWatch(client.pid, 1.0) as memory, SpoolWatch(folder / "state" / "spool") as spool:
                line = client.stdout.readline()
                if not line:
                    return [f"the client does not start: {(folder / 'client.log').read_text()[-3000:]}"]
                ids = json.loads(line)
                began = time.time()
                client.stdin.write("\n")
                client.stdin.flush()
                troubles = threading.Thread(target=trouble, args=(platform, began, quiet_s, frozen, end))
                troubles.start()
                code = client.wait()
            end.set()
            troubles.join()
        finally:
            end.set()
            limit.cancel()
            if client.poll() is None:
                client.kill()
                client.wait()
        platform.thaw()
        counts = platform.faults(on=False)
        if code != 0:
            return [f"the client ended with exit code {code}: {(folder / 'client.log').read_text()[-3000:]}"]
        done = json.loads((folder / "client.json").read_text())
        try:
            wrong, said = asyncio.run(differences(platform.url, ids, done, seed))
        except IngestError as exc:
            return [f"reading back: {exc}"]
        for report in done["reports"]:
            if report["form"] != "close" or report["lost"]:
                wrong.append(f"finalize reports {report}")
        if left := _bytes_below(folder / "state" / "spool"):
            wrong.append(f"{left} bytes are left in the spool")
        for text in said:
            print(text)
        print("faults: " + ", ".join(f"{count} {name}" for name, count in sorted(counts.items())))
        for what in ("frames", "series"):
            phases = by_phase(done[what], began, quiet_s, frozen)
            print(f"push of {what}: " + "; ".join(f"{name} {spread(ms)}" for name, ms in phases.items()))
        late = sum(ms > PERIOD_S * 1000 for _, _, ms in done["frames"])
        print(
            f"finalize {done['finalize_s']:.1f} s after the last push; {late} pushes took longer than the camera's "
            f"{PERIOD_S:g} s; spool at most {spool.highest / 1e6:.0f} MB; memory of the client at most "
            f"{memory.highest:.0f} MB ({memory}); the platform's data {_bytes_below(platform.data) / 1e9:.1f} GB"
        )
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, help="with faults (default 10)")
    parser.add_argument("--quiet-minutes", type=float, help="before them (default: a fifth of --minutes, at most 2)")
    parser.add_argument("--freeze-s", type=float, default=FREEZE_S, help="how long each freeze is (default 20)")
    parser.add_argument("--harder", type=float, default=1.0, help="so many times the 5 %% of failures and 1 %% of cuts")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, help="parent of the folder for all data (20 to 30 MB a chunk of 2 s)")
    parser.add_argument("--quick", action="store_true", help="a smoke of 30 s with one freeze of 6 s")
    options = parser.parse_args()
    minutes, freeze_s = (0.35, 6.0) if options.quick else (options.minutes, options.freeze_s)
    quiet = min(minutes / 5, 2.0) if options.quiet_minutes is None else options.quiet_minutes
    folder = Path(tempfile.mkdtemp(prefix="soak-", dir=options.folder))
    began = time.monotonic()
    try:
        wrong = soak(folder, minutes * 60, quiet * 60, freeze_s, options.seed, options.harder)
        log = (folder / "client.log").read_text().splitlines()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    for text in wrong:
        print(f"DIFFERENCE {text}")
    if wrong:
        print("\n".join(["the client's log ends with", *log[-30:]]))
    print(f"soak: {len(wrong)} differences, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
