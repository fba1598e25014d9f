"""What users get wrong, and what the SDK 0.21.10 makes of it: one row each, run with both libraries."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np

from tests.conformance.differential_client import API_KEY, START_MS, Trial, frames
from tests.conformance.recording_server import KNOWN_TAG

NOWHERE = "11111111-2222-4333-8444-555555555555"
ONE = {"timestamps": [1.0], "values": [2.0]}


class Boom(Exception):
    """What an iterator of the user's raises."""


@dataclass(frozen=True)
class Misuse:
    """One misuse.

    Attributes
    ----------
    name : str
        Also its stream's.
    expected : str
        The last call and what the SDK makes of it: an exception, ``warns`` or ``ok``; every call before goes well.
    act : callable
        Does it.
    told : tuple of (str, int)
        Requests of the stream that the server answers with a status.
    """

    name: str
    expected: str
    act: Callable[[Trial], object]
    told: tuple[tuple[str, int], ...] = ()


def initialize(**settings) -> Callable[[Trial], object]:
    return lambda trial: trial.frames_stream(**settings)


def construct(kind: str, *args, **kwargs) -> Callable[[Trial], object]:
    """Construct a streamer and create a stream with it; `URL` stands for the server's."""

    def act(trial: Trial) -> None:
        given = [trial.url if value == "URL" else value for value in args]
        streamer = trial.call(getattr(trial.library, kind), *given, **kwargs)
        needed = (2.0, 0.0, 4) if kind == "RHEEDStreamer" else ()
        with streamer if hasattr(streamer, "__exit__") else nullcontext():
            trial.call(streamer.initialize, *needed, stream_name=trial.name)

    return act


def push(value: object, index: object = 0, start_ms: object = START_MS) -> Callable[[Trial], object]:
    return lambda trial: trial.call(trial.rheed.push, trial.frames_stream(), index, value, start_ms)


def run(items: object) -> Callable[[Trial], object]:
    """Run over the items, which may be made by a function, and finalize."""

    def act(trial: Trial) -> None:
        data_id = trial.frames_stream()
        trial.call(trial.rheed.run, data_id, items() if callable(items) else items)
        trial.call(trial.rheed.finalize, data_id)

    return act


def finalized_then(method: str, *args) -> Callable[[Trial], object]:
    """Push, finalize, and only then call a method of the same streamer."""

    def act(trial: Trial) -> None:
        data_id = trial.frames_stream()
        trial.call(trial.rheed.push, data_id, 0, frames(4), START_MS)
        trial.call(trial.rheed.finalize, data_id)
        trial.call(getattr(trial.rheed, method), data_id, *args)

    return act


def run_twice(trial: Trial) -> None:
    """Two runs into one stream, of other frames each."""
    data_id = trial.frames_stream()
    for number in range(2):
        trial.call(trial.rheed.run, data_id, [(frames(4, seed=number), START_MS + number * 2000)])
    trial.call(trial.rheed.finalize, data_id)


def foreign(streamer: str, method: str, *args) -> Callable[[Trial], object]:
    """Call a method for a stream that nobody created."""

    def act(trial: Trial) -> None:
        trial.call(getattr(getattr(trial, streamer), method), NOWHERE, *args)

    return act


def refused(method: str) -> Callable[[Trial], object]:
    """Push or run one chunk, which the server is told to refuse, and finalize."""

    def act(trial: Trial) -> None:
        data_id = trial.frames_stream()
        if method == "push":
            trial.call(trial.rheed.push, data_id, 0, frames(4), START_MS)
        else:
            trial.call(trial.rheed.run, data_id, iter([(frames(4), START_MS)]))
        trial.call(trial.rheed.finalize, data_id)

    return act


def raising(error: BaseException) -> Callable[[], Iterable]:
    def items():
        yield frames(4), START_MS
        raise error

    return items


def series(**settings) -> Callable[[Trial], object]:
    return lambda trial: trial.series_stream(**settings)


