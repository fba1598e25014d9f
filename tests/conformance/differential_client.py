"""Run by test_differential.py in a process of its own: one script, one library, one recording server.

``python -m tests.conformance.differential_client LIBRARY URL`` imports the streamers from LIBRARY, which is
`atomscale.streaming` or `actors`, runs every script and every misuse with them, and prints one JSON document: what each
call came to.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np

from tests.conformance.recording_server import KNOWN_SAMPLE, KNOWN_TAG

API_KEY = "recorded-key-0123456789"
PROJECT = "6f1f6a1e-6d0e-4d4e-9a40-0f2bd0c3a001"
FPS, CHUNK_SIZE, START_MS = 10.0, 20, 1_700_000_000_123


class Trial:
    """One script's or misuse's calls, each written down with what it came to."""

    def __init__(self, name: str, library, url: str, rheed, series) -> None:
        self.name, self.library, self.url, self.rheed, self.series = name, library, url, rheed, series
        self.steps: list[dict] = []

    def call(self, function: Callable, *args, **kwargs):
        """Call, write down what it came to, and let its exception pass."""
        step = {"call": function.__name__, "raised": [], "message": "", "warned": []}
        self.steps.append(step)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                step["raised"] = [kind.__name__ for kind in type(error).__mro__]
                step["message"] = str(error)
                raise
            finally:
                step["warned"] = [f"{item.category.__name__}: {item.message}" for item in caught]
        step["result"] = result if isinstance(result, str | dict | None) else repr(result)
        return result

    def frames_stream(self, fps: float = 2.0, rotations_per_min: float = 0.0, chunk_size: int = 4, **more) -> str:
        """Create the trial's RHEED stream."""
        return self.call(self.rheed.initialize, fps, rotations_per_min, chunk_size, **{"stream_name": self.name} | more)

    def series_stream(self, **more) -> str:
        """Create the trial's time-series stream."""
        return self.call(self.series.initialize, **{"stream_name": self.name} | more)


def frames(count: int, height: int = 12, width: int = 16, seed: int = 7) -> np.ndarray:
    """Return noise without zeros: a frame of zeros is a case of its own."""
    return np.random.default_rng(seed).integers(1, 255, (count, height, width), np.uint8)


def chunks(count: int = 47) -> list[tuple[np.ndarray, int]]:
    """Return frames and start of each chunk of a stream whose last chunk is short."""
    made = frames(count)
    return [(made[i : i + CHUNK_SIZE], START_MS + i * 100) for i in range(0, count, CHUNK_SIZE)]


def by_run(trial: Trial) -> None:
    data_id = trial.frames_stream(FPS, 0.0, CHUNK_SIZE)
    trial.call(trial.rheed.run, data_id, iter(chunks()))
    trial.call(trial.rheed.finalize, data_id)


def by_push(trial: Trial) -> None:
    data_id = trial.frames_stream(FPS, 12.0, CHUNK_SIZE)
    for index, (part, start_ms) in enumerate(chunks()):
        trial.call(trial.rheed.push, data_id, index, part, start_ms)
    trial.call(trial.rheed.finalize, data_id)


def by_keyword(trial: Trial) -> None:
    data_id = trial.call(
        trial.rheed.initialize, fps=7, rotations_per_min=0, chunk_size=14, stream_name=trial.name, azimuth=" [110] "
    )
    [(part, start_ms)] = chunks(14)
    trial.call(trial.rheed.push, data_id=data_id, chunk_idx=3, frames=part, capture_start_ms_utc=start_ms)
    trial.call(trial.rheed.finalize, data_id=data_id)


def default_name(trial: Trial) -> None:
    for name in (None, "", "  "):
        trial.frames_stream(stream_name=name)


def live(trial: Trial) -> None:
    """Bare arrays, in every form that is taken: the times are the only difference that is allowed."""
    data_id = trial.frames_stream(FPS, 0.0, CHUNK_SIZE)
    trial.call(trial.rheed.push, data_id, 0, frames(20))
    trial.call(trial.rheed.push, data_id, 1, frames(1)[0])
    trial.call(trial.rheed.finalize, data_id)


