"""A lake's store in memory, which can be told to fail."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import google_crc32c

from ingest.errors import MissingObjectError, UnreachableError
from ingest.lake.store import LakeStore, StoredObject, check_object_name


class MemoryStore(LakeStore):
    """Objects in a dict.

    Parameters
    ----------
    contents : mapping of str to bytes, optional
        What is there already; copied.
    changes_left : int, optional
        Objects that may still be stored or removed before every call fails; None: no limit.

    Attributes
    ----------
    contents : dict of str to bytes
        By name.
    puts : list of str
        Names in the order in which they were stored.
    """

    def __init__(self, contents: dict[str, bytes] | None = None, changes_left: int | None = None) -> None:
        self.contents = dict(contents or {})
        self.changes_left = changes_left
        self.puts: list[str] = []
        self.is_closed = False
        self._lock = threading.RLock()

    @property
    def url(self) -> str:
        return "memory://lake"

    def put(self, name: str, data: Sequence[bytes], *, crc32c: int | None = None) -> str | None:
        body = b"".join(data)
        assert crc32c in (None, google_crc32c.value(body))
        with self._lock:
            self._change()
            self.contents[check_object_name(name)] = body
            self.puts.append(name)
        return f"{google_crc32c.value(body):08x}"

    def copy(self, source: str, target: str) -> None:
        body = self.get(source)
        with self._lock:
            self._change()
            self.contents[check_object_name(target)] = body

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        self._answer()
        if name not in self.contents:
            raise MissingObjectError(f"{self.url}/{name} is not there")
        return self.contents[name][start:stop]

    def size(self, name: str) -> int | None:
        self._answer()
        return len(self.contents[name]) if name in self.contents else None

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        self._answer()
        folder = f"{prefix}/" if prefix else ""
        with self._lock:
            yield from [StoredObject(n, len(self.contents[n])) for n in sorted(self.contents) if n.startswith(folder)]

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with self._lock:
                self._change()
                self.contents.pop(name, None)

    def delete_below(self, prefix: str) -> None:
        self.delete([entry.name for entry in self.objects(prefix)])

    def clean(self, prefix: str) -> None:
        """Do nothing: nothing is ever half-written here."""

    def close(self) -> None:
        self.is_closed = True

    def write_to(self, folder: Path) -> Path:
        """Write all objects as files."""
        for name, body in self.contents.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(body)
        return folder

    def _answer(self) -> None:
        if self.changes_left is not None and self.changes_left < 0:
            raise UnreachableError(f"{self.url} does not answer")

    def _change(self) -> None:
        if self.changes_left is not None:
            self.changes_left -= 1
        self._answer()
