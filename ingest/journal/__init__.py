"""The ledger's durable form: a SQLite database (WAL, ``synchronous=FULL``)."""

from ingest.journal.database import JOURNAL_NAME, default_state_dir
from ingest.journal.journal import Journal
from ingest.journal.rows import LiveSettings, LiveStream, RegisteredRun, RunEnd, StreamRow

__all__ = [
    "JOURNAL_NAME",
    "Journal",
    "LiveSettings",
    "LiveStream",
    "RegisteredRun",
    "RunEnd",
    "StreamRow",
    "default_state_dir",
]
