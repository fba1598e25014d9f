"""What every store of a lake must do, for a folder, memory and S3."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import fsspec
import google_crc32c
import pytest

from ingest.errors import LakeDamagedError, MissingObjectError, SettingsError
from ingest.lake.fsspec_store import FsspecStore
from ingest.lake.local_store import LocalStore
from ingest.lake.opening import open_store
from ingest.lake.s3_store import S3Store
from ingest.lake.store import LakeStore
from ingest.retry import RetryPolicy

ONCE = RetryPolicy(retry_for_s=0)


def names(store: LakeStore, prefix: str = "") -> list[str]:
    return [found.name for found in store.objects(prefix)]


class StoreContract:
    """Subclasses give an empty store as the fixture `store`."""

    big_bytes = 5_000_000

    def test_gives_back_what_it_was_given(self, store):
        parts = [b"head", b"", bytes(range(256)) * 5000, b"tail"]
        store.put("run.zarr/frames/c/0/0/0", parts, crc32c=google_crc32c.value(b"".join(parts)))
        assert store.get("run.zarr/frames/c/0/0/0") == b"".join(parts)
        assert store.size("run.zarr/frames/c/0/0/0") == 1_280_008

    def test_the_last_put_counts(self, store):
        store.put("a/b", [b"old and long"])
        store.put("a/b", [b"new"])
        store.put("a/b", [b"new"])
        assert (store.get("a/b"), store.size("a/b"), names(store)) == (b"new", 3, ["a/b"])

    def test_keeps_an_object_of_no_bytes(self, store):
        store.put("empty", [])
        assert (store.get("empty"), store.get("empty", -4), store.size("empty")) == (b"", b"", 0)

    def test_gives_ranges_as_slices_do(self, store):
        store.put("a", [b"01234", b"56789"])
        for start, stop in [
            (0, 4), (3, 7), (6, None), (-4, None), (-40, None), (8, 40), (10, None), (12, 20), (3, 3), (7, 2), (-4, -1),
            (0, -2), (-40, 3),
        ]:  # fmt: skip
            assert store.get("a", start, stop) == b"0123456789"[start:stop], (start, stop)

    def test_what_is_not_there(self, store):
        store.put("folder/a", [b"x"])
        for name in ("none", "folder", "folder/a/b", "folder/none"):
            assert store.size(name) is None
            for place in ((), (-4,), (2, 5), (3, 3)):
                with pytest.raises(MissingObjectError, match="no object"):
                    store.get(name, *place)
        assert names(store, "none") == []
        assert names(store, "folder/a") == []

    def test_lists_in_order_of_names(self, store):
        wanted = ["a-b", "a.b", "a/b", "a/c/10", "a/c/9", "aa/b", ".rheed-ingest/staging/x/0"]
        for name in reversed(wanted):
            store.put(name, [name.encode()])
        assert names(store) == sorted(wanted)
        assert names(store, "a") == names(store, "a/") == ["a/b", "a/c/10", "a/c/9"]
        assert names(store, ".rheed-ingest") == wanted[-1:]
        assert [found.n_bytes for found in store.objects("a")] == [3, 6, 5]

    def test_deletes_again_and_again(self, store):
        for name in ("a/1", "a/2", "b"):
            store.put(name, [b"x"])
        for _ in range(2):
            store.delete(["a/1", "b", "none/at/all"])
            assert names(store) == ["a/2"]

    def test_deletes_a_folder_and_not_its_neighbours(self, store):
        for name in ("run/a", "run/b/c", "run2/a", "run.zarr"):
            store.put(name, [b"x"])
        for _ in range(2):
            store.delete_below("run")
            assert names(store) == ["run.zarr", "run2/a"]
        store.put("run/b/c", [b"again"])
        assert store.get("run/b/c") == b"again"

    def test_copies_an_object_over_another_again_and_again(self, store):
        store.put("a/1", [b"one"])
        store.put("b/c/2", [b"two, and longer"])
        for _ in range(2):
            store.copy("a/1", "b/c/2")
            store.copy("a/1", "new/folder/3")
            assert [store.get(name) for name in names(store)] == [b"one"] * 3
        store.put("a/1", [b"changed"])
        assert [store.get(name) for name in names(store)] == [b"changed", b"one", b"one"]
        store.delete(["a/1"])
        assert [store.get(name) for name in names(store)] == [b"one", b"one"]

    def test_copies_nothing_that_is_not_there(self, store):
        store.put("folder/a", [b"x"])
        for name in ("none", "folder", "folder/none"):
            with pytest.raises(MissingObjectError, match="no object"):
                store.copy(name, "target")
        with pytest.raises(SettingsError):
            store.copy("folder/a", "../target")
        assert names(store) == ["folder/a"]

    def test_refuses_names_that_could_mean_something_else(self, store):
        for name in ("", "/a", "a//b", "../a", "a/./b", "a\\b", "a\nb", "x" * 1025):
            for call in (
                lambda name: store.put(name, [b"x"]), store.get, store.size, lambda name: store.delete([name]),
                lambda name: store.delete_below(name or "/"), lambda name: list(store.objects(name or "//..")),
            ):  # fmt: skip
                with pytest.raises(SettingsError):
                    call(name)

    def test_refuses_a_name_that_listings_hide(self, store):
        with pytest.raises(SettingsError, match="while they are written"):
            store.put("a/.b.part", [b"x"])

    def test_bytes_that_changed_since_they_were_made_are_not_stored(self, store):
        store.put("a", [b"right"])
        with pytest.raises(LakeDamagedError, match=r"'a' have the CRC-32C .* nothing was stored"):
            store.put("a", [b"wrong"], crc32c=google_crc32c.value(b"right"))
        assert store.get("a") == b"right"

    def test_nobody_sees_half_an_object(self, store):
        versions = [bytes([n]) * self.big_bytes for n in (1, 2)]
        store.put("a", versions[:1])
        seen, done = set(), threading.Event()

        def watch() -> None:
            while not done.is_set():
                content = store.get("a")
                seen.add((content[:1], content[-1:], len(content), tuple(names(store))))

        watcher = threading.Thread(target=watch)
        watcher.start()
        for n in range(6):
            store.put("a", [versions[n % 2][:1000], versions[n % 2][1000:]])
        done.set()
        watcher.join()
        assert seen <= {(v[:1], v[:1], self.big_bytes, ("a",)) for v in versions}
        assert seen

    def test_many_threads_at_once(self, store):
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda n: store.put(f"many/{n:02}/0", [str(n).encode()]), range(24)))
            assert list(pool.map(lambda n: store.get(f"many/{n:02}/0"), range(24))) == [b"%d" % n for n in range(24)]
        assert len(names(store, "many")) == 24

    def test_closes_twice_and_shows_itself(self, store):
        store.put("a", [b"x"])
        store.close()
        store.close()
        assert store.url in repr(store)


class TestLocal(StoreContract):
    @pytest.fixture
    def store(self, tmp_path):
        store = open_store(f"{tmp_path}/new/lake", retry=ONCE)
        assert isinstance(store, LocalStore)
        return store

    test_bytes_that_changed_since_they_were_made_are_not_stored = None  # not counted again, see `LocalStore.put`


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self):
        store = open_store("memory://lab/growth", retry=ONCE)
        assert isinstance(store, FsspecStore)
        yield store
        fs = fsspec.filesystem("memory")
        fs.rm("/", recursive=True)


class TestRenaming(StoreContract):
    """A file system that shows what is half written, through fsspec."""

    @pytest.fixture
    def store(self, tmp_path):
        return FsspecStore(f"file://{tmp_path}", retry=ONCE)

    def test_a_put_that_fails_leaves_nothing(self, tmp_path):
        class Fails(fsspec.get_filesystem_class("file")):
            def mv(self, *_, **__):
                raise TimeoutError("no answer")

        store = FsspecStore("sftp://host/lake", retry=ONCE, make=lambda _: (Fails(), str(tmp_path)))
        with pytest.raises(ConnectionError, match="no answer"):
            store.put("a/b", [b"x"])
        assert names(store) == []
        assert [path.name for path in tmp_path.rglob("*")] == ["a"]

    def test_clean_removes_what_a_killed_writer_left(self, store, tmp_path):
        store.put("run/a", [b"x"])
        (tmp_path / "run" / ".123.part").write_bytes(b"half")
        assert names(store, "run") == ["run/a"]
        store.clean("run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == ["a"]


class TestS3(StoreContract):
    big_bytes = 500_000
    test_nobody_sees_half_an_object = None  # as below

    @pytest.fixture
    def store(self, s3):
        store = open_store("s3://lab-runs/growth", retry=ONCE)
        assert isinstance(store, S3Store)
        yield store
        store.close()


class TestS3InParts(StoreContract):
    big_bytes = 6_000_000
    # moto reads and closes one file for both; S3's own promise is not ours to test.
    test_nobody_sees_half_an_object = None

    @pytest.fixture
    def store(self, s3):
        store = S3Store("s3://lab-runs", retry=ONCE, single_put_bytes=2_000_000, part_bytes=1)
        yield store
        store.close()
