"""One spooled chunk as a file that says by itself what it is, and the names that such files have.

::

    <folder>/<stream key>/<seq:012d>-<index:010d>.chunk        complete and on disk
    <folder>/<stream key>/<...>.chunk.damaged or .refused      set aside
    <folder>/<stream key>/.<seq>-<index>.<token>.part          being written, by whoever holds its lock

A file is one line ``<CRC-32C of the JSON, 8 hex> <JSON>``, then the body as it is sent. Of a chunk that waits at a
failover only the line is here: its format is 2, which older versions leave alone, and it says where the body is.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import google_crc32c

from ingest.chunks import ChunkLabel, EncodedChunk
from ingest.errors import (
    SettingsError,
    SpoolDamagedError,
    SpoolError,
    SpoolGoneError,
    SpoolParkedError,
    SpoolReadError,
)
from ingest.shard import Shard
from ingest.timeseries import TimeseriesMeta
from ingest.wire.models import ChunkMetadata

__all__ = [
    "PART_SUFFIX",
    "AsideReason",
    "ParkedPlace",
    "SpooledChunk",
    "chunk_place",
    "header_line",
    "is_key",
    "part_name",
    "read_chunk",
    "read_destination",
    "read_label",
    "read_place",
    "remove_if_abandoned",
    "spooled_chunk",
    "write_chunk",
    "write_note",
]

FORMAT = 1
PARKED_FORMAT = 2
PART_SUFFIX = ".part"
AsideReason = Literal["damaged", "refused"]
"""Why a chunk is set aside: it is not what was written, or its destination gave a final no. The file's last suffix."""
META_KINDS: dict[str, type[ChunkMetadata] | type[TimeseriesMeta]] = {
    "rheed": ChunkMetadata,
    "timeseries": TimeseriesMeta,
}

_KEY = re.compile(r"[0-9a-f]{32}")
_NAME = re.compile(r"([0-9]{12,})-([0-9]{10,})\.chunk")


@dataclass(frozen=True, slots=True)
class SpooledChunk:
    """Where a chunk lies in a spool; small, and pickles.

    Attributes
    ----------
    key : str
        The stream's key in the journal.
    seq : int
        In which order the stream's producer gave it.
    index : int
        Its place in the ledger.
    n_bytes : int
        Size of the file: the body and some hundred bytes of header.
    path : Path
        The file.
    """

    key: str
    seq: int
    index: int
    n_bytes: int
    path: Path


@dataclass(frozen=True, slots=True)
class ParkedPlace:
    """Where the body of a chunk is that is not in the spool.

    Attributes
    ----------
    url : str
        Canonical URL of the store.
    name : str
        Of the object in it.
    """

    url: str
    name: str


def is_key(text: str) -> bool:
    """Return whether `text` is a journal key, and so safe as a folder's name."""
    return _KEY.fullmatch(text) is not None


def chunk_place(folder: Path, label: ChunkLabel) -> Path:
    """Return where in `folder` a chunk belongs.

    Raises
    ------
    SettingsError
        Its key is not one of a journal's (32 hex digits), or its seq or index is negative.
    """
    if not is_key(label.key) or label.seq < 0 or label.index < 0:
        raise SettingsError(
            f"a chunk with key {label.key!r}, seq {label.seq} and index {label.index} cannot be spooled: a key is "
            "32 hex digits, the others are 0 or more"
        )
    return folder / label.key / f"{label.seq:012d}-{label.index:010d}.chunk"


def part_name(path: Path) -> Path:
    """Return a name beside `path` that no other process or thread uses, for while it is written."""
    return path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(8)}{PART_SUFFIX}")


def spooled_chunk(folder: Path, name: str, n_bytes: int) -> SpooledChunk | None:
    """Return what a file of a stream's folder is by its name; None: not a complete chunk."""
    match = _NAME.fullmatch(name)
    return None if match is None else SpooledChunk(folder.name, int(match[1]), int(match[2]), n_bytes, folder / name)


def header_line(chunk: EncodedChunk, destination: str, place: ParkedPlace | None = None) -> bytes:
    """Return the first line of a chunk's file; with a place, all of the file of a chunk whose body is there."""
    label = chunk.label
    header = {
        "format": FORMAT if place is None else PARKED_FORMAT,
        "kind": "timeseries" if isinstance(label.meta, TimeseriesMeta) else "rheed",
        "key": label.key,
        "data_id": label.data_id,
        "seq": label.seq,
        "index": label.index,
        "digest": label.digest,
        "meta": asdict(label.meta),
        "n_bytes": chunk.body.n_bytes,
        "crc32c": chunk.crc32c,
        "destination": destination,
    }
    if place is not None:
        header["parked"] = asdict(place)
    raw = json.dumps(header, separators=(",", ":")).encode()
    return b"%08x %s\n" % (google_crc32c.value(raw), raw)


def write_chunk(fd: int, header: bytes, chunk: EncodedChunk) -> None:
    """Write a chunk's file to a new descriptor, locked while it is open; holds about 1 MiB besides the chunk.

    Raises
    ------
    SpoolDamagedError
        The chunk's bytes are not those that its size and CRC-32C are of: nobody could read it back.
    OSError
        As it comes.
    """
    fcntl.flock(fd, fcntl.LOCK_EX)
    _write_all(fd, header)
    n_bytes = crc32c = 0
    for block in chunk.body.blocks():
        n_bytes += len(block)
        crc32c = google_crc32c.extend(crc32c, block)
        _write_all(fd, block)
    if (n_bytes, crc32c) != (chunk.body.n_bytes, chunk.crc32c):
        raise SpoolDamagedError(
            f"{chunk.label.text} of stream {chunk.label.key} is not spooled: its {n_bytes} bytes with CRC-32C "
            f"{crc32c:08x} are not the {chunk.body.n_bytes} with {chunk.crc32c:08x} that were encoded",
            hint="encode it again; if this comes back, have the machine's memory checked",
        )


