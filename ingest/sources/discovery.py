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
    SettingsError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
)
from ingest.sources.base import SourceOptions
from ingest.sources.found import Discovered
from ingest.sources.ksa_header import looks_like
from ingest.sources.natural import natural_key
from ingest.sources.probe import FORMATS, HDF5_SIGNATURE, HEAD_BYTES, is_zarr, kind_of, kind_of_url
from ingest.sources.remote import list_files, read_blocks
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
        Paths and glob patterns (``**`` for folders below); for HDF5 also URLs (``s3://``, ``https://``, ...) of files,
        folders and patterns.
    options : SourceOptions
        `dataset` restricts every file to that one.

    Returns
    -------
    list of Discovered
        In the order of `sources`, and by natural order of names within one. Files of one folder that belong together
        are one run: chunk files of one stream, pictures numbered alike, logs of one channel each. What cannot be used
        is an entry with its error; the rest go on. A file is listed once, however often it is named. Never raises.
    """
    entries: list[Discovered] = []
    seen: set[str] = set()
    for source in sources:
        files, problem, ignored = _expand(source, options)
        shown = redacted(source)
        found = [] if problem is None else [Discovered(shown, error=problem)]
        fresh = []
        for path in files:
            real = path if is_url(path) else os.path.realpath(path)
            if real not in seen:
                seen.add(real)
                fresh.append(path)
        found += _runs(fresh, options)
        if fresh and not found:
            nothing = NoFramesError(f"{shown}: neither frames nor readings in it", hint="name the recording itself")
            found = [Discovered(shown, error=nothing)]
        if ignored and found:
            found[0] = replace(found[0], ignored_files=ignored)
            logger.info("%s: %d files of other formats were ignored", shown, ignored)
        entries += found
    return entries


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


def _runs(files: Iterable[str], options: SourceOptions) -> list[Discovered]:
    """Return the runs of some files, all of one folder and kind looked at together."""
    together: dict[tuple[str, str], list[str]] = {}
    found: list[Discovered] = []
    for path in files:
        kind = "hdf5" if is_url(path) else kind_of(path, options)
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


def _expand(source: str, options: SourceOptions) -> tuple[list[str], IngestError | None, int]:
    """Return the absolute files that `source` names, why there are none, and how many were ignored."""
    if is_url(source):
        return _expand_url(source)
    path = os.path.abspath(os.path.expanduser(source.removeprefix("file://")))
    if os.path.isdir(path) and not is_zarr(path):
        return _expand_folder(path, options)
    try:
        os.lstat(path)
    except PermissionError:
        denied = SourceReadError(f"{source}: permission denied", hint="let the user who runs this enter its folder")
        return [], denied, 0
    except (OSError, ValueError):  # not there, or not a possible path
        pass
    else:
        return [path], None, 0
    if glob.has_magic(source):
        return _expand_glob(path, source, options)
    error = SourceNotFoundError(f"{source}: there is no such file or folder", hint="check the path")
    return [], error, 0


def _expand_url(url: str) -> tuple[list[str], IngestError | None, int]:
    other_kind = SettingsError(
        f"{redacted(url)}: no HDF5 file; other kinds of recordings are read from local paths",
        hint="mount the store, or copy the files to a local disk",
    )
    if kind_of_url(url) not in (None, "hdf5"):
        return [], other_kind, 0
    try:
        listed = list_files(url)
        visible = [file for file in listed if not os.path.basename(redacted(file)).startswith(".")]
        files = sorted((file for file in visible if kind_of_url(file) == "hdf5"), key=natural_key)
        if not files and len(listed) == 1 and read_blocks(listed[0], [0], len(HDF5_SIGNATURE)) == [HDF5_SIGNATURE]:
            files = listed
    except IngestError as error:
        return [], error, 0
    return files, None if files else other_kind, len(listed) - len(files)


def _expand_glob(pattern: str, source: str, options: SourceOptions) -> tuple[list[str], IngestError | None, int]:
    matches = sorted(glob.glob(pattern, recursive=True), key=natural_key)
    files = [match for match in matches if kind_of(match, options) is not None]
    other = sum(os.path.isfile(match) for match in matches) - sum(os.path.isfile(file) for file in files)
    if not pattern.endswith("**"):
        for folder in (match for match in matches if os.path.isdir(match) and not is_zarr(match)):
            inside, _, ignored = _expand_folder(folder, options)
            files += inside
            other += ignored
    if files:
        return files, None, other
    what = "matches nothing" if not matches else f"matches {len(matches)} paths, none of a known format"
    return [], SourceNotFoundError(f"{source}: the pattern {what}", hint="quote it, and check the folder"), other


def _expand_folder(folder: str, options: SourceOptions) -> tuple[list[str], IngestError | None, int]:
    files: list[str] = []
    unreadable: list[OSError] = []
    ignored = 0
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        # Hidden ones are macOS's and Syncthing's shadows of files; a Zarr store is one thing with very many files,
        # also where it was never finished.
        folders[:] = [name for name in folders if not name.startswith(".")]
        stores = [name for name in folders if is_zarr(os.path.join(parent, name))]
        folders[:] = [name for name in folders if name not in stores and not name.endswith(".zarr")]
        for name in (*names, *stores):
            path = os.path.join(parent, name)
            if name.startswith(".") or kind_of(path, options) is None:
                ignored += 1
            else:
                files.append(path)
    files.sort(key=natural_key)
    if unreadable:
        first = unreadable[0]
        error: IngestError = SourceReadError(f"{first.filename}: could not be listed: {first.strerror}")
        return files, error, ignored
    if not files:
        error = NoFramesError(
            f"{folder}: nothing of a known format in it or below it ({ignored} other files)",
            hint=f"name the folder of the recordings; known: {FORMATS}",
        )
        return [], error, ignored
    return files, None, ignored
