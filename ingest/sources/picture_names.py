"""What the names of pictures tell: which belong together, their numbers, their times. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.sources.base import SourceSpec
from ingest.sources.hdf5_times import Stamps
from ingest.sources.natural import natural_key
from ingest.sources.start import NameTime, local_to_unix_ns, time_in_name
from ingest.timing import Finding

__all__ = ["elapsed_in_names", "frame_numbers_in", "name_pattern", "sequence_spec", "sequences", "stamps_in_names"]

NS = 1_000_000_000
_NUMBER = re.compile(r"\d+")
# Elapsed seconds between dashes, as Kashiwa's raw files have them (FORMATS.md 1.4): name-12.5-x.bin
_ELAPSED = re.compile(r"-(\d{1,9}(?:\.\d{1,9})?)-")


def name_pattern(path: str) -> str:
    """Return a file's name with every number in its stem as ``#``, and the suffix in lower case."""
    stem, suffix = os.path.splitext(os.path.basename(path))
    return _NUMBER.sub("#", stem) + suffix.lower()


def sequences(paths: Sequence[str]) -> dict[str, list[str]]:
    """Group the files of one folder whose names differ only in numbers, each group in natural order.

    Where names have several numbers and the last one begins anew at 0 or 1 whenever an earlier one changes
    (``rec-1_00001.tif``, ``rec-2_00001.tif``), it counts the pictures of recordings that are sequences of their own.

    Returns
    -------
    dict of str to list of str
        A label, unique in the folder, to paths.
    """
    groups: dict[str, list[str]] = {}
    for path in paths:
        groups.setdefault(name_pattern(path), []).append(path)
    result: dict[str, list[str]] = {}
    for pattern, members in groups.items():
        members.sort(key=lambda path: (natural_key(os.path.basename(path)), path))
        parts = _recordings(members)
        if parts is None:
            result[pattern] = members
        else:
            result.update(parts)
    return result


def sequence_spec(kind: str, label: str, paths: Sequence[str], *, named_apart: bool) -> SourceSpec:
    """Return the spec of a sequence, or of a file that is alone.

    Parameters
    ----------
    kind : str
        Which reader.
    label : str
        As `sequences` gave it.
    paths : sequence of str
        The sequence.
    named_apart : bool
        Whether the folder holds other sequences, so that its name alone does not do.
    """
    if len(paths) == 1:
        return SourceSpec(kind, tuple(paths))
    name = (("name", _sequence_name(label, paths[0])),) if named_apart else ()
    return SourceSpec(kind, tuple(paths), label, options=name)


def _sequence_name(label: str, path: str) -> str:
    """Return a name for one of several sequences of a folder: the folder's, and what its files' names share."""
    folder = os.path.basename(os.path.dirname(path))
    return f"{folder} {os.path.splitext(label)[0].replace('#', '').strip(' -_.')}".strip()


def _recordings(paths: Sequence[str]) -> dict[str, list[str]] | None:
    """Split a sequence where its last number begins anew; None: it does not."""
    parts: dict[str, list[str]] = {}
    counts: dict[str, list[int]] = {}
    for path in paths:
        stem, suffix = os.path.splitext(os.path.basename(path))
        span = _count_span(stem)
        if span is None:
            return None
        first, end = span
        label = f"{stem[:first]}#{stem[end:]}{suffix.lower()}"
        parts.setdefault(label, []).append(path)
        counts.setdefault(label, []).append(int(stem[first:end]))
    begin_anew = all(len(c) > 1 and c[0] in (0, 1) and c[-1] < 2 * len(c) for c in counts.values())
    return parts if len(parts) > 1 and begin_anew else None


def _count_span(stem: str) -> tuple[int, int] | None:
    """Return where the last number of a name is; None: there is none, or it is a time's seconds or their fraction."""
    found = list(_NUMBER.finditer(stem))
    if not found:
        return None
    last = found[-1]
    time = time_in_name(stem)
    if time is not None and last.start() < (time.end if time.fraction_is_sure else time.seconds_end):
        return None
    return last.span()


