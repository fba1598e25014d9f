"""``rheed-ingest streams`` and ``status``: what the journal knows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.exits import OK
from ingest.cli.options import canonical_destination, state_dir
from ingest.errors import SettingsError

if TYPE_CHECKING:
    from ingest.journal import Journal, LiveStream, StreamRow

__all__ = ["status", "streams"]

ENDED = ("closed", "gone")
FRAMES_SHOWN = 20


def _folder(to: str | None, state: str | None) -> Path:
    """Return the folder of the journal that is asked for."""
    if to is None or state is not None:
        return state_dir(state)
    from ingest.journal import JOURNAL_NAME

    own = state_dir(None, [canonical_destination(to)])
    # A job with several destinations has its journal in the user's folder.
    return own if (own / JOURNAL_NAME).exists() else state_dir(None)


def _to(rows: Sequence[StreamRow], to: str | None) -> list[StreamRow]:
    """Return the streams at a destination."""
    if to is None:
        return list(rows)
    destination = canonical_destination(to)
    return [row for row in rows if row.destination == destination]


@contextmanager
def _journal(folder: Path) -> Iterator[Journal]:
    from ingest.journal import Journal

    journal = Journal(folder, time.time)
    try:
        yield journal
    finally:
        journal.close()


@dataclass(frozen=True)
class _Known:
    """A stream, and for a live one what the journal's row and the spool add.

    Attributes
    ----------
    row : StreamRow
        What the journal counts.
    live : LiveStream or None
        Of a live one: its settings, whether it is sealed.
    spooled, spooled_bytes : int
        Chunks that wait on disk.
    """

    row: StreamRow
    live: LiveStream | None
    spooled: int
    spooled_bytes: int


def _known(journal: Journal, rows: Sequence[StreamRow], folder: Path) -> list[_Known]:
    from ingest.cli.spooled import waiting_chunks

    is_any_live = any(row.is_live for row in rows)
    waiting = waiting_chunks(folder / "spool") if is_any_live else {}
    return [
        _Known(row, journal.live_stream(row.key) if row.is_live else None, *waiting.get(row.key, (0, 0)))
        for row in rows
    ]


def _document(known: _Known) -> dict[str, Any]:
    names = ("key", "data_id", "name", "kind", "state", "destination", "path", "frames", "chunks", "confirmed", "lost")
    values = asdict(known.row)
    out = {known.row.unit if name == "frames" else name: values[name] for name in names}
    out |= {name: values[name] for name in ("bytes_in", "bytes_out", "replaces")}
    out["frames_lost"] = known.row.frames_lost
    out["lease_holder"] = known.row.lease_holder if known.row.lease_until_s > time.time() else None
    if known.live is None:
        return out
    return out | {
        "sealed": known.live.is_sealed,
        "gone_reason": known.live.gone_reason,
        "spooled": known.spooled,
        "spooled_bytes": known.spooled_bytes,
    }


def _proof(journal: Journal, known: _Known) -> dict[str, Any]:
    from ingest.manifest import live_manifest, manifest

    row, live = known.row, known.live
    receipts, losses = journal.receipts(row.key), journal.load(row.key).lost
    stated = (row.data_id, str(row.state), receipts, losses)
    lost: dict[int, list[int]] = {}
    if live is None:
        plan = journal.plan(row.key)
        document = manifest(plan, *stated)
        lost = {r.index: [plan.chunks[r.index].start + i for i in r.lost_frames] for r in receipts if r.lost_frames}
    else:
        document = live_manifest(live.settings, *stated, is_sealed=live.is_sealed, gone_reason=live.gone_reason)
    return {
        "losses": {str(index): reason for index, reason in sorted(losses.items())},
        "lost_frames": {str(index): frames for index, frames in lost.items()},
        "receipts": [asdict(receipt) for receipt in receipts],
        "manifest": document,
    }


def _numbers(frames: Sequence[int]) -> str:
    shown = ", ".join(map(str, frames[:FRAMES_SHOWN]))
    return shown if len(frames) <= FRAMES_SHOWN else f"{shown} and {len(frames) - FRAMES_SHOWN} more"


def _line(known: _Known) -> str:
    row, live = known.row, known.live
    lost = f", {row.lost} lost" if row.lost else ""
    frames_lost = f" ({row.frames_lost} not readable)" if row.frames_lost else ""
    start = f"{row.state:<9}{row.data_id or '-':<38}"
    if live is None:
        return (
            f"{start}{row.confirmed:>6} of {row.chunks} chunks{lost}  {row.frames} {row.unit}{frames_lost}  "
            f"{row.path} -> {row.destination}"
        )
    of = f" of {row.chunks} chunks" if live.is_sealed else " chunks, not sealed"
    spooled = f", {known.spooled} spooled" if known.spooled else ""
    return (
        f"{start}{row.confirmed:>6}{of}{spooled}{lost}  {row.frames} {known.row.unit}  live {row.kind} {row.name} -> "
        f"{row.destination}"
    )


def _proof_lines(known: _Known, detail: dict[str, Any]) -> Iterator[str]:
    is_series = known.row.unit == "points"
    if known.live is not None and known.live.gone_reason:
        yield f"  the platform takes nothing more: {known.live.gone_reason}"
    if known.spooled:
        yield f"  {known.spooled} chunk(s), {known.spooled_bytes} bytes of disk, wait in the spool"
    for index, reason in detail["losses"].items():
        what = "request" if is_series else "chunk"
        yield f"  lost: {reason}" if reason.startswith("chunk ") else f"  {what} {index} is lost: {reason}"
    digest = "body" if is_series else "frames"
    for receipt in detail["receipts"]:
        yield (
            f"  {receipt['label'] or 'chunk ' + str(receipt['index'])}: {receipt['frames']} {known.row.unit}, "
            f"{receipt['n_bytes']} bytes, crc32c {receipt['crc32c']:08x}, {digest} xxh3 {receipt['frames_digest']}, "
            f"{receipt['attempts']} attempt(s)"
        )
        lost = detail["lost_frames"].get(str(receipt["index"]))
        if lost:
            yield f"    frames of the run that the source could not give: {_numbers(lost)}"
    yield f"  manifest {detail['manifest']['digest']}"


@click.command()
@click.option("--to", metavar="DEST", help="Destination whose journal to show: the folder of a lake has its own.")
@click.option("--state", metavar="DIR", help="Folder of the journal; default: the lake's, else the user's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def streams(to: str | None, state: str | None, as_json: bool) -> int:
    """List all streams of the journal, newest first."""
    folder = _folder(to, state)
    with _journal(folder) as journal:
        known = _known(journal, _to(journal.streams(), to), folder)
    if as_json:
        click.echo(json.dumps({"streams": [_document(one) for one in known]}, indent=2))
    else:
        click.echo("\n".join(_line(one) for one in known) or "no streams yet")
    return OK


@click.command()
@click.argument("stream", required=False)
@click.option("--to", metavar="DEST", help="Destination whose journal to show: the folder of a lake has its own.")
@click.option("--state", metavar="DIR", help="Folder of the journal; default: the lake's, else the user's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def status(stream: str | None, to: str | None, state: str | None, as_json: bool) -> int:
    """Say what is open, or all about one STREAM (its data_id, name or path).

    \b
    Example:
      rheed-ingest status 7c9e6679-7425-40de-944b-e07fc1f90ae7
    """  # noqa: D301 - \b is click's
    folder = _folder(to, state)
    with _journal(folder) as journal:
        rows = _to(journal.streams(), to)
        if stream is None:
            return _overview(
                rows, _known(journal, [row for row in rows if row.state not in ENDED], folder), as_json=as_json
            )
        chosen = [row for row in rows if stream in (row.data_id, row.key, row.name, row.path)]
        if not chosen:
            raise SettingsError(f"the journal knows no stream {stream!r}", hint="`rheed-ingest streams` lists them")
        known = _known(journal, chosen, folder)
        details = [_document(one) | _proof(journal, one) for one in known]
    if as_json:
        click.echo(json.dumps({"streams": details}, indent=2))
        return OK
    for one, detail in zip(known, details, strict=True):
        click.echo(_line(one))
        for line in _proof_lines(one, detail):
            click.echo(line)
    return OK


def _overview(rows: Sequence[StreamRow], unfinished: Sequence[_Known], *, as_json: bool) -> int:
    counts: dict[str, int] = {}
    for row in rows:
        counts[str(row.state)] = counts.get(str(row.state), 0) + 1
    if as_json:
        click.echo(json.dumps({"counts": counts, "open": [_document(one) for one in unfinished]}, indent=2))
        return OK
    click.echo(", ".join(f"{count} {state}" for state, count in counts.items()) or "no streams yet")
    for one in unfinished:
        click.echo(_line(one))
    return OK
