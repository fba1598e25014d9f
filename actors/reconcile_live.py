"""Moves the parked chunks of live streams: through their spool, by the dispatcher that empties it."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from actors.aggregator import Aggregator
from actors.handles import LocalHandle
from actors.live_dispatcher import LiveDispatcher
from actors.live_setup import LiveOptions, LiveSetup
from actors.reconcile_types import Reconciled, ReconcileRequest
from ingest.destinations import is_lake, open_destination
from ingest.errors import (
    AuthenticationError,
    DestinationError,
    IngestError,
    LeaseHeldError,
    StaleEpochError,
    StreamGoneError,
)
from ingest.journal import Journal, StreamRow
from ingest.journal.live import account_of
from ingest.ledger import ChunkConfirmed, Instruction, StreamEvent, StreamLedger, StreamState
from ingest.parking import ParkedChunk, ParkedStream
from ingest.spool import ParkedPlace, Spool
from ingest.spool_file import AsideReason, spooled_chunk

__all__ = ["LiveLot", "reconcile_live"]

POLL_S = 0.05
CALL_FOR_S = 5.0
REMOVED_AT_ONCE = 100
"""Parked chunks between two looks at the lease."""
ASIDE: tuple[AsideReason, ...] = ("damaged", "refused")


@dataclass
class LiveLot:
    """All that is parked of one live stream of a journal.

    Attributes
    ----------
    key : str
        The stream.
    parked : ParkedStream
        What waits.
    waited : set of (int, int)
        Seq and index of what was in its spool when the move began, with body or without.
    findings : list of str
        What is kept and is not moved.
    moved : int
        Parked chunks that were delivered now.
    error : IngestError or None
        Why it was not all moved.
    """

    key: str
    parked: ParkedStream
    waited: set[tuple[int, int]] = field(default_factory=set)
    findings: list[str] = field(default_factory=list)
    moved: int = 0
    error: IngestError | None = None


class _Counting(Aggregator):
    """An aggregator that counts what of each lot was recorded through it, and knows whether anything happens."""

    def __init__(self, folder: Path, lots: Iterable[LiveLot], request: ReconcileRequest) -> None:
        super().__init__(str(folder), request.lease_s, request.telemetry)
        self._lots = {lot.key: lot for lot in lots}
        self.steps: dict[str, int] = {}

    def record(self, key: str, epoch: int, events: Sequence[StreamEvent]) -> tuple[Instruction, ...]:
        due = super().record(key, epoch, events)
        self.steps[key] = self.steps.get(key, 0) + len(events)
        for event in events:
            if isinstance(event, ChunkConfirmed):
                told = (event.receipt.index, event.receipt.frames_digest)
                self._lots[key].moved += any((c.index, c.digest) == told for c in self._lots[key].parked.chunks)
        return due

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()


def reconcile_live(
    request: ReconcileRequest,
    folder: Path,
    journal: Journal,
    lots: Sequence[LiveLot],
    job_id: str,
    stop: threading.Event,
) -> list[Reconciled]:
    """Move all that is parked of live streams of a journal; return what became of each.

    Parameters
    ----------
    request : ReconcileRequest
        What to move.
    folder : Path
        Of the journal.
    journal : Journal
        That knows them.
    lots : sequence of LiveLot
        The streams.
    job_id : str
        Takes their leases.
    stop : threading.Event
        Set: leave off; what is in flight waits still.

    Notes
    -----
    A chunk that is at the failover and not in the spool gets its note there again, unless its index has a receipt or a
    loss. Then the spool is emptied as the streamer would have done it, what is only there included.
    """
    groups: dict[LiveSetup, list[LiveLot]] = {}
    for lot in lots:
        row = journal.row(lot.key)
        try:
            setup = _setup(request, folder, row, lot, job_id)
        except IngestError as exc:
            lot.error = exc
            continue
        _check(journal, setup, row, lot)
        if row.state is not StreamState.CLOSED and lot.error is None:
            groups.setdefault(setup, []).append(lot)
    for setup, some in groups.items():
        asyncio.run(_Move(request, setup, folder, journal, some).work(stop))
    return [_result(request, folder, journal, lot, job_id) for lot in lots]


def _setup(request: ReconcileRequest, folder: Path, row: StreamRow, lot: LiveLot, job_id: str) -> LiveSetup:
    note = lot.parked.note
    spools = None if note is None or note.spools is None else note.spools
    key = None if is_lake(row.destination) else request.api_key
    retry = LiveOptions().drain_retry
    options = LiveOptions(
        lease_s=request.lease_s,
        scan_s=POLL_S,
        adopts=False,
        drain_retry=replace(retry, retry_for_s=min(CALL_FOR_S, request.retry.retry_for_s / 2)),
    )
    return LiveSetup(job_id, row.destination, key, str(folder), spools, options)


def _check(journal: Journal, setup: LiveSetup, row: StreamRow, lot: LiveLot) -> None:
    """Find out what keeps a stream from being moved."""
    if row.state is StreamState.CLOSED:
        return  # only what arrived is to be removed
    try:
        open_destination(row.destination, setup.api_key)
    except IngestError as exc:
        lot.error = exc
        return
    live = journal.live_stream(lot.key)
    if live is None or live.state not in (StreamState.OPEN, StreamState.CLOSING):
        said = f": {live.gone_reason}" if live is not None and live.gone_reason else ""
        lot.error = StreamGoneError(
            f"the destination takes nothing more{said}", hint="what waits is kept; `rheed-ingest spool list` shows it"
        )
    elif all(stream.key != lot.key for stream in journal.live_streams(account_of(setup.destination, setup.api_key))):
        lot.error = AuthenticationError(
            f"stream {row.data_id} was begun with another API key", hint="use the one that the streamer had"
        )


class _Move:
    """One dispatcher that empties the spool of one account's parked streams."""

    def __init__(
        self,
        request: ReconcileRequest,
        setup: LiveSetup,
        folder: Path,
        journal: Journal,
        lots: Sequence[LiveLot],
    ) -> None:
        self._request = request
        self._setup = setup
        self._journal = journal
        self._lots = lots
        self._spool = setup.spool()
        self._aggregator = _Counting(folder, lots, request)
        self._dispatcher = LiveDispatcher(setup, LocalHandle(self._aggregator))

    async def work(self, stop: threading.Event) -> None:
        """Do it; errors are left in the lots."""
        try:
            mine = [lot for lot in self._lots if await self._took(lot)]
            self._dispatcher.start()
            await asyncio.gather(*(self._await_done(lot, stop) for lot in mine))
        finally:
            await self._dispatcher.release()
            self._aggregator.close()

    async def _took(self, lot: LiveLot) -> bool:
        """Lease a stream, of a dead holder after that has expired, and make its spool whole."""
        try:
            try:
                self._aggregator.lease_live(self._setup.session_id, lot.key)
            except LeaseHeldError as exc:
                await asyncio.sleep(max(exc.until_s - time.time(), 0) + 0.05)
                self._aggregator.lease_live(self._setup.session_id, lot.key)
            await asyncio.to_thread(self._restore, lot)
        except IngestError as exc:
            lot.error = exc
            return False
        return True

    def _restore(self, lot: LiveLot) -> None:
        ledger = self._journal.load(lot.key)
        lot.waited = {(entry.seq, entry.index) for entry in self._spool.entries(lot.key)}
        aside = _aside(self._spool, lot.key)
        for chunk in lot.parked.chunks:
            place = (chunk.seq, chunk.index)
            if place in lot.waited or place in aside or chunk.index in ledger.confirmed or chunk.index in ledger.lost:
                continue
            try:
                found = self._request.parking.load(chunk).chunk
            except DestinationError as exc:
                lot.findings.append(str(exc))
                continue
            self._spool.note_parked(found, ParkedPlace(self._request.parking.url, chunk.name))
            lot.waited.add((found.label.seq, found.label.index))

    async def _await_done(self, lot: LiveLot, stop: threading.Event) -> None:
        """Wait until a stream's spool is empty and it is closed if it is sealed, or until that is hopeless."""
        data_id = self._journal.row(lot.key).data_id
        steps, since_s = -1, time.monotonic()
        while not await self._is_done(lot.key):
            progress = await self._dispatcher.progress(lot.key)
            now = self._aggregator.steps.get(lot.key, 0)
            if now != steps or progress.stalled_by is None:
                steps, since_s = now, time.monotonic()
            if progress.journal.state is StreamState.GONE:
                lot.error = StreamGoneError(f"the destination takes nothing more: {progress.journal.gone_reason}")
            elif stop.is_set():
                lot.error = IngestError("interrupted", hint="run the same command again: it goes on")
            elif progress.is_refused or time.monotonic() - since_s >= self._request.retry.retry_for_s:
                lot.error = DestinationError(
                    f"stream {data_id}: {progress.stalled_by}", hint="run the same command again once that is mended"
                )
            if lot.error is not None:
                return
            await asyncio.sleep(POLL_S)

    async def _is_done(self, key: str) -> bool:
        if await asyncio.to_thread(self._spool.has, key):
            return False
        stream = self._journal.live_stream(key)
        return stream is None or stream.state is StreamState.CLOSED or not self._journal.load(key).is_whole()


