"""What every destination must do; a test class of each inherits this."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from ingest.destinations import Destination, MissingNames, open_and_link
from ingest.errors import SettingsError, StreamGoneError
from ingest.plan import StreamSettings
from tests.wire.fakes import META, SHARD

T = TypeVar("T")

SETTINGS = StreamSettings("Run 7", 120.0, 0.0, 240)
LINKED = StreamSettings("Run 8", 120.0, 0.0, 240, None, "GaAs", "p-1", ("a", "b"))


class DestinationContract:
    """Subclasses say how to make an empty destination."""

    def make(self) -> Destination:
        raise NotImplementedError

    def run(self, work: Callable[[Destination], Awaitable[T]]) -> T:
        async def inner() -> T:
            destination = self.make()
            try:
                return await work(destination)
            finally:
                await destination.aclose()

        return asyncio.run(inner())

    def test_takes_chunks_in_any_order_and_again_until_the_close(self) -> None:
        async def work(destination: Destination) -> None:
            data_id = await destination.open_stream(SETTINGS, "k")
            for index in (2, 0, 1, 0):
                delivery = await destination.deliver(data_id, index, META, SHARD)
                assert delivery.attempts == 1
            await destination.close_stream(data_id)
            with pytest.raises(StreamGoneError):
                await destination.deliver(data_id, 3, META, SHARD)

        self.run(work)

    def test_the_same_key_gives_the_same_stream(self) -> None:
        async def work(destination: Destination) -> None:
            first = await destination.open_stream(SETTINGS, "k")
            assert await destination.open_stream(SETTINGS, "k") == first
            assert await destination.open_stream(SETTINGS, "other") != first

        self.run(work)

    def test_refuses_settings_that_no_stream_has(self) -> None:
        async def work(destination: Destination) -> None:
            with pytest.raises(SettingsError):
                await destination.open_stream(StreamSettings("n", 120.0, 0.0, 3), "k")

        self.run(work)

    def test_a_stream_that_does_not_exist_takes_and_closes_nothing(self) -> None:
        async def work(destination: Destination) -> None:
            with pytest.raises(StreamGoneError):
                await destination.deliver("nobody", 0, META, SHARD)
            with pytest.raises(StreamGoneError):
                await destination.close_stream("nobody")

        self.run(work)

    def test_resolved_links_travel_and_resolving_again_changes_nothing(self) -> None:
        async def work(destination: Destination) -> None:
            resolved = await destination.resolve(LINKED)
            assert pickle.loads(pickle.dumps(resolved)) == resolved
            assert await destination.resolve(LINKED) == resolved
            assert await destination.missing_names(LINKED) == MissingNames()

        self.run(work)

    def test_a_stream_is_journalled_between_its_creation_and_its_links(self) -> None:
        async def work(destination: Destination) -> None:
            seen: list[str] = []

            async def created(data_id: str) -> None:
                seen.append(data_id)

            data_id = await open_and_link(destination, LINKED, "k", created)
            assert seen == [data_id]
            await destination.deliver(data_id, 0, META, SHARD)

        self.run(work)

    def test_closes_its_connections_twice(self) -> None:
        async def work(destination: Destination) -> None:
            await destination.aclose()

        self.run(work)
