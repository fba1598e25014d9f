"""The ledger's durable form: a SQLite database (WAL, ``synchronous=FULL``)."""

from ingest.journal.database import default_state_dir
from ingest.journal.journal import Journal
from ingest.journal.rows import RegisteredRun, RunEnd, StreamRow

__all__ = ["Journal", "RegisteredRun", "RunEnd", "StreamRow", "default_state_dir"]
