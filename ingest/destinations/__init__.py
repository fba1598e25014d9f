"""Where streams go: a platform over HTTP, or nowhere."""

from __future__ import annotations

from typing import get_args

import httpx

from ingest.destinations.base import (
    Destination,
    Linkable,
    MissingNames,
    ResolvedLinks,
    StreamMaker,
    link_or_close,
    open_and_link,
)
from ingest.destinations.null import NullDestination
from ingest.destinations.platform import PlatformDestination
from ingest.destinations.timeseries import PlatformTimeseries
from ingest.errors import AuthenticationError, SettingsError
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret, Telemetry, redact_url
from ingest.timeseries import ApiGeneration
from ingest.wire.client import PlatformClient

NULL_URL = "null:"

__all__ = [
    "NULL_URL",
    "Destination",
    "Linkable",
    "MissingNames",
    "NullDestination",
    "PlatformDestination",
    "PlatformTimeseries",
    "ResolvedLinks",
    "StreamMaker",
    "link_or_close",
    "open_and_link",
    "open_destination",
    "open_timeseries",
]


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
        ``http(s)://...``: a platform; ``null:``: counts and forgets.
    api_key : Secret, optional
        A platform needs one.
    retry, transport, telemetry, max_connections
        As for `PlatformClient`.

    Raises
    ------
    SettingsError
        A URL of another kind.
    AuthenticationError
        A platform without a key.
    """
    if url == NULL_URL:
        return NullDestination()
    if not url.lower().startswith(("http://", "https://")):
        raise SettingsError(
            f"{_shown(url)!r} is no destination: it is neither http(s)://... nor null:; lakes come in a later version",
            hint="pass the URL of a platform, such as https://api.atomscale.ai",
        )
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
) -> PlatformTimeseries:
    """Return the destination of time series that `url` means; nothing is connected yet.

    Parameters
    ----------
    url : str
        ``http(s)://...``: a platform.
    api_key : Secret, optional
        It needs one.
    generation : {"tool-state", "metrology"}
        Of the platform's paths.
    retry, transport, telemetry, max_connections
        As for `PlatformClient`.

    Raises
    ------
    SettingsError
        A URL or a generation of another kind.
    AuthenticationError
        No key.
    """
    if not url.lower().startswith(("http://", "https://")):
        raise SettingsError(
            f"{_shown(url)!r} takes no time series: only a platform at http(s)://... does",
            hint="pass the URL of a platform, such as https://api.atomscale.ai",
        )
    if generation not in get_args(ApiGeneration):
        raise SettingsError(f"{generation!r} is no generation of the platform's paths: {get_args(ApiGeneration)}")
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
