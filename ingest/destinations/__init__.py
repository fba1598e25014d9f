"""Where streams go: a platform over HTTP, or nowhere."""

from __future__ import annotations

import httpx

from ingest.destinations.base import Destination, MissingNames, ResolvedLinks, link_or_close, open_and_link
from ingest.destinations.null import NullDestination
from ingest.destinations.platform import PlatformDestination
from ingest.errors import AuthenticationError, SettingsError
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret, Telemetry, redact_url
from ingest.wire.client import PlatformClient

__all__ = [
    "Destination",
    "MissingNames",
    "NullDestination",
    "PlatformDestination",
    "ResolvedLinks",
    "link_or_close",
    "open_and_link",
    "open_destination",
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
    if url == "null:":
        return NullDestination()
    if not url.lower().startswith(("http://", "https://")):
        raise SettingsError(
            f"{_shown(url)!r} is no destination: it is neither http(s)://... nor null:; lakes come in a later version",
            hint="pass the URL of a platform, such as https://api.atomscale.ai",
        )
    if api_key is None:
        raise AuthenticationError(f"{_shown(url)} needs an API key", hint="set AS_API_KEY")
    client = PlatformClient(
        url, api_key, retry=retry, transport=transport, telemetry=telemetry, max_connections=max_connections
    )
    return PlatformDestination(client)


def _shown(url: str) -> str:
    try:
        return redact_url(url)
    except ValueError:
        return url.partition("?")[0].rpartition("@")[2]
