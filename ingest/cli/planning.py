"""From what the user names to plans, one bad file never stopping the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import click

from ingest.config import BackfillSettings, run_settings
from ingest.destinations import is_lake
from ingest.earlier import plan_run_as_before, series_options_as_before
from ingest.errors import IngestError, SettingsError, SourceReadError
from ingest.lake.opening import canonical_lake_url
from ingest.series_plan import ArchivePlan, SeriesPlan, plan_series
from ingest.sources import (
    SeriesInfo,
    SeriesSpec,
    SourceInfo,
    SourceOptions,
    SourceSpec,
    discover,
    inspect,
    inspect_series,
)

__all__ = ["Candidate", "find_candidates", "finding_options", "refuse_own_lake", "warn_of_settings"]


@dataclass(frozen=True)
class Candidate:
    """A run that the user named, as far as it got.

    Attributes
    ----------
    path : str
        Its canonical name.
    info : SourceInfo, SeriesInfo or None
        What it is; without the stamps.
    plan : RunPlan, SeriesPlan or None
        What would be sent.
    error : IngestError or None
        Why there is no plan.
    growth : str or None
        The growth that it belongs to: its folder, or what a rule calls it.
    is_measured : bool
        Whether stamps said its rate.
    fps_asked : bool
        Whether the user gave a rate.
    is_planned : bool
        Whether everything that a stream needs was said, not made up for a look.
    """

    path: str
    info: SourceInfo | SeriesInfo | None = None
    plan: ArchivePlan | None = None
    error: IngestError | None = None
    growth: str | None = None
    is_measured: bool = False
    fps_asked: bool = False
    is_planned: bool = False


def find_candidates(
    sources: Sequence[str],
    settings: BackfillSettings,
    *,
    planning: bool,
    to: Sequence[str] = (),
    seen: Callable[[Candidate], None] | None = None,
) -> list[Candidate]:
    """Find, inspect and plan the runs in `sources`, for destinations `to`.

    Unless `planning`, what is not known of one is made up for a look. A lake that is a destination and lies in a folder
    of sources is none itself; one whose streams are named is.

    Raises
    ------
    SettingsError
        A setting that no run could have.
    """
    found: dict[str, Candidate] = {}
    lakes = [canonical_lake_url(url) for url in to if is_lake(url)]
    own = [] if any(_is_in(source, lakes) for source in sources) else lakes
    for entry in discover(sources, finding_options(settings)):
        if _is_in(entry.path, own):
            continue
        if entry.spec is None:
            candidate = Candidate(entry.path, error=entry.error)
        else:
            candidate = _candidate(entry.spec, settings, sources, planning=planning, to=to)
        found.setdefault(candidate.path, candidate)
        if seen is not None:
            seen(candidate)
    candidates = list(found.values())
    if not candidates:
        raise SettingsError(
            "nothing to ingest was named" if not sources else f"nothing to ingest in {', '.join(sources)}",
            hint="name files, folders or globs",
        )
    name = settings.name
    return candidates if name is None or len(candidates) == 1 else [_renamed(c, name) for c in candidates]


def refuse_own_lake(sources: Sequence[str], to: Sequence[str]) -> None:
    """Refuse a folder that is to be source and lake in one.

    Raises
    ------
    SettingsError
        What is sent would be a source of the next run.
    """
    lakes = [canonical_lake_url(url) for url in to if is_lake(url)]
    for source in sources:
        if _is_in(source, lakes) and canonical_lake_url(source) in lakes:
            raise SettingsError(
                f"{source} is named as source and as lake: what is sent would be a source of the next run",
                hint=f"name another folder, such as --to {source.rstrip('/')}-lake",
            )


def _is_in(path: str, lakes: Sequence[str]) -> bool:
    if not lakes or not is_lake(path):  # at http(s) there are no lakes
        return False
    try:
        place = canonical_lake_url(path)
    except SettingsError:  # a pattern, or a URL that no lake could have
        return False
    return any(place == lake or place.startswith(f"{lake}/") for lake in lakes)


def finding_options(settings: BackfillSettings) -> SourceOptions:
    """Return what finding runs needs to know: times may be complete only with what rules and sidecars say of one."""
    return SourceOptions(
        dataset=settings.dataset,
        raw_shape=settings.raw_shape,
        raw_dtype=settings.raw_dtype,
        raw_header_bytes=settings.raw_header_bytes,
    )


def _candidate(
    spec: SourceSpec | SeriesSpec,
    settings: BackfillSettings,
    sources: Sequence[str],
    *,
    planning: bool,
    to: Sequence[str],
) -> Candidate:
    path = spec.canonical_path
    known = Candidate(path)
    try:
        inside = "" if spec.dataset is None else f"::{spec.dataset}"
        own = run_settings(settings, spec.paths[0] + inside, sources)
        known = replace(known, growth=_growth(own, spec.paths[0]))
        if isinstance(spec, SeriesSpec):
            return _log(known, spec, own, planning=planning)
        info = inspect(spec, own.source_options())
        # Eight bytes a frame, for all runs of a job, that nobody asks for any more.
        known = replace(
            known,
            path=info.spec.canonical_path,
            info=replace(info, timestamps_ns=None, frame_numbers=None),
            is_measured=info.timestamps_ns is not None,
            fps_asked=own.fps is not None,
            is_planned=own.rotations_per_min is not None or info.rotations_per_min is not None,
        )
        # Rates and gaps do not depend on the start, so that a look at the run needs none.
        dated = info if info.start_ns is not None or planning else replace(info, start_ns=0, start_from="user")
        lakes = sum(map(is_lake, to))
        options = own.plan_options(
            require_rotation=planning and info.rotations_per_min is None,
            for_lake=lakes > 0,
            for_platform=lakes < len(to) or not to,
        )
        if own.rotations_per_min is None and info.rotations_per_min is not None:
            options = replace(options, rotations_per_min=info.rotations_per_min)
        return replace(known, plan=plan_run_as_before(dated, options))
    except IngestError as exc:
        return replace(known, error=exc)
    except OSError as exc:
        return replace(known, error=SourceReadError(f"{path}: {exc}"))


def _log(known: Candidate, spec: SeriesSpec, own: BackfillSettings, *, planning: bool) -> Candidate:
    info = inspect_series(spec, own.source_options())
    known = replace(known, path=info.spec.canonical_path, info=info)
    dated = info if info.start_ns is not None or planning else replace(info, start_ns=0, start_from="user")
    try:
        return replace(known, plan=plan_series(dated, series_options_as_before(info, own.series_options())))
    except IngestError as exc:
        return replace(known, error=exc)


def _growth(settings: BackfillSettings, path: str) -> str | None:
    if settings.group == "none":
        return None
    return os.path.dirname(path) if settings.group == "folder" else settings.group


def _renamed(candidate: Candidate, name: str) -> Candidate:
    """Give each of several runs the user's name and its own, unless rule or sidecar gave it one of its own."""
    plan, info = candidate.plan, candidate.info
    if plan is None or info is None or plan.name != name:
        return candidate
    full = f"{name} {info.name}"
    if isinstance(plan, SeriesPlan):
        return replace(candidate, plan=replace(plan, settings=replace(plan.settings, name=full)))
    return replace(candidate, plan=replace(plan, settings=replace(plan.settings, name=full)))


def warn_of_settings(settings: BackfillSettings, candidates: Sequence[Candidate]) -> None:
    """Say on stderr what was asked for and is of no run, or of more than it can be meant for."""
    paths = [candidate.path for candidate in candidates]
    for rule in settings.rules:
        if not any(rule.groups(path, None) is not None for path in paths):
            click.echo(f"warning: {rule.where} matches none of {len(paths)} run(s)", err=True)
    movies = sum(isinstance(candidate.info, SourceInfo) for candidate in candidates)
    if settings.start is not None and "start" in settings.commanded and movies > 1:
        click.echo(f"warning: --start is given to each of {movies} movies: they all begin at that time", err=True)
