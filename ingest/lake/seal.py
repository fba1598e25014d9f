"""The end of a stream in a lake: what is no whole shard yet is laid out, times and attributes are written, commit last.

No frame is decompressed: encoded frames are copied from where they were staged to where the regular grid wants them.
Every step may be done again, and what is written depends on nothing but the stream's contents, so a seal that was cut
off anywhere is continued by doing it again.
"""

from __future__ import annotations

import json
import logging
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import pairwise
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray

from ingest.contents import StreamContents
from ingest.errors import DestinationError, FrameDataError, LakeDamagedError, MissingObjectError
from ingest.lake.grid import Piece, lay_out
from ingest.lake.layout import (
    FORMAT_VERSION,
    FRAME_INDEX_ATTRIBUTES,
    FRAME_TIME_ATTRIBUTES,
    NOT_A_FRAME,
    NOT_A_TIME,
    STATE_FOLDER,
    StagedName,
    array_objects,
    frames_objects,
    group_object,
    manifest_name,
    shard_name,
    staging_folder,
    stream_folder,
)
from ingest.lake.store import LakeStore
from ingest.ledger import Receipt
from ingest.plan import RunPlan, StreamSettings

__all__ = ["PlacedChunk", "closing_objects", "frames_attributes", "manifest_bytes", "place_chunks", "seal_frames"]

logger = logging.getLogger("rheed_ingest")

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class PlacedChunk:
    """A chunk at its place among all frames of its stream.

    Attributes
    ----------
    index : int
        The chunk.
    first, stop : int
        Its frames, counted from the stream's first.
    receipt : Receipt or None
        None: it is lost.
    is_whole : bool
        Whether it is just one shard of the grid, and was put there at once.
    staged : StagedName or None
        Else: where it waits; None: lost, or gone.
    """

    index: int
    first: int
    stop: int
    receipt: Receipt | None
    is_whole: bool
    staged: StagedName | None


def seal_frames(store: LakeStore, data_id: str, contents: StreamContents, executor: Executor) -> None:
    """Finish a stream of frames. Safe to repeat.

    Parameters
    ----------
    store : LakeStore
        The lake.
    data_id : str
        The stream.
    contents : StreamContents
        All of it.
    executor : Executor
        Shards are laid out in its threads.

    Raises
    ------
    LakeDamagedError
        A shard that was delivered is not there any more, or not as long as it was.

    Notes
    -----
    Memory: a shard for each thread, and 40 bytes a frame.
    """
    settings = contents.settings
    if not isinstance(settings, StreamSettings):
        raise TypeError(f"stream {data_id} holds no frames")
    staged = _staged(store, data_id)
    chunks = place_chunks(contents, staged, settings.chunk_size)
    _check_whole_shards(store, data_id, chunks, settings.chunk_size)
    todo = _irregular(chunks, settings.chunk_size)
    for _ in executor.map(lambda n: _lay_out(store, data_id, n, settings.chunk_size, chunks), todo):
        pass
    with suppress(DestinationError):  # leftovers cost room and nothing else; not every key may look for them
        store.clean(stream_folder(data_id))
    objects = closing_objects(data_id, contents, chunks, _frame_shape(contents.plan, staged))
    for name, data in objects.items():
        store.put(name, [data])
    store.delete_below(staging_folder(data_id))


def closing_objects(
    data_id: str, contents: StreamContents, chunks: Sequence[PlacedChunk], frame_shape: tuple[int, int]
) -> dict[str, bytes]:
    """Return all objects of a stream of frames but its shards, by name, the commit marker last.

    Parameters
    ----------
    data_id : str
        The stream.
    contents : StreamContents
        All of it.
    chunks : sequence of PlacedChunk
        Its chunks, in order.
    frame_shape : (y, x)
        In px.
    """
    settings = contents.settings
    if not isinstance(settings, StreamSettings):
        raise TypeError(f"stream {data_id} holds no frames")
    n_frames = chunks[-1].stop if chunks else 0
    folder = stream_folder(data_id)
    objects = frames_objects(f"{folder}/frames", (n_frames, *frame_shape), settings.chunk_size)
    times, frame_index = frame_rows(contents, chunks, n_frames)
    objects |= array_objects(f"{folder}/time", times, "frame", NOT_A_TIME, FRAME_TIME_ATTRIBUTES)
    objects |= array_objects(f"{folder}/frame_index", frame_index, "frame", NOT_A_FRAME, FRAME_INDEX_ATTRIBUTES)
    objects[manifest_name(data_id)] = manifest_bytes(contents)
    objects |= group_object(folder, frames_attributes(data_id, contents, settings, times, frame_index))
    return objects


def manifest_bytes(contents: StreamContents) -> bytes:
    """Return a stream's manifest as it lies in the lake."""
    return json.dumps(contents.manifest, ensure_ascii=False, separators=(",", ":")).encode()


