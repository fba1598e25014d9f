"""Sources that are named by URLs, and what of a URL may be shown. Pure."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ingest.errors import SettingsError

__all__ = ["check_url", "is_url", "redacted", "redacted_text"]

_URL = re.compile(r"(?!file:)[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"(?<![a-z0-9+.-])[a-z][a-z0-9+.-]*://[^\s'\"<>)\]}]+", re.IGNORECASE)


def is_url(path: str) -> bool:
    """Return whether a source is on the network; ``file://`` names a local path."""
    return _URL.match(path) is not None


def redacted(path: str) -> str:
    """Return a URL without query, fragment, user and password, fit for logs and messages; a local path as it is."""
    if not is_url(path):
        return path
    scheme, _, rest = re.split(r"[?#]", path, maxsplit=1)[0].partition("://")
    host, slash, place = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{place}"


def redacted_text(text: str) -> str:
    """Return a text with every URL in it redacted."""
    return _URL_IN_TEXT.sub(lambda match: redacted(match[0]), text)


def check_url(url: str) -> None:
    """Refuse a URL that holds a password.

    Raises
    ------
    SettingsError
        It would be written into manifests and journals.
    """
    if urlsplit(url).password is not None:
        raise SettingsError(
            f"{redacted(url)}: a URL must not hold a password or a secret key",
            hint="for S3 set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE",
        )
