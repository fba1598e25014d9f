"""Frames per second out of each format: by us, and by the plain reader of that format in a loop, in one run."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import h5py
import numpy as np
import tifffile
import zarr
import zstandard
from numpy.typing import NDArray
from PIL import Image

from ingest.allocator import keep_freed_memory
from ingest.cli.planning import find_candidates
from ingest.config import BackfillSettings
from ingest.destinations import NullDestination, open_and_link
from ingest.orders import orders_of
from ingest.pipeline import Delivered, Pipeline
from ingest.plan import RunPlan
from ingest.sources import open_source
from ingest.sources.synthetic import GrowthRun
from tests.benchmarks import memory
from tests.benchmarks.counting_server import CountingServer
from tests.sources.ksa_files import write_ksa

HEIGHT, WIDTH, FPS = 480, 640, 30.0
SLICE = 60
REPEATS = 3


def movie(count: int) -> Iterator[NDArray[np.uint8]]:
    """Yield frames like a camera's: smooth spots, some noise."""
    run = GrowthRun(64, HEIGHT, WIDTH)
    held = run.frames(0, 64)
    for i in range(count):
        yield np.roll(held[i % 64], i // 64, axis=1)


def write_video(path: Path, count: int, codec: str, pixel_format: str, **options: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(int(FPS)), options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        for frame in movie(count):
            picture = av.VideoFrame.from_ndarray(frame, format="gray").reformat(format=pixel_format)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))


def write_12_bit(path: Path, count: int) -> None:
    frames = np.stack(list(movie(count))).astype(np.uint16) << 4
    write_ksa(path, frames, [1_500_000_000_000 + round(i * 1000 / FPS) for i in range(count)])


# -- plain readers -----------------------------------------------------------------------------------------------------


def plain_video(path: Path) -> Iterator[NDArray[np.uint8]]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for frame in container.decode(stream):
            plane = frame.planes[0]
            yield np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:HEIGHT, :WIDTH].copy()


def plain_hdf5(path: Path) -> Iterator[NDArray[np.uint8]]:
    with h5py.File(path) as file:
        frames = file["frames"]
        for start in range(0, len(frames), SLICE):
            yield from frames[start : start + SLICE]


