"""Requests, checked: from JSON and query to values that the rest can trust. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ingest import json_fields
from ingest.json_fields import blank_free, shown
from ingest.server.problems import ApiError, checked
from ingest.wire.lost_frames import lost_frames_text, read_lost_frames

__all__ = ["ChunkInfo", "NewStream", "chunk_index", "id_list", "stream_request", "text_field"]

MAX_CHUNK_INDEX = 999_999
MAX_FRAMES = 1_000_000
MAX_SIDE_PX = 65_535
MAX_UNIX_MS = 9_000_000_000_000
"""Year 2255; int64 nanoseconds end in 2262."""

_KEY = re.compile(r"frames\.zarr/frames/c/(0|[1-9][0-9]{0,5})/0/0", re.ASCII)
_INT = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_FLOAT = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class ChunkInfo:
    """What a client said of one chunk when it asked for an upload URL.

    Attributes
    ----------
    frames, height_px, width_px : int
        The chunk's shape.
    chunk_size : int
        Declared frames per chunk.
    fps : float
        ``raw_frame_rate``: a frame's time is ``start + i / fps``.
    is_rotating : bool
        Whether the stream rotates.
    start_unix_ms_utc, end_unix_ms_utc : int
        Capture start and end.
    clock_offset_ms, clock_uncertainty_ms : float or None
        The clock correction in both stamps; None: none.
    lost_frames : tuple of int
        Frames, counted from the chunk's first, that its source could not give.
    """

    frames: int
    height_px: int
    width_px: int
    chunk_size: int
    fps: float
    is_rotating: bool
    start_unix_ms_utc: int
    end_unix_ms_utc: int
    clock_offset_ms: float | None = None
    clock_uncertainty_ms: float | None = None
    lost_frames: tuple[int, ...] = ()

    def dumps(self) -> str:
        """Return it as compact JSON, the same for equal values."""
        values = asdict(self)
        del values["lost_frames"]
        if self.lost_frames:
            values["lost_frames"] = lost_frames_text(self.lost_frames)
        return json.dumps(values, separators=(",", ":"))

    @classmethod
    def loads(cls, text: str) -> ChunkInfo:
        """Return what `dumps` wrote."""
        values = json.loads(text)
        lost = values.pop("lost_frames", None)
        return cls(**values, lost_frames=_lost_frames(lost, values["frames"]))

    @classmethod
    def parse(cls, body: Mapping[str, Any], lost_frames: str | None = None) -> ChunkInfo:
        """Read an upload-URL request.

        Parameters
        ----------
        body : mapping
            Its JSON.
        lost_frames : str, optional
            Its header of that name; None: it has none.

        Raises
        ------
        ApiError
            422 that names the field or header and what it must be.
        """
        _constant(body, "data_stream", ("rheed",))
        _constant(body, "is_stream", ("1",))
        frames, height, width = _dims(body)
        start = _integer(body, "start_unix_ms_utc", 0, MAX_UNIX_MS)
        _real(body, "avg_frame_rate", positive=True)
        return cls(
            frames=frames,
            height_px=height,
            width_px=width,
            chunk_size=_integer(body, "chunk_size", 1, MAX_FRAMES),
            fps=_real(body, "raw_frame_rate", positive=True),
            is_rotating=_constant(body, "is_rotating", ("0", "1")) == "1",
            start_unix_ms_utc=start,
            end_unix_ms_utc=_integer(body, "end_unix_ms_utc", start, MAX_UNIX_MS),
            clock_offset_ms=_optional_real(body, "clock_offset_ms"),
            clock_uncertainty_ms=_optional_real(body, "clock_uncertainty_ms"),
            lost_frames=_lost_frames(lost_frames, frames),
        )


@dataclass(frozen=True, slots=True)
class NewStream:
    """The body of ``POST /rheed/stream/``, checked."""

    name: str
    fps: float
    rotations_per_min: float
    rotational_period: float | None
    project_id: str | None
    azimuth_label: str | None


def chunk_index(filename: str | None) -> int:
    """Return the chunk's number in ``frames.zarr/frames/c/{index}/0/0``, and take nothing else for one."""
    match = _KEY.fullmatch(filename or "")
    if match is None:
        raise ApiError(
            f"original_filename must be frames.zarr/frames/c/{{index}}/0/0 with an index of 0 to {MAX_CHUNK_INDEX}, "
            f"not {shown(filename)}"
        )
    return int(match.group(1))


