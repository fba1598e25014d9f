"""Runs the benchmarks named on the command line, or all."""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import numpy as np
import zstandard

from ingest.allocator import keep_freed_memory
from ingest.plan import RunPlan
from ingest.server.run import start_server_process
from ingest.shard import pack
from ingest.sources.synthetic import GrowthRun
from ingest.telemetry import Secret
from ingest.timing import chunk_start_ms, cut, fit_timeline, time_error
from tests.benchmarks import files, memory
from tests.benchmarks.counting_server import CountingServer
from tests.benchmarks.files import plan_of
from tests.benchmarks.formats import formats, long_movie, movie_memory
from tests.benchmarks.lake import lake, lake_push, lake_resume, lake_s3
from tests.benchmarks.live import LIVE, QUICK, Scale
from tests.benchmarks.ray_run import with_ray
from tests.benchmarks.serial import without_ray

KEY = Secret("benchmark-key-0123456789")
ROOT = Path(__file__).parents[2]


def packing(folder: Path) -> None:
    """Pack against bare zstandard, same thread, same frames."""
    frames = GrowthRun(240, 300, 500).frames(0, 240)
    keep_freed_memory()  # as packers do; for both
    compressor = zstandard.ZstdCompressor(level=1)
    bare, ours = [], []
    for _ in range(12):
        began = time.perf_counter()
        kept = [compressor.compress(frame) for frame in frames]
        bare.append(time.perf_counter() - began)
        began = time.perf_counter()
        kept = pack(frames)
        ours.append(time.perf_counter() - began)
    del kept
    rate = [frames.nbytes / 1e6 / np.median(seconds) for seconds in (bare, ours)]
    print(f"packing: {rate[1]:.0f} MB/s, bare zstandard {rate[0]:.0f} MB/s: ratio {rate[1] / rate[0]:.2f} (>= 0.9)")


