"""What the platform knows of time-series streams, their channels and points; every method is one transaction."""

from __future__ import annotations

import sqlite3
import uuid
from collections.abc import Iterable
from dataclasses import asdict, replace

from ingest.server.problems import ApiError
from ingest.server.rows import ChannelRow, PointsRow, SeriesReport, SeriesRow
from ingest.server.series_messages import ChannelPoints, NewSeries, PointsChunk
from ingest.server.streams import Streams

__all__ = ["SeriesCatalogue", "processed_id"]

DEFAULT_NAME = "Time series"


def processed_id(data_id: str) -> str:
    """Return the ``processed_data_id`` of a stream, always the same."""
    return str(uuid.uuid5(uuid.UUID(data_id), "processed"))


_SERIES_QUERY = """
SELECT s.data_id, s.name, s.points_per_chunk, s.synth_source_id, s.project_id, s.status,
    s.created_unix_s, s.active_unix_s, s.end_calls, s.times_closed, s.links_version, s.sealed_version,
    s.sample_id, samples.name AS sample_name,
    (SELECT coalesce(sum(points), 0) FROM points JOIN channels c USING (channel_id) WHERE c.data_id = s.data_id)
        AS points,
    (SELECT count(DISTINCT chunk) FROM points JOIN channels c USING (channel_id) WHERE c.data_id = s.data_id) AS chunks,
    (SELECT coalesce(sum(puts), 0) FROM points JOIN channels c USING (channel_id) WHERE c.data_id = s.data_id) AS puts
FROM streams s LEFT JOIN samples ON samples.id = s.sample_id
WHERE s.kind = 'timeseries'
"""


