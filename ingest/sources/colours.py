"""Colour pixels brought to one grey value each, as the user says. Pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SettingsError

__all__ = ["COLOUR_HINT", "grey"]

COLOUR_HINT = "pass --colour luma, mean, red, green or blue: what is to be taken of each pixel"
# ITU-R BT.601, in thousandths; they add up to 1000, so that grey pixels keep their value.
LUMA = (299, 587, 114)
CHANNELS = ("red", "green", "blue")


def grey(pixels: NDArray[Any], colour: str) -> NDArray[Any]:
    """Return one value for each pixel.

    Parameters
    ----------
    pixels : ndarray, (..., 3)
        Red, green, blue.
    colour : {"luma", "mean", "red", "green", "blue"}
        What to take.

    Returns
    -------
    ndarray, (...)
        Of the same type, rounded to nearest; a view for a single channel. Holds one array of 8-byte (up to 16 bits:
        4-byte) numbers beside it.

    Raises
    ------
    SettingsError
        There is no such choice.
    """
    if colour in CHANNELS:
        return pixels[..., CHANNELS.index(colour)]
    if colour not in ("luma", "mean"):
        raise SettingsError(f"colour {colour!r} is not known", hint=COLOUR_HINT)
    weights = LUMA if colour == "luma" else (1, 1, 1)
    if pixels.dtype.kind not in "ui":
        total = sum(weight * pixels[..., i].astype(np.float64) for i, weight in enumerate(weights))
        return np.asarray(total / sum(weights)).astype(pixels.dtype)
    sign = "i" if pixels.dtype.kind == "i" else "u"
    wide = np.dtype(f"{sign}{4 if pixels.dtype.itemsize <= 2 else 8}")
    total = pixels[..., 0].astype(wide) * wide.type(weights[0])
    for i in (1, 2):
        total += pixels[..., i].astype(wide) * wide.type(weights[i])
    total += wide.type(sum(weights) // 2)
    total //= wide.type(sum(weights))
    return np.asarray(total.astype(pixels.dtype))
