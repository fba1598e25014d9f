"""The Source contract: what every format gives, and what a run is known by before it is read."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ingest.frames import FrameScale
from ingest.sources.urls import redacted
from ingest.timing import Finding

__all__ = [
    "Access",
    "EarlierStream",
    "FrameView",
    "FrameWindow",
    "Orientation",
    "ReaderOption",
    "Roi",
    "Source",
    "SourceInfo",
    "SourceOptions",
    "SourceSpec",
    "StartFrom",
    "StartSaidBy",
]

Access = Literal["random", "lanes", "single"]
"""How frames are best read: in any order; consecutive ones by one worker, several workers at different places (a video
is decoded from a keyframe on); all of them in order by one worker (a video that cannot be cut)."""

Orientation = Literal["none", "rot90", "rot180", "rot270", "flip-lr", "flip-ud", "transpose", "transverse"]
"""What becomes of a frame, as NumPy names it: ``rot90`` turns counter-clockwise; ``flip-lr`` swaps left and right;
``transpose`` swaps y and x; ``transverse`` does so about the other diagonal."""

Roi = tuple[int, int, int, int]
"""Left, top, width, height in px of the recorded frame, before it is turned."""

ReaderOption = str | int | float | bool

StartSaidBy = Literal["user", "sidecar", "file name"]

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
    ignore_stamps : bool
        Take none of the recorded stamps: they are wrong, and `fps` and a start say more.
    full_scale : float or None
        The pixel value that becomes 255.
    start_said_by : {"user", "sidecar", "file name"}
        Who says `start_ns`: the command line or job file, a ``growth.yaml``, or a rule over the path.
    series_start_ns : int or None
        When elapsed time was 0 in logs that say no start of their own, Unix ns UTC; None: `start_ns`.
    window : FrameWindow
        Which frames, and what of each.
    expand_range : bool
        Bring a video's limited range (16 to 235) to 0 to 255, as players do.
    apply_rotation : bool
        Turn video frames as the container's display matrix says; else that is only reported.
    colour : {"luma", "mean", "red", "green", "blue"} or None
        What to take of colour frames; None: luma of video, an error for pictures.
    raw_shape : (int, int) or None
        Height and width of headerless frames.
    raw_dtype : str or None
        NumPy type of headerless pixels, with byte order: ``">u2"``.
    raw_header_bytes : int
        To skip at the beginning of a headerless file.
    """

    dataset: str | None = None
    timestamps: str | None = None
    start_ns: int | None = None
    timezone: str | None = None
    start_from_mtime: bool = False
    fps: float | None = None
    ignore_stamps: bool = False
    full_scale: float | None = None
    start_said_by: StartSaidBy = "user"
    series_start_ns: int | None = None
    window: FrameWindow = field(default_factory=lambda: FrameWindow())
    expand_range: bool = False
    apply_rotation: bool = False
    colour: Literal["luma", "mean", "red", "green", "blue"] | None = None
    raw_shape: tuple[int, int] | None = None
    raw_dtype: str | None = None
    raw_header_bytes: int = 0


@dataclass(frozen=True, slots=True)
class FrameWindow:
    """What the user wants of a run's frames; the default is all of everything.

    Attributes
    ----------
    from_s, until_s : float or None
        Seconds from the first frame on; `until_s` exclusive. None: from the first, to the last.
    from_ns, until_ns : int or None
        The same as Unix ns UTC.
    every : int
        Take each so-manieth frame, from the first one taken on.
    roi : (int, int, int, int) or None
        Left, top, width, height in px of the recorded frame.
    orientation : str
        See `Orientation`.
    """

    from_s: float | None = None
    until_s: float | None = None
    from_ns: int | None = None
    until_ns: int | None = None
    every: int = 1
    roi: Roi | None = None
    orientation: Orientation = "none"


