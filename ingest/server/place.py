"""Where a server keeps its data and its catalogue, and that no other server uses them.

::

    <data>/catalogue.sqlite                    data in a folder: the catalogue is in it
    <state>/{catalogue.sqlite,data.json}       data at a URL: the catalogue stays on a local disk
    <url>/.rheed-ingest/server                 whose data it is
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ingest.errors import DestinationError, MissingObjectError, SettingsError
from ingest.journal.database import default_state_dir
from ingest.lake.layout import STATE_FOLDER, lake_data_id
from ingest.lake.local_store import LocalStore
from ingest.lake.opening import canonical_lake_url
from ingest.lake.s3_uploads import UploadStore, open_upload_store
from ingest.lake.store import LakeStore
from ingest.retry import RetryPolicy
from ingest.server.settings import ServerSettings
from ingest.server.staging import STAGING

__all__ = ["Place", "open_place", "state_folder"]

MAX_CONNECTIONS = 32
OWNER_NAME = f"{STATE_FOLDER}/server"


@dataclass(frozen=True, slots=True)
class Place:
    """Where everything is, locked.

    Attributes
    ----------
    folder : Path
        Of the catalogue.
    lake : LakeStore
        Of the data.
    uploads : UploadStore or None
        The same, where chunks are uploaded straight to it; None: it is `folder`.
    lock_fd : int
        Closing it lets another server in.
    """

    folder: Path
    lake: LakeStore
    uploads: UploadStore | None
    lock_fd: int

    def give_up(self) -> None:
        """Let calls to the store fail that are tried again and again."""
        if self.uploads is not None:
            self.uploads.give_up()
        else:
            self.lake.close()

    def release(self) -> None:
        """Let go of connections, and let another server in."""
        self.lake.close()
        with suppress(OSError):
            os.close(self.lock_fd)


def state_folder(settings: ServerSettings) -> Path:
    """Return the folder of a server's catalogue; nothing is made.

    Raises
    ------
    SettingsError
        Data at a URL that is none; a state folder for data that is in a folder; no home for that of data at a URL.
    """
    url = _remote_url(settings)
    if url is None:
        if settings.state is not None:
            raise SettingsError(
                f"a state folder is for data at a URL; {settings.data} is a folder, and holds all",
                hint="leave out --state",
            )
        return Path(_local_path(settings))
    if settings.state is not None:
        return settings.state
    try:
        return default_state_dir() / "servers" / lake_data_id(url.partition("://")[2], url)
    except RuntimeError as exc:  # nobody's home
        raise SettingsError(
            f"no folder is known for the catalogue of {url}: {exc}", hint="pass one as --state"
        ) from exc


def open_place(settings: ServerSettings) -> Place:
    """Make the folders that are not there, lock them, and open the store.

    Raises
    ------
    SettingsError
        They cannot be used; another live server has them; the data is that of another catalogue; clients cannot upload
        to such a store.
    """
    url, folder = _remote_url(settings), state_folder(settings)
    retry = RetryPolicy(retry_for_s=settings.patience_s)
    if url is None:
        lock_fd = _locked(folder, folder / STAGING, "give this one another --data folder", f"{folder} as data folder")
        return Place(folder, LocalStore(folder, fsync=settings.fsync, retry=retry), None, lock_fd)
    store = open_upload_store(url, retry=retry, max_connections=MAX_CONNECTIONS)
    lock_fd = _locked(folder, folder, "pass another folder as --state", f"{folder} for the catalogue of {url}")
    place = Place(folder, store, store, lock_fd)
    try:
        _claim(store, folder / "data.json")
    except DestinationError as exc:
        place.release()
        raise SettingsError(f"cannot keep data at {url}: {exc}", hint=exc.hint) from exc
    except BaseException:
        place.release()
        raise
    return place


def _remote_url(settings: ServerSettings) -> str | None:
    """Return the URL of data that is not in a folder of this machine."""
    if isinstance(settings.data, Path):
        return None
    known = canonical_lake_url(settings.data)
    return known if "://" in known else None


def _local_path(settings: ServerSettings) -> str | Path:
    return settings.data if isinstance(settings.data, Path) else canonical_lake_url(settings.data)


def _locked(folder: Path, made: Path, hint: str, what: str) -> int:
    """Make a folder and lock it; return the descriptor that holds the lock."""
    try:
        made.mkdir(parents=True, exist_ok=True)
        fd = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(fd)
            raise
    except BlockingIOError as exc:
        raise SettingsError(f"another server is using {folder}", hint=f"stop it, or {hint}") from exc
    except OSError as exc:
        raise SettingsError(f"cannot use {what}: {exc}", hint=hint) from exc
    return fd


def _claim(store: UploadStore, path: Path) -> None:
    """Say in the state folder which data it is about, and at the data which catalogue knows it; or find that said.

    Without it, a second server would take the uploads that are granted by the first one for leftovers.
    """
    mine = _said(path)
    if mine.get("data", store.url) != store.url:
        raise SettingsError(
            f"{path.parent} is the catalogue of {mine['data']}, not of {store.url}",
            hint="pass another folder as --state",
        )
    theirs = None
    with suppress(MissingObjectError):
        theirs = store.get(OWNER_NAME).decode(errors="replace").strip()
    if theirs is not None and theirs != mine.get("owner"):
        raise SettingsError(
            f"{store.url} belongs to a server whose catalogue is not in {path.parent}",
            hint=f"pass its --state folder, or another URL; if it is lost for good, remove {store.url}/{OWNER_NAME}",
        )
    if theirs is None:
        owner = mine.get("owner") or secrets.token_hex(16)
        _say(path, {"data": store.url, "owner": owner})
        store.put(OWNER_NAME, [owner.encode()])


def _said(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError) as exc:
        raise SettingsError(f"cannot read {path}: {exc}", hint="pass another folder as --state") from exc


def _say(path: Path, said: dict[str, str]) -> None:
    part = path.with_suffix(".part")
    try:
        part.write_text(json.dumps(said), encoding="utf-8")
        part.replace(path)
    except OSError as exc:
        raise SettingsError(f"cannot write {path}: {exc}", hint="pass another folder as --state") from exc
