"""What every endpoint shares: keys, slashes, bodies and errors."""

from __future__ import annotations

import errno
import hmac
import json
import logging
import sqlite3
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ingest.errors import DestinationError, UnreachableError
from ingest.server.problems import ApiError
from ingest.telemetry import Secret

__all__ = ["EXCEPTION_HANDLERS", "Gate", "declared_bytes", "idempotency_key", "json_body", "read_body"]

logger = logging.getLogger("rheed_ingest.server")

OPEN_PATHS = ("/gateway/time", "/healthz")
UPLOADS = "/uploads/"
MAX_KEY_LENGTH = 255


class Gate:
    """ASGI middleware: takes paths with and without a trailing slash, and lets nobody in without a key.

    Parameters
    ----------
    app : ASGI application
        Sees paths without trailing slash only.
    keys : tuple of Secret
        Any of them opens it.
    """

    def __init__(self, app: ASGIApp, keys: tuple[Secret, ...]) -> None:
        self._app = app
        self._keys = tuple(key.reveal().encode() for key in keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401, or hand on to the application."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path: str = scope["path"]
        path = path.rstrip("/") or "/"
        if path in OPEN_PATHS or path.startswith(UPLOADS) or self._knows(scope):
            await self._app({**scope, "path": path}, receive, send)
            return
        refusal = JSONResponse({"detail": "the header X-API-KEY has no key that is known here"}, 401)
        await refusal(scope, receive, send)

    def _knows(self, scope: Scope) -> bool:
        given = next((value for name, value in scope["headers"] if name == b"x-api-key"), b"")
        # Every key is compared, so that the time says nothing about which one matched.
        return sum(hmac.compare_digest(given, key) for key in self._keys) > 0


def declared_bytes(request: Request, max_bytes: int) -> int | None:
    """Return the Content-Length; more than `max_bytes` is a 413."""
    text = request.headers.get("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit()):
        raise ApiError("Content-Length must be a number", status=400)
    if len(text) > 18 or int(text) > max_bytes:
        raise ApiError(f"the body has {text} bytes; at most {max_bytes} are taken", status=413)
    return int(text)


def idempotency_key(request: Request) -> str | None:
    """Return the key that makes a create repeatable, if there is one."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 0 < len(key) <= MAX_KEY_LENGTH:
        raise ApiError(f"Idempotency-Key must have 1 to {MAX_KEY_LENGTH} characters")
    return key


async def read_body(request: Request, max_bytes: int) -> bytes:
    """Return the whole body; more than `max_bytes` is a 413."""
    declared_bytes(request, max_bytes)
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > max_bytes:
            raise ApiError(f"the body has more than {max_bytes} bytes", status=413)
    return bytes(data)


async def json_body(request: Request, max_bytes: int) -> dict[str, Any]:
    """Return the body's JSON object.

    Raises
    ------
    ApiError
        400: not JSON; 413: too large; 422: JSON, but not an object.
    """
    data = await read_body(request, max_bytes)
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise ApiError(f"the body is not JSON: {exc}", status=400) from exc
    if not isinstance(body, dict):
        raise ApiError("the body must be a JSON object")
    return body


async def _api_error(_: Request, exc: Exception) -> Response:
    status = exc.status if isinstance(exc, ApiError) else 500
    return JSONResponse({"detail": exc.detail if isinstance(exc, ApiError) else str(exc)}, status)


async def _http_error(_: Request, exc: Exception) -> Response:
    status = exc.status_code if isinstance(exc, HTTPException) else 500
    headers = exc.headers if isinstance(exc, HTTPException) else None
    return JSONResponse({"detail": exc.detail if isinstance(exc, HTTPException) else str(exc)}, status, headers)


async def _gone(_: Request, __: Exception) -> Response:
    return JSONResponse({"detail": "the client went away"}, 400)


async def _disk_error(_: Request, exc: Exception) -> Response:
    logger.error("the disk refused: %s", exc)
    full = isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(exc, sqlite3.Error):
        full = "full" in str(exc)
    return JSONResponse({"detail": "the platform's disk is full" if full else "the platform's disk failed"}, 507)


async def _store_error(_: Request, exc: Exception) -> Response:
    logger.error("the store of the data refused: %s", exc)
    if isinstance(exc, UnreachableError):
        return JSONResponse({"detail": "the platform's store does not answer; try again"}, 503)
    return JSONResponse({"detail": "the platform's store refused; its log says why"}, 507)


async def _unexpected(_: Request, __: Exception) -> Response:
    # Starlette raises it again after the answer, so that the server logs it; the client learns nothing of our insides.
    return JSONResponse({"detail": "the platform failed unexpectedly; its log says why"}, 500)


EXCEPTION_HANDLERS = {
    ApiError: _api_error,
    HTTPException: _http_error,
    ClientDisconnect: _gone,
    DestinationError: _store_error,
    OSError: _disk_error,
    sqlite3.Error: _disk_error,
    Exception: _unexpected,
}
