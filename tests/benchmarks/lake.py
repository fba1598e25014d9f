"""Lakes: written by us and by peers with the same frames, codec and shards, on the same disk, in turn; resumed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import zarr
import zarr.codecs

from tests.benchmarks import files, live, memory
from tests.benchmarks.files import plan_of
from tests.benchmarks.lake_client import LEVEL, MISSING_EXIT, OURS, PEERS

ROOT = Path(__file__).parents[2]
REPEATS = 5
SLOW = frozenset({"acquire-zarr", "zarr-python", "zarr-python with zarrs"})
SLOW_REPEATS = 2
NOISY_MB = 864
"""24 chunks of 36 MB."""
REAL_MB = 416
"""12 chunks of 35 MB and a frame."""
NEAREST = ("acquire-zarr", "tensorstore", "tensorstore, no fsync", "zarr-python with zarrs")
PUSHES, PAUSE_S = 16, 0.5
AS_THEY_COME = ("acquire-zarr", "tensorstore", "zarr-python", "zarr-python with zarrs")
"""Of these tensorstore calls fsync, as strace shows; ours does too as it comes."""


class Client:
    """A writer in a process of its own, which waits for its turns; a context manager that ends it."""

    def __init__(self, name: str, task: str, **options: Any) -> None:
        self.name = name
        command = [sys.executable, "-m", "tests.benchmarks.lake_client", name, task, json.dumps(options)]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - __exit__ closes it
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True
        )
        self.pid = self._process.pid

    def is_ready(self) -> bool:
        """Wait until it is; False: it is not installed, which is said."""
        line = self._process.stdout.readline()
        if not line and self._process.wait() == MISSING_EXIT:
            print(f"lake: {self._said()}", flush=True)
            return False
        if line != "ready\n":
            raise RuntimeError(f"{self.name} does not start: {self._said()}")
        return True

    def turn(self, folder: Path) -> dict[str, Any]:
        """Have it write there; return what it says."""
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}: {self._said()}")
        said: dict[str, Any] = json.loads(line)
        return said

    def _said(self) -> str:
        return os.pread(self._log.fileno(), 1 << 20, 0).decode(errors="replace")[-3000:].strip()

    def __enter__(self):
        return self

    def __exit__(self, *exc) -> None:
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


@contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    """A folder of nobody's, on a disk with nothing left to write; both are gone after it."""
    os.sync()
    made = Path(tempfile.mkdtemp(prefix="lake-", dir=folder))
    try:
        yield made
    finally:
        shutil.rmtree(made)


@dataclass
class Figures:
    """What one writer's turns took."""

    seconds: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: int = 0

    def add(self, said: dict[str, Any]) -> None:
        self.seconds.append(said["seconds"])
        self.cpu_s.append(said["cpu_s"])
        self.peak_bytes = max(self.peak_bytes, said["peak_bytes"])

    def text(self, megabytes: float) -> str:
        per_mb = float(np.median(self.cpu_s)) / megabytes * 1000
        return f"{megabytes / self.median_s:.0f} MB/s ({per_mb:.2f} ms/MB, +{self.peak_bytes / 1e6:.0f} MB)"

    @property
    def median_s(self) -> float:
        return float(np.median(self.seconds))


# -- whole movies ------------------------------------------------------------------------------------------------------


def check(folder: Path, frames: Any, chunk_size: int) -> int:
    """Refuse a figure for something else than the others wrote; return the bytes of all shards."""
    [path] = folder.glob("*.zarr/frames") if next(folder.glob("*.zarr"), None) else [folder / "frames"]
    array = zarr.open_array(path, mode="r")
    [sharding] = array.metadata.codecs
    inner, codec = sharding.codecs
    told = array.shape, array.shards, array.chunks, type(inner), codec.level
    size = (chunk_size, *frames.shape[1:])
    wanted = frames.shape, size, (1, *size[1:]), zarr.codecs.BytesCodec, LEVEL
    if told != wanted or not isinstance(codec, zarr.codecs.ZstdCodec):
        raise RuntimeError(f"{path} is {array.metadata}")
    for start in range(0, len(frames), chunk_size):
        if not np.array_equal(array[start : start + chunk_size], frames[start : start + chunk_size]):
            raise RuntimeError(f"{path} holds other frames than those from {start} on")
    return sum(shard.stat().st_size for shard in path.rglob("c/*/0/0"))


