"""A movie against the stream that a lake holds of it: shards by packers, the rest here; and what differs mended."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from ingest.contents import StreamContents
from ingest.errors import IngestError
from ingest.lake.layout import commit_name, manifest_name, shard_name, staging_folder, stream_folder
from ingest.lake.seal import closing_objects, manifest_bytes, place_chunks
from ingest.lake.store import LakeStore
from ingest.lanes import lanes_of
from ingest.ledger import Receipt
from ingest.orders import ChunkOrder, orders_of
from ingest.plan import RunPlan
from ingest.verify.documents import compare_objects, with_others
from ingest.verify.findings import Difference, StreamReport
from ingest.verify.giving import GiveOut
from ingest.verify.told import Told, contents_of, frames_truth, read_told
from ingest.verify.work import ChunkState, ExpectedChunk, NotDone, ShardsChecked, ShardsOrder, VerifyOutcome

__all__ = ["FramesInLake", "foreign_objects", "take_outcomes"]

_OURS = ("frames", "time", "frame_index", "timeseries")


@dataclass
class _Seen:
    """What was found of a stream's shards."""

    states: dict[int, ChunkState] = field(default_factory=dict)
    differences: list[Difference] = field(default_factory=list)

    @property
    def to_mend(self) -> set[int]:
        """Chunks that the source can set right."""
        return {index for index, state in self.states.items() if state.can_mend}


