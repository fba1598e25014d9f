"""A platform that only counts bytes: what is left of the time when the server costs as little as it can."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import uuid

import httpx
import uvicorn


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    path = scope["path"]
    if path.startswith("/put"):
        answer, body = [(b"etag", b'"counted"')], b""
    elif path.endswith("upload_urls/"):
        host = dict(scope["headers"])[b"host"].decode()
        answer, body = [], json.dumps([{"url": f"http://{host}/put", "upload_id": "1", "part": 0}]).encode()
    elif path == "/gateway/time":
        now = time.time() * 1000
        answer, body = [], json.dumps({"receivedAtUnixMs": now, "transmittedAtUnixMs": now}).encode()
    elif path.rstrip("/").endswith("/rheed/stream"):
        answer, body = [], json.dumps(str(uuid.uuid4())).encode()
    else:
        answer, body = [], b"{}"
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *answer]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class CountingServer:
    """The counting platform in a process of its own; a context manager."""

    def __enter__(self):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._process = subprocess.Popen([sys.executable, "-m", "tests.benchmarks.counting_server", str(port)])
        while True:
            try:
                httpx.get(f"{self.url}/gateway/time", timeout=1)
                return self
            except httpx.TransportError:
                time.sleep(0.05)

    def __exit__(self, *exc) -> None:
        self._process.terminate()
        self._process.wait(10)


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
