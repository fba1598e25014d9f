"""Running the platform: in this process, or as one of its own for demos, tests and benchmarks."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO

import httpx
import uvicorn

from ingest.errors import IngestError, SettingsError
from ingest.server.app import create_app
from ingest.server.place import state_folder
from ingest.server.settings import KEY_VARIABLE, ServerSettings, new_key
from ingest.telemetry import Secret

__all__ = ["ServerProcess", "serve", "start_server_process"]

READY = "listening on "
GRACE_S = 10


class _Server(uvicorn.Server):
    """Uvicorn that says when it takes requests."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def serve(
    settings: ServerSettings,
    host: str = "127.0.0.1",
    port: int = 8000,
    *,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the platform until SIGINT or SIGTERM.

    Parameters
    ----------
    settings : ServerSettings
        What it serves and how.
    host : str
        Address to bind.
    port : int
        0: any free one.
    on_ready : callable, optional
        Called with the platform's URL once it takes requests.

    Raises
    ------
    SettingsError
        The data folder is in use, or the address cannot be bound.
    """
    app = create_app(settings)
    try:
        listener = _bind(host, port)
    except BaseException:
        app.state.platform.close()
        raise
    name = f"[{host}]" if ":" in host else host
    url = f"http://{name}:{listener.getsockname()[1]}"
    config = uvicorn.Config(
        app,
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=GRACE_S,
    )
    try:
        with listener:
            _Server(config, lambda: on_ready(url) if on_ready is not None else None).run([listener])
    finally:
        app.state.platform.close()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as exc:
        raise SettingsError(f"cannot listen on {host}:{port}: {exc}", hint="pass another port, or 0 for any") from exc


class ServerProcess:
    """A platform in a process of its own; a context manager that terminates it.

    Attributes
    ----------
    url : str
        ``http://127.0.0.1:PORT``.
    api_key : Secret
        Opens it.
    data : Path
        Its data folder; where the data is at a URL, the folder of its catalogue.
    pid : int
        The process.
    """

    def __init__(self, process: subprocess.Popen[str], url: str, api_key: Secret, data: Path, log: IO[bytes]) -> None:
        self._process = process
        self._log = log
        self.url = url
        self.api_key = api_key
        self.data = data
        self.pid = process.pid

    def log(self) -> str:
        """Return what the process wrote to stderr."""
        return _text(self._log)

    def terminate(self, timeout_s: float = 20.0) -> int:
        """End it in good order and return its exit code; may be called again."""
        return self._stop(signal.SIGTERM, timeout_s)

    def kill(self) -> int:
        """End it at once, as a crash would."""
        return self._stop(signal.SIGKILL, 20.0)

    def _stop(self, number: int, timeout_s: float) -> int:
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
        code = self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def __enter__(self) -> ServerProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.terminate()
        self._log.close()


def start_server_process(
    data: Path | str,
    *,
    state: Path | None = None,
    api_key: Secret | None = None,
    port: int = 0,
    silent_stream_s: float | None = None,
    upload_url_ttl_s: float | None = None,
    fsync: bool = True,
    timeout_s: float = 60.0,
) -> ServerProcess:
    """Start a platform in a process of its own and wait until it answers.

    Parameters
    ----------
    data : Path or str
        Its data folder, or the URL of its data.
    state : Path, optional
        Folder of the catalogue of data at a URL.
    api_key : Secret, optional
        None: a new random one. It goes by environment only.
    port : int, default 0
        0: any free one.
    silent_stream_s, upload_url_ttl_s, fsync
        As in `ServerSettings`.
    timeout_s : float
        How long to wait for it.

    Raises
    ------
    SettingsError
        It ended, or did not answer in time; the message holds what it wrote.
    """
    key = api_key if api_key is not None else new_key()
    folder = state_folder(ServerSettings(data, (key,), state))
    command = [sys.executable, "-m", "ingest.server", "--data", str(data), "--port", str(port)]
    if state is not None:
        command += ["--state", str(state)]
    if silent_stream_s is not None:
        command += ["--silent-stream-s", repr(silent_stream_s)]
    if upload_url_ttl_s is not None:
        command += ["--upload-url-ttl-s", repr(upload_url_ttl_s)]
    if not fsync:
        command.append("--no-fsync")
    log = tempfile.TemporaryFile()  # noqa: SIM115 - ServerProcess closes it
    process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
        command,
        env={**os.environ, KEY_VARIABLE: key.reveal()},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
    )
    server = ServerProcess(process, "", key, folder, log)
    try:
        server.url = _wait_until_ready(process, time.monotonic() + timeout_s)
    except IngestError as exc:
        server.kill()
        message = f"{exc}: {server.log().strip()}"
        log.close()
        raise SettingsError(message) from exc
    return server


def _wait_until_ready(process: subprocess.Popen[str], deadline_s: float) -> str:
    url = _read_url(process, deadline_s)
    while True:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/healthz", timeout=5.0, trust_env=False).status_code == 200:
                return url
        if process.poll() is not None or time.monotonic() > deadline_s:
            raise IngestError(f"the server at {url} does not answer")
        time.sleep(0.02)


def _read_url(process: subprocess.Popen[str], deadline_s: float) -> str:
    """Return the URL that the process prints once it listens."""
    seen = b""
    if process.stdout is None:
        raise IngestError("the server's stdout is not a pipe")
    fd = process.stdout.fileno()
    while (left_s := deadline_s - time.monotonic()) > 0:
        if not select.select([fd], [], [], left_s)[0]:
            continue
        piece = os.read(fd, 4096)
        seen += piece
        for line in seen.decode(errors="replace").splitlines(keepends=True):
            if line.startswith(READY) and line.endswith("\n"):
                return line.removeprefix(READY).strip()
        if not piece:
            raise IngestError(f"the server ended with exit code {process.wait()}")
    raise IngestError("the server was not ready in time")


def _text(log: IO[bytes]) -> str:
    # The process writes through the same open file, so its position must stay where it is.
    return os.pread(log.fileno(), 1 << 20, 0).decode(errors="replace")
