"""``rheed-ingest verify``: what was sent against what is there."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.exits import FAILED, OK, PARTIAL
from ingest.cli.options import (
    api_key,
    canonical_destinations,
    merged_settings,
    source_options,
    state_dir,
    stream_options,
)
from ingest.errors import IngestError, SettingsError

if TYPE_CHECKING:
    from ingest.cli.planning import Candidate
    from ingest.verify.findings import StreamReport
    from ingest.verify.job import VerifyRequest

__all__ = ["verify"]

LINE_EVERY_S = 5.0
SHOWN = 5
SMALL_BYTES = 1_000_000_000
"""Two threads compare about 500 MB/s, and a Ray takes seconds to start."""
GOOD = ("verified", "repaired")


@click.command()
@click.argument("sources", nargs=-1, metavar="SOURCE...|JOB.yaml")
@click.option("--to", multiple=True, metavar="URL", help="What to verify: a lake, or the embedded platform.")
@click.option("--repair", is_flag=True, help="Write anew what differs; needs the source. Else nothing is written.")
@click.option("--stream", "streams", multiple=True, metavar="DATA_ID", help="Only this stream; repeat for several.")
@stream_options
@source_options
@click.option(
    "--packers",
    type=int,
    help="Workers; default: none for less than 1 GB, else as many as free processors. 0: in this process.",
)
@click.option("--open-runs", type=int, help="Streams that are gone through at once; default 4.")
@click.option("--level", type=int, help="zstd level of what is written anew; default 1.")
@click.option("--retry-for", metavar="TIME", help="How long an unreachable destination is tried; default 15m.")
@click.option("--restart", is_flag=True, hidden=True, help="For backfill; the newest stream is verified in any case.")
@click.option("--state", metavar="DIR", help="Folder of the journal; default: the lake's, else the user's.")
@click.option("--address", help="Address of a Ray cluster (run on one of its nodes); default: a Ray of its own.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File with the API key; default: AS_API_KEY.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def verify(
    sources: Sequence[str],
    repair: bool,
    streams: Sequence[str],
    packers: int | None,
    api_key_file: Path | None,
    as_json: bool,
    **given: Any,
) -> int:
    """Compare sources with what a lake or the embedded platform holds of them, frame by frame.

    Takes the arguments of the backfill that sent them. Without sources: each stream of a lake against its own manifest.

    \b
    Exit codes: 0 all is right, or was repaired; 3 something differs or is missing; 1 nothing could be verified.
    Example:
      rheed-ingest verify runs/2023-10-18 --to s3://lab/growth --repair
    """  # noqa: D301 - \b is click's
    from ingest.verify.findings import StreamReport

    settings = merged_settings(sources, {**given, "packers": packers or None})
    destinations = canonical_destinations(settings.to)
    candidates = _candidates(settings, destinations, repair=repair)
    planned = [(candidate.path, candidate.plan) for candidate in candidates if candidate.plan is not None]
    began_s = time.monotonic()
    failed = [
        StreamReport(destinations[0], candidate.path).fail(candidate.error)
        for candidate in candidates
        if candidate.error is not None
    ]
    request = _request(settings, destinations, planned, streams, api_key(api_key_file), repair=repair)
    done: list[StreamReport] = []
    if planned or not candidates:
        frames = sum(plan.frames for _, plan in planned) * len(destinations)
        with _progress(frames or None) as show:
            done = _run(request, settings, show, in_process=_is_small(planned, packers, settings.address))
    reports = [*done, *failed]
    seconds = time.monotonic() - began_s
    if as_json:
        click.echo(json.dumps(_document(reports, seconds), indent=2))
    else:
        click.echo("\n".join(_lines(reports, seconds)))
    return _exit_code(reports)


def _is_small(planned: Any, packers: int | None, address: str | None) -> bool:
    """Return whether it is done before a Ray would have started."""
    if packers is not None or address is not None or not planned:
        return packers == 0
    return sum(int(plan.bytes_in) for _, plan in planned) < SMALL_BYTES


def _candidates(settings: Any, destinations: Sequence[str], *, repair: bool) -> list[Candidate]:
    from ingest.cli.planning import find_candidates, warn_of_settings
    from ingest.destinations import NULL_URL, is_lake

    if NULL_URL in destinations:
        raise SettingsError(f"{NULL_URL} keeps nothing that could be verified", hint="name a lake or a platform")
    if settings.sources:
        candidates = find_candidates(settings.sources, settings, planning=True, to=destinations)
        warn_of_settings(settings, candidates)
        return candidates
    if repair:
        raise SettingsError("--repair needs the source: it sends anew what differs", hint="name what was sent")
    if not all(is_lake(destination) for destination in destinations):
        raise SettingsError(
            "without a source only the streams of a lake can be verified", hint="name what was sent to the platform"
        )
    return []


def _request(
    settings: Any, destinations: Sequence[str], planned: Any, streams: Sequence[str], key: Any, *, repair: bool
) -> VerifyRequest:
    from ingest.retry import RetryPolicy
    from ingest.verify.job import VerifyRequest

    return VerifyRequest(
        destinations=destinations,
        runs=planned,
        state_dir=state_dir(settings.state, destinations),
        streams=streams,
        repair=repair,
        api_key=key,
        retry=RetryPolicy(retry_for_s=settings.retry_for),
        streams_at_once=settings.open_runs,
    )


def _run(
    request: VerifyRequest, settings: Any, progress: Callable[[int], None], *, in_process: bool
) -> list[StreamReport]:
    if in_process:
        from ingest.verify.here import verify_here

        return asyncio.run(verify_here(request, progress, level=settings.level))
    from actors.verifying import run_verify

    return run_verify(request, progress, address=settings.address, packers=settings.packers, level=settings.level)


@contextmanager
def _progress(frames: int | None) -> Iterator[Callable[[int], None]]:
    """Give what draws how far it is, on stderr: a bar on a terminal, a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as bars:
            task = bars.add_task("frames", total=frames)
            yield lambda more: bars.advance(task, more)
        return
    said_s, done = time.monotonic(), 0
    of = "" if frames is None else f" of {frames}"

    def line(more: int) -> None:
        nonlocal said_s, done
        done += more
        if time.monotonic() - said_s >= LINE_EVERY_S:
            said_s = time.monotonic()
            click.echo(f"{done}{of} frames compared", err=True)

    yield line


