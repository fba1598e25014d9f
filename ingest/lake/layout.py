"""Where things lie in a lake, and the Zarr documents that make them readable without us (DESIGN.md "Lake layout").

::

    <lake>/<data_id>.zarr/frames/c/<n>/0/0     shards of a regular grid
    <lake>/<data_id>.zarr/{time,frame_index}/  one int64 a frame
    <lake>/<data_id>.zarr/zarr.json            the commit marker: written last
    <lake>/<data_id>.manifest.json             what was sent, in brief
    <lake>/.rheed-ingest/staging/<data_id>/    chunks that are no whole shard of the grid, until the stream is closed
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ingest.wire.models import ChunkMetadata

if TYPE_CHECKING:
    from zarr.core.buffer import Buffer
    from zarr.core.common import JSON

__all__ = [
    "FORMAT_VERSION",
    "FRAME_INDEX_ATTRIBUTES",
    "FRAME_TIME_ATTRIBUTES",
    "NOT_A_FRAME",
    "NOT_A_TIME",
    "STATE_FOLDER",
    "StagedName",
    "array_in_pieces",
    "array_objects",
    "commit_name",
    "frames_objects",
    "group_object",
    "is_on_grid",
    "lake_data_id",
    "manifest_name",
    "plain_array",
    "shard_name",
    "staging_folder",
    "stream_folder",
]

FORMAT_VERSION = 1
STATE_FOLDER = ".rheed-ingest"
NOT_A_TIME = -(2**63)
"""NaT as int64: the time of a frame that never came, its whole chunk or it alone."""

NOT_A_FRAME = -1
"""The number of such a frame."""

FRAME_TIME_ATTRIBUTES: dict[str, JSON] = {
    "units": "nanoseconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
    "long_name": "capture time",
    "_FillValue": NOT_A_TIME,
}
FRAME_INDEX_ATTRIBUTES: dict[str, JSON] = {"long_name": "number of the frame; -1: lost"}
VALUES_PER_CHUNK = 1 << 16
MAX_SLUG = 60


def lake_data_id(name: str, digest: str, attempt: int = 1) -> str:
    """Return the id of a stream: its name as far as a file may be called so, and 8 hex digits of what it comes from.

    Parameters
    ----------
    name : str
        Any text.
    digest : str
        Of source and settings, hex.
    attempt : int, default 1
        Higher ones are told apart by their number.
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:MAX_SLUG].strip("-") or "stream"
    short = hashlib.sha256(digest.encode()).hexdigest()[:8]
    return f"{slug}-{short}" if attempt == 1 else f"{slug}-{short}-{attempt}"


def stream_folder(data_id: str) -> str:
    """Return the name of a stream's group."""
    return f"{data_id}.zarr"


def commit_name(data_id: str) -> str:
    """Return the name of the object that makes a stream's group one."""
    return f"{data_id}.zarr/zarr.json"


def manifest_name(data_id: str) -> str:
    """Return the name of a stream's manifest."""
    return f"{data_id}.manifest.json"


def shard_name(data_id: str, number: int) -> str:
    """Return the name of a shard."""
    return f"{data_id}.zarr/frames/c/{number}/0/0"


def staging_folder(data_id: str) -> str:
    """Return the folder of the chunks that are not at their place yet."""
    return f"{STATE_FOLDER}/staging/{data_id}"


def is_on_grid(meta: ChunkMetadata) -> bool:
    """Return whether a chunk is just one shard of the grid, known as such before the stream is closed."""
    return meta.first_frame is not None and meta.first_frame % meta.chunk_size == 0 and meta.frames == meta.chunk_size


_STAGED = re.compile(r"(\d+)_(\d+)x(\d+)x(\d+)_(-?\d+)_([0-9a-fx.p+-]+)_([0-9a-f]{8})", re.ASCII)


@dataclass(frozen=True, slots=True)
class StagedName:
    """What the name of a staged chunk says, so that no second object has to.

    Attributes
    ----------
    index : int
        The chunk.
    frames, height_px, width_px : int
        Its shape.
    start_unix_ms_utc : int
        Capture start.
    fps : float
        The rate within it.
    crc32c : int
        Of its bytes: another version of the chunk, however late it comes, never takes this one's place.
    """

    index: int
    frames: int
    height_px: int
    width_px: int
    start_unix_ms_utc: int
    fps: float
    crc32c: int

    @classmethod
    def of(cls, index: int, meta: ChunkMetadata, crc32c: int) -> StagedName:
        """Name a chunk."""
        return cls(index, meta.frames, meta.height_px, meta.width_px, meta.start_unix_ms_utc, meta.fps, crc32c)

    @classmethod
    def parse(cls, name: str) -> StagedName | None:
        """Read an object's name; None: it is none of ours."""
        match = _STAGED.fullmatch(name.rpartition("/")[2])
        if match is None:
            return None
        index, frames, height, width, start = (int(part) for part in match.groups()[:5])
        return cls(index, frames, height, width, start, float.fromhex(match[6]), int(match[7], 16))

    def below(self, data_id: str) -> str:
        """Return the object's name in a lake."""
        shape = f"{self.frames}x{self.height_px}x{self.width_px}"
        name = f"{self.index}_{shape}_{self.start_unix_ms_utc}_{float(self.fps).hex()}_{self.crc32c:08x}"
        return f"{staging_folder(data_id)}/{name}"


