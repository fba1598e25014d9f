"""A lake by the command line: what is refused at once, and a whole job on a Ray of its own into S3 and a folder."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray

from tests.cli.test_cli import STATIONARY
from tests.support import make_run


def rheed_ingest(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ingest", *map(str, arguments)]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    ("lake", "words"),
    [("a.h5", "is no folder"), (".", "source and as lake"), ("s3://no-such-bucket/x", "no such bucket")],
)
def test_what_cannot_be_is_said_before_a_ray_is_started(run, s3, tmp_path: Path, monkeypatch, lake: str, words: str):
    make_run(tmp_path / "a.h5")
    monkeypatch.chdir(tmp_path)
    ran = run("backfill", ".", "--to", lake, *STATIONARY)
    assert ran.code in (1, 2)
    assert words in ran.err
    assert not list(tmp_path.glob("**/journal.sqlite"))


@pytest.mark.cluster
def test_a_job_into_s3_and_a_folder(s3, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.h5", frames=150)
    lake = tmp_path / "lake"
    to = ("--to", "s3://lab-runs/growth", "--to", lake, "--state", tmp_path / "state")
    ran = rheed_ingest("backfill", tmp_path / "a.h5", *to, *STATIONARY, "--packers", 2, "--json")
    assert ran.returncode == 0, ran.stderr
    runs = json.loads(ran.stdout)["runs"]
    assert [(one["status"], one["destination"]) for one in runs] == [
        ("complete", "s3://lab-runs/growth"), ("complete", str(lake)),
    ]  # fmt: skip
    data = xarray.open_zarr(lake / f"{runs[1]['data_id']}.zarr", consolidated=False)
    np.testing.assert_array_equal(data.frames.values, run.frames(0, run.count))
    np.testing.assert_array_equal(data.time.values, run.timestamps_ns().astype("M8[ns]"))
    ran = rheed_ingest("verify", tmp_path / "a.h5", *to, *STATIONARY)
    assert (ran.returncode, ran.stdout.count("verified")) == (0, 2), ran.stdout + ran.stderr
    listed = rheed_ingest("streams", "--to", lake, "--state", tmp_path / "state", "--json")
    assert [one["destination"] for one in json.loads(listed.stdout)["streams"]] == [str(lake)]
    again = rheed_ingest("backfill", tmp_path / "a.h5", *to, *STATIONARY)
    assert "Nothing to do" in again.stdout
    moved = rheed_ingest("inspect", "s3://lab-runs/growth", "--json")
    assert json.loads(moved.stdout)["runs"][0]["frames"] == 150, moved.stderr
    [stream] = [entry["Key"].split("/")[1] for entry in s3.list_objects_v2(Bucket="lab-runs")["Contents"]
                if entry["Key"].endswith(".zarr/zarr.json")]  # fmt: skip
    ran = rheed_ingest("export", f"s3://lab-runs/growth/{stream}", "--out", tmp_path / "again.h5")
    assert ran.returncode == 0, ran.stderr
    with h5py.File(tmp_path / "again.h5") as file:
        np.testing.assert_array_equal(file["entry/data/frames"][...], run.frames(0, run.count))
        np.testing.assert_array_equal(file["entry/data/time"][...], run.timestamps_ns())
