"""What streams of every kind share in the catalogue: how they are made, whether they are open, how they end."""

from __future__ import annotations

import sqlite3
from typing import ClassVar, Literal

from ingest.server.database import Database, Operation
from ingest.server.problems import ApiError, no_such_stream

__all__ = ["Kind", "Streams", "tags_of"]

Kind = Literal["rheed", "timeseries"]


class Streams:
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
