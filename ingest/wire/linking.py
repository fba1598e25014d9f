"""Samples and tags: which exist, which have to be made, and who else makes them at the same time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ingest.errors import SettingsError, UnknownNameError
from ingest.retry import FailureKind
from ingest.wire.failures import AttemptFailedError, Purpose, garbled, parse_json
from ingest.wire.session import ApiCall, Session

__all__ = ["Named", "find", "find_or_create_sample", "find_or_create_tags", "is_uuid", "list_named", "wanted_tags"]

SAMPLES_PATH = "/physical_samples/"
TAGS_PATH = "/tags/"

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Named:
    """A sample or a tag that the platform has."""

    id: str
    name: str


def is_uuid(text: str) -> bool:
    """Return whether `text` is a UUID in its usual form, and so an id and no name."""
    return _UUID.fullmatch(text) is not None


def wanted_tags(inputs: Iterable[str]) -> list[str]:
    """Return the inputs trimmed, without blanks, and without repeats whatever their case; the first spelling wins."""
    wanted: dict[str, str] = {}
    for text in map(str.strip, inputs):
        if text:
            wanted.setdefault(text.casefold(), text)
    return list(wanted.values())


def find(listed: Sequence[Named], wanted: str, kind: str) -> str | None:
    """Return the id of what is asked for; None: no such name yet.

    Parameters
    ----------
    listed : sequence of Named
        What the platform has.
    wanted : str
        A UUID or a name; a name matches trimmed and in any case, the exact spelling first.
    kind : str
        ``"physical sample"`` or ``"tag"``, for the message.

    Raises
    ------
    UnknownNameError
        A UUID that is not listed: nobody can create that one.
    """
    folded = wanted.strip().casefold()
    if is_uuid(wanted):
        for item in listed:
            if item.id.casefold() == folded:
                return item.id
        raise UnknownNameError(
            f"there is no {kind} {wanted}: it is not among the {len(listed)} that the platform lists for this key",
            hint=f"pass the {kind}'s name, which is created where it is missing, or an id that exists",
        )
    matches = [item for item in listed if item.name.strip().casefold() == folded]
    exact = [item for item in matches if item.name == wanted]
    return next((item.id for item in exact + matches), None)


def _read_named(body: Any) -> list[Named]:
    if not isinstance(body, list):
        raise garbled("a list of objects with id and name", body)
    named = []
    for item in body:
        if not isinstance(item, dict) or not isinstance(item.get("id"), str):
            raise garbled("an object with id and name", item)
        # A name may be null: such an item is found by its id only.
        named.append(Named(item["id"], item["name"] if isinstance(item.get("name"), str) else ""))
    return named


def _read_id(body: Any, *keys: str) -> str:
    for key in keys:
        if isinstance(body, dict) and isinstance(body.get(key), str) and body[key]:
            return str(body[key])
    raise garbled(f"an object with {' or '.join(keys)}", body)


async def list_named(session: Session, path: str) -> list[Named]:
    """Return what the platform lists at `path`; one attempt."""
    return _read_named(parse_json((await session.once(ApiCall("GET", path))).content))


async def find_or_create_sample(session: Session, wanted: str) -> str:
    """Return a sample's id, creating the sample if its name is not listed.

    Each attempt lists again before it creates, so that a create whose reply was lost is found instead of repeated.

    Raises
    ------
    SettingsError
        A blank name.
    UnknownNameError
        A UUID that is not listed.
    RefusedError, UnreachableError
        As `Session.persist`.
    """
    wanted = wanted.strip()
    if not wanted:
        raise SettingsError("the physical sample's name is blank", hint="leave it out, or pass a name or a UUID")

    async def attempt() -> str:
        found = find(await list_named(session, SAMPLES_PATH), wanted, "physical sample")
        return found if found is not None else await _create_sample(session, wanted)

    return (await session.persist(Purpose(f"find or create the physical sample {wanted!r}"), attempt))[0]


async def _create_sample(session: Session, name: str) -> str:
    try:
        answer = await session.once(ApiCall("POST", SAMPLES_PATH, {"name": name}))
    except AttemptFailedError as exc:
        if exc.failure.kind is not FailureKind.STATUS or exc.failure.status != 409:
            raise
        # Someone else made it meanwhile, and the refusal says which one it is.
        detail = exc.body.get("detail") if isinstance(exc.body, dict) else None
        if isinstance(detail, dict) and isinstance(detail.get("physical_sample_id"), str):
            return str(detail["physical_sample_id"])
        found = find(await list_named(session, SAMPLES_PATH), name, "physical sample")
        if found is None:
            raise
        return found
    sample_id = _read_id(parse_json(answer.content), "physical_sample_id", "id")
    session.telemetry.emit("sample_created", "", detail=name)
    return sample_id


async def find_or_create_tags(session: Session, inputs: Iterable[str]) -> list[str]:
    """Return the ids of all tags in the inputs' order, each once, creating those whose name is not listed.

    Each attempt lists again before it creates, as for samples.

    Raises
    ------
    UnknownNameError
        A UUID that is not listed; raised before any tag is created.
    RefusedError, UnreachableError
        As `Session.persist`.
    """
    wanted = wanted_tags(inputs)
    if not wanted:
        return []

    async def attempt() -> list[str]:
        listed = await list_named(session, TAGS_PATH)
        found = [find(listed, tag, "tag") for tag in wanted]
        made = [
            tag_id if tag_id is not None else await _create_tag(session, tag)
            for tag, tag_id in zip(wanted, found, strict=True)
        ]
        return list(dict.fromkeys(made))

    return (await session.persist(Purpose(f"find or create the tags {', '.join(wanted)}"), attempt))[0]


async def _create_tag(session: Session, name: str) -> str:
    try:
        answer = await session.once(ApiCall("POST", TAGS_PATH, {"name": name}))
    except AttemptFailedError as exc:
        if exc.failure.kind is not FailureKind.STATUS or exc.failure.status != 400:
            raise
        # Someone else made it meanwhile; or the platform refuses the name, and then it is still not there.
        found = find(await list_named(session, TAGS_PATH), name, "tag")
        if found is None:
            raise
        return found
    tag_id = _read_id(parse_json(answer.content), "id")
    session.telemetry.emit("tag_created", "", detail=name)
    return tag_id
