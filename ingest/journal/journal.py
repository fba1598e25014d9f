"""Streams, leases, receipts and losses, durably."""

from __future__ import annotations

import json
import sqlite3
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import fields, replace
from operator import attrgetter

from pydantic import TypeAdapter

from ingest.errors import LeaseHeldError, SettingsChangedError, SourceChangedError, StaleEpochError
from ingest.journal.database import mapped
from ingest.journal.reconciling import ReconcilingJournal
from ingest.journal.rows import RegisteredRun, RunEnd, StreamRow, stream_row
from ingest.ledger import (
    ChunkConfirmed,
    ChunkLost,
    CloseBegun,
    CreateBegun,
    Receipt,
    Sealed,
    StreamClosed,
    StreamCreated,
    StreamEvent,
    StreamGone,
    StreamLedger,
    StreamLinked,
    StreamState,
)
from ingest.plan import RunPlan, StreamSettings
from ingest.series_plan import ArchivePlan, SeriesPlan
from ingest.timeseries import TimeseriesSettings

__all__ = ["Journal"]

_PLAN: TypeAdapter[ArchivePlan] = TypeAdapter(ArchivePlan)

# `dataclasses.astuple` copies every value deeply, which takes longer than to write the row.
_RECEIPT = attrgetter(*[field.name for field in fields(Receipt)][:-1])


# Counted over the streams asked for only, so that a look at one job does not scan all receipts.
_ROWS = (
    "SELECT s.*, (SELECT coalesce(sum(frames), 0) FROM receipts r WHERE r.key=s.key) AS frames_confirmed, "
    "j.seq, j.note, j.resumed, j.same_as, j.status, j.error, j.hint, j.parked, j.started_s, j.ended_s, "
    "(SELECT count(*) FROM receipts r WHERE r.key=s.key) AS confirmed, "
    "(SELECT coalesce(sum(n_bytes), 0) FROM receipts r WHERE r.key=s.key) AS bytes_out, "
    "(SELECT count(*) FROM losses l WHERE l.key=s.key) AS lost, "
    "(SELECT coalesce(sum(json_array_length(lost_frames)), 0) FROM receipts r WHERE r.key=s.key) AS frames_lost "
    "FROM streams s LEFT JOIN job_runs j ON j.key=s.key AND j.job_id=? "
)


def _packed(plan: ArchivePlan) -> bytes:
    return zlib.compress(_PLAN.dump_json(plan))


def _unpacked(packed: bytes) -> ArchivePlan:
    return _PLAN.validate_json(zlib.decompress(packed))


def _unheeded(before: StreamSettings | TimeseriesSettings, now: StreamSettings | TimeseriesSettings) -> str | None:
    """Say which names were asked for now that a stream does not have: they are given when it is created."""
    changed = [
        f"{name} is {getattr(before, name)!r}, not {getattr(now, name)!r}"
        for name in ("name", "physical_sample", "project_id", "tags")
        if getattr(before, name) != getattr(now, name)
    ]
    return f"created before with other names, which stay: {', '.join(changed)}" if changed else None


def _cut_alike(plan: ArchivePlan, row: sqlite3.Row) -> ArchivePlan:
    """Return the plan of a copy with the chunks of what was sent: those of a job with a lake end elsewhere."""
    sent = _unpacked(row["plan"])
    if isinstance(plan, RunPlan) and isinstance(sent, RunPlan) and plan.frames == sent.frames:
        return replace(plan, chunks=sent.chunks)
    return plan


