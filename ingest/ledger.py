"""One stream's state machine: events in, instructions out. No IO, no clock, no threads.

::

    planned --CreateBegun--> creating --StreamCreated--> created --StreamLinked--> open
    open --CloseBegun--> closing --StreamClosed--> closed
    any but closed --StreamGone--> gone            (the platform failed or closed it by itself)

Chunks are confirmed or lost while the stream is open. It may close once it is sealed and every expected chunk is one or
the other: without losses by ``close``, with losses by ``close_with_losses``; nothing between (DESIGN.md "Closing").
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from ingest.errors import IllegalEventError, StaleEpochError

__all__ = [
    "ChunkConfirmed",
    "ChunkLost",
    "CloseBegun",
    "CloseStream",
    "CreateBegun",
    "CreateStream",
    "DeliverChunks",
    "Instruction",
    "LinkStream",
    "Receipt",
    "Sealed",
    "StreamClosed",
    "StreamCreated",
    "StreamEvent",
    "StreamGone",
    "StreamLedger",
    "StreamLinked",
    "StreamState",
]


class StreamState(StrEnum):
    """Where a stream is in its life."""

    PLANNED = "planned"
    CREATING = "creating"
    CREATED = "created"
    OPEN = "open"
    CLOSING = "closing"
    CLOSED = "closed"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Receipt:
    """The proof that a destination holds a chunk.

    Attributes
    ----------
    index : int
        The chunk.
    frames : int
        How many it has.
    start_unix_ms_utc, end_unix_ms_utc : int
        Its capture span as sent.
    n_bytes : int
        Size of the shard.
    crc32c : int
        Of the shard.
    frames_digest : str
        XXH3-128 of its frames, hex.
    etag : str or None
        The destination's word for what it stored.
    attempts : int
        PUTs it took.
    node : str
        Who delivered it.
    put_unix_ms : int
        When the destination answered.
    label : str or None
        What the chunk is, where its index alone does not say: channels and index of a time-series request.
    lost_frames : tuple of int
        Frames, counted from the chunk's first, that the source could not give; they are in `frames`, not in the shard.
    """

    index: int
    frames: int
    start_unix_ms_utc: int
    end_unix_ms_utc: int
    n_bytes: int
    crc32c: int
    frames_digest: str
    etag: str | None
    attempts: int
    node: str
    put_unix_ms: int
    label: str | None = None
    lost_frames: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class CreateBegun:
    """The create call is about to be sent."""


@dataclass(frozen=True, slots=True)
class StreamCreated:
    """The destination gave the stream its id."""

    data_id: str


@dataclass(frozen=True, slots=True)
class StreamLinked:
    """Sample, project and tags are linked (or there were none)."""


@dataclass(frozen=True, slots=True)
class ChunkConfirmed:
    """The destination holds a chunk."""

    receipt: Receipt


@dataclass(frozen=True, slots=True)
class ChunkLost:
    """A chunk can never be delivered: refused, or unreadable in the source."""

    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """No chunks but 0 to `chunks` (exclusive) are expected.

    Attributes
    ----------
    chunks : int
        One more than the last.
    holes : tuple of (int, int)
        Ranges in between, stop exclusive, that a live producer never gave.
    """

    chunks: int
    holes: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, accepted: Iterable[int]) -> Sealed:
        """Return the seal that expects just the chunks of these indices."""
        holes = []
        position = 0
        for index in sorted(set(accepted)):
            if index > position:
                holes.append((position, index))
            position = index + 1
        return cls(position, tuple(holes))


@dataclass(frozen=True, slots=True)
class CloseBegun:
    """The closing call is about to be sent."""


@dataclass(frozen=True, slots=True)
class StreamClosed:
    """The destination confirmed the close."""


@dataclass(frozen=True, slots=True)
class StreamGone:
    """The destination has closed or failed the stream by itself."""

    reason: str


StreamEvent = (
    CreateBegun
    | StreamCreated
    | StreamLinked
    | ChunkConfirmed
    | ChunkLost
    | Sealed
    | CloseBegun
    | StreamClosed
    | StreamGone
)


@dataclass(frozen=True, slots=True)
class CreateStream:
    """Send the create call (again, with the same idempotency key, if it was begun before)."""


@dataclass(frozen=True, slots=True)
class LinkStream:
    """Link sample, project and tags; safe to repeat."""

    data_id: str


@dataclass(frozen=True, slots=True)
class DeliverChunks:
    """These chunks are neither confirmed nor lost."""

    data_id: str
    indices: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CloseStream:
    """Send the closing call; safe to repeat."""

    data_id: str
    with_losses: bool


Instruction = CreateStream | LinkStream | DeliverChunks | CloseStream


@dataclass
class StreamLedger:
    """What is known of one stream. Holds about 200 bytes per confirmed chunk.

    Attributes
    ----------
    key : str
        The stream's key in the journal.
    epoch : int
        Of the lease; events of an older one are refused.
    state : StreamState
        Where it is.
    data_id : str or None
        Once created.
    expected : int or None
        Chunks, once sealed; `holes` are counted, though nothing is expected there.
    confirmed : dict of int to str
        Frames digest of each confirmed chunk.
    lost : dict of int to str
        Reason for each lost chunk.
    gone_reason : str or None
        What the platform said when it failed the stream.
    holes : tuple of (int, int)
        Ranges that a live producer never gave.
    """

    key: str
    epoch: int = 0
    state: StreamState = StreamState.PLANNED
    data_id: str | None = None
    expected: int | None = None
    confirmed: dict[int, str] = field(default_factory=dict)
    lost: dict[int, str] = field(default_factory=dict)
    gone_reason: str | None = None
    holes: tuple[tuple[int, int], ...] = ()

    def check_epoch(self, epoch: int) -> None:
        """Raise StaleEpochError if the lease was taken over since `epoch`."""
        if epoch != self.epoch:
            raise StaleEpochError(
                f"stream {self.key}: the lease is at epoch {self.epoch}, this job's is {epoch}: another job took over"
            )

    def missing(self) -> tuple[int, ...]:
        """Return the expected chunks that are neither confirmed nor lost, in order."""
        starts = (0, *(stop for _, stop in self.holes))
        stops = (*(start for start, _ in self.holes), self.expected or 0)
        return tuple(
            i
            for start, stop in zip(starts, stops, strict=True)
            for i in range(start, stop)
            if i not in self.confirmed and i not in self.lost
        )

    def is_whole(self) -> bool:
        """Whether it is sealed and nothing is missing."""
        if self.expected is None:
            return False
        accounted = len(self.confirmed) + sum(1 for i in self.lost if i not in self.confirmed)
        return accounted >= self.expected - sum(stop - start for start, stop in self.holes) and not self.missing()

    def is_news(self, event: StreamEvent) -> bool:
        """Whether `event` changes anything; the same event again does not.

        Raises
        ------
        IllegalEventError
            The state does not allow it: a chunk after the close, a close before the stream is whole, another id.
        """
        match event:
            case CreateBegun():
                return self._step(event, StreamState.PLANNED, StreamState.CREATING)
            case StreamCreated(data_id):
                if self.data_id is not None and self.data_id != data_id:
                    raise self._illegal(event, f"it is {self.data_id} already")
                return self._step(event, StreamState.CREATING, StreamState.CREATED)
            case StreamLinked():
                return self._step(event, StreamState.CREATED, StreamState.OPEN)
            case ChunkConfirmed(receipt):
                self._check_chunk(event, receipt.index)
                same = self.confirmed.get(receipt.index) == receipt.frames_digest
                return not same and self._while_open(event)
            case ChunkLost(index):
                self._check_chunk(event, index)
                return index not in self.lost and index not in self.confirmed and self._while_open(event)
            case Sealed(chunks, holes):
                return self._is_new_seal(event, chunks, holes)
            case CloseBegun():
                if self.state is StreamState.OPEN and not self.is_whole():
                    raise self._illegal(event, f"{len(self.missing())} of {self.expected} chunks are missing")
                return self._step(event, StreamState.OPEN, StreamState.CLOSING)
            case StreamClosed():
                return self._step(event, StreamState.CLOSING, StreamState.CLOSED)
            case StreamGone():
                return self.state not in (StreamState.CLOSED, StreamState.GONE)

    def apply(self, event: StreamEvent) -> tuple[Instruction, ...]:
        """Take one event and return what it makes due; idempotent.

        A chunk makes nothing due but the close, so that a long stream is not searched at every chunk.

        Raises
        ------
        IllegalEventError
            As `is_news`; nothing was changed.
        """
        if self.is_news(event):
            self._take(event)
        if isinstance(event, ChunkConfirmed | ChunkLost) and not self.is_whole():
            return ()
        return self.due()

    def due(self) -> tuple[Instruction, ...]:
        """Return what has to be done next; empty: nothing, for now or for ever."""
        match self.state:
            case StreamState.PLANNED | StreamState.CREATING:
                return (CreateStream(),)
            case StreamState.CREATED:
                return (LinkStream(self.data_id or ""),)
            case StreamState.OPEN:
                if self.is_whole():
                    return (self._close(),)
                missing = self.missing()
                return (DeliverChunks(self.data_id or "", missing),) if missing else ()
            case StreamState.CLOSING:
                return (self._close(),)
            case _:
                return ()

    def _close(self) -> CloseStream:
        return CloseStream(self.data_id or "", with_losses=bool(self.lost))

    def _take(self, event: StreamEvent) -> None:
        match event:
            case CreateBegun():
                self.state = StreamState.CREATING
            case StreamCreated(data_id):
                self.state, self.data_id = StreamState.CREATED, data_id
            case StreamLinked():
                self.state = StreamState.OPEN
            case ChunkConfirmed(receipt):
                self.confirmed[receipt.index] = receipt.frames_digest
                self.lost.pop(receipt.index, None)
            case ChunkLost(index, reason):
                self.lost[index] = reason
            case Sealed(chunks, holes):
                self.expected, self.holes = chunks, holes
            case CloseBegun():
                self.state = StreamState.CLOSING
            case StreamClosed():
                self.state = StreamState.CLOSED
            case StreamGone(reason):
                self.state, self.gone_reason = StreamState.GONE, reason

    def _step(self, event: StreamEvent, before: StreamState, after: StreamState) -> bool:
        order = list(StreamState)
        if self.state is before:
            return True
        if self.state is not StreamState.GONE and order.index(self.state) >= order.index(after):
            return False
        raise self._illegal(event, f"it is {self.state}")

    def _while_open(self, event: StreamEvent) -> bool:
        if self.state is not StreamState.OPEN:
            raise self._illegal(event, f"it is {self.state}")
        return True

    def _is_new_seal(self, event: StreamEvent, chunks: int, holes: tuple[tuple[int, int], ...]) -> bool:
        if self.expected is not None and (self.expected, self.holes) != (chunks, holes):
            raise self._illegal(event, f"it is sealed at {self.expected} chunks")
        known = (*self.confirmed, *self.lost)
        if max(known, default=-1) >= chunks:
            raise self._illegal(event, f"it has chunk {max(known)} already")
        for index in known:
            if any(start <= index < stop for start, stop in holes):
                raise self._illegal(event, f"it has chunk {index} already")
        return self.expected is None

    def _check_chunk(self, event: StreamEvent, index: int) -> None:
        sealed_out = self.expected is not None and index >= self.expected
        if index < 0 or sealed_out or any(start <= index < stop for start, stop in self.holes):
            raise self._illegal(event, f"chunk {index} is not one of its {self.expected}")

    def _illegal(self, event: StreamEvent, why: str) -> IllegalEventError:
        return IllegalEventError(f"stream {self.key}: {type(event).__name__} is not possible: {why}")
