"""The same script with the official SDK and with our streamers: what they send and what they raise is the same.

Both run in a process of their own against a server that writes everything down. Where ours deliberately does better,
the table `BETTER` says how and why, and both behaviours are tested.
"""

import ast
import hashlib
import importlib
import inspect
import json
import os
import subprocess
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ingest.shard import unpack
from tests.conformance.differential_client import API_KEY, SCRIPTS, chunks, forms, frames
from tests.conformance.misuses import MISUSES, NOWHERE, Misuse
from tests.conformance.recording_server import DEFAULT_NAME, SHARED, RecordingServer, Request, Rule

pytestmark = pytest.mark.peers
pytest.importorskip("atomscale")

SDK, OURS = "atomscale.streaming", "actors"
ROOT = Path(__file__).parents[2]
TIMEOUT_S = 100
LIVE = {"live", "live_run", "array_run"}


AT_ONCE = "nothing can be sent with it, so the constructor says so; the SDK: `initialize`"


@dataclass(frozen=True)
class Better:
    """Where ours does not do what the SDK does: the last call and what we make of it, in the words of `Misuse`; why."""

    ours: str
    why: str


BETTER = {
    "api key blank": Better("RHEEDStreamer: RuntimeError", "no such key exists: the SDK asks the platform with it"),
    "api key of two lines": Better("RHEEDStreamer: RuntimeError", AT_ONCE),
    "endpoint of no scheme": Better("RHEEDStreamer: RuntimeError", AT_ONCE),
    "endpoint empty": Better("RHEEDStreamer: RuntimeError", AT_ONCE),
    "endpoint of ftp": Better("RHEEDStreamer: RuntimeError", AT_ONCE),
    "fps 0": Better("initialize: ValueError", "the SDK sends chunks that end 292 million years before Christ"),
    "fps negative": Better("initialize: ValueError", "the SDK sends chunks that end before they start"),
    "fps NaN": Better("initialize: ValueError", "the SDK sends null, and chunks that take no time"),
    "rotation negative": Better(
        "initialize: ok", "stationary, as the reference documentation says; the SDK: -40 frames"
    ),
    "rotation NaN": Better("initialize: ValueError", "the SDK sends null for a rotation that is not known"),
    "tag named twice": Better(
        "initialize: ok", "attached once: the SDK attaches a tag that is given by name and UUID twice"
    ),
    "push started at True": Better(
        "push: TypeError", "a flag that slipped in: the SDK stamps the chunk 1 ms after 1970"
    ),
    "run of a bool start": Better(
        "run: ValueError", "a flag that slipped in: the SDK stamps the chunk 1 ms after 1970"
    ),
    "run twice": Better("finalize: ok", "the second run counts on: with the SDK it overwrites the first one's chunks"),
    "push of zeros": Better("push: ok", "a dark chunk is data: the SDK raises 'missing encoded chunk'"),
    "push of NaN": Better("push: warns", "coerced to zeros, and those are data; but it is said"),
    "push of Fortran order": Better("push: ok", "the SDK sends the pixels in memory order: scrambled, silently"),
    "push of a transposed frame": Better("push: ok", "the SDK sends the pixels in memory order: scrambled, silently"),
    "push of reversed frames": Better("push: ok", "the SDK panics on negative strides, past `except Exception`"),
    "finalize twice": Better("finalize: ok", "a second finalize returns the report again"),
    "series finalize twice": Better("finalize: ok", "the stream is closed once: the SDK closes it again"),
    "series push after finalize": Better("push: RuntimeError", "what comes after the end is refused, not lost"),
    "series run after finalize": Better("run: RuntimeError", "what comes after the end is refused, not lost"),
    "series push refused": Better("finalize: warns", "a lost chunk is never silent"),
    "points_per_chunk 0": Better("initialize: ValueError", "no chunk has no points"),
    "series push at NaN": Better("push: RuntimeError", "a point of no time is no point: the SDK sends null"),
    "series push to a blank channel": Better("push: RuntimeError", "nobody finds a channel that has no name"),
    "multi of units None": Better("finalize: ok", "left out, as `push` does with units of None"),
    "series push to an unknown stream": Better("push: RuntimeError", "nobody created it; as the SDK says of RHEED"),
    "multi to an unknown stream": Better("push_multi: RuntimeError", "nobody created it; as the SDK says of RHEED"),
    "series run to an unknown stream": Better("run: RuntimeError", "nobody created it; as the SDK says of RHEED"),
    "series finalize unknown": Better("finalize: RuntimeError", "nobody created it; as the SDK says of RHEED"),
}

