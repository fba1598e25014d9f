"""A real server in a process of its own."""

import os
import socket
import subprocess
import sys
import time
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
import xarray

from ingest.errors import SettingsError
from ingest.server.run import start_server_process
from ingest.shard import pack
from tests.server.conftest import START_MS, create_body, frames_of, metadata


class Remote:
    """A client of a server process."""

    def __init__(self, server):
        self.server = server
        self.http = httpx.Client(base_url=server.url, headers={"X-API-KEY": server.api_key.reveal()}, timeout=30)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.http.close()

    def create(self):
        return self.http.post("/rheed/stream/", json=create_body()).json()

    def url(self, data_id, index, about):
        params = {"original_filename": f"frames.zarr/frames/c/{index}/0/0", "num_parts": 1, "staging_type": "stream"}
        path = "/data_entries/raw_data/staged/upload_urls/"
        return self.http.post(path, json=about.body(data_id), params=params).json()[0]["url"]

    def chunk(self, data_id, index):
        return self.http.get(f"/rheed/stream/{data_id}/chunks/{index}").content


def until(condition, timeout_s=10):
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.01)
    return value


def staged(server, data_id):
    return list((server.data / ".staging" / data_id).glob("*"))


def half_a_put(server, url, body):
    """Send the head of a PUT and half of its body, and return the open socket."""
    parts = urlsplit(url)
    connection = socket.create_connection((parts.hostname, parts.port))
    head = f"PUT {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[: len(body) // 2])
    return connection


def test_a_disconnect_in_the_middle_of_a_put_leaves_nothing(tmp_path):
    with start_server_process(tmp_path / "data") as server, Remote(server) as client:
        data_id = client.create()
        frames = frames_of(8, size=(500, 500))
        body = pack(frames).tobytes()
        url = client.url(data_id, 0, metadata(frames.shape))
        with half_a_put(server, url, body):
            until(lambda: staged(server, data_id))
        until(lambda: not staged(server, data_id))
        assert client.http.put(url, content=body).status_code == 200
        assert client.chunk(data_id, 0) == body
        assert server.log() == ""


def test_a_kill_loses_nothing_that_was_answered(tmp_path):
    data = tmp_path / "data"
    frames = [frames_of(length, seed, (40, 50)) for seed, length in enumerate((20, 7, 20, 13, 5))]
    bodies = [pack(part).tobytes() for part in frames]
    starts = [START_MS + 2000 * index for index in range(5)]
    with start_server_process(data) as server, Remote(server) as client:
        data_id = client.create()
        for index in range(4):
            url = client.url(data_id, index, metadata(frames[index].shape, starts[index]))
            assert client.http.put(url, content=bodies[index]).status_code == 200
        url = client.url(data_id, 4, metadata(frames[4].shape, starts[4]))
        with half_a_put(server, url, bodies[4]):
            until(lambda: len(staged(server, data_id)) == 5)
            server.kill()
    with start_server_process(data, api_key=server.api_key) as server, Remote(server) as client:
        assert len(staged(server, data_id)) == 4
        assert [client.chunk(data_id, index) for index in range(4)] == bodies[:4]
        url = client.url(data_id, 4, metadata(frames[4].shape, starts[4]))
        assert client.http.put(url, content=bodies[4]).status_code == 200
        assert client.http.post(f"/rheed/stream/{data_id}/end").json()["missing_chunks"] == []
        server.kill()
    with start_server_process(data, api_key=server.api_key) as server, Remote(server) as client:
        details = until(lambda: (d := client.http.get(f"/rheed/stream/{data_id}").json())["sealed"] and d)
        assert (details["status"], details["frames"], details["times_closed"]) == ("closed", 65, 1)
        assert [client.chunk(data_id, index) for index in range(5)] == bodies
        with xarray.open_zarr(str(data / f"{data_id}.zarr"), consolidated=False) as opened:
            np.testing.assert_array_equal(opened["frames"].values, np.concatenate(frames))
        assert server.terminate() in (0, -15)


def test_a_refused_upload_gets_its_answer_although_its_body_is_large(tmp_path):
    with (
        start_server_process(tmp_path / "data", upload_url_ttl_s=0.001, fsync=False) as server,
        Remote(server) as client,
    ):
        data_id = client.create()
        url = client.url(data_id, 0, metadata())
        until(lambda: client.http.put(url, content=b"").status_code == 403)
        for _ in range(3):
            answer = client.http.put(url, content=b"x" * 20_000_000)
            assert answer.status_code == 403
            assert "expired" in answer.json()["detail"]


def test_a_second_server_on_the_folder_is_refused(tmp_path):
    with (
        start_server_process(tmp_path / "data", fsync=False),
        pytest.raises(SettingsError, match=r"exit code 2: error: another server is using .*data"),
    ):
        start_server_process(tmp_path / "data")


def test_a_port_that_is_taken_is_refused(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="cannot listen on"):
        start_server_process(tmp_path / "data", port=taken.getsockname()[1])


def test_without_a_key_it_makes_one_and_shows_it_once(tmp_path):
    environ = {name: value for name, value in os.environ.items() if name != "AS_API_KEY"}
    command = [sys.executable, "-m", "ingest.server", "--data", str(tmp_path / "data"), "--port", "0", "--no-fsync"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        try:
            lines = [process.stdout.readline().strip() for _ in range(2)]
            key, url = lines[0].removeprefix("api key: "), lines[1].removeprefix("listening on ")
            assert httpx.get(f"{url}/rheed/stream/", headers={"X-API-KEY": key}).json() == []
            assert httpx.get(f"{url}/rheed/stream/").status_code == 401
        finally:
            process.terminate()
        assert process.stdout.read() == ""
    assert not any(key in path.read_text(errors="replace") for path in (tmp_path / "data").rglob("*") if path.is_file())
