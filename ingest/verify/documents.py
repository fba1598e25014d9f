"""What a stream of a lake holds beside its shards (metadata, attributes, rows of numbers) against what it should."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise
from typing import Any

import numpy as np
import zarr
import zarr.storage
from numpy.typing import NDArray
from zarr.core.buffer import Buffer, default_buffer_prototype

from ingest.errors import MissingObjectError
from ingest.lake.layout import commit_name
from ingest.lake.store import LakeStore
from ingest.verify.findings import Difference, Kind

__all__ = ["ATTRIBUTES", "compare_objects", "read_json", "stored_values", "with_others"]

DOCUMENT = "zarr.json"
ATTRIBUTES = "attributes"
_KINDS: dict[str, Kind] = {"time": "time", "frame_index": "frame_index", "value": "value"}
SHOWN = 60


def compare_objects(
    store: LakeStore,
    expected: Mapping[str, bytes],
    listed: Collection[str],
    data_id: str,
    *,
    unsure: Collection[str] = (),
    can_mend: bool = True,
) -> list[Difference]:
    """Compare Zarr objects with what they should be, by what they say, not by their bytes.

    Parameters
    ----------
    store : LakeStore
        Where they are.
    expected : mapping of str to bytes
        All metadata documents, and the chunks of arrays of numbers.
    listed : collection of str
        What is there.
    data_id : str
        The stream; its group's document is the commit marker.
    unsure : collection of str
        Attributes of the stream's group that nothing says what they should be.
    can_mend : bool
        Written into the differences.
    """
    found: list[Difference] = []
    for name, data in expected.items():
        if not name.endswith(f"/{DOCUMENT}"):
            continue
        if name not in listed:
            found.append(_missing(name, data_id, can_mend=can_mend))
        else:
            found += _document(store, name, data, unsure if name == commit_name(data_id) else (), can_mend=can_mend)
    for folder in sorted({name.rpartition("/c/")[0] for name in expected if "/c/" in name}):
        found += _values(store, folder, expected, listed, can_mend=can_mend)
    return found


def _missing(name: str, data_id: str, *, can_mend: bool) -> Difference:
    if name == commit_name(data_id):
        message = f"{name} is not there: the stream is not finished, or somebody removed its commit marker"
        return Difference("uncommitted", message, name, can_mend=can_mend)
    return Difference("missing object", f"{name} is not there", name, can_mend=can_mend)


def read_json(store: LakeStore, name: str) -> dict[str, Any] | None:
    """Return the object of JSON that an object of a lake is; None: it is not there, or none."""
    try:
        value = json.loads(store.get(name))
    except (MissingObjectError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def _document(
    store: LakeStore, name: str, data: bytes, unsure: Collection[str], *, can_mend: bool
) -> Iterator[Difference]:
    stored, wanted = read_json(store, name), json.loads(data)
    if stored is None:
        yield Difference("metadata", f"{name} is no JSON object", name, can_mend=can_mend)
        return
    is_group = wanted.get("node_type") == "group"
    keys = [key for key in wanted if key not in (ATTRIBUTES, "consolidated_metadata")]
    for key in keys if is_group else dict.fromkeys([*keys, *stored]):
        if key != ATTRIBUTES and stored.get(key) != wanted.get(key):
            yield _told("metadata", name, key, stored.get(key), wanted.get(key), can_mend=can_mend)
    said, should = stored.get(ATTRIBUTES), wanted.get(ATTRIBUTES, {})
    said = said if isinstance(said, dict) else {}
    for key, value in should.items():
        if key not in unsure and _plain(said.get(key)) != _plain(value):
            yield _told("attributes" if is_group else "metadata", name, key, said.get(key), value, can_mend=can_mend)


def _plain(value: object) -> object:
    """Leave out what another version of this software may write otherwise."""
    return {key: v for key, v in value.items() if key != "software"} if isinstance(value, dict) else value


def _told(kind: Kind, name: str, key: str, stored: object, wanted: object, *, can_mend: bool) -> Difference:
    if isinstance(stored, dict) and isinstance(wanted, dict):
        differing = next((k for k in {**wanted, **stored} if stored.get(k) != wanted.get(k) and k != "software"), None)
        if differing is not None:
            key, stored, wanted = f"{key}.{differing}", stored.get(differing), wanted.get(differing)
    message = f"{name}: {key} is {_shown(stored)}, it should be {_shown(wanted)}"
    return Difference(kind, message, name, can_mend=can_mend)


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."


def with_others(store: LakeStore, name: str, data: bytes) -> bytes:
    """Return a group's document with what others added to its attributes."""
    stored, wanted = read_json(store, name), json.loads(data)
    said = stored.get(ATTRIBUTES) if stored is not None else None
    if isinstance(said, dict) and any(key not in wanted[ATTRIBUTES] for key in said):
        wanted[ATTRIBUTES] = {**said, **wanted[ATTRIBUTES]}
        return json.dumps(wanted, ensure_ascii=False, indent=2).encode()
    return data


