"""A log through the pipeline into a lake, and back, row by row."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import xarray
import zarr

from ingest.contents import HeldStream, StreamContents, StreamOrigin
from ingest.destinations import NullDestination
from ingest.destinations.base import TimeseriesDestination
from ingest.destinations.lake_timeseries import LakeTimeseries
from ingest.errors import RefusedError, UnreachableError
from ingest.lake.layout import commit_name
from ingest.manifest import manifest
from ingest.orders import orders_of
from ingest.outlets import PointsOutlet
from ingest.pipeline import Delivered, Pipeline
from ingest.series_plan import SeriesOptions, SeriesPlan, plan_series
from ingest.timeseries import encode_channels
from tests.lake.memory_store import MemoryStore
from tests.sources.series_contract import look_at_log, read_all

ROWS = 23
LOG = "time,Heater (C),Pressure (mbar),pressure (mbar)\n" + "".join(
    f"2023-10-18T08:00:{i // 2:02d}.{500 * (i % 2) + i:03d}+02:00,{20 + i / 8},{'' if i == 5 else f'{i + 1}e-9'},{-i}\n"
    for i in range(ROWS)
)


@pytest.fixture
def plan(tmp_path: Path) -> SeriesPlan:
    path = tmp_path / "growth.csv"
    path.write_text(LOG)
    return plan_series(look_at_log(path), SeriesOptions(name="Growth 12", points_per_chunk=5, physical_sample="GaAs"))


async def deliver(destination: TimeseriesDestination, plan: SeriesPlan, indices: Iterable[int]) -> StreamContents:
    """Send some of a log's requests through the pipeline; return all that its stream then holds."""
    data_id = await destination.open_stream(plan.settings, "k", StreamOrigin.of(plan))
    pipeline = Pipeline(NullDestination(), points=PointsOutlet(destination), node="here")
    outcomes = [await pipeline.run(order) for order in orders_of("k", data_id, plan, list(indices))]
    receipts = {outcome.receipt.index: outcome.receipt for outcome in outcomes if isinstance(outcome, Delivered)}
    by_index = tuple(receipts[index] for index in sorted(receipts))
    told = manifest(plan, data_id, "closed", by_index, {})
    return StreamContents(plan.settings, plan, by_index, {}, told)


def sent(store: MemoryStore, plan: SeriesPlan, indices: Iterable[int] | None = None) -> tuple[str, StreamContents]:
    async def run() -> tuple[str, StreamContents]:
        destination = LakeTimeseries(store)
        contents = await deliver(destination, plan, range(len(plan.chunks)) if indices is None else indices)
        return str(contents.manifest["data_id"]), contents

    return asyncio.run(run())


def close(store: MemoryStore, data_id: str, contents: StreamContents | None) -> None:
    async def run() -> None:
        destination = LakeTimeseries(store)
        try:
            await destination.close_stream(data_id, contents)
        finally:
            await destination.aclose()

    asyncio.run(run())


def test_a_log_comes_back_row_by_row(tmp_path: Path, plan: SeriesPlan) -> None:
    store = MemoryStore()
    data_id, contents = sent(store, plan)
    assert len(contents.receipts) == len(plan.chunks) == 5
    assert data_id.startswith("growth-12-")
    close(store, data_id, contents)
    path = store.write_to(tmp_path / "lake") / f"{data_id}.zarr"
    before, after = look_at_log(tmp_path / "growth.csv"), look_at_log(path)
    assert after.name == "Growth 12"
    assert after.channels == before.channels
    for there, here in zip(read_all(before), read_all(after), strict=True):
        np.testing.assert_array_equal(here, there)
    group = zarr.open_group(str(path), mode="r")
    assert group.attrs["sample"] == "GaAs"
    assert (group.attrs["points_stored"], group.attrs["points_lost"]) == (plan.frames, 0)
    assert group.attrs["provenance"]["source"]["fingerprint"] == plan.fingerprint
    with xarray.open_zarr(str(path), group="timeseries/Heater", consolidated=False) as data:
        dates = [f"2023-10-18T06:00:{i // 2:02d}.{500 * (i % 2) + i:03d}" for i in range(ROWS)]
        off = data["time"].values - np.array(dates, "M8[ns]")
        assert (np.abs(off) < np.timedelta64(1, "us")).all()
        assert data["value"].attrs == {"long_name": "Heater", "units": "C"}
        np.testing.assert_array_equal(data["value"].values, 20 + np.arange(ROWS) / 8)


