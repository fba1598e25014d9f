"""A platform in memory behind httpx's transport interface, and a clock that only sleeping moves."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import deque
from collections.abc import Callable
from typing import Any

import httpx

from ingest.retry import RetryPolicy
from ingest.shard import Shard
from ingest.telemetry import Event, Secret, Telemetry
from ingest.wire.client import PlatformClient
from ingest.wire.models import ChunkMetadata

ENDPOINT = "https://platform.test"
KEY = "sk-very-secret-0123456789"
SIGNATURE = "deadbeefcafe"
UUID = "0b7c5f7e-1111-4222-8333-944445555666"
OTHER_UUID = "0b7c5f7e-9999-4222-8333-944445555666"

SHARD = Shard((b"abc", b"defg", b"index"), 12)
META = ChunkMetadata(240, 300, 500, 240, 120.0, False, 1_700_000_000_123)

Answer = httpx.Response | Exception | Callable[[httpx.Request], httpx.Response]


class FakeTime:
    """Unix and monotonic time that advances by what is slept."""

    def __init__(self, now_s: float = 1_700_000_000.0) -> None:
        self.now_s = now_s
        self.slept_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.slept_s.append(seconds)
        self.now_s += seconds


class FakePlatform(httpx.AsyncBaseTransport):
    """Answers as PROTOCOL.md says; `plan` puts other answers before that, in order, per method and path."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.samples: list[dict[str, Any]] = []
        self.tags: list[dict[str, Any]] = []
        self.streams: dict[str, str] = {}
        self.closed: set[str] = set()
        self.chunks: dict[str, bytes] = {}
        self.links: list[tuple[str, Any]] = []
        self.urls = 0
        self._by_key: dict[str, str] = {}
        self._planned: dict[tuple[str, str], deque[Answer]] = {}

    def plan(self, method: str, path: str, *answers: Answer) -> None:
        self._planned.setdefault((method, path), deque()).extend(answers)

    def sent(self, method: str, path: str = "") -> list[httpx.Request]:
        return [r for r in self.requests if r.method == method and r.url.path.startswith(path)]

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.requests.append(request)
        for (method, path), answers in self._planned.items():
            if answers and method == request.method and re.fullmatch(path, request.url.path):
                answer = answers.popleft()
                if isinstance(answer, Exception):
                    raise answer
                return answer(request) if callable(answer) else answer
        return self.answer(request)

    def answer(self, request: httpx.Request) -> httpx.Response:
        route = (request.method, re.sub(r"/(s\d+|p-1)(?=/|$)", "/ID", request.url.path))
        if request.method == "PUT":
            self.chunks[request.url.path] = request.content
            return ok(None, etag=f'"{hashlib.md5(request.content).hexdigest()}"')
        body = json.loads(request.content) if request.content else None
        match route:
            case ("POST", "/rheed/stream/"):
                key = request.headers["idempotency-key"]
                data_id = self._by_key.setdefault(key, f"s{len(self._by_key)}")
                self.streams[data_id] = body["data_item_name"]
                return ok(data_id)
            case ("POST", "/data_entries/raw_data/staged/upload_urls/"):
                if body["data_id"] not in self.streams:
                    return refuse(404, "no such stream")
                if body["data_id"] in self.closed:
                    return refuse(409, "the stream is closed")
                self.urls += 1
                key = request.url.params["original_filename"]
                url = f"https://store.test/{body['data_id']}/{key}?X-Amz-Signature={SIGNATURE}{self.urls}"
                return ok([{"url": url, "upload_id": "u", "part": 0}])
            case ("POST", "/rheed/stream/ID/end"):
                data_id = request.url.path.split("/")[3]
                if data_id not in self.streams:
                    return refuse(404, "no such stream")
                if data_id in self.closed:
                    return refuse(409, "closed already")
                self.closed.add(data_id)
                return ok({"data_id": data_id, "status": "ended"})
            case ("POST", "/tool-state/stream/initialize" | "/metrology/stream/initialize"):
                data_id = self._by_key.setdefault(request.headers["idempotency-key"], f"s{len(self._by_key)}")
                self.streams[data_id] = body["stream_name"]
                return ok({"data_id": data_id, "processed_data_id": "p0"})
            case ("POST", path) if re.fullmatch("/(tool-state|metrology)/stream/chunk(/multi)?", path):
                if body["data_id"] not in self.streams:
                    return refuse(404, "no such stream")
                if body["data_id"] in self.closed:
                    return refuse(409, "the stream is closed")
                return httpx.Response(204)
            case ("POST", "/tool-state/stream/ID/finalize" | "/metrology/stream/ID/finalize"):
                data_id = request.url.path.split("/")[3]
                if data_id not in self.streams:
                    return refuse(404, "no such stream")
                self.closed.add(data_id)
                return ok({"data_id": data_id, "status": "completed"})
            case ("GET", "/tool-state/stream"):
                return ok([{"id": data_id} for data_id in self.streams])
            case ("GET", "/tool-state/stream/ID"):
                return ok({"id": request.url.path.rpartition("/")[2]})
            case ("GET", "/tool-state/stream/ID/points"):
                return ok({"timestamps": [1.5], "values": [None], "units": "K", "chunk_indices": [0]})
            case ("GET", "/physical_samples/"):
                return ok(self.samples)
            case ("POST", "/physical_samples/"):
                self.samples.append({"id": f"sample-{len(self.samples)}", "name": body["name"]})
                return ok({"physical_sample_id": self.samples[-1]["id"]})
            case ("GET", "/tags/"):
                return ok(self.tags)
            case ("POST", "/tags/"):
                self.tags.append({"id": f"tag-{len(self.tags)}", "name": body["name"]})
                return ok({"id": self.tags[-1]["id"]})
            case ("POST", "/data_entries/physical_sample" | "/tags/data-items/"):
                self.links.append((request.url.path, body))
                return httpx.Response(204)
            case ("POST", "/projects/ID/configuration/tracking_samples"):
                self.links.append((request.url.path, body))
                return ok({})
            case ("GET", "/gateway/time"):
                return ok({"receivedAtUnixMs": 1.5, "transmittedAtUnixMs": 2})
            case ("GET", "/rheed/stream/"):
                return ok([{"data_id": data_id} for data_id in self.streams])
            case ("GET", "/rheed/stream/ID"):
                return ok({"data_id": request.url.path.rpartition("/")[2]})
            case ("GET", path) if path.startswith("/rheed/stream/ID/chunks/"):
                return httpx.Response(200, content=SHARD.tobytes())
        return refuse(404, f"no route {route}")


def ok(body: Any, **headers: str) -> httpx.Response:
    return httpx.Response(200, json=body, headers=headers)


def refuse(status: int, detail: Any = "no", **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"detail": detail}, headers={k.replace("_", "-"): v for k, v in headers.items()})


class Rig:
    """A client on a fake platform and a fake clock, with every event kept."""

    def __init__(self, retry: RetryPolicy | None = None) -> None:
        self.platform = FakePlatform()
        self.time = FakeTime()
        self.events: list[Event] = []
        self.client = PlatformClient(
            ENDPOINT,
            Secret(KEY),
            retry=retry or RetryPolicy(),
            transport=self.platform,
            clock=self.time.clock,
            monotonic=self.time.clock,
            sleep=self.time.sleep,
            rng=random.Random(1),
            telemetry=Telemetry(self.events.append),
        )

    def names(self) -> list[str]:
        return [event.name for event in self.events]
