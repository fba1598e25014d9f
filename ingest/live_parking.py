"""Has a live stream's spooled chunks wait at a failover while its destination is away, and fetches them back."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from ingest.chunks import ChunkLabel, EncodedChunk
from ingest.errors import (
    DestinationError,
    LakeDamagedError,
    RefusedError,
    SettingsError,
    SpoolDamagedError,
    SpoolGoneError,
    SpoolParkedError,
    UnreachableError,
)
from ingest.failover import FailoverOptions
from ingest.lake.opening import open_store
from ingest.orders import StreamFacts
from ingest.parking import Parking, parked_chunk, parked_folder
from ingest.retry import RetryPolicy
from ingest.spool import ParkedPlace, Spool, SpooledChunk
from ingest.telemetry import Telemetry

__all__ = ["Parkings", "StreamParking"]

logger = logging.getLogger("rheed_ingest")

AT_ONCE = 4
PARK_FOR_S = 15.0
"""After so long the destination is asked again, however much is still to be parked."""

Place = tuple[int, int]
"""A spooled chunk's seq and index."""


class Parkings:
    """Failovers by their URLs, each opened once. Thread-safe.

    Parameters
    ----------
    retry : RetryPolicy, optional
        How long one that does not answer is tried.
    """

    def __init__(self, retry: RetryPolicy | None = None) -> None:
        self._retry = retry
        self._lock = threading.Lock()
        self._opened: dict[str, Parking] = {}

    def at(self, url: str) -> Parking:
        """Return the failover of a canonical URL.

        Raises
        ------
        RefusedError
            Nothing here can use it.
        """
        with self._lock:
            if url not in self._opened:
                try:
                    self._opened[url] = Parking(open_store(url, retry=self._retry))
                except SettingsError as exc:
                    raise RefusedError(f"the failover {url} cannot be used: {exc}", hint=exc.hint) from exc
            return self._opened[url]

    @property
    def is_used(self) -> bool:
        """Whether there is any that was used."""
        return bool(self._opened)

    def close(self) -> None:
        """Let go of connections. Safe to repeat."""
        with self._lock:
            while self._opened:
                self._opened.popitem()[1].close()


