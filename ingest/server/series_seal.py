"""Time series in their final form: a Zarr v3 group a channel, below the stream's own.

::

    <data>/<data_id>.zarr/timeseries/<channel>/{time,value}

A seal that was cut off is continued by doing it again; the ``zarr.json`` of the stream's group comes last, and is the
commit marker.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.lake.layout import group_object, stream_folder
from ingest.lake.series_layout import channel_folders, channel_objects, series_folder
from ingest.lake.store import LakeStore
from ingest.server.rows import ChannelRow, PointsRow, SeriesRow
from ingest.server.seal import common_attributes, put_objects

if TYPE_CHECKING:
    from zarr.core.common import JSON

__all__ = ["Points", "channel_folders", "joined", "seal_series", "sealed_points", "write_series_attributes"]

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Stamps in Unix seconds, and values."""


def joined(chunks: Sequence[tuple[PointsRow, bytes]]) -> Points:
    """Return the points of a channel's chunks in one piece."""
    pairs = [np.frombuffer(data, "<f8").reshape(2, row.points) for row, data in chunks]
    times, values = np.concatenate(pairs, axis=1, dtype=np.float64) if pairs else np.empty((2, 0))
    return times, values


def seal_series(
    stream: SeriesRow, channels: Sequence[ChannelRow], read: Callable[[ChannelRow], Points], store: LakeStore
) -> None:
    """Write a closed stream in its final form; again after any crash.

    Parameters
    ----------
    stream : SeriesRow
        The closed stream.
    channels : sequence of ChannelRow
        All of its channels, in order.
    read : callable
        Gives a channel's points.
    store : LakeStore
        Where to.

    Raises
    ------
    DestinationError
        Disk full, not permitted, or no answer.

    Notes
    -----
    Memory: one channel twice.
    """
    below = series_folder(stream.data_id)
    folders = channel_folders([channel.name for channel in channels])
    for channel, folder in zip(channels, folders, strict=True):
        times_s, values = (np.asarray(column, np.float64) for column in read(channel))
        put_objects(store, channel_objects(f"{below}/{folder}", channel.name, channel.units, times_s, values).items())
    put_objects(store, group_object(below, {"channels": _names(channels)}).items())
    write_series_attributes(stream, channels, store)


def write_series_attributes(stream: SeriesRow, channels: Sequence[ChannelRow], store: LakeStore) -> None:
    """Write the ``zarr.json`` of the stream's group, which makes the folder a Zarr group that opens."""
    attributes: dict[str, JSON] = {
        **common_attributes(stream),
        "points_per_chunk": stream.points_per_chunk,
        "synth_source_id": stream.synth_source_id,
        "channels": _names(channels),
        "points_stored": stream.points,
        "chunks_stored": stream.chunks,
    }
    put_objects(store, group_object(stream_folder(stream.data_id), attributes).items())


def sealed_points(stream: SeriesRow, channels: Sequence[ChannelRow], name: str, store: LakeStore) -> Points:
    """Return the points of one channel of a sealed stream. Holds it twice."""
    names = [channel.name for channel in channels]
    folder = f"{series_folder(stream.data_id)}/{channel_folders(names)[names.index(name)]}"
    times_s, values = (_read(store, f"{folder}/{array}") for array in ("time", "value"))
    return times_s, values


def _read(store: LakeStore, folder: str) -> NDArray[np.float64]:
    """Return all of an array."""
    import zarr.storage
    from zarr.core.buffer.cpu import Buffer

    names = [found.name for found in store.objects(folder)]
    buffers = {name.removeprefix(f"{folder}/"): Buffer.from_bytes(store.get(name)) for name in names}
    return np.asarray(zarr.open_array(zarr.storage.MemoryStore(dict(buffers)), mode="r")[:], np.float64)


def _names(channels: Sequence[ChannelRow]) -> list[JSON]:
    return [channel.name for channel in channels]