def in_turn(
    folder: Path, names: Sequence[str], movie: Path, dataset: str, array: Path | None, repeats: int
) -> tuple[dict[str, Figures], dict[str, int]]:
    """Have all write a movie in turn, first for a look at it; return figures, and the bytes of their shards."""
    figures: dict[str, Figures] = {name: Figures() for name in names}
    sizes: dict[str, int] = {}
    chunk_size = files.REAL_CHUNK if movie.name.startswith("real") else files.CHUNK
    options = {
        "hdf5": str(movie),
        "dataset": dataset,
        "chunk_size": chunk_size,
        "memory": None if array is None else str(array),
    }
    with ExitStack() as stack, h5py.File(movie) as file:
        clients = [stack.enter_context(Client(name, "movie", **options)) for name in names]
        clients = [client for client in clients if client.is_ready()]
        for number in range(repeats + 1):
            for client in clients if number % 2 else clients[::-1]:
                if client.name in SLOW and number > SLOW_REPEATS:
                    continue
                with fresh(folder) as target:
                    said = client.turn(target)
                    if number == 0:
                        sizes[client.name] = check(target, file[dataset], chunk_size)
                        continue
                figures[client.name].add(said)
    return {name: figure for name, figure in figures.items() if figure.seconds}, sizes


def ratio(figures: dict[str, Figures], mine: str, peers: Iterable[str]) -> str:
    """Say how many times as fast as the best of some peers ours is."""
    there = [name for name in peers if name in figures]
    if not there:
        return "no peer is installed"
    best = min(there, key=lambda name: figures[name].median_s)
    return f"{figures[best].median_s / figures[mine].median_s:.2f} x {best}"


def movie_lines(folder: Path, movie: Path, peers: Iterable[str], *, in_memory: bool, repeats: int) -> None:
    """Print what whole movies take."""
    dataset = plan_of(movie).spec.dataset
    with h5py.File(movie) as file:
        array = folder / f"{movie.stem}.npy" if in_memory else None
        if array is not None:
            np.save(array, file[dataset][()])
        megabytes = file[dataset].size / 1e6
    figures, sizes = in_turn(folder, [*OURS, *peers], movie, dataset, array, repeats)
    if array is not None:
        array.unlink()
    where = "frames in memory" if in_memory else "frames in HDF5"
    print(
        f"lake {movie.stem} ({megabytes:.0f} MB, medians of {repeats}; processor, memory beside the frames), {where}: "
        + "; ".join(f"{name} {figure.text(megabytes)}" for name, figure in figures.items())
        + f". As they come, ours and tensorstore with fsync: {ratio(figures, 'ours, fsync', AS_THEY_COME)} (>= 1.3); "
        f"without fsync {ratio(figures, 'ours', PEERS)}; shards of {min(sizes.values()) / 1e6:.1f} to "
        f"{max(sizes.values()) / 1e6:.1f} MB",
        flush=True,
    )


def ray_lines(folder: Path, movie: Path) -> None:
    """Print what the job on Ray takes with two packers; it always calls fsync."""
    import ray

    from tests.benchmarks.ray_run import with_ray

    ray.init(address="local", include_dashboard=False, object_store_memory=128 << 20, log_to_driver=False, num_cpus=2)
    runs = []
    for _ in range(2):
        with fresh(folder) as target:
            runs.append(with_ray(plan_of(movie, to=[str(target)]), str(target), None, folder))
    ray.shutdown()
    with fresh(folder) as target:
        highest, kinds = memory.peak(movie, str(target), "")
    plan = plan_of(movie)
    megabytes = plan.frames * plan.height_px * plan.width_px / 1e6
    parts = ", ".join(f"{kind} {pss:.0f}" for kind, pss in sorted(kinds.items()) if kind)
    print(
        f"lake {movie.stem} ({megabytes:.0f} MB, best of 2), backfill on Ray, two packers, fsync: "
        f"{megabytes / min(steady for _, steady in runs):.0f} MB/s from first to last receipt, "
        f"{megabytes / min(whole for whole, _ in runs):.0f} with the start of the actors and the close; peak of all "
        f"processes {highest:.0f} MB ({parts})",
        flush=True,
    )


