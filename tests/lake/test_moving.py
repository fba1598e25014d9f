"""A lake as a source: to another lake, to the platform, and back again, with nothing lost and nothing made up."""

from __future__ import annotations

import json

import fsspec
import numpy as np
import pytest
import xarray
import zarr

from ingest.cli.planning import find_candidates
from ingest.config import BackfillSettings
from ingest.ledger import StreamState
from ingest.packing import AS_STORED
from ingest.telemetry import Telemetry
from tests.lake.test_backfill import assert_in_lake, backfill, tree
from tests.server.test_lake_log import write_log
from tests.support import KEY, ThreadServer, backfill_without_ray, make_run, plan_of

SAID = {
    "name": "growth 7", "sample": "STO-1", "project": "b0d0f0a4-3f7c-4d2b-8b57-0a4a4ac5d0a1", "tag": ("x", "y"),
    "azimuth": "[110]",
}  # fmt: skip


class Packing(Telemetry):
    """Tells how each chunk was packed."""

    def __init__(self) -> None:
        self.how: list[str] = []
        super().__init__(lambda event: self.how.append(event.detail) if event.name == "chunk_packed" else None)


def moved_plan(path, to, **settings):
    """Return the plan of what lies at `path`, with nothing said that the lake says itself."""
    [candidate] = find_candidates([str(path)], BackfillSettings(**settings), planning=True, to=to)
    assert candidate.plan is not None, candidate.error
    return candidate.path, candidate.plan


def shards(lake) -> dict[str, bytes]:
    return {name.partition("/frames/")[2]: data for name, data in tree(lake).items() if "/frames/c/" in name}


@pytest.fixture
def first(tmp_path):
    """A lake with one stream; returns its folder, and the run."""
    run = make_run(tmp_path / "a.h5", frames=150)
    lake = tmp_path / "first"
    named = plan_of(tmp_path / "a.h5", to=[str(lake)], rotations_per_min=0.0, **SAID)
    [row] = backfill(lake, named)
    assert row.end.status == "complete"
    return lake, run


class TestLakeToLake:
    def test_bit_by_bit(self, first, tmp_path):
        lake, run = first
        packing, second = Packing(), tmp_path / "second"
        named = moved_plan(lake, [str(second)])
        [row] = backfill(second, named, telemetry=packing)
        assert (row.state, row.end.status) == (StreamState.CLOSED, "complete")
        assert set(packing.how) == {AS_STORED}
        assert shards(second) == shards(lake)
        assert_in_lake(second, row.data_id, run)
        before, after = (zarr.open_group(next(folder.glob("*.zarr")), mode="r").attrs for folder in (lake, second))
        kept = (
            "name", "sample", "project", "tags", "fps", "rotations_per_min", "azimuth_label", "frames_stored",
            "frames_lost",
        )  # fmt: skip
        assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
        assert after["azimuth_label"] == "[110]"
        digests = [
            [chunk["frames_xxh3_128"] for chunk in json.loads(next(folder.glob("*.json")).read_bytes())["chunks"]]
            for folder in (lake, second)
        ]
        assert digests[0] == digests[1]

    def test_what_was_found_the_first_time_is_told_once(self, first, tmp_path):
        lake, _ = first
        second, third = tmp_path / "second", tmp_path / "third"
        backfill(second, moved_plan(lake, [str(second)]))
        backfill(third, moved_plan(second, [str(third)]))
        told = [
            zarr.open_group(next(folder.glob("*.zarr")), mode="r").attrs["provenance"]["findings"]
            for folder in (lake, second, third)
        ]
        assert [found["kind"] for found in told[0]] == ["gap", "lost frames"]
        assert [found["kind"] for found in told[1]] == ["ingested before", "gap", "lost frames"]
        assert [found["kind"] for found in told[2]] == ["ingested before", "ingested before", "gap", "lost frames"]
        assert "a.h5" in told[1][0]["message"]
        assert told[1][1:] == told[0]

    def test_what_the_user_says_goes_first(self, first, tmp_path):
        lake, _ = first
        said = {"name": "other", "sample": "LAO-2", "tag": ("z",), "rotations_per_min": 3.0, "chunk_size": 50}
        _, plan = moved_plan(lake, [str(tmp_path / "second")], **said)
        settings = plan.settings
        assert (settings.name, settings.physical_sample, settings.tags) == ("other", "LAO-2", ("z",))
        assert (settings.rotations_per_min, settings.azimuth, settings.chunk_size) == (3.0, None, 50)
        assert settings.project_id == SAID["project"]

    @pytest.mark.parametrize("fps", [None, 19.9])
    def test_the_rate_that_was_declared(self, tmp_path, fps):
        make_run(tmp_path / "a.h5", frames=150)
        lake, second = tmp_path / "first", tmp_path / "second"
        named = plan_of(tmp_path / "a.h5", to=[str(lake)], **({} if fps is None else {"fps": fps}))
        backfill(lake, named)
        _, plan = moved_plan(lake, [str(second)])
        assert plan.settings.fps == named[1].settings.fps
        assert plan.settings.chunk_size == named[1].settings.chunk_size
        assert moved_plan(lake, [str(second)], every=2)[1].settings.fps < 11
        assert moved_plan(lake, [str(second)], fps=20.1)[1].settings.fps == 20.1

    def test_long_shards_stay_long(self, tmp_path):
        make_run(tmp_path / "a.h5", frames=150)
        lake, second = tmp_path / "first", tmp_path / "second"
        backfill(lake, plan_of(tmp_path / "a.h5", to=[str(lake)], chunk_size=140))
        _, plan = moved_plan(lake, [str(second)])
        assert plan.settings.chunk_size == 140

    def test_lost_frames_stay_lost(self, tmp_path, monkeypatch):
        import ingest.packing

        run = make_run(tmp_path / "a.h5", frames=100, gap=None)
        gone = (3, 41, 42, 99)

        def damaged(source, start, stop, memory):
            frames = source.read(start, stop, memory)
            lost = tuple(i for i in range(stop - start) if start + i in gone)
            frames[list(lost)] = 0
            return frames, lost

        lake, second, packing = tmp_path / "first", tmp_path / "second", Packing()
        with monkeypatch.context() as patch:
            patch.setattr(ingest.packing, "read_what_is_there", damaged)
            backfill(lake, plan_of(tmp_path / "a.h5", to=[str(lake)]))
        [row] = backfill(second, moved_plan(lake, [str(second)]), telemetry=packing)
        assert (row.end.status, set(packing.how)) == ("partial", {AS_STORED})
        assert shards(second) == shards(lake)
        one, other = (
            xarray.open_zarr(next(folder.glob("*.zarr")), consolidated=False, mask_and_scale=False)
            for folder in (lake, second)
        )
        np.testing.assert_array_equal(other.time.values, one.time.values)
        np.testing.assert_array_equal(other.frame_index.values, one.frame_index.values)
        assert np.flatnonzero(other.frame_index.values == -1).tolist() == list(gone)
        kept = [i for i in range(100) if i not in gone]
        np.testing.assert_array_equal(other.frames.values[kept], run.frames(0, 100)[kept])

    def test_a_copy_is_the_same_stream(self, first, tmp_path):
        lake, _ = first
        fs = fsspec.filesystem("memory")
        try:
            for name, data in tree(lake).items():
                fs.pipe_file(f"/copy/{name}", data)
            there, here = moved_plan("memory://copy", [str(lake)])[1], moved_plan(lake, [str(lake)])[1]
            assert there.fingerprint == here.fingerprint
            assert there.identity() == here.identity()
        finally:
            fs.rm("/", recursive=True)

    def test_a_lake_of_another_writer_is_compressed_anew(self, first, tmp_path):
        lake, run = first
        store = next(lake.glob("*.zarr"))
        frames = zarr.open_array(store / "frames", mode="r")[...]
        attributes = dict(zarr.open_array(store / "frames", mode="r").attrs)
        zarr.create_array(
            store / "frames", data=frames, chunks=(4, 24, 32), dimension_names=("frame", "y", "x"),
            attributes=attributes, overwrite=True,
        )  # fmt: skip
        packing, second = Packing(), tmp_path / "second"
        [row] = backfill(second, moved_plan(lake, [str(second)]), telemetry=packing)
        assert (row.end.status, set(packing.how)) == ("complete", {""})
        assert_in_lake(second, row.data_id, run)


