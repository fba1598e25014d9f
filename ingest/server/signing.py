"""Upload URLs: each carries the chunk metadata it was issued for, and a signature that binds them."""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode

from ingest.server.messages import ChunkInfo
from ingest.server.problems import ApiError
from ingest.telemetry import Secret

__all__ = ["Grant", "Signer", "load_secret"]


@dataclass(frozen=True, slots=True)
class Grant:
    """The right to PUT one chunk, with the metadata that counts if this PUT is the last."""

    data_id: str
    index: int
    upload_id: str
    info: ChunkInfo


class Signer:
    """Makes and checks upload URLs with HMAC-SHA256.

    Parameters
    ----------
    secret : Secret
        The key; whoever has it can upload.
    """

    def __init__(self, secret: Secret) -> None:
        self._secret = secret

    def _signature(self, path: str, expires: str, upload_id: str, metadata: str) -> str:
        message = "\n".join(("PUT", path, expires, upload_id, metadata))
        return hmac.new(self._secret.reveal().encode(), message.encode(), hashlib.sha256).hexdigest()

    def issue(self, data_id: str, index: int, info: ChunkInfo, expires_unix_s: float) -> tuple[str, str]:
        """Return the path with query of a new upload URL, and its upload id."""
        path, upload_id, expires = _path(data_id, index), secrets.token_hex(16), str(math.ceil(expires_unix_s))
        metadata = base64.urlsafe_b64encode(info.dumps().encode()).decode()
        query = {
            "expires": expires,
            "upload_id": upload_id,
            "metadata": metadata,
            "signature": self._signature(path, expires, upload_id, metadata),
        }
        return f"{path}?{urlencode(query)}", upload_id

    def check(self, data_id: str, index: str, query: Mapping[str, str], now_unix_s: float) -> Grant:
        """Return what a URL grants.

        Raises
        ------
        ApiError
            403: not signed by us, changed since, or expired.
        """
        expires, upload_id, metadata = (query.get(name, "") for name in ("expires", "upload_id", "metadata"))
        expected = self._signature(f"/uploads/{data_id}/{index}", expires, upload_id, metadata)
        if not hmac.compare_digest(expected.encode(), query.get("signature", "").encode()):
            raise ApiError("the upload URL's signature does not match it", status=403)
        if now_unix_s >= int(expires):
            raise ApiError("the upload URL has expired; ask for a new one", status=403)
        info = ChunkInfo.loads(base64.urlsafe_b64decode(metadata).decode())
        return Grant(data_id, int(index), upload_id, info)


def _path(data_id: str, index: int) -> str:
    return f"/uploads/{data_id}/{index}"


def load_secret(path: Path) -> Secret:
    """Return the signing secret kept in `path`, making a random one (mode 0600) the first time."""
    try:
        return Secret(path.read_text(encoding="ascii"))
    except FileNotFoundError:
        pass
    # Written beside and moved: a crash must not leave an empty secret, which anyone could sign with.
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return Secret(path.read_text(encoding="ascii"))