SAME = [misuse for misuse in MISUSES if misuse.name not in BETTER]


@dataclass(frozen=True)
class Recording:
    """What one library did: the calls of each script and misuse, and the requests that came in."""

    steps: dict[str, list[dict]] = field(repr=False)
    server: RecordingServer

    def outcomes(self, name: str) -> list[str]:
        """Return what a misuse's last call came to: its exception, then what that derives from; ``warns`` or ``ok``."""
        *before, last = self.steps[name]
        assert not any(step["raised"] for step in before)
        warned = any(text.startswith("RuntimeWarning") for text in last["warned"])
        kinds = last["raised"] or (["warns"] if warned else ["ok"])
        return [f"{last['call']}: {kind}" for kind in kinds]


def rules() -> list[Rule]:
    slow = Rule("series_slow", "stream/chunk", delay_s=0.5)
    failing = [("upload_urls", 500), ("PUT", 403), ("/end$", 503)]
    once = [Rule("recovers", pattern, status, times=1) for pattern, status in failing]
    return [slow, *once, *(Rule(misuse.name, pattern, status) for misuse in MISUSES for pattern, status in misuse.told)]


def start_client(library: str, url: str, home: Path) -> subprocess.Popen:
    home_variables = dict.fromkeys(("HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"), str(home))
    environ = os.environ | home_variables | {"ATOMSCALE_SKIP_CLOCK_SYNC": "1", "MPLCONFIGDIR": str(home)}
    command = [sys.executable, "-m", "tests.conformance.differential_client", library, url]
    return subprocess.Popen(command, env=environ, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    made = {}
    with ExitStack() as stack:
        for library in (SDK, OURS):
            server = stack.enter_context(RecordingServer(rules()))
            client = start_client(library, server.url, tmp_path_factory.mktemp("home"))
            try:
                out, err = client.communicate(timeout=TIMEOUT_S)
            except subprocess.TimeoutExpired:
                client.kill()
                out, err = client.communicate()
            assert client.returncode == 0, err[-4000:]
            made[library] = Recording(json.loads(out.splitlines()[-1]), server)
        yield made


@pytest.fixture(scope="module")
def sdk(recordings) -> Recording:
    return recordings[SDK]


@pytest.fixture(scope="module")
def ours(recordings) -> Recording:
    return recordings[OURS]


def decoded(requests: list[Request]) -> list[tuple[int, np.ndarray]]:
    """Return index and frames of each shard that was put."""
    dims = {
        request.query["original_filename"]: tuple(map(int, request.json["dims"].split(",")))
        for request in requests
        if "original_filename" in request.query
    }
    found = []
    for request in requests:
        if request.method == "PUT":
            key = request.path.split("/", 3)[3]
            found.append((int(key.split("/")[-3]), unpack(request.body, dims[key])))
    return found


def statement(request: Request) -> str:
    """Return what a request says, in a form that compares: live times only as the span that they make."""
    if request.method == "PUT":
        return f"PUT {request.path}"
    body = request.json
    if isinstance(body, dict):
        body = dict(body)
        if request.stream in LIVE and "start_unix_ms_utc" in body:
            start_ms, end_ms = int(body.pop("start_unix_ms_utc")), int(body.pop("end_unix_ms_utc"))
            body["span_ms"] = end_ms - start_ms
        if DEFAULT_NAME.fullmatch(body.get("data_item_name", "")):
            body["data_item_name"] = "by default"
    return f"{request.method} {request.path} {sorted(request.query.items())} {json.dumps(body, sort_keys=True)}"


def sent(recording: Recording, stream: str) -> tuple[Counter[str], Counter]:
    """Return what was said of a stream, and which frames arrived as which chunk."""
    requests = recording.server.of(stream)
    arrived = Counter(
        (index, got.shape, hashlib.sha256(np.ascontiguousarray(got)).hexdigest()) for index, got in decoded(requests)
    )
    return Counter(statement(request) for request in requests), arrived


def streams_of(recording: Recording) -> list[str]:
    misuses = {misuse.name for misuse in MISUSES}
    return sorted({request.stream for request in recording.server.requests} - misuses - {SHARED})


# The scripts: what works.


@pytest.mark.parametrize("script", [script.__name__ for script in SCRIPTS])
def test_a_script_runs_with_both(sdk, ours, script):
    for recording in (sdk, ours):
        assert [step for step in recording.steps[script] if step["raised"]] == []
    assert [step["call"] for step in ours.steps[script]] == [step["call"] for step in sdk.steps[script]]


def test_the_same_streams_get_the_same_requests_and_frames(sdk, ours):
    assert streams_of(ours) == streams_of(sdk)
    assert len(streams_of(sdk)) >= len(SCRIPTS)
    for stream in streams_of(sdk):
        expected, got = sent(sdk, stream), sent(ours, stream)
        assert got[0] == expected[0], stream
        assert got[1] == expected[1], stream


def test_samples_and_tags_are_looked_up_and_created_alike(sdk, ours):
    def shared(recording: Recording) -> Counter[str]:
        said = Counter(statement(request) for request in recording.server.of(SHARED) if request.body)
        return Counter({line: count for line, count in said.items() if NOWHERE not in line})

    assert shared(ours) == shared(sdk)
    assert sum("/projects/" in line for line in shared(sdk)) == 2
    assert sum(shared(sdk).values()) == 7, "GaN 42, growth, test, Series 1 and series are made once; 2 are tracked"


@pytest.mark.parametrize("library", [SDK, OURS])
def test_a_stream_begins_with_its_create_and_frames_end_with_the_close(request, library):
    recording = request.getfixturevalue("sdk" if library == SDK else "ours")
    for stream in streams_of(recording):
        answered = [request for request in recording.server.of(stream) if request.status == 200]
        lines = [f"{request.method} {request.path}" for request in answered]
        assert lines[0] in {"POST /rheed/stream/", "POST /tool-state/stream/initialize"}, stream
        closes = [line for line in lines if line.endswith("/end")]
        assert closes == ([lines[-1]] if "rheed" in lines[0] and stream != "default" else []), stream


@pytest.mark.parametrize("library", [SDK, OURS])
def test_headers(request, library):
    recording = request.getfixturevalue("sdk" if library == SDK else "ours")
    for asked in recording.server.requests:
        bare = asked.method == "PUT" or asked.path == "/gateway/time"
        if not bare and asked.stream != "api key blank":
            assert asked.headers["x-api-key"] == API_KEY
        assert not bare or "x-api-key" not in asked.headers
        if asked.body:
            assert asked.headers["content-type"] == ("" if asked.method == "PUT" else "application/json")


@pytest.mark.parametrize("library", [SDK, OURS])
def test_every_form_arrives_as_numpy_coerces_it(request, library):
    recording = request.getfixturevalue("sdk" if library == SDK else "ours")
    arrived = dict(decoded(recording.server.of("coerced")))
    assert len(arrived) == len(forms()) + 2
    for index, (name, form) in enumerate(forms().items()):
        expected = form.astype(np.uint8)
        np.testing.assert_array_equal(arrived[index], expected.reshape(-1, *expected.shape[-2:]), name)
    np.testing.assert_array_equal(arrived[90], frames(4))
    np.testing.assert_array_equal(arrived[91], frames(4))


@pytest.mark.parametrize("library", [SDK, OURS])
@pytest.mark.parametrize("script", ["by_run", "by_push"])
def test_a_stated_time_is_sent_as_it_is(request, library, script):
    recording = request.getfixturevalue("sdk" if library == SDK else "ours")
    said = [asked.json for asked in recording.server.of(script) if "original_filename" in asked.query]
    starts = {int(body["start_unix_ms_utc"]) for body in said}
    assert starts == {start_ms for _, start_ms in chunks()}
    assert not any("clock_offset_ms" in body for body in said)


def test_only_our_series_finalize_waits_for_what_was_pushed(sdk, ours):
    def order(recording: Recording) -> list[str]:
        return [request.path.rsplit("/", 1)[1] for request in recording.server.of("series_slow")]

    assert order(sdk) == ["initialize", "finalize", "chunk"]
    assert order(ours) == ["initialize", "chunk", "finalize"]


# The misuses: what is refused, how, and when.


def test_the_table_is_of_rows_that_exist_and_are_told_apart():
    names = [misuse.name for misuse in MISUSES]
    assert len(set(names)) == len(names)
    assert set(names) >= set(BETTER)
    assert not set(names) & {script.__name__ for script in SCRIPTS}


@pytest.mark.parametrize("misuse", MISUSES, ids=lambda misuse: misuse.name)
def test_the_sdk_does_what_the_table_says(sdk, misuse: Misuse):
    assert sdk.outcomes(misuse.name)[0] == misuse.expected, sdk.steps[misuse.name]


@pytest.mark.parametrize("misuse", SAME, ids=lambda misuse: misuse.name)
def test_a_misuse_comes_to_the_same(sdk, ours, misuse: Misuse):
    assert misuse.expected in ours.outcomes(misuse.name), ours.steps[misuse.name]
    assert sent(ours, misuse.name) == sent(sdk, misuse.name)


@pytest.mark.parametrize("name", BETTER)
def test_where_ours_does_better(ours, name):
    assert BETTER[name].ours in ours.outcomes(name), ours.steps[name]


@pytest.mark.parametrize(
    "name", ["finalize twice", "series finalize twice", "series push after finalize", "series run after finalize"]
)
def test_our_close_is_the_last_word(ours, name):
    lines = [request.path for request in ours.server.of(name)]
    closes = [line for line in lines if line.endswith(("/end", "/finalize"))]
    assert closes == lines[-1:]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("push of zeros", np.zeros((4, 6, 8), np.uint8)),
        ("push of NaN", np.zeros((4, 6, 8), np.uint8)),
        ("push of Fortran order", frames(4)),
        ("push of a transposed frame", frames(1).transpose(0, 2, 1)),
        ("push of reversed frames", frames(4)[::-1]),
    ],
)
def test_frames_that_the_sdk_loses_or_scrambles_arrive(sdk, ours, name, expected):
    [(_, got)] = decoded(ours.server.of(name))
    np.testing.assert_array_equal(got, expected)
    for _, scrambled in decoded(sdk.server.of(name)):
        assert not np.array_equal(scrambled, expected)


