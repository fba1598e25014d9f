"""What holds of a stream that comes out of a lake, where the user says nothing else. Pure."""

from __future__ import annotations

from dataclasses import replace

from ingest.plan import NEAR, PlanOptions, RunPlan, plan_run
from ingest.series_plan import SeriesOptions
from ingest.sources.base import SourceInfo
from ingest.sources.series_base import SeriesInfo

__all__ = ["plan_run_as_before", "series_options_as_before"]

SAME = 1e-9


def plan_run_as_before(info: SourceInfo, options: PlanOptions) -> RunPlan:
    """Plan a run as `plan_run` does; what of an earlier stream the user does not say otherwise, is kept.

    Parameters
    ----------
    info : SourceInfo
        With `earlier`, if it comes out of a lake.
    options : PlanOptions
        What the user wants; its `rotations_per_min` is already decided.

    Returns
    -------
    RunPlan
        Sample, project, tags, azimuth and declared rate are the earlier stream's, unless the options have others; so is
        the rate only where the stamps agree within 2 %.

    Raises
    ------
    SourceTimeError, SettingsError
        As `plan_run`.
    """
    earlier = info.earlier
    if earlier is None:
        return plan_run(info, options)
    is_stationary = options.rotations_per_min <= 0
    options = replace(
        options,
        azimuth=options.azimuth or (earlier.azimuth if is_stationary else None),
        physical_sample=options.physical_sample or earlier.physical_sample,
        project_id=options.project_id or earlier.project_id,
        tags=options.tags or earlier.tags,
    )
    plan = plan_run(info, options)
    measured, before = plan.settings.fps, earlier.fps
    if options.fps is not None or before is None or before == measured or abs(before - measured) > NEAR * measured:
        return plan
    if abs(before - measured) > SAME * measured:
        return plan_run(info, replace(options, fps=before))  # it was asked for, the first time
    return replace(plan, settings=replace(plan.settings, fps=before))


def series_options_as_before(info: SeriesInfo, options: SeriesOptions) -> SeriesOptions:
    """Return options where sample, project and tags are an earlier stream's, unless the user says others."""
    earlier = info.earlier
    if earlier is None:
        return options
    return replace(
        options,
        physical_sample=options.physical_sample or earlier.physical_sample,
        project_id=options.project_id or earlier.project_id,
        tags=options.tags or earlier.tags,
    )
