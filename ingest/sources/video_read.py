"""Frames out of a movie file, in the process that asks for them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SourceChangedError
from ingest.sources.base import SourceSpec
from ingest.sources.memory import result_array
from ingest.sources.reader import FramesReader
from ingest.sources.video_file import check_readable, read_errors
from ingest.sources.video_index import MovieIndex
from ingest.sources.video_pixels import GreyMaker
from ingest.sources.video_stock import KnownMovie, known_movie, lend_decoder

__all__ = ["VideoSource", "number_ranges", "open_source"]

BLOCK_BYTES = 2**20  # more than a packet


def open_source(spec: SourceSpec) -> VideoSource:
    """Open an inspected movie for reading in this process; see `VideoSource`."""
    return VideoSource(spec)


class VideoSource(FramesReader):
    """One movie, each frame of which is the same as if all were decoded from the beginning; see `FramesReader`.

    Decoders are borrowed from this process's small stock (`video_stock`) for the time of one read, and go on where they
    are: consecutive reads decode each frame once. Elsewhere decoding begins at the keyframe before, and for
    ``access="single"`` at the beginning. Safe in several threads, each of which gets a decoder of its own.
    `video_stock.release_movies` closes them.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it: with scale and options.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    FrameDataError
        By `read`: frames that do not decode, or that are changes to such frames; or frames of another size or pixel
        format than the first.
    SourceChangedError
        By `read`: the file does not have the packets that it had when it was inspected.

    Notes
    -----
    Reading also holds the frames of a decoder (up to 17 of H.264), and 80 bytes per packet of the movie for its index.
    """

    def __init__(self, spec: SourceSpec) -> None:
        said = dict(spec.options)
        super().__init__(spec, index=said.get("index"))
        self._path = spec.paths[0]
        self._cut = "uncut" not in said
        self._strict = "lenient" not in said
        self._seek = "from_start" not in said
        self._digest = str(said["index"])
        self._colour = str(said["colour"]) if "colour" in said else None
        self._pix_fmt = str(said["pix_fmt"])
        self._size = (int(said["height_px"]), int(said["width_px"]))
        self._full_range = said.get("colour_range") != "limited"
        self._expand = "expand_range" in said
        self._turns = int(said.get("quarter_turns", 0))

    def _read(self, start: int, stop: int, memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        movie = known_movie(self._path, cut=self._cut, strict=self._strict, seek=self._seek)
        self._check_unchanged(movie.index)
        height, width = self._size[::-1] if self._turns % 2 else self._size
        out = result_array((stop - start, height, width), memory)
        with read_errors(self._path), lend_decoder(movie, start) as decoder:
            lost: list[int] = []
            why = None
            maker = self._maker()
            expected = start
            for number, frame in decoder.frames(start, stop):
                lost += range(expected, number)
                expected = number + 1
                try:
                    maker.put(frame, out[number - start])
                except FrameDataError as error:
                    lost.append(number)
                    why = str(error)
            lost += range(expected, stop)
            if not lost:
                return out
            failure = self._lost(lost, why or decoder.trouble)
            if not movie.lost.issuperset(lost):
                # The decoder is dropped by raising in here: if the file could not be read, another may.
                movie.lost.update(lost)
                self._check_readable(movie, lost)
                raise failure
        raise failure

    def _maker(self) -> GreyMaker:
        return GreyMaker(
            self._pix_fmt,
            self._colour,
            self._scale,
            self._size,
            full_range=self._full_range,
            expand=self._expand,
            quarter_turns=self._turns,
        )

    def _check_unchanged(self, index: MovieIndex) -> None:
        if index.frames != self.frames or index.digest != self._digest:
            raise SourceChangedError(
                f"{self._path}: holds {index.frames} frames, or other packets than the {self.frames} frames that were "
                "there when inspected",
                hint="inspect it again; if it is still being recorded, wait until that has ended",
            )

    def _lost(self, lost: Sequence[int], why: str | None) -> FrameDataError:
        said = f" ({why})" if why else ""
        return FrameDataError(
            f"{self._path}: frames {number_ranges(lost)} of {self.frames} cannot be decoded{said}",
            hint="copy the file again from where it was recorded; up to the next keyframe, frames build on others",
        )

    def _check_readable(self, movie: KnownMovie, lost: Sequence[int]) -> None:
        """Raise `SourceReadError` if it was the operating system that could not read: FFmpeg takes that for the end."""
        numbers = movie.index.packet_of_frame[[lost[0], lost[-1]]]
        first, last = (int(movie.index.position[number]) for number in numbers)
        if first < 0 or last < first:
            return
        check_readable(self._path, first, last + BLOCK_BYTES)


def number_ranges(numbers: Sequence[int]) -> str:
    """Write ``1, 4 to 9`` for rising numbers."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    words = [str(a) if a == b else f"{a} to {b}" for a, b in parts[:8]]
    return ", ".join(words) + (f" and {len(parts) - 8} more ranges" if len(parts) > 8 else "")
