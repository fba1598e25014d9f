"""Live streaming, ours and the official SDK's, side by side: the same script, the same frames, the same server."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import httpx
import numpy as np

from ingest.server.run import start_server_process
from ingest.sources.synthetic import GrowthRun
from ingest.telemetry import Secret
from tests.benchmarks import files
from tests.benchmarks.counting_server import CountingServer
from tests.benchmarks.memory import MemoryWatch

KEY = Secret("benchmark-key-0123456789")
ROOT = Path(__file__).parents[2]
RING = 8
CLIENT_TIMEOUT_S = 900.0
ARRIVAL_FOR_S = 60.0
NO_ARRIVAL_FOR_S = 5.0
WHO = ("ours", "sdk")
SERVERS = ("embedded platform, fsync", "embedded platform, no fsync", "counting server")


@dataclass(frozen=True)
class Scale:
    """How long the live benchmarks are.

    Attributes
    ----------
    megabytes : int
        Noisy frames of one `run()`; a quarter of real ones.
    repeats : int
        Of each, ours and the SDK's in turn; medians are printed.
    pushes : int
        Paced.
    pause_s : float
        From one paced push to the next.
    burst : int
        Pushes that are not paced.
    hours : float
        Of time series.
    stalled_s : float
        How long the server answers nothing.
    servers : tuple of str
        For `run()`.
    """

    megabytes: int = 2000
    repeats: int = 3
    pushes: int = 100
    pause_s: float = 0.5
    burst: int = 20
    hours: float = 1.0
    stalled_s: float = 60.0
    servers: tuple[str, ...] = SERVERS


QUICK = Scale(megabytes=300, repeats=1, pushes=10, burst=5, hours=0.05, stalled_s=8.0, servers=SERVERS[:1])


# -- frames ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Movie:
    """Chunks to stream one after the other, again and again; distinct, and made before any clock starts."""

    name: str
    path: Path
    fps: float
    chunk_size: int
    chunk_bytes: int


def _saved(path: Path, ring: Callable[[], np.ndarray]) -> np.ndarray:
    if not path.exists():
        np.save(path, ring())
    return np.load(path, mmap_mode="r")


def noisy(folder: Path) -> Movie:
    """Noisy frames of 300 x 500, 36 MB a chunk of 240."""
    run = GrowthRun(RING * files.CHUNK, 300, 500, fps=files.FPS)
    path = folder / "ring-noisy.npy"
    ring = _saved(path, lambda: run.frames(0, run.count).reshape(RING, files.CHUNK, 300, 500))
    return Movie("noisy", path, files.FPS, files.CHUNK, ring[0].nbytes)


def real(folder: Path) -> Movie | None:
    """Real frames (Sb on Si(111), 8 bit), shifted so that none is a copy: 35 MB a chunk of 24."""
    movie = files.real(folder, RING * 40)
    if movie is None:
        return None

    def ring() -> np.ndarray:
        with h5py.File(movie) as file:
            frames = file["frames"][: RING * files.REAL_CHUNK]
        return frames.reshape(RING, files.REAL_CHUNK, *frames.shape[1:])

    path = folder / "ring-real.npy"
    return Movie("real", path, files.REAL_FPS, files.REAL_CHUNK, _saved(path, ring)[0].nbytes)


def camera(folder: Path) -> Movie:
    """A 480 x 640 camera's frames, 74 MB a chunk of 240."""
    run = GrowthRun(files.CHUNK, 480, 640, fps=files.FPS)
    path = folder / "ring-camera.npy"
    ring = _saved(path, lambda: run.frames(0, run.count)[np.newaxis])
    return Movie("camera", path, files.FPS, files.CHUNK, ring[0].nbytes)


# -- clients and servers -----------------------------------------------------------------------------------------------


