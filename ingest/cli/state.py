"""``rheed-ingest streams`` and ``status``: what the journal knows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.exits import OK
from ingest.cli.options import state_dir
from ingest.errors import SettingsError

if TYPE_CHECKING:
    from ingest.journal import Journal, StreamRow

__all__ = ["status", "streams"]


@contextmanager
def _journal(state: str | None) -> Iterator[Journal]:
    from ingest.journal import Journal

    journal = Journal(state_dir(state), time.time)
    try:
        yield journal
    finally:
        journal.close()


def _document(row: StreamRow) -> dict[str, Any]:
    kept = ("key", "data_id", "name", "state", "destination", "path", "frames", "chunks", "confirmed", "lost")
    values = asdict(row)
    return {name: values[name] for name in (*kept, "bytes_in", "bytes_out", "replaces", "lease_holder")}


def _proof(journal: Journal, row: StreamRow) -> dict[str, Any]:
    from ingest.manifest import manifest

    receipts, losses = journal.receipts(row.key), journal.load(row.key).lost
    return {
        "losses": {str(index): reason for index, reason in sorted(losses.items())},
        "receipts": [asdict(receipt) for receipt in receipts],
        "manifest": manifest(journal.plan(row.key), row.data_id, str(row.state), receipts, losses),
    }


def _line(row: StreamRow) -> str:
    return (
        f"{row.state:<9}{row.data_id or '-':<38}{row.confirmed:>6} of {row.chunks} chunks"
        f"{f', {row.lost} lost' if row.lost else ''}  {row.frames} frames  {row.path} -> {row.destination}"
    )


@click.command()
@click.option("--state", metavar="DIR", help="Folder of the journal; default: the user's state folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def streams(state: str | None, as_json: bool) -> int:
    """List all streams of the journal, newest first."""
    with _journal(state) as journal:
        rows = journal.streams()
    if as_json:
        click.echo(json.dumps({"streams": [_document(row) for row in rows]}, indent=2))
    else:
        click.echo("\n".join(_line(row) for row in rows) or "no streams yet")
    return OK


@click.command()
@click.argument("stream", required=False)
@click.option("--state", metavar="DIR", help="Folder of the journal; default: the user's state folder.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def status(stream: str | None, state: str | None, as_json: bool) -> int:
    """Say what is open, or all about one STREAM (its data_id, name or path).

    \b
    Example:
      rheed-ingest status 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """  # noqa: D301 - \b is click's
    with _journal(state) as journal:
        rows = journal.streams()
        if stream is None:
            return _overview(rows, as_json=as_json)
        chosen = [row for row in rows if stream in (row.data_id, row.key, row.name, row.path)]
        if not chosen:
            raise SettingsError(f"the journal knows no stream {stream!r}", hint="`rheed-ingest streams` lists them")
        details = [_document(row) | _proof(journal, row) for row in chosen]
    if as_json:
        click.echo(json.dumps({"streams": details}, indent=2))
        return OK
    for row, detail in zip(chosen, details, strict=True):
        click.echo(_line(row))
        for index, reason in detail["losses"].items():
            click.echo(f"  chunk {index} is lost: {reason}")
        for receipt in detail["receipts"]:
            click.echo(
                f"  chunk {receipt['index']}: {receipt['frames']} frames, {receipt['n_bytes']} bytes, "
                f"crc32c {receipt['crc32c']:08x}, frames xxh3 {receipt['frames_digest']}, "
                f"{receipt['attempts']} attempt(s)"
            )
        click.echo(f"  manifest {detail['manifest']['digest']}")
    return OK


def _overview(rows: list[StreamRow], *, as_json: bool) -> int:
    open_rows = [row for row in rows if row.state not in ("closed", "gone")]
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row.state)] = counts.get(str(row.state), 0) + 1
    if as_json:
        click.echo(json.dumps({"counts": counts, "open": [_document(row) for row in open_rows]}, indent=2))
        return OK
    click.echo(", ".join(f"{count} {state}" for state, count in counts.items()) or "no streams yet")
    for row in open_rows:
        click.echo(_line(row))
    return OK
