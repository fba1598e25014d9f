"""Requests of time series, checked: from JSON to values that the rest can trust. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ingest.json_fields import MAX_INT, integer_field, text_field
from ingest.lake.series_bodies import ChannelPoints, PointsChunk, read_chunk, read_multi
from ingest.server.problems import checked

__all__ = ["ChannelPoints", "NewSeries", "PointsChunk", "chunk_request", "multi_request", "series_request"]


@dataclass(frozen=True, slots=True)
class NewSeries:
    """The body of ``POST .../stream/initialize``, checked; `name` is None where the client left it to us."""

    name: str | None
    points_per_chunk: int
    synth_source_id: int | None
    project_id: str | None


def series_request(body: Mapping[str, Any]) -> NewSeries:
    """Read the body of ``POST .../stream/initialize``.

    Raises
    ------
    ApiError
        422 that names the field and what it must be.
    """
    return checked(_new_series, body)


def chunk_request(body: Mapping[str, Any]) -> PointsChunk:
    """Read the body of ``POST .../stream/chunk``.

    Raises
    ------
    ApiError
        422 that names the field and what it must be.
    """
    return checked(read_chunk, body)


def multi_request(body: Mapping[str, Any]) -> PointsChunk:
    """Read the body of ``POST .../stream/chunk/multi``.

    Raises
    ------
    ApiError
        422 that names the field and what it must be.
    """
    return checked(read_multi, body)


def _new_series(body: Mapping[str, Any]) -> NewSeries:
    name, source = body.get("stream_name"), body.get("synth_source_id")
    return NewSeries(
        name=None if name is None or name == "" else text_field(body, "stream_name"),
        points_per_chunk=integer_field(body, "points_per_chunk", 1),
        synth_source_id=None if source is None else integer_field(body, "synth_source_id", -MAX_INT),
        project_id=None if body.get("project_id") is None else text_field(body, "project_id"),
    )
