"""Frames as arrays, and the one recorded scale that brings a run's wider frames to 8 bit."""

from __future__ import annotations

from dataclasses import dataclass

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


def to_uint8(frames: NDArray[np.generic], scale: FrameScale) -> NDArray[np.uint8]:
    """Bring frames to 8 bit by the run's one scale: clipped, never wrapped, never by frame.

    Parameters
    ----------
    frames : ndarray, (frame, y, x)
        Pixel values of type ``scale.dtype``.
    scale : FrameScale
        The run's recorded scale.

    Returns
    -------
    ndarray of uint8, (frame, y, x)
        `frames` itself if it is 8-bit already; else a new array. Works frame by frame: beside the result it holds one
        frame of float64.

    Raises
    ------
    FrameDataError
        NaN or infinite pixels: there is no grey value for them.
    """
    if scale.full_scale is None:
        return frames.astype(np.uint8, copy=False)
    out = np.empty(frames.shape, np.uint8)
    factor = U8_MAX / scale.full_scale
    for i, frame in enumerate(frames):
        values = np.multiply(frame, factor, dtype=np.float64)
        if frame.dtype.kind == "f" and not np.isfinite(values).all():
            raise FrameDataError(
                f"frame {i} of the slice has NaN or infinite pixels, which have no grey value",
                hint="replace them in the source (0 is what most detectors write for dead pixels)",
            )
        # 1e-9: so that values that scale to a whole number are not truncated below it by rounding.
        np.clip(np.floor(values + 1e-9), 0, U8_MAX, out=values)
        out[i] = values
    return out
