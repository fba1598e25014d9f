"""Where what the network and the platform say becomes ours: failures of attempts, and the errors that end them."""

from __future__ import annotations

import email.utils
import json
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ingest.errors import AuthenticationError, DestinationError, RefusedError, StreamGoneError, UnreachableError
from ingest.retry import Failure, FailureKind, is_final

__all__ = [
    "AttemptFailedError",
    "Purpose",
    "answer_text",
    "error_of",
    "garbled",
    "parse_json",
    "redact",
    "retry_after_s",
]

MAX_ERROR_BYTES = 65_536
MAX_TEXT_CHARS = 500
MAX_GOT_CHARS = 120
MAX_RETRY_AFTER_S = 86_400.0

_QUERY = re.compile(r"(https?://[^\s\"'<>?]*)\?[^\s\"'<>]*")
_SIGNED = re.compile(r"(?i)((?:x-amz-[a-z-]+|awsaccesskeyid|signature|credential|token|sig|key)=)[^&\s\"'<>]+")
_S3_PART = re.compile(r"<(Code|Message)>(.*?)</\1>", re.DOTALL)


class AttemptFailedError(Exception):
    """One attempt failed; never leaves `ingest.wire`, where it is tried again or becomes an error of ours.

    Attributes
    ----------
    failure : Failure
        How.
    body : Any
        The answer's JSON; None: it had none.
    """

    def __init__(self, failure: Failure, body: Any = None) -> None:
        super().__init__(str(failure))
        self.failure = failure
        self.body = body


@dataclass(frozen=True, slots=True)
class Purpose:
    """What a call is for, as messages and events tell it.

    Attributes
    ----------
    asked : str
        An infinitive: ``"put chunk 3 of stream ..."``.
    data_id : str
        The stream it is about; empty: none yet.
    index : int or None
        The chunk it is about.
    gone : bool
        Whether 404 and 409 mean that the stream takes nothing more.
    """

    asked: str
    data_id: str = ""
    index: int | None = None
    gone: bool = False


def redact(text: str, *secrets: str) -> str:
    """Return `text` without the given secrets, without queries of URLs and without values of signed parameters."""
    for secret in secrets:
        if secret:
            text = text.replace(secret, "***")
    return _SIGNED.sub(r"\1***", _QUERY.sub(r"\1", text))


def answer_text(content: bytes, *secrets: str) -> str:
    """Return what an error's body says to people: 500 characters at most, on one line, redacted.

    Of JSON with a plain ``detail``, that. S3's XML also holds what was signed and by whom: only its code and message
    are kept.
    """
    content = content[:MAX_ERROR_BYTES]
    text = content.decode("utf-8", "replace")
    with suppress(AttemptFailedError):
        body = parse_json(content)
        if isinstance(body, dict) and isinstance(body.get("detail"), str):
            text = body["detail"]
    if "<Code>" in text:
        text = ": ".join(part for _, part in _S3_PART.findall(text))
    return redact(" ".join(text.split()), *secrets)[:MAX_TEXT_CHARS]


def retry_after_s(headers: Mapping[str, str], now_s: float) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, given as such or as an HTTP date; None: it asks for none.

    Parameters
    ----------
    headers : mapping
        The answer's, case-insensitive.
    now_s : float
        Unix time, which a date is compared with.
    """
    value = headers.get("retry-after", "").strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", value):
        return min(float(value), MAX_RETRY_AFTER_S)
    try:
        date = email.utils.parsedate_to_datetime(value)
        wait_s = date.timestamp() - now_s
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(wait_s, 0.0), MAX_RETRY_AFTER_S)


def garbled(expected: str, got: object) -> AttemptFailedError:
    """Return the failure of a 2xx whose body is not `expected`."""
    said = redact(repr(got))[:MAX_GOT_CHARS]
    return AttemptFailedError(Failure(FailureKind.GARBLED, detail=f"expected {expected}, got {said}"))


def parse_json(content: bytes) -> Any:
    """Return what the JSON in `content` says; raise `AttemptFailedError` where it is none."""
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as exc:
        raise garbled("JSON", content[:MAX_GOT_CHARS].decode("utf-8", "replace")) from exc


def error_of(purpose: Purpose, endpoint: str, failure: Failure, attempts: int, elapsed_s: float) -> DestinationError:
    """Return the error that ends the attempts: a final answer by its status, else `UnreachableError`."""
    if not is_final(failure):
        tried = f"{attempts} attempts in {elapsed_s:.0f} s" if attempts > 1 else "1 attempt"
        return UnreachableError(
            f"could not {purpose.asked} at {endpoint}: {tried}, the last one: {failure}",
            hint="check the endpoint and the network, then run again",
        )
    said = f"could not {purpose.asked}: {endpoint} answered {failure.status}: {failure.detail or 'without a text'}"
    if failure.status in (401, 403):
        return AuthenticationError(
            said, status=failure.status, hint="pass an API key of this platform that may do this, in AS_API_KEY"
        )
    if purpose.gone and failure.status in (404, 409):
        return StreamGoneError(said, status=failure.status, hint="start the run again: it needs a new stream")
    elsewhere = failure.status in (301, 302, 307, 308, 405) or (failure.status == 404 and not purpose.data_id)
    hint = "check the endpoint's URL" if elsewhere else None
    return RefusedError(said, status=failure.status, hint=hint)
