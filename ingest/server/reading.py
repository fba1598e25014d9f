"""Endpoints that give back what was streamed."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ingest.server.platform import Platform
from ingest.server.problems import ApiError
from ingest.server.rows import ChunkRow, StreamRow

__all__ = ["READING_ROUTES"]


def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


async def _list(request: Request) -> Response:
    platform = _platform(request)
    streams = await platform.run(platform.catalogue.streams, platform.clock())
    return JSONResponse([_summary(stream) for stream in streams])


async def _details(request: Request) -> Response:
    platform = _platform(request)
    data_id = request.path_params["data_id"]
    await platform.run(platform.uploads.look, data_id)
    stream = await platform.run(platform.catalogue.stream, data_id, platform.clock())
    chunks = await platform.run(platform.catalogue.chunks, data_id)
    stored = {chunk.index for chunk in chunks if chunk.stored is not None}
    known = max((chunk.index for chunk in chunks), default=-1) + 1
    return JSONResponse(
        {
            **_summary(stream),
            "fps": stream.fps,
            "rotations_per_min": stream.rotations_per_min,
            "rotational_period": stream.rotational_period,
            "azimuth_label": stream.azimuth_label,
            "times_closed": stream.times_closed,
            "frames_lost": stream.frames_lost,
            "sealed": stream.sealed,
            "missing_chunks": [index for index in range(known) if index not in stored],
            "chunk_list": [_chunk_details(chunk) for chunk in chunks if chunk.stored is not None],
        }
    )


async def _chunk(request: Request) -> Response:
    platform = _platform(request)
    data_id, text = request.path_params["data_id"], request.path_params["index"]
    await platform.run(platform.catalogue.stream, data_id, platform.clock())
    index = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1
    chunk = await platform.run(platform.chunk, data_id, index)
    if chunk is None or chunk.stored is None:
        raise ApiError(f"stream {data_id} has no chunk {text!r}", status=404)
    n_bytes, blocks = await platform.run(platform.chunk_blocks, data_id, chunk)
    info = chunk.stored
    headers = {
        "Content-Length": str(n_bytes),
        "X-Chunk-Dims": f"{info.frames},{info.height_px},{info.width_px}",
        "X-Chunk-Start-Unix-Ms-Utc": str(info.start_unix_ms_utc),
        "X-Chunk-Fps": repr(info.fps),
    }
    if chunk.crc32c is not None:
        headers["X-Chunk-Crc32c"] = f"{chunk.crc32c:08x}"
    return StreamingResponse(blocks, headers=headers, media_type="application/octet-stream")


def _summary(stream: StreamRow) -> dict[str, object]:
    sample = stream.sample
    return {
        "id": stream.data_id,
        "name": stream.name,
        "status": stream.status,
        "frames": stream.frames,
        "chunks": stream.chunks,
        "created_unix_s": stream.created_unix_s,
        "sample": None if sample is None else {"id": sample[0], "name": sample[1]},
        "tags": [{"id": tag_id, "name": name} for tag_id, name in stream.tags],
        "project": stream.project_id,
        "end_calls": stream.end_calls,
    }


def _chunk_details(chunk: ChunkRow) -> dict[str, object]:
    info = chunk.stored
    if info is None:
        return {}
    return {
        "index": chunk.index,
        "frames": info.frames,
        "dims": [info.frames, info.height_px, info.width_px],
        "chunk_size": info.chunk_size,
        "fps": info.fps,
        "is_rotating": info.is_rotating,
        "start_unix_ms_utc": info.start_unix_ms_utc,
        "end_unix_ms_utc": info.end_unix_ms_utc,
        "clock_offset_ms": info.clock_offset_ms,
        "clock_uncertainty_ms": info.clock_uncertainty_ms,
        "lost_frames": list(info.lost_frames),
        "bytes": chunk.n_bytes,
        "crc32c": None if chunk.crc32c is None else f"{chunk.crc32c:08x}",
        **({} if chunk.etag is None else {"etag": chunk.etag}),
        "puts": chunk.puts,
    }


READING_ROUTES = (
    Route("/rheed/stream", _list, methods=["GET"]),
    Route("/rheed/stream/{data_id}", _details, methods=["GET"]),
    Route("/rheed/stream/{data_id}/chunks/{index}", _chunk, methods=["GET"]),
)
