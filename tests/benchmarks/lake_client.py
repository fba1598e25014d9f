"""One writer of lakes to measure, ours or a peer, in a process of its own.

``python -m tests.benchmarks.lake_client WRITER TASK JSON``. It prints ``ready``, then takes a folder a line, writes the
whole movie there, or appends to it at a camera's pace, and says what it took as a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

MISSING_EXIT = 77
LEVEL = 1
IN_FLIGHT = 2
"""Writes of tensorstore that are not committed when the next one begins: its best on two processors of 1, 2 and 4."""

Shape = tuple[int, int, int]


class Writer:
    """Takes a movie's chunks in order; `copied` returns once the caller may use its memory again."""

    def begin(self, folder: Path, shape: Shape, chunk_size: int) -> None: ...

    def write(self, start: int, chunk: NDArray[np.uint8]) -> None:
        """Write, with as much in flight as is best for whole movies."""

    def copied(self, start: int, chunk: NDArray[np.uint8]) -> None:
        self.write(start, chunk)

    def end(self) -> None: ...


class AcquireZarr(Writer):
    """acquire-zarr; its threads are as many as there are processors, its default."""

    def __init__(self) -> None:
        import acquire_zarr

        self.az = acquire_zarr

    def begin(self, folder: Path, shape: Shape, chunk_size: int) -> None:
        az, (_, height, width) = self.az, shape
        space = {"kind": az.DimensionType.SPACE, "shard_size_chunks": 1}
        frames = az.ArraySettings(
            output_key="frames",
            data_type=az.DataType.UINT8,
            compression=az.CompressionSettings(
                compressor=az.Compressor.ZSTD, codec=az.CompressionCodec.ZSTD, level=LEVEL, shuffle=0
            ),
            dimensions=[
                az.Dimension(
                    name="frame",
                    kind=az.DimensionType.TIME,
                    array_size_px=0,
                    chunk_size_px=1,
                    shard_size_chunks=chunk_size,
                ),
                az.Dimension(name="y", array_size_px=height, chunk_size_px=height, **space),
                az.Dimension(name="x", array_size_px=width, chunk_size_px=width, **space),
            ],
        )
        self.stream = az.ZarrStream(az.StreamSettings(store_path=str(folder), overwrite=True, arrays=[frames]))

    def write(self, start: int, chunk: NDArray[np.uint8]) -> None:
        self.stream.append(chunk)

    def end(self) -> None:
        self.stream.close()
        del self.stream


class TensorStore(Writer):
    """tensorstore's zarr3 driver; by default it calls fsync for every object."""

    def __init__(self, **context: Any) -> None:
        import tensorstore

        self.ts = tensorstore
        self.context = context

    def begin(self, folder: Path, shape: Shape, chunk_size: int) -> None:
        frame = (1, *shape[1:])
        inner = [{"name": "bytes"}, {"name": "zstd", "configuration": {"level": LEVEL}}]
        index = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
        sharding = {"chunk_shape": frame, "codecs": inner, "index_codecs": index, "index_location": "end"}
        grid = {"name": "regular", "configuration": {"chunk_shape": (chunk_size, *shape[1:])}}
        self.store = self.ts.open(
            {
                "driver": "zarr3",
                "kvstore": {"driver": "file", "path": f"{folder}/frames/"},
                "create": True,
                "delete_existing": True,
                "context": self.context,
                "metadata": {
                    "shape": shape,
                    "data_type": "uint8",
                    "chunk_grid": grid,
                    "codecs": [{"name": "sharding_indexed", "configuration": sharding}],
                },
            }
        ).result()
        self.writes: list[Any] = []

    def _write(self, start: int, chunk: NDArray[np.uint8]) -> Any:
        write = self.store[start : start + len(chunk)].write(chunk)
        self.writes.append(write)
        if len(self.writes) > IN_FLIGHT:
            self.writes.pop(0).result()
        return write

    def write(self, start: int, chunk: NDArray[np.uint8]) -> None:
        self._write(start, chunk)

    def copied(self, start: int, chunk: NDArray[np.uint8]) -> None:
        self._write(start, chunk).copy.result()

    def end(self) -> None:
        for write in self.writes:
            write.result()
        del self.store, self.writes


