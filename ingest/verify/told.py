"""What a stream's manifest says, as far as it can be believed, and what it should say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ingest.contents import StreamContents
from ingest.errors import IngestError, MissingObjectError
from ingest.lake.layout import manifest_name
from ingest.lake.store import LakeStore
from ingest.ledger import Receipt, StreamState
from ingest.manifest import losses_of, manifest, receipts_of
from ingest.plan import RunPlan, StreamSettings
from ingest.series_plan import ArchivePlan
from ingest.timeseries import TimeseriesSettings
from ingest.timing import Finding
from ingest.verify.findings import Difference
from ingest.verify.work import ChunkState

__all__ = ["Told", "contents_of", "frames_truth", "header_differences", "read_told", "settings_of"]

UNREADABLE = "the source cannot give its frames"
_OF_THE_SOURCE = ("dataset", "fingerprint", "scale", "view")
_OF_THE_TIMING = ("start_unix_ms_utc", "fps", "chunking")


@dataclass(frozen=True)
class Told:
    """A manifest as it is in a lake.

    Attributes
    ----------
    manifest : dict or None
        None: it is not there, or not to be believed.
    receipts : dict of int to Receipt
        By chunk.
    losses : dict of int to str
        Why a chunk is lost.
    problem : Difference or None
        Why it is not believed.
    """

    manifest: dict[str, Any] | None = None
    receipts: Mapping[int, Receipt] = field(default_factory=dict)
    losses: Mapping[int, str] = field(default_factory=dict)
    problem: Difference | None = None


def read_told(store: LakeStore, data_id: str) -> Told:
    """Read a stream's manifest.

    Raises
    ------
    UnreachableError, AuthenticationError
        The lake cannot be read.
    """
    name = manifest_name(data_id)
    try:
        stated = json.loads(store.get(name))
        if not isinstance(stated, dict):
            raise ValueError("it is no object")
        receipts = {receipt.index: receipt for receipt in receipts_of(stated)}
        losses = losses_of(stated)
        settings_of(stated)
    except MissingObjectError:
        return Told(problem=Difference("manifest", f"{name} is not there", name))
    except (ValueError, KeyError, TypeError, AttributeError) as exc:
        return Told(problem=Difference("manifest", f"{name} is no manifest: {exc}", name))
    except IngestError as exc:
        return Told(problem=Difference("manifest", f"{name}: {exc}", name))
    return Told(stated, receipts, losses)


def settings_of(stated: Mapping[str, Any]) -> StreamSettings | TimeseriesSettings:
    """Return the settings that a manifest says its stream was made with.

    Raises
    ------
    KeyError, TypeError
        It is not as we write it.
    """
    said = dict(stated["stream"])
    said["tags"] = tuple(said["tags"])
    kind = StreamSettings if "chunk_size" in said else TimeseriesSettings
    return kind(**{item.name: said[item.name] for item in fields(kind) if item.name in said})


def as_told(plan: ArchivePlan, told: Told) -> ArchivePlan:
    """Return a plan with the names, and the findings, that its stream was made with: they are no part of what it is."""
    if told.manifest is None:
        return plan
    said = settings_of(told.manifest)
    names = (said.physical_sample, said.project_id, said.tags)
    try:
        findings = tuple(Finding(**finding) for finding in told.manifest["findings"])
    except (KeyError, TypeError):
        findings = plan.findings
    if isinstance(plan, RunPlan):
        settings = replace(plan.settings, name=said.name or "", **_linked(names))
        return replace(plan, settings=settings, findings=findings)
    return replace(plan, settings=replace(plan.settings, name=said.name, **_linked(names)), findings=findings)


def _linked(names: tuple[str | None, str | None, tuple[str, ...]]) -> dict[str, Any]:
    return dict(zip(("physical_sample", "project_id", "tags"), names, strict=True))


def frames_truth(plan: RunPlan, told: Told, states: Iterable[ChunkState]) -> tuple[tuple[Receipt, ...], dict[int, str]]:
    """Return the receipts and losses that a manifest should have, from what was found of the chunks.

    Parameters
    ----------
    plan : RunPlan
        What was sent.
    told : Told
        What the manifest says; stands where nothing better is known.
    states : iterable of ChunkState
        Of the chunks that were looked at; those that are not good say nothing.
    """
    known = {state.index: state for state in states if state.is_good}
    receipts: list[Receipt] = []
    losses: dict[int, str] = {}
    for task in plan.chunks:
        state, receipt = known.get(task.index), told.receipts.get(task.index)
        end_ms = task.start_unix_ms_utc + int(task.frames / task.fps * 1000)
        if state is not None and len(state.lost) == task.frames:
            receipt = None
        elif state is not None and (receipt is None or not _agree(receipt, state)):
            receipt = Receipt(
                index=task.index,
                frames=task.frames,
                start_unix_ms_utc=task.start_unix_ms_utc,
                end_unix_ms_utc=end_ms,
                n_bytes=state.n_bytes,
                crc32c=state.crc32c,
                frames_digest=state.digest,
                etag=None,
                attempts=0,
                node="",
                put_unix_ms=0,
                lost_frames=state.lost,
            )
        if receipt is None:
            losses[task.index] = told.losses.get(task.index, UNREADABLE)
        else:
            start_ms = task.start_unix_ms_utc
            receipts.append(replace(receipt, frames=task.frames, start_unix_ms_utc=start_ms, end_unix_ms_utc=end_ms))
    return tuple(receipts), losses


def _agree(receipt: Receipt, state: ChunkState) -> bool:
    said = (receipt.frames_digest, receipt.lost_frames, receipt.n_bytes, receipt.crc32c)
    return said == (state.digest, state.lost, state.n_bytes, state.crc32c)


def contents_of(
    plan: ArchivePlan, told: Told, data_id: str, receipts: Sequence[Receipt], losses: Mapping[int, str]
) -> tuple[StreamContents, list[Difference]]:
    """Return all that a stream should hold, and what is wrong about its manifest.

    The manifest that is there is kept as it is, with the paths and ETags of its time, unless something in it is wrong.
    """
    plan = as_told(plan, told)
    stated = manifest(plan, data_id, StreamState.CLOSED, receipts, losses)
    if told.manifest is None:
        wrong = [told.problem] if told.problem else []
    else:
        wrong = header_differences(told.manifest, stated, manifest_name(data_id))
    kept = told.manifest if told.manifest is not None and not wrong else stated
    return StreamContents(plan.settings, plan, tuple(receipts), losses, kept), wrong


def header_differences(told: Mapping[str, Any], stated: Mapping[str, Any], name: str) -> list[Difference]:
    """Return what a manifest says otherwise than it should, but for the paths, ETags and words of its time."""
    found = []
    for key in ("format", "data_id", "state", "stream", "source", "counts", "timing", "chunks", "losses"):
        was, should = _part(key, told.get(key)), _part(key, json.loads(json.dumps(stated.get(key))))
        if was != should:
            found.append(Difference("manifest", f"{name}: {key}: {_first(was, should)}", name))
    return found


def _part(key: str, value: Any) -> Any:
    """Return the part of a manifest's entry that is the same whoever writes it."""
    if isinstance(value, dict) and key in ("source", "timing"):
        return {name: value.get(name) for name in (_OF_THE_SOURCE if key == "source" else _OF_THE_TIMING)}
    if isinstance(value, dict) and key == "losses":
        return sorted(value)
    if isinstance(value, list) and key == "chunks":
        kept = ("etag", "first_frame")
        return [{n: v for n, v in chunk.items() if n not in kept} for chunk in value if isinstance(chunk, dict)]
    return value


def _first(was: Any, should: Any) -> str:
    """Say where two values of JSON begin to differ."""
    if isinstance(was, dict) and isinstance(should, dict):
        key = next(key for key in {**should, **was} if was.get(key) != should.get(key))
        return f"{key}: {_first(was.get(key), should.get(key))}"
    if isinstance(was, list) and isinstance(should, list) and len(was) == len(should):
        at = next(i for i, pair in enumerate(zip(was, should, strict=True)) if pair[0] != pair[1])
        return f"number {at}: {_first(was[at], should[at])}"
    if isinstance(was, list) and isinstance(should, list):
        return f"{len(was)} entries, it should have {len(should)}"
    return f"it says {was!r}, it should say {should!r}"
