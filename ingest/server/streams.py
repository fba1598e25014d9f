"""What streams of every kind share in the catalogue: how they are made, whether they are open, how they end."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from typing import ClassVar, Generic, Literal, TypeVar

from ingest.server.database import Database, Operation
from ingest.server.problems import ApiError, no_such_stream

__all__ = ["Kind", "Streams", "tags_of"]

RowT = TypeVar("RowT")
ReportT = TypeVar("ReportT")

Kind = Literal["rheed", "timeseries"]


class Streams(Generic[RowT]):
    """The streams in the database; the methods block, may be called from any thread, and are one transaction each.

    Parameters
    ----------
    database : Database
        Where they are.
    silent_stream_s : float
        An open stream that got nothing for so long counts as failed, whether or not `fail_silent` ran since.
    """

    kind: ClassVar[Kind] = "rheed"
    """Of the streams that the methods of a subclass are about."""
    query: ClassVar[str]
    """What is selected of each of them, as ``s``."""
    row_type: Callable[..., RowT]

    def __init__(self, database: Database, silent_stream_s: float) -> None:
        self._database = database
        self._silent_stream_s = silent_stream_s

    def fail_silent(self, now_s: float) -> int:
        """Mark the streams of all kinds that were silent for too long as failed; return how many."""

        def fail(db: sqlite3.Connection) -> int:
            limit = now_s - self._silent_stream_s
            return db.execute(
                "UPDATE streams SET status = 'failed' WHERE status = 'open' AND active_unix_s < ?", (limit,)
            ).rowcount

        return self._database.write(fail)

    def unsealed(self) -> list[str]:
        """Return the closed streams of all kinds that are not in their final form yet, oldest first."""
        return self._database.read(
            lambda db: [
                row["data_id"]
                for row in db.execute(
                    "SELECT data_id FROM streams WHERE status = 'closed'"
                    " AND coalesce(sealed_version, -1) < links_version ORDER BY created_unix_s"
                )
            ]
        )

    def closed_kind(self, data_id: str) -> Kind | None:
        """Return the kind of a stream if it is closed; None: it is open, failed or not there."""
        query = "SELECT kind FROM streams WHERE data_id = ? AND status = 'closed'"
        row = self._database.read(lambda db: db.execute(query, (data_id,)).fetchone())
        return None if row is None else row["kind"]

    def mark_sealed(self, data_id: str, links_version: int) -> None:
        """Record that a closed stream lies in its final form, with the links of `links_version`."""
        query = "UPDATE streams SET sealed_version = ? WHERE data_id = ?"
        self._database.write(lambda db: db.execute(query, (links_version, data_id)))

    def _create(self, insert: Operation[str], idempotency_key: str | None, body_digest: str) -> str:
        """Return the id that `insert` gives, or that of the stream that the same key and body created."""

        def create(db: sqlite3.Connection) -> str:
            if idempotency_key is None:
                return insert(db)
            row = db.execute(
                "SELECT body_digest, data_id FROM idempotency WHERE idempotency_key = ?", (idempotency_key,)
            ).fetchone()
            if row is not None and row["body_digest"] != body_digest:
                raise ApiError("this Idempotency-Key was used with another body")
            if row is not None:
                return str(row["data_id"])
            data_id = insert(db)
            db.execute("INSERT INTO idempotency VALUES (?, ?, ?)", (idempotency_key, body_digest, data_id))
            return data_id

        return self._database.write(create)

    def streams(self, now_s: float) -> list[RowT]:
        """Return all streams, oldest first."""

        def streams(db: sqlite3.Connection) -> list[RowT]:
            rows = db.execute(f"{self.query} ORDER BY created_unix_s, data_id").fetchall()
            tags = tags_of(db, None)
            return [self._row(row, tags.get(row["data_id"], ()), now_s) for row in rows]

        return self._database.read(streams)

    def stream(self, data_id: str, now_s: float) -> RowT:
        """Return one stream.

        Raises
        ------
        ApiError
            404: there is none.
        """

        def stream(db: sqlite3.Connection) -> RowT:
            row = db.execute(f"{self.query} AND s.data_id = ?", (data_id,)).fetchone()
            if row is None:
                raise no_such_stream(data_id)
            return self._row(row, tags_of(db, data_id).get(data_id, ()), now_s)

        return self._database.read(stream)

    def _row(self, row: sqlite3.Row, tags: Iterable[tuple[str, str]], now_s: float) -> RowT:
        values = dict(row)
        sample_id, sample_name = values.pop("sample_id"), values.pop("sample_name")
        if self._is_silent(row, now_s):
            values["status"] = "failed"
        sample = None if sample_id is None else (sample_id, sample_name)
        return self.row_type(**values, sample=sample, tags=tuple(tags))

    def _end(self, data_id: str, now_s: float, close: Operation[None], report: Operation[ReportT]) -> ReportT:
        """Have `close` close the stream if it is open, count the call, and return what `report` says."""

        def end(db: sqlite3.Connection) -> ReportT:
            if self._stream(db, data_id)["status"] != "closed":
                self._open_stream(db, data_id, now_s)
                close(db)
                db.execute(
                    "UPDATE streams SET status = 'closed', times_closed = times_closed + 1 WHERE data_id = ?",
                    (data_id,),
                )
            db.execute("UPDATE streams SET end_calls = end_calls + 1 WHERE data_id = ?", (data_id,))
            return report(db)

        return self._database.write(end)

    def _is_silent(self, row: sqlite3.Row, now_s: float) -> bool:
        return bool(row["status"] == "open" and row["active_unix_s"] < now_s - self._silent_stream_s)

    def _stream(self, db: sqlite3.Connection, data_id: str) -> sqlite3.Row:
        query = "SELECT * FROM streams WHERE data_id = ? AND kind = ?"
        row: sqlite3.Row | None = db.execute(query, (data_id, self.kind)).fetchone()
        if row is None:
            raise no_such_stream(data_id)
        return row

    def _open_stream(self, db: sqlite3.Connection, data_id: str, now_s: float) -> sqlite3.Row:
        row = self._stream(db, data_id)
        if row["status"] == "failed" or self._is_silent(row, now_s):
            raise ApiError(
                f"stream {data_id} failed: it got nothing for {self._silent_stream_s:g} s, and takes no more",
                status=409,
            )
        if row["status"] != "open":
            raise ApiError(f"stream {data_id} is closed, and takes no more", status=409)
        return row


def tags_of(db: sqlite3.Connection, data_id: str | None) -> dict[str, list[tuple[str, str]]]:
    """Return id and name of the tags of one stream, or of all, by stream."""
    tags: dict[str, list[tuple[str, str]]] = {}
    for row in db.execute(
        "SELECT data_id, id, name FROM stream_tags JOIN tags ON tags.id = tag_id"
        " WHERE ?1 IS NULL OR data_id = ?1 ORDER BY name_key",
        (data_id,),
    ):
        tags.setdefault(row["data_id"], []).append((row["id"], row["name"]))
    return tags