def sdk(path: Path, plan: RunPlan, url: str, folder: Path) -> float:
    """Return the seconds of the official SDK's run()."""
    home = Path(tempfile.mkdtemp(dir=folder))
    out = subprocess.run(
        [
            sys.executable,
            "-m",
            "tests.benchmarks.sdk_run",
            path,
            plan.spec.dataset,
            url,
            str(round(plan.settings.fps, 3)),
        ],
        env={**os.environ, "AS_API_KEY": KEY.reveal(), "HOME": str(home), "ATOMSCALE_SKIP_CLOCK_SYNC": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    if out.returncode:
        raise RuntimeError(out.stderr[-2000:])
    shutil.rmtree(home)
    return float(out.stdout.split()[0])


def backfill(folder: Path, megabytes: int = 2000) -> None:
    """A noisy movie and a real one: on Ray, without Ray, and by the SDK, to one server after the other."""
    import ray

    ray.init(address="local", include_dashboard=False, object_store_memory=128 << 20, log_to_driver=False)
    movies = [files.noisy(folder, megabytes), files.real(folder, megabytes // 4)]
    for path in filter(None, movies):
        plan = plan_of(path)
        size = plan.frames * plan.height_px * plan.width_px / 1e6
        for name in ("embedded platform, fsync", "embedded platform, no fsync", "counting server"):
            data = Path(tempfile.mkdtemp(dir=folder))
            server = (
                CountingServer()
                if name.startswith("counting")
                else start_server_process(data, api_key=KEY, fsync="no" not in name)
            )
            with server:
                without_ray(plan, server.url, KEY)  # warms the page cache; not counted
                serial_s = min(without_ray(plan, server.url, KEY) for _ in range(2))
                rays = [with_ray(plan, server.url, KEY, folder) for _ in range(2)]
                whole_s, steady_s = min(rays)[0], min(steady for _, steady in rays)
                sdk_s = sdk(path, plan, server.url, folder)
            shutil.rmtree(data)
            print(
                f"backfill {path.stem} ({size:.0f} MB), {name}: on Ray {size / steady_s:.0f} MB/s "
                f"({size / whole_s:.0f} with the start of the actors), without Ray {size / serial_s:.0f}, SDK "
                f"{size / sdk_s:.0f}; on/without Ray {serial_s / steady_s:.2f} (>= 0.8; {serial_s / whole_s:.2f} with "
                f"the start), against the SDK {sdk_s / steady_s:.1f}x (>= 4; {sdk_s / whole_s:.1f}x with the start)",
                flush=True,
            )
    ray.shutdown()


def peak_memory(folder: Path) -> None:
    """All processes of a backfill of 0.5 GB and of 4 GB."""
    peaks = []
    with CountingServer() as server:
        for megabytes in (500, 4000):
            path = files.noisy(folder, megabytes)
            highest, kinds = memory.peak(path, server.url, KEY.reveal())
            peaks.append(highest)
            parts = ", ".join(f"{kind} {pss:.0f}" for kind, pss in sorted(kinds.items()) if kind)
            print(f"memory {megabytes} MB: peak {highest:.0f} MB in all ({parts})", flush=True)
            path.unlink()
    print(f"memory: 4 GB against 0.5 GB {peaks[1] / peaks[0]:.2f} (about 1: it must not grow with the file)")


def timelines(folder: Path) -> None:
    """Chunks planned against the ideal, and the worst time error, for stamps as cameras give them."""
    dice = np.random.default_rng(0)
    n, fps = 36_000, 120.0
    grid = np.arange(n) / fps
    jitter = dice.normal(0, 0.001, n)
    kept = np.sort(dice.choice(n, round(n * 0.99), replace=False))
    half = np.concatenate([grid[: n // 2], grid[n // 2] + np.arange(n // 2) / 60.0])
    cases = {
        "regular": grid,
        "1 ms jitter": grid + jitter,
        "4 ms jitter": np.sort(grid + 4 * jitter),
        "1 ms jitter, 1 % dropped": (grid + jitter)[kept],
        "120 then 60 fps": half + jitter,
        "30 gaps of 2 s": grid + 2.0 * (np.arange(n) // 1200) + jitter,
        "bursts of 4": np.floor(np.arange(n) / 4) * 4 / fps,
    }
    for name, seconds in cases.items():
        stamps = np.round((1.7e9 + seconds) * 1e9).astype(np.int64)
        began = time.perf_counter()
        line = fit_timeline(stamps)
        size = int(np.ceil(2 * line.max_fps))
        ranges = cut(len(stamps), size, line.breaks)
        edges = np.array([segment.start for segment in line.segments])
        rates = [line.segments[i].fps for i in np.searchsorted(edges, [a for a, _ in ranges], side="right") - 1]
        starts = [chunk_start_ms(stamps[a:b], rate) for (a, b), rate in zip(ranges, rates, strict=True)]
        error = time_error(stamps, ranges, starts, rates)
        took = time.perf_counter() - began
        print(
            f"times, {name}: {len(ranges)} chunks, ideal {-(-len(stamps) // size)}; "
            f"worst error {error.worst_ms:.2f} ms, p99 {error.p99_ms:.2f} ms, "
            f"{error.over_bound} of {len(stamps)} frames over half a period + 1 ms; {took:.2f} s"
        )


def receipts(folder: Path) -> None:
    """Receipts that an aggregator commits in a second, one by one and in batches as they come."""
    from actors.aggregator import Aggregator
    from ingest.ledger import ChunkConfirmed, CreateBegun, Receipt, StreamCreated, StreamLinked

    path = files.noisy(folder, 40)
    plan = plan_of(path)
    for batch in (1, 8):
        aggregator = Aggregator(str(Path(tempfile.mkdtemp(dir=folder))), 10.0)
        key = aggregator.register("job", 0, "null:", plan.spec.canonical_path, plan).key
        epoch = aggregator.lease("job", key).epoch
        for event in (CreateBegun(), StreamCreated("id"), StreamLinked()):
            aggregator.record(key, epoch, [event])
        aggregator._ledger(key).expected = None
        began = time.perf_counter()
        for first in range(0, 2000, batch):
            events = [
                ChunkConfirmed(Receipt(i, 240, 0, 0, 1, 1, f"{i:032x}", None, 1, "n", 0))
                for i in range(first, first + batch)
            ]
            aggregator.record(key, epoch, events)
        print(f"aggregator, batches of {batch}: {2000 / (time.perf_counter() - began):.0f} receipts/s (>= 2000)")


BENCHMARKS = {
    "packing": packing,
    "timelines": timelines,
    "receipts": receipts,
    "backfill": backfill,
    "memory": peak_memory,
    "formats": formats,
    "long_movie": long_movie,
    "movie_memory": movie_memory,
    "lake": lake,
    "lake_push": lake_push,
    "lake_s3": lake_s3,
    "lake_resume": lake_resume,
}


def main() -> int:
    logging.basicConfig(level=logging.WARNING)
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join((*BENCHMARKS, *LIVE))}; default: all")
    parser.add_argument("--quick", action="store_true", help="a smoke of the live ones: few chunks, figures of no use")
    parser.add_argument("--repeats", type=int, help="of each live one; medians are printed")
    parser.add_argument("--pause-s", type=float, help="from one paced push to the next; a camera's is 2")
    options = parser.parse_args()
    if unknown := set(options.names) - {*BENCHMARKS, *LIVE}:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    scale = QUICK if options.quick else Scale()
    given = {"repeats": options.repeats, "pause_s": options.pause_s}
    scale = replace(scale, **{name: value for name, value in given.items() if value is not None})
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        for name in options.names or (*BENCHMARKS, *LIVE):
            if name in LIVE:
                LIVE[name](folder, scale)
            else:
                BENCHMARKS[name](folder)
    finally:
        shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
