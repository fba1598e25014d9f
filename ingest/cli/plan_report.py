"""What was found of runs, and what would be sent: one JSON document, or lines for people."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ingest.cli.growth import growths
from ingest.cli.planning import Candidate
from ingest.cli.report import finding_lines, utc
from ingest.plan import RunPlan
from ingest.series_plan import SeriesPlan
from ingest.sources.base import SourceInfo
from ingest.sources.series_base import ChannelFact, SeriesInfo

__all__ = ["growth_document", "plan_document", "plan_lines"]

CHANNELS_SHOWN = 8
OVERLAPS_SHOWN = 16


def plan_document(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return what was found of each run, and planned where it was, as JSON values."""
    return [_candidate_document(candidate) for candidate in candidates]


def growth_document(candidates: Sequence[Candidate]) -> list[dict[str, Any]]:
    """Return the growth runs of several files each, and how far their logs cover their frames, as JSON values."""
    return [
        {
            "growth_run": growth.name,
            "runs": [member.path for member in growth.members],
            "overlap": [
                {"frames": one.movie, "log": one.log, "channel": one.channel.name, "covered": round(one.covered, 6)}
                for one in growth.overlaps()
            ],
        }
        for growth in growths(candidates)
    ]


def _candidate_document(candidate: Candidate) -> dict[str, Any]:
    info, error = candidate.info, candidate.error
    out: dict[str, Any] = {"source": candidate.path, "error": str(error) if error else None}
    if error is not None and error.hint:
        out["hint"] = error.hint
    if isinstance(info, SourceInfo):
        out |= _frames_document(candidate, info, candidate.plan if isinstance(candidate.plan, RunPlan) else None)
    elif info is not None:
        out |= _log_document(info, candidate.plan if isinstance(candidate.plan, SeriesPlan) else None)
    return out


def _frames_document(candidate: Candidate, info: SourceInfo, plan: RunPlan | None) -> dict[str, Any]:
    out = {
        "kind": "frames",
        "name": info.name,
        "format": info.format,
        "frames": info.frames,
        "height_px": info.height_px,
        "width_px": info.width_px,
        "dtype": info.scale.dtype,
        "full_scale": info.scale.full_scale,
        "full_scale_from": info.scale.full_scale_from,
        "fps_claimed": info.fps_claimed,
        "start_unix_ms_utc": None if info.start_ns is None else round(info.start_ns / 1e6),
        "start_from": info.start_from,
        "fingerprint": info.fingerprint,
        "bytes_in": info.bytes_in,
        "findings": finding_lines(plan.findings if plan else info.findings),
    }
    if plan is None:
        return out
    return out | {
        "stream": plan.settings.name,
        "sample": plan.settings.physical_sample,
        "tags": list(plan.settings.tags),
        "fps": plan.settings.fps,
        "rotations_per_min": plan.settings.rotations_per_min if candidate.is_planned else None,
        "azimuth": plan.settings.azimuth,
        "chunks": len(plan.chunks),
        "ideal_chunks": plan.ideal_chunks,
        "chunk_size": plan.settings.chunk_size,
        "max_time_error_ms": round(plan.time_error.worst_ms, 3),
        "p99_time_error_ms": round(plan.time_error.p99_ms, 3),
        "frames_over_bound": plan.time_error.over_bound,
    }


def _log_document(info: SeriesInfo, plan: SeriesPlan | None) -> dict[str, Any]:
    known = info.start_ns is not None
    out = {
        "kind": "log",
        "name": info.name,
        "format": info.format,
        "points": info.points,
        "channels": [
            {
                "name": fact.name,
                "units": fact.units,
                "points": fact.points,
                "first_unix_s": fact.first_ns / 1e9 if known else None,
                "last_unix_s": fact.last_ns / 1e9 if known else None,
                "holds": fact.holds,
            }
            for fact in info.channels
        ],
        "start_unix_ms_utc": None if info.start_ns is None else round(info.start_ns / 1e6),
        "start_from": info.start_from,
        "fingerprint": info.fingerprint,
        "bytes_in": info.bytes_in,
        "findings": finding_lines(plan.findings if plan else info.findings),
    }
    if plan is None:
        return out
    return out | {
        "stream": plan.name,
        "sample": plan.settings.physical_sample,
        "tags": list(plan.settings.tags),
        "chunks": len(plan.chunks),
        "points_per_chunk": plan.settings.points_per_chunk,
    }


