"""The catalogue's SQLite file: its schema, one writer thread that groups commits, and a reader."""

from __future__ import annotations

import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ingest.errors import SettingsError

__all__ = ["SCHEMA_VERSION", "Database"]

logger = logging.getLogger("rheed_ingest.server")

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

SCHEMA_VERSION = 1
MAX_GROUP = 128

SCHEMA = """
CREATE TABLE streams (
    data_id TEXT PRIMARY KEY, name TEXT NOT NULL, fps REAL NOT NULL, rotations_per_min REAL NOT NULL,
    rotational_period REAL, project_id TEXT, azimuth_label TEXT,
    status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed', 'failed')),
    created_unix_s REAL NOT NULL, active_unix_s REAL NOT NULL,
    height_px INTEGER, width_px INTEGER, sample_id TEXT REFERENCES samples (id),
    end_calls INTEGER NOT NULL DEFAULT 0, times_closed INTEGER NOT NULL DEFAULT 0,
    links_version INTEGER NOT NULL DEFAULT 0, sealed_version INTEGER, chunk_size INTEGER
);
CREATE TABLE chunks (
    data_id TEXT NOT NULL REFERENCES streams (data_id), chunk INTEGER NOT NULL,
    announced TEXT, urls INTEGER NOT NULL DEFAULT 0,
    stored TEXT, frames INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, crc32c INTEGER, file TEXT,
    puts INTEGER NOT NULL DEFAULT 0, first_frame INTEGER,
    PRIMARY KEY (data_id, chunk)
) WITHOUT ROWID;
CREATE TABLE samples (id TEXT PRIMARY KEY, name TEXT NOT NULL, name_key TEXT NOT NULL UNIQUE);
CREATE TABLE tags (id TEXT PRIMARY KEY, name TEXT NOT NULL, name_key TEXT NOT NULL UNIQUE);
CREATE TABLE stream_tags (
    data_id TEXT NOT NULL REFERENCES streams (data_id), tag_id TEXT NOT NULL REFERENCES tags (id),
    PRIMARY KEY (data_id, tag_id)
) WITHOUT ROWID;
CREATE TABLE project_samples (
    project_id TEXT NOT NULL, sample_id TEXT NOT NULL REFERENCES samples (id), active INTEGER NOT NULL,
    PRIMARY KEY (project_id, sample_id)
) WITHOUT ROWID;
CREATE TABLE idempotency (
    idempotency_key TEXT PRIMARY KEY, body_digest TEXT NOT NULL, data_id TEXT NOT NULL REFERENCES streams (data_id)
) WITHOUT ROWID;
"""


@dataclass(slots=True)
class _Task:
    operation: Operation[Any]
    future: Future[Any]
    durable: bool
    result: Any = None


class Database:
    """One SQLite file, WAL, made when it is not there.

    Parameters
    ----------
    path : Path
        The file.
    fsync : bool
        True: every write is on disk before its caller goes on.

    Raises
    ------
    SettingsError
        Not a catalogue, or of another version of this program.
    """

    def __init__(self, path: Path, *, fsync: bool = True) -> None:
        self._path = path
        try:
            self._writer = _connect(path, "FULL" if fsync else "NORMAL")
            _prepare(self._writer, path)
        except sqlite3.DatabaseError as exc:
            raise SettingsError(f"{path} is not a catalogue: {exc}") from exc
        self._reader = _connect(path, "NORMAL")
        self._reader_lock = threading.Lock()
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="catalogue", daemon=True)
        self._thread.start()

    def write(self, operation: Operation[T], *, durable: bool = True) -> T:
        """Run `operation` in a transaction in the writer thread and return what it returns.

        Parameters
        ----------
        operation : callable
            Gets the connection. What it raises undoes what it did, and is raised here.
        durable : bool, default True
            False: return as soon as it ran; it is committed soon after.
        """
        if self._closed:
            raise RuntimeError("the catalogue is closed")
        future: Future[T] = Future()
        self._tasks.put(_Task(operation, future, durable))
        return future.result()

    def read(self, operation: Operation[T]) -> T:
        """Run `operation`, which must only read, on what is committed."""
        with self._reader_lock:
            return operation(self._reader)

    def close(self) -> None:
        """Finish what was asked for and close the file."""
        if not self._closed:
            self._closed = True
            self._tasks.put(None)
            self._thread.join()
            with self._reader_lock:
                self._reader.close()
            self._writer.close()

    def _work(self) -> None:
        while True:
            task = self._tasks.get()
            group: list[_Task] = []
            while task is not None:
                group.append(task)
                if len(group) == MAX_GROUP:
                    break
                try:
                    task = self._tasks.get_nowait()
                except queue.Empty:
                    break
            if group:
                self._commit(group)
            if task is None:
                return

    def _commit(self, group: list[_Task]) -> None:
        """Run a group in one transaction: its commits share one fsync."""
        done: list[_Task] = []
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            done.extend(task for task in group if self._run(task))
            self._writer.execute("COMMIT")
        except sqlite3.Error as exc:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            logger.exception("the catalogue could not commit")
            for task in group:
                if not task.future.done():
                    task.future.set_exception(exc)
            return
        for task in done:
            if not task.future.done():
                task.future.set_result(task.result)

    def _run(self, task: _Task) -> bool:
        self._writer.execute("SAVEPOINT task")
        try:
            task.result = task.operation(self._writer)
        except Exception as exc:  # noqa: BLE001 - it belongs to the caller, who gets it
            self._writer.execute("ROLLBACK TO task")
            self._writer.execute("RELEASE task")
            task.future.set_exception(exc)
            return False
        self._writer.execute("RELEASE task")
        if not task.durable:
            task.future.set_result(task.result)
        return True


def _connect(path: Path, synchronous: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=30)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA foreign_keys = ON")
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        connection.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
    elif version != SCHEMA_VERSION:
        connection.close()
        raise SettingsError(
            f"{path} has catalogue version {version}; this program knows {SCHEMA_VERSION}",
            hint="use the version of rheed-ingest that made it, or another data folder",
        )
