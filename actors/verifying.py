"""A verification on Ray: the driver finds out what is to be compared, and packers compare it."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from typing import Literal

from actors.handles import Handle, RayHandle
from actors.options import actor_class
from actors.packer import Packer
from actors.pool import PackerPool
from actors.runtime import ray_runtime
from ingest.shard import DEFAULT_LEVEL
from ingest.verify.findings import StreamReport
from ingest.verify.giving import ORDERS_PER_PACKER
from ingest.verify.job import VerifyRequest, verify_all
from ingest.verify.work import Progress, VerifyOrder, VerifyOutcome

__all__ = ["run_verify"]


def run_verify(
    request: VerifyRequest,
    progress: Progress,
    *,
    address: str | None = None,
    packers: int | None = None,
    level: int = DEFAULT_LEVEL,
) -> list[StreamReport]:
    """Verify with packers on Ray; `request`, and what is raised, as for `verify_all`.

    Parameters
    ----------
    request : VerifyRequest
        What is to be verified.
    progress : callable
        Is told how many frames were gone through.
    address : str or None
        Of a Ray cluster; None: a local Ray.
    packers : int or None
        Default: the free processors.
    level : int
        zstd level of what is made anew.

    Raises
    ------
    ClusterError
        Ray is not there, or no packer starts.

    Notes
    -----
    Holds the plans and what was found, never frames.
    """
    with ray_runtime(address, cpus=packers) as runtime:
        return asyncio.run(_verify(request, progress, packers or runtime.cpus, level))


async def _verify(request: VerifyRequest, progress: Progress, packers: int, level: int) -> list[StreamReport]:
    remote = actor_class(Packer, "packer", max_concurrency=ORDERS_PER_PACKER + 1)

    def spawn(_number: int) -> Handle:
        return RayHandle(remote.remote(request.api_key, request.retry, level))

    pool = PackerPool(spawn, packers, ORDERS_PER_PACKER, asyncio.sleep)
    pool.start()

    async def ask(method: Literal["verify", "mend"], order: VerifyOrder, lane: Hashable = None) -> VerifyOutcome:
        outcome: VerifyOutcome = await pool.ask(method, order, lane=lane)
        return outcome

    try:
        return await verify_all(request, ask, packers, progress)
    finally:
        pool.stop()
