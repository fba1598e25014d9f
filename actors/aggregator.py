"""The finalize aggregator: receives every receipt, decides when a stream is whole, is the only one who says done."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ingest.contents import StreamContents
from ingest.errors import SettingsError
from ingest.journal import Journal, LiveSettings, LiveStream, RegisteredRun, RunEnd, StreamRow
from ingest.ledger import (
    ChunkConfirmed,
    ChunkLost,
    Instruction,
    StreamEvent,
    StreamGone,
    StreamLedger,
    StreamState,
)
from ingest.manifest import live_manifest, manifest
from ingest.series_plan import ArchivePlan
from ingest.telemetry import Telemetry

__all__ = ["Aggregator", "Lease", "LiveState"]


@dataclass(frozen=True, slots=True)
class LiveState:
    """What the journal knows of a live stream; small, and pickles.

    Attributes
    ----------
    state : StreamState
        Where it is.
    epoch : int
        Of its lease.
    confirmed : int
        Chunks with a receipt.
    lost : dict of int to str
        Why chunks are lost for good.
    is_sealed : bool
        Whether nothing more is expected.
    gone_reason : str or None
        What the platform said when it failed the stream.
    """

    state: StreamState
    epoch: int
    confirmed: int
    lost: dict[int, str]
    is_sealed: bool
    gone_reason: str | None


@dataclass(frozen=True, slots=True)
class Lease:
    """A stream handed to a job.

    Attributes
    ----------
    epoch : int
        Goes with every event of the stream.
    row : StreamRow
        What is known of it.
    plan : RunPlan or SeriesPlan
        What it was registered with.
    due : tuple of Instruction
        What has to be done.
    """

    epoch: int
    row: StreamRow
    plan: ArchivePlan
    due: tuple[Instruction, ...]


class Aggregator:
    """Commits to the journal before it answers; no network, never waits. One thread: Ray runs its calls one by one.

    Parameters
    ----------
    state_dir : str
        Folder of the journal; opened at the first call, since a constructor that raises cannot be restarted.
    lease_s : float
        How long a lease lasts without being renewed.
    telemetry : Telemetry
        Gets the name of each committed event, and ``lease_taken``, ``leases_renewed`` and ``lease_released``.
    clock : callable
        Returns Unix seconds.

    Notes
    -----
    Every method is idempotent on its arguments' identity, since Ray may run a call twice. Holds one ledger for each
    stream at work.
    """

    def __init__(
        self,
        state_dir: str,
        lease_s: float,
        telemetry: Telemetry | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._state_dir = Path(state_dir)
        self._lease_s = lease_s
        self._telemetry = telemetry or Telemetry()
        self._clock = clock
        self._opened: Journal | None = None
        self._ledgers: dict[str, StreamLedger] = {}

    @property
    def _journal(self) -> Journal:
        if self._opened is None:
            self._opened = Journal(self._state_dir, self._clock)
        return self._opened

    def _ledger(self, key: str) -> StreamLedger:
        if key not in self._ledgers:
            self._ledgers[key] = self._journal.load(key)
        return self._ledgers[key]

    def ping(self) -> bool:
        """Return True: the aggregator is up."""
        return True

    def register(
        self, job_id: str, seq: int, destination: str, path: str, plan: ArchivePlan, restart: bool = False
    ) -> RegisteredRun:
        """Enter a run of a job; see `Journal.register`."""
        return self._journal.register(job_id, seq, destination, path, plan, restart=restart)

    def open_runs(self, job_id: str) -> list[str]:
        """Return the keys of a job's runs that have not ended."""
        return self._journal.open_runs(job_id)

    def lease(self, job_id: str, key: str) -> Lease:
        """Take a stream for a job.

        Raises
        ------
        LeaseHeldError
            Another live job has it.
        """
        epoch = self._journal.lease(key, job_id, self._lease_s)
        ledger = self._ledgers[key] = self._journal.load(key)
        # A retried call may have raised the epoch once more; the ledger as read back decides.
        return Lease(
            max(epoch, ledger.epoch), self._journal.row(key, job_id), self._journal.plan(key, job_id), ledger.due()
        )

    def renew(self, job_id: str) -> None:
        """Put off the end of all leases of a job."""
        self._journal.renew(job_id, self._lease_s)
        self._telemetry.emit("leases_renewed", "", detail=f"holder={job_id}")

    def record(self, key: str, epoch: int, events: Sequence[StreamEvent]) -> tuple[Instruction, ...]:
        """Commit events of a stream, then return what they make due.

        Parameters
        ----------
        key : str
            The stream.
        epoch : int
            Of the caller's lease.
        events : sequence of StreamEvent
            One event, or any number about chunks; none: only ask what is due.

        Raises
        ------
        StaleEpochError
            Another job took the stream over; the caller must end.
        IllegalEventError
            The stream's state does not allow an event; nothing of the batch was taken.
        JournalWriteError
            Nothing was committed.
        """
        ledger = self._ledger(key)
        self._check_epoch(ledger, epoch)
        news = [event for event in events if ledger.is_news(event)]
        if news:
            self._journal.record(key, epoch, news)
        else:
            self._journal.check_epoch(key, epoch)
        for event in news:
            ledger.apply(event)
            self._announce(key, epoch, event)
        chunks_only = bool(events) and all(isinstance(event, ChunkConfirmed | ChunkLost) for event in events)
        return () if chunks_only and not ledger.is_whole() else ledger.due()

    def adopt(self, job_id: str, key: str, epoch: int, events: Sequence[StreamEvent]) -> tuple[Instruction, ...]:
        """Commit what a destination knows of a stream's chunks, which this job need not send; as `record`."""
        due = self.record(key, epoch, events)
        self._journal.count_resumed(job_id, key)
        return due

    def _check_epoch(self, ledger: StreamLedger, epoch: int) -> None:
        ledger.check_epoch(epoch)

    def _announce(self, key: str, epoch: int, event: StreamEvent) -> None:
        index = event.receipt.index if isinstance(event, ChunkConfirmed) else getattr(event, "index", None)
        self._telemetry.emit(f"{type(event).__name__}_committed", key, index, detail=f"epoch={epoch}")

    def replace(self, job_id: str, key: str, epoch: int, reason: str) -> str:
        """Give up a stream that its platform has failed and register its run anew; return the new key."""
        if self._journal.row(key).state is not StreamState.GONE:
            self.record(key, epoch, [StreamGone(reason)])
        self._ledgers.pop(key, None)
        return self._journal.replace(job_id, key)

    def plan(self, job_id: str, key: str) -> ArchivePlan:
        """Return what a job sends into a stream."""
        return self._journal.plan(key, job_id)

    def contents(self, job_id: str, key: str) -> StreamContents:
        """Return all that a stream holds, for a destination that finishes streams itself."""
        plan, receipts, ledger = self._journal.plan(key, job_id), self._journal.receipts(key), self._ledger(key)
        losses = dict(sorted(ledger.lost.items()))
        told = manifest(plan, ledger.data_id, StreamState.CLOSED, receipts, losses)
        return StreamContents(plan.settings, plan, tuple(receipts), losses, told)

    def receipts_digests(self, key: str) -> dict[int, str]:
        """Return the frames digest of each confirmed chunk."""
        return dict(self._ledger(key).confirmed)

    def end_run(self, job_id: str, key: str, epoch: int | None, end: RunEnd) -> None:
        """Record how a run ended and give its lease back."""
        self._journal.end_run(job_id, key, end, epoch)
        if epoch is not None:
            self._journal.release(key, epoch)
        self._ledgers.pop(key, None)

    # -- live streams --------------------------------------------------------------------------------------------------

    def begin_live(
        self, session_id: str, key: str, destination: str, account: str, settings: LiveSettings
    ) -> tuple[int, tuple[Instruction, ...]]:
        """Register a live stream and lease it to a session; return the lease's epoch and what is due. Safe to repeat.

        Parameters
        ----------
        session_id : str
            The producer's.
        key, destination, account, settings
            As for `Journal.register_live`.
        """
        self._journal.register_live(key, destination, account, settings)
        return self.lease_live(session_id, key)

    def lease_live(self, session_id: str, key: str) -> tuple[int, tuple[Instruction, ...]]:
        """Take a live stream for a session; return the lease's epoch and what is due.

        Raises
        ------
        LeaseHeldError
            Another live session has it.
        """
        epoch = self._journal.lease(key, session_id, self._lease_s)
        self._telemetry.emit("lease_taken", key, detail=f"holder={session_id} {epoch}")
        ledger = self._ledgers[key] = self._journal.load(key)
        return max(epoch, ledger.epoch), ledger.due()

    def release_live(self, key: str, epoch: int) -> None:
        """Give a live stream's lease back; nothing if it was taken over. Safe to repeat."""
        self._journal.release(key, epoch)
        self._telemetry.emit("lease_released", key, detail=f"of={epoch}")
        self._ledgers.pop(key, None)

    def live_streams(self, account: str) -> list[LiveStream]:
        """Return an account's live streams that are not closed, oldest first."""
        return self._journal.live_streams(account)

    def live_stream(self, key: str) -> LiveStream | None:
        """Return one live stream."""
        return self._journal.live_stream(key)

    def live_contents(self, key: str) -> StreamContents:
        """Return all that a live stream holds, for a destination that finishes streams itself.

        Raises
        ------
        SettingsError
            There is none of that key.
        """
        stream = self._journal.live_stream(key)
        if stream is None:
            raise SettingsError(f"there is no live stream {key}")
        receipts, losses = self._journal.receipts(key), dict(sorted(self._ledger(key).lost.items()))
        told = live_manifest(stream.settings, stream.data_id, StreamState.CLOSED, receipts, losses, is_sealed=True)
        return StreamContents(stream.settings, None, tuple(receipts), losses, told)

    def live_state(self, key: str) -> LiveState:
        """Return what is known of a live stream, whoever has its lease."""
        ledger = self._ledgers.get(key)
        if ledger is None or self._journal.epoch(key) != ledger.epoch:
            ledger = self._journal.load(key)
        return LiveState(
            ledger.state,
            ledger.epoch,
            len(ledger.confirmed),
            dict(ledger.lost),
            ledger.expected is not None,
            ledger.gone_reason,
        )

    def job(self, job_id: str) -> list[StreamRow]:
        """Return a job's runs in order, with counts."""
        return self._journal.job(job_id)

    def row(self, job_id: str, key: str) -> StreamRow:
        """Return one run of a job."""
        return self._journal.row(key, job_id)
