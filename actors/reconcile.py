"""Moves parked chunks to where they belong: the same job as a backfill, in this process, without sources and Ray."""

from __future__ import annotations

import asyncio
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from actors.aggregator import Aggregator
from actors.dispatcher import Dispatcher, DispatcherOptions
from actors.handles import LocalHandle
from actors.mover import Lot, Mover
from actors.reconcile_live import LiveLot, reconcile_live
from actors.reconcile_types import Reconciled, ReconcileRequest
from actors.streamer_states import StreamerState
from ingest.chunks import readdressed
from ingest.contents import StreamOrigin
from ingest.destinations import open_destination, open_timeseries
from ingest.errors import DestinationError, IngestError, LeaseHeldError
from ingest.journal import Journal, RunEnd, StreamRow
from ingest.ledger import StreamLedger, StreamState
from ingest.parking import ParkedChunk, ParkedStream, Parking

__all__ = ["ReconcileRequest", "Reconciled", "reconcile"]

POLL_S = 0.05
AT_ONCE = 4


def reconcile(
    request: ReconcileRequest, watch: Callable[[Sequence[StreamRow]], None], stop: threading.Event
) -> list[Reconciled]:
    """Move all parked chunks whose streams a journal knows; return what became of each stream.

    A live stream's go through its spool, so that nothing overtakes anything; one that is not sealed stays open.

    Parameters
    ----------
    request : ReconcileRequest
        What to move.
    watch : callable
        Is called about twenty times a second with the journal's view of the streams at work.
    stop : threading.Event
        Set: begin nothing new, finish what is in flight, return.

    Raises
    ------
    DestinationError
        What is parked cannot be listed.
    JournalError
        A journal cannot be used.

    Notes
    -----
    Safe to repeat and to kill anywhere: a chunk is removed only after its receipt is in the journal, and one with a
    receipt is not sent again. Holds four chunks at once for each destination, and 200 bytes for each that is parked.
    """
    job_id = f"reconcile-{uuid.uuid4().hex[:12]}"
    with _Journals() as journals:
        found = [_find(request, journals, parked) for parked in request.parking.streams()]
        results = [_unknown(request, parked) for parked, place in found if place is None and _is_asked(request, parked)]
        for folder, journal in journals.opened.items():
            lots: dict[str, Lot] = {}
            live: list[LiveLot] = []
            for parked, place in found:
                if place is None or place[0] != folder:
                    continue
                key = place[1]
                row = journal.row(key)
                if request.destination not in (None, row.destination):
                    continue
                if row.is_live:
                    live.append(LiveLot(key, parked))
                else:
                    lot = lots.setdefault(key, Lot(key, StreamOrigin.of(journal.plan(key)).digest, []))
                    lot.streams.append(parked)
            results += _Work(request, folder, journal, list(lots.values()), job_id).done(watch, stop)
            results += reconcile_live(request, folder, journal, live, job_id, stop)
    return results


class _Journals:
    """Journals that are there, each opened once."""

    def __init__(self) -> None:
        self.opened: dict[Path, Journal] = {}

    def __enter__(self) -> _Journals:
        return self

    def __exit__(self, *_: object) -> None:
        for journal in self.opened.values():
            journal.close()

    def of(self, folder: Path) -> Journal | None:
        if folder not in self.opened:
            # Opening would make one, perhaps below the mount point of a lake that is away.
            if not (folder / "journal.sqlite").exists():
                return None
            self.opened[folder] = Journal(folder, time.time)
        return self.opened[folder]


def _is_asked(request: ReconcileRequest, parked: ParkedStream) -> bool:
    return request.destination is None or parked.note is None or parked.note.destination == request.destination


