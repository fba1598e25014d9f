"""Which packer reads which part of a run that is best read in order. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

from ingest.plan import RunPlan

__all__ = ["lanes_of"]

REACH = 4
"""A lane may end a quarter of its length earlier or later, if the next one then begins at a better place."""


def lanes_of(plan: RunPlan, indices: Sequence[int], packers: int) -> list[tuple[int, ...]] | None:
    """Return the chunks of a run by lane, each to be worked off in order by one packer.

    Parameters
    ----------
    plan : RunPlan
        The run.
    indices : sequence of int
        The chunks to deliver, rising.
    packers : int
        How many there are.

    Returns
    -------
    list of tuple of int, or None
        Every chunk once. As many lanes as packers, of about the same length, the later ones beginning where the source
        can be entered (`SourceSpec.cuts`) with the least to be read for nothing; one lane, if it cannot be. None: any
        packer may read any chunk, in any order.
    """
    access = plan.spec.access
    if access == "random":
        return None
    lanes = 1 if access == "single" else max(1, min(packers, len(indices)))
    edges = [0, *(_edge(plan, indices, i, lanes) for i in range(1, lanes)), len(indices)]
    return [tuple(indices[a:b]) for a, b in pairwise(edges) if a < b]


def _edge(plan: RunPlan, indices: Sequence[int], lane: int, lanes: int) -> int:
    """Return the position in `indices` at which a lane begins."""
    ideal = len(indices) * lane // lanes
    reach = len(indices) // (lanes * REACH)
    return min(
        range(ideal - reach, ideal + reach + 1), key=lambda at: (_for_nothing(plan, indices[at]), abs(at - ideal))
    )


def _for_nothing(plan: RunPlan, index: int) -> int:
    """Return how many frames before a chunk are read only to get there."""
    view, cuts = plan.spec.view, plan.spec.cuts
    frame = plan.chunks[index].start
    if view is not None:
        frame = view.first + frame * view.every
    before = bisect_right(cuts, frame)
    return frame - cuts[before - 1] if before else 0