def lake(folder: Path) -> None:
    """MB/s of frames into a lake and the memory for it: from memory, from a file, and by the job on Ray."""
    noisy = files.noisy(folder, NOISY_MB)
    movie_lines(folder, noisy, PEERS, in_memory=True, repeats=REPEATS)
    movie_lines(folder, noisy, NEAREST, in_memory=False, repeats=3)
    if (real := files.real(folder, REAL_MB)) is not None:
        movie_lines(folder, real, NEAREST, in_memory=True, repeats=3)
    ray_lines(folder, noisy)


# -- one append --------------------------------------------------------------------------------------------------------


def lake_push(folder: Path) -> None:
    """How long a user's loop waits for one append of 36 MB at a camera's pace."""
    movie = live.noisy(folder)
    options = {
        "ring": str(movie.path),
        "fps": movie.fps,
        "chunk_size": movie.chunk_size,
        "pushes": PUSHES,
        "pause_s": PAUSE_S,
    }
    p50 = {}
    for name in ("ours, fsync", *PEERS):
        with fresh(folder) as target, Client(name, "push", **options) as client:
            if not client.is_ready():
                continue
            with memory.MemoryWatch(client.pid) as watch:
                said = client.turn(target)
        p50[name] = float(np.median(said["milliseconds"]))
        print(
            f"lake_push {movie.chunk_bytes / 1e6:.0f} MB, {PUSHES} appends, every {PAUSE_S:g} s, {name}: "
            f"{live.spread(said['milliseconds'])}; the end {said['end_s']:.2f} s; all its processes "
            f"{watch.highest:.0f} MB",
            flush=True,
        )
    mine = p50.pop("ours, fsync")
    if p50:
        best = min(p50, key=p50.__getitem__)
        print(f"lake_push: p50 of ours {mine / p50[best]:.2f} of {best}'s, the best peer's", flush=True)


# -- S3 ----------------------------------------------------------------------------------------------------------------

S3_MB = 180
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Variables that are as before after it."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def lake_s3(folder: Path) -> None:
    """A sanity figure: into moto's S3, which is in this process and keeps everything in memory."""
    import logging

    import boto3
    from moto.server import ThreadedMotoServer

    from tests.benchmarks.serial import without_ray

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    endpoint = "http://{}:{}".format(*server.get_host_and_port())
    url = "s3://bench/lake"
    try:
        with environment(**S3_ENVIRONMENT, AWS_ENDPOINT_URL=endpoint):
            client = boto3.client("s3")
            client.create_bucket(Bucket="bench")
            movie = files.noisy(folder, S3_MB)
            plan = plan_of(movie, to=[url])
            seconds = without_ray(plan, url, None)
            listed = client.list_objects_v2(Bucket="bench")["Contents"]
            client.close()
    finally:
        server.stop()
    megabytes = plan.frames * plan.height_px * plan.width_px / 1e6
    sent = sum(entry["Size"] for entry in listed) / 1e6
    print(
        f"lake_s3 ({megabytes:.0f} MB, {sent:.0f} MB in {len(listed)} objects), pipeline without Ray, moto in this "
        f"process: {megabytes / seconds:.0f} MB/s",
        flush=True,
    )


# -- resume ------------------------------------------------------------------------------------------------------------

RESUMED_CHUNKS = 10_000
JOURNALLED_CHUNKS = 100_000
JOB = "job"


def again(movie: Path, target: Path, state: Path | None = None) -> tuple[float, dict[str, Any]]:
    """Run the command; return its seconds, and what it says of the run."""
    command = [sys.executable, "-m", "ingest", "backfill", str(movie), "--to", str(target), "--json"]
    command += ["--rotations-per-min", "0", "--fps", "1", "--chunk-size", "2"]
    began = time.perf_counter()
    done = subprocess.run(
        [*command, *(("--state", str(state)) if state else ())], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-3000:]}")
    [run] = json.loads(done.stdout)["runs"]
    return seconds, run


