"""What moving parked chunks over is asked, and answers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest.parking import Parking
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret, Telemetry

__all__ = ["ReconcileRequest", "Reconciled"]


@dataclass(frozen=True)
class ReconcileRequest:
    """What to move.

    Attributes
    ----------
    parking : Parking
        Where chunks wait.
    states : callable
        Returns the folders in which the journal of a destination's streams may be, likeliest first; None: of any.
    api_key : Secret or None
        For platforms.
    destination : str or None
        Canonical URL; None: all.
    retry : RetryPolicy
        How long a destination is tried.
    lease_s : float
        How long a dead job's lease lasts.
    telemetry : Telemetry
        Gets what happens.
    """

    parking: Parking
    states: Callable[[str | None], Sequence[Path]]
    api_key: Secret | None = None
    destination: str | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    lease_s: float = 10.0
    telemetry: Telemetry = field(default_factory=Telemetry)


@dataclass(frozen=True)
class Reconciled:
    """What became of one stream.

    Attributes
    ----------
    source, destination : str or None
        Where from and to; None: nothing says.
    key : str
        In the journal.
    data_id : str or None
        At the destination.
    state : str or None
        Where the stream is; None: no journal knows it.
    status : {"complete", "partial", "failed"}
        Nothing waits and the stream is closed, or is live and not sealed yet; some does, or it is not; nothing could
        be done.
    parked, moved, removed : int
        Chunks that waited; that were delivered now; that are not parked any more, as they arrived now or before.
        Of a live stream, those of the spool are delivered with them, and not counted.
    n_bytes : int
        Size of those removed.
    findings : tuple of str
        What is kept, and why.
    error, hint : str or None
        Why it is not complete, and what would work.
    """

    source: str | None
    destination: str | None
    key: str
    data_id: str | None
    state: str | None
    status: str
    parked: int
    moved: int = 0
    removed: int = 0
    n_bytes: int = 0
    findings: tuple[str, ...] = ()
    error: str | None = None
    hint: str | None = None
