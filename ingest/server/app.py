"""The embedded platform as an ASGI application (PROTOCOL.md)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sqlite3
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingest.server.http import EXCEPTION_HANDLERS, Gate
from ingest.server.linking import LINKING_ROUTES
from ingest.server.platform import Platform
from ingest.server.reading import READING_ROUTES
from ingest.server.series_api import SERIES_ROUTES
from ingest.server.settings import ServerSettings
from ingest.server.streaming import STREAMING_ROUTES

__all__ = ["create_app"]

logger = logging.getLogger("rheed_ingest.server")

SWEEPS_PER_SILENCE = 60
MIN_SWEEP_S = 0.2


def create_app(settings: ServerSettings) -> Starlette:
    """Return the platform as an application.

    The end of its lifespan, or ``app.state.platform.close()``, releases the data folder.

    Parameters
    ----------
    settings : ServerSettings
        What it serves and how.

    Raises
    ------
    SettingsError
        Another live server has the data folder, or it cannot be used.
    """
    platform = Platform(settings)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        sweep = asyncio.create_task(_tend(platform))
        try:
            yield
        finally:
            sweep.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sweep
            await asyncio.to_thread(platform.close)

    app = Starlette(
        routes=[
            Route("/healthz", _healthz, methods=["GET"]),
            Route("/gateway/time", _time, methods=["GET"]),
            *STREAMING_ROUTES,
            *READING_ROUTES,
            *SERIES_ROUTES,
            *LINKING_ROUTES,
        ],
        middleware=[Middleware(Gate, keys=settings.api_keys)],
        exception_handlers=EXCEPTION_HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.platform = platform
    return app


async def _tend(platform: Platform) -> None:
    pause_s = max(MIN_SWEEP_S, platform.settings.silent_stream_s / SWEEPS_PER_SILENCE)
    while True:
        await asyncio.sleep(pause_s)
        try:
            await platform.run(platform.tend)
        except sqlite3.Error:
            logger.exception("could not mark silent streams as failed")


async def _healthz(_: Request) -> Response:
    return JSONResponse({"status": "ok"})


async def _time(request: Request) -> Response:
    clock = request.app.state.platform.clock
    received_s = clock()
    return JSONResponse({"receivedAtUnixMs": received_s * 1e3, "transmittedAtUnixMs": clock() * 1e3})
