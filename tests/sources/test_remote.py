"""HDF5 files at URLs: a store in this process, and S3."""

import contextlib
import functools
import http.server
import importlib
import io
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import h5py
import numpy as np
import pytest

from ingest.errors import (
    IngestError,
    NoFramesError,
    SettingsError,
    SourceChangedError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
    TruncatedSourceError,
    UnclosedSourceError,
)
from ingest.sources import SourceOptions, discover, inspect, open_source, remote
from ingest.sources.hdf5_file import release_files
from ingest.sources.remote import BLOCK_BYTES, open_binary, read_blocks, remote_stat
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from ingest.sources.urls import is_url, redacted, redacted_text
from tests.s3 import SECRET
from tests.sources.contract import Made, SourceContract
from tests.sources.files import look, pixels, write
from tests.sources.test_hdf5_swmr import killed


@pytest.fixture
def store():
    """An empty ``memory://``; gives the function that puts a local file there."""
    fs = fsspec.filesystem("memory")

    def put(url, path) -> str:
        with open(path, "rb") as file:
            fs.pipe(url.removeprefix("memory:/"), file.read())
        return url

    put.fs = fs
    yield put
    fs.rm("/", recursive=True)
    release_files()


class InThisProcess:
    """``memory://`` is of one process: the contract's other process cannot see it."""

    test_another_process_reads_the_same = None


class TestMemory(InThisProcess, SourceContract):
    @pytest.fixture
    def made(self, store, tmp_path):
        run = GrowthRun(23, 16, 24, jitter_s=0.002)
        write_hdf5(tmp_path / "a.h5", run, compression="gzip", hdf5_chunk_frames=4)
        return Made(look(store("memory://runs/a.h5", tmp_path / "a.h5")), run.frames(0, 23))


class TestChunkFiles(InThisProcess, SourceContract):
    @pytest.fixture
    def made(self, store, tmp_path):
        run = GrowthRun(50, 16, 24)
        for path in write_hdf5(tmp_path / "run", run, "chunk_files", frames_per_file=8):
            store(f"memory://run/{path.rpartition('/')[2]}", path)
        return Made(look("memory://run"), run.frames(0, 50))

    def test_named_by_the_folder(self, made):
        assert made.info.name == "run"


def test_a_copy_in_a_store_is_the_same_recording(store, tmp_path):
    path = write(tmp_path / "STO_20231003-161713.h5", {"frames": pixels(2000), "t": np.arange(2000) / 8})
    there = look(store("memory://STO_20231003-161713.h5", path), timezone="UTC")
    here = look(path, timezone="UTC")
    assert (there.fingerprint, there.name, there.start_ns) == (here.fingerprint, here.name, here.start_ns)
    assert there.start_from == "file name"
    assert look("memory://STO_20231003-161713.h5", start_from_mtime=True).start_from is None


class TestListing:
    def test_folders_and_patterns(self, store, tmp_path):
        path = write(tmp_path / "a.h5", {"frames": pixels(2)})
        for name in ("run10.h5", "run2.h5", "below/run3.nxs", ".hidden.h5", "notes.txt"):
            store(f"memory://lab/{name}", path)
        entries = discover(["memory://lab"])
        assert [entry.path for entry in entries] == [
            f"memory:///lab/{name}" for name in ("below/run3.nxs", "run2.h5", "run10.h5")
        ]
        assert entries[0].ignored_files == 2
        assert len(discover(["memory://lab/", "memory://lab/run2.h5", "memory:///lab/run*.h5"])) == 3
        assert len(discover(["memory://lab/run*.h5"])) == 2

    def test_a_name_that_says_nothing_is_looked_into(self, store, tmp_path):
        path = write(tmp_path / "a.h5", {"frames": pixels(2)})
        assert look(store("memory://lab/noext", path)).frames == 2

    @pytest.mark.parametrize(
        ("url", "error", "words"),
        [
            ("memory://lab/none.h5", SourceNotFoundError, "no such file"),
            ("memory://lab/*.h5", SourceNotFoundError, "matches nothing"),
            ("memory://lab/none/", SourceNotFoundError, "nothing in this folder"),
            ("memory://lab/movie.avi", SettingsError, "read from local paths"),
            ("memory://lab/lake.zarr", SourceNotFoundError, "no such file or folder"),
            ("memory://text/notes", SettingsError, "neither HDF5 nor Zarr"),
            ("nonsense://lab/a.h5", SettingsError, "no nonsense:// URLs"),
            (f"s3://key:{SECRET}@bucket/a.h5", SettingsError, "must not hold a password"),
        ],
    )
    def test_what_cannot_be(self, store, tmp_path, url, error, words):
        (tmp_path / "notes").write_text("x")
        store("memory://text/notes", tmp_path / "notes")
        (entry,) = discover([url])
        assert type(entry.error) is error
        assert words in str(entry.error)
        assert entry.error.hint
        assert SECRET not in str(entry.error)

    def test_a_missing_client_is_named(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "s3fs", None)
        monkeypatch.delitem(importlib.import_module("fsspec.registry")._registry, "s3", raising=False)
        (entry,) = discover(["s3://bucket/a.h5"])
        assert isinstance(entry.error, SettingsError)
        assert entry.error.hint == "pip install 'rheed-ingest[s3]'"


