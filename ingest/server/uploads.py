"""How chunks come to a data folder: through the server, by URLs that it signs itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, Protocol

from ingest.server.catalogue import Catalogue
from ingest.server.messages import ChunkInfo
from ingest.server.problems import ApiError
from ingest.server.rows import ChunkRow
from ingest.server.settings import ServerSettings
from ingest.server.signing import Grant, Signer
from ingest.server.store import Incoming, Store

__all__ = ["LocalUploads", "Uploads"]

Run = Callable[..., Awaitable[Any]]


class Uploads(Protocol):
    """How chunks come in; all but `receive` block, and may be called from any thread."""

    def issue(self, data_id: str, index: int, info: ChunkInfo) -> tuple[str, str]:
        """Announce a chunk; return the URL that takes it, a secret, and its upload id.

        Returns
        -------
        (str, str)
            A URL that begins with ``/`` is one of this server.

        Raises
        ------
        ApiError
            404: no such stream; 409: it is closed or failed; 422: frames of another size.
        """
        ...

    async def receive(self, grant: Grant, body: AsyncIterator[bytes]) -> int:
        """Take one upload that comes through the server; return the CRC-32C of its bytes, durably stored.

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
        ...

    def look(self, data_id: str, *, at_all: bool = False) -> None:
        """Learn what came of a stream past the server.

        Parameters
        ----------
        data_id : str
            The stream; one that is not there is no error.
        at_all : bool, default False
            Also whether what came before is still the same.
        """
        ...

    def look_at_open(self) -> None:
        """Learn what came of all open streams past the server."""
        ...

    def staged_blocks(self, data_id: str, chunk: ChunkRow) -> tuple[int, Iterator[bytes]]:
        """Return the length and the blocks of a staged chunk's shard.

        Raises
        ------
        LookupError, FileNotFoundError
            It was sealed and removed, or replaced.
        """
        ...

    def remove(self, data_id: str) -> None:
        """Remove all that is staged of a stream."""
        ...

    def clean(self) -> int:
        """Remove what counts for no stream, and return how many files; only while no other server has the data."""
        ...

    def close(self) -> None:
        """Finish what runs. Safe to repeat."""
        ...


class LocalUploads:
    """Chunks come through the server into the data folder.

    Parameters
    ----------
    settings : ServerSettings
        The server's.
    catalogue : Catalogue
        Knows of the chunks.
    store : Store
        The data folder.
    signer : Signer
        Makes the URLs.
    run : callable
        Runs a blocking call in a thread, to its end even if the caller goes away.
    """

    def __init__(self, settings: ServerSettings, catalogue: Catalogue, store: Store, signer: Signer, run: Run) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._store = store
        self._signer = signer
        self._run = run

    def issue(self, data_id: str, index: int, info: ChunkInfo) -> tuple[str, str]:
        """Announce a chunk, and sign its URL; see `Uploads.issue`."""
        now_s = self._settings.clock()
        self._catalogue.announce(data_id, index, info, now_s)
        return self._signer.issue(data_id, index, info, now_s + self._settings.upload_url_ttl_s)

    async def receive(self, grant: Grant, body: AsyncIterator[bytes]) -> int:
        """Take one upload; see `Uploads.receive`."""
        incoming: Incoming = await self._run(self._begin, grant)
        try:
            async for piece in body:
                writing = incoming.in_the_way(piece)
                if writing is not None:
                    await asyncio.wrap_future(writing)
                incoming.feed(piece)
        except BaseException:
            incoming.discard()
            raise
        await self._run(self._publish, grant, incoming)
        return incoming.crc32c

    def look(self, data_id: str, *, at_all: bool = False) -> None:
        """Do nothing: the server saw all that came."""

    def look_at_open(self) -> None:
        """Do nothing: the server saw all that came."""

    def staged_blocks(self, data_id: str, chunk: ChunkRow) -> tuple[int, Iterator[bytes]]:
        """Return a staged chunk's shard; see `Uploads.staged_blocks`."""
        return chunk.n_bytes, self._store.staged_blocks(data_id, str(chunk.file))

    def remove(self, data_id: str) -> None:
        """Remove all that is staged of a stream."""
        self._store.remove_staging(data_id)

    def clean(self) -> int:
        """Remove what no row names; see `Uploads.clean`."""
        return self._store.clean(self._catalogue.staged_files())

    def close(self) -> None:
        """Do nothing: nothing runs here."""

    def _begin(self, grant: Grant) -> Incoming:
        if self._catalogue.stream(grant.data_id, self._settings.clock()).status == "open":
            return self._store.begin(grant.data_id, grant.index, self._settings.max_shard_bytes)
        # Refused in the end, unless the bytes turn out to be those that are stored.
        return Incoming(None, self._settings.max_shard_bytes)

    def _publish(self, grant: Grant, incoming: Incoming) -> None:
        """Make a complete upload the chunk's content, or leave nothing of it."""
        replaced: str | None = None
        try:
            if incoming.path is None:
                raise ApiError(f"stream {grant.data_id} takes no more chunks", status=409)
            incoming.finish(grant.info.frames, fsync=self._settings.fsync)
            replaced = self._catalogue.store_chunk(
                grant.data_id,
                grant.index,
                grant.info,
                n_bytes=incoming.n_bytes,
                crc32c=incoming.crc32c,
                file=incoming.path.name,
                now_s=self._settings.clock(),
            )
        except BaseException as exc:
            incoming.discard()
            if isinstance(exc, ApiError) and exc.status == 409 and self._has(grant, incoming):
                return
            raise
        if replaced is not None:
            self._store.remove_staged(grant.data_id, replaced)

    def _has(self, grant: Grant, incoming: Incoming) -> bool:
        """Say whether a stream that takes no more holds just these bytes: a retry whose first reply was lost."""
        chunk = self._catalogue.chunk(grant.data_id, grant.index)
        return (
            chunk is not None
            and chunk.stored == grant.info
            and (chunk.n_bytes, chunk.crc32c) == (incoming.n_bytes, incoming.crc32c)
        )
