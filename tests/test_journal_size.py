"""A journal of a stream of very many chunks: it opens in seconds."""

from __future__ import annotations

import time
from pathlib import Path

from ingest.journal import Journal
from ingest.ledger import ChunkConfirmed, CreateBegun, StreamCreated, StreamLinked, StreamState
from tests.test_ledger import receipt
from tests.test_plan import plan, source

JOB = "job"
TO = "/lake"
CHUNKS = 100_000


def journal_of(state: Path, chunks: int) -> str:
    """Make a journal that holds one stream, all of it confirmed and not closed; return the stream's key."""
    journal = Journal(state, time.time)
    made = plan(source(2 * chunks, fps=1.0), chunk_size=2, for_lake=True, for_platform=False)
    key = journal.register(JOB, 0, TO, "/data/run.h5", made).key
    epoch = journal.lease(key, JOB, 60.0)
    events = [
        CreateBegun(),
        StreamCreated("run-1"),
        StreamLinked(),
        *(ChunkConfirmed(receipt(i)) for i in range(chunks)),
    ]
    journal.record(key, epoch, events)
    journal.close()
    return key


def test_a_hundred_thousand_chunks_open_in_seconds(tmp_path):
    key = journal_of(tmp_path, CHUNKS)
    began_s = time.perf_counter()
    journal = Journal(tmp_path, time.time)
    [row] = journal.job(JOB)
    ledger = journal.load(key)
    made = journal.plan(key, JOB)
    again = journal.register("again", 0, TO, "/data/run.h5", made)
    took_s = time.perf_counter() - began_s
    journal.close()
    assert (row.state, row.chunks, row.confirmed) == (StreamState.OPEN, CHUNKS, CHUNKS)
    assert ledger.missing() == ()
    assert (len(made.chunks), again.key, again.confirmed) == (CHUNKS, key, CHUNKS)
    assert took_s < 10  # 0.6 s alone on two processors
