"""Capture times that a recording gives one by one, as texts or numbers, brought to stamps. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceTimeError
from ingest.sources.facts import Fact
from ingest.sources.fill_stamps import fill_stamps, how_filled
from ingest.sources.hdf5_times import Stamps, decode_plain
from ingest.sources.start import parse_time
from ingest.timing import Finding

__all__ = ["exif_as_iso", "filled", "rises", "stamps_of"]


def stamps_of(
    values: Sequence[Fact | None],
    what: str,
    timezone: str | None,
    findings: list[Finding],
    units: str | None = None,
) -> Stamps | None:
    """Return the stamps that some values are.

    Parameters
    ----------
    values : sequence of str, int, float or None
        One a frame: ISO 8601 texts, or numbers; None where there is none.
    what : str
        Where they were found: the stamps' origin, and for messages.
    timezone : str or None
        IANA zone of texts without one; where both lack it, the stamps are relative, and a finding says so.
    findings : list of Finding
        Gets what is odd about them.
    units : str or None
        Of numbers, as `decode_plain` knows them.

    Returns
    -------
    Stamps or None
        None: under half of the frames have one, or they do not rise.

    Raises
    ------
    SourceTimeError
        A local time that the zone's clock showed twice or never.
    """
    if any(isinstance(value, str) for value in values):
        column, absolute, more = _of_texts(values, what, timezone)
    else:
        column, absolute, more = _of_numbers(values, timezone, units)
    if not rises(column):
        return None
    findings += more
    return filled(column, absolute, what, findings)


def _of_texts(
    values: Sequence[Fact | None], what: str, timezone: str | None
) -> tuple[list[int | None], bool, tuple[Finding, ...]]:
    texts = [value if isinstance(value, str) else "" for value in values]
    try:
        return [parse_time(text, what, timezone) for text in texts], True, ()
    except SourceTimeError:
        if timezone is not None:
            raise
    message = f"{what}: the times have no zone, so only their steps are used; pass --timezone to use them as they are"
    return [parse_time(text, what, "UTC") for text in texts], False, (Finding("stamps", message),)


def _of_numbers(
    values: Sequence[Fact | None], timezone: str | None, units: str | None
) -> tuple[list[int | None], bool, tuple[Finding, ...]]:
    known = [i for i, value in enumerate(values) if isinstance(value, int | float) and abs(value) < 1e19]
    column: list[int | None] = [None] * len(values)
    if not known:
        return column, False, ()
    numbers = np.array([values[i] for i in known])
    if not np.isfinite(numbers.astype(np.float64)).all():
        return column, False, ()
    try:
        stamps_ns, absolute, findings = decode_plain(numbers, units, timezone)
    except OverflowError:
        return column, False, ()
    for i, stamp in zip(known, stamps_ns.tolist(), strict=True):
        column[i] = stamp
    return column, absolute, findings


def first_backward(values: Sequence[Fact | None], what: str, timezone: str | None) -> int | None:
    """Return the first value, of those that `stamps_of` takes as texts, whose time is before the one before."""
    column, _, _ = _of_texts(values, what, timezone)
    known = [i for i, value in enumerate(column) if value is not None]
    times = [value for value in column if value is not None]
    return next((i for i, before, after in zip(known[1:], times, times[1:], strict=False) if after < before), None)


def rises(column: Sequence[int | None]) -> bool:
    """Whether at least half of the frames have a time, and each is later than the one before."""
    known = np.array([value for value in column if value is not None], np.int64)
    return bool(2 * len(known) >= len(column) and len(known) and (np.diff(known) > 0).all())


def filled(column: Sequence[int | None], absolute: bool, what: str, findings: list[Finding]) -> Stamps:
    """Return stamps for all frames; those without a time of their own lie between their neighbours, and are found."""
    known: NDArray[np.bool_] = np.array([value is not None for value in column])
    if not known.all():
        first = int(np.argmin(known))
        message = f"{int((~known).sum())} of {len(known)} frames have no time in {what}: {how_filled(known)}"
        findings.append(Finding("stamps", message, first))
    stamps_ns = np.array([value or 0 for value in column], np.int64)
    return Stamps(fill_stamps(stamps_ns, known), absolute, what)


def exif_as_iso(text: str | None) -> str | None:
    """Return ``2023:10:03 16:17:13``, as TIFF and EXIF write times, with dashes in its date; None: it is not one."""
    if text is None or len(text) < 19 or text[4:5] not in (":", "-") or text[7:8] not in (":", "-"):
        return None
    return f"{text[:4]}-{text[5:7]}-{text[8:]}".strip()
