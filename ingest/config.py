"""A job's settings, from a YAML job file and the command line; an unknown key is an error that names the nearest."""

from __future__ import annotations

import difflib
import math
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ingest.errors import SettingsError
from ingest.plan import PlanOptions
from ingest.sources.base import SourceOptions

__all__ = ["BackfillSettings", "load_job_file", "parse_duration_s", "parse_start_ns"]

_DURATION = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>s|min|m|h)?")
_UNIT_S = {None: 1.0, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
MAX_JOB_FILE_BYTES = 1 << 20


def parse_duration_s(text: str | float) -> float:
    """Return seconds from ``90``, ``"90s"``, ``"15m"`` or ``"2h"``.

    Raises
    ------
    SettingsError
        Anything else.
    """
    if isinstance(text, int | float) and math.isfinite(text) and text >= 0:
        return float(text)
    match = _DURATION.fullmatch(str(text).strip())
    if match is None:
        raise SettingsError(
            f"{text!r} is no length of time", hint="write seconds (90, 90s), minutes (15m) or hours (2h)"
        )
    return float(match["number"]) * _UNIT_S[match["unit"]]


def parse_start_ns(text: str, timezone: str | None) -> int:
    """Return Unix ns UTC from an ISO 8601 time.

    Parameters
    ----------
    text : str
        Such as ``2023-10-18T08:00:00.250+02:00``; a time without a zone needs `timezone`.
    timezone : str or None
        IANA name.

    Raises
    ------
    SettingsError
        Not ISO 8601, no zone, an unknown one, or a time that its clock showed twice or never.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError as exc:
        raise SettingsError(f"start {text!r} is not an ISO 8601 time", hint="write 2023-10-18T08:00:00+02:00") from exc
    if time.tzinfo is None:
        if timezone is None:
            raise SettingsError(
                f"start {text!r} has no zone",
                hint="add it (2023-10-18T08:00:00+02:00, or Z for UTC), or pass --timezone",
            )
        try:
            time = time.replace(tzinfo=ZoneInfo(timezone))
        except (ZoneInfoNotFoundError, ValueError, OSError) as exc:
            raise SettingsError(f"there is no time zone {timezone!r}", hint="use an IANA name: Europe/Berlin") from exc
        if time.utcoffset() != time.replace(fold=1).utcoffset():
            raise SettingsError(
                f"start {text!r}: the clock of {timezone} showed that twice or never, as summer time ended or began",
                hint="add the offset from UTC (2023-10-29T02:30:00+02:00)",
            )
    whole = int(time.replace(microsecond=0).timestamp())
    return whole * 1_000_000_000 + time.microsecond * 1000


class BackfillSettings(BaseModel):
    """Everything that a backfill can be told; keys of a job file, and options of the command."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[str, ...] = ()
    to: str | None = None
    name: str | None = None
    sample: str | None = None
    project: str | None = None
    tag: tuple[str, ...] = ()
    azimuth: str | None = None
    fps: float | None = None
    rotations_per_min: float = 0.0
    start: str | None = None
    start_from: Literal["mtime"] | None = None
    timezone: str | None = None
    dataset: str | None = None
    timestamps: str | None = None
    full_scale: float | None = None
    chunk_size: int | None = Field(default=None, ge=1)
    chunking: Literal["gap-aware", "regular"] = "gap-aware"
    packers: int | None = Field(default=None, ge=1, le=4096)
    open_runs: int = Field(default=4, ge=1, le=64)
    level: int = Field(default=1, ge=-131072, le=22)
    retry_for: float = 900.0
    restart: bool = False
    state: str | None = None
    address: str | None = None

    @field_validator("start", mode="before")
    @classmethod
    def _start_text(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, datetime) else value  # YAML reads times by itself

    @field_validator("retry_for", mode="before")
    @classmethod
    def _retry_seconds(cls, value: object) -> object:
        return parse_duration_s(value) if isinstance(value, str | int | float) else value

    def source_options(self) -> SourceOptions:
        """Return what is said of the sources."""
        return SourceOptions(
            dataset=self.dataset,
            timestamps=self.timestamps,
            start_ns=None if self.start is None else parse_start_ns(self.start, self.timezone),
            timezone=self.timezone,
            start_from_mtime=self.start_from == "mtime",
            fps=self.fps,
            full_scale=self.full_scale,
        )

    def plan_options(self) -> PlanOptions:
        """Return what is said of the streams."""
        return PlanOptions(
            name=self.name,
            rotations_per_min=self.rotations_per_min,
            chunk_size=self.chunk_size,
            chunking=self.chunking,
            fps=self.fps,
            azimuth=self.azimuth,
            physical_sample=self.sample,
            project_id=self.project,
            tags=self.tag,
        )


def load_job_file(path: Path) -> BackfillSettings:
    """Read a job file; relative sources are taken from its folder.

    Raises
    ------
    SettingsError
        Not YAML, an unknown key, a value that cannot be, or a key in it that must not be (API keys).
    """
    try:
        if path.stat().st_size > MAX_JOB_FILE_BYTES:
            raise SettingsError(f"the job file {path} is larger than 1 MiB")
        content = yaml.safe_load(path.read_text("utf-8"))
    except SettingsError:
        raise
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"the job file {path} cannot be read: {exc}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # PyYAML lets the last two out: 2023-02-30, [[[[...
        raise SettingsError(f"the job file {path} is not YAML: {exc}") from exc
    if not isinstance(content, dict):
        raise SettingsError(f"the job file {path} is not a mapping of settings", hint="see configs/backfill.yaml")
    settings = settings_from({str(k).replace("-", "_"): v for k, v in content.items()}, f"the job file {path}")
    sources = tuple(s if "://" in s else str(path.parent / Path(s).expanduser()) for s in settings.sources)
    return settings.model_copy(update={"sources": sources})


def settings_from(values: dict[str, Any], where: str) -> BackfillSettings:
    """Return checked settings.

    Raises
    ------
    SettingsError
        An unknown key, with the nearest known one, or a value that cannot be.
    """
    known = list(BackfillSettings.model_fields)
    for key in values:
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
            if "key" in key:
                hint = "API keys come from AS_API_KEY or --api-key-file, never from a job file"
            raise SettingsError(f"{where} has an unknown key {key!r}", hint=hint)
    for name in ("sources", "tag"):
        if isinstance(values.get(name), str):
            values = {**values, name: (values[name],)}
    try:
        return BackfillSettings.model_validate(values)
    except ValidationError as exc:
        first = exc.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"{where}: {key}: {first['msg']} (got {first['input']!r})") from exc
