"""HDF5 files for tests, written to order."""

from pathlib import Path

import h5py
import numpy as np

from ingest.sources import SourceInfo, SourceOptions, discover, inspect

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "hdf5"
NS = 1_000_000_000
START_S = 1_700_000_000


def pixels(count: int, height: int = 12, width: int = 16, *, dtype="u1", top: int = 256, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, top, (count, height, width)).astype(dtype)


def write(path, datasets: dict, attrs: dict | None = None) -> str:
    """Write datasets by path; `attrs` maps "path@name" (or "@name" for the root) to a value."""
    with h5py.File(path, "w") as file:
        for name, value in datasets.items():
            if isinstance(value, dict):
                file.create_dataset(name, **value)
            else:
                file[name] = value
        for where, value in (attrs or {}).items():
            holder, _, name = where.partition("@")
            file.require_group(holder or "/") if not holder or holder not in file else None
            file[holder or "/"].attrs[name] = value
    return str(path)


def look(path, **options) -> SourceInfo:
    """Discover one path, and inspect the one run that must be there."""
    chosen = SourceOptions(**options)
    (found,) = discover([str(path)], chosen)
    if found.error is not None:
        raise found.error
    return inspect(found.spec, chosen)


def kinds(info: SourceInfo) -> list[str]:
    return [finding.kind for finding in info.findings]
