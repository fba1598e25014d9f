"""The official SDK's `run()`, fed from a movie; a process of its own that prints its seconds."""

from __future__ import annotations

import os
import sys
import time

import h5py

from tests.benchmarks.files import CHUNK, REAL_CHUNK


def main() -> None:
    from atomscale.streaming import RHEEDStreamer

    path, dataset, url, fps = sys.argv[1:5]
    streamer = RHEEDStreamer(os.environ["AS_API_KEY"], url)
    with h5py.File(path) as file:
        frames = file[dataset]
        chunk = CHUNK if float(fps) > 100 else REAL_CHUNK
        began = time.perf_counter()
        data_id = streamer.initialize(float(fps), 0.0, chunk, stream_name="sdk")
        stamped = ((frames[i : i + chunk], 1_700_000_000_000 + i * 10) for i in range(0, len(frames), chunk))
        streamer.run(data_id, stamped)
        ran = time.perf_counter() - began
        streamer.finalize(data_id)
        print(f"{ran:.4f} {time.perf_counter() - began:.4f}")


if __name__ == "__main__":
    main()
