"""From staged chunks of any length to a regular Zarr v3 array, without decompressing a frame.

Every object appears complete under its final name or not at all, and depends on nothing but the closed stream's rows.
So a seal that was cut off anywhere is continued by doing it again; the group's own ``zarr.json`` comes last and is the
commit marker: without it nothing opens the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, LakeDamagedError, MissingObjectError
from ingest.lake.grid import Piece, encoded_frames, lay_out
from ingest.lake.layout import (
    FORMAT_VERSION,
    FRAME_INDEX_ATTRIBUTES,
    FRAME_TIME_ATTRIBUTES,
    NOT_A_FRAME,
    NOT_A_TIME,
    array_in_pieces,
    frames_objects,
    group_object,
    shard_name,
    stream_folder,
)
from ingest.lake.store import LakeStore
from ingest.server.rows import ChunkRow, SeriesRow, StreamRow
from ingest.server.staging import staged_name
from ingest.shard import assemble

if TYPE_CHECKING:
    from zarr.core.common import JSON

__all__ = ["blocks_of", "common_attributes", "put_objects", "seal", "sealed_blocks", "write_attributes"]

READ_BLOCK_BYTES = 8 << 20
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def seal(
    stream: StreamRow,
    chunks: Sequence[ChunkRow],
    store: LakeStore,
    executor: Executor,
    check: Callable[[], None] = lambda: None,
) -> None:
    """Write a closed stream in its final form; again after any crash.

    Parameters
    ----------
    stream : StreamRow
        The closed stream.
    chunks : sequence of ChunkRow
        Its chunks in order, with the place of each.
    store : LakeStore
        Holds the staged chunks, which stay.
    executor : Executor
        Shards are laid out in its threads.
    check : callable
        Called before each shard; what it raises ends the seal.

    Raises
    ------
    LakeDamagedError
        A staged chunk is torn, or not there.
    DestinationError
        Disk full, not permitted, or no answer.

    Notes
    -----
    Memory: for each thread a shard, and the largest chunk once more.
    """
    n_frames = chunks[-1].stop if chunks else 0
    if (size := stream.chunk_size) is not None:
        _seal_shards(stream, chunks, store, executor, check)
        shape = (n_frames, stream.height_px or 1, stream.width_px or 1)
        put_objects(store, frames_objects(f"{stream_folder(stream.data_id)}/frames", shape, size).items())
    put_objects(store, _time_objects(stream.data_id, n_frames, chunks))
    write_attributes(stream, chunks, store)


def _seal_shards(
    stream: StreamRow,
    chunks: Sequence[ChunkRow],
    store: LakeStore,
    executor: Executor,
    check: Callable[[], None],
) -> None:
    data_id, size = stream.data_id, stream.chunk_size or 1
    pieces = [
        Piece(staged_name(data_id, chunk.file), chunk.first_frame or 0, chunk.stop)
        for chunk in chunks
        if chunk.file is not None
    ]
    there = {found.name for found in store.objects(f"{stream_folder(data_id)}/frames/c")}
    numbers = {number for piece in pieces for number in range(piece.first // size, -(-piece.stop // size))}

    def seal_shard(number: int) -> None:
        check()
        try:
            lay_out(store, shard_name(data_id, number), number, size, pieces)
        except (FrameDataError, MissingObjectError) as exc:
            raise LakeDamagedError(f"a staged chunk of shard {number} of stream {data_id}: {exc}") from exc

    todo = [number for number in sorted(numbers) if shard_name(data_id, number) not in there]
    for _ in executor.map(seal_shard, todo):
        pass


def put_objects(store: LakeStore, objects: Iterable[tuple[str, bytes]]) -> None:
    """Store objects one after the other, in the order in which they come."""
    for name, data in objects:
        store.put(name, [data])


def write_attributes(stream: StreamRow, chunks: Sequence[ChunkRow], store: LakeStore) -> None:
    """Write the group's ``zarr.json``, which makes the folder a Zarr group that opens."""
    put_objects(store, group_object(stream_folder(stream.data_id), _attributes(stream, chunks)).items())


