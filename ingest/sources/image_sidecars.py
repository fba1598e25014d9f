"""Files beside pictures that describe them: RHEEDCapture's ``frames.csv`` and ``recording.json`` (FORMATS.md 1.4)."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.sources.facts import Fact, add_fact, first_named
from ingest.sources.hdf5_times import Stamps
from ingest.sources.plain_file import os_errors
from ingest.sources.time_texts import filled, first_backward, rises, stamps_of
from ingest.timing import Finding

__all__ = ["FrameTable", "full_scale_said", "read_frame_table", "read_recording"]

FRAMES_CSV, RECORDING_JSON = "frames.csv", "recording.json"
MAX_JSON_BYTES = 4 * 2**20
NS_PER_MS = 1_000_000
NESTING = 3
BITS_FACTS = ("bit_depth_sensor", "bit_depth_readout", "bit_depth", "bits")
Row = dict[str, str]


@dataclass(frozen=True)
class FrameTable:
    """What ``frames.csv`` says of a run's pictures; None where it says nothing.

    Attributes
    ----------
    stamps : Stamps or None
        One a frame.
    frame_numbers : ndarray of int64, (frame,), or None
        Its `frame_index`.
    findings : tuple of Finding
        What is odd about it.
    is_of_run : bool
        Whether it names the run's pictures, or names none but has a row for each.
    """

    stamps: Stamps | None = None
    frame_numbers: NDArray[np.int64] | None = None
    findings: tuple[Finding, ...] = ()
    is_of_run: bool = False


def read_frame_table(paths: Sequence[str], timezone: str | None) -> FrameTable | None:
    """Read the ``frames.csv`` in the pictures' folder.

    Parameters
    ----------
    paths : sequence of str
        The pictures, in order.
    timezone : str or None
        IANA zone of times without one.

    Returns
    -------
    FrameTable or None
        None: there is no such file. Rows are matched by `filename`, else by their order. Absolute `timestamp` where
        these rise, else the first one and `actual_elapsed_ms`; relative where no zone is known. Pictures without a row
        get times between those of their neighbours, and a finding. Holds about 1 kB per row meanwhile.

    Raises
    ------
    SourceReadError
        It is there, but cannot be read.
    SourceTimeError
        A local time that the zone's clock showed twice or never.
    """
    path = os.path.join(os.path.dirname(paths[0]), FRAMES_CSV)
    if not os.path.isfile(path):
        return None
    try:
        with os_errors(path), open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
            rows = [_tidy(row) for row in csv.DictReader(file)]
    except csv.Error as error:
        return FrameTable(findings=(Finding("frames.csv", f"{path} is damaged and not used: {error}"),))
    found = _matched(rows, paths)
    if found is None:
        return FrameTable(findings=(Finding("frames.csv", f"{path} is not of these pictures: not used"),))
    lacking = sum(row is None for row in found)
    if 2 * lacking > len(paths):
        message = f"{path} has rows for {len(paths) - lacking} of {len(paths)} pictures only: not used"
        return FrameTable(findings=(Finding("frames.csv", message),))
    findings: list[Finding] = []
    stamps = _stamps(found, timezone, findings)
    numbers = [None if row is None else _whole(row.get("frame_index")) for row in found]
    column = None
    if all(number is not None for number in numbers):
        column = np.array(numbers, np.int64)
        column = column if len(column) == 1 or int(np.diff(column).min()) > 0 else None
    return FrameTable(stamps, column, tuple(findings), is_of_run=True)


def _tidy(row: Mapping[str | None, Any]) -> Row:
    return {name.strip().lower(): value.strip() for name, value in row.items() if name and isinstance(value, str)}


def _matched(rows: list[Row], paths: Sequence[str]) -> list[Row | None] | None:
    """Return each picture's row; None: the rows are not of these pictures."""
    if not rows:
        return None
    if "filename" not in rows[0]:
        return [*rows] if len(rows) == len(paths) else None
    by_name = {os.path.basename(row.get("filename", "").replace("\\", "/")): row for row in rows}
    found = [by_name.get(os.path.basename(path)) for path in paths]
    return found if any(row is not None for row in found) else None


def _whole(text: str | None) -> int | None:
    try:
        return int(text or "")
    except ValueError:
        return None


