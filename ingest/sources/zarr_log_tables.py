"""Instrument readings in Zarr lakes: ``timeseries/<channel>/{time,value}``, found by metadata, read exactly."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SourceError, SourceFormatError, SourceNotFoundError
from ingest.sources.hdf5_times import decode_plain
from ingest.sources.log_columns import unique_names
from ingest.sources.log_times import UNIT_NS, numbers_ns
from ingest.sources.plain_file import os_errors
from ingest.sources.start import NS
from ingest.sources.urls import is_url
from ingest.sources.zarr_documents import Documents, documents_of
from ingest.sources.zarr_files import explain, open_array
from ingest.sources.zarr_layout import LAKE_FORMAT, ArrayFact, Store
from ingest.timing import Finding

__all__ = ["StoredChannel", "StoredColumn", "epoch_of", "find_channels", "times_ns"]

GROUP = "/timeseries"
MAX_CHUNK_BYTES = 2**30
US = NS // 1000
GONE_HINT = (
    "copy it again from where it was recorded; if that leaves out what is all fill value, write it anew with "
    "write_empty_chunks"
)
_SINCE = re.compile(r"\s*(\S+)\s+since\s+(.+?)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StoredChannel:
    """A channel as its metadata describe it.

    Attributes
    ----------
    folder : str
        Its group's name below ``timeseries``.
    name : str
        What it is called: ``long_name`` of its values, else the folder's name.
    units : str or None
        Of the values.
    time, value : ArrayFact
        Its arrays.
    since : str
        Units of its times: ``seconds since 1970-01-01``.
    """

    folder: str
    name: str
    units: str | None
    time: ArrayFact
    value: ArrayFact
    since: str

    @property
    def rows(self) -> int:
        """Rows that have both."""
        return min(self.time.shape[0], self.value.shape[0])


def find_channels(store: Store, only: str | None = None) -> tuple[list[StoredChannel], list[Finding]]:
    """Find the channels of a lake, by metadata.

    Parameters
    ----------
    store : Store
        What the folder holds.
    only : str or None
        The group of the channel, or the array of its values, that was asked for.

    Returns
    -------
    channels : list of StoredChannel
        In the order of the root's attribute ``channels``, where it says one.
    findings : list of Finding
        What should be a channel but is none.
    """
    pairs: dict[str, dict[str, ArrayFact]] = {}
    for fact in store.arrays:
        where, _, name = fact.path.rpartition("/")
        parent, _, folder = where.rpartition("/")
        if parent == GROUP and name in ("time", "value"):
            pairs.setdefault(folder, {})[name] = fact
    channels: list[StoredChannel] = []
    findings = [
        Finding("channel left out", f"{path}: its metadata make no sense")
        for path in store.broken
        if path.startswith(f"{GROUP}/")
    ]
    for folder, arrays in pairs.items():
        problem = _problem(arrays) if _is_text(folder) else "its name is not text"
        if problem is None:
            channels.append(_channel(folder, arrays["time"], arrays["value"]))
        else:
            findings.append(Finding("channel left out", f"{GROUP}/{folder}: {problem}"))
    listed = _listed(store)
    names = {channel.name for channel in channels}
    if listed and (lacking := [name for name in listed if name not in names]):
        shown = ", ".join(repr(name) for name in lacking[:5]) + (", ..." if len(lacking) > 5 else "")
        message = f"the attribute `channels` names {len(listed)}, of which {len(lacking)} are not there: {shown}"
        findings.append(Finding("channel left out", message))
    place = {name: number for number, name in enumerate(listed)}
    channels.sort(key=lambda channel: place.get(channel.name, len(place)))
    if only is not None:
        wanted = "/" + only.strip("/")
        channels = [channel for channel in channels if wanted in (f"{GROUP}/{channel.folder}", channel.value.path)]
    unique, more = unique_names([channel.name for channel in channels])
    named = [replace(channel, name=name) for channel, name in zip(channels, unique, strict=True)]
    return named, [*findings, *more, *_cut(named)]


def _listed(store: Store) -> list[str]:
    names = store.attributes.get("channels")
    if store.attributes.get("format") != LAKE_FORMAT or not isinstance(names, list):
        return []
    return [name for name in names if isinstance(name, str) and name.strip()]


def _channel(folder: str, time: ArrayFact, value: ArrayFact) -> StoredChannel:
    name = _text(value.attributes, "long_name") or unquote(folder, errors="replace")
    return StoredChannel(
        folder, name, _text(value.attributes, "units"), time, value, _text(time.attributes, "units") or ""
    )


def _text(attributes: Mapping[str, Any], name: str) -> str | None:
    value = attributes.get(name)
    return value if isinstance(value, str) and value.strip() and _is_text(value) else None


def _is_text(value: str) -> bool:
    """Whether it can be sent: surrogates, as of file names that are not UTF-8, cannot."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _problem(arrays: Mapping[str, ArrayFact]) -> str | None:
    """Say why two arrays cannot be a channel."""
    lacking = [name for name in ("time", "value") if name not in arrays]
    if lacking:
        return f"has no {lacking[0]}"
    for fact, kinds in ((arrays["time"], "iuf"), (arrays["value"], "buif")):
        if len(fact.shape) != 1 or fact.dtype.kind not in kinds:
            return f"{fact} is not one number a row"
    units = _text(arrays["time"].attributes, "units")
    since = _SINCE.fullmatch(units) if units else None
    if since is None or since[1].lower() not in UNIT_NS:
        return f"its times have units {units!r}; those of a lake are such as 'seconds since 1970-01-01'"
    if {"scale_factor", "add_offset"} & arrays["value"].attributes.keys():
        return "its values are packed (scale_factor, add_offset)"
    return None if min(fact.shape[0] for fact in arrays.values()) else "no rows"


