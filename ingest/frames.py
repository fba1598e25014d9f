"""Frames as arrays, and the one recorded scale that brings a run's wider frames to 8 bit."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SettingsError

__all__ = ["FrameScale", "as_frames", "full_scale_of", "to_uint8"]

U8_MAX = 255


@dataclass(frozen=True, slots=True)
class FrameScale:
    """How a run's pixel values become 8 bit: ``clip(value * 255 / full_scale, 0, 255)``, truncated.

    Attributes
    ----------
    dtype : str
        NumPy name of the stored pixel type, such as ``"uint16"``.
    full_scale : float or None
        The value that becomes 255; None: 8-bit frames, taken as they are.
    full_scale_from : str
        Who says so: ``"8 bit"``, ``"user"``, ``"file"`` or ``"sampled maximum"``.
    """

    dtype: str
    full_scale: float | None
    full_scale_from: str

    def __post_init__(self) -> None:
        if self.full_scale is not None and not (np.isfinite(self.full_scale) and self.full_scale > 0):
            raise SettingsError(f"full scale {self.full_scale!r} is not a positive number")


def full_scale_of(maximum: float, dtype: np.dtype[np.generic]) -> float:
    """Guess a detector's full scale from the largest value seen.

    Parameters
    ----------
    maximum : float
        The largest pixel value of a sample of frames.
    dtype : numpy.dtype
        The stored pixel type.

    Returns
    -------
    float
        The least ``2**n - 1`` (n >= 8) that holds `maximum`; exactly ``2**n`` if that is what was seen, since kSA's
        saturated 12-bit pixels read 4096 (FORMATS.md 1.1); 1.0 for floats that do not exceed 1.
    """
    if dtype.kind == "f" and maximum <= 1:
        return 1.0
    if maximum > 2.0**64:  # no detector's full scale, and a float's powers of two end somewhere
        return float(maximum)
    bits = 8
    while 2**bits < maximum:
        bits += 1
    return float(2**bits if maximum == 2**bits and bits > 8 else 2**bits - 1)


def as_frames(array: NDArray[np.generic]) -> NDArray[np.generic]:
    """View an array as frames.

    Parameters
    ----------
    array : ndarray, (y, x) or (frame, y, x)
        One frame or several.

    Returns
    -------
    ndarray, (frame, y, x)
        A view.

    Raises
    ------
    FrameDataError
        Another number of axes, or an axis of length zero.
    """
    frames = array[np.newaxis] if array.ndim == 2 else array
    if frames.ndim != 3:
        raise FrameDataError(
            f"frames of shape {array.shape} are neither (y, x) nor (frame, y, x)",
            hint="pass grey frames; take one channel, or the mean, of colour ones",
        )
    if 0 in frames.shape:
        raise FrameDataError(f"frames of shape {array.shape} hold no pixels")
    return frames


def to_uint8(
    frames: NDArray[np.generic],
    scale: FrameScale,
    *,
    out: NDArray[np.uint8] | None = None,
    first_frame: int = 0,
) -> NDArray[np.uint8]:
    """Bring frames to 8 bit by the run's one scale: clipped, never wrapped, never by frame.

    Parameters
    ----------
    frames : ndarray, (frame, y, x)
        Pixel values of type ``scale.dtype``.
    scale : FrameScale
        The run's recorded scale.
    out : ndarray of uint8, (frame, y, x), optional
        Where the result goes; default: a new array.
    first_frame : int
        Number of ``frames[0]`` in its run, for error messages.

    Returns
    -------
    ndarray of uint8, (frame, y, x)
        `out`; or `frames` itself if it is 8-bit already and no `out` is given; else a new array. Works frame by frame:
        beside the result it holds one frame of 8-byte numbers and, for integers of up to 16 bits, a table of 64 KiB.

    Raises
    ------
    FrameDataError
        NaN or infinite pixels: there is no grey value for them. Or frames of another type than uint8 with a scale
        that says 8 bit: they would wrap.
    """
    if scale.full_scale is None:
        return _as_they_are(frames, out)
    result = np.empty(frames.shape, np.uint8) if out is None else out
    if frames.dtype.kind in "bui" and frames.dtype.itemsize <= 2:
        unsigned = np.dtype(f"u{frames.dtype.itemsize}")
        table = _grey_table(frames.dtype.newbyteorder("="), scale.full_scale)
        for i, frame in enumerate(frames):
            native = np.ascontiguousarray(frame, frames.dtype.newbyteorder("=")).view(unsigned)
            # mode: the default "raise" would copy through a buffer; no index can be out of range.
            np.take(table, native, out=result[i], mode="clip")
        return result
    factor = U8_MAX / scale.full_scale
    for i, frame in enumerate(frames):
        with np.errstate(invalid="ignore", over="ignore"):  # the next line says it better than a warning
            values = np.multiply(frame, factor, dtype=np.float64)
        if frame.dtype.kind == "f" and not np.isfinite(values).all():
            raise FrameDataError(
                f"frame {first_frame + i} has NaN or infinite pixels, which have no grey value",
                hint="replace them in the source (0 is what most detectors write for dead pixels)",
            )
        result[i] = _clipped(values)
    return result


def _as_they_are(frames: NDArray[np.generic], out: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    if frames.dtype != np.uint8:
        raise FrameDataError(
            f"frames of type {frames.dtype} cannot be taken as 8 bit as they are: values would wrap",
            hint="give the full scale: the pixel value that becomes 255",
        )
    if out is None:
        return frames.view(np.uint8)
    out[...] = frames
    return out


def _clipped(values: NDArray[np.float64]) -> NDArray[np.float64]:
    # 1e-9: so that values that scale to a whole number are not truncated below it by rounding.
    return np.clip(np.floor(values + 1e-9, out=values), 0, U8_MAX, out=values)


@lru_cache(maxsize=4)
def _grey_table(dtype: np.dtype[np.generic], full_scale: float) -> NDArray[np.uint8]:
    """Return the grey value of every bit pattern of `dtype` (up to 16 bits), by the pattern read as unsigned."""
    if dtype.kind == "b":
        patterns: NDArray[np.generic] = np.arange(2, dtype=np.uint8)
    else:
        unsigned = np.dtype(f"u{dtype.itemsize}")
        patterns = np.arange(2 ** (8 * dtype.itemsize), dtype=unsigned).view(dtype)
    table = _clipped(patterns.astype(np.float64) * (U8_MAX / full_scale)).astype(np.uint8)
    table.flags.writeable = False  # every caller has the same one
    return table
