"""Who packs: the least busy, and another one if that is lost. Neither Ray nor time is needed."""

import asyncio

import pytest

from actors.handles import ActorLostError
from actors.pool import LOSSES_LIMIT, REST_S, PackerPool
from ingest.errors import ClusterError, UnreachableError


async def settle():
    for _ in range(20):
        await asyncio.sleep(0)


class FakePackers:
    """Packers whose answers the test gives, and a sleep that lasts until the test says so."""

    def __init__(self, packers, orders_per_packer) -> None:
        self.pool = PackerPool(self.spawn, packers, orders_per_packer, self.sleep)
        self.spawned: list[int] = []
        self.asked: list[tuple[int, str]] = []
        self.answers: dict[str, asyncio.Future] = {}
        self.sleeps: list[tuple[float, asyncio.Event]] = []
        self.tasks: list[asyncio.Task] = []
        self.down: set[int] = set()

    def spawn(self, number):
        self.spawned.append(number)
        return FakeHandle(self, number)

    async def sleep(self, seconds):
        self.sleeps.append((seconds, asyncio.Event()))
        await self.sleeps[-1][1].wait()

    async def ask(self, order, lane=None, near=None, group=None) -> asyncio.Task:
        asked = self.pool.ask("deliver", order, lane=lane, near=near, group=group)
        self.tasks.append(asyncio.create_task(asked))
        await settle()
        return self.tasks[-1]

    async def answer(self, order, result):
        future = self.answers.pop(order)
        future.set_exception(result) if isinstance(result, Exception) else future.set_result(result)
        await settle()

    async def wake(self, i=0):
        self.sleeps[i][1].set()
        await settle()


class FakeHandle:
    def __init__(self, packers, number) -> None:
        self.packers, self.number = packers, number

    async def call(self, method, order=None):
        if method == "ping":
            if self.number in self.packers.down:
                await asyncio.Event().wait()
            return self.number
        self.packers.asked.append((self.number, order))
        self.packers.answers[order] = asyncio.get_running_loop().create_future()
        return await self.packers.answers[order]


LOST = ActorLostError("gone")
DEAD = ActorLostError("gone", for_ever=True)


