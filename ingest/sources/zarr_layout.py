"""Where the frames are in a Zarr array or group, by metadata alone; formats 2 and 3, consolidated or not."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingest.errors import NoFramesError, SourceFormatError, SourceReadError
from ingest.sources.facts import StoredArray
from ingest.sources.natural import natural_key

__all__ = ["ArrayFact", "Store", "choose_runs", "list_arrays", "ome_time_axis"]

LAKE_FORMAT = "rheed-ingest"
"""Attribute ``format`` of what the embedded platform and our lakes store (ingest/server/seal.py)."""

LAKE_FRAMES = "/frames"
MAX_NODES = 20_000
MAX_METADATA_BYTES = 64 * 2**20
TIME_DIMS = frozenset({"time", "t", "frame", "frames"})


@dataclass(frozen=True)
class ArrayFact(StoredArray):
    """An array as its metadata describe it.

    Attributes
    ----------
    path : str
        Inside its group: ``"/frames"``; of an array that is no group's: ``"/"``.
    folder : str
        Where it is on the disk.
    shape, dtype
        As stored.
    dims : tuple of str
        Names of its axes, ``""`` where one has none: `dimension_names`, or xarray's ``_ARRAY_DIMENSIONS``.
    attributes : mapping
        Those of the user.
    """

    folder: str
    dims: tuple[str, ...]
    attributes: Mapping[str, Any]

    @property
    def stack(self) -> bool:
        """Whether it can be grey frames: (frame, y, x), with axes of length 1 in between (OME's c and z)."""
        height, width = self.shape[-2:] if len(self.shape) > 2 else (0, 0)
        between = self.shape[1:-2]
        return self.dtype.kind in "buif" and height > 0 and width > 4 and all(size == 1 for size in between)


@dataclass(frozen=True)
class Store:
    """Every array of a Zarr group, or the one array that it is; `broken`: nodes whose metadata make no sense."""

    path: str
    attributes: Mapping[str, Any]
    arrays: tuple[ArrayFact, ...]
    broken: tuple[str, ...] = field(default=())

    def get(self, path: str) -> ArrayFact | None:
        """Return the array of this path, or None."""
        wanted = "/" + path.strip("/")
        return next((found for found in self.arrays if found.path == wanted), None)

    @property
    def is_lake(self) -> bool:
        """Whether it is laid out as our lakes are, where a frame that is not stored was lost."""
        has = {found.path for found in self.arrays}
        return LAKE_FRAMES in has and (self.attributes.get("format") == LAKE_FORMAT or {"/time", "/frame_index"} <= has)


def list_arrays(path: str) -> Store:
    """List the arrays of a Zarr folder.

    Parameters
    ----------
    path : str
        The folder of an array or a group.

    Returns
    -------
    Store
        Of at most 20,000 nodes, those nearest the root first. What consolidated metadata say is not asked: they may be
        older than the arrays.

    Raises
    ------
    SourceFormatError
        The metadata of the folder itself make no sense.
    SourceReadError
        It cannot be read.
    """
    attributes: Mapping[str, Any] = {}
    arrays: list[ArrayFact] = []
    broken: list[str] = []
    waiting = [""]
    for number, inside in enumerate(waiting):
        folder = os.path.join(path, inside.strip("/")) if inside else path
        try:
            found, own = _node(folder, inside or "/")
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if not inside:
                raise SourceFormatError(f"{path}: its Zarr metadata make no sense: {error}") from error
            broken.append(inside)
            continue
        except OSError as error:
            raise SourceReadError(f"{folder}: could not be read: {error.strerror}") from error
        if not inside:
            attributes = own
        if found is not None:
            arrays.append(found)
        elif number < MAX_NODES:
            waiting += _children(folder, inside)
    return Store(path, attributes, tuple(arrays), tuple(broken))


def _children(folder: str, inside: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise SourceReadError(f"{folder}: could not be listed: {error.strerror}") from error
    return [f"{inside}/{name}" for name in sorted(names, key=natural_key)]


def _node(folder: str, path: str) -> tuple[ArrayFact | None, Mapping[str, Any]]:
    """Return an array's facts (None: a group, or a plain folder), and the node's attributes."""
    if (metadata := _json(folder, "zarr.json")) is not None:
        attributes = _mapping(metadata.get("attributes") or {})
        if metadata["node_type"] != "array":
            return None, attributes
        dims = metadata.get("dimension_names")
        return _array(path, folder, metadata["shape"], _dtype_3(metadata["data_type"]), dims, attributes), attributes
    attributes = _mapping(_json(folder, ".zattrs") or {})
    if (metadata := _json(folder, ".zarray")) is not None:
        return _array(path, folder, metadata["shape"], _dtype_2(metadata["dtype"]), None, attributes), attributes
    return None, attributes


def _array(
    path: str, folder: str, shape: Any, dtype: np.dtype[Any], dims: Any, attributes: Mapping[str, Any]
) -> ArrayFact:
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"a shape of {sizes}")
    names = dims or attributes.get("_ARRAY_DIMENSIONS") or [""] * len(sizes)
    return ArrayFact(path, sizes, dtype, folder, tuple(str(name or "") for name in names), attributes)


def _json(folder: str, name: str) -> Any:
    try:
        with open(os.path.join(folder, name), "rb") as file:
            content = file.read(MAX_METADATA_BYTES + 1)
    except FileNotFoundError:
        return None
    if len(content) > MAX_METADATA_BYTES:
        raise ValueError(f"{name} has more than {MAX_METADATA_BYTES} bytes")
    return _mapping(json.loads(content))


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{str(value)[:40]} where a JSON object should be")
    return value


def _dtype_2(name: Any) -> np.dtype[Any]:
    return np.dtype(name) if isinstance(name, str) else np.dtype("V1")


def _dtype_3(data_type: Any) -> np.dtype[Any]:
    if isinstance(data_type, dict) and data_type.get("name") == "numpy.datetime64":
        return np.dtype(f"M8[{data_type['configuration']['unit']}]")
    try:
        return np.dtype(data_type) if isinstance(data_type, str) else np.dtype("V1")
    except TypeError:  # one of Zarr's that NumPy does not have
        return np.dtype("V1")


def choose_runs(store: Store, dataset: str | None) -> tuple[ArrayFact, ...]:
    """Find the arrays that hold frames, one for each run.

    Parameters
    ----------
    store : Store
        What the folder holds.
    dataset : str or None
        What the user, or an earlier look, says; None: find out.

    Returns
    -------
    tuple of ArrayFact
        ``/frames`` of our own layout; else the full resolution of OME-Zarr; else the largest whose first axis is called
        time or frame; else the largest. With it those that are named alike but for a number and whose frames are of
        the same size.

    Raises
    ------
    NoFramesError
        There is no such array, or nothing of the shape of grey frames.
    """
    if dataset is not None:
        found = store.get(dataset)
        if found is None or not found.stack or not found.shape[0]:
            there = ", ".join(str(known) for known in store.arrays if known.stack) or "none"
            raise NoFramesError(
                f"{store.path}: no (frame, y, x) array at {dataset!r}; there are: {there}",
                hint="name one of these, or leave the choice to us",
            )
        return (found,)
    filled = [found for found in store.arrays if found.stack and found.shape[0] > 0]
    if not filled:
        raise _no_frames(store)
    for name in (LAKE_FRAMES if store.is_lake else None, _full_resolution(store)):
        if name is not None and (found := store.get(name)) in filled and found is not None:
            return (found,)
    timed = [found for found in filled if found.dims[:1] and found.dims[0].lower() in TIME_DIMS]
    largest = max(timed or filled, key=lambda found: found.bytes)
    alike = [found for found in filled if _likeness(found) == _likeness(largest)]
    return tuple(sorted(alike, key=lambda found: natural_key(found.path)))


def _likeness(found: ArrayFact) -> tuple[str, tuple[int, ...], np.dtype[Any]]:
    return re.sub(r"\d+", "#", found.path), found.shape[-2:], found.dtype


def _full_resolution(store: Store) -> str | None:
    """Return the first level of an OME-Zarr image (``multiscales``, in 0.5 below ``ome``), or what looks like one."""
    try:
        image = store.attributes.get("ome", store.attributes)["multiscales"][0]
        return str(image["datasets"][0]["path"])
    except (KeyError, IndexError, TypeError, AttributeError):
        return "/0" if store.arrays and all(found.path[1:].isdigit() for found in store.arrays) else None


def ome_time_axis(store: Store, frames: ArrayFact) -> Mapping[str, Any]:
    """Return what OME-Zarr says of the first axis of these frames: ``{"unit": ..., "scale": ...}``, or nothing."""
    try:
        image = store.attributes.get("ome", store.attributes)["multiscales"][0]
        axis = image["axes"][0]
        scale = image["datasets"][0]["coordinateTransformations"][0]["scale"][0]
        if axis["type"] != "time" or frames.path.strip("/") != str(image["datasets"][0]["path"]).strip("/"):
            return {}
        return {"unit": str(axis["unit"]), "scale": float(scale)}
    except (KeyError, IndexError, TypeError, ValueError, AttributeError):
        return {}


def _no_frames(store: Store) -> NoFramesError:
    held = ", ".join(str(found) for found in store.arrays[:8]) or "no array"
    if store.broken:
        held += f"; metadata that make no sense: {', '.join(store.broken[:4])}"
    if store.attributes.get("format") == LAKE_FORMAT and "channels" in store.attributes:
        return NoFramesError(f"{store.path}: a stream of instrument readings, without any: {held}", hint="leave it out")
    if any(found.stack for found in store.arrays) or store.attributes.get("format") == LAKE_FORMAT:
        return NoFramesError(f"{store.path}: holds zero frames: {held}", hint="nothing was ever recorded: leave it out")
    if any(len(found.shape) > 3 and found.shape[-1] in (3, 4) for found in store.arrays):
        return NoFramesError(
            f"{store.path}: the frames are in colour: {held}",
            hint="write one channel, or the mean of them, as a (frame, y, x) array",
        )
    return NoFramesError(
        f"{store.path}: nothing of the shape (frame, y, x): {held}", hint="name the array that holds the frames"
    )
