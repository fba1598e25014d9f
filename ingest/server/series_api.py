"""Endpoints of time series, under the paths of both generations (PROTOCOL.md "Time series")."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingest.server.http import idempotency_key, json_body, read_body
from ingest.server.platform import Platform
from ingest.server.problems import ApiError
from ingest.server.rows import ChannelRow, SeriesRow
from ingest.server.series import processed_id
from ingest.server.series_messages import PointsChunk, chunk_request, multi_request, series_request

__all__ = ["SERIES_ROUTES"]

GENERATIONS = ("tool-state", "metrology")


def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


async def _initialize(request: Request) -> Response:
    platform = _platform(request)
    body = await json_body(request, platform.settings.max_json_bytes)
    new = series_request(body)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    data_id = await platform.run(
        platform.series.create_stream,
        new,
        platform.clock(),
        idempotency_key=idempotency_key(request),
        body_digest=f"timeseries {digest}",
    )
    return JSONResponse({"data_id": data_id, "processed_data_id": processed_id(data_id)})


async def _chunk(request: Request) -> Response:
    return await _store(request, multi=False)


async def _multi(request: Request) -> Response:
    return await _store(request, multi=True)


async def _no_multi(_: Request) -> Response:
    raise ApiError("the metrology paths have no chunk/multi: send one chunk request per channel", status=404)


async def _store(request: Request, *, multi: bool) -> Response:
    platform = _platform(request)
    data = await read_body(request, platform.settings.max_points_bytes)
    chunk = await platform.run(_take, platform, data, multi=multi)
    return JSONResponse({"data_id": chunk.data_id, "chunk_index": chunk.index, "points": chunk.points})


def _take(platform: Platform, data: bytes, *, multi: bool) -> PointsChunk:
    """Read and store one request, away from the event loop: it may be megabytes of numbers."""
    try:
        body = orjson.loads(data)
    except ValueError as exc:
        raise ApiError(f"the body is not JSON: {exc}", status=400) from exc
    if not isinstance(body, dict):
        raise ApiError("the body must be a JSON object")
    chunk = multi_request(body) if multi else chunk_request(body)
    platform.series.store_points(chunk, platform.clock())
    return chunk


async def _finalize(request: Request) -> Response:
    platform = _platform(request)
    data_id = request.path_params["data_id"]
    report = await platform.run(platform.end_series, data_id)
    return JSONResponse(
        {
            "data_id": data_id,
            "status": "completed",
            "channels": report.channels,
            "chunks": report.chunks,
            "points": report.points,
        }
    )


async def _list(request: Request) -> Response:
    platform = _platform(request)
    streams = await platform.run(platform.series.streams, platform.clock())
    return JSONResponse([_summary(stream) for stream in streams])


async def _details(request: Request) -> Response:
    platform = _platform(request)
    data_id = request.path_params["data_id"]
    stream = await platform.run(platform.series.stream, data_id, platform.clock())
    channels = await platform.run(platform.series.channels, data_id)
    return _fast_json(
        {
            **_summary(stream),
            "points_per_chunk": stream.points_per_chunk,
            "synth_source_id": stream.synth_source_id,
            "channels": [_channel(channel) for channel in channels],
        }
    )


async def _points(request: Request) -> Response:
    platform = _platform(request)
    name = request.query_params.get("channel")
    if name is None:
        raise ApiError("channel must name one of the stream's channels")
    channel, (times, values) = await platform.run(platform.points, request.path_params["data_id"], name)
    return _fast_json(
        {
            "timestamps": times,
            "values": values,
            "units": channel.units,
            "chunk_indices": [row.chunk for row in channel.chunks],
            "chunk_points": [row.points for row in channel.chunks],
        }
    )


def _fast_json(answer: dict[str, Any]) -> Response:
    return Response(orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def _summary(stream: SeriesRow) -> dict[str, Any]:
    sample = stream.sample
    return {
        "id": stream.data_id,
        "processed_data_id": processed_id(stream.data_id),
        "name": stream.name,
        "status": stream.status,
        "points": stream.points,
        "chunks": stream.chunks,
        "puts": stream.puts,
        "created_unix_s": stream.created_unix_s,
        "sample": None if sample is None else {"id": sample[0], "name": sample[1]},
        "tags": [{"id": tag_id, "name": name} for tag_id, name in stream.tags],
        "project": stream.project_id,
        "end_calls": stream.end_calls,
        "times_closed": stream.times_closed,
        "sealed": stream.sealed,
    }


def _channel(channel: ChannelRow) -> dict[str, Any]:
    return {
        "name": channel.name,
        "units": channel.units,
        "points": channel.points,
        "chunks": len(channel.chunks),
        "puts": sum(row.puts for row in channel.chunks),
        "chunk_indices": [row.chunk for row in channel.chunks],
        "chunk_points": [row.points for row in channel.chunks],
        "chunk_puts": [row.puts for row in channel.chunks],
    }


def _routes(generation: str) -> tuple[Route, ...]:
    base = f"/{generation}/stream"
    return (
        Route(f"{base}/initialize", _initialize, methods=["POST"]),
        Route(f"{base}/chunk", _chunk, methods=["POST"]),
        Route(f"{base}/chunk/multi", _no_multi if generation == "metrology" else _multi, methods=["POST"]),
        Route(f"{base}/{{data_id}}/finalize", _finalize, methods=["POST"]),
        Route(base, _list, methods=["GET"]),
        Route(f"{base}/{{data_id}}", _details, methods=["GET"]),
        Route(f"{base}/{{data_id}}/points", _points, methods=["GET"]),
    )


SERIES_ROUTES = tuple(route for generation in GENERATIONS for route in _routes(generation))
