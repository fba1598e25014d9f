"""One pool of connections to a platform: sends single requests, and repeats attempts as long as the policy says."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import httpx

from ingest import __version__
from ingest.errors import AuthenticationError, IngestError, SettingsError
from ingest.retry import Failure, FailureKind, RetryPolicy, next_wait_s
from ingest.shard import Shard
from ingest.telemetry import Secret, Telemetry, redact_url
from ingest.wire.failures import AttemptFailedError, Purpose, answer_text, error_of, parse_json, redact, retry_after_s

__all__ = ["API_TIMEOUT_S", "CONNECT_TIMEOUT_S", "ApiCall", "Session", "check_endpoint", "check_key", "put_timeout_s"]

API_TIMEOUT_S = 60.0
CONNECT_TIMEOUT_S = 10.0
PUT_BYTES_PER_S = 100_000

# Below the 5 s after which uvicorn drops an idle connection: the later of the two would find it closed.
KEEPALIVE_S = 4.0

T = TypeVar("T")

# asyncio.timeout raises TimeoutError, an OSError; so are the few socket and TLS errors that httpx lets through.
EDGE_ERRORS = (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError)

_ours: ContextVar[bool] = ContextVar("rheed_ingest_request", default=False)


class _WithoutQuery(logging.Filter):
    """Cuts the query off the URLs of our requests, which httpx logs at INFO, signatures included."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _ours.get() and isinstance(record.args, tuple):
            record.args = tuple(redact_url(str(a)) if isinstance(a, httpx.URL) else a for a in record.args)
        return True


_without_query = _WithoutQuery()


@contextmanager
def _own_request() -> Iterator[None]:
    token = _ours.set(True)
    try:
        yield
    finally:
        _ours.reset(token)


@dataclass(frozen=True, slots=True)
class ApiCall:
    """One request of the API.

    Attributes
    ----------
    method, path : str
        The path starts with a slash, is quoted, and may have a query.
    body : object
        Sent as JSON; bytes are JSON already; None: no body.
    headers : mapping
        Besides the key and the content's type.
    keyless : bool
        Whether the API key stays at home.
    total_s : float or None
        Seconds that the whole exchange may take; None: as long as bytes flow.
    """

    method: str
    path: str
    body: object = None
    headers: Mapping[str, str] = field(default_factory=dict)
    keyless: bool = False
    total_s: float | None = API_TIMEOUT_S


def check_endpoint(endpoint: str) -> str:
    """Return `endpoint` without trailing slashes.

    Raises
    ------
    SettingsError
        Not an http(s) URL, or one with user, password, query or fragment.
    """
    try:
        url = httpx.URL(endpoint.strip())
    except httpx.InvalidURL:
        # Its message quotes the part that is wrong, which may be a password.
        raise SettingsError(
            "a platform's endpoint is an http(s) URL; this one does not parse as a URL",
            hint="pass one like https://api.atomscale.ai",
        ) from None
    if url.scheme not in ("http", "https") or not url.host:
        raise SettingsError(
            f"a platform's endpoint is an http(s) URL, not {redact_url(str(url))!r}",
            hint="pass one like https://api.atomscale.ai",
        )
    if url.userinfo or url.query or url.fragment:
        raise SettingsError(
            f"the endpoint {redact_url(str(url))} came with a user, a query or a fragment, which would end up in logs",
            hint="pass the bare URL, and the key in AS_API_KEY",
        )
    return str(url).rstrip("/")


def check_key(api_key: Secret) -> str:
    """Return the key itself, without white space around it.

    Raises
    ------
    AuthenticationError
        Blank, or with characters that no HTTP header carries.
    """
    key = api_key.reveal().strip()
    if not key:
        raise AuthenticationError("the API key is empty", hint="set AS_API_KEY")
    if not (key.isascii() and key.isprintable()):
        raise AuthenticationError("the API key has characters that no key has", hint="check AS_API_KEY for stray text")
    return key


def put_timeout_s(n_bytes: int) -> float:
    """Return the seconds that a PUT of so many bytes may take: 60, and one more for every 100 kB."""
    return API_TIMEOUT_S + n_bytes / PUT_BYTES_PER_S


async def _body(shard: Shard) -> AsyncIterator[bytes]:
    for block in shard.blocks():
        yield block


