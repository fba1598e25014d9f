"""Packers: stateless, many; each reads its own slice, packs and delivers it."""

from __future__ import annotations

import os
import socket
from typing import ClassVar

from ingest.allocator import keep_freed_memory
from ingest.destinations import NULL_URL, open_destination
from ingest.errors import IngestError
from ingest.outlets import PointsOutlet, open_points_outlet
from ingest.pipeline import Order, Outcome, Pipeline
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret, Telemetry

__all__ = ["Packer"]


class Packer:
    """Delivers chunks; what goes wrong comes back as a small outcome.

    Parameters
    ----------
    destination : str
        URL.
    api_key : Secret or None
        For a platform.
    retry : RetryPolicy
        How long one chunk is tried.
    level : int
        zstd level.
    telemetry : Telemetry
        Gets the pipeline's events.

    Notes
    -----
    Two orders at once keep the processor busy while the network works; then it holds two chunks and two shards at most.
    Files and connections are opened by the first order, in the process that uses them.
    """

    pipeline_class: ClassVar[type[Pipeline]] = Pipeline

    def __init__(
        self,
        destination: str,
        api_key: Secret | None,
        retry: RetryPolicy,
        level: int,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._destination = destination
        self._api_key = api_key
        self._retry = retry
        self._level = level
        self._telemetry = telemetry or Telemetry()
        self._pipeline: Pipeline | None = None

    def _open(self) -> Pipeline:
        if self._pipeline is None:
            keep_freed_memory()
            self._pipeline = self.pipeline_class(
                open_destination(self._destination, self._api_key, retry=self._retry),
                points=self._points_outlet(),
                level=self._level,
                node=f"{socket.gethostname()}/{os.getpid()}",
                telemetry=self._telemetry,
            )
        return self._pipeline

    def _points_outlet(self) -> PointsOutlet | None:
        if self._destination == NULL_URL:
            return None
        return open_points_outlet(self._destination, self._api_key, retry=self._retry)

    async def ping(self) -> int:
        """Return the process id: the packer is up."""
        return os.getpid()

    async def deliver(self, order: Order) -> Outcome:
        """Read, pack and deliver one chunk of frames, or one request of readings. Safe to repeat."""
        return await self._open().run(order)

    async def aclose(self) -> None:
        """Let go of connections; the end of the process does the same. Safe to repeat."""
        if self._pipeline is not None:
            await self._pipeline.aclose()
            self._pipeline = None

    async def digest(self, order: Order) -> str | IngestError:
        """Return the digest of a chunk's frames, or why it cannot be read; sends nothing."""
        return await self._open().digest(order)
