"""A run as an H.264 movie whose frames are shown when they were taken.

The time of each frame stands in the container, in units of 1 us for runs of up to 35 minutes (11 us up to 6.6 hours,
0.1 ms up to 2.4 days, else 1 ms), so that a steady rate is not pretended: a gap is a gap. The start is the container's
`creation_time`. Its usual place (mvhd, ISO/IEC 14496-12) counts whole seconds; as a metadata key, which FFmpeg and what
builds on it read first, it has them all.
"""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import numpy as np
from av.error import FFmpegError
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from ingest.errors import DestinationError, SettingsError
from ingest.export.base import NS, ExportOptions, RunToWrite, iso_ns
from ingest.timing import Finding

__all__ = ["Mp4Writer", "open_writer"]

TICKS_PER_S = (1_000_000, 90_000, 10_000, 1_000)
MAX_TICKS = 2**31 - 1  # FFmpeg's movenc refuses a longer step between frames, and all frames between may be lost
DEFAULT_CRF = 17
GREY_CHROMA = 128
FULL_RANGE = 2  # AVCOL_RANGE_JPEG
FRAMES_PER_KEY = 60
MIN_FPS, MAX_FPS = 0.01, 10_000.0


class Mp4Writer:
    """Writes one movie. Lost frames are left out: the frame before is shown until the next one.

    Holds up to 64 frames in the encoder, and 16 bytes per frame written. See `ingest.export.base.FrameWriter`.
    """

    def __init__(self, path: Path, run: RunToWrite, options: ExportOptions) -> None:
        self._run, self._lossless = run, options.lossless
        self._ticks_per_s = _ticks_per_s(run)
        self._lost: list[int] = []
        self._last_tick: int | None = None
        self._zero_ns = 0
        self._moved, self._moved_most_ns = 0, 0
        _, height, width = run.shape
        self._size = (height, width) if options.lossless else (height + height % 2, width + width % 2)
        self._container = av.open(
            str(path),
            "w",
            format="mp4",
            options={"video_track_timescale": str(self._ticks_per_s), "movflags": "use_metadata_tags"},
        )
        self._stream: Any = self._container.add_stream(
            "libx264",
            rate=_nominal_rate(run),
            options={
                # Without frames built on later ones, all players and readers agree about the times.
                "bf": "0",
                "preset": "veryfast",
                **({"qp": "0"} if options.lossless else {"crf": str(_crf(options))}),
            },
        )
        self._stream.height, self._stream.width = self._size
        self._stream.pix_fmt = "gray" if options.lossless else "yuv420p"
        context = self._stream.codec_context
        context.time_base = Fraction(1, self._ticks_per_s)
        context.gop_size = FRAMES_PER_KEY
        context.color_range = FULL_RANGE

    def write(self, first: int, frames: NDArray[np.uint8], present: NDArray[np.bool_]) -> None:
        """Encode what is present."""
        self._lost += (first + np.flatnonzero(~present)).tolist()
        try:
            for i in np.flatnonzero(present).tolist():
                self._encode(first + i, frames[i])
        except FFmpegError as error:
            raise self._refused(error) from error

    def _encode(self, number: int, pixels: NDArray[np.uint8]) -> None:
        if self._last_tick is None:
            self._begin(number)
        frame = self._picture(pixels)
        frame.pts = self._tick(number)
        frame.time_base = Fraction(1, self._ticks_per_s)
        self._container.mux(self._stream.encode(frame))

    def _begin(self, number: int) -> None:
        """Say of the movie what is known when its first frame is."""
        run = self._run
        self._zero_ns = int(run.since_ns[number])
        metadata = self._container.metadata
        metadata["title"] = run.info.name
        metadata["comment"] = json.dumps(run.provenance())
        if run.start_ns is not None:
            metadata["creation_time"] = iso_ns(run.start_ns + self._zero_ns)

    def _tick(self, number: int) -> int:
        """Return when a frame is shown; containers want times that rise."""
        ns = int(self._run.since_ns[number]) - self._zero_ns
        tick = (ns * self._ticks_per_s + NS // 2) // NS
        if self._last_tick is not None and tick <= self._last_tick:
            tick = self._last_tick + 1
            self._moved += 1
            self._moved_most_ns = max(self._moved_most_ns, tick * NS // self._ticks_per_s - ns)
        self._last_tick = tick
        return tick

    def _picture(self, pixels: NDArray[np.uint8]) -> VideoFrame:
        height, width = self._size
        frame = VideoFrame(width, height, self._stream.pix_fmt)
        frame.color_range = FULL_RANGE
        luma, *chroma = frame.planes
        rows = np.frombuffer(memoryview(luma), np.uint8).reshape(height, luma.line_size)
        own_height, own_width = pixels.shape
        rows[:own_height, :own_width] = pixels
        rows[:own_height, own_width:width] = pixels[:, -1:]
        rows[own_height:, :width] = rows[own_height - 1, :width]
        for plane in chroma:
            np.frombuffer(memoryview(plane), np.uint8)[:] = GREY_CHROMA
        return frame

    def finish(self) -> tuple[Finding, ...]:
        """Let the encoder give its last frames, and close the movie."""
        try:
            self._container.mux(self._stream.encode())
            self._container.close()
        except FFmpegError as error:
            raise self._refused(error) from error
        return tuple(self._findings())

    def _findings(self) -> list[Finding]:
        _, height, width = self._run.shape
        found = []
        if self._size != (height, width):
            message = (
                f"H.264 wants even sizes: {width} x {height} px became {self._size[1]} x {self._size[0]} px, the last "
                f"column or row repeated; --roi 0,0,{width},{height} takes it off again, --lossless needs none"
            )
            found.append(Finding("padded frames", message))
        if not self._lossless:
            found.append(Finding("lossy", "made to be looked at: pixel values differ a little; --lossless keeps them"))
        if self._moved:
            message = (
                f"{self._moved} stamps are not later than the one before, which a movie cannot have: shown right after "
                f"it, up to {self._moved_most_ns / 1e6:.3f} ms too late"
            )
            found.append(Finding("times in the file", message))
        return found

    def _refused(self, error: FFmpegError) -> Exception:
        _, height, width = self._run.shape
        if isinstance(error, OSError) and error.filename is not None:
            return OSError(error.errno, error.strerror)
        return DestinationError(
            f"frames of {width} x {height} px could not be written as H.264: {error.strerror}",
            hint="check the disk's free space; hdf5 and tiff hold frames of any size",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        try:
            self._container.close()
        except (FFmpegError, ValueError):
            return


def open_writer(path: Path, run: RunToWrite, options: ExportOptions) -> Mp4Writer:
    """Open a file for writing; see `Mp4Writer`.

    Raises
    ------
    SettingsError
        The run is longer than a movie can be.
    DestinationError
        There is no H.264 encoder.
    """
    try:
        return Mp4Writer(path, run, options)
    except FFmpegError as error:
        raise DestinationError(f"no H.264 movie can be written here: {error}", hint="export to hdf5 or tiff") from error


def _crf(options: ExportOptions) -> int:
    return DEFAULT_CRF if options.crf is None else options.crf


def _ticks_per_s(run: RunToWrite) -> int:
    """Return the finest unit of time in which the whole run fits."""
    duration_ns = int(run.since_ns.max()) - int(run.since_ns.min())
    for ticks in TICKS_PER_S:
        if duration_ns * ticks < MAX_TICKS * NS:
            return ticks
    raise SettingsError(
        f"{run.info.spec.canonical_path}: from its first to its last frame {duration_ns / NS / 86400:.1f} days pass; "
        "an mp4 has room for 24",
        hint="take a part by --from and --until, or export to hdf5 or tiff",
    )


def _nominal_rate(run: RunToWrite) -> Fraction:
    """Return the rate by which the encoder plans; the times of the frames are their own."""
    fps = run.median_fps or run.info.fps_claimed or 1.0
    return Fraction(min(max(fps, MIN_FPS), MAX_FPS)).limit_denominator(1001)
