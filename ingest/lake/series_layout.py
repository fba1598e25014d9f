"""Where the readings of a stream lie in a lake, and the Zarr objects that hold them.

::

    <lake>/<data_id>.zarr/timeseries/<channel>/{time,value}     float64
    <lake>/.rheed-ingest/staging/<data_id>/<digest>.json        requests as they were sent, until the stream is closed
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.lake.layout import array_objects, group_object, staging_folder, stream_folder

if TYPE_CHECKING:
    from zarr.core.common import JSON

__all__ = ["SECONDS_ATTRIBUTES", "channel_folders", "channel_objects", "series_folder", "staged_body_name"]

SECONDS_ATTRIBUTES: dict[str, JSON] = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}
"""CF: xarray makes dates of it. A float64 tells today's seconds 238 ns apart."""

MAX_FOLDER = 120
PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")


def series_folder(data_id: str) -> str:
    """Return the name of the group of a stream's channels."""
    return f"{stream_folder(data_id)}/timeseries"


def staged_body_name(data_id: str, digest: str) -> str:
    """Return where a request waits for the end of its stream.

    Parameters
    ----------
    data_id : str
        The stream.
    digest : str
        XXH3-128 of the body, hex: the same for the same request only, and receipts have it.
    """
    return f"{staging_folder(data_id)}/{digest}.json"


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


def channel_objects(
    folder: str, name: str, units: str | None, times_s: NDArray[np.float64], values: NDArray[np.float64]
) -> dict[str, bytes]:
    """Return the objects of one channel, the metadata of its group last. Holds it twice.

    Parameters
    ----------
    folder : str
        The channel's name in the lake.
    name : str
        Its own.
    units : str or None
        Of the values.
    times_s : ndarray, (time,)
        Unix seconds.
    values : ndarray, (time,)
        NaN: none.
    """
    said: dict[str, JSON] = {} if units is None else {"units": units}
    return {
        **array_objects(f"{folder}/time", times_s, "time", np.nan, SECONDS_ATTRIBUTES),
        **array_objects(f"{folder}/value", values, "time", np.nan, {"long_name": name, **said}),
        **group_object(folder, {"name": name, **said}),
    }
