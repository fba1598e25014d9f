"""``RHEEDStreamer``: the SDK's API for frames, held by Ray actors, that loses nothing."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import ray
import ray.exceptions

from actors.arguments import as_name, as_number, as_tags, as_text, spool_limits
from actors.live_setup import LiveOptions
from actors.producer import ProducedStream
from actors.senders import FramesItem, FramesSender, OnFull
from actors.session_options import session_options
from actors.streamer_base import StreamerBase
from ingest.errors import SettingsError, StreamerError
from ingest.failover import FAILOVER_AFTER_S
from ingest.live import Coerced, as_count, as_unix_ms, coerced_frames, default_stream_name, span_ms
from ingest.plan import StreamSettings
from ingest.wire.models import check_settings

__all__ = ["RHEEDStreamer", "Stamp"]

Stamp = Literal["start", "end"]


class RHEEDStreamer(StreamerBase):
    """Streams RHEED frames to the platform, or into a lake, as they are captured; the SDK's class, without its losses.

    ``push`` copies the frames into Ray's object store and returns; actors pack them, and deliver them or, when the
    network does not keep up, put them into a disk spool from which they are delivered later. Methods may be called from
    any threads, camera callbacks among them, for several streams at once. Not for pickling.

    Parameters
    ----------
    api_key : str, optional
        A platform's; never shown by ``repr``, logs, errors or Ray. A lake needs none.
    endpoint : str, optional
        Base URL of the platform, default ``https://api.atomscale.ai``.
    destination : str or path, optional
        Instead of `endpoint`: a lake, by its folder or a URL such as ``s3://bucket/path``, whose credentials come from
        where its client looks for them. A stream is readable there once it is closed.
    address : str, optional
        Of a Ray cluster; this process has to be on one of its nodes, and its chunks are packed and spooled there.
        Default: the Ray that this process is connected to, else a local one that ends with it.
    stamp : {"start", "end"}
        Whether the moment of a ``push`` without a time is the chunk's start (default) or its end.
    on_full : {"block", "drop"}
        Whether a push for which there is no room waits for the disk (default), or drops its chunk: counted, logged,
        reported by ``finalize``.
    window : int, default 4
        Chunks that may be pushed and not yet durable; their bytes are what ``kill -9`` of this process can lose.
    state_dir : path, optional
        Folder of the journal and the spool, on a local disk; default ``~/.local/state/rheed-ingest``, of a lake in a
        folder its ``.rheed-ingest``.
    object_store_bytes : int, default 512 MiB
        Size of a local Ray's object store, preallocated; two thirds of it may be pushed and not yet durable.
    spool_dir, spool_max_bytes, spool_min_free_bytes
        Where the spool is (default: in `state_dir`); how large it may become (half of the free disk) and how much it
        leaves free (1 GB).
    failover : str or path, optional
        Folder or URL such as ``s3://bucket/path`` where chunks in the spool are moved to while the destination does not
        answer, so that this node's disk is not their only copy and the spool has room. They are delivered from there
        by the streamer once it answers, or later by ``rheed-ingest reconcile``; until then they count as spooled.
    failover_after_s : float, default 60
        How long the destination has not answered before.
    verbosity, spool_retention_s
        Taken for the SDK's sake, without effect: log through `logging`; nothing is discarded by age.
    options : LiveOptions, optional
        Finer settings of the actors.

    Raises
    ------
    RuntimeError
        A key, endpoint, destination or failover that cannot be one; Ray does not start.
    TypeError
        A key, endpoint, destination or failover that is no string.

    Notes
    -----
    Holds no frames itself: ``window`` chunks in the object store, and about as many shards in the packers.
    """

    def __init__(
        self,
        api_key: str | None = None,
        endpoint: str | None = None,
        verbosity: int | None = None,  # noqa: ARG002 - the SDK's signature
        spool_dir: str | os.PathLike[str] | None = None,
        spool_max_bytes: int | None = None,
        spool_min_free_bytes: int | None = None,
        spool_retention_s: float | None = None,  # noqa: ARG002 - the SDK's signature
        *,
        destination: str | os.PathLike[str] | None = None,
        address: str | None = None,
        stamp: Stamp = "start",
        on_full: OnFull = "block",
        window: int = 4,
        state_dir: str | os.PathLike[str] | None = None,
        object_store_bytes: int | None = None,
        failover: str | os.PathLike[str] | None = None,
        failover_after_s: float = FAILOVER_AFTER_S,
        options: LiveOptions | None = None,
    ) -> None:
        if stamp not in ("start", "end"):
            raise SettingsError(f"stamp is {stamp!r}", hint='pass "start" or "end"')
        session = session_options(
            api_key,
            endpoint,
            destination,
            address=address,
            state_dir=state_dir,
            spool_dir=spool_dir,
            spool_limits=spool_limits(spool_max_bytes, spool_min_free_bytes),
            object_store_bytes=object_store_bytes,
            options=options,
            preallocate=True,
            failover=failover,
            failover_after_s=failover_after_s,
        )
        super().__init__(session, "rheed_streamer", window, on_full)
        self._stamp: Stamp = stamp
        self._sender = FramesSender(
            self._session.handle("rheed_streamer"), self._session.pool(), self._session.poke, on_full
        )

    def initialize(
        self,
        fps: float,
        rotations_per_min: float,
        chunk_size: int,
        stream_name: str | None = None,
        physical_sample: str | None = None,
        project_id: str | None = None,
        tags: Sequence[str] | None = None,
        azimuth: str | None = None,
    ) -> str:
        """Create a stream and remember its settings; return its ``data_id``.

        Parameters
        ----------
        fps : float
            Frames per second.
        rotations_per_min : float
            Of the sample; <= 0: stationary. Frames per rotation are ``fps * 60 / rotations_per_min``.
        chunk_size : int
            Frames that a chunk shall have, at least ``2 * fps``.
        stream_name : str, optional
            Default: like ``RHEED Stream @ 1:23PM``.
        physical_sample : str, optional
            UUID of one that exists, or a name (case does not matter), created if need be.
        project_id : str, optional
            UUID; with a sample, that becomes the project's tracked one.
        tags : sequence of str, optional
            UUIDs of ones that exist, or names, created if need be.
        azimuth : str, optional
            Label of a stationary stream's azimuth.

        Raises
        ------
        ValueError
            ``chunk_size < 2 * fps``, or other settings that no stream can have; nothing was sent.
        TypeError
            An argument of the wrong type.
        RuntimeError
            The platform did not create it, or has no such sample or tag.
        """
        settings = StreamSettings(
            name=as_name(stream_name) or default_stream_name(datetime.now().astimezone()),
            fps=as_number(fps, "fps"),
            rotations_per_min=as_number(rotations_per_min, "rotations_per_min"),
            chunk_size=as_count(chunk_size, "chunk_size"),
            azimuth=as_text(azimuth, "azimuth"),
            physical_sample=as_text(physical_sample, "physical_sample"),
            project_id=as_text(project_id, "project_id"),
            tags=as_tags(tags),
        )
        check_settings(settings)
        data_id = self._begin(settings, self._session.options.window_bytes)
        self._session.wait_for_packers()
        return data_id

    def push(self, data_id: str, chunk_idx: int, frames: Any, capture_start_ms_utc: int | None = None) -> None:
        """Hand over one chunk; returns as soon as its frames are copied. Safe to repeat: the last one given stays.

        Parameters
        ----------
        data_id : str
            What ``initialize`` returned.
        chunk_idx : int
            The chunk's place, from 0; any order.
        frames : array, (frame, y, x) or (y, x)
            Coerced to uint8 by ``astype``; the memory may be used again at once.
        capture_start_ms_utc : int, optional
            Unix ms of the chunk's first frame, sent exactly as given. Default: the moment of this call, by the
            platform's clock, or by the host's for a lake.

        Raises
        ------
        RuntimeError
            No such stream, or it was finalized; no pixels.
        ValueError, TypeError, OverflowError
            Arguments that cannot be; for a lake, frames of another height or width than the stream's first.

        Notes
        -----
        What becomes of the upload shows in ``flush``, ``finalize``, ``status`` and a log warning.
        """
        now_ms = time.time_ns() // 1_000_000
        stream = self._stream(data_id)
        index = as_count(chunk_idx, "chunk_idx")
        explicit_ms = None if capture_start_ms_utc is None else as_unix_ms(capture_start_ms_utc, "capture_start_ms_utc")
        self._push(stream, index, frames, now_ms, explicit_ms)

    def run(self, data_id: str, frames_iter: Iterable[Any]) -> None:
        """Stream what an iterator yields; returns when every chunk is confirmed.

        Parameters
        ----------
        data_id : str
            What ``initialize`` returned.
        frames_iter : iterable
            Of arrays as for ``push``, or tuples (array, capture start in Unix ms). An array without a time is stamped
            the moment it is yielded. Chunks count on from the highest that was pushed before.

        Raises
        ------
        RuntimeError
            Chunks are lost, or no chunk was confirmed for ten minutes; those in the spool are still delivered.
        ValueError
            A tuple's second element is not an int, or frames that are none.

        Notes
        -----
        What the iterator raises comes out as it is; the chunks before are delivered all the same.
        """
        stream = self._stream(data_id)
        before = set(self.status(data_id).lost)
        index = stream.next_index()
        for item in frames_iter:
            now_ms = time.time_ns() // 1_000_000
            frames, explicit_ms = item, None
            if isinstance(item, tuple) and len(item) == 2:
                frames = item[0]
                try:
                    explicit_ms = as_unix_ms(item[1], "the second element of a yielded tuple")
                except SettingsError as exc:
                    raise SettingsError(
                        f"stream {data_id}, chunk {index}: {exc}", hint="yield (frames, int Unix ms UTC)"
                    ) from exc
            self._push(stream, index, frames, now_ms, explicit_ms)
            index += 1
        self._await_confirmed(stream, before)

    def _push(self, stream: ProducedStream, index: int, frames: Any, now_ms: int, explicit_ms: int | None) -> None:
        coerced = self._coerced(stream, frames)
        array = coerced.frames
        shape = (array.shape[0], array.shape[1], array.shape[2])
        if self._session.setup.is_lake:
            stream.check_frame_shape(index, shape[1:])
        clock: tuple[int | None, float | None] = (None, None)
        if explicit_ms is not None:
            start_ms = explicit_ms
        else:
            stamp = self._session.clock.stamp(now_ms)
            start_ms, clock = stamp.unix_ms, (stamp.offset_ms, stamp.uncertainty_ms)
            if self._stamp == "end" and isinstance(stream.settings, StreamSettings):
                start_ms -= span_ms(shape[0], stream.settings.fps)
        seq, index = stream.begin(index, f"chunk {index}")
        with self._admitted(stream, seq, index, array.nbytes) as goes_on:
            if not goes_on:
                return
            try:
                reference = ray.put(array)
            except ray.exceptions.RayError as exc:
                stream.drop(seq, index, str(exc))
                raise StreamerError(f"stream {stream.data_id}: Ray does not take chunk {index}: {exc}") from exc
            item = FramesItem(seq, index, reference, shape, start_ms, clock, array.nbytes)
            self._session.count_bytes(array.nbytes)
            self._session.call_soon(self._sender.send, stream, item)

    def _coerced(self, stream: ProducedStream, frames: Any) -> Coerced:
        coerced = coerced_frames(frames)
        if coerced.wraps is not None and stream.first_time("wraps"):
            warnings.warn(
                f"stream {stream.data_id}: {coerced.wraps}; scale them first, such as "
                "(frames * (255 / full_scale)).astype(numpy.uint8)",
                RuntimeWarning,
                stacklevel=4,
            )
        return coerced
