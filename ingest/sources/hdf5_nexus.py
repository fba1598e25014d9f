"""NeXus in HDF5 files: which dataset holds the frames, and where their times are.

NXdata names its `@signal` and `@axes`, `@default` leads to it from the root; NXdetector keeps `data`, `start_time`,
`frame_time` and `count_time` (nexusformat/definitions, NXdata and NXdetector; FORMATS.md 1.5).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import h5py
import numpy as np

from ingest.sources.hdf5_times import per_second_of
from ingest.sources.natural import natural_key
from ingest.timing import Finding

__all__ = ["claimed_fps", "frames_of", "holders", "text_of", "time_columns"]

MAX_GROUPS = 500
MAX_DEFAULTS = 8  # root, entry, data; more is a ring


def text_of(value: Any) -> str | None:
    """Return an attribute as text, or None."""
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None


def frames_of(file: h5py.File, classes: Mapping[str, str], is_stack: Any) -> tuple[str, ...]:
    """Find the frames of a NeXus file by what its groups say of themselves.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    classes : mapping
        Path to ``NX_class`` of each group that has one.
    is_stack : callable
        Whether a dataset can be a stack of grey frames.

    Returns
    -------
    tuple of str
        What `@default` leads to from the root; else one stack for each NXentry that has one, in natural order; none
        where nothing says.
    """
    if not classes:
        return ()
    default = _signal(file, _default(file, ""), is_stack)
    if default is not None:
        return (default,)
    found = []
    for entry in sorted((path for path, kind in classes.items() if kind == "NXentry"), key=natural_key):
        inside = [path for path in classes if path.startswith(entry + "/")][:MAX_GROUPS]
        candidates = [_signal(file, _default(file, entry), is_stack)]
        candidates += [_signal(file, path, is_stack) for path in inside if classes[path] == "NXdata"]
        candidates += [_child(file, path, "data", is_stack) for path in inside if classes[path] == "NXdetector"]
        chosen = next((path for path in candidates if path is not None), None)
        if chosen is not None:
            found.append(chosen)
    return tuple(found)


def _default(file: h5py.File, path: str) -> str:
    for _ in range(MAX_DEFAULTS):
        name = text_of(file[path or "/"].attrs.get("default"))
        if name is None or not isinstance(file.get(f"{path}/{name}"), h5py.Group):
            break
        path = f"{path}/{name}".replace("//", "/")
    return path


def _signal(file: h5py.File, path: str, is_stack: Any) -> str | None:
    """Return the dataset that an NXdata group shows; old files mark it by an attribute of its own."""
    group = file[path or "/"]
    if text_of(group.attrs.get("NX_class")) != "NXdata":
        return None
    name = text_of(group.attrs.get("signal"))
    if name is None:
        name = next((child for child in group if _is_marked(group, child)), "data")
    return _child(file, path, name, is_stack)


def _is_marked(group: Any, name: str) -> bool:
    child = group.get(name)
    return isinstance(child, h5py.Dataset) and child.attrs.get("signal") is not None


def _child(file: h5py.File, path: str, name: str, is_stack: Any) -> str | None:
    child = file.get(f"{path}/{name}")
    return f"{path}/{name}" if isinstance(child, h5py.Dataset) and is_stack(child) else None


def holders(file: h5py.File, classes: Mapping[str, str], frames_path: str) -> list[str]:
    """Return the NXdata and NXdetector groups that hold these frames or a link to them, NXdata first."""
    frames = file[frames_path]
    found = []
    for kind in ("NXdata", "NXdetector"):
        for path in [path for path in classes if classes[path] == kind][:MAX_GROUPS]:
            named = {text_of(file[path].attrs.get("signal")) or "data", "data"}
            links = [file.get(f"{path}/{name}") for name in named]
            if frames_path.rpartition("/")[0] == path or frames in links:
                found.append(path)
    return found


def time_columns(file: h5py.File, groups: list[str], frames_path: str) -> Iterator[str]:
    """Yield the paths of what may be the frames' times: the first axis of NXdata, NXdetector's `start_time`."""
    for path in groups:
        axes = file[path].attrs.get("axes")
        if axes is None:
            axes = file[frames_path].attrs.get("axes")
        names = [text_of(name) or "" for name in np.atleast_1d(axes)] if axes is not None else []
        if len(names) == 1:  # old files write one text: "time:y:x" or "[time,y,x]"
            names = re.split(r"[:,]", names[0].strip("[] "))
        for name in (*names[:1], "start_time"):
            column = file.get(f"{path}/{name}") if name not in ("", ".") else None
            if isinstance(column, h5py.Dataset) and column.ndim == 1 and _counts_time(column, name):
                yield f"{path}/{name}"


def _counts_time(column: Any, name: str) -> bool:
    units = text_of(column.attrs.get("units"))
    if units is None:
        return "time" in name.lower() or column.attrs.get("start") is not None
    return per_second_of(units) is not None


def claimed_fps(file: h5py.File, groups: list[str]) -> tuple[float | None, tuple[Finding, ...]]:
    """Return the frame rate that NXdetector claims: ``1 / frame_time``, else ``1 / count_time``, with a finding."""
    for name in ("frame_time", "count_time"):
        for path in groups:
            seconds = _median_s(file.get(f"{path}/{name}"))
            if seconds is None:
                continue
            message = f"{path}/{name} = {seconds:g} s is the exposure: the frame rate claimed takes no dead time"
            return 1 / seconds, () if name == "frame_time" else (Finding("frame rate", message),)
    return None, ()


def _median_s(dataset: Any) -> float | None:
    if not isinstance(dataset, h5py.Dataset) or dataset.ndim > 1 or not dataset.size or dataset.dtype.kind not in "iuf":
        return None
    units = text_of(dataset.attrs.get("units"))
    per_s = 1 if units is None else per_second_of(units)
    value = float(np.median(dataset[()]))
    return value / per_s if per_s is not None and np.isfinite(value) and value > 0 else None
