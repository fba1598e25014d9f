"""What the runs of a job share, and in which words they end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from actors.handles import Handle
from actors.pool import PackerPool
from actors.window import Window
from ingest.destinations import Destination, TimeseriesDestination
from ingest.errors import IngestError, StreamGoneError
from ingest.failover import Breaker, FailoverOptions
from ingest.journal import RegisteredRun, RunEnd, StreamRow
from ingest.pipeline import NotParked, Parked
from ingest.telemetry import Telemetry

__all__ = ["RunEndedError", "RunTools", "closed_end", "unfinished"]


@dataclass(frozen=True)
class RunTools:
    """What the runs of a job share.

    Attributes
    ----------
    job_id : str
        The job, and the holder of its leases.
    aggregator, streamer : Handle
        The job's.
    pool : PackerPool
        Does the work.
    window : Window
        How much of it at once.
    orders_per_packer : int
        How many orders of one lane.
    url : str
        The destination.
    destination : Destination
        Takes the closing calls of streams of frames.
    points : callable
        Makes what takes those of streams of readings; called once there is one.
    copies : int
        Destinations of the job, each of which gets the same frames.
    telemetry : Telemetry
        Gets what happens.
    draining : asyncio.Event
        Set: start nothing new.
    clock, sleep : callable
        Unix seconds; asyncio's sleep.
    failover : FailoverOptions or None
        Where chunks wait while the destination does not answer.
    breaker : Breaker or None
        Remembers whether it does; there is one if there is a failover.
    """

    job_id: str
    aggregator: Handle
    streamer: Handle
    pool: PackerPool
    window: Window
    orders_per_packer: int
    url: str
    destination: Destination
    copies: int
    points: Callable[[], TimeseriesDestination]
    telemetry: Telemetry
    draining: asyncio.Event
    clock: Callable[[], float]
    sleep: Callable[[float], Awaitable[None]]
    failover: FailoverOptions | None = None
    breaker: Breaker | None = None


def closed_end(run: StreamRow | RegisteredRun, *, before: bool = False) -> RunEnd:
    """Return the end of a run whose stream is closed; `before`: by an earlier job."""
    missing = []
    if run.lost:
        missing.append(f"{run.lost} of {run.chunks} chunks could not be read or delivered")
    if run.frames_lost:
        missing.append(f"{run.frames_lost} frame(s) could not be read from the source")
    if missing:
        return RunEnd(
            "partial",
            f"closed with losses: {', '.join(missing)}",
            "`rheed-ingest status` names them; mend the source and pass --restart to send it anew",
        )
    return RunEnd("skipped" if before else "complete")


class RunEndedError(IngestError):
    """Carries a run's end out of its steps; never leaves `RunTask`."""

    def __init__(self, message: str, *, hint: str | None = None, status: str = "failed", parked: int = 0) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.parked = parked


def unfinished(
    left: Sequence[Parked | NotParked], stopped: IngestError | None, failover: FailoverOptions | None
) -> IngestError:
    """Return why a run did not come to its end.

    Parameters
    ----------
    left : sequence of Parked or NotParked
        Chunks that are not at the destination.
    stopped : IngestError or None
        What stopped it before it had tried all.
    failover : FailoverOptions or None
        Where some of them wait.
    """
    again = "run the same command again: it resumes"
    if not left or isinstance(stopped, StreamGoneError):
        return stopped or RunEndedError("interrupted", status="partial", hint=again)
    parked = [one for one in left if isinstance(one, Parked)]
    absent = [one for one in left if isinstance(one, NotParked)]
    said = [] if stopped is None else [str(stopped)]
    if parked and failover is not None:
        wait = "1 chunk waits" if len(parked) == 1 else f"{len(parked)} chunks wait"
        said.append(f"{wait} at {failover.url}: {parked[0].reason}")
        again = failover.hint
    if absent:
        neither = f"{len(absent)} chunk{'s' * (len(absent) > 1)} neither arrived nor parked"
        said.append(f"{neither}: {absent[0].reason}")
        if failover is None:
            again = "run the backfill again: it delivers from the source what is missing"
    return RunEndedError("; ".join(said), status="partial", hint=again, parked=len(parked))
