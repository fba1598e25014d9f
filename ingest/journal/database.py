"""The journal's SQLite file: opening it safely, one immediate transaction at a time, its errors as ours."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ingest.errors import JournalCorruptError, JournalWriteError

__all__ = ["JOURNAL_NAME", "Database", "default_state_dir", "mapped", "refuse_network_file_system"]

JOURNAL_NAME = "journal.sqlite"

SCHEMA_VERSION = 4
SCHEMA = """
CREATE TABLE IF NOT EXISTS streams (
    key TEXT PRIMARY KEY, destination TEXT NOT NULL, path TEXT NOT NULL, fingerprint TEXT NOT NULL, name TEXT NOT NULL,
    identity TEXT NOT NULL, plan BLOB NOT NULL, frames INTEGER NOT NULL, bytes_in INTEGER NOT NULL,
    state TEXT NOT NULL, data_id TEXT, expected INTEGER, gone_reason TEXT,
    epoch INTEGER NOT NULL DEFAULT 0, lease_holder TEXT, lease_until_s REAL NOT NULL DEFAULT 0,
    registered_s REAL NOT NULL, closed_s REAL, replaces TEXT,
    superseded INTEGER NOT NULL DEFAULT 0, superseded_by TEXT,
    kind TEXT NOT NULL DEFAULT 'archive', account TEXT, holes TEXT);
CREATE INDEX IF NOT EXISTS streams_by_fingerprint ON streams (destination, fingerprint);
CREATE INDEX IF NOT EXISTS streams_by_path ON streams (destination, path);
CREATE TABLE IF NOT EXISTS receipts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, idx INTEGER NOT NULL, frames INTEGER NOT NULL,
    start_ms INTEGER NOT NULL, end_ms INTEGER NOT NULL, n_bytes INTEGER NOT NULL, crc32c INTEGER NOT NULL,
    frames_digest TEXT NOT NULL, etag TEXT, attempts INTEGER NOT NULL, node TEXT NOT NULL, put_ms INTEGER NOT NULL,
    epoch INTEGER NOT NULL, revision INTEGER NOT NULL DEFAULT 0, label TEXT, lost_frames TEXT, UNIQUE (key, idx));
CREATE TABLE IF NOT EXISTS losses (
    key TEXT NOT NULL, idx INTEGER NOT NULL, reason TEXT NOT NULL, PRIMARY KEY (key, idx));
CREATE TABLE IF NOT EXISTS job_runs (
    job_id TEXT NOT NULL, seq INTEGER NOT NULL, key TEXT NOT NULL, resumed INTEGER NOT NULL, same_as TEXT, plan BLOB,
    note TEXT, status TEXT, error TEXT, hint TEXT, started_s REAL NOT NULL, ended_s REAL,
    parked INTEGER NOT NULL DEFAULT 0, PRIMARY KEY (job_id, key));
"""
# What each version lacked, by the version that had it not.
MIGRATIONS = {
    1: (
        "ALTER TABLE streams ADD COLUMN kind TEXT NOT NULL DEFAULT 'archive'",
        "ALTER TABLE streams ADD COLUMN account TEXT",
        "ALTER TABLE streams ADD COLUMN holes TEXT",
        "ALTER TABLE receipts ADD COLUMN label TEXT",
    ),
    2: ("ALTER TABLE receipts ADD COLUMN lost_frames TEXT",),
    3: ("ALTER TABLE job_runs ADD COLUMN parked INTEGER NOT NULL DEFAULT 0",),
}
NETWORK_FILE_SYSTEMS = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "ceph",
        "lustre",
        "gpfs",
        "beegfs",
        "9p",
        "fuse.sshfs",
        "fuse.glusterfs",
    }
)
BUSY_TIMEOUT_S = 30.0


def default_state_dir(environ: dict[str, str] | os._Environ[str] = os.environ) -> Path:
    """Return the user's folder for journals: ``$XDG_STATE_HOME/rheed-ingest``, else ``~/.local/state/rheed-ingest``."""
    home = environ.get("XDG_STATE_HOME")
    return (Path(home) if home else Path.home() / ".local" / "state") / "rheed-ingest"


