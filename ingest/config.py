"""A job's settings on disk: job files, and the growth.yaml beside the data. YAML, safe and small."""

from __future__ import annotations

import glob
import os
import stat
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from ingest.errors import SettingsError
from ingest.path_rules import tidy_keys
from ingest.rules import SIDECAR_NAMES, Sidecar, rules_from, settings_for, sidecar_from
from ingest.settings import BackfillSettings, settings_from
from ingest.settings_text import parse_duration_s, parse_start_ns
from ingest.sources.urls import is_url

__all__ = [
    "BackfillSettings",
    "find_sidecar",
    "load_job_file",
    "load_sidecar",
    "parse_duration_s",
    "parse_start_ns",
    "run_settings",
    "settings_from",
]

MAX_FILE_BYTES = 1 << 20


def load_job_file(path: Path) -> BackfillSettings:
    """Read a job file; relative sources, and relative globs of its rules, are taken from its folder.

    Raises
    ------
    SettingsError
        Not YAML, an unknown key, a value that cannot be, a rule that cannot be, or a key in it that must not be (API
        keys).
    """
    where = f"the job file {path}"
    content = _read_yaml(path, where)
    if not isinstance(content, dict):
        raise SettingsError(f"{where} is not a mapping of settings", hint="see configs/backfill.yaml")
    values = tidy_keys(content, where)
    if "rules" in values:
        values["rules"] = rules_from(values["rules"] or [], where, os.path.abspath(path.parent))
    settings = settings_from(values, where)
    sources = tuple(s if "://" in s else str(path.parent / Path(s).expanduser()) for s in settings.sources)
    return settings.model_copy(update={"sources": sources})


def load_sidecar(path: Path) -> Sidecar:
    """Read a growth.yaml.

    Raises
    ------
    SettingsError
        It cannot be read or is larger than 1 MiB, is not YAML, or has a key or value that cannot be.
    """
    return sidecar_from(_read_yaml(path, f"the sidecar {path}"), str(path))


def find_sidecar(file_path: str | Path, stop_at: str | Path | None = None) -> Path | None:
    """Return the growth.yaml (or growth.yml) that is of a file: the nearest, from its folder upwards.

    Parameters
    ----------
    file_path : path
        A run's (first) file or store.
    stop_at : path, optional
        The last folder that is looked in: what the user named. Default, and if it is not above the file: the file's
        own folder.

    Returns
    -------
    Path or None
        None: there is none.

    Raises
    ------
    SettingsError
        A folder has both, or may not be looked into.
    """
    folder = Path(os.path.abspath(file_path)).parent
    last = folder if stop_at is None else Path(os.path.abspath(stop_at))
    for here in (folder, *folder.parents) if last in (folder, *folder.parents) else (folder,):
        found = [path for name in SIDECAR_NAMES if _is_there(path := here / name)]
        if len(found) > 1:
            raise SettingsError(f"{here} has both {found[0].name} and {found[1].name}", hint="keep one of them")
        if found:
            return found[0]
        if here == last:
            break
    return None


def run_settings(settings: BackfillSettings, path: str, sources: Sequence[str]) -> BackfillSettings:
    """Return the settings of one run: the job's, what rules say of its path, its sidecar's, the command's.

    Parameters
    ----------
    settings : BackfillSettings
        The job's.
    path : str
        Absolute path of the run's (first) file, with ``::`` and the dataset where a file has several runs.
    sources : sequence of str
        What the user named: a growth.yaml above that is not looked for. None is looked for beside a URL.

    Raises
    ------
    SettingsError
        As `find_sidecar`, `load_sidecar` and `settings_for`.
    """
    if is_url(path):
        return settings_for(settings, path)
    file = path.rsplit("::", 1)[0]
    here = os.path.dirname(os.path.abspath(file))
    roots = _roots((*sources, *settings.named_sidecars), os.getcwd())
    above = [folder for folder in (here, *map(str, Path(here).parents)) if folder in roots]
    sidecar = find_sidecar(file, above[-1] if above else None)
    if sidecar is None:
        return settings_for(settings, path)
    try:
        status = sidecar.stat()
    except OSError as exc:
        raise SettingsError(f"the sidecar {sidecar} cannot be read: {exc}") from exc
    loaded = _loaded(sidecar, status.st_mtime_ns, status.st_size)
    if isinstance(loaded, SettingsError):
        raise SettingsError(str(loaded), hint=loaded.hint)
    return settings_for(settings, path, loaded)


@lru_cache(maxsize=8)
def _roots(sources: tuple[str, ...], working_folder: str) -> frozenset[str]:
    """Return the folders that the user named: themselves, by a file in them, or by what a glob begins with."""
    roots = set()
    for source in sources:
        path = os.path.normpath(os.path.join(working_folder, os.path.expanduser(source.removeprefix("file://"))))
        while glob.has_magic(path) and not os.path.lexists(path):
            path = os.path.dirname(path)
        roots.add(path if os.path.isdir(path) else os.path.dirname(path))
    return frozenset(roots)


@lru_cache(maxsize=64)
def _loaded(path: Path, mtime_ns: int, size: int) -> Sidecar | SettingsError:  # noqa: ARG001 - a changed file is another
    try:
        return load_sidecar(path)
    except SettingsError as exc:
        return exc


def _is_there(path: Path) -> bool:
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as exc:
        raise SettingsError(f"{path.parent} cannot be searched for {path.name}: {exc.strerror}") from exc
    return True


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice: of the two, YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                continue
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} is there twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path, where: str) -> Any:
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise SettingsError(f"{where} cannot be read: it is not a file")
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise SettingsError(f"{where} is larger than 1 MiB")
        loader = _Loader(content.decode("utf-8"))
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except SettingsError:
        raise
    except (OSError, UnicodeDecodeError) as exc:
        raise SettingsError(f"{where} cannot be read: {exc}") from exc
    except (yaml.YAMLError, ValueError, RecursionError) as exc:  # PyYAML lets the last two out: 2023-02-30, [[[[...
        hint = "put a regex between single quotes: '...'" if "unknown escape" in str(exc) else None
        raise SettingsError(f"{where} is not YAML: {exc}", hint=hint) from exc
