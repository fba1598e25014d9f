"""Part of a run's frames, and part of each frame: `--from/--until`, `--every`, `--roi`, `--orientation`."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SettingsError, SourceTimeError
from ingest.sources.base import FrameView, FrameWindow, Orientation, Roi, Source, SourceInfo
from ingest.sources.memory import result_array
from ingest.sources.numbered import stamps_by_number
from ingest.timing import Finding

__all__ = ["ViewedSource", "turned", "viewed_info"]

NS = 1_000_000_000
BLOCK_BYTES = 16 * 2**20
SWAPPING = frozenset({"rot90", "rot270", "transpose", "transverse"})


def turned(frames: NDArray[np.uint8], orientation: Orientation) -> NDArray[np.uint8]:
    """Return a view of frames (frame, y, x), each turned as `Orientation` says."""
    match orientation:
        case "none":
            return frames
        case "rot90" | "rot180" | "rot270":
            return np.rot90(frames, int(orientation[3:]) // 90, axes=(1, 2))
        case "flip-lr":
            return frames[:, :, ::-1]
        case "flip-ud":
            return frames[:, ::-1]
        case "transpose":
            return frames.swapaxes(1, 2)
        case "transverse":
            return frames.swapaxes(1, 2)[:, ::-1, ::-1]


def viewed_info(info: SourceInfo, window: FrameWindow) -> SourceInfo:
    """Return what a run is when only a part of it is taken.

    Parameters
    ----------
    info : SourceInfo
        The whole run.
    window : FrameWindow
        What is taken of it.

    Returns
    -------
    SourceInfo
        Its `spec` has the view; stamps, start, shape and findings are those of the part; `info` if all is taken.

    Raises
    ------
    SettingsError
        A region that is not inside the frame, a step under 1, or a time range without frames.
    SourceTimeError
        A time range is asked of a run without stamps and without a frame rate, or an absolute one without a start.
    """
    if window == FrameWindow():
        return info
    if window.every < 1:
        raise SettingsError(f"every {window.every}th frame cannot be taken", hint="pass --every 1 or more")
    roi = _checked_roi(info, window.roi)
    info = _numbered(info)
    first, stop = _range(info, window)
    view = FrameView(first, -(-(stop - first) // window.every), window.every, roi, window.orientation)
    height_px, width_px = (info.height_px, info.width_px) if roi is None else (roi[3], roi[2])
    if window.orientation in SWAPPING:
        height_px, width_px = width_px, height_px
    taken = slice(first, stop, window.every)
    stamps = None if info.timestamps_ns is None else info.timestamps_ns[taken]
    start_ns = info.start_ns
    if start_ns is not None and first:
        start_ns = int(stamps[0]) if stamps is not None else start_ns + round(first / _rate(info) * NS)
    numbers = None if info.frame_numbers is None else info.frame_numbers[taken]
    return replace(
        info,
        spec=replace(info.spec, view=view),
        frames=view.frames,
        height_px=height_px,
        width_px=width_px,
        timestamps_ns=stamps,
        start_ns=start_ns,
        fps_claimed=None if info.fps_claimed is None else info.fps_claimed / window.every,
        frame_numbers=numbers,
        block_frames=max(1, info.block_frames // window.every),
        bytes_in=view.frames * height_px * width_px * (info.bytes_in // (info.frames * info.height_px * info.width_px)),
        earlier=None if info.earlier is None else replace(info.earlier, fps=None) if window.every > 1 else info.earlier,
        findings=(*_findings_in(info.findings, first, stop, window.every), *_said(info, view)),
    )


def _numbered(info: SourceInfo) -> SourceInfo:
    """Give a run whose numbers have holes the times that they imply: of a part of it they would say something else."""
    if info.timestamps_ns is not None or info.fps_claimed is None:
        return info
    return replace(info, timestamps_ns=stamps_by_number(info, info.fps_claimed))


def _checked_roi(info: SourceInfo, roi: Roi | None) -> Roi | None:
    if roi is None:
        return None
    left, top, width, height = roi
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > info.width_px or top + height > info.height_px:
        raise SettingsError(
            f"{info.name}: the region {left},{top},{width},{height} (left, top, width, height in px) is not inside "
            f"frames of {info.width_px} x {info.height_px} px",
            hint="pass --roi within the recorded frame; it is cut out before --orientation turns it",
        )
    return roi


def _rate(info: SourceInfo) -> float:
    if info.fps_claimed is None or not math.isfinite(info.fps_claimed) or info.fps_claimed <= 0:
        raise SourceTimeError(
            f"{info.name}: a time range was asked for, but neither stamps nor a frame rate say when a frame was taken",
            hint="pass --fps (frames per second)",
        )
    return info.fps_claimed


def _range(info: SourceInfo, window: FrameWindow) -> tuple[int, int]:
    """Return the first frame taken, and one more than the last."""
    if window.from_s is window.until_s is window.from_ns is window.until_ns is None:
        return 0, info.frames
    if info.timestamps_ns is not None:
        since_ns = info.timestamps_ns - info.timestamps_ns[0]
    else:
        since_ns = np.rint(np.arange(info.frames) * (NS / _rate(info))).astype(np.int64)
    low = _since(info, window.from_s, window.from_ns)
    high = _since(info, window.until_s, window.until_ns)
    inside = np.ones(info.frames, bool)
    if low is not None:
        inside &= since_ns >= low
    if high is not None:
        inside &= since_ns < high
    taken = np.flatnonzero(inside)
    if not len(taken):
        raise SettingsError(
            f"{info.name}: no frame lies in the time range that was asked for; the run lasts {since_ns[-1] / NS:.3f} s",
            hint="check --from and --until: seconds from the first frame on, or ISO 8601 times",
        )
    return int(taken[0]), int(taken[-1]) + 1


def _since(info: SourceInfo, seconds: float | None, unix_ns: int | None) -> int | None:
    if unix_ns is None:
        return None if seconds is None else round(seconds * NS)
    if info.start_ns is None:
        raise SourceTimeError(
            f"{info.name}: a range of absolute times was asked for, but nothing says when the run began",
            hint="pass --from and --until in seconds from the first frame on, or --start",
        )
    return unix_ns - info.start_ns


def _findings_in(findings: tuple[Finding, ...], first: int, stop: int, every: int) -> tuple[Finding, ...]:
    return tuple(
        found if found.frame is None else replace(found, frame=(found.frame - first) // every)
        for found in findings
        if found.frame is None or first <= found.frame < stop
    )


def _said(info: SourceInfo, view: FrameView) -> tuple[Finding, ...]:
    parts = []
    if (view.first, view.frames) != (0, info.frames):
        last = view.first + (view.frames - 1) * view.every
        step = f", one of {view.every}" if view.every > 1 else ""
        parts.append(f"frames {view.first} to {last} of {info.frames}{step}")
    if view.roi is not None:
        left, top, width, height = view.roi
        parts.append(f"the region {left},{top} of {width} x {height} px")
    if view.orientation != "none":
        parts.append(f"turned: {view.orientation}")
    return (Finding("view", f"as asked: {'; '.join(parts)}"),) if parts else ()


class ViewedSource:
    """An open source of which only a part is shown; see `Source`.

    Parameters
    ----------
    source : Source
        Closed with it.
    view : FrameView
        The part.
    """

    def __init__(self, source: Source, view: FrameView) -> None:
        self._source = source
        self._view = view

    def read(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return frames `start` to `stop` of the view; see `Source.read`.

        Holds the result and, where frames are left out, cut or turned, 16 MiB or one frame of the source.
        """
        view = self._view
        if not 0 <= start < stop <= view.frames:
            raise SettingsError(f"frames {start} to {stop} were asked of a run of {view.frames}")
        first = view.first + start * view.every
        if view.every == 1 and view.roi is None and view.orientation == "none":
            return self._source.read(first, first + stop - start, memory)
        out: NDArray[np.uint8] | None = None
        position, step = start, 1
        while position < stop:
            begin = view.first + position * view.every
            taken = min(step, stop - position)
            block = self._source.read(begin, begin + (taken - 1) * view.every + 1)
            step = max(1, BLOCK_BYTES // (block[0].size * view.every))
            part = turned(self._cut(block[:: view.every]), view.orientation)
            if out is None:
                out = result_array((stop - start, *part.shape[1:]), memory)
            out[position - start : position - start + taken] = part
            position += taken
        if out is None:
            raise SettingsError("no frames were asked for")
        return out

    def read_encoded(self, start: int, stop: int) -> list[bytes | None] | None:
        """Return frames `start` to `stop` of the view as they are stored; None if they are cut, turned or left out."""
        view = self._view
        if not 0 <= start < stop <= view.frames:
            raise SettingsError(f"frames {start} to {stop} were asked of a run of {view.frames}")
        if view.every != 1 or view.roi is not None or view.orientation != "none":
            return None
        return self._source.read_encoded(view.first + start, view.first + stop)

    def _cut(self, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
        if self._view.roi is None:
            return frames
        left, top, width, height = self._view.roi
        return frames[:, top : top + height, left : left + width]

    def close(self) -> None:
        """Close the source; safe to repeat."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
