"""Which frames a kSA movie holds: header after header, and found again after a damaged or missing piece."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceFormatError
from ingest.sources.ksa_header import (
    HEADER_BYTES,
    KsaHeader,
    decode_header,
    geometry_of,
    is_ksa,
    looks_like,
    stamps_in,
)
from ingest.sources.plain_file import MAX_FRAME_BYTES, PlainFile
from ingest.timing import Finding

__all__ = ["PIXEL_BYTES", "PROBED_FRAMES", "MovieWalk", "first_header", "movie_header", "walk_movie"]

PIXEL_BYTES = (2, 4, 12, 1)
PROBED_FRAMES = 64
HEADERS_AT_ONCE = 4096
"""Also how many in a row may be none before the movie is taken to end."""

BAD_RUN = 8  # so many headers in a row that are none: are the frames elsewhere?
MAX_BREAKS = 64
NOWHERE = -1
SCAN_BYTES = 64 * 2**20
SCAN_BLOCK = 4 * 2**20
MAX_HITS = 1000
MAGIC, MAGIC_AT = b"KSA", 39


def first_header(file: PlainFile) -> KsaHeader:
    """Return the header at the beginning of a file.

    Raises
    ------
    SourceFormatError
        Not a kSA file, or a frame size that cannot be.
    """
    head = file.read(0, HEADER_BYTES)
    if not is_ksa(head):
        raise SourceFormatError(
            f"{file.path}: {looks_like(head)}",
            hint="leave this one out, or copy it again from where it was recorded; files of kSA 400 are .imm and .img",
        )
    header = decode_header(head)
    if not _can_be(header):
        raise SourceFormatError(
            f"{file.path}: its header says frames of {header.width_px} x {header.height_px} px: none, or over 512 MB",
            hint="copy the file again from where it was recorded",
        )
    return header


def _can_be(header: KsaHeader) -> bool:
    return 0 < header.pixels <= MAX_FRAME_BYTES


def movie_header(file: PlainFile) -> tuple[KsaHeader, int]:
    """Return a movie's header, and the byte where it stands: the first one that others confirm.

    Parameters
    ----------
    file : PlainFile
        The movie. Reads up to 64 MiB of it where the first header is damaged.

    Raises
    ------
    SourceFormatError
        As `first_header`, and no later header was found either.
    """
    try:
        header = first_header(file)
    except SourceFormatError:
        found = _later_header(file, anywhere=True)
        if found is None:
            raise
        return found
    if _is_followed(file, header, 0, PROBED_FRAMES):
        return header, 0
    return _later_header(file, anywhere=False) or (header, 0)


def _is_followed(file: PlainFile, header: KsaHeader, at: int, frames: int) -> bool:
    """Whether one of the next frames has a header like that at a byte, for any number of bytes a pixel."""
    geometry = geometry_of(file.read(at, HEADER_BYTES))
    return any(
        geometry_of(file.read(at + k * (header.header_bytes + header.pixels * pixel_bytes), HEADER_BYTES)) == geometry
        for pixel_bytes in PIXEL_BYTES
        for k in range(1, frames + 1)
    )


def _later_header(file: PlainFile, *, anywhere: bool) -> tuple[KsaHeader, int] | None:
    """Return the first header with another one a frame after it; unless `anywhere`, whole frames from the beginning."""
    for tried, at in enumerate(_magics(file, 1, min(file.size_bytes, SCAN_BYTES))):
        head = file.read(at, HEADER_BYTES)
        if tried > MAX_HITS or len(head) < HEADER_BYTES:
            return None
        header = decode_header(head)
        if not _can_be(header):
            continue
        strides = [header.header_bytes + header.pixels * pixel_bytes for pixel_bytes in PIXEL_BYTES]
        if (anywhere or any(at % stride == 0 for stride in strides)) and _is_followed(file, header, at, 1):
            return header, at
    return None


def _magics(file: PlainFile, begin: int, end: int) -> Iterator[int]:
    """Go through the places from `begin` up to `end` where by its magic a header may begin."""
    at = begin
    while at < end:
        data = file.read(at, SCAN_BLOCK + MAGIC_AT + len(MAGIC) - 1)
        found = data.find(MAGIC, MAGIC_AT)
        while found >= 0:
            yield at + found - MAGIC_AT
            found = data.find(MAGIC, found + 1)
        at += SCAN_BLOCK


@dataclass
class MovieWalk:
    """The frames of a movie: 9 bytes each.

    Attributes
    ----------
    stamps_ns : array of int64
        Of each frame; 0 where its header is none.
    good : bytearray
        1: the frame can be read.
    segments : list of (int, int)
        Number and byte of the first frame of each stretch in which frames follow each other without a break; -1 where
        a break has made them unreadable.
    lost : dict
        Why frames cannot be read, other than by their headers.
    findings : list of Finding
        Where the frames are not where they should be.
    """

    stamps_ns: array[int]
    good: bytearray
    segments: list[tuple[int, int]]
    lost: dict[int, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def offset(self, number: int, stride: int) -> int:
        """Return the byte where a frame of the last stretch stands."""
        first, at = self.segments[-1]
        return at + (number - first) * stride

    def cut_to(self, frames: int) -> None:
        """Leave out the frames from this number on; where there are fewer, the rest is lost."""
        del self.good[frames:], self.stamps_ns[frames:]
        lacking = frames - len(self.good)
        self.good.extend(bytes(lacking))
        self.stamps_ns.frombytes(bytes(8 * lacking))


def walk_movie(file: PlainFile, header_at: int, stride: int) -> MovieWalk:
    """Go through the headers of a movie.

    Parameters
    ----------
    file : PlainFile
        The movie.
    header_at : int
        Byte of its first good header.
    stride : int
        Bytes from a frame to the next.

    Returns
    -------
    MovieWalk
        Frames up to the last with a header. Where 8 headers in a row are none, the next one is searched for by its
        magic, at most 64 MiB or 4 frames on; after 64 such breaks, or 4096 headers that are none, the movie ends. So
        what is read is bounded, whatever the size of the file.
    """
    file.advise_random()
    geometry = geometry_of(file.read(header_at, HEADER_BYTES))
    first_good = -(-header_at // stride)
    aligned = header_at % stride == 0
    walk = MovieWalk(array("q"), bytearray(), [(0, 0)] if aligned else [(0, NOWHERE), (first_good, header_at)])
    walk.cut_to(first_good)
    while True:
        first = len(walk.good)
        offset = walk.offset(first, stride)
        room = (file.size_bytes - offset) // stride
        count = min(HEADERS_AT_ONCE, room)
        if count <= 0:
            break
        stamps_ns, good = _read_headers(file, offset, count, stride, geometry)
        walk.stamps_ns.frombytes(stamps_ns.tobytes())
        walk.good.extend(good.astype(np.uint8).tobytes())
        bad = _bad_run(good, is_last=count == room)
        if bad is None or _found_again(file, walk, first + bad, stride, geometry):
            continue
        if not good[bad:].any():
            break
    walk.cut_to(walk.good.rfind(1) + 1)
    return walk


def _read_headers(
    file: PlainFile, offset: int, count: int, stride: int, geometry: bytes
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    headers = np.zeros((count, HEADER_BYTES), np.uint8)
    for i in range(count):
        file.read_into([headers[i]], offset + i * stride)
    good = np.array([geometry_of(row.tobytes()) == geometry for row in headers])
    return np.where(good, stamps_in(headers), 0), good


def _bad_run(good: NDArray[np.bool_], *, is_last: bool) -> int | None:
    """Return where 8 headers in a row are none, or all to the end of the movie; None: nowhere."""
    there = np.flatnonzero(good)
    edges = np.concatenate([[-1], there, [len(good)]])
    long = np.flatnonzero(np.diff(edges) > BAD_RUN)
    if len(long):
        return int(edges[long[0]]) + 1
    return int(edges[-2]) + 1 if not good[-1] and is_last else None


def _found_again(file: PlainFile, walk: MovieWalk, bad: int, stride: int, geometry: bytes) -> bool:
    """Search for the header after the last good frame before `bad`, and go on from there."""
    last = walk.good.rfind(1, 0, bad)
    if last < walk.segments[-1][0] or len(walk.segments) > 2 * MAX_BREAKS:
        return False
    begin = walk.offset(last, stride)
    end = begin + stride
    until = min(file.size_bytes - HEADER_BYTES, begin + max(SCAN_BYTES, 4 * stride))
    at = next((at for at in _magics(file, begin + HEADER_BYTES, until) if _is_header(file, at, geometry)), None)
    if at is None or file.size_bytes - at < stride:
        return False
    number = last + 1 + max(0, -(-(at - end) // stride))
    walk.cut_to(last + 1)
    walk.cut_to(number)
    if at == walk.offset(number, stride):
        return True
    # Where in the file the break is, nothing tells: the last frame before it may go on with pixels of another one.
    walk.good[last] = 0
    walk.lost[last] = "a piece of the file is missing or too much in it, or after it"
    walk.segments += [(last, NOWHERE), (number, at)]
    message = (
        f"after frame {last} a piece of the file is missing or too much: the next header was found at byte {at} "
        f"instead of {end}, and is counted as frame {number}; how many frames are missing, only their times can tell"
    )
    walk.findings.append(Finding("cut frames", message, last))
    return True


def _is_header(file: PlainFile, at: int, geometry: bytes) -> bool:
    head = file.read(at, HEADER_BYTES)
    return len(head) == HEADER_BYTES and geometry_of(head) == geometry
