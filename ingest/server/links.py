"""Samples, projects and tags, and which streams they are linked to."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Sequence

from ingest.server.database import Database
from ingest.server.problems import ApiError, no_such_stream

__all__ = ["Links"]


class Links:
    """Samples, projects and tags in the database; the methods block and may be called from any thread.

    Parameters
    ----------
    database : Database
        Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def samples(self) -> list[dict[str, str]]:
        """Return id and name of every sample, by name."""
        return self._database.read(lambda db: _names(db, "samples"))

    def tags(self) -> list[dict[str, str]]:
        """Return id and name of every tag, by name."""
        return self._database.read(lambda db: _names(db, "tags"))

    def create_sample(self, name: str) -> str:
        """Create a sample and return its id.

        Raises
        ------
        ApiError
            409 with the id of the sample that has the name already, ignoring case.
        """

        def create(db: sqlite3.Connection) -> str:
            sample_id, new = _create(db, "samples", name)
            if not new:
                detail = {"physical_sample_id": sample_id, "message": f"there is a sample {name!r}"}
                raise ApiError(f"there is a sample {name!r}", status=409, detail=detail)
            return sample_id

        return self._database.write(create)

    def create_tag(self, name: str) -> str:
        """Create a tag and return its id.

        Raises
        ------
        ApiError
            400: there is one of this name, ignoring case.
        """

        def create(db: sqlite3.Connection) -> str:
            tag_id, new = _create(db, "tags", name)
            if not new:
                raise ApiError(f"there is a tag {name!r}", status=400)
            return tag_id

        return self._database.write(create)

    def link_sample(self, data_ids: Sequence[str], sample_id: str) -> None:
        """Say of which sample streams are; again: another sample replaces it.

        Raises
        ------
        ApiError
            404: no such stream or sample, and nothing is linked.
        """

        def link(db: sqlite3.Connection) -> None:
            _require(db, "samples", sample_id, "sample")
            _touch(db, data_ids)
            db.executemany("UPDATE streams SET sample_id = ? WHERE data_id = ?", [(sample_id, i) for i in data_ids])

        self._database.write(link)

    def link_tags(self, data_ids: Sequence[str], tag_ids: Sequence[str]) -> None:
        """Add tags to streams.

        Raises
        ------
        ApiError
            404: no such stream or tag, and nothing is linked.
        """

        def link(db: sqlite3.Connection) -> None:
            for tag_id in tag_ids:
                _require(db, "tags", tag_id, "tag")
            _touch(db, data_ids)
            pairs = [(data_id, tag_id) for data_id in data_ids for tag_id in tag_ids]
            db.executemany("INSERT OR IGNORE INTO stream_tags VALUES (?, ?)", pairs)

        self._database.write(link)

    def track_sample(self, project_id: str, sample_id: str, *, active: bool) -> None:
        """Let a project track a sample; `active` makes it the only active one.

        Raises
        ------
        ApiError
            404: no such sample.
        """

        def track(db: sqlite3.Connection) -> None:
            _require(db, "samples", sample_id, "sample")
            if active:
                db.execute("UPDATE project_samples SET active = 0 WHERE project_id = ?", (project_id,))
            db.execute(
                "INSERT INTO project_samples VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET active = excluded.active",
                (project_id, sample_id, active),
            )

        self._database.write(track)

    def tracked_samples(self, project_id: str) -> list[dict[str, object]]:
        """Return the samples that a project tracks, with id, name and whether it is the active one."""

        def tracked(db: sqlite3.Connection) -> list[dict[str, object]]:
            rows = db.execute(
                "SELECT id, name, active FROM project_samples JOIN samples ON id = sample_id WHERE project_id = ?"
                " ORDER BY name_key",
                (project_id,),
            )
            return [
                {"physical_sample_id": row["id"], "name": row["name"], "active": bool(row["active"])} for row in rows
            ]

        return self._database.read(tracked)


# Table names below are literals of this module, never a client's text.


def _names(db: sqlite3.Connection, table: str) -> list[dict[str, str]]:
    rows = db.execute(f"SELECT id, name FROM {table} ORDER BY name_key")  # noqa: S608
    return [{"id": row["id"], "name": row["name"]} for row in rows]


def _create(db: sqlite3.Connection, table: str, name: str) -> tuple[str, bool]:
    key = name.strip().casefold()
    row = db.execute(f"SELECT id FROM {table} WHERE name_key = ?", (key,)).fetchone()  # noqa: S608
    if row is not None:
        return row["id"], False
    new_id = str(uuid.uuid4())
    db.execute(f"INSERT INTO {table} VALUES (?, ?, ?)", (new_id, name.strip(), key))  # noqa: S608
    return new_id, True


def _require(db: sqlite3.Connection, table: str, row_id: str, what: str) -> None:
    if db.execute(f"SELECT 1 FROM {table} WHERE id = ?", (row_id,)).fetchone() is None:  # noqa: S608
        raise ApiError(f"there is no {what} {row_id!r}", status=404)


def _touch(db: sqlite3.Connection, data_ids: Sequence[str]) -> None:
    for data_id in data_ids:
        changed = db.execute(
            "UPDATE streams SET links_version = links_version + 1 WHERE data_id = ?", (data_id,)
        ).rowcount
        if not changed:
            raise no_such_stream(data_id)
