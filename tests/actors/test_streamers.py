"""The user-facing classes on a real Ray: as a lab's script uses them, and with everything killed that can be."""

from __future__ import annotations

import asyncio
import itertools
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from actors import RHEEDStreamer, TimeseriesStreamer
from actors.live_setup import LiveOptions
from ingest.errors import StreamerError
from ingest.retry import RetryPolicy
from tests.live_support import (
    START_MS,
    Trouble,
    assert_stored,
    frames_of,
    of_chunk,
    stored_chunks,
    stored_points,
    uploads,
)
from tests.support import KEY, ThreadServer

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_session")]

ROOT = Path(__file__).parent.parent.parent
AHEAD_S = 2.5
OPTIONS = LiveOptions(
    packers=1,
    lease_s=2.0,
    direct_for_s=0.5,
    scan_s=0.2,
    drain_retry=RetryPolicy(first_s=0.02, max_s=0.1, retry_for_s=0.3),
)
WINDOW = 4
NAMES = (f"stream {i}" for i in itertools.count())


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A platform whose clock is ahead of ours."""
    folder = tmp_path_factory.mktemp("server")
    with ThreadServer(folder, clock=lambda: time.time() + AHEAD_S) as server:
        yield server


@pytest.fixture(autouse=True)
def no_trouble(server):
    yield
    act, server.wire.act = server.wire.act, None
    if isinstance(act, Trouble):
        act.kind = None


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("live") / "state"


@pytest.fixture(scope="module")
def streamer(server, state, ray_session):
    with RHEEDStreamer(KEY.reveal(), server.url, state_dir=state, options=OPTIONS) as streamer:
        yield streamer


@pytest.fixture(scope="module")
def log_streamer(server, state, streamer):
    """Shares the session."""
    with TimeseriesStreamer(KEY.reveal(), server.url, state_dir=state, options=OPTIONS) as log_streamer:
        yield log_streamer


def begin(streamer, **more) -> str:
    return streamer.initialize(20.0, 0.0, 40, stream_name=next(NAMES), **more)


def packer_pid(streamer) -> int:
    """Return the process of the session's one packer."""
    session = streamer._session
    [handle] = session.pool()._handles.values()
    return session.wait(handle.call("ping"), "no packer")


def push(streamer, data_id, *indices):
    for index in indices:
        streamer.push(data_id, index, frames_of(index), START_MS + 400 * index)


# -- frames ------------------------------------------------------------------------------------------------------------


def test_pushes_arrive_and_finalize_reports(server, streamer):
    data_id = begin(streamer)
    buffer = np.empty((8, 12, 16), np.uint8)
    for index in (2, 0, 1):
        buffer[:] = frames_of(index)
        assert streamer.push(data_id, index, buffer, START_MS + 400 * index) is None
        buffer[:] = 255  # the caller may use its memory again at once
    status = streamer.flush(data_id)
    assert (status.pushed, status.acknowledged, status.confirmed, status.lost) == (3, 3, 3, {})
    assert not status.is_closed
    report = streamer.finalize(data_id)
    assert report == {
        "data_id": data_id, "pushed": 3, "chunks_spooled": 0, "chunks_uploaded": 3, "chunks_dropped": 0,
        "chunks_failed": 0, "chunks_purged": 0, "chunks_pending": 0, "chunks_not_uploaded": 0, "lost": [],
        "closed": "finalized", "drained": True, "form": "close",
    }  # fmt: skip
    assert streamer.finalize(data_id) == report, "again is the same report"
    assert streamer.status(data_id).is_closed
    stream = assert_stored(server.url, data_id, {i: frames_of(i) for i in range(3)})
    assert (stream["status"], stream["times_closed"]) == ("closed", 1)
    starts = [chunk["start_unix_ms_utc"] for chunk in stream["chunk_list"]]
    assert starts == [START_MS, START_MS + 400, START_MS + 800], "explicit stamps are sent exactly as given"
    assert [chunk["clock_offset_ms"] for chunk in stream["chunk_list"]] == [None] * 3
    with pytest.raises(RuntimeError, match=f"{data_id} takes no chunk 3: finalize was called"):
        push(streamer, data_id, 3)


