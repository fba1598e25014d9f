"""Frames out of a movie file, in the process that asks for them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SettingsError, SourceChangedError
from ingest.frames import FrameScale
from ingest.sources.base import SourceSpec
from ingest.sources.video_file import check_readable, read_errors
from ingest.sources.video_index import MovieIndex
from ingest.sources.video_pixels import GreyMaker
from ingest.sources.video_stock import KnownMovie, known_movie, lend_decoder

__all__ = ["VideoSource", "open_source"]

BLOCK_BYTES = 2**20  # more than a packet


def open_source(spec: SourceSpec) -> VideoSource:
    """Open an inspected movie for reading in this process; the file is opened when frames are asked of it.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it: with scale and options.

    Returns
    -------
    VideoSource
        Keeps no file of its own open.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    """
    return VideoSource(spec)


class VideoSource:
    """One movie; see `ingest.sources.base.Source`.

    Decoders are borrowed from this process's small stock (`video_stock`) for the time of one read, and go on where they
    are: consecutive reads decode each frame once. Safe in several threads, each of which gets a decoder of its own.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it.
    """

    def __init__(self, spec: SourceSpec) -> None:
        said = dict(spec.options)
        if spec.scale is None or not spec.file_frames or "index" not in said:
            raise SettingsError(
                f"{spec.paths[0]}: scale, frame count or options are missing in the spec",
                hint="open the spec that inspect returns, so that all workers read alike",
            )
        self._path = spec.paths[0]
        self._frames = sum(spec.file_frames)
        self._cut = "uncut" not in said
        self._strict = "lenient" not in said
        self._digest = str(said["index"])
        self._colour = str(said["colour"]) if "colour" in said else None
        self._pix_fmt = str(said["pix_fmt"])
        self._scale: FrameScale = spec.scale
        self._size = (int(said["height_px"]), int(said["width_px"]))
        self._full_range = said.get("colour_range") != "limited"
        self._expand = "expand_range" in said
        self._turns = int(said.get("quarter_turns", 0))

    @property
    def frames(self) -> int:
        """Frames of the run."""
        return self._frames

    def read(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return frames `start` to `stop` (exclusive), the same as if all were decoded from the beginning.

        Parameters
        ----------
        start, stop : int
            Frame numbers.
        memory : ndarray of uint8, (byte,), optional
            Where to put them, if it is long enough.

        Returns
        -------
        ndarray of uint8, (frame, y, x)
            A new array, or a view of `memory`.

        Raises
        ------
        SettingsError
            The run has no such frames.
        FrameDataError
            Frames that do not decode, or that are changes to such frames; named by their numbers. Or frames of another
            size or pixel format than the first.
        SourceReadError
            The operating system could not read; trying again may help.
        SourceChangedError
            The file does not have the packets that it had when it was inspected.

        Notes
        -----
        Holds ``(stop - start) * height * width`` bytes, the frames of a decoder (up to 17 of H.264), and 70 bytes per
        packet of the movie for its index. Reading on from where an earlier read ended decodes nothing twice; elsewhere
        decoding begins at the keyframe before `start`, and for ``access="single"`` at the beginning.
        """
        if not 0 <= start < stop <= self._frames:
            raise SettingsError(f"frames {start} to {stop} were asked of a run of {self._frames}: {self._path}")
        movie = known_movie(self._path, cut=self._cut, strict=self._strict)
        self._check_unchanged(movie.index)
        height, width = self._size[::-1] if self._turns % 2 else self._size
        out = _array((stop - start, height, width), memory)
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

    def close(self) -> None:
        """Do nothing: decoders belong to the process's stock, which `video_stock.release_movies` empties."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

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
        if index.frames != self._frames or index.digest != self._digest:
            raise SourceChangedError(
                f"{self._path}: holds {index.frames} frames, or other packets than the {self._frames} frames that were "
                "there when inspected",
                hint="inspect it again; if it is still being recorded, wait until that has ended",
            )

    def _lost(self, lost: Sequence[int], why: str | None) -> FrameDataError:
        said = f" ({why})" if why else ""
        return FrameDataError(
            f"{self._path}: frames {_ranges(lost)} of {self._frames} cannot be decoded{said}",
            hint="copy the file again from where it was recorded; up to the next keyframe, frames build on others",
        )

    def _check_readable(self, movie: KnownMovie, lost: Sequence[int]) -> None:
        """Raise `SourceReadError` if it was the operating system that could not read: FFmpeg takes that for the end."""
        numbers = movie.index.packet_of_frame[[lost[0], lost[-1]]]
        first, last = (int(movie.index.position[number]) for number in numbers)
        if first < 0 or last < first:
            return
        check_readable(self._path, first, last + BLOCK_BYTES)


def _ranges(numbers: Sequence[int]) -> str:
    """Write ``1, 4 to 9`` for rising numbers."""
    parts: list[list[int]] = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    words = [str(a) if a == b else f"{a} to {b}" for a, b in parts[:8]]
    return ", ".join(words) + (f" and {len(parts) - 8} more ranges" if len(parts) > 8 else "")


def _array(shape: tuple[int, ...], memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    n_bytes = math.prod(shape)
    if memory is None or len(memory) < n_bytes:
        return np.empty(shape, np.uint8)
    return memory[:n_bytes].reshape(shape)
