"""Virtual HDF5 datasets: whether the files that they are made of hold all the frames that they show.

HDF5 reads a part that is missing or shorter as fill value, or as whatever was in memory (seen with HDF5 2.0).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.errors import NoFramesError, SourceError
from ingest.sources.hdf5_file import open_file
from ingest.sources.urls import is_url

__all__ = ["missing_frames"]

MAX_DEPTH = 8  # of virtual datasets made of virtual datasets
UNLIMITED = 2**64 - 1  # H5S_UNLIMITED


def missing_frames(dataset: Any, path: str, where: str, depth: int = 0) -> NDArray[np.bool_]:
    """Find the frames of a virtual dataset that no file holds.

    Parameters
    ----------
    dataset : h5py.Dataset, (frame, y, x)
        The virtual dataset.
    path : str
        Its file, beside which its parts are looked for.
    where : str
        File and dataset, for messages.
    depth : int
        How many virtual datasets this one is part of.

    Returns
    -------
    ndarray of bool, (frame,)
        True for each frame that is in no part, or that its part does not have. Parts whose names or lengths are made
        up by pattern (``%b``, unlimited) count as complete: HDF5 itself ends the dataset where they do.

    Raises
    ------
    NoFramesError
        A part is missing, or has no such dataset; the dataset is at a URL and has parts in other files.
    SourceError
        A part cannot be opened; see `open_file`.
    """
    missing = np.ones(dataset.shape[0], bool)
    if depth > MAX_DEPTH:
        raise NoFramesError(f"{where}: a virtual dataset that is made of itself")
    for part in dataset.virtual_sources():
        shown = _frame_numbers(part.vspace)
        shown = np.arange(len(missing)) if shown is None else shown[shown < len(missing)]
        if "%" in part.file_name or "%" in part.dset_name:
            missing[shown] = False
            continue
        with _opened(dataset, part, path, where) as source:
            missing[shown] = _lost(source, part, path, where, len(shown), depth)
    return missing


def _lost(source: Any, part: Any, path: str, where: str, shown: int, depth: int) -> NDArray[np.bool_]:
    """Return for each frame that a part shows whether it lacks it."""
    if len(source.shape) != 3:  # one picture in each file
        return np.full(shown, source.id.get_storage_size() == 0)
    if source.is_virtual:
        beside = path if part.file_name == "." else _beside(path, part.file_name)
        lacking = missing_frames(source, beside, f"{where}, its part {part.file_name}", depth + 1)
    else:
        lacking = np.full(source.shape[0], source.id.get_storage_size() == 0)
    taken = _frame_numbers(part.src_space)
    taken = np.arange(shown) if taken is None else taken[:shown]
    lost = np.ones(shown, bool)
    there = taken < len(lacking)
    lost[: len(taken)][there] = lacking[taken[there]]
    return lost


def _frame_numbers(space: Any) -> NDArray[np.int64] | None:
    """Return which places of axis 0 are selected; None: all, or as many as there are."""
    if space.get_select_type() != h5py.h5s.SEL_HYPERSLABS:
        return None
    if not space.is_regular_hyperslab():
        first, last = space.get_select_bounds()
        return np.arange(first[0], last[0] + 1)
    start, stride, count, block = (values[0] for values in space.get_regular_hyperslab())
    if UNLIMITED in (count, block):
        return None
    starts = np.arange(count, dtype=np.int64) * int(stride) + int(start)
    return (starts[:, np.newaxis] + np.arange(block)).reshape(-1)


@contextmanager
def _opened(dataset: Any, part: Any, path: str, where: str) -> Iterator[Any]:
    if part.file_name == ".":
        yield _dataset(dataset.file, part, where)
        return
    if is_url(path):
        raise NoFramesError(
            f"{where}: a virtual dataset with parts in other files ({part.file_name})",
            hint="copy all of them to one local folder, and name the file there",
        )
    name = _beside(path, part.file_name)
    if not os.path.exists(name):
        raise NoFramesError(
            f"{where}: a virtual dataset; its part {part.file_name} is missing", hint="put the part beside the file"
        )
    try:
        file = open_file(name)
    except SourceError as error:
        raise type(error)(f"{where}: a virtual dataset; its part {error}", hint=error.hint) from error
    with file:
        yield _dataset(file, part, where)


def _beside(path: str, name: str) -> str:
    return os.path.join(os.path.dirname(os.path.abspath(path)), name)


def _dataset(file: Any, part: Any, where: str) -> Any:
    found = file.get(part.dset_name)
    if not isinstance(found, h5py.Dataset):
        raise NoFramesError(f"{where}: a virtual dataset; its part {part.file_name} has no dataset {part.dset_name}")
    return found
