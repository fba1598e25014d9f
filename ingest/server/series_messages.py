"""Requests of time series, checked: from JSON to values that the rest can trust. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ingest.server.messages import MAX_TEXT, shown, text_field
from ingest.server.problems import ApiError
from ingest.timeseries import MAX_UNIX_S

__all__ = ["ChannelPoints", "NewSeries", "PointsChunk", "chunk_request", "multi_request", "series_request"]

MAX_CHUNK_INDEX = (1 << 32) - 1
MAX_SQL_INT = (1 << 63) - 1

# What JSON's numbers and null become; bool, which Python takes for a number, is neither.
_NUMBERS = frozenset({float, int, type(None)})


@dataclass(frozen=True, slots=True)
class NewSeries:
    """The body of ``POST .../stream/initialize``, checked; `name` is None where the client left it to us."""

    name: str | None
    points_per_chunk: int
    synth_source_id: int | None
    project_id: str | None


@dataclass(frozen=True, slots=True)
class ChannelPoints:
    """One channel's part of a chunk.

    Attributes
    ----------
    name : str
        As the client gave it: any text, even none.
    units : str or None
        None: not said.
    points : int
        How many.
    data : bytes
        All stamps, then all values, as little-endian float64; NaN where the client sent null.
    """

    name: str
    units: str | None
    points: int
    data: bytes


@dataclass(frozen=True, slots=True)
class PointsChunk:
    """The body of ``POST .../stream/chunk`` or ``.../chunk/multi``, checked."""

    data_id: str
    index: int
    channels: tuple[ChannelPoints, ...]

    @property
    def points(self) -> int:
        """Over all channels."""
        return sum(channel.points for channel in self.channels)


def series_request(body: Mapping[str, Any]) -> NewSeries:
    """Read the body of ``POST .../stream/initialize``.

    Raises
    ------
    ApiError
        422 that names the field and what it must be.
    """
    name, source = body.get("stream_name"), body.get("synth_source_id")
    return NewSeries(
        name=None if name is None or name == "" else text_field(body, "stream_name"),
        points_per_chunk=_integer(body, "points_per_chunk", 1),
        synth_source_id=None if source is None else _integer(body, "synth_source_id", -MAX_SQL_INT),
        project_id=None if body.get("project_id") is None else text_field(body, "project_id"),
    )


def chunk_request(body: Mapping[str, Any]) -> PointsChunk:
    """Read the body of ``POST .../stream/chunk``.

    Raises
    ------
    ApiError
        422 that names the field and what it must be.
    """
    name = body.get("channel_name")
    channel = _channel(_channel_name(name, "channel_name"), body, "")
    return PointsChunk(text_field(body, "data_id"), _integer(body, "chunk_index", 0, MAX_CHUNK_INDEX), (channel,))


def multi_request(body: Mapping[str, Any]) -> PointsChunk:
    """Read the body of ``POST .../stream/chunk/multi``.

    Raises
    ------
    ApiError
        422 that names the field and what it must be.
    """
    channels = body.get("channels")
    if not isinstance(channels, dict) or not channels:
        raise ApiError(f"channels must be an object with at least one channel by name; got {shown(channels)}")
    checked = []
    for name, fields in channels.items():
        where = f"channels[{shown(name)}]"
        if not isinstance(fields, dict):
            raise ApiError(f"{where} must be an object with timestamps and values; got {shown(fields)}")
        checked.append(_channel(_channel_name(name, where), fields, f"{where}."))
    index = _integer(body, "chunk_index", 0, MAX_CHUNK_INDEX)
    return PointsChunk(text_field(body, "data_id"), index, tuple(checked))


def _channel_name(name: object, field: str) -> str:
    if not isinstance(name, str) or len(name) > MAX_TEXT:
        raise ApiError(f"{field} must be a string of at most {MAX_TEXT} characters; got {shown(name)}")
    return name


def _channel(name: str, fields: Mapping[str, Any], where: str) -> ChannelPoints:
    stamps, values = _numbers(fields, "timestamps", where), _numbers(fields, "values", where)
    if len(stamps) != len(values):
        raise ApiError(f"{where}values must be as many as timestamps: {len(stamps)}; got {len(values)}")
    units = fields.get("units")
    if units is not None and (not isinstance(units, str) or len(units) > MAX_TEXT):
        raise ApiError(f"{where}units must be a string of at most {MAX_TEXT} characters; got {shown(units)}")
    numbers = np.array(stamps + values, "<f8")
    # A null stamp, as the SDK sends for NaN, is NaN here, and passes.
    if (np.abs(numbers[: len(stamps)]) > MAX_UNIX_S).any():
        raise ApiError(f"{where}timestamps must be Unix seconds, from {-MAX_UNIX_S:.0f} to {MAX_UNIX_S:.0f}")
    if np.isinf(numbers).any():
        raise ApiError(f"{where}values must be numbers that a float64 holds, or null")
    return ChannelPoints(name, units, len(stamps), numbers.tobytes())


def _numbers(fields: Mapping[str, Any], field: str, where: str) -> list[Any]:
    value = fields.get(field)
    if not isinstance(value, list):
        raise ApiError(f"{where}{field} must be a list of numbers; got {shown(value)}")
    if not _NUMBERS.issuperset(map(type, value)):
        bad = next(item for item in value if type(item) not in _NUMBERS)
        raise ApiError(f"{where}{field} must be a list of numbers; one is {shown(bad)}")
    return value


def _integer(body: Mapping[str, Any], field: str, least: int, most: int = MAX_SQL_INT) -> int:
    value = body.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise ApiError(f"{field} must be an integer of {least} to {most}; got {shown(value)}")
    return value
