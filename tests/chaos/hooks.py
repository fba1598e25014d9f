"""Kills aimed by phase: a telemetry hook, carried into every actor, that kills when the planned event comes."""

from __future__ import annotations

import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from ingest.telemetry import Event, Telemetry

# Event of the product -> phase of the trials. Which process sees it decides who "self" is.
PHASES = {
    "create_posting": "before create",
    "create_answered": "after create",
    "chunk_read": "read",
    "chunk_put": "between PUT and receipt (packer)",
    "receipt_received": "between PUT and receipt (dispatcher)",
    "ChunkConfirmed_committed": "receipt committed (aggregator)",
    "close_posting": "between closing and POST",
    "close_answered": "between POST and closed",
}


@dataclass(frozen=True)
class Kill:
    """Kill `target` ("self", "driver" or "server") at the `nth` (from 0) occurrence of `event` over all processes."""

    event: str
    nth: int
    target: str


def write_kills(folder: Path, kills: list[Kill]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kills.json").write_text(json.dumps([[k.event, k.nth, k.target] for k in kills]))


class KillHook:
    """Counts events over all processes by files that only one can create, and kills as planned, each kill once."""

    def __init__(self, folder: str, role: str) -> None:
        self._folder = Path(folder)
        self._role = role

    def __call__(self, event: Event) -> None:
        line = (
            f"{time.time():.6f} {self._role} {os.getpid()} {event.name} {event.stream} {event.index} {event.detail}\n"
        )
        with (self._folder / "events.log").open("a") as log:
            log.write(line)
        kills = [Kill(*fields) for fields in json.loads((self._folder / "kills.json").read_text())]
        if not any(kill.event == event.name for kill in kills):
            return
        ordinal = self._ordinal(event.name)
        for number, kill in enumerate(kills):
            if kill.event == event.name and kill.nth <= ordinal and self._claim(f"kill-{number}"):
                self._kill(kill)

    def _ordinal(self, name: str) -> int:
        ordinal = 0
        while not self._claim(f"event-{name}-{ordinal}"):
            ordinal += 1
        return ordinal

    def _claim(self, name: str) -> bool:
        try:
            os.close(os.open(self._folder / name, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        return True

    def _kill(self, kill: Kill) -> None:
        with (self._folder / "killed.log").open("a") as log:
            log.write(json.dumps([kill.event, kill.target, self._role]) + "\n")
        pid = os.getpid() if kill.target == "self" else int((self._folder / f"{kill.target}.pid").read_text())
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        if kill.target != "self":
            time.sleep(0.2)  # the phase must not go on before the other is dead


@dataclass(frozen=True)
class ChaosTelemetry:
    """Makes each actor's telemetry; pickles."""

    folder: str

    def __call__(self, role: str) -> Telemetry:
        return Telemetry(KillHook(self.folder, role))


def killed(folder: Path) -> list[tuple[str, str, str]]:
    """Return what was killed: event, target, the role that saw the event."""
    log = folder / "killed.log"
    return [tuple(json.loads(line)) for line in log.read_text().splitlines()] if log.exists() else []


def committed(folder: Path) -> dict[tuple[str, int], float]:
    """Return when each chunk's first receipt was committed, Unix s."""
    out: dict[tuple[str, int], float] = {}
    log = folder / "events.log"
    for line in log.read_text().splitlines() if log.exists() else ():
        when, _, _, name, stream, index, _ = line.split(" ", 6)
        if name == "ChunkConfirmed_committed":
            out.setdefault((stream, int(index)), float(when))
    return out


def stale_commits(folder: Path) -> list[str]:
    """Return the journal's writes under an epoch that a later one had replaced already."""
    newest: dict[str, int] = {}
    stale = []
    log = folder / "events.log"
    for line in log.read_text().splitlines() if log.exists() else ():
        _, role, pid, name, stream, index, detail = line.split(" ", 6)
        if detail.startswith("epoch="):
            epoch = int(detail.removeprefix("epoch="))
            if epoch < newest.get(stream, 0):
                stale.append(f"{name} of chunk {index} under epoch {epoch}, after {newest[stream]} ({role} {pid})")
            newest[stream] = max(epoch, newest.get(stream, 0))
    return stale
