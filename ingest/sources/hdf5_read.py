"""Frames out of HDF5 files, in the process that asks for them."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.errors import IngestError, SourceChangedError, SourceFormatError
from ingest.sources.base import SourceSpec
from ingest.sources.hdf5_file import H5PY_ERRORS, OpenFile, borrow, explain_read, h5_errors
from ingest.sources.hdf5_storage import check_chunks
from ingest.sources.memory import result_array
from ingest.sources.reader import FramesReader
from ingest.sources.urls import redacted

__all__ = ["Hdf5Source", "open_source"]


def open_source(spec: SourceSpec) -> Hdf5Source:
    """Open an inspected run for reading in this process; see `Hdf5Source`."""
    return Hdf5Source(spec)


class Hdf5Source(FramesReader):
    """One run in one or more HDF5 files; see `FramesReader`.

    Files are borrowed from this process's small stock of open ones (`hdf5_file.borrow`) for the time of one read, so
    sources come and go without opening files, and hdf5_chunks stay decompressed from one read to the next: reading
    holds what `hdf5_file.OpenFile.dataset` caches, too. `hdf5_file.release_files` closes them.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it: with dataset and scale.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    FrameDataError
        By `read`: damaged frames; NaN pixels.
    SourceChangedError
        By `read`: a file holds fewer frames, or of another type, than when it was inspected.
    SourceFormatError
        By `read`: frames of another size than those of the file before.
    """

    block_bytes = 16 * 2**20

    def __init__(self, spec: SourceSpec) -> None:
        super().__init__(spec, dataset=spec.dataset)
        self._dataset = str(spec.dataset)
        self._shape: tuple[int, int] | None = None
        self._shape_of = ""

    def _read(self, start: int, stop: int, memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        for number, begin, end in self._parts(start, stop):
            first = self._starts[number]
            with borrow(self._paths[number]) as file:
                dataset = self._checked(file, end - first)
                if begin == start:
                    out = result_array((stop - start, *dataset.shape[1:]), memory)
                self._read_file(dataset, redacted(file.path), first, begin, out[begin - start : end - start])
        return out

    def _checked(self, file: OpenFile, needed: int) -> Any:
        path = redacted(file.path)
        with h5_errors(path):
            if self._dataset not in file.file:
                raise SourceChangedError(f"{path}: has no dataset {self._dataset} any more")
            dataset = file.dataset(self._dataset)
            shape, dtype = dataset.shape, dataset.dtype
        if len(shape) != 3 or shape[0] < needed:
            raise SourceChangedError(f"{path}: {self._dataset} is {shape}; {needed} frames were there when inspected")
        if dtype.newbyteorder("=").name != self._scale.dtype:
            raise SourceChangedError(f"{path}: {self._dataset} is {dtype}; it was {self._scale.dtype} when inspected")
        if self._shape is None:
            self._shape, self._shape_of = shape[1:], path
        elif self._shape != shape[1:]:
            raise SourceFormatError(
                f"frames of {shape[1:]} in {path}, but of {self._shape} in {self._shape_of}: one run has one size"
            )
        return dataset

    def _read_file(self, dataset: Any, path: str, first: int, begin: int, out: NDArray[np.uint8]) -> None:
        """Fill `out` with one file's frames from `begin` on; `first` is the run's number of the file's frame 0."""

        def read_stored(start: int, values: NDArray[Any]) -> None:
            start -= first
            stop = start + len(values)
            if isinstance(dataset, h5py.Dataset):
                check_chunks(dataset, start, stop, path, first)
            if values.dtype != np.uint8 or not _read_stored(dataset, start, stop, values):
                dataset.read_direct(values, np.s_[start:stop], np.s_[: len(values)])

        dtype, together = dataset.dtype.newbyteorder("="), dataset.chunks[0] if dataset.chunks else 1
        try:
            self._read_scaled(read_stored, begin, out, dtype, together=together, origin=first)
        except IngestError:
            raise
        except H5PY_ERRORS as error:
            bad_begin, bad_end = _find_damage(dataset, begin - first, begin - first + len(out))
            where = f"{path}: frames {first + bad_begin} to {first + bad_end - 1} of the run"
            raise explain_read(where, error) from error


def _read_stored(dataset: Any, begin: int, finish: int, out: NDArray[np.uint8]) -> bool:
    """Read hdf5_chunks that are single frames as they are stored, past HDF5's cache; False: the dataset is not so.

    For what is not compressed this gave 1.35 times the frames per second; for gzip and zstd nothing.
    """
    if dataset.chunks != (1, *dataset.shape[1:]) or dataset.is_virtual or dataset.file.swmr_mode:
        return False
    if dataset.id.get_create_plist().get_nfilters():
        return False
    try:
        for number in range(begin, finish):
            dataset.id.read_direct_chunk((number, 0, 0), out=out[number - begin].reshape(-1))
    except IngestError:
        raise
    except H5PY_ERRORS:  # one that was never written; the other way gives its fill value, or says what is wrong
        return False
    return True


def _find_damage(dataset: Any, begin: int, finish: int) -> tuple[int, int]:
    """Return the first frames, of those that failed to read together, that fail by themselves."""
    chunk = dataset.chunks[0] if dataset.chunks else 1
    position = begin
    while position < finish:
        end = min((position // chunk + 1) * chunk, finish)
        try:
            _ = dataset[position:end]
        except H5PY_ERRORS:
            return position, end
        position = end
    return begin, finish
