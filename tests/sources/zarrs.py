"""Zarr folders for tests, written to order."""

import numpy as np
import zarr

from tests.sources.files import NS, START_S

NOT_A_TIME = -(2**63)
TIME = {"units": "nanoseconds since 1970-01-01", "calendar": "proleptic_gregorian", "_FillValue": NOT_A_TIME}


def make(path, values, *, attributes=None, dims=None, chunks=None, **storage) -> str:
    """Write one array."""
    values = np.asarray(values)
    array = zarr.create_array(
        str(path), shape=values.shape, dtype=values.dtype, attributes=attributes, dimension_names=dims,
        chunks=values.shape if chunks is None else chunks, overwrite=True, **storage,
    )  # fmt: skip
    array[...] = values
    return str(path)


def lake(path, frames, *, times=None, index=None, attributes=None, size=20) -> str:
    """Write frames as DESIGN.md's "Lake layout" says."""
    count = len(frames)
    times = START_S * NS + 100_000_000 * np.arange(count) if times is None else times
    index = np.arange(count) if index is None else index
    said = {"format": "rheed-ingest", "name": "a growth", "fps": 10.0, "rotations_per_min": 12.0}
    zarr.create_group(str(path), attributes={**said, **(attributes or {})})
    shape = frames.shape[1:]
    make(path / "frames", frames, chunks=(1, *shape), shards=(size, *shape), dims=("frame", "y", "x"))
    make(
        path / "time", np.asarray(times, np.int64), chunks=(16,), dims=("frame",), attributes=TIME, fill_value=-(2**63)
    )
    make(path / "frame_index", np.asarray(index, np.int64), chunks=(16,), dims=("frame",), fill_value=-1)
    return str(path)
