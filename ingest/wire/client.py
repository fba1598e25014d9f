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

from ingest.retry import RetryPolicy
from ingest.telemetry import Secret, Telemetry
from ingest.wire import linking
from ingest.wire.failures import Purpose, garbled
from ingest.wire.rheed import RheedCalls
from ingest.wire.session import ApiCall, Session
from ingest.wire.timeseries import TimeseriesCalls
from ingest.wire.upload import quoted_id

__all__ = ["PlatformClient"]


def _read_times(body: Any) -> tuple[float, float]:
    stamps = [body.get(key) for key in ("receivedAtUnixMs", "transmittedAtUnixMs")] if isinstance(body, dict) else []
    numbers = [float(stamp) for stamp in stamps if isinstance(stamp, int | float) and not isinstance(stamp, bool)]
    if len(numbers) != 2 or not all(map(math.isfinite, numbers)):
        raise garbled("receivedAtUnixMs and transmittedAtUnixMs", body)
    return numbers[0], numbers[1]


class PlatformClient(RheedCalls, TimeseriesCalls):
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

    # Clock

    async def server_time(self) -> tuple[float, float]:
        """Return the server's Unix milliseconds when it got the request and when its answer left. Safe to repeat."""
        call = ApiCall("GET", "/gateway/time", keyless=True)
        return await self._session.ask(Purpose("ask for the server's time"), call, _read_times)
