"""Recordings at URLs: HDF5 files and Zarr stores, in folders, by patterns, or named themselves."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from ingest.errors import IngestError, SettingsError, SourceNotFoundError
from ingest.sources.natural import natural_key
from ingest.sources.probe import HDF5_SIGNATURE, ZARR_NAMES, ZARR_SUFFIX, is_manifest, kind_of_url
from ingest.sources.remote import filesystem, read_blocks, remote_errors
from ingest.sources.remote_folder import RemoteEntry, is_folder, list_folders, match_pattern
from ingest.sources.urls import redacted
from ingest.sources.zarr_documents import check_zarr_url

__all__ = ["NamedFiles", "find_at_url"]

KINDS = frozenset({"hdf5", "zarr"})


@dataclass
class NamedFiles:
    """What a user named, as far as it is there.

    Attributes
    ----------
    files : list of (path, kind)
        Files and Zarr folders; kind None: to be looked into.
    unfinished : list of str
        Folders ``x.zarr`` without the metadata that are written last.
    problem : IngestError or None
        Why there is nothing, or not all.
    ignored : int
        Files of no known format.
    """

    files: list[tuple[str, str | None]] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    problem: IngestError | None = None
    ignored: int = 0

    def sort(self) -> NamedFiles:
        """Bring all into natural order, and return it."""
        self.files.sort(key=lambda file: natural_key(file[0]))
        self.unfinished.sort(key=natural_key)
        return self


def find_at_url(url: str) -> NamedFiles:
    """Find the HDF5 files and Zarr stores that a URL names, by listing; what is inside of a store is not listed.

    Parameters
    ----------
    url : str
        A file, a Zarr store, a folder (with all below it), or a pattern with ``*``.

    Returns
    -------
    NamedFiles
        URLs are written alike however `url` is written. Never raises: what went wrong is its `problem`.
    """
    found = NamedFiles()
    try:
        _find(url, found)
    except IngestError as error:
        found.problem = error
    if found.problem is None and not found.files and not found.unfinished:
        found.problem = _other_kind(url)
    return found.sort()


def _other_kind(url: str) -> SettingsError:
    return SettingsError(
        f"{redacted(url)}: neither HDF5 nor Zarr; other kinds of recordings are read from local paths",
        hint="mount the store, or copy the files to a local disk",
    )


def _find(url: str, found: NamedFiles) -> None:
    kind = kind_of_url(url)
    if "*" in url:
        _match(url, found)
    elif kind == "zarr":
        check_zarr_url(url)
        with remote_errors(url):
            fs, path = filesystem(url)
            found.files.append((fs.unstrip_protocol(path.rstrip("/")), "zarr"))
    elif kind is not None and kind != "hdf5":
        return
    elif is_folder(url):
        _walk([url], found, asked=url)
    else:
        with remote_errors(url):
            fs, path = filesystem(url)
            named = fs.unstrip_protocol(path)
        if kind == "hdf5" or read_blocks(named, [0], len(HDF5_SIGNATURE)) == [HDF5_SIGNATURE]:
            found.files.append((named, "hdf5"))


def _walk(folders: list[str], found: NamedFiles, asked: str) -> None:
    waiting = folders
    while waiting:
        try:
            listed = list_folders(waiting)
        except SourceNotFoundError as error:
            message = f"{redacted(asked)}: there is nothing in this folder"
            raise SourceNotFoundError(message, hint="check the URL") from error
        below: list[str] = []
        for folder, entries in zip(waiting, listed, strict=True):
            if any(entry.name in ZARR_NAMES for entry in entries):
                found.files.append((_as_written(folder), "zarr"))
            elif redacted(folder).rstrip("/").endswith(ZARR_SUFFIX):
                found.unfinished.append(_as_written(folder))
            else:
                below += _sort_out(entries, found, {entry.name for entry in entries})
        waiting = below


def _sort_out(entries: Iterable[RemoteEntry], found: NamedFiles, beside: Collection[str]) -> list[str]:
    """Take the files of a folder, and return the folders in it that are to be looked into."""
    folders = []
    for entry in entries:
        hidden = entry.name.startswith(".")
        if entry.is_folder:
            folders += [] if hidden else [entry.url]
        elif not hidden and kind_of_url(entry.url) == "hdf5":
            found.files.append((entry.url, "hdf5"))
        elif not is_manifest(entry.name, beside):
            found.ignored += 1
    return folders


def _as_written(url: str) -> str:
    with remote_errors(url):
        fs, path = filesystem(url)
        return str(fs.unstrip_protocol(path.rstrip("/")))


def _match(url: str, found: NamedFiles) -> None:
    matches = match_pattern(url)
    fixed = len(redacted(_as_written(url.partition("*")[0].rpartition("/")[0] or url)))
    outside = [entry for entry in matches if not _is_inside(redacted(entry.url)[fixed:])]
    folders = [entry.url for entry in outside if entry.is_folder]
    if url.endswith("**"):  # names what is in the folders, too
        folders = [folder for folder in folders if folder.rstrip("/").endswith(ZARR_SUFFIX)]
    beside = {entry.name for entry in outside}
    _sort_out([entry for entry in outside if not entry.is_folder], found, beside)
    _walk(folders, found, asked=url)


def _is_inside(path: str) -> bool:
    """Whether what a pattern matched is hidden, or a part of a Zarr store."""
    *parents, name = path.strip("/").split("/")
    return name.startswith(".") or any(part.startswith(".") or part.endswith(ZARR_SUFFIX) for part in parents)
