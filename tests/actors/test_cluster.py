"""Streaming from the nodes of a cluster of two raylets: by its address, and inside an actor on the other node."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ingest.destinations.readback import read_back
from ingest.wire.client import PlatformClient
from tests.support import KEY

pytestmark = pytest.mark.cluster

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def streamed(platform, tmp_path_factory):
    state = tmp_path_factory.mktemp("state")
    done = subprocess.run(
        [sys.executable, "-m", "tests.actors.cluster_script", platform.url, str(state)],
        env={**os.environ, "AS_API_KEY": KEY.reveal(), "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"state": state}


async def held(url: str, data_id: str) -> tuple[list[int], str]:
    async with PlatformClient(url, KEY) as client:
        values = [int(np.unique(chunk.frames)[0]) async for chunk in read_back(client, data_id)]
        return values, (await client.stream(data_id))["status"]


def test_frames_arrive_from_either_node(platform, streamed):
    assert streamed["uploaded"] == [3, 3]
    assert streamed["other_node"]
    for data_id in streamed["streams"]:
        assert asyncio.run(held(platform.url, data_id)) == ([1, 2, 3], "closed")


def test_each_has_its_journal_where_it_ran(streamed):
    assert (streamed["state"] / "head" / "journal.sqlite").exists()
    assert (streamed["state"] / "node" / "journal.sqlite").exists()


def test_the_cluster_is_left_at_the_end(streamed):
    assert not streamed["still_connected"]