def _staged(store: LakeStore, data_id: str) -> dict[int, list[StagedName]]:
    staged: dict[int, list[StagedName]] = {}
    for entry in store.objects(staging_folder(data_id)):
        name = StagedName.parse(entry.name)
        if name is not None:
            staged.setdefault(name.index, []).append(name)
    return staged


def place_chunks(
    contents: StreamContents, staged: Mapping[int, Sequence[StagedName]], chunk_size: int
) -> list[PlacedChunk]:
    """Return all chunks of a stream in order, each at its place; a live stream's follow each other by index.

    Parameters
    ----------
    contents : StreamContents
        All of it.
    staged : mapping of int to sequence of StagedName
        What waits, by chunk.
    chunk_size : int
        Frames in a shard of the grid.
    """
    receipts = {receipt.index: receipt for receipt in contents.receipts}
    plan = contents.plan
    placed: list[PlacedChunk] = []
    if isinstance(plan, RunPlan):
        spans = [(task.index, task.start, task.stop) for task in plan.chunks]
    else:
        spans, at = [], 0
        for index in sorted(receipts):
            spans.append((index, at, at + receipts[index].frames))
            at += receipts[index].frames
    for index, first, stop in spans:
        receipt = receipts.get(index)
        is_whole = plan is not None and first % chunk_size == 0 and stop - first == chunk_size
        waits = None if receipt is None or is_whole else _delivered_last(receipt, staged.get(index, ()))
        placed.append(PlacedChunk(index, first, stop, receipt, is_whole, waits))
    return placed


def _delivered_last(receipt: Receipt, names: Iterable[StagedName]) -> StagedName | None:
    """Of what was staged for a chunk, what its receipt is about; None: it was laid out by an earlier seal."""
    told = receipt.frames, receipt.start_unix_ms_utc, receipt.crc32c
    fits = (name for name in names if (name.frames, name.start_unix_ms_utc, name.crc32c) == told)
    return next(fits, None)


def _frame_shape(plan: object, staged: Mapping[int, Sequence[StagedName]]) -> tuple[int, int]:
    if isinstance(plan, RunPlan):
        return plan.height_px, plan.width_px
    return next(((names[0].height_px, names[0].width_px) for names in staged.values()), (1, 1))


