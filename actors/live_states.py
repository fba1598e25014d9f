"""The live streamers' actors: they hold what ``initialize`` was told of each stream."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from actors.creating import Creator
from actors.handles import Handle
from actors.live_setup import FramesOrder, LiveSetup
from ingest.carrier import Acknowledgement, Carrier
from ingest.chunks import encoded_points
from ingest.destinations.base import StreamMaker
from ingest.errors import IngestError, LinkError, SettingsError
from ingest.journal import LiveSettings, LiveStream
from ingest.ledger import StreamEvent, StreamGone, StreamState
from ingest.outlets import open_frames_outlet, open_points_outlet
from ingest.plan import StreamSettings
from ingest.retry import RetryPolicy
from ingest.timeseries import ApiGeneration, TimeseriesMeta, TimeseriesSettings
from ingest.wire.models import ChunkMetadata, check_settings

__all__ = ["LiveRHEEDState", "LiveTimeseriesState", "PointsItem", "direct_policy"]

INITIALIZE_FOR_S = 30.0
CLOSE_FOR_S = 10.0

S = TypeVar("S", StreamSettings, TimeseriesSettings)


class _Closing(Protocol):
    async def aclose(self) -> None: ...


def direct_policy(direct_for_s: float) -> RetryPolicy:
    """Return how a direct delivery is tried: it has to end in time for the spool."""
    return RetryPolicy(first_s=0.05, max_s=0.2, retry_for_s=direct_for_s)


@dataclass(frozen=True, slots=True)
class PointsItem:
    """One time-series request on its way to be carried.

    Attributes
    ----------
    seq : int
        In which order it was pushed.
    meta : TimeseriesMeta
        What it is.
    body : bytes
        Its JSON.
    """

    seq: int
    meta: TimeseriesMeta
    body: bytes


class _LiveState(Generic[S]):
    """What both kinds of streamers' actors do: begin streams, and know them again after a restart.

    Parameters
    ----------
    setup : LiveSetup
        The session.
    aggregator : Handle
        Journals.
    """

    role: str

    def __init__(self, setup: LiveSetup, aggregator: Handle) -> None:
        self._setup = setup
        self._aggregator = aggregator
        self._telemetry = setup.telemetry_of(self.role)
        self._streams: dict[str, tuple[float, LiveStream]] = {}
        self._open: list[_Closing] = []
        self._makers: dict[str, StreamMaker[S]] = {}

    async def ping(self) -> int:
        """Return the process id: the actor is up."""
        return os.getpid()

    def _maker(self, settings: S) -> StreamMaker[S]:
        raise NotImplementedError

    async def initialize(self, key: str, settings: S) -> str:
        """Create and link a stream under a key of the caller's; return its ``data_id``. Safe to repeat.

        Raises
        ------
        SettingsError, RefusedError, UnreachableError, LinkError
            There is no such stream now; the journal knows it as gone.
        """
        setup = self._setup
        epoch, _ = await self._aggregator.call(
            "begin_live", setup.session_id, key, setup.destination, setup.account, settings
        )
        stream: LiveStream = await self._aggregator.call("live_stream", key)
        if stream.state in (StreamState.PLANNED, StreamState.CREATING, StreamState.CREATED):
            creator = Creator(self._aggregator, self._maker(settings), self._telemetry)
            try:
                await creator.create(key, epoch, settings, stream.data_id)
            except IngestError as exc:
                raise await self._given_up(key, epoch, creator, exc) from exc
        return str((await self._stream(key, anew=True)).data_id)

    async def _given_up(self, key: str, epoch: int, creator: Creator[S], error: IngestError) -> IngestError:
        """Leave nothing open of a stream that did not begin well; return the error that says so."""
        data_id = None
        with suppress(IngestError):
            stream: LiveStream = await self._aggregator.call("live_stream", key)
            data_id = stream.data_id if stream.state is StreamState.CREATED else None
            await self._aggregator.call("record", key, epoch, [StreamGone(f"not begun: {error}")])
            await self._aggregator.call("release_live", key, epoch)
        if data_id is None or self._setup.is_lake:  # of which nothing is in a lake yet
            return error
        # The way to the platform failed between creating and linking.
        state = "it was closed"
        try:
            async with asyncio.timeout(CLOSE_FOR_S):
                await creator.destination.close_stream(data_id)
        except (IngestError, TimeoutError) as exc:
            state = f"closing it failed too ({exc or 'no answer'})"
        return LinkError(
            f"stream {data_id} was created, but not linked to its sample, project or tags, and {state}: {error}",
            hint="call initialize again",
            data_id=data_id,
        )

    async def _stream(self, key: str, *, anew: bool = False) -> LiveStream:
        read_s, known = self._streams.get(key, (0.0, None))
        # Its lease may have been taken over and given back since, with another epoch.
        if known is not None and not anew and time.monotonic() - read_s < self._setup.options.lease_s:
            return known
        stream: LiveStream | None = await self._aggregator.call("live_stream", key)
        if stream is None or stream.data_id is None:
            raise SettingsError(f"there is no live stream {key}")
        self._streams[key] = time.monotonic(), stream
        return stream

    async def aclose(self) -> None:
        """Let go of connections; the end of the process does the same. Safe to repeat."""
        while self._open:
            await self._open.pop().aclose()

    async def _record(self, key: str, epoch: int, events: Sequence[StreamEvent]) -> None:
        await self._aggregator.call("record", key, epoch, list(events))


class LiveRHEEDState(_LiveState[StreamSettings]):
    """Holds live RHEED streams: what each was created with, and what follows for each of its chunks."""

    role = "rheed_streamer"

    def _maker(self, settings: StreamSettings) -> StreamMaker[StreamSettings]:
        check_settings(settings)
        if self.role not in self._makers:
            outlet = open_frames_outlet(
                self._setup.destination, self._setup.api_key, retry=RetryPolicy(retry_for_s=INITIALIZE_FOR_S)
            )
            self._open.append(outlet)
            self._makers[self.role] = outlet.destination
        return self._makers[self.role]

    async def frames_order(
        self,
        key: str,
        seq: int,
        index: int,
        shape: tuple[int, int, int],
        start_unix_ms_utc: int,
        clock: tuple[int | None, float | None] = (None, None),
    ) -> FramesOrder:
        """Return the order for one pushed chunk.

        Parameters
        ----------
        key : str
            The stream in the journal.
        seq, index : int
            In which order it was pushed, and which chunk it is.
        shape : tuple of int
            (frame, y, x).
        start_unix_ms_utc : int
            Capture start, corrected already.
        clock : tuple
            Offset in ms that the stamp was corrected by, and its uncertainty; None: it was not.
        """
        stream = await self._stream(key)
        settings = stream.settings
        if not isinstance(settings, StreamSettings):
            raise SettingsError(f"stream {stream.data_id} holds no frames")
        meta = ChunkMetadata(
            *shape,
            chunk_size=settings.chunk_size,
            fps=settings.fps,
            is_rotating=settings.rotations_per_min > 0,
            start_unix_ms_utc=start_unix_ms_utc,
            clock_offset_ms=clock[0],
            clock_uncertainty_ms=clock[1],
        )
        return FramesOrder(key, str(stream.data_id), stream.epoch, seq, index, meta)


class LiveTimeseriesState(_LiveState[TimeseriesSettings]):
    """Holds live time-series streams, and carries their requests."""

    role = "timeseries_streamer"

    def __init__(self, setup: LiveSetup, aggregator: Handle) -> None:
        super().__init__(setup, aggregator)
        self._carriers: dict[ApiGeneration, Carrier] = {}

    def _maker(self, settings: TimeseriesSettings) -> StreamMaker[TimeseriesSettings]:
        generation = settings.api_generation
        if generation not in self._makers:
            outlet = open_points_outlet(
                self._setup.destination,
                self._setup.api_key,
                generation=generation,
                retry=RetryPolicy(retry_for_s=INITIALIZE_FOR_S),
            )
            self._open.append(outlet)
            self._makers[generation] = outlet.destination
        return self._makers[generation]

    def _carrier(self, generation: ApiGeneration) -> Carrier:
        if generation not in self._carriers:
            setup = self._setup
            outlet = open_points_outlet(
                setup.destination,
                setup.api_key,
                generation=generation,
                retry=direct_policy(setup.options.direct_for_s),
            )
            self._open.append(outlet)
            self._carriers[generation] = Carrier(
                setup.spool(),
                outlet,
                self._record,
                node=f"{socket.gethostname()}/{os.getpid()}",
                direct_for_s=setup.options.direct_for_s,
                telemetry=self._telemetry,
            )
        return self._carriers[generation]

    async def carry(self, key: str, items: Sequence[PointsItem]) -> list[Acknowledgement]:
        """Make requests of one stream durable, no two of them versions of the same chunk. Safe to repeat."""
        stream = await self._stream(key)
        settings: LiveSettings = stream.settings
        if not isinstance(settings, TimeseriesSettings):
            raise SettingsError(f"stream {stream.data_id} holds no time series")
        chunks = [encoded_points(stream.key, str(stream.data_id), item.seq, item.meta, item.body) for item in items]
        return await self._carrier(settings.api_generation).carry_many(chunks, stream.epoch)