def live_run(trial: Trial) -> None:
    data_id = trial.frames_stream(FPS, 0.0, CHUNK_SIZE)
    made = frames(30)
    trial.call(trial.rheed.run, data_id, [made[:20], made[20], made[21:].tolist()])
    trial.call(trial.rheed.finalize, data_id)


def array_run(trial: Trial) -> None:
    """An array is iterable, too: each of its frames is a chunk."""
    data_id = trial.frames_stream()
    trial.call(trial.rheed.run, data_id, frames(3))
    trial.call(trial.rheed.finalize, data_id)


def forms() -> dict[str, np.ndarray]:
    """Return what is coerced to uint8, in all its forms; what ought to arrive is ``astype(np.uint8)``."""
    ramp = np.arange(1, 4 * 6 * 8 + 1).reshape(4, 6, 8)
    read_only = frames(4)
    read_only.setflags(write=False)
    return {
        "float32 with fractions": ramp.astype(np.float32) + 0.7,
        "float64 below zero": ramp - 300.5,
        "float16": ramp.astype(np.float16),
        "uint16 above 255": (ramp * 300).astype(np.uint16),
        "uint16 big-endian": (ramp * 5).astype(">u2"),
        "int64 that wraps": ramp * 77 - 1000,
        "int8": (ramp - 97).astype(np.int8),
        "bool": ramp % 3 == 0,
        "object": ramp.astype(object),
        "strided": frames(8, 12, 16)[::2, ::2, ::2],
        "broadcast": np.broadcast_to(frames(1), (4, 12, 16)),
        "read-only": read_only,
        "one zero frame": np.where(np.arange(4)[:, None, None] == 1, 0, ramp).astype(np.uint8),
        "one frame": frames(1)[0],
        "more than chunk_size": frames(9),
        "another size": frames(4, 5, 5),
    }


def coerced(trial: Trial) -> None:
    data_id = trial.frames_stream()
    for index, form in enumerate(forms().values()):
        trial.call(trial.rheed.push, data_id, index, form, START_MS + index)
    trial.call(trial.rheed.push, data_id, 90, frames(4).tolist(), START_MS)
    trial.call(trial.rheed.push, data_id, np.int64(91), memoryview(frames(4)), np.int64(START_MS))
    trial.call(trial.rheed.finalize, data_id)


def two_at_once(trial: Trial) -> None:
    """One streamer, two streams, chunk by chunk in turns."""
    first = trial.frames_stream(FPS, 0.0, CHUNK_SIZE)
    second = trial.frames_stream(20.0, 30.0, 40, stream_name=f"{trial.name}, the second")
    for index, (part, start_ms) in enumerate(chunks()):
        trial.call(trial.rheed.push, first, index, part, start_ms)
        trial.call(trial.rheed.push, second, index, part[:, ::2], start_ms + 5)
    trial.call(trial.rheed.finalize, second)
    trial.call(trial.rheed.finalize, first)


def recovers(trial: Trial) -> None:
    """The server fails once at each step."""
    data_id = trial.frames_stream(FPS, 0.0, CHUNK_SIZE)
    trial.call(trial.rheed.push, data_id, 0, *chunks(20)[0])
    trial.call(trial.rheed.finalize, data_id)


def linked_frames(trial: Trial) -> None:
    """Samples, tags and a project, by name and by UUID, known and new."""
    linkings = (
        {"physical_sample": " GaN 42 ", "project_id": PROJECT, "tags": ["growth", "Growth", " test ", ""]},
        {"physical_sample": "gan 42", "tags": ["TEST"]},
        {"physical_sample": KNOWN_SAMPLE, "tags": [KNOWN_TAG, "Growth"]},
        {"physical_sample": "  ", "project_id": " ", "tags": [" "]},
        {"project_id": PROJECT, "tags": ()},
    )
    for number, linking in enumerate(linkings):
        data_id = trial.frames_stream(stream_name=f"{trial.name} {number}", **linking)
        trial.call(trial.rheed.finalize, data_id)


