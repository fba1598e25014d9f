"""How chunks come to data at a URL: past the server, by presigned URLs of the store.

The server grants a place for each upload and remembers it; what came there it sees only by looking. It looks in the
background while a stream goes on, when somebody asks for it, and, at all of it, before the stream is closed.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor

from ingest.errors import DestinationError, FrameDataError, MissingObjectError
from ingest.lake.s3_uploads import Arrival, UploadStore
from ingest.server.grants import GrantingCatalogue, GrantRow, Upload
from ingest.server.messages import ChunkInfo
from ingest.server.problems import ApiError
from ingest.server.rows import ChunkRow
from ingest.server.seal import blocks_of
from ingest.server.settings import ServerSettings
from ingest.server.signing import Grant
from ingest.server.staging import STAGING, check_shard, new_file_name, staged_name, staging_prefix, tail_bytes

__all__ = ["PresignedUploads"]

logger = logging.getLogger("rheed_ingest.server")

LOOK_THREADS = 8
MAX_LOOKS = 64
"""Objects that are looked at one by one; more are listed, 1000 in one request."""
LOOK_PERIOD_S = 5.0
"""Between two looks in the background at one stream."""
LATEST_S = 7200.0
"""How long an upload may go on after its URL expired: 528 MB at 100 kB/s, and more."""


class PresignedUploads:
    """Chunks are uploaded straight to a store.

    Parameters
    ----------
    settings : ServerSettings
        The server's.
    catalogue : GrantingCatalogue
        Knows of the chunks and grants.
    store : UploadStore
        Where the data is.
    """

    def __init__(self, settings: ServerSettings, catalogue: GrantingCatalogue, store: UploadStore) -> None:
        self._settings = settings
        self._catalogue = catalogue
        self._store = store
        self._looked_s: dict[str, float] = {}
        self._lookers = ThreadPoolExecutor(LOOK_THREADS, "look")
        self._background = ThreadPoolExecutor(1, "look-around")

    def issue(self, data_id: str, index: int, info: ChunkInfo) -> tuple[str, str]:
        """Announce a chunk, and have the store sign a URL for it; see `Uploads.issue`."""
        now_s, ttl_s = self._settings.clock(), self._settings.upload_url_ttl_s
        file = new_file_name(index)
        url = self._store.upload_url(staged_name(data_id, file), ttl_s)
        self._catalogue.grant(data_id, index, info, file, now_s + ttl_s + LATEST_S, now_s)
        self._look_soon(data_id)
        return url, file.partition(".")[2]

    async def receive(self, grant: Grant, body: AsyncIterator[bytes]) -> int:  # noqa: ARG002 - the contract's signature
        """Refuse an upload: chunks do not come through this server.

        Raises
        ------
        ApiError
            404.
        """
        raise ApiError("chunks are not uploaded to this server: ask for an upload URL", status=404)

    def look(self, data_id: str, *, at_all: bool = False) -> None:
        """Learn what came of a stream; see `Uploads.look`.

        Raises
        ------
        DestinationError
            The store does not answer, or refuses.
        """
        now_s = self._settings.clock()
        grants = {grant.file: grant for grant in self._catalogue.grants(data_id)}
        awaited = [grant for grant in grants.values() if grant.etag is None and grant.late_unix_s > now_s]
        found: Iterator[Arrival | None]
        if (at_all and grants) or len(awaited) > MAX_LOOKS:
            found = iter(self._store.arrivals(staging_prefix(data_id)))
        else:
            names = [staged_name(data_id, grant.file) for grant in awaited]
            found = self._lookers.map(self._store.arrival, names)
        new: list[tuple[GrantRow, Arrival]] = []
        for arrival in found:
            grant = None if arrival is None else grants.get(arrival.name.rpartition("/")[2])
            if arrival is not None and grant is not None and _is_news(grant, arrival):
                new.append((grant, arrival))
        uploads = [upload for upload in self._lookers.map(lambda pair: self._judge(data_id, *pair), new) if upload]
        if uploads:
            self._catalogue.confirm(data_id, uploads, self._settings.clock())

    def look_at_open(self) -> None:
        """Learn what came of all open streams.

        Raises
        ------
        DestinationError
            As for `look`.
        """
        for data_id in self._catalogue.awaiting(self._settings.clock()):
            self.look(data_id)

    def staged_blocks(self, data_id: str, chunk: ChunkRow) -> tuple[int, Iterator[bytes]]:
        """Return a staged chunk's shard; see `Uploads.staged_blocks`."""
        name = staged_name(data_id, str(chunk.file))
        n_bytes = self._store.size(name)
        if n_bytes != chunk.n_bytes:
            self.look(data_id, at_all=True)
            raise MissingObjectError(f"chunk {chunk.index} of stream {data_id} is not there as it was")
        return n_bytes, blocks_of(self._store, name, n_bytes)

    def remove(self, data_id: str) -> None:
        """Remove all that is staged of a stream."""
        self._looked_s.pop(data_id, None)
        self._store.delete_below(staging_prefix(data_id))

    def clean(self) -> int:
        """Remove what was neither granted nor counts; see `Uploads.clean`."""
        keep = {
            staged_name(data_id, file) for data_id, files in self._catalogue.staged_files().items() for file in files
        }
        stale = [found.name for found in self._store.objects(STAGING) if found.name not in keep]
        self._store.delete(stale)
        return len(stale)

    def close(self) -> None:
        """Finish what runs. Safe to repeat."""
        self._background.shutdown(cancel_futures=True)
        self._lookers.shutdown()

    def _look_soon(self, data_id: str) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s.get(data_id, now_s - LOOK_PERIOD_S) >= LOOK_PERIOD_S:
            self._looked_s[data_id] = now_s
            self._background.submit(self._look_around, data_id)

    def _look_around(self, data_id: str) -> None:
        try:
            self.look(data_id)
        except DestinationError as exc:
            logger.warning("could not look what came of stream %s: %s", data_id, exc)
        except Exception:
            logger.exception("looking what came of stream %s failed", data_id)

    def _judge(self, data_id: str, grant: GrantRow, arrival: Arrival) -> Upload | None:
        """Say whether what came is the shard that it should be; None: it is gone again."""
        try:
            reason = self._fault(grant.info.frames, arrival)
        except MissingObjectError:
            return None
        if reason is not None:
            logger.warning("stream %s, chunk %d: what was uploaded does not count: %s", data_id, grant.index, reason)
        return Upload(
            grant.file, arrival.n_bytes, arrival.etag, arrival.modified_unix_s, arrival.crc32c, reason is None
        )

    def _fault(self, frames: int, arrival: Arrival) -> str | None:
        if arrival.n_bytes > self._settings.max_shard_bytes:
            return f"a shard has at most {self._settings.max_shard_bytes} bytes; it has {arrival.n_bytes}"
        try:
            check_shard(self._store.get(arrival.name, -tail_bytes(frames)), arrival.n_bytes, frames)
        except FrameDataError as exc:
            return f"it is not a shard of {frames} frames: {exc}"
        return None


def _is_news(grant: GrantRow, arrival: Arrival) -> bool:
    return (grant.etag, grant.modified_unix_s) != (arrival.etag, arrival.modified_unix_s)
