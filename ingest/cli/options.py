"""Options that commands share, and where key and destination come from."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import urlsplit, urlunsplit

import click

from ingest.config import BackfillSettings, load_job_file
from ingest.destinations import NULL_URL, is_lake
from ingest.errors import SettingsError
from ingest.lake.layout import STATE_FOLDER
from ingest.lake.opening import canonical_lake_url
from ingest.rules import SIDECAR_NAMES
from ingest.settings import given_fields, settings_from
from ingest.sources.base import Orientation
from ingest.sources.urls import is_url
from ingest.telemetry import Secret

__all__ = [
    "api_key",
    "canonical_destination",
    "canonical_destinations",
    "merged_settings",
    "source_options",
    "state_dir",
    "stream_options",
]

F = TypeVar("F", bound=Callable[..., Any])

_SOURCE = [
    click.option("--start", metavar="TIME", help="Capture time of the first frame, ISO 8601; shifts recorded stamps."),
    click.option(
        "--start-from", type=click.Choice(["mtime"]), help="Take the start from the file's mtime, if need be."
    ),
    click.option("--timezone", metavar="ZONE", help="IANA zone of naive times, such as Europe/Berlin."),
    click.option("--fps", type=float, help="Frames per second, where no stamps say."),
    click.option(
        "--ignore-stamps/--no-ignore-stamps",
        default=None,
        help="Stamps are wrong: let --fps and --start say the times.",
    ),
    click.option("--dataset", metavar="PATH", help="Where the frames are inside the HDF5 file."),
    click.option("--timestamps", metavar="PATH", help="Where the stamps are inside the HDF5 file."),
    click.option("--full-scale", type=float, help="The pixel value that becomes 255, for frames wider than 8 bit."),
    click.option("--log-start", metavar="TIME", help="When elapsed time in logs was 0, ISO 8601; default: the start."),
    click.option("--from", metavar="TIME", help="Leave out frames before: seconds from the first (12.5, 2m), or ISO."),
    click.option("--until", metavar="TIME", help="Leave out frames from there on; as --from."),
    click.option("--every", type=int, metavar="N", help="Take each N-th frame."),
    click.option("--roi", metavar="LEFT,TOP,WIDTH,HEIGHT", help="Region to take, in px of the recorded frame."),
    click.option(
        "--orientation",
        type=click.Choice(get_args(Orientation)),
        help="Turn frames: rot90 is counter-clockwise, flip-lr swaps left and right. Default none.",
    ),
    click.option(
        "--colour",
        "--color",
        "colour",
        type=click.Choice(["luma", "mean", "red", "green", "blue"]),
        help="What to take of colour frames; default: luma of video, an error for pictures.",
    ),
    click.option(
        "--expand-range/--no-expand-range", default=None, help="Bring a video's limited range (16 to 235) to 0 to 255."
    ),
    click.option(
        "--apply-rotation/--no-apply-rotation", default=None, help="Turn video frames as their display matrix says."
    ),
    click.option("--raw-shape", metavar="HEIGHTxWIDTH", help="Frame shape of headerless files."),
    click.option("--raw-dtype", metavar="TYPE", help="Pixel type of headerless files, with byte order: <u2, >u2, u1."),
    click.option("--raw-header-bytes", type=int, metavar="BYTES", help="To skip at the beginning of headerless files."),
]
_STREAM = [
    click.option("--name", help="Name of the stream; default: the file's."),
    click.option("--sample", metavar="NAME|UUID", help="Physical sample; a new name is created."),
    click.option("--project", metavar="UUID", help="Project that tracks the sample."),
    click.option("--tag", multiple=True, metavar="NAME|UUID", help="Tag; repeat for several. New names are created."),
    click.option("--azimuth", help="Azimuth of a stationary stream."),
    click.option("--rotations-per-min", type=float, help="Rotation of the sample; 0: stationary. Must be said."),
    click.option("--chunk-size", type=int, metavar="FRAMES", help="Frames per chunk; default 2 s of frames."),
    click.option(
        "--chunking", type=click.Choice(["gap-aware", "regular"]), help="Whether chunks end at gaps (default)."
    ),
    click.option("--points-per-chunk", type=int, metavar="POINTS", help="Points per request of a log; default 100."),
    click.option("--instrument", type=int, metavar="ID", help="Growth instrument that the logs are of."),
    click.option(
        "--follow",
        is_flag=False,
        flag_value="30s",
        metavar="[TIME]",
        help="Go on reading files that still grow, until quiet for TIME (30s). Write --follow=TIME, or --follow last.",
    ),
    click.option(
        "--group",
        metavar="folder|none|NAME",
        help="What is one growth: the files of a folder (default), each file alone, or all.",
    ),
]
_SWITCHES = ("expand_range", "apply_rotation", "ignore_stamps")


def _with(options: Sequence[Callable[[F], F]]) -> Callable[[F], F]:
    def decorate(function: F) -> F:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def source_options(function: F) -> F:
    """Add the options that say what a source is."""
    return _with(_SOURCE)(function)


def stream_options(function: F) -> F:
    """Add the options that say what a stream shall be."""
    return _with(_STREAM)(function)


def merged_settings(sources: Sequence[str], given: dict[str, Any]) -> BackfillSettings:
    """Return a job's settings: those of job files among `sources`, overridden by what was given on the command line.

    A growth.yaml, as ``*`` of a shell brings along, is no job file: it says what the files beside and below it are.

    Returns
    -------
    BackfillSettings
        Its `commanded` names what the command line gave, which also wins over rules and sidecars.

    Raises
    ------
    SettingsError
        Two job files, a growth.yaml and nothing beside, or a setting that cannot be.
    """
    yaml_files = [source for source in sources if source.lower().endswith((".yaml", ".yml"))]
    sidecars = [source for source in yaml_files if Path(source).name in SIDECAR_NAMES]
    job_files = [source for source in yaml_files if source not in sidecars]
    if sidecars and len(sidecars) == len(sources):
        raise SettingsError(
            f"{sidecars[0]} is no job file: it says what the files beside and below it are",
            hint="name its folder instead",
        )
    if len(job_files) > 1:
        raise SettingsError(f"one job file at a time; got {', '.join(job_files)}")
    for sidecar in sidecars:
        click.echo(f"{sidecar} is of the files beside and below it; it is no job file", err=True)
    base = load_job_file(Path(job_files[0])) if job_files else BackfillSettings()
    values = {
        name: value
        for name, value in given.items()
        if value is not None and value != () and (value is not False or name in _SWITCHES)
    }
    commanded = given_fields(settings_from(values, "the command"))
    named = tuple(source for source in sources if source not in yaml_files)
    return base.model_copy(
        update={
            **commanded,
            "sources": base.sources + named,
            "commanded": frozenset(commanded),
            "named_sidecars": tuple(sidecars),
        }
    )


def api_key(key_file: Path | None) -> Secret | None:
    """Return the API key from a file, else from ``AS_API_KEY``; the first of several lines.

    Raises
    ------
    SettingsError
        The file cannot be read or is empty.
    """
    if key_file is None:
        text = os.environ.get("AS_API_KEY", "")
    else:
        try:
            text = key_file.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            raise SettingsError(f"the API key file {key_file} cannot be read: {exc}") from exc
        if not text.strip():
            raise SettingsError(f"the API key file {key_file} is empty")
    first = next((line.strip() for line in text.splitlines() if line.strip()), None)
    return None if first is None else Secret(first)


def canonical_destinations(to: Sequence[str]) -> tuple[str, ...]:
    """Return the destinations' URLs, each once, as `canonical_destination`; default: that of the environment."""
    return tuple(dict.fromkeys(canonical_destination(url) for url in to)) if to else (canonical_destination(None),)


