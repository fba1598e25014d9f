"""What every destination does: takes a stream's settings, its chunks in any order, and its close."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ingest.contents import HeldStream, StreamContents, StreamOrigin
from ingest.errors import DestinationError, LinkError, UnreachableError
from ingest.plan import StreamSettings
from ingest.shard import Shard
from ingest.timeseries import ApiGeneration, TimeseriesMeta, TimeseriesSettings
from ingest.wire.models import ChunkMetadata, Delivery

__all__ = [
    "Destination",
    "Linkable",
    "LinkedSettings",
    "MissingNames",
    "ResolvedLinks",
    "StreamMaker",
    "TimeseriesDestination",
    "link_or_close",
    "open_and_link",
]

SettingsT = TypeVar("SettingsT")
SettingsT_contra = TypeVar("SettingsT_contra", contravariant=True)


@dataclass(frozen=True, slots=True)
class ResolvedLinks:
    """The ids behind a stream's sample and tags; small, and pickles.

    Attributes
    ----------
    physical_sample_id : str or None
        None: no sample was asked for.
    tag_ids : tuple of str
        In the order asked for, each once.
    """

    physical_sample_id: str | None = None
    tag_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MissingNames:
    """What resolving would create.

    Attributes
    ----------
    physical_sample : bool
        Whether the sample is not there.
    tags : tuple of str
        The tags that are not there.
    """

    physical_sample: bool = False
    tags: tuple[str, ...] = ()


class LinkedSettings(Protocol):
    """What the settings of every kind of stream say of its links."""

    @property
    def physical_sample(self) -> str | None:
        """Name or UUID."""
        ...

    @property
    def project_id(self) -> str | None:
        """UUID."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Names or UUIDs."""
        ...


class Linkable(Protocol[SettingsT_contra]):
    """The part of a destination that links streams of one kind, and closes them; see `Destination`."""

    async def link(self, data_id: str, settings: SettingsT_contra, resolved: ResolvedLinks) -> None:
        """Link a stream to its sample, project and tags."""
        ...

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:
        """Close a stream."""
        ...


class StreamMaker(Linkable[SettingsT_contra], Protocol[SettingsT_contra]):
    """The part of a destination that makes streams of one kind; see `Destination`."""

    async def resolve(self, settings: SettingsT_contra) -> ResolvedLinks:
        """Find the sample and the tags, creating names that are not there."""
        ...

    async def open_stream(
        self, settings: SettingsT_contra, idempotency_key: str, origin: StreamOrigin | None = None
    ) -> str:
        """Create a stream; return its ``data_id``."""
        ...


class Destination(Protocol):
    """Where streams go. One for each event loop, shared by its tasks.

    Every method raises a `DestinationError` and nothing of a third party: `RefusedError` and its kin are final,
    `UnreachableError` comes after the destination's own retries, so that callers need none.
    """

    finishes_streams: bool
    """Whether `close_stream` needs to be told all that is in a stream, and `held` knows what was closed."""

    async def missing_names(self, settings: StreamSettings) -> MissingNames:
        """Return which sample and tags `resolve` would create. Changes nothing.

        Raises
        ------
        UnknownNameError
            A UUID that does not exist.
        """
        ...

    async def resolve(self, settings: StreamSettings) -> ResolvedLinks:
        """Find the sample and the tags, creating names that are not there. Safe to repeat.

        Comes before `open_stream`, so that a bad name leaves no stream behind.

        Raises
        ------
        UnknownNameError
            A UUID that does not exist.
        SettingsError
            A blank sample.
        """
        ...

    async def open_stream(
        self, settings: StreamSettings, idempotency_key: str, origin: StreamOrigin | None = None
    ) -> str:
        """Create a stream; return its ``data_id``, which is made of `origin` where the destination gives no random one.

        Safe to repeat with the same key where the destination honours it; else a lost reply leaves an empty orphan.

        Raises
        ------
        SettingsError
            Settings that the destination does not take.
        """
        ...

    async def link(self, data_id: str, settings: StreamSettings, resolved: ResolvedLinks) -> None:
        """Link a stream to its sample, project and tags. Safe to repeat."""
        ...

    async def deliver(self, data_id: str, index: int, meta: ChunkMetadata, shard: Shard) -> Delivery:
        """Store one chunk, and return once the destination has confirmed it. Safe to repeat, in any order.

        Raises
        ------
        StreamGoneError
            The stream does not exist or takes nothing more.
        """
        ...

    async def held(self, data_id: str) -> HeldStream | None:
        """Return what is in a stream that was closed before, as far as the destination can say; None: it cannot."""
        ...

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:
        """Close a stream: it takes nothing more.

        Raises
        ------
        StreamGoneError
            There is no such stream, or it was closed or failed before.
        """
        ...

    async def aclose(self) -> None:
        """Let go of connections. Safe to repeat."""
        ...