class FramesInLake:
    """Verifies one stream against its source.

    Parameters
    ----------
    store : LakeStore
        The lake.
    destination : str
        Its URL, for packers.
    data_id : str
        The stream.
    plan : RunPlan
        Reads the source; no chunk of it crosses the edge of a shard, and it has every frame's time.
    give : GiveOut
        Has orders worked off.
    """

    def __init__(self, store: LakeStore, destination: str, data_id: str, plan: RunPlan, give: GiveOut) -> None:
        self._store, self._destination, self._data_id, self._plan = store, destination, data_id, plan
        self._give = give
        self._size = plan.settings.chunk_size

    async def verify(self, report: StreamReport, *, repair: bool) -> None:
        """Compare all of it, and with `repair` mend what differs and compare that again.

        Raises
        ------
        DestinationError
            The lake cannot be read, or not written.
        """
        told = await asyncio.to_thread(read_told, self._store, self._data_id)
        seen = _Seen()
        await self._check(self._orders(told), seen, report)
        truth = frames_truth(self._plan, told, seen.states.values())
        found = [*seen.differences, *await asyncio.to_thread(self._documents, told, *truth)]
        report.findings += await asyncio.to_thread(foreign_objects, self._store, self._data_id)
        if not repair or not any(difference.can_mend for difference in found):
            report.conclude(found)
            return
        left = await self._repair(told, seen)
        report.conclude(left, [difference for difference in found if difference not in left])

    # -- shards --------------------------------------------------------------------------------------------------------

    def _orders(
        self, told: Told, only: set[int] | None = None, anew: frozenset[int] = frozenset()
    ) -> list[ShardsOrder]:
        """Return the orders for all shards, or some; of chunks `anew` nothing is believed that the manifest says."""
        plan = self._plan
        shards: dict[int, list[ExpectedChunk]] = {}
        for order in orders_of("", self._data_id, plan, range(len(plan.chunks)), self._destination):
            task = plan.chunks[order.task.index]
            number = task.start // self._size
            if isinstance(order, ChunkOrder) and (only is None or number in only):
                is_anew = task.index in anew
                receipt = None if is_anew else told.receipts.get(task.index)
                if receipt is not None and receipt.frames != task.frames:
                    receipt = None
                is_lost = task.index in told.losses and not is_anew
                expected = ExpectedChunk(task.index, task.start, task.stop, receipt, is_lost, order)
                shards.setdefault(number, []).append(expected)
        return [self._order(number, chunks) for number, chunks in shards.items()]

    def _order(self, number: int, chunks: Sequence[ExpectedChunk]) -> ShardsOrder:
        plan = self._plan
        return ShardsOrder(
            self._destination, self._data_id, number, number + 1, self._size, plan.height_px, plan.width_px,
            tuple(chunks),
        )  # fmt: skip

    def _lanes(self, orders: Sequence[ShardsOrder]) -> list[tuple[Hashable, list[ShardsOrder]]]:
        """Return the orders by lane: a movie is decoded on from where it was."""
        first_of = {order.chunks[0].index or 0: order for order in orders}
        parts = lanes_of(self._plan, sorted(first_of), self._give.packers) if orders else None
        if parts is None:
            return [(None, list(orders))]
        return [((self._data_id, i), [first_of[index] for index in part]) for i, part in enumerate(parts)]

    async def _check(self, orders: Sequence[ShardsOrder], seen: _Seen, report: StreamReport | None) -> None:
        outcomes = await self._give.all("verify", self._lanes(orders))
        for order, outcome in outcomes:
            take_outcomes(order, outcome, seen.states, seen.differences)
            if report is not None and isinstance(outcome, ShardsChecked):
                report.chunks += len(order.chunks)
                report.frames += order.frames
                report.n_bytes += order.frames * order.height_px * order.width_px
        _name_swapped(seen)

    # -- the rest ------------------------------------------------------------------------------------------------------

    def _listed(self) -> dict[str, int]:
        return {found.name: found.n_bytes for found in self._store.objects(stream_folder(self._data_id))}

    def _closing(self, contents: StreamContents) -> dict[str, bytes]:
        plan = self._plan
        chunks = place_chunks(contents, {}, self._size)
        return closing_objects(self._data_id, contents, chunks, (plan.height_px, plan.width_px))

    def _documents(
        self, told: Told, receipts: Sequence[Receipt], losses: dict[int, str], *, is_sure: bool = False
    ) -> list[Difference]:
        """Return what is wrong beside the shards; `is_sure`: the manifest is what it will stay."""
        contents, found = contents_of(self._plan, told, self._data_id, receipts, losses)
        expected = self._closing(contents)
        expected.pop(manifest_name(self._data_id))
        listed = self._listed()
        unsure = ("manifest_digest",) if found and not is_sure else ()
        found += compare_objects(self._store, expected, listed, self._data_id, unsure=unsure)
        known = expected.keys() | set(_shards(self._data_id, self._size, receipts, self._plan))
        found += _extra(self._data_id, listed, known)
        return found

    # -- mending -------------------------------------------------------------------------------------------------------

    async def _repair(self, told: Told, seen: _Seen) -> list[Difference]:
        """Mend what can be mended; return what is left."""
        anew = frozenset(seen.to_mend)
        numbers = {self._plan.chunks[index].start // self._size for index in anew}
        names = {found.object for found in seen.differences if found.can_mend}
        numbers |= {number for number in self._numbers() if shard_name(self._data_id, number) in names}
        unmended: list[Difference] = []
        orders = [self._anew(order, seen, anew) for order in self._orders(told, numbers)]
        for order, outcome in await self._give.all("mend", self._lanes(orders)):
            if isinstance(outcome, NotDone):
                message = f"{shard_name(self._data_id, order.first)} could not be mended: {outcome.error}"
                unmended.append(Difference("not checked", message, can_mend=False))
        again = _Seen({i: state for i, state in seen.states.items() if i not in self._inside(numbers)})
        await self._check(self._orders(told, numbers, anew), again, None)
        untouched = [found for found in seen.differences if not self._is_inside(found, numbers)]
        left = [*(found for found in untouched if found.kind != "manifest"), *again.differences]
        truth = frames_truth(self._plan, told, again.states.values())
        is_good = len(again.states) == len(self._plan.chunks) and all(s.is_good for s in again.states.values())
        if not is_good and (told.manifest is None or not await asyncio.to_thread(self._is_committed)):
            # What is not known to be whole is not declared so.
            return [*left, *unmended, *await asyncio.to_thread(self._documents, told, *truth)]
        await asyncio.to_thread(self._write, told, *truth)
        now = await asyncio.to_thread(read_told, self._store, self._data_id)
        return [*left, *unmended, *await asyncio.to_thread(self._documents, now, *truth, is_sure=True)]

    def _is_committed(self) -> bool:
        return self._store.size(commit_name(self._data_id)) is not None

    def _numbers(self) -> range:
        return range(-(-self._plan.frames // self._size))

    def _inside(self, numbers: set[int]) -> set[int]:
        return {task.index for task in self._plan.chunks if task.start // self._size in numbers}

    def _is_inside(self, found: Difference, numbers: set[int]) -> bool:
        if found.object is not None:
            return any(found.object == shard_name(self._data_id, number) for number in numbers)
        return found.chunk is not None and found.chunk in self._inside(numbers)

    def _anew(self, order: ShardsOrder, seen: _Seen, anew: frozenset[int]) -> ShardsOrder:
        """Return the order to make a shard of what is right in it and of what the source has of the rest."""
        chunks = tuple(
            replace(chunk, anew=seen.states[chunk.index].source_digest) if chunk.index in anew else chunk
            for chunk in order.chunks
            if chunk.index is not None
        )
        return replace(order, chunks=chunks)

    def _write(self, told: Told, receipts: Sequence[Receipt], losses: dict[int, str]) -> None:
        """Write what is wrong beside the shards, the commit marker last; then remove what nothing explains."""
        contents, wrong = contents_of(self._plan, told, self._data_id, receipts, losses)
        store, commit, manifest = self._store, commit_name(self._data_id), manifest_name(self._data_id)
        expected = self._closing(contents)
        expected.pop(manifest)
        listed = self._listed()
        names = {found.object for found in compare_objects(store, expected, listed, self._data_id)}
        for name in [name for name in expected if name in names and name != commit]:
            store.put(name, [expected[name]])
        if wrong:
            store.put(manifest, [manifest_bytes(contents)])
        known = expected.keys() | set(_shards(self._data_id, self._size, receipts, self._plan))
        store.delete([found.object for found in _extra(self._data_id, listed, known) if found.object])
        if commit in names:
            store.put(commit, [with_others(store, commit, expected[commit])])
        if next(iter(store.objects(staging_folder(self._data_id))), None) is not None:
            store.delete_below(staging_folder(self._data_id))


def take_outcomes(
    order: ShardsOrder, outcome: VerifyOutcome, states: dict[int, ChunkState], differences: list[Difference]
) -> None:
    """Add what was found of some shards."""
    if isinstance(outcome, ShardsChecked):
        states.update({state.index: state for state in outcome.chunks if state.index is not None})
        differences += outcome.differences
        return
    error = outcome.error if isinstance(outcome, NotDone) else IngestError("a packer gave another answer")
    first = order.chunks[0]
    last = order.chunks[-1]
    message = f"{first.text} to {last.text}: {error}" if last is not first else f"{first.text}: {error}"
    differences.append(Difference("not checked", message, None, first.index, first.first, can_mend=False))


def _name_swapped(seen: _Seen) -> None:
    """Say of a chunk that holds another's frames which one that is."""
    owners = {state.source_digest: state.index for state in seen.states.values() if state.source_digest is not None}
    for at, found in enumerate(seen.differences):
        state = seen.states.get(found.chunk) if found.chunk is not None else None
        if state is None or found.kind != "frames" or state.is_good:
            continue
        owner = owners.get(state.digest)
        if owner is not None and owner != found.chunk:
            seen.differences[at] = replace(found, message=f"{found.message}; it holds those of chunk {owner}")


def _shards(data_id: str, size: int, receipts: Iterable[Receipt], plan: RunPlan) -> Iterator[str]:
    """Yield the shards that hold any frame."""
    for receipt in receipts:
        if len(receipt.lost_frames) < receipt.frames:
            yield shard_name(data_id, plan.chunks[receipt.index].start // size)


def _extra(data_id: str, listed: Iterable[str], known: Iterable[str]) -> list[Difference]:
    """Return the objects in our arrays that nothing explains; what others added beside them is theirs."""
    known = set(known)
    ours = tuple(f"{stream_folder(data_id)}/{name}/" for name in _OURS)
    return [
        Difference("extra object", f"{name} belongs to nothing in this stream", name)
        for name in listed
        if name.startswith(ours) and name not in known
    ]


def foreign_objects(store: LakeStore, data_id: str) -> list[str]:
    """Return, for people, what lies in and beside a stream and is none of its objects."""
    ours = tuple(f"{stream_folder(data_id)}/{name}/" for name in _OURS)
    commit = commit_name(data_id)
    others = [o.name for o in store.objects(stream_folder(data_id)) if not o.name.startswith(ours) and o.name != commit]
    said = [f"{len(others)} object(s) of others in the group, the first is {others[0]}; left alone"] if others else []
    staged = sum(1 for _ in store.objects(staging_folder(data_id)))
    if staged:
        said.append(f"{staged} object(s) are left in {staging_folder(data_id)}")
    return said
