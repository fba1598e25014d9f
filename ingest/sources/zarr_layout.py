"""Where the frames are in a Zarr array or group, by metadata alone; formats 2 and 3, consolidated or not."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingest.errors import NoFramesError, SourceFormatError
from ingest.sources.facts import StoredArray
from ingest.sources.natural import natural_key
from ingest.sources.probe import not_finished
from ingest.sources.urls import is_url
from ingest.sources.zarr_documents import (
    MAX_METADATA_BYTES,
    Documents,
    check_zarr_url,
    children_of,
    documents_of,
    node_folder,
)

__all__ = ["ArrayFact", "Store", "array_at", "choose_runs", "list_arrays", "ome_time_axis"]

LAKE_FORMAT = "rheed-ingest"
"""Attribute ``format`` of what the embedded platform and our lakes store (ingest/server/seal.py)."""

LAKE_FRAMES = "/frames"
MAX_NODES = 20_000
TIME_DIMS = frozenset({"time", "t", "frame", "frames"})


@dataclass(frozen=True)
class ArrayFact(StoredArray):
    """An array as its metadata describe it.

    Attributes
    ----------
    path : str
        Inside its group: ``"/frames"``; of an array that is no group's: ``"/"``.
    folder : str
        Where it is: a path or a URL.
    shape, dtype
        As stored.
    dims : tuple of str
        Names of its axes, ``""`` where one has none: `dimension_names`, or xarray's ``_ARRAY_DIMENSIONS``.
    attributes : mapping
        Those of the user.
    documents : Documents
        Its metadata, of an array at a URL, so that they need not be fetched again; else empty.
    """

    folder: str
    dims: tuple[str, ...]
    attributes: Mapping[str, Any]
    documents: Documents = field(default_factory=dict, repr=False, compare=False)

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
        The folder of an array or a group, or its URL.

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
    SourceNotFoundError, UnclosedSourceError
        There is nothing at a URL; there is something, but not what makes it a Zarr store.
    SettingsError
        A URL that cannot name a folder.
    """
    if is_url(path):
        check_zarr_url(path)
    attributes: Mapping[str, Any] = {}
    arrays: list[ArrayFact] = []
    broken: list[str] = []
    level, seen = [""], 0
    while level:
        groups: list[str] = []
        folders = [node_folder(path, inside) for inside in level]
        for inside, folder, documents in zip(level, folders, documents_of(folders), strict=True):
            try:
                found, own = _node(folder, inside or "/", documents)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                if not inside:
                    raise SourceFormatError(f"{path}: its Zarr metadata make no sense: {error}") from error
                broken.append(inside)
                continue
            if not inside:
                attributes = own
            if found is not None:
                arrays.append(found)
            else:
                groups.append(inside)
            if not inside and not documents and is_url(path):
                children_of([path])  # says if there is nothing at all
                raise not_finished(path)
        seen += len(level)
        level = _below(path, groups) if seen < MAX_NODES else []
    return Store(path, attributes, tuple(arrays), tuple(broken))


def array_at(path: str, inside: str) -> ArrayFact | None:
    """Return one array of a Zarr folder by its path, as it was known in the last half minute; None: there is none.

    Raises
    ------
    SourceError
        As `list_arrays`.
    """
    folder = node_folder(path, inside)
    (documents,) = documents_of([folder], kept=True)
    try:
        return _node(folder, inside, documents)[0]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise SourceFormatError(f"{folder}: its Zarr metadata make no sense: {error}") from error


def _below(path: str, groups: list[str]) -> list[str]:
    listed = children_of([node_folder(path, inside) for inside in groups])
    return [f"{inside}/{name}" for inside, names in zip(groups, listed, strict=True) for name in names]


def _node(folder: str, path: str, documents: Documents) -> tuple[ArrayFact | None, Mapping[str, Any]]:
    """Return an array's facts (None: a group, or a plain folder), and the node's attributes."""
    if (metadata := _json(documents, "zarr.json")) is not None:
        attributes = _mapping(metadata.get("attributes") or {})
        if metadata["node_type"] != "array":
            return None, attributes
        dims, dtype = metadata.get("dimension_names"), _dtype_3(metadata["data_type"])
        return _array(path, folder, documents, metadata["shape"], dtype, dims, attributes), attributes
    attributes = _mapping(_json(documents, ".zattrs") or {})
    if (metadata := _json(documents, ".zarray")) is not None:
        dtype = _dtype_2(metadata["dtype"])
        return _array(path, folder, documents, metadata["shape"], dtype, None, attributes), attributes
    return None, attributes


def _array(
    path: str,
    folder: str,
    documents: Documents,
    shape: Any,
    dtype: np.dtype[Any],
    dims: Any,
    attributes: Mapping[str, Any],
) -> ArrayFact:
    sizes = tuple(int(size) for size in shape)
    if any(size < 0 for size in sizes):
        raise ValueError(f"a shape of {sizes}")
    names = dims or attributes.get("_ARRAY_DIMENSIONS") or [""] * len(sizes)
    held = documents if is_url(folder) else {}
    return ArrayFact(path, sizes, dtype, folder, tuple(str(name or "") for name in names), attributes, held)


def _json(documents: Documents, name: str) -> Any:
    content = documents.get(name)
    if content is None:
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
