"""The platform itself, without HTTP: receives chunks, closes streams, seals them in the background."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import ParamSpec, TypeVar

from ingest.errors import SettingsError
from ingest.server.catalogue import Catalogue
from ingest.server.database import Database
from ingest.server.links import Links
from ingest.server.problems import ApiError
from ingest.server.rows import ChannelRow, ChunkRow, EndReport, SeriesReport
from ingest.server.seal import seal, sealed_shard, write_attributes
from ingest.server.series import SeriesCatalogue
from ingest.server.series_seal import Points, joined, seal_series, sealed_points, write_series_attributes
from ingest.server.settings import ServerSettings
from ingest.server.signing import Grant, Signer, load_secret
from ingest.server.store import Incoming, Store

__all__ = ["Platform"]

logger = logging.getLogger("rheed_ingest.server")

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 16


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
        root = settings.data
        try:
            (root / ".staging").mkdir(parents=True, exist_ok=True)
            self._lock_fd = _lock(root / ".lock")
        except OSError as exc:
            raise SettingsError(f"cannot use {root} as data folder: {exc}") from exc
        self._closed = False
        try:
            self.signer = Signer(settings.signing_secret or load_secret(root / ".signing-secret"))
            self._database = Database(root / "catalogue.sqlite", fsync=settings.fsync)
        except BaseException:
            os.close(self._lock_fd)
            raise
        self.catalogue = Catalogue(self._database, settings.silent_stream_s)
        self.series = SeriesCatalogue(self._database, settings.silent_stream_s)
        self.links = Links(self._database)
        self.store = Store(root, fsync=settings.fsync)
        self._threads = ThreadPoolExecutor(THREADS, "platform")
        self._sealer = ThreadPoolExecutor(1, "sealer")
        removed = self.store.clean(self.catalogue.staged_files())
        if removed:
            logger.info("removed %d staged files that no chunk names", removed)
        self.catalogue.fail_silent(self.clock())
        for data_id in self.catalogue.unsealed():
            self.seal_later(data_id)

    async def run(self, call: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a blocking call in a thread; it runs to its end even if the caller goes away."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))

    async def receive(self, grant: Grant, body: AsyncIterator[bytes]) -> int:
        """Take one upload and return the CRC-32C of its bytes, durably stored.

        Parameters
        ----------
        grant : Grant
            What the upload URL allows.
        body : async iterator of bytes
            The shard, in pieces of any size.

        Raises
        ------
        ApiError
            400 torn, 404 no such stream, 409 closed or failed, 413 too large.
        """
        incoming = await self.run(self._begin, grant)
        try:
            async for piece in body:
                writing = incoming.in_the_way(piece)
                if writing is not None:
                    await asyncio.wrap_future(writing)
                incoming.feed(piece)
        except BaseException:
            incoming.discard()
            raise
        await self.run(self._publish, grant, incoming)
        return incoming.crc32c

    def _begin(self, grant: Grant) -> Incoming:
        if self.catalogue.stream(grant.data_id, self.clock()).status == "open":
            return self.store.begin(grant.data_id, grant.index, self.settings.max_shard_bytes)
        # Refused in the end, unless the bytes turn out to be those that are stored.
        return Incoming(None, self.settings.max_shard_bytes)

    def _publish(self, grant: Grant, incoming: Incoming) -> None:
        """Make a complete upload the chunk's content, or leave nothing of it."""
        replaced: str | None = None
        try:
            if incoming.path is None:
                raise ApiError(f"stream {grant.data_id} takes no more chunks", status=409)
            incoming.finish(grant.info.frames, fsync=self.settings.fsync)
            replaced = self.catalogue.store_chunk(
                grant.data_id,
                grant.index,
                grant.info,
                n_bytes=incoming.n_bytes,
                crc32c=incoming.crc32c,
                file=incoming.path.name,
                now_s=self.clock(),
            )
        except BaseException as exc:
            incoming.discard()
            if isinstance(exc, ApiError) and exc.status == 409 and self._has(grant, incoming):
                return
            raise
        if replaced is not None:
            self.store.remove_staged(grant.data_id, replaced)

    def _has(self, grant: Grant, incoming: Incoming) -> bool:
        """Say whether a stream that takes no more holds just these bytes: a retry whose first reply was lost."""
        chunk = self.catalogue.chunk(grant.data_id, grant.index)
        return (
            chunk is not None
            and chunk.stored == grant.info
            and (chunk.n_bytes, chunk.crc32c) == (incoming.n_bytes, incoming.crc32c)
        )

    def end(self, data_id: str) -> EndReport:
        """Close a stream durably, and seal it later."""
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
        # A failed seal leaves the staged chunks, which stay readable; the next start tries again.
        try:
            kind = self.catalogue.closed_kind(data_id)
            if kind is None or self._closed:
                return
            if kind == "timeseries":
                self._seal_series(data_id)
            else:
                self._seal_frames(data_id)
        except Exception:
            logger.exception("sealing stream %s failed; it is tried again at the next start", data_id)

    def _seal_frames(self, data_id: str) -> None:
        stream = self.catalogue.stream(data_id, self.clock())
        chunks = self.catalogue.chunks(data_id)
        if stream.sealed:
            write_attributes(stream, chunks, self.store)
        else:
            seal(stream, chunks, self.store)
        self.catalogue.mark_sealed(data_id, stream.links_version)
        self.store.remove_staging(data_id)

    def _seal_series(self, data_id: str) -> None:
        stream = self.series.stream(data_id, self.clock())
        channels = self.series.channels(data_id)
        if stream.sealed:
            write_series_attributes(stream, channels, self.store)
        else:
            seal_series(stream, channels, lambda c: joined(self.series.held(c.channel_id) or ()), self.store)
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
            return channel, sealed_points(stream, self.series.channels(data_id), name, self.store)
        return replace(channel, chunks=tuple(row for row, _ in held)), joined(held)

    def link(self, data_ids: list[str], call: Callable[[], None]) -> None:
        """Run a linking call, and bring the attributes of sealed streams up to date."""
        call()
        for data_id in data_ids:
            if self.catalogue.closed_kind(data_id) is not None:
                self.seal_later(data_id)

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
                return chunk.n_bytes, self.store.staged_blocks(data_id, chunk.file)
            except FileNotFoundError:
                stream = self.catalogue.stream(data_id, self.clock())
                if not stream.sealed:
                    raise ApiError(f"chunk {chunk.index} is being replaced; ask again", status=503) from None
        # Read again: its place is known since the stream closed.
        placed = self.catalogue.chunk(data_id, chunk.index) or chunk
        shard = sealed_shard(self.store.sealed_path(data_id), placed, stream.chunk_size or 1)
        return shard.n_bytes, shard.blocks()

    def close(self) -> None:
        """Finish what runs, and release the data folder; may be called again."""
        if self._closed:
            return
        self._closed = True
        self._threads.shutdown()
        self._sealer.shutdown(cancel_futures=True)
        self._database.close()
        os.close(self._lock_fd)


def _lock(path: Path) -> int:
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        os.close(fd)
        raise SettingsError(
            f"another server is using {path.parent}", hint="stop it, or give this one another --data folder"
        ) from exc
    return fd
