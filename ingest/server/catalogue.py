"""What the platform knows of RHEED streams and their chunks; every method is one transaction."""

from __future__ import annotations

import sqlite3
import uuid
from dataclasses import asdict

from ingest.server.messages import ChunkInfo, NewStream
from ingest.server.problems import ApiError
from ingest.server.rows import ChunkRow, EndReport, StreamRow
from ingest.server.streams import Streams

__all__ = ["Catalogue"]


_STREAM_QUERY = """
SELECT s.data_id, s.name, s.fps, s.rotations_per_min, s.rotational_period, s.project_id, s.azimuth_label, s.status,
    s.created_unix_s, s.active_unix_s, s.height_px, s.width_px, s.end_calls, s.times_closed,
    s.links_version, s.sealed_version, s.chunk_size,
    s.sample_id, samples.name AS sample_name,
    (SELECT coalesce(sum(frames), 0) FROM chunks WHERE data_id = s.data_id) AS frames,
    (SELECT coalesce(sum(frames_lost), 0) FROM chunks WHERE data_id = s.data_id) AS frames_lost,
    (SELECT count(*) FROM chunks WHERE data_id = s.data_id AND stored IS NOT NULL) AS chunks
FROM streams s LEFT JOIN samples ON samples.id = s.sample_id
WHERE s.kind = 'rheed'
"""


class Catalogue(Streams[StreamRow]):
    """RHEED streams and chunks in the database."""

    kind = "rheed"
    query = _STREAM_QUERY
    row_type = StreamRow

    def create_stream(
        self, new: NewStream, now_s: float, *, idempotency_key: str | None = None, body_digest: str = ""
    ) -> str:
        """Create a stream, or find the one that the same key and body created; return its id.

        Raises
        ------
        ApiError
            422: the key was used with another body.
        """
        data_id = str(uuid.uuid4())

        def insert(db: sqlite3.Connection) -> str:
            db.execute(
                "INSERT INTO streams (data_id, name, fps, rotations_per_min, rotational_period, project_id,"
                " azimuth_label, created_unix_s, active_unix_s) VALUES (:data_id, :name, :fps, :rotations_per_min,"
                " :rotational_period, :project_id, :azimuth_label, :now_s, :now_s)",
                {**asdict(new), "data_id": data_id, "now_s": now_s},
            )
            return data_id

        return self._create(insert, idempotency_key, body_digest)

    def announce(self, data_id: str, index: int, info: ChunkInfo, now_s: float) -> None:
        """Record what a chunk will be; the first one decides the size of all frames.

        Raises
        ------
        ApiError
            404: no such stream; 409: it is closed or failed; 422: frames of another size.
        """
        # A lost announcement only makes the upload's signature the one proof of it, so nobody waits for the disk.
        self._database.write(lambda db: self._announce(db, data_id, index, info, now_s), durable=False)

    def _announce(self, db: sqlite3.Connection, data_id: str, index: int, info: ChunkInfo, now_s: float) -> None:
        row = self._open_stream(db, data_id, now_s)
        size = (row["height_px"], row["width_px"])
        if size != (None, None) and size != (info.height_px, info.width_px):
            raise ApiError(
                f"dims must have frames of {size[0]} x {size[1]} px as the stream's first chunk; "
                f"got {info.height_px} x {info.width_px}"
            )
        self._touch(db, data_id, info, now_s)
        db.execute(
            "INSERT INTO chunks (data_id, chunk, announced, urls) VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE"
            " SET announced = excluded.announced, urls = urls + 1",
            (data_id, index, info.dumps()),
        )

    def _touch(self, db: sqlite3.Connection, data_id: str, info: ChunkInfo, now_s: float) -> None:
        db.execute(
            "UPDATE streams SET active_unix_s = max(active_unix_s, ?), height_px = ?, width_px = ? WHERE data_id = ?",
            (now_s, info.height_px, info.width_px, data_id),
        )

    def store_chunk(
        self, data_id: str, index: int, info: ChunkInfo, *, n_bytes: int, crc32c: int, file: str, now_s: float
    ) -> str | None:
        """Make a staged file the chunk's content; return the name of the file that it replaces.

        Raises
        ------
        ApiError
            404: no such stream; 409: it is closed or failed.
        """

        def store(db: sqlite3.Connection) -> str | None:
            self._open_stream(db, data_id, now_s)
            old = db.execute("SELECT file FROM chunks WHERE data_id = ? AND chunk = ?", (data_id, index)).fetchone()
            db.execute(
                "INSERT INTO chunks (data_id, chunk, stored, frames, frames_lost, bytes, crc32c, file, puts)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT DO UPDATE SET stored = excluded.stored,"
                " frames = excluded.frames, frames_lost = excluded.frames_lost, bytes = excluded.bytes,"
                " crc32c = excluded.crc32c, file = excluded.file, puts = puts + 1",
                (data_id, index, info.dumps(), info.frames, len(info.lost_frames), n_bytes, crc32c, file),
            )
            self._touch(db, data_id, info, now_s)
            return None if old is None else old["file"]

        return self._database.write(store)

    def end_stream(self, data_id: str, now_s: float) -> EndReport:
        """Close a stream, once and for all, and say what it has; again: the same report.

        Raises
        ------
        ApiError
            404: no such stream; 409: it has failed.
        """

        def close(db: sqlite3.Connection) -> None:
            db.execute("UPDATE streams SET chunk_size = ? WHERE data_id = ?", (_place_frames(db, data_id), data_id))

        return self._end(data_id, now_s, close, lambda db: _report(_chunks(db, data_id)))

    def staged_files(self) -> dict[str, set[str]]:
        """Return the names of the staged files that count, by stream that is not sealed."""

        def staged(db: sqlite3.Connection) -> dict[str, set[str]]:
            files: dict[str, set[str]] = {
                row["data_id"]: set() for row in db.execute("SELECT data_id FROM streams WHERE sealed_version IS NULL")
            }
            for row in db.execute(
                "SELECT data_id, file FROM chunks JOIN streams USING (data_id)"
                " WHERE sealed_version IS NULL AND file IS NOT NULL"
            ):
                files[row["data_id"]].add(row["file"])
            return files

        return self._database.read(staged)

    def chunks(self, data_id: str) -> list[ChunkRow]:
        """Return the chunks of a stream that were announced or stored, in order."""
        return self._database.read(lambda db: _chunks(db, data_id))

    def chunk(self, data_id: str, index: int) -> ChunkRow | None:
        """Return one chunk; None: neither announced nor stored."""

        def chunk(db: sqlite3.Connection) -> ChunkRow | None:
            row = db.execute("SELECT * FROM chunks WHERE data_id = ? AND chunk = ?", (data_id, index)).fetchone()
            return None if row is None else _chunk_row(row)

        return self._database.read(chunk)