class SeriesCatalogue(Streams[SeriesRow]):
    """Time-series streams in the database, with a packed blob for each channel and chunk until they are sealed."""

    kind = "timeseries"
    query = _SERIES_QUERY
    row_type = SeriesRow

    def create_stream(
        self, new: NewSeries, now_s: float, *, idempotency_key: str | None = None, body_digest: str = ""
    ) -> str:
        """Create a stream, or find the one that the same key and body created; return its id.

        Raises
        ------
        ApiError
            422: the key was used with another body.
        """
        data_id = str(uuid.uuid4())
        named = replace(new, name=new.name or f"{DEFAULT_NAME} {data_id[:8]}")

        def insert(db: sqlite3.Connection) -> str:
            db.execute(
                "INSERT INTO streams (kind, data_id, name, points_per_chunk, synth_source_id, project_id,"
                " created_unix_s, active_unix_s) VALUES ('timeseries', :data_id, :name, :points_per_chunk,"
                " :synth_source_id, :project_id, :now_s, :now_s)",
                {**asdict(named), "data_id": data_id, "now_s": now_s},
            )
            return data_id

        return self._create(insert, idempotency_key, body_digest)

    def store_points(self, chunk: PointsChunk, now_s: float) -> None:
        """Store a chunk of one or more channels; what is there already of the same index is overwritten.

        Raises
        ------
        ApiError
            404: no such stream; 409: it is closed or failed.
        """

        def store(db: sqlite3.Connection) -> None:
            self._open_stream(db, chunk.data_id, now_s)
            ids = _channel_ids(db, chunk.data_id, chunk.channels)
            db.executemany(
                "INSERT INTO points (channel_id, chunk, points, puts, data) VALUES (?, ?, ?, 1, ?)"
                " ON CONFLICT DO UPDATE SET points = excluded.points, data = excluded.data, puts = puts + 1",
                [(ids[channel.name], chunk.index, channel.points, channel.data) for channel in chunk.channels],
            )
            db.execute(
                "UPDATE streams SET active_unix_s = max(active_unix_s, ?) WHERE data_id = ?", (now_s, chunk.data_id)
            )

        self._database.write(store)

    def end_stream(self, data_id: str, now_s: float) -> SeriesReport:
        """Close a stream, once and for all, and say what it has; again: the same report.

        Raises
        ------
        ApiError
            404: no such stream; 409: it has failed.
        """

        def report(db: sqlite3.Connection) -> SeriesReport:
            row = db.execute(
                "SELECT count(DISTINCT channel_id), count(DISTINCT chunk), coalesce(sum(points), 0)"
                " FROM points JOIN channels USING (channel_id) WHERE data_id = ?",
                (data_id,),
            ).fetchone()
            return SeriesReport(*row)

        return self._end(data_id, now_s, lambda _: None, report)

    def mark_sealed(self, data_id: str, links_version: int) -> None:
        """Record that a closed stream lies in its final form; its points are no longer kept here."""

        def mark(db: sqlite3.Connection) -> None:
            db.execute(
                "UPDATE points SET data = NULL WHERE data IS NOT NULL"
                " AND channel_id IN (SELECT channel_id FROM channels WHERE data_id = ?)",
                (data_id,),
            )
            db.execute("UPDATE streams SET sealed_version = ? WHERE data_id = ?", (links_version, data_id))

        self._database.write(mark)

    def channels(self, data_id: str) -> list[ChannelRow]:
        """Return the channels of a stream in the order of their first chunks' coming."""

        def channels(db: sqlite3.Connection) -> list[ChannelRow]:
            chunks: dict[int, list[PointsRow]] = {}
            for row in db.execute(
                "SELECT channel_id, chunk, points, puts FROM points JOIN channels USING (channel_id)"
                " WHERE data_id = ? ORDER BY channel_id, chunk",
                (data_id,),
            ):
                channel_id, *chunk = row
                chunks.setdefault(channel_id, []).append(PointsRow(*chunk))
            rows = db.execute("SELECT * FROM channels WHERE data_id = ? ORDER BY channel_id", (data_id,))
            return [
                ChannelRow(row["channel_id"], row["name"], row["units"], tuple(chunks.get(row["channel_id"], ())))
                for row in rows
            ]

        return self._database.read(channels)

    def channel(self, data_id: str, name: str) -> ChannelRow:
        """Return one channel of a stream.

        Raises
        ------
        ApiError
            404: there is none.
        """

        def channel(db: sqlite3.Connection) -> ChannelRow:
            row = db.execute("SELECT * FROM channels WHERE data_id = ? AND name = ?", (data_id, name)).fetchone()
            if row is None:
                raise ApiError(f"stream {data_id} has no channel {name!r}", status=404)
            chunks = db.execute(
                "SELECT chunk, points, puts FROM points WHERE channel_id = ? ORDER BY chunk", (row["channel_id"],)
            )
            return ChannelRow(
                row["channel_id"], row["name"], row["units"], tuple(PointsRow(*chunk) for chunk in chunks)
            )

        return self._database.read(channel)

    def held(self, channel_id: int) -> list[tuple[PointsRow, bytes]] | None:
        """Return the chunks of a channel in order, with `ChannelPoints.data`; None: sealed, and not held here."""

        def held(db: sqlite3.Connection) -> list[tuple[PointsRow, bytes]] | None:
            rows = db.execute(
                "SELECT chunk, points, puts, data FROM points WHERE channel_id = ? ORDER BY chunk", (channel_id,)
            ).fetchall()
            if any(row["data"] is None for row in rows):
                return None
            return [(PointsRow(row["chunk"], row["points"], row["puts"]), row["data"]) for row in rows]

        return self._database.read(held)


def _channel_ids(db: sqlite3.Connection, data_id: str, channels: Iterable[ChannelPoints]) -> dict[str, int]:
    """Return the ids of channels by name, made where they are new; units that a client gives replace older ones."""
    known = {
        row["name"]: (row["channel_id"], row["units"])
        for row in db.execute("SELECT channel_id, name, units FROM channels WHERE data_id = ?", (data_id,))
    }
    ids = {}
    for channel in channels:
        channel_id, units = known.get(channel.name, (None, None))
        if channel_id is None:
            channel_id = db.execute(
                "INSERT INTO channels (data_id, name, units) VALUES (?, ?, ?)", (data_id, channel.name, channel.units)
            ).lastrowid
        elif channel.units not in (None, units):
            db.execute("UPDATE channels SET units = ? WHERE channel_id = ?", (channel.units, channel_id))
        ids[channel.name] = int(channel_id or 0)
    return ids
