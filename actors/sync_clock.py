"""The platform's clock, measured in the background of the process that stamps."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping

from ingest.clock import (
    ClockCorrection,
    ClockFilter,
    ClockSample,
    ClockStatus,
    CorrectedStamp,
    is_clock_sync_skipped,
    next_sample_in_s,
)
from ingest.errors import IngestError
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret
from ingest.wire.client import PlatformClient

__all__ = ["ClockSync"]

logger = logging.getLogger("rheed_ingest")

ONE_TRY = RetryPolicy(retry_for_s=0)
AFTER_FAILURE_S = 30.0
SAMPLE_TIMEOUT_S = 5.0


class ClockSync:
    """Measures the platform's clock and corrects live stamps by it; stamps are given in any thread.

    Parameters
    ----------
    endpoint : str or None
        The platform; None: there is none, and stamps stay as they are.
    api_key : Secret or None
        Not sent with clock calls.
    environ : mapping
        Where ``ATOMSCALE_SKIP_CLOCK_SYNC`` is looked for.
    clock : callable
        Unix seconds of the host.
    sleep : coroutine function
        asyncio's.
    """

    def __init__(
        self,
        endpoint: str | None,
        api_key: Secret | None,
        environ: Mapping[str, str] = os.environ,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._platform = None if endpoint is None or api_key is None else (endpoint, api_key)
        self._clock = clock
        self._sleep = sleep
        self.is_skipped = self._platform is None or is_clock_sync_skipped(environ)
        self._filter = ClockFilter()
        self._correction = ClockCorrection(self._filter)
        self._lock = threading.Lock()
        self._reason = "no sample of the platform's clock yet"
        self._client: PlatformClient | None = None
        self._closing = False
        self._sampled = threading.Event()

    def stamp(self, host_unix_ms: int) -> CorrectedStamp:
        """Return a host time corrected by what is known."""
        with self._lock:
            return self._correction.stamp(host_unix_ms)

    def status(self) -> ClockStatus:
        """Return the state of the correction."""
        with self._lock:
            return self._correction.status(self._reason)

    def wait_first(self, timeout_s: float) -> None:
        """Wait until the first sample was taken or has failed, so that the first stamps are corrected, too."""
        if not self.is_skipped:
            self._sampled.wait(timeout_s)

    async def run(self) -> None:
        """Take samples until it is closed."""
        platform = self._platform
        if platform is None or self.is_skipped:
            with self._lock:
                self._reason = "a lake has no clock" if platform is None else "ATOMSCALE_SKIP_CLOCK_SYNC is set"
            return
        taken = 0
        while not self._closing:
            try:
                async with asyncio.timeout(SAMPLE_TIMEOUT_S):
                    await self._sample(*platform)
            except (IngestError, TimeoutError) as exc:
                with self._lock:
                    self._reason = f"the platform's clock cannot be asked: {exc or 'no answer in time'}"
                wait_s = AFTER_FAILURE_S
            else:
                taken += 1
                wait_s = next_sample_in_s(taken)
            self._sampled.set()
            await self._sleep(wait_s)

    async def _sample(self, endpoint: str, api_key: Secret) -> None:
        if self._client is None:
            self._client = PlatformClient(endpoint, api_key, retry=ONE_TRY)
            await self._client.server_time()  # opens the connection, which must not count as delay
        sent_s = self._clock()
        received_ms, transmitted_ms = await self._client.server_time()
        sample = ClockSample.of(sent_s, received_ms, transmitted_ms, self._clock())
        if sample is not None:
            with self._lock:
                self._filter.add(sample)

    async def aclose(self) -> None:
        """Take no more samples. Safe to repeat."""
        self._closing = True
        if self._client is not None:
            await self._client.aclose()
            self._client = None
