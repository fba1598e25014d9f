"""The stream of a log in a lake: its channels by a packer, the rest here; and what differs mended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ingest.contents import StreamContents
from ingest.lake.layout import commit_name, group_object, manifest_name, staging_folder, stream_folder
from ingest.lake.seal import manifest_bytes
from ingest.lake.series_layout import series_folder
from ingest.lake.series_seal import series_attributes
from ingest.lake.store import LakeStore
from ingest.ledger import Receipt
from ingest.series_plan import SeriesPlan
from ingest.timeseries import TimeseriesSettings
from ingest.verify.documents import compare_objects, with_others
from ingest.verify.findings import Difference, StreamReport
from ingest.verify.giving import GiveOut
from ingest.verify.lake_frames import foreign_objects
from ingest.verify.told import Told, contents_of, read_told
from ingest.verify.work import NotDone, SeriesChecked, SeriesOrder

__all__ = ["LogInLake"]

POINT_BYTES = 16


class LogInLake:
    """Verifies the stream of one log against it.

    Parameters
    ----------
    store : LakeStore
        The lake.
    destination : str
        Its URL, for packers.
    data_id : str
        The stream.
    plan : SeriesPlan
        Reads the log.
    give : GiveOut
        Has orders worked off.
    """

    def __init__(self, store: LakeStore, destination: str, data_id: str, plan: SeriesPlan, give: GiveOut) -> None:
        self._store, self._destination, self._data_id, self._plan = store, destination, data_id, plan
        self._give = give

    async def verify(self, report: StreamReport, *, repair: bool) -> None:
        """Compare all of it, and with `repair` mend what differs and compare that again.

        Raises
        ------
        DestinationError
            The lake cannot be read, or not written.
        """
        told = await asyncio.to_thread(read_told, self._store, self._data_id)
        checked = await self._give.one("verify", self._order(told))
        if not isinstance(checked, SeriesChecked):
            report.fail(checked.error) if isinstance(checked, NotDone) else report.conclude([])
            return
        report.chunks = len(self._plan.chunks)
        report.points = sum(checked.points.values())
        report.n_bytes = report.points * POINT_BYTES
        found = [*checked.differences, *await asyncio.to_thread(self._documents, told, checked)]
        report.findings += await asyncio.to_thread(foreign_objects, self._store, self._data_id)
        if not repair or not any(difference.can_mend for difference in found) or not _is_sure(checked):
            report.conclude(found)
            return
        outcome = await self._give.one("mend", self._order(told))
        if isinstance(outcome, NotDone):
            report.conclude(found)
            report.error, report.hint = str(outcome.error), outcome.error.hint
            return
        await asyncio.to_thread(self._write, told, checked)
        left = await self._left()
        report.conclude(left, [difference for difference in found if difference not in left])

    async def _left(self) -> list[Difference]:
        told = await asyncio.to_thread(read_told, self._store, self._data_id)
        again = await self._give.one("verify", self._order(told))
        if not isinstance(again, SeriesChecked):
            return [Difference("not checked", "it could not be compared once more", can_mend=False)]
        return [*again.differences, *await asyncio.to_thread(self._documents, told, again)]

    def _order(self, told: Told) -> SeriesOrder:
        receipts = tuple(told.receipts.values())
        return SeriesOrder(self._destination, self._data_id, self._plan, self._plan.settings, receipts)

    def _contents(self, told: Told, checked: SeriesChecked) -> tuple[StreamContents, list[Difference]]:
        receipts: Sequence[Receipt] = [_kept(receipt, told) for receipt in checked.receipts]
        losses: Mapping[int, str] = {index: told.losses.get(index, why) for index, why in checked.losses.items()}
        if told.manifest is not None and not _is_sure(checked):
            receipts, losses = list(told.receipts.values()), told.losses
        return contents_of(self._plan, told, self._data_id, receipts, dict(losses))

    def _closing(self, contents: StreamContents, points: Mapping[str, int]) -> dict[str, bytes]:
        """Return the documents that a packer does not look at, the commit marker last."""
        if not isinstance(contents.settings, TimeseriesSettings):
            raise TypeError(f"stream {self._data_id} holds no readings")
        attributes = series_attributes(self._data_id, contents, contents.settings, points)
        return group_object(stream_folder(self._data_id), attributes)

    def _documents(self, told: Told, checked: SeriesChecked) -> list[Difference]:
        contents, found = self._contents(told, checked)
        listed = {entry.name for entry in self._store.objects(stream_folder(self._data_id))}
        unsure = ("manifest_digest",) if found else ()
        closing = self._closing(contents, checked.points)
        found = [*found, *compare_objects(self._store, closing, listed, self._data_id, unsure=unsure)]
        return found + self._extra(checked)

    def _extra(self, checked: SeriesChecked) -> list[Difference]:
        return [
            Difference("extra object", f"{entry.name} belongs to nothing in this stream", entry.name)
            for entry in self._store.objects(series_folder(self._data_id))
            if entry.name not in checked.objects
        ]

    def _write(self, told: Told, checked: SeriesChecked) -> None:
        """Write manifest and commit marker where they are wrong; then remove what nothing explains."""
        store, commit = self._store, commit_name(self._data_id)
        contents, wrong = self._contents(told, checked)
        closing = self._closing(contents, checked.points)
        if wrong:
            store.put(manifest_name(self._data_id), [manifest_bytes(contents)])
        store.delete([found.object for found in self._extra(checked) if found.object])
        listed = [commit] if store.size(commit) is not None else []
        if compare_objects(store, closing, listed, self._data_id):
            store.put(commit, [with_others(store, commit, closing[commit])])
        if next(iter(store.objects(staging_folder(self._data_id))), None) is not None:
            store.delete_below(staging_folder(self._data_id))


def _is_sure(checked: SeriesChecked) -> bool:
    """Return whether the log is still what was sent."""
    return all(found.can_mend for found in checked.differences)


def _kept(receipt: Receipt, told: Told) -> Receipt:
    """Return a request's receipt as it was given, where it is of the same bytes."""
    before = told.receipts.get(receipt.index)
    same = before is not None and before.frames_digest == receipt.frames_digest
    return replace(receipt, etag=before.etag) if before is not None and same else receipt
