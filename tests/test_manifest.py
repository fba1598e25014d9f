"""The manifest: what it states of a backfilled run and of a live stream, and that its digest is over all of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import xxhash

from ingest.ledger import Receipt
from ingest.manifest import live_manifest, manifest
from ingest.plan import StreamSettings
from ingest.timeseries import TimeseriesSettings
from tests.support import make_run, plan_of

FRAMES = StreamSettings("STO", 10.0, 0.0, 20, tags=("a",))
POINTS = TimeseriesSettings("log", 50)
RECEIPTS = [
    Receipt(0, 20, 1000, 3000, 500, 0xABC, "d0" * 16, "etag", 1, "node", 9, None),
    Receipt(2, 0, 0, 0, 40, 0xDEF, "d2" * 16, None, 3, "node", 9, "chunk 1 of p"),
    Receipt(3, 20, 500, 2500, 600, 0x123, "d3" * 16, None, 1, "node", 9, "chunk 1 of T"),
]
LOSSES = {10: "late", 1: "refused"}


def check_digest(stated: dict) -> None:
    rest = {name: value for name, value in stated.items() if name != "digest"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert stated["digest"] == xxhash.xxh3_128(canonical.encode()).hexdigest()
    assert json.loads(json.dumps(stated)) == json.loads(canonical) | {"digest": stated["digest"]}


def test_of_a_run(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5")
    path, plan = plan_of(tmp_path / "a.h5")
    stated = manifest(plan, "id", "open", RECEIPTS[:1], LOSSES)
    check_digest(stated)
    assert stated["source"]["paths"] == [path.split("::")[0]]
    assert stated["counts"]["frames"] == 200
    assert stated["counts"]["frames_confirmed"] == 20
    assert list(stated["losses"]) == ["1", "10"]
    assert stated["timing"]["fps"] == plan.settings.fps
    assert any(finding["kind"] == "gap" for finding in stated["findings"])


@pytest.mark.parametrize(("settings", "unit"), [(FRAMES, "frames"), (POINTS, "points")], ids=["frames", "points"])
def test_of_a_live_stream(settings, unit: str) -> None:
    stated = live_manifest(settings, "id", "open", RECEIPTS, LOSSES, is_sealed=True)
    check_digest(stated)
    assert stated["kind"] == ("rheed" if unit == "frames" else "timeseries")
    assert stated["stream"]["name"] == settings.name
    assert stated["counts"] == {f"{unit}_confirmed": 40, "chunks_confirmed": 3, "chunks_lost": 2, "bytes_out": 1140}
    assert stated["timing"] == {"start_unix_ms_utc": 500, "end_unix_ms_utc": 3000}, "a chunk without any has no time"
    assert [chunk["index"] for chunk in stated["chunks"]] == [0, 2, 3]
    assert all(unit in chunk for chunk in stated["chunks"])
    assert stated["chunks"][2].get("label") == (None if unit == "frames" else "chunk 1 of T")
    assert list(stated["losses"]) == ["1", "10"]
    assert (stated["sealed"], stated["gone_reason"]) == (True, None)


def test_of_a_live_stream_without_chunks() -> None:
    stated = live_manifest(FRAMES, None, "gone", [], {}, is_sealed=False, gone_reason="silent")
    check_digest(stated)
    assert stated["timing"] == {"start_unix_ms_utc": None, "end_unix_ms_utc": None}
    assert stated["gone_reason"] == "silent"


def test_any_change_changes_the_digest() -> None:
    def digest(settings=FRAMES, receipts=RECEIPTS, losses=LOSSES, *, is_sealed=True) -> str:
        return live_manifest(settings, "id", "open", receipts, losses, is_sealed=is_sealed)["digest"]

    others = {
        digest(replace(FRAMES, fps=11.0)),
        digest(POINTS),
        digest(receipts=[replace(RECEIPTS[0], crc32c=1), *RECEIPTS[1:]]),
        digest(losses={1: "refused"}),
        digest(is_sealed=False),
    }
    assert len(others | {digest()}) == 6
    assert digest() == digest()
