"""Which stream of a lake, or of the embedded platform, a run was sent as."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.contents import StreamOrigin
from ingest.errors import MissingObjectError
from ingest.journal import JOURNAL_NAME, Journal, StreamRow
from ingest.lake.layout import STATE_FOLDER, commit_name, lake_data_id, manifest_name, staging_folder, stream_folder
from ingest.lake.store import LakeStore
from ingest.plan import RunPlan
from ingest.series_plan import ArchivePlan
from ingest.verify.documents import read_json
from ingest.verify.findings import Difference

__all__ = ["Found", "LakeStreams", "Sent"]

LEASE_S = 30.0


@dataclass(frozen=True)
class Found:
    """The stream of a run.

    Attributes
    ----------
    data_id : str or None
        None: there is none.
    problem : Difference or None
        Why it cannot be compared.
    note : str or None
        What is odd about it.
    """

    data_id: str | None = None
    problem: Difference | None = None
    note: str | None = None


class LakeStreams:
    """The streams of one lake.

    Parameters
    ----------
    store : LakeStore
        The lake.
    """

    def __init__(self, store: LakeStore) -> None:
        self._store = store
        self._ids: list[str] | None = None

    def find(self, plan: ArchivePlan) -> Found:
        """Return the stream of a run: by its name, source and settings, the last of several; else by its source."""
        digest = StreamOrigin.of(plan).digest
        attempts: list[str] = []
        while self._is_there(data_id := lake_data_id(plan.name, digest, len(attempts) + 1)):
            attempts.append(data_id)
        if attempts:
            committed = [data_id for data_id in attempts if self._store.size(commit_name(data_id)) is not None]
            chosen = (committed or attempts)[-1]
            others = [data_id for data_id in attempts if data_id != chosen]
            return Found(chosen, note=f"also sent as {', '.join(others)}" if others else None)
        return self._by_source(plan)

    def _is_there(self, data_id: str) -> bool:
        names = (commit_name(data_id), manifest_name(data_id))
        folders = (stream_folder(data_id), staging_folder(data_id))
        return any(self._store.size(name) is not None for name in names) or any(
            next(iter(self._store.objects(folder)), None) is not None for folder in folders
        )

    def _by_source(self, plan: ArchivePlan) -> Found:
        """Return a stream of the same recording under another name, or with other settings, and then say so."""
        now = json.loads(json.dumps(plan.identity()))
        other: Found | None = None
        for data_id in self.ids():
            attributes = (read_json(self._store, commit_name(data_id)) or {}).get("attributes")
            provenance = attributes.get("provenance") if isinstance(attributes, dict) else None
            if not isinstance(provenance, dict) or not isinstance(provenance.get("source"), dict):
                continue
            if provenance["source"].get("fingerprint") != plan.fingerprint:
                continue
            before = provenance.get("identity")
            if before == now:
                return Found(data_id, note="found by the recording's fingerprint: it has another name")
            changed = _changed(before if isinstance(before, dict) else {}, now)
            message = f"{data_id} holds this recording, made with other settings: {changed}"
            other = Found(data_id, Difference("settings", message, commit_name(data_id), can_mend=False))
        return other or Found()

    def ids(self) -> list[str]:
        """Return all streams of the lake, also those of which there is only a part. Lists all objects."""
        if self._ids is None:
            found = set()
            for entry in self._store.objects(""):
                first, _, rest = entry.name.partition("/")
                if first == STATE_FOLDER and rest.startswith("staging/"):
                    found.add(rest.split("/")[1])
                elif rest and first.endswith(".zarr"):
                    found.add(first.removesuffix(".zarr"))
                elif not rest and first.endswith(".manifest.json"):
                    found.add(first.removesuffix(".manifest.json"))
            self._ids = sorted(found)
        return self._ids

    def need(self, data_id: str) -> None:
        """Refuse a stream that is not there.

        Raises
        ------
        MissingObjectError
            Nothing in the lake is of it.
        """
        if not self._is_there(data_id):
            raise MissingObjectError(
                f"{self._store.url} holds no stream {data_id}", hint="`verify --to` without a source names all of them"
            )


def _changed(before: dict[str, object], now: dict[str, object]) -> str:
    keys = [key for key in {**now, **before} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in keys)


class Sent:
    """What the journal knows of runs that were sent, if there is one; nothing is made where there is none.

    Parameters
    ----------
    folder : Path
        Of the journal.
    """

    def __init__(self, folder: Path) -> None:
        is_there = (folder / JOURNAL_NAME).is_file()
        self._journal = Journal(folder, time.time) if is_there else None
        self._rows: list[StreamRow] | None = None

    def close(self) -> None:
        """Let go of the journal."""
        if self._journal is not None:
            self._journal.close()

    def row(self, destination: str, path: str, plan: ArchivePlan) -> StreamRow | None:
        """Return the stream of a run, by its path, else by its recording."""
        if self._journal is None:
            return None
        if self._rows is None:
            self._rows = [row for row in self._journal.streams() if not row.is_live]
        here = [row for row in self._rows if row.destination == destination]
        same = [row for row in here if row.path == path] or here
        return next((row for row in same if self._journal.plan(row.key).fingerprint == plan.fingerprint), None)

    def found(self, destination: str, path: str, plan: ArchivePlan) -> tuple[Found, ArchivePlan]:
        """Return the stream of a run on a platform, and the plan as it was sent."""
        row = self.row(destination, path, plan)
        if row is None or self._journal is None or row.data_id is None:
            return Found(), plan
        sent = self._journal.plan(row.key)
        if sent.identity() != plan.identity():
            message = f"it was sent as {row.data_id} with other settings: {_changed(sent.identity(), plan.identity())}"
            return Found(row.data_id, Difference("settings", message, can_mend=False)), plan
        if isinstance(plan, RunPlan) and isinstance(sent, RunPlan):
            plan = replace(plan, chunks=sent.chunks)  # those of a job with a lake end elsewhere
        return Found(row.data_id), plan

    @asynccontextmanager
    async def lease(self, destination: str, path: str, plan: ArchivePlan) -> AsyncIterator[None]:
        """Keep jobs from a run's stream while it is mended.

        Raises
        ------
        LeaseHeldError
            A live job is sending it.
        """
        row = self.row(destination, path, plan)
        if row is None or self._journal is None:
            yield
            return
        holder = f"verify-{uuid.uuid4().hex[:12]}"
        epoch = self._journal.lease(row.key, holder, LEASE_S)
        renewing = asyncio.create_task(self._renew(self._journal, holder))
        try:
            yield
        finally:
            renewing.cancel()
            with suppress(asyncio.CancelledError):
                await renewing
            self._journal.release(row.key, epoch)

    @staticmethod
    async def _renew(journal: Journal, holder: str) -> None:
        while True:
            await asyncio.sleep(LEASE_S / 3)
            journal.renew(holder, LEASE_S)


def by_name(streams: Sequence[dict[str, object]], plan: ArchivePlan) -> Found:
    """Return the one stream of a platform that has a run's name, where no journal knows it."""
    same = [stream for stream in streams if stream.get("name") == plan.name]
    if isinstance(plan, RunPlan):
        same = [stream for stream in same if stream.get("status") == "open" or stream.get("frames") == plan.frames]
    ids = [str(stream["id"]) for stream in same]
    if len(ids) == 1:
        return Found(ids[0], note="found by its name: no journal here knows it")
    if ids:
        message = f"{len(ids)} streams have the name {plan.name!r}, and no journal here knows which one it is"
        return Found(None, Difference("settings", message, can_mend=False))
    return Found()
