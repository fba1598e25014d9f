"""Peak memory of a backfill: proportional set size of the driver and everything below it, sampled while it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
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


def memory(pid: int) -> tuple[str, float]:
    """Return a process's kind and its proportional set size in MB."""
    try:
        command = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return "", 0.0
    pss_kb = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    kind = next((name for name in ("Packer", "Dispatcher", "Aggregator", "RHEEDStreamer") if name in command), "Ray")
    return ("driver" if "ingest.cli" in command else kind), pss_kb / 1024


def peak(path: Path, url: str, key: str) -> tuple[float, dict[str, float]]:
    """Backfill a file in a process of its own; return the peak of all processes, and of each kind, in MB."""
    with tempfile.TemporaryDirectory() as state:
        command = [sys.executable, "-c", "from ingest.cli import main; main()", "backfill", str(path), "--to", url]
        process = subprocess.Popen(
            [*command, "--state", state, "--json"],
            env={**os.environ, "AS_API_KEY": key},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        highest, kinds = 0.0, {}
        while process.poll() is None:
            samples = [memory(pid) for pid in tree(process.pid)]
            highest = max(highest, sum(pss for _, pss in samples))
            now: dict[str, float] = {}
            for kind, pss in samples:
                now[kind] = now.get(kind, 0.0) + pss
            kinds = {kind: max(kinds.get(kind, 0.0), pss) for kind, pss in {**kinds, **now}.items()}
            time.sleep(0.1)
        out, _ = process.communicate()
        status = json.loads(out)["runs"][0]["status"]
        if status != "complete":
            raise RuntimeError(f"the backfill ended as {status}")
    return highest, kinds