class Client:
    """A lab script in a process of its own, with a home of its own; a context manager that ends it."""

    def __init__(self, who: str, task: str, folder: Path, **options: Any) -> None:
        self._home = Path(tempfile.mkdtemp(prefix=f"{who}-", dir=folder))
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.live_client", who, task, json.dumps(options)],
            env={
                **os.environ,
                "AS_API_KEY": KEY.reveal(),
                "HOME": str(self._home),
                "XDG_STATE_HOME": str(self._home / "state"),
                "XDG_CACHE_HOME": str(self._home / "cache"),
            },
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self.pid = self._process.pid
        self._watchdog = threading.Timer(CLIENT_TIMEOUT_S, self._process.kill)
        self._watchdog.daemon = True
        self._watchdog.start()

    def line(self) -> str:
        """Wait for what it says next."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            raise RuntimeError(f"the client ended with exit code {code}: {self.log()[-3000:]}")
        return line.strip()

    def go_on(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Wait for its last line, and for its end."""
        found: dict[str, Any] = json.loads(self.line())
        if self._process.wait() != 0:
            raise RuntimeError(f"the client ended badly: {self.log()[-3000:]}")
        return found

    def log(self) -> str:
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        self._watchdog.cancel()
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
        self._log.close()
        shutil.rmtree(self._home, ignore_errors=True)


@contextlib.contextmanager
def serving(name: str, folder: Path) -> Iterator[Any]:
    """A server by its name, and its data gone after it."""
    data = Path(tempfile.mkdtemp(prefix="platform-", dir=folder))
    try:
        with (
            CountingServer()
            if name.startswith("counting")
            else start_server_process(data, api_key=KEY, fsync="no" not in name)
        ) as server:
            yield server
    finally:
        shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def frozen(pid: int) -> Iterator[None]:
    """A server that accepts connections, as its kernel does, and answers nothing."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def ask(url: str, path: str) -> Any:
    headers = {"X-API-KEY": KEY.reveal()}
    return httpx.get(f"{url}{path}", headers=headers, timeout=60.0, trust_env=False).raise_for_status().json()


def check_held(server: Any, data_id: str, chunks: int) -> None:
    """Refuse a figure of frames that did not arrive; and let the platform seal them before the next one's turn."""
    if isinstance(server, CountingServer):
        return
    for _ in range(600):
        stream = ask(server.url, f"/rheed/stream/{data_id}")
        if stream["sealed"]:
            break
        time.sleep(0.1)
    if stream["chunks"] != chunks or stream["missing_chunks"]:
        raise RuntimeError(f"the platform holds {stream['chunks']} of {chunks} chunks")
    shutil.rmtree(server.data / f"{data_id}.zarr", ignore_errors=True)
    shutil.rmtree(server.data / ".staging" / data_id, ignore_errors=True)
    os.sync()  # what one left to write is not the other's to wait for


# -- run() -------------------------------------------------------------------------------------------------------------


def one_run(who: str, movie: Movie, chunks: int, server: Any, folder: Path) -> dict[str, Any]:
    with Client(
        who,
        "run",
        folder,
        url=server.url,
        ring=str(movie.path),
        fps=movie.fps,
        chunk_size=movie.chunk_size,
        chunks=chunks,
    ) as client:
        client.line()
        client.go_on()
        result = client.result()
    check_held(server, result["data_id"], chunks)
    return result


def median(results: Sequence[dict[str, Any]], what: Callable[[dict[str, Any]], float]) -> float:
    return float(np.median([what(result) for result in results]))


def alternating(movie: Movie, chunks: int, server: Any, folder: Path, repeats: int) -> dict[str, list[dict[str, Any]]]:
    results: dict[str, list[dict[str, Any]]] = {who: [] for who in WHO}
    for repeat in range(repeats):
        for who in WHO if repeat % 2 == 0 else WHO[::-1]:
            results[who].append(one_run(who, movie, chunks, server, folder))
    return results