def test_run_stamps_blocks_and_counts_on(server, streamer):
    data_id = begin(streamer)
    push(streamer, data_id, 0, 1)
    began_ms = time.time() * 1000
    streamer.run(data_id, iter([frames_of(2), (frames_of(3), START_MS), frames_of(4)[0]]))
    ended_ms = time.time() * 1000
    stream, chunks = stored_chunks(server.url, data_id)
    assert [chunk.index for chunk in chunks] == [0, 1, 2, 3, 4], "pushes that were still on their way are not replaced"
    assert np.array_equal(chunks[4].frames, frames_of(4)[:1])
    live, explicit = stream["chunk_list"][2], stream["chunk_list"][3]
    assert (explicit["start_unix_ms_utc"], explicit["clock_offset_ms"]) == (START_MS, None)
    assert began_ms - 1 <= live["start_unix_ms_utc"] - live["clock_offset_ms"] <= ended_ms


def test_live_stamps_are_the_platform_s_and_say_by_how_much(server, streamer):
    data_id = begin(streamer)
    before_ms = time.time() * 1000
    streamer.push(data_id, 0, frames_of(0))
    after_ms = time.time() * 1000
    streamer.finalize(data_id)
    [chunk] = stored_chunks(server.url, data_id)[0]["chunk_list"]
    assert chunk["clock_offset_ms"] == pytest.approx(1000 * AHEAD_S, abs=500)
    assert 0 <= chunk["clock_uncertainty_ms"] < 1000
    assert before_ms - 1 <= chunk["start_unix_ms_utc"] - chunk["clock_offset_ms"] <= after_ms
    clock = streamer.clock_status()
    assert clock["is_applied"]
    assert abs(clock["offset_ms"] - 1000 * AHEAD_S) <= clock["uncertainty_ms"] + 1
    assert clock["samples"] >= 1


@pytest.mark.parametrize(
    ("frames", "said"),
    [
        (np.full((2, 3, 4), 300, np.uint16), "values from 300 to 300"),
        (np.full((2, 3, 4), -1.0), "values from -1 to -1"),
        (np.full((2, 3, 4), np.nan), "NaN"),
    ],
)
def test_values_that_wrap_warn_once_a_stream(server, streamer, frames, said):
    data_id, other = begin(streamer), begin(streamer)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for index in range(3):
            streamer.push(data_id, index, frames)
        streamer.push(other, 0, frames)
    assert [warning.category for warning in seen] == [RuntimeWarning] * 2
    assert said in str(seen[0].message)
    assert "full_scale" in str(seen[0].message)
    assert data_id in str(seen[0].message)
    assert seen[0].filename == __file__, "it points at the caller"
    streamer.flush(data_id)
    with np.errstate(invalid="ignore"):
        wanted = frames.astype(np.uint8)
    assert_stored(server.url, data_id, dict.fromkeys(range(3), wanted))


def test_a_refused_chunk_closes_with_losses_and_one_warning(server, streamer):
    data_id = begin(streamer)
    Trouble(server, 422, on=of_chunk(1))
    push(streamer, data_id, 0, 1, 2)
    with pytest.warns(RuntimeWarning, match=r"closed without 1 of its chunks: .*chunk 1.*not to our taste") as seen:
        report = streamer.finalize(data_id)
    assert len(seen) == 1
    assert data_id in str(seen[0].message)
    assert (report["form"], report["chunks_failed"], report["chunks_dropped"]) == ("close_with_losses", 1, 0)
    assert (report["chunks_uploaded"], report["chunks_not_uploaded"]) == (2, 1)
    [(index, reason)] = report["lost"]
    assert (index, "not to our taste" in reason) == (1, True)
    assert streamer.finalize(data_id) == report, "without another warning"
    assert stored_chunks(server.url, data_id)[0]["status"] == "closed"


def test_run_raises_for_a_loss_of_its_own(server, streamer):
    data_id = begin(streamer)
    Trouble(server, 422, on=lambda *request: of_chunk(0)(*request) or of_chunk(2)(*request))
    push(streamer, data_id, 0)
    streamer.flush(data_id)
    streamer.run(data_id, iter([frames_of(1)]))
    with pytest.raises(RuntimeError, match=r"1 of 3 chunk.*did not arrive.*not to our taste"):
        streamer.run(data_id, iter([frames_of(2)]))


