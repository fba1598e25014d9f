"""Frames out of HDF5 files, in the process that asks for them."""

from __future__ import annotations

from itertools import accumulate
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ingest.errors import IngestError, SettingsError, SourceChangedError, SourceFormatError
from ingest.frames import FrameScale, to_uint8
from ingest.sources.base import SourceSpec
from ingest.sources.hdf5_file import H5PY_ERRORS, OpenFile, borrow, explain_read, h5_errors
from ingest.sources.memory import result_array
from ingest.sources.urls import redacted

__all__ = ["Hdf5Source", "open_source"]

BLOCK_BYTES = 16 * 2**20


def open_source(spec: SourceSpec) -> Hdf5Source:
    """Open an inspected run for reading in this process; files are opened as frames are asked of them.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it: with dataset and scale.

    Returns
    -------
    Hdf5Source
        Keeps no file of its own open.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    """
    return Hdf5Source(spec)


class Hdf5Source:
    """One run in one or more HDF5 files; see `ingest.sources.base.Source`.

    Files are borrowed from this process's small stock of open ones (`hdf5_file.borrow`) for the time of one read, so
    sources come and go without opening files, and hdf5_chunks stay decompressed from one read to the next.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it.
    """

    def __init__(self, spec: SourceSpec) -> None:
        if spec.dataset is None or spec.scale is None or not spec.file_frames:
            raise SettingsError(
                f"{redacted(spec.paths[0])}: dataset, scale or frame counts are missing in the spec",
                hint="open the spec that inspect returns, so that all workers read alike",
            )
        self._paths = spec.paths
        self._dataset: str = spec.dataset
        self._scale: FrameScale = spec.scale
        self._starts = [0, *accumulate(spec.file_frames)]
        self._shape: tuple[int, int] | None = None
        self._shape_of = ""

    @property
    def frames(self) -> int:
        """Frames of the run."""
        return self._starts[-1]

    def read(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return frames `start` to `stop` (exclusive).

        Parameters
        ----------
        start, stop : int
            Frame numbers in the run, across its files.
        memory : ndarray of uint8, (byte,), optional
            Where to put them, if it is long enough: taking the same again spares faulting in every page anew.

        Returns
        -------
        ndarray of uint8, (frame, y, x)
            A new array, or a view of `memory`.

        Raises
        ------
        SettingsError
            The run has no such frames.
        FrameDataError
            Damaged frames, named by their numbers in the run; NaN pixels.
        SourceReadError
            The operating system could not read; trying again may help.
        SourceChangedError
            A file holds fewer frames than when it was inspected.
        SourceFormatError
            Frames of another size than those of the file before.

        Notes
        -----
        Holds ``(stop - start) * height * width`` bytes; for frames wider than 8 bit also 16 MiB, or one frame if that
        is more; and the chunk cache (`hdf5_file.OpenFile.dataset`).
        """
        if not 0 <= start < stop <= self.frames:
            raise SettingsError(
                f"frames {start} to {stop} were asked of a run of {self.frames}: {redacted(self._paths[0])}"
            )
        out: NDArray[np.uint8] | None = None
        for number, path in enumerate(self._paths):
            first, end = self._starts[number], self._starts[number + 1]
            begin, finish = max(start, first), min(stop, end)
            if begin >= finish:
                continue
            with borrow(path) as file:
                dataset = self._checked(file, finish - first)
                if out is None:
                    out = result_array((stop - start, *dataset.shape[1:]), memory)
                self._read_file(dataset, path, first, slice(begin - first, finish - first), out[begin - start :])
        if out is None:
            raise SettingsError(f"frames {start} to {stop} lie in no file of {redacted(self._paths[0])}")
        return out

    def close(self) -> None:
        """Do nothing: files belong to the process's stock, which `hdf5_file.release_files` empties."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

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

    def _read_file(self, dataset: Any, path: str, first: int, part: slice, out: NDArray[np.uint8]) -> None:
        """Read one file's `part` into the beginning of `out`; `first` is the run's number of the file's frame 0."""
        begin, finish = int(part.start), int(part.stop)
        try:
            if self._scale.full_scale is None and dataset.dtype == np.uint8:
                if not _read_stored(dataset, begin, finish, out):
                    dataset.read_direct(out, np.s_[begin:finish], np.s_[: finish - begin])
            else:
                self._read_wide(dataset, first, begin, finish, out)
        except IngestError:
            raise
        except H5PY_ERRORS as error:
            bad_begin, bad_end = _find_damage(dataset, begin, finish)
            where = f"{redacted(path)}: frames {first + bad_begin} to {first + bad_end - 1} of the run"
            raise explain_read(where, error) from error

    def _read_wide(self, dataset: Any, first: int, begin: int, finish: int, out: NDArray[np.uint8]) -> None:
        """Scale block by block, blocks ending where hdf5_chunks do."""
        frame_bytes = dataset.shape[1] * dataset.shape[2] * dataset.dtype.itemsize
        block = max(1, min(finish - begin, BLOCK_BYTES // frame_bytes))
        chunk = dataset.chunks[0] if dataset.chunks else 1
        buffer = np.empty((block, *dataset.shape[1:]), dataset.dtype.newbyteorder("="))
        position = begin
        while position < finish:
            end = min(position + block, finish)
            aligned = end // chunk * chunk
            if position < aligned < finish:
                end = aligned
            values = buffer[: end - position]
            dataset.read_direct(values, np.s_[position:end])
            target = out[position - begin : end - begin]
            to_uint8(values, self._scale, out=target, first_frame=first + position)
            position = end


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
