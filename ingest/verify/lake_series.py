"""A log against the channels that a lake holds of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ingest.chunks import encoded_points
from ingest.errors import FrameDataError
from ingest.lake.layout import group_object
from ingest.lake.series_bodies import read_body
from ingest.lake.series_layout import channel_folders, channel_objects, series_folder
from ingest.lake.store import LakeStore
from ingest.ledger import Receipt
from ingest.orders import PointsOrder, orders_of
from ingest.series_plan import SeriesPlan
from ingest.series_rows import encode_rows
from ingest.sources import open_series
from ingest.verify.documents import compare_objects
from ingest.verify.findings import Difference
from ingest.verify.work import Mended, SeriesChecked, SeriesOrder
from ingest.wire.models import Delivery

__all__ = ["LogRead", "agreed", "check_series", "mend_series", "read_log", "receipt_differences"]


@dataclass(frozen=True)
class LogRead:
    """A log as its requests carry it.

    Attributes
    ----------
    channels : dict of str to (str or None, ndarray)
        By name, in the order of their first requests: units, and (2, point) of stamps in Unix seconds and values.
    receipts : tuple of Receipt
        Of the requests, as if each had been delivered.
    losses : dict of int to str
        Requests that cannot be read, and why.
    """

    channels: dict[str, tuple[str | None, NDArray[np.float64]]]
    receipts: tuple[Receipt, ...]
    losses: dict[int, str]

    @property
    def points(self) -> dict[str, int]:
        """How many points each channel has."""
        return {name: rows.shape[1] for name, (_, rows) in self.channels.items()}


def read_log(data_id: str, plan: SeriesPlan) -> LogRead:
    """Read all of a log. Holds 32 bytes a point.

    Raises
    ------
    SourceError
        It cannot be read for a reason that lies not in its rows.
    """
    parts: dict[str, dict[int, NDArray[np.float64]]] = {}
    units: dict[str, str | None] = {}
    receipts, losses = [], {}
    for order in orders_of("", data_id, plan, range(len(plan.chunks))):
        if not isinstance(order, PointsOrder):
            raise TypeError("a log has requests of points only")
        try:
            receipt, body = _request(order)
        except FrameDataError as exc:
            losses[order.task.index] = str(exc)
            continue
        receipts.append(receipt)
        chunk = read_body(body)
        for channel in chunk.channels:
            rows = np.frombuffer(channel.data, "<f8").reshape(2, channel.points)
            parts.setdefault(channel.name, {})[chunk.index] = rows
            units[channel.name] = channel.units if channel.units is not None else units.get(channel.name)
    channels = {
        name: (units[name], np.concatenate([rows for _, rows in sorted(by_index.items())], axis=1, dtype=np.float64))
        for name, by_index in parts.items()
    }
    return LogRead(channels, tuple(receipts), losses)


def _request(order: PointsOrder) -> tuple[Receipt, bytes]:
    reader = open_series(order.spec)
    try:
        rows = reader.read(0, order.task.start, order.task.stop)
    finally:
        reader.close()
    meta, body = encode_rows(order.data_id, order.task.chunk_index, order.spec.tables[0].channels, rows)
    chunk = encoded_points("", order.data_id, order.task.index, meta, body)
    return chunk.receipt(Delivery(None, 1), "", 0), body


def _objects(data_id: str, log: LogRead) -> dict[str, bytes]:
    """Return what a lake should hold of a log's channels."""
    below = series_folder(data_id)
    objects = group_object(below, {"channels": list(log.channels)})
    for folder, (name, (units, rows)) in zip(channel_folders(list(log.channels)), log.channels.items(), strict=True):
        objects |= channel_objects(f"{below}/{folder}", name, units, rows[0], rows[1])
    return objects


def receipt_differences(told: Iterable[Receipt], log: LogRead) -> list[Difference]:
    """Return which requests were sent otherwise than the log would be now; without a manifest, none."""
    now = {receipt.index: receipt for receipt in log.receipts}
    found = []
    for receipt in told:
        same = now.get(receipt.index)
        if same is not None and same.frames_digest != receipt.frames_digest:
            found.append(
                Difference(
                    "manifest",
                    f"request {receipt.index} ({receipt.label}): the manifest's digest is {receipt.frames_digest}, "
                    f"that of the log's rows {same.frames_digest}",
                    chunk=receipt.index,
                )
            )
        elif same is None:
            message = f"request {receipt.index} ({receipt.label}) was sent and cannot be read from the log any more"
            found.append(Difference("source", message, chunk=receipt.index, can_mend=False))
    return found


def check_series(store: LakeStore, order: SeriesOrder) -> SeriesChecked:
    """Compare a log with what a lake holds of it. Holds it three times.

    Raises
    ------
    SourceError
        The log cannot be read.
    DestinationError
        The lake cannot.
    """
    log = read_log(order.data_id, order.plan)
    expected = _objects(order.data_id, log)
    listed = {found.name for found in store.objects(series_folder(order.data_id))}
    differences = compare_objects(store, expected, listed, order.data_id)
    found = agreed(receipt_differences(order.receipts, log), differences)
    return SeriesChecked(found, log.receipts, log.losses, log.points, tuple(expected))


def agreed(told: Sequence[Difference], stored: Sequence[Difference]) -> tuple[Difference, ...]:
    """Return what differs between log and manifest, and between log and store, with whether the log sets it right.

    It does unless it is the log that changed since it was sent: then manifest and store may both be right.
    """
    log_changed = bool(told and stored) or not all(found.can_mend for found in told)
    return tuple(replace(found, can_mend=found.can_mend and not log_changed) for found in (*told, *stored))


def mend_series(store: LakeStore, order: SeriesOrder) -> Mended:
    """Write the channels' objects that differ from the log."""
    expected = _objects(order.data_id, read_log(order.data_id, order.plan))
    listed = {found.name for found in store.objects(series_folder(order.data_id))}
    wrong = {found.object for found in compare_objects(store, expected, listed, order.data_id)}
    names = [name for name in expected if name in wrong]
    for name in names:
        store.put(name, [expected[name]])
    return Mended(len(names))
