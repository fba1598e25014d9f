"""What a streamer's arguments say of its session: where to, with which key, and where journal and spool are."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from actors.arguments import as_number
from actors.live_setup import LiveOptions, LiveSetup
from actors.session import OBJECT_STORE_BYTES, SessionOptions
from ingest.destinations import is_lake
from ingest.errors import ArgumentTypeError, IngestError, SettingsError, StreamerError
from ingest.failover import FAILOVER_AFTER_S, FailoverOptions
from ingest.journal import default_state_dir
from ingest.lake.layout import STATE_FOLDER
from ingest.lake.opening import canonical_lake_url, open_store
from ingest.sources.urls import is_url
from ingest.spool import SpoolLimits
from ingest.telemetry import Secret
from ingest.wire.session import check_endpoint, check_key

__all__ = ["DEFAULT_ENDPOINT", "session_options"]

DEFAULT_ENDPOINT = "https://api.atomscale.ai"


def session_options(
    api_key: str | None,
    endpoint: str | None,
    destination: str | os.PathLike[str] | None = None,
    *,
    address: str | None,
    state_dir: str | os.PathLike[str] | None,
    spool_dir: str | os.PathLike[str] | None,
    spool_limits: SpoolLimits,
    object_store_bytes: int | None,
    options: LiveOptions | None,
    preallocate: bool,
    failover: str | os.PathLike[str] | None = None,
    failover_after_s: float = FAILOVER_AFTER_S,
) -> SessionOptions:
    """Return the options of a session from what a streamer was given.

    Raises
    ------
    ArgumentTypeError
        Key, endpoint, destination or failover are of another type.
    StreamerError
        They cannot be a key, an endpoint, a destination and a failover; endpoint and destination are both given.
    """
    to, key = _target(api_key, endpoint, destination)
    live = options or LiveOptions()
    if spool_limits != SpoolLimits():
        live = replace(live, spool_limits=spool_limits)
    state = None if state_dir is None else str(Path(state_dir).expanduser().absolute())
    if failover is not None:
        live = replace(live, failover=_failover(failover, failover_after_s, to, state))
    setup = LiveSetup(
        session_id="",
        destination=to,
        api_key=key,
        # Absolute: actors may have another working directory.
        state_dir=state or str(_state_of(to)),
        spool_dir=None if spool_dir is None else str(Path(spool_dir).expanduser().absolute()),
        options=live,
    )
    return SessionOptions(
        setup,
        address,
        OBJECT_STORE_BYTES if object_store_bytes is None else object_store_bytes,
        preallocate,
    )


def _target(
    api_key: str | None, endpoint: str | None, destination: str | os.PathLike[str] | None
) -> tuple[str, Secret | None]:
    """Return the canonical URL of where to, and a platform's key."""
    to = _url(destination, "destination")
    if to is not None and endpoint is not None:
        raise StreamerError(f"endpoint and destination are both given: {endpoint!r}, {to!r}", hint="pass one of them")
    try:
        if to is not None and is_lake(to):
            # A key that is passed all the same is not used: the spool's place must not depend on it.
            return _lake(to), None
        for name, value in (("api_key", api_key), ("endpoint", endpoint)):
            _check_text(name, value, optional=name == "endpoint")
        # Without the line's end that a key read from a file has: the spool's place depends on it.
        secret = Secret(check_key(Secret(api_key or "")))
        return check_endpoint(to or (DEFAULT_ENDPOINT if endpoint is None else endpoint)), secret
    except ArgumentTypeError:
        raise
    except IngestError as exc:
        raise StreamerError(str(exc), hint=exc.hint) from exc


def _check_text(name: str, value: Any, *, optional: bool) -> None:
    if isinstance(value, str) or (value is None and optional):
        return
    hint = 'pass a platform\'s key, or destination="/folder" or "s3://bucket/path" for a lake'
    raise ArgumentTypeError(f"{name} is a {type(value).__name__}, not a str", hint=hint if value is None else None)


def _url(value: str | os.PathLike[str] | None, name: str) -> str | None:
    if value is None:
        return None
    url = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(url, str):
        raise ArgumentTypeError(f"{name} is a {type(value).__name__}, not a str or a path")
    return url


def _failover(failover: str | os.PathLike[str], after_s: float, destination: str, state: str | None) -> FailoverOptions:
    url = _url(failover, "failover") or ""
    seconds = as_number(after_s, "failover_after_s")
    if not (math.isfinite(seconds) and seconds >= 0):
        raise StreamerError(f"failover_after_s is {seconds}", hint="pass seconds, such as 60")
    try:
        known = _lake(url)
    except IngestError as exc:
        raise StreamerError(f"failover: {exc}", hint=exc.hint) from exc
    if known == destination:
        raise StreamerError(
            f"failover {known} is the destination itself", hint="name a store that works while the destination does not"
        )
    return FailoverOptions(known, seconds, state=state)


def _lake(url: str) -> str:
    """Return a lake's canonical URL, once what writes to it is known to be there."""
    known = canonical_lake_url(url)
    if known.startswith("memory://"):
        raise SettingsError(
            f"{known} is the memory of one process, and a streamer's actors are several",
            hint="name a folder, or a URL such as s3://bucket/path",
        )
    open_store(known).close()
    return known


def _state_of(destination: str) -> Path:
    """Return where journal and spool are unless somebody says: of a lake in a folder, in it."""
    if is_lake(destination) and not is_url(destination):
        return Path(destination, STATE_FOLDER)
    return default_state_dir()
