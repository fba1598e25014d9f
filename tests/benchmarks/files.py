"""Movies to measure with: noisy synthetic ones, and real frames repeated."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

from ingest.cli.planning import find_candidates
from ingest.config import BackfillSettings
from ingest.plan import RunPlan
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5

SAMPLES = Path(__file__).parents[3] / "shared" / "samples" / "hdf5"
FPS = 120.0
CHUNK = 240
REAL_FPS = 12.0
REAL_CHUNK = 24


def noisy(folder: Path, megabytes: int) -> Path:
    """Write a noisy movie of 300 x 500 frames (36 MB a chunk of 240)."""
    path = folder / f"noisy-{megabytes}.h5"
    if not path.exists():
        write_hdf5(path, GrowthRun(megabytes * 1_000_000 // 150_000, 300, 500, fps=FPS, jitter_s=0.0005))
    return path


def real(folder: Path, megabytes: int) -> Path | None:
    """Write real frames (Sb on Si(111), 8 bit) again and again, each time shifted, so that none is a copy."""
    sample = SAMPLES / "deposition_areadetector.h5"
    if not sample.exists():
        return None
    path = folder / f"real-{megabytes}.h5"
    if not path.exists():
        with h5py.File(sample) as file:
            frames = file["/entry/instrument/detector/data"][()]
        count = megabytes * 1_000_000 // frames[0].size
        with h5py.File(path, "w") as file:
            out = file.create_dataset("frames", (count, *frames.shape[1:]), np.uint8, chunks=(1, *frames.shape[1:]))
            for i in range(count):
                out[i] = np.roll(frames[i % len(frames)], i, axis=1)
            file["timestamps"] = 1.7e9 + np.arange(count) / REAL_FPS
    return path


def plan_of(path: Path, to: Sequence[str] = ()) -> RunPlan:
    """Return the plan of one of these movies, or of another file's frames at the noisy ones' rate."""
    is_real = path.name.startswith("real")
    settings = BackfillSettings(
        rotations_per_min=0.0, fps=REAL_FPS if is_real else FPS, chunk_size=REAL_CHUNK if is_real else CHUNK
    )
    [candidate] = find_candidates([str(path)], settings, planning=True, to=to)
    if not isinstance(candidate.plan, RunPlan):
        raise RuntimeError(str(candidate.error))
    return candidate.plan
