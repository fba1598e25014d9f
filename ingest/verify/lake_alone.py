"""A stream of a lake without its source: whether it is what its own manifest says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from zarr.core.common import JSON

from ingest.contents import StreamContents
from ingest.lake.layout import (
    FRAME_INDEX_ATTRIBUTES,
    FRAME_TIME_ATTRIBUTES,
    NOT_A_FRAME,
    NOT_A_TIME,
    array_objects,
    commit_name,
    frames_objects,
    group_object,
    shard_name,
    stream_folder,
)
from ingest.lake.seal import frames_attributes
from ingest.lake.series_layout import channel_folders, channel_objects, series_folder
from ingest.lake.series_seal import series_attributes
from ingest.lake.store import LakeStore
from ingest.ledger import Receipt
from ingest.plan import StreamSettings
from ingest.timeseries import TimeseriesSettings
from ingest.verify.documents import compare_objects, read_json, stored_values
from ingest.verify.findings import Difference, Kind, StreamReport
from ingest.verify.giving import GiveOut
from ingest.verify.lake_frames import foreign_objects, take_outcomes
from ingest.verify.told import Told, read_told, settings_of
from ingest.verify.work import ChunkState, ExpectedChunk, ShardsChecked, ShardsOrder

__all__ = ["StreamAlone", "expected_chunks"]

_NO_SOURCE = ("provenance",)
"""Attributes that only the plan can tell."""

_ROWS: tuple[Kind, ...] = ("time", "frame_index")

NS_PER_MS = 1_000_000
ROUNDING_MS = 2.0
"""Starts and ends of chunks are whole ms, and so is the rate that is made of them."""


def expected_chunks(told: Told, n_frames: int, chunk_size: int) -> list[ExpectedChunk] | None:
    """Return a stream's chunks in order, each at its place, as its manifest tells; None: it does not.

    Parameters
    ----------
    told : Told
        The manifest.
    n_frames, chunk_size : int
        Of the stream, and of a shard; without a manifest each shard stands for a chunk.
    """
    if told.manifest is None:
        edges = range(0, n_frames, chunk_size)
        return [ExpectedChunk(None, first, min(first + chunk_size, n_frames)) for first in edges]
    first_of = {chunk["index"]: chunk.get("first_frame") for chunk in told.manifest["chunks"]}
    chunks: list[ExpectedChunk] = []
    at = 0
    for index in sorted(told.receipts):
        receipt, first = told.receipts[index], first_of[index]
        if first is not None and first > at:
            chunks.append(ExpectedChunk(None, at, first, is_lost=True))
            at = first
        chunks.append(ExpectedChunk(index, at, at + receipt.frames, receipt))
        at += receipt.frames
    if at < n_frames and told.losses:
        chunks.append(ExpectedChunk(None, at, n_frames, is_lost=True))
        at = n_frames
    return chunks if at == n_frames else None


class StreamAlone:
    """Verifies one stream by itself.

    Parameters
    ----------
    store : LakeStore
        The lake.
    destination : str
        Its URL, for packers.
    data_id : str
        The stream.
    give : GiveOut
        Has orders worked off.
    """

    def __init__(self, store: LakeStore, destination: str, data_id: str, give: GiveOut) -> None:
        self._store, self._destination, self._data_id, self._give = store, destination, data_id, give
        self._folder = stream_folder(data_id)

    async def verify(self, report: StreamReport) -> None:
        """Compare shards, times and attributes with the manifest.

        Raises
        ------
        DestinationError
            The lake cannot be read.
        """
        told = await asyncio.to_thread(read_told, self._store, self._data_id)
        listed = await asyncio.to_thread(self._listed)
        report.findings += await asyncio.to_thread(foreign_objects, self._store, self._data_id)
        found: list[Difference] = []
        if (commit := commit_name(self._data_id)) not in listed:
            found.append(_said("uncommitted", f"{commit} is not there: the stream is not finished", commit))
            if told.manifest is None:
                report.hint = "run its backfill again: it resumes"
                report.conclude(found)
                return
        if told.problem is not None:
            found.append(told.problem)
        if told.manifest is not None and told.manifest.get("data_id") != self._data_id:
            found.append(_said("manifest", f"the manifest is of {told.manifest.get('data_id')!r}", None))
        settings = None if told.manifest is None else settings_of(told.manifest)
        is_series = isinstance(settings, TimeseriesSettings) or (
            settings is None and any(name.startswith(f"{series_folder(self._data_id)}/") for name in listed)
        )
        if isinstance(settings, TimeseriesSettings) or is_series:
            found += await asyncio.to_thread(self._series, told, listed, report)
        else:
            found += await self._frames(told, listed, report)
        report.conclude([_unmendable(difference) for difference in found])

    def _listed(self) -> set[str]:
        return {entry.name for entry in self._store.objects(self._folder)}

    # -- frames --------------------------------------------------------------------------------------------------------

    async def _frames(self, told: Told, listed: set[str], report: StreamReport) -> list[Difference]:
        document = await asyncio.to_thread(read_json, self._store, f"{self._folder}/frames/zarr.json")
        grid = _grid(document)
        if grid is None:
            name = f"{self._folder}/frames/zarr.json"
            return [_said("metadata", f"{name} is not there, or not as it is written: no frame can be read", name)]
        n_frames, height, width, size = grid
        chunks = expected_chunks(told, n_frames, size)
        if chunks is None:
            frames = sum(receipt.frames for receipt in told.receipts.values())
            message = f"the manifest tells of {frames} frames; the array has {n_frames}"
            return [_said("metadata", message, f"{self._folder}/frames/zarr.json")]
        states: dict[int, ChunkState] = {}
        found: list[Difference] = []
        lanes = [(None, _orders(self._destination, self._data_id, chunks, (size, height, width)))]
        for order, outcome in await self._give.all("verify", lanes):
            take_outcomes(order, outcome, states, found)
            if isinstance(outcome, ShardsChecked):
                report.chunks += len(order.chunks)
                report.frames += order.frames
                report.n_bytes += order.frames * height * width
        return found + await asyncio.to_thread(self._rows, told, listed, chunks, (n_frames, height, width, size))

    def _rows(
        self, told: Told, listed: set[str], chunks: Sequence[ExpectedChunk], grid: tuple[int, int, int, int]
    ) -> list[Difference]:
        """Compare times, numbers and documents."""
        *shape, size = grid
        n_frames, height, width = shape
        times = stored_values(self._store, f"{self._folder}/time")
        numbers = stored_values(self._store, f"{self._folder}/frame_index")
        found: list[Difference] = []
        expected = frames_objects(f"{self._folder}/frames", (n_frames, height, width), size)
        for name, values, fill, attributes in (
            ("time", times, NOT_A_TIME, FRAME_TIME_ATTRIBUTES),
            ("frame_index", numbers, NOT_A_FRAME, FRAME_INDEX_ATTRIBUTES),
        ):
            if values is None or len(values) != n_frames:
                where = f"{self._folder}/{name}"
                found.append(_said("torn", f"{where} cannot be read as {n_frames} numbers", where))
            else:
                made: dict[str, JSON] = dict(attributes)
                expected |= array_objects(f"{self._folder}/{name}", values, "frame", fill, made)
        if times is not None and numbers is not None and len(times) == len(numbers) == n_frames:
            found += _lost_rows(self._folder, told, chunks, times, numbers)
            found += _told_times(self._folder, told, chunks, times)
            expected |= self._group(told, times, numbers)
        shards = {shard_name(self._data_id, n) for n in range(-(-n_frames // size))}
        found += self._compared(expected, listed, shards)
        return found

    def _group(self, told: Told, times: NDArray[np.int64], numbers: NDArray[np.int64]) -> dict[str, bytes]:
        settings = None if told.manifest is None else settings_of(told.manifest)
        if told.manifest is None or not isinstance(settings, StreamSettings):
            return {}
        contents = StreamContents(settings, None, tuple(told.receipts.values()), told.losses, told.manifest)
        attributes = frames_attributes(self._data_id, contents, settings, times, numbers)
        if "source" in told.manifest:
            attributes.pop("chunks_never_pushed", None)
        return group_object(self._folder, attributes)

    def _compared(self, expected: Mapping[str, bytes], listed: set[str], more: set[str]) -> list[Difference]:
        committed = {
            name: data for name, data in expected.items() if name in listed or name != commit_name(self._data_id)
        }
        found = [
            _as_rows(difference)
            for difference in compare_objects(self._store, committed, listed, self._data_id, unsure=_NO_SOURCE)
        ]
        ours = tuple(f"{self._folder}/{name}/" for name in ("frames", "time", "frame_index", "timeseries"))
        known = expected.keys() | more
        extra = (name for name in sorted(listed) if name.startswith(ours) and name not in known)
        return found + [_said("extra object", f"{name} belongs to nothing in this stream", name) for name in extra]

    # -- readings ------------------------------------------------------------------------------------------------------

    def _series(self, told: Told, listed: set[str], report: StreamReport) -> list[Difference]:
        """Compare the channels with each other, and their counts and times with the manifest."""
        below = series_folder(self._data_id)
        document = read_json(self._store, f"{below}/zarr.json") or {}
        names = document.get("attributes", {}).get("channels")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return [_said("metadata", f"{below}/zarr.json does not say which channels there are", f"{below}/zarr.json")]
        found: list[Difference] = []
        expected = group_object(below, {"channels": names})
        points: dict[str, int] = {}
        for name, folder in zip(names, channel_folders(names), strict=True):
            where = f"{below}/{folder}"
            times, values = (stored_values(self._store, f"{where}/{part}") for part in ("time", "value"))
            units = (read_json(self._store, f"{where}/zarr.json") or {}).get("attributes", {}).get("units")
            if times is None or values is None or len(times) != len(values):
                found.append(_said("torn", f"{where}: time and value cannot be read as rows of one length", where))
                expected |= {name: b"" for name in listed if name.startswith(f"{where}/")}
                continue
            points[name] = len(times)
            expected |= channel_objects(where, name, units, times, values)
            found += _told_seconds(where, told, times)
        report.chunks, report.points = len(told.receipts), sum(points.values())
        report.n_bytes = report.points * 16
        sent = sum(receipt.frames for receipt in told.receipts.values())
        if told.manifest is not None and sent != report.points:
            found.append(_said("value", f"the channels have {report.points} points; {sent} were sent", below))
        expected |= self._series_group(told, points)
        sure = {name: data for name, data in expected.items() if data}
        return found + [
            difference
            for difference in self._compared(sure, listed, set(expected))
            if difference.kind != "missing object" or difference.object in sure
        ]

    def _series_group(self, told: Told, points: Mapping[str, int]) -> dict[str, bytes]:
        settings = None if told.manifest is None else settings_of(told.manifest)
        if told.manifest is None or not isinstance(settings, TimeseriesSettings):
            return {}
        contents = StreamContents(settings, None, tuple(told.receipts.values()), told.losses, told.manifest)
        attributes = series_attributes(self._data_id, contents, settings, points)
        attributes.pop("points_lost")  # a manifest of readings does not say how many points a lost request had
        return group_object(self._folder, attributes)


def _grid(document: Mapping[str, Any] | None) -> tuple[int, int, int, int] | None:
    """Return frames, height, width and frames in a shard, as the array's document says; None: it does not."""
    try:
        frames, height, width = (document or {})["shape"]
        size = (document or {})["chunk_grid"]["configuration"]["chunk_shape"][0]
    except (KeyError, TypeError, ValueError, IndexError):
        return None
    sides = (frames, height, width, size)
    return sides if all(isinstance(n, int) and n >= 0 for n in sides) and size > 0 else None


