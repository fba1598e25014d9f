"""A gate before an S3 stand-in that, unlike it, checks presigned URLs as Amazon does; on loopback."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import http.client
import http.server
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlsplit

from tests.s3 import SECRET

UNSENT = ("connection", "content-length", "transfer-encoding")


class Gate(http.server.ThreadingHTTPServer):
    """Checks signature, expiry and headers of presigned requests ("Authenticating Requests: Using Query Parameters").

    Attributes
    ----------
    late_s : list of float
        For the next presigned requests: how much later they come than they do.
    is_shut : bool
        Whether every request is answered with 503.
    presigned : list of tuple
        Path and answered status of the presigned requests so far.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(behind)
        self.late_s: list[float] = []
        self.is_shut = False
        self.presigned: list[tuple[str, int]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@contextlib.contextmanager
def running_gate(behind: str) -> Iterator[Gate]:
    with Gate(behind) as gate:
        thread = threading.Thread(target=gate.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield gate
        gate.shutdown()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Gate
    protocol_version = "HTTP/1.1"

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        query = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        is_presigned = "X-Amz-Signature" in query
        refusal = self._refusal(query) if is_presigned else None
        if self.server.is_shut:
            refusal = 503, "SlowDown"
        if refusal is not None:
            status, headers = refusal[0], {"Content-Type": "application/xml"}
            answer = f"<Error><Code>{refusal[1]}</Code><Message>at the gate</Message></Error>".encode()
        else:
            status, headers, answer = self._forward(body)
        if is_presigned:
            self.server.presigned.append((urlsplit(self.path).path, status))
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in UNSENT:
                self.send_header(name, value)
        is_head = self.command == "HEAD"
        self.send_header("Content-Length", headers.get("Content-Length", "0") if is_head else str(len(answer)))
        self.end_headers()
        self.wfile.write(b"" if is_head else answer)

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        behind = http.client.HTTPConnection(self.server.behind.hostname or "", self.server.behind.port)
        with contextlib.closing(behind):
            behind.request(self.command, self.path, body, dict(self.headers))
            answer = behind.getresponse()
            return answer.status, dict(answer.headers), answer.read()

    def _refusal(self, query: dict[str, str]) -> tuple[int, str] | None:
        made = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        late = timedelta(seconds=self.server.late_s.pop(0) if self.server.late_s else 0.0)
        if datetime.now(UTC) + late > made + timedelta(seconds=int(query["X-Amz-Expires"])):
            return 403, "AccessDenied"
        signed = query["X-Amz-SignedHeaders"].split(";")
        if any(name.lower().startswith("x-amz-") and name.lower() not in signed for name in self.headers):
            return 403, "AccessDenied"
        if not hmac.compare_digest(self._signature(query, signed), query["X-Amz-Signature"]):
            return 403, "SignatureDoesNotMatch"
        return None

    def _signature(self, query: dict[str, str], signed: list[str]) -> str:
        rest = sorted((quote(k, safe="~"), quote(v, safe="~")) for k, v in query.items() if k != "X-Amz-Signature")
        canonical = "\n".join(
            (
                self.command,
                urlsplit(self.path).path,
                "&".join(f"{name}={value}" for name, value in rest),
                *(f"{name}:{' '.join(self.headers.get(name, '').split())}" for name in signed),
                "",
                ";".join(signed),
                "UNSIGNED-PAYLOAD",
            )
        )
        scope = query["X-Amz-Credential"].split("/", 1)[1]
        digest = hashlib.sha256(canonical.encode()).hexdigest()
        text = "\n".join(("AWS4-HMAC-SHA256", query["X-Amz-Date"], scope, digest))
        key = f"AWS4{SECRET}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.new(key, text.encode(), "sha256").hexdigest()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 - the names that the library calls

    def log_message(self, *args: object) -> None:
        pass
