"""The Source contract: what every format gives, and what a run is known by before it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ingest.frames import FrameScale
from ingest.timing import Finding

__all__ = ["Source", "SourceInfo", "SourceOptions", "SourceSpec", "StartFrom"]

StartFrom = Literal["user", "sidecar", "frame stamps", "file attributes", "file name", "container tag", "mtime"]


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the user says of a source; None: find out.

    Attributes
    ----------
    dataset : str or None
        Path of the frames inside the file.
    timestamps : str or None
        Path of the per-frame stamps inside the file.
    start_ns : int or None
        Capture time of the first frame, Unix ns UTC. Recorded stamps are shifted to begin there.
    timezone : str or None
        IANA zone of naive times, such as ``"Europe/Copenhagen"``.
    start_from_mtime : bool
        Take mtime minus duration as the start if nothing better is known.
    fps : float or None
        Frames per second, where there are no stamps.
    full_scale : float or None
        The pixel value that becomes 255.
    """

    dataset: str | None = None
    timestamps: str | None = None
    start_ns: int | None = None
    timezone: str | None = None
    start_from_mtime: bool = False
    fps: float | None = None
    full_scale: float | None = None


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source by name: pickles, small, opened only in the process that reads it.

    Attributes
    ----------
    kind : str
        Which reader: ``"hdf5"``.
    paths : tuple of str
        Absolute path of each file of the run, in order of capture; most runs have one.
    dataset : str or None
        Where the frames are inside the file(s), as found or as told.
    scale : FrameScale or None
        The run's scale, once it was decided, so that every worker uses the same.
    file_frames : tuple of int
        Frames that each file of `paths` gives, once inspected, so that a worker opens only the files it reads; empty:
        not yet known.
    """

    kind: str
    paths: tuple[str, ...]
    dataset: str | None = None
    scale: FrameScale | None = None
    file_frames: tuple[int, ...] = ()

    @property
    def canonical_path(self) -> str:
        """The run's one name: its file (the folder, for several files) and the dataset inside."""
        path = self.paths[0] if len(self.paths) == 1 else os.path.join(os.path.dirname(self.paths[0]), "")
        return path if self.dataset is None else f"{path}::{self.dataset}"


@dataclass(frozen=True)
class SourceInfo:
    """What a run is, read without reading its frames. Holds 8 bytes per frame and stamp column.

    Attributes
    ----------
    spec : SourceSpec
        Opens the run in any process.
    name : str
        A name for the stream: the file's stem, with the dataset where a file holds several runs.
    format : str
        The layout found, for people: ``"areaDetector HDF5"``.
    frames, height_px, width_px : int
        The run's shape.
    scale : FrameScale
        Stored type and how it becomes 8 bit.
    timestamps_ns : ndarray of int64, (frame,), or None
        Capture times, Unix ns UTC if `start_from` is not None, else relative to an unknown start; None: no stamps.
    start_ns : int or None
        Capture time of the first frame; None: not known.
    start_from : str or None
        Who says so.
    fps_claimed : float or None
        What file or user claim.
    frame_numbers : ndarray of int64, (frame,), or None
        The camera's own count, whose steps over 1 are lost frames.
    hdf5_chunk_frames : int
        Frames that are stored (and decompressed) together; 1 if each stands alone.
    fingerprint : str
        Hex digest that tells one recording from another: sizes, dataset path, all stamps, head, tail and 16 interior
        blocks of 64 KiB of each file.
    findings : tuple of Finding
        What is odd about it already.
    bytes_in : int
        Size of the decoded frames as stored, in bytes.
    """

    spec: SourceSpec
    name: str
    format: str
    frames: int
    height_px: int
    width_px: int
    scale: FrameScale
    timestamps_ns: NDArray[np.int64] | None
    start_ns: int | None
    start_from: StartFrom | None
    fps_claimed: float | None
    frame_numbers: NDArray[np.int64] | None
    hdf5_chunk_frames: int
    fingerprint: str
    bytes_in: int
    findings: tuple[Finding, ...] = field(default=())


class Source(Protocol):
    """An open source; made in the process that reads, never pickled."""

    def read(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return frames `start` to `stop` (exclusive) as (frame, y, x) uint8, scaled by ``spec.scale``.

        In `memory`, (byte,), if it is given and long enough; else in a new array.
        """
        ...

    def close(self) -> None:
        """Let go of the file; safe to repeat."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
