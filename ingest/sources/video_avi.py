"""AVI: which of the packets that its index lists came out of a damaged file, and whether any may be missing."""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.sources.plain_file import os_errors
from ingest.sources.video_file import Movie

__all__ = ["ListedPackets", "first_break", "listed_packets", "match_packets"]

CHUNK_HEAD = 8  # four characters and a length (OpenDML AVI 1.02, 2.0); what is of odd length is padded by a byte
LIST_HEAD = 12
PRINTABLE = range(0x20, 0x7F)


@dataclass(frozen=True)
class ListedPackets:
    """The packets of an AVI's video stream that are not empty, as its index (``idx1`` or ``ix##``) lists them.

    Attributes
    ----------
    position, size : ndarray of int64, (packet,)
        First byte after the chunk's head, rising; bytes.
    tick : ndarray of int64, (packet,)
        When it is decoded, in units of the stream's time base: its number, with the empty ones.
    key : ndarray of bool, (packet,)
        Whether it is said to be a keyframe.
    """

    position: NDArray[np.int64]
    size: NDArray[np.int64]
    tick: NDArray[np.int64]
    key: NDArray[np.bool_]


def listed_packets(movie: Movie) -> ListedPackets | None:
    """Return what an AVI's index lists; None: no AVI, or no index, or one that leaves out some.

    Parameters
    ----------
    movie : Movie
        Just opened: FFmpeg adds what it reads to an index that is not there.

    Notes
    -----
    Holds 25 bytes per packet, and FFmpeg's own 24.
    """
    if movie.container.format.name != "avi":
        return None
    with os_errors(movie.path):
        file_bytes = os.stat(movie.path).st_size
    found = np.array(
        [(e.pos + CHUNK_HEAD, e.size, e.timestamp, e.is_keyframe) for e in movie.stream.index_entries], np.int64
    ).reshape(-1, 4)
    found = found[(found[:, 1] > 0) & (found[:, 0] + found[:, 1] <= file_bytes)]
    position, size, tick, key = (found[:, i].copy() for i in range(4))
    if not len(found) or (np.diff(position) <= 0).any() or (np.diff(tick) <= 0).any():
        return None
    as_promised = len(tick) == int(tick[-1]) + 1 == movie.stream.frames
    if not as_promised and first_break(movie, position, size) is not None:
        return None
    return ListedPackets(position, size, tick, key.astype(bool))


def match_packets(
    listed: ListedPackets, position: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.int64] | None:
    """Find packets that came out of a file in its index.

    Parameters
    ----------
    listed : ListedPackets
        What should be there.
    position, size : ndarray of int64, (packet,)
        What is.

    Returns
    -------
    ndarray of int64, (packet,), or None
        Number of each in the index, or -1: found by looking for something that may be a packet, after damage, or of
        another length than listed. None: the index is not of these packets, or not of all.
    """
    if not len(position) or position.max() > listed.position[-1]:
        return None
    at = np.minimum(listed.position.searchsorted(position), len(listed.position) - 1)
    same = (listed.position[at] == position) & (listed.size[at] == size)
    matched = int(same.sum())
    if 2 * matched <= len(position):
        return None
    return np.where(same, at, -1)


def first_break(movie: Movie, position: NDArray[np.int64], size: NDArray[np.int64]) -> int | None:
    """Return the byte after which the first packets may be missing among some of an AVI.

    Parameters
    ----------
    movie : Movie
        The file.
    position, size : ndarray of int64, (packet,)
        Some of its packets, in this order.

    Returns
    -------
    int or None
        Where chunks do not lead from one packet to the next without another one between; None: they do, all through.
    """
    ends = position + size + (size & 1)
    nexts = position[1:] - CHUNK_HEAD
    apart = np.flatnonzero(ends[:-1] != nexts)
    if not len(apart):
        return None
    frames_as = tuple(f"{movie.stream.index:02d}{kind}".encode() for kind in ("dc", "db"))
    with os_errors(movie.path), open(movie.path, "rb", buffering=0) as file:
        for i in apart:
            if not _leads_to(file.fileno(), int(ends[i]), int(nexts[i]), frames_as):
                return int(ends[i])
    return None


def _leads_to(fd: int, begin: int, end: int, frames_as: tuple[bytes, ...]) -> bool:
    """Whether chunks follow each other from one byte to another, none of which is a frame."""
    at = begin
    while at < end:
        head = os.pread(fd, CHUNK_HEAD, at)
        if len(head) < CHUNK_HEAD or any(byte not in PRINTABLE for byte in head[:4]):
            return False
        if head[:4] in (b"LIST", b"RIFF"):
            at += LIST_HEAD  # what it holds may be the next packet
        else:
            length = struct.unpack("<I", head[4:])[0]
            if length and head[:4] in frames_as:
                return False
            at += CHUNK_HEAD + length + (length & 1)
    return at == end
