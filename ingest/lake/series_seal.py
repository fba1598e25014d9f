"""The end of a stream of readings in a lake: what was sent is joined channel by channel, and committed last.

Every step may be done again, and what is written depends on nothing but the stream's contents, so a seal that was cut
off anywhere is continued by doing it again. What was sent stays staged until the commit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from ingest.contents import StreamContents
from ingest.errors import LakeDamagedError, MissingObjectError, SettingsError
from ingest.lake.layout import commit_name, group_object, manifest_name, staging_folder, stream_folder
from ingest.lake.seal import common_attributes, manifest_bytes
from ingest.lake.series_bodies import ChannelPoints, read_body
from ingest.lake.series_layout import channel_folders, channel_objects, series_folder, staged_body_name
from ingest.lake.store import LakeStore
from ingest.ledger import Receipt
from ingest.timeseries import TimeseriesSettings

__all__ = ["seal_series", "series_attributes"]

MAX_POINTS = 1 << 24
"""Points that are held at once: 256 MiB."""


@dataclass(frozen=True, slots=True)
class _Request:
    """What was sent at once: its chunk index, and its channels by name."""

    index: int
    channels: dict[str, ChannelPoints]


@dataclass(slots=True)
class _Channel:
    """A channel, and which requests hold its points.

    Attributes
    ----------
    name : str
        As it was sent.
    units : str or None
        The last that were said.
    parts : dict of int to (int, int)
        By chunk index: which request, and how many points.
    """

    name: str
    units: str | None = None
    parts: dict[int, tuple[int, int]] = field(default_factory=dict)

    @property
    def points(self) -> int:
        return sum(points for _, points in self.parts.values())


def seal_series(
    store: LakeStore, data_id: str, contents: StreamContents, executor: Executor, *, max_points: int = MAX_POINTS
) -> None:
    """Finish a stream of readings. Safe to repeat.

    Parameters
    ----------
    store : LakeStore
        The lake.
    data_id : str
        The stream.
    contents : StreamContents
        All of it. Of several requests for one chunk of a channel, the one of the last receipt counts.
    executor : Executor
        Requests are read, and channels written, in its threads.
    max_points : int
        Points held at once. A stream that has more is read once to find out what is in it, and once more for each
        group of channels.

    Raises
    ------
    LakeDamagedError
        A request that was delivered is not there any more, or not as it was.

    Notes
    -----
    Memory: 16 bytes for each of `max_points`, or of one channel where that has more; and for each thread one channel
    twice, or one request.
    """
    settings = contents.settings
    if not isinstance(settings, TimeseriesSettings):
        raise TypeError(f"stream {data_id} holds no readings")
    was_committed = store.size(commit_name(data_id)) is not None
    receipts = contents.receipts
    read = partial(_read, store, data_id)
    is_small = sum(receipt.frames for receipt in receipts) <= max_points
    requests = list(executor.map(read if is_small else partial(read, only=frozenset()), receipts))
    channels = _channels(requests)
    folders = dict(zip(channels, channel_folders(list(channels)), strict=True))
    if not was_committed and store.size(commit_name(data_id)) is not None:
        raise LakeDamagedError(f"{store.url}/{stream_folder(data_id)} was closed meanwhile by another job")
    store.delete([commit_name(data_id)])  # of an earlier seal: from here on its arrays are not all of one stream
    written: set[str] = set()
    for group in _groups(channels.values(), max_points):
        if not is_small:
            names = frozenset(channel.name for channel in group)
            requests = list(executor.map(partial(read, only=names), receipts))
        place = partial(_write_channel, store, data_id, folders, requests)
        for objects in executor.map(place, group):
            written.update(objects)
    below = series_folder(data_id)
    last = group_object(below, {"channels": list(channels)})
    store.delete([entry.name for entry in store.objects(below) if entry.name not in written | last.keys()])
    last[manifest_name(data_id)] = manifest_bytes(contents)
    counts = {name: channel.points for name, channel in channels.items()}
    last |= group_object(stream_folder(data_id), series_attributes(data_id, contents, settings, counts))
    for name, data in last.items():
        store.put(name, [data])
    store.delete_below(staging_folder(data_id))


def _read(store: LakeStore, data_id: str, receipt: Receipt, only: frozenset[str] | None = None) -> _Request:
    """Return a staged request; of channels that are not among `only`, without their points."""
    name = staged_body_name(data_id, receipt.frames_digest)
    where = f"{store.url}/{name}: {receipt.label or f'request {receipt.index}'}"
    try:
        body = store.get(name)
        if (len(body), google_crc32c.value(body)) != (receipt.n_bytes, receipt.crc32c):
            raise LakeDamagedError(
                f"{where} was stored there with {receipt.n_bytes} bytes and CRC-32C {receipt.crc32c:08x}; now it has "
                f"{len(body)} bytes and {google_crc32c.value(body):08x}",
                hint="who else writes into this lake? Run the job with --restart",
            )
        chunk = read_body(body)
    except MissingObjectError as exc:
        raise LakeDamagedError(
            f"{where} was stored there and is gone",
            hint="who else writes into this lake? Run the job with --restart",
        ) from exc
    except SettingsError as exc:
        raise LakeDamagedError(f"{where}: {exc}", hint="run the job with --restart") from exc
    parts = (part if only is None or part.name in only else replace(part, data=b"") for part in chunk.channels)
    return _Request(chunk.index, {part.name: part for part in parts})


def _channels(requests: Iterable[_Request]) -> dict[str, _Channel]:
    """Return the channels by name, in the order of their first requests."""
    channels: dict[str, _Channel] = {}
    for number, request in enumerate(requests):
        for name, part in request.channels.items():
            channel = channels.setdefault(name, _Channel(name))
            channel.parts[request.index] = number, part.points
            channel.units = part.units if part.units is not None else channel.units
    return channels


def _groups(channels: Iterable[_Channel], max_points: int) -> Iterator[list[_Channel]]:
    """Yield channels that are held together."""
    group: list[_Channel] = []
    points = 0
    for channel in channels:
        if group and points + channel.points > max_points:
            yield group
            group, points = [], 0
        group.append(channel)
        points += channel.points
    if group:
        yield group


def _write_channel(
    store: LakeStore, data_id: str, folders: dict[str, str], requests: Sequence[_Request], channel: _Channel
) -> list[str]:
    """Write one channel; return the names of its objects."""
    times_s, values = _joined(requests, channel)
    folder = f"{series_folder(data_id)}/{folders[channel.name]}"
    objects = channel_objects(folder, channel.name, channel.units, times_s, values)
    for name, data in objects.items():
        store.put(name, [data])
    return list(objects)


def _joined(requests: Sequence[_Request], channel: _Channel) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a channel's stamps and values, in the order of its chunks."""
    pairs = []
    for _, (number, points) in sorted(channel.parts.items()):
        data = requests[number].channels[channel.name].data
        pairs.append(np.frombuffer(data, "<f8").reshape(2, points))
    times_s, values = np.concatenate(pairs, axis=1, dtype=np.float64)
    return times_s, values


def series_attributes(
    data_id: str, contents: StreamContents, settings: TimeseriesSettings, points: Mapping[str, int]
) -> dict[str, Any]:
    """Return what the group of a stream of readings says of it; `points` has each channel's, in order."""
    plan = contents.plan
    return {
        **common_attributes(data_id, contents),
        "points_per_chunk": settings.points_per_chunk,
        "synth_source_id": settings.synth_source_id,
        "channels": list(points),
        "points_stored": sum(points.values()),
        "points_lost": 0 if plan is None else plan.frames - sum(receipt.frames for receipt in contents.receipts),
        "chunks_stored": len(contents.receipts),
        "missing_chunks": sorted(contents.losses),
        "timing": contents.manifest.get("timing"),
    }
