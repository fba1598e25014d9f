"""What the catalogue tells about streams and their chunks, of both kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ingest.server.messages import ChunkInfo

__all__ = ["ChannelRow", "ChunkRow", "EndReport", "PointsRow", "SeriesReport", "SeriesRow", "StreamRow"]


@dataclass(frozen=True, slots=True)
class StreamRow:
    """One stream, as it is now.

    Attributes
    ----------
    status : str
        ``open``, ``closed`` or ``failed``.
    frames, chunks : int
        Stored.
    frames_lost : int
        Of `frames`: those that the source could not give.
    height_px, width_px : int or None
        Of every frame; None: no chunk was announced yet.
    sample : tuple or None
        Id and name.
    tags : tuple
        Pairs of id and name.
    end_calls, times_closed : int
        How often ``end`` was called, and how often that closed the stream.
    links_version : int
        Grows with every link.
    sealed_version : int or None
        The links that its final form shows; None: it has no final form yet.
    chunk_size : int or None
        Frames in one shard of the final form, which is what its first chunk declared; set when it closes.
    """

    data_id: str
    name: str
    fps: float
    rotations_per_min: float
    rotational_period: float | None
    project_id: str | None
    azimuth_label: str | None
    status: str
    created_unix_s: float
    active_unix_s: float
    height_px: int | None
    width_px: int | None
    frames: int
    frames_lost: int
    chunks: int
    sample: tuple[str, str] | None
    tags: tuple[tuple[str, str], ...]
    end_calls: int
    times_closed: int
    links_version: int
    sealed_version: int | None
    chunk_size: int | None

    @property
    def sealed(self) -> bool:
        """Whether it lies in its final form."""
        return self.sealed_version is not None


@dataclass(frozen=True, slots=True)
class ChunkRow:
    """One chunk that was announced, stored, or both.

    Attributes
    ----------
    announced : ChunkInfo or None
        What the last request for an upload URL said.
    stored : ChunkInfo or None
        What the upload that counts was granted for; None: nothing is stored.
    crc32c : int or None
        Of the shard; None: nothing is stored, or it came past the server.
    etag : str or None
        What the store that it came to calls these bytes; None: it came through the server.
    file : str or None
        Name of the staged file.
    puts : int
        Uploads that were stored.
    first_frame : int or None
        Place of its first frame in the stream; set when the stream closes.
    """

    index: int
    announced: ChunkInfo | None
    stored: ChunkInfo | None
    n_bytes: int
    crc32c: int | None
    etag: str | None
    file: str | None
    puts: int
    first_frame: int | None

    @property
    def info(self) -> ChunkInfo | None:
        """What is known of its shape: as stored, else as announced."""
        return self.stored or self.announced

    @property
    def stop(self) -> int:
        """Place of the frame after its last one."""
        return (self.first_frame or 0) + (self.info.frames if self.info is not None else 0)


@dataclass(frozen=True, slots=True)
class EndReport:
    """What closing a stream found."""

    frames: int
    chunks: int
    missing_chunks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class SeriesRow:
    """One time-series stream, as it is now; what is not said here is as in `StreamRow`.

    Attributes
    ----------
    points : int
        Stored, over all channels.
    chunks : int
        Different chunk indices that came, of whatever channel.
    puts : int
        How often a channel's chunk was stored.
    """

    data_id: str
    name: str
    points_per_chunk: int
    synth_source_id: int | None
    project_id: str | None
    status: str
    created_unix_s: float
    active_unix_s: float
    points: int
    chunks: int
    puts: int
    sample: tuple[str, str] | None
    tags: tuple[tuple[str, str], ...]
    end_calls: int
    times_closed: int
    links_version: int
    sealed_version: int | None

    @property
    def sealed(self) -> bool:
        """Whether it lies in its final form."""
        return self.sealed_version is not None


class PointsRow(NamedTuple):
    """One chunk of one channel."""

    chunk: int
    points: int
    puts: int


@dataclass(frozen=True, slots=True)
class ChannelRow:
    """One channel of a time-series stream, with its chunks in order."""

    channel_id: int
    name: str
    units: str | None
    chunks: tuple[PointsRow, ...]

    @property
    def points(self) -> int:
        """Over all chunks."""
        return sum(chunk.points for chunk in self.chunks)


@dataclass(frozen=True, slots=True)
class SeriesReport:
    """What closing a time-series stream found."""

    channels: int
    chunks: int
    points: int
