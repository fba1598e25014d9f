"""Runs in what a user names: files, folders, globs."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ingest.errors import IngestError, NoFramesError, SettingsError, SourceNotFoundError, SourceReadError
from ingest.sources.base import SourceOptions, SourceSpec
from ingest.sources.hdf5 import FoundRun, find_runs
from ingest.sources.hdf5_layout import natural_key

__all__ = ["Discovered", "discover"]

logger = logging.getLogger("rheed_ingest")

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx5", ".nexus"})


@dataclass(frozen=True)
class Discovered:
    """One run, or one reason why there is none.

    Attributes
    ----------
    path : str
        The file (the first, of several), or what the user named.
    spec : SourceSpec or None
        The run.
    error : IngestError or None
        Why there is none.
    ignored_files : int
        On the first entry of a folder: files in it that are of no known format.
    """

    path: str
    spec: SourceSpec | None = None
    error: IngestError | None = None
    ignored_files: int = 0


def discover(sources: Sequence[str], options: SourceOptions) -> list[Discovered]:
    """Find the runs in files, folders (with all below) and globs, by headers only.

    Parameters
    ----------
    sources : sequence of str
        Paths and glob patterns (``**`` for folders below).
    options : SourceOptions
        `dataset` restricts every file to that one.

    Returns
    -------
    list of Discovered
        In the order of `sources`, and by natural order of names within one. Chunk files of one stream in one folder
        (root attributes ``data_stream``, ``data_id``, ``start_unix_ms_utc``; FORMATS.md 1.5) are one run in order of
        their starts. What cannot be used is an entry with its error; the rest go on. A file is listed once, however
        often it is named. Never raises.
    """
    entries: list[Discovered] = []
    seen: set[str] = set()
    found: list[tuple[int, FoundRun]] = []
    for source in sources:
        files, problem, ignored = _expand(source)
        begin = len(entries)
        if problem is not None:
            entries.append(Discovered(source, error=problem, ignored_files=ignored))
        for path in files:
            real = os.path.realpath(path)
            if real in seen:
                continue
            seen.add(real)
            try:
                runs = find_runs(path, options)
            except IngestError as error:
                entries.append(Discovered(path, error=error))
                continue
            for run in runs:
                found.append((len(entries), run))
                entries.append(Discovered(path, run.spec))
        if ignored and begin < len(entries):
            entries[begin] = replace(entries[begin], ignored_files=ignored)
            logger.info("%s: %d files of other formats were ignored", source, ignored)
    return _join_groups(entries, found)


def _join_groups(entries: list[Discovered], found: list[tuple[int, FoundRun]]) -> list[Discovered]:
    """Put the chunk files of one stream together, where the first of them was found."""
    groups: dict[str, list[tuple[int, FoundRun]]] = {}
    for place, run in found:
        if run.group is not None:
            groups.setdefault(run.group, []).append((place, run))
    dropped: set[int] = set()
    for members in groups.values():
        ordered = sorted((run for _, run in members), key=lambda run: (run.start_ns, natural_key(run.spec.paths[0])))
        paths = tuple(run.spec.paths[0] for run in ordered)
        places = [place for place, _ in members]
        head = entries[places[0]]
        entries[places[0]] = replace(head, path=paths[0], spec=replace(ordered[0].spec, paths=paths))
        dropped.update(places[1:])
    return [entry for place, entry in enumerate(entries) if place not in dropped]


def _expand(source: str) -> tuple[list[str], IngestError | None, int]:
    """Return the absolute files that `source` names, why there are none, and how many were ignored."""
    if "://" in source and not source.startswith("file://"):
        remote = SettingsError(f"{source}: HDF5 files are read from local paths", hint="mount the store, or copy them")
        return [], remote, 0
    path = os.path.abspath(os.path.expanduser(source.removeprefix("file://")))
    if os.path.isdir(path):
        return _expand_folder(path)
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
        return _expand_glob(path, source)
    error = SourceNotFoundError(f"{source}: there is no such file or folder", hint="check the path")
    return [], error, 0


def _expand_glob(pattern: str, source: str) -> tuple[list[str], IngestError | None, int]:
    matches = sorted(glob.glob(pattern, recursive=True), key=natural_key)
    files = [match for match in matches if os.path.isfile(match) and _is_hdf5(match)]
    other = sum(os.path.isfile(match) for match in matches) - len(files)
    if not pattern.endswith("**"):
        for folder in (match for match in matches if os.path.isdir(match)):
            inside, _, ignored = _expand_folder(folder)
            files += inside
            other += ignored
    if files:
        return files, None, other
    what = "matches nothing" if not matches else f"matches {len(matches)} paths, none of a known format"
    return [], SourceNotFoundError(f"{source}: the pattern {what}", hint="quote it, and check the folder"), other


def _expand_folder(folder: str) -> tuple[list[str], IngestError | None, int]:
    files: list[str] = []
    unreadable: list[OSError] = []
    ignored = 0
    for parent, folders, names in os.walk(folder, onerror=unreadable.append):
        # Hidden ones are macOS's and Syncthing's shadows of files; a Zarr store is one thing with very many files.
        folders[:] = [name for name in folders if not name.startswith(".") and not name.endswith(".zarr")]
        for name in names:
            path = os.path.join(parent, name)
            if name.startswith(".") or not _is_hdf5(path):
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
            f"{folder}: no HDF5 file in it or below it ({ignored} other files)",
            hint="name the folder of the recordings",
        )
        return [], error, ignored
    return files, None, ignored


def _is_hdf5(path: str) -> bool:
    """Whether a file calls itself HDF5, by name or by its first bytes."""
    if os.path.splitext(path)[1].lower() in HDF5_SUFFIXES:
        return True
    if not os.path.isfile(path):  # opening a pipe would wait for its writer
        return False
    try:
        with open(path, "rb") as file:
            return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
    except OSError:
        return False
