"""The platform itself, without HTTP: what becomes of chunks and points, and of streams once they are closed."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import ParamSpec, TypeVar

from ingest.errors import DestinationError, MissingObjectError, UnreachableError
from ingest.server.catalogue import Catalogue
from ingest.server.database import Database
from ingest.server.grants import GrantingCatalogue
from ingest.server.links import Links
from ingest.server.place import open_place
from ingest.server.presigned import PresignedUploads
from ingest.server.problems import ApiError
from ingest.server.rows import ChannelRow, ChunkRow, EndReport, SeriesReport
from ingest.server.seal import seal, sealed_blocks, write_attributes
from ingest.server.series import SeriesCatalogue
from ingest.server.series_seal import Points, joined, seal_series, sealed_points, write_series_attributes
from ingest.server.settings import ServerSettings
from ingest.server.signing import Signer, load_secret
from ingest.server.store import Store
from ingest.server.uploads import LocalUploads, Uploads

__all__ = ["Platform"]

logger = logging.getLogger("rheed_ingest.server")

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 16
SEAL_THREADS = 4
"""For data at a URL, where each shard is a request. In a folder most shards are but a second name."""


class _StoppedError(Exception):
    """The platform closes in the middle of a seal."""


class Platform:
    """Everything behind the HTTP endpoints; at most one per data folder.

    Parameters
    ----------
    settings : ServerSettings
        What it serves and how. Streams that were closed and not sealed by an earlier process are sealed now.

    Raises
    ------
    SettingsError
        Another live server has the data folder, or it is not ours.
    """

    def __init__(self, settings: ServerSettings) -> None:
        self.settings = settings
        self.clock = settings.clock
        self._place = place = open_place(settings)
        self.lake = place.lake
        self.store = Store(place.folder, fsync=settings.fsync)
        self._closed = False
        try:
            self.signer = Signer(settings.signing_secret or load_secret(place.folder / ".signing-secret"))
            self._database = Database(place.folder / "catalogue.sqlite", fsync=settings.fsync)
        except BaseException:
            place.release()
            raise
        self.series = SeriesCatalogue(self._database, settings.silent_stream_s)
        self.links = Links(self._database)
        self._threads = ThreadPoolExecutor(THREADS, "platform")
        self._sealer = ThreadPoolExecutor(1, "sealer")
        self._shard_sealers = ThreadPoolExecutor(1 if place.uploads is None else SEAL_THREADS, "seal")
        self._seal_again: set[str] = set()
        self.catalogue: Catalogue
        self.uploads: Uploads
        if place.uploads is None:
            self.catalogue = Catalogue(self._database, settings.silent_stream_s)
            self.uploads = LocalUploads(settings, self.catalogue, self.store, self.signer, self.run)
        else:
            granting = GrantingCatalogue(self._database, settings.silent_stream_s)
            self.catalogue, self.uploads = granting, PresignedUploads(settings, granting, place.uploads)
        try:
            self._begin()
        except BaseException:
            self.close()
            raise

    def _begin(self) -> None:
        """Take up what an earlier process left."""
        removed = self.uploads.clean()
        if removed:
            logger.info("removed %d staged files that no chunk names", removed)
        self.fail_silent()
        for data_id in self.catalogue.unsealed():
            self.seal_later(data_id)

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread; it runs to its end even if the caller goes away."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))

    def tend(self) -> None:
        """Do what has to be done from time to time: fail silent streams, seal what could not be sealed."""
        self.fail_silent()
        for data_id in [*self._seal_again]:
            self._seal_again.discard(data_id)
            self.seal_later(data_id)

    def fail_silent(self) -> None:
        """Mark the streams that were silent for too long as failed, unless it cannot be known whether they were."""
        try:
            self.uploads.look_at_open()
        except DestinationError as exc:
            logger.warning("could not look what came of open streams: %s", exc)
        else:
            self.catalogue.fail_silent(self.clock())

    def end(self, data_id: str) -> EndReport:
        """Close a stream durably, and seal it later.

        Raises
        ------
        DestinationError
            What came of it cannot be known now.
        """
        if self.catalogue.closed_kind(data_id) is None:
            self.uploads.look(data_id, at_all=True)
        report = self.catalogue.end_stream(data_id, self.clock())
        self.seal_later(data_id)
        return report

    def seal_later(self, data_id: str) -> None:
        """Bring a closed stream into its final form in the background; nothing to do is fine."""
        if not self._closed:
            self._sealer.submit(self._seal, data_id)

    def end_series(self, data_id: str) -> SeriesReport:
        """Close a time-series stream durably, and seal it later."""
        report = self.series.end_stream(data_id, self.clock())
        self.seal_later(data_id)
        return report

    def _seal(self, data_id: str) -> None:
        # A failed seal leaves the staged chunks, which stay readable.
        try:
            kind = self.catalogue.closed_kind(data_id)
            if kind is None or self._closed:
                return
            if kind == "timeseries":
                self._seal_series(data_id)
            else:
                self._seal_frames(data_id)
        except Exception as exc:
            if self._closed:
                return
            if isinstance(exc, UnreachableError):
                self._seal_again.add(data_id)
                logger.warning("sealing stream %s failed; it is tried again soon: %s", data_id, exc)
            else:
                logger.exception("sealing stream %s failed; it is tried again at the next start", data_id)

    def _go_on(self) -> None:
        if self._closed:
            raise _StoppedError

    def _seal_frames(self, data_id: str) -> None:
        stream = self.catalogue.stream(data_id, self.clock())
        chunks = self.catalogue.chunks(data_id)
        if stream.sealed:
            write_attributes(stream, chunks, self.lake)
        else:
            seal(stream, chunks, self.lake, self._shard_sealers, self._go_on)
        self.catalogue.mark_sealed(data_id, stream.links_version)
        self.uploads.remove(data_id)

    def _seal_series(self, data_id: str) -> None:
        stream = self.series.stream(data_id, self.clock())
        channels = self.series.channels(data_id)
        if stream.sealed:
            write_series_attributes(stream, channels, self.lake)
        else:
            seal_series(stream, channels, lambda c: joined(self.series.held(c.channel_id) or ()), self.lake)
        self.series.mark_sealed(data_id, stream.links_version)

    def points(self, data_id: str, name: str) -> tuple[ChannelRow, Points]:
        """Return a channel of a time-series stream and its points in order of their chunks, sealed or not.

        Raises
        ------
        ApiError
            404: no such stream or channel.
        """
        stream = self.series.stream(data_id, self.clock())
        channel = self.series.channel(data_id, name)
        held = self.series.held(channel.channel_id)
        if held is None:
            return channel, sealed_points(stream, self.series.channels(data_id), name, self.lake)
        return replace(channel, chunks=tuple(row for row, _ in held)), joined(held)

    def link(self, data_ids: list[str], call: Callable[[], None]) -> None:
        """Run a linking call, and bring the attributes of sealed streams up to date."""
        call()
        for data_id in data_ids:
            if self.catalogue.closed_kind(data_id) is not None:
                self.seal_later(data_id)

    def chunk(self, data_id: str, index: int) -> ChunkRow | None:
        """Return a chunk of a stream that is there; None: neither announced nor stored."""
        chunk = self.catalogue.chunk(data_id, index)
        if chunk is not None and chunk.stored is None:
            self.uploads.look(data_id)
            chunk = self.catalogue.chunk(data_id, index)
        return chunk

    def chunk_blocks(self, data_id: str, chunk: ChunkRow) -> tuple[int, Iterator[bytes]]:
        """Return the length and the blocks of a stored chunk's shard, staged or sealed.

        Raises
        ------
        ApiError
            503: it is being replaced just now.
        """
        stream = self.catalogue.stream(data_id, self.clock())
        if not stream.sealed and chunk.file is not None:
            try:
                return self.uploads.staged_blocks(data_id, chunk)
            except (FileNotFoundError, MissingObjectError):
                stream = self.catalogue.stream(data_id, self.clock())
                if not stream.sealed:
                    raise ApiError(f"chunk {chunk.index} is being replaced; ask again", status=503) from None
        # Read again: its place is known since the stream closed.
        placed = self.catalogue.chunk(data_id, chunk.index) or chunk
        return sealed_blocks(self.lake, data_id, placed, stream.chunk_size or 1)

    def close(self) -> None:
        """Finish what runs, and release the data folder; may be called again."""
        if self._closed:
            return
        self._closed = True
        self._place.give_up()
        self._threads.shutdown()
        self.uploads.close()
        self._sealer.shutdown(cancel_futures=True)
        self._shard_sealers.shutdown()
        self._database.close()
        self._place.release()
