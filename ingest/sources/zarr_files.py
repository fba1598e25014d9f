"""Which of a Zarr array's chunk files are there: what is not, Zarr reads as the fill value, without a word."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import zarr
import zarr.storage
from numpy.typing import NDArray

from ingest.errors import (
    FrameDataError,
    MissingFilterError,
    SourceError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
)
from ingest.sources.fingerprint import FINGERPRINTED, Fingerprint, spread
from ingest.sources.plain_file import largest_stored, os_errors, size_bytes
from ingest.sources.remote import remote_stat
from ingest.sources.remote_folder import child_url, list_below
from ingest.sources.urls import is_url
from ingest.sources.zarr_documents import Documents, documents_of
from ingest.sources.zarr_url_store import UrlStore, WhatIsGone

__all__ = ["ChunkFiles", "Grid", "add_to_fingerprint", "chunk_files", "explain", "open_array"]

_NO_CODEC = "UnknownCodecError"  # zarr.errors has one, numcodecs.errors another


@dataclass(frozen=True)
class Grid:
    """How an array is cut into files.

    Attributes
    ----------
    folder : str
        The array's.
    shape : tuple of int
        Of the array.
    outer : tuple of int
        Of what a file holds: a shard, or a Zarr chunk.
    inner : tuple of int
        Of what is decompressed together.
    prefix, separator : str
        How files are named: ``c/0/0/0``, ``0.0.0``, ...
    itemsize : int
        Bytes of a value.
    """

    folder: str
    shape: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    prefix: str
    separator: str
    itemsize: int

    @property
    def tiles(self) -> int:
        """Files that together hold whole frames."""
        return math.prod(-(-size // part) for size, part in zip(self.shape[1:], self.outer[1:], strict=True))

    @property
    def row_bytes(self) -> int:
        """Return the size of what has to be decompressed for any one frame."""
        sizes = (-(-size // part) * part for size, part in zip(self.shape[1:], self.inner[1:], strict=True))
        return self.inner[0] * math.prod(sizes) * self.itemsize

    def key(self, number: int) -> str:
        """Return the name, within the array's folder, of a file by its number in C order."""
        counts = [-(-size // part) for size, part in zip(self.shape[1:], self.outer[1:], strict=True)]
        place = []
        for count in reversed(counts):
            number, rest = divmod(number, count)
            place.append(rest)
        return self.separator.join([*([self.prefix] if self.prefix else []), str(number), *map(str, reversed(place))])

    def path(self, number: int) -> str:
        """Return the path, or URL, of a file by its number in C order."""
        if is_url(self.folder):
            return child_url(self.folder, self.key(number))
        return os.path.join(self.folder, *self.key(number).split("/"))

    def number(self, key: str) -> int | None:
        """Return the number of a file by its name within the array's folder; None: it is no file of the array's."""
        parts = key.split(self.separator) if self.separator == "/" or "/" not in key else []
        first = 1 if self.prefix else 0
        counts = [-(-size // part) for size, part in zip(self.shape, self.outer, strict=True)]
        if parts[:first] != [self.prefix][:first] or len(parts) != first + len(counts):
            return None
        return _number(parts[first:], counts)

    @property
    def file_bytes(self) -> int:
        """Size of what is in a file when it is not compressed: pixels, and a shard's index."""
        together = math.prod(self.outer) // math.prod(self.inner)
        return math.prod(self.outer) * self.itemsize + (32 * together if together > 1 else 0)

    def rows(self, start: int, stop: int) -> range:
        """Return the rows of files that hold these frames."""
        return range(start // self.outer[0], (stop - 1) // self.outer[0] + 1)


def open_array(
    folder: str, documents: Documents | None = None, *, gone: WhatIsGone | None = None, kept: bool = False
) -> tuple[zarr.Array[Any], Grid]:
    """Open one Zarr array for reading.

    Parameters
    ----------
    folder : str
        The array's, or its URL.
    documents : Documents, optional
        Its metadata, of an array at a URL; default: read there.
    gone : callable, optional
        Of an array at a URL: returns the error that it is when a file is not there, by the file's name; None from it,
        or no such function: the file's values read as the fill value, without a word.
    kept : bool, default False
        Whether metadata, and what is read of files, may be half a minute old: for small arrays at URLs.

    Returns
    -------
    array : zarr.Array
        Holds no file open.
    grid : Grid
        How it is stored.

    Raises
    ------
    SourceNotFoundError, SourceReadError
        It is not there, or cannot be read.
    MissingFilterError
        A codec that is not installed.
    SourceFormatError
        Metadata that make no sense, or a grid that is not regular.
    """
    store: zarr.storage.StoreLike
    try:
        if is_url(folder):
            store = UrlStore(folder, documents or documents_of([folder], kept=kept)[0], gone, kept=kept)
            array = zarr.open_array(store, mode="r", zarr_format=store.zarr_format)
            grid = _grid(array, folder)
            store.most_bytes = largest_stored(grid.file_bytes)
        else:
            store = zarr.storage.LocalStore(folder, read_only=True)
            array = zarr.open_array(store, mode="r")
            grid = _grid(array, folder)
    except Exception as error:
        explained = explain(folder, error)
        if isinstance(explained, FrameDataError):
            explained = SourceFormatError(f"{folder}: its Zarr metadata make no sense: {_text(error)}")
        raise explained from error
    return array, grid


def _grid(array: zarr.Array[Any], folder: str) -> Grid:
    metadata: Any = array.metadata
    outer = tuple(array.shards or array.chunks)
    if metadata.zarr_format == 2:
        prefix, separator = "", str(metadata.dimension_separator)
    else:
        encoding = metadata.chunk_key_encoding
        separator = str(encoding.separator)
        prefix = "c" if encoding.name == "default" else ""
    if min(*outer, *array.chunks) < 1:
        raise ValueError(f"Zarr chunks of {outer}")
    itemsize = np.dtype(array.dtype).itemsize
    return Grid(folder, tuple(array.shape), outer, tuple(array.chunks), prefix, separator, itemsize)


def explain(where: str, error: Exception) -> SourceError:
    """Say what an error of zarr, or of one of its codecs, means.

    Returns
    -------
    SourceError
        `SourceReadError` where the operating system failed, `MissingFilterError`, else `FrameDataError`; an error of
        ours as it is.
    """
    if isinstance(error, SourceError):
        return error
    if isinstance(error, FileNotFoundError):
        return SourceNotFoundError(f"{where}: there is no such Zarr array")
    if isinstance(error, PermissionError):
        return SourceReadError(f"{where}: permission denied", hint="let the user who runs this read the folder")
    if isinstance(error, OSError) and error.errno is not None:
        return SourceReadError(f"{where}: could not be read: {error.strerror} (errno {error.errno})")
    if type(error).__name__ == _NO_CODEC:
        return MissingFilterError(
            f"{where}: compressed with a codec that is not installed: {_text(error)}",
            hint="install the package that registers it, or `pip install 'rheed-ingest[codecs]'`",
        )
    return FrameDataError(f"{where}: damaged: {_text(error)}", hint="copy it again from where it was recorded")


def _text(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


@dataclass(frozen=True)
class ChunkFiles:
    """The files of an array that are there.

    Attributes
    ----------
    numbers : ndarray of int64, (file,)
        In C order, rising.
    sizes_bytes : ndarray of int64, (file,), or None
        As the listing of a URL says, -1 where it does not; None: to be asked of the disk.
    """

    numbers: NDArray[np.int64]
    sizes_bytes: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.numbers)


def chunk_files(grid: Grid) -> ChunkFiles:
    """List the files of an array that are there.

    Returns
    -------
    ChunkFiles
        8 bytes a file, at a URL 16, whatever the array's shape promises.

    Raises
    ------
    SourceReadError
        A folder cannot be listed.
    SourceError
        As `list_below`.
    """
    if is_url(grid.folder):
        within = f"{grid.prefix}/" if grid.prefix and grid.separator == "/" else ""
        below = list_below(child_url(grid.folder, within))
        known = ((grid.number(within + key), size) for key, size in below)
        pairs = np.fromiter(((n, size) for n, size in known if n is not None), np.dtype((np.int64, 2)))
        pairs = pairs[np.argsort(pairs[:, 0])]
        return ChunkFiles(np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]))
    counts = [-(-size // part) for size, part in zip(grid.shape, grid.outer, strict=True)]
    try:
        places = np.fromiter(_places(grid, counts), np.int64)
    except OSError as error:
        raise SourceReadError(f"{grid.folder}: could not be listed: {error.strerror}") from error
    places.sort()
    return ChunkFiles(places)


def _places(grid: Grid, counts: list[int]) -> Iterator[int]:
    if grid.separator == "/":
        start = os.path.join(grid.folder, grid.prefix)
        if os.path.isdir(start):
            yield from _nested(start, counts, 0)
        return
    with os.scandir(grid.folder) as entries:
        for entry in entries:
            number = grid.number(entry.name)
            if number is not None and entry.is_file():
                yield number


def _nested(folder: str, counts: list[int], base: int) -> Iterator[int]:
    with os.scandir(folder) as entries:
        for entry in entries:
            number = _number([entry.name], counts[:1])
            if number is None:
                continue
            number += base * counts[0]
            if len(counts) > 1:
                if entry.is_dir():
                    yield from _nested(entry.path, counts[1:], number)
            elif entry.is_file():
                yield number


def _number(parts: list[str], counts: list[int]) -> int | None:
    number = 0
    for part, count in zip(parts, counts, strict=True):
        if not (part.isascii() and part.isdigit()) or int(part) >= count:
            return None
        number = number * count + int(part)
    return number


def add_to_fingerprint(
    fingerprint: Fingerprint, grid: Grid, files: ChunkFiles, name: str = "", documents: Documents | None = None
) -> None:
    """Add an array: its own metadata, and both ends of up to 18 of its files, whose keys follow `name`.

    Raises
    ------
    SourceNotFoundError, SourceReadError
        A file cannot be read.
    """
    held = documents or documents_of([grid.folder])[0]
    metadata = held.get("zarr.json", held.get(".zarray", b""))
    at = spread(len(files), FINGERPRINTED)
    numbers = files.numbers[at].tolist()
    if files.sizes_bytes is None:
        sizes = [size_bytes(grid.path(number)) for number in numbers]
    else:
        sizes = [
            remote_stat(grid.path(number)).size_bytes if size < 0 else size
            for number, size in zip(numbers, files.sizes_bytes[at].tolist(), strict=True)
        ]
    sample = [(name + grid.key(number), grid.path(number), size) for number, size in zip(numbers, sizes, strict=True)]
    with os_errors(grid.folder):
        fingerprint.add_array(metadata, sample, len(files))
