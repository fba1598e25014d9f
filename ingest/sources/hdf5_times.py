"""Per-frame stamps in HDF5 files, as int64 ns: areaDetector, Atomscale chunk files, plain columns."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceTimeError
from ingest.sources.hdf5_layout import Contents, DatasetFact, Fact
from ingest.sources.start import NS, UNITS_PER_S, UNIX_END_S, UNIX_FIRST_S, parse_time, unix_number_to_ns
from ingest.timing import Finding

__all__ = ["FILE_START", "Columns", "Stamps", "decode_epics", "decode_plain", "read_columns", "spread"]

# EPICS counts from 1990-01-01 UTC; ADCore writes that into files (FORMATS.md 1.5).
EPICS_EPOCH_S = 631_152_000
# Root attributes of Atomscale chunk files, byte strings (FORMATS.md 1.5).
FILE_START, FILE_END = "start_unix_ms_utc", "end_unix_ms_utc"
EPICS_FIRST_S = 347_155_200  # 2001-01-01: less is time since some driver's start
_PER_S = {
    "s": 1, "sec": 1, "secs": 1, "second": 1, "seconds": 1,
    "ms": 10**3, "msec": 10**3, "millisecond": 10**3, "milliseconds": 10**3,
    "us": 10**6, "usec": 10**6, "µs": 10**6, "microsecond": 10**6, "microseconds": 10**6,
    "ns": 10**9, "nsec": 10**9, "nanosecond": 10**9, "nanoseconds": 10**9,
}  # fmt: skip
_COLUMN = re.compile(
    r"^(?:frame_?)?(?P<word>time_?stamps?|times?|t|elapsed(?:_?time)?)"
    r"(?:[ _]?[(\[]?(?P<unit>[mun]?s|sec|seconds)[)\]]?)?$",
    re.IGNORECASE,
)
_SINCE = re.compile(r"^\s*([a-zµ]+)\s+since\s+(.+?)\s*$", re.IGNORECASE)


@dataclass(frozen=True)
class Stamps:
    """Recorded stamps: (frame,) int64 ns, Unix UTC if `absolute`, else from an unknown start; and their origin."""

    ns: NDArray[np.int64]
    absolute: bool
    origin: str


@dataclass(frozen=True)
class Columns:
    """The columns of one file, each as long as its frames: stamps, the camera's own count, and what is odd."""

    frames: int
    stamps: Stamps | None = None
    frame_numbers: NDArray[np.int64] | None = None
    findings: tuple[Finding, ...] = ()


def spread(start_ns: int, end_ns: int, frames: int) -> NDArray[np.int64]:
    """Return stamps spread evenly over a chunk file's span: ``start + i * (end - start) / frames``, exact integers."""
    index = np.arange(frames, dtype=np.int64)
    whole, rest = divmod(end_ns - start_ns, frames)
    return start_ns + index * whole + index * rest // frames


def decode_epics(
    seconds: NDArray[np.generic], nanoseconds: NDArray[np.generic] | None, latest_ns: int
) -> tuple[NDArray[np.int64], bool, tuple[Finding, ...]]:
    """Bring areaDetector stamps to Unix ns.

    Parameters
    ----------
    seconds : ndarray of int or float, (frame,)
        ``NDArrayEpicsTSSec`` or ``NDArrayTimeStamp``, seconds since 1990.
    nanoseconds : ndarray of int, (frame,), or None
        ``NDArrayEpicsTSnSec``.
    latest_ns : int
        Now: no recording is from the future.

    Returns
    -------
    timestamps_ns : ndarray of int64, (frame,)
        Unix ns UTC, or from an unknown start.
    absolute : bool
        Which of these.
    findings : tuple of Finding
        Where another epoch than EPICS's was inferred: seconds that would lie in the future are Unix already, seconds
        before 2001 are from a driver that counts from its own start (ADCore NDArray.h:122).
    """
    ns = _to_ns(seconds, 1)
    if nanoseconds is not None:
        ns = ns + nanoseconds.astype(np.int64)
    first_s = int(ns[0]) // NS
    if first_s < EPICS_FIRST_S:
        return ns, False, (Finding("stamps", f"stamps begin at {first_s} s: from the driver's start, not from 1990"),)
    epics = ns + EPICS_EPOCH_S * NS
    if int(epics[0]) <= latest_ns:
        return epics, True, ()
    if int(ns[0]) <= latest_ns:
        return ns, True, (Finding("stamps", "stamps are Unix times, where EPICS ones (from 1990) were expected"),)
    return (
        ns,
        False,
        (Finding("stamps", f"stamps begin at {first_s} s, in the future by any epoch: taken as relative"),),
    )


