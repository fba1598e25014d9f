"""What the platform knows of uploads that go past it: what it granted, and what came of that."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ingest.server.catalogue import Catalogue
from ingest.server.messages import ChunkInfo

__all__ = ["GrantRow", "GrantingCatalogue", "Upload"]


@dataclass(frozen=True, slots=True)
class GrantRow:
    """The right to upload one chunk.

    Attributes
    ----------
    file : str
        Where to, below the stream's staging.
    index : int
        The chunk.
    info : ChunkInfo
        What was said of it.
    late_unix_s : float
        When nothing will come of it any more.
    etag : str or None
        Of what came, when last looked at; None: nothing.
    modified_unix_s : float or None
        When that came.
    """

    file: str
    index: int
    info: ChunkInfo
    late_unix_s: float
    etag: str | None
    modified_unix_s: float | None


@dataclass(frozen=True, slots=True)
class Upload:
    """What came of a grant.

    Attributes
    ----------
    file : str
        The grant's.
    n_bytes : int
        How much.
    etag : str
        What the store calls these bytes.
    modified_unix_s : float
        When, by the store's clock.
    crc32c : int or None
        Of the bytes; None: the store did not count it.
    is_shard : bool
        Whether it is a shard of as many frames as was said.
    """

    file: str
    n_bytes: int
    etag: str
    modified_unix_s: float
    crc32c: int | None
    is_shard: bool


class GrantingCatalogue(Catalogue):
    """RHEED streams whose chunks are uploaded straight to a store."""

    def grant(self, data_id: str, index: int, info: ChunkInfo, file: str, late_unix_s: float, now_s: float) -> None:
        """Record what a chunk will be, and where it will come to, on disk: without this nobody would look there.

        Raises
        ------
        ApiError
            As for `announce`.
        """

        def grant(db: sqlite3.Connection) -> None:
            self._announce(db, data_id, index, info, now_s)
            db.execute(
                "INSERT INTO grants (data_id, chunk, file, info, late_unix_s) VALUES (?, ?, ?, ?, ?)",
                (data_id, index, file, info.dumps(), late_unix_s),
            )

        self._database.write(grant)

    def grants(self, data_id: str) -> list[GrantRow]:
        """Return what was granted for a stream, in order."""
        query = (
            "SELECT file, chunk, info, late_unix_s, etag, modified_unix_s FROM grants WHERE data_id = ? ORDER BY number"
        )
        rows = self._database.read(lambda db: db.execute(query, (data_id,)).fetchall())
        return [GrantRow(file, index, ChunkInfo.loads(info), *seen) for file, index, info, *seen in rows]

    def awaiting(self, now_s: float) -> list[str]:
        """Return the open streams that have grants of which something may come yet."""
        query = (
            "SELECT DISTINCT data_id FROM grants JOIN streams USING (data_id)"
            " WHERE status = 'open' AND etag IS NULL AND late_unix_s > ?"
        )
        return self._database.read(lambda db: [row["data_id"] for row in db.execute(query, (now_s,))])

    def confirm(self, data_id: str, uploads: Sequence[Upload], now_s: float) -> None:
        """Record what came; of each chunk, the shard that came last counts. Nothing changes once the stream has ended.

        Parameters
        ----------
        data_id : str
            The stream.
        uploads : sequence of Upload
            As they lie in the store now.
        now_s : float
            An upload counts as a sign of life from when it came, but not from later.
        """

        def confirm(db: sqlite3.Connection) -> None:
            came_s = max((upload.modified_unix_s for upload in uploads if upload.is_shard), default=0.0)
            db.execute(
                "UPDATE streams SET active_unix_s = max(active_unix_s, ?) WHERE data_id = ?",
                (min(came_s, now_s), data_id),
            )
            if self._stream(db, data_id)["status"] != "open":
                return
            for index, puts in _note(db, data_id, uploads).items():
                _choose(db, data_id, index, puts)

        self._database.write(confirm)

    def mark_sealed(self, data_id: str, links_version: int) -> None:
        """Record that a closed stream lies in its final form; what was granted for it is forgotten."""

        def mark(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM grants WHERE data_id = ?", (data_id,))
            db.execute("UPDATE streams SET sealed_version = ? WHERE data_id = ?", (links_version, data_id))

        self._database.write(mark)

    def staged_files(self) -> dict[str, set[str]]:
        """Return the names of the staged files that count or may come to count, by stream that is not sealed."""
        files = super().staged_files()
        query = "SELECT data_id, file FROM grants JOIN streams USING (data_id) WHERE sealed_version IS NULL"
        for data_id, file in self._database.read(lambda db: db.execute(query).fetchall()):
            files[data_id].add(file)
        return files


def _note(db: sqlite3.Connection, data_id: str, uploads: Iterable[Upload]) -> dict[int, int]:
    """Note what came, and return how many new shards that are of each chunk of which anything is new."""
    puts: dict[int, int] = {}
    for upload in uploads:
        row = db.execute(
            # What somebody else saw later than this stays.
            "UPDATE grants SET bytes = ?, crc32c = ?, etag = ?, modified_unix_s = ?, is_shard = ? WHERE data_id = ?"
            " AND file = ? AND (etag IS NULL OR (modified_unix_s <= ? AND (etag, modified_unix_s) <> (?, ?)))"
            " RETURNING chunk",
            (
                upload.n_bytes,
                upload.crc32c,
                upload.etag,
                upload.modified_unix_s,
                upload.is_shard,
                data_id,
                upload.file,
                upload.modified_unix_s,
                upload.etag,
                upload.modified_unix_s,
            ),
        ).fetchone()
        if row is not None:
            puts[row["chunk"]] = puts.get(row["chunk"], 0) + upload.is_shard
    return puts


def _choose(db: sqlite3.Connection, data_id: str, index: int, puts: int) -> None:
    """Make the shard that came last the chunk's content; of two in one second, that of the later grant."""
    best = db.execute(
        "SELECT * FROM grants WHERE data_id = ? AND chunk = ? AND is_shard ORDER BY modified_unix_s DESC, number DESC"
        " LIMIT 1",
        (data_id, index),
    ).fetchone()
    info = None if best is None else ChunkInfo.loads(best["info"])
    values = (
        (None, 0, 0, 0, None, None, None)
        if info is None
        else (
            best["info"],
            info.frames,
            len(info.lost_frames),
            best["bytes"],
            best["crc32c"],
            best["etag"],
            best["file"],
        )
    )
    db.execute(
        "UPDATE chunks SET stored = ?, frames = ?, frames_lost = ?, bytes = ?, crc32c = ?, etag = ?, file = ?,"
        " puts = puts + ? WHERE data_id = ? AND chunk = ?",
        (*values, puts, data_id, index),
    )