def _orders(
    destination: str, data_id: str, chunks: Sequence[ExpectedChunk], shape: tuple[int, int, int]
) -> list[ShardsOrder]:
    """Return orders of as few shards as can be that no chunk reaches out of."""
    size, height, width = shape
    orders: list[ShardsOrder] = []
    group: list[ExpectedChunk] = []
    for chunk in chunks:
        if not chunk.frames:
            continue
        if group and chunk.first % size == 0:
            orders.append(_order(destination, data_id, group, (size, height, width)))
            group = []
        group.append(chunk)
    return [*orders, _order(destination, data_id, group, (size, height, width))] if group else orders


def _order(destination: str, data_id: str, group: Sequence[ExpectedChunk], shape: tuple[int, int, int]) -> ShardsOrder:
    size, height, width = shape
    first, stop = group[0].first // size, -(-group[-1].stop // size)
    return ShardsOrder(destination, data_id, first, stop, size, height, width, tuple(group))


def _lost_rows(
    folder: str,
    told: Told,
    chunks: Sequence[ExpectedChunk],
    times: NDArray[np.int64],
    numbers: NDArray[np.int64],
) -> list[Difference]:
    """Return where time and number disagree with each other, or with the manifest, about which frames are lost."""
    lost = np.zeros(len(times), bool)
    for chunk in chunks:
        if chunk.is_lost:
            lost[chunk.first : chunk.stop] = True
        elif chunk.receipt is not None:
            lost[[chunk.first + i for i in chunk.receipt.lost_frames]] = True
    marked: tuple[tuple[Kind, NDArray[np.bool_]], ...] = (
        ("time", times == NOT_A_TIME), ("frame_index", numbers == NOT_A_FRAME),
    )  # fmt: skip
    if told.manifest is None:
        lost = marked[1][1]
    found = []
    for kind, marks in marked:
        wrong = np.flatnonzero(marks != lost)
        if len(wrong):
            at = int(wrong[0])
            what = "marked as lost, and is not" if marks[at] else "lost, and not marked so"
            found.append(_said(kind, f"{folder}/{kind}: frame {at} is {what} ({len(wrong)} in all)", None, at))
    return found


