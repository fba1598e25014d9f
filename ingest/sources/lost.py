"""Frames that are known not to be readable, as findings. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from ingest.timing import Finding

__all__ = ["lost_frames"]

MAX_NAMED = 8


def lost_frames(reasons: Mapping[int, str]) -> list[Finding]:
    """Return a finding for each frame that cannot be read; past the first 8, one for all."""
    numbers = sorted(reasons)
    found = [Finding("lost frames", f"frame {i} cannot be read: {reasons[i]}", i) for i in numbers[:MAX_NAMED]]
    if len(numbers) > MAX_NAMED:
        found.append(Finding("lost frames", f"and {len(numbers) - MAX_NAMED} more", numbers[MAX_NAMED]))
    return found
