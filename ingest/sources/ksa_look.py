"""kSA files looked at by their headers alone: geometry, how many frames there are, when each was taken."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceFormatError, TruncatedSourceError
from ingest.sources.fill_stamps import fill_stamps, how_filled
from ingest.sources.ksa_header import HEADER_BYTES, KsaHeader, geometry_of, stamps_in
from ingest.sources.ksa_walk import PIXEL_BYTES, PROBED_FRAMES, first_header, movie_header, walk_movie
from ingest.sources.lost import lost_frames
from ingest.sources.plain_file import MAX_FRAME_BYTES, PlainFile
from ingest.timing import Finding

__all__ = ["KsaLook", "look_at_images", "look_at_movie", "pixel_bytes_in"]

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
        Unix ns UTC as recorded, under 1 s where there is none; frames that cannot be read may have one.
    good : ndarray of bool, (frame,)
        Whether a frame's header is one, and of the run's geometry, and its pixels are there.
    findings : tuple of Finding
        Cut and lost frames.
    segments : tuple of (int, int)
        As of `MovieWalk`; of images none.
    begins_well : bool
        Whether the first header is one.
    """

    header: KsaHeader
    pixel_bytes: int
    stamps_ns: NDArray[np.int64]
    good: NDArray[np.bool_]
    findings: tuple[Finding, ...] = ()
    segments: tuple[tuple[int, int], ...] = ()
    begins_well: bool = True

    def times(self) -> tuple[NDArray[np.int64] | None, tuple[Finding, ...]]:
        """Return all frames' own stamps, or None if they are no times; and what is odd about them."""
        known = self.stamps_ns >= NS
        if not known.any():
            return None, (Finding("stamps", "the frame headers hold no times"),)
        stamps = self.stamps_ns[known]
        if len(self.stamps_ns) > 1 and int(stamps.min()) == int(stamps.max()):
            message = "every frame header holds the same time: taken as the start; pass --fps for the others' times"
            return None, (Finding("stamps", message),)
        lacking = int((~known).sum())
        if not lacking:
            return self.stamps_ns, ()
        message = f"{lacking} of {len(known)} frames have no time in their header: {how_filled(known)}"
        first = int(np.argmin(known))
        return fill_stamps(self.stamps_ns, known), (Finding("stamps", message, first),)

    def start_s(self) -> float | None:
        """Return the first time in any header, Unix seconds; None: there is none."""
        known = self.stamps_ns >= NS
        return int(self.stamps_ns[np.argmax(known)]) / NS if known.any() else None


def pixel_bytes_in(file: PlainFile, header: KsaHeader, header_at: int = 0) -> int:
    """Find out how many bytes a pixel takes: by where the next frames' headers are, else by the camera's bits.

    Parameters
    ----------
    file : PlainFile
        The file.
    header : KsaHeader
        Its first good one.
    header_at : int
        The byte where that begins.

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
    geometry = geometry_of(file.read(header_at, HEADER_BYTES))
    size_bytes = file.size_bytes - header_at
    best, best_score = 0, (0.0, False)
    for pixel_bytes in PIXEL_BYTES:
        stride = header.header_bytes + header.pixels * pixel_bytes
        probed = min(PROBED_FRAMES, (size_bytes - HEADER_BYTES) // stride)
        places = [header_at + k * stride for k in range(1, probed + 1)]
        hits = sum(geometry_of(file.read(at, HEADER_BYTES)) == geometry for at in places)
        score = (hits / probed if probed > 0 else float(stride == size_bytes), probed > 0)
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
        Frames up to the last with a header; see `walk_movie`. Holds 9 bytes per frame, and 2.6 MB while it reads.

    Raises
    ------
    TruncatedSourceError
        No whole frame.
    SourceError
        As `movie_header`; the file cannot be read.
    """
    with PlainFile(path) as file:
        header, header_at = movie_header(file)
        pixel_bytes = pixel_bytes_in(file, header, header_at)
        stride = header.header_bytes + header.pixels * pixel_bytes
        walk = walk_movie(file, header_at, stride)
        frames = len(walk.good)
        room, rest = divmod(file.size_bytes - walk.offset(frames, stride), stride)
    findings = list(walk.findings)
    if rest and not room:
        message = f"the last frame is cut: {rest} of its {stride} bytes are there; it is left out"
        findings.append(Finding("cut frame", message))
    if room:
        message = f"after frame {frames - 1} there is room for {room} more, but no headers: left out"
        message += f"; frame {frames - 1} itself may be cut"
        findings.append(Finding("cut frame", message))
    good = np.frombuffer(walk.good, np.uint8) != 0
    reasons = dict.fromkeys(np.flatnonzero(~good).tolist(), "its header is damaged")
    findings += lost_frames({**reasons, **walk.lost})
    return KsaLook(
        header, pixel_bytes, np.array(walk.stamps_ns), good, tuple(findings), tuple(walk.segments), header_at == 0
    )


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
