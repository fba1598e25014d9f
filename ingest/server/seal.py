"""From staged chunks of any length to a regular Zarr v3 array, without decompressing a frame.

Every file appears complete under its final name or not at all, and depends on nothing but the closed stream's rows. So
a seal that was cut off anywhere is continued by doing it again; the group's own ``zarr.json`` comes last and is the
commit marker: without it nothing opens the folder.
"""

from __future__ import annotations

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import zarr
import zarr.codecs
import zarr.storage
from numpy.typing import NDArray
from zarr.core.buffer import Buffer
from zarr.core.common import JSON

from ingest.errors import FrameDataError
from ingest.server.rows import ChunkRow, StreamRow
from ingest.server.store import ShardFile, Store, fsync_path, put_file, write_all
from ingest.shard import Shard, assemble

__all__ = ["FORMAT_VERSION", "NOT_A_TIME", "fsync_small", "put_group", "seal", "sealed_shard", "write_attributes"]

FORMAT_VERSION = 1
NOT_A_TIME = -(2**63)
"""NaT as int64: the time of a frame that never came, its whole chunk or it alone."""

NOT_A_FRAME = -1
"""The number of such a frame."""

TIME_ATTRIBUTES: dict[str, JSON] = {
    "units": "nanoseconds since 1970-01-01",
    "calendar": "proleptic_gregorian",
    "_FillValue": NOT_A_TIME,
}
TIMES_PER_CHUNK = 1 << 16
NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


