"""Endpoints that a client streams through: create, ask for an upload URL, PUT, end."""

from __future__ import annotations

import hashlib
import json

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingest.server.http import declared_bytes, idempotency_key, json_body
from ingest.server.messages import ChunkInfo, chunk_index, stream_request, text_field
from ingest.server.platform import Platform
from ingest.server.problems import ApiError
from ingest.wire.lost_frames import LOST_FRAMES_HEADER

__all__ = ["STREAMING_ROUTES"]


def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


async def _create(request: Request) -> Response:
    platform = _platform(request)
    body = await json_body(request, platform.settings.max_json_bytes)
    new = stream_request(body)
    key = idempotency_key(request)
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
    data_id = await platform.run(
        platform.catalogue.create_stream, new, platform.clock(), idempotency_key=key, body_digest=digest
    )
    return JSONResponse(data_id)


async def _upload_urls(request: Request) -> Response:
    platform = _platform(request)
    body = await json_body(request, platform.settings.max_json_bytes)
    for name, value in (("num_parts", "1"), ("staging_type", "stream")):
        if request.query_params.get(name) != value:
            raise ApiError(f"{name} must be {value}, not {request.query_params.get(name)!r}")
    index = chunk_index(request.query_params.get("original_filename"))
    data_id = text_field(body, "data_id")
    given = request.headers.getlist(LOST_FRAMES_HEADER)  # a list may come on several lines (RFC 9110, section 5.3)
    info = ChunkInfo.parse(body, ",".join(given) if given else None)
    url, upload_id = await platform.run(platform.uploads.issue, data_id, index, info)
    if url.startswith("/"):
        url = f"{request.url.scheme}://{request.url.netloc}{request.scope.get('root_path', '')}{url}"
    return JSONResponse([{"url": url, "upload_id": upload_id, "part": 0}])


async def _put(request: Request) -> Response:
    platform = _platform(request)
    data_id, index = request.path_params["data_id"], request.path_params["index"]
    grant = platform.signer.check(data_id, index, request.query_params, platform.clock())
    declared_bytes(request, platform.settings.max_shard_bytes)
    crc32c = await platform.uploads.receive(grant, request.stream())
    # Not an MD5, as S3's would be: a client must not take every ETag for one.
    return Response(status_code=200, headers={"ETag": f'"crc32c-{crc32c:08x}"'})


async def _end(request: Request) -> Response:
    platform = _platform(request)
    data_id = request.path_params["data_id"]
    report = await platform.run(platform.end, data_id)
    return JSONResponse(
        {
            "data_id": data_id,
            "status": "completed",
            "frames": report.frames,
            "chunks": report.chunks,
            "missing_chunks": list(report.missing_chunks),
        }
    )


STREAMING_ROUTES = (
    Route("/rheed/stream", _create, methods=["POST"]),
    Route("/data_entries/raw_data/staged/upload_urls", _upload_urls, methods=["POST"]),
    Route("/uploads/{data_id}/{index}", _put, methods=["PUT"]),
    Route("/rheed/stream/{data_id}/end", _end, methods=["POST"]),
)
