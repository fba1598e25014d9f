"""Requests of time-series points, checked: from JSON to values that the rest can trust (PROTOCOL.md). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from ingest.errors import SettingsError
from ingest.json_fields import MAX_TEXT, integer_field, shown, text_field
from ingest.timeseries import MAX_UNIX_S

__all__ = ["ChannelPoints", "PointsChunk", "read_body", "read_chunk", "read_multi"]

MAX_CHUNK_INDEX = (1 << 32) - 1

# What JSON's numbers and null become; bool, which Python takes for a number, is neither.
_NUMBERS = frozenset({float, int, type(None)})


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


def read_body(data: bytes) -> PointsChunk:
    """Read the body of either request, as it was sent.

    Raises
    ------
    SettingsError
        No JSON object, or as `read_chunk`.
    """
    try:
        body = orjson.loads(data)
    except ValueError as exc:
        raise SettingsError(f"the body is not JSON: {exc}") from exc
    if not isinstance(body, dict):
        raise SettingsError("the body must be a JSON object")
    return read_multi(body) if "channels" in body else read_chunk(body)


def read_chunk(body: Mapping[str, Any]) -> PointsChunk:
    """Read the body of ``POST .../stream/chunk``.

    Raises
    ------
    SettingsError
        Names the field and what it must be.
    """
    name = body.get("channel_name")
    channel = _channel(_channel_name(name, "channel_name"), body, "")
    return PointsChunk(text_field(body, "data_id"), integer_field(body, "chunk_index", 0, MAX_CHUNK_INDEX), (channel,))


def read_multi(body: Mapping[str, Any]) -> PointsChunk:
    """Read the body of ``POST .../stream/chunk/multi``.

    Raises
    ------
    SettingsError
        Names the field and what it must be.
    """
    channels = body.get("channels")
    if not isinstance(channels, dict) or not channels:
        raise SettingsError(f"channels must be an object with at least one channel by name; got {shown(channels)}")
    checked = []
    for name, fields in channels.items():
        where = f"channels[{shown(name)}]"
        if not isinstance(fields, dict):
            raise SettingsError(f"{where} must be an object with timestamps and values; got {shown(fields)}")
        checked.append(_channel(_channel_name(name, where), fields, f"{where}."))
    index = integer_field(body, "chunk_index", 0, MAX_CHUNK_INDEX)
    return PointsChunk(text_field(body, "data_id"), index, tuple(checked))


def _channel_name(name: object, field: str) -> str:
    if not isinstance(name, str) or len(name) > MAX_TEXT:
        raise SettingsError(f"{field} must be a string of at most {MAX_TEXT} characters; got {shown(name)}")
    return name


def _channel(name: str, fields: Mapping[str, Any], where: str) -> ChannelPoints:
    stamps, values = _numbers(fields, "timestamps", where), _numbers(fields, "values", where)
    if len(stamps) != len(values):
        raise SettingsError(f"{where}values must be as many as timestamps: {len(stamps)}; got {len(values)}")
    units = fields.get("units")
    if units is not None and (not isinstance(units, str) or len(units) > MAX_TEXT):
        raise SettingsError(f"{where}units must be a string of at most {MAX_TEXT} characters; got {shown(units)}")
    numbers = np.array(stamps + values, "<f8")
    # A null stamp, as the SDK sends for NaN, is NaN here, and passes.
    if (np.abs(numbers[: len(stamps)]) > MAX_UNIX_S).any():
        raise SettingsError(f"{where}timestamps must be Unix seconds, from {-MAX_UNIX_S:.0f} to {MAX_UNIX_S:.0f}")
    if np.isinf(numbers).any():
        raise SettingsError(f"{where}values must be numbers that a float64 holds, or null")
    return ChannelPoints(name, units, len(stamps), numbers.tobytes())


def _numbers(fields: Mapping[str, Any], field: str, where: str) -> list[Any]:
    value = fields.get(field)
    if not isinstance(value, list):
        raise SettingsError(f"{where}{field} must be a list of numbers; got {shown(value)}")
    if not _NUMBERS.issuperset(map(type, value)):
        bad = next(item for item in value if type(item) not in _NUMBERS)
        raise SettingsError(f"{where}{field} must be a list of numbers; one is {shown(bad)}")
    return value
