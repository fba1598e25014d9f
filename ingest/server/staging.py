"""What staged chunks are called, and what makes one a shard. Pure."""

from __future__ import annotations

import secrets

from ingest.errors import FrameDataError
from ingest.shard import CRC_BYTES, INDEX_ENTRY_BYTES, read_index

__all__ = ["STAGING", "check_shard", "new_file_name", "staged_name", "staging_prefix", "tail_bytes"]

STAGING = ".staging"


def check_shard(tail: bytes, n_bytes: int, frames: int) -> None:
    """Check a shard by its last bytes.

    Parameters
    ----------
    tail : bytes
        All of it, or at least its index: `tail_bytes`.
    n_bytes : int
        Size of all of it.
    frames : int
        How many it must have.

    Raises
    ------
    FrameDataError
        Its index is torn, of another length, or points outside its data.
    """
    data_bytes = n_bytes - tail_bytes(frames)
    for i, entry in enumerate(read_index(tail, frames)):
        if entry is not None and (entry[1] == 0 or sum(entry) > data_bytes):
            raise FrameDataError(f"frame {i} at {entry[0]} + {entry[1]} bytes; the data has {data_bytes}")


def tail_bytes(frames: int) -> int:
    """Return the length of the index of a shard."""
    return frames * INDEX_ENTRY_BYTES + CRC_BYTES


def staging_prefix(data_id: str) -> str:
    """Return the name of the folder of a stream's staged chunks, below that of all data."""
    return f"{STAGING}/{data_id}"


def staged_name(data_id: str, file: str) -> str:
    """Return the name of a staged chunk, below the folder of all data."""
    return f"{STAGING}/{data_id}/{file}"


def new_file_name(index: int) -> str:
    """Return a name for an upload of a chunk that no other upload has, and nobody guesses."""
    return f"{index}.{secrets.token_hex(16)}"