def series_call(method: str, *args, then: tuple[str, ...] = ()) -> Callable[[Trial], object]:
    """Call a method for a new time series, and then others that take its id only."""

    def act(trial: Trial) -> None:
        data_id = trial.series_stream()
        trial.call(getattr(trial.series, method), data_id, *args)
        for name in then:
            trial.call(getattr(trial.series, name), data_id)

    return act


def series_push(timestamps: object, values: object, **more) -> Callable[[Trial], object]:
    arguments = {"chunk_index": 0, "channel_name": "c", "units": None} | more
    given = (arguments["chunk_index"], arguments["channel_name"], timestamps, values, arguments["units"])
    return series_call("push", *given, then=("finalize",))


def series_multi(channels: object, index: object = 0) -> Callable[[Trial], object]:
    return series_call("push_multi", index, channels, then=("finalize",))


def series_run(items: object, units: object = None) -> Callable[[Trial], object]:
    def act(trial: Trial) -> None:
        data_id = trial.series_stream()
        trial.call(trial.series.run, data_id, "c", items() if callable(items) else items, units)
        trial.call(trial.series.finalize, data_id)

    return act


def series_finalized_then(method: str, *args) -> Callable[[Trial], object]:
    def act(trial: Trial) -> None:
        data_id = trial.series_stream()
        trial.call(trial.series.run, data_id, "c", [([1.0], [2.0])])
        trial.call(trial.series.finalize, data_id)
        trial.call(getattr(trial.series, method), data_id, *args)

    return act


def series_raising() -> Iterable:
    yield [1.0], [2.0]
    raise Boom("the user's")


URL_REFUSED, CHUNK_REFUSED = (("upload_urls", 422),), (("stream/chunk", 422),)