def _told_times(folder: str, told: Told, chunks: Sequence[ExpectedChunk], times: NDArray[np.int64]) -> list[Difference]:
    """Return the frames whose time is farther from what its chunk's span implies than the manifest says."""
    timing = (told.manifest or {}).get("timing")
    worst_ms = float(timing.get("time_error_worst_ms") or 0.0) if isinstance(timing, dict) else 0.0
    # A stream that no platform has, of a recording with stamps, says only when each chunk begins.
    has_rate = worst_ms > 0 or "kind" in (told.manifest or {})
    bound_ms = worst_ms + ROUNDING_MS
    found = []
    for chunk in chunks:
        receipt = chunk.receipt
        if receipt is None or not receipt.frames:
            continue
        step_ms = (receipt.end_unix_ms_utc - receipt.start_unix_ms_utc) / receipt.frames
        since_ms = (times[chunk.first : chunk.stop] - receipt.start_unix_ms_utc * NS_PER_MS) / NS_PER_MS
        error_ms = np.abs(since_ms - np.arange(chunk.frames) * step_ms)
        known = times[chunk.first : chunk.stop] != NOT_A_TIME
        wrong = np.flatnonzero((error_ms > bound_ms) & known)
        if not has_rate:
            wrong = wrong[wrong == 0]
        if len(wrong):
            at = int(wrong[0])
            message = (
                f"{folder}/time: frame {chunk.first + at} is {error_ms[at]:.3f} ms from what the manifest implies, "
                f"which allows {bound_ms:.3f} ms ({len(wrong)} such in {chunk.text})"
            )
            found.append(_said("time", message, None, chunk.first + at, chunk.index))
    return found


