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
from ingest.server.schema import MIGRATIONS, SCHEMA, SCHEMA_VERSION

__all__ = ["SCHEMA_VERSION", "Database", "Operation"]

logger = logging.getLogger("rheed_ingest.server")

T = TypeVar("T")
Operation = Callable[[sqlite3.Connection], T]

MAX_GROUP = 128


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
    """Make the tables, or bring those of an earlier version up to date."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == SCHEMA_VERSION:
        return
    if version == 0:
        _run_script(connection, SCHEMA)
        return
    if version not in MIGRATIONS:
        connection.close()
        raise SettingsError(
            f"{path} has catalogue version {version}; this program knows {SCHEMA_VERSION} and those before",
            hint="use the version of rheed-ingest that made it, or another data folder",
        )
    # What rebuilds a table that others refer to needs this (sqlite.org/lang_altertable.html, section 7).
    connection.execute("PRAGMA foreign_keys = OFF")
    for step in range(version, SCHEMA_VERSION):
        _run_script(connection, MIGRATIONS[step], step + 1)
    connection.execute("PRAGMA foreign_keys = ON")
    logger.info("%s was of version %d, and is of version %d now", path, version, SCHEMA_VERSION)


def _run_script(connection: sqlite3.Connection, script: str, version: int = SCHEMA_VERSION) -> None:
    """Run a script and note the version that it leads to: all of it or nothing."""
    try:
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {version}; COMMIT;")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