class TestDamage:
    def test_is_named_as_on_a_disk(self, store, tmp_path):
        path = write(tmp_path / "a.h5", {"frames": pixels(50)})
        with open(path, "rb") as file:
            content = file.read()
        store.fs.pipe("/cut.h5", content[:-3000])
        store.fs.pipe("/empty.h5", b"")
        store.fs.pipe("/text.h5", b"text" * 300)
        store("memory://open.h5", killed(tmp_path / "k.h5"))
        with pytest.raises(TruncatedSourceError, match="3000 bytes are missing"):
            look("memory://cut.h5")
        with pytest.raises(SourceFormatError, match=r"empty\.h5: the file is empty"):
            look("memory://empty.h5")
        with pytest.raises(SourceFormatError, match=r"text\.h5: not an HDF5 file"):
            look("memory://text.h5")
        with pytest.raises(UnclosedSourceError):
            look("memory://open.h5")

    def test_a_virtual_dataset_needs_its_parts(self, store, tmp_path):
        layout = h5py.VirtualLayout((4, 12, 16), "u1")
        layout[:] = h5py.VirtualSource("part.h5", "data", (4, 12, 16))
        with h5py.File(tmp_path / "v.h5", "w") as file:
            file.create_virtual_dataset("frames", layout)
        with pytest.raises(NoFramesError, match="parts in other files"):
            look(store("memory://v.h5", tmp_path / "v.h5"))

    def test_a_file_that_was_replaced_is_read_anew(self, store, tmp_path):
        url = store("memory://a.h5", write(tmp_path / "a.h5", {"frames": pixels(5)}))
        with open_source(look(url).spec) as source:
            source.read(0, 5)
            store(url, write(tmp_path / "b.h5", {"frames": pixels(5, seed=1)}))
            np.testing.assert_array_equal(source.read(0, 5), pixels(5, seed=1))
            store(url, write(tmp_path / "c.h5", {"frames": pixels(3)}))
            with pytest.raises(SourceChangedError):
                source.read(0, 5)

    @pytest.mark.parametrize("moment", ["open", "list", "read"])
    def test_a_store_that_fails_may_be_asked_again(self, store, tmp_path, monkeypatch, moment):
        frames = pixels(40, 400, 400)  # more than is held
        datasets = {"frames": {"data": frames, "chunks": (1, 400, 400)}, "timestamps": np.arange(40.0)}
        url = store("memory://a.h5", write(tmp_path / "a.h5", datasets))
        info = look(url)
        release_files()
        failing, real = [False], remote.RemoteFile.readinto

        def readinto(self, buffer):
            if failing[0]:
                raise SourceReadError(f"{self!r}: could not be read: reset by peer")
            return real(self, buffer)

        monkeypatch.setattr(remote.RemoteFile, "readinto", readinto)
        with open_source(info.spec) as source:
            if moment == "read":
                source.read(0, 2)
            failing[0] = True
            with pytest.raises(SourceReadError, match="reset by peer"):
                inspect(info.spec) if moment == "list" else source.read(30, 40)
            failing[0] = False
            np.testing.assert_array_equal(source.read(30, 40), frames[30:])


def test_secrets_of_urls_stay_out(monkeypatch):
    url = f"https://me@host/runs/a.h5?X-Amz-Signature={SECRET}#part"
    assert redacted(url) == "https://host/runs/a.h5"
    assert SECRET not in redacted_text(f"ClientResponseError(url='{url}') of {url}")
    assert redacted("/a?b#c") == "/a?b#c"
    assert (is_url("s3://a/b"), is_url("file:///a"), is_url("/a://b"), is_url("C:\\a")) == (True, False, False, False)

    def fail(*_, **__):
        raise OSError(f"GET {url} failed")

    monkeypatch.setattr(remote, "filesystem", fail)
    with pytest.raises(SourceReadError) as caught:
        remote_stat(url)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_blocks_are_read_once_and_few_are_held(store, monkeypatch):
    content = np.random.default_rng(0).bytes(12 * BLOCK_BYTES + 5)
    store.fs.pipe("/big.h5", content)
    file = open_binary("memory://big.h5")
    for place in (0, 10, BLOCK_BYTES - 3, 12 * BLOCK_BYTES):
        file.seek(place)
        assert file.read(8) == content[place : place + 8]
    assert open_binary("memory://big.h5") is file
    assert read_blocks("memory://big.h5", [3, 12 * BLOCK_BYTES], 7) == [content[3:10], content[-5:]]
    assert (file.seek(-5, io.SEEK_END), file.tell()) == (12 * BLOCK_BYTES, 12 * BLOCK_BYTES)