def plain_ksa(path: Path) -> Iterator[NDArray[np.uint8]]:
    stride = 640 + HEIGHT * WIDTH * 2
    grey = np.clip(np.arange(65536) * 255 // 4096, 0, 255).astype(np.uint8)
    raw = np.memmap(path, np.uint8, "r")
    for start in range(640, len(raw), stride):
        yield grey[raw[start : start + stride - 640].view("<u2").reshape(HEIGHT, WIDTH)]


def plain_tiff(path: Path) -> Iterator[NDArray[np.uint8]]:
    with tifffile.TiffFile(path) as file:
        for page in file.pages:
            yield page.asarray()


def plain_png(path: Path) -> Iterator[NDArray[np.uint8]]:
    for name in sorted(path.iterdir()):
        with Image.open(name) as picture:
            yield np.asarray(picture)


def plain_zarr(path: Path) -> Iterator[NDArray[np.uint8]]:
    array = zarr.open_array(path, mode="r")
    for start in range(0, array.shape[0], SLICE):
        yield from np.asarray(array[start : start + SLICE])


@dataclass(frozen=True)
class Format:
    """A way to store a movie: how it is written, and read plainly."""

    name: str
    file: str
    write: Callable[[Path, int], None]
    plain: Callable[[Path], Iterator[NDArray[np.uint8]]]
    count: int


def _hdf5(**storage) -> Callable[[Path, int], None]:
    def write(path: Path, count: int) -> None:
        with h5py.File(path, "w") as file:
            out = file.create_dataset("frames", (count, HEIGHT, WIDTH), "u1", **storage)
            for start in range(0, count, SLICE):
                stop = min(start + SLICE, count)
                out[start:stop] = np.stack(list(movie(stop))[start:stop])

    return write


def _write_tiff(path: Path, count: int) -> None:
    with tifffile.TiffWriter(path) as file:
        for frame in movie(count):
            file.write(frame, contiguous=False, compression="zlib")


def _write_png(path: Path, count: int) -> None:
    path.mkdir()
    for i, frame in enumerate(movie(count)):
        Image.fromarray(frame).save(path / f"img_{i:05d}.png", compress_level=1)


def _write_zarr(path: Path, count: int) -> None:
    shape = (count, HEIGHT, WIDTH)
    out = zarr.create_array(
        str(path), shape=shape, dtype="u1", chunks=(1, HEIGHT, WIDTH), shards=(SLICE, HEIGHT, WIDTH),
        dimension_names=("frame", "y", "x"),
    )  # fmt: skip
    frames = list(movie(count))
    for start in range(0, count, SLICE):
        out[start : start + SLICE] = np.stack(frames[start : start + SLICE])


FORMATS = (
    Format("HDF5 contiguous", "a.h5", _hdf5(), plain_hdf5, 1200),
    Format("HDF5 gzip, hdf5_chunk of 1", "b.h5", _hdf5(chunks=(1, HEIGHT, WIDTH), compression=4), plain_hdf5, 600),
    Format("HDF5 gzip, hdf5_chunk of 64", "c.h5", _hdf5(chunks=(64, HEIGHT, WIDTH), compression=4), plain_hdf5, 600),
    Format("kSA .imm, 12 bit", "k.imm", write_12_bit, plain_ksa, 600),
    Format("TIFF pages, zlib", "d.tif", _write_tiff, plain_tiff, 600),
    Format("PNG sequence", "png", _write_png, plain_png, 600),
    Format("Zarr v3, shards of 60", "e.zarr", _write_zarr, plain_zarr, 1200),
    Format(
        "MJPEG in AVI", "f.avi", lambda path, n: write_video(path, n, "mjpeg", "yuvj420p", qscale="3"), plain_video, 900
    ),
    Format(
        "h264 in mp4",
        "g.mp4",
        lambda path, n: write_video(path, n, "libx264", "yuv420p", preset="veryfast", crf="23"),
        plain_video,
        3000,
    ),
)


def _plan(path: Path) -> RunPlan:
    settings = BackfillSettings(
        fps=FPS, chunk_size=SLICE, rotations_per_min=0.0, start="2023-10-18T08:00:00Z", sources=(str(path),)
    )
    [candidate] = find_candidates([str(path)], settings, planning=True)
    if not isinstance(candidate.plan, RunPlan):
        raise RuntimeError(str(candidate.error))
    return candidate.plan


def _plain_s(reader: Iterator[NDArray[np.uint8]], *, compressed: bool) -> float:
    compress = zstandard.ZstdCompressor(level=1).compress if compressed else np.sum
    kept: list[object] = []
    began = time.perf_counter()
    for frame in reader:
        if compressed:
            kept.append(compress(np.ascontiguousarray(frame)))
    return time.perf_counter() - began


def _read_s(plan: RunPlan) -> float:
    """Read the run in chunks, as a packer does, and drop what is read."""
    memory = np.empty(SLICE * HEIGHT * WIDTH, np.uint8)
    began = time.perf_counter()
    for task in plan.chunks:
        with open_source(plan.spec) as source:
            source.read(task.start, task.stop, memory)
    return time.perf_counter() - began


async def _deliver(plan: RunPlan) -> float:
    destination = NullDestination()

    async def created(data_id: str) -> None: ...

    data_id = await open_and_link(destination, plan.settings, str(time.time_ns()), created)
    pipeline = Pipeline(destination)
    window = asyncio.Semaphore(2)

    async def one(order) -> None:
        async with window:
            outcome = await pipeline.run(order)
            if not isinstance(outcome, Delivered):
                raise RuntimeError(f"not delivered: {outcome}")

    began = time.perf_counter()
    await asyncio.gather(*(one(order) for order in orders_of("key", data_id, plan, range(len(plan.chunks)))))
    seconds = time.perf_counter() - began
    await pipeline.aclose()
    return seconds


def _in_child(mode: str, path: Path, first: int = 0, last: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.benchmarks.formats", mode, str(path), str(first), str(last)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _two_s(path: Path, chunks: int) -> float:
    """Two packers, each with its half of the chunks, in processes of their own that are ready before it is timed."""
    half = chunks // 2
    children = [_in_child("pack", path, 0, half), _in_child("pack", path, half, chunks)]
    for child in children:
        if child.stdout.readline() != "ready\n":
            raise RuntimeError("a packer did not start")
    began = time.perf_counter()
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    done = [child.stdout.readline() for child in children]
    seconds = time.perf_counter() - began
    for child in children:
        child.communicate()
    if done != ["done\n"] * 2:
        raise RuntimeError("a packer did not finish")
    if any(child.returncode for child in children):
        raise RuntimeError("a packer failed")
    return seconds


def formats(folder: Path, chosen: str = "") -> None:
    """Every format: reading alone, then read and packed into the null destination, by one packer and by two."""
    keep_freed_memory()
    for format_ in FORMATS:
        if chosen not in format_.name:
            continue
        path = folder / format_.file
        format_.write(path, format_.count)
        plan = _plan(path)
        _read_s(plan)  # warms the page cache
        plain, read, both, one = [], [], [], []
        for _ in range(REPEATS):
            plain.append(_plain_s(format_.plain(path), compressed=False))
            read.append(_read_s(plan))
            both.append(_plain_s(format_.plain(path), compressed=True))
            one.append(asyncio.run(_deliver(plan)))
        two = min(_two_s(path, len(plan.chunks)) for _ in range(2))
        rates = [format_.count / min(seconds) for seconds in (plain, read, both, one)]
        print(
            f"formats, {format_.name}, {format_.count} frames: plain reader {rates[0]:.0f} frames/s, ours "
            f"{rates[1]:.0f} ({rates[1] / rates[0]:.2f}, >= 0.9); with zstd, plain loop {rates[2]:.0f}, one packer "
            f"{rates[3]:.0f} ({rates[3] / rates[2]:.2f}), two {format_.count / two:.0f} "
            f"({format_.count / two / rates[3]:.2f} of one)",
            flush=True,
        )


def long_movie(folder: Path) -> None:
    """An h264 movie of ten minutes: its inspection, and the whole of it by two packers."""
    path = folder / "long.mp4"
    write_video(path, round(600 * FPS), "libx264", "yuv420p", preset="ultrafast", crf="28")
    began = time.perf_counter()
    plan = _plan(path)
    inspected_s = time.perf_counter() - began
    plain = _plain_s(plain_video(path), compressed=True)
    one = asyncio.run(_deliver(plan))
    two = _two_s(path, len(plan.chunks))
    print(
        f"h264 of 10 minutes ({plan.frames} frames, {path.stat().st_size / 1e6:.0f} MB): inspected in "
        f"{inspected_s:.2f} s; plain loop with zstd {plan.frames / plain:.0f} frames/s, one packer "
        f"{plan.frames / one:.0f} ({plain / one:.2f}), two {plan.frames / two:.0f}"
    )


def movie_memory(folder: Path) -> None:
    """The peak of all processes for a movie of one minute and for one of ten."""
    peaks = []
    with CountingServer() as server:
        for minutes in (1, 10):
            path = folder / f"{minutes}.mp4"
            write_video(path, round(60 * minutes * FPS), "libx264", "yuv420p", preset="ultrafast", crf="28")
            highest, kinds = memory.peak(path, server.url, "benchmark-key-0123456789")
            peaks.append(highest)
            parts = ", ".join(f"{kind} {pss:.0f}" for kind, pss in sorted(kinds.items()) if kind)
            print(f"memory, h264 of {minutes} min: peak {highest:.0f} MB in all ({parts})", flush=True)
            path.unlink()
    print(f"memory, h264: ten minutes against one {peaks[1] / peaks[0]:.2f}")


def _child(arguments: list[str]) -> int:
    _, path, first, last = arguments
    keep_freed_memory()
    plan = _plan(Path(path))
    part = list(range(int(first), int(last)))
    print("ready", flush=True)
    sys.stdin.readline()

    async def run() -> None:
        destination = NullDestination()

        async def created(data_id: str) -> None: ...

        data_id = await open_and_link(destination, plan.settings, "k", created)
        pipeline = Pipeline(destination)
        window = asyncio.Semaphore(2)

        async def one(order) -> None:
            async with window:
                if not isinstance(await pipeline.run(order), Delivered):
                    raise RuntimeError("not delivered")

        await asyncio.gather(*(one(order) for order in orders_of("key", data_id, plan, part)))
        await pipeline.aclose()

    asyncio.run(run())
    print("done", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(_child(sys.argv[1:]))