def seal(stream: StreamRow, chunks: Sequence[ChunkRow], store: Store) -> None:
    """Write a closed stream in its final form; again after any crash.

    Parameters
    ----------
    stream : StreamRow
        The closed stream.
    chunks : sequence of ChunkRow
        Its chunks in order, with the place of each.
    store : Store
        Holds the staged files, which stay.

    Raises
    ------
    FrameDataError
        A staged file is damaged.
    OSError
        Disk full, or not permitted.

    Notes
    -----
    Memory: one shard.
    """
    path = store.sealed_path(stream.data_id)
    path.mkdir(parents=True, exist_ok=True)
    n_frames = chunks[-1].stop if chunks else 0
    if (size := stream.chunk_size) is not None:
        _make_frames_array(path, (n_frames, stream.height_px or 1, stream.width_px or 1), size)
        for number in range(-(-n_frames // size)):
            _seal_shard(path, number, size, stream.data_id, chunks, store)
    _write_times(path, n_frames, chunks)
    if store.fsync:
        fsync_small(path)
    write_attributes(stream, chunks, store)


def write_attributes(stream: StreamRow, chunks: Sequence[ChunkRow], store: Store) -> None:
    """Write the group's ``zarr.json``, which makes the folder a Zarr group that opens."""
    put_group(store.sealed_path(stream.data_id), _attributes(stream, chunks), fsync=store.fsync)


def put_group(path: Path, attributes: dict[str, JSON], *, fsync: bool) -> None:
    """Make a folder a Zarr group, in one step: the commit marker of what lies in it."""
    buffers: dict[str, Buffer] = {}
    zarr.create_group(zarr.storage.MemoryStore(buffers), attributes=attributes)
    with put_file(path / "zarr.json", fsync=fsync) as fd:
        write_all(fd, buffers["zarr.json"].to_bytes())
    if fsync:
        fsync_path(path)
        fsync_path(path.parent)


def sealed_shard(path: Path, chunk: ChunkRow, size: int) -> Shard:
    """Return a stored chunk's shard, rebuilt from the sealed frames: the frames it was uploaded with.

    Parameters
    ----------
    path : Path
        The sealed stream.
    chunk : ChunkRow
        A stored chunk.
    size : int
        Frames in a shard of the array.
    """
    first, stop = chunk.first_frame or 0, chunk.stop
    encoded: list[bytes | None] = []
    while first < stop:
        number, offset = divmod(first, size)
        count = min(size - offset, stop - first)
        try:
            fd = os.open(_shard_path(path, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            encoded += [None] * count
        else:
            try:
                encoded += ShardFile(fd, size).frames(offset, offset + count)
            finally:
                os.close(fd)
        first += count
    return assemble(encoded)


def _shard_path(path: Path, number: int) -> Path:
    return path / "frames" / "c" / str(number) / "0" / "0"


def _make_frames_array(path: Path, shape: tuple[int, int, int], size: int) -> None:
    if (path / "frames" / "zarr.json").exists():
        return
    # A store of its own: as part of the group's, zarr would write the group's zarr.json, the commit marker, now.
    zarr.create_array(
        zarr.storage.LocalStore(path / "frames"),
        shape=shape,
        dtype="uint8",
        shards=(size, *shape[1:]),
        chunks=(1, *shape[1:]),
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=False),
        fill_value=0,
        dimension_names=("frame", "y", "x"),
        attributes={"coordinates": "time frame_index"},
    )


def _seal_shard(path: Path, number: int, size: int, data_id: str, chunks: Sequence[ChunkRow], store: Store) -> None:
    target = _shard_path(path, number)
    start, stop = number * size, (number + 1) * size
    first_inside = bisect_right(chunks, start, key=lambda chunk: chunk.stop)
    behind = bisect_left(chunks, stop, key=lambda chunk: chunk.first_frame or 0)
    inside = [chunk for chunk in chunks[first_inside:behind] if chunk.file is not None]
    if target.exists() or not inside:
        return
    only = inside[0]
    if len(inside) == 1 and only.first_frame == start and only.stop == stop and only.file is not None:
        # A full shard of the grid is what was uploaded: the same file under a second name.
        _link(store.staging_path(data_id) / only.file, target, fsync=store.fsync)
        return
    encoded: list[bytes | None] = [None] * size
    for chunk in inside:
        first = chunk.first_frame or 0
        low, high = max(first, start), min(chunk.stop, stop)
        frames = _staged_frames(store.staging_path(data_id), chunk, low - first, high - first)
        encoded[low - start : high - start] = frames
    with put_file(target, fsync=store.fsync) as fd:
        for block in assemble(encoded).blocks():
            write_all(fd, block)


def _staged_frames(folder: Path, chunk: ChunkRow, start: int, stop: int) -> list[bytes | None]:
    with ExitStack() as stack:
        fd = os.open(folder / str(chunk.file), os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        try:
            return ShardFile(fd, chunk.info.frames if chunk.info is not None else 0).frames(start, stop)
        except FrameDataError as exc:
            raise FrameDataError(f"staged chunk {chunk.index} in {folder}: {exc}") from exc


def _link(source: Path, target: Path, *, fsync: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        # A file system without hard links.
        with source.open("rb", buffering=0) as file, put_file(target, fsync=fsync) as fd:
            while block := file.read(1 << 20):
                write_all(fd, block)


def _frame_rows(chunks: Sequence[ChunkRow]) -> Iterator[NDArray[np.int64]]:
    """Yield (2, frames) per chunk: times in ns and the frames' numbers."""
    for chunk in chunks:
        info = chunk.info
        if info is None:
            continue
        rows = np.empty((2, info.frames), np.int64)
        if chunk.stored is None:
            rows[0], rows[1] = NOT_A_TIME, NOT_A_FRAME
        else:
            steps = np.arange(info.frames)
            rows[0] = info.start_unix_ms_utc * NS_PER_MS + np.rint(steps * NS_PER_S / info.fps).astype(np.int64)
            rows[1] = (chunk.first_frame or 0) + steps
            lost = list(chunk.stored.lost_frames)
            rows[0, lost], rows[1, lost] = NOT_A_TIME, NOT_A_FRAME
        yield rows


def _blocks(pieces: Iterator[NDArray[np.int64]], size: int) -> Iterator[NDArray[np.int64]]:
    """Cut rows of any length into blocks of `size`; the last may be shorter."""
    held: list[NDArray[np.int64]] = []
    n_held = 0
    for piece in pieces:
        held.append(piece)
        n_held += piece.shape[1]
        if n_held >= size:
            joined = np.concatenate(held, axis=1)
            whole = n_held - n_held % size
            for start in range(0, whole, size):
                yield joined[:, start : start + size]
            held, n_held = [joined[:, whole:]], n_held - whole
    if n_held:
        yield np.concatenate(held, axis=1)


def _write_times(path: Path, n_frames: int, chunks: Sequence[ChunkRow]) -> None:
    time = _series(path / "time", n_frames, NOT_A_TIME, TIME_ATTRIBUTES)
    frame_index = _series(path / "frame_index", n_frames, NOT_A_FRAME, {})
    at = 0
    for rows in _blocks(_frame_rows(chunks), TIMES_PER_CHUNK):
        stop = at + rows.shape[1]
        time[at:stop], frame_index[at:stop] = rows
        at = stop


def _series(path: Path, n_frames: int, fill_value: int, attributes: dict[str, JSON]) -> zarr.Array[Any]:
    return zarr.create_array(
        zarr.storage.LocalStore(path),
        shape=(n_frames,),
        dtype="int64",
        chunks=(min(max(n_frames, 1), TIMES_PER_CHUNK),),
        compressors=zarr.codecs.ZstdCodec(level=1, checksum=False),
        fill_value=fill_value,
        dimension_names=("frame",),
        attributes=attributes,
        overwrite=True,
    )


def fsync_small(path: Path) -> None:
    """Put what zarr wrote on disk, and the names of the shards, which are on disk themselves."""
    for folder, _, names in os.walk(path):
        inside = Path(folder).relative_to(path).parts
        if inside and inside[0] == "frames" and inside[-1] == "0":
            names = []
        for name in names:
            fsync_path(Path(folder, name))
        fsync_path(Path(folder))


def _attributes(stream: StreamRow, chunks: Sequence[ChunkRow]) -> dict[str, JSON]:
    known = max((chunk.index for chunk in chunks), default=-1) + 1
    stored = {chunk.index for chunk in chunks if chunk.stored is not None}
    return {
        "format": "rheed-ingest",
        "format_version": FORMAT_VERSION,
        "data_id": stream.data_id,
        "name": stream.name,
        "fps": stream.fps,
        "rotations_per_min": stream.rotations_per_min,
        "azimuth_label": stream.azimuth_label,
        "sample": None if stream.sample is None else stream.sample[1],
        "project": stream.project_id,
        "tags": [name for _, name in stream.tags],
        "frames_stored": stream.frames - stream.frames_lost,
        "frames_lost": stream.frames_lost,
        "chunks_stored": stream.chunks,
        "missing_chunks": [index for index in range(known) if index not in stored],
    }
