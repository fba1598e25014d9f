"""Runs that belong to one growth: a movie and the logs beside it, on one time line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ingest.cli.planning import Candidate
from ingest.plan import RunPlan
from ingest.series_plan import SeriesPlan
from ingest.sources.series_base import ChannelFact

__all__ = ["Growth", "Overlap", "growths"]

NS_PER_MS = 1_000_000
MANY_RUNS = 64
"""A folder with more runs than this is a store of many growths, not one."""


@dataclass(frozen=True)
class Overlap:
    """How far one channel of a log covers the frames of a movie.

    Attributes
    ----------
    movie, log : str
        Their paths.
    channel : ChannelFact
        Of the log.
    covered : float
        Part of the movie's time, 0 to 1, in which the channel has readings; of one that holds its last value, from its
        first reading on.
    """

    movie: str
    log: str
    channel: ChannelFact
    covered: float


@dataclass(frozen=True)
class Growth:
    """Runs of one growth.

    Attributes
    ----------
    name : str
        Their folder, or what a rule calls them.
    members : tuple of Candidate
        At least two, of which one at least is planned.
    """

    name: str
    members: tuple[Candidate, ...]

    def overlaps(self) -> Iterator[Overlap]:
        """Yield every channel against every movie."""
        for movie in self.members:
            if not isinstance(movie.plan, RunPlan):
                continue
            begin, end = _span(movie.plan)
            for log in self.members:
                if isinstance(log.plan, SeriesPlan):
                    for fact in log.plan.channels:
                        yield Overlap(movie.path, log.path, fact, _covered(begin, end, fact))


def growths(candidates: Sequence[Candidate]) -> list[Growth]:
    """Return the growths that have several runs with a known start, one of them a log; of at most 64 runs each."""
    together: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        is_dated = candidate.info is not None and candidate.info.start_ns is not None
        if candidate.growth is not None and is_dated:
            together.setdefault(candidate.growth, []).append(candidate)
    return [
        Growth(name, tuple(members))
        for name, members in together.items()
        if any(isinstance(member.plan, SeriesPlan) for member in members) and 1 < len(members) <= MANY_RUNS
    ]


def _span(plan: RunPlan) -> tuple[float, float]:
    last = plan.chunks[-1]
    end_ms = last.start_unix_ms_utc + 1000 * (last.frames - 1) / last.fps
    return plan.start_unix_ms_utc * NS_PER_MS, end_ms * NS_PER_MS


def _covered(begin: float, end: float, fact: ChannelFact) -> float:
    last = end if fact.holds else fact.last_ns
    if end <= begin:  # a single frame
        return float(fact.first_ns <= begin <= last)
    return max(0.0, min(end, last) - max(begin, fact.first_ns)) / (end - begin)
