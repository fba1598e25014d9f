"""Rules over paths: a glob, or a regex whose named groups say what a run's name says of it. Pure."""

from __future__ import annotations

import difflib
import os
import re
import string
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePath
from typing import Any

from ingest.errors import SettingsError
from ingest.name_times import check_date_format
from ingest.settings_text import shown

__all__ = ["GROUP_KEYS", "MAX_PATH", "TIME_GROUPS", "Rule", "glob_matches", "rule_from", "tidy_keys"]

MAX_PATH = 4096
"""Characters of the longest path that a rule is tried on (and of the longest regex): Linux's own limit."""

GROUP_KEYS = {
    "sample": "sample",
    "fps": "fps",
    "rpm": "rotations_per_min",
    "azimuth": "azimuth",
    "name": "name",
    "project": "project",
    "tag": "tag",
    "timezone": "timezone",
}
"""Named group to the setting that it gives."""

TIME_GROUPS = ("date", "time", "datetime")
RULE_KEYS = ("match", "regex", "date_format", "set")


@dataclass(frozen=True)
class Rule:
    """What is said of the runs whose path is of one form.

    Attributes
    ----------
    where : str
        What it is, for messages: ``rule 2 of the job file runs.yaml``.
    folder : str
        Relative globs start here.
    glob : str or None
        See `glob_matches`; else there is a `regex`.
    regex : re.Pattern or None
        Searched in the whole path.
    date_format : str or None
        How group ``datetime`` (else ``date``) is read, as `datetime.strptime` does.
    values : mapping
        Settings; texts may hold ``{group}``.
    """

    where: str
    folder: str = ""
    glob: str | None = None
    regex: re.Pattern[str] | None = None
    date_format: str | None = None
    values: Mapping[str, Any] = field(default_factory=dict)

    def groups(self, path: str, folder: str | None = None) -> dict[str, str] | None:
        """Return what the named groups matched, without those that matched nothing; None if the rule is of other paths.

        Parameters
        ----------
        path : str
            Absolute; a dataset after ``::`` is seen only by patterns that have ``::`` themselves.
        folder : str, optional
            Instead of the rule's own.

        Raises
        ------
        SettingsError
            A path of more than 4096 characters.
        """
        if len(path) > MAX_PATH:
            raise SettingsError(f"{self.where}: a path of {len(path)} characters is too long; at most {MAX_PATH}")
        pattern = self.glob if self.regex is None else self.regex.pattern
        text = (path if "::" in (pattern or "") else path.rsplit("::", 1)[0]).replace(os.sep, "/")
        if self.regex is None:
            return {} if glob_matches(self.glob or "", text, folder or self.folder) else None
        match = self.regex.search(text)
        return None if match is None else {name: found for name, found in match.groupdict().items() if found}

    def settings(self, groups: Mapping[str, str]) -> dict[str, Any]:
        """Return the settings that groups and `values` give, `values` winning; date and time are not among them.

        What names a group that matched nothing is left out.
        """
        said: dict[str, Any] = {GROUP_KEYS[name]: text for name, text in groups.items() if name in GROUP_KEYS}
        for key, value in self.values.items():
            parts = value if isinstance(value, list) else [value]
            filled = [_filled(part, groups) for part in parts if _fields_of(part) <= groups.keys()]
            if filled or not parts:
                said[key] = filled if isinstance(value, list) else filled[0]
        return said

    def reads(self, key: str) -> bool:
        """Whether a value of `values` is read from the path."""
        return bool(_fields_of(self.values.get(key)))


def glob_matches(pattern: str, path: str, folder: str = "") -> bool:
    """Whether a path is of a pattern: its absolute form, or the one from `folder` on.

    Parameters
    ----------
    pattern : str
        ``*``, ``?`` and ``[abc]`` within a name, ``**`` for any folders between; one without ``/`` is of the file's
        name alone, one with ``/`` at its end of all that is below.
    path : str
        Absolute, with ``/``.
    folder : str, optional
        Absolute.
    """
    wanted = pattern.removeprefix("./").split("/")
    if wanted[-1] == "":
        wanted[-1] = "**"
    names = path.rstrip("/").split("/")
    if len(wanted) == 1 and wanted != ["**"]:
        return fnmatchcase(names[-1], wanted[0])
    if _segments_match(wanted, names):
        return True
    if not folder or "://" in path or not os.path.isabs(path):
        return False
    return _segments_match(wanted, PurePath(os.path.relpath(path, folder)).as_posix().split("/"))


def _segments_match(wanted: Sequence[str], names: Sequence[str]) -> bool:
    reached = {0}  # how many names what was wanted so far may have taken: linear, whatever the pattern
    for segment in wanted:
        if segment == "**":
            reached = set(range(min(reached), len(names) + 1))
        else:
            reached = {i + 1 for i in reached if i < len(names) and fnmatchcase(names[i], segment)}
        if not reached:
            return False
    return len(names) in reached


