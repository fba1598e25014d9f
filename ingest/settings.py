"""Everything that a job can be told, checked; an unknown key is an error that names the nearest. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, InstanceOf, ValidationError, field_validator

from ingest.errors import SettingsError
from ingest.path_rules import Rule
from ingest.plan import PlanOptions
from ingest.series_plan import SeriesOptions
from ingest.settings_text import (
    check_zone,
    parse_dtype,
    parse_duration_s,
    parse_follow_s,
    parse_moment,
    parse_roi,
    parse_shape,
    parse_start_ns,
    shown,
)
from ingest.sources.base import FrameWindow, Orientation, Roi, SourceOptions, StartSaidBy
from ingest.timing import check_fps

__all__ = ["JOB_KEYS", "KEYS", "RUN_KEYS", "BackfillSettings", "given_fields", "run_fields", "settings_from"]

# What people call keys that difflib takes for others, or for none.
_OTHER_WORDS = {
    "rotation": "rotations_per_min",
    "rotations": "rotations_per_min",
    "rpm": "rotations_per_min",
    "color": "colour",
    "crop": "roi",
    "start_time": "start",
}
_START_SAID = {
    "user": "start",
    "sidecar": "start (of growth.yaml)",
    "file name": "start (that a rule read from the path)",
}


class BackfillSettings(BaseModel):
    """Everything that a backfill can be told; keys of a job file, and options of the command.

    Fields that are no keys: `commanded`, the names of those that the command line gave, which win over rules and
    sidecars; `start_said_by`, whose `start` it is; `named_sidecars`, each growth.yaml that the user named himself.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    sources: tuple[str, ...] = ()
    to: tuple[str, ...] = ()
    name: str | None = None
    sample: str | None = None
    project: str | None = None
    tag: tuple[str, ...] = ()
    azimuth: str | None = None
    fps: float | None = None
    ignore_stamps: bool = False
    rotations_per_min: float | None = None
    start: str | None = None
    start_from: Literal["mtime"] | None = None
    timezone: str | None = None
    log_start: str | None = None
    dataset: str | None = None
    timestamps: str | None = None
    full_scale: float | None = None
    orientation: Orientation = "none"
    roi: Roi | None = None
    every: int = Field(default=1, ge=1)
    from_: float | str | None = Field(default=None, validation_alias="from")
    until: float | str | None = None
    expand_range: bool = False
    apply_rotation: bool = False
    colour: Literal["luma", "mean", "red", "green", "blue"] | None = None
    raw_shape: tuple[int, int] | None = None
    raw_dtype: str | None = None
    raw_header_bytes: int = Field(default=0, ge=0)
    chunk_size: int | None = Field(default=None, ge=1)
    chunking: Literal["gap-aware", "regular"] | None = None
    points_per_chunk: int = Field(default=100, ge=1)
    instrument: int | None = None
    follow: float | None = None
    group: str = Field(default="folder", min_length=1)
    packers: int | None = Field(default=None, ge=1, le=4096)
    open_runs: int = Field(default=4, ge=1, le=64)
    level: int = Field(default=1, ge=-131072, le=22)
    retry_for: float = 900.0
    failover: str | None = None
    failover_after: float = 60.0
    restart: bool = False
    state: str | None = None
    address: str | None = None
    rules: tuple[InstanceOf[Rule], ...] = ()

    commanded: frozenset[str] = frozenset()
    start_said_by: StartSaidBy = "user"
    named_sidecars: tuple[str, ...] = ()

    @field_validator("start", "log_start", mode="before")
    @classmethod
    def _time_text(cls, value: object) -> object:
        return value.isoformat() if isinstance(value, datetime) else value  # YAML reads times by itself

    @field_validator("retry_for", "failover_after", mode="before")
    @classmethod
    def _retry_seconds(cls, value: object) -> object:
        return parse_duration_s(value)

    @field_validator("follow", mode="before")
    @classmethod
    def _quiet_seconds(cls, value: object) -> object:
        return parse_follow_s(value)

    @field_validator("from_", "until", mode="before")
    @classmethod
    def _moment(cls, value: object) -> object:
        return None if value is None else parse_moment(value)

    @field_validator("roi", mode="before")
    @classmethod
    def _region(cls, value: object) -> object:
        return None if value is None else parse_roi(value)

    @field_validator("raw_shape", mode="before")
    @classmethod
    def _shape(cls, value: object) -> object:
        return None if value is None else parse_shape(value)

    @field_validator("raw_dtype", mode="before")
    @classmethod
    def _pixels(cls, value: object) -> object:
        return None if value is None else parse_dtype(value)

    @field_validator(
        "fps", "rotations_per_min", "full_scale", "every", "raw_header_bytes", "chunk_size", "points_per_chunk",
        "instrument", "packers", "open_runs", "level",
        mode="before",
    )  # fmt: skip
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, bool):  # YAML reads no, off and yes as these
            raise ValueError("yes and no are no numbers")
        return value

    @field_validator("fps")
    @classmethod
    def _rate(cls, value: float | None) -> float | None:
        return None if value is None else check_fps(value)

    @field_validator("timezone")
    @classmethod
    def _zone(cls, value: str | None) -> str | None:
        return None if value is None else check_zone(value)

    def source_options(self) -> SourceOptions:
        """Return what is said of the sources.

        Raises
        ------
        SettingsError
            A time that is none or has no zone; a range of times that ends before it begins.
        """
        return SourceOptions(
            dataset=self.dataset,
            timestamps=self.timestamps,
            start_ns=self._unix_ns(self.start, _START_SAID[self.start_said_by]),
            timezone=self.timezone,
            start_from_mtime=self.start_from == "mtime",
            fps=self.fps,
            ignore_stamps=self.ignore_stamps,
            full_scale=self.full_scale,
            start_said_by=self.start_said_by,
            series_start_ns=self._unix_ns(self.log_start, "log_start"),
            window=self._window(),
            expand_range=self.expand_range,
            apply_rotation=self.apply_rotation,
            colour=self.colour,
            raw_shape=self.raw_shape,
            raw_dtype=self.raw_dtype,
            raw_header_bytes=self.raw_header_bytes,
        )

    def _unix_ns(self, text: str | None, what: str) -> int | None:
        return None if text is None else parse_start_ns(text, self.timezone, what)

    def _window(self) -> FrameWindow:
        bounds: dict[str, Any] = {}
        for name, moment in (("from", self.from_), ("until", self.until)):
            if isinstance(moment, str):
                bounds[f"{name}_ns"] = parse_start_ns(moment, self.timezone, name)
            else:
                bounds[f"{name}_s"] = moment
        window = FrameWindow(every=self.every, roi=self.roi, orientation=self.orientation, **bounds)
        for low, high in ((window.from_s, window.until_s), (window.from_ns, window.until_ns)):
            if low is not None and high is not None and high <= low:
                raise SettingsError(
                    f"until {self.until!r} is not later than from {self.from_!r}", hint="until is exclusive"
                )
        return window

    def plan_options(
        self, *, require_rotation: bool = False, for_lake: bool = False, for_platform: bool = True
    ) -> PlanOptions:
        """Return what is said of the streams.

        Parameters
        ----------
        require_rotation : bool
            Whether nobody having said how the sample rotated is an error; else it is planned as stationary.
        for_lake, for_platform : bool
            What is among the destinations.

        Raises
        ------
        SettingsError
            That error.
        """
        if self.rotations_per_min is None and require_rotation:
            raise SettingsError(
                "nothing says whether the sample rotated",
                hint="pass --rotations-per-min 0 for a stationary sample, else its rotations per minute; or put "
                "rotations_per_min into the job file, a rule or a growth.yaml beside the data",
            )
        return PlanOptions(
            name=self.name,
            rotations_per_min=self.rotations_per_min or 0.0,
            chunk_size=self.chunk_size,
            chunking=self.chunking or "gap-aware",
            chunking_asked=self.chunking is not None,
            fps=self.fps,
            azimuth=self.azimuth,
            physical_sample=self.sample,
            project_id=self.project,
            tags=self.tag,
            for_lake=for_lake,
            for_platform=for_platform,
        )

    def series_options(self) -> SeriesOptions:
        """Return what is said of the streams of logs."""
        return SeriesOptions(
            name=self.name,
            points_per_chunk=self.points_per_chunk,
            synth_source_id=self.instrument,
            physical_sample=self.sample,
            project_id=self.project,
            tags=self.tag,
        )


