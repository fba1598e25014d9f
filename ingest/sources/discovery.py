"""Runs in what a user names: files, folders, globs."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from importlib import import_module

from ingest.errors import (
    IngestError,
    NoFramesError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
)
from ingest.sources.base import SourceOptions
from ingest.sources.found import Discovered
from ingest.sources.ksa_header import looks_like
from ingest.sources.natural import natural_key
from ingest.sources.probe import FORMATS, HEAD_BYTES, ZARR_SUFFIX, is_manifest, is_zarr, kind_of, not_finished
from ingest.sources.url_discovery import NamedFiles, find_at_url
from ingest.sources.urls import is_url, redacted

__all__ = ["Discovered", "discover", "named_paths"]

logger = logging.getLogger("rheed_ingest")

# Kind to module with `find_runs`, which is given all files of its kind in one folder.
FINDERS = {
    "hdf5": "ingest.sources.hdf5_runs",
    "video": "ingest.sources.video",
    "ksa": "ingest.sources.ksa",
    "images": "ingest.sources.images",
    "zarr": "ingest.sources.zarr_arrays",
    "text-log": "ingest.sources.text_log",
}


def discover(sources: Sequence[str], options: SourceOptions) -> list[Discovered]:
    """Find the runs in files, folders (with all below) and globs, by headers only.

    Parameters
    ----------
    sources : sequence of str
        Paths and glob patterns (``**`` for folders below); for HDF5 and Zarr also URLs (``s3://``, ``https://``, ...)
        of files, stores, folders and patterns.
    options : SourceOptions
        `dataset` restricts every file to that one.

    Returns
    -------
    list of Discovered
        In the order of `sources`, and by natural order of names within one. Files of one folder that belong together
        are one run: chunk files of one stream, pictures numbered alike, logs of one channel each. A lake gives each of
        its streams. What cannot be used is an entry with its error; the rest go on. A file is listed once, however
        often it is named. Never raises.
    """
    entries: list[Discovered] = []
    seen: set[str] = set()
    for source in sources:
        named = _expand(source, options)
        shown = redacted(source)
        found = [] if named.problem is None else [Discovered(shown, error=named.problem)]
        fresh = [file for file in named.files if _is_new(file[0], seen)]
        unfinished = [path for path in named.unfinished if _is_new(path, seen)]
        found += _runs(fresh, unfinished, options)
        if fresh and not found:
            nothing = NoFramesError(f"{shown}: neither frames nor readings in it", hint="name the recording itself")
            found = [Discovered(shown, error=nothing)]
        if named.ignored and found:
            found[0] = replace(found[0], ignored_files=named.ignored)
            logger.info("%s: %d files of other formats were ignored", shown, named.ignored)
        entries += found
    return entries


def _is_new(path: str, seen: set[str]) -> bool:
    real = path if is_url(path) else os.path.realpath(path)
    is_new = real not in seen
    seen.add(real)
    return is_new


def named_paths(sources: Sequence[str]) -> list[str]:
    """Return what sources name: files, folders and URLs as they are, globs as what they match now."""
    paths: list[str] = []
    for source in sources:
        path = source if is_url(source) else os.path.abspath(os.path.expanduser(source))
        if is_url(source) or os.path.lexists(path) or not glob.has_magic(source):
            paths.append(path)
        else:
            paths += sorted(glob.glob(path, recursive=True))
    return paths


def _runs(
    files: Iterable[tuple[str, str | None]], unfinished: Iterable[str], options: SourceOptions
) -> list[Discovered]:
    """Return the runs of some files, all of one folder and kind looked at together; and what was never finished."""
    together: dict[tuple[str, str], list[str]] = {}
    found = [Discovered(path, error=not_finished(path)) for path in unfinished]
    for path, known in files:
        kind = known or kind_of(path, options)
        if kind is None:
            found.append(Discovered(path, error=_unknown(path)))
        else:
            together.setdefault((os.path.dirname(path), kind), []).append(path)
    for (_, kind), paths in together.items():
        try:
            found += import_module(FINDERS[kind]).find_runs(paths, options)
        except IngestError as error:
            found.append(Discovered(paths[0], error=error))
    return sorted(found, key=lambda entry: natural_key(entry.path))


def _unknown(path: str) -> IngestError:
    if os.path.exists(path) and not os.path.isfile(path):
        return SourceFormatError(f"{path}: is a pipe or a device, not a file")
    try:
        with open(path, "rb", buffering=0) as file:
            head = file.read(HEAD_BYTES)
    except PermissionError:
        return SourceReadError(f"{path}: permission denied", hint="let the user who runs this read the file")
    except OSError as error:
        return SourceReadError(f"{path}: could not be read: {error.strerror}")
    what = "is of no known format" if head else "is empty"
    if path.lower().endswith(".img"):
        what = looks_like(head)
    hint = f"known: {FORMATS}; headerless pictures need --raw-shape and --raw-dtype"
    return SourceFormatError(f"{path}: {what}", hint=hint)


def _expand(source: str, options: SourceOptions) -> NamedFiles:
    """Return what `source` names, by absolute paths."""
    if is_url(source):
        return find_at_url(source)
    path = os.path.abspath(os.path.expanduser(source.removeprefix("file://")))
    if os.path.isdir(path) and not is_zarr(path):
        return NamedFiles(unfinished=[path]) if path.endswith(ZARR_SUFFIX) else _expand_folder(path, options)
    try:
        os.lstat(path)
    except PermissionError:
        denied = SourceReadError(f"{source}: permission denied", hint="let the user who runs this enter its folder")
        return NamedFiles(problem=denied)
    except (OSError, ValueError):  # not there, or not a possible path
        pass
    else:
        return NamedFiles([(path, None)])
    if glob.has_magic(source):
        return _expand_glob(path, source, options)
    return NamedFiles(problem=SourceNotFoundError(f"{source}: there is no such file or folder", hint="check the path"))


def _expand_glob(pattern: str, source: str, options: SourceOptions) -> NamedFiles:
    matches = sorted(glob.glob(pattern, recursive=True), key=natural_key)
    named = NamedFiles()
    beside = {os.path.basename(match) for match in matches}
    for match in matches:
        kind = kind_of(match, options)
        if kind is not None:
            named.files.append((match, kind))
        elif os.path.isfile(match):
            named.ignored += not is_manifest(os.path.basename(match), beside)
        elif match.endswith(ZARR_SUFFIX):
            named.unfinished.append(match)
        elif not pattern.endswith("**"):
            inside = _expand_folder(match, options)
            named.files += inside.files
            named.unfinished += inside.unfinished
            named.ignored += inside.ignored
    if not named.files and not named.unfinished:
        what = "matches nothing" if not matches else f"matches {len(matches)} paths, none of a known format"
        named.problem = SourceNotFoundError(f"{source}: the pattern {what}", hint="quote it, and check the folder")
    return named


def _expand_folder(folder: str, options: SourceOptions) -> NamedFiles:
    named = NamedFiles()
    unreadable: list[OSError] = []
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        # Hidden ones are macOS's and Syncthing's shadows of files, and a lake's own state; a Zarr store is one thing
        # with very many files, also where it was never finished.
        folders[:] = [name for name in folders if not name.startswith(".")]
        stores = [name for name in folders if is_zarr(os.path.join(parent, name))]
        unfinished = [name for name in folders if name not in stores and name.endswith(ZARR_SUFFIX)]
        beside = {*folders, *names}
        folders[:] = [name for name in folders if name not in stores and name not in unfinished]
        named.unfinished += [os.path.join(parent, name) for name in unfinished]
        for name in (*names, *stores):
            path = os.path.join(parent, name)
            kind = None if name.startswith(".") else kind_of(path, options)
            if kind is not None:
                named.files.append((path, kind))
            else:
                named.ignored += not is_manifest(name, beside)
    if unreadable:
        first = unreadable[0]
        named.problem = SourceReadError(f"{first.filename}: could not be listed: {first.strerror}")
    elif not named.files and not named.unfinished:
        named.problem = NoFramesError(
            f"{folder}: nothing of a known format in it or below it ({named.ignored} other files)",
            hint=f"name the folder of the recordings; known: {FORMATS}",
        )
    return named.sort()
