"""The embedded platform behind a wire that fails and cuts by a seeded dice; a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
from collections import Counter
from pathlib import Path

import uvicorn

from ingest.server.app import create_app
from ingest.server.settings import ServerSettings, load_keys

SWITCH = "/soak/faults"
BUSY, CUT = 0.05, 0.01
READING = ("/rheed/stream", "/tool-state/stream")


class Wire:
    """ASGI middleware; every request rolls once while the faults are on."""

    def __init__(self, app, seed: int, harder: float) -> None:
        self.app = app
        self.dice = random.Random(seed)
        self.busy, self.cut = BUSY * harder, CUT * harder
        self.is_faulty = False
        self.counts: Counter[str] = Counter()

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http" or scope["path"] == "/healthz":
            return await self.app(scope, receive, send)
        if scope["path"].startswith(SWITCH):
            return await self._switch(scope, send)
        if scope["method"] == "GET" and scope["path"].startswith(READING):
            return await self.app(scope, receive, send)
        self.counts["calls"] += 1
        if not self.is_faulty:
            return await self.app(scope, receive, send)
        roll = self.dice.random()
        if roll < self.busy:
            self.counts["503"] += 1
            await send({"type": "http.response.start", "status": 503, "headers": [(b"retry-after", b"0")]})
            return await send({"type": "http.response.body", "body": b'{"detail":"busy"}'})
        if roll < self.busy + self.cut:
            return await self.dice.choice((self._cut_request, self._lose_answer, self._cut_answer))(
                scope, receive, send
            )
        return await self.app(scope, receive, send)

    async def _switch(self, scope, send) -> None:
        if scope["method"] == "POST":
            self.is_faulty = scope["path"].endswith("/on")
        body = json.dumps(self.counts).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    async def _cut_request(self, scope, receive, send) -> None:
        """Cut somewhere in the body: the platform has a part of it."""
        self.counts["cut in the request"] += 1
        length = int(dict(scope["headers"]).get(b"content-length", b"0"))
        left = self.dice.randrange(length) if length else 0

        async def torn():
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left >= 0 and message.get("more_body"):
                return message
            await _abort(send)
            return {"type": "http.disconnect"}

        await self.app(scope, torn, _swallow)
        await _abort(send)

    async def _lose_answer(self, scope, receive, send) -> None:
        """The platform does it, and nobody hears of it."""
        self.counts["answer lost"] += 1
        await self.app(scope, receive, _swallow)
        await _abort(send)

    async def _cut_answer(self, scope, receive, send) -> None:
        """Half of the answer comes."""
        self.counts["cut in the answer"] += 1
        start = None

        async def torn(message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message
                return
            body = message.get("body", b"")
            if start is not None and len(body) > 1:
                await send(start)
                await send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
            start = None
            await _abort(send)

        await self.app(scope, receive, torn)
        await _abort(send)


async def _abort(send) -> None:
    send.__self__.transport.abort()  # uvicorn's own; there is no public way to drop a connection
    await asyncio.sleep(0)  # uvicorn hears of it


async def _swallow(message) -> None:
    return None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--harder", type=float, default=1.0)
    options = parser.parse_args()
    app = create_app(ServerSettings(data=options.data, api_keys=load_keys(os.environ)))
    uvicorn.run(
        Wire(app, options.seed, options.harder),
        host="127.0.0.1",
        port=options.port,
        http="httptools",
        loop="uvloop",
        log_level="critical",
        lifespan="on",
        access_log=False,
        backlog=2048,
    )


if __name__ == "__main__":
    main()
