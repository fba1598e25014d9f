"""What moving parked chunks over asks of the journal."""

from __future__ import annotations

from ingest.journal.database import mapped
from ingest.journal.live import LiveJournal

__all__ = ["ReconcilingJournal"]


class ReconcilingJournal(LiveJournal):
    """The journal's part about streams that a job goes on with, without their sources; see `Journal`."""

    def current_key(self, key: str) -> str | None:
        """Return the key of the stream that stands for one now: itself, or what replaced it; None: it is not known."""
        with mapped(self.path):
            row = self._db.execute("SELECT superseded_by FROM streams WHERE key=?", (key,)).fetchone()
            while row is not None and row["superseded_by"]:
                key = str(row["superseded_by"])
                row = self._db.execute("SELECT superseded_by FROM streams WHERE key=?", (key,)).fetchone()
        return None if row is None else key

    def keys_of(self, destination: str, path: str) -> list[str]:
        """Return the keys of the archived streams of a source at a destination, without those that others replaced."""
        with mapped(self.path):
            rows = self._db.execute(
                "SELECT key FROM streams WHERE destination=? AND path=? AND superseded=0 AND kind LIKE 'archive%' "
                "ORDER BY registered_s DESC",
                (destination, path),
            ).fetchall()
        return [row["key"] for row in rows]

    def enter(self, job_id: str, seq: int, key: str) -> None:
        """Make a stream that is there one of a job's runs. Safe to repeat."""
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO job_runs (job_id, seq, key, resumed, started_s) "
                "SELECT ?, ?, ?, (SELECT count(*) FROM receipts WHERE key=?), ?",
                (job_id, seq, key, key, self._clock()),
            )
