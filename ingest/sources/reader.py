"""What every reader of frames does alike: bounds, files, the array that frames go to, and wide pixels made 8 bit."""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SettingsError
from ingest.frames import FrameScale, to_uint8
from ingest.sources.base import SourceSpec
from ingest.sources.memory import result_array
from ingest.sources.urls import redacted

__all__ = ["FilesReader", "FramesReader", "StoredFrames"]


class FramesReader(ABC):
    """One open run; see `ingest.sources.base.Source`. A reader of a format gives `_read`.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it.
    **decided : object
        What else of it this reader cannot do without, by what it is called for people; None: it is missing.

    Attributes
    ----------
    block_bytes : int
        How much is read of wide frames before it is scaled: the default stays in a processor's cache on its way.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    """

    block_bytes: ClassVar[int] = 4 * 2**20

    def __init__(self, spec: SourceSpec, **decided: object) -> None:
        facts = {"scale": spec.scale, "frame counts": spec.file_frames or None, **decided}
        lacking = [name for name, value in facts.items() if value is None]
        if spec.scale is None or lacking:
            raise SettingsError(
                f"{redacted(spec.paths[0])}: {', '.join(lacking)} missing in the spec",
                hint="open the spec that inspect returns, so that all workers read alike",
            )
        self._paths = spec.paths
        self._scale: FrameScale = spec.scale
        self._starts = [0, *accumulate(spec.file_frames)]

    @property
    def frames(self) -> int:
        """Frames of the run."""
        return self._starts[-1]

    def read(self, start: int, stop: int, memory: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return frames `start` to `stop` (exclusive).

        Parameters
        ----------
        start, stop : int
            Frame numbers in the run, across its files.
        memory : ndarray of uint8, (byte,), optional
            Where to put them, if it is long enough: taking the same again spares faulting in every page anew.

        Returns
        -------
        ndarray of uint8, (frame, y, x)
            A new array, or a view of `memory`.

        Raises
        ------
        SettingsError
            The run has no such frames.
        FrameDataError
            Frames that no second read will mend, named by their numbers in the run; the class of the reader says more.
        SourceReadError
            The operating system could not read; trying again may help.
        SourceChangedError
            A file is not what it was when it was inspected.

        Notes
        -----
        Holds ``(stop - start) * height * width`` bytes; for frames wider than 8 bit also `block_bytes`, or one frame if
        that is more; and what the class of the reader says.
        """
        self._check_range(start, stop)
        return self._read(start, stop, memory)

    def read_encoded(self, start: int, stop: int) -> list[bytes | None] | None:  # noqa: ARG002  of the contract
        """Return None: this format does not hold frames as a shard does. See `Source.read_encoded`."""
        return None

    def _check_range(self, start: int, stop: int) -> None:
        if not 0 <= start < stop <= self.frames:
            raise SettingsError(
                f"frames {start} to {stop} were asked of a run of {self.frames}: {redacted(self._paths[0])}"
            )

    @abstractmethod
    def _read(self, start: int, stop: int, memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        """Return frames that the run has, in an array as of `memory.result_array`; else as `read`."""

    def close(self) -> None:
        """Let go of the file, if this reader has one of its own; safe to repeat."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _parts(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Go through the files that hold frames `start` to `stop`: number of the file, first and end of its part."""
        number = bisect_right(self._starts, start) - 1
        while start < stop:
            end = min(self._starts[number + 1], stop)
            if start < end:
                yield number, start, end
                start = end
            number += 1

    def _read_scaled(
        self,
        read_stored: Callable[[int, NDArray[Any]], None],
        start: int,
        out: NDArray[np.uint8],
        dtype: np.dtype[Any],
        *,
        together: int = 1,
        origin: int = 0,
    ) -> None:
        """Fill `out` with frames from `start` on: as they are stored, or block by block through the run's scale.

        Parameters
        ----------
        read_stored : callable
            Fills an array, (frame, y, x) of `dtype`, with frames from a number of the run on.
        start : int
            Number of the first in the run.
        out : ndarray of uint8, (frame, y, x)
            Where they go.
        dtype : numpy.dtype
            Of stored pixels.
        together, origin : int
            So many frames from `origin` on, and from each multiple on, are decompressed together: blocks end there.
        """
        if self._scale.full_scale is None and dtype == np.uint8:
            read_stored(start, out)
            return
        count = len(out)
        block = max(1, min(count, self.block_bytes // max(1, out[0].size * dtype.itemsize)))
        buffer = np.empty((block, *out.shape[1:]), dtype)
        done = 0
        while done < count:
            end = min(done + block, count)
            aligned = end - (start + end - origin) % together
            if done < aligned < count:
                end = aligned
            values = buffer[: end - done]
            read_stored(start + done, values)
            to_uint8(values, self._scale, out=out[done:end], first_frame=start + done)
            done = end


class StoredFrames(Protocol):
    """One open file of a run."""

    path: str

    def read(self, first: int, out: NDArray[Any], run_first: int) -> None:
        """Read the file's frames from `first` on into `out`, (frame, y, x); `run_first` is its frame 0 in the run."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


class FilesReader(FramesReader):
    """One open run that has one of its files open at a time. A reader of a format gives `_open` and `_dtype`.

    Parameters
    ----------
    spec : SourceSpec
        As `inspect` gave it, with the options `height_px` and `width_px`.
    **decided : object
        As of `FramesReader`.

    Raises
    ------
    SettingsError
        The spec was never inspected.
    """

    _dtype: np.dtype[Any]

    def __init__(self, spec: SourceSpec, **decided: object) -> None:
        super().__init__(spec, **decided)
        self._shape = (int(spec.option("height_px") or 0), int(spec.option("width_px") or 0))
        self._opened: StoredFrames | None = None

    def close(self) -> None:
        """Close the file; safe to repeat."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def stored(self, number: int) -> NDArray[Any]:
        """Return one frame as stored, not scaled: (y, x)."""
        values = np.empty((1, *self._shape), self._dtype)
        self._read_stored(number, values)
        return np.asarray(values[0])

    @abstractmethod
    def _open(self, number: int) -> StoredFrames:
        """Open a file of the run."""

    def _read(self, start: int, stop: int, memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
        out = result_array((stop - start, *self._shape), memory)
        self._read_scaled(self._read_stored, start, out, self._dtype)
        return out

    def _read_stored(self, start: int, out: NDArray[Any]) -> None:
        for number, begin, end in self._parts(start, start + len(out)):
            path, first = self._paths[number], self._starts[number]
            if self._opened is None or self._opened.path != path:
                self.close()
                self._opened = self._open(number)
            self._opened.read(begin - first, out[begin - start : end - start], first)