class Session:
    """The connections, the clock and the patience that all calls of one client share.

    Parameters
    ----------
    endpoint : str
        The platform's base URL.
    api_key : Secret
        Sent as ``X-API-KEY``.
    retry : RetryPolicy
        How long to try.
    transport : httpx.AsyncBaseTransport, optional
        Instead of the network.
    clock, monotonic : callable
        Unix and monotonic time in seconds.
    sleep : coroutine function
        Waits so many seconds.
    rng : random.Random, optional
        Throws the jitter.
    telemetry : Telemetry, optional
        Gets the events.
    max_connections : int
        Requests in flight at once, over all calls.
    """

    def __init__(
        self,
        endpoint: str,
        api_key: Secret,
        *,
        retry: RetryPolicy,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
        telemetry: Telemetry | None = None,
        max_connections: int = 8,
    ) -> None:
        if max_connections < 1:
            raise SettingsError(f"{max_connections} connections reach no platform; one is the least")
        self.endpoint = check_endpoint(endpoint)
        self.telemetry = telemetry or Telemetry()
        self._key = check_key(api_key)
        self._retry = retry
        self._transport = transport
        self._clock = clock
        self._monotonic = monotonic
        self._sleep = sleep
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._max_connections = max_connections
        self._client: httpx.AsyncClient | None = None
        self._slots = asyncio.Semaphore(max_connections)
        self._loop: asyncio.AbstractEventLoop | None = None

    async def aclose(self) -> None:
        """Close the connections; a later call opens new ones."""
        client, self._client, self._loop = self._client, None, None
        if client is not None:
            await client.aclose()

    def _open(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self._client is None:
            n = self._max_connections
            self._client = httpx.AsyncClient(
                transport=self._transport,
                limits=httpx.Limits(max_connections=n, max_keepalive_connections=n, keepalive_expiry=KEEPALIVE_S),
                headers={"User-Agent": f"rheed-ingest/{__version__}"},
            )
            self._loop = loop
            self._slots = asyncio.Semaphore(n)
            # Adding the same filter again changes nothing.
            logging.getLogger("httpx").addFilter(_without_query)
        if self._loop is not loop:
            raise IngestError(
                f"the client of {self.endpoint} belongs to another event loop", hint="make one client for each loop"
            )
        return self._client

    async def _exchange(self, request: httpx.Request, total_s: float | None, kind: FailureKind) -> httpx.Response:
        client = self._open()
        async with self._slots:
            try:
                with _own_request():
                    async with asyncio.timeout(total_s):
                        return await client.send(request)
            except EDGE_ERRORS as exc:
                raw = f"{type(exc).__name__}: {exc}".rstrip(": ")
                said = redact(raw, self._key)
                # What had to be cut must not come back through the traceback of the cause.
                raise AttemptFailedError(Failure(kind, detail=said)) from (exc if said == raw else None)

    def _checked(self, response: httpx.Response, kind: FailureKind) -> httpx.Response:
        if response.is_success:
            return response
        text = answer_text(response.content, self._key)
        if response.has_redirect_location:
            text = f"it is at {redact_url(response.headers['location'])} {text}".rstrip()
        failure = Failure(kind, response.status_code, retry_after_s(response.headers, self._clock()), text)
        body = None
        with suppress(AttemptFailedError):
            body = parse_json(response.content)
        raise AttemptFailedError(failure, body)

    async def once(self, call: ApiCall) -> httpx.Response:
        """Send one API request once; return its 2xx answer, read to the end.

        Raises
        ------
        AttemptFailedError
            Anything else than a 2xx.
        SettingsError
            A body that is not Unicode text, such as a name taken from undecodable bytes.
        """
        headers = dict(call.headers)
        if not call.keyless:
            headers["X-API-KEY"] = self._key
        content = call.body if isinstance(call.body, bytes) else None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
        if call.body is not None and content is None:
            try:
                content = json.dumps(call.body, ensure_ascii=False, allow_nan=False).encode()
            except UnicodeEncodeError as exc:
                raise SettingsError(f"a name in {call.method} {call.path} is not Unicode text: {exc}") from exc
        request = self._open().build_request(
            call.method,
            self.endpoint + call.path,
            headers=headers,
            content=content,
            timeout=httpx.Timeout(API_TIMEOUT_S, connect=CONNECT_TIMEOUT_S, pool=None),
        )
        return self._checked(await self._exchange(request, call.total_s, FailureKind.CONNECTION), FailureKind.STATUS)

    async def put(self, url: str, shard: Shard) -> httpx.Response:
        """Send a shard's bytes to a presigned URL once, without the API key; return the 2xx answer.

        Raises
        ------
        AttemptFailedError
            Anything else than a 2xx.
        """
        total_s = put_timeout_s(shard.n_bytes)
        request = self._open().build_request(
            "PUT",
            url,
            # Empty, but there: the URL is signed over it.
            headers={"Content-Type": "", "Content-Length": str(shard.n_bytes)},
            content=_body(shard),
            timeout=httpx.Timeout(total_s, connect=CONNECT_TIMEOUT_S, pool=None),
        )
        return self._checked(await self._exchange(request, total_s, FailureKind.UPLOAD), FailureKind.UPLOAD)

    async def persist(
        self, purpose: Purpose, attempt: Callable[[], Awaitable[T]], *, busy_for_s: float = 0.0
    ) -> tuple[T, int]:
        """Repeat `attempt` until it succeeds or the policy gives up.

        Parameters
        ----------
        purpose : Purpose
            For messages and events.
        attempt : coroutine function
            One attempt; raises `AttemptFailedError`.
        busy_for_s : float
            A 503 is tried for at least so many seconds, whatever the policy's budget.

        Returns
        -------
        tuple of T and int
            What the attempt gave, and its number.

        Raises
        ------
        RefusedError
            A final answer, as the subclass that says which. Not retried.
        UnreachableError
            The budget is spent.
        """
        began_s = self._monotonic()
        number = 0
        while True:
            number += 1
            try:
                return await attempt(), number
            except AttemptFailedError as exc:
                elapsed_s = self._monotonic() - began_s
                policy = self._retry
                if exc.failure.status == 503:
                    policy = replace(policy, retry_for_s=max(policy.retry_for_s, busy_for_s))
                wait_s = next_wait_s(policy, exc.failure, number, elapsed_s, self._rng.random())
                if wait_s is None:
                    raise error_of(purpose, self.endpoint, exc.failure, number, elapsed_s) from exc
                detail = f"{purpose.asked}, attempt {number}: {exc.failure}; again in {wait_s:.1f} s"
                self.telemetry.emit("attempt_failed", purpose.data_id, purpose.index, detail)
            await self._sleep(wait_s)

    async def ask(self, purpose: Purpose, call: ApiCall, read: Callable[[Any], T]) -> T:
        """Make `call` as often as `persist` says; return what `read` makes of its JSON."""

        async def attempt() -> T:
            return read(parse_json((await self.once(call)).content))

        return (await self.persist(purpose, attempt))[0]

    async def tell(self, purpose: Purpose, call: ApiCall) -> httpx.Response:
        """Make `call` as often as `persist` says; any 2xx will do."""
        return (await self.persist(purpose, lambda: self.once(call)))[0]