def frame_numbers_in(paths: Sequence[str]) -> NDArray[np.int64] | None:
    """Return the count in the pictures' names, if that is what their last number is.

    Parameters
    ----------
    paths : sequence of str
        In order of capture.

    Returns
    -------
    ndarray of int64, (frame,), or None
        None: not all have one, or it does not rise, mostly by 1.
    """
    numbers = []
    for path in paths:
        stem = os.path.splitext(os.path.basename(path))[0]
        span = _count_span(stem)
        if span is None or span[1] - span[0] > 18:
            return None
        numbers.append(int(stem[span[0] : span[1]]))
    column = np.array(numbers, np.int64)
    steps = np.diff(column)
    return column if len(steps) and int(steps.min()) > 0 and float(np.median(steps)) == 1 else None


def stamps_in_names(names: Sequence[str], timezone: str | None) -> tuple[Stamps | None, tuple[Finding, ...]]:
    """Return the capture times that the pictures' names hold.

    Parameters
    ----------
    names : sequence of str
        In order of capture: ``image_2025-12-22___15-39-57.878.pgm``.
    timezone : str or None
        IANA zone of the clock that they were taken from.

    Returns
    -------
    stamps : Stamps or None
        From an unknown start where neither the names nor `timezone` say the zone; None: not every name has a time, or
        all have the same (when the recording began).
    findings : tuple of Finding
        ``"stamps"``: there are times, but they do not rise.

    Raises
    ------
    SourceTimeError, SettingsError
        As `local_to_unix_ns`.
    """
    if len(names) < 2:
        return None, ()
    times = []
    for name in names:
        time = time_in_name(name)
        if time is None:
            return None, ()
        times.append(time)
    first = times[0]
    fractions_count = not all(time.fraction_is_sure for time in times) and _counts_up(
        [time.fraction_ns // 1_000_000 for time in times]
    )
    whole = [round((time.local - first.local).total_seconds()) for time in times]
    naive_ns = np.array(whole, np.int64) * NS
    if not fractions_count:
        naive_ns += np.array([time.fraction_ns - first.fraction_ns for time in times], np.int64)
    if not naive_ns.any():
        return None, ()
    if int(np.diff(naive_ns).min()) <= 0:
        back = int(np.argmax(np.diff(naive_ns) <= 0)) + 1
        message = f"the times in the file names do not rise ({names[back]}): they are not taken as the frames' own"
        return None, (Finding("stamps", message, back),)
    zone = "UTC" if first.is_utc else timezone
    if zone is None:
        return Stamps(naive_ns, False, "file names"), ()
    fraction_ns = 0 if fractions_count else first.fraction_ns
    start_ns, last_ns = (local_to_unix_ns(t.local, zone, f"file name {n}") for t, n in _ends(times, names))
    if last_ns - start_ns == whole[-1] * NS:
        return Stamps(start_ns + fraction_ns + naive_ns, True, "file names"), ()
    # Summer time began or ended meanwhile.
    each = [local_to_unix_ns(t.local, zone, f"file name {n}") for t, n in zip(times, names, strict=True)]
    fractions = np.array([0 if fractions_count else t.fraction_ns for t in times], np.int64)
    return Stamps(np.array(each, np.int64) + fractions, True, "file names"), ()


def _ends(times: Sequence[NameTime], names: Sequence[str]) -> tuple[tuple[NameTime, str], tuple[NameTime, str]]:
    return (times[0], names[0]), (times[-1], names[-1])


def _counts_up(numbers: Sequence[int]) -> bool:
    return float(np.median(np.diff(numbers))) == 1


def elapsed_in_names(names: Sequence[str]) -> tuple[Stamps | None, tuple[Finding, ...]]:
    """Return the elapsed seconds that stand between dashes in names: ``growth-12.5-a.bin``.

    Parameters
    ----------
    names : sequence of str
        In order of capture.

    Returns
    -------
    stamps : Stamps or None
        From an unknown start. None: not every name has such a number, it does not rise, or it is a plain count.
    findings : tuple of Finding
        ``"stamps"``: that they were taken as seconds.
    """
    texts = []
    for name in names:
        match = _ELAPSED.search(os.path.splitext(name)[0])
        if match is None:
            return None, ()
        texts.append(match[1])
    values = np.array([float(text) for text in texts])
    steps = np.diff(values)
    if (
        len(steps) == 0
        or float(steps.min()) <= 0
        or (not any("." in text for text in texts) and bool((steps == 1).all()))
    ):
        return None, ()
    message = f"the numbers between dashes in the file names ({names[0]}) are taken as elapsed seconds"
    return Stamps(np.rint(values * NS).astype(np.int64), False, "file names"), (Finding("stamps", message),)
