"""A chunk ready to be sent: its bytes, and everything that a destination, the journal and the spool want to know."""

from __future__ import annotations

from dataclasses import dataclass, replace

import google_crc32c
import orjson
import xxhash

from ingest.errors import FrameDataError
from ingest.ledger import Receipt
from ingest.shard import Shard
from ingest.timeseries import TimeseriesMeta
from ingest.wire.models import ChunkMetadata, Delivery

__all__ = ["ChunkLabel", "EncodedChunk", "encoded_points", "readdressed"]


@dataclass(frozen=True, slots=True)
class ChunkLabel:
    """What an encoded chunk is, without its bytes; small, and pickles.

    Attributes
    ----------
    key : str
        The stream's key in the journal.
    data_id : str
        The stream at its destination.
    seq : int
        In which order the stream's producer gave it; unique within the stream.
    index : int
        Its place in the ledger: for frames the chunk's index, for time series `seq`.
    meta : ChunkMetadata or TimeseriesMeta
        What the destination is told of it.
    digest : str
        XXH3-128 of its frames, or of a time-series request's body, hex.
    """

    key: str
    data_id: str
    seq: int
    index: int
    meta: ChunkMetadata | TimeseriesMeta
    digest: str

    @property
    def text(self) -> str:
        """The chunk, for people."""
        if isinstance(self.meta, TimeseriesMeta):
            return f"chunk {self.meta.chunk_index} of {', '.join(self.meta.channels)}"
        return f"chunk {self.index}"


@dataclass(frozen=True, slots=True)
class EncodedChunk:
    """A chunk as it is sent and spooled.

    Attributes
    ----------
    label : ChunkLabel
        What it is.
    body : Shard
        Its bytes, as parts: a shard, or the JSON of a time-series request as the only part.
    crc32c : int
        Of the body.
    """

    label: ChunkLabel
    body: Shard
    crc32c: int

    def receipt(self, delivery: Delivery, node: str, put_unix_ms: int) -> Receipt:
        """Return the receipt of its delivery."""
        label, meta = self.label, self.label.meta
        return Receipt(
            index=label.index,
            frames=meta.points if isinstance(meta, TimeseriesMeta) else meta.frames,
            start_unix_ms_utc=meta.start_unix_ms_utc,
            end_unix_ms_utc=meta.end_unix_ms_utc,
            n_bytes=self.body.n_bytes,
            crc32c=self.crc32c,
            frames_digest=label.digest,
            etag=delivery.etag,
            attempts=delivery.attempts,
            node=node,
            put_unix_ms=put_unix_ms,
            label=label.text if isinstance(meta, TimeseriesMeta) else None,
            lost_frames=() if isinstance(meta, TimeseriesMeta) else meta.lost_frames,
        )


def encoded_points(key: str, data_id: str, seq: int, meta: TimeseriesMeta, body: bytes) -> EncodedChunk:
    """Return a time-series request, ready to be sent.

    Parameters
    ----------
    key, data_id, seq, meta
        As in `ChunkLabel`.
    body : bytes
        Its JSON.
    """
    label = ChunkLabel(key, data_id, seq, seq, meta, str(xxhash.xxh3_128(body).hexdigest()))
    return EncodedChunk(label, Shard((body,), len(body)), int(google_crc32c.value(body)))


def readdressed(chunk: EncodedChunk, key: str, data_id: str) -> EncodedChunk:
    """Return a chunk as one of another stream; a time-series request is then the one that would have been encoded.

    Parameters
    ----------
    chunk : EncodedChunk
        As it was encoded, perhaps for a stream that had no ``data_id`` yet.
    key, data_id : str
        Of the stream.

    Raises
    ------
    FrameDataError
        A time-series request that does not begin with its ``data_id``, as `ingest.timeseries` encodes it.
    """
    label = chunk.label
    if not isinstance(label.meta, TimeseriesMeta):
        return replace(chunk, label=replace(label, key=key, data_id=data_id))
    body = chunk.body.tobytes()
    head = _body_head(label.data_id)
    if not body.startswith(head):
        raise FrameDataError(f"{label.text} of stream {label.key}: its request does not begin with its data_id")
    return encoded_points(key, data_id, label.seq, label.meta, _body_head(data_id) + body[len(head) :])


def _body_head(data_id: str) -> bytes:
    return b'{"data_id":' + orjson.dumps(data_id) + b","
