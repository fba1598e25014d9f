"""The largest pixel values of HDF5 frames, for runs whose scale nothing says."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import IngestError
from ingest.sources.hdf5_file import H5PY_ERRORS, chunk_row_bytes, explain_read
from ingest.sources.scale import SAMPLED_FRAMES, decide_scale, maximum_of_samples

__all__ = ["SAMPLED_FRAMES", "decide_scale", "sampled_maximum"]


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
        try:
            frame: NDArray[np.generic] = dataset[number]
        except IngestError:
            raise
        except H5PY_ERRORS as error:
            raise explain_read(f"{where}: frame {number}", error) from error
        return frame

    frame_bytes = dataset.shape[1] * dataset.shape[2] * dataset.dtype.itemsize
    return maximum_of_samples(read, frames, samples, max(frame_bytes, chunk_row_bytes(dataset)))