def stream_request(body: Mapping[str, Any]) -> NewStream:
    """Read the body of ``POST /rheed/stream/``.

    Raises
    ------
    ApiError
        422 that names the field and what it must be.
    """
    period = body.get("rotational_period")
    return NewStream(
        name=text_field(body, "data_item_name"),
        fps=_number(body, "fps_capture_rate", positive=True),
        rotations_per_min=_number(body, "rotations_per_min", positive=False),
        rotational_period=None if period is None else _number(body, "rotational_period", positive=True),
        project_id=None if body.get("project_id") is None else text_field(body, "project_id"),
        azimuth_label=None if body.get("azimuth_label") is None else text_field(body, "azimuth_label"),
    )


def text_field(body: Mapping[str, Any], field: str) -> str:
    """Return a string field, trimmed; blank or too long is a 422."""
    return checked(json_fields.text_field, body, field)


def id_list(body: Mapping[str, Any], field: str) -> list[str]:
    """Return a field that must be a list of strings, duplicates dropped."""
    value = body.get(field)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ApiError(f"{field} must be a list of ids, got {shown(value)}")
    return list(dict.fromkeys(map(blank_free, value)))


def _lost_frames(text: str | None, n_frames: int) -> tuple[int, ...]:
    return () if text is None else checked(read_lost_frames, text, n_frames)


def _string(body: Mapping[str, Any], field: str, what: str) -> str:
    value = body.get(field)
    if not isinstance(value, str):
        raise ApiError(f"{field} must be {what}, as a string; got {shown(value)}")
    return value


def _constant(body: Mapping[str, Any], field: str, choices: tuple[str, ...]) -> str:
    what = " or ".join(f'"{choice}"' for choice in choices)
    value = _string(body, field, what)
    if value not in choices:
        raise ApiError(f"{field} must be {what}; got {shown(value)}")
    return value


def _integer(body: Mapping[str, Any], field: str, least: int, most: int) -> int:
    what = f"an integer of {least} to {most}"
    value = _string(body, field, what)
    if not _INT.fullmatch(value) or not least <= int(value) <= most:
        raise ApiError(f"{field} must be {what}, as a string; got {shown(value)}")
    return int(value)


def _real(body: Mapping[str, Any], field: str, *, positive: bool = False) -> float:
    what = "a positive number" if positive else "a number"
    value = _string(body, field, what)
    number = float(value) if len(value) <= 40 and _FLOAT.fullmatch(value) else math.nan
    if not math.isfinite(number) or (positive and number <= 0):
        raise ApiError(f"{field} must be {what}, as a string; got {shown(value)}")
    return number


def _optional_real(body: Mapping[str, Any], field: str) -> float | None:
    return None if body.get(field) is None else _real(body, field)


def _dims(body: Mapping[str, Any]) -> tuple[int, int, int]:
    what = f"N,H,W with N of 1 to {MAX_FRAMES} and H, W of 1 to {MAX_SIDE_PX}"
    value = _string(body, "dims", what)
    parts = value.split(",")
    if len(parts) != 3 or not all(part.isascii() and part.isdigit() and len(part) < 8 for part in parts):
        raise ApiError(f"dims must be {what}, as a string; got {shown(value)}")
    frames, height, width = map(int, parts)
    if not (1 <= frames <= MAX_FRAMES and 1 <= height <= MAX_SIDE_PX and 1 <= width <= MAX_SIDE_PX):
        raise ApiError(f"dims must be {what}, as a string; got {shown(value)}")
    return frames, height, width


def _number(body: Mapping[str, Any], field: str, *, positive: bool) -> float:
    value = body.get(field)
    number = float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    if not math.isfinite(number) or (positive and number <= 0):
        raise ApiError(f"{field} must be a {'positive ' if positive else ''}finite number, got {shown(value)}")
    return number
