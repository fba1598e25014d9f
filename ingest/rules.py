"""What is said of one run: by the job file, rules over its path, the growth.yaml beside it, the command. Pure."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

from ingest.errors import SettingsError
from ingest.name_times import read_date, read_moment, read_time, start_text
from ingest.path_rules import TIME_GROUPS, Rule, glob_matches, rule_from, tidy_keys
from ingest.settings import RUN_KEYS, BackfillSettings, run_fields, settings_from
from ingest.sources.base import StartSaidBy
from ingest.sources.urls import redacted

__all__ = ["SIDECAR_NAMES", "Rule", "Sidecar", "rules_from", "settings_for", "sidecar_from"]

SIDECAR_NAMES = ("growth.yaml", "growth.yml")


@dataclass(frozen=True)
class Sidecar:
    """What a growth.yaml says of the runs beside and below it.

    Attributes
    ----------
    path : str
        The file.
    fields : mapping
        Fields of `BackfillSettings`, for all of them.
    files : tuple of (str, mapping)
        Fields for the runs whose path is of a glob, from the file's folder on; later ones win.
    """

    path: str
    fields: Mapping[str, Any]
    files: tuple[tuple[str, Mapping[str, Any]], ...] = ()

    def fields_for(self, path: str) -> dict[str, Any]:
        """Return what it says of the run at an absolute path."""
        folder = os.path.dirname(os.path.abspath(self.path))
        file = path.rsplit("::", 1)[0]
        said = dict(self.fields)
        for glob, fields in self.files:
            if glob_matches(glob, (path if "::" in glob else file).replace(os.sep, "/"), folder):
                said |= fields
        return said


def sidecar_from(content: object, path: str) -> Sidecar:
    """Return a checked sidecar.

    Parameters
    ----------
    content : mapping
        Settings of runs, and ``files``: glob to settings of single ones.
    path : str
        Where it is.

    Raises
    ------
    SettingsError
        No mapping, a key that is unknown or of the whole job, or a value that cannot be.
    """
    where = f"the sidecar {path}"
    if not isinstance(content, dict):
        raise SettingsError(f"{where} is not a mapping of settings", hint="see configs/growth.yaml")
    values = tidy_keys(content, where)
    files = values.pop("files", {})
    if not isinstance(files, dict) or not all(isinstance(said, dict) for said in files.values()):
        hint = "write files: {'*_rot.avi': {rotations_per_min: 12}}"
        raise SettingsError(f"{where}: files is not a mapping of globs to settings", hint=hint)
    settings_from({key: value for key, value in values.items() if key not in RUN_KEYS}, where, (*RUN_KEYS, "files"))
    single = []
    for glob, said in files.items():
        here = f"{where}: files: {glob}"
        single.append((str(glob), run_fields(tidy_keys(said, here), here)))
    return Sidecar(path, run_fields(values, where), tuple(single))


def rules_from(value: object, where: str, folder: str) -> tuple[Rule, ...]:
    """Return the checked rules of a job file.

    Parameters
    ----------
    value : list of mappings
        As written.
    where : str
        What it stands in, for messages.
    folder : str
        Absolute; relative globs start here.

    Raises
    ------
    SettingsError
        As `rule_from`; a setting that is unknown or of the whole job, or a value that cannot be.
    """
    if not isinstance(value, list):
        raise SettingsError(f"{where}: rules is not a list", hint="begin each rule with a dash: - match: '*.avi'")
    rules = tuple(rule_from(one, f"rule {i} of {where}", folder) for i, one in enumerate(value, start=1))
    for rule in rules:
        typed = {key: said for key, said in rule.settings({}).items() if not rule.reads(key)}
        run_fields({key: typed.get(key) for key in rule.values if key in typed or key not in RUN_KEYS}, rule.where)
    return rules


@dataclass
class _Said:
    """What rules and sidecar say of a run, the later over the earlier."""

    fields: dict[str, Any] = field(default_factory=dict)
    start_said_by: StartSaidBy = "user"
    run: str | None = None


def settings_for(
    settings: BackfillSettings, path: str, sidecar: Sidecar | None = None, root: PurePath | None = None
) -> BackfillSettings:
    """Return the settings of one run.

    Parameters
    ----------
    settings : BackfillSettings
        Of the job: what its file says, what the command says in its place, and the rules.
    path : str
        Absolute path of the run's (first) file; with ``::`` and the dataset where a file has several runs.
    sidecar : Sidecar, optional
        That of its folder.
    root : path, optional
        Where relative globs start, instead of the job file's folder.

    Returns
    -------
    BackfillSettings
        Rules, in their order, over the job file; the sidecar over them; the command line over all. `start_said_by`
        tells whose `start` it is. What a rule read as ``run`` ends the name (else the sample's), unless sidecar or
        command give one.

    Raises
    ------
    SettingsError
        What a rule read is no such value, or may be two dates.
    """
    said = _by_rules(settings.rules, path, None if root is None else str(root))
    beside = {} if sidecar is None else sidecar.fields_for(path)
    only_log = "log_start" in beside and "start" not in said.fields and settings.start is None
    if "start" in beside or only_log:
        said.start_said_by = "sidecar"
    said.fields |= beside
    update = {name: value for name, value in said.fields.items() if name not in settings.commanded}
    if "start" in update or (only_log and "log_start" in update):
        update["start_said_by"] = said.start_said_by
    if said.run is not None and "name" not in beside and "name" not in settings.commanded:
        of = {name: update.get(name, getattr(settings, name)) for name in ("name", "sample")}
        if base := of["name"] or of["sample"]:
            update["name"] = f"{base} {said.run}"
    return settings.model_copy(update=update)


def _by_rules(rules: tuple[Rule, ...], path: str, folder: str | None) -> _Said:
    said = _Said()
    clock: dict[str, tuple[str, Rule]] = {}
    for rule in rules:
        groups = rule.groups(path, folder)
        if groups is None:
            continue
        said.run = groups.get("run", said.run)
        values = rule.settings(groups)
        new = [name for name in TIME_GROUPS if name in groups]
        clock |= {name: (groups[name], rule) for name in new}
        read = _start(clock, path) if new and "start" not in values else None
        if read is not None:
            values["start"] = read
        if "start" in values:
            typed = read is None and not rule.reads("start")
            said.start_said_by = "user" if typed else "file name"
        said.fields |= run_fields(values, f"{rule.where}, of {redacted(path)}")
    return said


def _start(clock: Mapping[str, tuple[str, Rule]], path: str) -> str | None:
    """Return the ISO text of the start that was read, by whichever rules; None while date or time are missing."""
    name = "datetime" if "datetime" in clock else "date"
    if name not in clock:
        return None
    text, rule = clock[name]
    try:
        if name == "datetime":
            return read_moment(text, rule.date_format)
        if "time" not in clock:
            return None
        day = read_date(text, rule.date_format)
        name, (text, rule) = "time", clock["time"]
        return start_text(day, read_time(text))
    except SettingsError as exc:
        raise SettingsError(f"{rule.where}: group {name} in {redacted(path)}: {exc}", hint=exc.hint) from exc