def rule_from(value: object, where: str, folder: str = "") -> Rule:
    """Return a checked rule; which settings may be in it, and their values, are checked by who knows the settings.

    Parameters
    ----------
    value : mapping
        ``{match: GLOB, set: {...}}`` or ``{regex: REGEX, date_format: ..., set: {...}}``.
    where, folder : str
        As in `Rule`.

    Raises
    ------
    SettingsError
        An unknown key, both or none of `match` and `regex`, a regex that is none, a group or a ``{group}`` that
        nobody knows, a `date_format` that cannot be, or nothing said.
    """
    if not isinstance(value, dict):
        raise SettingsError(f"{where} is not a mapping", hint="write {match: 'runs/*/*.h5', set: {fps: 30}}")
    given = tidy_keys(value, where)
    _check_keys(given, where)
    rule = Rule(
        where,
        folder,
        given.get("match"),
        _compiled(given["regex"], where) if "regex" in given else None,
        given.get("date_format"),
        tidy_keys(given.get("set", {}), where),
    )
    _check_groups(rule)
    return rule


def _check_keys(given: Mapping[str, Any], where: str) -> None:
    for key in given:
        if key not in RULE_KEYS:
            near = difflib.get_close_matches(key, RULE_KEYS, 1)
            hint = (
                f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(RULE_KEYS)}; settings go below set"
            )
            raise SettingsError(f"{where} has an unknown key {key!r}", hint=hint)
    if ("match" in given) == ("regex" in given):
        what = "both match and regex" if "match" in given else "neither match nor regex"
        raise SettingsError(f"{where} has {what}", hint="one rule has one pattern: a glob (match) or a regex")
    for key in ("match", "regex", "date_format"):
        if key in given and not (isinstance(given[key], str) and given[key]):
            what = shown(given[key])
            raise SettingsError(f"{where}: {key} is not a text: {what}", hint="put it between quotes: '...'")
    if not isinstance(given.get("set", {}), dict):
        raise SettingsError(f"{where}: set is not a mapping of settings", hint="write set: {fps: 30, tag: [archive]}")


def tidy_keys(values: Mapping[object, Any], where: str) -> dict[str, Any]:
    """Return settings by their names, with ``_`` for ``-``.

    Raises
    ------
    SettingsError
        One is there in both spellings.
    """
    tidy: dict[str, Any] = {}
    for key, value in values.items():
        name = str(key).replace("-", "_")
        if name in tidy:
            raise SettingsError(f"{where} has {name!r} twice", hint="keep one of them")
        tidy[name] = value
    return tidy


def _compiled(regex: str, where: str) -> re.Pattern[str]:
    if len(regex) > MAX_PATH:
        raise SettingsError(f"{where}: a regex of {len(regex)} characters is too long; at most {MAX_PATH}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # of what `[[` may mean some day
            return re.compile(regex)
    except re.error as exc:
        at = "" if exc.pos is None else f" at character {exc.pos + 1}: {regex[exc.pos : exc.pos + 20]!r}"
        hint = "named groups are written (?P<sample>...); in YAML, put a regex between single quotes"
        raise SettingsError(f"{where}: the regex cannot be: {exc.msg}{at}", hint=hint) from exc
    except (OverflowError, RecursionError) as exc:
        raise SettingsError(f"{where}: the regex cannot be: {exc}", hint="write a simpler one") from exc


def _check_groups(rule: Rule) -> None:
    groups = set() if rule.regex is None else set(rule.regex.groupindex)
    used: set[str] = set()
    for key, value in rule.values.items():
        try:
            fields = _fields_of(value)
        except ValueError as exc:
            raise SettingsError(f"{rule.where}: {key}: {exc}", hint="a brace that is meant is written twice") from exc
        for name in sorted(fields - groups):
            known = f"known: {', '.join(sorted(groups))}" if groups else "only a regex has groups: (?P<sample>...)"
            raise SettingsError(
                f"{rule.where}: {key} has {{{name}}}, which is no group of its pattern",
                hint=f"{known}; braces that are meant are written twice: {{{{{name}}}}}",
            )
        used |= fields
    known_groups = [*GROUP_KEYS, *TIME_GROUPS, "run"]
    for name in sorted(groups - used - set(known_groups)):
        near = difflib.get_close_matches(name, known_groups, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known_groups)}; others only for {{...}}"
        raise SettingsError(f"{rule.where}: the group {name!r} is used nowhere", hint=hint)
    if rule.date_format is not None:
        if not groups & {"date", "datetime"}:
            raise SettingsError(f"{rule.where} has a date_format, but no group date or datetime")
        try:
            check_date_format(rule.date_format, with_time="datetime" in groups)
        except SettingsError as exc:
            raise SettingsError(f"{rule.where}: {exc}", hint=exc.hint) from exc
    if not groups and not rule.values:
        raise SettingsError(f"{rule.where} says nothing", hint="give it set: {...}, or a regex with named groups")


def _fields_of(value: object) -> set[str]:
    """Return the groups named in a text, or in the texts of a list.

    Raises
    ------
    ValueError
        Braces that do not pair, or more than a name between them.
    """
    if isinstance(value, list):
        return set().union(*(_fields_of(part) for part in value if isinstance(part, str)))
    if not isinstance(value, str):
        return set()
    fields = set()
    for _, name, how, conversion in string.Formatter().parse(value):
        if name is None:
            continue
        if how or conversion or not name.isidentifier():
            inside = name + (f"!{conversion}" if conversion else "") + (f":{how}" if how else "")
            raise ValueError(f"{{{inside[:100]}}} is not the name of a group alone")
        fields.add(name)
    return fields


def _filled(value: Any, groups: Mapping[str, str]) -> Any:
    if not isinstance(value, str):
        return value
    parts = string.Formatter().parse(value)
    return "".join(literal + ("" if name is None else groups[name]) for literal, name, _, _ in parts)