class ZarrPython(Writer):
    """zarr-python, with its own codec pipeline or another."""

    def __init__(self, pipeline: str | None = None) -> None:
        import zarr
        import zarr.codecs

        if pipeline is not None:
            __import__(pipeline.partition(".")[0])
            zarr.config.set({"codec_pipeline.path": pipeline})
        self.zarr = zarr

    def begin(self, folder: Path, shape: Shape, chunk_size: int) -> None:
        self.array = self.zarr.create_array(
            f"{folder}/frames",
            shape=shape,
            dtype="uint8",
            chunks=(1, *shape[1:]),
            shards=(chunk_size, *shape[1:]),
            compressors=self.zarr.codecs.ZstdCodec(level=LEVEL, checksum=False),
            fill_value=0,
        )

    def write(self, start: int, chunk: NDArray[np.uint8]) -> None:
        self.array[start : start + len(chunk)] = chunk


PEERS: dict[str, Callable[[], Writer]] = {
    "acquire-zarr": AcquireZarr,
    "tensorstore": TensorStore,
    "tensorstore, no fsync": lambda: TensorStore(file_io_sync=False),
    "tensorstore, no fsync, copies by 2": lambda: TensorStore(file_io_sync=False, data_copy_concurrency={"limit": 2}),
    "zarr-python": ZarrPython,
    "zarr-python with zarrs": lambda: ZarrPython("zarrs.ZarrsCodecPipeline"),
}
OURS = {"ours": False, "ours, fsync": True}
"""Whether with fsync."""


# -- whole movies ------------------------------------------------------------------------------------------------------