def _told_seconds(where: str, told: Told, times: NDArray[np.float64]) -> list[Difference]:
    """Return whether a channel's times are outside of what was sent."""
    spans: list[Receipt] = [receipt for receipt in told.receipts.values() if receipt.frames]
    known = times[~np.isnan(times)]
    if not spans or not len(known):
        return []
    first_s = min(receipt.start_unix_ms_utc for receipt in spans) / 1000
    last_s = max(receipt.end_unix_ms_utc for receipt in spans) / 1000
    wrong = np.flatnonzero((known < first_s - 1e-3) | (known > last_s + 1e-3))
    if not len(wrong):
        return []
    message = f"{where}/time: {len(wrong)} time(s) are not within what was sent, the first is {known[wrong[0]]!r} s"
    return [_said("time", message, f"{where}/time")]


def _said(kind: Kind, message: str, name: str | None, frame: int | None = None, chunk: int | None = None) -> Difference:
    return Difference(kind, message, name, chunk, frame, can_mend=False)


def _as_rows(found: Difference) -> Difference:
    """Name the array whose digest is not that of the attributes."""
    for kind in _ROWS:
        if found.kind == "attributes" and f": {kind}_xxh3_128 is " in found.message:
            return replace(found, kind=kind, message=f"{kind} was altered since it was written: {found.message}")
    return found


def _unmendable(found: Difference) -> Difference:
    return replace(found, can_mend=False)
