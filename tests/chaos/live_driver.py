"""A live script in a process of its own, with chaos hooks in its session's actors; tells a log what it does.

Every line of the log is on disk before the driver goes on, so the oracle knows what a killed one had done. With
``deliver`` it is the next session instead: makes a streamer, and waits until the spool is empty.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from actors.live_setup import LiveOptions, LiveSetup
from actors.producer import ProducedStream
from actors.rheed_streamer import RHEEDStreamer
from actors.senders import FramesSender, PointsSender
from actors.session import SessionOptions
from actors.streamer_base import StreamerBase
from actors.timeseries_streamer import POINTS_WINDOW, TimeseriesStreamer
from ingest.carrier import Acknowledgement
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret
from ingest.wire.session import check_endpoint
from tests.chaos.hooks import ChaosTelemetry, write_pid
from tests.chaos.live_made import CHANNELS, FPS, PUSH, RUN, SAMPLE, SERIES, SHAPE, TAG, PointsStep, Script
from tests.chaos.live_mutants import LIVE_MUTANTS

WINDOW = 4
DELIVER_FOR_S = 40.0


class Log:
    """Lines of JSON, each on disk when `write` returns; for threads."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._lock = threading.Lock()

    def write(self, what: str, **fields: Any) -> None:
        line = json.dumps({"what": what, **fields}) + "\n"
        with self._lock:
            os.write(self._fd, line.encode())
            os.fsync(self._fd)


class _Logged:
    """A sender that logs what it is told to be durable."""

    log: Log

    def _settled(self, stream: ProducedStream, seq: int, index: int, outcome: Acknowledgement) -> bool:
        settled: bool = super()._settled(stream, seq, index, outcome)  # type: ignore[misc]
        if settled:
            self.log.write("settled", data_id=stream.data_id, seq=seq, index=index, how=type(outcome).__name__)
        return settled


class _LoggedFramesSender(_Logged, FramesSender):
    pass


class _LoggedPointsSender(_Logged, PointsSender):
    pass


class ChaosRHEEDStreamer(RHEEDStreamer):
    """The real one, in a session with hooks."""

    def __init__(self, options: SessionOptions, log: Log) -> None:
        StreamerBase.__init__(self, options, "rheed_streamer", WINDOW, "block")
        self._stamp = "start"
        session = self._session
        self._sender = _LoggedFramesSender(session.handle("rheed_streamer"), session.pool(), session.poke, "block")
        self._sender.log = log


class ChaosTimeseriesStreamer(TimeseriesStreamer):
    """The real one, in a session with hooks."""

    def __init__(self, options: SessionOptions, log: Log, generation: Any) -> None:
        self._points_per_chunk, self._generation = 10, generation
        StreamerBase.__init__(self, options, "timeseries_streamer", POINTS_WINDOW, "block")
        self._sender = _LoggedPointsSender(self._session.handle("timeseries_streamer"), self._session.poke, "block")
        self._sender.log = log


