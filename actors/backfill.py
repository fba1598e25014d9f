"""The backfill job: plans in, streams out; the driver only registers, watches and draws."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from actors.dispatcher import DispatcherOptions
from actors.job import ActorClasses, JobActors, JobSetup
from actors.runtime import Runtime, ray_runtime
from ingest.errors import ClusterError, SettingsChangedError, SourceChangedError
from ingest.journal import RunEnd, StreamRow
from ingest.plan import RunPlan
from ingest.retry import RetryPolicy
from ingest.shard import DEFAULT_LEVEL
from ingest.telemetry import Secret, Telemetry

__all__ = ["BackfillRequest", "PlannedRun", "RunResult", "run_backfill"]

POLL_S = 0.2


@dataclass(frozen=True)
class PlannedRun:
    """A run to be sent.

    Attributes
    ----------
    path : str
        Canonical name of the source, with the dataset where a file holds several.
    plan : RunPlan
        What is to be sent.
    """

    path: str
    plan: RunPlan


@dataclass(frozen=True)
class BackfillRequest:
    """A backfill job.

    Attributes
    ----------
    runs : sequence of PlannedRun
        What to send.
    destination : str
        Canonical URL.
    api_key : Secret or None
        For a platform.
    state_dir : Path
        Folder of the journal.
    address : str or None
        Of a Ray cluster; None: a local Ray.
    packers : int or None
        Default: the free processors.
    open_runs : int
        Streams open at once.
    retry : RetryPolicy
        How long an unreachable destination is tried.
    level : int
        zstd level.
    restart : bool
        Send everything anew.
    lease_s : float
        How long a dead job's lease lasts.
    classes, telemetry
        As in `JobSetup`.
    """

    runs: Sequence[PlannedRun]
    destination: str
    api_key: Secret | None
    state_dir: Path
    address: str | None = None
    packers: int | None = None
    open_runs: int = 4
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    level: int = DEFAULT_LEVEL
    restart: bool = False
    lease_s: float = 10.0
    classes: ActorClasses = field(default_factory=ActorClasses)
    telemetry: Callable[[str], Telemetry] | None = None


@dataclass(frozen=True)
class RunResult:
    """What became of a planned run.

    Attributes
    ----------
    run : PlannedRun
        The run.
    row : StreamRow or None
        What the journal says; None: it was not registered.
    end : RunEnd
        How it ended.
    """

    run: PlannedRun
    row: StreamRow | None
    end: RunEnd


def run_backfill(
    request: BackfillRequest,
    watch: Callable[[Sequence[StreamRow]], None],
    stop: threading.Event,
) -> list[RunResult]:
    """Send all runs; return what became of each, in order.

    Parameters
    ----------
    request : BackfillRequest
        What to do.
    watch : callable
        Is called about five times a second with the journal's view of all runs.
    stop : threading.Event
        Set: begin nothing new, finish what is in flight, return.

    Raises
    ------
    ClusterError
        Ray is not there, or its actors do not start.
    JournalError
        The journal cannot be used.

    Notes
    -----
    Safe to repeat: runs that are done are skipped, interrupted ones resumed. Holds the plans, never frames.
    """
    results: dict[int, RunResult] = {}
    with ray_runtime(request.address) as runtime:
        for wave in _waves(request.runs):
            results |= _run_wave(request, wave, runtime, watch, stop)
    return [results[seq] for seq in range(len(request.runs))]


def _waves(runs: Sequence[PlannedRun]) -> list[list[int]]:
    """Put copies of one recording into later waves: only what is confirmed can be compared."""
    waves: list[list[int]] = []
    seen: Counter[str] = Counter()
    for seq, run in enumerate(runs):
        wave = seen[run.plan.fingerprint]
        seen[run.plan.fingerprint] += 1
        if wave == len(waves):
            waves.append([])
        waves[wave].append(seq)
    return waves


def _run_wave(
    request: BackfillRequest,
    wave: Sequence[int],
    runtime: Runtime,
    watch: Callable[[Sequence[StreamRow]], None],
    stop: threading.Event,
) -> dict[int, RunResult]:
    job_id = uuid.uuid4().hex[:12]
    actors = JobActors(_setup(request, runtime, job_id))
    error = None
    try:
        refused = _register(actors, request, wave, job_id)
        if len(refused) < len(wave):
            error = _watch(actors, job_id, watch, stop)
        rows: dict[int, StreamRow] = {row.seq: row for row in actors.ask_aggregator("job", job_id)}
    finally:
        actors.end()
    lost = RunEnd("failed", error or "the job ended before it was begun")
    return {
        seq: RunResult(
            request.runs[seq], rows.get(seq), refused.get(seq) or (rows[seq].end if seq in rows else None) or lost
        )
        for seq in wave
    }


def _setup(request: BackfillRequest, runtime: Runtime, job_id: str) -> JobSetup:
    packers = request.packers or runtime.cpus
    if not runtime.is_local and packers > runtime.cpus:
        raise ClusterError(
            f"{packers} packers were asked for; the cluster has {runtime.cpus} free CPU(s)",
            hint="pass a smaller --packers, or wait until others are done",
        )
    return JobSetup(
        destination=request.destination,
        api_key=request.api_key,
        state_dir=str(request.state_dir),
        options=DispatcherOptions(job_id, packers=packers, open_runs=request.open_runs, lease_s=request.lease_s),
        retry=request.retry,
        level=request.level,
        detached=not runtime.is_local,
        # The journal is a file of this node, so the aggregator stays here.
        node_id=None if runtime.is_local else runtime.node_id,
        classes=request.classes,
        telemetry=request.telemetry,
    )


def _register(
    actors: JobActors, request: BackfillRequest, wave: Sequence[int], job_id: str
) -> dict[int, RunEnd]:
    """Enter the runs into the journal; return the refused ones."""
    refused = {}
    for seq in wave:
        run = request.runs[seq]
        try:
            actors.ask_aggregator("register", job_id, seq, request.destination, run.path, run.plan, request.restart)
        except (SettingsChangedError, SourceChangedError) as exc:
            refused[seq] = RunEnd("failed", str(exc), exc.hint)
    return refused


def _watch(
    actors: JobActors, job_id: str, watch: Callable[[Sequence[StreamRow]], None], stop: threading.Event
) -> str | None:
    actors.begin()
    drained = False
    while True:
        rows = actors.ask_aggregator("job", job_id)
        watch(rows)
        if all(row.end for row in rows):
            return None
        finished, error = actors.finished()
        if finished:
            return error
        if stop.is_set() and not drained:
            actors.drain()
            drained = True
        time.sleep(POLL_S)
