"""What both streamers do alike: begin streams, wait for their chunks, close them, say how they are."""

from __future__ import annotations

import logging
import threading
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from actors.arguments import as_seconds
from actors.live_dispatcher import StreamProgress
from actors.producer import ProducedStream, PushWindow
from actors.senders import OnFull
from actors.session import LiveSession, SessionOptions, session_of
from ingest.errors import ArgumentTypeError, ClusterError, IngestError, LeaseHeldError, SettingsError, StreamerError
from ingest.failover import FailoverOptions
from ingest.journal import LiveSettings
from ingest.ledger import Sealed, StreamState
from ingest.live import FinalizeReport, SpoolReport, StreamStatus

__all__ = ["FINALIZE_FOR_S", "StreamerBase"]

logger = logging.getLogger("rheed_ingest")

FINALIZE_FOR_S = 600.0
POLL_S = 0.02
MAX_POLL_S = 0.25
INITIALIZE_TIMEOUT_S = 120.0


class StreamerBase:
    """A streamer's streams by ``data_id``, in one session that other streamers of the process may share.

    Parameters
    ----------
    options : SessionOptions
        The session.
    role : str
        Of the actor that holds its streams.
    window : int
        Chunks that may be pushed and not yet durable.
    on_full : {"block", "drop"}
        What becomes of a chunk for which there is no room.
    """

    def __init__(self, options: SessionOptions, role: str, window: int, on_full: OnFull) -> None:
        if on_full not in ("block", "drop"):
            raise SettingsError(f"on_full is {on_full!r}", hint='pass "block" or "drop"')
        PushWindow(window, 0)  # refuses what is none before Ray is started
        try:
            self._session: LiveSession = session_of(options)
        except (ClusterError, OSError) as exc:
            raise StreamerError(f"the streamer cannot start: {exc}", hint=getattr(exc, "hint", None)) from exc
        self._role = role
        self._on_full: OnFull = on_full
        self._window_chunks = window
        self._streams: dict[str, ProducedStream] = {}
        self._reports: dict[str, FinalizeReport] = {}
        self._lock = threading.Lock()
        self._is_left = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._session.setup.destination!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _value: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.close()

    # -- streams -------------------------------------------------------------------------------------------------------

    def _begin(self, settings: LiveSettings, window_bytes: int) -> str:
        """Create a stream and remember it; return its ``data_id``."""
        self._refuse_closed()
        key = uuid.uuid4().hex
        try:
            data_id: str = self._session.ask(self._role, "initialize", key, settings, timeout_s=INITIALIZE_TIMEOUT_S)
        except SettingsError:
            raise
        except IngestError as exc:
            raise StreamerError(f"stream {settings.name or ''!r} was not created: {exc}", hint=exc.hint) from exc
        window = PushWindow(self._window_chunks, window_bytes)
        stream = ProducedStream(key, data_id, settings, window)
        with self._lock:
            self._streams[data_id] = stream
        self._session.streams.append(stream)
        self._session.clock.wait_first(1.0)
        self._session.post(self._session.poke(key))
        return data_id

    def _stream(self, data_id: str) -> ProducedStream:
        if not isinstance(data_id, str):
            raise ArgumentTypeError(f"data_id is a {type(data_id).__name__}, not a str")
        self._refuse_closed()
        stream = self._streams.get(data_id)
        if stream is None:
            raise StreamerError(
                f"no stream initialized for data_id={data_id}: call initialize first",
                hint="call initialize(...) of this streamer, and use the data_id that it returns",
            )
        return stream

    def _refuse_closed(self) -> None:
        if self._is_left:
            raise StreamerError("the streamer is closed", hint="make a new one")
        self._session.check_open()

    @contextmanager
    def _admitted(self, stream: ProducedStream, seq: int, index: int, n_bytes: int) -> Iterator[bool]:
        """Take room for a chunk, or drop it if that was asked; give whether it goes on. What raises takes it back."""
        try:
            if not stream.window.admit(n_bytes, block=self._on_full == "block"):
                logger.warning("stream %s: chunk %d is dropped: the window is full", stream.data_id, index)
                stream.drop(seq, index, "the window between push and the spool was full")
                yield False
                return
            try:
                yield True
            except BaseException:
                stream.window.give_back(n_bytes)
                raise
        except BaseException:
            stream.withdraw(seq)
            raise

    # -- waiting -------------------------------------------------------------------------------------------------------

    def flush(self, data_id: str, timeout_s: float | None = FINALIZE_FOR_S) -> StreamStatus:
        """Wait until everything pushed so far is confirmed or lost for good; return where it is. Safe to repeat.

        Parameters
        ----------
        data_id : str
            The stream.
        timeout_s : float or None, default 600
            How long to wait; None: as long as it takes.

        Raises
        ------
        RuntimeError
            Chunks are still on their way or only in the spool; or the platform refuses the stream or the key.
        """
        stream = self._stream(data_id)
        ends_s = float("inf") if timeout_s is None else time.monotonic() + timeout_s
        self._await_durable(stream, ends_s, timeout_s)
        self._session.ask("live_dispatcher", "retry", stream.key)
        poll_s = POLL_S
        while True:
            progress = self._progress(stream)
            if progress.spooled == 0:
                return self._status(stream, progress)
            self._refuse_hopeless(stream, progress)
            if time.monotonic() >= ends_s:
                raise self._only_spooled(stream, progress, timeout_s)
            time.sleep(poll_s)
            poll_s = min(poll_s * 1.5, MAX_POLL_S)

    def _await_confirmed(self, stream: ProducedStream, lost_before: set[int]) -> None:
        """Wait while chunks are being confirmed; raise if some are lost, or none was for ten minutes."""
        confirmed = self._progress(stream).journal.confirmed
        while True:
            try:
                status = self.flush(stream.data_id, FINALIZE_FOR_S)
            except StreamerError:
                progress = self._progress(stream)
                self._refuse_hopeless(stream, progress)
                if progress.journal.confirmed <= confirmed:
                    raise
                confirmed = progress.journal.confirmed
            else:
                break
        lost = {index: reason for index, reason in status.lost.items() if index not in lost_before}
        if lost:
            reasons = "; ".join(reason for _, reason in sorted(lost.items())[:8])
            raise StreamerError(
                f"stream {stream.data_id}: {len(lost)} of {stream.pushed} chunk(s) did not arrive: {reasons}"
            )

    def status(self, data_id: str) -> StreamStatus:
        """Return where a stream's chunks are. Changes nothing."""
        stream = self._stream(data_id)
        return self._status(stream, self._progress(stream))

    def _await_durable(self, stream: ProducedStream, ends_s: float, timeout_s: float | None) -> None:
        left_s = None if ends_s == float("inf") else max(ends_s - time.monotonic(), 0.0)
        if not stream.wait_settled(left_s):
            names = stream.on_their_way()
            raise StreamerError(
                f"stream {stream.data_id}: {len(names)} chunk(s) were not durable after {timeout_s:g} s: "
                f"{', '.join(names[:8])}",
                hint="call it again to go on waiting",
            )

    def _progress(self, stream: ProducedStream) -> StreamProgress:
        progress: StreamProgress = self._session.ask("live_dispatcher", "progress", stream.key)
        return progress

    def _status(self, stream: ProducedStream, progress: StreamProgress) -> StreamStatus:
        _, lost = stream.expected()
        return StreamStatus(
            data_id=stream.data_id,
            pushed=stream.pushed,
            acknowledged=stream.acknowledged,
            confirmed=progress.journal.confirmed,
            spooled=progress.spooled,
            lost={**lost, **progress.journal.lost},
            is_closed=progress.journal.state is StreamState.CLOSED,
            stalled_by=progress.stalled_by,
            parked=sum(progress.parked.values()),
        )

    def _refuse_hopeless(self, stream: ProducedStream, progress: StreamProgress) -> None:
        where = f"{progress.spooled} chunk(s) stay in the spool {self._session.setup.spool_folder / stream.key}"
        where += _at_failovers(progress)
        if progress.journal.state is StreamState.GONE:
            raise StreamerError(
                f"stream {stream.data_id}: the platform takes nothing more: {progress.journal.gone_reason}; {where}",
                hint="`rheed-ingest spool list` shows them",
            )
        if progress.is_refused:
            raise StreamerError(
                f"stream {stream.data_id}: {progress.stalled_by}; {where} and are delivered once that is mended",
                hint="mend it, then call this again",
            )

    def _only_spooled(self, stream: ProducedStream, progress: StreamProgress, timeout_s: float | None) -> StreamerError:
        why = f" ({progress.stalled_by})" if progress.stalled_by else ""
        hint = "call it again to go on; the next streamer of this machine delivers them, too"
        for options in self._failovers(progress):
            hint += f"; {options.hint}"
        return StreamerError(
            f"stream {stream.data_id} is not closed: {progress.spooled} chunk(s) are still only in the spool "
            f"{self._session.setup.spool_folder / stream.key}{_at_failovers(progress)} after {timeout_s:g} s{why}",
            hint=hint,
        )

    def _failovers(self, progress: StreamProgress) -> list[FailoverOptions]:
        own = self._session.setup.options.failover
        return [own if own is not None and own.url == url else FailoverOptions(url) for url in progress.parked]

    # -- the end -------------------------------------------------------------------------------------------------------

    def finalize(
        self, data_id: str, timeout_s: float | None = None, *, drain_timeout_s: float | None = None
    ) -> FinalizeReport:
        """Wait until every pushed chunk is confirmed or finally lost, then close the stream. Safe to repeat.

        Parameters
        ----------
        data_id : str
            The stream; it takes no more pushes from now on.
        timeout_s, drain_timeout_s : float, optional
            How long to wait, default 600; the second is the SDK's name for it.

        Returns
        -------
        FinalizeReport
            The same again for a stream that is closed.

        Warns
        -----
        RuntimeWarning
            Chunks are lost: which, and why.

        Raises
        ------
        RuntimeError
            Not closed: chunks are still only in the spool, or the platform did not close it. Calling again goes on.
        """
        if isinstance(data_id, str) and data_id in self._reports:
            return self._reports[data_id]
        stream = self._stream(data_id)
        limit_s = as_seconds(timeout_s if timeout_s is not None else drain_timeout_s, FINALIZE_FOR_S)
        ends_s = time.monotonic() + limit_s
        stream.finalize()
        self._await_durable(stream, ends_s, limit_s)
        self._seal(stream, ends_s)
        progress = self._await_closed(stream, ends_s, limit_s)
        report = self._report(stream, progress)
        self._reports[data_id] = report
        if report["lost"]:
            reasons = "; ".join(reason for _, reason in report["lost"][:8])
            more = f"; and {len(report['lost']) - 8} more" if len(report["lost"]) > 8 else ""
            warnings.warn(
                f"stream {data_id} was closed without {len(report['lost'])} of its chunks: {reasons}{more}",
                RuntimeWarning,
                stacklevel=2,
            )
        return report

    def _seal(self, stream: ProducedStream, ends_s: float) -> None:
        expected, lost = stream.expected()
        while True:
            try:
                self._session.ask("live_dispatcher", "seal", stream.key, Sealed.of(expected), lost)
            except IngestError as exc:
                if self._progress(stream).journal.state in (StreamState.GONE, StreamState.CLOSED):
                    return
                # This process was away for longer than its lease; who took the stream gives it back when it is done.
                if isinstance(exc, LeaseHeldError) and time.monotonic() < ends_s:
                    time.sleep(MAX_POLL_S)
                    continue
                raise StreamerError(f"stream {stream.data_id} cannot be closed: {exc}", hint=exc.hint) from exc
            else:
                return

    def _await_closed(self, stream: ProducedStream, ends_s: float, limit_s: float) -> StreamProgress:
        self._session.ask("live_dispatcher", "retry", stream.key)
        poll_s = POLL_S
        while True:
            progress = self._progress(stream)
            if progress.journal.state is StreamState.CLOSED:
                return progress
            self._refuse_hopeless(stream, progress)
            if time.monotonic() >= ends_s:
                if progress.spooled:
                    raise self._only_spooled(stream, progress, limit_s)
                raise StreamerError(
                    f"stream {stream.data_id} is not closed after {limit_s:g} s: "
                    f"{progress.stalled_by or self._unanswered()}",
                    hint="all its chunks are confirmed; call finalize again",
                )
            time.sleep(poll_s)
            poll_s = min(poll_s * 1.5, MAX_POLL_S)

    def _unanswered(self) -> str:
        is_lake = self._session.setup.is_lake
        return "its frames or points are still being laid out" if is_lake else "the platform has not answered"

    def _report(self, stream: ProducedStream, progress: StreamProgress) -> FinalizeReport:
        lost = progress.journal.lost
        failed = lost.keys() - stream.expected()[1].keys()
        return FinalizeReport(
            data_id=stream.data_id,
            pushed=stream.pushed,
            chunks_spooled=progress.spooled,
            chunks_uploaded=progress.journal.confirmed,
            chunks_dropped=len(lost) - len(failed),
            chunks_failed=len(failed),
            chunks_purged=0,
            chunks_pending=0,
            chunks_not_uploaded=len(lost),
            lost=sorted([*lost.items(), *stream.versions_lost()]),
            closed="finalized",
            drained=True,
            form="close_with_losses" if lost else "close",
        )

    def close(self) -> None:
        """Wait up to 30 s until everything pushed is durable, and let go of Ray. Finalizes nothing. Safe to repeat."""
        with self._lock:
            if self._is_left:
                return
            self._is_left = True
        self._session.leave()

    # -- the machine ---------------------------------------------------------------------------------------------------

    def spool_status(self) -> SpoolReport:
        """Return the state of this machine's spool for this destination and key. Changes nothing."""
        usage = self._session.ask("live_dispatcher", "spool_usage")
        floor = self._session.setup.options.spool_limits.floor_bytes
        rate = self._session.pushed_bytes_per_s()
        room = max(min(usage.max_bytes - usage.n_bytes, usage.free_bytes - floor), 0)
        return SpoolReport(
            dir=str(self._session.setup.spool_folder),
            bytes=usage.n_bytes,
            max_bytes=usage.max_bytes,
            min_free_bytes=floor,
            free_bytes=usage.free_bytes,
            chunks_pending=usage.chunks,
            chunks_damaged=usage.damaged,
            minutes_left=room / rate / 60 if rate > 0 else None,
        )

    def clock_status(self) -> dict[str, Any] | None:
        """Return the correction of live stamps: ``offset_ms``, ``uncertainty_ms``, ...; None: there is none."""
        if self._session.clock.is_skipped:
            return None
        status = self._session.clock.status()
        return {
            "offset_ms": status.offset_ms,
            "uncertainty_ms": status.uncertainty_ms,
            "measured_at_unix_ms": None
            if status.last_sample_unix_s is None
            else round(1000 * status.last_sample_unix_s),
            "samples": status.samples,
            "is_applied": status.is_applied,
            "reason": status.reason,
        }


def _at_failovers(progress: StreamProgress) -> str:
    """Return how many of what waits do so elsewhere than in the spool, for people."""
    return "".join(f", {chunks} of them at the failover {url}" for url, chunks in progress.parked.items())