@pytest.mark.parametrize("name", ["push refused", "series push refused"])
def test_our_warning_of_a_lost_chunk_names_it_and_says_why(ours, name):
    [warned] = ours.steps[name][-1]["warned"]
    assert "1 of its chunks" in warned
    assert "chunk 0" in warned
    assert "422" in warned


def test_a_second_run_does_not_overwrite_the_first(sdk, ours):
    assert [index for index, _ in decoded(sdk.server.of("run twice"))] == [0, 0]
    arrived = dict(decoded(ours.server.of("run twice")))
    assert sorted(arrived) == [0, 1]
    for number, got in arrived.items():
        np.testing.assert_array_equal(got, frames(4, seed=number))


@pytest.mark.parametrize("name", ["finalize twice", "series finalize twice"])
def test_our_second_finalize_returns_the_same_report(ours, name):
    first, second = (step["result"] for step in ours.steps[name] if step["call"] == "finalize")
    assert second == first
    assert second["chunks_uploaded"] == 1


@pytest.mark.parametrize("name", ["by_run", "by_push", "push refused"])
def test_the_reports_say_the_same(sdk, ours, name):
    expected, got = (dict(recording.steps[name][-1]["result"]) for recording in (sdk, ours))
    assert [index for index, _ in got.pop("lost")] == [index for index, _ in expected.pop("lost")]
    # Ours delivers what the network takes at once without the spool.
    del expected["chunks_spooled"]
    assert got.items() >= expected.items()


