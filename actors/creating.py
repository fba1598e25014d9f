"""Making a stream: journal, create, journal, link, journal; each step once, however often it is asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from actors.handles import Handle
from ingest.contents import StreamOrigin
from ingest.destinations import link_or_close
from ingest.destinations.base import StreamMaker
from ingest.errors import LinkError, UnreachableError
from ingest.ledger import CreateBegun, CreateStream, StreamCreated, StreamGone, StreamLinked
from ingest.telemetry import Telemetry

__all__ = ["Creator"]

S = TypeVar("S")


@dataclass(frozen=True)
class Creator(Generic[S]):
    """Creates and links streams, journalling each step before the next.

    Attributes
    ----------
    aggregator : Handle
        Journals.
    destination : StreamMaker
        Where streams are made.
    telemetry : Telemetry
        Gets ``create_posting`` and ``create_answered``.
    """

    aggregator: Handle
    destination: StreamMaker[S]
    telemetry: Telemetry

    async def create(
        self, key: str, epoch: int, settings: S, data_id: str | None, origin: StreamOrigin | None = None
    ) -> str:
        """Create and link a stream, or go on where an earlier call stopped; return its ``data_id``. Safe to repeat.

        Parameters
        ----------
        key, epoch : str, int
            The stream in the journal, and the caller's lease.
        settings : StreamSettings or TimeseriesSettings
            What to create.
        data_id : str or None
            Where the stream exists already and is only to be linked.
        origin : StreamOrigin, optional
            What an archived run comes from.

        Raises
        ------
        SettingsError, UnknownNameError
            Nothing was created.
        LinkError
            The stream exists and was closed; the journal knows it as gone.
        """
        resolved = await self.destination.resolve(settings)
        if data_id is None:
            due: Any = await self.aggregator.call("record", key, epoch, [CreateBegun()])
            # Ray may make this call again after it was half done: then the stream is there already.
            data_id = next((step.data_id for step in due if not isinstance(step, CreateStream)), None)
        if data_id is None:
            self.telemetry.emit("create_posting", key)
            # The key names the stream's place in the journal: the same for every try, whoever makes it.
            data_id = await self.destination.open_stream(settings, key, origin)
            self.telemetry.emit("create_answered", key, detail=data_id)
            await self.aggregator.call("record", key, epoch, [StreamCreated(data_id)])
        try:
            await link_or_close(self.destination, data_id, settings, resolved)
        except LinkError as exc:
            if isinstance(exc.__cause__, UnreachableError):
                raise exc.__cause__ from None  # not the stream's fault: it stays, and is linked by the next try
            await self.aggregator.call("record", key, epoch, [StreamGone(str(exc))])
            raise
        await self.aggregator.call("record", key, epoch, [StreamLinked()])
        return data_id
