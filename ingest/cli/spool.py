"""``rheed-ingest spool``: what live streamers of this machine left on disk, and getting it out of there."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.exits import INTERRUPTED, OK, PARTIAL
from ingest.cli.options import api_key, canonical_destination, state_dir
from ingest.errors import IllegalEventError, LeaseHeldError, SettingsError, SpoolError

if TYPE_CHECKING:
    from ingest.cli.spooled import SpooledStream
    from ingest.journal import Journal
    from ingest.ledger import ChunkLost

__all__ = ["spool"]

DISCARD_LEASE_S = 60.0
CANDIDATES_SHOWN = 8

_state_option = click.option("--state", metavar="DIR", help="Folder of the journal; default: the user's state folder.")
_spool_option = click.option("--spool-dir", metavar="DIR", help="Folder of the spools; default: in the state folder.")


@dataclass(frozen=True)
class _Place:
    """The journal, opened, and the folder of the spools."""

    journal: Journal
    spools: Path

    def streams(self) -> list[SpooledStream]:
        from ingest.cli.spooled import spooled_streams

        return spooled_streams(self.journal, self.spools, time.time())


def _spools(state: Path, spool_dir: str | None) -> Path:
    return state / "spool" if spool_dir is None else Path(spool_dir).expanduser()


@contextmanager
def _opened(state: str | None, spool_dir: str | None) -> Iterator[_Place]:
    from ingest.journal import Journal

    folder = state_dir(state)
    journal = Journal(folder, time.time)
    try:
        yield _Place(journal, _spools(folder, spool_dir))
    finally:
        journal.close()


@click.group()
def spool() -> None:
    """List, deliver or discard what live streamers of this machine left on disk."""


# -- list --------------------------------------------------------------------------------------------------------------


@spool.command("list", short_help="Say what waits on disk, and why.")
@_state_option
@_spool_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def list_(state: str | None, spool_dir: str | None, as_json: bool) -> int:
    """Say what waits on disk, of which stream, for whom, and why it is still there. Needs no key."""
    with _opened(state, spool_dir) as place:
        streams = place.streams()
        total = _total(place.spools)
    if as_json:
        click.echo(json.dumps({"streams": [_document(stream) for stream in streams], "total": total}, indent=2))
    else:
        click.echo("\n".join([line for stream in streams for line in _lines(stream)] + [_total_line(total)]))
    return OK


def _total(spools: Path) -> dict[str, Any]:
    from ingest.cli.spooled import spools_in
    from ingest.spool import Spool

    usages = [found.usage() for found in spools_in(spools)]
    disk = Spool(spools, "").usage()
    n_bytes = sum(usage.n_bytes for usage in usages)
    return {
        "folder": str(spools),
        "chunks": sum(usage.chunks for usage in usages),
        "bytes": n_bytes,
        "damaged": sum(usage.damaged for usage in usages),
        "refused": sum(usage.refused for usage in usages),
        # Each endpoint and key has a cap of its own, of half the disk that is free or the spool's, unless its streamer
        # was given another.
        "max_bytes": max((usage.max_bytes for usage in usages), default=disk.max_bytes),
        "free_bytes": disk.free_bytes,
    }


def _document(stream: SpooledStream) -> dict[str, Any]:
    age_s = None if stream.oldest_unix_s is None else round(max(time.time() - stream.oldest_unix_s, 0.0), 1)
    return {
        "key": stream.key,
        "data_id": stream.data_id,
        "name": stream.name,
        "kind": stream.kind,
        "destination": stream.destination,
        "account": stream.account,
        "state": stream.state,
        "sealed": stream.is_sealed,
        "gone_reason": stream.gone_reason,
        "chunks": stream.chunks,
        "bytes": stream.n_bytes,
        "oldest_age_s": age_s,
        "damaged": stream.damaged,
        "refused": stream.refused,
        "lease_holder": stream.lease_holder,
        "folder": str(stream.folder),
    }


def _lines(stream: SpooledStream) -> list[str]:
    from ingest.cli.spooled import text_of_age, text_of_size

    oldest = ""
    if stream.oldest_unix_s is not None:
        oldest = f", oldest {text_of_age(time.time() - stream.oldest_unix_s)}"
    waiting = f"{stream.chunks} chunk(s), {text_of_size(stream.n_bytes)}{oldest}"
    line = (
        f"{stream.state:<9}{stream.data_id or stream.key:<38}{stream.kind or '-':<11}{waiting}  "
        f"{stream.name or '-'} -> {stream.destination or '-'}"
    )
    return [line, *(f"         {remark}" for remark in _remarks(stream))]


def _remarks(stream: SpooledStream) -> Iterator[str]:
    if stream.state == "unknown":
        yield f"the journal does not know it; this is what its files say: {stream.folder}"
    elif stream.state == "gone":
        yield f"the platform takes nothing more: {stream.gone_reason}"
    elif stream.is_sealed:
        yield "sealed: it is closed once all of it has arrived"
    if stream.damaged:
        yield f"{stream.damaged} damaged, set aside: not what was written"
    if stream.refused:
        yield f"{stream.refused} refused by the platform, set aside"
    if stream.lease_holder is not None:
        yield f"session {stream.lease_holder} has it, and delivers it"


def _total_line(total: dict[str, Any]) -> str:
    from ingest.cli.spooled import text_of_size

    cap, free = text_of_size(total["max_bytes"]), text_of_size(total["free_bytes"])
    if not total["bytes"]:
        return f"nothing in {total['folder']} (cap {cap}, {free} of the disk free)"
    aside = total["damaged"] + total["refused"]
    more = f" and {aside} set aside" if aside else ""
    return (
        f"{total['chunks']} chunk(s) waiting{more}, {text_of_size(total['bytes'])} of disk in {total['folder']} "
        f"(cap {cap}, {free} of the disk free)"
    )


# -- deliver -----------------------------------------------------------------------------------------------------------


@spool.command(short_help="Deliver what waits, and close what is sealed.")
@click.option("--to", metavar="URL", help="Endpoint, or a lake's folder or URL; default AS_API_ENDPOINT.")
@click.option("--state", metavar="DIR", help="Folder of the journal; default: the lake's, else the user's.")
@_spool_option
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with the API key; default: AS_API_KEY.")
@click.option(
    "--retry-for", metavar="TIME", default="15m", show_default=True, help="Give up when nothing arrived for so long."
)
@click.option("--close-abandoned", is_flag=True, help="Also close streams whose streamer is gone, with what there is.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def deliver(
    to: str | None,
    state: str | None,
    spool_dir: str | None,
    api_key_file: Path | None,
    retry_for: str,
    close_abandoned: bool,
    as_json: bool,
) -> int:
    """Deliver what waits for an endpoint and key, or for a lake, and close the streams that are sealed.

    The key must be the one that the streamer had; a lake needs none. What a live session has is left to it.

    \b
    Example:
      rheed-ingest spool deliver --to https://api.atomscale.ai
      rheed-ingest spool deliver --to /data/lake --close-abandoned
    """  # noqa: D301 - \b is click's
    from ingest.cli.delivering import deliver_waiting, delivery_document, delivery_lines, setup_of
    from ingest.cli.stopping import stop_on_signals
    from ingest.config import parse_duration_s

    destination = canonical_destination(to)
    folder = state_dir(state, [destination])
    retry_for_s = parse_duration_s(retry_for)
    spools = None if spool_dir is None else _spools(folder, spool_dir)
    setup = setup_of(destination, api_key(api_key_file), folder, retry_for_s, spools)
    began_s = time.monotonic()
    with stop_on_signals("leaving off; what is not delivered stays in the spool") as stop:
        delivery = deliver_waiting(setup, retry_for_s, stop, close_abandoned=close_abandoned)
    if as_json:
        click.echo(json.dumps(delivery_document(delivery, time.monotonic() - began_s), indent=2))
    else:
        whom = "this lake" if setup.is_lake else "this endpoint and key"
        click.echo("\n".join(delivery_lines(delivery, whom)))
    if setup.is_lake and delivery.abandoned:  # a platform ends streams that are silent by itself
        click.echo(
            f"{len(delivery.abandoned)} stream(s) are open, and nobody has them: {', '.join(delivery.abandoned)}; if "
            "their streamers are gone, --close-abandoned makes them readable",
            err=True,
        )
    if delivery.is_complete:
        if not (delivery.chunks or delivery.closed or setup.is_lake):
            _say_of_other_keys(state, spool_dir, setup.destination, setup.account)
        return OK
    return INTERRUPTED if stop.is_set() else PARTIAL


def _say_of_other_keys(state: str | None, spool_dir: str | None, destination: str, account: str) -> None:
    with _opened(state, spool_dir) as place:
        others = [s for s in place.streams() if s.destination == destination and s.account != account and s.chunks]
    if others:
        chunks = sum(stream.chunks for stream in others)
        click.echo(
            f"{chunks} chunk(s) wait for {destination} with another key; see `rheed-ingest spool list`", err=True
        )


# -- discard -----------------------------------------------------------------------------------------------------------


@spool.command(short_help="Remove what waits of one stream, for ever.")
@click.argument("stream")
@_state_option
@_spool_option
@click.option("--yes", is_flag=True, help="Really: these chunks may be nowhere else.")
def discard(stream: str, state: str | None, spool_dir: str | None, yes: bool) -> int:
    """Remove what waits of one STREAM (its data_id, name or key), for ever.

    Where the stream is still open, the chunks are journalled as lost, so that its close reports them.
    """
    from ingest.cli.spooled import text_of_size

    with _opened(state, spool_dir) as place:
        chosen = _chosen(stream, place.streams())
        _refuse_held(chosen)
        what = _contents(chosen)
        if not yes:
            raise SettingsError(
                f"{chosen.text}: {what} would be lost for ever", hint="pass --yes to discard it all the same"
            )
        lost = _journal_losses(place.journal, chosen)
        chunks, n_bytes = chosen.spool.discard(chosen.key)
    click.echo(f"discarded {chunks} chunk(s), {text_of_size(n_bytes)} of disk, of {chosen.text}")
    for loss in lost:
        click.echo(f"  {loss.reason}")
    if lost and chosen.is_sealed:
        click.echo("the stream is sealed: the next `rheed-ingest spool deliver` closes it, with these losses")
    return OK


def _chosen(asked: str, streams: Sequence[SpooledStream]) -> SpooledStream:
    found = [stream for stream in streams if asked in (stream.key, stream.data_id, stream.name)]
    if len(found) == 1:
        return found[0]
    shown = "; ".join(f"{s.key} ({s.data_id or '-'}, {s.name or '-'})" for s in (found or streams)[:CANDIDATES_SHOWN])
    more = f"; and {len(found or streams) - CANDIDATES_SHOWN} more" if len(found or streams) > CANDIDATES_SHOWN else ""
    if found:
        raise SettingsError(f"{asked!r} is {len(found)} streams: {shown}{more}", hint="pass the key of one of them")
    there = f"there are {shown}{more}" if streams else "it is empty"
    raise SettingsError(f"nothing of {asked!r} is in the spool: {there}", hint="`rheed-ingest spool list` shows it")


def _refuse_held(stream: SpooledStream) -> None:
    if stream.lease_holder is not None:
        raise LeaseHeldError(
            f"{stream.text} is not discarded: session {stream.lease_holder} has it, and delivers it (its lease ends in "
            f"{stream.lease_until_s - time.time():.0f} s unless renewed)",
            hint="end that session; then run the same command again",
            until_s=stream.lease_until_s,
        )


def _contents(stream: SpooledStream) -> str:
    from ingest.cli.spooled import text_of_size

    aside = stream.damaged + stream.refused
    more = f", and {aside} set aside" if aside else ""
    return f"{stream.chunks} chunk(s), {text_of_size(stream.n_bytes)}{more}"


def _journal_losses(journal: Journal, stream: SpooledStream) -> list[ChunkLost]:
    """Have the journal count the chunks of an open stream as lost; return those that are."""
    if stream.state != "open":
        return []
    epoch = journal.lease(stream.key, f"discard-{uuid.uuid4().hex[:6]}", DISCARD_LEASE_S)
    try:
        ledger = journal.load(stream.key)
        losses = [loss for loss in _losses(stream) if _is_loss(ledger.is_news, loss)]
        journal.record(stream.key, epoch, losses)
        return losses
    finally:
        journal.release(stream.key, epoch)


def _losses(stream: SpooledStream) -> list[ChunkLost]:
    from ingest.ledger import ChunkLost

    losses = {}
    for entry in stream.spool.entries(stream.key):
        name = f"chunk {entry.index}"
        with suppress(SpoolError):
            name = stream.spool.label(entry).text
        losses[entry.index] = ChunkLost(entry.index, f"{name}: discarded from the spool, as a user asked")
    return [loss for _, loss in sorted(losses.items())]


def _is_loss(is_news: Any, loss: ChunkLost) -> bool:
    """Whether it is one: not of a chunk that is confirmed, and sent again just in case."""
    try:
        return bool(is_news(loss))
    except IllegalEventError:
        return False
