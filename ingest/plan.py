"""What is to be done, as data: a run's stream settings and the chunks that cover it. Pure, printable, sizeable."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SettingsError, SourceTimeError
from ingest.frame_times import FrameTimes
from ingest.rates import NS_PER_S
from ingest.sources.base import SourceInfo, SourceSpec, StartFrom
from ingest.sources.numbered import stamps_by_number
from ingest.timing import (
    NS_PER_MS,
    Finding,
    TimeError,
    Timeline,
    check_fps,
    chunk_start_ms,
    cut,
    fit_timeline,
    regular_timeline,
    time_error,
)

__all__ = ["ChunkTask", "Chunking", "PlanOptions", "RunPlan", "StreamSettings", "plan_run"]

Chunking = Literal["gap-aware", "regular"]

MAX_CHUNK_BYTES = 512_000_000
READER_SETTINGS = frozenset(
    {"colour", "dtype", "expand_range", "height_px", "ignore_stamps", "offset", "quarter_turns", "width_px"}
)
"""Options of readers that users set and that change pixels or times; the others only say how a file is built."""
NEAR = 0.02
CROWDED = 2
"""A plan with more than this many times the ideal number of chunks is worth a warning (DESIGN.md "Time")."""


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a destination is told of a stream when it is created.

    Attributes
    ----------
    name : str
        Shown to people; not unique.
    fps : float
        Frames per second that the stream declares.
    rotations_per_min : float
        <= 0: stationary.
    chunk_size : int
        Declared frames per chunk.
    azimuth : str or None
        Label of the azimuth; only for a stationary stream.
    physical_sample : str or None
        Name or UUID.
    project_id : str or None
        UUID.
    tags : tuple of str
        Names or UUIDs.
    """

    name: str
    fps: float
    rotations_per_min: float
    chunk_size: int
    azimuth: str | None = None
    physical_sample: str | None = None
    project_id: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChunkTask:
    """One chunk of a run: which frames, when, at which rate.

    Attributes
    ----------
    index : int
        The chunk's place in the stream.
    start, stop : int
        Its frames in the source, `stop` exclusive.
    start_unix_ms_utc : int
        Capture time of its first frame.
    fps : float
        The rate within it.
    """

    index: int
    start: int
    stop: int
    start_unix_ms_utc: int
    fps: float

    @property
    def frames(self) -> int:
        """How many frames it has."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What the user wants of a run's stream.

    Attributes
    ----------
    name : str or None
        Default: the source's name.
    rotations_per_min : float
        Default 0, stationary.
    chunk_size : int or None
        Frames per chunk; default ``ceil(2 * fps)``, rounded up to whole `hdf5_chunk`.
    chunking : {"gap-aware", "regular"}
        Whether a chunk ends at a gap.
    fps : float or None
        The rate where no stamps say; where they do and agree within 2 %, what the stream declares.
    azimuth, physical_sample, project_id, tags
        As in `StreamSettings`.
    for_lake : bool, default False
        Whether a lake is among the destinations: no chunk crosses a multiple of `chunk_size`, the edge of a shard, and
        the plan holds every frame's time.
    for_platform : bool, default True
        Whether a platform is among them, which knows a frame's time only by its chunk's.
    chunking_asked : bool, default False
        Whether `chunking` was. Else a run for a lake alone, which has every frame's time, does without where it would
        make many chunks.
    """

    name: str | None = None
    rotations_per_min: float = 0.0
    chunk_size: int | None = None
    chunking: Chunking = "gap-aware"
    fps: float | None = None
    azimuth: str | None = None
    physical_sample: str | None = None
    project_id: str | None = None
    tags: tuple[str, ...] = ()
    for_lake: bool = False
    for_platform: bool = True
    chunking_asked: bool = False