@dataclass(frozen=True, slots=True)
class FrameView:
    """A `FrameWindow` decided for one run: frame ``i`` of the view is frame ``first + i * every`` of its files.

    Attributes
    ----------
    first, frames, every : int
        Which frames.
    roi, orientation
        As in `FrameWindow`.
    """

    first: int
    frames: int
    every: int = 1
    roi: Roi | None = None
    orientation: Orientation = "none"


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """A source by name: pickles, small, opened only in the process that reads it.

    Attributes
    ----------
    kind : str
        Which reader; see `ingest.sources.READERS`.
    paths : tuple of str
        Absolute path of each file of the run, in order of capture; most runs have one.
    dataset : str or None
        Where the frames are inside the file(s), as found or as told.
    scale : FrameScale or None
        The run's scale, once it was decided, so that every worker uses the same.
    file_frames : tuple of int
        Frames that each file of `paths` gives, once inspected, so that a worker opens only the files it reads; empty:
        not yet known.
    access : {"random", "lanes", "single"}
        In which order frames are best read.
    view : FrameView or None
        What is taken of the frames; None: all of everything.
    options : tuple of (str, value)
        What the reader of this kind has to know besides, as `inspect` decided it.
    cuts : tuple of int
        Of a source that is read in lanes: frames of its files where a lane begins without reading any that it does not
        need; not all, but spread over the run.
    """

    kind: str
    paths: tuple[str, ...]
    dataset: str | None = None
    scale: FrameScale | None = None
    file_frames: tuple[int, ...] = ()
    access: Access = "random"
    view: FrameView | None = None
    options: tuple[tuple[str, ReaderOption], ...] = ()
    cuts: tuple[int, ...] = ()

    def option(self, name: str) -> ReaderOption | None:
        """Return one of `options`, or None."""
        return dict(self.options).get(name)

    def part(self, start: int, stop: int) -> tuple[SourceSpec, int, int]:
        """Return what reads frames `start` to `stop` alone, and their numbers in it.

        A run of ten thousand pictures is named by ten thousand paths; a worker's order has those that it reads.
        """
        if len(self.paths) <= 8 or not self.file_frames:
            return self, start, stop
        view = self.view
        every = 1 if view is None else view.every
        first = (0 if view is None else view.first) + start * every
        end = first + (stop - 1 - start) * every + 1
        edges = [0, *accumulate(self.file_frames)]
        kept = [i for i in range(len(self.paths)) if edges[i] < end and edges[i + 1] > first]
        if not kept:
            return self, start, stop
        a, b = kept[0], kept[-1] + 1
        spec = replace(self, paths=self.paths[a:b], file_frames=self.file_frames[a:b])
        offset = first - edges[a]
        if view is None:
            return spec, offset, offset + stop - start
        return replace(spec, view=replace(view, first=offset, frames=stop - start)), 0, stop - start

    @property
    def canonical_path(self) -> str:
        """The run's one name: its file (the folder, for several files) and the dataset inside."""
        first = redacted(self.paths[0])
        path = first if len(self.paths) == 1 else os.path.join(os.path.dirname(first), "")
        return path if self.dataset is None else f"{path}::{self.dataset}"


@dataclass(frozen=True, slots=True)
class EarlierStream:
    """What a stream in a lake says of itself, and what therefore holds of it unless the user says otherwise.

    Attributes
    ----------
    fps : float or None
        What it declared.
    chunk_size : int or None
        Frames in a shard.
    azimuth, physical_sample, project_id : str or None
        As in `ingest.plan.StreamSettings`.
    tags : tuple of str
        Likewise.
    """

    fps: float | None = None
    chunk_size: int | None = None
    azimuth: str | None = None
    physical_sample: str | None = None
    project_id: str | None = None
    tags: tuple[str, ...] = ()


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
    block_frames : int
        Frames that are stored (and decompressed) together: of an `hdf5_chunk`, a Zarr shard; 1 if each stands alone.
    fingerprint : str
        Hex digest that tells one recording from another: sizes, dataset path, all stamps, head, tail and 16 interior
        blocks of 64 KiB of each file.
    findings : tuple of Finding
        What is odd about it already.
    bytes_in : int
        Size of the decoded frames as stored, in bytes.
    rotations_per_min : float or None
        Of the sample, where the file says it; None: it does not.
    earlier : EarlierStream or None
        Of a stream in a lake: what it was; None: anything else.
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
    block_frames: int
    fingerprint: str
    bytes_in: int
    findings: tuple[Finding, ...] = field(default=())
    rotations_per_min: float | None = None
    earlier: EarlierStream | None = None


class Source(Protocol):
    """An open source; made in the process that reads, never pickled."""

    def read(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return frames `start` to `stop` (exclusive) as (frame, y, x) uint8, scaled by ``spec.scale``.

        In `memory`, (byte,), if it is given and long enough; else in a new array.
        """
        ...

    def read_encoded(self, start: int, stop: int) -> list[bytes | None] | None:
        """Return frames `start` to `stop` (exclusive) as a shard holds them, without decoding; None: it cannot.

        One zstd frame for each, as it is stored and not yet proven to decode; None for a frame that is lost. A source
        that would have to scale, cut or turn frames, or that holds them in another way, returns None for all, and so
        does one that finds damage: `read` then says which frames it is about.
        """
        ...

    def close(self) -> None:
        """Let go of the file; safe to repeat."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None: ...