def frames_objects(folder: str, shape: tuple[int, int, int], chunk_size: int) -> dict[str, bytes]:
    """Return the metadata object of the array of frames, without its shards.

    Parameters
    ----------
    folder : str
        The array's name in the lake.
    shape : (frame, y, x)
        Of all.
    chunk_size : int
        Frames in a shard.
    """
    import zarr.codecs  # takes half a second, which a command that needs none of it should not wait for
    import zarr.storage

    buffers: dict[str, Buffer] = {}
    zarr.create_array(
        zarr.storage.MemoryStore(buffers),
        shape=shape,
        dtype="uint8",
        shards=(chunk_size, *shape[1:]),
        chunks=(1, *shape[1:]),
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=False),
        fill_value=0,
        dimension_names=("frame", "y", "x"),
        attributes={"long_name": "RHEED intensity", "coordinates": "time frame_index"},
    )
    return _named(folder, buffers)


def plain_array(values: NDArray[Any], dimension: str, fill_value: float, attributes: dict[str, JSON]) -> dict[str, Any]:
    """Return what `zarr.create_array` is told of a plain row of numbers."""
    import zarr.codecs

    return {
        "shape": values.shape,
        "dtype": values.dtype.name,
        "chunks": (min(max(len(values), 1), VALUES_PER_CHUNK),),
        "compressors": zarr.codecs.ZstdCodec(level=1, checksum=False),
        "fill_value": fill_value,
        "dimension_names": (dimension,),
        "attributes": attributes,
    }


def array_objects(
    folder: str, values: NDArray[Any], dimension: str, fill_value: float, attributes: dict[str, JSON]
) -> dict[str, bytes]:
    """Return the objects of an array of numbers, its metadata last. Holds it twice.

    Parameters
    ----------
    folder, dimension, fill_value, attributes
        As for `array_in_pieces`.
    values : ndarray, (dimension,)
        All of it.
    """
    return dict(array_in_pieces(folder, len(values), values.dtype, [values], dimension, fill_value, attributes))


def array_in_pieces(
    folder: str,
    length: int,
    dtype: DTypeLike,
    pieces: Iterable[NDArray[Any]],
    dimension: str,
    fill_value: float,
    attributes: dict[str, JSON],
) -> Iterator[tuple[str, bytes]]:
    """Yield the objects of an array of numbers by name, its metadata last.

    Parameters
    ----------
    folder : str
        The array's name in the lake.
    length : int
        Of it.
    dtype : data type
        Of its values.
    pieces : iterable of ndarray, (dimension,)
        All of it, in pieces of any length.
    dimension : str
        What its axis is called.
    fill_value : float
        Stands for values that are not stored.
    attributes : dict
        CF attributes.

    Notes
    -----
    Memory: twice the largest piece, or twice 64 k values.
    """
    import zarr.storage

    buffers: dict[str, Buffer] = {}
    array = zarr.create_array(
        zarr.storage.MemoryStore(buffers),
        config={"write_empty_chunks": True},  # else a look at the folder cannot tell them from lost ones
        **plain_array(np.broadcast_to(np.zeros((), dtype), (length,)), dimension, fill_value, attributes),
    )
    at = 0
    for block in _blocks(pieces, VALUES_PER_CHUNK):
        array[at : at + len(block)] = block
        at += len(block)
        for name in sorted(buffers.keys() - {"zarr.json"}):
            yield f"{folder}/{name}", buffers.pop(name).to_bytes()
    yield f"{folder}/zarr.json", buffers["zarr.json"].to_bytes()


def _blocks(pieces: Iterable[NDArray[Any]], size: int) -> Iterator[NDArray[Any]]:
    """Join pieces to multiples of `size`; only the last one may be something else."""
    held: list[NDArray[Any]] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        n_held += len(piece)
        if n_held >= size:
            joined = np.concatenate(held)
            whole = n_held - n_held % size
            yield joined[:whole]
            held, n_held = [joined[whole:]], n_held - whole
    if n_held:
        yield np.concatenate(held)


def group_object(folder: str, attributes: dict[str, JSON]) -> dict[str, bytes]:
    """Return the object that makes a folder a Zarr group."""
    import zarr.storage

    buffers: dict[str, Buffer] = {}
    zarr.create_group(zarr.storage.MemoryStore(buffers), attributes=attributes)
    return _named(folder, buffers)


def _named(folder: str, buffers: dict[str, Buffer]) -> dict[str, bytes]:
    names = sorted(buffers, key=lambda name: (name.endswith("zarr.json"), name))
    return {f"{folder}/{name}": buffers[name].to_bytes() for name in names}
