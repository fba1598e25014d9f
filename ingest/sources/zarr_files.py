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
from ingest.sources.plain_file import os_errors

__all__ = ["Grid", "add_to_fingerprint", "chunk_files", "explain", "open_array"]

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
    """

    folder: str
    shape: tuple[int, ...]
    outer: tuple[int, ...]
    inner: tuple[int, ...]
    prefix: str
    separator: str

    @property
    def tiles(self) -> int:
        """Files that together hold whole frames."""
        return math.prod(-(-size // part) for size, part in zip(self.shape[1:], self.outer[1:], strict=True))

    def row_bytes(self, itemsize: int) -> int:
        """Return the size of what has to be decompressed for any one frame."""
        sizes = (-(-size // part) * part for size, part in zip(self.shape[1:], self.inner[1:], strict=True))
        return self.inner[0] * math.prod(sizes) * itemsize

    def key(self, number: int) -> str:
        """Return the name, within the array's folder, of a file by its number in C order."""
        counts = [-(-size // part) for size, part in zip(self.shape[1:], self.outer[1:], strict=True)]
        place = []
        for count in reversed(counts):
            number, rest = divmod(number, count)
            place.append(rest)
        return self.separator.join([*([self.prefix] if self.prefix else []), str(number), *map(str, reversed(place))])

    def path(self, number: int) -> str:
        """Return the path of a file by its number in C order."""
        return os.path.join(self.folder, *self.key(number).split("/"))

    def rows(self, start: int, stop: int) -> range:
        """Return the rows of files that hold these frames."""
        return range(start // self.outer[0], (stop - 1) // self.outer[0] + 1)


def open_array(folder: str) -> tuple[zarr.Array[Any], Grid]:
    """Open one Zarr array of the local disk for reading.

    Parameters
    ----------
    folder : str
        The array's.

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
    try:
        array = zarr.open_array(zarr.storage.LocalStore(folder, read_only=True), mode="r")
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
    return Grid(folder, tuple(array.shape), outer, tuple(array.chunks), prefix, separator)


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


def chunk_files(grid: Grid) -> NDArray[np.int64]:
    """List the files of an array that are there.

    Returns
    -------
    ndarray of int64, (file,)
        Their numbers in C order, rising; 8 bytes each, whatever the array's shape promises.

    Raises
    ------
    SourceReadError
        A folder cannot be listed.
    """
    counts = [-(-size // part) for size, part in zip(grid.shape, grid.outer, strict=True)]
    try:
        places = np.fromiter(_places(grid, counts), np.int64)
    except OSError as error:
        raise SourceReadError(f"{grid.folder}: could not be listed: {error.strerror}") from error
    places.sort()
    return places


def _places(grid: Grid, counts: list[int]) -> Iterator[int]:
    if grid.separator == "/":
        start = os.path.join(grid.folder, grid.prefix)
        if os.path.isdir(start):
            yield from _nested(start, counts, 0)
        return
    first = 1 if grid.prefix else 0
    with os.scandir(grid.folder) as entries:
        for entry in entries:
            parts = entry.name.split(grid.separator)
            if parts[:first] == [grid.prefix][:first] and len(parts) == first + len(counts):
                number = _number(parts[first:], counts)
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


def add_to_fingerprint(fingerprint: Fingerprint, grid: Grid, files: NDArray[np.int64], name: str = "") -> None:
    """Add an array: its own metadata, and both ends of up to 18 of its files, whose keys follow `name`.

    Raises
    ------
    SourceNotFoundError, SourceReadError
        A file cannot be read.
    """
    metadata = os.path.join(grid.folder, "zarr.json")
    if not os.path.exists(metadata):
        metadata = os.path.join(grid.folder, ".zarray")
    sample = files[spread(len(files), FINGERPRINTED)].tolist()
    with os_errors(grid.folder):
        with open(metadata, "rb") as file:
            content = file.read()
        keys = [(name + grid.key(number), grid.path(number)) for number in sample]
        fingerprint.add_array(content, keys, len(files))
