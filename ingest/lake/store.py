"""What a lake asks of the store that it lies on: whole objects under names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from ingest.errors import SettingsError

__all__ = ["LakeStore", "StoredObject", "check_object_name"]

MAX_NAME = 1024
"""Bytes in a name: S3's limit ("Creating object key names")."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object as a listing shows it.

    Attributes
    ----------
    name : str
        Below the store's root, with ``/`` between its parts.
    n_bytes : int
        Its size.
    """

    name: str
    n_bytes: int


class LakeStore(Protocol):
    """Objects by name below one URL. Every method blocks, may be called from several threads, and retries by itself.

    Names are relative, with ``/`` between their parts; `check_object_name` refuses others. All methods raise a
    `DestinationError` and nothing of a third party: `UnreachableError` after the store's own retries, `RefusedError`
    (`AuthenticationError` for denied access) for what no second try will mend, `MissingObjectError` for what is not
    there.
    """

    @property
    def url(self) -> str:
        """Where it is, fit for messages and manifests: no credentials, no query."""
        ...

    def put(self, name: str, data: Sequence[bytes], *, crc32c: int | None = None) -> str | None:
        """Store an object, complete or not at all, over an older one of the name. Safe to repeat.

        Parameters
        ----------
        name : str
            Its name.
        data : sequence of bytes
            Its parts, one after the other.
        crc32c : int, optional
            CRC-32C of all of it: a store that can checks it.

        Returns
        -------
        str or None
            The store's ETag without quotes; None: it gives none.

        Notes
        -----
        On disk, or acknowledged by the store, when it returns.
        """
        ...

    def copy(self, source: str, target: str) -> None:
        """Store an object once more under another name, over an older one of it. Safe to repeat.

        Stores that can do it by themselves move no bytes; of two names in a folder one file may be both, which is
        never written to.

        Raises
        ------
        MissingObjectError
            There is no `source`.
        """
        self.put(target, [self.get(source)])

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Return an object's bytes from `start` to `stop`; a negative `start` counts from its end.

        Raises
        ------
        MissingObjectError
            There is none.
        """
        ...

    def size(self, name: str) -> int | None:
        """Return an object's size in bytes; None: there is none."""
        ...

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """Yield the objects below a folder's name, however deep, in order of name; half-written ones are not shown."""
        ...

    def delete(self, names: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error. Safe to repeat."""
        ...

    def delete_below(self, prefix: str) -> None:
        """Remove all objects below a folder's name, and the folder. Safe to repeat."""
        ...

    def clean(self, prefix: str) -> None:
        """Remove what killed writers left half-written below a folder's name; a put at the same time begins anew."""
        ...

    def close(self) -> None:
        """Let go of connections. Safe to repeat."""
        ...


def check_object_name(name: str) -> str:
    """Return an object's name, unless it could mean something outside of the lake.

    Raises
    ------
    SettingsError
        Empty, absolute, with ``..``, an empty part, a backslash or a control character, or too long.
    """
    parts = name.split("/")
    bad = any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable()
    if bad or len(name.encode()) > MAX_NAME:
        raise SettingsError(f"{name[:200]!r} is no name of an object in a lake")
    return name