def test_a_lake_in_the_folder_of_its_sources_is_no_source(first):
    lake, _ = first
    (lake / "unfinished-1.zarr").mkdir()

    def found(source, to):
        candidates = find_candidates([str(source)], BackfillSettings(rotations_per_min=0.0), planning=True, to=[to])
        return sorted(candidate.path.rpartition("/")[2] for candidate in candidates)

    parent = lake.parent
    assert found(parent, str(lake)) == ["data"]  # the dataset of a.h5
    assert found(parent, f"file://{lake}/") == ["data"]
    assert len(found(parent, str(parent / "other"))) == 3
    assert len(found(lake, str(lake))) == 2
    assert found(f"{lake}/*.zarr", str(lake)) == found(lake, str(lake))


def test_to_the_platform_and_back(tmp_path):
    run = make_run(tmp_path / "a.h5", frames=150, gap=None)
    lake, back, packing = tmp_path / "first", tmp_path / "back", Packing()
    backfill(lake, plan_of(tmp_path / "a.h5", to=[str(lake)], sample="STO-1", tag=("x",)))
    with ThreadServer(tmp_path / "server") as server:
        named = moved_plan(lake, [server.url])
        [row] = backfill_without_ray(server.url, tmp_path / "state", named, telemetry=packing, key=KEY)
        assert row.end.status == "complete"
        sealed = server.platform_app.state.platform.store.sealed_path(row.data_id)
    assert set(packing.how) == {AS_STORED}
    ours, theirs = shards(lake), {str(p.relative_to(sealed)): p.read_bytes() for p in sealed.glob("frames/c/*/0/0")}
    assert {f"frames/{name}": data for name, data in ours.items()} == theirs
    name, plan = moved_plan(sealed, [str(back)])
    assert (plan.settings.name, plan.settings.physical_sample, plan.settings.tags) == ("a", "STO-1", ("x",))
    backfill(back, (name, plan))
    assert shards(back) == ours
    np.testing.assert_array_equal(zarr.open_array(next(back.glob("*.zarr")) / "frames")[...], run.frames(0, 150))


def test_readings_keep_what_they_are_of(tmp_path):
    write_log(tmp_path / "log.csv")
    lake, second = tmp_path / "first", tmp_path / "second"
    said = {"sample": "STO-1", "tag": ("x",), "project": SAID["project"]}
    backfill(lake, moved_plan(tmp_path / "log.csv", [str(lake)], **said))
    backfill(second, moved_plan(lake, [str(second)]))
    before, after = (zarr.open_group(next(folder.glob("*.zarr")), mode="r").attrs for folder in (lake, second))
    for name in ("name", "sample", "project", "tags", "channels"):
        assert after[name] == before[name]
    assert after["provenance"]["findings"][0]["kind"] == "ingested before"
