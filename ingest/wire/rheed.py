"""The calls of RHEED streams, each as one method that is tried as long as the policy says (PROTOCOL.md)."""

from __future__ import annotations

from typing import Any

from ingest.plan import StreamSettings
from ingest.shard import Shard
from ingest.wire.calls import Calls, close_stream, key_header, read_data_id, read_object, read_objects
from ingest.wire.failures import Purpose
from ingest.wire.models import ChunkMetadata, Delivery, check_settings, create_body
from ingest.wire.session import ApiCall
from ingest.wire.upload import quoted_id, upload_once, upload_url_call, upload_url_once

__all__ = ["RheedCalls"]


class RheedCalls(Calls):
    """RHEED streams: create, put, end, and read back from the embedded platform."""

    async def create_rheed_stream(self, settings: StreamSettings, idempotency_key: str) -> str:
        """Create a stream; return its ``data_id``.

        Safe to repeat with the same key on a platform that honours ``Idempotency-Key``, as the embedded one does. On
        another, a lost reply leaves an empty orphan behind.

        Parameters
        ----------
        settings : StreamSettings
            Its sample and tags are not looked at: resolve them before, link them after.
        idempotency_key : str
            Printable ASCII, the same for every try at the same stream.

        Raises
        ------
        SettingsError
            Settings that the platform refuses, or a key that no header carries; nothing was sent.
        """
        check_settings(settings)
        call = ApiCall("POST", "/rheed/stream/", create_body(settings), key_header(idempotency_key))
        data_id = await self._session.ask(Purpose(f"create stream {settings.name!r}"), call, read_data_id)
        self._session.telemetry.emit("stream_created", data_id, detail=settings.name)
        return data_id

    async def upload_url(self, data_id: str, index: int, meta: ChunkMetadata) -> str:
        """Return a presigned URL for one chunk: a secret, good for a while. Safe to repeat.

        Raises
        ------
        StreamGoneError
            The stream does not exist or takes nothing more.
        """
        call = upload_url_call(data_id, index, meta)
        purpose = Purpose(f"get an upload URL for chunk {index} of stream {data_id}", data_id, index, gone=True)
        return (await self._session.persist(purpose, lambda: upload_url_once(self._session, call)))[0]

    async def put_shard(self, data_id: str, index: int, meta: ChunkMetadata, shard: Shard) -> Delivery:
        """Upload one chunk, each attempt with a fresh URL, and compare the store's checksum with ours.

        Safe to repeat: a chunk always lands at the same key.

        Returns
        -------
        Delivery
            Once the store has confirmed the whole body.

        Raises
        ------
        StreamGoneError
            The stream does not exist or takes nothing more, as the platform said when asked for a URL.
        """
        call = upload_url_call(data_id, index, meta)
        purpose = Purpose(f"put chunk {index} of stream {data_id}", data_id, index, gone=True)
        etag, attempts = await self._session.persist(purpose, lambda: upload_once(self._session, call, shard))
        detail = f"{shard.n_bytes} bytes, ETag {etag}, attempt {attempts}"
        self._session.telemetry.emit("chunk_put", data_id, index, detail)
        return Delivery(etag, attempts)

    async def end_rheed_stream(self, data_id: str) -> dict[str, Any]:
        """Close a stream; return what the platform says of it, empty if that is no JSON object.

        A 503 (the first analysis still runs) is tried for three minutes at least, whatever the policy's budget. When a
        try that got no answer is followed by a 409, that try had closed the stream: the result is then empty.

        Raises
        ------
        StreamGoneError
            There is no such stream, or it was closed or failed before.
        """
        return await close_stream(self._session, f"/rheed/stream/{quoted_id(data_id)}/end", data_id)

    # What the embedded platform holds; others do not have these calls

    async def list_streams(self) -> list[dict[str, Any]]:
        """Return all streams of the embedded platform, as it describes them. Changes nothing."""
        return await self._session.ask(Purpose("list the streams"), ApiCall("GET", "/rheed/stream/"), read_objects)

    async def stream(self, data_id: str) -> dict[str, Any]:
        """Return one stream of the embedded platform, as it describes it. Changes nothing."""
        call = ApiCall("GET", f"/rheed/stream/{quoted_id(data_id)}")
        return await self._session.ask(Purpose(f"read stream {data_id}", data_id), call, read_object)

    async def get_chunk(self, data_id: str, index: int) -> bytes:
        """Return the shard that the embedded platform holds for one chunk. Changes nothing.

        Raises
        ------
        RefusedError
            With status 404: there is no such stream or chunk.
        """
        call = ApiCall("GET", f"/rheed/stream/{quoted_id(data_id)}/chunks/{index:d}", total_s=None)
        purpose = Purpose(f"read chunk {index} of stream {data_id}", data_id, index)
        return (await self._session.tell(purpose, call)).content
