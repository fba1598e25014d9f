"""Time series as a destination is told of them: a stream's settings, and one request's points, encoded. Pure."""

from __future__ import annotations

import math
import operator
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import orjson
from numpy.typing import ArrayLike, NDArray

from ingest.errors import ArgumentRangeError, ArgumentTypeError, SettingsError

__all__ = [
    "MAX_UNIX_S",
    "ApiGeneration",
    "TimeseriesMeta",
    "TimeseriesSettings",
    "encode_channel",
    "encode_channels",
    "unknown_keys",
]

MAX_UNIX_S = 9e9
"""Year 2255, and 1684 with a minus: what is beyond has no date in ns, and is no time in seconds but in ms."""

_KEYS = frozenset({"timestamps", "values", "units"})

ApiGeneration = Literal["tool-state", "metrology"]
"""The two generations of the platform's paths (PROTOCOL.md "Time series")."""


@dataclass(frozen=True, slots=True)
class TimeseriesSettings:
    """What a destination is told of a time-series stream when it is created.

    Attributes
    ----------
    name : str or None
        Shown to people; None: the platform names it.
    points_per_chunk : int
        Declared points per chunk and channel.
    synth_source_id : int or None
        Growth instrument.
    physical_sample : str or None
        Name or UUID.
    project_id : str or None
        UUID.
    tags : tuple of str
        Names or UUIDs.
    api_generation : {"tool-state", "metrology"}
        Which of the platform's paths the stream goes by.
    """

    name: str | None
    points_per_chunk: int = 100
    synth_source_id: int | None = None
    physical_sample: str | None = None
    project_id: str | None = None
    tags: tuple[str, ...] = ()
    api_generation: ApiGeneration = "tool-state"


@dataclass(frozen=True, slots=True)
class TimeseriesMeta:
    """What one request of time-series points is, besides its body.

    Attributes
    ----------
    chunk_index : int
        As the producer gave it.
    channels : tuple of str
        Names, in order.
    points : int
        Over all channels.
    start_unix_ms_utc, end_unix_ms_utc : int
        Earliest and latest stamp, in whole ms (floor, ceil); 0 without points.
    is_multi : bool
        Whether the body is one of several channels.
    """

    chunk_index: int
    channels: tuple[str, ...]
    points: int
    start_unix_ms_utc: int
    end_unix_ms_utc: int
    is_multi: bool


@dataclass(slots=True)
class _Channel:
    """One channel's points, checked; `axis` is its stamps as JSON where several channels share them."""

    name: str
    timestamps: NDArray[np.float64]
    values: NDArray[np.float64]
    units: str | None
    first_s: float
    last_s: float
    axis: orjson.Fragment | None = None

    def fields(self) -> dict[str, object]:
        fields: dict[str, object] = {"timestamps": self.axis or self.timestamps, "values": self.values}
        if self.units is not None:
            fields["units"] = self.units
        return fields


def encode_channel(
    data_id: str,
    chunk_index: int,
    channel_name: str,
    timestamps: ArrayLike,
    values: ArrayLike,
    units: str | None = None,
) -> tuple[TimeseriesMeta, bytes]:
    """Return the JSON body of ``POST .../chunk``, and what it is.

    A channel without points is a request like any other here, as in every SDK's ``push``; `encode_channels` is where
    the generations differ.

    Parameters
    ----------
    data_id : str
        The stream.
    chunk_index : int
        From 0.
    channel_name : str
        Not blank.
    timestamps : array-like of numbers, (point,)
        Unix seconds, finite.
    values : array-like of numbers, (point,)
        NaN, infinities and masked ones are sent as null; booleans as 0 and 1.
    units : str, optional
        Of the values.

    Raises
    ------
    SettingsError
        Anything that does not fit; names the channel and the cause. An `ArgumentTypeError` or `ArgumentRangeError`
        where a type or a number can never fit.
    """
    index = _checked_index(chunk_index)
    channel = _Channels().check(channel_name, timestamps, values, units)
    return _meta(index, [channel], is_multi=False), _dumps(_single(data_id, index, channel), [channel])


def encode_channels(
    data_id: str, chunk_index: int, channels: Mapping[str, Mapping[str, object]], generation: ApiGeneration
) -> list[tuple[TimeseriesMeta, bytes]]:
    """Return the requests that send several channels of one chunk: their JSON bodies, and what they are.

    Parameters
    ----------
    data_id : str
        The stream.
    chunk_index : int
        From 0.
    channels : mapping of str to mapping
        ``timestamps``, ``values`` and, optionally, ``units`` by channel, as for `encode_channel`.
    generation : {"tool-state", "metrology"}
        ``tool-state``: one ``chunk/multi`` request of the channels that have points, or none at all; ``metrology``: one
        ``chunk`` request for each channel, empty ones included.

    Raises
    ------
    SettingsError
        Anything that does not fit; names the channel and the cause. An `ArgumentTypeError` or `ArgumentRangeError`
        where a type or a number can never fit.
    """
    index = _checked_index(chunk_index)
    if not isinstance(channels, Mapping):
        raise SettingsError(f"chunk {index}: the channels are a {type(channels).__name__}, not a mapping by name")
    check = _Channels().check_fields
    checked = [check(name, fields) for name, fields in channels.items()]
    if generation == "metrology":
        return [(_meta(index, [c], is_multi=False), _dumps(_single(data_id, index, c), [c])) for c in checked]
    full = [channel for channel in checked if channel.values.size]
    if not full:
        return []
    body = {"data_id": data_id, "chunk_index": index, "channels": {c.name: c.fields() for c in full}}
    return [(_meta(index, full, is_multi=True), _dumps(body, full))]


