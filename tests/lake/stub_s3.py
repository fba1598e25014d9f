"""A small S3 that fails as it is told, on loopback."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.server
import re
import threading
import time
from collections.abc import Iterator
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c


class StubS3(http.server.ThreadingHTTPServer):
    """Keeps objects, checks checksums, and notes every request.

    Attributes
    ----------
    answers : list of tuple
        ``(status, code)`` for the next requests; ``(0, "")`` closes the connection. Then it does as asked.
    always : tuple or None
        The same for every request.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[tuple[int, str]] = []
        self.always: tuple[int, str] | None = None
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.crc32c = "checks"  # or "refuses", or "ignores"
        self.etag_is_md5 = True
        self.damages = False
        self.knows_ranges = True
        self.deletes_in_bulk = True
        self.kept: set[str] = set()  # objects that nobody may remove
        self.delay_s = 0.0
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://localhost:{self.server_port}"

    def made(self, method: str) -> list[dict[str, str]]:
        """Return the headers of the requests of a method so far."""
        return [headers for made, _, headers in self.requests if made == method]


@contextlib.contextmanager
def running_stub() -> Iterator[StubS3]:
    with StubS3() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: StubS3

    def log_message(self, *_):
        pass

    def _do(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        key = unquote(urlsplit(self.path).path).removeprefix("/")
        with self.server.lock:
            self.server.requests.append((self.command, self.path, {k.lower(): v for k, v in self.headers.items()}))
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            failure = self.server.answers.pop(0) if self.server.answers else self.server.always
        time.sleep(self.server.delay_s)
        with self.server.lock:
            self.server.at_once -= 1
        if failure == (0, ""):
            self.close_connection = True
        elif failure:
            self._error(*failure)
        else:
            getattr(self, f"_{self.command.lower()}")(key, body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = _do  # noqa: N815

    def _put(self, key, body):
        checksum = self.headers.get("x-amz-checksum-crc32c")
        md5 = hashlib.md5(body)
        headers = {"ETag": f'"{md5.hexdigest()}"' if self.server.etag_is_md5 else f'"{"0" * 32}"'}
        if checksum is not None and self.server.crc32c == "refuses":
            return self._error(400, "InvalidRequest")
        if checksum is not None and self.server.crc32c == "checks":
            if checksum != base64.b64encode(google_crc32c.value(body).to_bytes(4, "big")).decode():
                return self._error(400, "BadDigest")
            headers["x-amz-checksum-crc32c"] = checksum
        if (wanted := self.headers.get("Content-MD5")) and wanted != base64.b64encode(md5.digest()).decode():
            return self._error(400, "BadDigest")
        self.server.objects[key] = b"?" + body[1:] if self.server.damages else body
        return self._answer(200, b"", headers)

    def _get(self, key, body):
        if "list-type=2" in self.path:
            prefix = f"{key}/{parse_qs(urlsplit(self.path).query).get('prefix', [''])[0]}"
            found = sorted(name for name in self.server.objects if name.startswith(prefix))
            rows = "".join(
                f"<Contents><Key>{name.partition('/')[2]}</Key><Size>{len(self.server.objects[name])}</Size>"
                "<LastModified>2023-10-18T08:00:00.000Z</LastModified></Contents>"
                for name in found
            )
            text = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>"
            return self._answer(200, text.encode())
        if key not in self.server.objects:
            return self._error(404, "NoSuchKey")
        content = self.server.objects[key]
        if (wanted := self.headers.get("Range")) and self.server.knows_ranges:
            first, last = wanted.removeprefix("bytes=").split("-")
            part = content[int(first) : int(last) + 1 if last else None] if first else content[-int(last) :]
            return self._answer(206, part, {"Content-Range": f"bytes {first}-{last}/{len(content)}"})
        return self._answer(200, content)

    def _head(self, key, body):
        if key not in self.server.objects:
            return self._error(404, "NoSuchKey")
        return self._answer(200, self.server.objects[key])

    def _delete(self, key, body):
        self.server.objects.pop(key, None)
        self._answer(204)

    def _post(self, key, body):
        if not self.server.deletes_in_bulk:
            return self._error(501, "NotImplemented")
        names = re.findall("<Key>(.*?)</Key>", body.decode())
        kept = [name for name in names if name in self.server.kept]
        for name in names:
            if name not in kept:
                self.server.objects.pop(f"{key}/{name}", None)
        errors = "".join(
            f"<Error><Key>{name}</Key><Code>AccessDenied</Code><Message>no</Message></Error>" for name in kept
        )
        return self._answer(200, f"<DeleteResult>{errors}</DeleteResult>".encode())

    def _error(self, status, code):
        text = f"<Error><Code>{code}</Code><Message>because of {code}</Message></Error>"
        self._answer(status, b"" if self.command == "HEAD" else text.encode())

    def _answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