def test_an_open_file_does_not_bring_the_interpreter_down_at_its_end(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": pixels(5)})
    code = """if True:
        import sys, fsspec
        from ingest.sources import discover, inspect, open_source
        fsspec.filesystem('memory').pipe('/a.h5', open(sys.argv[1], 'rb').read())
        print(open_source(inspect(discover(['memory://a.h5'])[0].spec).spec).read(0, 5).shape)"""
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "(5, 12, 16)\n"), done.stderr


class Web(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, in parts if `gives_parts`."""

    gives_parts = True

    def log_message(self, *_):
        pass

    def copyfile(self, source, outputfile):
        with contextlib.suppress(ConnectionError):  # whoever asked for a part and gets the whole hangs up
            super().copyfile(source, outputfile)

    def do_GET(self):
        if "denied" in self.path:
            self.send_error(403)
        elif self.gives_parts and (wanted := self.headers.get("Range")):
            content = Path(self.translate_path(self.path)).read_bytes()
            first, last = (int(number or len(content)) for number in wanted.removeprefix("bytes=").split("-"))
            part = content[first : last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)
        else:
            super().do_GET()


@pytest.fixture
def web(tmp_path):
    handler = functools.partial(Web, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        release_files()
        server.shutdown()
        thread.join()


def test_http(web, tmp_path, monkeypatch):
    write(tmp_path / "a.h5", {"frames": pixels(5)})
    info = look(f"{web}/a.h5?token={SECRET}")
    assert info.name == "a"
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(1, 5), pixels(5)[1:])
    failures = [("none.h5", SourceNotFoundError, "no such file"), ("denied.h5", SourceReadError, "permission denied")]
    for name, kind, words in failures:
        (entry,) = discover([f"{web}/{name}?token={SECRET}"])
        assert (type(entry.error), words in str(entry.error), bool(entry.error.hint)) == (kind, True, True)
        assert SECRET not in f"{entry.path} {entry.error}"
    (entry,) = discover(["http://127.0.0.1:1/a.h5"])
    assert isinstance(entry.error, SourceReadError)
    monkeypatch.setattr(Web, "gives_parts", False)
    write(tmp_path / "big.h5", {"frames": pixels(500, 200, 200)})
    with pytest.raises(SourceFormatError, match="only whole"):
        look(f"{web}/big.h5")


@pytest.fixture
def s3(s3):
    yield s3
    release_files()


@pytest.fixture
def gets(s3, monkeypatch):
    """Every range that was fetched, in bytes."""
    from s3fs import S3FileSystem

    fetched, real = [], S3FileSystem._call_s3

    async def counting(self, method, *args, **kwargs):
        answer = await real(self, method, *args, **kwargs)
        if method == "get_object":
            fetched.append(answer["ContentLength"])
        return answer

    monkeypatch.setattr(S3FileSystem, "_call_s3", counting)
    return fetched


def test_s3_takes_few_blocks(s3, gets, tmp_path):
    run = GrowthRun(80, 480, 640)  # 24.6 MB
    path = tmp_path / "a.h5"
    write_hdf5(path, run)
    s3.upload_file(str(path), "lab-runs", "2023/a.h5")
    (entry,) = discover(["s3://lab-runs/2023/"])
    assert entry.path == "s3://lab-runs/2023/a.h5"
    assert sum(gets) <= 3 * BLOCK_BYTES, gets
    info = inspect(entry.spec)
    assert (info.frames, info.start_from) == (80, "frame stamps")
    opened = [size for size in gets if size > 2**16]
    assert sum(opened) <= 3 * BLOCK_BYTES, gets
    assert len(gets) - len(opened) <= 18  # the fingerprint's
    assert info.fingerprint == look(path).fingerprint
    gets.clear()
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(0, 40), run.frames(0, 40))
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(40, 80), run.frames(40, 80))
    assert sum(gets) <= path.stat().st_size + BLOCK_BYTES, gets


def test_s3_says_what_is_wrong(s3, tmp_path, monkeypatch):
    for url in ("s3://lab-runs/none.h5", "s3://no-such-bucket/a.h5"):
        assert isinstance(discover([url])[0].error, SourceNotFoundError)
    path = write(tmp_path / "a.h5", {"frames": pixels(5)})
    s3.upload_file(path, "lab-runs", "changing.h5")
    remote.close_files()
    file = open_binary("s3://lab-runs/changing.h5")
    s3.put_object(Bucket="lab-runs", Key="changing.h5", Body=b"x" * 10_000)
    with pytest.raises(SourceChangedError, match="written anew"):
        file.read(8)
    fsspec.get_filesystem_class("s3").clear_instance_cache()
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(IngestError) as caught:
        inspect(look_at("s3://lab-runs/changing.h5"))
    assert isinstance(caught.value, SourceReadError)
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint


def look_at(url):
    (entry,) = discover([url], SourceOptions())
    if entry.error is not None:
        raise entry.error
    return entry.spec
