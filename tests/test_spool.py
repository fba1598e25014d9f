"""The spool: what it acknowledged survives any death, what is not whole is never seen, and it keeps to its room."""

from __future__ import annotations

import errno
import json
import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import google_crc32c
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ingest.chunks import ChunkLabel, EncodedChunk
from ingest.errors import (
    SettingsError,
    SpoolDamagedError,
    SpoolError,
    SpoolFullError,
    SpoolGoneError,
    SpoolReadError,
    SpoolWriteError,
)
from ingest.shard import Shard
from ingest.spool import Spool, SpoolLimits
from ingest.timeseries import TimeseriesMeta
from ingest.wire.models import ChunkMetadata

ROOT = Path(__file__).parent.parent
KEY, OTHER_KEY = "0123456789abcdef" * 2, "f" * 32
DESTINATION = "https://platform.example"
BLOCK = 4096
FRAMES_META = ChunkMetadata(3, 4, 5, 10, 20.0, True, 1_700_000_000_000, -12, 3.5)
LOSSY_META = ChunkMetadata(3, 4, 5, 10, 20.0, True, 1_700_000_000_000, lost_frames=(0, 2))
SERIES_META = TimeseriesMeta(7, ("T", "p / mbar"), 20, 1, 2, True)


def make_chunk(seq: int = 0, index: int | None = None, *, key: str = KEY, parts=(b"abc", b"defg"), meta=FRAMES_META):
    body = Shard(tuple(parts), sum(map(len, parts)))
    label = ChunkLabel(key, "data-1", seq, seq if index is None else index, meta, "0f" * 16)
    return EncodedChunk(label, body, body.crc32c())


def make_spool(tmp_path: Path, limits: SpoolLimits | None = None, free=lambda folder: 10**12, **more) -> Spool:
    return Spool(tmp_path / "spool", DESTINATION, limits, free, **more)


def names(spool: Spool, key: str = KEY) -> list[str]:
    folder = spool.folder / key
    return sorted(os.listdir(folder)) if folder.exists() else []