def plan_lines(candidates: Sequence[Candidate], *, is_look: bool = False) -> list[str]:
    """Return the same for people; for a look, what a plan would still need is no error."""
    out = []
    for candidate in candidates:
        info, plan, error = candidate.info, candidate.plan, candidate.error
        out.append(candidate.path)
        if isinstance(info, SourceInfo):
            out += _frames_lines(candidate, info, plan if isinstance(plan, RunPlan) else None)
        elif info is not None:
            out += _log_lines(info, plan if isinstance(plan, SeriesPlan) else None)
        findings = plan.findings if plan else (info.findings if info else ())
        out += [f"  - {line}" for line in finding_lines(findings)]
        if error is not None and is_look and info is not None:
            out.append(f"  needs    {_without(str(error), candidate.path)}: {error.hint or 'see above'}")
        elif error is not None:
            out.append(f"  error: {_without(str(error), candidate.path)}")
            if error.hint:
                out.append(f"  hint: {error.hint}")
    for growth in growths(candidates):
        out.append(f"growth run {growth.name}: {len(growth.members)} runs on one time line")
        overlaps = list(growth.overlaps())
        out += [
            f"  {one.channel.name} ({_file(one.log)}): covers {100 * one.covered:.0f} % of {_file(one.movie)}"
            for one in overlaps[:OVERLAPS_SHOWN]
        ]
        if len(overlaps) > OVERLAPS_SHOWN:
            out.append(f"  and {len(overlaps) - OVERLAPS_SHOWN} more; --json has them all")
    return out


def _without(message: str, path: str) -> str:
    """Return a message without the path that the line above it says."""
    return message.removeprefix(f"{path.partition('::')[0]}: ")


def _file(path: str) -> str:
    file = path.partition("::")[0]
    return os.path.basename(file.rstrip("/"))


def _start_line(start_ns: int | None, start_from: str | None) -> str:
    said = "not known" if start_ns is None else f"{utc(round(start_ns / 1e6))} ({start_from})"
    return f"  start    {said}"


def _frames_lines(candidate: Candidate, info: SourceInfo, plan: RunPlan | None) -> list[str]:
    full_scale = info.scale.full_scale
    scale = f"{full_scale:g} becomes 255 ({info.scale.full_scale_from})" if full_scale else "as it is"
    said = "asked" if candidate.fps_asked else "claimed"
    claimed = "not claimed" if info.fps_claimed is None else f"{said} {info.fps_claimed:g}"
    measured = ""
    if plan is not None:
        measured = f", measured {plan.settings.fps:.6g}" if candidate.is_measured else ", no stamps to measure it by"
    out = [
        (
            f"  format   {info.format}; {info.frames} frames of {info.width_px} x {info.height_px} px, "
            f"{info.scale.dtype} {scale}; {info.bytes_in / 1e6:.1f} MB"
        ),
        f"  fps      {claimed}{measured}",
        _start_line(info.start_ns, info.start_from),
    ]
    if plan is not None:
        out.append(
            f"  chunks   {len(plan.chunks)} of at most {plan.settings.chunk_size} frames ({plan.ideal_chunks} "
            f"without gaps); time error <= {plan.time_error.worst_ms:.2f} ms, p99 {plan.time_error.p99_ms:.2f} ms"
        )
        settings = plan.settings
        if candidate.is_planned:
            rpm = settings.rotations_per_min
            turning = f"{rpm:g} rotations/min" if rpm > 0 else "stationary"
            azimuth = f", azimuth {settings.azimuth}" if settings.azimuth else ""
            out.append(f"  stream   {settings.name}; {turning}{azimuth}")
        out += _names_line(settings.physical_sample, settings.tags)
    return out


def _log_lines(info: SeriesInfo, plan: SeriesPlan | None) -> list[str]:
    out = [
        f"  format   {info.format}; {len(info.channels)} channels, {info.points} points; {info.bytes_in / 1e6:.2f} MB",
        _start_line(info.start_ns, info.start_from),
    ]
    out += [f"  channel  {_channel(fact)}" for fact in info.channels[:CHANNELS_SHOWN]]
    if len(info.channels) > CHANNELS_SHOWN:
        out.append(f"  channel  and {len(info.channels) - CHANNELS_SHOWN} more")
    if plan is not None:
        out.append(
            f"  chunks   {len(plan.chunks)} requests of at most {plan.settings.points_per_chunk} points a channel"
        )
        out += _names_line(plan.settings.physical_sample, plan.settings.tags)
    return out


def _channel(fact: ChannelFact) -> str:
    units = f" in {fact.units}" if fact.units else ""
    holds = ", the last value holds" if fact.holds else ""
    return f"{fact.name}{units}: {fact.points} points over {(fact.last_ns - fact.first_ns) / 1e9:.1f} s{holds}"


def _names_line(sample: str | None, tags: Sequence[str]) -> list[str]:
    if sample is None and not tags:
        return []
    return [f"  names    sample {sample or '-'}; tags {', '.join(tags) or '-'}"]
