"""Instrument readings in HDF5 files: which datasets they are, and what their times count."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import h5py
import numpy as np

from ingest.sources.hdf5_file import H5PY_ERRORS
from ingest.sources.hdf5_layout import Contents, DatasetFact
from ingest.sources.hdf5_nexus import text_of
from ingest.sources.hdf5_times import decode_plain
from ingest.sources.log_columns import split_units, time_name, time_unit
from ingest.sources.log_times import UNIT_NS, number_rule
from ingest.timing import Finding

__all__ = ["StoredTable", "StoredTime", "find_tables", "stored_time"]

NXLOG = "NXlog"
# areaDetector's per-frame columns (FORMATS.md 1.5): they belong to the frames.
NDATTRIBUTES = "NDAttributes"
_SINCE = re.compile(r"\s*(\S+)\s+since\s+(.+?)\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class StoredTable:
    """Columns of a file that share a time column.

    Attributes
    ----------
    where : str
        The group.
    time : str
        Path of the times.
    values : tuple of str
        Path of each channel.
    names : tuple of str
        Of the channels.
    units : tuple of (str or None)
        Of the channels.
    rows : int
        Of the shortest column.
    """

    where: str
    time: str
    values: tuple[str, ...]
    names: tuple[str, ...]
    units: tuple[str | None, ...]
    rows: int


@dataclass(frozen=True, slots=True)
class StoredTime:
    """What a column of times counts.

    Attributes
    ----------
    unit_ns : int
        Of a number, after `factor`.
    factor : float
        NeXus' ``scaling_factor``.
    epoch_ns : int
        Unix ns of 0, if `absolute`.
    absolute : bool
        Whether that is known without more.
    start : str or None
        NeXus' ``start``: local or absolute date and time of elapsed 0, as written.
    """

    unit_ns: int
    factor: float = 1.0
    epoch_ns: int = 0
    absolute: bool = False
    start: str | None = None


def find_tables(
    file: h5py.File, contents: Contents, only: str | None = None
) -> tuple[list[StoredTable], list[Finding]]:
    """Find the instrument readings of a file, by headers.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    contents : Contents
        What it holds.
    only : str or None
        The group, or the dataset of values, that was asked for.

    Returns
    -------
    tables : list of StoredTable
        NXlog groups (``time`` and ``value``), and one-dimensional numeric datasets beside a time column of their
        length. Columns of a frame stack (of its length and in its group, or NDAttributes) are none.
    findings : list of Finding
        What looks like readings but was left out.
    """
    groups: dict[str, list[DatasetFact]] = {}
    for fact in contents.datasets:
        groups.setdefault(fact.path.rpartition("/")[0], []).append(fact)
    tables: list[StoredTable] = []
    findings: list[Finding] = []
    for where, facts in groups.items():
        if NDATTRIBUTES in where.split("/"):
            continue
        try:
            group = file[where or "/"]
            if contents.classes.get(where) == NXLOG:
                table = _nxlog(where, group, findings)
                tables += [table] if table else []
            else:
                tables += _plain(where, group, facts, findings)
        except (*H5PY_ERRORS, TypeError) as error:  # what is damaged here must not cost the frames
            findings.append(Finding("channel left out", f"{where or '/'}: cannot be looked at: {error}"))
    if only is not None:
        tables = [table for found in tables if (table := _restricted(found, "/" + only.strip("/")))]
    return _named_uniquely(tables), findings


def _restricted(table: StoredTable, wanted: str) -> StoredTable | None:
    if table.where == wanted:
        return table
    if wanted not in table.values:
        return None
    i = table.values.index(wanted)
    return replace(table, values=(wanted,), names=(table.names[i],), units=(table.units[i],))


def _nxlog(where: str, group: Any, findings: list[Finding]) -> StoredTable | None:
    times, values = _member(group, "time"), _member(group, "value")
    lacking = [name for name, member in (("time", times), ("value", values)) if member is None]
    if times is None or values is None:
        findings.append(Finding("channel left out", f"{where}: an NXlog without a {' and a '.join(lacking)}"))
        return None
    if _length(times) is None or times.dtype.kind not in "iuf":
        findings.append(Finding("channel left out", f"{where}/time: {times.shape} {times.dtype} cannot be times"))
        return None
    problem = _unfit(values)
    if problem:
        findings.append(Finding("channel left out", f"{where}/value: {problem}"))
        return None
    rows = min(times.shape[0], values.shape[0])
    if times.shape[0] != values.shape[0]:
        message = f"{where}: {times.shape[0]} times but {values.shape[0]} values: the rest is left out"
        findings.append(Finding("column length", message))
    if rows == 0:
        findings.append(Finding("channel left out", f"{where}: no rows"))
        return None
    parent, _, name = where.rpartition("/")
    # NXsensor calls its log so; the sensor's name is what people know.
    name = parent.rpartition("/")[2] or name if name == "value_log" else name
    units = text_of(values.attrs.get("units")) or None
    return StoredTable(where, f"{where}/time", (f"{where}/value",), (name,), (units,), rows)


def _plain(where: str, group: Any, facts: Iterable[DatasetFact], findings: list[Finding]) -> list[StoredTable]:
    """Return the tables of one group: for each length that a time column has, that and the others of the length."""
    listed = {fact.path.rpartition("/")[2] for fact in facts}
    # A time column that several groups share by links is listed once only.
    others = [name for name in group if isinstance(name, str) and name not in listed]
    linked = [name for name in others if time_name(*split_units(name)) and _member(group, name)]
    stacks = {fact.shape[0] for fact in facts if fact.stack}
    by_length: dict[int, list[str]] = {}
    for name in (*sorted(listed), *linked):
        member = _member(group, name)
        if member is not None and (length := _length(member)) is not None and length not in stacks:
            by_length.setdefault(length, []).append(name)
    tables = []
    for length, names in by_length.items():
        times = [name for name in names if group[name].dtype.kind in "iuf" and _is_time(group[name], name)]
        if not times or len(names) < 2:
            continue
        time = max(times, key=lambda name: _rank(group[name], length))
        fit = []
        for name in names:
            problem = _unfit(group[name])
            if problem:
                findings.append(Finding("channel left out", f"{where}/{name}: {problem}"))
            elif name != time:
                fit.append(name)
        if length == 0:
            findings.append(Finding("channel left out", f"{where}: no rows in {', '.join(fit[:5])}"))
        elif fit:
            tables.append(_plain_table(where, group, time, fit, length))
    findings += [
        Finding("channel left out", f"{fact}: more than one value a row")
        for fact in facts
        if tables and fact.numeric and len(fact.shape) == 2 and fact.shape[1] != 1 and fact.shape[0] in by_length
    ]
    return tables


def _plain_table(where: str, group: Any, time: str, names: list[str], rows: int) -> StoredTable:
    titles = [split_units(name) for name in names]
    return StoredTable(
        where,
        f"{where}/{time}",
        tuple(f"{where}/{name}" for name in names),
        tuple(name for name, _ in titles),
        tuple(
            text_of(group[name].attrs.get("units")) or text_of(group[name].attrs.get("unit")) or unit
            for name, (_, unit) in zip(names, titles, strict=True)
        ),
        rows,
    )


def _member(group: Any, name: str) -> Any:
    try:
        member = group.get(name)
        _ = member.dtype if isinstance(member, h5py.Dataset) else None
    except (KeyError, OSError, RuntimeError, TypeError):  # a link that leads nowhere, a type that NumPy does not know
        return None
    return member if isinstance(member, h5py.Dataset) else None


def _length(dataset: Any) -> int | None:
    """Return the rows of a column; one value a row may have an axis of its own."""
    shape = dataset.shape
    return int(shape[0]) if shape and len(shape) <= 2 and shape[1:] in ((), (1,)) else None


def _unfit(dataset: Any) -> str | None:
    """Say why a dataset cannot be a channel."""
    if _length(dataset) is None:
        return f"{dataset.shape} {dataset.dtype} is not one value a row"
    if dataset.dtype.kind in "buif":
        return None
    return "texts, not numbers" if dataset.dtype.kind in "SO" else f"{dataset.dtype} is no number"


def _is_time(dataset: Any, name: str) -> bool:
    bare, unit = split_units(name)
    return time_name(bare, _known_unit(dataset, unit)) is not None


def _known_unit(dataset: Any, unit: str | None) -> str | None:
    told = text_of(dataset.attrs.get("units")) or unit
    since = _SINCE.fullmatch(told) if told else None
    return since[1].lower() if since else told


def _rank(dataset: Any, length: int) -> tuple[bool, bool]:
    """Prefer times that are absolute by their numbers, then ones whose unit is said."""
    units = text_of(dataset.attrs.get("units"))
    try:
        first = float(dataset[:1].reshape(-1)[0]) if length else 0.0
    except H5PY_ERRORS:  # the pass over the rows will say so
        first = 0.0
    rule, _ = number_rule(0, first, None, 2**63)
    return rule.absolute or (units is not None and _SINCE.fullmatch(units) is not None), units is not None


def _named_uniquely(tables: list[StoredTable]) -> list[StoredTable]:
    """Put the group before names that occur more than once."""
    often = Counter(name for table in tables for name in table.names)
    return [
        replace(
            table,
            names=tuple(
                name if often[name] == 1 else path.removesuffix("/value").strip("/")
                for name, path in zip(table.names, table.values, strict=True)
            ),
        )
        for table in tables
    ]


def stored_time(
    dataset: Any, path: str, timezone: str | None, latest_ns: int
) -> tuple[StoredTime, tuple[Finding, ...]]:
    """Decide what a column of times counts, from its attributes and its first value.

    Parameters
    ----------
    dataset : h5py.Dataset
        The column, not empty.
    path : str
        Its name, for messages.
    timezone : str or None
        IANA zone of dates that have none.
    latest_ns : int
        Now, Unix ns.

    Raises
    ------
    SourceTimeError
        A date in its units without a zone.
    """
    units = text_of(dataset.attrs.get("units"))
    factor = _factor(dataset.attrs.get("scaling_factor"))
    since = _SINCE.fullmatch(units) if units else None
    if since is not None and since[1].lower() in UNIT_NS:
        epoch, absolute, _ = decode_plain(np.zeros(1), f"s since {since[2]}", timezone)
        if absolute:
            return StoredTime(UNIT_NS[since[1].lower()], factor, int(epoch[0]), absolute=True), ()
    name, unit = split_units(path.rpartition("/")[2])
    first = float(dataset[:1].reshape(-1)[0]) * factor
    from_start = re.search("elapsed|relative", name, re.IGNORECASE) is not None
    rule, findings = number_rule(0, first, time_unit(name, units or unit), latest_ns, from_start=from_start)
    start = None if rule.absolute else text_of(dataset.attrs.get("start")) or None
    return StoredTime(rule.unit_ns, factor, rule.epoch_ns, rule.absolute, start), tuple(
        Finding(finding.kind, f"{path}: {finding.message}") for finding in findings
    )


def _factor(value: Any) -> float:
    """Return NeXus' ``scaling_factor``, by which times are multiplied; 1 where there is none that makes sense."""
    try:
        factor = float(np.asarray(value, np.float64).reshape(-1)[0])
    except (TypeError, ValueError, IndexError):
        return 1.0
    return factor if np.isfinite(factor) and factor > 0 else 1.0