class FsyncLog:
    """Fsyncs, and remembers of what, and which chunks were visible then; `fail` maps a call's number to an errno."""

    def __init__(self, folder: Path, fail: dict[int, int] | None = None) -> None:
        self.folder, self.fail = folder, fail or {}
        self.calls: list[tuple[str, int]] = []
        self._lock = threading.Lock()

    def __call__(self, fd: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{fd}"))
        with self._lock:
            number = len(self.calls)
            kind = "part" if path.suffix == ".part" else os.path.relpath(path, self.folder.parent)
            self.calls.append((kind, len(list(self.folder.glob("*/*.chunk")))))
        if number in self.fail:
            raise OSError(self.fail[number], os.strerror(self.fail[number]))
        os.fsync(fd)


def test_making_one_and_asking_it_does_nothing_to_the_disk(tmp_path):
    spool = make_spool(tmp_path)
    assert spool.keys() == [] == spool.entries(KEY) == spool.damaged(KEY) == spool.refused(KEY)
    assert not spool.has(KEY)
    assert spool.discard(KEY) == (0, 0) == spool.usage_of(KEY)
    assert spool.usage().chunks == 0
    assert spool.put_many([]) == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("meta", [FRAMES_META, LOSSY_META, SERIES_META], ids=["frames", "lossy", "series"])
def test_gives_back_what_it_was_given(tmp_path, meta):
    spool, chunk = make_spool(tmp_path), make_chunk(5, 3, meta=meta, parts=(b"a" * 3_000_000, b"\n", b"b" * 10))
    spooled = spool.put(chunk)
    assert spooled.path == tmp_path / "spool" / KEY / "000000000005-0000000003.chunk"
    assert (spooled.key, spooled.seq, spooled.index) == (KEY, 5, 3)
    assert spooled.n_bytes == spooled.path.stat().st_size
    assert pickle.loads(pickle.dumps(spooled)) == spooled
    loaded = make_spool(tmp_path).load(spooled)
    assert loaded.label == chunk.label == spool.label(spooled)
    assert loaded.body.parts == (chunk.body.tobytes(),)
    assert (loaded.body.n_bytes, loaded.crc32c) == (chunk.body.n_bytes, chunk.crc32c)
    assert hash(loaded.label) == hash(chunk.label)


def test_a_file_says_by_itself_what_it_is(tmp_path):
    spooled = make_spool(tmp_path).put(make_chunk(meta=SERIES_META))
    line, body = spooled.path.read_bytes().split(b"\n", 1)
    assert body == b"abcdefg"
    assert int(line[:8], 16) == google_crc32c.value(line[9:])
    header = json.loads(line[9:])
    assert (header["format"], header["kind"], header["destination"]) == (1, "timeseries", DESTINATION)
    assert (header["key"], header["data_id"], header["n_bytes"]) == (KEY, "data-1", 7)
    assert header["crc32c"] == google_crc32c.value(body)


def test_a_chunk_spooled_before_lost_frames_were_named_has_none(tmp_path):
    spool, chunk = make_spool(tmp_path), make_chunk()
    spooled = spool.put(chunk)
    line, body = spooled.path.read_bytes().split(b"\n", 1)
    header = json.loads(line[9:])
    assert header["meta"].pop("lost_frames") == []
    raw = json.dumps(header).encode()
    spooled.path.write_bytes(b"%08x %s\n" % (google_crc32c.value(raw), raw) + body)
    assert spool.load(spooled).label == chunk.label


counts = st.integers(0, 2**62)
rates = st.floats(allow_nan=False, min_value=1e-3, max_value=1e9)
frames_metas = st.builds(
    ChunkMetadata,
    *[counts] * 4,
    rates,
    st.booleans(),
    st.integers(-(2**62), 2**62),
    st.none() | st.integers(-(2**62), 2**62),
    st.none() | st.floats(allow_nan=False),
    st.lists(counts, max_size=4).map(tuple),
)
texts = st.text(st.characters(codec="utf-16"))
series_metas = st.builds(
    TimeseriesMeta,
    counts,
    st.lists(texts, max_size=4).map(tuple),
    counts,
    st.integers(),
    st.integers(),
    st.booleans(),
)
labels = st.builds(
    ChunkLabel,
    st.text("0123456789abcdef", min_size=32, max_size=32),
    texts,
    counts,
    counts,
    frames_metas | series_metas,
    texts,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(label=labels, parts=st.lists(st.binary(max_size=50), max_size=4))
def test_any_label_and_body_come_back(tmp_path, label, parts):
    body = Shard(tuple(parts), sum(map(len, parts)))
    spool = make_spool(tmp_path)
    spooled = spool.put(EncodedChunk(label, body, body.crc32c()))
    assert spool.entries(label.key) == [spooled]
    loaded = spool.load(spooled)
    assert loaded.label == label
    assert type(loaded.label.meta) is type(label.meta)
    assert loaded.body.tobytes() == body.tobytes()
    spool.remove(spooled)


def test_entries_come_oldest_first_whatever_their_digits(tmp_path):
    spool = make_spool(tmp_path)
    order = [(0, 9), (2, 1), (10, 0), (10**11, 10**9), (10**12, 3), (2 * 10**12, 2), (10**13, 10**11)]
    given_order = spool.put_many([make_chunk(seq, index) for seq, index in reversed(order)])
    assert [(one.seq, one.index) for one in given_order] == order[::-1]
    assert [(one.seq, one.index) for one in spool.entries(KEY)] == order
    assert spool.entries(KEY) == given_order[::-1]


def test_a_chunk_pushed_again_is_there_twice_and_one_put_again_once(tmp_path):
    spool = make_spool(tmp_path)
    spool.put_many([make_chunk(0, 0), make_chunk(1, 0, parts=(b"new",))])
    spool.put(make_chunk(0, 0, parts=(b"same seq",)))
    assert [spool.load(one).body.tobytes() for one in spool.entries(KEY)] == [b"same seq", b"new"]


def test_streams_do_not_mix(tmp_path):
    spool = make_spool(tmp_path)
    first, second = spool.put_many([make_chunk(0), make_chunk(1, key=OTHER_KEY)])
    assert (spool.entries(KEY), spool.entries(OTHER_KEY)) == ([first], [second])
    assert sorted(spool.keys()) == [KEY, OTHER_KEY]
    assert spool.discard(KEY) == (1, BLOCK)
    assert spool.keys() == [OTHER_KEY]
    assert spool.has(OTHER_KEY)
    assert not spool.has(KEY)


BAD_KEYS = [
    "",
    "..",
    "../" + "a" * 29,
    "a" * 31,
    "a" * 33,
    "A" * 32,
    "g" * 32,
    "a" * 32 + "\n",
    "٣" * 32,
    "a" * 31 + "/",
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_a_key_is_checked_before_it_becomes_a_path(tmp_path, key):
    spool = make_spool(tmp_path)
    for call in (spool.entries, spool.has, spool.damaged, spool.refused, spool.discard, spool.usage_of):
        with pytest.raises(SettingsError, match="32 hex"):
            call(key)
    with pytest.raises(SettingsError, match="32 hex"):
        spool.put_many([make_chunk(), make_chunk(key=key)])
    assert list(tmp_path.iterdir()) == []


def test_a_number_below_zero_is_refused(tmp_path):
    for chunk in (make_chunk(-1, 0), make_chunk(0, -1)):
        with pytest.raises(SettingsError, match="0 or more"):
            make_spool(tmp_path).put(chunk)


# What put promises


def test_is_on_disk_under_its_name_before_put_returns(tmp_path):
    log = FsyncLog(tmp_path / "deep" / "spool")
    spool = Spool(log.folder, DESTINATION, None, lambda folder: 10**12, fsync=log)
    spool.put(make_chunk(0))
    made = [("..", 0), (".", 0)]
    assert log.calls == [*made, ("part", 0), (f"spool/{KEY}", 1), ("spool", 1)]
    log.calls.clear()
    spool.put_many([make_chunk(n) for n in range(1, 5)] + [make_chunk(9, key=OTHER_KEY)])
    folders = [(f"spool/{KEY}", 6), (f"spool/{OTHER_KEY}", 6), ("spool", 6)]
    assert log.calls == [("part", 1)] * 5 + folders


CHILD = """
import os, signal, sys
from pathlib import Path
from ingest.shard import Shard
from ingest.spool import Spool
from tests.test_spool import make_chunk
die_at = sys.argv[2]
fsyncs = []
def die():
    os.kill(os.getpid(), signal.SIGKILL)
class DyingShard(Shard):
    def blocks(self):
        yield from super().blocks()
        if die_at == "block":
            die()
def fsync(fd):
    fsyncs.append(fd)
    if die_at == f"fsync {len(fsyncs)}":
        die()
    os.fsync(fd)
folder = Path(sys.argv[1])
Spool(folder, "x", None, lambda folder: 10**12).put(make_chunk(0))
print("acknowledged", flush=True)
chunk = make_chunk(1, parts=(b"x" * 3_000_000,))
object.__setattr__(chunk, "body", DyingShard(chunk.body.parts, chunk.body.n_bytes))
Spool(folder, "x", None, lambda folder: 10**12, fsync=fsync).put(chunk)
print("came back", flush=True)
"""


@pytest.mark.parametrize(
    ("die_at", "seen"), [("block", 1), ("fsync 1", 1), ("fsync 2", 2), ("fsync 3", 2), ("never", 2)]
)
def test_a_killed_process_leaves_no_half_chunk_in_sight(tmp_path, die_at, seen):
    spool = make_spool(tmp_path)
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(spool.folder), die_at], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert child.stdout.split("\n")[0] == "acknowledged", child.stderr
    assert ("came back" in child.stdout) == (die_at == "never")
    found = spool.entries(KEY)
    assert [spool.load(one).label.seq for one in found] == list(range(seen))
    parts = [name for name in names(spool) if name.endswith(".part")]
    assert len(parts) == 2 - seen
    later = make_spool(tmp_path, clock=lambda: time.time() + 61)
    assert later.entries(KEY) == found
    assert len(names(spool)) == seen, "a minute later what is left of the dead is removed"


def test_what_is_being_written_is_not_stale_however_long_it_takes(tmp_path):
    patient = make_spool(tmp_path, clock=lambda: time.time() + 3600)

    def slow_fsync(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".part"):
            assert patient.entries(KEY) == []
            assert len(names(patient)) == 1

    spooled = make_spool(tmp_path, fsync=slow_fsync).put(make_chunk(0))
    assert patient.load(spooled).label.seq == 0


def test_several_processes_write_one_folder_while_it_is_emptied(tmp_path):
    """The stream's folder goes with its last chunk and comes with the next, at any moment of a put."""
    script = """
import sys
from pathlib import Path
from ingest.spool import Spool
from tests.test_spool import make_chunk
spool = Spool(Path(sys.argv[1]), "x", None, lambda folder: 10**12)
base = int(sys.argv[2]) * 1000
for start in range(base, base + 60, 3):
    spool.put_many([make_chunk(seq, parts=(b"%d" % seq,)) for seq in range(start, start + 3)])
"""
    spool = make_spool(tmp_path)
    children = [subprocess.Popen([sys.executable, "-c", script, str(spool.folder), str(n)], cwd=ROOT) for n in range(3)]
    got: list[int] = []
    while True:
        ended = all(child.poll() is not None for child in children)
        for spooled in spool.entries(KEY):
            chunk = spool.load(spooled)
            assert chunk.body.tobytes() == b"%d" % chunk.label.seq
            got.append(chunk.label.seq)
            spool.remove(spooled)
        if ended:
            break
    assert [child.returncode for child in children] == [0, 0, 0]
    assert sorted(got) == [n * 1000 + i for n in range(3) for i in range(60)]
    assert not (spool.folder / KEY).exists()


def test_threads_put_and_remove_the_only_chunk_of_a_stream(tmp_path):
    spool = make_spool(tmp_path, fsync=lambda fd: None)

    def churn(thread: int) -> None:
        for n in range(200):
            spooled = spool.put(make_chunk(thread * 1000 + n))
            assert spool.load(spooled).label.seq == spooled.seq
            spool.remove(spooled)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(4)))
    assert spool.usage().n_bytes == 0


