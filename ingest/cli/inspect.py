"""``rheed-ingest inspect``: what is in the files, before anything is sent."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from ingest.cli.exits import FAILED, OK, PARTIAL
from ingest.cli.options import merged_settings, source_options

__all__ = ["inspect"]


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
@source_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def inspect(sources: Sequence[str], as_json: bool, **given: Any) -> int:
    """Say what is in files, folders and globs: format, frames, rate, start, gaps.

    \b
    Example:
      rheed-ingest inspect runs/2023-10-18/*.h5
    """  # noqa: D301 - \b is click's
    from ingest.cli.plan_report import growth_document, plan_document, plan_lines
    from ingest.cli.planning import find_candidates, warn_of_settings

    settings = merged_settings(sources, given)
    candidates = find_candidates(settings.sources, settings, planning=False)
    warn_of_settings(settings, candidates)
    if as_json:
        document = {"runs": plan_document(candidates), "growths": growth_document(candidates)}
        click.echo(json.dumps(document, indent=2))
    else:
        click.echo("\n".join(plan_lines(candidates, is_look=True)))
    bad = sum(candidate.info is None for candidate in candidates)
    return OK if not bad else (FAILED if bad == len(candidates) else PARTIAL)
