"""The columns beside Zarr frames: times, frame numbers, and which frames by these were lost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import IngestError, SourceFormatError, SourceTimeError
from ingest.sources.fill_stamps import fill_stamps, how_filled
from ingest.sources.hdf5_times import Stamps, decode_plain, per_second_of
from ingest.sources.zarr_files import Grid, explain, open_array
from ingest.sources.zarr_layout import ArrayFact, Store
from ingest.timing import Finding

__all__ = ["FrameColumns", "is_lost", "read_columns", "read_values"]

MAX_VALUES = 2**27  # 1 GiB of them: over three days at 500 frames per second
MAX_CHUNK_BYTES = 2**30
FRAME_INDEX = "frame_index"
NOT_A_TIME = -(2**63)
NOT_A_FRAME = -1
_TIME_NAME = re.compile(r"^(frame_?)?(time_?stamps?|times?|t|elapsed(_?time)?)$", re.IGNORECASE)


@dataclass(frozen=True)
class FrameColumns:
    """What stands beside the frames.

    Attributes
    ----------
    frames : int
        How many frames have all of it.
    stamps : Stamps or None
        Of each frame; those of lost ones put between their neighbours.
    numbers : ndarray of int64, (frame,), or None
        The recorder's own count, filled alike.
    lost : ndarray of bool, (frame,)
        Frames that are marked as lost: frame index -1, and in a lake also time NaT.
    marks : tuple of str
        The arrays that mark any.
    findings : tuple of Finding
        What is odd.
    """

    frames: int
    stamps: Stamps | None
    numbers: NDArray[np.int64] | None
    lost: NDArray[np.bool_]
    marks: tuple[str, ...]
    findings: tuple[Finding, ...]


def is_lost(values: NDArray[Any], attributes: Mapping[str, Any], path: str) -> NDArray[np.bool_]:
    """Return which values of a column say that there is no frame: NaT, NaN, ``_FillValue``; a frame index of -1."""
    if values.dtype.kind == "M":
        nat: NDArray[np.bool_] = np.isnat(values)
        return nat
    if values.dtype.kind == "f":
        lost: NDArray[np.bool_] = np.isnan(values)
    elif path.rpartition("/")[2] == FRAME_INDEX:
        lost = values == NOT_A_FRAME
    else:
        lost = values == NOT_A_TIME if values.dtype == np.int64 else np.zeros(values.shape, bool)
    fill = attributes.get("_FillValue")
    return lost | (values == fill) if isinstance(fill, int | float) and not isinstance(fill, bool) else lost


def read_values(fact: ArrayFact, start: int, stop: int, *, kept: bool = False) -> NDArray[Any]:
    """Read a part of a column; `kept`: at a URL, as it was in the last half minute.

    Raises
    ------
    SourceError
        See `open_array`; a column that would fill memory; damage.
    """
    array, grid = open_array(fact.folder, fact.documents, kept=kept)
    _check_size(fact, grid, stop - start)
    try:
        return np.asarray(array[start:stop])
    except Exception as error:
        explained = explain(f"{fact.folder}", error)
        raise explained from error


def _check_size(fact: ArrayFact, grid: Grid, values: int) -> None:
    held = max(grid.inner[0], grid.outer[0] * 2) * fact.dtype.itemsize
    if values > MAX_VALUES or held > MAX_CHUNK_BYTES:
        raise SourceFormatError(
            f"{fact.folder}: {fact} in Zarr chunks of {grid.outer[0]} values is too long to be real"
        )


def read_columns(
    store: Store, frames: ArrayFact, *, timestamps: str | None, timezone: str | None, fps: float | None
) -> FrameColumns:
    """Read every column beside the frames.

    Parameters
    ----------
    store : Store
        The group.
    frames : ArrayFact
        The frames.
    timestamps : str or None
        Path of the stamps, if the user named it.
    timezone : str or None
        IANA zone of dates that have none.
    fps : float or None
        The rate that is claimed, to tell units.

    Returns
    -------
    FrameColumns
        Where a column is shorter than the frames, all are cut to the shortest, with a finding. Holds 24 bytes a frame.

    Raises
    ------
    SourceTimeError
        The user named stamps that are not there; or a date without a zone.
    SourceFormatError
        More frames than anybody ever recorded.
    """
    group = frames.path.rpartition("/")[0]
    beside = [fact for fact in store.arrays if len(fact.shape) == 1 and fact.dtype.kind in "iufM"]
    own = [fact for fact in beside if fact.path.rpartition("/")[0] == group]
    if timestamps is None:
        times = sorted((fact for fact in own if _may_be_time(fact, frames)), key=lambda fact: _rank(fact, frames))
    else:
        times = [_named(store, beside, timestamps)]
    index = next((fact for fact in own if fact.path == f"{group}/{FRAME_INDEX}" and fact.dtype.kind in "iu"), None)
    chosen = [fact for fact in (*times[:1], index) if fact is not None]
    if frames.shape[0] > MAX_VALUES:
        raise SourceFormatError(f"{store.path}: {frames} promises {frames.shape[0]} frames: too many to be real")
    kept = min([frames.shape[0], *(fact.shape[0] for fact in chosen)])
    findings: list[Finding] = []
    if kept < frames.shape[0]:
        message = f"{frames.shape[0]} frames but {kept} stamps: the last {frames.shape[0] - kept} frames are left out"
        findings.append(Finding("column length", message, kept))
    lost = np.zeros(kept, bool)
    marks: list[str] = []
    columns = {fact.path: read_values(fact, 0, kept) for fact in chosen}
    for fact in chosen:
        marked = is_lost(columns[fact.path], fact.attributes, fact.path)
        if marked.any() and (fact is index or store.is_lake):
            marks.append(fact.path)
            lost |= marked
    stamps = (
        None if lost.all() or not times else _stamps(times[0], columns[times[0].path], lost, timezone, fps, findings)
    )
    if timestamps is not None and stamps is None:
        raise SourceTimeError(f"{store.path}: {timestamps} cannot be the stamps: {findings[-1].message}")
    numbers = None
    if index is not None and not lost.all():
        numbers = fill_stamps(columns[index.path].astype(np.int64), ~lost)
    return FrameColumns(kept, stamps, numbers, lost, tuple(marks), tuple(findings))


def _may_be_time(fact: ArrayFact, frames: ArrayFact) -> bool:
    name, length = fact.path.rpartition("/")[2], fact.shape[0]
    if name == FRAME_INDEX or 2 * length < frames.shape[0]:
        return False
    units = fact.attributes.get("units")
    is_time = fact.dtype.kind == "M" or (isinstance(units, str) and per_second_of(units) is not None)
    is_time = is_time or (_TIME_NAME.match(name) is not None and not isinstance(units, str))
    return is_time and (length == frames.shape[0] or (fact.dims[0] != "" and fact.dims == frames.dims[:1]))


def _rank(fact: ArrayFact, frames: ArrayFact) -> tuple[bool, bool, bool, str]:
    """Order by: the coordinate of the frames' own axis, absolute times, a name that says so."""
    name, units = fact.path.rpartition("/")[2], str(fact.attributes.get("units", ""))
    is_absolute = fact.dtype.kind == "M" or " since " in units
    return (name != frames.dims[0] or not name, not is_absolute, _TIME_NAME.match(name) is None, fact.path)


