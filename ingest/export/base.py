"""What every export has in common: bounded reading, lost frames, times, and a file that appears whole or not at all."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Literal, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ingest import __version__
from ingest.errors import DestinationError, FrameDataError, SettingsError, SourceTimeError
from ingest.export.part_file import part_file
from ingest.salvage import read_what_is_there
from ingest.sources import Source, SourceInfo, open_source
from ingest.sources.urls import is_url
from ingest.timing import Finding

__all__ = [
    "CREATOR",
    "FORMATS",
    "ExportOptions",
    "Exported",
    "FrameWriter",
    "RunToWrite",
    "export_run",
    "file_name",
    "iso_ns",
    "ranges_text",
    "runs_of",
]

NS = 1_000_000_000
SLICE_BYTES = 32 * 2**20
MAX_CRF = 51  # of H.264 at 8 bit
MAX_NAME_BYTES = 200
CREATOR = f"rheed-ingest {__version__}"
_NOT_IN_NAMES = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]+')

FORMATS = {"mp4": ".mp4", "hdf5": ".h5", "tiff": ".ome.tif"}
"""Each format, and how the names of its files end."""


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What the user wants of the file.

    Attributes
    ----------
    format : {"mp4", "hdf5", "tiff"}
        What it is.
    crf : int or None
        Constant rate factor of an MP4: 1 (best) to 51; None: 17, in which the eye sees no loss.
    lossless : bool
        Every pixel of an MP4 as it is.
    compression : {"none", "zlib"} or None
        Of an HDF5 or TIFF; None: none.

    Raises
    ------
    SettingsError
        An option of another format, or one that cannot be.
    """

    format: Literal["mp4", "hdf5", "tiff"]
    crf: int | None = None
    lossless: bool = False
    compression: Literal["none", "zlib"] | None = None

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise SettingsError(f"there is no export to {self.format!r}", hint=f"formats: {', '.join(FORMATS)}")
        if self.format != "mp4" and (self.crf is not None or self.lossless):
            raise SettingsError(
                f"--crf and --lossless are of mp4; {self.format} keeps every pixel as it is", hint="leave them out"
            )
        if self.format == "mp4" and self.compression is not None:
            raise SettingsError("--compression is of hdf5 and tiff", hint="for mp4 pass --crf or --lossless")
        if self.crf is not None and self.lossless:
            raise SettingsError("--crf says how much may be lost, --lossless that nothing may", hint="pass one of them")
        if self.crf is not None and not 1 <= self.crf <= MAX_CRF:
            raise SettingsError(f"--crf {self.crf} is not between 1 and {MAX_CRF}", hint="pass 17, or --lossless")


