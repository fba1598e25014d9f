"""Time series in their final form: a Zarr v3 group a channel, below the stream's own.

::

    <data>/<data_id>.zarr/timeseries/<channel>/{time,value}

A seal that was cut off is continued by doing it again; the ``zarr.json`` of the stream's group comes last, and is the
commit marker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray
from zarr.core.common import JSON

from ingest.server.rows import ChannelRow, PointsRow, SeriesRow
from ingest.server.seal import FORMAT_VERSION, fsync_small, put_group
from ingest.server.store import Store

__all__ = ["Points", "channel_folders", "joined", "seal_series", "sealed_points", "write_series_attributes"]

Points = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Stamps in Unix seconds, and values."""

TIME_ATTRIBUTES: dict[str, JSON] = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
POINTS_PER_CHUNK = 1 << 16
MAX_FOLDER = 120
PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def channel_folders(names: Sequence[str]) -> list[str]:
    """Return a folder's name for each channel: any text in, one path segment out, no two alike even without case.

    Letters, digits, ``_`` and ``-`` stay; any other byte of the UTF-8 becomes ``%`` and its two digits, and no name at
    all ``%``. What that makes too long, or what differs from an earlier one in case only, gets a digest instead.
    """
    folders: list[str] = []
    taken: set[str] = set()
    for name in names:
        raw = name.encode("utf-8", "surrogatepass")
        folder = "".join(chr(byte) if byte in PLAIN else f"%{byte:02X}" for byte in raw) or "%"
        if len(folder) > MAX_FOLDER or folder.casefold() in taken:
            # No other name gives "%.": after a "%" come two digits or the end.
            folder = f"{folder[: MAX_FOLDER // 2]}%.{hashlib.sha256(raw).hexdigest()[:32]}"
        taken.add(folder.casefold())
        folders.append(folder)
    return folders


def joined(chunks: Sequence[tuple[PointsRow, bytes]]) -> Points:
    """Return the points of a channel's chunks in one piece."""
    pairs = [np.frombuffer(data, "<f8").reshape(2, row.points) for row, data in chunks]
    times, values = np.concatenate(pairs, axis=1, dtype=np.float64) if pairs else np.empty((2, 0))
    return times, values


def seal_series(
    stream: SeriesRow, channels: Sequence[ChannelRow], read: Callable[[ChannelRow], Points], store: Store
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
    store : Store
        Where to.

    Raises
    ------
    OSError
        Disk full, or not permitted.

    Notes
    -----
    Memory: one channel.
    """
    root = store.sealed_path(stream.data_id)
    folders = channel_folders([channel.name for channel in channels])
    for channel, folder in zip(channels, folders, strict=True):
        path = root / "timeseries" / folder
        _write_channel(path, channel, read(channel))
    put_group(root / "timeseries", {"channels": _names(channels)}, fsync=False)
    if store.fsync:
        fsync_small(root)
    write_series_attributes(stream, channels, store)


def write_series_attributes(stream: SeriesRow, channels: Sequence[ChannelRow], store: Store) -> None:
    """Write the ``zarr.json`` of the stream's group, which makes the folder a Zarr group that opens."""
    attributes: dict[str, JSON] = {
        "format": "rheed-ingest",
        "format_version": FORMAT_VERSION,
        "data_id": stream.data_id,
        "name": stream.name,
        "points_per_chunk": stream.points_per_chunk,
        "synth_source_id": stream.synth_source_id,
        "sample": None if stream.sample is None else stream.sample[1],
        "project": stream.project_id,
        "tags": [name for _, name in stream.tags],
        "channels": _names(channels),
        "points_stored": stream.points,
        "chunks_stored": stream.chunks,
    }
    put_group(store.sealed_path(stream.data_id), attributes, fsync=store.fsync)


def sealed_points(stream: SeriesRow, channels: Sequence[ChannelRow], name: str, store: Store) -> Points:
    """Return the points of one channel of a sealed stream."""
    names = [channel.name for channel in channels]
    folder = channel_folders(names)[names.index(name)]
    path = store.sealed_path(stream.data_id) / "timeseries" / folder
    times, values = (zarr.open_array(str(path / array), mode="r")[:] for array in ("time", "value"))
    return np.asarray(times, np.float64), np.asarray(values, np.float64)


def _names(channels: Sequence[ChannelRow]) -> list[JSON]:
    return [channel.name for channel in channels]


def _write_channel(path: Path, channel: ChannelRow, points: Points) -> None:
    times, values = points
    units: dict[str, JSON] = {} if channel.units is None else {"units": channel.units}
    path.mkdir(parents=True, exist_ok=True)
    _series(path / "time", len(times), TIME_ATTRIBUTES)[:] = times
    _series(path / "value", len(values), {"long_name": channel.name, **units})[:] = values
    put_group(path, {"name": channel.name, **units}, fsync=False)


def _series(path: Path, n_points: int, attributes: dict[str, JSON]) -> zarr.Array[Any]:
    return zarr.create_array(
        zarr.storage.LocalStore(path),
        shape=(n_points,),
        dtype="float64",
        chunks=(min(max(n_points, 1), POINTS_PER_CHUNK),),
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=False),
        fill_value=np.nan,
        dimension_names=("time",),
        attributes=attributes,
        overwrite=True,
        # A file for values that are all missing, too: without it they could not be told from values that were lost.
        config={"write_empty_chunks": True},
    )