class StreamParking:
    """One leased live stream's chunks at failovers.

    A chunk is put there, and only then a note takes the place of its file in the spool, so that it is always in one of
    the two. It is removed there once its receipt is in the journal, before the note is.

    Parameters
    ----------
    key : str
        The stream in the journal.
    destination : str
        Canonical URL of where it belongs.
    data_id : str
        The stream there.
    facts : StreamFacts
        Of it, for the note beside its chunks.
    spool : Spool
        Where its chunks wait.
    parkings : Parkings
        Opens failovers.
    digests : coroutine function
        Returns the digest of each chunk that has a receipt, by index.
    options : FailoverOptions or None
        Where chunks are to wait; None: nowhere, only what waits already is fetched.
    telemetry : Telemetry
        Gets ``chunk_parked``, after the put and before the note, and ``chunk_unparked``.
    monotonic : callable
        Seconds.
    """

    def __init__(
        self,
        key: str,
        destination: str,
        data_id: str,
        facts: StreamFacts,
        spool: Spool,
        parkings: Parkings,
        digests: Callable[[], Awaitable[dict[int, str]]],
        *,
        options: FailoverOptions | None = None,
        telemetry: Telemetry | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._key = key
        self._destination = destination
        self._data_id = data_id
        self._facts = facts
        self._spool = spool
        self._parkings = parkings
        self._ask_digests = digests
        self._options = options
        self._telemetry = telemetry or Telemetry()
        self._monotonic = monotonic
        self._away_since_s: float | None = None
        self._digests: dict[int, str] | None = None
        self._probe: tuple[Place, EncodedChunk] | None = None
        self._is_told = False
        self._put: dict[Place, ParkedPlace] = {}
        self._noting = threading.Lock()
        self._noted = False
        # A process that was killed may have left something there that no note tells of.
        self._to_sweep = set() if options is None else {options.url}
        self._gone: set[Place] = set()

    # -- whether the destination answers -------------------------------------------------------------------------------

    @property
    def is_away(self) -> bool:
        """Whether the destination did not answer, so that one chunk is enough to ask it again."""
        return self._away_since_s is not None and self._options is not None

    def answered(self) -> None:
        """Say that the destination answered."""
        self._away_since_s = None
        self._probe = None
        self._is_told = False

    def news(self) -> str | None:
        """Return what people should know, once each time the destination is away: that chunks wait elsewhere."""
        if self._is_told or self._options is None or not self._put:
            return None
        self._is_told = True
        return (
            f"stream {self._data_id}: its destination does not answer, and what is in the spool waits at the failover "
            f"{self._options.url}; {self._options.hint}"
        )

    def due_in_s(self, began_s: float) -> float | None:
        """Return how long chunks stay in the spool yet; None: for as long as it takes.

        Parameters
        ----------
        began_s : float
            When the call began that was not answered, monotonic seconds.
        """
        if self._away_since_s is None:
            self._away_since_s = began_s
        if self._options is None:
            return None
        return max(self._away_since_s + self._options.after_s - self._monotonic(), 0.0)

    # -- away ----------------------------------------------------------------------------------------------------------

    async def park(self, check_lease: Callable[[], Awaitable[object]]) -> bool:
        """Have what is in the spool wait at the failover, oldest first; return whether some is left for want of time.

        Parameters
        ----------
        check_lease : coroutine function
            Raises if the stream is somebody else's by now.

        Raises
        ------
        DestinationError
            The failover takes nothing.
        SpoolError
            The spool does not give or take something.

        Notes
        -----
        Holds four chunks.
        """
        if self._options is None:
            return False
        ends_s = self._monotonic() + PARK_FOR_S
        entries = await asyncio.to_thread(self._spool.entries, self._key)
        for start in range(0, len(entries), AT_ONCE):
            if self._monotonic() >= ends_s:
                return True
            parked = (self._park(entry, self._options.url, check_lease) for entry in entries[start : start + AT_ONCE])
            for error in await asyncio.gather(*parked, return_exceptions=True):
                if error is not None:
                    raise error
        return False

    async def _park(self, entry: SpooledChunk, url: str, check_lease: Callable[[], Awaitable[object]]) -> None:
        try:
            chunk = await asyncio.to_thread(self._put_there, entry, url)
        except (SpoolGoneError, SpoolDamagedError, SpoolParkedError):
            return  # the last is done; what is damaged is reported when it is its turn to be delivered
        if chunk is None:
            return
        self._telemetry.emit("chunk_parked", self._key, entry.index)
        await check_lease()  # the put may have taken long
        noting = asyncio.ensure_future(
            asyncio.to_thread(self._spool.note_parked, chunk, self._put[entry.seq, entry.index], entry)
        )
        try:
            await asyncio.shield(noting)
        except asyncio.CancelledError:
            await asyncio.gather(noting, return_exceptions=True)  # the lease is given back after this, never before
            raise

    def _put_there(self, entry: SpooledChunk, url: str) -> EncodedChunk | None:
        """Put a chunk at the failover; None: it is there."""
        if self._spool.place(entry) is not None:
            return None
        chunk, parking = self._spool.load(entry), self._parkings.at(url)
        with self._noting:
            if not self._noted:
                parking.put_note(self._destination, self._key, self._data_id, self._facts)
                self._noted = True
        self._to_sweep.add(url)
        parked = parking.put(self._destination, chunk, self._facts)
        self._put[entry.seq, entry.index] = ParkedPlace(url, parked.name)
        return chunk

    # -- back ----------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Forget what the journal knew: the stream may have been somebody else's meanwhile."""
        self._digests = None

    async def fetch(self, entry: SpooledChunk, parked: SpoolParkedError) -> EncodedChunk | None:
        """Read a chunk back that waits at a failover; None: it arrived, and waits no more.

        Raises
        ------
        LakeDamagedError
            It is not what was parked, read twice; it is left as it is.
        DestinationError
            It cannot be had just now.
        SpoolError
            The spool does not give its note.
        """
        label = await asyncio.to_thread(self._spool.label, entry)
        place = ParkedPlace(parked.url, parked.name)
        self._to_sweep.add(place.url)
        if self._digests is None:
            self._digests = dict(await self._ask_digests())
        if self._digests.get(label.index) == label.digest:
            self._gone.add((entry.seq, entry.index))
            await self._remove(entry, place)
            return None
        if self._probe is not None and self._probe[0] == (entry.seq, entry.index):
            return self._probe[1]
        return await asyncio.to_thread(self._load, place, label)

    def _load(self, place: ParkedPlace, label: ChunkLabel) -> EncodedChunk:
        try:
            return self._loaded(place, label)
        except LakeDamagedError:
            return self._loaded(place, label)
        except UnreachableError as exc:
            self._raise_as(UnreachableError, label, place, exc)
        except DestinationError as exc:
            self._raise_as(RefusedError, label, place, exc)

    def _loaded(self, place: ParkedPlace, label: ChunkLabel) -> EncodedChunk:
        named = parked_chunk(place.name)
        if named is None:
            raise RefusedError(f"{place.name} is no chunk's name")
        chunk = self._parkings.at(place.url).load(named).chunk
        if chunk.label != label:
            raise LakeDamagedError(
                f"the parked chunk {place.url}/{place.name} is kept: it is another stream's or push's"
            )
        return chunk

    def _raise_as(
        self, kind: type[DestinationError], label: ChunkLabel, place: ParkedPlace, error: DestinationError
    ) -> NoReturn:
        raise kind(
            f"{label.text} waits at the failover {place.url}, which does not give it: {error}",
            hint=error.hint or "restore the failover; it is kept there, and read again",
        ) from error

    def undelivered(self, entry: SpooledChunk, chunk: EncodedChunk) -> None:
        """Keep a chunk that was read back in vain, so that asking again does not read it again."""
        self._probe = (entry.seq, entry.index), chunk

    async def delivered(self, entry: SpooledChunk, chunk: EncodedChunk, place: ParkedPlace | None) -> None:
        """Say that a chunk of the spool has a receipt in the journal: it need not wait anywhere."""
        self.answered()
        if self._digests is not None:
            self._digests[chunk.label.index] = chunk.label.digest
        if self._to_sweep:
            self._gone.add((entry.seq, entry.index))
        there = place or self._put.get((entry.seq, entry.index))
        if there is not None:
            await self._remove(entry, there)

    async def _remove(self, entry: SpooledChunk, place: ParkedPlace) -> None:
        named = parked_chunk(place.name)
        try:
            if named is not None:
                await asyncio.to_thread(lambda: self._parkings.at(place.url).remove([named]))
        except DestinationError as exc:
            # It arrived, which is what counts; the sweep, or `rheed-ingest reconcile`, tries again.
            logger.info("stream %s: chunk %d stays at %s: %s", self._data_id, entry.index, place.url, exc)
        else:
            self._telemetry.emit("chunk_unparked", self._key, entry.index)
        self._put.pop((entry.seq, entry.index), None)

    async def sweep(self) -> None:
        """Remove what is left at failovers of chunks that arrived; only while nothing of the stream is in the spool."""
        if not self._to_sweep or not self._gone:
            return
        urls, gone, self._to_sweep, self._gone = self._to_sweep, self._gone, set(), set()
        digests = await self._ask_digests()
        for url in urls:
            try:
                await asyncio.to_thread(self._sweep, url, gone, digests)
            except DestinationError as exc:
                logger.info("stream %s: what arrived is not removed from %s: %s", self._data_id, url, exc)

    def _sweep(self, url: str, gone: set[Place], digests: dict[int, str]) -> None:
        parking, folder = self._parkings.at(url), parked_folder(self._destination, self._key)
        parking.remove(
            [
                chunk
                for chunk in parking.chunks(folder)
                if digests.get(chunk.index) == chunk.digest or (chunk.seq, chunk.index) in gone
            ]
        )
        if parking.remove_note(folder):
            self._noted = False
