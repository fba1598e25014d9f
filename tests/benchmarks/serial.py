"""The same pipeline without Ray: one process, as many packing threads as there are processors."""

from __future__ import annotations

import asyncio
import sys
import time

from ingest.allocator import keep_freed_memory
from ingest.contents import StreamContents
from ingest.destinations import Destination, open_and_link, open_destination
from ingest.ledger import Receipt, StreamState
from ingest.manifest import manifest
from ingest.orders import orders_of
from ingest.pipeline import Delivered, Pipeline
from ingest.plan import RunPlan
from ingest.telemetry import Secret

THREADS = 2


async def _created(data_id: str) -> None:
    return None


def contents_of(plan: RunPlan, data_id: str, receipts: list[Receipt]) -> StreamContents:
    """Return all of a stream that was delivered without a loss."""
    ordered = sorted(receipts, key=lambda receipt: receipt.index)
    told = manifest(plan, data_id, StreamState.CLOSED, ordered, {})
    return StreamContents(plan.settings, plan, tuple(ordered), {}, told)


async def deliver(plan: RunPlan, destination: Destination) -> float:
    """Create, deliver, close; return the seconds."""
    began = time.perf_counter()
    data_id = await open_and_link(destination, plan.settings, str(time.time_ns()), _created)
    pipeline = Pipeline(destination, threads=THREADS)
    window = asyncio.Semaphore(2 * THREADS)
    receipts: list[Receipt] = []

    async def one(order) -> None:
        async with window:
            outcome = await pipeline.run(order)
            if not isinstance(outcome, Delivered):
                raise RuntimeError(f"not delivered: {outcome}")
            receipts.append(outcome.receipt)

    await asyncio.gather(*(one(order) for order in orders_of("key", data_id, plan, range(len(plan.chunks)))))
    await destination.close_stream(
        data_id, contents_of(plan, data_id, receipts) if destination.finishes_streams else None
    )
    seconds = time.perf_counter() - began
    await pipeline.aclose()
    return seconds


def without_ray(plan: RunPlan, url: str, key: Secret) -> float:
    """Return the seconds of a whole run without Ray."""
    keep_freed_memory()
    return asyncio.run(deliver(plan, open_destination(url, key)))


if __name__ == "__main__":
    sys.exit("run `python -m tests.benchmarks backfill`")