@dataclass(frozen=True)
class RunToWrite:
    """A run as a writer gets to know it.

    Attributes
    ----------
    info : SourceInfo
        The run.
    start_ns : int or None
        Capture time of its first frame, Unix ns UTC; None: not known.
    since_ns : ndarray of int64, (frame,)
        Each frame's time from the first one on, in ns.
    """

    info: SourceInfo
    start_ns: int | None
    since_ns: NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Frames, height and width in px."""
        return self.info.frames, self.info.height_px, self.info.width_px

    @property
    def median_fps(self) -> float | None:
        """Frames per second by the median step between times that rise; None: none do."""
        steps = np.diff(self.since_ns)
        rising = steps[steps > 0]
        return NS / float(np.median(rising)) if len(rising) else None

    def provenance(self) -> dict[str, str | int | float]:
        """Return what a file says about where its frames come from; texts and numbers only."""
        info = self.info
        said: dict[str, str | int | float | None] = {
            "name": info.name,
            "source": info.spec.canonical_path,
            "source_format": info.format,
            "source_fingerprint": info.fingerprint,
            "source_dtype": info.scale.dtype,
            "source_full_scale": info.scale.full_scale,
            "start_from": info.start_from,
            "fps": info.fps_claimed,
            "rotations_per_min": info.rotations_per_min,
            "view": next((found.message for found in info.findings if found.kind == "view"), None),
            "exported_by": CREATOR,
        }
        return {name: value for name, value in said.items() if value is not None}


class FrameWriter(Protocol):
    """Writes one file; a context manager. What the file system refuses is an `OSError`."""

    def write(self, first: int, frames: NDArray[np.uint8], present: NDArray[np.bool_]) -> None:
        """Add frames `first` and on, (frame, y, x); those that are not `present`, (frame,), were lost."""
        ...

    def finish(self) -> tuple[Finding, ...]:
        """Complete and close the file; return what is to be said of it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *exc: object) -> None:
        """Close the file as it is; safe after `finish`."""
        ...


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes
    ----------
    path : Path
        The file.
    frames : int
        Frames of the run, lost ones too.
    lost : tuple of int
        Those that could not be read; rising.
    start_ns : int or None
        Capture time of the first frame, Unix ns UTC.
    bytes_out : int
        Size of the file.
    findings : tuple of Finding
        What is odd about the run, and about what was made of it.
    """

    path: Path
    frames: int
    lost: tuple[int, ...]
    start_ns: int | None
    bytes_out: int
    findings: tuple[Finding, ...] = field(default=())


def export_run(
    info: SourceInfo,
    out: Path,
    options: ExportOptions,
    *,
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Exported:
    """Write an inspected run, or the part of it that its view takes, into one file.

    Parameters
    ----------
    info : SourceInfo
        With its stamps, as `ingest.sources.inspect` returns it.
    out : Path
        The file; appears under this name when it is complete.
    options : ExportOptions
        What kind of file.
    force : bool
        Whether a file of that name may be replaced.
    progress : callable, optional
        Called with the frames done and all frames.

    Returns
    -------
    Exported
        What is in it.

    Raises
    ------
    SettingsError
        The file exists and `force` is not set; it is the source itself; its folder does not exist.
    SourceTimeError
        Neither stamps nor a frame rate say when frames were taken.
    FrameDataError
        Not one frame can be read.
    SourceError
        The source cannot be read for a reason that lies not in single frames.
    DestinationError
        The file could not be written: disk full, permission, or frames that the format cannot hold.

    Notes
    -----
    Memory: one slice of ``max(32 MiB, height * width)`` bytes, 17 bytes per frame of the run, what the source holds
    while it reads, and what the writer holds (see its class).
    """
    run = _timed(info)
    _check_not_source(info, out)
    writer_of: Callable[[Path, RunToWrite, ExportOptions], FrameWriter] = import_module(
        f"ingest.export.{options.format}"
    ).open_writer
    with part_file(out, force=force) as part, open_source(info.spec) as source:
        with _write_errors(out):
            writer = writer_of(part, run, options)
        with writer:
            present = _copy(source, run, writer, out, progress)
            with _write_errors(out):
                findings = writer.finish()
        bytes_out = part.stat().st_size
    lost = tuple(np.flatnonzero(~present).tolist())
    found = (*info.findings, *_said_of_lost(lost, info.frames, options), *findings)
    return Exported(out, info.frames, lost, run.start_ns, bytes_out, found)


def _timed(info: SourceInfo) -> RunToWrite:
    if info.timestamps_ns is not None:
        return RunToWrite(info, info.start_ns, info.timestamps_ns - info.timestamps_ns[0])
    if not info.fps_claimed:
        raise SourceTimeError(
            f"{info.spec.canonical_path}: neither stamps nor a frame rate say when its frames were taken",
            hint="pass --fps (frames per second)",
        )
    since_ns = np.rint(np.arange(info.frames) * (NS / info.fps_claimed)).astype(np.int64)
    return RunToWrite(info, info.start_ns, since_ns)


def _check_not_source(info: SourceInfo, out: Path) -> None:
    target = os.path.realpath(out)
    for path in info.spec.paths:
        own = os.path.realpath(path)
        if not is_url(path) and (target == own or target.startswith(own + os.sep)):
            raise SettingsError(f"{out} is, or lies in, the run that is read", hint="pass another place by --out")


def _slices(info: SourceInfo) -> Iterator[tuple[int, int]]:
    """Cut a run into slices of bounded size that end where frames stored together do."""
    size = max(1, SLICE_BYTES // (info.height_px * info.width_px))
    if size > info.block_frames > 1 and info.spec.view is None:
        size -= size % info.block_frames
    edges = [*range(0, info.frames, size), info.frames]
    return iter(pairwise(edges))


def _copy(
    source: Source, run: RunToWrite, writer: FrameWriter, out: Path, progress: Callable[[int, int], None] | None
) -> NDArray[np.bool_]:
    """Copy all frames; return which there were, (frame,)."""
    info = run.info
    present = np.ones(info.frames, bool)
    first_error: FrameDataError | None = None
    memory = np.empty(min(info.frames * info.height_px * info.width_px, SLICE_BYTES), np.uint8)
    for start, stop in _slices(info):
        try:
            frames, lost = read_what_is_there(source, start, stop, memory)
        except FrameDataError as error:
            first_error = first_error or error
            present[start:stop] = False
        else:
            present[[start + i for i in lost]] = False
            with _write_errors(out):
                writer.write(start, frames, present[start:stop])
        if progress is not None:
            progress(stop, info.frames)
    if first_error is not None and not present.any():
        raise first_error
    return present


@contextmanager
def _write_errors(out: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, DestinationError):
            raise
        # h5py puts a page of its own into strerror.
        why = os.strerror(error.errno) if error.errno else str(error).partition("\n")[0]
        raise DestinationError(
            f"{out} could not be written: {why}", hint="check the disk's free space and permissions, or pass --out"
        ) from error


def _said_of_lost(lost: tuple[int, ...], frames: int, options: ExportOptions) -> tuple[Finding, ...]:
    if not lost:
        return ()
    made = "are marked as lost, not stored as black" if options.format == "hdf5" else "are left out: a gap in time"
    message = f"{len(lost)} of {frames} frames cannot be read ({ranges_text(lost)}) and {made}"
    return (Finding("frames left out", message, lost[0]),)


def runs_of(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Return where a mask, (frame,), is set: begin and end (exclusive) of each stretch."""
    padded = np.concatenate([[False], mask, [False]])
    edges = np.flatnonzero(padded[1:] != padded[:-1]).tolist()
    return list(zip(edges[::2], edges[1::2], strict=True))


def ranges_text(numbers: tuple[int, ...]) -> str:
    """Write rising numbers as ``1,4-9``; those past the first 16 stretches as a count."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    shown = ",".join(str(a) if a == b else f"{a}-{b}" for a, b in parts[:16])
    return shown + (f" and {len(parts) - 16} more stretches" if len(parts) > 16 else "")


def iso_ns(unix_ns: int) -> str:
    """Return a time as ISO 8601 in UTC with all nine digits of its nanoseconds."""
    seconds, ns = divmod(unix_ns, NS)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}Z"


def file_name(name: str, export_format: str, number: int = 1) -> str:
    """Return a file name for a run: its own name without what file systems refuse, and a number from the second on."""
    plain = _NOT_IN_NAMES.sub("_", name).strip(" .") or "run"
    short = plain.encode("utf-8")[:MAX_NAME_BYTES].decode("utf-8", "ignore")
    return f"{short}{'' if number == 1 else f'-{number}'}{FORMATS[export_format]}"
