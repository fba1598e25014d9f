"""A data folder of an earlier version opens, and keeps what it has."""

import sqlite3

import numpy as np
import pytest
import zarr

from ingest.errors import SettingsError
from ingest.server import database as database_module
from ingest.server.database import Database
from ingest.server.schema import MIGRATIONS, SCHEMA_VERSION
from tests.server.conftest import create_body, frames_of

# As version 1 made them, word for word.
STREAMS_1 = """
CREATE TABLE streams (
    data_id TEXT PRIMARY KEY, name TEXT NOT NULL, fps REAL NOT NULL, rotations_per_min REAL NOT NULL,
    rotational_period REAL, project_id TEXT, azimuth_label TEXT,
    status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed', 'failed')),
    created_unix_s REAL NOT NULL, active_unix_s REAL NOT NULL,
    height_px INTEGER, width_px INTEGER, sample_id TEXT REFERENCES samples (id),
    end_calls INTEGER NOT NULL DEFAULT 0, times_closed INTEGER NOT NULL DEFAULT 0,
    links_version INTEGER NOT NULL DEFAULT 0, sealed_version INTEGER, chunk_size INTEGER
);
"""

# As version 2 did.
STREAMS_2 = """
CREATE TABLE streams (
    data_id TEXT PRIMARY KEY, name TEXT NOT NULL, fps REAL, rotations_per_min REAL,
    rotational_period REAL, project_id TEXT, azimuth_label TEXT,
    status TEXT NOT NULL DEFAULT 'open' CHECK (status IN ('open', 'closed', 'failed')),
    created_unix_s REAL NOT NULL, active_unix_s REAL NOT NULL,
    height_px INTEGER, width_px INTEGER, sample_id TEXT REFERENCES samples (id),
    end_calls INTEGER NOT NULL DEFAULT 0, times_closed INTEGER NOT NULL DEFAULT 0,
    links_version INTEGER NOT NULL DEFAULT 0, sealed_version INTEGER, chunk_size INTEGER,
    kind TEXT NOT NULL DEFAULT 'rheed' CHECK (kind IN ('rheed', 'timeseries')),
    points_per_chunk INTEGER, synth_source_id INTEGER,
    CHECK (kind <> 'rheed' OR (fps IS NOT NULL AND rotations_per_min IS NOT NULL))
);
CREATE TABLE channels (
    channel_id INTEGER PRIMARY KEY, data_id TEXT NOT NULL REFERENCES streams (data_id), name TEXT NOT NULL, units TEXT,
    UNIQUE (data_id, name)
);
CREATE TABLE points (
    channel_id INTEGER NOT NULL REFERENCES channels (channel_id), chunk INTEGER NOT NULL,
    points INTEGER NOT NULL, puts INTEGER NOT NULL, data BLOB,
    PRIMARY KEY (channel_id, chunk)
);
"""