def _chunks(db: sqlite3.Connection, data_id: str) -> list[ChunkRow]:
    rows = db.execute("SELECT * FROM chunks WHERE data_id = ? ORDER BY chunk", (data_id,))
    return [_chunk_row(row) for row in rows]


def _chunk_row(row: sqlite3.Row) -> ChunkRow:
    return ChunkRow(
        index=row["chunk"],
        announced=None if row["announced"] is None else ChunkInfo.loads(row["announced"]),
        stored=None if row["stored"] is None else ChunkInfo.loads(row["stored"]),
        n_bytes=row["bytes"],
        crc32c=row["crc32c"],
        etag=row["etag"],
        file=row["file"],
        puts=row["puts"],
        first_frame=row["first_frame"],
    )


def _place_frames(db: sqlite3.Connection, data_id: str) -> int | None:
    """Give each chunk its place, and return what the first one declared as chunk size.

    A chunk that was announced and never came keeps the room that it said it needs.
    """
    places, next_frame = [], 0
    chunks = _chunks(db, data_id)
    for chunk in chunks:
        places.append((next_frame, data_id, chunk.index))
        next_frame += chunk.info.frames if chunk.info is not None else 0
    db.executemany("UPDATE chunks SET first_frame = ? WHERE data_id = ? AND chunk = ?", places)
    return chunks[0].info.chunk_size if chunks and chunks[0].info is not None else None


def _report(chunks: list[ChunkRow]) -> EndReport:
    stored = {chunk.index: chunk.stored.frames for chunk in chunks if chunk.stored is not None}
    known = max((chunk.index for chunk in chunks), default=-1) + 1
    return EndReport(sum(stored.values()), len(stored), tuple(i for i in range(known) if i not in stored))
