"""Rows of a log as the request that carries them. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.sources.series_base import ChannelSpec, Rows
from ingest.timeseries import TimeseriesMeta, encode_channel, encode_channels

__all__ = ["encode_rows", "unix_seconds"]

NS = 1_000_000_000


def unix_seconds(timestamps_ns: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return Unix ns as the nearest float seconds, so that milliseconds come out as they went in."""
    # Python divides integers exactly; NumPy would round them to floats first, off by up to 256 ns.
    return np.array([ns / NS for ns in timestamps_ns.tolist()], np.float64)


def encode_rows(
    data_id: str, chunk_index: int, channels: Sequence[ChannelSpec], rows: Rows
) -> tuple[TimeseriesMeta, bytes]:
    """Return the one request of some rows: what it is, and its JSON body.

    Parameters
    ----------
    data_id : str
        The stream.
    chunk_index : int
        Its place among its channels' requests.
    channels : sequence of ChannelSpec
        As many as `rows` has values for each time.
    rows : Rows
        At least one. NaN and infinity go as null; nothing is interpolated.

    Raises
    ------
    SettingsError
        Names or times that the platform does not take.
    """
    stamps = unix_seconds(rows.timestamps_ns)
    if len(channels) == 1:
        only = channels[0]
        return encode_channel(data_id, chunk_index, only.name, stamps, rows.values[0], only.units)
    # The same array as every channel's stamps, so that it is checked and encoded once.
    fields = {
        channel.name: {"timestamps": stamps, "values": values, "units": channel.units}
        for channel, values in zip(channels, rows.values, strict=True)
    }
    return encode_channels(data_id, chunk_index, fields, "tool-state")[0]
