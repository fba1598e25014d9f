"""The metadata documents of Zarr nodes, on a disk or at a URL, and the folders below them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from ingest.errors import SettingsError, SourceNotFoundError, SourceReadError
from ingest.sources.natural import natural_key
from ingest.sources.remote_folder import child_url, list_folders
from ingest.sources.remote_kept import read_kept
from ingest.sources.urls import check_url, is_url, redacted

__all__ = ["MAX_METADATA_BYTES", "Documents", "check_zarr_url", "children_of", "documents_of", "node_folder"]

Documents = Mapping[str, bytes]
"""What a node's metadata files hold, by their names; those that are not there are left out."""

MAX_METADATA_BYTES = 64 * 2**20
FORMAT_3 = ("zarr.json",)
FORMAT_2 = (".zarray", ".zgroup", ".zattrs")


def check_zarr_url(url: str) -> None:
    """Refuse a URL that cannot name a folder.

    Raises
    ------
    SettingsError
        It has a query or a fragment, or holds a password.
    """
    check_url(url)
    if "?" in url or "#" in url:
        raise SettingsError(
            f"{redacted(url)}: a Zarr store is a folder of many files, which a URL with ? or # cannot name",
            hint="give access by the store's own credentials, or copy the folder to a local disk",
        )


def node_folder(path: str, inside: str) -> str:
    """Return where a node of a store is, by its path inside."""
    if is_url(path):
        return child_url(path, inside)
    return os.path.join(path, inside.strip("/")) if inside.strip("/") else path


def documents_of(folders: Sequence[str], *, kept: bool = False) -> list[Documents]:
    """Read the metadata of some nodes.

    Parameters
    ----------
    folders : sequence of str
        All on the disk, or all at URLs: then they are read at once, one request for each of format 3 and four for each
        of format 2.
    kept : bool, default False
        Whether what was read half a minute ago will do; see `read_kept`.

    Returns
    -------
    list of Documents
        Of each folder; empty: it has none. At most 64 MiB and a byte of each document.

    Raises
    ------
    SourceReadError
        They cannot be read.
    SourceError, SettingsError
        As `read_files`.
    """
    if not folders or not is_url(folders[0]):
        return [_local_documents(folder) for folder in folders]
    found: list[dict[str, bytes]] = [{} for _ in folders]
    for names in (FORMAT_3, FORMAT_2):
        wanted = [(i, name) for i, known in enumerate(found) if not known for name in names]
        urls = [child_url(folders[i], name) for i, name in wanted]
        contents = read_kept(urls, MAX_METADATA_BYTES + 1, fresh=not kept)
        for (i, name), content in zip(wanted, contents, strict=True):
            if content is not None:
                found[i][name] = content
    return list(found)


def _local_documents(folder: str) -> Documents:
    found: dict[str, bytes] = {}
    for name in (*FORMAT_3, *FORMAT_2):
        try:
            with open(os.path.join(folder, name), "rb") as file:
                found[name] = file.read(MAX_METADATA_BYTES + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise SourceReadError(f"{folder}: could not be read: {error.strerror}") from error
        if name in FORMAT_3:
            break
    return found


def children_of(folders: Sequence[str]) -> list[list[str]]:
    """List the names of the folders in some folders, hidden ones left out, in natural order.

    Raises
    ------
    SourceReadError
        One cannot be listed.
    SourceError, SettingsError
        As `list_folders`.
    """
    if not folders or not is_url(folders[0]):
        return [_local_children(folder) for folder in folders]
    listed = list_folders(folders)
    names = ([entry.name for entry in entries if entry.is_folder] for entries in listed)
    return [sorted((name for name in found if not name.startswith(".")), key=natural_key) for found in names]


def _local_children(folder: str) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except FileNotFoundError as error:
        raise SourceNotFoundError(f"{folder}: there is no such folder", hint="check the path") from error
    except OSError as error:
        raise SourceReadError(f"{folder}: could not be listed: {error.strerror}") from error
    return sorted(names, key=natural_key)