def linked_series(trial: Trial) -> None:
    data_id = trial.series_stream(
        synth_source_id=7, physical_sample="Series 1", project_id=PROJECT, tags=["series", KNOWN_TAG]
    )
    trial.call(trial.series.finalize, data_id)


def series_push(trial: Trial) -> None:
    data_id = trial.series_stream()
    push = trial.series.push
    trial.call(push, data_id, 0, "temperature", [1.0, 2.0], [3, 4.5], "C")
    trial.call(push, data_id, 1, "temperature", (1, 2), [float("nan"), float("-inf")], units="C")
    trial.call(push, data_id, 2, "a/b µ", np.array([1, 2]), np.array([0.1, 0.2], np.float32))
    trial.call(push, data_id, 3, "bare", [1_700_000_000.1234567], [True], "")
    trial.call(push, data_id, 4, "many", [float(i) for i in range(150)], range(150))
    trial.call(trial.series.finalize, data_id)


def series_multi(trial: Trial) -> None:
    data_id = trial.series_stream()
    channels = {
        "temperature": {"timestamps": [1.0, 2.0], "values": [3, float("nan")], "units": "C"},
        "pressure": {"timestamps": np.array([1, 2, 3]), "values": [1e-9, 2.0, float("inf")]},
        "silent": {"timestamps": [], "values": []},
    }
    trial.call(trial.series.push_multi, data_id, 0, channels)
    trial.call(trial.series.push_multi, data_id, 1, {"silent": channels["silent"]})
    trial.call(trial.series.push_multi, data_id, 2, {})
    trial.call(trial.series.finalize, data_id)


def series_run(trial: Trial) -> None:
    data_id = trial.series_stream(synth_source_id=5, project_id=PROJECT)
    items = [([1.0, 2.0], [3.0, float("nan")]), ([], []), ((3,), range(1)), (np.array([4.0]), np.array([9]))]
    trial.call(trial.series.run, data_id, "temperature", iter(items), "C")
    trial.call(trial.series.run, data_id, "pressure", items[:1])
    trial.call(trial.series.finalize, data_id)


def series_slow(trial: Trial) -> None:
    """The server is slow to take the chunk; `finalize` follows at once."""
    data_id = trial.series_stream()
    trial.call(trial.series.push, data_id, 0, "c", [1.0], [2.0])
    trial.call(trial.series.finalize, data_id)


def series_unnamed(trial: Trial) -> None:
    data_id = trial.series_stream(stream_name=None, project_id=" ")
    trial.call(trial.series.finalize, data_id)


SCRIPTS: tuple[Callable[[Trial], None], ...] = (
    by_run,
    by_push,
    by_keyword,
    default_name,
    live,
    live_run,
    array_run,
    coerced,
    two_at_once,
    recovers,
    linked_frames,
    linked_series,
    series_push,
    series_multi,
    series_run,
    series_slow,
    series_unnamed,
)


def main() -> None:
    from tests.conformance.misuses import MISUSES  # it needs this module

    library, url = importlib.import_module(sys.argv[1]), sys.argv[2]
    acts = {script.__name__: script for script in SCRIPTS} | {misuse.name: misuse.act for misuse in MISUSES}
    document = {}
    with contextlib.ExitStack() as stack:
        streamers = [library.RHEEDStreamer(API_KEY, url), library.TimeseriesStreamer(API_KEY, url)]
        for streamer in streamers:
            if hasattr(streamer, "__exit__"):
                stack.enter_context(streamer)
        for name, act in acts.items():
            trial = Trial(name, library, url, *streamers)
            started = time.monotonic()
            try:
                act(trial)
            # Also what is no Exception: the SDK panics with a BaseException.
            except BaseException:
                if not (trial.steps and trial.steps[-1]["raised"]):
                    raise
            sys.stderr.write(f"{time.monotonic() - started:7.2f} s  {name}\n")
            document[name] = trial.steps
    sys.stdout.write("\n" + json.dumps(document))


if __name__ == "__main__":
    main()
