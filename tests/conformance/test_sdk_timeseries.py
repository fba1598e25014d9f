"""The official SDK's time series, as a black box, against our platform: what it sends is what we hold."""

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

pytestmark = pytest.mark.peers
pytest.importorskip("atomscale")

T0 = 1_700_000_000.123
NAN, INF = float("nan"), float("inf")
PROJECT = "6f1f6a1e-6d0e-4d4e-9a40-0f2bd0c3a001"


def stamps(index, n):
    return [T0 + index * 10 + i * 0.1 for i in range(n)]


PLAN = {
    "points_per_chunk": 5,
    "project": PROJECT,
    "pushes": [
        (1, "T/1", stamps(1, 3), [1.5, NAN, 1e-300], "°C"),
        (0, "T/1", stamps(0, 5), [0.1, 0.2, INF, -INF, 5.0]),
        (2, "T/1", [], []),
        (0, "", stamps(0, 1), [1.0]),
        (0, "no time", [NAN, 5.0], [1.0, 2.0]),
    ],
    "multi": [
        (
            index,
            {
                "a": {"timestamps": stamps(index, 5), "values": [index + i / 3 for i in range(5)], "units": "V"},
                "b.c": {"timestamps": stamps(index, 2), "values": [index, NAN]},
                "empty": {"timestamps": [], "values": []},
            },
        )
        for index in range(4)
    ],
    "run": [(stamps(index, 4), [float(index)] * 4) for index in range(3)],
}
PUTS = 5 + 2 * 4 + 3


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with start_server_process(tmp_path_factory.mktemp("platform") / "data", fsync=False) as server:
        yield server


@pytest.fixture(scope="module")
def client(server: ServerProcess):
    with httpx.Client(base_url=server.url, headers={"X-API-KEY": server.api_key.reveal()}, timeout=30) as client:
        yield client


def wait_for(client: httpx.Client, data_id: str, arrived) -> dict:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        details = client.get(f"/tool-state/stream/{data_id}").json()
        if arrived(details):
            return details
        time.sleep(0.02)
    raise TimeoutError(details)


@pytest.fixture(scope="module")
def streamed(server: ServerProcess, client, tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    (home / "plan.json").write_text(json.dumps(PLAN))
    environ = {
        **os.environ,
        "HOME": str(home),
        "XDG_STATE_HOME": str(home),
        "XDG_CACHE_HOME": str(home),
        "AS_API_KEY": server.api_key.reveal(),
        "ATOMSCALE_SKIP_CLOCK_SYNC": "1",
    }
    script = Path(__file__).with_name("sdk_timeseries_client.py")
    with subprocess.Popen(
        [sys.executable, str(script), server.url, str(home / "plan.json")],
        env=environ,
        cwd=home,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        lines = iter(process.stdout.readline, "")
        line = next((line for line in lines if line.startswith("{")), None)
        if line is not None:
            wait_for(client, json.loads(line)["data_id"], lambda details: details["puts"] >= PUTS)
        _, errors = process.communicate("go\n", timeout=60)
    assert process.returncode == 0, errors
    return json.loads(line)


def expected() -> dict[str, list]:
    """Return the (stamp, value) pairs of each channel in the order of its chunks, null where the SDK sends null."""
    chunks: dict[str, dict[int, list]] = {}
    for index, name, times, values, *_ in PLAN["pushes"]:
        chunks.setdefault(name, {})[index] = list(zip(times, values, strict=True))
    for index, channels in PLAN["multi"]:
        for name, fields in channels.items():
            if fields["timestamps"]:
                pairs = list(zip(fields["timestamps"], fields["values"], strict=True))
                chunks.setdefault(name, {})[index] = pairs
    for index, (times, values) in enumerate(PLAN["run"]):
        chunks.setdefault("by run", {})[index] = list(zip(times, values, strict=True))
    return {
        name: [tuple(x if np.isfinite(x) else None for x in pair) for i in sorted(of) for pair in of[i]]
        for name, of in chunks.items()
    }


def points(client, data_id, channel):
    return client.get(f"/tool-state/stream/{data_id}/points", params={"channel": channel}).json()


def test_every_point_arrives(client, streamed):
    data_id = streamed["data_id"]
    got = {}
    for name in expected():
        answer = points(client, data_id, name)
        got[name] = list(zip(answer["timestamps"], answer["values"], strict=True))
    assert got == expected()
    units = {name: points(client, data_id, name)["units"] for name in got}
    assert units == {"T/1": "°C", "": None, "no time": None, "a": "V", "b.c": None, "by run": "K"}


def test_the_stream_is_described(client, streamed):
    details = wait_for(client, streamed["data_id"], lambda details: details["sealed"])
    assert (details["name"], details["status"], details["points_per_chunk"]) == ("growth log", "closed", 5)
    assert (details["synth_source_id"], details["project"], details["times_closed"]) == (7, PROJECT, 1)
    assert details["sample"]["name"] == "GaN 42"
    assert [tag["name"] for tag in details["tags"]] == ["growth", "test"]
    assert {channel["name"] for channel in details["channels"]} == set(expected())
    assert all(set(channel["chunk_puts"]) == {1} for channel in details["channels"])
    tracked = client.get(f"/projects/{PROJECT}/configuration/tracking_samples").json()
    assert [(item["name"], item["active"]) for item in tracked] == [("GaN 42", True)]


def test_a_stream_without_a_name_gets_one(client, streamed):
    assert client.get(f"/tool-state/stream/{streamed['unnamed']}").json()["name"].startswith("Time series ")


def test_the_sealed_stream_opens_with_xarray(server, client, streamed):
    wait_for(client, streamed["data_id"], lambda details: details["sealed"])
    path = str(server.data / f"{streamed['data_id']}.zarr")
    with xarray.open_zarr(path, group="timeseries/a", consolidated=False) as data:
        times, values = zip(*expected()["a"], strict=True)
        np.testing.assert_array_equal(data["value"].values, values)
        got_s = data["time"].values.astype("datetime64[ns]").astype(np.int64) / 1e9
        np.testing.assert_allclose(got_s, times, rtol=0, atol=1e-6)
        assert data["value"].attrs["units"] == "V"