def _irregular(chunks: Sequence[PlacedChunk], size: int) -> list[int]:
    """Return the shards that are put together of staged chunks."""
    apart = (chunk for chunk in chunks if not chunk.is_whole)
    return sorted({number for chunk in apart for number in range(chunk.first // size, -(-chunk.stop // size))})


def _check_whole_shards(store: LakeStore, data_id: str, chunks: Sequence[PlacedChunk], size: int) -> None:
    """Compare the whole shards with what was delivered; remove those of no chunk, and put those of lost ones aside."""
    folder = f"{stream_folder(data_id)}/frames/c"
    there = {entry.name: entry.n_bytes for entry in store.objects(folder)}
    whole = {shard_name(data_id, chunk.first // size): chunk for chunk in chunks if chunk.is_whole}
    for name, chunk in whole.items():
        if chunk.receipt is not None and there.get(name) != chunk.receipt.n_bytes:
            found = "is gone" if name not in there else f"has {there[name]} bytes"
            raise LakeDamagedError(
                f"{store.url}/{name} {found}; {chunk.receipt.n_bytes} bytes were stored there as chunk {chunk.index}",
                hint="who else writes into this lake? `rheed-ingest verify --repair` delivers it again",
            )
    expected = {shard_name(data_id, n) for n in range(-(-chunks[-1].stop // size))} if chunks else set()
    lost = [name for name, chunk in whole.items() if chunk.receipt is None and name in there]
    for name in lost:  # a job that was killed may have put it there before the source was damaged
        store.copy(name, f"{STATE_FOLDER}/set-aside/{name}")
        logger.warning("%s/%s has no receipt: kept below %s/set-aside", store.url, name, STATE_FOLDER)
    store.delete([name for name in there if name not in expected or name in lost])


def _lay_out(store: LakeStore, data_id: str, number: int, size: int, chunks: Sequence[PlacedChunk]) -> None:
    """Write one shard of the grid from the staged chunks that reach into it."""
    start, stop = number * size, (number + 1) * size
    first_inside = bisect_right(chunks, start, key=lambda chunk: chunk.stop)
    behind = bisect_left(chunks, stop, key=lambda chunk: chunk.first)
    pieces = []
    for chunk in chunks[first_inside:behind]:
        if chunk.staged is not None:
            pieces.append(Piece(chunk.staged.below(data_id), chunk.first, chunk.stop))
        elif chunk.receipt is not None:
            raise _lost_staging(store, data_id, f"chunk {chunk.index}")
    try:
        lay_out(store, shard_name(data_id, number), number, size, pieces)
    except MissingObjectError as exc:
        raise _lost_staging(store, data_id, f"a chunk of the frames {start} to {stop - 1}") from exc
    except FrameDataError as exc:
        where = f"{store.url}/{staging_folder(data_id)}: a chunk of the frames {start} to {stop - 1}"
        raise LakeDamagedError(f"{where}: {exc}", hint="run the job with --restart") from exc


def _lost_staging(store: LakeStore, data_id: str, what: str) -> LakeDamagedError:
    return LakeDamagedError(
        f"{store.url}/{staging_folder(data_id)}: {what} was stored there and is gone",
        hint="who else writes into this lake? Run the job with --restart",
    )


def frame_rows(
    contents: StreamContents, chunks: Sequence[PlacedChunk], n_frames: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return every frame's time in ns and its number; those of lost frames are no time and -1.

    Parameters
    ----------
    contents : StreamContents
        A plan with times, or receipts that imply them.
    chunks : sequence of PlacedChunk
        In order.
    n_frames : int
        Of all.
    """
    plan = contents.plan
    rows = np.empty((2, n_frames), np.int64)
    known = plan.frame_times if isinstance(plan, RunPlan) else None
    rows[1] = np.arange(n_frames)
    if known is not None:
        rows[:] = known.rows()
    for chunk in chunks:
        span = slice(chunk.first, chunk.stop)
        if known is None:
            rows[0, span] = _implied_ns(contents, chunk)
        lost = range(chunk.stop - chunk.first) if chunk.receipt is None else chunk.receipt.lost_frames
        at = [chunk.first + i for i in lost]
        rows[0, at], rows[1, at] = NOT_A_TIME, NOT_A_FRAME
    return rows[0], rows[1]


def _implied_ns(contents: StreamContents, chunk: PlacedChunk) -> NDArray[np.int64]:
    """Return the times that a chunk has on the wire: ``start + i / fps``."""
    if chunk.receipt is None:
        return np.full(chunk.stop - chunk.first, NOT_A_TIME, np.int64)
    fps = chunk.staged.fps if chunk.staged is not None else getattr(contents.settings, "fps", 1.0)
    since_ns = np.rint(np.arange(chunk.stop - chunk.first) * (NS_PER_S / fps)).astype(np.int64)
    return since_ns + chunk.receipt.start_unix_ms_utc * NS_PER_MS


def frames_attributes(
    data_id: str,
    contents: StreamContents,
    settings: StreamSettings,
    times: NDArray[np.int64],
    frame_index: NDArray[np.int64],
) -> dict[str, Any]:
    """Return what the group of a stream of frames says of it."""
    manifest = contents.manifest
    lost = int((times == NOT_A_TIME).sum())
    return {
        **common_attributes(data_id, contents),
        **({"chunks_never_pushed": _holes(contents)} if contents.plan is None else {}),
        "fps": settings.fps,
        "rotations_per_min": settings.rotations_per_min,
        "azimuth_label": settings.azimuth,
        "frames_stored": len(times) - lost,
        "frames_lost": lost,
        "chunks_stored": len(contents.receipts),
        "missing_chunks": sorted(contents.losses),
        "timing": manifest.get("timing"),
        # So that what is edited later is noticed without the source.
        "time_xxh3_128": _digest(times),
        "frame_index_xxh3_128": _digest(frame_index),
    }


def _digest(values: NDArray[np.int64]) -> str:
    return str(xxhash.xxh3_128(values.astype("<i8").tobytes()).hexdigest())


def _holes(contents: StreamContents) -> list[list[int]]:
    """Return the ranges of indices, stop exclusive, that the producer of a live stream left out."""
    known = sorted({*contents.losses, *(receipt.index for receipt in contents.receipts)})
    return [[before + 1, index] for before, index in pairwise([-1, *known]) if index > before + 1]


def common_attributes(data_id: str, contents: StreamContents) -> dict[str, Any]:
    """Return what the group of a stream of any kind says of it."""
    settings, manifest, plan = contents.settings, contents.manifest, contents.plan
    return {
        "format": "rheed-ingest",
        "format_version": FORMAT_VERSION,
        "data_id": data_id,
        "name": settings.name,
        "sample": settings.physical_sample,
        "project": settings.project_id,
        "tags": list(settings.tags),
        "provenance": {
            "source": manifest.get("source"),
            "identity": None if plan is None else plan.identity(),
            "findings": [] if plan is None else [asdict(finding) for finding in plan.findings],
            "software": {name: version(name) for name in ("rheed-ingest", "numpy", "zarr", "zstandard")},
        },
        "losses": manifest.get("losses", {}),
        "manifest": manifest_name(data_id),
        "manifest_digest": manifest["digest"],
    }
