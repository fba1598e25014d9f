"""What users pass to streamers, checked before anything is sent."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ingest.errors import ArgumentTypeError, SettingsError
from ingest.spool import SpoolLimits

__all__ = ["as_name", "as_number", "as_seconds", "as_tags", "as_text", "spool_limits"]


def spool_limits(max_bytes: int | None, floor_bytes: int | None) -> SpoolLimits:
    """Return the spool's limits from what a streamer was given.

    Raises
    ------
    SettingsError
        No sizes.
    """
    return SpoolLimits(max_bytes) if floor_bytes is None else SpoolLimits(max_bytes, floor_bytes)


def as_number(value: Any, name: str) -> float:
    """Return a number as a float.

    Raises
    ------
    ArgumentTypeError
        It is none.
    """
    if isinstance(value, str) or not hasattr(value, "__float__"):
        raise ArgumentTypeError(f"{name} is {value!r}, a {type(value).__name__}, not a number")
    return float(value)


def as_seconds(value: Any, default_s: float) -> float:
    """Return how long to wait; None: the default.

    Raises
    ------
    ArgumentTypeError, SettingsError
        No number; a negative one.
    """
    if value is None:
        return default_s
    try:
        seconds = float(value)
    except (TypeError, ValueError) as exc:
        raise ArgumentTypeError(f"timeout_s is {value!r}, not a number of seconds") from exc
    if not seconds >= 0:
        raise SettingsError(f"timeout_s is {seconds}: seconds are 0 or more")
    return seconds


def as_text(value: str | None, name: str) -> str | None:
    """Return a text without white space around it; blank as None.

    Raises
    ------
    ArgumentTypeError
        No string.
    """
    if value is not None and not isinstance(value, str):
        raise ArgumentTypeError(f"{name} is {value!r}, a {type(value).__name__}, not a str")
    return None if value is None else value.strip() or None


def as_name(value: str | None) -> str | None:
    """Return a stream's name as it was given; blank as None.

    Raises
    ------
    ArgumentTypeError
        No string.
    """
    return value if as_text(value, "stream_name") else None


def as_tags(tags: Sequence[str] | None) -> tuple[str, ...]:
    """Return tags as a tuple.

    Raises
    ------
    ArgumentTypeError
        Not a list of strings.
    """
    if tags is None:
        return ()
    if isinstance(tags, str) or not all(isinstance(tag, str) for tag in tags):
        raise ArgumentTypeError(f"tags is {tags!r}, not a list of str")
    return tuple(tags)
