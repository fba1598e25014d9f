"""The catalogue's tables, and the way there from each earlier version."""

from __future__ import annotations

__all__ = ["MIGRATIONS", "SCHEMA", "SCHEMA_VERSION"]

SCHEMA_VERSION = 4

# A time series has no fps; what only one kind of stream has may be NULL in the other.
_STREAM_COLUMNS = """
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
"""

_SERIES = """
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

# A right to upload one chunk to where its data lies, and what was last seen to have come of it.
_GRANTS = """
CREATE TABLE grants (
    number INTEGER PRIMARY KEY, data_id TEXT NOT NULL REFERENCES streams (data_id), chunk INTEGER NOT NULL,
    file TEXT NOT NULL, info TEXT NOT NULL, late_unix_s REAL NOT NULL,
    bytes INTEGER, crc32c INTEGER, etag TEXT, modified_unix_s REAL, is_shard INTEGER NOT NULL DEFAULT 0,
    UNIQUE (data_id, file)
);
"""

SCHEMA = f"""
CREATE TABLE streams ({_STREAM_COLUMNS});
CREATE TABLE chunks (
    data_id TEXT NOT NULL REFERENCES streams (data_id), chunk INTEGER NOT NULL,
    announced TEXT, urls INTEGER NOT NULL DEFAULT 0,
    stored TEXT, frames INTEGER NOT NULL DEFAULT 0, bytes INTEGER NOT NULL DEFAULT 0, crc32c INTEGER, file TEXT,
    puts INTEGER NOT NULL DEFAULT 0, first_frame INTEGER, frames_lost INTEGER NOT NULL DEFAULT 0, etag TEXT,
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
{_SERIES}
{_GRANTS}
"""

_V1_COLUMNS = (
    "data_id, name, fps, rotations_per_min, rotational_period, project_id, azimuth_label, status, created_unix_s,"
    " active_unix_s, height_px, width_px, sample_id, end_calls, times_closed, links_version, sealed_version, chunk_size"
)

_COPY = "INSERT INTO new_streams (" + _V1_COLUMNS + ") SELECT " + _V1_COLUMNS + " FROM streams;"  # noqa: S608

MIGRATIONS = {
    # Time series. SQLite cannot drop a NOT NULL, so the table is made anew; sealed streams stay sealed.
    1: f"""
    CREATE TABLE new_streams ({_STREAM_COLUMNS});
    {_COPY}
    DROP TABLE streams;
    ALTER TABLE new_streams RENAME TO streams;
    {_SERIES}
    """,
    # Lost frames: which they are stands in `stored`, where a program of version 2 would not know them.
    2: "ALTER TABLE chunks ADD COLUMN frames_lost INTEGER NOT NULL DEFAULT 0;",
    # Uploads past the server, whose CRC-32C nobody may know.
    3: f"ALTER TABLE chunks ADD COLUMN etag TEXT; {_GRANTS}",
}
"""The script that leads from each version to the next."""
