"""How much is in flight, and who is next."""

import asyncio

import pytest

from actors.window import Window


async def settle():
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


class Crowd:
    """Tasks that want into a window, and who is in."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.inside: list[str] = []
        self.entered: list[str] = []
        self.tasks: dict[str, asyncio.Task] = {}
        self.leave: dict[str, asyncio.Event] = {}

    async def arrive(self, name, n_bytes):
        self.leave[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._stay(name, n_bytes))
        await settle()

    async def _stay(self, name, n_bytes):
        async with self.window.hold(n_bytes):
            self.inside.append(name)
            self.entered.append(name)
            try:
                await self.leave[name].wait()
            finally:
                self.inside.remove(name)

    async def go(self, name):
        self.leave[name].set()
        await self.tasks[name]
        await settle()

    async def give_up(self, name):
        self.tasks[name].cancel()
        await settle()
        assert self.tasks[name].cancelled()


def run(scenario, chunks, n_bytes):
    async def within():
        crowd = Crowd(Window(chunks, n_bytes))
        try:
            await asyncio.wait_for(scenario(crowd), 10)
        finally:
            for task in crowd.tasks.values():
                task.cancel()

    asyncio.run(within())


def test_no_more_chunks_than_said():
    async def scenario(crowd):
        for name in "abcd":
            await crowd.arrive(name, 1)
        assert crowd.inside == ["a", "b"]
        await crowd.go("b")
        assert crowd.inside == ["a", "c"]

    run(scenario, 2, 10**9)


def test_no_more_bytes_than_said():
    async def scenario(crowd):
        for name, size in (("a", 40), ("b", 60), ("c", 1)):
            await crowd.arrive(name, size)
        assert crowd.inside == ["a", "b"], "to the last byte, and not beyond"
        await crowd.go("a")
        assert crowd.inside == ["b", "c"]

    run(scenario, 100, 100)


def test_what_is_larger_than_the_window_goes_alone():
    async def scenario(crowd):
        await crowd.arrive("small", 1)
        await crowd.arrive("huge", 1000)
        assert crowd.inside == ["small"]
        await crowd.go("small")
        assert crowd.inside == ["huge"]
        await crowd.arrive("next", 1)
        assert crowd.inside == ["huge"]
        await crowd.go("huge")
        assert crowd.inside == ["next"]

    run(scenario, 4, 100)


def test_the_order_of_arrival_is_kept():
    """A small one does not pass a large one that waits, or the large one would wait for ever."""

    async def scenario(crowd):
        for name, size in (("a", 60), ("large", 90), ("small", 1), ("last", 1)):
            await crowd.arrive(name, size)
        assert crowd.inside == ["a"]
        await crowd.go("a")
        assert crowd.inside == ["large", "small", "last"]
        assert crowd.entered == ["a", "large", "small", "last"]

    run(scenario, 4, 100)


@pytest.mark.parametrize("who", ["first", "second"])
def test_one_that_gives_up_waiting_blocks_nobody(who):
    async def scenario(crowd):
        for name in ("a", "first", "second", "third"):
            await crowd.arrive(name, 60)
        await crowd.give_up(who)
        await crowd.go("a")
        rest = [name for name in ("first", "second") if name != who]
        assert crowd.inside == rest
        await crowd.go(rest[0])
        assert crowd.inside == ["third"]

    run(scenario, 4, 100)


def test_one_that_fails_inside_gives_back_what_it_took():
    async def scenario(crowd):
        with pytest.raises(ValueError, match="inside"):
            async with crowd.window.hold(100):
                raise ValueError("inside")
        await crowd.arrive("a", 100)
        await crowd.give_up("a")
        await crowd.arrive("b", 100)
        assert crowd.inside == ["b"]

    run(scenario, 1, 100)