def _find(
    request: ReconcileRequest, journals: _Journals, parked: ParkedStream
) -> tuple[ParkedStream, tuple[Path, str] | None]:
    """Return where the stream of parked chunks is known: by its key, or by its source, settings and destination."""
    note = parked.note
    folders = request.states(None if note is None else note.destination)
    known = [(folder, journal) for folder in folders if (journal := journals.of(folder)) is not None]
    for folder, journal in known:
        if (key := journal.current_key(parked.key)) is not None:
            return parked, (folder, key)
    if note is not None and not note.is_live:
        for folder, journal in known:
            for key in journal.keys_of(note.destination, note.source):
                if StreamOrigin.of(journal.plan(key)).digest == note.origin:
                    return parked, (folder, key)
    return parked, None


def _unknown(request: ReconcileRequest, parked: ParkedStream) -> Reconciled:
    note, folder = parked.note, f"{request.parking.url}/{parked.folder}"
    looked = ", ".join(map(str, request.states(None if note is None else note.destination)))
    error = f"no journal in {looked} knows the stream of {folder}"
    state = "pass --state with the folder of the journal of the job that parked it"
    if note is None:
        return Reconciled(None, None, parked.key, None, None, "failed", len(parked.chunks), error=error, hint=state)
    again = (
        f"if it is lost, run the backfill of {note.source} to {note.destination} again, which sends all from the "
        "source, and then this command, which removes what arrived"
    )
    return Reconciled(
        note.source,
        note.destination,
        parked.key,
        note.data_id,
        None,
        "failed",
        len(parked.chunks),
        error=error,
        # A live stream has no other source: what waits of it is kept.
        hint=state if note.is_live else f"{state}; {again}",
    )


@dataclass
class _Work:
    """The streams of one journal."""

    request: ReconcileRequest
    folder: Path
    journal: Journal
    lots: Sequence[Lot]
    job_id: str

    def done(self, watch: Callable[[Sequence[StreamRow]], None], stop: threading.Event) -> list[Reconciled]:
        """Move what can be moved, remove what arrived, and say so."""
        refused: dict[str, IngestError] = {}
        for seq, lot in enumerate(self.lots):
            row = self.journal.row(lot.key)
            if row.state is StreamState.CLOSED:
                continue  # only what arrived is to be removed
            try:
                open_destination(row.destination, self.request.api_key)
            except IngestError as exc:
                refused[lot.key] = exc
                continue
            self.journal.enter(self.job_id, seq, lot.key)
        if self.journal.open_runs(self.job_id):
            asyncio.run(self._move(watch, stop))
        ends = {row.seq: row for row in self.journal.job(self.job_id)}
        return [self._result(lot, ends.get(seq), refused.get(lot.key)) for seq, lot in enumerate(self.lots)]

    async def _move(self, watch: Callable[[Sequence[StreamRow]], None], stop: threading.Event) -> None:
        request, key, retry = self.request, self.request.api_key, self.request.retry
        aggregator = LocalHandle(Aggregator(str(self.folder), request.lease_s, request.telemetry))
        streamer = StreamerState(aggregator, key, retry, request.telemetry)
        mover = Mover(request.parking, self.lots, self.journal.current_key, key, retry, request.telemetry)
        dispatcher = Dispatcher(
            DispatcherOptions(self.job_id, packers=1, orders_per_packer=AT_ONCE, lease_s=request.lease_s),
            aggregator,
            LocalHandle(streamer),
            lambda _: LocalHandle(mover),
            lambda url: open_destination(url, key, retry=retry),
            lambda url: open_timeseries(url, key, retry=retry),
            request.telemetry,
        )
        dispatcher.start()
        try:
            while not (await dispatcher.finished())[0]:
                watch(self.journal.job(self.job_id))
                if stop.is_set():
                    await dispatcher.drain()
                await asyncio.sleep(POLL_S)
        finally:
            await mover.aclose()
            await streamer.aclose()

    # -- afterwards ----------------------------------------------------------------------------------------------------

    def _result(self, lot: Lot, worked: StreamRow | None, refused: IngestError | None) -> Reconciled:
        sweep = _Sweep(self.journal, self.request.parking, lot)
        try:
            sweep.run(self.job_id, self.request.lease_s)
        except (DestinationError, LeaseHeldError) as exc:
            sweep.findings.append(f"not all that arrived was removed: {exc}")
        row = self.journal.row(self.journal.current_key(lot.key) or lot.key)
        end = (worked.end if worked is not None else None) or RunEnd("complete")
        if refused is not None:
            end = RunEnd("failed", str(refused), refused.hint)
        status = "complete" if end.status == "skipped" else end.status
        if status == "complete" and (sweep.findings or sweep.left or row.state is not StreamState.CLOSED):
            status = "partial"
        return Reconciled(
            source=row.path,
            destination=row.destination,
            key=row.key,
            data_id=row.data_id,
            state=str(row.state),
            status=status,
            parked=len(lot.chunks),
            moved=lot.moved,
            removed=len(sweep.removed),
            n_bytes=sum(chunk.n_bytes for chunk in sweep.removed),
            findings=tuple(sweep.findings),
            error=end.error,
            hint=end.hint,
        )


