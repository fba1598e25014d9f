"""The backfill job: plans in, streams out; the driver only registers, watches and draws."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from actors.dispatcher import DispatcherOptions
from actors.job import ActorClasses, JobActors, JobSetup
from actors.run_tools import closed_end
from actors.runtime import Runtime, ray_runtime, refuse_client
from ingest.errors import ClusterError, LeaseHeldError, SettingsChangedError, SourceChangedError
from ingest.failover import FailoverOptions
from ingest.journal import Journal, RegisteredRun, RunEnd, StreamRow
from ingest.ledger import StreamState
from ingest.retry import RetryPolicy
from ingest.series_plan import ArchivePlan
from ingest.shard import DEFAULT_LEVEL
from ingest.telemetry import Secret, Telemetry

__all__ = ["BackfillRequest", "RunResult", "run_backfill"]

POLL_S = 0.2


@dataclass(frozen=True)
class BackfillRequest:
    """A backfill job.

    Attributes
    ----------
    plans : sequence of RunPlan or SeriesPlan
        What to send.
    destinations : sequence of str
        Canonical URLs; every run goes to each.
    api_key : Secret or None
        For platforms.
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
    failover : FailoverOptions or None
        Where chunks wait for a destination that does not answer.
    """

    plans: Sequence[ArchivePlan]
    destinations: Sequence[str]
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
    failover: FailoverOptions | None = None


@dataclass(frozen=True)
class RunResult:
    """What became of a run at one destination.

    Attributes
    ----------
    destination : str
        Where to.
    plan : RunPlan or SeriesPlan
        The run.
    row : StreamRow or None
        What the journal says; None: it was not registered.
    end : RunEnd
        How it ended.
    """

    destination: str
    plan: ArchivePlan
    row: StreamRow | None
    end: RunEnd


def run_backfill(
    request: BackfillRequest,
    watch: Callable[[Sequence[StreamRow]], None],
    stop: threading.Event,
) -> list[RunResult]:
    """Send all runs to all destinations; return what became of each, run by run and in order.

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
    refuse_client(request.address)
    journal = Journal(request.state_dir, time.time)
    results: dict[int, RunResult] = {}
    try:
        with ExitStack() as stack:
            runtime: Runtime | None = None
            for number, wave in enumerate(_waves(request)):
                job_id = uuid.uuid4().hex[:12]
                # A copy is compared with what the first wave sent, not sent anew.
                restart = request.restart and number == 0
                results |= _register(journal, request, wave, job_id, restart=restart)
                if journal.open_runs(job_id) and not stop.is_set():
                    # Not before it is needed: a job with nothing left to do needs no Ray.
                    runtime = runtime or stack.enter_context(ray_runtime(request.address, cpus=request.packers))
                    _work(_setup(request, runtime, job_id), journal, watch, stop)
                results |= {row.seq: _result(request, row) for row in journal.job(job_id)}
    finally:
        journal.close()
    return [results[seq] for seq in range(len(request.plans) * len(request.destinations))]


def _target(request: BackfillRequest, seq: int) -> tuple[ArchivePlan, str]:
    """Return the run, and the destination, of a place in the job."""
    number, at = divmod(seq, len(request.destinations))
    return request.plans[number], request.destinations[at]


def _result(request: BackfillRequest, row: StreamRow) -> RunResult:
    end = row.end or RunEnd("partial", "interrupted", "run the same command again: it resumes")
    plan, destination = _target(request, row.seq)
    return RunResult(destination, plan, row, end)


def _waves(request: BackfillRequest) -> list[list[int]]:
    """Put copies of one recording into later waves: only what is confirmed can be compared."""
    waves: list[list[int]] = []
    seen: Counter[str] = Counter()
    width = len(request.destinations)
    for number, plan in enumerate(request.plans):
        wave = seen[plan.fingerprint]
        seen[plan.fingerprint] += 1
        if wave == len(waves):
            waves.append([])
        waves[wave] += range(number * width, (number + 1) * width)
    return waves


def _setup(request: BackfillRequest, runtime: Runtime, job_id: str) -> JobSetup:
    packers = request.packers or runtime.cpus
    if packers > runtime.cpus and not runtime.is_local:
        raise ClusterError(
            f"{packers} packers were asked for; the cluster has {runtime.cpus} free CPU(s)",
            hint="pass a smaller --packers, or wait until others are done",
        )
    return JobSetup(
        api_key=request.api_key,
        destinations=len(request.destinations),
        state_dir=str(request.state_dir),
        options=DispatcherOptions(
            job_id,
            packers=packers,
            open_runs=request.open_runs,
            lease_s=request.lease_s,
            failover=request.failover,
        ),
        retry=request.retry,
        level=request.level,
        detached=not runtime.is_local,
        # The journal is a file of this node, so the aggregator stays here.
        node_id=None if runtime.is_local else runtime.node_id,
        classes=request.classes,
        telemetry=request.telemetry,
    )


def _register(
    journal: Journal, request: BackfillRequest, wave: Sequence[int], job_id: str, *, restart: bool
) -> dict[int, RunResult]:
    """Enter the runs into the journal, and end those that need no work; return the refused ones."""
    refused = {}
    for seq in wave:
        plan, destination = _target(request, seq)
        try:
            entered = _entered(journal, request, seq, job_id, restart=restart)
        except (LeaseHeldError, SettingsChangedError, SourceChangedError) as exc:
            refused[seq] = RunResult(destination, plan, None, RunEnd("failed", str(exc), exc.hint))
            continue
        if entered.state is StreamState.CLOSED and entered.same_as is None:
            journal.end_run(job_id, entered.key, closed_end(entered, before=True))
    return refused


def _entered(journal: Journal, request: BackfillRequest, seq: int, job_id: str, *, restart: bool) -> RegisteredRun:
    """Register a run; where it replaces a stream of a dead job, after that job's lease has ended."""
    plan, destination = _target(request, seq)
    path = plan.spec.canonical_path
    seen_until_s: float | None = None
    while True:
        try:
            return journal.register(job_id, seq, destination, path, plan, restart=restart)
        except LeaseHeldError as exc:
            if seen_until_s is not None and exc.until_s > seen_until_s:
                raise  # renewed: that job is alive
            seen_until_s = exc.until_s
            time.sleep(max(exc.until_s - time.time(), 0) + 0.05)


def _work(
    setup: JobSetup, journal: Journal, watch: Callable[[Sequence[StreamRow]], None], stop: threading.Event
) -> None:
    """Have the actors work off the job's open runs, and watch until they are done."""
    job_id = setup.options.job_id
    actors = JobActors(setup)
    try:
        actors.begin()
        while True:
            rows = journal.job(job_id)
            watch(rows)
            finished, error = actors.finished()
            if finished or all(row.end for row in rows):
                break
            if stop.is_set():
                actors.drain()  # every time: a restarted dispatcher does not know
            time.sleep(POLL_S)
        for row in journal.job(job_id):
            if row.end is None:
                journal.end_run(job_id, row.key, RunEnd("failed", error or "the job ended before this run"))
    finally:
        actors.end()
