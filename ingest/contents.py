"""What a stream holds when it is closed: all that a destination needs that finishes streams itself. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingest.ledger import ChunkConfirmed, ChunkLost, Receipt, StreamEvent
from ingest.plan import ChunkTask, RunPlan, StreamSettings
from ingest.series_plan import ArchivePlan, SeriesTask, origin_digest
from ingest.timeseries import TimeseriesSettings

__all__ = ["HeldStream", "StreamContents", "StreamOrigin"]


@dataclass(frozen=True, slots=True)
class StreamOrigin:
    """What a stream comes from, for a destination that names streams itself.

    Attributes
    ----------
    digest : str
        Hex; the same for the same source and settings.
    anew : bool
        Whether it shall not be what an earlier job made of them.
    """

    digest: str
    anew: bool = False

    @classmethod
    def of(cls, plan: ArchivePlan, *, anew: bool = False) -> StreamOrigin:
        """Return what a run comes from: its source's fingerprint, and the settings that change what is sent."""
        return cls(origin_digest(plan), anew)


@dataclass(frozen=True, slots=True)
class HeldStream:
    """What a destination holds of a stream that it has finished.

    Attributes
    ----------
    receipts : tuple of Receipt
        By index.
    losses : mapping of int to str
        Why a chunk is not among them.
    origin : str or None
        What it was made from, see `StreamOrigin`.
    """

    receipts: tuple[Receipt, ...]
    losses: Mapping[int, str]
    origin: str | None = None

    def adopted_by(self, plan: ArchivePlan) -> list[StreamEvent]:
        """Return what a ledger of `plan` takes over from it: nothing unless it is just this plan's stream."""
        if self.origin != origin_digest(plan):
            return []
        frames = {task.index: _size(task) for task in plan.chunks}
        if {*self.losses, *(receipt.index for receipt in self.receipts)} != frames.keys():
            return []
        if isinstance(plan, RunPlan) and any(receipt.frames != frames[receipt.index] for receipt in self.receipts):
            return []
        lost = [ChunkLost(index, reason) for index, reason in self.losses.items()]
        return [*map(ChunkConfirmed, self.receipts), *lost]

    def has_all_of(self, contents: StreamContents) -> bool:
        """Return whether it holds all that `contents` does, chunk by chunk, and perhaps more."""
        frames = {receipt.index: _kept(receipt) for receipt in self.receipts}
        return all(frames.get(one.index, (-1, ""))[0] >= _kept(one)[0] for one in contents.receipts) and all(
            frames[one.index][1] == one.frames_digest
            for one in contents.receipts
            if frames[one.index][0] == _kept(one)[0]
        )


def _kept(receipt: Receipt) -> tuple[int, str]:
    return receipt.frames - len(receipt.lost_frames), receipt.frames_digest


def _size(task: ChunkTask | SeriesTask) -> int:
    return task.stop - task.start


@dataclass(frozen=True)
class StreamContents:
    """A whole stream, in brief; about 1 kB a chunk.

    Attributes
    ----------
    settings : StreamSettings or TimeseriesSettings
        What it was created with.
    plan : RunPlan or SeriesPlan or None
        What was sent; None: a live stream's, which has none.
    receipts : tuple of Receipt
        By index.
    losses : mapping of int to str
        Why a chunk is not among them.
    manifest : dict
        See `ingest.manifest`.
    """

    settings: StreamSettings | TimeseriesSettings
    plan: ArchivePlan | None
    receipts: tuple[Receipt, ...]
    losses: Mapping[int, str]
    manifest: dict[str, Any]
