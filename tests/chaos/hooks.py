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


# The same for live sessions: event and role of the process that sees it. With whom it happens is half of the phase.
LIVE_PHASES = {
    ("create_posting", ""): "before create",
    ("create_answered", ""): "after create",
    ("chunk_packed", "live_packer"): "packed",
    ("chunk_put", "live_packer"): "between direct PUT and receipt (frames)",
    ("chunk_put", "timeseries_streamer"): "between direct POST and receipt (points)",
    ("chunk_spooled", "live_packer"): "spooled (frames)",
    ("chunk_spooled", "timeseries_streamer"): "spooled (points)",
    ("chunk_read", "live_dispatcher"): "read from the spool",
    ("chunk_put", "live_dispatcher"): "between PUT from the spool and receipt",
    ("ChunkConfirmed_committed", "aggregator"): "receipt committed",
    ("Sealed_committed", "aggregator"): "sealed",
    ("close_posting", "live_dispatcher"): "between closing and POST",
    ("close_answered", "live_dispatcher"): "between POST and closed",
}


@dataclass(frozen=True)
class Kill:
    """Kill `target` at the `nth` (from 0) occurrence of `event` over all processes, or over those of `role`.

    The target is "self", "driver", "server" or an actor's role: that one's latest process.
    """

    event: str
    nth: int
    target: str
    role: str = ""


def write_kills(folder: Path, kills: list[Kill]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kills.json").write_text(json.dumps([[k.event, k.nth, k.target, k.role] for k in kills]))


class KillHook:
    """Counts events over all processes by files that only one can create, and kills as planned, each kill once."""

    def __init__(self, folder: str, role: str) -> None:
        self._folder = Path(folder)
        self._role = role
        self._pid = 0

    def __call__(self, event: Event) -> None:
        if self._pid != os.getpid():  # one that was pickled is another process's by now
            self._pid = os.getpid()
            write_pid(self._folder, self._role, self._pid)
        line = (
            f"{time.time():.6f} {self._role} {os.getpid()} {event.name} {event.stream} {event.index} {event.detail}\n"
        )
        with (self._folder / "events.log").open("a") as log:
            log.write(line)
        kills = [Kill(*fields) for fields in json.loads((self._folder / "kills.json").read_text())]
        mine = {kill.role for kill in kills if kill.event == event.name and kill.role in ("", self._role)}
        for role in sorted(mine):
            ordinal = self._ordinal(event.name + (f"-{role}" if role else ""))
            for number, kill in enumerate(kills):
                due = (kill.event, kill.role) == (event.name, role) and kill.nth <= ordinal
                if due and self._claim(f"kill-{number}"):
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
        pid = os.getpid() if kill.target == "self" else read_pid(self._folder, kill.target)
        if pid is None:
            return
        with (self._folder / "killed.log").open("a") as log:
            log.write(json.dumps([kill.event, kill.target, self._role]) + "\n")
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        if kill.target != "self":
            time.sleep(0.2)  # the phase must not go on before the other is dead


def write_pid(folder: Path, role: str, pid: int) -> None:
    """Note the latest process of a role, with its start, so that nobody else of that number is killed later."""
    (folder / f"{role}.pid").write_text(f"{pid} {_started(pid)}")


def read_pid(folder: Path, role: str) -> int | None:
    """Return the latest process of a role, if it is still there."""
    file = folder / f"{role}.pid"
    if not file.exists():
        return None
    pid, started = file.read_text().split()
    return int(pid) if _started(int(pid)) == started else None


def _started(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return "gone"


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


def lease_thefts(folder: Path, lease_s: float) -> list[str]:
    """Return the leases of live streams that were taken while another session's were neither over nor given back."""
    holder: dict[str, tuple[str, str]] = {}
    seen: dict[str, float] = {}
    thefts = []
    log = folder / "events.log"
    for line in log.read_text().splitlines() if log.exists() else ():
        when_text, _, _, name, stream, _, detail = line.split(" ", 6)
        when = float(when_text)
        if name == "leases_renewed":
            seen[detail.removeprefix("holder=")] = when
        elif name == "lease_released" and holder.get(stream, ("", ""))[1] == detail.removeprefix("of="):
            holder.pop(stream)
        elif name == "lease_taken":
            new, epoch = detail.removeprefix("holder=").split(" ")
            old, _ = holder.get(stream, (new, ""))
            # Renewals are logged a little after the moment that they count from.
            if old != new and when < seen[old] + lease_s - 0.5:
                thefts.append(
                    f"session {new} took stream {stream} {when - seen[old]:.2f} s after a sign of session {old}, "
                    f"whose lease lasts {lease_s} s"
                )
            holder[stream] = new, epoch
            seen[new] = when
    return thefts
