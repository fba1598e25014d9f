"""``rheed-ingest export``: a run as one plain file again."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ingest.cli.exits import FAILED, OK, PARTIAL, USAGE
from ingest.cli.options import merged_settings, source_options
from ingest.errors import IngestError, NoFramesError, SettingsError, SourceReadError

if TYPE_CHECKING:
    from ingest.config import BackfillSettings
    from ingest.export import Exported, ExportOptions
    from ingest.sources import SourceSpec

__all__ = ["export"]

LINE_EVERY_S = 5.0
FORMAT_OF = {".mp4": "mp4", ".h5": "hdf5", ".hdf5": "hdf5", ".nxs": "hdf5", ".tif": "tiff", ".tiff": "tiff"}


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="RUN...")
@click.option("--format", "export_format", type=click.Choice(["mp4", "hdf5", "tiff"]), help="Default: by --out's name.")
@click.option("--out", metavar="FILE|FOLDER", help="Where to; a folder for several runs. Default: this folder.")
@click.option("--force", is_flag=True, help="Replace files that exist.")
@click.option("--crf", type=int, help="mp4: how much is lost, 1 (least) to 51; default 17, invisible.")
@click.option("--lossless", is_flag=True, help="mp4: every pixel as it is (few browsers show it; VLC and FFmpeg do).")
@click.option("--compression", type=click.Choice(["none", "zlib"]), help="hdf5 and tiff; default none: read fastest.")
@source_options
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
def export(
    sources: Sequence[str],
    export_format: str | None,
    out: str | None,
    force: bool,
    crf: int | None,
    lossless: bool,
    compression: Any,
    as_json: bool,
    **given: Any,
) -> int:
    """Write runs as plain files with their times: streams of a lake, or recordings of any format.

    \b
    Example:
      rheed-ingest export lake/sto-17-0a1b2c3d.zarr --format mp4
    """  # noqa: D301 - \b is click's
    from ingest.export import ExportOptions

    options = ExportOptions(_format(export_format, out), crf, lossless, compression)
    began_s = time.monotonic()
    jobs = list(_find(sources, merged_settings(sources, given)))
    if not jobs:
        raise SettingsError(f"nothing to export in {', '.join(sources)}", hint="name streams of a lake, or recordings")
    target = _Target(out, options.format, several=sum(job.spec is not None for job in jobs) > 1)
    for job in jobs:
        _export(job, target, options, force=force)
    seconds = time.monotonic() - began_s
    if as_json:
        click.echo(json.dumps(_document(jobs, seconds), indent=2))
    else:
        click.echo("\n".join(line for job in jobs for line in _lines(job)))
    return _exit_code(jobs)


@dataclass
class _Job:
    """One run: what is asked of it, and what became of that."""

    path: str
    spec: SourceSpec | None = None
    settings: BackfillSettings | None = None
    done: Exported | None = None
    start_from: str | None = None
    error: IngestError | None = None
    seconds: float = field(default=0.0)

    @property
    def status(self) -> str:
        if self.done is None:
            return "failed"
        return "partial" if self.done.lost else "complete"


class _Target:
    """Where files go: each run's own name in a folder, or the one name that was given."""

    def __init__(self, out: str | None, export_format: str, *, several: bool) -> None:
        path = Path.cwd() if out is None else Path(out).expanduser().absolute()
        self._format = export_format
        self._folder = path if out is None or several or path.is_dir() or out.endswith("/") else None
        self._file = path
        self._used: dict[str, int] = {}
        if several and path.exists() and not path.is_dir():
            raise SettingsError(f"--out {out} is a file, and there are several runs", hint="name a folder")

    def path_for(self, name: str) -> Path:
        """Return the file for a run of this name; of several runs of one name, each gets its own."""
        from ingest.export import file_name

        if self._folder is None:
            return self._file
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"--out {self._folder} cannot be made: {error.strerror}") from error
        first = file_name(name, self._format)
        self._used[first.casefold()] = number = self._used.get(first.casefold(), 0) + 1
        return self._folder / file_name(name, self._format, number)


def _format(asked: str | None, out: str | None) -> Any:
    if out is not None and "://" in out:
        raise SettingsError("export writes local files", hint="pass a path by --out, and copy the file from there")
    named = None if out is None or out.endswith("/") else FORMAT_OF.get(Path(out).suffix.lower())
    if asked is None and named is None:
        raise SettingsError("no format was named", hint="pass --format mp4, hdf5 or tiff")
    if asked is not None and named is not None and asked != named:
        raise SettingsError(f"--out {out} is named like {named}, but --format says {asked}", hint="drop one of them")
    return asked or named


