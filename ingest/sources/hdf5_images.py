"""HDF5 files with a dataset for each frame, named by its Unix time, as h5video writes them (FORMATS.md 1.5)."""

from __future__ import annotations

import re
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceFormatError
from ingest.sources.start import unix_number_to_ns

__all__ = ["ImageGroup", "frames_at", "named_time_ns"]

_NAME = re.compile(r"(\d{10})(?:[.](\d{1,9})\d*)?$|(\d{13}|\d{16}|\d{19})$")


def named_time_ns(name: str | bytes) -> int | None:
    """Return the Unix time that is a dataset's name, in ns; None: it is none."""
    match = _NAME.match(name) if isinstance(name, str) else None  # h5py gives bytes where they are no text
    if match is None:
        return None
    if match[3]:
        return unix_number_to_ns(int(match[3]))
    whole_ns = unix_number_to_ns(int(match[1]))
    return None if whole_ns is None else whole_ns + int((match[2] or "").ljust(9, "0"))


class ImageGroup:
    """A group of images, read like one (frame, y, x) dataset that is stored frame by frame. Holds its names.

    Parameters
    ----------
    group : h5py.Group
        Its two-dimensional datasets that are named by a Unix time are the frames, in order of time.

    Attributes
    ----------
    shape, dtype : (int, int, int); numpy.dtype
        Those of the first image.
    timestamps_ns : ndarray of int64, (frame,)
        Unix ns UTC.
    """

    chunks: tuple[int, int, int] | None = None

    def __init__(self, group: Any) -> None:
        times = sorted((time_ns, name) for name in group if (time_ns := named_time_ns(name)) is not None)
        if not times:
            raise SourceFormatError(f"{group.file.filename}: {group.name} holds no image that is named by a Unix time")
        self._group = group
        self._names = [name for _, name in times]
        self.timestamps_ns: NDArray[np.int64] = np.array([time_ns for time_ns, _ in times], np.int64)
        first = self.image(0)
        self.shape = (len(times), *first.shape)
        self.dtype = first.dtype

    def image(self, number: int) -> Any:
        """Return one image's dataset."""
        return self._group[self._names[number]]

    def check(self) -> None:
        """Look at every image's header.

        Raises
        ------
        SourceFormatError
            One is of another size or type than the first.
        """
        for number, name in enumerate(self._names):
            image = self.image(number)
            if (image.shape, image.dtype) != (self.shape[1:], self.dtype):
                raise SourceFormatError(
                    f"{self._group.file.filename}: {self._group.name}/{name} is {image.shape} {image.dtype}, "
                    f"the first image {self.shape[1:]} {self.dtype}; a run has one size"
                )

    def read_direct(self, out: NDArray[Any], source: slice, target: slice) -> None:
        """Read frames `source` into ``out[target]``.

        Raises
        ------
        ValueError
            An image is of another size than the first, or was never written.
        """
        for place, number in enumerate(range(source.start, source.stop)):
            image = self.image(number)
            if image.shape != self.shape[1:] or image.id.get_storage_size() == 0:
                raise ValueError(f"{self._group.name}/{self._names[number]} holds no frame")  # as h5py would
            image.read_direct(out, np.s_[:, :], np.s_[(target.start or 0) + place])

    def __getitem__(self, number: Any) -> NDArray[Any]:
        """Return one frame by its number, or several by a slice."""
        if not isinstance(number, slice):
            image: NDArray[Any] = self[number : number + 1][0]
            return image
        out: NDArray[Any] = np.empty((number.stop - number.start, *self.shape[1:]), self.dtype.newbyteorder("="))
        self.read_direct(out, number, np.s_[0:])
        return out


def frames_at(file: h5py.File, path: str) -> Any:
    """Return what is read as frames at this path: a dataset, or a group of images."""
    found = file[path]
    return ImageGroup(found) if isinstance(found, h5py.Group) else found