def test_a_server_that_is_not_there_leaves_the_stream_open_until_it_is(server, streamer):
    data_id = begin(streamer)
    trouble = Trouble(server, 503)
    push(streamer, data_id, 0, 1)
    with pytest.raises(RuntimeError, match=r"not closed: 2 chunk\(s\) are still only in the spool .*503") as caught:
        streamer.finalize(data_id, timeout_s=1.5)
    folder = Path(streamer.spool_status()["dir"])
    assert str(folder) in str(caught.value)
    assert "call it again" in caught.value.hint
    assert streamer.spool_status()["chunks_pending"] == 2
    assert len(list(folder.glob("*/*.chunk"))) == 2
    assert not streamer.status(data_id).is_closed
    with pytest.raises(RuntimeError, match="finalize was called"):
        push(streamer, data_id, 2)
    trouble.kind = None
    report = streamer.finalize(data_id, drain_timeout_s=30)
    assert (report["form"], report["chunks_uploaded"]) == ("close", 2)
    assert_stored(server.url, data_id, {0: frames_of(0), 1: frames_of(1)})


def test_a_key_that_ends_is_named_and_nothing_is_lost(server, streamer):
    data_id = begin(streamer)
    trouble = Trouble(server, 401, detail=KEY.reveal().encode())
    with pytest.raises(RuntimeError, match=r"401.*1 chunk\(s\) stay in the spool") as caught:
        streamer.run(data_id, iter([frames_of(0)]))
    assert KEY.reveal() not in str(caught.value) + str(caught.value.hint) + repr(caught.value)
    push(streamer, data_id, 1)
    with pytest.raises(RuntimeError, match="401"):
        streamer.flush(data_id)
    with pytest.raises(RuntimeError, match="401"):
        streamer.finalize(data_id)
    trouble.kind = None
    began_s = time.monotonic()
    assert streamer.finalize(data_id)["chunks_uploaded"] == 2
    assert time.monotonic() - began_s < 12, "it is tried at once, not when the dispatcher's patience ends"
    assert_stored(server.url, data_id, {0: frames_of(0), 1: frames_of(1)})


@pytest.mark.parametrize("method", ["push", "run", "flush", "status", "finalize"])
def test_an_unknown_stream_says_what_to_call(streamer, log_streamer, method):
    more = {"push": (0, frames_of(0)), "run": ([],)}.get(method, ())
    with pytest.raises(RuntimeError, match="data_id=no-such-stream: call initialize first"):
        getattr(streamer, method)("no-such-stream", *more)
    more = {"push": (0, "T", [1.0], [2.0]), "run": ("T", [])}.get(method, ())
    with pytest.raises(RuntimeError, match="data_id=no-such-stream: call initialize first"):
        getattr(log_streamer, method)("no-such-stream", *more)


def test_misuse_raises_at_once_and_counts_for_nothing(streamer):
    data_id = begin(streamer)
    for arguments, error in [
        ((-1, frames_of(0)), OverflowError),
        ((2**63, frames_of(0)), OverflowError),
        (("0", frames_of(0)), TypeError),
        ((0, frames_of(0), 1.5), TypeError),
        ((0, np.zeros((0, 3, 4), np.uint8)), RuntimeError),
        ((0, np.zeros(3, np.uint8)), ValueError),
        ((0, "frames"), ValueError),
    ]:
        with pytest.raises(error):
            streamer.push(data_id, *arguments)
    for item in [(frames_of(0), True), (frames_of(0), 1.5), (frames_of(0), None)]:
        with pytest.raises(ValueError, match=f"{data_id}, chunk 0: the second element"):
            streamer.run(data_id, iter([item]))
    with pytest.raises(ValueError, match="seconds are 0 or more"):
        streamer.finalize(data_id, timeout_s=-1)
    with pytest.raises(ValueError, match="chunk_size 39"):
        streamer.initialize(20.0, 0.0, 39)
    assert streamer.status(data_id).pushed == 0
    assert streamer.finalize(data_id)["pushed"] == 0


def test_what_an_iterator_raises_comes_out_as_it_is(server, streamer):
    data_id = begin(streamer)

    def camera():
        yield frames_of(0), START_MS
        raise OSError("the cable is out")

    with pytest.raises(OSError, match="the cable is out"):
        streamer.run(data_id, camera())
    assert streamer.flush(data_id).confirmed == 1, "the chunks before it are delivered all the same"


