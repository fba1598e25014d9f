"""What packers are asked when a stream is verified or mended, and what they answer: small frozen values. Pure."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from ingest.errors import IngestError
from ingest.ledger import Receipt
from ingest.orders import ChunkOrder
from ingest.series_plan import SeriesPlan
from ingest.timeseries import TimeseriesSettings
from ingest.verify.findings import Difference

__all__ = [
    "Ask",
    "ChunkState",
    "ExpectedChunk",
    "Mended",
    "NotDone",
    "SeriesChecked",
    "SeriesOrder",
    "ShardsChecked",
    "ShardsOrder",
    "VerifyOrder",
    "VerifyOutcome",
]


@dataclass(frozen=True, slots=True)
class ExpectedChunk:
    """A chunk, as manifest and source tell it.

    Attributes
    ----------
    index : int or None
        The chunk; None: no manifest says which chunks there are, and this is one shard of the grid.
    first, stop : int
        Its frames, counted from the stream's first.
    receipt : Receipt or None
        What the manifest says of it; None: nothing, or that it is lost.
    is_lost : bool
        Whether the manifest says that it is lost.
    order : ChunkOrder or None
        Reads it from the source; None: there is no source.
    anew : str or None
        When a shard is made anew: the digest of the source's frames that it is packed from; None: it stays as it is.
    """

    index: int | None
    first: int
    stop: int
    receipt: Receipt | None = None
    is_lost: bool = False
    order: ChunkOrder | None = None
    anew: str | None = None

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return self.stop - self.first

    @property
    def text(self) -> str:
        """The chunk, for people."""
        return f"frames {self.first} to {self.stop - 1}" if self.index is None else f"chunk {self.index}"


@dataclass(frozen=True, slots=True)
class ShardsOrder:
    """Some shards in a row, and every chunk that has frames in them.

    Attributes
    ----------
    destination : str
        A lake, or the embedded platform, of which a chunk is a shard of its own.
    data_id : str
        The stream.
    first, stop : int
        The shards' numbers, `stop` exclusive.
    chunk_size : int
        Frames in each of them.
    height_px, width_px : int
        Frame shape.
    chunks : tuple of ExpectedChunk
        In order.
    in_lake : bool
        Else the one shard is the chunk of that number, of whatever length.
    """

    destination: str
    data_id: str
    first: int
    stop: int
    chunk_size: int
    height_px: int
    width_px: int
    chunks: tuple[ExpectedChunk, ...]
    in_lake: bool = True

    def frame_of(self, number: int) -> int:
        """Return the first frame of a shard, counted from the stream's first."""
        return number * self.chunk_size if self.in_lake else self.chunks[0].first

    @property
    def frames(self) -> int:
        """How many frames it is about."""
        return sum(chunk.frames for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class ChunkState:
    """What was found of one chunk.

    Attributes
    ----------
    index : int or None
        The chunk.
    digest : str
        Of the frames as they are stored; those that are not, or do not decode, count as 0 all over.
    lost : tuple of int
        Frames, counted from the chunk's first, that are not stored.
    n_bytes, crc32c : int
        Of the shard that its stored frames make.
    source_digest : str or None
        Of the source's frames.
    is_good : bool
        Whether what is stored is right.
    can_mend : bool
        Whether it is not, and the source can set it right.
    """

    index: int | None
    digest: str
    lost: tuple[int, ...]
    n_bytes: int
    crc32c: int
    source_digest: str | None
    is_good: bool
    can_mend: bool


@dataclass(frozen=True, slots=True)
class ShardsChecked:
    """What was found of some shards.

    Attributes
    ----------
    chunks : tuple of ChunkState
        In order.
    differences : tuple of Difference
        What is not as it should be.
    stored_bytes : int
        Size of the shards.
    """

    chunks: tuple[ChunkState, ...]
    differences: tuple[Difference, ...]
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class SeriesOrder:
    """A log, all of it: against a lake or the embedded platform.

    Attributes
    ----------
    destination, data_id : str
        The stream.
    plan : SeriesPlan
        Reads the log.
    settings : TimeseriesSettings
        What the stream was made with.
    receipts : tuple of Receipt
        What the manifest says.
    """

    destination: str
    data_id: str
    plan: SeriesPlan
    settings: TimeseriesSettings
    receipts: tuple[Receipt, ...] = ()


@dataclass(frozen=True, slots=True)
class SeriesChecked:
    """What was found of a log's channels.

    Attributes
    ----------
    differences : tuple of Difference
        What is not as it should be.
    receipts : tuple of Receipt
        Of the requests that the log makes.
    losses : dict of int to str
        Requests that cannot be read, and why.
    points : dict of str to int
        Of each channel.
    objects : tuple of str
        What a lake should hold of the channels.
    """

    differences: tuple[Difference, ...]
    receipts: tuple[Receipt, ...]
    losses: dict[int, str]
    points: dict[str, int]
    objects: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mended:
    """It was written again."""

    objects: int = 0


@dataclass(frozen=True, slots=True)
class NotDone:
    """It could not be done: source or destination refused."""

    error: IngestError


VerifyOrder = ShardsOrder | SeriesOrder
VerifyOutcome = ShardsChecked | SeriesChecked | Mended | NotDone


class Ask(Protocol):
    """Has some packer do something; returns its outcome, and raises no `IngestError`."""

    def __call__(
        self, method: Literal["verify", "mend"], order: VerifyOrder, lane: Hashable = None
    ) -> Awaitable[VerifyOutcome]:
        """Ask for it; orders of one lane go to one packer."""
        ...


Progress = Callable[[int], Any]