def unknown_keys(channels: Mapping[str, Mapping[str, object]]) -> dict[str, list[str]]:
    """Return the keys of channels that mean nothing, and are left out, by channel."""
    return {
        name: sorted(map(str, fields.keys() - _KEYS))
        for name, fields in channels.items()
        if isinstance(fields, Mapping) and fields.keys() - _KEYS
    }


def _single(data_id: str, index: int, channel: _Channel) -> dict[str, object]:
    return {"data_id": data_id, "chunk_index": index, "channel_name": channel.name, **channel.fields()}


class _Channels:
    """Checks the channels of one request; those that share one object as stamps have it checked and encoded once."""

    def __init__(self) -> None:
        self._given: object = None
        self._last: _Channel | None = None

    def check_fields(self, name: object, fields: object) -> _Channel:
        if not isinstance(fields, Mapping):
            raise SettingsError(f"channel {name!r}: it is a {type(fields).__name__}, not a mapping")
        for key in ("timestamps", "values"):
            if key not in fields:
                raise SettingsError(f"channel {name!r}: missing {key!r} key")
        return self.check(name, fields["timestamps"], fields["values"], fields.get("units"))

    def check(self, name: object, timestamps: object, values: object, units: object) -> _Channel:
        if not isinstance(name, str):
            raise ArgumentTypeError(f"channel {name!r}: its name is a {type(name).__name__}, not a string")
        if not name.strip():
            raise SettingsError(f"channel {name!r}: its name is blank")
        if units is not None and not isinstance(units, str):
            raise ArgumentTypeError(f"channel {name!r}: its units are a {type(units).__name__}, not a string")
        axis = None
        last = self._last
        if last is not None and timestamps is self._given:
            if last.axis is None:
                last.axis = orjson.Fragment(orjson.dumps(last.timestamps, option=orjson.OPT_SERIALIZE_NUMPY))
            stamps, first_s, last_s, axis = last.timestamps, last.first_s, last.last_s, last.axis
        else:
            stamps = _floats(name, "timestamps", timestamps)
            first_s, last_s = _span(name, stamps)
        numbers = _floats(name, "values", values)
        if len(numbers) != len(stamps):
            raise SettingsError(
                f"channel {name!r}: timestamps and values must have the same length; "
                f"they have {len(stamps)} and {len(numbers)}"
            )
        channel = _Channel(name, stamps, numbers, units, first_s, last_s, axis)
        self._given, self._last = timestamps, channel
        return channel


def _checked_index(chunk_index: object) -> int:
    try:
        index = -1 if isinstance(chunk_index, bool) else operator.index(cast("int", chunk_index))
    except TypeError:
        index = -1
    if index < 0:
        raise SettingsError(f"chunk_index is {chunk_index!r}: chunks count from 0")
    return index


def _floats(name: str, what: str, given: object) -> NDArray[np.float64]:
    try:
        if isinstance(given, list | tuple):
            # Half as long as numpy takes, and no string is read as a number.
            return np.frombuffer(array("d", given), np.float64)
        if isinstance(given, np.ma.MaskedArray):
            given = np.ma.filled(given.astype(np.float64), np.nan)
        raw = np.asarray(given)
        if raw.dtype.kind == "O" and raw.ndim == 1:
            return np.frombuffer(array("d", raw.tolist()), np.float64)
    except OverflowError as exc:
        raise ArgumentRangeError(f"channel {name!r}: its {what} are too large for numbers: {exc}") from exc
    except (ValueError, TypeError) as exc:
        raise ArgumentTypeError(f"channel {name!r}: its {what} are not a list of numbers: {exc}") from exc
    if raw.ndim != 1 or raw.dtype.kind not in "biuf":
        got = f"{raw.ndim} dimensions of {raw.dtype}"
        raise ArgumentTypeError(f"channel {name!r}: its {what} are not a list of numbers, but have {got}")
    return np.ascontiguousarray(raw, np.float64)


def _span(name: str, stamps: NDArray[np.float64]) -> tuple[float, float]:
    if not stamps.size:
        return math.inf, -math.inf
    first_s, last_s = float(stamps.min()), float(stamps.max())
    # Both are NaN when one stamp is.
    if not (first_s >= -MAX_UNIX_S and last_s <= MAX_UNIX_S):
        bad = next(stamp for stamp in stamps.tolist() if not abs(stamp) <= MAX_UNIX_S)
        raise SettingsError(
            f"channel {name!r}: {bad!r} is no timestamp in Unix seconds",
            hint="pass milliseconds divided by 1000" if math.isfinite(bad) else "leave points without a time out",
        )
    return first_s, last_s


def _meta(index: int, channels: list[_Channel], *, is_multi: bool) -> TimeseriesMeta:
    points = sum(channel.values.size for channel in channels)
    first_s = min(channel.first_s for channel in channels)
    last_s = max(channel.last_s for channel in channels)
    span = (math.floor(first_s * 1000), math.ceil(last_s * 1000)) if points else (0, 0)
    return TimeseriesMeta(index, tuple(channel.name for channel in channels), points, *span, is_multi)


def _dumps(body: dict[str, object], channels: list[_Channel]) -> bytes:
    try:
        return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
    except TypeError as exc:
        names = ", ".join(repr(channel.name) for channel in channels)
        raise SettingsError(f"a name or a unit is not Unicode text, of the channels {names}: {exc}") from exc