class Journal(ReconcilingJournal):
    """The ledger's durable form: what a method returned from is on disk.

    Safe for several processes of one machine: every write is one immediate transaction, and those of a stream first
    check its lease's epoch. Not for pickling; for one thread at a time; `close` may be repeated.
    """

    # -- runs ----------------------------------------------------------------------------------------------------------

    def register(
        self, job_id: str, seq: int, destination: str, path: str, plan: ArchivePlan, *, restart: bool = False
    ) -> RegisteredRun:
        """Enter a run of a job, finding the stream that an earlier job began for it; safe to repeat.

        Parameters
        ----------
        job_id : str
            The job.
        seq : int
            The run's place in it.
        destination : str
            Canonical URL.
        path : str
            Canonical name of the source, with the dataset.
        plan : RunPlan
            What is to be sent.
        restart : bool, default False
            Leave what an earlier job did, and send everything into a new stream.

        Raises
        ------
        SettingsChangedError
            The same recording was sent with other settings.
        SourceChangedError
            The path held another recording.
        LeaseHeldError
            A live job is sending what would be replaced.
        """
        identity = json.dumps(plan.identity(), sort_keys=True)
        with self._transaction():
            done = self._db.execute("SELECT key FROM job_runs WHERE job_id=? AND seq=?", (job_id, seq)).fetchone()
            if done:
                return self._registered(done["key"], job_id)
            row = self._earlier(destination, path, plan, identity, restart=restart)
            old = None
            if row is not None and row["state"] == StreamState.PLANNED:
                row = self._planned_anew(row, path, plan, identity)
            elif row is not None and (restart or row["state"] == StreamState.GONE):
                self._refuse_held(row)
                old, row = row, None
            key = row["key"] if row is not None else self._insert(destination, path, plan, identity, old)
            same_as = row["path"] if row is not None and row["path"] != path else None
            note = None if row is None else _unheeded(_unpacked(row["plan"]).settings, plan.settings)
            copy = _packed(_cut_alike(plan, row)) if row is not None and same_as else None
            confirmed = self._db.execute("SELECT count(*) FROM receipts WHERE key=?", (key,)).fetchone()[0]
            self._db.execute(
                "INSERT OR IGNORE INTO job_runs (job_id, seq, key, resumed, same_as, plan, note, started_s) "
                "VALUES (?,?,?,?,?,?,?,?)",
                (job_id, seq, key, confirmed, same_as, copy, note, self._clock()),
            )
            return self._registered(key, job_id)

    def _planned_anew(self, row: sqlite3.Row, path: str, plan: ArchivePlan, identity: str) -> sqlite3.Row:
        """Let the new plan stand for a stream of which nothing was ever sent, unless a live job is at it."""
        if row["lease_holder"] is not None and row["lease_until_s"] > self._clock():
            if row["identity"] != identity:
                self._refuse_held(row)
            return row
        self._db.execute(
            "UPDATE streams SET path=?, fingerprint=?, name=?, identity=?, plan=?, frames=?, bytes_in=?, expected=? "
            "WHERE key=?",
            (
                path,
                plan.fingerprint,
                plan.name,
                identity,
                _packed(plan),
                plan.frames,
                plan.bytes_in,
                len(plan.chunks),
                row["key"],
            ),
        )
        updated: sqlite3.Row = self._db.execute("SELECT * FROM streams WHERE key=?", (row["key"],)).fetchone()
        return updated

    def replace(self, job_id: str, key: str) -> str:
        """Register a run of a job anew, for a stream that its platform failed; return the new key. Safe to repeat."""
        plan = self.plan(key, job_id)
        with self._transaction():
            old = self._db.execute("SELECT * FROM streams WHERE key=?", (key,)).fetchone()
            if old["superseded_by"]:
                return str(old["superseded_by"])
            new = self._insert(old["destination"], old["path"], plan, old["identity"], old)
            self._db.execute("UPDATE job_runs SET key=?, resumed=0 WHERE job_id=? AND key=?", (new, job_id, key))
            return new

    def _refuse_held(self, row: sqlite3.Row) -> None:
        now_s = self._clock()
        if row["lease_holder"] is not None and row["lease_until_s"] > now_s:
            raise LeaseHeldError(
                f"{row['path']}: job {row['lease_holder']} has it (its lease ends in "
                f"{row['lease_until_s'] - now_s:.1f} s unless renewed)",
                hint="wait for that job, or stop it; then run the same command again",
                until_s=row["lease_until_s"],
            )

    def _earlier(
        self, destination: str, path: str, plan: ArchivePlan, identity: str, *, restart: bool
    ) -> sqlite3.Row | None:
        row: sqlite3.Row | None = self._db.execute(
            "SELECT * FROM streams WHERE destination=? AND fingerprint=? AND superseded=0 ORDER BY path=? DESC",
            (destination, plan.fingerprint, path),
        ).fetchone()
        if row is not None:
            if row["identity"] != identity and not restart and row["state"] != StreamState.PLANNED:
                before, now = json.loads(row["identity"]), json.loads(identity)
                changed = ", ".join(
                    f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
                    for name in {**now, **before}
                    if before.get(name) != now.get(name)
                )
                copy = "" if row["path"] == path else f" from {row['path']}, the same recording,"
                raise SettingsChangedError(
                    f"{path} was sent before{copy} as {row['data_id']} with other settings: {changed}",
                    hint="use the earlier settings to resume it, or pass --restart to send it anew as another stream",
                )
            return row
        row = self._db.execute(
            "SELECT * FROM streams WHERE destination=? AND path=? AND superseded=0", (destination, path)
        ).fetchone()
        if row is not None and not restart and row["state"] != StreamState.PLANNED:
            raise SourceChangedError(
                f"{path} is not the recording that was sent from there before (as {row['data_id']}): its "
                f"fingerprint is {plan.fingerprint}, it was {row['fingerprint']} ({plan.frames} frames or points now, "
                f"{row['frames']} then)",
                hint="pass --restart to send it anew as another stream",
            )
        return row

    def _insert(self, destination: str, path: str, plan: ArchivePlan, identity: str, old: sqlite3.Row | None) -> str:
        key = uuid.uuid4().hex
        if old is not None:
            self._db.execute("UPDATE streams SET superseded=1, superseded_by=? WHERE key=?", (key, old["key"]))
        self._db.execute(
            "INSERT INTO streams (key, destination, path, fingerprint, name, identity, plan, frames, bytes_in, state, "
            "expected, registered_s, replaces, kind) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                key,
                destination,
                path,
                plan.fingerprint,
                plan.name,
                identity,
                _packed(plan),
                plan.frames,
                plan.bytes_in,
                StreamState.PLANNED,
                len(plan.chunks),
                self._clock(),
                (old["data_id"] or old["replaces"]) if old is not None else None,
                "archive-log" if isinstance(plan, SeriesPlan) else "archive",
            ),
        )
        return key

    def _registered(self, key: str, job_id: str) -> RegisteredRun:
        row = self.row(key, job_id)
        return RegisteredRun(key, row.state, row.confirmed, row.lost, row.chunks, row.same_as, row.frames_lost)

    def plan(self, key: str, job_id: str | None = None) -> ArchivePlan:
        """Return the plan that a stream was registered with; for a job with a copy of its source, that of the copy."""
        with mapped(self.path):
            row = self._db.execute(
                "SELECT coalesce(j.plan, s.plan) AS plan FROM streams s LEFT JOIN job_runs j "
                "ON j.key=s.key AND j.job_id=? WHERE s.key=?",
                (job_id, key),
            ).fetchone()
        return _unpacked(row["plan"])

    def open_runs(self, job_id: str) -> list[str]:
        """Return the keys of a job's runs that have not ended, in order."""
        with mapped(self.path):
            rows = self._db.execute(
                "SELECT key FROM job_runs WHERE job_id=? AND status IS NULL ORDER BY seq", (job_id,)
            ).fetchall()
        return [row["key"] for row in rows]

    def end_run(self, job_id: str, key: str, end: RunEnd, epoch: int | None = None) -> None:
        """Record how a job's run ended; the first word stands.

        With the caller's `epoch`, nothing is recorded if another incarnation of the same job has the lease by now: that
        one will say how the run ended.
        """
        with self._transaction():
            row = self._db.execute("SELECT epoch, lease_holder FROM streams WHERE key=?", (key,)).fetchone()
            if epoch is not None and row["epoch"] != epoch and row["lease_holder"] == job_id:
                return
            self._db.execute(
                "UPDATE job_runs SET status=?, error=?, hint=?, parked=?, ended_s=? "
                "WHERE job_id=? AND key=? AND status IS NULL",
                (end.status, end.error, end.hint, end.parked, self._clock(), job_id, key),
            )

    def count_resumed(self, job_id: str, key: str) -> None:
        """Have all chunks that a stream has by now count as not sent by a job. Safe to repeat."""
        with self._transaction():
            self._db.execute(
                "UPDATE job_runs SET resumed=(SELECT count(*) FROM receipts r WHERE r.key=job_runs.key) "
                "WHERE job_id=? AND key=?",
                (job_id, key),
            )

    # -- leases --------------------------------------------------------------------------------------------------------

    def lease(self, key: str, holder: str, ttl_s: float) -> int:
        """Take a stream's lease for `holder`, raising its epoch, and return that.

        Raises
        ------
        LeaseHeldError
            Another holder's has not expired.
        """
        now_s = self._clock()
        with self._transaction():
            row = self._db.execute(
                "SELECT epoch, lease_holder, lease_until_s, path FROM streams WHERE key=?", (key,)
            ).fetchone()
            if row["lease_holder"] != holder:
                self._refuse_held(row)
            self._db.execute(
                "UPDATE streams SET epoch=epoch+1, lease_holder=?, lease_until_s=? WHERE key=?",
                (holder, now_s + ttl_s, key),
            )
            return int(row["epoch"]) + 1

    def renew(self, holder: str, ttl_s: float) -> None:
        """Put off the end of all leases that `holder` has."""
        with self._transaction():
            self._db.execute("UPDATE streams SET lease_until_s=? WHERE lease_holder=?", (self._clock() + ttl_s, holder))

    def release(self, key: str, epoch: int) -> None:
        """Give a lease back; nothing if it was taken over."""
        with self._transaction():
            self._db.execute(
                "UPDATE streams SET lease_holder=NULL, lease_until_s=0 WHERE key=? AND epoch=?", (key, epoch)
            )

    # -- events --------------------------------------------------------------------------------------------------------

    def load(self, key: str) -> StreamLedger:
        """Return the stream's ledger as of the last committed event."""
        with mapped(self.path):
            row = self._db.execute("SELECT * FROM streams WHERE key=?", (key,)).fetchone()
            receipts = self._db.execute("SELECT idx, frames_digest FROM receipts WHERE key=?", (key,)).fetchall()
            losses = self._db.execute("SELECT idx, reason FROM losses WHERE key=?", (key,)).fetchall()
        return StreamLedger(
            key,
            epoch=row["epoch"],
            state=StreamState(row["state"]),
            data_id=row["data_id"],
            expected=row["expected"],
            holes=tuple((start, stop) for start, stop in json.loads(row["holes"] or "[]")),
            confirmed={r["idx"]: r["frames_digest"] for r in receipts},
            lost={r["idx"]: r["reason"] for r in losses},
            gone_reason=row["gone_reason"],
        )

    def record(self, key: str, epoch: int, events: Sequence[StreamEvent]) -> None:
        """Commit events of a stream in one transaction; repeating it changes nothing.

        Raises
        ------
        StaleEpochError
            The lease was taken over; nothing was written.
        """
        with self._transaction():
            self.check_epoch(key, epoch)
            for event in events:
                self._write(key, epoch, event)

    def epoch(self, key: str) -> int:
        """Return the epoch of a stream's lease."""
        with mapped(self.path):
            return int(self._db.execute("SELECT epoch FROM streams WHERE key=?", (key,)).fetchone()["epoch"])

    def check_epoch(self, key: str, epoch: int) -> None:
        """Raise StaleEpochError if a stream's lease was taken over since `epoch`."""
        current = self.epoch(key)
        if current != epoch:
            raise StaleEpochError(
                f"stream {key}: the lease is at epoch {current}, this job's is {epoch}: another job took over"
            )

    def _write(self, key: str, epoch: int, event: StreamEvent) -> None:
        match event:
            case CreateBegun():
                self._set(key, state=StreamState.CREATING)
            case StreamCreated(data_id):
                self._set(key, state=StreamState.CREATED, data_id=data_id)
            case StreamLinked():
                self._set(key, state=StreamState.OPEN)
            case ChunkConfirmed(receipt):
                self._write_receipt(key, epoch, receipt)
            case ChunkLost(index, reason):
                # A chunk that is there is not lost, also when both words come in one batch.
                self._db.execute(
                    "INSERT OR IGNORE INTO losses SELECT ?,?,? WHERE NOT EXISTS "
                    "(SELECT 1 FROM receipts WHERE key=? AND idx=?)",
                    (key, index, reason, key, index),
                )
            case Sealed(chunks, holes):
                self._set(key, expected=chunks, holes=json.dumps(holes) if holes else None)
            case CloseBegun():
                self._set(key, state=StreamState.CLOSING)
            case StreamClosed():
                self._set(key, state=StreamState.CLOSED, closed_s=self._clock())
            case StreamGone(reason):
                self._set(key, state=StreamState.GONE, gone_reason=reason)

    def _set(self, key: str, **columns: object) -> None:
        names = ", ".join(f"{name}=?" for name in columns)
        self._db.execute(f"UPDATE streams SET {names} WHERE key=?", (*columns.values(), key))  # noqa: S608 - our names

    def _write_receipt(self, key: str, epoch: int, receipt: Receipt) -> None:
        self._db.execute(
            "INSERT INTO receipts (key, idx, frames, start_ms, end_ms, n_bytes, crc32c, frames_digest, etag, attempts, "
            "node, put_ms, label, lost_frames, epoch) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?,?,?) ON CONFLICT (key, idx) "
            "DO UPDATE SET lost_frames=excluded.lost_frames, "
            "n_bytes=excluded.n_bytes, crc32c=excluded.crc32c, frames_digest=excluded.frames_digest, "
            "etag=excluded.etag, attempts=excluded.attempts, node=excluded.node, put_ms=excluded.put_ms, "
            "epoch=excluded.epoch, revision=revision+1 WHERE frames_digest<>excluded.frames_digest",
            (key, *_RECEIPT(receipt), json.dumps(receipt.lost_frames) if receipt.lost_frames else None, epoch),
        )
        self._db.execute("DELETE FROM losses WHERE key=? AND idx=?", (key, receipt.index))

    # -- reading -------------------------------------------------------------------------------------------------------

    def receipts(self, key: str) -> list[Receipt]:
        """Return the stream's receipts by index."""
        with mapped(self.path):
            rows = self._db.execute(
                "SELECT idx, frames, start_ms, end_ms, n_bytes, crc32c, frames_digest, etag, attempts, node, put_ms, "
                "label, lost_frames FROM receipts WHERE key=? ORDER BY idx",
                (key,),
            ).fetchall()
        return [Receipt(*(*row[:-1], tuple(json.loads(row["lost_frames"] or "[]")))) for row in rows]

    def row(self, key: str, job_id: str | None = None) -> StreamRow:
        """Return what is known of a stream, with what `job_id` did to it."""
        return self._rows("WHERE s.key=?", (job_id, key))[0]

    def job(self, job_id: str) -> list[StreamRow]:
        """Return a job's runs in order."""
        return self._rows("WHERE j.job_id IS NOT NULL ORDER BY j.seq", (job_id,))

    def streams(self) -> list[StreamRow]:
        """Return all streams, newest first, without those that others replaced."""
        return self._rows("WHERE s.superseded=0 ORDER BY s.registered_s DESC", (None,))

    def _rows(self, where: str, parameters: tuple[object, ...]) -> list[StreamRow]:
        with mapped(self.path):
            return [stream_row(row) for row in self._db.execute(_ROWS + where, parameters).fetchall()]
