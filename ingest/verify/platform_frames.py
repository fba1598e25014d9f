"""A movie against what the embedded platform gives back of it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ingest.errors import DestinationError, RefusedError, SettingsError
from ingest.lanes import lanes_of
from ingest.orders import ChunkOrder, orders_of
from ingest.plan import ChunkTask, RunPlan
from ingest.verify.findings import Difference, Kind, StreamReport
from ingest.verify.giving import GiveOut
from ingest.verify.lake_frames import take_outcomes
from ingest.verify.work import ChunkState, ExpectedChunk, NotDone, ShardsChecked, ShardsOrder
from ingest.wire.client import PlatformClient

__all__ = ["NOT_REPAIRED", "REPAIR_HINT", "FramesOnPlatform", "check_reads_back"]

NOT_REPAIRED = "a stream that a platform has closed takes nothing any more, so it cannot be repaired"
REPAIR_HINT = "`rheed-ingest backfill --restart` sends the run again, as another stream"
NO_READING = frozenset({404, 405, 501})


async def check_reads_back(client: PlatformClient) -> list[dict[str, Any]]:
    """Return the streams of a platform, if it gives back what it was sent.

    Raises
    ------
    RefusedError
        It does not: it is no embedded one.
    """
    try:
        return await client.list_streams()
    except RefusedError as exc:
        if exc.status not in NO_READING:
            raise
        raise RefusedError(
            f"{client.endpoint} gives nothing back of what it was sent (HTTP {exc.status}): only the embedded "
            "platform, `rheed-ingest serve`, can be read back",
            hint="verify against a lake that the same runs were sent to, or believe the receipts (`status`)",
            status=exc.status,
        ) from exc


class FramesOnPlatform:
    """Verifies one stream of the embedded platform against its source.

    Parameters
    ----------
    client : PlatformClient
        The platform.
    data_id : str
        The stream.
    plan : RunPlan
        As it was sent.
    give : GiveOut
        Has orders worked off.
    """

    def __init__(self, client: PlatformClient, data_id: str, plan: RunPlan, give: GiveOut) -> None:
        self._client, self._data_id, self._plan, self._give = client, data_id, plan, give

    async def verify(self, report: StreamReport, *, repair: bool) -> None:
        """Read every chunk back and compare; with `repair`, send those anew that differ, if the stream is open.

        Raises
        ------
        DestinationError
            The platform does not answer, or there is no such stream.
        SettingsError
            It was cut into other chunks.
        """
        held = [chunk["frames"] for chunk in (await self._client.stream(self._data_id))["chunk_list"]]
        if sum(held) == self._plan.frames and held != [task.frames for task in self._plan.chunks]:
            raise SettingsError(
                f"it holds the run's {sum(held)} frames in {len(held)} chunks that are cut otherwise than these "
                f"arguments cut them ({len(self._plan.chunks)} chunks)",
                hint="pass the destinations and options of its backfill, or the --state of its journal",
            )
        found, states, is_open = await self._check(range(len(self._plan.chunks)), report)
        wrong = {d.chunk for d in found if d.can_mend and d.chunk is not None}
        if is_open:
            report.findings.append("the stream is still open: its backfill is not done")
        if not repair or not wrong:
            report.conclude(found)
        elif not is_open:
            report.conclude([replace(difference, can_mend=False) for difference in found])
            report.error, report.hint = NOT_REPAIRED, REPAIR_HINT
        else:
            left = await self._send_again(sorted(wrong), states, found)
            report.conclude(left, [difference for difference in found if difference not in left])

    async def _check(
        self, indices: Sequence[int], report: StreamReport | None
    ) -> tuple[list[Difference], dict[int, ChunkState], bool]:
        stream = await self._client.stream(self._data_id)
        held = {int(chunk["index"]): chunk for chunk in stream["chunk_list"]}
        found: list[Difference] = []
        states: dict[int, ChunkState] = {}
        for order, outcome in await self._give.all("verify", self._lanes(self._orders(indices))):
            take_outcomes(order, outcome, states, found)
            if report is not None and isinstance(outcome, ShardsChecked):
                report.chunks += 1
                report.frames += order.frames
                report.n_bytes += order.frames * order.height_px * order.width_px
        for index in indices:
            if index in held:
                found += _said_of_it(self._plan.chunks[index], held[index], states.get(index))
        known = range(len(self._plan.chunks))
        found += [
            _difference("extra chunk", i, "is none of the source's", can_mend=False) for i in held if i not in known
        ]
        if stream.get("status") == "failed":
            found.append(Difference("uncommitted", "the platform has failed the stream", can_mend=False))
        return found, states, stream.get("status") == "open"

    def _orders(self, indices: Sequence[int]) -> list[ShardsOrder]:
        plan, made = self._plan, []
        for order in orders_of("", self._data_id, plan, indices, self._client.endpoint):
            task = plan.chunks[order.task.index]
            if isinstance(order, ChunkOrder):
                chunk = ExpectedChunk(task.index, task.start, task.stop, order=order)
                made.append(
                    ShardsOrder(
                        self._client.endpoint, self._data_id, task.index, task.index + 1, task.frames, plan.height_px,
                        plan.width_px, (chunk,), in_lake=False,
                    )
                )  # fmt: skip
        return made

    def _lanes(self, orders: Sequence[ShardsOrder]) -> list[tuple[Hashable, list[ShardsOrder]]]:
        by_index = {order.first: order for order in orders}
        parts = lanes_of(self._plan, sorted(by_index), self._give.packers) if orders else None
        if parts is None:
            return [(None, list(orders))]
        return [((self._data_id, i), [by_index[index] for index in part]) for i, part in enumerate(parts)]

    async def _send_again(
        self, indices: Sequence[int], states: Mapping[int, ChunkState], found: Sequence[Difference]
    ) -> list[Difference]:
        """Deliver chunks again; return what is left."""
        orders = []
        for order in self._orders(indices):
            state = states.get(order.first)
            if state is not None:
                orders.append(replace(order, chunks=(replace(order.chunks[0], anew=state.source_digest),)))
        left = [difference for difference in found if difference.chunk not in indices]
        for order, outcome in await self._give.all("mend", self._lanes(orders)):
            if isinstance(outcome, NotDone):
                if not isinstance(outcome.error, DestinationError):
                    raise outcome.error
                left.append(_difference("not checked", order.first, f"was not taken: {outcome.error}", can_mend=False))
        again, _, _ = await self._check(indices, None)
        return left + [difference for difference in again if difference.chunk in indices]


def _said_of_it(task: ChunkTask, held: Mapping[str, Any], state: ChunkState | None) -> list[Difference]:
    """Return what the platform was told of a chunk, and what should have been said, where they differ."""
    found = []
    start_ms, fps = int(held["start_unix_ms_utc"]), float(held["fps"])
    if start_ms != task.start_unix_ms_utc:
        wrong = f"begins at {start_ms} ms, by the source at {task.start_unix_ms_utc} ms"
        found.append(_difference("time", task.index, wrong))
    if fps != task.fps:
        found.append(_difference("time", task.index, f"has {fps!r} frames per second, by the source {task.fps!r}"))
    if int(held["frames"]) != task.frames:
        found.append(_difference("frames", task.index, f"has {held['frames']} frames, the source {task.frames}"))
    lost = tuple(held.get("lost_frames", ()))
    if state is not None and state.is_good and lost != state.lost:
        wrong = f"was said to lack {len(lost)} frame(s); {len(state.lost)} are not stored"
        found.append(_difference("lost frame", task.index, wrong))
    return found


def _difference(kind: Kind, index: int, message: str, *, can_mend: bool = True) -> Difference:
    return Difference(kind, f"chunk {index} {message}", None, index, can_mend=can_mend)