def chunks(frames: Any, chunk_size: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yield slices of an array, or of an HDF5 dataset, as a script reads them."""
    for start in range(0, len(frames), chunk_size):
        yield start, frames[start : start + chunk_size]


def peer_s(writer: Writer, folder: Path, frames: Any, chunk_size: int) -> float:
    began = time.perf_counter()
    writer.begin(folder, frames.shape, chunk_size)
    for start, chunk in chunks(frames, chunk_size):
        writer.write(start, chunk)
    writer.end()
    return time.perf_counter() - began


async def ours_s(plan: Any, folder: Path, frames: NDArray[np.uint8], *, fsync: bool) -> float:
    """Pack in threads and deliver into a lake, as the pipeline does with frames that it has read."""
    from ingest.contents import StreamOrigin
    from ingest.destinations import LakeDestination
    from ingest.lake.opening import open_store
    from ingest.ledger import Receipt
    from ingest.orders import orders_of
    from ingest.shard import pack_and_digest
    from tests.benchmarks.serial import THREADS, contents_of

    began = time.perf_counter()
    destination = LakeDestination(open_store(str(folder), fsync=fsync))
    data_id = await destination.open_stream(plan.settings, "key", StreamOrigin.of(plan))
    loop, window = asyncio.get_running_loop(), asyncio.Semaphore(2 * THREADS)
    receipts: list[Receipt] = []
    with ThreadPoolExecutor(THREADS) as packers:

        async def one(order: Any) -> None:
            index, meta = order.task.index, order.meta
            async with window:
                shard, digest = await loop.run_in_executor(
                    packers, pack_and_digest, frames[order.task.start : order.task.stop]
                )
                delivery = await destination.deliver(data_id, index, meta, shard)
            size, crc = shard.n_bytes, shard.crc32c()
            times = meta.start_unix_ms_utc, meta.end_unix_ms_utc
            receipts.append(Receipt(index, meta.frames, *times, size, crc, digest, delivery.etag, 1, "", 0))

        orders = orders_of("key", data_id, plan, range(len(plan.chunks)))
        await asyncio.gather(*(one(order) for order in orders))
    await destination.close_stream(data_id, contents_of(plan, data_id, receipts))
    seconds = time.perf_counter() - began
    await destination.aclose()
    return seconds


async def pipeline_s(plan: Any, folder: Path, *, fsync: bool) -> float:
    """The whole pipeline, from file to lake, without Ray."""
    from ingest.destinations import LakeDestination
    from ingest.lake.opening import open_store
    from tests.benchmarks.serial import deliver

    return await deliver(plan, LakeDestination(open_store(str(folder), fsync=fsync)))


def timed(write: Callable[[Path], float]) -> dict[str, Any]:
    """Wait for a folder and write there; return the seconds and the processor's, of all threads."""
    folder = folder_asked()
    before = time.process_time()
    seconds = write(folder)
    return {"seconds": seconds, "cpu_s": time.process_time() - before}


def movie(name: str, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Write a movie as often as asked."""
    path, chunk_size = Path(task["hdf5"]), task["chunk_size"]
    with h5py.File(path) as file:
        dataset = file[task["dataset"]]
        frames: Any = dataset
        if task["memory"] is not None:
            frames = np.load(task["memory"], mmap_mode="r")  # one copy for all writers
            np.add.reduce(frames.reshape(-1)[::4096])  # and all of it mapped before it is timed
        if name not in OURS:
            writer = PEERS[name]()
            yield {}
            while True:
                yield timed(lambda folder: peer_s(writer, folder, frames, chunk_size))
        import zarr  # noqa: F401 - imported by the first close; peers have imported all of theirs

        from ingest.allocator import keep_freed_memory
        from tests.benchmarks.files import plan_of

        keep_freed_memory()  # as packers do
        plan, fsync = plan_of(path, to=["lake"]), OURS[name]
        yield {}
        while True:
            if task["memory"] is None:
                yield timed(lambda folder: asyncio.run(pipeline_s(plan, folder, fsync=fsync)))
            else:
                yield timed(lambda folder: asyncio.run(ours_s(plan, folder, frames, fsync=fsync)))


# -- one append --------------------------------------------------------------------------------------------------------


def streamed(ring: NDArray[np.uint8], task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Push into our streamer with a lake as its destination."""
    from actors import RHEEDStreamer
    from tests.benchmarks.live_client import SETTLE_S

    folder = folder_asked()
    streamer = RHEEDStreamer(destination=folder)
    data_id = streamer.initialize(task["fps"], 0.0, task["chunk_size"], stream_name="push")
    time.sleep(SETTLE_S)
    milliseconds = paced(task, lambda index, chunk: streamer.push(data_id, index, chunk), ring)
    began = time.perf_counter()
    report = streamer.finalize(data_id)
    if report["chunks_uploaded"] != task["pushes"]:
        raise RuntimeError(f"not all of {task['pushes']} chunks are in the lake: {report}")
    yield {"milliseconds": milliseconds, "end_s": time.perf_counter() - began}


def appended(writer: Writer, ring: NDArray[np.uint8], task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Append to a peer's array."""
    size = task["chunk_size"]
    writer.begin(folder_asked(), (task["pushes"] * size, *ring.shape[2:]), size)
    milliseconds = paced(task, lambda index, chunk: writer.copied(index * size, chunk), ring)
    began = time.perf_counter()
    writer.end()
    yield {"milliseconds": milliseconds, "end_s": time.perf_counter() - began}


def paced(
    task: dict[str, Any], append: Callable[[int, NDArray[np.uint8]], object], ring: NDArray[np.uint8]
) -> list[float]:
    milliseconds = []
    due = time.perf_counter()
    for index in range(task["pushes"]):
        began = time.perf_counter()
        append(index, ring[index % len(ring)])
        milliseconds.append((time.perf_counter() - began) * 1000)
        due += task["pause_s"]
        time.sleep(max(due - time.perf_counter(), 0))
    return milliseconds


def push(name: str, task: dict[str, Any]) -> Iterator[dict[str, Any]]:
    ring = np.load(task["ring"])
    turns = streamed(ring, task) if name in OURS else appended(PEERS[name](), ring, task)
    yield {}
    yield from turns


# -- the process -------------------------------------------------------------------------------------------------------


def folder_asked() -> Path:
    """Wait for the next folder; the end of the input ends the process."""
    line = sys.stdin.readline()
    if not line:
        sys.exit(0)
    return Path(line.strip())


def status_bytes(field: str) -> int:
    """Return a line of this process's status, such as ``VmHWM``."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


def main() -> int:
    name, task, options = sys.argv[1:4]
    turns = {"movie": movie, "push": push}[task](name, json.loads(options))
    try:
        next(turns)
    except ImportError as exc:
        print(f"{name} is not installed: {exc}", file=sys.stderr)
        return MISSING_EXIT
    before = status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here (proc(5))
    print("ready", flush=True)
    for turn in turns:
        print(json.dumps({**turn, "peak_bytes": status_bytes("VmHWM") - before}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
