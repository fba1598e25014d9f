"""``rheed-ingest reconcile``: what waits at a failover goes where it belongs."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.exits import FAILED, INTERRUPTED, OK, PARTIAL
from ingest.cli.options import api_key, canonical_destination, state_dir
from ingest.cli.spooled import text_of_size
from ingest.cli.stopping import stop_on_signals
from ingest.lake.opening import canonical_lake_url, open_store
from ingest.settings_text import parse_duration_s

if TYPE_CHECKING:
    from actors.reconcile import Reconciled

__all__ = ["reconcile"]

COUNTS = ("parked", "moved", "removed", "n_bytes")


@click.command()
@click.argument("failover", metavar="FAILOVER_URL")
@click.option("--state", metavar="DIR", help="Folder of the journal; default: the lake's, else the user's.")
@click.option("--to", metavar="URL", help="Move only what waits for this destination; default: all.")
@click.option("--retry-for", metavar="TIME", default="15m", help="How long a destination is tried; default 15m.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with the API key; default: AS_API_KEY.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def reconcile(
    failover: str, state: str | None, to: str | None, retry_for: str, api_key_file: Path | None, as_json: bool
) -> int:
    """Move the chunks that wait at a failover to the destinations that they are for, and close their streams.

    A chunk is removed there once its receipt is in the journal. Safe to stop and to repeat.

    \b
    Example:
      rheed-ingest reconcile /mnt/failover
    """  # noqa: D301 - \b is click's
    from rich.console import Console

    from actors import reconcile as moving
    from ingest.cli.progress import JobProgress
    from ingest.parking import Parking
    from ingest.retry import RetryPolicy

    url, retry = canonical_lake_url(failover), RetryPolicy(retry_for_s=parse_duration_s(retry_for))
    parking = Parking(open_store(url, retry=retry))
    request = moving.ReconcileRequest(
        parking,
        lambda destination: _folders(state, destination),
        api_key(api_key_file),
        None if to is None else canonical_destination(to),
        retry,
    )
    began_s = time.monotonic()
    try:
        with stop_on_signals("finishing what is in flight") as stop, JobProgress(Console(stderr=True)) as progress:
            results = moving.reconcile(request, progress.show, stop)
    finally:
        parking.close()
    seconds = time.monotonic() - began_s
    if as_json:
        click.echo(json.dumps(_document(url, results, seconds), indent=2))
    else:
        of = "" if request.destination is None else f" for {request.destination}"
        click.echo("\n".join(_lines(f"{url}{of}", results)))
    return INTERRUPTED if stop.is_set() else _exit_code(results)


def _folders(state: str | None, destination: str | None) -> list[Path]:
    """Return where the journal of a destination's streams may be: a job to several has the user's."""
    if state is not None:
        return [state_dir(state)]
    return list(dict.fromkeys((state_dir(None, [] if destination is None else [destination]), state_dir(None))))


def _document(url: str, results: Sequence[Reconciled], seconds: float) -> dict[str, Any]:
    streams = [asdict(result) for result in results]
    totals = {name: sum(stream[name] for stream in streams) for name in COUNTS}
    return {
        "failover": url,
        "streams": streams,
        "totals": {
            "streams": len(streams),
            "complete": sum(result.status == "complete" for result in results),
            **totals,
            "seconds": round(seconds, 3),
        },
    }


def _lines(where: str, results: Sequence[Reconciled]) -> list[str]:
    if not results:
        return [f"nothing waits at {where}"]
    out = []
    for result in results:
        out.append(f"{result.status:<9}{result.source or result.key} -> {result.destination or 'unknown'}")
        out.append(
            f"         {result.data_id or '-'}  {result.parked} chunks were parked: {result.moved} moved, "
            f"{result.removed} removed ({text_of_size(result.n_bytes)}); the stream is {result.state or 'not known'}"
        )
        out += [f"         - {finding}" for finding in result.findings]
        if result.error:
            out.append(f"         error: {result.error}")
        if result.hint:
            out.append(f"         hint: {result.hint}")
    complete = sum(result.status == "complete" for result in results)
    out.append(f"{complete} of {len(results)} streams complete")
    return out


def _exit_code(results: Sequence[Reconciled]) -> int:
    if all(result.status == "complete" for result in results):
        return OK
    return FAILED if all(result.status == "failed" for result in results) else PARTIAL