def _aside(spool: Spool, key: str) -> set[tuple[int, int]]:
    """Return seq and index of what was set aside."""
    paths = itertools.chain(spool.damaged(key), spool.refused(key))
    found = (spooled_chunk(path.parent, path.name.rpartition(".")[0], 0) for path in paths)
    return {(chunk.seq, chunk.index) for chunk in found if chunk is not None}


# -- afterwards --------------------------------------------------------------------------------------------------------


def _result(request: ReconcileRequest, folder: Path, journal: Journal, lot: LiveLot, job_id: str) -> Reconciled:
    removed: list[ParkedChunk] = []
    left = len(lot.parked.chunks)
    is_held = isinstance(lot.error, LeaseHeldError)
    if not is_held:
        try:
            removed, left = _swept(request, folder, journal, lot, job_id)
        except (DestinationError, LeaseHeldError, StaleEpochError) as exc:
            lot.findings.append(f"not all that arrived was removed: {exc}")
    row, error = journal.row(lot.key), lot.error
    is_sealed = journal.load(lot.key).expected is not None
    status = "complete"
    if error is not None:
        status = "partial" if lot.moved or removed else "failed"
    elif left or lot.findings or (is_sealed and row.state is not StreamState.CLOSED):
        status = "partial"
    hint = None if error is None else error.hint
    if status == "complete" and row.state is StreamState.OPEN:
        hint = (
            "the stream is open: its streamer's finalize, or `rheed-ingest spool deliver --close-abandoned`, closes it"
        )
    return Reconciled(
        source=row.path,
        destination=row.destination,
        key=row.key,
        data_id=row.data_id,
        state=str(row.state),
        status=status,
        parked=len(lot.parked.chunks),
        moved=lot.moved,
        removed=len(removed),
        n_bytes=sum(chunk.n_bytes for chunk in removed),
        findings=tuple(lot.findings),
        error=None if error is None else str(error),
        hint=hint,
    )


