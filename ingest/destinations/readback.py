"""What the embedded platform holds, read back frame by frame: the other half of every proof."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.shard import unpack
from ingest.wire.client import PlatformClient

__all__ = ["StoredChunk", "read_back"]


@dataclass(frozen=True)
class StoredChunk:
    """A chunk as the platform holds it.

    Attributes
    ----------
    index : int
        Its place in the stream.
    frames : ndarray of uint8, (frame, y, x)
        Decoded.
    timestamps_ms : ndarray of float64, (frame,)
        Unix ms UTC, as the wire implies them: ``start + i / fps``.
    puts : int
        How often it was stored.
    lost_frames : tuple of int
        Frames, counted from the chunk's first, that the source could not give; they are 0 all over in `frames`.
    """

    index: int
    frames: NDArray[np.uint8]
    timestamps_ms: NDArray[np.float64]
    puts: int
    lost_frames: tuple[int, ...] = ()


async def read_back(client: PlatformClient, data_id: str) -> AsyncIterator[StoredChunk]:
    """Yield a stream's chunks in order of index. Holds one chunk at a time, encoded and decoded.

    Raises
    ------
    RefusedError
        There is no such stream.
    FrameDataError
        A chunk does not decode.
    """
    stream = await client.stream(data_id)
    for chunk in sorted(stream["chunk_list"], key=lambda chunk: int(chunk["index"])):
        n, height, width = (int(side) for side in chunk["dims"])
        shard = await client.get_chunk(data_id, int(chunk["index"]))
        times = float(chunk["start_unix_ms_utc"]) + np.arange(n, dtype=np.float64) * (1000 / float(chunk["fps"]))
        frames = unpack(shard, (n, height, width))
        yield StoredChunk(int(chunk["index"]), frames, times, int(chunk["puts"]), tuple(chunk.get("lost_frames", ())))
