"""One trial: files, a server, a driver that is started again until it is done, kills on the way, then the oracle."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from ingest.telemetry import Secret
from tests.chaos.hooks import PHASES, Kill, killed, write_kills, write_pid
from tests.chaos.oracle import differences

KEY = Secret("chaos-key-0123456789")
LEASE_S = 3.0
DRIVER_TRIES = 12
TRIAL_TIMEOUT_S = 240.0
ROOT = Path(__file__).parents[2]


@dataclass
class TrialResult:
    seed: int
    seconds: float
    kills: list[tuple[str, str, str]]
    drivers: int
    servers: int
    wrong: list[str] = field(default_factory=list)


def planned_kills(seed: int) -> list[Kill]:
    """One to five kills; every phase gets its turn as the seeds go round, the rest is drawn."""
    dice = random.Random(seed)
    events = list(PHASES)
    kills = []
    for turn in range(dice.randint(1, 5)):
        event = events[(seed * 3 + turn) % len(events)] if turn < 3 else dice.choice(events)
        many = event in ("chunk_read", "chunk_put", "receipt_received", "ChunkConfirmed_committed")
        target = dice.choices(["self", "driver", "server"], [6, 2, 2])[0]
        kills.append(Kill(event, dice.randrange(12) if many else 0, target))
    return kills


class Server:
    """The faulty server, started again whenever it is found dead."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.port = _free_port(seed)
        self.url = f"http://127.0.0.1:{self.port}"
        self.starts = 0
        self._folder, self._seed = folder, seed
        self._log = (folder / "server.log").open("w")
        self._start()

    def _start(self) -> None:
        self.starts += 1
        command = [sys.executable, "-m", "tests.chaos.server", "--data", str(self._folder / "server")]
        command += ["--port", str(self.port), "--seed", str(self._seed + 1000 * self.starts)]
        command += ["--log", str(self._folder / "puts.log")]
        self._process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=subprocess.DEVNULL, stderr=self._log
        )
        write_pid(self._folder, "server", self._process.pid)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/healthz", timeout=2).status_code == 200:
                    return
            except httpx.TransportError:
                if self._process.poll() == -signal.SIGKILL:
                    return  # killed again while it started: the next look finds it dead
                time.sleep(0.05)
        raise RuntimeError(f"the chaos server does not start: {(self._folder / 'server.log').read_text()}")

    def revive(self) -> None:
        if self._process.poll() is not None:
            self._start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        self._log.close()


def _free_port(seed: int) -> int:
    """Return a port that is neither ephemeral nor Ray's, since the server has to have it again after each kill."""
    dice = random.Random(seed)
    while True:
        port = dice.randrange(21000, 32000)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "AS_API_KEY": KEY.reveal(),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_AUTH_MODE": "disabled",
        "PYTHONPATH": str(ROOT),
    }


def make_runs(folder: Path, seed: int, runs: int) -> dict[str, GrowthRun]:
    made = {}
    for number in range(runs):
        run = GrowthRun(
            560, 60, 80, fps=20.0, seed=seed * 10 + number, jitter_s=0.003, gaps=((130 + 40 * number, 0.7),)
        )
        path = folder / f"run{number}.h5"
        write_hdf5(path, run)
        made[str(path)] = run
    return made


class Process:
    """Python with some arguments, in a process group of its own; what it prints is kept."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self._log = (folder / f"{name}.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment(),
            stdout=self._log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def wait(self, server: Server, deadline: float, look: Callable[[], object] = lambda: None) -> int:
        """Wait for its end, looking now and then; return the exit code."""
        while self.process.poll() is None:
            server.revive()
            look()
            if time.monotonic() > deadline:
                self.process.kill()
                break
            time.sleep(0.05)
        look()
        self._log.close()
        return self.process.wait()

    def tree(self) -> list[int]:
        """Return the pids of the driver and everything below it."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                except (OSError, IndexError):
                    continue
                children.setdefault(parent, []).append(int(entry.name))
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            todo += children.get(pid, [])
        return found


def start_module(module: str, folder: Path, name: str, config: dict[str, object]) -> Process:
    """Start one of the drivers' modules with what it has to know in a file."""
    file = folder / f"{name}.json"
    common = {"folder": str(folder), "state": str(folder / "state"), "lease_s": LEASE_S}
    file.write_text(json.dumps({**common, **config}))
    return Process(folder, name, "-m", module, str(file))


def start_driver(folder: Path, name: str, made: dict[str, GrowthRun], url: str, mutant: str) -> Process:
    """Start a backfill."""
    return start_module("tests.chaos.driver", folder, name, {"files": list(made), "url": url, "mutant": mutant})


def run_trial(
    seed: int, folder: Path, *, mutant: str = "none", kills: list[Kill] | None = None, freeze: bool = False
) -> TrialResult:
    """Run one trial and return what the oracle says; `freeze`: stop a whole job for longer than its lease."""
    began = time.monotonic()
    folder.mkdir(parents=True)
    made = make_runs(folder, seed, 1 if freeze else 1 + seed % 2)
    write_kills(folder, planned_kills(seed) if kills is None else kills)
    server = Server(folder, seed)
    deadline = began + TRIAL_TIMEOUT_S
    frozen: Process | None = None
    wrong: list[str] = []
    drivers = 0
    try:
        if freeze:
            frozen = _frozen_driver(folder, made, server, mutant, deadline)
        code = -1
        while code != 0 and drivers < DRIVER_TRIES and time.monotonic() < deadline:
            drivers += 1
            code = start_driver(folder, f"driver{drivers}", made, server.url, mutant).wait(server, deadline)
        if code != 0:
            wrong.append(f"the job does not end well: exit code {code} after {drivers} starts")
        if frozen is not None:
            signal_all(frozen.tree(), signal.SIGCONT)
            frozen.wait(server, deadline)
        puts = _puts(folder)
        again = start_driver(folder, "again", made, server.url, mutant).wait(server, deadline)
        if again != 0 or _puts(folder) != puts:
            wrong.append(f"run again: exit code {again}, {_puts(folder) - puts} PUTs; expected 0 and none")
        server.revive()
        lost = folder / "lost-creates.log"
        lost_creates = len(lost.read_text().splitlines()) if lost.exists() else 0
        wrong += differences(server.url, KEY, made, folder / "state", folder, lost_creates=lost_creates, thawed=freeze)
    finally:
        server.stop()
    return TrialResult(seed, time.monotonic() - began, killed(folder), drivers, server.starts, wrong)


def _frozen_driver(folder: Path, made: dict[str, GrowthRun], server: Server, mutant: str, deadline: float) -> Process:
    """Start a job, stop all its processes after its fourth receipt, and wait until its lease is over."""
    driver = start_driver(folder, "frozen", made, server.url, mutant)
    events = folder / "events.log"
    while time.monotonic() < deadline:
        if events.exists() and events.read_text().count("ChunkConfirmed_committed") >= 4:
            break
        time.sleep(0.005)
    signal_all(driver.tree(), signal.SIGSTOP)
    time.sleep(LEASE_S + 0.5)
    return driver


def signal_all(pids: list[int], number: int) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


def _puts(folder: Path) -> int:
    log = folder / "puts.log"
    return len(log.read_text().splitlines()) if log.exists() else 0