def _swept(
    request: ReconcileRequest, folder: Path, journal: Journal, lot: LiveLot, job_id: str
) -> tuple[list[ParkedChunk], int]:
    """Remove what arrived, under the stream's lease; return what is gone of the lot, and how many chunks are left."""
    spool = _setup(request, folder, journal.row(lot.key), lot, job_id).spool()
    epoch = _leased(journal, lot.key, job_id, request.lease_s)
    try:
        ledger, parking = journal.load(lot.key), request.parking
        waits = {(entry.seq, entry.index) for entry in spool.entries(lot.key)} | _aside(spool, lot.key)
        there = parking.chunks(lot.parked.folder)
        arrived = [chunk for chunk in there if _arrived(chunk, ledger, lot.waited, waits)]
        for first in range(0, len(arrived), REMOVED_AT_ONCE):
            parking.remove(arrived[first : first + REMOVED_AT_ONCE])
            journal.renew(job_id, request.lease_s)
        journal.check_epoch(lot.key, epoch)
        left = [chunk for chunk in there if chunk not in arrived]
        for chunk in left:
            if (why := _why_kept(chunk, ledger, waits)) is not None:
                lot.findings.append(f"{parking.url}/{chunk.name} is kept: {why}")
        if not left and (ledger.state in (StreamState.CLOSED, StreamState.GONE) or not ledger.is_whole()):
            parking.remove_stream(lot.parked.folder)
    finally:
        journal.release(lot.key, epoch)
    names = {chunk.name for chunk in left}
    return [chunk for chunk in lot.parked.chunks if chunk.name not in names], len(left)


def _leased(journal: Journal, key: str, job_id: str, lease_s: float) -> int:
    with suppress(LeaseHeldError):
        return journal.lease(key, job_id, lease_s)
    time.sleep(POLL_S)
    return journal.lease(key, job_id, lease_s)


def _arrived(
    chunk: ParkedChunk, ledger: StreamLedger, waited: set[tuple[int, int]], waits: set[tuple[int, int]]
) -> bool:
    place = (-1 if chunk.seq is None else chunk.seq, chunk.index)
    if place in waits and ledger.state is not StreamState.CLOSED:
        return False
    # What left the spool and was not set aside was delivered, perhaps before a later version of it.
    return ledger.confirmed.get(chunk.index) == chunk.digest or place in waited - waits


def _why_kept(chunk: ParkedChunk, ledger: StreamLedger, waits: set[tuple[int, int]]) -> str | None:
    """Return why a chunk will never be moved; None: it waits."""
    if chunk.index in ledger.lost:
        return f"chunk {chunk.index} is lost: {ledger.lost[chunk.index]}"
    if (-1 if chunk.seq is None else chunk.seq, chunk.index) in waits:
        return None
    if (receipt := ledger.confirmed.get(chunk.index)) is not None:
        return f"chunk {chunk.index} arrived with the digest {receipt}"
    if ledger.state is StreamState.CLOSED:
        return f"the stream was closed without a chunk {chunk.index}"
    return None
