"""The calls of time-series streams, each as one method that is tried as long as the policy says (PROTOCOL.md)."""

from __future__ import annotations

from typing import Any, get_args
from urllib.parse import quote

from ingest.errors import SettingsError
from ingest.timeseries import ApiGeneration, TimeseriesMeta, TimeseriesSettings
from ingest.wire.calls import Calls, close_stream, key_header, read_data_id, read_object, read_objects
from ingest.wire.failures import Purpose, garbled
from ingest.wire.models import Delivery
from ingest.wire.session import ApiCall, put_timeout_s
from ingest.wire.upload import quoted_id

__all__ = ["TimeseriesCalls", "check_timeseries", "initialize_body"]

GENERATIONS = get_args(ApiGeneration)


def check_timeseries(settings: TimeseriesSettings) -> None:
    """Refuse settings that the platform refuses, before anything is sent.

    Raises
    ------
    SettingsError
        ``points_per_chunk`` or ``synth_source_id`` that are no such numbers.
    """
    points, source = settings.points_per_chunk, settings.synth_source_id
    if not _is_int(points) or points < 1:
        raise SettingsError(f"stream {settings.name!r}: points_per_chunk is {points!r}; it is an integer of 1 or more")
    if source is not None and not _is_int(source):
        raise SettingsError(f"stream {settings.name!r}: synth_source_id is {source!r}, not an integer")


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def initialize_body(settings: TimeseriesSettings) -> dict[str, object]:
    """Return the JSON body of ``POST .../stream/initialize``, whose optional keys are null, but for the instrument."""
    body: dict[str, object] = {"stream_name": settings.name}
    if settings.synth_source_id is not None:
        body["synth_source_id"] = settings.synth_source_id
    return {**body, "points_per_chunk": settings.points_per_chunk, "project_id": settings.project_id}


def _path(generation: ApiGeneration, rest: str) -> str:
    if generation not in GENERATIONS:
        raise SettingsError(f"{generation!r} is no generation of the platform's paths: pass one of {GENERATIONS}")
    return f"/{generation}/stream/{rest}"


def _read_created(body: Any) -> str:
    if not isinstance(body, dict):
        raise garbled("an object with data_id", body)
    return read_data_id(body.get("data_id"))


def _read_points(body: Any) -> dict[str, Any]:
    points = read_object(body)
    if not all(isinstance(points.get(key), list) for key in ("timestamps", "values")):
        raise garbled("an object with timestamps and values", body)
    return points


class TimeseriesCalls(Calls):
    """Time-series streams: create, put, end, and read back from the embedded platform."""

    async def create_timeseries_stream(
        self, settings: TimeseriesSettings, idempotency_key: str, generation: ApiGeneration = "tool-state"
    ) -> str:
        """Create a stream; return its ``data_id``.

        Safe to repeat with the same key on a platform that honours ``Idempotency-Key``, as the embedded one does. On
        another, a lost reply leaves an empty orphan behind.

        Parameters
        ----------
        settings : TimeseriesSettings
            Its sample and tags are not looked at: resolve them before, link them after.
        idempotency_key : str
            Printable ASCII, the same for every try at the same stream.
        generation : {"tool-state", "metrology"}
            Of the platform's paths.

        Raises
        ------
        SettingsError
            Settings that the platform refuses, or a key that no header carries; nothing was sent.
        """
        check_timeseries(settings)
        path = _path(generation, "initialize")
        call = ApiCall("POST", path, initialize_body(settings), key_header(idempotency_key))
        name = settings.name or "without a name"
        data_id = await self._session.ask(Purpose(f"create time series {name!r}"), call, _read_created)
        self._session.telemetry.emit("stream_created", data_id, detail=name)
        return data_id

    async def put_timeseries_chunk(
        self, data_id: str, meta: TimeseriesMeta, body: bytes, generation: ApiGeneration = "tool-state"
    ) -> Delivery:
        """Send one request of points, as `ingest.timeseries` encoded it. Safe to repeat.

        Raises
        ------
        SettingsError
            Several channels at once, which the metrology paths do not take; nothing was sent.
        StreamGoneError
            The stream does not exist or takes nothing more.
        """
        if meta.is_multi and generation == "metrology":
            raise SettingsError(
                f"chunk {meta.chunk_index} of stream {data_id} has several channels; the metrology paths take one",
                hint='encode it with generation="metrology"',
            )
        quoted_id(data_id)
        path = _path(generation, "chunk/multi" if meta.is_multi else "chunk")
        call = ApiCall("POST", path, body, total_s=put_timeout_s(len(body)))
        index = meta.chunk_index
        purpose = Purpose(f"put chunk {index} of time series {data_id}", data_id, index, gone=True)
        _, attempts = await self._session.persist(purpose, lambda: self._session.once(call))
        detail = f"{len(meta.channels)} channels, {meta.points} points, {len(body)} bytes, attempt {attempts}"
        self._session.telemetry.emit("chunk_put", data_id, index, detail)
        return Delivery(None, attempts)

    async def end_timeseries_stream(self, data_id: str, generation: ApiGeneration = "tool-state") -> dict[str, Any]:
        """Close a stream; return what the platform says of it, empty if that is no JSON object.

        A 503 is tried for three minutes at least, whatever the policy's budget. When a try that got no answer is
        followed by a 409, that try had closed the stream: the result is then empty.

        Raises
        ------
        StreamGoneError
            There is no such stream, or it was closed or failed before.
        """
        return await close_stream(self._session, _path(generation, f"{quoted_id(data_id)}/finalize"), data_id)

    # What the embedded platform holds; others do not have these calls

    async def list_timeseries_streams(self) -> list[dict[str, Any]]:
        """Return all time series of the embedded platform, as it describes them. Changes nothing."""
        call = ApiCall("GET", "/tool-state/stream")
        return await self._session.ask(Purpose("list the time series"), call, read_objects)

    async def timeseries_stream(self, data_id: str) -> dict[str, Any]:
        """Return one time series of the embedded platform, as it describes it. Changes nothing."""
        call = ApiCall("GET", f"/tool-state/stream/{quoted_id(data_id)}")
        return await self._session.ask(Purpose(f"read time series {data_id}", data_id), call, read_object)

    async def get_points(self, data_id: str, channel: str) -> dict[str, Any]:
        """Return a channel's points that the embedded platform holds, in order of their chunks. Changes nothing.

        Returns
        -------
        dict
            ``timestamps`` in Unix seconds, ``values``, both lists of float or None; ``units``; and ``chunk_indices``
            with ``chunk_points``, the chunks and how many points are of each.

        Raises
        ------
        RefusedError
            With status 404: there is no such stream or channel.
        """
        try:
            query = f"channel={quote(channel, safe='')}"
        except UnicodeEncodeError as exc:
            raise SettingsError(f"the channel's name {channel!r} is not Unicode text: {exc}") from exc
        call = ApiCall("GET", f"/tool-state/stream/{quoted_id(data_id)}/points?{query}", total_s=None)
        purpose = Purpose(f"read channel {channel!r} of time series {data_id}", data_id)
        return await self._session.ask(purpose, call, _read_points)
