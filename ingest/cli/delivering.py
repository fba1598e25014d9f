"""Emptying the spool of an endpoint and key, as seen from the command line."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from actors.live_setup import LiveOptions, LiveSetup
from actors.spool_delivery import DeliveryProgress, LeftStream, SpoolDelivery, anything_waits, deliver_spool
from ingest.cli.spooled import text_of_size
from ingest.destinations import NULL_URL, is_lake
from ingest.errors import AuthenticationError
from ingest.telemetry import Secret
from ingest.wire.session import check_endpoint, check_key

__all__ = ["deliver_leftovers", "deliver_waiting", "delivery_document", "delivery_lines", "setup_of"]

LINE_EVERY_S = 5.0
LEFTOVERS_FOR_S = 30.0
SCAN_S = 0.5
CALL_FOR_S = 5.0


def setup_of(
    destination: str, key: Secret | None, state: Path, retry_for_s: float, spools: Path | None = None
) -> LiveSetup:
    """Return what a delivery is made from.

    Parameters
    ----------
    destination : str
        Canonical URL of a platform or a lake.
    key : Secret or None
        The one that the streamer had; a lake needs none.
    state, spools : Path
        Folders of the journal and of all spools, which is in the first by default.
    retry_for_s : float
        How long the delivery will go on without success; a call must have failed before, to say why.

    Raises
    ------
    SettingsError
        `destination` is neither.
    AuthenticationError
        No key, or one that cannot be.
    """
    if is_lake(destination):
        key = None
    else:
        destination = check_endpoint(destination)
        if key is None:
            raise AuthenticationError(
                f"{destination} needs an API key: the one that the streamer had",
                hint="set AS_API_KEY, or pass --api-key-file",
            )
        check_key(key)
    drain_retry = replace(LiveOptions().drain_retry, retry_for_s=min(CALL_FOR_S, retry_for_s / 2))
    options = LiveOptions(scan_s=SCAN_S, drain_retry=drain_retry)
    spool_dir = None if spools is None else str(spools)
    return LiveSetup(uuid.uuid4().hex[:12], destination, key, str(state), spool_dir, options)


def deliver_waiting(
    setup: LiveSetup, retry_for_s: float, stop: threading.Event, *, close_abandoned: bool = False
) -> SpoolDelivery:
    """Deliver what waits, saying on stderr how it goes; see `deliver_spool`."""
    lines = _Lines(setup.destination)
    with _log_unheard():
        return asyncio.run(
            deliver_spool(setup, retry_for_s=retry_for_s, close_abandoned=close_abandoned, watch=lines.show, stop=stop)
        )


def deliver_leftovers(destination: str, key: Secret | None, state: Path, stop: threading.Event) -> None:
    """Deliver what streamers left in the spool for the same destination and key; on stderr, and nothing is raised."""
    try:
        if destination == NULL_URL or (key is None and not is_lake(destination)):
            return
        setup = setup_of(destination, key, state, LEFTOVERS_FOR_S)
        if not anything_waits(setup):
            return
        delivery = deliver_waiting(setup, LEFTOVERS_FOR_S, stop)
        for line in delivery_lines(delivery):
            click.echo(f"spool: {line}", err=True)
    except Exception as exc:  # noqa: BLE001 - what others left behind must not end a backfill that is done
        click.echo(f"spool: what waits there was not delivered: {exc}", err=True)


@contextmanager
def _log_unheard() -> Iterator[None]:
    """Keep warnings from stderr where nobody configured logging: all that they say is said in the report."""
    logger, silent = logging.getLogger("rheed_ingest"), logging.NullHandler()
    logger.addHandler(silent)
    try:
        yield
    finally:
        logger.removeHandler(silent)


class _Lines:
    """A line when a delivery begins, one every few seconds, and one for each stall."""

    def __init__(self, destination: str) -> None:
        self._destination = destination
        self._last_s: float | None = None
        self._stalls: dict[str, str] = {}

    def show(self, progress: DeliveryProgress) -> None:
        """Say how far it is."""
        now_s = time.monotonic()
        if self._last_s is None:
            if progress.waited:
                size = text_of_size(progress.waited_bytes)
                click.echo(f"spool: {progress.waited} chunk(s), {size}, wait for {self._destination}", err=True)
            self._last_s = now_s
        for data_id, reason in progress.stalls.items():
            if self._stalls.get(data_id) != reason:
                click.echo(f"spool: stream {data_id} stalls: {reason}", err=True)
        self._stalls = {**self._stalls, **progress.stalls}
        if now_s - self._last_s >= LINE_EVERY_S:
            self._last_s = now_s
            size = text_of_size(progress.n_bytes)
            click.echo(f"spool: {progress.chunks} of {progress.waited} chunk(s) delivered, {size}", err=True)


def delivery_document(delivery: SpoolDelivery, seconds: float) -> dict[str, Any]:
    """Return what became of a spool as JSON values."""
    return {
        "delivered": {"chunks": delivery.chunks, "bytes": delivery.n_bytes},
        "closed": list(delivery.closed),
        "lost": [{"data_id": data_id, "index": index, "reason": reason} for data_id, index, reason in delivery.lost],
        "remaining": [
            {
                "key": left.key,
                "data_id": left.data_id,
                "name": left.name,
                "chunks": left.chunks,
                "bytes": left.n_bytes,
                "reason": left.reason,
            }
            for left in delivery.left
        ],
        "abandoned": list(delivery.abandoned),
        "seconds": round(seconds, 3),
    }


def delivery_lines(delivery: SpoolDelivery, whom: str = "this endpoint and key") -> list[str]:
    """Return the same for people; `whom` it was for."""
    if not (delivery.chunks or delivery.closed or delivery.lost or delivery.left):
        return [f"nothing waits for {whom}"]
    out = [f"delivered {delivery.chunks} chunk(s), {text_of_size(delivery.n_bytes)}"]
    out += [f"closed stream {data_id}" for data_id in delivery.closed]
    out += [
        f"chunk {index} of stream {data_id} is lost, and set aside: {reason}"
        for data_id, index, reason in delivery.lost
    ]
    return out + [_left_line(left) for left in delivery.left]


def _left_line(left: LeftStream) -> str:
    name = f" {left.name!r}" if left.name else ""
    what = f"{left.chunks} chunk(s), {text_of_size(left.n_bytes)}, remain" if left.chunks else "not closed"
    return f"stream {left.data_id or left.key}{name}: {what}: {left.reason}"