def test_many_streams_and_threads_keep_their_settings(server, streamer, log_streamer):
    kinds = [(20.0, 0.0, 40), (120.0, 6.0, 240), (10.0, 0.0, 25)]
    ids = [streamer.initialize(*kind, stream_name=next(NAMES)) for kind in kinds]
    log_id = log_streamer.initialize("log")

    def camera(number):
        for index in range(5):
            streamer.push(ids[number], index, frames_of(100 * number + index), START_MS + 1000 * index)

    def log():
        for index in range(5):
            log_streamer.push(log_id, index, "T", [1000.0 + index], [float(index)])

    with ThreadPoolExecutor(4) as pool:
        for future in [pool.submit(camera, 0), pool.submit(camera, 1), pool.submit(camera, 2), pool.submit(log)]:
            future.result()
        reports = list(pool.map(streamer.finalize, ids))
    assert [report["chunks_uploaded"] for report in reports] == [5, 5, 5]
    assert log_streamer.finalize(log_id)["chunks_uploaded"] == 5
    for number, (data_id, (fps, rpm, chunk_size)) in enumerate(zip(ids, kinds, strict=True)):
        stream = assert_stored(server.url, data_id, {i: frames_of(100 * number + i) for i in range(5)})
        assert {c["fps"] for c in stream["chunk_list"]} == {fps}
        assert {c["chunk_size"] for c in stream["chunk_list"]} == {chunk_size}
        assert {c["is_rotating"] for c in stream["chunk_list"]} == {rpm > 0}
        assert stream["rotational_period"] == (fps * 60 / rpm if rpm > 0 else None)
    assert stored_points(server.url, log_id)["values"] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_push_from_a_camera_s_thread_and_from_inside_asyncio(server, streamer):
    """A callback's thread has no event loop; asyncio's has one that is running. Neither matters."""
    data_id = begin(streamer)
    thread = threading.Thread(target=push, args=(streamer, data_id, 0))
    thread.start()
    thread.join()

    async def acquisition():
        push(streamer, data_id, 1)
        await asyncio.sleep(0)
        push(streamer, data_id, 2)
        return await asyncio.to_thread(streamer.finalize, data_id)

    assert asyncio.run(acquisition())["chunks_uploaded"] == 3
    assert_stored(server.url, data_id, {i: frames_of(i) for i in range(3)})


def test_links_are_made(server, streamer):
    data_id = begin(streamer, physical_sample="GaN 7", tags=["calibration", "GaN"], azimuth="[110]")
    streamer.finalize(data_id)
    stream = stored_chunks(server.url, data_id)[0]
    assert stream["sample"]["name"] == "GaN 7"
    assert [tag["name"] for tag in stream["tags"]] == ["calibration", "GaN"]
    assert stream["azimuth_label"] == "[110]"
    with pytest.raises(RuntimeError, match="was not created"):
        begin(streamer, physical_sample="12345678-1234-4234-8234-123456789abc")


def test_the_machine_s_spool(streamer):
    status = streamer.spool_status()
    assert set(status) == {
        "dir", "bytes", "max_bytes", "min_free_bytes", "free_bytes", "chunks_pending", "chunks_damaged", "minutes_left",
    }  # fmt: skip
    assert status["max_bytes"] > 0
    assert status["min_free_bytes"] == 1_000_000_000
    assert status["minutes_left"] is None or status["minutes_left"] >= 0


def test_the_key_is_shown_nowhere(server, streamer, log_streamer, state):
    key = KEY.reveal()
    assert repr(streamer) == f"RHEEDStreamer({server.url!r})"
    assert key not in repr(log_streamer)
    assert key not in repr(streamer._session.options)
    for path in state.rglob("*"):
        assert not path.is_file() or key.encode() not in path.read_bytes(), path
    with pytest.raises(TypeError):
        pickle.dumps(streamer)


