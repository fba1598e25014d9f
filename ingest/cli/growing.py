"""Runs whose files are being written at this moment: they are not sent, since a closed stream takes no more."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from ingest.cli.planning import Candidate
from ingest.errors import UnclosedSourceError
from ingest.sources.follow import state_of
from ingest.sources.urls import is_url

__all__ = ["refuse_growing"]

FRESH_S = 10.0
"""A file that was not written to for so long is taken as finished without a second look."""
LOOK_AGAIN_S = 1.0


def refuse_growing(
    candidates: Sequence[Candidate],
    *,
    clock: Callable[[], float] = time.time,
    sleep: Callable[[float], None] = time.sleep,
) -> list[Candidate]:
    """Return the candidates, those without a plan of which a file was just written and grows while one looks.

    Parameters
    ----------
    candidates : sequence of Candidate
        As planned.
    clock, sleep : callable
        Unix seconds; and waiting for so many. Waits a second, once, and only if something is fresh.
    """
    fresh = {watched: state_of(watched) for one in candidates for watched in _watched(one) if _is_fresh(watched, clock)}
    if not fresh:
        return list(candidates)
    sleep(LOOK_AGAIN_S)
    growing = {watched for watched, before in fresh.items() if state_of(watched) != before}
    return [_refused(one, growing) for one in candidates]


def _watched(candidate: Candidate) -> tuple[str, ...]:
    """Return what would show that a run grows: its files; of pictures their folder, where more may come."""
    if candidate.plan is None:
        return ()
    paths = candidate.plan.spec.paths
    if is_url(paths[0]):
        return ()
    return paths if len(paths) == 1 else (paths[-1], os.path.dirname(paths[-1]))


def _is_fresh(path: str, clock: Callable[[], float]) -> bool:
    try:
        return clock() - os.stat(path).st_mtime < FRESH_S
    except OSError:
        return False


def _refused(candidate: Candidate, growing: set[str]) -> Candidate:
    grows = next((path for path in _watched(candidate) if path in growing), None)
    if grows is None:
        return candidate
    error = UnclosedSourceError(
        f"{grows}: is still being written",
        hint="pass --follow, which waits until it has been quiet for 30 s, or run again when the recording has ended",
    )
    return replace(candidate, plan=None, error=error)
