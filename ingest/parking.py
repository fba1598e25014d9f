"""Chunks that wait in a store until the destination that they are for can be reached again.

::

    <store>/.rheed-ingest/parked/<destination>/<stream key>/<index:010d>-<digest>.chunk    one chunk
    <store>/.rheed-ingest/parked/<destination>/<stream key>/stream.json                    what they are of

A live stream's chunks are ``<index:010d>-<digest>-<seq:012d>.chunk``: each push of a chunk has its own object.

``<destination>`` is 16 hex digits of the SHA-256 of its URL. A chunk's object is its body as it is sent, then JSON that
says what it is, then 16 bytes: ``RHEEDPRK``, and the length and CRC-32C of the JSON as little-endian uint32. The same
chunk always has the same name, so that parking it twice leaves one object.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import google_crc32c

from ingest.chunks import ChunkLabel, EncodedChunk
from ingest.errors import LakeDamagedError, MissingObjectError, RefusedError
from ingest.lake.layout import STATE_FOLDER
from ingest.lake.store import LakeStore
from ingest.orders import LIVE_KINDS, StreamFacts
from ingest.shard import Shard
from ingest.sources.urls import redacted
from ingest.timeseries import TimeseriesMeta
from ingest.wire.models import ChunkMetadata

__all__ = [
    "ParkedChunk",
    "ParkedStream",
    "Parking",
    "StreamNote",
    "UnparkedChunk",
    "parked_chunk",
    "parked_folder",
]

FORMAT = 1
PARKED_FOLDER = f"{STATE_FOLDER}/parked"
NOTE_NAME = "stream.json"
TRAILER = struct.Struct("<8sII")
MAGIC = b"RHEEDPRK"
META_KINDS: dict[str, type[ChunkMetadata] | type[TimeseriesMeta]] = {
    "frames": ChunkMetadata,
    "points": TimeseriesMeta,
}

_CHUNK = re.compile(r"(\d{10,})-([0-9a-f]{32})(?:-(\d{12,}))?\.chunk", re.ASCII)


@dataclass(frozen=True, slots=True)
class ParkedChunk:
    """A parked chunk, by its object's name.

    Attributes
    ----------
    name : str
        In the store.
    index : int
        Its place in the stream's ledger.
    digest : str
        Of its frames, or of its request as it was encoded.
    n_bytes : int
        Size of the object.
    seq : int or None
        In which order its producer gave it; only of a live stream's.
    """

    name: str
    index: int
    digest: str
    n_bytes: int
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class StreamNote:
    """What is written beside a stream's parked chunks.

    Attributes
    ----------
    destination : str
        Canonical URL, redacted.
    key : str
        The stream's key in the journal.
    data_id : str or None
        The stream at its destination; None: it could not be created yet.
    source, kind, origin, chunks
        As in `StreamFacts`.
    settings : dict
        What it is created with.
    spools : str or None
        As in `StreamFacts`.
    """

    destination: str
    key: str
    data_id: str | None
    source: str
    kind: str
    origin: str
    chunks: int
    settings: dict[str, Any]
    spools: str | None = None

    @property
    def is_live(self) -> bool:
        """Whether a streamer made the stream, not a backfill."""
        return self.kind in LIVE_KINDS


@dataclass(slots=True)
class ParkedStream:
    """What is parked of one stream.

    Attributes
    ----------
    folder : str
        In the store.
    key : str
        The stream's key in the journal that it was parked by.
    note : StreamNote or None
        None: it is not there.
    chunks : list of ParkedChunk
        By index.
    """

    folder: str
    key: str
    note: StreamNote | None = None
    chunks: list[ParkedChunk] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class UnparkedChunk:
    """A chunk read back, and proved.

    Attributes
    ----------
    chunk : EncodedChunk
        As it was parked.
    origin : str
        As in `StreamFacts`.
    """

    chunk: EncodedChunk
    origin: str


class Parking:
    """Parks chunks in a store, lists them, reads them back. Blocks; safe for several threads and processes.

    Parameters
    ----------
    store : LakeStore
        Where; closed by `close`.
    """

    def __init__(self, store: LakeStore) -> None:
        self._store = store

    def __repr__(self) -> str:
        return f"Parking({self.url!r})"

    @property
    def url(self) -> str:
        """The store's."""
        return self._store.url

    def put(self, destination: str, chunk: EncodedChunk, facts: StreamFacts) -> ParkedChunk:
        """Park a chunk; it is on disk, or acknowledged by the store, when this returns. Safe to repeat.

        Parameters
        ----------
        destination : str
            Canonical URL of where it belongs.
        chunk : EncodedChunk
            Its bytes and what they are; the store takes them without a copy.
        facts : StreamFacts
            Of its stream.

        Raises
        ------
        DestinationError
            What the store says.
        """
        label = chunk.label
        told = {
            "format": FORMAT,
            "kind": "points" if isinstance(label.meta, TimeseriesMeta) else "frames",
            "destination": redacted(destination),
            "key": label.key,
            "data_id": label.data_id or None,
            "seq": label.seq,
            "index": label.index,
            "digest": label.digest,
            "meta": asdict(label.meta),
            "n_bytes": chunk.body.n_bytes,
            "crc32c": chunk.crc32c,
            "origin": facts.origin,
            "source": facts.source,
        }
        text = json.dumps(told, separators=(",", ":")).encode()
        tail = text + TRAILER.pack(MAGIC, len(text), int(google_crc32c.value(text)))
        seq = f"-{label.seq:012d}" if facts.is_live else ""
        name = f"{parked_folder(destination, label.key)}/{label.index:010d}-{label.digest}{seq}.chunk"
        self._store.put(name, (*chunk.body.parts, tail), crc32c=int(google_crc32c.extend(chunk.crc32c, tail)))
        n_bytes = chunk.body.n_bytes + len(tail)
        return ParkedChunk(name, label.index, label.digest, n_bytes, label.seq if facts.is_live else None)

    def put_note(self, destination: str, key: str, data_id: str | None, facts: StreamFacts) -> None:
        """Write what a stream's parked chunks are of. Safe to repeat; raises as `put`."""
        note = {"format": FORMAT, "destination": redacted(destination), "key": key, "data_id": data_id, **asdict(facts)}
        text = json.dumps(note, indent=2).encode()
        self._store.put(
            f"{parked_folder(destination, key)}/{NOTE_NAME}", (text,), crc32c=int(google_crc32c.value(text))
        )

    def streams(self) -> list[ParkedStream]:
        """Return all that is parked, stream by stream; reads the notes, not the chunks.

        Raises
        ------
        DestinationError
            The store cannot be read.
        """
        found: dict[str, ParkedStream] = {}
        for stored in self._store.objects(PARKED_FOLDER):
            folder, _, last = stored.name.rpartition("/")
            stream = found.setdefault(folder, ParkedStream(folder, folder.rpartition("/")[2]))
            if (chunk := parked_chunk(stored.name, stored.n_bytes)) is not None:
                stream.chunks.append(chunk)
            elif last == NOTE_NAME:
                stream.note = self._note(stored.name)
        for stream in found.values():
            stream.chunks.sort(key=lambda chunk: (chunk.index, chunk.digest))
        return [stream for stream in found.values() if stream.chunks or stream.note is not None]

    def _note(self, name: str) -> StreamNote | None:
        try:
            told = json.loads(self._store.get(name))
            told.setdefault("spools", None)
            return StreamNote(**{field: told[field] for field in StreamNote.__dataclass_fields__})
        except (MissingObjectError, ValueError, KeyError, TypeError):
            return None  # every chunk says by itself what it is

    def load(self, parked: ParkedChunk) -> UnparkedChunk:
        """Read a chunk back and prove it; holds its bytes twice for a moment.

        Raises
        ------
        MissingObjectError
            It is not there any more.
        LakeDamagedError
            It is not what was parked; it is left as it is.
        RefusedError
            Another version of this program parked it.
        """
        raw = memoryview(self._store.get(parked.name))
        told, n_bytes = self._told(parked, raw)
        body = bytes(raw[:n_bytes])
        crc32c = int(google_crc32c.value(body))
        if (n_bytes, crc32c) != (told["n_bytes"], told["crc32c"]):
            raise self._damaged(
                parked, f"{n_bytes} bytes with CRC-32C {crc32c:08x}, not {told['n_bytes']} with {told['crc32c']:08x}"
            )
        if (told["index"], told["digest"]) != (parked.index, parked.digest):
            raise self._damaged(parked, f"it holds chunk {told['index']} with digest {told['digest']}")
        # JSON knows no tuples, and a label is hashable.
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in told["meta"].items()
        }
        meta = META_KINDS[told["kind"]](**fields)
        label = ChunkLabel(told["key"], told["data_id"] or "", told["seq"], told["index"], meta, told["digest"])
        return UnparkedChunk(EncodedChunk(label, Shard((body,), len(body)), crc32c), told["origin"])

    def _told(self, parked: ParkedChunk, raw: memoryview) -> tuple[dict[str, Any], int]:
        """Return what a chunk says that it is, and how long its body is."""
        if len(raw) < TRAILER.size:
            raise self._damaged(parked, f"it has {len(raw)} bytes")
        magic, length, crc32c = TRAILER.unpack(raw[-TRAILER.size :])
        n_bytes = len(raw) - TRAILER.size - length
        text = bytes(raw[max(n_bytes, 0) : -TRAILER.size])
        if magic != MAGIC or n_bytes < 0 or int(google_crc32c.value(text)) != crc32c:
            raise self._damaged(parked, "its end is cut off or altered")
        told: dict[str, Any] = json.loads(text)
        if told["format"] != FORMAT:
            raise RefusedError(
                f"{self.url}/{parked.name} has format {told['format']}; this version knows {FORMAT}",
                hint="move it over with the version of rheed-ingest that parked it",
            )
        return told, n_bytes

    def _damaged(self, parked: ParkedChunk, why: str) -> LakeDamagedError:
        return LakeDamagedError(
            f"the parked chunk {self.url}/{parked.name} is damaged, and kept: {why}",
            hint="run the backfill again: it delivers that chunk from its source",
        )

    def chunks(self, folder: str) -> list[ParkedChunk]:
        """Return what is parked in a stream's folder, by name; raises as `streams`."""
        found = (parked_chunk(stored.name, stored.n_bytes) for stored in self._store.objects(folder))
        return [chunk for chunk in found if chunk is not None]

    def remove(self, chunks: Sequence[ParkedChunk]) -> None:
        """Remove chunks. Safe to repeat."""
        self._store.delete([chunk.name for chunk in chunks])

    def remove_stream(self, folder: str) -> bool:
        """Remove a stream's note and folder if it has no chunk left; return whether. Only while nobody parks there."""
        if self.chunks(folder):
            return False
        self._store.delete_below(folder)
        return True

    def remove_note(self, folder: str) -> bool:
        """Remove a stream's note if it has no chunk left; return whether. A chunk that is parked meanwhile stays."""
        if self.chunks(folder):
            return False
        self._store.delete([f"{folder}/{NOTE_NAME}"])
        return True

    def close(self) -> None:
        """Let go of connections. Safe to repeat."""
        self._store.close()


def parked_folder(destination: str, key: str) -> str:
    """Return a stream's folder in the store, given its destination's canonical URL and its key."""
    return f"{PARKED_FOLDER}/{hashlib.sha256(destination.encode()).hexdigest()[:16]}/{key}"


def parked_chunk(name: str, n_bytes: int = 0) -> ParkedChunk | None:
    """Return what an object is by its name; None: no chunk."""
    match = _CHUNK.fullmatch(name.rpartition("/")[2])
    if match is None:
        return None
    return ParkedChunk(name, int(match[1]), match[2], n_bytes, None if match[3] is None else int(match[3]))
