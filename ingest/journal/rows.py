"""What the journal answers with: small frozen values."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass

from ingest.ledger import StreamState
from ingest.plan import StreamSettings
from ingest.timeseries import TimeseriesSettings

__all__ = ["LiveSettings", "LiveStream", "RegisteredRun", "RunEnd", "StreamRow", "stream_row"]

LiveSettings = StreamSettings | TimeseriesSettings


@dataclass(frozen=True, slots=True)
class LiveStream:
    """A live stream that is not closed, as the journal knows it.

    Attributes
    ----------
    key : str
        In the journal.
    settings : StreamSettings or TimeseriesSettings
        What it was created with.
    state : StreamState
        Where it is.
    data_id : str or None
        Once created.
    epoch : int
        Of its lease.
    lease_holder : str or None
        The session that has it.
    lease_until_s : float
        When that lease ends, Unix seconds.
    is_sealed : bool
        Whether its producer said that nothing more comes.
    gone_reason : str or None
        What the platform said when it failed the stream.
    """

    key: str
    settings: LiveSettings
    state: StreamState
    data_id: str | None
    epoch: int
    lease_holder: str | None
    lease_until_s: float
    is_sealed: bool
    gone_reason: str | None = None


@dataclass(frozen=True, slots=True)
class RegisteredRun:
    """A run's place in the journal.

    Attributes
    ----------
    key : str
        The stream's key.
    state : StreamState
        Where its stream is.
    confirmed, lost, chunks : int
        Chunks with a receipt, given up, and in all.
    same_as : str or None
        Another path whose recording has the same fingerprint: digests must be compared before anything is skipped.
    frames_lost : int
        Frames of confirmed chunks that the source could not give.
    """

    key: str
    state: StreamState
    confirmed: int
    lost: int
    chunks: int
    same_as: str | None = None
    frames_lost: int = 0


@dataclass(frozen=True, slots=True)
class RunEnd:
    """How a run of a job ended.

    Attributes
    ----------
    status : str
        ``"complete"``, ``"partial"``, ``"failed"`` or ``"skipped"``.
    error, hint : str or None
        Why, and what would work.
    parked : int
        Chunks that wait at the failover.
    """

    status: str
    error: str | None = None
    hint: str | None = None
    parked: int = 0


@dataclass(frozen=True)
class StreamRow:
    """A stream as the journal knows it, for status and reports.

    Attributes
    ----------
    key, destination, path, name, state, data_id
        What and where it is.
    frames, bytes_in, chunks, confirmed, lost, bytes_out, uploaded, resumed
        Counts; `uploaded` and `resumed` are those of the job asked for.
    end : RunEnd or None
        How the job's run ended, if it did.
    started_s, ended_s : float or None
        Unix seconds.
    replaces : str or None
        The ``data_id`` of the stream that this one replaces.
    same_as : str or None
        The path under which the same recording was sent before.
    epoch : int
        Of its lease.
    lease_holder : str or None
        The job that has it.
    lease_until_s : float
        When it ends, Unix seconds.
    seq : int
        The run's place in the job.
    note : str or None
        What was asked for now and differs from what the stream was created with.
    kind : {"archive", "archive-log", "rheed", "timeseries"}
        A backfilled run of frames, or of readings, whose points `frames` counts; or a live stream, of frames or of time
        series, whose `frames` (or points) are those confirmed, and whose `chunks` are 0 before it is sealed.
    frames_lost : int
        Frames of confirmed chunks that the source could not give.
    """

    key: str
    destination: str
    path: str
    name: str
    state: StreamState
    data_id: str | None
    frames: int
    bytes_in: int
    chunks: int
    confirmed: int
    lost: int
    bytes_out: int
    resumed: int = 0
    end: RunEnd | None = None
    started_s: float | None = None
    ended_s: float | None = None
    replaces: str | None = None
    same_as: str | None = None
    epoch: int = 0
    lease_holder: str | None = None
    lease_until_s: float = 0.0
    seq: int = 0
    note: str | None = None
    kind: str = "archive"
    frames_lost: int = 0

    @property
    def is_live(self) -> bool:
        """Whether a streamer made it, not a backfill."""
        return self.kind in ("rheed", "timeseries")

    @property
    def unit(self) -> str:
        """What its `frames` are: ``"frames"`` or ``"points"``."""
        return "frames" if self.kind in ("rheed", "archive") else "points"


def stream_row(row: sqlite3.Row) -> StreamRow:
    """Return a row of the journal's stream query as a value."""
    return StreamRow(
        key=row["key"],
        destination=row["destination"],
        path=row["path"],
        name=row["name"],
        state=StreamState(row["state"]),
        data_id=row["data_id"],
        frames=row["frames_confirmed"] if row["kind"] in ("rheed", "timeseries") else row["frames"],
        bytes_in=row["bytes_in"],
        chunks=(row["expected"] or 0) - sum(stop - start for start, stop in json.loads(row["holes"] or "[]")),
        confirmed=row["confirmed"],
        lost=row["lost"],
        bytes_out=row["bytes_out"],
        resumed=row["resumed"] or 0,
        end=RunEnd(row["status"], row["error"], row["hint"], row["parked"]) if row["status"] else None,
        started_s=row["started_s"],
        ended_s=row["ended_s"],
        replaces=row["replaces"],
        same_as=row["same_as"],
        epoch=row["epoch"],
        lease_holder=row["lease_holder"],
        lease_until_s=row["lease_until_s"],
        seq=row["seq"] or 0,
        note=row["note"],
        kind=row["kind"],
        frames_lost=row["frames_lost"],
    )
