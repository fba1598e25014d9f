"""Where frames that are read go."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["result_array"]


def result_array(shape: tuple[int, ...], memory: NDArray[np.uint8] | None) -> NDArray[np.uint8]:
    """Return an array of uint8 of this shape: a view of the beginning of `memory`, (byte,), if that is long enough."""
    n_bytes = math.prod(shape)
    if memory is None or len(memory) < n_bytes:
        return np.empty(shape, np.uint8)
    return memory[:n_bytes].reshape(shape)