# -- rows of numbers ---------------------------------------------------------------------------------------------------


def _values(
    store: LakeStore, folder: str, expected: Mapping[str, bytes], listed: Collection[str], *, can_mend: bool
) -> Iterator[Difference]:
    """Yield what is wrong about an array's chunks."""
    document = expected[f"{folder}/{DOCUMENT}"]
    wanted = {name: data for name, data in expected.items() if name.startswith(f"{folder}/c/")}
    for name, start, part in _decoded(folder, document, wanted):
        if name not in listed:
            yield Difference("missing object", f"{name} is not there", name, can_mend=can_mend)
            continue
        stored = _stored_part(store, folder, document, name)
        if stored is None or stored.shape != part.shape:
            yield Difference("torn", f"{name} does not decode", name, can_mend=can_mend)
            continue
        wrong = np.flatnonzero((stored != part) & ~(np.isnan(stored) & np.isnan(part)))
        if len(wrong):
            at = int(wrong[0])
            what = folder.rpartition("/")[2]
            unit = "frame" if "/timeseries/" not in folder else "row"
            yield Difference(
                _KINDS.get(what, "value"),
                f"{name}: {what} of {unit} {start + at} is {stored[at]}, it should be {part[at]}"
                + (f"; so are {len(wrong) - 1} more" if len(wrong) > 1 else ""),
                name,
                frame=start + at if unit == "frame" else None,
                can_mend=can_mend,
            )


def _stored_part(store: LakeStore, folder: str, document: bytes, name: str) -> NDArray[Any] | None:
    """Return a chunk of an array as it is stored; None: it does not decode."""
    try:
        data = store.get(name)
    except MissingObjectError:
        return None
    return next((part for _, _, part in _decoded(folder, document, {name: data})), None)


def _decoded(folder: str, document: bytes, chunks: Mapping[str, bytes]) -> Iterator[tuple[str, int, NDArray[Any]]]:
    """Yield name, first place and values of each chunk that decodes as the document says."""
    make = default_buffer_prototype().buffer.from_bytes
    buffers: dict[str, Buffer] = {f"{DOCUMENT}": make(document)}
    buffers |= {name[len(folder) + 1 :]: make(data) for name, data in chunks.items()}
    array = zarr.open_array(zarr.storage.MemoryStore(buffers), mode="r")
    for start, stop in pairwise([*range(0, array.shape[0], array.chunks[0]), array.shape[0]]):
        name = f"{folder}/c/{start // array.chunks[0]}"
        if name in chunks:
            try:
                part = np.asarray(array[start:stop])
            except Exception:  # noqa: BLE001, S112 - whatever a codec says of damaged bytes
                continue
            yield name, start, part


def stored_values(store: LakeStore, folder: str) -> NDArray[Any] | None:
    """Return all of an array of numbers as it is stored; None: not all of it can be read."""
    try:
        document = store.get(f"{folder}/{DOCUMENT}")
        chunks = {found.name: store.get(found.name) for found in store.objects(f"{folder}/c")}
        parts = [part for _, _, part in _decoded(folder, document, chunks)]
        shape = json.loads(document)["shape"]
    except (MissingObjectError, ValueError, KeyError, TypeError):
        return None
    values = np.concatenate(parts) if parts else np.empty(0, np.int64)
    return values if [len(values)] == shape else None