REMOVED_AT_ONCE = 100
"""Parked chunks between two looks at the lease."""


class _Sweep:
    """Removes what is parked of a stream and has a receipt.

    Attributes
    ----------
    removed : list of ParkedChunk
        What is gone.
    left : int
        Chunks without a receipt.
    findings : list of str
        What is kept and will never be moved.
    """

    def __init__(self, journal: Journal, parking: Parking, lot: Lot) -> None:
        self._journal = journal
        self._parking = parking
        self._lot = lot
        self.removed: list[ParkedChunk] = []
        self.left = 0
        self.findings: list[str] = []

    def run(self, job_id: str, lease_s: float) -> None:
        """Do it, under the stream's lease, so that nobody parks there meanwhile.

        Raises
        ------
        LeaseHeldError
            A live job has the stream.
        DestinationError
            The store does not remove it.
        """
        key = self._journal.current_key(self._lot.key) or self._lot.key
        epoch = self._lease(key, job_id, lease_s)
        try:
            ledger = self._journal.load(key)
            arrived = [chunk for chunk in self._lot.chunks if self._arrived(chunk, ledger)]
            for first in range(0, len(arrived), REMOVED_AT_ONCE):
                self._parking.remove(arrived[first : first + REMOVED_AT_ONCE])
                self._journal.renew(job_id, lease_s)
            self.removed = arrived
            self._journal.check_epoch(key, epoch)
            # A stream that is whole and could not be closed keeps its note, by which the next call finds it.
            if ledger.state in (StreamState.CLOSED, StreamState.GONE) or not ledger.is_whole():
                for stream in self._lot.streams:
                    self._parking.remove_stream(stream.folder)
        finally:
            self._journal.release(key, epoch)

    def _lease(self, key: str, job_id: str, lease_s: float) -> int:
        """Take the stream's lease; of a dead holder after it has expired."""
        try:
            return self._journal.lease(key, job_id, lease_s)
        except LeaseHeldError as exc:
            time.sleep(max(exc.until_s - time.time(), 0) + 0.05)
            return self._journal.lease(key, job_id, lease_s)

    def _arrived(self, chunk: ParkedChunk, ledger: StreamLedger) -> bool:
        receipt = ledger.confirmed.get(chunk.index)
        kept = f"{self._parking.url}/{chunk.name} is kept"
        if receipt == chunk.digest:
            return True
        if chunk.name in self._lot.unfit:
            self.findings.append(self._lot.unfit[chunk.name])
        elif receipt is not None:
            if self._digest_at(chunk, ledger.data_id) == receipt:
                return True
            self.findings.append(f"{kept}: chunk {chunk.index} arrived with the digest {receipt}")
        elif ledger.state is StreamState.CLOSED:
            self.findings.append(f"{kept}: the stream was closed without a chunk {chunk.index}")
        else:
            self.left += 1
        return False

    def _digest_at(self, chunk: ParkedChunk, data_id: str | None) -> str | None:
        """Return the digest that a request has once it names its stream, which it could not when it was parked."""
        try:
            return readdressed(self._parking.load(chunk).chunk, self._lot.key, data_id or "").label.digest
        except IngestError:
            return None
