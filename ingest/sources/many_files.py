"""Runs of very many small files, known by a few of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.sources.fingerprint import FINGERPRINTED, Fingerprint, spread
from ingest.sources.plain_file import os_errors, size_bytes

__all__ = ["fingerprint_of_files", "sizes_of"]


def sizes_of(paths: Sequence[str]) -> NDArray[np.int64]:
    """Return the size of each file in bytes: (file,) int64.

    Raises
    ------
    SourceNotFoundError, SourceReadError
        One is not there, or may not be looked at.
    """
    return np.array([size_bytes(path) for path in paths], np.int64)


def fingerprint_of_files(
    paths: Sequence[str], sizes_bytes: NDArray[np.int64], timestamps_ns: NDArray[np.int64] | None
) -> str:
    """Return a run's fingerprint: all sizes, all stamps, and the contents of up to 18 files spread over it.

    Parameters
    ----------
    paths : sequence of str
        In order of capture.
    sizes_bytes : ndarray of int64, (file,)
        Theirs.
    timestamps_ns : ndarray of int64, (frame,), or None
        As recorded.

    Returns
    -------
    str
        32 hex digits. Reads at most 18 x 18 x 64 KiB.

    Raises
    ------
    SourceReadError
        A file cannot be read.
    """
    fingerprint = Fingerprint("")
    for i in spread(len(paths), FINGERPRINTED):
        with os_errors(paths[i]):
            fingerprint.add_file(paths[i])
    if len(paths) > 1:
        fingerprint.add_stamps(sizes_bytes)
    fingerprint.add_stamps(timestamps_ns)
    return fingerprint.hexdigest()