class TimeseriesDestination(StreamMaker[TimeseriesSettings], Protocol):
    """Where time series go. One for each event loop, shared by its tasks; what it raises: as `Destination`."""

    finishes_streams: bool
    """As that of `Destination`."""

    generation: ApiGeneration
    """How `ingest.timeseries.encode_channels` must encode what is delivered."""

    async def missing_names(self, settings: TimeseriesSettings) -> MissingNames:
        """Return which sample and tags `resolve` would create. Changes nothing."""
        ...

    async def deliver(self, data_id: str, meta: TimeseriesMeta, body: bytes) -> Delivery:
        """Store one request, and return once the destination has confirmed it. Safe to repeat, in any order.

        Raises
        ------
        StreamGoneError
            The stream does not exist or takes nothing more.
        """
        ...

    async def held(self, data_id: str) -> HeldStream | None:
        """Return what is in a stream that was closed before, as far as the destination can say; None: it cannot."""
        ...

    async def aclose(self) -> None:
        """Let go of connections. Safe to repeat."""
        ...


async def link_or_close(
    destination: Linkable[SettingsT], data_id: str, settings: SettingsT, resolved: ResolvedLinks
) -> None:
    """Link a new stream; if that fails, close it, so that no stream goes on under the wrong name.

    Parameters
    ----------
    destination : Linkable
        Where the stream is, of whatever kind.
    data_id : str
        The stream, already journalled by the caller.
    settings, resolved
        As for `Destination.link`.

    Raises
    ------
    LinkError
        Not linked. Names the ``data_id`` and says whether the stream could be closed; no close is tried when the
        destination was unreachable, since that would only double the wait. Linking again is safe.
    """
    try:
        await destination.link(data_id, settings, resolved)
    except DestinationError as exc:
        if isinstance(exc, UnreachableError):
            state = "it was left open, since the destination does not answer"
        else:
            state = await _close_after_failure(destination, data_id)
        raise LinkError(
            f"stream {data_id} was created, but not linked to its sample, project or tags, and {state}: {exc}",
            hint=exc.hint or "check the project's id and what this key may do, then run again",
            data_id=data_id,
        ) from exc


async def _close_after_failure(destination: Linkable[SettingsT], data_id: str) -> str:
    try:
        await destination.close_stream(data_id)
    except DestinationError as exc:
        return f"closing it failed too ({exc})"
    return "it was closed"


async def open_and_link(
    destination: StreamMaker[SettingsT],
    settings: SettingsT,
    idempotency_key: str,
    created: Callable[[str], Awaitable[None]],
) -> str:
    """Resolve, create and link a stream, in the order that leaves nothing behind; return its ``data_id``.

    Callers that do the steps themselves use `link_or_close` for the last one.

    Parameters
    ----------
    destination : StreamMaker
        Where to.
    settings : StreamSettings or TimeseriesSettings
        The stream's.
    idempotency_key : str
        The same for every try at this stream.
    created : coroutine function
        Is awaited with the ``data_id`` after the stream was created and before it is linked: the moment to journal it.

    Raises
    ------
    LinkError
        As `link_or_close`.
    """
    resolved = await destination.resolve(settings)
    data_id = await destination.open_stream(settings, idempotency_key)
    await created(data_id)
    await link_or_close(destination, data_id, settings, resolved)
    return data_id
