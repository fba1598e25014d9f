"""``rheed-ingest backfill``: the main job."""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.exits import FAILED, INTERRUPTED, OK, PARTIAL
from ingest.cli.options import (
    api_key,
    canonical_destination,
    canonical_destinations,
    merged_settings,
    source_options,
    state_dir,
    stream_options,
)
from ingest.cli.stopping import stop_on_signals
from ingest.config import BackfillSettings
from ingest.errors import SettingsError
from ingest.lake.opening import canonical_lake_url
from ingest.telemetry import Secret

if TYPE_CHECKING:
    from ingest.failover import FailoverOptions

__all__ = ["backfill"]


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...|JOB.yaml")
@click.option(
    "--to",
    multiple=True,
    metavar="URL",
    help="Destination: a platform, or the folder or s3:// URL of a lake; repeat for several. Default AS_API_ENDPOINT.",
)
@stream_options
@source_options
@click.option("--packers", type=int, help="Workers; default: as many as there are free processors.")
@click.option("--open-runs", type=int, help="Streams that are open at once; default 4.")
@click.option("--level", type=int, help="zstd level; default 1. Frames that a lake holds compressed already stay so.")
@click.option("--retry-for", metavar="TIME", help="How long an unreachable destination is tried; default 15m.")
@click.option("--failover", metavar="URL", help="Folder or s3:// URL where chunks of a destination that is away wait.")
@click.option("--failover-after", metavar="TIME", help="How long a destination is tried before; default 60s.")
@click.option("--restart", is_flag=True, help="Send everything anew, as other streams.")
@click.option("--state", metavar="DIR", help="Folder of the journal; default: the lake's, else the user's.")
@click.option("--address", help="Address of a Ray cluster (run on one of its nodes); default: a Ray of its own.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with the API key; default: AS_API_KEY.")
@click.option("--dry-run", is_flag=True, help="Only say what would be sent and created.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def backfill(sources: Sequence[str], api_key_file: Path | None, dry_run: bool, as_json: bool, **given: Any) -> int:
    """Send archived growth runs: files, folders and globs, or a job file.

    \b
    Example:
      rheed-ingest backfill runs/2023-10-18 --to https://api.atomscale.ai --sample STO-17 --tag STO
    """  # noqa: D301 - \b is click's
    settings = merged_settings(sources, given)
    destinations = canonical_destinations(settings.to)
    key = api_key(api_key_file)
    _refuse_what_cannot_be(settings, destinations, key)
    if dry_run:
        return _dry_run(settings, destinations, key, as_json=as_json)
    return _send(settings, destinations, key, as_json=as_json)


def _refuse_what_cannot_be(settings: BackfillSettings, destinations: Sequence[str], key: Secret | None) -> None:
    """Raise what would be raised anyway, before anything is read, or a Ray is started."""
    from ingest.cli.planning import refuse_own_lake
    from ingest.destinations import LakeDestination, open_destination
    from ingest.retry import RetryPolicy

    _failover(settings, destinations)
    refuse_own_lake(settings.sources, destinations)
    for url in destinations:
        opened = open_destination(url, key, retry=RetryPolicy(retry_for_s=0))
        if isinstance(opened, LakeDestination):
            asyncio.run(opened.look())


def _failover(settings: BackfillSettings, destinations: Sequence[str]) -> FailoverOptions | None:
    from ingest.failover import FailoverOptions
    from ingest.lake.opening import open_store

    if settings.failover is None:
        return None
    url = canonical_lake_url(canonical_destination(settings.failover))
    if url in destinations:
        raise SettingsError(
            f"--failover {url} is a destination itself", hint="name a store that works while the destination does not"
        )
    open_store(url).close()
    return FailoverOptions(url, settings.failover_after, state=settings.state)


def _dry_run(settings: BackfillSettings, destinations: Sequence[str], key: Secret | None, *, as_json: bool) -> int:
    from ingest.cli.plan_report import growth_document, plan_document, plan_lines
    from ingest.cli.planning import find_candidates, warn_of_settings
    from ingest.series_plan import SeriesPlan

    candidates = find_candidates(settings.sources, settings, planning=True, to=destinations)
    warn_of_settings(settings, candidates)
    plans = [candidate.plan for candidate in candidates if candidate.plan is not None]
    missing = [asyncio.run(_missing_names(plans, settings.retry_for, to, key)) for to in destinations]
    samples, tags = (list(dict.fromkeys(name for each in kind for name in each)) for kind in zip(*missing, strict=True))
    totals = {
        "runs": len(plans),
        "frames": sum(plan.frames for plan in plans if not isinstance(plan, SeriesPlan)),
        "points": sum(plan.frames for plan in plans if isinstance(plan, SeriesPlan)),
        "chunks": sum(len(plan.chunks) for plan in plans),
        "bytes_in": sum(plan.bytes_in for plan in plans),
    }
    created = {"samples": samples, "tags": tags}
    if as_json:
        document = {
            "runs": plan_document(candidates),
            "growths": growth_document(candidates),
            "totals": totals,
            "would_create": created,
        }
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo("\n".join(plan_lines(candidates)))
        names = [f"sample {sample!r}" for sample in samples] + [f"tag {tag!r}" for tag in tags]
        click.echo(f"would create: {', '.join(names) or 'no samples, no tags'}")
        points = f", {totals['points']} points" if totals["points"] else ""
        click.echo(
            f"would send: {totals['runs']} runs, {totals['frames']} frames{points}, {totals['chunks']} chunks, "
            f"{totals['bytes_in'] / 1e6:.1f} MB before compression, to {' and '.join(destinations)}"
        )
    bad = sum(candidate.error is not None for candidate in candidates)
    return OK if not bad else (PARTIAL if plans else FAILED)


async def _missing_names(
    plans: Sequence[Any], retry_for_s: float, destination: str, key: Secret | None
) -> tuple[list[str], list[str]]:
    """Return the samples and tags of all runs that are not at the destination yet, as they are spelled."""
    from ingest.destinations import open_destination
    from ingest.plan import StreamSettings
    from ingest.retry import RetryPolicy

    # A name is matched trimmed and without regard to case, so that one of two spellings is asked for.
    wanted = {plan.settings.physical_sample for plan in plans} - {None}
    samples = {sample.strip().casefold(): sample for sample in sorted(wanted)}
    tags = tuple(dict.fromkeys(tag for plan in plans for tag in plan.settings.tags))
    if not samples and not tags:
        return [], []
    to = open_destination(destination, key, retry=RetryPolicy(retry_for_s=min(retry_for_s, 30.0)))
    new_samples: list[str] = []
    new_tags: tuple[str, ...] = ()
    try:
        for sample in list(samples.values()) or [None]:
            missing = await to.missing_names(StreamSettings("dry run", 1.0, 0.0, 2, physical_sample=sample, tags=tags))
            new_tags = missing.tags
            if missing.physical_sample and sample is not None:
                new_samples.append(sample)
    finally:
        await to.aclose()
    return new_samples, list(new_tags)


def _send(settings: BackfillSettings, destinations: Sequence[str], key: Secret | None, *, as_json: bool) -> int:
    from ingest.cli.growing import refuse_growing
    from ingest.cli.planning import Candidate, find_candidates, warn_of_settings
    from ingest.cli.report import RunReport, document, exit_code, lines

    if settings.follow is not None and not _wait_for_writers(settings.sources, settings.follow):
        click.echo("interrupted; nothing was sent", err=True)
        return INTERRUPTED
    began_s = time.monotonic()
    candidates = refuse_growing(find_candidates(settings.sources, settings, planning=True, to=destinations))
    warn_of_settings(settings, candidates)
    planned = [candidate for candidate in candidates if candidate.plan is not None]
    results: dict[str, list[RunReport]] = {}

    def of(candidate: Candidate) -> list[RunReport]:
        error = candidate.error
        return results.get(candidate.path) or [
            RunReport(candidate, "failed", error=str(error), hint=error.hint if error else None)
        ]

    with stop_on_signals("finishing what is in flight") as stop:
        if planned:
            results = _run(settings, destinations, key, planned, stop)
        reports = [report for candidate in candidates for report in of(candidate)]
        seconds = time.monotonic() - began_s
        if as_json:
            click.echo(json.dumps(document(reports, seconds), indent=2))
        else:
            click.echo("\n".join(lines(reports, seconds)))
        if stop.is_set():
            again = [argument for argument in sys.argv[1:] if argument != "--restart"]  # which would begin once more
            click.echo(f"interrupted; to resume: {shlex.join(['rheed-ingest', *again])}", err=True)
            return INTERRUPTED
        for destination in destinations:
            _deliver_spool(settings, destination, key, stop)
    return exit_code(reports)


def _wait_for_writers(sources: Sequence[str], quiet_s: float) -> bool:
    """Wait until nothing that was named has grown for a while; False: a signal came first."""
    from ingest.sources.discovery import named_paths
    from ingest.sources.follow import wait_until_quiet

    with stop_on_signals("no longer waiting") as stop:
        click.echo(f"waiting until {', '.join(sources)} has been quiet for {quiet_s:g} s", err=True)

        def sleep(seconds: float) -> None:
            stop.wait(seconds)

        return wait_until_quiet(named_paths(sources), quiet_s, sleep=sleep, stop=stop.is_set)


def _deliver_spool(settings: BackfillSettings, destination: str, key: Secret | None, stop: threading.Event) -> None:
    """Deliver what live streamers left behind for the same destination and key; not this job's to fail by."""
    state = state_dir(settings.state, [destination])
    if (state / "spool").is_dir():
        from ingest.cli.delivering import deliver_leftovers

        deliver_leftovers(destination, key, state, stop)


def _run(
    settings: BackfillSettings,
    destinations: Sequence[str],
    key: Secret | None,
    planned: Sequence[Any],
    stop: threading.Event,
) -> dict[str, list[Any]]:
    from rich.console import Console

    from actors.backfill import BackfillRequest, run_backfill
    from ingest.cli.progress import JobProgress
    from ingest.cli.report import RunReport
    from ingest.retry import RetryPolicy

    request = BackfillRequest(
        plans=[candidate.plan for candidate in planned],
        destinations=destinations,
        api_key=key,
        state_dir=state_dir(settings.state, destinations),
        address=settings.address,
        packers=settings.packers,
        open_runs=settings.open_runs,
        retry=RetryPolicy(retry_for_s=settings.retry_for),
        level=settings.level,
        restart=settings.restart,
        failover=_failover(settings, destinations),
    )
    with JobProgress(Console(stderr=True)) as progress:
        results = run_backfill(request, progress.show, stop)
    reports: dict[str, list[RunReport]] = {}
    for number, result in enumerate(results):
        candidate, end = planned[number // len(destinations)], result.end
        report = RunReport(candidate, end.status, result.row, end.error, end.hint, result.destination)
        reports.setdefault(candidate.path, []).append(report)
    return reports
