"""kSA files looked at by their headers alone: geometry, how many frames there are, when each was taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceFormatError, TruncatedSourceError
from ingest.sources.fill_stamps import fill_stamps
from ingest.sources.ksa_header import (
    HEADER_BYTES,
    KsaHeader,
    decode_header,
    geometry_of,
    is_ksa,
    looks_like,
    stamps_in,
)
from ingest.sources.lost import lost_frames
from ingest.sources.plain_file import MAX_FRAME_BYTES, PlainFile
from ingest.timing import Finding

__all__ = ["KsaLook", "first_header", "look_at_images", "look_at_movie", "pixel_bytes_in"]

PIXEL_BYTES = (2, 4, 12, 1)
PROBED_FRAMES = 64
HEADERS_AT_ONCE = 4096
NS = 1_000_000_000


@dataclass(frozen=True)
class KsaLook:
    """What a run's files were found to be.

    Attributes
    ----------
    header : KsaHeader
        The first good frame's.
    pixel_bytes : int
        2, 4, 1, or 12 of colour.
    stamps_ns : ndarray of int64, (frame,)
        Unix ns UTC as recorded, under 1 s where there is none.
    good : ndarray of bool, (frame,)
        Whether a frame's header is one, and of the run's geometry.
    findings : tuple of Finding
        Cut and lost frames.
    """

    header: KsaHeader
    pixel_bytes: int
    stamps_ns: NDArray[np.int64]
    good: NDArray[np.bool_]
    findings: tuple[Finding, ...] = ()

    def times(self) -> tuple[NDArray[np.int64] | None, tuple[Finding, ...]]:
        """Return all frames' own stamps, or None if they are no times; and what is odd about them."""
        known = self.good & (self.stamps_ns >= NS)
        if not known.any():
            return None, (Finding("stamps", "the frame headers hold no times"),)
        stamps = self.stamps_ns[known]
        if len(self.stamps_ns) > 1 and int(stamps.min()) == int(stamps.max()):
            message = "every frame header holds the same time: taken as the start; pass --fps for the others' times"
            return None, (Finding("stamps", message),)
        lacking = int((~known).sum())
        if not lacking:
            return self.stamps_ns, ()
        message = f"{lacking} of {len(known)} frames have no time in their header: put between their neighbours"
        first = int(np.argmin(known))
        return fill_stamps(self.stamps_ns, known), (Finding("stamps", message, first),)

    def start_s(self) -> float | None:
        """Return the first time in any header, Unix seconds; None: there is none."""
        known = self.good & (self.stamps_ns >= NS)
        return int(self.stamps_ns[np.argmax(known)]) / NS if known.any() else None


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
            f"{file.path}: {looks_like(head)}", hint="name files of kSA 400 (.imm, .img), or leave this one out"
        )
    header = decode_header(head)
    if not 0 < header.pixels <= MAX_FRAME_BYTES:
        raise SourceFormatError(
            f"{file.path}: its header says frames of {header.width_px} x {header.height_px} px: none, or over 512 MB",
            hint="copy the file again from where it was recorded",
        )
    return header