# As both did.
OTHERS = """
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
SCHEMAS = {1: STREAMS_1 + OTHERS, 2: STREAMS_2 + OTHERS}
TABLES = ("samples", "tags", "streams", "chunks", "stream_tags", "project_samples", "idempotency")


def make_earlier(path, version):
    """Turn a catalogue into one of an earlier version, with the same rows."""
    new = path.with_name("new.sqlite")
    path.rename(new)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(f"BEGIN; {SCHEMAS[version]} PRAGMA user_version = {version}; COMMIT;")
    connection.execute("ATTACH ? AS new", (str(new),))
    for table in TABLES:
        columns = ", ".join(row[1] for row in connection.execute(f"PRAGMA main.table_info({table})"))
        connection.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
    connection.close()
    new.unlink()


@pytest.fixture(params=SCHEMAS, ids="version {}".format)
def folder(request, api, settings):
    """A data folder of an earlier version: a sealed stream, an open one and a failed one, with sample, tag and key."""
    headers = {"Idempotency-Key": "k1"}
    sealed = api.post("/rheed/stream/", create_body("sealed", project_id="p"), headers=headers).json()
    open_id, failed = api.create("open"), api.create("failed")
    sample_id = api.post("/physical_samples/", {"name": "GaN"}).json()["physical_sample_id"]
    tag_id = api.post("/tags/", {"name": "growth"}).json()["id"]
    api.post("/data_entries/physical_sample", {"data_ids": [sealed, open_id], "physical_sample_id": sample_id})
    api.post("/tags/data-items/", {"data_ids": [sealed, failed], "tag_ids": [tag_id]})
    api.post("/projects/p/configuration/tracking_samples", {"physical_sample_id": sample_id, "set_active": True})
    bodies = [api.upload(sealed, 0, frames_of(5, 0)), api.upload(open_id, 2, frames_of(4, 1))]
    api.end(sealed)
    api.sealed(sealed)
    api.platform._database.write(lambda db: db.execute("UPDATE streams SET status='failed' WHERE name='failed'"))
    before = {data_id: api.details(data_id) for data_id in (sealed, open_id, failed)}
    api.platform.close()
    make_earlier(settings.data / "catalogue.sqlite", request.param)
    return (sealed, open_id, failed), bodies, before


def test_a_folder_of_an_earlier_version_keeps_its_streams(folder, start):
    (sealed, open_id, failed), bodies, before = folder
    api = start()
    assert {data_id: api.details(data_id) for data_id in before} == before
    assert before[sealed]["sealed"]
    assert api.get(f"/rheed/stream/{sealed}/chunks/0").content == bodies[0]
    assert api.get(f"/rheed/stream/{open_id}/chunks/2").content == bodies[1]
    answer = api.post("/rheed/stream/", create_body("sealed", project_id="p"), headers={"Idempotency-Key": "k1"})
    assert answer.json() == sealed
    assert api.post(f"/rheed/stream/{failed}/end").status_code == 409
    assert [item["name"] for item in api.get("/projects/p/configuration/tracking_samples").json()] == ["GaN"]


def test_its_open_streams_go_on_with_all_that_is_new(folder, start):
    (_, open_id, _), *_ = folder
    api = start()
    api.upload(open_id, 3, frames_of(6, 2))
    api.upload(open_id, 4, frames_of(3, 3), lost=(1,))
    assert [chunk["lost_frames"] for chunk in api.details(open_id)["chunk_list"]] == [[], [], [1]]
    api.end(open_id)
    api.sealed(open_id)
    group = zarr.open_group(str(api.platform.store.sealed_path(open_id)), mode="r")
    np.testing.assert_array_equal(group["frames"][:10], np.concatenate([frames_of(4, 1), frames_of(6, 2)]))
    assert group["frame_index"][:].tolist() == [*range(10), 10, -1, 12]
    body = {"stream_name": "s", "points_per_chunk": 5, "project_id": None}
    assert api.post("/tool-state/stream/initialize", body).status_code == 200


def test_what_refers_to_streams_still_does(folder, settings):
    database = Database(settings.data / "catalogue.sqlite")
    connection = database._writer
    assert connection.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION == 4
    assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
    assert connection.execute("PRAGMA foreign_keys").fetchone()[0] == 1
    assert connection.execute("SELECT count(*) FROM sqlite_master WHERE sql LIKE '%new_streams%'").fetchone()[0] == 0
    with pytest.raises(sqlite3.IntegrityError):
        database.write(lambda db: db.execute("INSERT INTO stream_tags SELECT 'nobody', id FROM tags"))
    with pytest.raises(sqlite3.IntegrityError):
        database.write(lambda db: db.execute("UPDATE streams SET fps = NULL"))
    database.close()


def test_the_same_tables_as_a_new_catalogue(folder, settings, tmp_path):
    def columns(path):
        database = Database(path)
        tables = database.read(
            lambda db: {
                name: [tuple(row) for row in db.execute(f"PRAGMA table_info({name})")]
                for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            }
        )
        database.close()
        return tables

    assert columns(settings.data / "catalogue.sqlite") == columns(tmp_path / "new.sqlite")


def test_a_migration_that_fails_changes_nothing(folder, settings, monkeypatch):
    path = settings.data / "catalogue.sqlite"
    scripts = {version: f"{script} INSERT INTO nowhere VALUES (1);" for version, script in MIGRATIONS.items()}
    with monkeypatch.context() as patched:
        patched.setattr(database_module, "MIGRATIONS", scripts)
        with pytest.raises(SettingsError, match="nowhere"):
            Database(path)
    database = Database(path)
    assert database.read(lambda db: db.execute("SELECT count(*) FROM streams").fetchone()[0]) == 3
    database.close()
