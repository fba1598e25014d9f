"""Verification and repair: every kind of damage is found, named, mended, and then gone; nothing right is touched."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from ingest.destinations import open_destination
from ingest.journal import Journal
from ingest.lake.opening import open_store
from ingest.orders import orders_of
from ingest.pipeline import Pipeline
from ingest.plan import RunPlan
from ingest.shard import assemble
from ingest.verify.findings import StreamReport
from ingest.verify.here import verify_here
from ingest.verify.job import VerifyRequest
from tests.support import KEY, QUICK, ThreadServer, answer, backfill_without_ray
from tests.verify_support import (
    DAMAGE,
    LOST,
    SHAPE,
    SIZE,
    Sent,
    another_pixel,
    document,
    encoded,
    flip,
    kinds,
    live,
    lossy_run,
    manifest_with_digest,
    number,
    plan_for,
    shards,
    with_parts,
    write_log,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    folder = tmp_path_factory.mktemp("made")
    return Sent.make(folder, lossy_run(folder / "a.h5"))


@pytest.fixture
def sent(made: Sent, tmp_path: Path) -> Sent:
    return made.copied(tmp_path)


def test_what_was_sent_is_right(sent: Sent) -> None:
    before = sent.files()
    report = sent.verify(repair=True)
    assert (report.status, report.differences, report.repaired, report.findings) == ("verified", [], [], [])
    assert (report.data_id, report.chunks, report.frames, report.n_bytes) == (sent.data_id, 6, 200, 200 * 24 * 32)
    alone = sent.verify(alone=True)
    assert (alone.status, alone.differences, alone.findings) == ("verified", [], [])
    assert alone.frames == 200
    assert sent.files() == before
    assert zarr.open_array(sent.group / "frame_index")[LOST[0]] == -1, "the run has lost frames"


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_found_named_and_mended(sent: Sent, what: str) -> None:
    damage, expected = DAMAGE[what]
    whole = sent.files()
    damage(sent)
    damaged = sent.files()
    touched = {
        name
        for name in whole.keys() | damaged.keys()
        if whole.get(name, (0, b""))[1:] != damaged.get(name, (0, b""))[1:]
    }
    report = sent.verify()
    assert (report.status, kinds(report)) == ("different", expected), report.differences
    assert all(difference.can_mend for difference in report.differences)
    alone = sent.verify(alone=True)
    assert alone.status == "different", "without the source too"
    assert sent.files() == damaged, "nothing is written without --repair"
    mended = sent.verify(repair=True)
    assert (mended.status, mended.differences) == ("repaired", []), mended.differences
    assert {difference.kind for difference in mended.repaired} == expected
    assert sent.verify().status == sent.verify(alone=True).status == "verified"
    after = sent.files()
    for name, file in damaged.items():
        if name not in touched and "manifest" not in name and not name.endswith(".zarr/zarr.json"):
            assert after[name] == file, "what is right is not written again"
    assert {name: data for name, (_, data) in shards(after)} == {name: data for name, (_, data) in shards(whole)}


def test_a_store_that_is_no_folder(made: Sent) -> None:
    _, plan = plan_for(Path(made.path.partition("::")[0]), "memory://verified")
    backfill_without_ray("memory://verified", made.state, (made.path, plan), job_id="memory")
    store = open_store("memory://verified")
    name = f"{made.data_id}.zarr/frames/c/1/0/0"
    body = store.get(name)
    store.put(name, [body[:500], b"x", body[501:]])
    runs = [(made.path, plan)]

    def verified(*, repair: bool = False) -> str:
        [report] = asyncio.run(verify_here(VerifyRequest(["memory://verified"], runs, made.state, repair=repair)))
        return report.status

    assert (verified(), verified(repair=True), verified()) == ("different", "repaired", "verified")
    assert store.get(name) == body


# -- of source, lake and manifest, which one is wrong ------------------------------------------------------------------


def test_a_manifest_that_says_another_digest_is_outvoted(sent: Sent) -> None:
    whole = sent.files()
    manifest_with_digest(sent, lambda d: d["chunks"][1].update(frames_xxh3_128="0" * 32))
    report = sent.verify()
    assert kinds(report) == {"manifest"}
    assert any(difference.chunk == 1 for difference in report.differences)
    assert sent.verify(repair=True).status == "repaired"
    assert dict(shards(sent.files())) == dict(shards(whole)), "no shard was written"
    assert sent.files()[sent.manifest.name][1] == whole[sent.manifest.name][1]


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["chunks"][0].update(start_unix_ms_utc=5),
        lambda d: d["counts"].update(frames_lost=0),
        lambda d: d["timing"].update(fps=1.0),
        lambda d: d["source"].update(fingerprint="other"),
        lambda d: d["chunks"].pop(2),
        lambda d: d["losses"].update({"3": "dropped"}),
        lambda d: d.update(data_id="other"),
        lambda d: d["chunks"][4].update(frames=7),
        lambda d: d["chunks"][2].update(lost_frames=[3]),
    ],
)
def test_an_edited_manifest_is_written_anew(sent: Sent, change) -> None:
    manifest_with_digest(sent, change)
    report = sent.verify()
    assert "manifest" in kinds(report)
    assert sent.verify(repair=True).status == "repaired"
    assert sent.verify().status == sent.verify(alone=True).status == "verified"


def test_a_source_that_changed_sets_nothing_right(tmp_path: Path) -> None:
    source = lossy_run(tmp_path / "a.h5", lost=())
    sent = Sent.make(tmp_path, source)
    whole = sent.files()
    lossy_run(source, lost=(50,))
    report = sent.verify(repair=True)
    assert (report.status, kinds(report)) == ("different", {"source"})
    assert "what is stored is as it was sent" in report.differences[0].message
    assert sent.files() == whole, "the only good copy is left as it is"
    another_pixel(sent)
    damaged = sent.files()
    report = sent.verify(repair=True)
    assert (report.status, kinds(report)) == ("different", {"source"})
    assert "neither" in report.differences[0].message
    assert sent.files() == damaged


def test_frames_that_can_be_read_now_are_added(tmp_path: Path) -> None:
    source = lossy_run(tmp_path / "a.h5")
    sent = Sent.make(tmp_path, source)
    lossy_run(source, lost=())
    report = sent.verify()
    assert [(d.kind, d.chunk) for d in report.differences if d.kind == "lost frame"] == [("lost frame", 3)]
    assert sent.verify(repair=True).status == "repaired"
    assert sent.verify().status == sent.verify(alone=True).status == "verified"
    group = zarr.open_group(sent.group, mode="r")
    assert (group["frame_index"][:] >= 0).all()
    assert group.attrs["frames_lost"] == 0


def test_a_chunk_that_is_lost_as_a_whole_stays_lost(tmp_path: Path) -> None:
    sent = Sent.make(tmp_path, lossy_run(tmp_path / "a.h5", lost=tuple(range(2 * SIZE, 3 * SIZE))))
    assert not sent.shard(2).exists()
    assert sent.verify().status == sent.verify(alone=True).status == "verified"
    black = encoded(np.zeros(SHAPE, np.uint8))
    sent.shard(2).parent.mkdir(parents=True, exist_ok=True)
    sent.shard(2).write_bytes(assemble([black] * SIZE).tobytes())
    assert kinds(sent.verify()) == {"lost frame", "extra object"}
    assert kinds(sent.verify(alone=True)) == {"lost frame"}
    assert sent.verify(repair=True).status == "repaired"
    assert not sent.shard(2).exists()
    assert sent.verify().status == "verified"


# -- chunks of irregular length ----------------------------------------------------------------------------------------


def test_chunks_that_end_at_gaps(tmp_path: Path) -> None:
    sent = Sent.make(tmp_path, lossy_run(tmp_path / "a.h5"), chunking="gap-aware")
    assert len(sent.plan.chunks) == 6, "two chunks share a shard"
    assert sent.verify().status == sent.verify(alone=True).status == "verified"
    whole = sent.files()
    with_parts(sent.shard(1), lambda parts: parts.__setitem__(35, encoded(np.ones(SHAPE, np.uint8))))
    report = sent.verify()
    assert [(d.kind, d.chunk, d.frame) for d in report.differences] == [("frames", 2, SIZE + 35)]
    assert [(d.kind, d.chunk) for d in sent.verify(alone=True).differences] == [("frames", 2)]
    assert sent.verify(repair=True).status == "repaired"
    assert dict(shards(sent.files())).keys() == dict(shards(whole)).keys()
    assert sent.shard(1).read_bytes() == whole[f"{sent.group.name}/frames/c/1/0/0"][1]


@pytest.mark.parametrize("lengths", [(3, 5, 4, 9, 1), (4, 4, 4), (1,), (7, 8, 2)])
def test_a_live_stream_by_itself(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    sent = live(tmp_path, lengths)
    report = sent.verify(alone=True)
    assert (report.status, report.differences) == ("verified", [])
    assert (report.frames, report.chunks) == (sum(lengths), len(lengths))
    with_parts(sent.shard(0), lambda parts: parts.__setitem__(0, encoded(np.ones((4, 6), np.uint8))), 4)
    report = sent.verify(alone=True)
    assert [(d.kind, d.chunk) for d in report.differences] == [("frames", 0)]
    assert not report.differences[0].can_mend


# -- which stream ------------------------------------------------------------------------------------------------------


def test_other_settings_and_other_runs_are_told_apart(sent: Sent, tmp_path: Path) -> None:
    _, other = plan_for(Path(sent.path.partition("::")[0]), str(sent.lake), chunk_size=50)
    report = sent.verify(plan=other)
    assert (report.status, kinds(report)) == ("different", {"settings"})
    assert "chunk_size was 41 and is 50" in report.differences[0].message
    _, renamed = plan_for(Path(sent.path.partition("::")[0]), str(sent.lake), name="another name")
    report = sent.verify(plan=renamed)
    assert (report.status, report.data_id) == ("verified", sent.data_id)
    assert report.findings == ["found by the recording's fingerprint: it has another name"]
    _, unknown = plan_for(lossy_run(tmp_path / "b.h5", frames=120), str(sent.lake))
    report = sent.verify(plan=unknown)
    assert (report.status, report.data_id) == ("missing", None)
    assert "backfill" in (report.hint or "")


def test_of_several_attempts_the_last_finished_one_is_meant(sent: Sent) -> None:
    second = Sent(sent.lake, sent.state, sent.path, sent.plan, f"{sent.data_id}-2")
    shutil.copytree(sent.group, second.group)
    report = sent.verify()
    assert report.data_id == second.data_id
    assert kinds(report) == {"manifest", "attributes"}, "it is a copy without a manifest of its own"
    (second.group / "zarr.json").unlink()
    report = sent.verify()
    assert (report.status, report.data_id) == ("verified", sent.data_id)
    assert report.findings == [f"also sent as {second.data_id}"]
    assert sent.verify(streams=(second.data_id,)).data_id == second.data_id
    assert sent.verify(streams=("nothing-12345678",)).status == "unreadable"


def test_a_stream_that_was_never_finished_is_finished(sent: Sent) -> None:
    whole = sent.files()
    for path in (sent.group / "zarr.json", sent.manifest, sent.shard(4)):
        path.unlink()
    for array in ("time", "frame_index"):
        shutil.rmtree(sent.group / array)
    staged = sent.lake / ".rheed-ingest/staging" / sent.data_id / "4_36x24x32_1700000000000_0x1.4p+4"
    staged.parent.mkdir(parents=True)
    staged.write_bytes(b"part")
    alone = sent.verify(alone=True)
    assert (alone.status, kinds(alone)) == ("different", {"uncommitted"})
    assert any("left in" in finding for finding in alone.findings)
    assert "uncommitted" in kinds(sent.verify())
    assert sent.verify(repair=True).status == "repaired"
    assert {name: data for name, (_, data) in shards(sent.files())} == {name: data for name, (_, data) in shards(whole)}
    assert not staged.parent.exists()
    assert sent.verify().status == sent.verify(alone=True).status == "verified"


def test_what_others_added_is_left_alone(sent: Sent) -> None:
    group = zarr.open_group(sent.group, mode="r+")
    group.attrs["note"] = "nice growth"
    group.create_array("analysis", shape=(3,), dtype="f8")
    report = sent.verify()
    assert (report.status, len(report.findings)) == ("verified", 1)
    assert "analysis" in report.findings[0]
    group.attrs["fps"] = 1.0
    assert sent.verify(repair=True).status == "repaired"
    group = zarr.open_group(sent.group, mode="r")
    assert (group.attrs["note"], "analysis" in group) == ("nice growth", True)
    assert group.attrs["fps"] != 1.0


def test_shards_made_anew_at_another_level_get_a_new_receipt(sent: Sent) -> None:
    sent.shard(1).unlink()
    assert sent.verify(repair=True, level=9).status == "repaired"
    assert sent.verify().status == sent.verify(alone=True).status == "verified"


def test_a_stream_that_a_live_job_sends_is_not_mended(sent: Sent) -> None:
    journal = Journal(sent.state, time.time)
    key = journal.register("job", 0, str(sent.lake), sent.path, sent.plan).key
    journal.lease(key, "job", 60.0)
    sent.shard(1).unlink()
    damaged = sent.files()
    report = sent.verify(repair=True)
    assert report.status == "unreadable"
    assert "job job has it" in (report.error or "")
    assert sent.files() == damaged
    journal.release(key, journal.epoch(key))
    assert sent.verify(repair=True).status == "repaired"
    assert journal.row(key).lease_holder is None
    journal.close()


def test_a_source_that_cannot_be_read_is_no_judge(sent: Sent, tmp_path: Path) -> None:
    _, plan = plan_for(lossy_run(tmp_path / "b.h5"), str(sent.lake))
    shutil.move(tmp_path / "b.h5", tmp_path / "c.h5")
    sent.manifest.unlink()
    damaged = sent.files()
    report = sent.verify(plan=plan, repair=True, streams=(sent.data_id,))
    assert report.status == "different"
    assert "not checked" in kinds(report)
    assert sent.files() == damaged, "no manifest is made up"


# -- logs --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def log(tmp_path: Path) -> Sent:
    return Sent.make(tmp_path, write_log(tmp_path / "furnace.csv"), points_per_chunk=4)


LOG_DAMAGE = {
    "a value": (lambda s: number(s, "timeseries/temperature/value", 3, 5), {"value"}),
    "a time": (lambda s: number(s, "timeseries/pressure/time", 3, 5), {"time"}),
    "no value": (lambda s: (s.group / "timeseries/pressure/value/c/0").unlink(), {"missing object"}),
    "an extra object": (lambda s: (s.group / "timeseries/pressure/value/c/9").write_bytes(b"x"), {"extra object"}),
    "units": (
        lambda s: document(s.group / "timeseries/pressure/zarr.json", lambda d: d["attributes"].update(units="bar")),
        {"attributes"},
    ),
    "an attribute": (
        lambda s: document(s.group / "zarr.json", lambda d: d["attributes"].update(points_stored=1)), {"attributes"},
    ),
    "no commit marker": (lambda s: (s.group / "zarr.json").unlink(), {"uncommitted"}),
    "the manifest": (lambda s: document(s.manifest, lambda d: d["counts"].update(points=1)), {"manifest"}),
    "no manifest": (lambda s: s.manifest.unlink(), {"manifest"}),
}  # fmt: skip


@pytest.mark.parametrize("what", LOG_DAMAGE)
def test_a_log_is_verified_and_mended(log: Sent, what: str) -> None:
    damage, expected = LOG_DAMAGE[what]
    whole = log.files()
    report = log.verify(repair=True)
    assert (report.status, report.points, report.findings) == ("verified", 42, [])
    assert log.verify(alone=True).status == "verified"
    damage(log)
    damaged = log.files()
    report = log.verify()
    assert (report.status, kinds(report)) == ("different", expected), report.differences
    if what != "a value":
        assert log.verify(alone=True).status == "different"
    assert log.files() == damaged
    assert log.verify(repair=True).status == "repaired"
    assert log.verify().status == log.verify(alone=True).status == "verified"
    assert {name: data for name, (_, data) in log.files().items()} == {name: data for name, (_, data) in whole.items()}


def test_a_log_that_changed_sets_nothing_right(log: Sent) -> None:
    source = Path(log.path)
    source.write_text(source.read_text().replace(",703,", ",803,"))
    whole = log.files()
    report = log.verify(repair=True)
    assert (report.status, kinds(report)) == ("different", {"manifest", "value"})
    assert log.files() == whole


# -- the embedded platform ---------------------------------------------------------------------------------------------


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ThreadServer]:
    with ThreadServer(tmp_path / "data") as running:
        yield running


def sent_to(server: ThreadServer, tmp_path: Path, source: Path, **settings) -> Sent:
    path, plan = plan_for(source, server.url, **settings)
    [row] = backfill_without_ray(server.url, tmp_path / "state", (path, plan))
    assert row.data_id is not None
    return Sent(tmp_path / "data", tmp_path / "state", path, plan, row.data_id)


def verify_at(server: ThreadServer, sent: Sent, **more) -> StreamReport:
    request = VerifyRequest([server.url], [(sent.path, sent.plan)], sent.state, retry=QUICK, api_key=KEY, **more)
    [report] = asyncio.run(verify_here(request))
    return report


def test_the_embedded_platform_is_read_back(server: ThreadServer, tmp_path: Path) -> None:
    sent = sent_to(server, tmp_path, lossy_run(tmp_path / "a.h5"))
    report = verify_at(server, sent)
    assert (report.status, report.differences, report.data_id) == ("verified", [], sent.data_id)
    assert (report.frames, report.chunks) == (200, len(sent.plan.chunks))
    [stored] = sent.lake.rglob(f"*{sent.data_id}*/frames/c/1/0/0")
    flip(stored, 300)
    report = verify_at(server, sent)
    assert (report.status, kinds(report)) == ("different", {"frames"})
    report = verify_at(server, sent, repair=True)
    assert report.status == "different"
    assert "closed" in (report.error or "")
    assert "--restart" in (report.hint or "")
    assert verify_at(server, sent, streams=(sent.data_id,)).data_id == sent.data_id
    without_journal = Sent(sent.lake, tmp_path / "no", sent.path, sent.plan, sent.data_id)
    assert verify_at(server, without_journal).findings == ["found by its name: no journal here knows it"]
    assert not (tmp_path / "no").exists()


def test_an_open_stream_of_the_platform_is_repaired(server: ThreadServer, tmp_path: Path) -> None:
    path, plan = plan_for(lossy_run(tmp_path / "a.h5", lost=()), server.url)
    assert isinstance(plan, RunPlan)

    async def half_sent() -> str:
        platform = open_destination(server.url, KEY, retry=QUICK)
        data_id = await platform.open_stream(plan.settings, "key")
        pipeline = Pipeline(platform)
        for order in orders_of("", data_id, plan, [0, 1, 3], server.url):
            if order.task.index == 1:
                order = replace(order, task=replace(order.task, start=order.task.start + 1, stop=order.task.stop + 1))
            if order.task.index == 3:
                order = replace(order, meta=replace(order.meta, start_unix_ms_utc=7))
            await pipeline.run(order)
        await pipeline.aclose()
        return data_id

    data_id = asyncio.run(half_sent())
    sent = Sent(tmp_path, tmp_path / "state", path, plan, data_id)
    report = verify_at(server, sent)
    assert kinds(report) == {"frames", "missing chunk", "time"}
    assert any("open" in finding for finding in report.findings)
    report = verify_at(server, sent, repair=True)
    assert (report.status, report.differences) == ("repaired", []), report.differences
    assert verify_at(server, sent).status == "verified"


def test_a_log_at_the_embedded_platform(server: ThreadServer, tmp_path: Path) -> None:
    sent = sent_to(server, tmp_path, write_log(tmp_path / "furnace.csv"), points_per_chunk=4)
    report = verify_at(server, sent)
    assert (report.status, report.points, report.differences) == ("verified", 42, [])
    source = Path(sent.path)
    source.write_text(source.read_text().replace(",703,", ",803,"))
    report = verify_at(server, sent, repair=True)
    assert (report.status, kinds(report)) == ("different", {"value"})
    assert "cannot be repaired" in (report.error or "")


@pytest.mark.parametrize("status", [404, 405])
def test_a_platform_that_gives_nothing_back(server: ThreadServer, tmp_path: Path, status: int) -> None:
    sent = sent_to(server, tmp_path, lossy_run(tmp_path / "a.h5"))

    async def refuse(scope, _receive, send):
        return await answer(send, status) if scope["method"] == "GET" else None

    server.wire.act = refuse
    report = verify_at(server, sent)
    assert (report.status, report.source) == ("unreadable", sent.path)
    assert "only the embedded platform" in (report.error or "")