def sealed_blocks(store: LakeStore, data_id: str, chunk: ChunkRow, size: int) -> tuple[int, Iterator[bytes]]:
    """Return the length and the blocks of a stored chunk's shard, with the frames that it was uploaded with.

    Parameters
    ----------
    store : LakeStore
        Holds the sealed stream.
    data_id : str
        The stream.
    chunk : ChunkRow
        A stored chunk.
    size : int
        Frames in a shard of the array.

    Notes
    -----
    Memory: 8 MiB of a chunk that is a shard of the array, else all of it.
    """
    first, stop = chunk.first_frame or 0, chunk.stop
    if first % size == 0 and stop - first == size:
        name = shard_name(data_id, first // size)
        n_bytes = store.size(name)
        if n_bytes is not None:
            return n_bytes, blocks_of(store, name, n_bytes)
    encoded: list[bytes | None] = []
    while first < stop:
        number, offset = divmod(first, size)
        count = min(size - offset, stop - first)
        try:
            encoded += encoded_frames(store, shard_name(data_id, number), size, offset, offset + count)
        except MissingObjectError:
            encoded += [None] * count  # none of its frames was stored
        first += count
    shard = assemble(encoded)
    return shard.n_bytes, shard.blocks()


def blocks_of(store: LakeStore, name: str, n_bytes: int) -> Iterator[bytes]:
    """Yield an object of `n_bytes` in blocks of 8 MiB."""
    for start in range(0, n_bytes, READ_BLOCK_BYTES):
        yield store.get(name, start, min(start + READ_BLOCK_BYTES, n_bytes))


def _time_objects(data_id: str, n_frames: int, chunks: Sequence[ChunkRow]) -> Iterator[tuple[str, bytes]]:
    folder = stream_folder(data_id)
    yield from array_in_pieces(
        f"{folder}/time", n_frames, np.int64, map(_times_ns, chunks), "frame", NOT_A_TIME, FRAME_TIME_ATTRIBUTES
    )
    yield from array_in_pieces(
        f"{folder}/frame_index", n_frames, np.int64, map(_numbers, chunks), "frame", NOT_A_FRAME, FRAME_INDEX_ATTRIBUTES
    )


def _times_ns(chunk: ChunkRow) -> NDArray[np.int64]:
    """Return the times of a chunk's frames; of those that never came, none."""
    times = np.full(chunk.stop - (chunk.first_frame or 0), NOT_A_TIME, np.int64)
    if (info := chunk.stored) is not None:
        since_ns = np.rint(np.arange(info.frames) * NS_PER_S / info.fps).astype(np.int64)
        times[:] = info.start_unix_ms_utc * NS_PER_MS + since_ns
        times[list(info.lost_frames)] = NOT_A_TIME
    return times


def _numbers(chunk: ChunkRow) -> NDArray[np.int64]:
    """Return the numbers of a chunk's frames; of those that never came, -1."""
    first = chunk.first_frame or 0
    numbers = np.full(chunk.stop - first, NOT_A_FRAME, np.int64)
    if (info := chunk.stored) is not None:
        numbers[:] = np.arange(first, chunk.stop)
        numbers[list(info.lost_frames)] = NOT_A_FRAME
    return numbers


def common_attributes(stream: StreamRow | SeriesRow) -> dict[str, JSON]:
    """Return what the group of a stream of either kind says of it."""
    return {
        "format": "rheed-ingest",
        "format_version": FORMAT_VERSION,
        "data_id": stream.data_id,
        "name": stream.name,
        "sample": None if stream.sample is None else stream.sample[1],
        "project": stream.project_id,
        "tags": [name for _, name in stream.tags],
    }


def _attributes(stream: StreamRow, chunks: Sequence[ChunkRow]) -> dict[str, JSON]:
    known = max((chunk.index for chunk in chunks), default=-1) + 1
    stored = {chunk.index for chunk in chunks if chunk.stored is not None}
    return {
        **common_attributes(stream),
        "fps": stream.fps,
        "rotations_per_min": stream.rotations_per_min,
        "azimuth_label": stream.azimuth_label,
        "frames_stored": stream.frames - stream.frames_lost,
        "frames_lost": stream.frames_lost,
        "chunks_stored": stream.chunks,
        "missing_chunks": [index for index in range(known) if index not in stored],
    }