# The classes.


def parameters_of(method) -> dict[str, object]:
    """Return the SDK's parameters of a method and their defaults, as its text signature gives them."""
    tree = ast.parse(f"def f{method.__text_signature__.replace('($', '(')}: pass").body[0].args
    names = [argument.arg for argument in tree.args if argument.arg != "self"]
    defaults = [ast.literal_eval(default) for default in tree.defaults]
    return dict.fromkeys(names[: len(names) - len(defaults)], inspect.Parameter.empty) | dict(
        zip(names[len(names) - len(defaults) :], defaults, strict=True)
    )


@pytest.mark.parametrize("name", ["RHEEDStreamer", "TimeseriesStreamer"])
def test_every_call_that_the_sdk_takes_we_take(name):
    theirs, ours = (getattr(importlib.import_module(library), name) for library in (SDK, OURS))
    methods = [method for method in dir(theirs) if not method.startswith("_")]
    assert len(methods) >= 5
    for method, ours_method in [(theirs, ours.__init__), *((getattr(theirs, m), getattr(ours, m)) for m in methods)]:
        expected, signature = parameters_of(method), inspect.signature(ours_method)
        signature.bind(None, **expected)
        signature.bind(None, *expected)
        if method is theirs:
            given = [key for key in signature.parameters if key != "self"][: len(expected)]
            assert given == list(expected)
        defaults = {key: signature.parameters[key].default for key in expected}
        if method is theirs:  # a lake needs no key, and a platform refuses None with the same TypeError
            assert defaults["api_key"] is None
            defaults["api_key"] = expected["api_key"]
        assert defaults == expected, method