def _find(sources: Sequence[str], settings: BackfillSettings) -> Iterator[_Job]:
    """Yield every run of frames; what else is there is an error, or said on stderr where it goes with frames."""
    from ingest.cli.planning import finding_options
    from ingest.config import run_settings
    from ingest.sources import SourceSpec, discover

    found = list(discover(settings.sources, finding_options(settings)))
    frames = {path for entry in found if isinstance(entry.spec, SourceSpec) for path in entry.spec.paths}
    for entry in found:
        spec = entry.spec
        if spec is None:
            yield _Job(entry.path, error=entry.error)
        elif isinstance(spec, SourceSpec):
            inside = "" if spec.dataset is None else f"::{spec.dataset}"
            try:
                own = run_settings(settings, spec.paths[0] + inside, sources)
            except IngestError as error:
                yield _Job(spec.canonical_path, error=error)
            else:
                yield _Job(spec.canonical_path, spec, own)
        elif frames:
            click.echo(f"{spec.canonical_path}: readings, not frames: not exported", err=True)
        else:
            readings = NoFramesError(
                f"{spec.canonical_path}: holds readings, no frames",
                hint="export is of frames; read time series with zarr or xarray, or the log itself",
            )
            yield _Job(spec.canonical_path, error=readings)


def _export(job: _Job, target: _Target, options: ExportOptions, *, force: bool) -> None:
    from ingest.export import export_run
    from ingest.sources import inspect

    if job.spec is None or job.settings is None:
        return
    began_s = time.monotonic()
    try:
        info = inspect(job.spec, job.settings.source_options())
        job.path, job.start_from = info.spec.canonical_path, info.start_from
        out = target.path_for(job.settings.name or info.name)
        with _progress(out.name) as show:
            job.done = export_run(info, out, options, force=force, progress=show)
    except IngestError as error:
        job.error = error
    except OSError as error:
        job.error = SourceReadError(f"{job.path}: {error.strerror or error}")
    job.seconds = time.monotonic() - began_s


@contextmanager
def _progress(name: str) -> Iterator[Callable[[int, int], None]]:
    """Give what draws how far a file is, on stderr: a bar on a terminal, a line now and then elsewhere."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    if console.is_terminal:
        with Progress(console=console, transient=True) as bars:
            task = bars.add_task(name, total=None)
            yield lambda done, total: bars.update(task, completed=done, total=total)
        return
    said_s = time.monotonic()

    def line(done: int, total: int) -> None:
        nonlocal said_s
        if time.monotonic() - said_s >= LINE_EVERY_S:
            said_s = time.monotonic()
            click.echo(f"{name}: {done} of {total} frames", err=True)

    yield line


def _run_document(job: _Job) -> dict[str, Any]:
    from ingest.cli.report import finding_lines

    done = job.done
    start_ns = None if done is None else done.start_ns
    return {
        "source": job.path,
        "status": job.status,
        "out": None if done is None else str(done.path),
        "frames": 0 if done is None else done.frames,
        "frames_lost": 0 if done is None else len(done.lost),
        "lost": [] if done is None else [list(stretch) for stretch in _stretches(done.lost)],
        "start_unix_ns_utc": start_ns,
        "start_unix_ms_utc": None if start_ns is None else round(start_ns / 1e6),
        "start_from": job.start_from,
        "bytes_out": 0 if done is None else done.bytes_out,
        "seconds": round(job.seconds, 3),
        "findings": [] if done is None else finding_lines(done.findings),
        "error": None if job.error is None else str(job.error),
        "hint": None if job.error is None else job.error.hint,
    }


def _stretches(lost: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield first and last of each stretch of rising numbers."""
    first = last = None
    for number in lost:
        if last is None or first is None:
            first = number
        elif number != last + 1:
            yield first, last
            first = number
        last = number
    if first is not None and last is not None:
        yield first, last


def _document(jobs: Sequence[_Job], seconds: float) -> dict[str, Any]:
    runs = [_run_document(job) for job in jobs]
    totals = {
        "runs": len(runs),
        "complete": sum(run["status"] == "complete" for run in runs),
        "frames": sum(run["frames"] for run in runs),
        "frames_lost": sum(run["frames_lost"] for run in runs),
        "bytes_out": sum(run["bytes_out"] for run in runs),
        "seconds": round(seconds, 3),
    }
    return {"runs": runs, "totals": totals}


def _lines(job: _Job) -> list[str]:
    from ingest.cli.report import utc

    run = _run_document(job)
    out = [f"{job.status:<9}{job.path}"]
    if job.done is not None:
        ms = run["start_unix_ms_utc"]
        since = "start not known" if ms is None else f"from {utc(ms)} ({job.start_from})"
        out.append(
            f"         {run['out']}  {run['frames'] - run['frames_lost']} frames {since}, "
            f"{run['bytes_out'] / 1e6:.1f} MB, {run['seconds']:.1f} s"
        )
    out += [f"         - {finding}" for finding in run["findings"]]
    if run["error"]:
        out.append(f"         error: {run['error']}")
    if run["hint"]:
        out.append(f"         hint: {run['hint']}")
    return out


def _exit_code(jobs: Sequence[_Job]) -> int:
    """Return 0 if all is written, 3 if some is missing; if nothing is: 2 where what was asked cannot be, else 1."""
    if not all(job.done is None for job in jobs):
        return OK if all(job.status == "complete" for job in jobs) else PARTIAL
    return USAGE if all(isinstance(job.error, SettingsError) for job in jobs) else FAILED