def _cut(channels: list[StoredChannel]) -> list[Finding]:
    findings = []
    for channel in channels:
        times, values = channel.time.shape[0], channel.value.shape[0]
        if times != values:
            message = f"{GROUP}/{channel.folder}: {times} times but {values} values: the rest is left out"
            findings.append(Finding("column length", message))
    return findings


def epoch_of(channel: StoredChannel, timezone: str | None) -> tuple[int, int] | None:
    """Return what one unit of a channel's times is in ns, and Unix ns of their 0; None: there is no such date.

    Raises
    ------
    SourceTimeError
        The date has no zone, and none was given.
    """
    since = _SINCE.fullmatch(channel.since)
    if since is None:
        return None
    epoch_ns, absolute, _ = decode_plain(np.zeros(1), f"s since {since[2]}", timezone)
    return (UNIT_NS[since[1].lower()], int(epoch_ns[0])) if absolute else None


def times_ns(values: NDArray[Any], unit_ns: int, epoch_ns: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Bring stored times to Unix ns, as `numbers_ns` does; seconds to the time that was sent.

    A float64 tells Unix seconds 238 ns apart. Where it is the one nearest to a whole microsecond, that was meant.
    """
    ns, readable = numbers_ns(values, unit_ns)
    if values.dtype.kind == "f" and unit_ns == NS:
        us = np.rint(np.where(readable, values, 0.0) * US)
        meant = (np.abs(us) < 2**53) & (us / US == values)
        ns = np.where(meant, us.astype(np.int64) * (NS // US), ns)
    return ns + epoch_ns, readable


class StoredColumn:
    """One array of a channel, read exactly: what is not there is an error, and not the fill value.

    Parameters
    ----------
    folder : str
        The array's, or its URL.
    documents : Documents, optional
        Its metadata, of an array at a URL; default: read there.
    kept : bool, default False
        Whether what is at a URL may be half a minute old.

    Attributes
    ----------
    grid : Grid
        How it is stored.
    rows : int
        How many it has.

    Raises
    ------
    SourceFormatError
        Stored in a way that would fill memory, or that hides what is missing.
    SourceNotFoundError, SourceReadError, MissingFilterError
        As `open_array`.
    """

    def __init__(self, folder: str, documents: Documents | None = None, *, kept: bool = False) -> None:
        self._folder = folder
        self._array, self.grid = open_array(folder, documents, gone=self._gone, kept=kept)
        together = self.grid.outer[0]
        if len(self.grid.shape) != 1 or together * self._array.dtype.itemsize > MAX_CHUNK_BYTES:
            raise SourceFormatError(f"{folder}: {self.grid.shape} in Zarr chunks of {self.grid.outer}: cannot be rows")
        if self.grid.inner != self.grid.outer:
            raise SourceFormatError(
                f"{folder}: stored in shards, where rows that are missing read as the fill value",
                hint="write it anew without shards",
            )
        self.rows = self.grid.shape[0]

    def read(self, first: int, stop: int) -> NDArray[Any]:
        """Return some rows.

        Raises
        ------
        FrameDataError
            Damaged, or in a file that is not there.
        SourceNotFoundError, SourceReadError
            The whole array is gone; the operating system could not read.

        Notes
        -----
        Holds the rows twice, and one Zarr chunk.
        """
        where = f"{self._folder}: rows {first} to {stop - 1}"
        self._check_files(first, stop, where)
        try:
            values = np.asarray(self._array[first:stop])
        except Exception as error:
            explained = explain(where, error)
            raise explained from error
        self._check_files(first, stop, where)  # of one that went meanwhile zarr has made up what was in it
        return values

    def _gone(self, key: str) -> SourceError:
        if not documents_of([self._folder])[0]:
            return SourceNotFoundError(f"{self._folder}: there is no such Zarr array")
        return FrameDataError(f"{self._folder}: {key} is not there", hint=GONE_HINT)

    def _check_files(self, first: int, stop: int, where: str) -> None:
        if is_url(self._folder):  # reading says so
            return
        for row in self.grid.rows(first, stop):
            if problem := self._problem(self.grid.path(row)):
                raise FrameDataError(f"{where}: {self.grid.key(row)} is {problem}", hint=GONE_HINT)

    def _problem(self, path: str) -> str | None:
        try:
            with os_errors(path):
                now = os.stat(path)
        except SourceNotFoundError:
            if not os.path.isdir(self._folder):  # a disk that is gone is no damage
                raise
            return "not there"
        if not stat.S_ISREG(now.st_mode):
            return "not a file"
        return None if now.st_size else "empty"
