"""The platform's calls, each as one method that is tried as long as the policy says (PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self, SupportsIndex

import httpx

from ingest.errors import SettingsError
from ingest.plan import StreamSettings
from ingest.retry import RetryPolicy
from ingest.shard import Shard
from ingest.telemetry import Secret, Telemetry
from ingest.wire import linking
from ingest.wire.failures import AttemptFailedError, Purpose, garbled, parse_json
from ingest.wire.models import ChunkMetadata, Delivery, check_settings, create_body
from ingest.wire.session import ApiCall, Session
from ingest.wire.upload import quoted_id, upload_once, upload_url_call, upload_url_once

__all__ = ["CLOSE_FOR_S", "PlatformClient"]

CLOSE_FOR_S = 180.0
"""Least seconds that a close answered by 503 is tried: the stream's first analysis still runs."""


def _read_data_id(body: Any) -> str:
    if not isinstance(body, str):
        raise garbled("a JSON string: the data_id", body)
    try:
        quoted_id(body)
    except SettingsError as exc:
        raise garbled("a data_id", body) from exc
    return body


def _read_object(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise garbled("an object", body)
    return body


def _read_objects(body: Any) -> list[dict[str, Any]]:
    if not isinstance(body, list) or not all(isinstance(item, dict) for item in body):
        raise garbled("a list of objects", body)
    return body


def _read_times(body: Any) -> tuple[float, float]:
    stamps = [body.get(key) for key in ("receivedAtUnixMs", "transmittedAtUnixMs")] if isinstance(body, dict) else []
    numbers = [float(stamp) for stamp in stamps if isinstance(stamp, int | float) and not isinstance(stamp, bool)]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise garbled("receivedAtUnixMs and transmittedAtUnixMs", body)
    return numbers[0], numbers[1]


class PlatformClient:
    """Speaks the platform's protocol; one for each event loop, shared by all of its tasks.

    Opens connections at the first call, in the running loop; is not pickled. Every method may be cancelled, and raises

    - `UnreachableError` when no proper answer came for as long as `retry` says,
    - `AuthenticationError` at once for 401 and 403, `RefusedError` for another final status.

    Parameters
    ----------
    endpoint : str
        Base URL, http or https. Certificates are always checked.
    api_key : Secret
        Sent with every call but the presigned PUT and the clock's.
    retry : RetryPolicy, optional
        How long a call is tried.
    transport : httpx.AsyncBaseTransport, optional
        Instead of the network.
    clock, monotonic : callable
        Unix and monotonic time in seconds.
    sleep : coroutine function
        Waits so many seconds.
    rng : random.Random, optional
        Throws the jitter of the waits.
    telemetry : Telemetry, optional
        Gets ``stream_created``, ``attempt_failed``, ``chunk_put``, ``sample_created``, ``tag_created``,
        ``stream_linked`` and ``stream_closed``.
    max_connections : int, default 8
        Requests in flight at once; further ones wait.

    Raises
    ------
    SettingsError
        Not an endpoint.
    AuthenticationError
        A blank or impossible key.
    """

    def __init__(
        self,
        endpoint: str,
        api_key: Secret,
        *,
        retry: RetryPolicy | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
        telemetry: Telemetry | None = None,
        max_connections: int = 8,
    ) -> None:
        self._session = Session(
            endpoint,
            api_key,
            retry=retry or RetryPolicy(),
            transport=transport,
            clock=clock,
            monotonic=monotonic,
            sleep=sleep,
            rng=rng,
            telemetry=telemetry,
            max_connections=max_connections,
        )

    @property
    def endpoint(self) -> str:
        """The base URL, without trailing slash."""
        return self._session.endpoint

    def __repr__(self) -> str:
        return f"PlatformClient({self.endpoint!r})"

    def __reduce_ex__(self, _protocol: SupportsIndex) -> NoReturn:
        raise TypeError("a PlatformClient holds connections and is not pickled; make one where it is used")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections. Safe to repeat."""
        await self._session.aclose()

    # Samples and tags

    async def resolve_sample(self, name_or_uuid: str) -> str:
        """Return the id of a physical sample; a name that is not there is created. Safe to repeat.

        Raises
        ------
        SettingsError
            A blank name.
        UnknownNameError
            A UUID that the platform does not list.
        """
        return await linking.find_or_create_sample(self._session, name_or_uuid)

    async def resolve_tags(self, inputs: Iterable[str]) -> list[str]:
        """Return the ids of tags given by name or UUID, each once; names that are not there are created.

        Blanks and repeats are dropped, ignoring case. Safe to repeat.

        Raises
        ------
        UnknownNameError
            A UUID that the platform does not list; nothing was created then.
        """
        return await linking.find_or_create_tags(self._session, inputs)

    async def missing_names(self, sample: str | None, tags: Sequence[str]) -> tuple[bool, list[str]]:
        """Return whether the sample, and which of the tags, would be created. Changes nothing.

        Raises
        ------
        UnknownNameError
            A UUID that the platform does not list.
        """
        sample_missing = False
        if sample is not None and sample.strip():
            listed = await self._list(linking.SAMPLES_PATH, "list the physical samples")
            sample_missing = linking.find(listed, sample.strip(), "physical sample") is None
        wanted = linking.wanted_tags(tags)
        if not wanted:
            return sample_missing, []
        listed = await self._list(linking.TAGS_PATH, "list the tags")
        return sample_missing, [tag for tag in wanted if linking.find(listed, tag, "tag") is None]

    async def _list(self, path: str, asked: str) -> list[linking.Named]:
        return (await self._session.persist(Purpose(asked), lambda: linking.list_named(self._session, path)))[0]

    async def link_sample(self, data_id: str, sample_id: str) -> None:
        """Link a stream to a physical sample. Safe to repeat."""
        purpose = Purpose(f"link stream {data_id} to physical sample {sample_id}", data_id)
        body = {"data_ids": [data_id], "physical_sample_id": sample_id}
        await self._session.tell(purpose, ApiCall("POST", "/data_entries/physical_sample", body))
        self._session.telemetry.emit("stream_linked", data_id, detail=f"physical sample {sample_id}")

    async def track_sample(self, project_id: str, sample_id: str) -> None:
        """Let a project track a physical sample, and make that its active one. Safe to repeat."""
        purpose = Purpose(f"let project {project_id} track physical sample {sample_id}")
        path = f"/projects/{quoted_id(project_id)}/configuration/tracking_samples"
        body = {"physical_sample_id": sample_id, "set_active": True}
        await self._session.tell(purpose, ApiCall("POST", path, body))

    async def link_tags(self, data_id: str, tag_ids: Sequence[str]) -> None:
        """Link a stream to tags; without any, nothing is sent. Safe to repeat."""
        if not tag_ids:
            return
        purpose = Purpose(f"link stream {data_id} to {len(tag_ids)} tags", data_id)
        body = {"data_ids": [data_id], "tag_ids": list(tag_ids)}
        await self._session.tell(purpose, ApiCall("POST", "/tags/data-items/", body))
        self._session.telemetry.emit("stream_linked", data_id, detail=f"{len(tag_ids)} tags")

    # RHEED streams

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
        if not (idempotency_key and idempotency_key.isascii() and idempotency_key.isprintable()):
            raise SettingsError(f"the idempotency key {idempotency_key!r} is not printable ASCII")
        headers = {"Idempotency-Key": idempotency_key}
        call = ApiCall("POST", "/rheed/stream/", create_body(settings), headers)
        data_id = await self._session.ask(Purpose(f"create stream {settings.name!r}"), call, _read_data_id)
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
        call = ApiCall("POST", f"/rheed/stream/{quoted_id(data_id)}/end")
        purpose = Purpose(f"close stream {data_id}", data_id, gone=True)
        may_be_closed = False

        async def attempt() -> dict[str, Any]:
            nonlocal may_be_closed
            try:
                body = parse_json((await self._session.once(call)).content)
                return body if isinstance(body, dict) else {}
            except AttemptFailedError as exc:
                if exc.failure.status == 409 and may_be_closed:
                    return {}
                may_be_closed = may_be_closed or exc.failure.may_have_happened
                raise

        answer, _ = await self._session.persist(purpose, attempt, busy_for_s=CLOSE_FOR_S)
        self._session.telemetry.emit("stream_closed", data_id)
        return answer

    # Clock

    async def server_time(self) -> tuple[float, float]:
        """Return the server's Unix milliseconds when it got the request and when its answer left. Safe to repeat."""
        call = ApiCall("GET", "/gateway/time", keyless=True)
        return await self._session.ask(Purpose("ask for the server's time"), call, _read_times)

    # What the embedded platform holds; others do not have these calls

    async def list_streams(self) -> list[dict[str, Any]]:
        """Return all streams of the embedded platform, as it describes them. Changes nothing."""
        return await self._session.ask(Purpose("list the streams"), ApiCall("GET", "/rheed/stream/"), _read_objects)

    async def stream(self, data_id: str) -> dict[str, Any]:
        """Return one stream of the embedded platform, as it describes it. Changes nothing."""
        call = ApiCall("GET", f"/rheed/stream/{quoted_id(data_id)}")
        return await self._session.ask(Purpose(f"read stream {data_id}", data_id), call, _read_object)

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
