"""What every format's look at its files has in common: from raw facts to a `SourceInfo`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ingest.frames import FrameScale
from ingest.sources.base import SourceInfo, SourceOptions, SourceSpec
from ingest.sources.hdf5_times import Stamps
from ingest.sources.start import NS, StartEvidence, resolve_start
from ingest.sources.wild_stamps import mend_wild_stamps
from ingest.timing import Finding

__all__ = ["RunFacts", "run_name", "source_info"]


@dataclass(frozen=True)
class RunFacts:
    """What a reader found of a run; see `SourceInfo` for what is not said here.

    Attributes
    ----------
    spec : SourceSpec
        Complete, with scale and frame counts.
    pixel_bytes : int
        Of a pixel as stored.
    stamps : Stamps or None
        All frames', as recorded.
    stamps_are_start : bool
        Whether absolute stamps are each frame's own, and so say when the run began.
    attribute, attribute_name : str, int, float or None; str
        A start time in the file, and its name for messages.
    container_tag : str or None
        A video container's ``creation_time``, which is often that of an export.
    file_name : str or None
        A name that may hold the start; None: says nothing of this run.
    mtime_path : str or None
        The file whose mtime is the end of the recording; None: not to be used.
    """

    spec: SourceSpec
    name: str
    format: str
    height_px: int
    width_px: int
    pixel_bytes: int
    fingerprint: str
    stamps: Stamps | None = None
    stamps_are_start: bool = True
    attribute: str | int | float | None = None
    attribute_name: str = "start_time"
    container_tag: str | None = None
    file_name: str | None = None
    mtime_path: str | None = None
    fps_claimed: float | None = None
    frame_numbers: NDArray[np.int64] | None = None
    block_frames: int = 1
    rotations_per_min: float | None = None
    findings: tuple[Finding, ...] = ()


def run_name(paths: Sequence[str]) -> str:
    """Return a name for a run: its file's stem; of several files, their folder's."""
    if len(paths) > 1:
        return os.path.basename(os.path.dirname(paths[0])) or "run"
    return os.path.splitext(os.path.basename(paths[0]))[0]


def source_info(facts: RunFacts, options: SourceOptions) -> SourceInfo:
    """Decide a run's start, shift its stamps there if that was asked for, and put it all together.

    Raises
    ------
    SourceTimeError, SettingsError
        As `ingest.sources.start.resolve_start`.
    """
    frames = sum(facts.spec.file_frames)
    stamps, fps = facts.stamps, options.fps or facts.fps_claimed
    spec = replace(facts.spec, view=None)
    if options.ignore_stamps and stamps is not None:
        stamps = None
        spec = replace(spec, options=(*spec.options, ("ignore_stamps", True)))  # it is another run for it
    findings = facts.findings
    if stamps is not None:
        mended_ns, wild = mend_wild_stamps(stamps.ns)
        stamps, findings = replace(stamps, ns=mended_ns), findings + wild
    if stamps is not None:
        duration_ns: int | None = int(stamps.ns[-1] - stamps.ns[0])
    else:
        duration_ns = round(frames / fps * NS) if fps else None
    own = stamps is not None and stamps.absolute and facts.stamps_are_start
    use_mtime = options.start_from_mtime and facts.mtime_path is not None
    start = resolve_start(
        StartEvidence(
            user_ns=options.start_ns,
            user_from=options.start_said_by,
            frame_ns=int(stamps.ns[0]) if stamps is not None and own else None,
            attribute=facts.attribute,
            attribute_name=facts.attribute_name,
            file_name=facts.file_name,
            container_tag=facts.container_tag,
            mtime_ns=os.stat(facts.mtime_path).st_mtime_ns if use_mtime and facts.mtime_path else None,
            duration_ns=duration_ns,
            timezone=options.timezone,
        )
    )
    timestamps_ns = stamps.ns if stamps else None
    if timestamps_ns is not None and start.start_ns is not None:
        timestamps_ns = timestamps_ns + (start.start_ns - int(timestamps_ns[0]))
    return SourceInfo(
        spec=spec,
        name=facts.name,
        format=facts.format,
        frames=frames,
        height_px=facts.height_px,
        width_px=facts.width_px,
        scale=_scale_of(facts.spec),
        timestamps_ns=timestamps_ns,
        start_ns=start.start_ns,
        start_from=start.start_from,
        fps_claimed=fps,
        frame_numbers=facts.frame_numbers,
        block_frames=facts.block_frames,
        fingerprint=facts.fingerprint,
        bytes_in=frames * facts.height_px * facts.width_px * facts.pixel_bytes,
        findings=(*findings, *start.findings),
        rotations_per_min=facts.rotations_per_min,
    )


def _scale_of(spec: SourceSpec) -> FrameScale:
    if spec.scale is None:
        raise ValueError(f"{spec.canonical_path}: a run without a scale")
    return spec.scale