class LiveDriver:
    """Pushes a script into its streams at once, then finalizes them."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.folder = Path(config["folder"])
        self.script = Script(**config["script"])
        self.log = Log(self.folder / "live.log")
        self.failed: list[BaseException] = []
        self.options = self._options()
        self.rheed: ChaosRHEEDStreamer | None = None
        self.series: ChaosTimeseriesStreamer | None = None

    def _options(self) -> SessionOptions:
        config = self.config
        setup = LiveSetup(
            session_id="",
            destination=check_endpoint(config["url"]),
            api_key=Secret(os.environ["AS_API_KEY"]),
            state_dir=config["state"],
            options=LiveOptions(
                packers=2,
                lease_s=config["lease_s"],
                direct_for_s=config["direct_for_s"],
                scan_s=0.3,
                drain_retry=RetryPolicy(first_s=0.05, max_s=0.3, retry_for_s=2.0),
            ),
            telemetry=ChaosTelemetry(str(self.folder)),
        )
        return SessionOptions(setup, object_store_bytes=80 << 20, classes=LIVE_MUTANTS[config["mutant"]])

    # -- a script ------------------------------------------------------------------------------------------------------

    def stream(self) -> None:
        """Feed all streams at once, from a thread each; then flush and finalize them."""
        wanted = self.config["streams"]
        feeds: list[tuple[Callable[[str], None], str]] = []
        ids: dict[str, tuple[StreamerBase, str]] = {}
        if RUN in wanted or PUSH in wanted:
            self.rheed = ChaosRHEEDStreamer(self.options, self.log)
        if SERIES in wanted:
            self.series = ChaosTimeseriesStreamer(self.options, self.log, self.script.generation)
        if RUN in wanted and self.rheed is not None:
            data_id = self.rheed.initialize(FPS, 0.0, SHAPE[0], "by run", SAMPLE, tags=[TAG])
            ids[RUN] = self.rheed, data_id
            feeds.append((self._run, data_id))
        if PUSH in wanted and self.rheed is not None:
            data_id = self.rheed.initialize(FPS, 12.0, SHAPE[0], "by push")
            ids[PUSH] = self.rheed, data_id
            feeds.append((self._push, data_id))
        if SERIES in wanted and self.series is not None:
            data_id = self.series.initialize("log", physical_sample=SAMPLE)
            ids[SERIES] = self.series, data_id
            feeds.append((self._series, data_id))
        for name, (streamer, data_id) in ids.items():
            self.log.write("stream", name=name, data_id=data_id, key=streamer._streams[data_id].key)
        threads = [threading.Thread(target=self._guarded, args=feed) for feed in feeds]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.log.write("pushed")
        time.sleep(self.config["rest_s"])
        for name, (streamer, data_id) in ids.items():
            try:
                self._finish(name, streamer, data_id)
            except Exception as exc:
                self.failed.append(exc)

    def _guarded(self, feed: Callable[[str], None], data_id: str) -> None:
        try:
            feed(data_id)
        except Exception as exc:
            self.failed.append(exc)

    def _run(self, data_id: str) -> None:
        script = self.script

        def chunks() -> Iterator[tuple[Any, int]]:
            for seq, step in enumerate(script.run_steps()):
                start_ms = script.start_ms(step.index)
                self.log.write("push", name=RUN, seqs=[seq], index=step.index, version=0, ms=[start_ms, start_ms])
                yield script.frames(RUN, step), start_ms
                self.log.write("returned", name=RUN, seqs=[seq])
                time.sleep(self.config["pace_s"])

        assert self.rheed is not None
        self.rheed.run(data_id, chunks())
        self.log.write("run returned", name=RUN)

    def _push(self, data_id: str) -> None:
        assert self.rheed is not None
        for seq, step in enumerate(self.script.push_steps()):
            frames = self.script.frames(PUSH, step)
            self.log.write("push", name=PUSH, seqs=[seq], index=step.index, version=step.version)
            before_ms = time.time_ns() // 1_000_000
            self.rheed.push(data_id, step.index, frames)
            frames[:] = 0  # the caller may use its memory again
            self.log.write("returned", name=PUSH, seqs=[seq], ms=[before_ms, time.time_ns() // 1_000_000])
            time.sleep(self.config["pace_s"])

    def _series(self, data_id: str) -> None:
        seq = 0
        for step in self.script.points_steps():
            seqs = list(range(seq, seq + self._requests(step)))
            seq += len(seqs)
            self.log.write("push", name=SERIES, seqs=seqs, index=step.index, channels=step.channels)
            self._push_points(data_id, step)
            self.log.write("returned", name=SERIES, seqs=seqs)
            time.sleep(self.config["pace_s"])

    def _requests(self, step: PointsStep) -> int:
        return len(step.channels) if self.script.generation == "metrology" else 1

    def _push_points(self, data_id: str, step: PointsStep) -> None:
        assert self.series is not None
        if step.is_multi:
            self.series.push_multi(data_id, step.index, self.script.multi(step))
            return
        [name] = step.channels
        self.series.push(data_id, step.index, name, *self.script.points(step, name), CHANNELS[name])

    def _finish(self, name: str, streamer: StreamerBase, data_id: str) -> None:
        limit_s = self.config["finalize_for_s"]
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            if self.config["flush"]:
                streamer.flush(data_id, limit_s)
            report = streamer.finalize(data_id, limit_s)
        texts = [str(warning.message) for warning in warned if warning.category is RuntimeWarning]
        self.log.write("finalized", name=name, report=report, warned=texts)

    # -- the next session ----------------------------------------------------------------------------------------------

    def deliver(self) -> None:
        """Be a streamer, and wait until nothing waits: no chunk in the spool, no sealed stream to close."""
        self.rheed = self.rheed or ChaosRHEEDStreamer(self.options, self.log)
        session = self.rheed._session
        ends_s = time.monotonic() + DELIVER_FOR_S
        while time.monotonic() < ends_s:
            streams = session.ask("aggregator", "live_streams", session.setup.account)
            unclosed = [s.key for s in streams if s.is_sealed and s.state in ("open", "closing")]
            if not unclosed and self.rheed.spool_status()["chunks_pending"] == 0:
                return
            time.sleep(0.1)
        raise TimeoutError(f"the spool is not delivered after {DELIVER_FOR_S:.0f} s; {self.rheed.spool_status()}")

    def close(self) -> None:
        for streamer in (self.rheed, self.series):
            if streamer is not None:
                streamer.close()


def main() -> int:
    config = json.loads(Path(sys.argv[1]).read_text())
    write_pid(Path(config["folder"]), config["name"], os.getpid())
    driver = LiveDriver(config)
    try:
        if config["streams"]:
            driver.stream()
        if config["deliver"]:
            driver.deliver()
    except Exception as exc:
        driver.failed.append(exc)
    driver.close()
    for exc in driver.failed:
        driver.log.write("failed", driver=config["name"], error=f"{type(exc).__name__}: {exc}")
    return 3 if driver.failed else 0


if __name__ == "__main__":
    sys.exit(main())