def test_repeated_deliveries_in_any_order_give_the_same_lake(plan: SeriesPlan) -> None:
    stores = [MemoryStore(), MemoryStore()]
    for store, order in zip(stores, (None, [4, 0, 2, 2, 1, 0, 3, 4]), strict=True):
        close(store, *sent(store, plan, order))
    assert len(stores[0].puts) < len(stores[1].puts)
    assert stores[0].contents == stores[1].contents


def test_a_close_that_is_cut_anywhere_is_continued_and_a_repeated_one_writes_nothing(plan: SeriesPlan) -> None:
    start = MemoryStore()
    data_id, contents = sent(start, plan)
    whole = MemoryStore(start.contents)
    close(whole, data_id, contents)
    for changes in itertools.count():
        store = MemoryStore(start.contents, changes)
        try:
            close(store, data_id, contents)
            break
        except UnreachableError:
            again = MemoryStore(store.contents)
        close(again, data_id, contents)
        assert again.contents == whole.contents
    assert changes >= len(whole.contents) + len(plan.chunks)
    store.puts.clear()
    store.changes_left = None
    close(store, data_id, contents)
    assert (store.puts, store.contents) == ([], whole.contents)


def test_what_is_held_is_what_was_closed(plan: SeriesPlan) -> None:
    store = MemoryStore()

    async def run() -> None:
        destination = LakeTimeseries(store)
        contents = await deliver(destination, plan, range(len(plan.chunks)))
        data_id = contents.manifest["data_id"]
        assert destination.finishes_streams
        assert await destination.held(data_id) is None
        await destination.close_stream(data_id, contents)
        held = await destination.held(data_id)
        assert isinstance(held, HeldStream)
        for kept, receipt in zip(held.receipts, contents.receipts, strict=True):
            assert (kept.index, kept.frames_digest, kept.label) == (receipt.index, receipt.frames_digest, receipt.label)
        origin = StreamOrigin.of(plan)
        assert await destination.open_stream(plan.settings, "k", origin) == data_id
        assert await destination.open_stream(plan.settings, "k", StreamOrigin(origin.digest, anew=True)) != data_id
        await destination.aclose()
        await destination.aclose()

    asyncio.run(run())
    assert store.is_closed


def test_a_stream_of_which_nobody_knows_all_is_not_closed(plan: SeriesPlan) -> None:
    store = MemoryStore()
    data_id, _ = sent(store, plan)
    with pytest.raises(RefusedError, match="closed only by what knows all of it"):
        close(store, data_id, None)
    assert commit_name(data_id) not in store.contents


def test_a_request_has_one_name_and_another_one_for_the_same_chunk_another() -> None:
    store = MemoryStore()
    fields = {"timestamps": [1.5], "values": [1.0]}

    async def run() -> None:
        destination = LakeTimeseries(store)
        for channels in ({"T": fields}, {"t": fields}, {"T": fields, "t": fields}, {"T": fields}):
            for request in encode_channels("d", 0, channels, destination.generation):
                delivery = await destination.deliver("d", *request)
                assert delivery.attempts == 1
        await destination.aclose()

    asyncio.run(run())
    assert len(store.puts) == 4
    assert len(store.contents) == 3
    assert all(name.startswith(".rheed-ingest/staging/d/") for name in store.contents)
