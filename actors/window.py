"""How much may be in flight: so many chunks, and so many bytes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Window"]


class Window:
    """Admits work in order of arrival while both its count and its bytes fit.

    Parameters
    ----------
    chunks : int
        At most so many at once.
    n_bytes : int
        At most so many bytes at once; one piece of work that is larger is admitted alone.
    """

    def __init__(self, chunks: int, n_bytes: int) -> None:
        self._chunks = chunks
        self._bytes = n_bytes
        self._held_chunks = 0
        self._held_bytes = 0
        self._turn = asyncio.Lock()
        self._freed = asyncio.Condition()

    def _fits(self, n_bytes: int) -> bool:
        if self._held_chunks == 0:
            return True
        return self._held_chunks < self._chunks and self._held_bytes + n_bytes <= self._bytes

    async def acquire(self, n_bytes: int) -> None:
        """Wait until `n_bytes` more fit, and take them."""
        async with self._turn, self._freed:
            await self._freed.wait_for(lambda: self._fits(n_bytes))
            self._held_chunks += 1
            self._held_bytes += n_bytes

    async def release(self, n_bytes: int) -> None:
        """Give back what `acquire` took."""
        async with self._freed:
            self._held_chunks -= 1
            self._held_bytes -= n_bytes
            self._freed.notify_all()

    @asynccontextmanager
    async def hold(self, n_bytes: int) -> AsyncIterator[None]:
        """Hold `n_bytes` for the length of a block."""
        await self.acquire(n_bytes)
        try:
            yield
        finally:
            await self.release(n_bytes)
