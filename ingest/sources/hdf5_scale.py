"""The largest pixel values of HDF5 frames, for runs whose scale nothing says."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from ingest.sources.hdf5_errors import h5_damage
from ingest.sources.hdf5_file import chunk_row_bytes
from ingest.sources.hdf5_storage import check_chunks
from ingest.sources.scale import largest_pixel, sampled

__all__ = ["sampled_maximum"]


def sampled_maximum(dataset: Any, frames: int, samples: int, where: str) -> float | None:
    """Return the largest finite pixel value of some frames spread over a dataset.

    Parameters
    ----------
    dataset : h5py.Dataset, (frame, y, x)
        The frames.
    frames : int
        How many of them to consider.
    samples : int
        How many to look at; fewer, but at least one, if that meant reading more than 256 MiB.
    where : str
        File and dataset, for messages.

    Returns
    -------
    float or None
        None: no finite pixel. Holds one frame and one row of hdf5_chunks.

    Raises
    ------
    SourceReadError
        The operating system could not read.
    FrameDataError
        Every one of these frames is damaged; single ones are passed over, and named when they are read.
    """

    def read(number: int) -> NDArray[np.generic]:
        with h5_damage(f"{where}: frame {number}"):
            if isinstance(dataset, h5py.Dataset):
                check_chunks(dataset, number, number + 1, where)
            frame: NDArray[np.generic] = dataset[number]
        return frame

    frame_bytes = dataset.shape[1] * dataset.shape[2] * dataset.dtype.itemsize
    return largest_pixel(sampled(range(frames), max(frame_bytes, chunk_row_bytes(dataset)), samples), read)
