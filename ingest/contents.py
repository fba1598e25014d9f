"""What a stream holds when it is closed: all that a destination needs that finishes streams itself. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingest.ledger import ChunkConfirmed, ChunkLost, Receipt, StreamEvent
from ingest.plan import ChunkTask, RunPlan, StreamSettings
from ingest.series_plan import ArchivePlan, SeriesTask
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
        text = json.dumps([plan.fingerprint, plan.identity()], sort_keys=True)
        return cls(hashlib.sha256(text.encode()).hexdigest(), anew)


@dataclass(frozen=True, slots=True)
class HeldStream:
    """What a destination holds of a stream that it has finished.

    Attributes
    ----------
    receipts : tuple of Receipt
        By index.
    losses : mapping of int to str
        Why a chunk is not among them.
    """

    receipts: tuple[Receipt, ...]
    losses: Mapping[int, str]

    def adopted_by(self, plan: ArchivePlan) -> list[StreamEvent]:
        """Return what a ledger of `plan` takes over from it: nothing unless it is just this plan's stream."""
        frames = {task.index: _size(task) for task in plan.chunks}
        if {*self.losses, *(receipt.index for receipt in self.receipts)} != frames.keys():
            return []
        if isinstance(plan, RunPlan) and any(receipt.frames != frames[receipt.index] for receipt in self.receipts):
            return []
        lost = [ChunkLost(index, reason) for index, reason in self.losses.items()]
        return [*map(ChunkConfirmed, self.receipts), *lost]


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
