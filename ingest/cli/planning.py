"""From what the user names to plans, one bad file never stopping the others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ingest.config import BackfillSettings
from ingest.errors import IngestError, SettingsError, SourceReadError
from ingest.plan import RunPlan, plan_run
from ingest.sources import SourceInfo, discover, inspect
from ingest.sources.base import SourceSpec

__all__ = ["Candidate", "find_candidates"]


@dataclass(frozen=True)
class Candidate:
    """A run that the user named, as far as it got.

    Attributes
    ----------
    path : str
        Its canonical name.
    info : SourceInfo or None
        What it is.
    plan : RunPlan or None
        What would be sent.
    error : IngestError or None
        Why there is no plan.
    """

    path: str
    info: SourceInfo | None = None
    plan: RunPlan | None = None
    error: IngestError | None = None


def find_candidates(
    sources: Sequence[str],
    settings: BackfillSettings,
    *,
    planning: bool,
    seen: Callable[[Candidate], None] | None = None,
) -> list[Candidate]:
    """Find, inspect and plan the runs in `sources`; unless `planning`, one whose start is not known is planned, too.

    Raises
    ------
    SettingsError
        A setting that no run could have.
    """
    options = settings.source_options()
    found: dict[str, Candidate] = {}
    for entry in discover(sources, options):
        if not isinstance(entry.spec, SourceSpec):
            candidate = Candidate(entry.path, error=entry.error)
        else:
            candidate = _candidate(entry.spec, settings, planning=planning)
        found.setdefault(candidate.path, candidate)
        if seen is not None:
            seen(candidate)
    candidates = list(found.values())
    if not candidates:
        raise SettingsError(
            f"nothing to ingest in {', '.join(sources) or 'no sources'}", hint="name files, folders or globs"
        )
    name = settings.name
    return candidates if name is None or len(candidates) == 1 else [_renamed(c, name) for c in candidates]


def _candidate(spec: SourceSpec, settings: BackfillSettings, *, planning: bool) -> Candidate:
    info = None
    path = spec.canonical_path
    try:
        info = inspect(spec, settings.source_options())
        path = info.spec.canonical_path
        # Rates and gaps do not depend on the start, so that a look at the run needs none.
        known = info if info.start_ns is not None or planning else replace(info, start_ns=0, start_from="user")
        plan = plan_run(known, settings.plan_options())
        # Eight bytes a frame, for all runs of a job, that nobody asks for any more.
        return Candidate(path, replace(info, timestamps_ns=None, frame_numbers=None), plan)
    except IngestError as exc:
        return Candidate(path, info, error=exc)
    except OSError as exc:
        return Candidate(path, info, error=SourceReadError(f"{path}: {exc}"))


def _renamed(candidate: Candidate, name: str) -> Candidate:
    """Give each of several runs the user's name and its own."""
    if candidate.plan is None or candidate.info is None:
        return candidate
    settings = replace(candidate.plan.settings, name=f"{name} {candidate.info.name}")
    return replace(candidate, plan=replace(candidate.plan, settings=settings))