@contextmanager
def mapped(path: Path) -> Iterator[None]:
    """Raise SQLite's errors as ours."""
    try:
        yield
    except sqlite3.Error as exc:
        text = str(exc)
        if isinstance(exc, sqlite3.OperationalError) and "malformed" not in text:
            raise JournalWriteError(
                f"the journal {path} cannot be used: {text}",
                hint="free disk space or fix the permission, then run the same command again: it resumes",
            ) from exc
        raise JournalCorruptError(
            f"the journal {path} is damaged: {text}",
            hint="move it away (keep it: it records what was sent) and run again; everything is then sent anew",
        ) from exc


def refuse_network_file_system(folder: Path, mounts: str | None = None) -> None:
    """Raise JournalWriteError if `folder` is on a network file system, where SQLite's WAL is not safe.

    Parameters
    ----------
    folder : Path
        Where a journal should be.
    mounts : str, optional
        Text in the form of ``/proc/self/mounts``; default: that file, where there is one.
    """
    if mounts is None:
        table = Path("/proc/self/mounts")
        mounts = table.read_text() if table.exists() else ""
    best = ("", "")
    real = os.path.realpath(folder)
    for line in mounts.splitlines():
        fields = line.split()
        if len(fields) < 3:
            continue
        point = fields[1].replace("\\040", " ")
        if (real + "/").startswith(point.rstrip("/") + "/") and len(point) >= len(best[0]):
            best = (point, fields[2])
    if best[1] in NETWORK_FILE_SYSTEMS:
        raise JournalWriteError(
            f"the journal cannot be in {folder}: {best[0]} is a network file system ({best[1]}), on which SQLite can "
            "lose what it confirmed",
            hint="pass --state with a folder on a local disk",
        )


class Database:
    """An open journal file. Not for pickling; for one thread at a time.

    Parameters
    ----------
    folder : Path
        Where ``journal.sqlite`` is or will be.
    clock : callable
        Returns Unix seconds.

    Raises
    ------
    JournalCorruptError
        The file is not a journal of ours, or damaged.
    JournalWriteError
        It cannot be written, or lies on a network file system.
    """

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self.path = folder / JOURNAL_NAME
        self._clock = clock
        refuse_network_file_system(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise JournalWriteError(
                f"the journal's folder {folder} cannot be made: {exc.strerror}", hint="pass --state with another folder"
            ) from exc
        with mapped(self.path):
            self._db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
            self._db.row_factory = sqlite3.Row
            try:
                self._open()
            except BaseException:
                self._db.close()
                raise

    def _open(self) -> None:
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version != 0 and version != SCHEMA_VERSION and version not in MIGRATIONS:
            raise JournalCorruptError(
                f"the journal {self.path} has schema {version}; this version of rheed-ingest knows {SCHEMA_VERSION}",
                hint="use the version that wrote it, or pass --state with another folder",
            )
        self._to_wal()
        self._db.execute("PRAGMA synchronous=FULL")
        if version == 0:
            if self._db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                tables = {row[0] for row in self._db.execute("SELECT name FROM sqlite_master WHERE type='table'")}
                if "streams" not in tables:
                    raise sqlite3.DatabaseError("it is a SQLite file, but not a journal")
            with self._transaction():
                for statement in SCHEMA.split(";"):
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        elif version != SCHEMA_VERSION:
            self._migrate()

    def _migrate(self) -> None:
        with self._transaction():
            # Read again: another process may have done it just now.
            version = self._db.execute("PRAGMA user_version").fetchone()[0]
            while version in MIGRATIONS:
                for statement in MIGRATIONS[version]:
                    self._db.execute(statement)
                version += 1
            self._db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")

    def _to_wal(self) -> None:
        # SQLite's own busy time-out does not hold here: it answers at once if another process makes the file just now.
        patience_ends_s = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as exc:
                if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > patience_ends_s:
                    raise
            time.sleep(0.01)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with mapped(self.path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
