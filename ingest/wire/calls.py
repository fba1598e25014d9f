"""What the calls of all kinds of streams share: the connections, how answers are read, and the patience of a close."""

from __future__ import annotations

from typing import Any

from ingest.errors import SettingsError
from ingest.wire.failures import AttemptFailedError, Purpose, garbled, parse_json
from ingest.wire.session import ApiCall, Session
from ingest.wire.upload import quoted_id

__all__ = ["CLOSE_FOR_S", "Calls", "close_stream", "key_header", "read_data_id", "read_object", "read_objects"]

CLOSE_FOR_S = 180.0
"""Least seconds that a close answered by 503 is tried: the stream's first analysis still runs."""


class Calls:
    """Some of a client's calls, over the session that all of them share."""

    _session: Session


def read_data_id(body: Any) -> str:
    """Return the ``data_id`` that an answer is."""
    if not isinstance(body, str):
        raise garbled("a JSON string: the data_id", body)
    try:
        quoted_id(body)
    except SettingsError as exc:
        raise garbled("a data_id", body) from exc
    return body


def read_object(body: Any) -> dict[str, Any]:
    """Return the object that an answer is."""
    if not isinstance(body, dict):
        raise garbled("an object", body)
    return body


def read_objects(body: Any) -> list[dict[str, Any]]:
    """Return the list of objects that an answer is."""
    if not isinstance(body, list) or not all(isinstance(item, dict) for item in body):
        raise garbled("a list of objects", body)
    return body


def key_header(idempotency_key: str) -> dict[str, str]:
    """Return the header that makes a create repeatable.

    Raises
    ------
    SettingsError
        A key that no header carries.
    """
    if not (idempotency_key and idempotency_key.isascii() and idempotency_key.isprintable()):
        raise SettingsError(f"the idempotency key {idempotency_key!r} is not printable ASCII")
    return {"Idempotency-Key": idempotency_key}


async def close_stream(session: Session, path: str, data_id: str) -> dict[str, Any]:
    """Close a stream with a POST to `path`; return what the platform says of it, empty if that is no JSON object.

    A 503 is tried for `CLOSE_FOR_S` at least, whatever the policy's budget. When a try that got no answer is followed
    by a 409, that try had closed the stream: the result is then empty.

    Raises
    ------
    StreamGoneError
        There is no such stream, or it was closed or failed before.
    """
    call = ApiCall("POST", path)
    purpose = Purpose(f"close stream {data_id}", data_id, gone=True)
    may_be_closed = False

    async def attempt() -> dict[str, Any]:
        nonlocal may_be_closed
        try:
            body = parse_json((await session.once(call)).content)
            return body if isinstance(body, dict) else {}
        except AttemptFailedError as exc:
            if exc.failure.status == 409 and may_be_closed:
                return {}
            may_be_closed = may_be_closed or exc.failure.may_have_happened
            raise

    answer, _ = await session.persist(purpose, attempt, busy_for_s=CLOSE_FOR_S)
    session.telemetry.emit("stream_closed", data_id)
    return answer
