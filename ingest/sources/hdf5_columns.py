"""Per-frame columns of HDF5 files: areaDetector, Atomscale chunk files, plain ones."""

from __future__ import annotations

import re
from dataclasses import dataclass

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.errors import NoFramesError, SourceTimeError
from ingest.sources.facts import FILE_END, FILE_START, Fact
from ingest.sources.hdf5_layout import Contents, DatasetFact
from ingest.sources.hdf5_nexus import holders, text_of, time_columns
from ingest.sources.hdf5_times import Stamps, decode_epics, decode_plain, spread
from ingest.sources.start import NS, parse_time, unix_number_to_ns
from ingest.timing import Finding

__all__ = ["FILE_END", "FILE_START", "Columns", "check_axes", "read_columns"]

_COLUMN = re.compile(
    r"^(?:frame_?)?(?P<word>time_?stamps?|times?|t|elapsed(?:_?time)?)"
    r"(?:[ _]?[(\[]?(?P<unit>[mun]?s|sec|seconds)[)\]]?)?$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Columns:
    """The columns of one file, each as long as its frames: stamps, the camera's own count, and what is odd."""

    frames: int
    stamps: Stamps | None = None
    frame_numbers: NDArray[np.int64] | None = None
    findings: tuple[Finding, ...] = ()


def read_columns(
    file: h5py.File,
    contents: Contents,
    frames_path: str,
    frames: int,
    facts: dict[str, Fact],
    *,
    timestamps: str | None,
    timezone: str | None,
    fps: float | None,
    latest_ns: int,
    named: Stamps | None = None,
) -> Columns:
    """Read every per-frame column of a file.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    contents : Contents
        What it holds.
    frames_path : str
        Where the frames are.
    frames : int
        How many are stored.
    facts : dict
        Attributes, lower-case names.
    timestamps : str or None
        Path of the stamps, if the user named it.
    timezone : str or None
        IANA zone of dates that have none.
    fps : float or None
        The rate that the file claims, to tell units.
    latest_ns : int
        Now.
    named : Stamps or None
        What the names of the frames say, where each is a dataset of its own.

    Returns
    -------
    Columns
        Where columns are shorter than the frames, all are cut to the shortest, with a finding.

    Raises
    ------
    SourceTimeError
        The user named stamps that are not there; or a date without a zone.
    """
    reader = _Reader(file, contents, frames_path, frames, timezone, fps, latest_ns)
    stamps: Stamps | None
    if timestamps is not None:
        stamps = reader.named(timestamps)
    else:
        stamps = named or reader.epics() or reader.nexus() or reader.column()
        if stamps is None:
            stamps = reader.file_span(facts)
        elif not stamps.absolute and (start_ns := reader.unix(facts.get(FILE_START))) is not None:
            stamps = Stamps(stamps.ns - stamps.ns[0] + start_ns, True, FILE_START)
    numbers = reader.take_named("NDArrayUniqueId")
    kept = min([frames, *(len(column) for column in (stamps.ns if stamps else None, numbers) if column is not None)])
    if kept < frames:
        message = f"{frames} frames but {kept} stamps: the last {frames - kept} frames are left out"
        reader.findings.append(Finding("column length", message, kept))
    return Columns(
        kept,
        Stamps(stamps.ns[:kept], stamps.absolute, stamps.origin) if stamps else None,
        None if numbers is None else numbers[:kept].astype(np.int64),
        tuple(reader.findings),
    )


def check_axes(contents: Contents, frames_path: str, path: str) -> None:
    """Refuse frames whose first axis is not time, as the stamps beside them tell.

    Parameters
    ----------
    contents : Contents
        What the file holds.
    frames_path : str
        The frames.
    path : str
        The file, for messages.

    Raises
    ------
    NoFramesError
        Exactly one axis is as long as the stamps in their group, and it is not the first.
    """
    frames = contents.get(frames_path)
    if frames is None or len(frames.shape) != 3:
        return
    home = frames_path.rpartition("/")[0]
    columns = [
        found
        for found in contents.datasets
        if len(found.shape) == 1 and found.dtype.kind in "iuf" and found.path.rpartition("/")[0] == home
        if (match := _COLUMN.match(found.path.rpartition("/")[2])) is not None and match["word"].lower()[0] == "t"
    ]
    lengths = {found.shape[0] for found in columns}
    if frames.shape[0] in lengths:
        return
    for found in columns:
        if frames.shape.count(found.shape[0]) == 1:
            axis = frames.shape.index(found.shape[0])
            raise NoFramesError(
                f"{path}: {frames}: its axis {axis}, not its first, is as long as {found}: it is not (frame, y, x)",
                hint=f"transpose it to (frame, y, x): `numpy.moveaxis(frames, {axis}, 0)`",
            )


class _Reader:
    """Finds and reads the columns of one file; what is odd about them goes into `findings`."""

    def __init__(
        self,
        file: h5py.File,
        contents: Contents,
        frames_path: str,
        frames: int,
        timezone: str | None,
        fps: float | None,
        latest_ns: int,
    ) -> None:
        self.file, self.contents, self.frames_path, self.frames = file, contents, frames_path, frames
        self.timezone, self.fps, self.latest_ns = timezone, fps, latest_ns
        self.findings: list[Finding] = []
        self.columns = [fact for fact in contents.datasets if len(fact.shape) == 1 and fact.dtype.kind in "iuf"]

    def named(self, path: str) -> Stamps:
        wanted = "/" + path.strip("/")
        fact = next((column for column in self.columns if column.path == wanted), None)
        if fact is None:
            there = ", ".join(str(column) for column in self.columns) or "none"
            raise SourceTimeError(
                f"{self.file.filename}: there is no column of stamps {path!r}; one-dimensional datasets: {there}",
                hint="name one of these",
            )
        values = self.take(fact)
        stamps = None if values is None else self.plain(fact.path, values)
        if stamps is None:
            raise SourceTimeError(
                f"{self.file.filename}: {fact} cannot be the stamps of {self.frames} frames "
                f"({self.findings[-1].message})",
                hint="name a column with a number for each frame",
            )
        return stamps

    def epics(self) -> Stamps | None:
        seconds = self.take_named("NDArrayEpicsTSSec")
        nanoseconds = self.take_named("NDArrayEpicsTSnSec")
        origin = "NDArrayEpicsTSSec"
        if seconds is None or nanoseconds is None:
            seconds, nanoseconds = self.take_named("NDArrayTimeStamp"), None
            origin = "NDArrayTimeStamp"
        else:
            length = min(len(seconds), len(nanoseconds))
            seconds, nanoseconds = seconds[:length], nanoseconds[:length]
        if seconds is None:
            return None
        try:
            ns, absolute, findings = decode_epics(seconds, nanoseconds, self.latest_ns)
        except OverflowError as error:
            self.ignored(origin, error)
            return None
        self.findings.extend(findings)
        return Stamps(ns, absolute, origin)

    def ignored(self, path: str, error: Exception) -> None:
        self.findings.append(Finding("stamps", f"{path} is ignored: {error}"))

    def nexus(self) -> Stamps | None:
        for path in time_columns(
            self.file, holders(self.file, self.contents.classes, self.frames_path), self.frames_path
        ):
            column = self.file[path]
            values = self.take(DatasetFact(path, tuple(column.shape), column.dtype))
            stamps = None if values is None else self.plain(path, values)
            if stamps is not None:
                return stamps
        return None

    def column(self) -> Stamps | None:
        home = self.frames_path.rpartition("/")[0]

        def rank(fact: DatasetFact) -> tuple[bool, bool, int, str]:
            group, _, name = fact.path.rpartition("/")
            return (group != home, "stamp" not in name.lower(), len(fact.path), fact.path)

        for fact in sorted(self.columns, key=rank):
            group, _, name = fact.path.rpartition("/")
            match = _COLUMN.match(name)
            # Only what is plainly about frames may be of another length; "time" may belong to a slower log.
            sure = group == home and match is not None and "stamp" in match["word"].lower()
            if match is None or not (fact.shape[0] == self.frames or sure):
                continue
            values = self.take(fact)
            stamps = None if values is None else self.plain(fact.path, values, match["unit"])
            if stamps is not None:
                return stamps
        return None

    def file_span(self, facts: dict[str, Fact]) -> Stamps | None:
        """Atomscale chunk files say when they begin and end, not when each frame was taken."""
        start_ns, end_ns = self.unix(facts.get(FILE_START)), self.unix(facts.get(FILE_END))
        if start_ns is None:
            return None
        if end_ns is None or end_ns <= start_ns:
            if not self.fps:
                return None
            end_ns = start_ns + round(self.frames / self.fps * NS)
            self.findings.append(Finding("stamps", f"no end time in the file: taken as {self.fps} fps from its start"))
        return Stamps(spread(start_ns, end_ns, self.frames), True, FILE_START)

    @staticmethod
    def unix(value: Fact | None) -> int | None:
        try:
            return None if value is None else unix_number_to_ns(float(value))
        except ValueError:
            return None

    def plain(self, path: str, values: NDArray[np.generic], unit: str | None = None) -> Stamps | None:
        attrs = self.file[path].attrs
        units = text_of(attrs.get("units")) or unit
        try:
            ns, absolute, findings = decode_plain(values, units, self.timezone, self.fps)
        except OverflowError as error:
            self.ignored(path, error)
            return None
        self.findings.extend(findings)
        begin = text_of(attrs.get("start"))  # NeXus: the date from which the column counts
        if not absolute and begin is not None:
            start_ns = parse_time(begin, f"{path} @start = {begin!r}", self.timezone)
            if start_ns is not None:
                return Stamps(start_ns + ns, True, path)
        return Stamps(ns, absolute, path)

    def take_named(self, name: str) -> NDArray[np.generic] | None:
        fact = next((column for column in self.columns if column.path.rpartition("/")[2] == name), None)
        return None if fact is None else self.take(fact)

    def take(self, fact: DatasetFact) -> NDArray[np.generic] | None:
        """Read one column, no longer than the frames; None, with a finding, if it says nothing."""
        length = fact.shape[0]
        if 2 * length < self.frames:
            self.findings.append(Finding("column length", f"{fact.path} has {length} values for {self.frames} frames"))
            return None
        if length > self.frames:
            message = (
                f"{fact.path} has {length} values, {length - self.frames} more than there are frames: these are left"
            )
            self.findings.append(Finding("column length", message))
        values: NDArray[np.generic] = self.file[fact.path][: self.frames]
        if not np.isfinite(values).all():
            self.findings.append(Finding("stamps", f"{fact.path} has NaN or infinite values: ignored"))
            return None
        if not values.any() and len(values) > 1 and "nSec" not in fact.path:
            self.findings.append(Finding("stamps", f"{fact.path} is all zero: ignored"))
            return None
        return values
