"""The demo's comparisons notice what differs; that it works as a whole is tested in test_cli.py."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import numpy as np

from ingest.cli.demo_live import _compare_frames, _compare_log
from ingest.sources.synthetic_log import LogChannel
from tests.cli.spools import POINTS, START_MS, Leftover, frames_of, points_of
from tests.support import KEY, ThreadServer


def delivered(run, state: Path, left: Leftover, *indices: int) -> Leftover:
    left.put(*indices, seal=True)
    assert run("spool", "deliver", "--to", left.destination, "--state", state).code == 0
    return left


def test_one_other_value_time_unit_or_count_is_a_difference(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())
    with ThreadServer(tmp_path / "server") as server:
        server.api_key = KEY
        data_id = delivered(run, tmp_path, Leftover(tmp_path, server.url, POINTS), 0).data_id
        made = LogChannel(*points_of(0), "C")

        def differ(log: LogChannel) -> int:
            return asyncio.run(_compare_log(server, data_id, {"temperature": log}))[0]

        assert differ(made) == 0
        assert differ(replace(made, values=made.values + np.eye(50)[7])) == 1
        assert differ(replace(made, timestamps_s=made.timestamps_s + np.eye(50)[7])) == 1
        assert differ(replace(made, units="K")) == 50
        assert differ(LogChannel(made.timestamps_s[:-2], made.values[:-2], "C")) == 2


def test_one_other_pixel_start_or_chunk_is_a_difference(run, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())
    with ThreadServer(tmp_path / "server") as server:
        server.api_key = KEY
        data_id = delivered(run, tmp_path, Leftover(tmp_path, server.url), 0, 1).data_id
        chunks, starts = [frames_of(0), frames_of(1)], [START_MS, START_MS + 2000]

        def compared(chunks, starts):
            return asyncio.run(_compare_frames(server, data_id, chunks, starts))[:2]

        assert compared(chunks, starts) == (40, 40)
        other = chunks[1].copy()
        other[3, 2, 2] ^= 1
        assert compared([chunks[0], other], starts) == (39, 40)
        assert compared(chunks, [START_MS, START_MS + 2001]) == (20, 40)
        assert compared(chunks[:1], starts) == (20, 40)