def _stream(report: StreamReport) -> dict[str, Any]:
    rate = report.n_bytes / 1e6 / report.seconds if report.seconds > 0 else 0.0
    return {
        "source": report.source,
        "destination": report.destination,
        "data_id": report.data_id,
        "status": report.status,
        "chunks": report.chunks,
        "frames": report.frames,
        "points": report.points,
        "bytes": report.n_bytes,
        "differences": [difference.document() for difference in report.differences],
        "repaired": [difference.document() for difference in report.repaired],
        "findings": report.findings,
        "seconds": round(report.seconds, 3),
        "mb_per_s": round(rate, 1),
        "error": report.error,
        "hint": report.hint,
    }


def _document(reports: Sequence[StreamReport], seconds: float) -> dict[str, Any]:
    streams = [_stream(report) for report in reports]
    n_bytes = sum(report.n_bytes for report in reports)
    return {
        "streams": streams,
        "totals": {
            "streams": len(streams),
            **{status: sum(s["status"] == status for s in streams) for status in (*GOOD, "different", "missing")},
            "unreadable": sum(s["status"] == "unreadable" for s in streams),
            "chunks": sum(report.chunks for report in reports),
            "frames": sum(report.frames for report in reports),
            "points": sum(report.points for report in reports),
            "bytes": n_bytes,
            "differences": sum(len(report.differences) for report in reports),
            "repaired_differences": sum(len(report.repaired) for report in reports),
            "seconds": round(seconds, 3),
            "mb_per_s": round(n_bytes / 1e6 / seconds, 1) if seconds > 0 else 0.0,
        },
    }


def _lines(reports: Sequence[StreamReport], seconds: float) -> list[str]:
    from ingest.verify.findings import worst

    out = []
    several = len({report.destination for report in reports}) > 1
    for report in reports:
        said = _stream(report)
        of = f"  of {report.source}" if report.source and report.data_id else ""
        of += f"  in {report.destination}" if several else ""
        out.append(f"{report.status:<11}{report.data_id or report.source or report.destination}{of}")
        if report.chunks:
            count = f"{report.points} points" if report.points else f"{report.frames} frames"
            out.append(
                f"           {count}, {report.chunks} chunks, {report.n_bytes / 1e6:.1f} MB in {said['seconds']:.1f} s "
                f"({said['mb_per_s']:.0f} MB/s)"
            )
        out += [f"           - {line}" for line in worst(report.differences, SHOWN)]
        out += [f"           - repaired: {line}" for line in worst(report.repaired, SHOWN)]
        out += [f"           - {finding}" for finding in report.findings]
        if report.error:
            out.append(f"           error: {report.error}")
        if report.hint:
            out.append(f"           hint: {report.hint}")
    totals = _document(reports, seconds)["totals"]
    good = totals["verified"] + totals["repaired"]
    out.append(
        f"{good} of {totals['streams']} streams are right"
        + (f" ({totals['repaired']} repaired)" if totals["repaired"] else "")
        + f", {totals['frames']} frames"
        + (f", {totals['points']} points" if totals["points"] else "")
        + f", {totals['bytes'] / 1e6:.1f} MB in {totals['seconds']:.1f} s ({totals['mb_per_s']:.0f} MB/s)."
    )
    return out


def _exit_code(reports: Sequence[StreamReport]) -> int:
    """Return 0 if all is right or was repaired, 1 if nothing could be read, else 3."""
    if not reports:
        raise IngestError("the lake holds no streams", hint="check the URL")
    if all(report.status in GOOD for report in reports):
        return OK
    return FAILED if all(report.status == "unreadable" for report in reports) else PARTIAL
