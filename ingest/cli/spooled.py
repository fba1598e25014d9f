"""What lies in the spools of a state folder, and what the journal knows of it; nothing here needs a key."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ingest.errors import SpoolError, SpoolReadError
from ingest.journal import Journal
from ingest.spool import Spool, SpooledChunk
from ingest.spool_file import read_destination, read_label, spooled_chunk
from ingest.timeseries import TimeseriesMeta

__all__ = ["SpooledStream", "spooled_streams", "spools_in", "text_of_age", "text_of_size", "waiting_chunks"]

UNKNOWN = "unknown"

_ACCOUNT = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class SpooledStream:
    """A stream of which something lies in a spool.

    Attributes
    ----------
    spool : Spool
        Where.
    key : str
        Its key in the journal, and its folder's name.
    data_id, name, destination : str or None
        What it is; the name is only in the journal.
    kind : {"rheed", "timeseries"} or None
        What it holds; None: no header could be read.
    state : str
        In the journal; ``"unknown"``: it does not know the stream, and the rest is as the files say.
    is_sealed : bool
        Whether nothing more is expected.
    gone_reason : str or None
        What the platform said when it failed the stream.
    chunks, n_bytes : int
        That wait, and what they take of the disk.
    oldest_unix_s : float or None
        When the first of these was written.
    damaged, refused : int
        Chunks that are set aside.
    lease_holder : str or None
        The live session that has it.
    lease_until_s : float
        When its lease ends unless it is renewed, Unix seconds.
    """

    spool: Spool
    key: str
    data_id: str | None
    name: str | None
    destination: str | None
    kind: str | None
    state: str
    is_sealed: bool
    gone_reason: str | None
    chunks: int
    n_bytes: int
    oldest_unix_s: float | None
    damaged: int
    refused: int
    lease_holder: str | None
    lease_until_s: float

    @property
    def account(self) -> str:
        """What names destination and key without showing the key."""
        return self.spool.folder.name

    @property
    def folder(self) -> Path:
        """Where its files are."""
        return self.spool.folder / self.key

    @property
    def text(self) -> str:
        """The stream, for people."""
        name = f" {self.name!r}" if self.name else ""
        return f"stream {self.data_id or self.key}{name}"


def spools_in(spools: Path) -> list[Spool]:
    """Return the spools below a folder, one for each endpoint and key.

    Raises
    ------
    SpoolReadError
        The folder cannot be listed.
    """
    try:
        names = sorted(path.name for path in spools.iterdir() if _ACCOUNT.fullmatch(path.name) and path.is_dir())
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise SpoolReadError(
            f"the spools' folder {spools} cannot be listed: {exc.strerror}",
            hint="fix its permission, or pass another folder",
        ) from exc
    # The destination is for what is written, and nothing is written here.
    return [Spool(spools / name, "") for name in names]


def waiting_chunks(spools: Path) -> dict[str, tuple[int, int]]:
    """Return how many chunks of each stream wait below a folder, by key, and their bytes of disk."""
    waiting = {key: spool.usage_of(key) for spool, key in _folders(spools)}
    return {key: usage for key, usage in waiting.items() if usage[0]}


def spooled_streams(journal: Journal, spools: Path, now_s: float) -> list[SpooledStream]:
    """Return all streams of which something lies in the spools below a folder, the oldest first."""
    found = [_stream(journal, spool, key, now_s) for spool, key in _folders(spools)]
    return sorted(found, key=lambda stream: (stream.oldest_unix_s or now_s, stream.key))


def _folders(spools: Path) -> Iterator[tuple[Spool, str]]:
    for spool in spools_in(spools):
        keys = spool.keys()
        for key in keys:
            yield spool, key


def _stream(journal: Journal, spool: Spool, key: str, now_s: float) -> SpooledStream:
    entries = spool.entries(key)
    chunks, n_bytes = spool.usage_of(key)
    oldest_unix_s = None
    if entries:
        with suppress(FileNotFoundError):
            oldest_unix_s = entries[0].path.stat().st_mtime
    stream = _unknown(spool, key, entries)
    live = journal.live_stream(key)
    if live is not None:
        row = journal.row(key)
        is_held = live.lease_holder is not None and live.lease_until_s > now_s
        stream = replace(
            stream,
            data_id=live.data_id,
            name=row.name,
            destination=row.destination,
            kind=row.kind,
            state=str(live.state),
            is_sealed=live.is_sealed,
            gone_reason=live.gone_reason,
            lease_holder=live.lease_holder if is_held else None,
            lease_until_s=live.lease_until_s,
        )
    return replace(
        stream,
        chunks=chunks,
        n_bytes=n_bytes,
        oldest_unix_s=oldest_unix_s,
        damaged=len(spool.damaged(key)),
        refused=len(spool.refused(key)),
    )


def _unknown(spool: Spool, key: str, entries: list[SpooledChunk]) -> SpooledStream:
    """Return a stream as the header of one of its files tells it."""
    data_id = destination = kind = None
    for spooled in (*entries, *_set_aside(spool, key)):
        with suppress(SpoolError):
            label = read_label(spooled)
            data_id, destination = label.data_id, read_destination(spooled)
            kind = "timeseries" if isinstance(label.meta, TimeseriesMeta) else "rheed"
            break
    return SpooledStream(
        spool, key, data_id, None, destination, kind, UNKNOWN, False, None, 0, 0, None, 0, 0, None, 0.0
    )  # fmt: skip


def _set_aside(spool: Spool, key: str) -> Iterator[SpooledChunk]:
    for path in (*spool.refused(key), *spool.damaged(key)):
        chunk = spooled_chunk(path.parent, path.name.rpartition(".")[0], 0)
        if chunk is not None:
            yield replace(chunk, path=path)


def text_of_size(n_bytes: int) -> str:
    """Return bytes for people."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if n_bytes >= size:
            return f"{n_bytes / size:.1f} {unit}"
    return f"{n_bytes / 1e3:.1f} kB"


def text_of_age(seconds: float) -> str:
    """Return a length of time for people."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