def live_run(folder: Path, scale: Scale) -> None:
    """MB/s of `run()`."""
    for movie, megabytes in ((noisy(folder), scale.megabytes), (real(folder), scale.megabytes // 4)):
        if movie is None:
            continue
        chunks = max(megabytes * 1_000_000 // movie.chunk_bytes, 4)
        size = chunks * movie.chunk_bytes / 1e6
        for name in scale.servers:
            with serving(name, folder) as server:
                results = alternating(movie, chunks, server, folder, scale.repeats)
            rate = {who: size / median(results[who], lambda r: r["run_s"]) for who in WHO}
            whole = {who: size / median(results[who], lambda r: r["run_s"] + r["start_s"]) for who in WHO}
            start = {who: median(results[who], lambda r: r["start_s"]) for who in WHO}
            cpu = {who: median(results[who], lambda r: sum(r["cpu_s"].values())) / size * 1000 for who in WHO}
            print(
                f"live_run {movie.name} ({size:.0f} MB, median of {scale.repeats}), {name}: "
                f"ours {rate['ours']:.0f} MB/s ({whole['ours']:.0f} with its start of {start['ours']:.1f} s), "
                f"SDK {rate['sdk']:.0f} ({whole['sdk']:.0f} with {start['sdk']:.1f} s): "
                f"{rate['ours'] / rate['sdk']:.1f}x (>= 4 on noisy), {whole['ours'] / whole['sdk']:.1f}x with the "
                f"starts; processor {cpu['ours']:.1f} against {cpu['sdk']:.1f} ms/MB",
                flush=True,
            )


def live_cpu(folder: Path, scale: Scale) -> None:
    """Processor time of the whole client during `run()`."""
    movie = noisy(folder)
    chunks = max(scale.megabytes * 1_000_000 // movie.chunk_bytes, 4)
    size = chunks * movie.chunk_bytes / 1e6
    for name in scale.servers[::2]:
        with serving(name, folder) as server:
            results = alternating(movie, chunks, server, folder, scale.repeats)
        per_mb = {who: median(results[who], lambda r: sum(r["cpu_s"].values())) / size * 1000 for who in WHO}
        kinds = {kind for result in results["ours"] for kind in result["cpu_s"]}
        parts = {
            kind: median(results["ours"], lambda r, k=kind: r["cpu_s"].get(k, 0.0)) / size * 1000 for kind in kinds
        }
        print(
            f"live_cpu noisy ({size:.0f} MB, median of {scale.repeats}), {name}: ours {per_mb['ours']:.2f} ms/MB ("
            + ", ".join(f"{kind} {ms:.2f}" for kind, ms in sorted(parts.items(), key=lambda part: -part[1]))
            + f"), SDK {per_mb['sdk']:.2f} ms/MB: ratio {per_mb['ours'] / per_mb['sdk']:.2f}",
            flush=True,
        )


# -- push() ------------------------------------------------------------------------------------------------------------


def spread(milliseconds: Sequence[float]) -> str:
    p50, p99 = np.percentile(milliseconds, [50, 99])
    return f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {max(milliseconds):.1f} ms"


def one_push(who: str, movie: Movie, scale: Scale, server: Any, folder: Path, *, stall: bool = False) -> dict[str, Any]:
    with Client(
        who,
        "push",
        folder,
        url=server.url,
        ring=str(movie.path),
        fps=movie.fps,
        chunk_size=movie.chunk_size,
        pushes=scale.pushes,
        pause_s=scale.pause_s,
        burst=0 if stall else scale.burst,
    ) as client:
        client.line()
        with frozen(server.pid) if stall else contextlib.nullcontext():
            client.go_on()
            client.line()
        client.go_on()
        result = client.result()
    if result["uploaded"] != scale.pushes or result["lost"]:
        print(f"live_push: {who} lost {result['lost']}, delivered {result['uploaded']} of {scale.pushes}", flush=True)
    else:
        check_held(server, result["data_id"], scale.pushes)
    return result


def live_push(folder: Path, scale: Scale) -> None:
    """How long `push()` of a 36 MB chunk blocks, the first ones included."""
    movie = noisy(folder)
    with serving(SERVERS[0], folder) as server:
        results = {who: one_push(who, movie, scale, server, folder) for who in WHO}
        stalled = one_push("ours", movie, scale, server, folder, stall=True)
    for name, key in ((f"every {scale.pause_s:g} s", "paced_ms"), ("burst", "burst_ms")):
        p99 = {who: float(np.percentile(results[who][key], 99)) for who in WHO}
        p50 = {who: float(np.percentile(results[who][key], 50)) for who in WHO}
        print(
            f"live_push {movie.chunk_bytes / 1e6:.0f} MB, {len(results['ours'][key])} pushes, {name}: "
            f"ours {spread(results['ours'][key])}; SDK {spread(results['sdk'][key])}: "
            f"p50 {p50['ours'] / p50['sdk']:.3f}, p99 {p99['ours'] / p99['sdk']:.3f} of it"
            + (
                f" (<= 0.1); late by the camera's clock: ours {results['ours']['late']}, SDK {results['sdk']['late']}"
                if key == "paced_ms"
                else f" (as fast as each takes them); in all {sum(results['ours'][key]) / 1000:.2f} s against "
                f"{sum(results['sdk'][key]) / 1000:.2f} s"
            ),
            flush=True,
        )
    print(
        f"live_push {movie.chunk_bytes / 1e6:.0f} MB, {scale.pushes} pushes, every {scale.pause_s:g} s, server "
        f"answers nothing: ours {spread(stalled['paced_ms'])}; then {stalled['uploaded']} delivered, "
        f"{stalled['lost']} lost",
        flush=True,
    )


# -- time series -------------------------------------------------------------------------------------------------------

CHANNELS, RATE_HZ, POINTS_PER_CHUNK = 50, 10.0, 100


def arrival(server: Any, data_id: str, points: int, began: float) -> tuple[float, int]:
    """Wait until the platform holds all points, or no more come; return when the last came, and how many it holds."""
    held, last = -1, began
    while time.perf_counter() < began + ARRIVAL_FOR_S and time.perf_counter() < last + NO_ARRIVAL_FOR_S:
        now = ask(server.url, f"/tool-state/stream/{data_id}")["points"]
        if now != held:
            held, last = now, time.perf_counter()
        if held >= points:
            break
        time.sleep(0.05)
    return last - began, held


def one_series(who: str, server: Any, folder: Path, pushes: int, *, waits: bool) -> tuple[dict[str, Any], float, int]:
    """Return what the client says, the seconds until the platform held what it holds in the end, and how much."""
    points = pushes * CHANNELS * POINTS_PER_CHUNK
    with Client(
        who,
        "points",
        folder,
        url=server.url,
        points_per_chunk=POINTS_PER_CHUNK,
        channels=CHANNELS,
        rate_hz=RATE_HZ,
        pushes=pushes,
        waits=waits,
    ) as client:
        data_id = client.line()
        began = time.perf_counter()
        client.go_on()
        seconds, held = 0.0, 0
        if waits:
            client.line()
            seconds, held = arrival(server, data_id, points, began)
            client.go_on()
        result = client.result()
    if not waits:
        seconds, held = result["done_s"], ask(server.url, f"/tool-state/stream/{data_id}")["points"]
    return result, seconds, held


def live_points(folder: Path, scale: Scale) -> None:
    """50 channels of 10 Hz in chunks of 100 points by `push_multi`: points a second, confirmed."""
    pushes = round(scale.hours * 3600 * RATE_HZ / POINTS_PER_CHUNK)
    points = pushes * CHANNELS * POINTS_PER_CHUNK
    ours, sdk = [], []
    with serving(SERVERS[0], folder) as server:
        for _ in range(scale.repeats):
            ours.append(one_series("ours", server, folder, pushes, waits=False))
            sdk.append(one_series("sdk", server, folder, pushes, waits=True))
        hasty, _, hasty_held = one_series("sdk", server, folder, pushes, waits=False)
    rate = {
        "ours": float(np.median([held / seconds for _, seconds, held in ours])),
        "sdk": float(np.median([held / seconds for _, seconds, held in sdk])),
    }
    pushed = {
        "ours": points / float(np.median([result["pushed_s"] for result, _, _ in ours])),
        "sdk": points / float(np.median([result["pushed_s"] for result, _, _ in sdk])),
    }
    cpu = {
        who: float(np.median([sum(result["cpu_s"].values()) for result, _, _ in runs])) / points * 1e6
        for who, runs in (("ours", ours), ("sdk", sdk))
    }
    lost = {who: max(points - held for _, _, held in runs) for who, runs in (("ours", ours), ("sdk", sdk))}
    print(
        f"live_points {points} points of {CHANNELS} channels, {pushes} requests, median of {scale.repeats}: "
        f"ours {rate['ours']:.0f} points/s until finalize returned, all confirmed ({pushed['ours']:.0f} while pushing)"
        f", SDK {rate['sdk']:.0f} until the last arrived ({pushed['sdk']:.0f} while pushing): "
        f"{rate['ours'] / rate['sdk']:.2f}x; lost: ours {lost['ours']}, SDK {lost['sdk']}; processor "
        f"{cpu['ours']:.1f} against {cpu['sdk']:.1f} us/point; SDK finalized at once after the pushes, as a script "
        f"does: the platform holds {hasty_held} of {points} points {hasty['done_s']:.1f} s after the first",
        flush=True,
    )


# -- memory ------------------------------------------------------------------------------------------------------------


def live_memory(folder: Path, scale: Scale) -> None:
    """Peak memory while the server answers nothing and the camera goes on: 480 x 640 at 120 fps."""
    movie = camera(folder)
    with serving(SERVERS[1], folder) as server:
        for who in WHO:
            with (
                Client(
                    who,
                    "stalled",
                    folder,
                    url=server.url,
                    ring=str(movie.path),
                    fps=movie.fps,
                    chunk_size=movie.chunk_size,
                    seconds=scale.stalled_s,
                    pause_s=movie.chunk_size / movie.fps,
                ) as client,
                MemoryWatch(client.pid, 0.25) as watch,
            ):
                client.line()
                before = sum(watch.kinds.values())
                with frozen(server.pid):
                    client.go_on()
                    client.line()
                stalled_peak, parts = watch.highest, str(watch)
                began = time.perf_counter()
                client.go_on()
                result = client.result()
                took_s = time.perf_counter() - began
            print(
                f"live_memory, server answers nothing for {scale.stalled_s:.0f} s, {movie.chunk_bytes / 1e6:.0f} MB "
                f"every {movie.chunk_size / movie.fps:g} s: {who} peak {stalled_peak:.0f} MB ({parts}; "
                f"{before:.0f} before the first push; {result['caller_bytes'] / 1e6:.0f} are the caller's own frames), "
                f"{result['spooled']} of {len(result['push_ms'])} chunks spooled in "
                f"{result['spool_bytes'] / 1e6:.0f} MB; push {spread(result['push_ms'])}; after that all "
                f"{result['uploaded']} delivered and closed in {took_s:.1f} s, {result['lost']} lost; peak until the "
                f"end {watch.highest:.0f} MB",
                flush=True,
            )
            if not result["lost"]:
                check_held(server, result["data_id"], len(result["push_ms"]))


LIVE: dict[str, Callable[[Path, Scale], None]] = {
    "live_run": live_run,
    "live_push": live_push,
    "live_points": live_points,
    "live_cpu": live_cpu,
    "live_memory": live_memory,
}
