"""What the embedded platform is told when it starts."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import SettingsError
from ingest.telemetry import Secret

__all__ = ["KEY_VARIABLE", "Clock", "ServerSettings", "load_keys", "new_key"]

KEY_VARIABLE = "AS_API_KEY"

Clock = Callable[[], float]

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one embedded platform.

    Attributes
    ----------
    data : Path or str
        Folder of the catalogue, the staged chunks and the sealed streams; made when it is not there. Or, as text, the
        URL of a store that clients upload their chunks to: ``s3://bucket/prefix``.
    state : Path or None
        Folder of the catalogue of data at a URL; None: one of its own below the user's state folder.
    api_keys : tuple of Secret
        Any of them opens the API.
    signing_secret : Secret or None
        Signs upload URLs; None: a random one, kept in the data folder (mode 0600).
    upload_url_ttl_s : float
        How long an upload URL is good for.
    silent_stream_s : float
        A stream that got nothing for so long has failed.
    max_shard_bytes : int
        Largest body of an upload.
    max_json_bytes : int
        Largest body of an API call.
    max_points_bytes : int
        Largest body of a call that brings points of time series.
    fsync : bool
        False: a crash of the machine may lose the last seconds; a crash of the process still loses nothing.
    patience_s : float
        How long a call to a store of the data is tried again, while a client waits for the answer. What is done in the
        background is begun again later.
    clock : callable
        Unix time in seconds.
    """

    data: Path | str
    api_keys: tuple[Secret, ...]
    state: Path | None = None
    signing_secret: Secret | None = None
    upload_url_ttl_s: float = 900.0
    silent_stream_s: float = 7200.0
    max_shard_bytes: int = 528 * MIB
    max_json_bytes: int = MIB
    max_points_bytes: int = 64 * MIB
    fsync: bool = True
    patience_s: float = 20.0
    clock: Clock = time.time

    def __post_init__(self) -> None:
        if not self.api_keys:
            raise SettingsError("the platform has no API key", hint=f"set {KEY_VARIABLE}")
        # Keys travel in a header, so what could never arrive there could never open anything.
        if any(not (key.reveal().isascii() and key.reveal().isprintable() and key.reveal()) for key in self.api_keys):
            raise SettingsError("an API key must be printable ASCII and not empty")
        for name in ("upload_url_ttl_s", "silent_stream_s", "max_shard_bytes", "max_json_bytes", "max_points_bytes"):
            if not getattr(self, name) > 0:
                raise SettingsError(f"{name} is {getattr(self, name)!r}; it must be more than 0")


def load_keys(environ: Mapping[str, str], key_file: Path | None = None) -> tuple[Secret, ...]:
    """Return the API keys, one a line, of `key_file` or else of the variable ``AS_API_KEY``.

    Returns
    -------
    tuple of Secret
        Empty when neither names any.

    Raises
    ------
    SettingsError
        `key_file` cannot be read, or has no key.
    """
    if key_file is None:
        text = environ.get(KEY_VARIABLE, "")
    else:
        try:
            text = key_file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"cannot read API keys from {key_file}: {exc}") from exc
    keys = tuple(Secret(line.strip()) for line in text.splitlines() if line.strip())
    if key_file is not None and not keys:
        raise SettingsError(f"{key_file} has no API key", hint="write one key a line")
    return keys


def new_key() -> Secret:
    """Return a new random API key."""
    return Secret(secrets.token_urlsafe(32))
