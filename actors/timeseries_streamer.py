"""``TimeseriesStreamer``: the SDK's API for instrument readings, held by Ray actors, that loses nothing."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from actors.arguments import as_name, as_tags, as_text, spool_limits
from actors.live_setup import LiveOptions
from actors.live_states import PointsItem
from actors.producer import ProducedStream
from actors.senders import OnFull, PointsSender
from actors.session_options import session_options
from actors.streamer_base import StreamerBase
from ingest.errors import ArgumentRangeError, ArgumentTypeError, SettingsError, StreamerError
from ingest.failover import FAILOVER_AFTER_S
from ingest.live import as_count
from ingest.timeseries import (
    ApiGeneration,
    TimeseriesMeta,
    TimeseriesSettings,
    encode_channel,
    encode_channels,
    unknown_keys,
)

__all__ = ["TimeseriesStreamer"]

POINTS_WINDOW = 4096
POINTS_WINDOW_BYTES = 64 << 20


class TimeseriesStreamer(StreamerBase):
    """Streams instrument readings to the platform, or into a lake; the SDK's class of that name, without its losses.

    ``push`` encodes the points and returns; an actor delivers them or, when the network does not keep up, puts them
    into a disk spool. Methods may be called from any threads. Chunks may come in any order. Not for pickling.

    Parameters
    ----------
    api_key, endpoint, destination
        As for `RHEEDStreamer`.
    points_per_chunk : int, default 100
        Points that a chunk of a channel shall have; others are taken as well.
    api_generation : {"tool-state", "metrology"}
        ``"metrology"``: the platform's older paths, with a request for each channel; of no meaning for a lake.
    address, on_full, state_dir, object_store_bytes, failover, failover_after_s, options
        As for `RHEEDStreamer`.
    verbosity, spool_dir, spool_max_bytes, spool_min_free_bytes
        As for `RHEEDStreamer`.

    Raises
    ------
    RuntimeError, TypeError, OverflowError
        As for `RHEEDStreamer`; `points_per_chunk` that is not an int or negative.

    Notes
    -----
    Holds at most 64 MiB of encoded points that are not yet durable: what ``kill -9`` of this process can lose.
    """

    def __init__(
        self,
        api_key: str | None = None,
        endpoint: str | None = None,
        points_per_chunk: int = 100,
        verbosity: int | None = None,  # noqa: ARG002 - the SDK's signature
        *,
        destination: str | os.PathLike[str] | None = None,
        api_generation: ApiGeneration = "tool-state",
        address: str | None = None,
        on_full: OnFull = "block",
        state_dir: str | os.PathLike[str] | None = None,
        object_store_bytes: int | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        spool_max_bytes: int | None = None,
        spool_min_free_bytes: int | None = None,
        failover: str | os.PathLike[str] | None = None,
        failover_after_s: float = FAILOVER_AFTER_S,
        options: LiveOptions | None = None,
    ) -> None:
        if api_generation not in ("tool-state", "metrology"):
            raise SettingsError(f"api_generation is {api_generation!r}", hint='pass "tool-state" or "metrology"')
        self._points_per_chunk = as_count(points_per_chunk, "points_per_chunk")
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
            preallocate=False,  # no points go through the object store
            failover=failover,
            failover_after_s=failover_after_s,
        )
        self._generation: ApiGeneration = "tool-state" if session.setup.is_lake else api_generation
        super().__init__(session, "timeseries_streamer", POINTS_WINDOW, on_full)
        self._sender = PointsSender(self._session.handle("timeseries_streamer"), self._session.poke, on_full)

    def initialize(
        self,
        stream_name: str | None = None,
        synth_source_id: int | None = None,
        physical_sample: str | None = None,
        project_id: str | None = None,
        tags: Sequence[str] | None = None,
    ) -> str:
        """Create a stream; return its ``data_id``.

        Parameters
        ----------
        stream_name : str, optional
            Default: the platform names it.
        synth_source_id : int, optional
            Growth instrument.
        physical_sample, project_id, tags
            As for `RHEEDStreamer.initialize`.

        Raises
        ------
        TypeError
            An argument of the wrong type.
        RuntimeError
            The platform did not create it, or has no such sample, tag or instrument.
        """
        if synth_source_id is not None and not isinstance(synth_source_id, int):
            raise ArgumentTypeError(f"synth_source_id is a {type(synth_source_id).__name__}, not an int")
        settings = TimeseriesSettings(
            name=as_name(stream_name),
            points_per_chunk=self._points_per_chunk,
            synth_source_id=synth_source_id,
            physical_sample=as_text(physical_sample, "physical_sample"),
            project_id=as_text(project_id, "project_id"),
            tags=as_tags(tags),
            api_generation=self._generation,
        )
        return self._begin(settings, POINTS_WINDOW_BYTES)

    def push(
        self,
        data_id: str,
        chunk_index: int,
        channel_name: str,
        timestamps: Any,
        values: Any,
        units: str | None = None,
    ) -> None:
        """Hand over one chunk of a channel; returns at once. Safe to repeat: the last one given stays.

        Parameters
        ----------
        data_id : str
            What ``initialize`` returned.
        chunk_index : int
            The chunk's place, from 0; any order.
        channel_name : str
            Such as ``"temperature"``.
        timestamps : sequence or array of float
            Unix seconds, sent exactly as given.
        values : sequence or array of float
            As many; NaN and infinity go as null.
        units : str, optional
            Of the values.

        Raises
        ------
        RuntimeError
            Different lengths; no such stream, or it was finalized.
        TypeError, OverflowError
            Arguments that cannot be.
        """
        stream = self._stream(data_id)
        index = as_count(chunk_index, "chunk_index")
        try:
            encoded = encode_channel(data_id, index, channel_name, timestamps, values, units)
        except (ArgumentTypeError, ArgumentRangeError):
            raise
        except SettingsError as exc:
            raise StreamerError(f"stream {data_id}, chunk {index}: {exc}", hint=exc.hint) from exc
        self._push(stream, encoded)

    def push_multi(self, data_id: str, chunk_index: int, channels: Mapping[str, Mapping[str, Any]]) -> None:
        """Hand over a chunk of several channels; returns at once. Safe to repeat: the last one given stays.

        Parameters
        ----------
        data_id, chunk_index
            As for `push`.
        channels : dict
            ``{channel: {"timestamps": [...], "values": [...], "units": ...}}``, units optional. Empty channels are left
            out. One request for all; one each by the older generation's paths.

        Raises
        ------
        RuntimeError
            A channel that is wrong, which is named; then nothing is sent. No such stream, or it was finalized.
        TypeError, OverflowError
            Arguments that cannot be.
        """
        stream = self._stream(data_id)
        index = as_count(chunk_index, "chunk_index")
        if not isinstance(channels, Mapping):
            raise ArgumentTypeError(f"channels is a {type(channels).__name__}, not a dict")
        self._warn_of_unknown(stream, channels)
        try:
            encoded = encode_channels(data_id, index, channels, self._generation)
        except SettingsError as exc:
            raise StreamerError(f"stream {data_id}, chunk {index}: {exc}", hint=exc.hint) from exc
        for request in encoded:
            self._push(stream, request)

    def run(self, data_id: str, channel_name: str, data_iter: Iterable[Any], units: str | None = None) -> None:
        """Stream what an iterator yields; returns when all of it is confirmed.

        Parameters
        ----------
        data_id, channel_name, units
            As for `push`.
        data_iter : iterable
            Of tuples (timestamps, values); chunks count in order, from 0 or on from the channel's last.

        Raises
        ------
        RuntimeError
            Something that is no such tuple, or of different lengths; chunks are lost, or none was confirmed for ten
            minutes.
        """
        stream = self._stream(data_id)
        for name, value in (("channel_name", channel_name), ("units", units or "")):
            if not isinstance(value, str):
                raise ArgumentTypeError(f"{name} is a {type(value).__name__}, not a str")
        before = set(self.status(data_id).lost)
        for index, item in enumerate(data_iter, stream.next_chunk(channel_name)):
            if not isinstance(item, tuple) or len(item) != 2:
                raise StreamerError(
                    f"stream {data_id}, chunk {index} of {channel_name}: not a tuple (timestamps, values), but "
                    f"a {type(item).__name__}"
                )
            try:
                encoded = encode_channel(data_id, index, channel_name, item[0], item[1], units)
            except SettingsError as exc:
                raise StreamerError(f"stream {data_id}, chunk {index} of {channel_name}: {exc}", hint=exc.hint) from exc
            self._push(stream, encoded)
        self._await_confirmed(stream, before)

    def _warn_of_unknown(self, stream: ProducedStream, channels: Mapping[str, Mapping[str, Any]]) -> None:
        unknown = unknown_keys(channels)
        if unknown and stream.first_time("unknown keys"):
            named = "; ".join(f"{name!r}: {', '.join(map(repr, keys))}" for name, keys in unknown.items())
            warnings.warn(
                f"stream {stream.data_id}: keys of channels are left out ({named}); a channel has timestamps, values "
                "and units",
                RuntimeWarning,
                stacklevel=3,
            )

    def _push(self, stream: ProducedStream, encoded: tuple[TimeseriesMeta, bytes]) -> None:
        meta, body = encoded
        stream.note_chunk(meta.channels, meta.chunk_index)
        seq, index = stream.begin(None, f"chunk {meta.chunk_index} of {', '.join(meta.channels)}")
        with self._admitted(stream, seq, index, len(body)) as goes_on:
            if goes_on:
                self._session.count_bytes(len(body))
                self._session.call_soon(self._sender.send, stream, PointsItem(seq, meta, body))