def test_a_chunk_may_be_delivered_before_put_returns(tmp_path):
    def fsync(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith(KEY):
            for spooled in spool.entries(OTHER_KEY):
                spool.remove(spooled)

    spool = make_spool(tmp_path, fsync=fsync)
    spool.put_many([make_chunk(0), make_chunk(0, key=OTHER_KEY)])
    assert spool.keys() == [KEY]


# Room


def test_is_full_at_its_cap_and_has_room_again_when_a_chunk_leaves(tmp_path):
    spool = make_spool(tmp_path, SpoolLimits(3 * BLOCK, 0))
    first, *_ = spool.put_many([make_chunk(n) for n in range(3)])
    before = names(spool)
    with pytest.raises(SpoolFullError, match=r"0\.012 MB used of at most 0\.012 MB") as caught:
        spool.put(make_chunk(3))
    assert isinstance(caught.value, OSError)
    assert "drains" in (caught.value.hint or "")
    assert names(spool) == before
    spool.remove(first)
    spool.put(make_chunk(3))
    with pytest.raises(SpoolFullError):
        spool.put(make_chunk(4))
    spool.discard(KEY)
    spool.put_many([make_chunk(n) for n in range(3)])


def test_says_when_waiting_would_not_help(tmp_path):
    spool = make_spool(tmp_path, SpoolLimits(BLOCK, 0))
    with pytest.raises(SpoolFullError, match="not fit into an empty one"):
        spool.put(make_chunk(0, parts=(b"x" * BLOCK,)))


def test_many_are_taken_all_or_none(tmp_path):
    spool = make_spool(tmp_path, SpoolLimits(3 * BLOCK, 0))
    with pytest.raises(SpoolFullError):
        spool.put_many([make_chunk(n) for n in range(4)])
    assert spool.entries(KEY) == []
    assert len(spool.put_many([make_chunk(n) for n in range(3)])) == 3


def test_what_others_wrote_is_seen_within_a_second(tmp_path):
    now = [0.0]
    ours = make_spool(tmp_path, SpoolLimits(4 * BLOCK, 0), monotonic=lambda: now[0])
    theirs = make_spool(tmp_path, SpoolLimits(100 * BLOCK, 0))
    ours.put(make_chunk(0))
    theirs.put_many([make_chunk(n) for n in range(10, 13)])
    now[0] = 0.9
    ours.put(make_chunk(1))
    now[0] = 1.1
    with pytest.raises(SpoolFullError):
        ours.put(make_chunk(2))
    theirs.discard(KEY)
    now[0] = 2.2
    ours.put(make_chunk(2))


def test_what_we_wrote_is_counted_once(tmp_path):
    now = [0.0]
    spool = make_spool(tmp_path, SpoolLimits(4 * BLOCK, 0), monotonic=lambda: now[0])
    spool.put_many([make_chunk(0), make_chunk(1)])
    now[0] = 2.0
    spool.put_many([make_chunk(2), make_chunk(3)])


def test_what_is_being_written_counts_for_the_floor(tmp_path):
    refused = []

    def fsync(fd):
        if os.readlink(f"/proc/self/fd/{fd}").endswith(".part"):
            with pytest.raises(SpoolFullError, match="too little of the disk") as caught:
                spool.put(make_chunk(1))
            refused.append(caught.value)

    spool = make_spool(tmp_path, SpoolLimits(10**9, 9 * BLOCK), lambda folder: 10 * BLOCK, fsync=fsync)
    spool.put(make_chunk(0))
    assert len(refused) == 1


def test_threads_together_do_not_pass_the_cap(tmp_path):
    spool = make_spool(tmp_path, SpoolLimits(10 * BLOCK, 0))

    def put(n: int) -> bool:
        try:
            spool.put(make_chunk(n))
        except SpoolFullError:
            return False
        return True

    with ThreadPoolExecutor(16) as pool:
        taken = sum(pool.map(put, range(60)))
    assert taken == len(spool.entries(KEY))
    assert taken <= 10
    assert all(put(n) == (n < 10) for n in range(taken, 12))


def test_without_a_cap_takes_half_of_what_is_free_or_its_own(tmp_path):
    folder, disk = tmp_path / "spool", 40 * BLOCK

    def free(asked: Path) -> int:
        assert asked.is_dir()
        return disk - BLOCK * len(list(folder.glob("*/*")))

    spool = Spool(folder, DESTINATION, SpoolLimits(None, 0), free)
    assert spool.usage().max_bytes == 20 * BLOCK
    for n in range(20):
        spool.put(make_chunk(n))
    with pytest.raises(SpoolFullError, match="passes its cap"):
        spool.put(make_chunk(20))
    usage = spool.usage()
    assert (usage.chunks, usage.n_bytes, usage.max_bytes, usage.free_bytes) == (
        20,
        20 * BLOCK,
        20 * BLOCK,
        20 * BLOCK,
    )
    assert SpoolLimits() == SpoolLimits(None, 1_000_000_000)


def test_leaves_the_floor_free_whoever_filled_the_disk(tmp_path):
    free = [10 * BLOCK]
    spool = make_spool(tmp_path, SpoolLimits(10**9, 8 * BLOCK), lambda folder: free[0])
    spool.put(make_chunk(0))
    free[0] = 8 * BLOCK + 100
    with pytest.raises(SpoolFullError, match="too little of the disk"):
        spool.put(make_chunk(1))
    assert [one.seq for one in spool.entries(KEY)] == [0]
    free[0] = 9 * BLOCK
    spool.put(make_chunk(1))


@pytest.mark.parametrize("limits", [(0, 0), (-1, 0), (1, -1)])
def test_limits_that_are_none_are_refused(limits):
    with pytest.raises(SettingsError):
        SpoolLimits(*limits)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("number", [0, 4])
def test_a_full_disk_leaves_nothing_behind(tmp_path, code, number):
    full = {number: code}
    log = FsyncLog(tmp_path / "spool", {})
    spool = make_spool(tmp_path, fsync=log)
    kept = spool.put(make_chunk(0))
    log.calls.clear()
    log.fail = full
    with pytest.raises(SpoolFullError, match="the disk says so") as caught:
        spool.put_many([make_chunk(n) for n in range(1, 6)])
    assert isinstance(caught.value.__cause__, OSError)
    assert names(spool) == [kept.path.name]
    log.fail = {}
    assert len(spool.put_many([make_chunk(n) for n in range(1, 6)])) == 5


def test_a_full_disk_leaves_no_empty_folder(tmp_path):
    log = FsyncLog(tmp_path / "spool", {1: errno.ENOSPC})
    with pytest.raises(SpoolFullError):
        make_spool(tmp_path, fsync=log).put(make_chunk(0))
    assert list(log.folder.iterdir()) == []


def test_room_of_what_failed_is_given_back(tmp_path):
    log = FsyncLog(tmp_path / "spool", {})
    spool = make_spool(tmp_path, SpoolLimits(2 * BLOCK, 0), fsync=log, monotonic=lambda: 0.0)
    spool.put(make_chunk(0))
    for _ in range(3):
        log.fail = {len(log.calls): errno.EIO}
        with pytest.raises(SpoolWriteError):
            spool.put(make_chunk(1))
    spool.put(make_chunk(1))


@pytest.mark.parametrize("number", [0, 1, 2])
def test_any_other_failure_of_the_disk_is_named(tmp_path, number):
    log = FsyncLog(tmp_path / "spool", {})
    spool = make_spool(tmp_path, fsync=log)
    spool.put(make_chunk(0))
    log.calls.clear()
    log.fail = {number: errno.EIO}
    with pytest.raises(SpoolWriteError, match="Input/output error"):
        spool.put(make_chunk(1))
    assert not [name for name in names(spool) if name.endswith(".part")]
    log.fail = {}
    spool.put(make_chunk(1))
    assert [one.seq for one in spool.entries(KEY)] == [0, 1]


def test_a_folder_that_is_none_is_named(tmp_path):
    (tmp_path / "spool").write_text("")
    spool = make_spool(tmp_path)
    with pytest.raises(SpoolWriteError, match="spool"):
        spool.put(make_chunk(0))
    for call in (spool.keys, spool.usage, lambda: spool.entries(KEY), lambda: spool.has(KEY)):
        with pytest.raises(SpoolReadError):
            call()


def test_a_chunk_that_nobody_could_read_back_is_not_taken(tmp_path):
    spool, chunk = make_spool(tmp_path), make_chunk(0)
    wrong_size = replace(chunk, body=Shard(chunk.body.parts, 6))
    for wrong in (replace(chunk, crc32c=chunk.crc32c ^ 1), wrong_size):
        with pytest.raises(SpoolDamagedError, match="are not the"):
            spool.put_many([make_chunk(1), wrong])
    assert names(spool) == []


# Reading


def replaced_header(content: bytes, **changes) -> bytes:
    line, body = content.split(b"\n", 1)
    raw = json.dumps(json.loads(line[9:]) | changes).encode()
    return b"%08x %s\n%s" % (google_crc32c.value(raw), raw, body)


DAMAGES = {
    "header": lambda content: content.replace(b"data-1", b"data-2", 1),
    "header's CRC": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "header cut off": lambda content: content[:50],
    "no body": lambda content: content.split(b"\n")[0] + b"\n",
    "body": lambda content: content[:-1] + b"X",
    "body cut off": lambda content: content[:-1],
    "more than the body": lambda content: content + b"\0",
    "empty": lambda content: b"",
    "zeros": lambda content: bytes(len(content)),
    "empty header": lambda content: b"00000000 \n" + content,
    "no header": lambda content: b"%08x []\n" % google_crc32c.value(b"[]"),
    "another chunk's": lambda content: replaced_header(content, seq=1),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_chunk_is_named_kept_and_out_of_the_way_once_set_aside(tmp_path, damage):
    spool = make_spool(tmp_path)
    bad, good = spool.put_many([make_chunk(0), make_chunk(1)])
    content = DAMAGES[damage](bad.path.read_bytes())
    bad.path.write_bytes(content)
    with pytest.raises(SpoolDamagedError, match=bad.path.name):
        spool.load(bad)
    if "body" not in damage:
        with pytest.raises(SpoolDamagedError):
            spool.label(bad)
    assert spool.entries(KEY)[0].path == bad.path, "it is nobody's to remove"
    for _ in range(2):
        spool.set_aside(bad)
    assert spool.entries(KEY) == [good]
    [aside] = spool.damaged(KEY)
    assert aside.name == bad.path.name + ".damaged"
    assert aside.read_bytes() == content
    spool.remove(good)
    assert spool.keys() == [KEY]
    assert not spool.has(KEY)
    assert (spool.usage().chunks, spool.usage().damaged) == (0, 1)
    assert spool.discard(KEY)[0] == 1
    assert spool.keys() == []


def test_what_the_destination_refused_is_kept_apart(tmp_path):
    spool = make_spool(tmp_path)
    spooled = spool.put(make_chunk(0))
    spool.set_aside(spooled, "refused")
    assert spool.damaged(KEY) == []
    assert [path.name for path in spool.refused(KEY)] == [spooled.path.name + ".refused"]
    assert (spool.usage().refused, spool.usage().damaged, spool.usage().n_bytes) == (1, 0, BLOCK)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), flip=st.integers(1, 255))
