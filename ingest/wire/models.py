"""The platform's messages, built and read in one place (PROTOCOL.md)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ingest.errors import SettingsError
from ingest.plan import StreamSettings
from ingest.wire.lost_frames import LOST_FRAMES_HEADER, lost_frames_text

__all__ = ["ChunkMetadata", "Delivery", "check_settings", "create_body", "frames_per_rotation", "object_key"]


def frames_per_rotation(fps: float, rotations_per_min: float) -> float | None:
    """Return ``fps * 60 / rotations_per_min``; None for a stationary stream (<= 0)."""
    return fps * 60.0 / rotations_per_min if rotations_per_min > 0 else None


def check_settings(settings: StreamSettings) -> None:
    """Refuse settings that the platform refuses, before anything is sent.

    Raises
    ------
    SettingsError
        fps that is not a positive number, ``chunk_size < ceil(2 * fps)``, or an azimuth on a rotating stream. It is a
        ValueError, as the SDK's.
    """
    if not (math.isfinite(settings.fps) and settings.fps > 0):
        raise SettingsError(f"stream {settings.name!r}: fps is {settings.fps!r}, not a positive number")
    if not math.isfinite(settings.rotations_per_min):
        raise SettingsError(f"stream {settings.name!r}: rotations_per_min is {settings.rotations_per_min!r}")
    least = math.ceil(2 * settings.fps)
    if settings.chunk_size < least:
        raise SettingsError(
            f"stream {settings.name!r}: chunk_size {settings.chunk_size} is less than the platform takes at "
            f"{settings.fps:g} fps: {least} frames (2 s)",
            hint=f"pass a chunk_size of {least} or more",
        )
    if settings.azimuth is not None and settings.rotations_per_min > 0:
        raise SettingsError(
            f"stream {settings.name!r}: azimuth {settings.azimuth!r} with {settings.rotations_per_min:g} rpm; "
            "only a stationary stream has an azimuth",
            hint="leave the azimuth out, or pass 0 rotations per minute",
        )


def create_body(settings: StreamSettings) -> dict[str, object]:
    """Return the JSON body of ``POST /rheed/stream/``; optional keys are left out, never null."""
    body: dict[str, object] = {
        "data_item_name": settings.name,
        "rotational_period": frames_per_rotation(settings.fps, settings.rotations_per_min),
        "rotations_per_min": float(settings.rotations_per_min),
        "fps_capture_rate": float(settings.fps),
    }
    if settings.project_id is not None:
        body["project_id"] = settings.project_id
    if settings.azimuth is not None:
        body["azimuth_label"] = settings.azimuth
    return body


def object_key(index: int) -> str:
    """Return the key of a chunk's shard: ``frames.zarr/frames/c/{index}/0/0``."""
    return f"frames.zarr/frames/c/{index}/0/0"


@dataclass(frozen=True, slots=True)
class ChunkMetadata:
    """What the platform is told of one chunk when an upload URL is asked for.

    Attributes
    ----------
    frames, height_px, width_px : int
        The chunk's shape.
    chunk_size : int
        The stream's declared frames per chunk.
    fps : float
        The rate within this chunk: a frame's time is ``start + i / fps``.
    is_rotating : bool
        Whether the stream rotates.
    start_unix_ms_utc : int
        Capture start.
    clock_offset_ms, clock_uncertainty_ms : float or None
        The correction that live stamps got; None: none.
    lost_frames : tuple of int
        Frames, counted from the chunk's first and rising, that the source could not give: they are in `frames`, and not
        in the shard.
    first_frame : int or None
        The chunk's first frame, counted from the stream's first; a live producer does not know. Not sent.
    """

    frames: int
    height_px: int
    width_px: int
    chunk_size: int
    fps: float
    is_rotating: bool
    start_unix_ms_utc: int
    clock_offset_ms: int | None = None
    clock_uncertainty_ms: float | None = None
    lost_frames: tuple[int, ...] = ()
    first_frame: int | None = None

    @property
    def end_unix_ms_utc(self) -> int:
        """``start + trunc(frames / fps * 1000)``."""
        return self.start_unix_ms_utc + math.trunc(self.frames / self.fps * 1000)

    def body(self, data_id: str) -> dict[str, str]:
        """Return the JSON body: every number as a string, floats with a decimal point."""
        rate = repr(float(self.fps))
        body = {
            "data_id": data_id,
            "data_stream": "rheed",
            "is_stream": "1",
            "is_rotating": "1" if self.is_rotating else "0",
            "raw_frame_rate": rate,
            "avg_frame_rate": rate,
            "chunk_size": str(self.chunk_size),
            "dims": f"{self.frames},{self.height_px},{self.width_px}",
            "start_unix_ms_utc": str(self.start_unix_ms_utc),
            "end_unix_ms_utc": str(self.end_unix_ms_utc),
        }
        if self.clock_offset_ms is not None and self.clock_uncertainty_ms is not None:
            body["clock_offset_ms"] = str(self.clock_offset_ms)
            body["clock_uncertainty_ms"] = f"{self.clock_uncertainty_ms:.1f}"
        return body

    def headers(self) -> dict[str, str]:
        """Return the headers that go with the body: none, but for lost frames, which no key of the body may name.

        Raises
        ------
        FrameDataError
            Too many to be named.
        """
        return {LOST_FRAMES_HEADER: lost_frames_text(self.lost_frames)} if self.lost_frames else {}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a destination said when it took a chunk.

    Attributes
    ----------
    etag : str or None
        The store's ETag without quotes; None: it gave none.
    attempts : int
        How many it took; 1: at once.
    """

    etag: str | None
    attempts: int
