"""A folder that fails: disks that are full, writers that are killed, mounts that go away."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from ingest.errors import AuthenticationError, RefusedError, UnreachableError
from ingest.lake.local_store import BLOCK_BYTES, LocalStore
from ingest.pipeline import refuses_the_chunk
from ingest.retry import RetryPolicy
from tests.lake.fakes import FakeTime

ONCE = RetryPolicy(retry_for_s=0)
BIG = [b"x" * 100_000] * 60


def failing(*codes: int | None):
    """Return a writev that fails with each of the codes in turn; None: that one works. Then all work."""
    left = list(codes)

    def writev(fd, buffers):
        if (code := left.pop(0) if left else None) is not None:
            raise OSError(code, os.strerror(code))
        return os.writev(fd, buffers)

    return writev


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "quota of this user"),
        (errno.ESTALE, "stale handle"),
        (errno.EIO, "input/output error"),
    ],
)
class TestPassing:
    def test_is_tried_again_and_then_works(self, tmp_path, code, words):
        time = FakeTime()
        store = LocalStore(tmp_path, writev=failing(code, None, code), clock=time.clock, sleep=time.sleep)
        store.put("a/b", BIG)
        assert store.get("a/b") == b"".join(BIG)
        assert len(time.waits_s) == 2
        assert files(tmp_path) == ["a/b"]

    def test_is_given_up_when_the_time_is_up(self, tmp_path, code, words):
        LocalStore(tmp_path).put("a/b", [b"before"])
        time = FakeTime()
        store = LocalStore(
            tmp_path, retry=RetryPolicy(retry_for_s=60), clock=time.clock, sleep=time.sleep,
            writev=failing(*[None, code] * 1000),
        )  # fmt: skip
        with pytest.raises(UnreachableError, match=words) as caught:
            store.put("a/b", BIG)
        assert "put 'a/b' (6000000 bytes)" in str(caught.value)
        assert "resumes" in caught.value.hint
        assert not refuses_the_chunk(caught.value)
        assert sum(time.waits_s) == pytest.approx(60)
        assert (store.get("a/b"), files(tmp_path)) == (b"before", ["a/b"])


@pytest.mark.parametrize(
    ("code", "kind"),
    [(errno.EACCES, AuthenticationError), (errno.EPERM, AuthenticationError), (errno.EROFS, RefusedError)],
)
def test_what_no_second_try_will_mend(tmp_path, code, kind):
    store = LocalStore(tmp_path, writev=failing(code))
    with pytest.raises(kind) as caught:
        store.put("a", [b"x"])
    assert str(tmp_path) in str(caught.value)
    assert "another folder" in caught.value.hint
    assert not refuses_the_chunk(caught.value)
    assert files(tmp_path) == []


def test_a_file_where_a_folder_should_be(tmp_path):
    store = LocalStore(tmp_path, retry=ONCE)
    store.put("a", [b"x"])
    with pytest.raises(RefusedError):
        store.put("a/b", [b"x"])
    store.put("c/d", [b"x"])
    with pytest.raises(RefusedError, match="directory"):
        store.put("c", [b"x"])
    assert files(tmp_path) == ["a", "c/d"]


def test_writes_that_end_early_go_on(tmp_path):
    store = LocalStore(tmp_path, writev=lambda fd, buffers: os.write(fd, buffers[0][:3001]))
    parts = [bytes([n]) * (n * 1000) for n in range(1, 40)] + [b"", b"z" * (BLOCK_BYTES + 5)]
    store.put("a", parts)
    assert store.get("a") == b"".join(parts)


def test_no_call_writes_two_mebibytes(tmp_path):
    seen = []

    def writev(fd, buffers):
        seen.append(sum(map(len, buffers)))
        return os.writev(fd, buffers)

    parts = [b"a" * 700_000, b"b" * 1_000_000, b"c" * 5_000_000, b"d" * 9]
    LocalStore(tmp_path, writev=writev).put("a", parts)
    assert (tmp_path / "a").read_bytes() == b"".join(parts)
    assert (sum(seen), max(seen) < 2 * BLOCK_BYTES, len(seen) < 7) == (6_700_009, True, True)


def test_an_object_takes_no_more_of_the_disk_than_its_bytes(tmp_path):
    LocalStore(tmp_path).put("a", [b"x" * 5_000_001])
    found = os.stat(tmp_path / "a")
    assert (found.st_size, found.st_blocks * 512 < 5_100_000) == (5_000_001, True)


def test_more_parts_than_one_call_takes(tmp_path):
    parts = [b"%d," % n for n in range(5000)]
    LocalStore(tmp_path).put("a", parts)
    assert (tmp_path / "a").read_bytes() == b"".join(parts)


def test_a_killed_writer_leaves_the_old_object_and_nothing_that_is_listed(tmp_path):
    LocalStore(tmp_path).put("run/a", [b"before"])
    script = """if True:
        import os, sys
        from ingest.lake.local_store import LocalStore
        def writev(fd, buffers):
            os.write(fd, buffers[0])
            os.kill(os.getpid(), 9)
        LocalStore(sys.argv[1], writev=writev).put("run/a", [b"x" * 1000, b"y"])"""
    assert subprocess.run([sys.executable, "-c", script, tmp_path], check=False).returncode == -9
    store = LocalStore(tmp_path)
    assert [(found.name, found.n_bytes) for found in store.objects()] == [("run/a", 6)]
    assert store.get("run/a") == b"before"
    assert len(files(tmp_path)) == 2
    store.clean("run")
    assert files(tmp_path) == ["run/a"]


def test_others_may_read_what_the_umask_lets_them(tmp_path):
    before = os.umask(0o027)
    try:
        LocalStore(tmp_path).put("a", [b"x"])
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_a_folder_that_another_process_removed_is_made_again(tmp_path):
    store = LocalStore(tmp_path, retry=ONCE)
    store.put("a/b/c", [b"x"])
    shutil.rmtree(tmp_path / "a")
    store.put("a/b/c", [b"y"])
    assert store.get("a/b/c") == b"y"


def test_a_lake_whose_disk_went_away_is_not_made_anew_below_its_mount_point(tmp_path):
    store = LocalStore(tmp_path / "lake", retry=ONCE)
    store.put("a", [b"x"])
    (tmp_path / "lake").rename(tmp_path / "unmounted")
    with pytest.raises(UnreachableError, match="folder is gone") as caught:
        store.put("b", [b"x"])
    assert "mount its disk again" in caught.value.hint
    assert not (tmp_path / "lake").exists()


def test_closing_ends_a_wait(tmp_path):
    started = threading.Event()

    def writev(fd, buffers):
        started.set()
        raise OSError(errno.ENOSPC, "full")

    store = LocalStore(tmp_path, writev=writev, retry=RetryPolicy(first_s=600, max_s=600))
    errors: list[Exception] = []

    def put() -> None:
        try:
            store.put("a", [b"x"])
        except UnreachableError as exc:
            errors.append(exc)

    thread = threading.Thread(target=put)
    thread.start()
    assert started.wait(10)
    store.close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(errors) == 1


@pytest.fixture
def calls(monkeypatch):
    """What is put on disk, and what is renamed, in order."""
    made: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def noting_fsync(fd):
        made.append(f"fsync {Path(f'/proc/self/fd/{fd}').resolve().name.removesuffix('.part')[:6]}")
        fsync(fd)

    def noting_replace(self, target):
        made.append(f"rename {target.name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(Path, "replace", noting_replace)
    return made


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
class TestDurability:
    def test_bytes_before_the_name_and_new_folders_once(self, tmp_path, calls):
        store = LocalStore(tmp_path / "lake")
        store.put("run/c/0", [b"x"])
        assert calls[0].startswith("fsync .")
        assert calls[1:] == ["rename 0", "fsync c", "fsync run", "fsync lake", f"fsync {tmp_path.name[:6]}"]
        calls.clear()
        store.put("run/c/1", [b"x"])
        assert calls[1:] == ["rename 1", "fsync c"]
        calls.clear()
        store.put("run/d/0", [b"x"])
        assert calls[1:] == ["rename 0", "fsync d", "fsync run"]

    def test_not_where_it_is_not_asked_for(self, tmp_path, calls):
        LocalStore(tmp_path / "lake", fsync=False).put("run/c/0", [b"x"])
        assert calls == ["rename 0"]