def decode_plain(
    values: NDArray[np.generic], units: str | None, timezone: str | None, fps: float | None = None
) -> tuple[NDArray[np.int64], bool, tuple[Finding, ...]]:
    """Bring a column of times to ns.

    Parameters
    ----------
    values : ndarray of int or float, (frame,)
        Stamps.
    units : str or None
        ``"ms"``, ``"seconds since 2023-10-03 16:17:13"``, ...; None: told by size. Absolute times are those between
        2001 and 2103 in s, ms, us or ns; the unit of others is the one whose rate is nearest to `fps`, else seconds
        for floats, and for integers the coarsest unit that gives under 2000 frames per second.
    timezone : str or None
        IANA zone of a date in `units` that has none.
    fps : float or None
        The rate that the file claims.

    Returns
    -------
    timestamps_ns : ndarray of int64, (frame,)
        Unix ns UTC, or from an unknown start.
    absolute : bool
        Which of these.
    findings : tuple of Finding
        Where a unit was inferred that is not seconds.

    Raises
    ------
    SourceTimeError
        A date in `units` without a zone.
    """
    first = values[0].item()
    since = _SINCE.match(units) if units else None
    if since is not None and since[1].lower() in _PER_S:
        epoch_ns = _epoch(since[2], timezone)
        if epoch_ns is not None:
            return epoch_ns + _to_ns(values, _PER_S[since[1].lower()]), True, ()
    per_s = _PER_S.get(units.strip().lower()) if units else None
    known = (per_s,) if per_s is not None else UNITS_PER_S
    for candidate in known:
        if UNIX_FIRST_S * candidate <= first < UNIX_END_S * candidate:
            return _to_ns(values, candidate), True, ()
    if per_s is not None:
        return _to_ns(values, per_s), False, ()
    per_s = _guess_unit(values, fps)
    name = {1: "s", 10**3: "ms", 10**6: "us", 10**9: "ns"}[per_s]
    guess = () if per_s == 1 else (Finding("stamp unit", f"stamps have no unit; by their steps they are in {name}"),)
    return _to_ns(values, per_s), False, guess


def _epoch(text: str, timezone: str | None) -> int | None:
    iso = text if ":" in text else f"{text} 00:00"
    # CF: a date without an offset is UTC only by custom; a lab's file may mean its wall clock, so a zone is asked for,
    # but for the Unix epoch, which nobody means locally.
    if re.match(r"^1970-0?1-0?1", text):
        return 0
    return parse_time(iso, f"the stamps' unit ({text})", timezone)


def _guess_unit(values: NDArray[np.generic], fps: float | None) -> int:
    step = float(np.median(np.diff(values.astype(np.float64)))) if len(values) > 1 else 0.0
    if step <= 0:
        return 1
    if fps:
        return min(UNITS_PER_S, key=lambda per_s: abs(np.log(per_s / step / fps)))
    if values.dtype.kind == "f":
        return 1
    return next((per_s for per_s in reversed(UNITS_PER_S) if per_s / step < 2000), 1)


def _to_ns(values: NDArray[np.generic], per_s: int) -> NDArray[np.int64]:
    factor = NS // per_s
    if values.dtype.kind in "ui":
        return values.astype(np.int64) * factor
    # The whole part apart: a float64 of Unix ns would be off by 256 ns.
    wide = values.astype(np.float64)
    whole = np.floor(wide)
    return whole.astype(np.int64) * factor + np.rint((wide - whole) * factor).astype(np.int64)


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
        stamps = reader.epics() or reader.column()
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


class _Reader:
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
        if values is None:
            raise SourceTimeError(
                f"{self.file.filename}: {fact} cannot be the stamps of {self.frames} frames "
                f"({self.findings[-1].message})",
                hint="name a column with a number for each frame",
            )
        return self.plain(fact, values)

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
        ns, absolute, findings = decode_epics(seconds, nanoseconds, self.latest_ns)
        self.findings.extend(findings)
        return Stamps(ns, absolute, origin)

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
            if values is not None:
                return self.plain(fact, values, match["unit"])
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

    def plain(self, fact: DatasetFact, values: NDArray[np.generic], unit: str | None = None) -> Stamps:
        said: Any = self.file[fact.path].attrs.get("units", unit)
        units = said.decode() if isinstance(said, bytes) else said
        ns, absolute, findings = decode_plain(
            values, units if isinstance(units, str) else None, self.timezone, self.fps
        )
        self.findings.extend(findings)
        begin = self.file[fact.path].attrs.get("start")  # NeXus: the date from which the column counts
        if not absolute and isinstance(begin, str | bytes):
            text = begin.decode() if isinstance(begin, bytes) else begin
            start_ns = parse_time(text, f"{fact.path} @start = {text!r}", self.timezone)
            if start_ns is not None:
                return Stamps(start_ns + ns, True, fact.path)
        return Stamps(ns, absolute, fact.path)

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
