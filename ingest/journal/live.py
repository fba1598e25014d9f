"""Live streams in the journal: no plan, no source, only what a streamer's ``initialize`` was told."""

from __future__ import annotations

import hashlib
import sqlite3

from pydantic import TypeAdapter

from ingest.journal.database import Database, mapped
from ingest.journal.rows import LiveSettings, LiveStream
from ingest.ledger import StreamState
from ingest.plan import StreamSettings
from ingest.telemetry import Secret
from ingest.timeseries import TimeseriesSettings

__all__ = ["LiveJournal", "account_of"]

_SETTINGS: dict[str, TypeAdapter[LiveSettings]] = {
    "rheed": TypeAdapter(StreamSettings),
    "timeseries": TypeAdapter(TimeseriesSettings),
}


def account_of(destination: str, api_key: Secret | None) -> str:
    """Return what names a destination and a key without showing the key: 16 hex of a SHA-256 over both."""
    key = "" if api_key is None else api_key.reveal().strip()  # as it is sent: a file's key may end in a new line
    return hashlib.sha256(f"rheed-ingest account\0{destination}\0{key}".encode()).hexdigest()[:16]


def _live_stream(row: sqlite3.Row) -> LiveStream:
    return LiveStream(
        key=row["key"],
        settings=_SETTINGS[row["kind"]].validate_json(row["plan"]),
        state=StreamState(row["state"]),
        data_id=row["data_id"],
        epoch=row["epoch"],
        lease_holder=row["lease_holder"],
        lease_until_s=row["lease_until_s"],
        is_sealed=row["expected"] is not None,
        gone_reason=row["gone_reason"],
    )


class LiveJournal(Database):
    """The journal's part about live streams; see `Journal`."""

    def register_live(self, key: str, destination: str, account: str, settings: LiveSettings) -> None:
        """Enter a live stream under a key that its producer chose; safe to repeat.

        Parameters
        ----------
        key : str
            Random, 32 hex digits.
        destination : str
            Canonical URL.
        account : str
            See `account_of`.
        settings : StreamSettings or TimeseriesSettings
            What it is to be created with.
        """
        kind = "timeseries" if isinstance(settings, TimeseriesSettings) else "rheed"
        name = settings.name or "time series"
        with self._transaction():
            self._db.execute(
                "INSERT OR IGNORE INTO streams (key, destination, path, fingerprint, name, identity, plan, frames, "
                "bytes_in, state, registered_s, kind, account) VALUES (?,?,?,?,?,'{}',?,0,0,?,?,?,?)",
                (
                    key,
                    destination,
                    f"live:{name}",
                    key,
                    name,
                    _SETTINGS[kind].dump_json(settings),
                    StreamState.PLANNED,
                    self._clock(),
                    kind,
                    account,
                ),
            )

    def live_streams(self, account: str) -> list[LiveStream]:
        """Return an account's live streams that are not closed, oldest first."""
        with mapped(self.path):
            rows = self._db.execute(
                "SELECT * FROM streams WHERE kind IN ('rheed','timeseries') AND account=? AND state<>? "
                "ORDER BY registered_s",
                (account, StreamState.CLOSED),
            ).fetchall()
        return [_live_stream(row) for row in rows]

    def live_stream(self, key: str) -> LiveStream | None:
        """Return one live stream, closed or not; None: there is none of that key."""
        with mapped(self.path):
            row = self._db.execute(
                "SELECT * FROM streams WHERE kind IN ('rheed','timeseries') AND key=?", (key,)
            ).fetchone()
        return None if row is None else _live_stream(row)
