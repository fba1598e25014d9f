"""Where streams go: a platform over HTTP, a lake on any store, or nowhere."""

from __future__ import annotations

from typing import get_args

import httpx

from ingest.destinations.base import (
    Destination,
    Linkable,
    MissingNames,
    ResolvedLinks,
    StreamMaker,
    TimeseriesDestination,
    link_or_close,
    open_and_link,
)
from ingest.destinations.lake import LakeDestination
from ingest.destinations.lake_timeseries import LakeTimeseries
from ingest.destinations.null import NullDestination
from ingest.destinations.platform import PlatformDestination
from ingest.destinations.timeseries import PlatformTimeseries
from ingest.errors import AuthenticationError, SettingsError
from ingest.lake.opening import open_store
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret, Telemetry, redact_url
from ingest.timeseries import ApiGeneration
from ingest.wire.client import PlatformClient

NULL_URL = "null:"

__all__ = [
    "NULL_URL",
    "Destination",
    "LakeDestination",
    "LakeTimeseries",
    "Linkable",
    "MissingNames",
    "NullDestination",
    "PlatformDestination",
    "PlatformTimeseries",
    "ResolvedLinks",
    "StreamMaker",
    "TimeseriesDestination",
    "is_lake",
    "link_or_close",
    "open_and_link",
    "open_destination",
    "open_timeseries",
]


def is_lake(url: str) -> bool:
    """Return whether a destination is a lake: neither a platform at http(s) nor ``null:``."""
    return url != NULL_URL and not url.lower().startswith(("http://", "https://"))


def open_destination(
    url: str,
    api_key: Secret | None = None,
    *,
    retry: RetryPolicy | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    telemetry: Telemetry | None = None,
    max_connections: int = 8,
) -> Destination:
    """Return the destination that `url` means; nothing is connected yet.

    Parameters
    ----------
    url : str
        ``http(s)://...``: a platform; ``null:``: counts and forgets; anything else is a lake: a folder, or a URL that
        fsspec knows.
    api_key : Secret, optional
        A platform needs one.
    retry, transport, telemetry, max_connections
        As for `PlatformClient`.

    Raises
    ------
    SettingsError
        A lake that cannot be: its URL has a password or a query, or nothing is installed for it.
    AuthenticationError
        A platform without a key.
    """
    if url == NULL_URL:
        return NullDestination()
    if is_lake(url):
        return LakeDestination(open_store(url, retry=retry, max_connections=max_connections), max_connections)
    return PlatformDestination(_client(url, api_key, retry, transport, telemetry, max_connections))


def open_timeseries(
    url: str,
    api_key: Secret | None = None,
    *,
    generation: ApiGeneration = "tool-state",
    retry: RetryPolicy | None = None,
    transport: httpx.AsyncBaseTransport | None = None,
    telemetry: Telemetry | None = None,
    max_connections: int = 8,
) -> TimeseriesDestination:
    """Return the destination of time series that `url` means; nothing is connected yet.

    Parameters
    ----------
    url : str
        As for `open_destination`, but ``null:``.
    api_key : Secret, optional
        A platform needs one.
    generation : {"tool-state", "metrology"}
        Of the platform's paths.
    retry, transport, telemetry, max_connections
        As for `PlatformClient`.

    Raises
    ------
    SettingsError
        A lake that cannot be, ``null:``, or a generation of another kind.
    AuthenticationError
        A platform without a key.
    """
    if url == NULL_URL:
        raise SettingsError(
            f"{url!r} takes no time series", hint="pass a platform, such as https://api.atomscale.ai, or a lake"
        )
    if generation not in get_args(ApiGeneration):
        raise SettingsError(f"{generation!r} is no generation of the platform's paths: {get_args(ApiGeneration)}")
    if is_lake(url):
        return LakeTimeseries(open_store(url, retry=retry, max_connections=max_connections), max_connections)
    return PlatformTimeseries(_client(url, api_key, retry, transport, telemetry, max_connections), generation)


def _client(
    url: str,
    api_key: Secret | None,
    retry: RetryPolicy | None,
    transport: httpx.AsyncBaseTransport | None,
    telemetry: Telemetry | None,
    max_connections: int,
) -> PlatformClient:
    if api_key is None:
        raise AuthenticationError(f"{_shown(url)} needs an API key", hint="set AS_API_KEY")
    return PlatformClient(
        url, api_key, retry=retry, transport=transport, telemetry=telemetry, max_connections=max_connections
    )


def _shown(url: str) -> str:
    try:
        return redact_url(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
