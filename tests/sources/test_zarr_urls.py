"""Zarr stores at URLs: found, read and known as on a disk, with few requests, and nothing made up."""

import contextlib
import functools
import http.server
import os
import threading

import fsspec
import numpy as np
import pytest
import zarr

from ingest.errors import (
    FrameDataError,
    NoFramesError,
    SettingsError,
    SourceChangedError,
    SourceNotFoundError,
    SourceReadError,
    UnclosedSourceError,
)
from ingest.frames import to_uint8
from ingest.sources import discover, inspect, inspect_series, open_series, open_source
from ingest.sources.remote_folder import read_files
from ingest.sources.remote_kept import KEPT_S, MAX_FILE_BYTES, MAX_KEPT_BYTES, KeptFiles
from tests.s3 import BUCKET, SECRET
from tests.sources.contract import Made, SourceContract
from tests.sources.files import kinds, look, pixels
from tests.sources.series_contract import look_at_log
from tests.sources.test_remote import InThisProcess
from tests.sources.zarrs import NOT_A_TIME, lake, make

SECONDS = {"units": "seconds since 1970-01-01"}


def files_below(folder) -> dict[str, str]:
    """Return the paths of all files below a folder, by their names in it."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            found[os.path.relpath(path, folder)] = path
    return found


def upload(url, folder) -> str:
    """Copy a folder to a URL."""
    fs, path = fsspec.core.url_to_fs(url)
    for name, file in files_below(folder).items():
        with open(file, "rb") as opened:
            fs.pipe_file(f"{path}/{name}", opened.read())
    return url


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/", recursive=True)


STORAGES = [
    {"zarr_format": 3, "chunks": (1, 12, 16)},
    {"zarr_format": 3, "chunks": (1, 12, 16), "shards": (8, 12, 16)},
    {"zarr_format": 3, "chunks": (4, 6, 8), "shards": (8, 12, 16)},
    {"zarr_format": 3, "chunks": (3, 5, 16), "chunk_key_encoding": {"name": "default", "separator": "."}},
    {"zarr_format": 2, "chunks": (1, 12, 16)},
    {"zarr_format": 2, "chunks": (5, 12, 7), "chunk_key_encoding": {"name": "v2", "separator": "/"}},
]


@pytest.mark.parametrize("storage", STORAGES, ids=str)
class TestLoneArrays(InThisProcess, SourceContract):
    @pytest.fixture
    def made(self, memory, tmp_path, storage):
        frames = pixels(21)
        return Made(look(upload("memory://a.zarr", make(tmp_path / "a.zarr", frames, **storage))), frames)


class TestWide(InThisProcess, SourceContract):
    @pytest.fixture
    def made(self, memory, tmp_path):
        frames = pixels(19, dtype="<u2", top=4000)
        info = look(upload("memory://a.zarr", make(tmp_path / "a.zarr", frames, chunks=(4, 12, 16))))
        return Made(info, to_uint8(frames, info.scale))


class TestLake(InThisProcess, SourceContract):
    @pytest.fixture
    def made(self, memory, tmp_path):
        frames = pixels(50)
        return Made(look(upload("memory://lab/x.zarr", lake(tmp_path / "x.zarr", frames))), frames)


def channel(path, name, times, values) -> None:
    make(path / "timeseries" / name / "time", times, attributes=SECONDS)
    make(path / "timeseries" / name / "value", values, attributes={"units": "mbar"})


def growth(folder):
    """Write a lake of two streams, one with readings beside it, and what else lies in a lake."""
    lake(folder / "x-1.zarr", pixels(50))
    lake(folder / "y-2.zarr", pixels(20, seed=1), attributes={"name": "another"})
    channel(folder / "x-1.zarr", "p", 1.7e9 + np.arange(30.0), np.arange(30.0))
    make(folder / "z-3.zarr" / "frames", pixels(20))  # without the group, its commit marker
    for name in ("x-1.manifest.json", ".rheed-ingest/journal.sqlite", ".rheed-ingest/staging/z-3/0_a", "notes.txt"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    return folder


def assert_growth(root, entries) -> None:
    found = [(entry.path, getattr(entry.spec, "kind", None)) for entry in entries]
    assert found == [
        (f"{root}/x-1.zarr", "zarr"),
        (f"{root}/x-1.zarr", "zarr-log"),
        (f"{root}/y-2.zarr", "zarr"),
        (f"{root}/z-3.zarr", None),
    ]
    assert entries[0].ignored_files == 1  # the notes
    error = entries[3].error
    assert isinstance(error, UnclosedSourceError)
    assert "run it again" in error.hint


class TestDiscovery:
    def test_a_folder_on_the_disk(self, tmp_path):
        growth(tmp_path / "lab")
        assert_growth(tmp_path / "lab", discover([str(tmp_path / "lab")]))
        assert_growth(tmp_path / "lab", discover([str(tmp_path / "lab" / "*")]))
        (alone,) = discover([str(tmp_path / "lab" / "z-3.zarr")])
        assert isinstance(alone.error, UnclosedSourceError)

    @pytest.mark.parametrize("url", ["memory://lab", "memory:///lab/", "memory://lab/*", "memory://lab/**"])
    def test_a_folder_at_a_url(self, memory, tmp_path, url):
        upload("memory://lab", growth(tmp_path))
        assert_growth("memory:///lab", discover([url]))

    def test_its_parts(self, memory, tmp_path):
        upload("memory://lab", growth(tmp_path))
        assert len(discover(["memory://lab/x-1.zarr", "memory://lab", "memory://lab/x*.zarr/"])) == 4
        assert look("memory://lab/x-1.zarr/frames").frames == 50  # an array by itself, which no name tells
        assert look("memory://lab/y-2.zarr/").name == "another"
        (unfinished,) = discover(["memory://lab/z-3.zarr"])
        assert isinstance(unfinished.error, UnclosedSourceError)
        (none,) = discover(["memory://lab/none.zarr"])
        assert isinstance(none.error, SourceNotFoundError)

    def test_hdf5_beside_a_lake(self, memory, tmp_path):
        upload("memory://lab", growth(tmp_path))
        memory.pipe("/lab/below/a.h5", b"\x89HDF\r\n\x1a\n")
        assert discover(["memory://lab"])[0].path == "memory:///lab/below/a.h5"

    @pytest.mark.parametrize("url", [f"https://host/x.zarr?sig={SECRET}", f"https://host/x.zarr#{SECRET}"])
    def test_a_query_names_no_folder(self, url):
        (entry,) = discover([url])
        assert isinstance(entry.error, SettingsError)
        assert SECRET not in f"{entry.path} {entry.error} {entry.error.hint}"


def described(info):
    return (
        info.name, info.fingerprint, info.start_ns, info.start_from, info.frames, info.fps_claimed,
        info.rotations_per_min, info.findings, info.bytes_in,
    )  # fmt: skip


@pytest.mark.parametrize("storage", STORAGES, ids=str)
def test_a_copy_in_a_store_is_the_same_recording(memory, tmp_path, storage):
    path = make(tmp_path / "a.zarr", pixels(21), attributes={"fps": 25.0}, **storage)
    there, here = look(upload("memory://a.zarr", path)), look(path)
    assert described(there) == described(here)


def test_a_copied_lake_is_the_same_recording(memory, tmp_path):
    big = pixels(30, 120, 160)  # its shards are longer than both ends that are looked at
    index = np.where(np.arange(30) % 7 == 3, -1, np.arange(30))
    path = lake(tmp_path / "x.zarr", big, index=index)
    there, here = look(upload("memory://x.zarr", path)), look(path)
    assert described(there) == described(here)
    np.testing.assert_array_equal(there.timestamps_ns, here.timestamps_ns)
    with open_source(there.spec) as source, pytest.raises(FrameDataError, match=r"frames 3 to 3 .*lost"):
        source.read(0, 30)


def test_readings(memory, tmp_path):
    for name, rows in (("p", 70_000), ("q", 40)):
        channel(tmp_path / "log.zarr", name, 1.7e9 + np.arange(rows), np.sin(np.arange(rows)))
    zarr.create_group(tmp_path / "log.zarr", attributes={"format": "rheed-ingest", "name": "a log"})
    here = look_at_log(tmp_path / "log.zarr")
    (entry,) = discover([upload("memory://log.zarr", tmp_path / "log.zarr")])
    there = inspect_series(entry.spec)
    assert (there.name, there.fingerprint, there.channels) == (here.name, here.fingerprint, here.channels)
    for table in range(len(here.spec.tables)):
        rows = here.spec.tables[table].rows
        ours, theirs = (open_series(info.spec).read(table, rows // 2, rows) for info in (there, here))
        np.testing.assert_array_equal(ours.values, theirs.values)
        np.testing.assert_array_equal(ours.timestamps_ns, theirs.timestamps_ns)


class TestDamage:
    def test_a_shard_that_is_not_there_was_lost(self, memory, tmp_path):
        upload("memory://x.zarr", lake(tmp_path / "x.zarr", pixels(50)))
        memory.rm("/x.zarr/frames/c/1/0/0")
        info = look("memory://x.zarr")
        assert kinds(info) == ["lost frames"]
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 20), pixels(50)[:20])
            for part in ((0, 50), (25, 26), (19, 21)):
                with pytest.raises(FrameDataError, match="frames 20 to 39 of the run: c/1/0/0 is not there"):
                    source.read(*part)

    def test_one_that_was_there_when_it_was_inspected(self, memory, tmp_path):
        info = look(upload("memory://x.zarr", lake(tmp_path / "x.zarr", pixels(50))))
        memory.rm("/x.zarr/frames/c/1/0/0")
        with open_source(info.spec) as source, pytest.raises(SourceChangedError, match="any more"):
            source.read(20, 40)

    def test_elsewhere_it_is_the_fill_value(self, memory, tmp_path):
        frames = pixels(50)
        frames[20:30] = 0
        path = make(tmp_path / "a.zarr", frames, chunks=(10, 12, 16))  # zarr writes no file for black frames
        info = look(upload("memory://a.zarr", path))
        assert kinds(info) == ["unwritten frames"]
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 50), frames)

    @pytest.mark.parametrize("content", [b"", b"x", b"x" * 100_000], ids=["empty", "short", "long"])
    def test_what_does_not_decode(self, memory, tmp_path, content):
        upload("memory://x.zarr", lake(tmp_path / "x.zarr", pixels(50)))
        memory.pipe("/x.zarr/frames/c/1/0/0", content)
        info = look("memory://x.zarr")
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 20), pixels(50)[:20])
            with pytest.raises(FrameDataError):
                source.read(20, 40)

    def test_rows_that_are_not_there(self, memory, tmp_path):
        channel(tmp_path / "log.zarr", "p", 1.7e9 + np.arange(30.0), np.arange(30.0))
        zarr.create_group(tmp_path / "log.zarr")
        upload("memory://log.zarr", tmp_path / "log.zarr")
        memory.rm("/log.zarr/timeseries/p/time/c/0")
        (entry,) = discover(["memory://log.zarr"])
        with pytest.raises(NoFramesError, match="c/0 is not there"):
            inspect_series(entry.spec)


@pytest.fixture
def requests(s3, monkeypatch):
    """Every request to the store: what, and of which key."""
    from s3fs import S3FileSystem

    made, real = [], S3FileSystem._call_s3

    async def counting(self, method, *args, **kwargs):
        made.append((method.split("_")[0], kwargs.get("Key") or kwargs.get("Prefix")))
        return await real(self, method, *args, **kwargs)

    monkeypatch.setattr(S3FileSystem, "_call_s3", counting)
    return made


def count(requests, method, of="") -> int:
    return sum(made == method and of in str(key) for made, key in requests)


class TestS3:
    @pytest.fixture
    def url(self, s3, tmp_path):
        """A lake of 24 shards of 5 frames, and three more streams beside it."""
        lake(tmp_path / "lab" / "x.zarr", pixels(120), size=5)
        for i in range(3):
            lake(tmp_path / "lab" / f"y{i}.zarr", pixels(20))
        for name, path in files_below(tmp_path / "lab").items():
            s3.upload_file(path, BUCKET, f"growth/{name}")
        return f"s3://{BUCKET}/growth"

    def test_few_requests(self, url, requests, tmp_path):
        entries = discover([url])
        assert [entry.path for entry in entries][:2] == [f"{url}/x.zarr", f"{url}/y0.zarr"]
        assert len(entries) == 4
        # The folder, each store twice (is it one? what is in it?), and the documents of its four nodes.
        assert (count(requests, "list"), count(requests, "get")) == (1 + 1 + 4 + 4, 4 * 4)
        assert not count(requests, "get", "/c/")
        requests.clear()
        info = inspect(entries[0].spec)
        assert info.fingerprint == look(tmp_path / "lab" / "x.zarr").fingerprint
        # Frames' names once; metadata; columns of 120 / 16 files each; both ends of 18 shards, which are short.
        assert (count(requests, "list"), count(requests, "head")) == (2, 0)
        assert count(requests, "get", "zarr.json") == 4
        assert count(requests, "get", "x.zarr/frames/c/") == 18
        assert len(requests) == 2 + 4 + 2 * 8 + 18
        requests.clear()
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(5, 10), pixels(120)[5:10])
            assert requests == [("get", "growth/x.zarr/frames/c/1/0/0")]
            requests.clear()
            np.testing.assert_array_equal(source.read(6, 8), pixels(120)[6:8])
            # The shard's size, its index, two frames.
            assert (count(requests, "head"), count(requests, "get", "/c/1/")) == (1, 3)
        requests.clear()
        with open_source(info.spec) as source:
            assert len(source.read_encoded(40, 45)) == 5
            assert [made for made, _ in requests] == ["get"]
            requests.clear()
            assert len(source.read_encoded(45, 49)) == 4
            assert [made for made, _ in requests] == ["head", "get", "get"]

    def test_what_is_wrong_is_said(self, url, s3, tmp_path, monkeypatch):
        info = look(f"{url}/x.zarr")
        for missing in (f"{url}/none.zarr", "s3://no-such-bucket/x.zarr", "s3://no-such-bucket/lab"):
            (entry,) = discover([missing])
            assert isinstance(entry.error, SourceNotFoundError), entry.error
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
            s3.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": o["Key"]} for o in page["Contents"]]})
        s3.delete_bucket(Bucket=BUCKET)
        with open_source(info.spec) as source, pytest.raises(SourceNotFoundError):  # not: its frames were lost
            source.read(0, 5)
        fsspec.get_filesystem_class("s3").clear_instance_cache()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        monkeypatch.setenv("HOME", str(tmp_path))
        (entry,) = discover([f"{url}/x.zarr"])
        assert isinstance(entry.error, SourceReadError)
        assert "AWS_ACCESS_KEY_ID" in entry.error.hint


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def web(tmp_path):
    handler = functools.partial(Quiet, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_http_where_folders_are_listed(web, tmp_path):
    path = lake(tmp_path / "lab" / "x.zarr", pixels(45))
    (entry,) = discover([f"{web}/lab/"])
    info = inspect(entry.spec)
    assert described(info) == described(look(path))
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(20, 40), pixels(45)[20:40])
        assert len(source.read_encoded(20, 40)) == 20
    (entry,) = discover([f"{web}/lab/none.zarr"])
    assert isinstance(entry.error, SourceNotFoundError)


class TestKept:
    def files(self, contents):
        self.now, self.asked = 0.0, []

        def read(urls, most_bytes):
            self.asked += urls
            return [None if contents.get(url) is None else contents[url][:most_bytes] for url in urls]

        return KeptFiles(read, lambda: self.now)

    def test_for_half_a_minute(self):
        contents = {"a": b"1", "b": b"2"}
        kept = self.files(contents)
        assert kept.read(["a", "b", "c", "a"], 10) == [b"1", b"2", None, b"1"]
        contents["a"] = b"3"
        self.now = KEPT_S - 1
        assert kept.read(["a", "c"], 10) == [b"1", None]
        assert self.asked == ["a", "b", "c"]
        assert kept.read(["a"], 10, fresh=True) == [b"3"]
        assert kept.read(["a"], 10) == [b"3"]
        self.now += KEPT_S
        contents["a"] = b"4"
        assert kept.read(["a"], 10) == [b"4"]

    def test_no_more_than_its_bytes_and_nothing_that_was_cut(self):
        contents = {str(i): bytes(MAX_FILE_BYTES) for i in range(MAX_KEPT_BYTES // MAX_FILE_BYTES + 2)}
        kept = self.files(contents)
        for url in contents:
            kept.read([url], 2 * MAX_FILE_BYTES)
        kept.read(list(contents), 2 * MAX_FILE_BYTES)
        assert self.asked[len(contents) :][:2] == ["0", "1"]
        kept.read(["9"], 5)
        assert kept.read(["9"], 2 * MAX_FILE_BYTES) == [bytes(MAX_FILE_BYTES)]


def test_many_files_at_once(memory):
    memory.pipe({"/a/1": b"one", "/a/2": b"two"})
    assert read_files(["memory://a/1", "memory://a/none", "memory://a/2"], 2) == [b"on", None, b"tw"]
    with contextlib.suppress(SourceReadError):
        assert read_files([], 2) == []


def test_a_time_that_is_no_time_is_lost_there_too(memory, tmp_path):
    times = 1_700_000_000_000_000_000 + 100_000_000 * np.arange(40)
    times[[5, 30]] = NOT_A_TIME
    path = lake(tmp_path / "x.zarr", pixels(40), times=times)
    info = look(upload("memory://x.zarr", path))
    with open_source(info.spec) as source:
        encoded = source.read_encoded(0, 40)
    assert [i for i, part in enumerate(encoded) if part is None] == [5, 30]