def test_no_byte_changes_unseen(tmp_path, at, flip):
    spool = make_spool(tmp_path, fsync=lambda fd: None)
    spooled = spool.put(make_chunk(0))
    content = bytearray(spooled.path.read_bytes())
    content[at % len(content)] ^= flip
    spooled.path.write_bytes(content)
    with pytest.raises(SpoolDamagedError):
        spool.load(spooled)


@pytest.mark.parametrize("changes", [{"format": 2}, {"kind": "spectra"}, {"meta": {"frames": 1, "new": 2}}], ids=str)
def test_another_version_s_chunk_is_not_called_damaged(tmp_path, changes):
    spool = make_spool(tmp_path)
    spooled = spool.put(make_chunk(0))
    spooled.path.write_bytes(replaced_header(spooled.path.read_bytes(), **changes))
    for call in (spool.load, spool.label):
        with pytest.raises(SpoolError, match="this version") as caught:
            call(spooled)
        assert not isinstance(caught.value, SpoolDamagedError)


def test_a_chunk_that_is_gone_is_told_from_one_that_cannot_be_read(tmp_path):
    spool = make_spool(tmp_path)
    spooled = spool.put(make_chunk(0))
    for _ in range(2):
        spool.remove(spooled)
    assert not spooled.path.parent.exists()
    for call in (spool.load, spool.label):
        with pytest.raises(SpoolGoneError) as caught:
            call(spooled)
        assert isinstance(caught.value, FileNotFoundError)
    spool.set_aside(spooled)
    spooled.path.mkdir(parents=True)
    with pytest.raises(SpoolReadError, match="directory"):
        spool.load(spooled)


def test_counts_what_it_holds(tmp_path):
    spool = make_spool(tmp_path, SpoolLimits(10**6, 0))
    spool.put_many([make_chunk(0), make_chunk(1, parts=(b"x" * BLOCK,)), make_chunk(0, key=OTHER_KEY)])
    usage = spool.usage()
    assert (usage.chunks, usage.n_bytes, usage.max_bytes, usage.free_bytes) == (3, 4 * BLOCK, 10**6, 10**12)
    assert spool.usage_of(KEY) == (2, 3 * BLOCK)
    assert pickle.loads(pickle.dumps(usage)) == usage
