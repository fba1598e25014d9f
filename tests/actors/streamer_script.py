"""A lab's script, written for the SDK but for the import; run in a process of its own by test_streamers.py.

``streamer_script.py URL STATE FOLDER WHAT``: pushes chunks 0, 1, ... of `frames_of` and one of points, does WHAT, ends.
URL is a platform's or a lake's.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import ray

from actors import RHEEDStreamer, TimeseriesStreamer
from actors.live_setup import LiveOptions
from ingest.destinations import is_lake
from tests.live_support import START_MS, frames_of


def main(url: str, state: str, folder: str, what: str) -> None:
    """Stream, and say in files of `folder` how far it is."""
    key = os.environ["AS_API_KEY"]
    url, lake = (None, url) if is_lake(url) else (url, None)
    actors = LiveOptions(packers=1, lease_s=3.0)
    options = {"destination": lake, "state_dir": state, "object_store_bytes": 100 << 20, "options": actors}
    streamer = RHEEDStreamer(key, url, **options)
    data_id = streamer.initialize(20.0, 0.0, 40, stream_name=what)
    (Path(folder) / "data_id").write_text(data_id)
    if what == "finalize":
        log = TimeseriesStreamer(key, url, **options)
        log_id = log.initialize("log")
        (Path(folder) / "log_id").write_text(log_id)
        log.push(log_id, 0, "T", [1000.0, 1001.0], [20.5, 21.5], "degC")
        for index in range(3):
            streamer.push(data_id, index, frames_of(index), START_MS + 400 * index)
        log.finalize(log_id)
        streamer.finalize(data_id)
        after_ray_is_gone(streamer, data_id, Path(folder))
    elif what == "exit":
        for index in range(6):
            streamer.push(data_id, index, frames_of(index, 40, 100, 100), START_MS + 2000 * index)
    elif what == "killed":
        for index in range(100_000):
            streamer.push(data_id, index, frames_of(index, 40, 100, 100), START_MS + 2000 * index)
            (Path(folder) / "pushed.new").write_text(str(index))
            (Path(folder) / "pushed.new").rename(Path(folder) / "pushed")
            time.sleep(0.02)


def after_ray_is_gone(streamer: RHEEDStreamer, data_id: str, folder: Path) -> None:
    """Shut Ray down under the streamer, and say what that does."""
    ray.shutdown()
    try:
        streamer.push(data_id, 9, frames_of(9))
    except RuntimeError as exc:
        (folder / "after").write_text(str(exc))
    time.sleep(2.5)  # the background has looked for notices since
    (folder / "began_anew").write_text(str(ray.is_initialized()))


if __name__ == "__main__":
    main(*sys.argv[1:])
