"""The embedded platform behind a wire that answers 503, loses replies and cuts connections, by a seeded dice."""

from __future__ import annotations

import argparse
import os
import random
import time
from pathlib import Path

import uvicorn

from ingest.server.app import create_app
from ingest.server.settings import ServerSettings, load_keys

BUSY, LOST_REPLY, CUT = 0.03, 0.02, 0.02


class FaultyWire:
    """ASGI middleware; every request rolls once."""

    def __init__(self, app, seed: int, log: Path) -> None:
        self.app = app
        self.dice = random.Random(seed)
        self.log = log

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] == "/healthz" or self._is_reading(scope):
            return await self.app(scope, receive, send)
        if scope["method"] == "PUT":
            with self.log.open("a") as log:
                log.write(f"{time.time():.6f} {scope['path']}\n")
        roll = self.dice.random()
        if roll < BUSY:
            await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"0")]})
            return await send({"type": "http.response.body", "body": b'{"detail":"busy"}'})
        if roll < BUSY + LOST_REPLY:
            await self.app(scope, receive, _swallow)
            return await self._cut(send, scope)
        if roll < BUSY + LOST_REPLY + CUT:
            await receive()
            return await self._cut(send, scope)
        return await self.app(scope, receive, send)

    @staticmethod
    def _is_reading(scope) -> bool:
        return scope["method"] == "GET" and scope["path"].startswith("/rheed/")

    async def _cut(self, send, scope) -> None:
        if scope["path"].endswith("/stream/") or scope["path"].endswith("/rheed/stream"):
            with self.log.with_name("lost-creates.log").open("a") as log:
                log.write(f"{time.time()}\n")
        # A body shorter than promised: uvicorn drops the connection.
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"10")]})
        await send({"type": "http.response.body", "body": b"", "more_body": True})
        raise ConnectionResetError("cut")


async def _swallow(message) -> None:
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--log", type=Path, required=True)
    options = parser.parse_args()
    app = create_app(ServerSettings(data=options.data, api_keys=load_keys(os.environ)))
    faulty = FaultyWire(app, options.seed, options.log)
    uvicorn.run(faulty, host="127.0.0.1", port=options.port, log_level="critical", lifespan="on", access_log=False)


if __name__ == "__main__":
    main()
