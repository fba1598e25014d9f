"""A lake as a destination of frames: shards go to their final names at once, all else when a stream is closed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from ingest.contents import HeldStream, StreamContents, StreamOrigin
from ingest.destinations.base import LinkedSettings, MissingNames, ResolvedLinks
from ingest.errors import LakeDamagedError, MissingObjectError, RefusedError, UnreachableError
from ingest.lake.layout import (
    StagedName,
    commit_name,
    is_on_grid,
    lake_data_id,
    manifest_name,
    shard_name,
    staging_folder,
    stream_folder,
)
from ingest.lake.seal import seal_frames
from ingest.lake.store import LakeStore
from ingest.manifest import losses_of, receipts_of
from ingest.plan import StreamSettings
from ingest.series_plan import origin_of
from ingest.shard import Shard
from ingest.timeseries import TimeseriesSettings
from ingest.wire.models import ChunkMetadata, Delivery

__all__ = ["LakeDestination", "LakeStreams"]

T = TypeVar("T")
MAX_ATTEMPTS = 1000


class LakeStreams:
    """What streams of every kind share in a lake: their names, their end, and the threads that talk to the store.

    Parameters
    ----------
    store : LakeStore
        Is closed with the destination.
    max_connections : int, default 8
        Calls to the store at once.
    """

    finishes_streams = True

    def __init__(self, store: LakeStore, max_connections: int = 8) -> None:
        self._store = store
        self._executor = ThreadPoolExecutor(max_connections, thread_name_prefix="lake")
        self._sealers = ThreadPoolExecutor(2, thread_name_prefix="seal")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store.url!r})"

    async def missing_names(self, settings: LinkedSettings) -> MissingNames:  # noqa: ARG002 - the contract's signature
        """Return that nothing would be created: a lake keeps names as they are."""
        return MissingNames()

    async def resolve(self, settings: LinkedSettings) -> ResolvedLinks:  # noqa: ARG002 - the contract's signature
        """Return no links: sample, project and tags become attributes."""
        return ResolvedLinks()

    async def open_stream(
        self,
        settings: StreamSettings | TimeseriesSettings,
        idempotency_key: str,
        origin: StreamOrigin | None = None,
    ) -> str:
        """Return a stream's ``data_id``; writes nothing. Safe to repeat until the stream is closed.

        Parameters
        ----------
        settings : StreamSettings or TimeseriesSettings
            The stream's.
        idempotency_key : str
            What makes the id of a stream that comes from no archive.
        origin : StreamOrigin, optional
            What makes that of one that does: the same on every run, but for one that shall be `anew`.

        Raises
        ------
        UnreachableError, RefusedError
            The store does not answer, or may not be read.
        """
        digest = idempotency_key if origin is None else origin.digest
        anew = origin is None or origin.anew  # a live stream is never one that is there already
        name = settings.name or "time series"
        newest: str | None = None
        for attempt in range(1, MAX_ATTEMPTS):
            data_id = lake_data_id(name, digest, attempt)
            # Asked in any case: a store that cannot be used is better known of before anything is packed.
            if not await self._call(self._is_committed, data_id):
                return newest or data_id
            if not anew and origin is not None and await self._call(self._origin, data_id) == origin.digest:
                newest = data_id  # which a restart may have replaced by a later one
        raise RefusedError(f"{self._store.url} holds {MAX_ATTEMPTS} streams {name!r} of one source")

    async def link(self, data_id: str, settings: LinkedSettings, resolved: ResolvedLinks) -> None:
        """Do nothing: the names are written when the stream is closed."""

    async def held(self, data_id: str) -> HeldStream | None:
        """Return what the lake holds of a closed stream, by its manifest; None: it is not there, or not closed.

        Raises
        ------
        LakeDamagedError
            A manifest that is none.
        """
        return await self._call(self._held, data_id)

    def _held(self, data_id: str) -> HeldStream | None:
        manifest = self._manifest(data_id)
        if manifest is None:
            return None
        held = HeldStream(receipts_of(manifest), losses_of(manifest), manifest.get("origin"))
        return held if self._is_there(data_id, manifest, held) else None

    def _is_there(self, data_id: str, manifest: dict[str, Any], held: HeldStream) -> bool:
        """Return whether what a manifest tells of is in the store, as far as a listing shows."""
        raise NotImplementedError

    def _origin(self, data_id: str) -> str | None:
        """Return what a committed stream was made from, by its group's attributes; None: a live one, or none of ours.

        Not by its manifest, which whoever copies the group alone leaves behind.
        """
        try:
            provenance = json.loads(self._store.get(commit_name(data_id)))["attributes"]["provenance"]
            return origin_of(provenance["source"]["fingerprint"], provenance["identity"])
        except (MissingObjectError, ValueError, KeyError, TypeError):
            return None

    def _manifest(self, data_id: str) -> dict[str, Any] | None:
        """Return the manifest of a committed stream."""
        if not self._is_committed(data_id):
            return None
        name = manifest_name(data_id)
        try:
            manifest: dict[str, Any] = json.loads(self._store.get(name))
        except MissingObjectError:
            return None
        except ValueError as exc:
            raise LakeDamagedError(
                f"{self._store.url}/{name} is no manifest: {exc}", hint="pass --restart to send the run anew"
            ) from exc
        return manifest

    def _is_committed(self, data_id: str) -> bool:
        return self._store.size(commit_name(data_id)) is not None

    def _is_done(self, data_id: str, contents: StreamContents) -> bool:
        """Return whether all this was committed before, by whomever; clears what its seal left.

        Raises
        ------
        RefusedError
            What was committed lacks some of it, and has what it lacks: neither may take the other's place.
        """
        held = self._held(data_id)
        if held is None:
            return False
        if not held.has_all_of(contents):
            if HeldStream(contents.receipts, contents.losses).has_all_of(replace(contents, receipts=held.receipts)):
                return False  # more is there now than when it was committed
            raise RefusedError(
                f"{self._store.url}/{stream_folder(data_id)} was closed by another job, which read frames that this "
                "one could not, and lacks others",
                hint="pass --restart to send it as a stream of its own, and `rheed-ingest verify` both",
            )
        self._store.delete_below(staging_folder(data_id))
        return True

    async def _finish(
        self,
        seal: Callable[[LakeStore, str, StreamContents, Executor], None],
        data_id: str,
        contents: StreamContents | None,
    ) -> None:
        """Seal a stream unless that was done, here or on another machine, before or meanwhile."""
        if contents is None:
            raise RefusedError(f"stream {data_id} in {self._store.url} can be closed only by what knows all of it")
        if await self._call(self._is_done, data_id, contents):
            return
        try:
            await self._call(seal, self._store, data_id, contents, self._sealers)
        except LakeDamagedError:
            # What another sealer has committed meanwhile, it has cleared from where this one looks for it.
            if not await self._call(self._is_done, data_id, contents):
                raise

    async def look(self) -> None:
        """See whether the store may be used, and let go of it; one that does not answer may do so later.

        Raises
        ------
        RefusedError
            No such bucket, no credentials, or not these.
        """
        try:
            await self._call(self._store.size, commit_name("look"))
        except UnreachableError:
            pass
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Let go of threads and connections. Safe to repeat."""
        for executor in (self._executor, self._sealers):
            executor.shutdown(wait=False, cancel_futures=True)
        self._store.close()

    async def _call(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


class LakeDestination(LakeStreams):
    """Writes RHEED streams into a lake. One for each event loop, shared by its tasks."""

    async def deliver(self, data_id: str, index: int, meta: ChunkMetadata, shard: Shard) -> Delivery:
        """Store one chunk: at its final name if it is a shard of the grid, else where it waits for the end.

        Safe to repeat, in any order, also by several processes: the same chunk has the same name and bytes.
        """
        crc32c = shard.crc32c()
        if is_on_grid(meta):
            if bool(meta.lost_frames) and await self._call(self._is_committed, data_id):
                raise RefusedError(
                    f"{self._store.url}/{stream_folder(data_id)} was closed by another job; {len(meta.lost_frames)} "
                    f"frame(s) of chunk {index}, which that one may have read, cannot be read now",
                    hint="pass --restart to send what can be read as a stream of its own",
                )
            name = shard_name(data_id, (meta.first_frame or 0) // meta.chunk_size)
        else:
            name = StagedName.of(index, meta, crc32c).below(data_id)
        etag = await self._call(lambda: self._store.put(name, shard.parts, crc32c=crc32c))
        return Delivery(etag, 1)

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:
        """Lay out what waits, write times, manifest and attributes, and commit. Safe to repeat.

        Raises
        ------
        RefusedError
            Without `contents` nobody can say whether the stream is whole.
        LakeDamagedError
            Something that was delivered is not there any more.
        """
        await self._finish(seal_frames, data_id, contents)

    def _is_there(self, data_id: str, manifest: dict[str, Any], held: HeldStream) -> bool:
        folder = stream_folder(data_id)
        sizes = {entry.name: entry.n_bytes for entry in self._store.objects(folder)}
        if any(f"{folder}/{array}/zarr.json" not in sizes for array in ("frames", "time", "frame_index")):
            return False
        size = int(manifest["stream"]["chunk_size"])
        for chunk, receipt in zip(manifest["chunks"], held.receipts, strict=True):
            first, n = chunk.get("first_frame"), receipt.frames
            if first is None or n == len(receipt.lost_frames):
                continue
            names = [shard_name(data_id, number) for number in range(first // size, -(-(first + n) // size))]
            is_whole = first % size == 0 and n == size
            if any(name not in sizes for name in names) or (is_whole and sizes[names[0]] != receipt.n_bytes):
                return False
        return True