MISUSES = (
    # The constructors and initialize.
    Misuse("api key None", "RHEEDStreamer: TypeError", construct("RHEEDStreamer", None, "URL")),
    Misuse("api key blank", "initialize: ok", construct("RHEEDStreamer", "  ", "URL")),
    Misuse("api key of two lines", "initialize: RuntimeError", construct("RHEEDStreamer", "a\nb", "URL")),
    Misuse("endpoint of no scheme", "initialize: RuntimeError", construct("RHEEDStreamer", API_KEY, "localhost")),
    Misuse("endpoint empty", "initialize: RuntimeError", construct("RHEEDStreamer", API_KEY, "")),
    Misuse("endpoint of ftp", "initialize: RuntimeError", construct("RHEEDStreamer", API_KEY, "ftp://127.0.0.1")),
    Misuse("endpoint a number", "RHEEDStreamer: TypeError", construct("RHEEDStreamer", API_KEY, 5)),
    Misuse("chunk_size too small", "initialize: ValueError", initialize(fps=2.4, chunk_size=4)),
    Misuse("chunk_size just enough", "initialize: ok", initialize(fps=2.4, chunk_size=5)),
    Misuse("chunk_size 0", "initialize: ValueError", initialize(chunk_size=0)),
    Misuse("chunk_size negative", "initialize: OverflowError", initialize(chunk_size=-1)),
    Misuse("chunk_size a float", "initialize: TypeError", initialize(chunk_size=4.0)),
    Misuse("chunk_size a bool", "initialize: ok", initialize(fps=0.5, chunk_size=True)),
    Misuse("fps 0", "initialize: ok", initialize(fps=0.0)),
    Misuse("fps negative", "initialize: ok", initialize(fps=-1.0)),
    Misuse("fps NaN", "initialize: ok", initialize(fps=math.nan)),
    Misuse("fps infinite", "initialize: ValueError", initialize(fps=math.inf)),
    Misuse("fps a string", "initialize: TypeError", initialize(fps="2")),
    Misuse("fps None", "initialize: TypeError", initialize(fps=None)),
    Misuse("fps a NumPy scalar", "initialize: ok", initialize(fps=np.float32(2))),
    Misuse("rotation negative", "initialize: ok", initialize(rotations_per_min=-3.0)),
    Misuse("rotation NaN", "initialize: ok", initialize(rotations_per_min=math.nan)),
    Misuse("azimuth while rotating", "initialize: ValueError", initialize(rotations_per_min=12.0, azimuth="[110]")),
    Misuse("azimuth blank while rotating", "initialize: ok", initialize(rotations_per_min=12.0, azimuth=" ")),
    Misuse("stream name a number", "initialize: TypeError", initialize(stream_name=3)),
    Misuse("sample of unknown UUID", "initialize: RuntimeError", initialize(physical_sample=NOWHERE)),
    Misuse("tag of unknown UUID", "initialize: RuntimeError", initialize(tags=[NOWHERE])),
    Misuse("tags a string", "initialize: TypeError", initialize(tags="abc")),
    Misuse("tags of numbers", "initialize: TypeError", initialize(tags=[1])),
    Misuse("tag named twice", "initialize: ok", initialize(tags=["Known Tag", KNOWN_TAG])),
    Misuse("keyword unknown", "initialize: TypeError", initialize(nonsense=1)),
    Misuse("create refused", "initialize: RuntimeError", initialize(), (("POST /rheed/stream/$", 422),)),
    Misuse("create unauthorized", "initialize: RuntimeError", initialize(), (("POST /rheed/stream/$", 401),)),
    Misuse(
        "sample link refused",
        "initialize: RuntimeError",
        initialize(physical_sample="Known Sample"),
        (("/data_entries/physical_sample", 422),),
    ),
    Misuse(
        "tag link refused", "initialize: RuntimeError", initialize(tags=["Known Tag"]), (("/tags/data-items", 422),)
    ),
    # push.
    Misuse("push of 1-D", "push: ValueError", push(np.ones(5, np.uint8))),
    Misuse("push of 4-D", "push: ValueError", push(frames(4)[None])),
    Misuse("push of a number", "push: ValueError", push(7)),
    Misuse("push of no frames", "push: RuntimeError", push(frames(0))),
    Misuse("push of no rows", "push: RuntimeError", push(frames(4, 0, 16))),
    Misuse("push of no columns", "push: RuntimeError", push(frames(4, 12, 0))),
    Misuse("push of None", "push: TypeError", push(None)),
    Misuse("push of text", "push: ValueError", push(np.full((4, 6, 8), "a"))),
    Misuse("push of bytes", "push: ValueError", push(b"abc")),
    Misuse("push of a tuple", "push: ValueError", push((frames(4), START_MS))),
    Misuse("push of zeros", "push: RuntimeError", push(np.zeros((4, 6, 8), np.uint8))),
    Misuse("push of NaN", "push: RuntimeError", push(np.full((4, 6, 8), np.nan))),
    Misuse("push of Fortran order", "push: ok", push(np.asfortranarray(frames(4)))),
    Misuse("push of a transposed frame", "push: ok", push(frames(1)[0].T)),
    Misuse("push of reversed frames", "push: PanicException", push(frames(4)[::-1])),
    Misuse("push at index -1", "push: OverflowError", push(frames(4), -1)),
    Misuse("push at index 1.0", "push: TypeError", push(frames(4), 1.0)),
    Misuse("push at index None", "push: TypeError", push(frames(4), None)),
    Misuse("push at index True", "push: ok", push(frames(4), True)),
    Misuse("push at index 2**40", "push: ok", push(frames(4), 2**40)),
    Misuse("push started at a float", "push: TypeError", push(frames(4), 0, float(START_MS))),
    Misuse("push started at a string", "push: TypeError", push(frames(4), 0, str(START_MS))),
    Misuse("push started at 2**63", "push: OverflowError", push(frames(4), 0, 2**63)),
    Misuse("push started at True", "push: ok", push(frames(4), 0, True)),
    Misuse("push started before 1970", "push: ok", push(frames(4), 0, -5)),
    Misuse("push to an unknown stream", "push: RuntimeError", foreign("rheed", "push", 0, frames(4), START_MS)),
    Misuse("push after finalize", "push: RuntimeError", finalized_then("push", 1, frames(4), START_MS)),
    # run.
    Misuse("run of a float start", "run: ValueError", run([(frames(4), float(START_MS))])),
    Misuse("run of a text start", "run: ValueError", run([(frames(4), str(START_MS))])),
    Misuse("run of a None start", "run: ValueError", run([(frames(4), None)])),
    Misuse("run of a start of 2**63", "run: ValueError", run([(frames(4), 2**63)])),
    Misuse("run of a bool start", "finalize: ok", run([(frames(4), True)])),
    Misuse("run of a NumPy start", "finalize: ok", run([(frames(4), np.int64(START_MS))])),
    Misuse("run of a start before 1970", "finalize: ok", run([(frames(4), -5)])),
    Misuse("run of a 3-tuple", "run: ValueError", run([(frames(4), START_MS, 1)])),
    Misuse("run of a 1-tuple", "run: ValueError", run([(frames(4),)])),
    Misuse("run of a list pair", "run: ValueError", run([[frames(4), START_MS]])),
    Misuse("run of 1-D", "run: ValueError", run([np.ones(5, np.uint8)])),
    Misuse("run that turns bad", "run: ValueError", run([(frames(4), START_MS), (frames(4), 1.5)])),
    Misuse("run of no iterable", "run: TypeError", run(5)),
    Misuse("run of None", "run: TypeError", run(None)),
    Misuse("run of nothing", "finalize: ok", run([])),
    Misuse("run that raises", "run: Boom", run(raising(Boom("the user's")))),
    Misuse("run that is interrupted", "run: KeyboardInterrupt", run(raising(KeyboardInterrupt()))),
    Misuse("run to an unknown stream", "run: RuntimeError", foreign("rheed", "run", [(frames(4), START_MS)])),
    Misuse("run after finalize", "run: RuntimeError", finalized_then("run", [(frames(4), START_MS)])),
    Misuse("run refused", "run: RuntimeError", refused("run"), URL_REFUSED),
    Misuse("run twice", "finalize: ok", run_twice),
    Misuse("push refused", "finalize: warns", refused("push"), URL_REFUSED),
    # finalize.
    Misuse("finalize unknown", "finalize: RuntimeError", foreign("rheed", "finalize")),
    Misuse("finalize twice", "finalize: RuntimeError", finalized_then("finalize")),
    Misuse("finalize refused", "finalize: RuntimeError", run([]), (("/end$", 404),)),
    # Time series.
    Misuse("points_per_chunk 0", "initialize: ok", construct("TimeseriesStreamer", API_KEY, "URL", 0)),
    Misuse(
        "points_per_chunk -1", "TimeseriesStreamer: OverflowError", construct("TimeseriesStreamer", API_KEY, "URL", -1)
    ),
    Misuse(
        "points_per_chunk 2.0", "TimeseriesStreamer: TypeError", construct("TimeseriesStreamer", API_KEY, "URL", 2.0)
    ),
    Misuse("series of text source", "initialize: TypeError", series(synth_source_id="5")),
    Misuse("series create refused", "initialize: RuntimeError", series(), (("stream/initialize", 422),)),
    Misuse("series of unknown sample", "initialize: RuntimeError", series(physical_sample=NOWHERE)),
    Misuse("series push of other lengths", "push: RuntimeError", series_push([1.0, 2.0], [1.0])),
    Misuse("series push of nothing", "finalize: ok", series_push([], [])),
    Misuse("series push at NaN", "finalize: ok", series_push([math.nan], [1.0])),
    Misuse("series push of text", "push: TypeError", series_push([1.0], ["3"])),
    Misuse("series push of None", "push: TypeError", series_push([1.0], [None])),
    Misuse("series push of scalars", "push: TypeError", series_push(1.0, 2.0)),
    Misuse("series push of an iterator", "push: TypeError", series_push(iter([1.0]), iter([1.0]))),
    Misuse("series push of 2-D", "push: TypeError", series_push(np.ones((2, 2)), np.ones((2, 2)))),
    Misuse("series push of 10**400", "push: OverflowError", series_push([1.0], [10**400])),
    Misuse("series push at index -1", "push: OverflowError", series_push([1.0], [1.0], chunk_index=-1)),
    Misuse("series push at index 1.0", "push: TypeError", series_push([1.0], [1.0], chunk_index=1.0)),
    Misuse("series push at index True", "finalize: ok", series_push([1.0], [1.0], chunk_index=True)),
    Misuse("series push of units 5", "push: TypeError", series_push([1.0], [1.0], units=5)),
    Misuse("series push to channel 3", "push: TypeError", series_push([1.0], [1.0], channel_name=3)),
    Misuse("series push to a blank channel", "finalize: ok", series_push([1.0], [1.0], channel_name=" ")),
    Misuse("multi of other lengths", "push_multi: RuntimeError", series_multi({"a": ONE, "b": ONE | {"values": []}})),
    Misuse("multi without timestamps", "push_multi: RuntimeError", series_multi({"c": {"values": [1.0]}})),
    Misuse("multi without values", "push_multi: RuntimeError", series_multi({"c": {"timestamps": [1.0]}})),
    Misuse("multi of tuples", "push_multi: RuntimeError", series_multi({"c": ([1.0], [2.0])})),
    Misuse("multi of an unknown key", "finalize: ok", series_multi({"c": ONE | {"comment": 5}})),
    Misuse("multi of text", "push_multi: RuntimeError", series_multi({"c": ONE | {"values": ["3"]}})),
    Misuse("multi of units 5", "push_multi: RuntimeError", series_multi({"c": ONE | {"units": 5}})),
    Misuse("multi of units None", "push_multi: RuntimeError", series_multi({"c": ONE | {"units": None}})),
    Misuse("multi of channel 3", "push_multi: RuntimeError", series_multi({3: ONE})),
    Misuse("multi of a list", "push_multi: TypeError", series_multi([ONE])),
    Misuse("multi at index -1", "push_multi: OverflowError", series_multi({"c": ONE}, -1)),
    Misuse("series run of a number", "run: RuntimeError", series_run([5])),
    Misuse("series run of a 3-tuple", "run: RuntimeError", series_run([([1.0], [2.0], 3)])),
    Misuse("series run of lists", "run: RuntimeError", series_run([[[1.0], [2.0]]])),
    Misuse("series run of other lengths", "run: RuntimeError", series_run([([1.0], [2.0]), ([1.0], [])])),
    Misuse("series run of text", "run: RuntimeError", series_run([([1.0], ["3"])])),
    Misuse("series run of units 5", "run: TypeError", series_run([([1.0], [2.0])], 5)),
    Misuse("series run of no iterable", "run: TypeError", series_run(5)),
    Misuse("series run that raises", "run: Boom", series_run(series_raising)),
    Misuse("series run refused", "run: RuntimeError", series_run([([1.0], [2.0])]), CHUNK_REFUSED),
    Misuse("series push refused", "finalize: ok", series_push([1.0], [2.0]), CHUNK_REFUSED),
    Misuse("series push to an unknown stream", "push: ok", foreign("series", "push", 0, "c", [1.0], [1.0])),
    Misuse("multi to an unknown stream", "push_multi: ok", foreign("series", "push_multi", 0, {"c": ONE})),
    Misuse("series run to an unknown stream", "run: ok", foreign("series", "run", "c", [([1.0], [1.0])])),
    Misuse("series finalize unknown", "finalize: ok", foreign("series", "finalize")),
    Misuse("series push after finalize", "push: ok", series_finalized_then("push", 1, "c", [2.0], [1.0])),
    Misuse("series run after finalize", "run: ok", series_finalized_then("run", "c", [([2.0], [1.0])])),
    Misuse("series finalize twice", "finalize: ok", series_finalized_then("finalize")),
    Misuse(
        "series finalize refused", "finalize: RuntimeError", series_finalized_then("finalize"), (("finalize$", 404),)
    ),
)
