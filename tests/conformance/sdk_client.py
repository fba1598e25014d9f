"""Run by test_sdk.py in a process of its own: the official SDK, unmodified, streams what is in an .npz file.

Prints one JSON document with the ids of the streams.
"""

import json
import os
import sys

import numpy as np
from atomscale.streaming import RHEEDStreamer


def main() -> None:
    url, path = sys.argv[1:]
    data = np.load(path)
    frames, chunk_size, start_ms = data["frames"], int(data["chunk_size"]), int(data["start_ms"])
    fps = float(data["fps"])
    chunks = [
        (np.ascontiguousarray(frames[i : i + chunk_size]), start_ms + round(i / fps * 1000))
        for i in range(0, len(frames), chunk_size)
    ]
    streamer = RHEEDStreamer(os.environ["AS_API_KEY"], url)
    project = "6f1f6a1e-6d0e-4d4e-9a40-0f2bd0c3a001"
    ran = streamer.initialize(fps, 0.0, chunk_size, "by run", " GaN 42 ", project, ["growth", "Growth", " test "])
    streamer.run(ran, iter(chunks))
    streamer.finalize(ran)
    pushed = streamer.initialize(fps, 12.0, chunk_size, "by push", "gan 42", None, ["TEST"])
    for index, (chunk, capture_start_ms) in enumerate(chunks):
        streamer.push(pushed, index, chunk, capture_start_ms)
    streamer.finalize(pushed)
    sys.stdout.write(json.dumps({"run": ran, "push": pushed, "project": project}))


if __name__ == "__main__":
    main()
