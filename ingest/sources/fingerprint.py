"""A fingerprint that tells one recording from another without reading all of it."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import xxhash
from numpy.typing import NDArray

from ingest.sources.remote import read_blocks, remote_stat
from ingest.sources.remote_folder import read_parts
from ingest.sources.urls import is_url

__all__ = ["FINGERPRINTED", "Fingerprint", "spread"]

BLOCK_BYTES = 64 * 1024
INTERIOR_BLOCKS = 16
FINGERPRINTED = INTERIOR_BLOCKS + 2
"""How many blocks of a file, or files of a run, are looked at: the first, the last and those in between."""


class Fingerprint:
    """Collects what identifies a run: XXH3-128 over each file's size and samples, dataset path and all stamps.

    Neither a file's path nor its mtime enters, so a copy of a recording has the fingerprint of the original.

    Parameters
    ----------
    dataset : str
        Path of the frames inside the file(s), which tells the runs of one file apart.
    """

    def __init__(self, dataset: str) -> None:
        self._hash = xxhash.xxh3_128()
        self._part(b"dataset", dataset.encode())

    def add_file(self, path: str) -> None:
        """Add a file: its size, head, tail and 16 evenly spaced interior blocks of 64 KiB.

        Parameters
        ----------
        path : str
            The file, or its URL. Reads at most 18 x 64 KiB, and a shorter file whole.

        Raises
        ------
        OSError
            The file cannot be read; of what is at a URL also other kinds of `SourceError`.
        """
        if is_url(path):
            size_bytes = remote_stat(path).size_bytes
            self._part(b"file", str(size_bytes).encode())
            for block in read_blocks(path, _block_offsets(size_bytes), BLOCK_BYTES):
                self._part(b"block", block)
            return
        with open(path, "rb", buffering=0) as file:
            size_bytes = os.fstat(file.fileno()).st_size
            self._part(b"file", str(size_bytes).encode())
            for offset in _block_offsets(size_bytes):
                self._part(b"block", os.pread(file.fileno(), BLOCK_BYTES, offset))

    def add_array(self, metadata: bytes, sample: Sequence[tuple[str, str, int]], files: int) -> None:
        """Add an array that is stored in many files, as Zarr does: its metadata, and both ends of some of its files.

        Parameters
        ----------
        metadata : bytes
            What describes the array.
        sample : sequence of (key, path, size)
            Those of its files that `spread` gives, named within the array by their keys; paths or URLs, sizes in bytes.
        files : int
            How many there are. Reads 128 KiB of each in the sample.

        Raises
        ------
        OSError
            A file cannot be read; of what is at a URL also other kinds of `SourceError`.
        """
        self._part(b"metadata", metadata)
        self._part(b"files", str(files).encode())
        ends = _both_ends([(path, size) for _, path, size in sample])
        for (key, _, size), (head, tail) in zip(sample, ends, strict=True):
            self._part(b"file", f"{key} {size}".encode())
            self._part(b"block", head)
            self._part(b"block", tail)

    def add_stamps(self, timestamps_ns: NDArray[np.int64] | None) -> None:
        """Add all recorded stamps, as they were recorded: (frame,) int64 ns, or None where there are none."""
        if timestamps_ns is not None:
            self._part(b"stamps", np.ascontiguousarray(timestamps_ns, "<i8").tobytes())

    def hexdigest(self) -> str:
        """Return the fingerprint: 32 hex digits."""
        return str(self._hash.hexdigest())

    def _part(self, label: bytes, content: bytes) -> None:
        # Label and length make the concatenation unambiguous.
        self._hash.update(b"%s %d:" % (label, len(content)))
        self._hash.update(content)


def spread(count: int, most: int) -> list[int]:
    """Return up to `most` of the numbers 0 to ``count - 1``: first, last, and evenly between."""
    if count <= most:
        return list(range(count))
    return sorted({i * (count - 1) // (most - 1) for i in range(most)})


def _both_ends(files: Sequence[tuple[str, int]]) -> list[tuple[bytes, bytes]]:
    """Return the first and the last 64 KiB of files; of URLs with one request for each piece, all at once."""
    spans = [(0, max(0, size - BLOCK_BYTES)) for _, size in files]
    if not files or not is_url(files[0][0]):
        return [_pread(path, span) for (path, _), span in zip(files, spans, strict=True)]
    wanted = {(path, offset): None for (path, _), span in zip(files, spans, strict=True) for offset in span}
    parts = read_parts([(path, offset, offset + BLOCK_BYTES) for path, offset in wanted])
    got = dict(zip(wanted, parts, strict=True))
    return [(got[path, first], got[path, last]) for (path, _), (first, last) in zip(files, spans, strict=True)]


def _pread(path: str, offsets: tuple[int, int]) -> tuple[bytes, bytes]:
    with open(path, "rb", buffering=0) as file:
        head, tail = (os.pread(file.fileno(), BLOCK_BYTES, offset) for offset in offsets)
    return head, tail


def _block_offsets(size_bytes: int) -> list[int]:
    if size_bytes <= FINGERPRINTED * BLOCK_BYTES:
        return list(range(0, size_bytes, BLOCK_BYTES))
    return spread(size_bytes - BLOCK_BYTES + 1, FINGERPRINTED)