def test_a_full_window_blocks_or_drops_as_asked(server, streamer, state):
    """While the packer hangs, nothing becomes durable; `push` waits for that, or drops, and says so."""
    packer = packer_pid(streamer)
    waiting = begin(streamer)
    with RHEEDStreamer(
        KEY.reveal(), server.url, state_dir=state, options=OPTIONS, on_full="drop", window=1
    ) as dropping:
        assert dropping._session is streamer._session
        data_id = begin(dropping)
        os.kill(packer, signal.SIGSTOP)
        try:
            push(dropping, data_id, 0, 1, 2)
            assert dropping.status(data_id).lost.keys() == {1, 2}
            blocked = threading.Thread(target=push, args=(streamer, waiting, *range(WINDOW + 1)))
            blocked.start()
            blocked.join(0.3)
            assert blocked.is_alive()
            assert streamer.status(waiting).pushed == WINDOW + 1
            assert streamer.status(waiting).acknowledged == 0
            with pytest.raises(RuntimeError, match=r"5 chunk\(s\) were not durable after 0.2 s: chunk 0"):
                streamer.flush(waiting, 0.2)
        finally:
            os.kill(packer, signal.SIGCONT)
        blocked.join(30)
        assert streamer.finalize(waiting)["chunks_uploaded"] == WINDOW + 1
        with pytest.warns(RuntimeWarning, match=r"without 2 of its chunks: chunk 1: dropped: .*; chunk 2: dropped: "):
            report = dropping.finalize(data_id)
    assert (report["chunks_dropped"], report["chunks_failed"], report["chunks_uploaded"]) == (2, 0, 1)
    assert report["form"] == "close_with_losses"
    assert_stored(server.url, data_id, {0: frames_of(0)})


# -- points ------------------------------------------------------------------------------------------------------------


def test_points_arrive(server, log_streamer):
    data_id = log_streamer.initialize(next(NAMES))
    log_streamer.push(data_id, 1, "T", np.array([1001.0, 1002.0]), np.array([21.0, np.nan]), "degC")
    log_streamer.push(data_id, 0, "T", [1000.0], [20])
    log_streamer.push_multi(
        data_id,
        0,
        {
            "p": {"timestamps": [1000.5], "values": [float("inf")], "units": "mbar"},
            "empty": {"timestamps": [], "values": []},
        },
    )
    log_streamer.run(data_id, "x", iter([([1.0], [1.0]), ([2.0], [2.0])]), "mm")
    report = log_streamer.finalize(data_id)
    assert (report["chunks_uploaded"], report["form"]) == (5, "close")
    points = stored_points(server.url, data_id)
    assert (points["timestamps"], points["values"]) == ([1000.0, 1001.0, 1002.0], [20.0, 21.0, None])
    assert points["units"] == "degC"
    assert stored_points(server.url, data_id, "p")["values"] == [None]
    assert stored_points(server.url, data_id, "x")["values"] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda s, d: s.push(d, 0, "T", [1.0, 2.0], [1.0]), "chunk 0: channel 'T': .*same length"),
        (lambda s, d: s.push_multi(d, 3, {"p": {"timestamps": [1.0], "values": ["high"]}}), "chunk 3: channel 'p'"),
        (lambda s, d: s.push_multi(d, 3, {"p": {"timestamps": [1.0]}}), "channel 'p': missing 'values'"),
        (lambda s, d: s.run(d, "T", iter([([1.0], [1.0, 2.0])])), "chunk 0 of T"),
        (lambda s, d: s.run(d, "T", iter([[1.0]])), "not a tuple"),
    ],
)
def test_points_that_are_none_raise_at_once_and_name_the_channel(log_streamer, call, said):
    data_id = log_streamer.initialize(next(NAMES))
    with pytest.raises(RuntimeError, match=said) as caught:
        call(log_streamer, data_id)
    assert data_id in str(caught.value)
    assert log_streamer.status(data_id).pushed == 0


