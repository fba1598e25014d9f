"""What recordings say of themselves in attributes and headers, whatever the format. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "FILE_END",
    "FILE_START",
    "FPS_FACTS",
    "START_FACTS",
    "Fact",
    "StoredArray",
    "add_fact",
    "first_named",
    "first_number",
]

Fact = str | int | float


@dataclass(frozen=True)
class StoredArray:
    """An array by its header: where it is inside its file, its shape, and the type of its values."""

    path: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @property
    def bytes(self) -> int:
        """Size of its values, decoded."""
        return math.prod(self.shape) * self.dtype.itemsize

    def __str__(self) -> str:
        return f"{self.path} {self.shape} {self.dtype}"


# Root attributes of Atomscale chunk files, byte strings (FORMATS.md 1.5).
FILE_START, FILE_END = "start_unix_ms_utc", "end_unix_ms_utc"
FPS_FACTS = ("fps", "source_fps", "raw_frame_rate", "frame_rate", "framerate", "camera_freq", "avg_frame_rate")
START_FACTS = (FILE_START, "start_time", "start_datetime", "start_timestamp", "acquisition_start_time")


def add_fact(facts: dict[str, Fact], name: str, value: Any) -> None:
    """Add an attribute under its lower-case name if it is a text or a number; bytes are decoded."""
    if isinstance(value, np.ndarray):
        if value.size != 1:
            return
        value = value.reshape(-1)[0]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, str | int | float):
        facts[name.lower()] = value


def first_number(facts: Mapping[str, Fact], names: Sequence[str]) -> float | None:
    """Return the first of these facts that is a positive number."""
    for name in names:
        try:
            value = float(facts[name])
        except (KeyError, ValueError):
            continue
        if np.isfinite(value) and value > 0:
            return value
    return None


def first_named(facts: Mapping[str, Fact], names: Iterable[str]) -> str | None:
    """Return the first of these names that is among the facts."""
    return next((name for name in names if name in facts), None)