def _named(store: Store, columns: list[ArrayFact], path: str) -> ArrayFact:
    wanted = "/" + path.strip("/")
    for fact in columns:
        if fact.path == wanted:
            return fact
    there = ", ".join(str(fact) for fact in columns) or "none"
    raise SourceTimeError(
        f"{store.path}: there is no column of stamps {path!r}; one-dimensional arrays: {there}",
        hint="name one of these",
    )


def _stamps(
    fact: ArrayFact,
    values: NDArray[Any],
    lost: NDArray[np.bool_],
    timezone: str | None,
    fps: float | None,
    findings: list[Finding],
) -> Stamps | None:
    empty = is_lost(values, fact.attributes, fact.path)
    known = values[~(empty | lost)]
    numbers = known.astype(np.int64) if values.dtype.kind == "M" else known
    if not len(known) or (len(known) > 1 and not numbers.any()):
        findings.append(Finding("stamps", f"{fact.path} is all {'zero' if len(known) else 'empty'}: ignored"))
        return None
    if (empty & ~lost).any():
        message = f"{int((empty & ~lost).sum())} frames have no time in {fact.path}: {how_filled(~empty | lost)}"
        findings.append(Finding("stamps", message, int(np.argmax(empty & ~lost))))
    if values.dtype.kind == "M":
        ns = known.astype("M8[ns]").astype(np.int64)
        absolute = True
    else:
        units = fact.attributes.get("units")
        try:
            ns, absolute, more = decode_plain(known, units if isinstance(units, str) else None, timezone, fps)
        except OverflowError as error:
            findings.append(Finding("stamps", f"{fact.path} is ignored: {error}"))
            return None
        except IngestError as error:
            raise type(error)(f"{fact.folder}: {error}", hint=error.hint) from error
        findings.extend(more)
    whole = np.zeros(len(values), np.int64)
    whole[~(empty | lost)] = ns
    return Stamps(fill_stamps(whole, ~(empty | lost)), absolute, fact.path)
