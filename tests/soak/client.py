"""The lab script of the soak: one process, a camera in its main thread and a log in another."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors import RHEEDStreamer, TimeseriesStreamer
from ingest.sources.synthetic import GrowthRun

FPS, CHUNK = 120.0, 240
PERIOD_S = CHUNK / FPS
LIT_ROWS = 240  # noise on half of the screen: 25 MB a chunk on disk, so that an hour fits
SERIES_PERIOD_S = 1.0
CHANNELS, POINTS, RATE_HZ = 10, 10, 10.0


class Camera:
    """480 x 640 frames that cost little to make; no two chunks alike, each the same whenever it is made again."""

    def __init__(self, seed: int) -> None:
        run = GrowthRun(CHUNK, 480, 640, fps=FPS, seed=seed)
        self._base = run.frames(0, CHUNK)
        self._base[:, LIT_ROWS:] = 6
        self.buffer = np.empty_like(self._base)

    def chunk(self, index: int) -> NDArray[np.uint8]:
        """Return a chunk in the camera's one buffer, which the next call overwrites."""
        np.bitwise_xor(self._base, np.uint8(index % 251), out=self.buffer)
        marks = np.empty((CHUNK, 2), "<u4")
        marks[:, 0], marks[:, 1] = index, np.arange(CHUNK)
        self.buffer[:, 0, :8] = marks.view(np.uint8)
        return self.buffer


def readings(index: int, start_s: float) -> dict[str, dict[str, Any]]:
    """Return a chunk of all channels; the same for the same arguments."""
    stamps = start_s + np.arange(index * POINTS, (index + 1) * POINTS) / RATE_HZ
    return {
        f"channel {number}": {"timestamps": stamps, "values": np.sin(stamps * (number + 1)), "units": "C"}
        for number in range(CHANNELS)
    }


def explicit_ms(index: int, start_ms: int) -> int | None:
    """Return the time that a chunk is pushed with: none for every other one, which is stamped as it comes."""
    return start_ms + round(index * PERIOD_S * 1000) if index % 2 else None


def push_series(streamer: TimeseriesStreamer, data_id: str, start_s: float, until: float, log: list[Any]) -> None:
    due, index = time.monotonic(), 0
    while time.monotonic() < until:
        channels = readings(index, start_s)
        began = time.perf_counter()
        streamer.push_multi(data_id, index, channels)
        log.append([index, time.time(), (time.perf_counter() - began) * 1000])
        index += 1
        due += SERIES_PERIOD_S
        time.sleep(max(due - time.monotonic(), 0))


def push_frames(streamer: RHEEDStreamer, data_id: str, camera: Camera, start_ms: int, until: float) -> list[Any]:
    log, index, due = [], 0, time.monotonic()
    while time.monotonic() < until:
        frames = camera.chunk(index)
        now = time.time()
        began = time.perf_counter()
        streamer.push(data_id, index, frames, explicit_ms(index, start_ms))
        log.append([index, now, (time.perf_counter() - began) * 1000])
        index += 1
        due += PERIOD_S
        time.sleep(max(due - time.monotonic(), 0))
    return log


def main() -> None:
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    url, folder, seconds, seed = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    camera = Camera(seed)
    key, state = os.environ["AS_API_KEY"], folder / "state"
    frames = RHEEDStreamer(key, url, state_dir=state)
    series = TimeseriesStreamer(key, url, points_per_chunk=POINTS, state_dir=state)
    frames_id = frames.initialize(FPS, 0.0, CHUNK, "soak", "soak sample", tags=["soak"])
    series_id = series.initialize("soak log", physical_sample="soak sample")
    start_ms = time.time_ns() // 1_000_000
    print(json.dumps({"frames_id": frames_id, "series_id": series_id, "start_ms": start_ms}), flush=True)
    sys.stdin.readline()
    until = time.monotonic() + seconds
    series_log: list[Any] = []
    beside = threading.Thread(target=push_series, args=(series, series_id, start_ms / 1000, until, series_log))
    beside.start()
    frames_log = push_frames(frames, frames_id, camera, start_ms, until)
    beside.join()
    began = time.monotonic()
    reports = [dict(frames.finalize(frames_id)), dict(series.finalize(series_id))]
    done = {"frames": frames_log, "series": series_log, "reports": reports, "finalize_s": time.monotonic() - began}
    (folder / "client.json").write_text(json.dumps(done))
    frames.close()
    series.close()


if __name__ == "__main__":
    main()