def run(scenario, packers, orders_per_packer):
    async def within():
        fakes = FakePackers(packers, orders_per_packer)
        try:
            await asyncio.wait_for(scenario(fakes), 10)
        finally:
            tasks = [*fakes.tasks, *fakes.pool._starts.values()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(within())


def test_the_least_busy_packer_is_asked():
    async def scenario(fakes):
        for order in "abcdef":
            await fakes.ask(order)
        assert fakes.asked == [(0, "a"), (1, "b"), (2, "c"), (0, "d"), (1, "e"), (2, "f")]
        await fakes.answer("e", "done")
        await fakes.ask("g")
        assert fakes.asked[-1] == (1, "g")
        assert fakes.spawned == [0, 1, 2], "each is made once"

    run(scenario, 3, 3)


def test_no_packer_gets_more_than_its_share():
    async def scenario(fakes):
        for order in "abcde":
            await fakes.ask(order)
        assert [order for _, order in fakes.asked] == ["a", "b", "c", "d"]
        await fakes.answer("b", 7)
        assert fakes.tasks[1].result() == 7
        assert fakes.asked[-1] == (1, "e")

    run(scenario, 2, 2)


def test_a_lost_packer_s_order_goes_to_another():
    async def scenario(fakes):
        await fakes.ask("a")
        await fakes.answer("a", LOST)
        assert fakes.asked == [(0, "a"), (1, "a")]
        await fakes.answer("a", "done")
        assert fakes.tasks[0].result() == "done"
        assert fakes.spawned == [0, 1]

    run(scenario, 2, 1)


def test_a_lost_packer_rests_before_it_is_asked_again():
    async def scenario(fakes):
        await fakes.ask("a")
        await fakes.answer("a", LOST)
        assert fakes.asked == [(0, "a")], "nobody else is there"
        assert [seconds for seconds, _ in fakes.sleeps] == [REST_S]
        await fakes.ask("b")
        assert fakes.asked == [(0, "a")]
        await fakes.wake()
        assert fakes.asked == [(0, "a"), (0, "a"), (0, "b")]
        assert fakes.spawned == [0], "Ray restarts it by itself"

    run(scenario, 1, 2)


def test_a_packer_that_is_lost_twice_rests_once():
    async def scenario(fakes):
        await fakes.ask("a")
        await fakes.ask("b")
        await fakes.answer("a", LOST)
        await fakes.answer("b", LOST)
        assert len(fakes.sleeps) == 1

    run(scenario, 1, 2)


def test_a_packer_that_is_lost_for_ever_is_made_anew():
    async def scenario(fakes):
        await fakes.ask("a")
        await fakes.answer("a", DEAD)
        assert fakes.spawned == [0]
        await fakes.wake()
        assert fakes.spawned == [0, 0]
        await fakes.answer("a", "done")
        assert fakes.tasks[0].result() == "done"

    run(scenario, 1, 1)


def test_late_word_of_a_dead_packer_does_not_end_its_successor():
    async def scenario(fakes):
        await fakes.ask("a")
        await fakes.ask("b")
        await fakes.answer("a", DEAD)
        await fakes.wake()
        assert fakes.asked == [(0, "a"), (0, "b"), (0, "a")]
        await fakes.answer("b", DEAD)
        assert fakes.asked[-1] == (0, "b")
        assert fakes.spawned == [0, 0]

    run(scenario, 1, 2)


@pytest.mark.parametrize("error", [UnreachableError("no"), ClusterError("a bug in it")])
def test_other_errors_are_the_caller_s(error):
    async def scenario(fakes):
        await fakes.ask("a")
        await fakes.answer("a", error)
        assert fakes.tasks[0].exception() is error
        assert fakes.sleeps == []
        await fakes.ask("b")
        assert fakes.asked == [(0, "a"), (0, "b")], "its place is free again"

    run(scenario, 1, 1)


def test_only_packers_that_are_up_are_asked():
    async def scenario(fakes):
        fakes.down = {0, 2}
        for order in "abc":
            await fakes.ask(order)
        assert fakes.asked == [(1, "a"), (1, "b")]
        await fakes.answer("a", "done")
        assert fakes.asked[-1] == (1, "c")

    run(scenario, 3, 2)


def test_an_order_that_ends_one_packer_after_the_other_is_given_up():
    async def scenario(fakes):
        await fakes.ask("a")
        for loss in range(LOSSES_LIMIT):
            assert len(fakes.asked) == loss + 1
            await fakes.answer("a", LOST)
            if loss + 1 < LOSSES_LIMIT:
                await fakes.wake(loss)
        assert "6 packers ended" in str(fakes.tasks[0].exception())
        assert type(fakes.tasks[0].exception()) is ClusterError

    run(scenario, 1, 1)


def test_no_packer_at_all_is_said(monkeypatch):
    monkeypatch.setattr("actors.pool.START_TIMEOUT_S", 0.05)

    async def scenario(fakes):
        fakes.down = {0, 1}
        await fakes.ask("a")
        await asyncio.sleep(0.1)
        assert "no packer is up" in str(fakes.tasks[0].exception())

    run(scenario, 2, 1)


def test_one_that_gives_up_leaves_its_place():
    async def scenario(fakes):
        for order in "abc":
            await fakes.ask(order)
        fakes.tasks[1].cancel()
        fakes.tasks[0].cancel()
        await settle()
        assert fakes.asked == [(0, "a"), (0, "c")]

    run(scenario, 1, 1)


def test_a_lane_keeps_its_packer_and_lanes_are_spread():
    async def scenario(fakes):
        for order, lane in (("a1", "a"), ("b1", "b"), ("a2", "a"), ("a3", "a"), ("b2", "b")):
            await fakes.ask(order, lane)
        assert fakes.asked == [(0, "a1"), (1, "b1"), (0, "a2"), (1, "b2")], "a3 waits for its packer, though 1 is free"
        await fakes.answer("a1", "done")
        assert fakes.asked[-1] == (0, "a3")

    run(scenario, 2, 2)


def test_a_lane_moves_when_its_packer_is_lost():
    async def scenario(fakes):
        await fakes.ask("a1", "a")
        await fakes.answer("a1", LOST)
        assert fakes.asked == [(0, "a1"), (1, "a1")]
        await fakes.ask("a2", "a")
        assert fakes.asked[-1] == (1, "a2")
        fakes.pool.forget("a")
        fakes.pool.forget("a")
        await fakes.answer("a2", "done")
        await fakes.ask("c1", "c")
        assert fakes.asked[-1] == (1, "c1"), "the only one that is up"

    run(scenario, 2, 2)


def test_lanes_are_spread_again_when_another_packer_comes_up():
    async def scenario(fakes):
        fakes.down = {1}
        await fakes.ask("a1", "a")
        await fakes.ask("b1", "b")
        assert fakes.asked == [(0, "a1"), (0, "b1")]
        fakes.down = set()
        fakes.pool._starts[1].cancel()
        await settle()
        fakes.pool.start()
        await settle()
        await fakes.answer("a1", "done")
        await fakes.ask("a2", "a")
        await fakes.ask("b2", "b")
        assert fakes.asked[2:] == [(1, "a2"), (0, "b2")]

    run(scenario, 2, 2)


def test_orders_near_each_other_go_to_one_packer_and_wait_for_it():
    async def scenario(fakes):
        await fakes.ask("a1", near=1, group="a")
        await fakes.ask("a2", near=2, group="a")
        await fakes.ask("b2", near=2, group="b")
        await fakes.ask("b1", near=1, group="b")
        where = {order: number for number, order in fakes.asked}
        assert where["a1"] == where["b1"] != where["a2"] == where["b2"]
        await fakes.ask("c1", near=1, group="b")
        assert "c1" not in fakes.answers  # its packer has an order of its group, and the other one not what it needs
        await fakes.answer("b1", "done")
        assert "c1" in fakes.answers

    run(scenario, 2, 1)


def test_orders_of_one_group_leave_room_for_those_of_others():
    async def scenario(fakes):
        for order in ("a1", "a2", "a3"):
            await fakes.ask(order, group="a")
        await fakes.ask("b1", group="b")
        assert {order for _, order in fakes.asked} == {"a1", "a2", "b1"}

    run(scenario, 1, 2)


def test_a_packer_that_is_lost_does_not_keep_what_was_near_it():
    async def scenario(fakes):
        await fakes.ask("a1", near=1)
        [(first, _)] = fakes.asked
        fakes.down.add(first)
        await fakes.answer("a1", LOST)
        await fakes.ask("b1", near=1)
        assert {number for number, _ in fakes.asked[1:]} == {1 - first}

    run(scenario, 2, 2)