def test_refused_points_name_the_channel(server, log_streamer):
    data_id = log_streamer.initialize(next(NAMES))
    Trouble(server, 422, on=uploads)
    log_streamer.push(data_id, 4, "pressure", [1.0], [1.0])
    with pytest.warns(RuntimeWarning, match=r"chunk 4 of pressure.*not to our taste"):
        report = log_streamer.finalize(data_id)
    assert (report["chunks_failed"], report["chunks_dropped"]) == (1, 0)


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_streamers_of_a_process_share_their_session_and_another_account_has_its_own(
    server, streamer, log_streamer, state, tmp_path, monkeypatch
):
    import ray

    assert streamer._session is log_streamer._session
    with RHEEDStreamer(f" {KEY.reveal()}\n", server.url + "/", state_dir=state, options=OPTIONS) as third:
        assert third._session is streamer._session, "a key read from a file has a line's end"
        data_id = begin(third)
        push(third, data_id, 0)
    assert not streamer._session.is_closed, "others use it still"
    for call in (lambda: push(third, data_id, 1), lambda: begin(third), lambda: third.status(data_id)):
        with pytest.raises(RuntimeError, match="closed"):
            call()
    third.close()

    monkeypatch.setenv("ATOMSCALE_SKIP_CLOCK_SYNC", "1")
    other = {"state_dir": tmp_path / "other", "options": OPTIONS}
    with (
        TimeseriesStreamer(KEY.reveal(), server.url, 50, api_generation="metrology", **other) as metrology,
        RHEEDStreamer(KEY.reveal(), server.url, stamp="end", **other) as end,
    ):
        assert metrology._session is not streamer._session
        assert metrology.clock_status() is None
        log_id = metrology.initialize("older")
        server.wire.requests.clear()
        metrology.push_multi(
            log_id,
            0,
            {"T": {"timestamps": [1.0], "values": [1.0]}, "p": {"timestamps": [1.0], "values": [2.0]}},
        )
        assert metrology.finalize(log_id)["chunks_uploaded"] == 2
        posts = [path.rstrip("/") for method, path in server.wire.requests if method == "POST"]
        assert posts.count("/metrology/stream/chunk") >= 2, "one for each channel"
        assert posts[-1] == f"/metrology/stream/{log_id}/finalize"
        assert len(set(posts)) == 2
        assert end._session is metrology._session
        data_id = begin(end)
        before_ms = time.time() * 1000
        end.push(data_id, 0, frames_of(0))
        after_ms = time.time() * 1000
        end.finalize(data_id)
        [chunk] = stored_chunks(server.url, data_id)[0]["chunk_list"]
        assert before_ms - 1 <= chunk["end_unix_ms_utc"] <= after_ms, "the moment of the push is the chunk's end"
        assert chunk["clock_offset_ms"] is None, "and is the host's"
    assert metrology._session.is_closed
    assert ray.is_initialized(), "which was not ours to end"


def test_streamers_that_cannot_be(server):
    for arguments, error in [
        (("", server.url), RuntimeError),
        (("k\u00e9y", server.url), RuntimeError),
        ((None, server.url), TypeError),
        (("key", "ftp://platform"), RuntimeError),
        (("key", "http://user:secret@platform"), RuntimeError),
        (("key", 7), TypeError),
    ]:
        with pytest.raises(error) as caught:
            RHEEDStreamer(*arguments)
        assert "secret" not in str(caught.value)
    for keyword in ({"stamp": "middle"}, {"on_full": "panic"}, {"window": 0}, {"spool_max_bytes": 0}):
        with pytest.raises(ValueError, match=r"\w"):
            RHEEDStreamer("key", server.url, **keyword)
    with pytest.raises(ValueError, match="api_generation"):
        TimeseriesStreamer("key", server.url, api_generation="newest")
    with pytest.raises(StreamerError):
        RHEEDStreamer("key", server.url, address="ray://head:10001")


# -- kills -------------------------------------------------------------------------------------------------------------


def kill(streamer, role: str) -> None:
    """End one of the session's actors at once; Ray starts it again."""
    import ray

    session = streamer._session
    if role == "aggregator":  # its ping does not say its process
        ray.kill(session.handle(role).actor, no_restart=False)
        return
    os.kill(packer_pid(streamer) if role == "live_packer" else session.ask(role, "ping"), signal.SIGKILL)


@pytest.mark.chaos
@pytest.mark.parametrize("role", ["live_packer", "rheed_streamer", "live_dispatcher", "aggregator"])
def test_a_killed_actor_comes_back_and_everything_arrives_once(server, streamer, role):
    """In the middle of pushes, and again in the middle of a run."""
    data_id = begin(streamer)
    sent = {index: frames_of(1000 + index, 40, 60, 80) for index in range(14)}

    def camera():
        for index in range(7, 14):
            yield sent[index], START_MS + 2000 * index
            if index == 10:
                kill(streamer, role)

    for index in range(7):
        streamer.push(data_id, index, sent[index], START_MS + 2000 * index)
        if index == 3:
            kill(streamer, role)
    streamer.run(data_id, camera())
    report = streamer.finalize(data_id)
    assert (report["chunks_uploaded"], report["form"], report["lost"]) == (14, "close", [])
    stream = assert_stored(server.url, data_id, sent)
    assert (stream["status"], stream["times_closed"]) == ("closed", 1)