def _elapsed_ns(text: str | None) -> int | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return round(value * NS_PER_MS) if abs(value) < 1e15 else None


def _stamps(rows: list[Row | None], timezone: str | None, findings: list[Finding]) -> Stamps | None:
    texts = [None if row is None else row.get("timestamp") for row in rows]
    times = stamps_of(texts, FRAMES_CSV, timezone, findings)
    if times is not None:
        return times
    backward = first_backward(texts, FRAMES_CSV, timezone)
    if backward is not None:
        message = f"by its timestamps, picture {backward} was taken before the one before it: they are not used"
        findings.append(Finding("frames.csv", message, backward))
    # To the second only, or none: the elapsed times are finer.
    elapsed = [None if row is None else _elapsed_ns(row.get("actual_elapsed_ms")) for row in rows]
    if not rises(elapsed):
        known = [(i, value) for i, value in enumerate(elapsed) if value is not None]
        falls = next((i for (_, before), (i, after) in pairwise(known) if after < before), None)
        if falls is not None:
            message = f"by its elapsed times, picture {falls} was taken before the one before it: they are not used"
            findings.append(Finding("frames.csv", message, falls))
        return None
    start = next((i for i, row in enumerate(rows) if row and row.get("timestamp") and elapsed[i] is not None), None)
    if start is not None:
        first = stamps_of([texts[start]], FRAMES_CSV, timezone, findings)
        base = elapsed[start]
        if first is not None and first.absolute and base is not None:
            shift = int(first.ns[0]) - base
            return filled([None if e is None else e + shift for e in elapsed], True, FRAMES_CSV, findings)
    return filled(elapsed, False, FRAMES_CSV, findings)


def read_recording(folder: str) -> tuple[dict[str, Fact], tuple[Finding, ...]]:
    """Read the ``recording.json`` in a folder.

    Parameters
    ----------
    folder : str
        Of the pictures.

    Returns
    -------
    facts : dict
        What it says, by lower-case name, whatever the depth; empty where there is none.
    findings : tuple of Finding
        It is damaged; or it says that the recording was not completed.

    Raises
    ------
    SourceReadError
        It is there, but cannot be read.
    """
    path = os.path.join(folder, RECORDING_JSON)
    if not os.path.isfile(path):
        return {}, ()
    with os_errors(path), open(path, "rb") as file:
        data = file.read(MAX_JSON_BYTES)
    facts: dict[str, Fact] = {}
    try:
        _flatten(json.loads(data), facts, NESTING)
    except (ValueError, RecursionError) as error:
        return {}, (Finding("recording", f"{path} is damaged and not used: {error}"),)
    status = facts.get("status")
    if status is None or status == "completed":
        return facts, ()
    what = {"running": "was interrupted, or still runs", "cancelled": "was cancelled", "error": "ended with an error"}
    said = what.get(str(status), "was not completed")
    more = f": {facts['error_message']}" if "error_message" in facts else ""
    return facts, (Finding("recording", f"{path} says {status!r}: the recording {said}{more}"),)


def _flatten(value: Any, facts: dict[str, Fact], depth: int) -> None:
    if not isinstance(value, dict):
        return
    for name, inner in value.items():
        if not isinstance(inner, dict) and name.lower() not in facts:
            add_fact(facts, name, inner)
    for inner in value.values():
        if depth > 1:
            _flatten(inner, facts, depth - 1)


def full_scale_said(facts: Mapping[str, Fact]) -> float | None:
    """Return the full scale by what is said of bit depth and alignment; None: nothing.

    ``MsbAligned`` 12 bit in 16 means 4095 x 16, other alignments 4095.
    """
    named = first_named(facts, BITS_FACTS)
    bits = None if named is None else _bits(facts[named])
    if bits is None:
        return None
    saved = _bits(facts.get("bit_depth_saved", ""))
    full_scale = 2**bits - 1
    if str(facts.get("alignment", "")).lower().startswith("msb") and saved is not None and saved > bits:
        full_scale <<= saved - bits
    return float(full_scale)


def _bits(value: Fact) -> int | None:
    try:
        bits = int(value)
    except (ValueError, OverflowError):
        return None
    return bits if 1 <= bits <= 64 else None
