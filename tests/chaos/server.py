"""The embedded platform behind a wire that answers 503, loses replies and cuts connections, by a seeded dice.

For live trials it also freezes, refuses chunks for good, and holds data back, as `Faults` say.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvicorn

from ingest.server.app import create_app
from ingest.server.settings import ServerSettings, load_keys

BUSY, LOST_REPLY, CUT = 0.03, 0.02, 0.02


HOLD = "hold"
"""While a file of this name lies beside the log, no chunk goes through."""


@dataclass(frozen=True)
class Faults:
    """What else the wire does.

    Attributes
    ----------
    freeze_at : tuple of int
        Requests, counted from the server's start, at which everything stands still...
    freeze_s : float
        ...for so long.
    refuse : tuple of int
        Indices of chunks of frames that are never taken.
    """

    freeze_at: tuple[int, ...] = ()
    freeze_s: float = 0.0
    refuse: tuple[int, ...] = ()

    def write(self, folder: Path) -> None:
        (folder / "faults.json").write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> Faults:
        file = folder / "faults.json"
        return cls(**json.loads(file.read_text())) if file.exists() else cls()


class FaultyWire:
    """ASGI middleware; every request rolls once."""

    def __init__(self, app, seed: int, log: Path) -> None:
        self.app = app
        self.dice = random.Random(seed)
        self.log = log
        self.faults = Faults.read(log.parent)
        self.requests = 0
        self.frozen_until = 0.0

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] in ("/healthz", "/gateway/time") or self._is_reading(scope):
            return await self.app(scope, receive, send)
        await self._stand_still(scope)
        if self._is_refused(scope):
            await send({"type": "http.response.start", "status": 422, "headers": []})
            return await send({"type": "http.response.body", "body": b'{"detail":"told to refuse it"}'})
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
        return scope["method"] == "GET" and scope["path"].startswith(("/rheed/", "/tool-state/", "/metrology/"))

    async def _stand_still(self, scope) -> None:
        if self.requests in self.faults.freeze_at:
            self.frozen_until = time.monotonic() + self.faults.freeze_s
        self.requests += 1
        await asyncio.sleep(max(self.frozen_until - time.monotonic(), 0.0))
        while scope["path"].startswith("/uploads/") or "/stream/chunk" in scope["path"]:
            if not self.log.with_name(HOLD).exists():
                break
            await asyncio.sleep(0.02)

    def _is_refused(self, scope) -> bool:
        query = scope["query_string"].decode().replace("%2F", "/")
        return any(f"frames/c/{index}/0/0" in query for index in self.faults.refuse)

    async def _cut(self, send, scope) -> None:
        if scope["path"].endswith("/stream/") or scope["path"].endswith(("/rheed/stream", "/initialize")):
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