def lake_resume(folder: Path) -> None:
    """A backfill again of a run of 10,000 chunks, all confirmed; and a journal of 100,000 chunks."""
    from ingest.sources.synthetic import GrowthRun
    from ingest.sources.synthetic_hdf5 import write_hdf5

    movie = folder / "many.h5"
    write_hdf5(movie, GrowthRun(2 * RESUMED_CHUNKS, 8, 8, fps=1.0), hdf5_chunk_frames=None)
    with fresh(folder) as target, fresh(folder) as other:
        first_s, run = again(movie, target)
        print(f"lake_resume: {run['chunks']['uploaded']} chunks of 128 bytes delivered in {first_s:.1f} s", flush=True)
        cases: list[tuple[str, Callable[[], tuple[float, dict[str, Any]]]]] = [
            ("nothing left to do (< 5 s)", lambda: again(movie, target)),
            ("cut off before the close, with the start of Ray", lambda: again(movie, uncommitted(target))),
            ("its journal gone, with the start of Ray", lambda: again(movie, target, other)),
        ]
        for name, case in cases:
            seconds, run = case()
            if run["chunks"]["uploaded"] or run["chunks"]["confirmed"] != RESUMED_CHUNKS:
                raise RuntimeError(f"{name}: {run['chunks']}")
            print(f"lake_resume {RESUMED_CHUNKS} chunks, {name}: {seconds:.1f} s in all", flush=True)
    with fresh(folder) as state:
        journal_of(state, JOURNALLED_CHUNKS)
        for name, took_s in opened(state).items():
            print(f"lake_resume, journal of {JOURNALLED_CHUNKS} chunks: {name} {took_s:.2f} s", flush=True)


def uncommitted(target: Path) -> Path:
    """Make a lake what it is when all chunks are confirmed and the job ends before it has closed the stream."""
    [group] = target.glob("*.zarr/zarr.json")
    group.unlink()
    [manifest] = target.glob("*.manifest.json")
    manifest.unlink()
    journal = sqlite3.connect(target / ".rheed-ingest" / "journal.sqlite")
    journal.execute("UPDATE streams SET state='open', closed_s=NULL")
    journal.commit()
    journal.close()
    return target


def journal_of(state: Path, chunks: int) -> None:
    """Make a journal of one stream, all of whose chunks are confirmed."""
    from ingest.journal import Journal
    from ingest.ledger import ChunkConfirmed, CreateBegun, Receipt, StreamCreated, StreamLinked
    from tests.test_plan import plan, source

    journal = Journal(state, time.time)
    made = plan(source(2 * chunks, fps=1.0), chunk_size=2, for_lake=True, for_platform=False)
    key = journal.register(JOB, 0, "/lake", "/data/run.h5", made).key
    epoch = journal.lease(key, JOB, 600.0)
    receipts = (
        Receipt(i, 2, 2000 * i, 2000 * i + 2000, 99, 7, f"{i:032x}", None, 1, "node/1", 0) for i in range(chunks)
    )
    confirmed = map(ChunkConfirmed, receipts)
    journal.record(key, epoch, [CreateBegun(), StreamCreated("run-1"), StreamLinked(), *confirmed])
    journal.close()


def opened(state: Path) -> dict[str, float]:
    """Return what the first looks at a journal take."""
    from ingest.journal import Journal

    took: dict[str, float] = {}
    began = time.perf_counter()

    def lap(name: str) -> None:
        nonlocal began
        now = time.perf_counter()
        took[name], began = now - began, now

    journal = Journal(state, time.time)
    [row] = journal.job(JOB)
    lap("opened, with its rows,")
    journal.load(row.key)
    lap("ledger")
    journal.plan(row.key, JOB)
    lap("plan")
    journal.receipts(row.key)
    lap("receipts")
    journal.close()
    return took