@pytest.mark.chaos
def test_points_survive_the_death_of_their_actor(server, log_streamer):
    data_id = log_streamer.initialize(next(NAMES))
    for index in range(40):
        log_streamer.push(data_id, index, "T", [float(index)], [float(index)])
        if index == 20:
            kill(log_streamer, "timeseries_streamer")
    report = log_streamer.finalize(data_id)
    assert (report["chunks_uploaded"], report["lost"]) == (40, [])
    assert stored_points(server.url, data_id)["values"] == [float(index) for index in range(40)]


# -- scripts -----------------------------------------------------------------------------------------------------------


def script(server, folder: Path, what: str) -> subprocess.Popen:
    """Begin a lab's script in a process of its own, with a Ray of its own, on the state that `folder` has."""
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tests.actors.streamer_script",
            server.url,
            str(folder.parent / "state"),
            str(folder),
            what,
        ],
        cwd=ROOT,
        env={**os.environ, "AS_API_KEY": KEY.reveal()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def said(folder: Path, name: str, timeout_s: float = 60.0) -> str:
    """Return what a script wrote into its folder."""
    ends_s = time.monotonic() + timeout_s
    while not (folder / name).exists() or not (folder / name).read_text():
        assert time.monotonic() < ends_s, f"the script never said {name}"
        time.sleep(0.02)
    return (folder / name).read_text()


def ended(process: subprocess.Popen) -> str:
    """Wait until a script ends well; return what it wrote to stderr."""
    out, errors = process.communicate(timeout=90)
    assert process.returncode == 0, errors
    assert KEY.reveal() not in out + errors
    return errors


def test_the_sdk_s_pattern_delivers_everything(server, tmp_path):
    """push ...; finalize; exit: with the SDK, what is still on its way at the end is lost."""
    process = script(server, tmp_path / "script", "finalize")
    assert "Traceback" not in ended(process)
    data_id = said(tmp_path / "script", "data_id")
    stream = assert_stored(server.url, data_id, {i: frames_of(i) for i in range(3)})
    assert stream["status"] == "closed"
    assert stored_points(server.url, said(tmp_path / "script", "log_id"))["values"] == [20.5, 21.5]
    assert "Ray that the streamer ran on was shut down" in said(tmp_path / "script", "after")
    assert said(tmp_path / "script", "began_anew") == "False", "nothing of ours starts another Ray"


@pytest.mark.chaos
def test_two_scripts_share_a_journal_one_is_killed_and_the_next_streamer_delivers(server, tmp_path):
    """The killed one loses its window at most; the other ends without finalize while the server is down."""
    trouble = Trouble(server, 503, on=uploads)
    killed, leaving = (script(server, tmp_path / name, name) for name in ("killed", "exit"))
    killed_id, exit_id = said(tmp_path / "killed", "data_id"), said(tmp_path / "exit", "data_id")
    first = int(said(tmp_path / "killed", "pushed"))
    ends_s = time.monotonic() + 30
    while int(said(tmp_path / "killed", "pushed")) < first + 20 and time.monotonic() < ends_s:
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    pushed = int(said(tmp_path / "killed", "pushed")) + 1
    errors = ended(leaving)
    files = list((tmp_path / "state").rglob("*.chunk"))
    assert len(files) >= pushed - WINDOW + 6
    assert f"stream {exit_id}: 6 chunk(s)" in errors, "it says what waits, and where"
    assert "wait in the spool" in errors
    assert "are lost" not in errors
    trouble.kind = None
    with RHEEDStreamer(KEY.reveal(), server.url, state_dir=tmp_path / "state", options=OPTIONS) as streamer:
        ends_s = time.monotonic() + 60
        while streamer.spool_status()["chunks_pending"] and time.monotonic() < ends_s:
            time.sleep(0.05)
        assert streamer.spool_status()["chunks_pending"] == 0
    sent = {i: frames_of(i, 40, 100, 100) for i in range(6)}
    assert assert_stored(server.url, exit_id, sent)["status"] == "open"
    _, chunks = stored_chunks(server.url, killed_id)
    there = [chunk.index for chunk in chunks]
    assert len(there) >= pushed - WINDOW, "kill -9 loses at most the window"
    assert set(range(pushed - WINDOW - 1)) <= set(there)
    for chunk in chunks:
        assert np.array_equal(chunk.frames, frames_of(chunk.index, 40, 100, 100))
