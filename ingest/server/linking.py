"""Endpoints for samples, projects and tags."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from ingest.json_fields import MAX_TEXT, blank_free
from ingest.server.http import json_body
from ingest.server.messages import id_list, text_field
from ingest.server.platform import Platform
from ingest.server.problems import ApiError

__all__ = ["LINKING_ROUTES"]


def _platform(request: Request) -> Platform:
    platform: Platform = request.app.state.platform
    return platform


async def _samples(request: Request) -> Response:
    platform = _platform(request)
    return JSONResponse(await platform.run(platform.links.samples))


async def _create_sample(request: Request) -> Response:
    platform = _platform(request)
    name = text_field(await json_body(request, platform.settings.max_json_bytes), "name")
    return JSONResponse({"physical_sample_id": await platform.run(platform.links.create_sample, name), "name": name})


async def _link_sample(request: Request) -> Response:
    platform = _platform(request)
    body = await json_body(request, platform.settings.max_json_bytes)
    data_ids, sample_id = id_list(body, "data_ids"), text_field(body, "physical_sample_id")
    await platform.run(platform.link, data_ids, lambda: platform.links.link_sample(data_ids, sample_id))
    return JSONResponse({"data_ids": data_ids, "physical_sample_id": sample_id})


async def _track_sample(request: Request) -> Response:
    platform = _platform(request)
    project_id = blank_free(request.path_params["project_id"])
    if not 0 < len(project_id) <= MAX_TEXT:
        raise ApiError(f"a project's id has 1 to {MAX_TEXT} characters")
    body = await json_body(request, platform.settings.max_json_bytes)
    sample_id, active = text_field(body, "physical_sample_id"), body.get("set_active", False)
    if not isinstance(active, bool):
        raise ApiError(f"set_active must be true or false, not {active!r}")
    await platform.run(platform.links.track_sample, project_id, sample_id, active=active)
    return JSONResponse({"project_id": project_id, "physical_sample_id": sample_id, "active": active})


async def _tracked_samples(request: Request) -> Response:
    platform = _platform(request)
    return JSONResponse(await platform.run(platform.links.tracked_samples, request.path_params["project_id"].strip()))


async def _tags(request: Request) -> Response:
    platform = _platform(request)
    return JSONResponse(await platform.run(platform.links.tags))


async def _create_tag(request: Request) -> Response:
    platform = _platform(request)
    name = text_field(await json_body(request, platform.settings.max_json_bytes), "name")
    return JSONResponse({"id": await platform.run(platform.links.create_tag, name), "name": name})


async def _link_tags(request: Request) -> Response:
    platform = _platform(request)
    body = await json_body(request, platform.settings.max_json_bytes)
    data_ids, tag_ids = id_list(body, "data_ids"), id_list(body, "tag_ids")
    await platform.run(platform.link, data_ids, lambda: platform.links.link_tags(data_ids, tag_ids))
    return JSONResponse({"data_ids": data_ids, "tag_ids": tag_ids})


LINKING_ROUTES = (
    Route("/physical_samples", _samples, methods=["GET"]),
    Route("/physical_samples", _create_sample, methods=["POST"]),
    Route("/data_entries/physical_sample", _link_sample, methods=["POST"]),
    Route("/projects/{project_id}/configuration/tracking_samples", _tracked_samples, methods=["GET"]),
    Route("/projects/{project_id}/configuration/tracking_samples", _track_sample, methods=["POST"]),
    Route("/tags", _tags, methods=["GET"]),
    Route("/tags", _create_tag, methods=["POST"]),
    Route("/tags/data-items", _link_tags, methods=["POST"]),
)
