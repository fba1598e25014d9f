"""A verification in this process, without Ray: for small ones, and where nothing may be started."""

from __future__ import annotations

import os
from collections.abc import Hashable
from typing import Literal

from ingest.shard import DEFAULT_LEVEL
from ingest.verify.findings import StreamReport
from ingest.verify.job import VerifyRequest, verify_all
from ingest.verify.work import Progress, VerifyOrder, VerifyOutcome
from ingest.verify.worker import VerifyWorker

__all__ = ["verify_here"]

MAX_THREADS = 4


async def verify_here(
    request: VerifyRequest, progress: Progress | None = None, *, level: int = DEFAULT_LEVEL
) -> list[StreamReport]:
    """Verify in threads of this process; arguments and what is raised as for `verify_all`.

    Parameters
    ----------
    level : int
        zstd level of what is made anew.

    Notes
    -----
    Holds two chunks and a shard for each of up to four threads.
    """
    threads = min(MAX_THREADS, os.cpu_count() or 1)
    worker = VerifyWorker(request.api_key, request.retry, level, threads)

    async def ask(
        method: Literal["verify", "mend"],
        order: VerifyOrder,
        lane: Hashable = None,  # noqa: ARG001 - all lanes are here
    ) -> VerifyOutcome:
        return await (worker.verify(order) if method == "verify" else worker.mend(order))

    try:
        return await verify_all(request, ask, threads, progress or (lambda _: None))
    finally:
        await worker.aclose()