KEYS = tuple(
    "from" if name == "from_" else name
    for name in BackfillSettings.model_fields
    if name not in ("commanded", "start_said_by", "named_sidecars")
)
"""Keys of a job file."""

JOB_KEYS = frozenset(
    {
        "sources",
        "to",
        "packers",
        "open_runs",
        "level",
        "retry_for",
        "failover",
        "failover_after",
        "restart",
        "state",
        "address",
        "rules",
    }
)
"""Those of the whole job."""

RUN_KEYS = tuple(key for key in KEYS if key not in JOB_KEYS)
"""Those that may differ from run to run: keys of a rule's ``set`` and of a growth.yaml."""


def settings_from(values: Mapping[str, Any], where: str, known: Sequence[str] = KEYS) -> BackfillSettings:
    """Return checked settings.

    Raises
    ------
    SettingsError
        A key that is not one of `known`, with the nearest of them, or a value that cannot be.
    """
    for key in values:
        if key in known:
            continue
        if key in JOB_KEYS:
            raise SettingsError(
                f"{where}: {key!r} is of the whole job, not of one run", hint="write it at the top of the job file"
            )
        near = [_OTHER_WORDS[key]] if key in _OTHER_WORDS else difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        if "key" in key.lower():
            hint = "API keys come from AS_API_KEY or --api-key-file, never from a job file"
        raise SettingsError(f"{where} has an unknown key {key!r}", hint=hint)
    listed = {name: (values[name],) for name in ("sources", "to", "tag") if isinstance(values.get(name), str)}
    try:
        return BackfillSettings.model_validate({**values, **listed})
    except ValidationError as exc:
        first = exc.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        error = first.get("ctx", {}).get("error")
        if isinstance(error, SettingsError):
            raise SettingsError(f"{where}: {key}: {error}", hint=error.hint) from exc
        got = shown(first["input"])
        quoted = f"put it between quotes: {key}: '{got}'" if first["type"] == "string_type" else None
        raise SettingsError(f"{where}: {key}: {first['msg']} (got {got})", hint=quoted) from exc


def given_fields(settings: BackfillSettings) -> dict[str, Any]:
    """Return the fields that were given, by name."""
    return {name: getattr(settings, name) for name in settings.model_fields_set}


def run_fields(values: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Return fields of `BackfillSettings` from what is said of single runs.

    Raises
    ------
    SettingsError
        A key of the whole job, an unknown one, or a value that cannot be.
    """
    return given_fields(settings_from(values, where, RUN_KEYS))
