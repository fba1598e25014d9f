"""Memory and processor of a process and everything below it, from /proc."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

ROOT = Path(__file__).parents[2]


def tree(pid: int) -> list[int]:
    """Return the pids of a process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        at = todo.pop()
        found.append(at)
        todo += children.get(at, [])
    return found


KINDS = {
    "ingest.cli": "driver",
    "benchmarks.live_client": "caller",
    "soak.client": "caller",
    "Packer": "packers",
    "Dispatcher": "dispatcher",
    "Aggregator": "aggregator",
    "RHEED": "streamer",
    "Timeseries": "streamer",
}


def kind_of(command: str) -> str:
    """Return what a process of a client is, by its command line or the title that Ray gives it."""
    return next((kind for text, kind in KINDS.items() if text in command), "Ray")


def memory(pid: int) -> tuple[str, float]:
    """Return a process's kind and its proportional set size in MB."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return "", 0.0
    pss_kb = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kind_of(command), pss_kb / 1024


def cpu_s(pid: int) -> dict[int, tuple[str, float]]:
    """Return kind and processor seconds, user and system, of a process and all below it so far, by pid.

    Those of children that ended count for whoever waited for them.
    """
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    taken: dict[int, tuple[str, float]] = {}
    for each in tree(pid):
        try:
            command = Path(f"/proc/{each}/cmdline").read_text().replace("\0", " ")
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        taken[each] = kind_of(command), sum(map(int, fields[11:15])) * tick_s
    return taken


def cpu_since(pid: int, before: dict[int, tuple[str, float]]) -> dict[str, float]:
    """Return the processor seconds since then by kind; a worker that became an actor since is that from the start."""
    taken: dict[str, float] = {}
    for each, (kind, seconds) in cpu_s(pid).items():
        taken[kind] = taken.get(kind, 0.0) + seconds - before.get(each, ("", 0.0))[1]
    return taken


class MemoryWatch:
    """Samples the memory of a process and all below it in a thread; a context manager.

    Attributes
    ----------
    highest : float
        Of all together, in MB.
    kinds : dict
        Of each kind of process, in MB.
    """

    def __init__(self, pid: int, every_s: float = 0.1) -> None:
        self.highest = 0.0
        self.kinds: dict[str, float] = {}
        self._pid = pid
        self._every_s = every_s
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def sample(self) -> None:
        now: dict[str, float] = {}
        for kind, pss in (memory(pid) for pid in tree(self._pid)):
            now[kind] = now.get(kind, 0.0) + pss
        self.highest = max(self.highest, sum(now.values()))
        self.kinds = {kind: max(self.kinds.get(kind, 0.0), now.get(kind, 0.0)) for kind in {**self.kinds, **now}}

    def _watch(self) -> None:
        while not self._end.wait(self._every_s):
            self.sample()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *exc) -> None:
        self._end.set()
        self._thread.join()

    def __str__(self) -> str:
        return ", ".join(f"{kind} {pss:.0f}" for kind, pss in sorted(self.kinds.items()) if kind)


def peak(path: Path, url: str, key: str) -> tuple[float, dict[str, float]]:
    """Backfill a file in a process of its own; return the peak of all processes, and of each kind, in MB."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-c", "from ingest.cli import main; main()", "backfill", str(path), "--to", url]
        command += ["--rotations-per-min", "0", "--start", "2023-10-18T08:00:00Z"]
        process = subprocess.Popen(
            [*command, "--state", state, "--json"],
            env={**os.environ, "AS_API_KEY": key},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        with MemoryWatch(process.pid) as watch:
            out, _ = process.communicate()
        status = json.loads(out)["runs"][0]["status"]
        if status != "complete":
            raise RuntimeError(f"the backfill ended as {status}")
    return watch.highest, watch.kinds
