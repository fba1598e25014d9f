"""A platform that writes down what it is asked, so that what two clients said can be compared.

The ids that it gives out depend on names only, so that clients which do the same get the same ids in any order; and
every request is filed under the name of its stream.
"""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import parse_qsl

import uvicorn

NAMESPACE = uuid.UUID("00000000-0000-4000-8000-000000000000")
SHARED = "shared"
"""Where requests are filed that belong to no one stream: lists and creates of samples and tags, the clock."""

DEFAULT_NAME = re.compile(r"RHEED Stream @ \d{1,2}:\d\d[AP]M")


def id_of(kind: str, name: str) -> str:
    """Return the id of a `rheed`, `series`, `sample` or `tag` of a name."""
    return str(uuid.uuid5(NAMESPACE, f"{kind}/{name}"))


KNOWN_SAMPLE, KNOWN_TAG = id_of("sample", "Known Sample"), id_of("tag", "Known Tag")


@dataclass(frozen=True)
class Request:
    """One request as it came in, the stream it belongs to, and the status it was answered with."""

    stream: str
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    status: int = 0

    @cached_property
    def json(self):
        return json.loads(self.body) if self.body and self.method != "PUT" else None


@dataclass
class Rule:
    """Answer a stream's requests whose ``METHOD path`` matches with a status (200: as always), this late, so often."""

    stream: str
    pattern: str
    status: int = 200
    delay_s: float = 0.0
    times: int = 1_000_000


class RecordingServer:
    """The recording platform in a thread, on a free port; a context manager."""

    def __init__(self, rules: list[Rule] | None = None) -> None:
        self.rules = rules or []
        self.requests: list[Request] = []
        self._streams: dict[str, str] = {}
        self._samples = {KNOWN_SAMPLE: "Known Sample"}
        self._tags = {KNOWN_TAG: "Known Tag"}
        config = uvicorn.Config(
            self._app, host="127.0.0.1", port=0, log_level="critical", lifespan="off", ws="none", interface="asgi3"
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)

    def __enter__(self):
        self._thread.start()
        while not self._server.started:
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{self._server.servers[0].sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *exc) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(20)

    def of(self, stream: str) -> list[Request]:
        """Return a stream's requests in the order in which they were answered."""
        return [request for request in self.requests if request.stream == stream]

    async def _app(self, scope, receive, send):
        if scope["type"] != "http":
            return
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        query = dict(parse_qsl(scope["query_string"].decode(), keep_blank_values=True))
        headers = {name.decode().lower(): value.decode() for name, value in scope["headers"]}
        request = Request("", scope["method"], scope["path"], query, headers, body)
        stream = self._stream_of(request)
        told = next((rule for rule in self.rules if _matches(rule, stream, request)), Rule(stream, ""))
        told.times -= 1
        await asyncio.sleep(told.delay_s)
        status, answer = told.status, {"detail": f"told to say {told.status}"}
        if status == 200:
            answer = self._answer(request)
        self.requests.append(Request(stream, request.method, request.path, query, headers, body, status))
        payload = json.dumps(answer).encode()
        head = [(b"content-type", b"application/json"), (b"content-length", str(len(payload)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": [*head, (b"etag", b'"recorded"')]})
        await send({"type": "http.response.body", "body": payload})

    def _stream_of(self, request: Request) -> str:
        said = request.json if isinstance(request.json, dict) else {}
        if "data_item_name" in said:
            return "default" if DEFAULT_NAME.fullmatch(said["data_item_name"]) else said["data_item_name"]
        if "stream_name" in said:
            return said["stream_name"] or "unnamed"
        named = [*said.get("data_ids", ()), said.get("data_id", ""), *request.path.split("/")]
        return next((self._streams[part] for part in named if part in self._streams), SHARED)

    def _new_stream(self, kind: str, request: Request) -> str:
        name = self._stream_of(request)
        data_id = id_of(kind, name)
        self._streams[data_id] = name
        return data_id

    def _answer(self, request: Request) -> object:
        match request.method, request.path.rstrip("/"):
            case "GET", "/gateway/time":
                now = time.time() * 1000
                return {"receivedAtUnixMs": now, "transmittedAtUnixMs": now}
            case "POST", "/rheed/stream":
                return self._new_stream("rheed", request)
            case "POST", "/tool-state/stream/initialize" | "/metrology/stream/initialize":
                data_id = self._new_stream("series", request)
                return {"data_id": data_id, "processed_data_id": id_of("processed", data_id)}
            case "POST", "/data_entries/raw_data/staged/upload_urls":
                key = f"{request.json['data_id']}/{request.query['original_filename']}"
                return [{"url": f"http://{request.headers['host']}/put/{key}", "upload_id": "1", "part": 0}]
            case "GET", "/physical_samples":
                return [{"id": number, "name": name} for number, name in self._samples.items()]
            case "POST", "/physical_samples":
                number = id_of("sample", request.json["name"])
                self._samples[number] = request.json["name"]
                return {"physical_sample_id": number}
            case "GET", "/tags":
                return [{"id": number, "name": name} for number, name in self._tags.items()]
            case "POST", "/tags":
                number = id_of("tag", request.json["name"])
                self._tags[number] = request.json["name"]
                return {"id": number}
            case _:
                return {}


def _matches(rule: Rule, stream: str, request: Request) -> bool:
    return (
        rule.stream == stream
        and rule.times > 0
        and re.search(rule.pattern, f"{request.method} {request.path}") is not None
    )