def pixel_bytes_in(file: PlainFile, header: KsaHeader) -> int:
    """Find out how many bytes a pixel takes: by where the next frames' headers are, else by the camera's bits.

    Parameters
    ----------
    file : PlainFile
        The file.
    header : KsaHeader
        Its first.

    Returns
    -------
    int
        2, 4, 12 or 1.

    Raises
    ------
    TruncatedSourceError
        There is not even one frame in the file.
    SourceFormatError
        A frame takes over 512 MB.
    """
    geometry = geometry_of(file.read(0, HEADER_BYTES))
    best, best_score = 0, (0.0, False)
    for pixel_bytes in PIXEL_BYTES:
        stride = header.header_bytes + header.pixels * pixel_bytes
        probed = min(PROBED_FRAMES, (file.size_bytes - HEADER_BYTES) // stride)
        hits = sum(geometry_of(file.read(k * stride, HEADER_BYTES)) == geometry for k in range(1, probed + 1))
        score = (hits / probed if probed > 0 else float(stride == file.size_bytes), probed > 0)
        if score[0] > 0 and score > best_score:
            best, best_score = pixel_bytes, score
    if not best:
        best = 1 if header.bits <= 8 else 2 if header.bits <= 16 else 4
    needed = header.header_bytes + header.pixels * best
    if file.size_bytes < needed:
        raise TruncatedSourceError(
            f"{file.path}: the file has {file.size_bytes} bytes; one frame of {header.width_px} x {header.height_px} "
            f"px takes {needed}",
            hint="copy it again from where it was recorded",
        )
    if header.pixels * best > MAX_FRAME_BYTES:
        raise SourceFormatError(f"{file.path}: frames of {header.pixels * best / 1e6:.0f} MB; at most 512 MB can be")
    return best


def look_at_movie(path: str) -> KsaLook:
    """Look at all headers of one file: 640 bytes a frame.

    Parameters
    ----------
    path : str
        A movie, or a single image.

    Returns
    -------
    KsaLook
        Frames up to the last with a header. Holds 9 bytes per frame, and 2.6 MB while it reads.

    Raises
    ------
    TruncatedSourceError
        No whole frame, or less than half of what the size of the file would hold.
    SourceError
        As `first_header`; the file cannot be read.
    """
    with PlainFile(path) as file:
        header = first_header(file)
        pixel_bytes = pixel_bytes_in(file, header)
        stride = header.header_bytes + header.pixels * pixel_bytes
        frames, rest = divmod(file.size_bytes, stride)
        stamps_ns, good = _read_headers(file, frames, stride)
    last = int(frames - np.argmax(good[::-1]))
    findings: list[Finding] = []
    if rest:
        message = f"the last frame is cut: {rest} of its {stride} bytes are there; it is left out"
        findings.append(Finding("cut frame", message))
    if last < frames:
        if last * 2 < frames:
            raise TruncatedSourceError(
                f"{path}: only the first {last} of {frames} frames have a kSA header; what follows is something else",
                hint="copy it again; if it is the original, its writer was stopped",
            )
        message = f"after frame {last - 1} there is room for {frames - last} more, but no headers: left out"
        findings.append(Finding("cut frame", message))
    findings += _lost(good[:last], "its header is damaged")
    return KsaLook(header, pixel_bytes, stamps_ns[:last], good[:last], tuple(findings))


def _read_headers(file: PlainFile, frames: int, stride: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    file.advise_random()
    geometry = geometry_of(file.read(0, HEADER_BYTES))
    stamps_ns = np.zeros(frames, np.int64)
    good = np.zeros(frames, bool)
    headers = np.zeros((min(frames, HEADERS_AT_ONCE), HEADER_BYTES), np.uint8)
    for first in range(0, frames, HEADERS_AT_ONCE):
        count = min(HEADERS_AT_ONCE, frames - first)
        for i in range(count):
            file.read_into([headers[i]], (first + i) * stride)
        stamps_ns[first : first + count] = stamps_in(headers[:count])
        good[first : first + count] = [geometry_of(row.tobytes()) == geometry for row in headers[:count]]
    return stamps_ns, good


def _lost(good: NDArray[np.bool_], why: str) -> list[Finding]:
    return lost_frames(dict.fromkeys(np.flatnonzero(~good).tolist(), why))


def look_at_images(paths: tuple[str, ...]) -> KsaLook:
    """Look at single images that are one run: one header each.

    Parameters
    ----------
    paths : tuple of str
        In order of capture.

    Returns
    -------
    KsaLook
        One frame a file; a damaged or cut file is a lost frame.

    Raises
    ------
    SourceError
        None of them is a whole kSA image: the first one's reason.
    """
    first: KsaHeader | None = None
    pixel_bytes = 0
    stamps_ns = np.zeros(len(paths), np.int64)
    good = np.zeros(len(paths), bool)
    problem: SourceFormatError | None = None
    for i, path in enumerate(paths):
        with PlainFile(path) as file:
            try:
                header = first_header(file)
                if first is None:
                    pixel_bytes, first = pixel_bytes_in(file, header), header
            except SourceFormatError as error:
                problem = problem or error
                continue
            same = (header.width_px, header.height_px) == (first.width_px, first.height_px)
            good[i] = same and file.size_bytes >= header.header_bytes + header.pixels * pixel_bytes
            head = np.frombuffer(file.read(0, HEADER_BYTES), np.uint8)
            stamps_ns[i] = stamps_in(head[np.newaxis])[0]
    if first is None:
        raise problem or SourceFormatError("a run without files")
    return KsaLook(first, pixel_bytes, stamps_ns, good, tuple(_lost(good, "the file is cut, or of another size")))
