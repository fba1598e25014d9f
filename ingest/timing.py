"""Capture times: rates, gaps, chunk spans, epochs. All pure."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Finding"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a user should know about a run; goes into report and manifest.

    Attributes
    ----------
    kind : str
        A stable word: ``"gap"``, ``"repeated stamps"``, ``"backward stamps"``, ``"jitter"``, ``"rate change"``, ...
    message : str
        For people, with numbers and units.
    frame : int or None
        The first frame concerned.
    """

    kind: str
    message: str
    frame: int | None = None
