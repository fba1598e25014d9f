import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ingest.errors import SettingsError
from ingest.server.database import Database

INSERT = "INSERT INTO tags VALUES (?, ?, ?)"


@pytest.fixture
def database(tmp_path):
    database = Database(tmp_path / "catalogue.sqlite", fsync=False)
    yield database
    database.close()


def names(database):
    return database.read(lambda db: [row["name"] for row in db.execute("SELECT name FROM tags ORDER BY name")])


def insert(name):
    return lambda db: db.execute(INSERT, (name, name, name)).rowcount


def test_what_was_written_is_there_after_reopening(database, tmp_path):
    assert database.write(insert("a")) == 1
    database.close()
    again = Database(tmp_path / "catalogue.sqlite")
    assert names(again) == ["a"]
    again.close()


def test_a_refused_operation_undoes_itself_and_nothing_else(database):
    """All three are queued while the first runs, so they share a transaction."""
    started, go = threading.Event(), threading.Event()

    def slow(db):
        started.set()
        go.wait(10)

    def refused(db):
        insert("b")(db)
        raise LookupError("no")

    with ThreadPoolExecutor(4) as pool:
        blocker = pool.submit(database.write, slow)
        started.wait(10)
        waiting = [pool.submit(database.write, operation) for operation in (insert("a"), refused, insert("c"))]
        go.set()
        blocker.result()
        assert isinstance(waiting[1].exception(), LookupError)
        assert [waiting[0].result(), waiting[2].result()] == [1, 1]
    assert names(database) == ["a", "c"]


def test_a_write_that_need_not_last_is_seen_by_the_next_write(database):
    database.write(insert("a"), durable=False)
    assert database.write(lambda db: db.execute("SELECT count(*) FROM tags").fetchone()[0]) == 1


def test_an_sql_error_reaches_its_caller(database):
    database.write(insert("a"))
    with pytest.raises(sqlite3.IntegrityError):
        database.write(insert("a"))
    assert database.write(insert("b")) == 1


def test_durability_is_as_asked(tmp_path):
    for fsync, level in ((True, 2), (False, 1)):
        database = Database(tmp_path / f"{fsync}.sqlite", fsync=fsync)
        assert database._writer.execute("PRAGMA synchronous").fetchone()[0] == level
        assert database.read(lambda db: db.execute("PRAGMA journal_mode").fetchone()[0]) == "wal"
        database.close()


def test_another_version_is_refused(tmp_path):
    path = tmp_path / "catalogue.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(SettingsError, match="version 99"):
        Database(path)


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "catalogue.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(SettingsError, match="is not a catalogue"):
        Database(path)


def test_a_closed_database_takes_nothing(database):
    database.close()
    database.close()
    with pytest.raises(RuntimeError, match="closed"):
        database.write(insert("a"))