def canonical_destination(to: str | None) -> str:
    """Return the destination's URL in the one form that the journal knows it by.

    Raises
    ------
    SettingsError
        None given; user and password in it.
    """
    url = to or os.environ.get("AS_API_ENDPOINT")
    if not url:
        raise SettingsError(
            "no destination",
            hint="pass --to https://api.atomscale.ai (or set AS_API_ENDPOINT), or the folder or s3:// URL of a lake",
        )
    if url == NULL_URL:
        return url
    if is_lake(url):
        lake = canonical_lake_url(url)
        if not is_url(lake):
            _check_lake_folder(url, lake)
        if lake.startswith("memory://"):
            raise SettingsError(
                f"{lake}: each worker would have a memory of its own",
                hint="name a folder, or a URL such as s3://bucket",
            )
        return lake
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise SettingsError(f"the destination is not a URL: {exc}", hint="write https://api.atomscale.ai") from exc
    if parts.query or parts.fragment:
        raise SettingsError("a destination's URL has no query or fragment", hint="write https://api.atomscale.ai")
    if parts.username or parts.password:
        raise SettingsError("a destination's URL has no user and password in it", hint="the key comes from AS_API_KEY")
    return urlunsplit((parts.scheme.lower(), parts.netloc.lower(), parts.path.rstrip("/"), "", ""))


_LIKE_A_HOST = re.compile(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+(:\d+)?(/.*)?|(https?|s3|gs|abfs)/+.*")


def _check_lake_folder(given: str, lake: str) -> None:
    if os.path.lexists(lake):
        if not os.path.isdir(lake):
            raise SettingsError(
                f"{lake} is no folder, which a lake on a disk is", hint="name a folder, new or a lake's"
            )
        if not os.access(lake, os.W_OK | os.X_OK):
            raise SettingsError(f"{lake} cannot be written to by this user", hint="name another folder")
    elif _LIKE_A_HOST.fullmatch(given):
        raise SettingsError(
            f"{given!r} is no folder here, and no URL",
            hint=f"write https://..., s3://..., or ./{given} for a new folder",
        )


def state_dir(state: str | None, destinations: Sequence[str] = ()) -> Path:
    """Return the folder of the journal: of a job to one lake on a local disk that lake's own, else the user's."""
    from ingest.journal import default_state_dir

    if state is not None and "://" in state and not state.startswith("file://"):
        raise SettingsError(f"--state {state}: a journal is a local folder for now", hint="pass a path on a local disk")
    if state is None and len(destinations) == 1 and is_lake(lake := destinations[0]) and not is_url(lake):
        return Path(lake, STATE_FOLDER)
    return default_state_dir() if state is None else Path(state.removeprefix("file://")).expanduser()