def write_note(fd: int, header: bytes) -> None:
    """Write the file of a chunk whose body is elsewhere to a new descriptor, locked while it is open."""
    fcntl.flock(fd, fcntl.LOCK_EX)
    _write_all(fd, header)


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def remove_if_abandoned(path: Path) -> bool:
    """Remove a temporary file whose writer is gone; return whether it was. Raises no OSError: there is a next time."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        path.unlink()
    except OSError:
        return False
    finally:
        os.close(fd)
    return True


def read_label(spooled: SpooledChunk) -> ChunkLabel:
    """Read what a chunk is from its header alone; raises as `read_chunk`, but does not see a damaged body."""
    with _reading(spooled) as file:
        return _label(_header(spooled, file), spooled.path)


def read_destination(spooled: SpooledChunk) -> str:
    """Read the URL of where a chunk belongs from its header; raises as `read_label`."""
    with _reading(spooled) as file:
        return str(_header(spooled, file).get("destination", ""))


def read_place(spooled: SpooledChunk) -> ParkedPlace | None:
    """Read from its header where a chunk's body is; None: here. Raises as `read_label`."""
    with _reading(spooled) as file:
        return _place(_header(spooled, file))


def _place(header: dict[str, Any]) -> ParkedPlace | None:
    return None if header["format"] == FORMAT else ParkedPlace(**header["parked"])


def read_chunk(spooled: SpooledChunk) -> EncodedChunk:
    """Read a chunk and prove it; holds its bytes once.

    Raises
    ------
    SpoolGoneError
        It was removed meanwhile.
    SpoolDamagedError
        Its header or body is not what was written; the file is left as it is.
    SpoolParkedError
        Its body is elsewhere; the error says where.
    SpoolReadError
        The disk or the system did not give it; trying again may help.
    SpoolError
        Another version of this program wrote it.
    """
    with _reading(spooled) as file:
        header = _header(spooled, file)
        if (place := _place(header)) is not None:
            raise SpoolParkedError(
                f"the body of the spooled chunk {spooled.path} waits at {place.url}",
                hint=f"`rheed-ingest reconcile {place.url}` moves it to where it belongs",
                url=place.url,
                name=place.name,
            )
        label = _label(header, spooled.path)
        n_bytes, there = header["n_bytes"], os.fstat(file.fileno()).st_size - file.tell()
        if there != n_bytes:
            raise _damaged(spooled.path, f"its body has {there} of {n_bytes} bytes")
        body = Shard((file.read(n_bytes),), n_bytes)
    crc32c = body.crc32c()
    if crc32c != header["crc32c"]:
        raise _damaged(spooled.path, f"its body has CRC-32C {crc32c:08x}, not {header['crc32c']:08x}")
    return EncodedChunk(label, body, crc32c)


@contextmanager
def _reading(spooled: SpooledChunk) -> Iterator[BinaryIO]:
    try:
        with spooled.path.open("rb") as file:
            yield file
    except FileNotFoundError as exc:
        raise SpoolGoneError(f"the spooled chunk {spooled.path} is not there any more") from exc
    except OSError as exc:
        raise SpoolReadError(
            f"the spooled chunk {spooled.path} cannot be read: {exc.strerror}",
            hint="fix the permission or the disk; the file is kept and read again",
        ) from exc


def _header(spooled: SpooledChunk, file: BinaryIO) -> dict[str, Any]:
    """Read and prove the first line of a file."""
    line = file.readline()
    raw = line[9:-1]
    if line[8:9] != b" " or not line.endswith(b"\n") or line[:8] != b"%08x" % google_crc32c.value(raw):
        raise _damaged(spooled.path, "its header is cut off or fails its CRC-32C")
    try:
        header: dict[str, Any] = json.loads(raw)
        version, told = header["format"], (header["key"], header["seq"], header["index"])
    except (ValueError, KeyError, TypeError) as exc:
        raise _damaged(spooled.path, "its first line is not a header") from exc
    if version != FORMAT and not (version == PARKED_FORMAT and "parked" in header):
        raise SpoolError(
            f"the spooled chunk {spooled.path} has format {version}; this version knows {FORMAT}",
            hint="deliver it with the version of rheed-ingest that wrote it",
        )
    if told != (spooled.key, spooled.seq, spooled.index):
        raise _damaged(spooled.path, "its header is of key {}, seq {}, index {}, not of its name".format(*told))
    return header


def _label(header: dict[str, Any], path: Path) -> ChunkLabel:
    # JSON knows no tuples, and a label is hashable.
    fields: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in header["meta"].items()
    }
    try:
        meta = META_KINDS[header["kind"]](**fields)
    except (KeyError, TypeError) as exc:
        raise SpoolError(
            f"the spooled chunk {path} is of a kind, or has fields, that this version does not know: {exc}",
            hint="deliver it with the version of rheed-ingest that wrote it",
        ) from exc
    return ChunkLabel(header["key"], header["data_id"], header["seq"], header["index"], meta, header["digest"])


def _damaged(path: Path, why: str) -> SpoolDamagedError:
    return SpoolDamagedError(
        f"the spooled chunk {path} is damaged: {why}",
        hint="set it aside and report it: its bytes are lost unless its producer still has them",
    )