@dataclass(frozen=True)
class RunPlan:
    """A run, decided: everything that workers and the journal need. Holds about 100 bytes per chunk.

    Attributes
    ----------
    spec : SourceSpec
        Opens the source in any process.
    settings : StreamSettings
        The stream to create.
    height_px, width_px : int
        Frame shape.
    chunks : tuple of ChunkTask
        Cover frames 0 to `frames` exactly once, in order.
    chunking : {"gap-aware", "regular"}
        As asked.
    fingerprint : str
        The source's.
    format : str
        The layout found, for people.
    start_unix_ms_utc : int
        Capture time of the first frame.
    start_from : str
        Who says so.
    fps_claimed : float or None
        What the file claims.
    time_error : TimeError
        Between stamps and what the wire implies.
    findings : tuple of Finding
        What is odd about it.
    bytes_in : int
        Size of the decoded frames as stored.
    frame_times : FrameTimes or None
        Every frame's time and number; only for a lake.
    """

    spec: SourceSpec
    settings: StreamSettings
    height_px: int
    width_px: int
    chunks: tuple[ChunkTask, ...]
    chunking: Chunking
    fingerprint: str
    format: str
    start_unix_ms_utc: int
    start_from: StartFrom
    fps_claimed: float | None
    time_error: TimeError
    findings: tuple[Finding, ...]
    bytes_in: int
    frame_times: FrameTimes | None = None

    @property
    def name(self) -> str:
        """The stream's name."""
        return self.settings.name

    @property
    def frames(self) -> int:
        """Frames in the run."""
        return self.chunks[-1].stop

    @property
    def ideal_chunks(self) -> int:
        """How many chunks a run without gaps would need."""
        return -(-self.frames // self.settings.chunk_size)

    def identity(self) -> dict[str, object]:
        """Return the settings that change bytes or times, for telling whether a re-run asks for the same stream."""
        scale = self.spec.scale
        # Only where there are any: journals of earlier versions know nothing of them.
        part = {"view": asdict(self.spec.view)} if self.spec.view else {}
        asked = {name: value for name, value in self.spec.options if name in READER_SETTINGS}
        reader = {"reader": asked} if asked else {}
        return {
            "dataset": self.spec.dataset,
            "chunking": self.chunking,
            "chunk_size": self.settings.chunk_size,
            "fps": self.settings.fps,
            "rotations_per_min": self.settings.rotations_per_min,
            "azimuth": self.settings.azimuth,
            "start_unix_ms_utc": self.start_unix_ms_utc,
            "full_scale": scale.full_scale if scale else None,
            **part,
            **reader,
        }


def plan_run(info: SourceInfo, options: PlanOptions) -> RunPlan:
    """Decide a run's stream and chunks from what is known of its source.

    Parameters
    ----------
    info : SourceInfo
        What `inspect` found.
    options : PlanOptions
        What the user wants.

    Returns
    -------
    RunPlan
        Its chunks cover every frame exactly once.

    Raises
    ------
    SourceTimeError
        No trustworthy start, or no frame rate.
    SettingsError
        fps or chunk_size that cannot be; a chunk above 512 MB.
    """
    if info.start_from is None or info.start_ns is None:
        raise SourceTimeError(
            f"{info.name}: nothing trustworthy says when it was recorded",
            hint="pass --start 2023-10-18T08:00:00+02:00 (the first frame's capture time), or --timezone if a local "
            "time was found, or --start-from mtime",
        )
    timeline, stamps_ns = _timeline(info, options)
    chunk_size = _chunk_size(info, options, timeline)
    chunking = options.chunking
    ranges = cut(info.frames, chunk_size, timeline.breaks if chunking == "gap-aware" else (), on_grid=options.for_lake)
    if not options.for_platform and not options.chunking_asked and _is_crowded(len(ranges), info.frames, chunk_size):
        chunking, ranges = "regular", cut(info.frames, chunk_size)
    rates = _rates(ranges, timeline)
    error = TimeError()
    if stamps_ns is None:
        starts_ms = [round((info.start_ns + a * NS_PER_S / timeline.fps) / NS_PER_MS) for a, _ in ranges]
    else:
        starts_ms = [chunk_start_ms(stamps_ns[a:b], fps) for (a, b), fps in zip(ranges, rates, strict=True)]
        error = time_error(stamps_ns, ranges, starts_ms, rates)
    plan = RunPlan(
        spec=info.spec,
        settings=_settings(info, options, timeline.fps, chunk_size),
        height_px=info.height_px,
        width_px=info.width_px,
        chunks=tuple(
            ChunkTask(i, a, b, ms, fps)
            for i, ((a, b), ms, fps) in enumerate(zip(ranges, starts_ms, rates, strict=True))
        ),
        chunking=chunking,
        fingerprint=info.fingerprint,
        format=info.format,
        start_unix_ms_utc=round(info.start_ns / NS_PER_MS),
        start_from=info.start_from,
        fps_claimed=info.fps_claimed,
        time_error=error,
        findings=tuple(dict.fromkeys(info.findings + timeline.findings)),  # a lake's earlier ones may be the same
        bytes_in=info.bytes_in,
        frame_times=_frame_times(info, timeline, stamps_ns) if options.for_lake else None,
    )
    found = _plan_findings(plan, info.frame_numbers)
    return replace(plan, findings=tuple(dict.fromkeys(plan.findings + found)))


def _timeline(info: SourceInfo, options: PlanOptions) -> tuple[Timeline, NDArray[np.int64] | None]:
    """Rates and breaks, and the stamps where they are of use."""
    fps = None if options.fps is None else check_fps(options.fps)
    stamps_ns = info.timestamps_ns
    if stamps_ns is not None and len(stamps_ns) > 1 and (fps is None or int(stamps_ns[-1]) > int(stamps_ns[0])):
        if fps is None:
            return fit_timeline(stamps_ns), stamps_ns
        try:
            measured = fit_timeline(stamps_ns)
        except SourceTimeError:  # stamps in such disorder that they give no rate
            return fit_timeline(stamps_ns, fps=fps), stamps_ns
        if abs(fps - measured.fps) <= NEAR * measured.fps:
            return fit_timeline(stamps_ns, fps=fps), stamps_ns
        told = Finding(
            "asked fps",
            f"{fps:g} fps was asked for; the stamps say {measured.fps:.4g} and are kept (--ignore-stamps leaves them)",
        )
        return replace(measured, findings=(*measured.findings, told)), stamps_ns
    rate = fps if fps is not None else info.fps_claimed
    if rate is None:
        raise SourceTimeError(
            f"{info.name}: no per-frame stamps and no frame rate in the file", hint="pass --fps (frames per second)"
        )
    rate = check_fps(rate, "the frame rate that the file claims")
    numbered_ns = stamps_by_number(info, rate)
    if numbered_ns is not None:
        return fit_timeline(numbered_ns, fps=rate), numbered_ns
    return regular_timeline(info.frames, rate), None


def _frame_times(info: SourceInfo, timeline: Timeline, stamps_ns: NDArray[np.int64] | None) -> FrameTimes:
    if stamps_ns is None:
        since_ns = np.rint(np.arange(info.frames) * (NS_PER_S / timeline.fps)).astype(np.int64)
        stamps_ns = since_ns + (info.start_ns or 0)
    numbers = info.frame_numbers
    # A lake marks lost frames by a number below 0.
    return FrameTimes.of(stamps_ns, None if numbers is not None and numbers.min(initial=0) < 0 else numbers)


def _chunk_size(info: SourceInfo, options: PlanOptions, timeline: Timeline) -> int:
    frame_bytes = info.height_px * info.width_px
    least = math.ceil(2 * timeline.fps)
    chunk_size = options.chunk_size or _earlier_chunk_size(info, least)
    if chunk_size is None:
        chunk_size = math.ceil(2 * timeline.max_fps)
        # Whole hdf5_chunks, as long as that does not make the chunk much longer: else two workers decompress one.
        whole = math.ceil(chunk_size / info.block_frames) * info.block_frames
        chunk_size = whole if whole <= 2 * chunk_size and whole * frame_bytes <= MAX_CHUNK_BYTES else chunk_size
    if chunk_size < least:
        raise SettingsError(
            f"{info.name}: chunk_size {chunk_size} is less than the platform takes at {timeline.fps:g} fps: "
            f"{least} frames (2 s)",
            hint=f"pass --chunk-size {least} or more, or leave it out",
        )
    if chunk_size * frame_bytes > MAX_CHUNK_BYTES:
        raise SettingsError(
            f"{info.name}: a chunk of {chunk_size} frames of {info.width_px} x {info.height_px} px has "
            f"{chunk_size * frame_bytes / 1e6:.0f} MB; at most {MAX_CHUNK_BYTES / 1e6:.0f} MB can be sent as one",
            hint=f"pass a smaller --chunk-size (at least {least}), or a lower --fps if the measured rate is wrong",
        )
    return chunk_size


def _earlier_chunk_size(info: SourceInfo, least: int) -> int | None:
    """Return the chunk size of a stream in a lake, so that its shards may stay as they are; None: it will not do."""
    size = info.earlier.chunk_size if info.earlier is not None else None
    fits = size is not None and size >= least and size * info.height_px * info.width_px <= MAX_CHUNK_BYTES
    return size if fits else None


def _rates(ranges: list[tuple[int, int]], timeline: Timeline) -> list[float]:
    """The rate of each range: that of the segment which holds its first frame."""
    starts = np.array([segment.start for segment in timeline.segments])
    at = np.searchsorted(starts, [a for a, _ in ranges], side="right") - 1
    return [timeline.segments[i].fps for i in at]


def _settings(info: SourceInfo, options: PlanOptions, fps: float, chunk_size: int) -> StreamSettings:
    name = (options.name or "").strip() or info.name
    rpm = options.rotations_per_min
    if not math.isfinite(rpm):
        raise SettingsError(f"{info.name}: {rpm!r} rotations per minute")
    if options.azimuth is not None and rpm > 0:
        raise SettingsError(
            f"{info.name}: azimuth {options.azimuth!r} with {rpm:g} rpm; only a stationary stream has an azimuth",
            hint="leave --azimuth out, or pass --rotations-per-min 0",
        )
    return StreamSettings(
        name, fps, rpm, chunk_size, options.azimuth, options.physical_sample, options.project_id, options.tags
    )


def _is_crowded(chunks: int, frames: int, chunk_size: int) -> bool:
    return chunks > CROWDED * max(-(-frames // chunk_size), 2)


def _plan_findings(plan: RunPlan, frame_numbers: NDArray[np.int64] | None) -> tuple[Finding, ...]:
    found = []
    claimed, measured = plan.fps_claimed, plan.settings.fps
    if claimed is not None and abs(claimed - measured) > NEAR * measured:
        found.append(Finding("claimed fps", f"the file claims {claimed:g} fps; its stamps say {measured:.4g}"))
    if plan.time_error.over_bound:
        found.append(
            Finding(
                "jitter",
                f"{plan.time_error.over_bound} of {plan.frames} frames are more than half a period + 1 ms from their "
                f"stamps on a platform's wire (worst {plan.time_error.worst_ms:.1f} ms, p99 "
                f"{plan.time_error.p99_ms:.1f} ms); a lake keeps every frame's own",
            )
        )
    if _is_crowded(len(plan.chunks), plan.frames, plan.settings.chunk_size):
        found.append(
            Finding(
                "many chunks",
                f"{len(plan.chunks)} chunks where {plan.ideal_chunks} would do without gaps; --chunking regular keeps "
                "to that, with larger time errors",
            )
        )
    if frame_numbers is not None:
        steps = np.diff(frame_numbers)
        usual = max(1, int(np.median(steps))) if len(steps) else 1  # each tenth frame was asked for
        ahead = steps > usual
        lost = int((steps[ahead] // usual - 1).sum())
        if lost:
            first = int(np.argmax(ahead)) + 1
            found.append(Finding("lost frames", f"the camera's own count lacks {lost} frame(s)", first))
    return tuple(found)
