"""The official SDK, as a black box, against our platform: what it sends is what we hold."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np
import pytest
import xarray

from ingest.server.run import ServerProcess, start_server_process
from ingest.shard import unpack
from tests.s3 import BUCKET, bucket, download, point_aws_at
from tests.server.s3_gate import running_gate

pytestmark = pytest.mark.peers
pytest.importorskip("atomscale")

FPS, CHUNK_SIZE, START_MS = 10.0, 20, 1_700_000_000_123
PERIOD_NS = 100_000_000


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(7)
    return rng.integers(0, 255, (47, 24, 32), np.uint8)


@pytest.fixture(scope="module", params=["data in a folder", "data in S3"])
def server(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("platform")
    if request.param == "data in a folder":
        with start_server_process(folder / "data", fsync=False) as server:
            server.lake = server.data
            yield server
        return
    with pytest.MonkeyPatch.context() as environ, running_gate(request.getfixturevalue("s3_server")) as gate:
        point_aws_at(environ, gate.url)
        with bucket() as client, start_server_process(f"s3://{BUCKET}/rheed", state=folder, fsync=False) as server:
            server.lake = LazyCopy(client, folder / "copy")
            yield server
            assert {status for _, status in gate.presigned} == {200}
            assert server.log() == ""


class LazyCopy:
    """A folder of streams that are copied from the bucket when they are asked for."""

    def __init__(self, client, folder):
        self.client, self.folder = client, folder

    def __truediv__(self, name):
        return download(self.client, f"rheed/{name}/", self.folder) / "rheed" / name


@pytest.fixture(scope="module")
def streamed(server: ServerProcess, frames, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    np.savez(home / "run.npz", frames=frames, chunk_size=CHUNK_SIZE, start_ms=START_MS, fps=FPS)
    script = Path(__file__).with_name("sdk_client.py")
    environ = {
        **os.environ,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "AS_API_KEY": server.api_key.reveal(),
        "ATOMSCALE_SKIP_CLOCK_SYNC": "1",
    }
    done = subprocess.run(
        [sys.executable, str(script), server.url, str(home / "run.npz")],
        env=environ,
        cwd=home,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout[done.stdout.index("{") :])


@pytest.fixture(scope="module")
def client(server: ServerProcess):
    with httpx.Client(base_url=server.url, headers={"X-API-KEY": server.api_key.reveal()}, timeout=30) as client:
        yield client


def sealed(client: httpx.Client, data_id: str) -> dict:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        details = client.get(f"/rheed/stream/{data_id}").json()
        if details["sealed"]:
            return details
        time.sleep(0.02)
    raise TimeoutError(details)


@pytest.mark.parametrize("way", ["run", "push"])
def test_every_frame_and_time_arrives(client, streamed, frames, way):
    details = sealed(client, streamed[way])
    assert (details["status"], details["frames"], details["chunks"]) == ("closed", 47, 3)
    assert details["missing_chunks"] == []
    for chunk in details["chunk_list"]:
        first = chunk["index"] * CHUNK_SIZE
        assert chunk["start_unix_ms_utc"] == START_MS + first * 100
        assert chunk["fps"] == FPS
        answer = client.get(f"/rheed/stream/{streamed[way]}/chunks/{chunk['index']}")
        got = unpack(answer.content, tuple(chunk["dims"]))
        np.testing.assert_array_equal(got, frames[first : first + len(got)])


@pytest.mark.parametrize("way", ["run", "push"])
def test_the_sealed_stream_opens_with_xarray(server, client, streamed, frames, way):
    sealed(client, streamed[way])
    with xarray.open_zarr(str(server.lake / f"{streamed[way]}.zarr"), consolidated=False) as data:
        np.testing.assert_array_equal(data["frames"].values, frames)
        expected = START_MS * 1_000_000 + np.arange(47) * PERIOD_NS
        np.testing.assert_array_equal(data["time"].values.astype("datetime64[ns]").astype(np.int64), expected)


def test_sample_project_and_tags_are_linked(client, streamed):
    ran, pushed = (client.get(f"/rheed/stream/{streamed[way]}").json() for way in ("run", "push"))
    assert ran["sample"]["name"] == "GaN 42"
    assert pushed["sample"] == ran["sample"]
    assert [tag["name"].casefold() for tag in ran["tags"]] == ["growth", "test"]
    assert [tag["name"] for tag in pushed["tags"]] == ["test"]
    assert ran["project"] == streamed["project"]
    tracked = client.get(f"/projects/{streamed['project']}/configuration/tracking_samples").json()
    assert [(item["name"], item["active"]) for item in tracked] == [("GaN 42", True)]
    assert len(client.get("/physical_samples/").json()) == 1
    assert len(client.get("/tags/").json()) == 2


@pytest.mark.parametrize("way", ["run", "push"])
def test_each_stream_is_closed_once(client, streamed, way):
    details = client.get(f"/rheed/stream/{streamed[way]}").json()
    assert details["times_closed"] == 1
    assert details["end_calls"] >= 1
    assert [chunk["puts"] for chunk in details["chunk_list"]] == [1, 1, 1]


def test_the_stream_keeps_what_it_was_created_with(client, streamed):
    details = client.get(f"/rheed/stream/{streamed['push']}").json()
    assert (details["name"], details["fps"], details["rotations_per_min"]) == ("by push", 10.0, 12.0)
    assert details["rotational_period"] == pytest.approx(50.0)
    assert all(chunk["is_rotating"] for chunk in details["chunk_list"])
