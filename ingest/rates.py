"""Where the rate of a run changes for good: binary segmentation of its gap-free time curve. Pure."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["NS_PER_S", "rate_bounds"]

NS_PER_S = 1_000_000_000
MAX_RATE_SEGMENTS = 64


def rate_bounds(curve: NDArray[np.float64]) -> list[int]:
    """Return the frame indices between which the rate is one.

    Parameters
    ----------
    curve : ndarray of float64, (frame,)
        Times in ns from the first frame on, gaps taken out.

    Returns
    -------
    list of int
        Rising, from 0 to the number of frames. A change counts if it lasts for 2 s and one common rate would misplace
        frames by a quarter period (RMS), and two rates by much less.
    """
    bounds = [0, len(curve)]
    todo = [(0, len(curve))]
    while todo and len(bounds) <= MAX_RATE_SEGMENTS:
        a, b = todo.pop()
        cut_at = _rate_change(curve[a:b])
        if cut_at is not None:
            bounds.append(a + cut_at)
            todo += [(a, a + cut_at), (a + cut_at, b)]
    return sorted(bounds)


def _rate_change(curve: NDArray[np.float64]) -> int | None:
    """Where two rates describe the curve much better than one; None: nowhere."""
    n = len(curve)
    if n < 32:
        return None
    slope = _slope(curve)
    if slope <= 0:
        return None
    at = _best_cut(curve)
    left, right = curve[:at], curve[at:]
    fast = min(_slope(left), _slope(right))
    if fast <= 0:
        return None
    # Two seconds: the platform's shortest chunk, over which a wrong rate adds up.
    span = max(4, math.ceil(2 * NS_PER_S / fast))
    if min(len(left), len(right)) < min(span, n // 4):
        return None
    one = _window_rms(curve, slope, span)
    two = math.hypot(
        _window_rms(left, _slope(left), span) * math.sqrt(len(left) / n),
        _window_rms(right, _slope(right), span) * math.sqrt(len(right) / n),
    )
    return at if one > fast / 4 and two < 0.7 * one else None


def _slope(curve: NDArray[np.float64]) -> float:
    x = np.arange(len(curve)) - (len(curve) - 1) / 2
    return float(x @ (curve - curve.mean()) / (x @ x)) if len(curve) > 1 else 0.0


def _best_cut(curve: NDArray[np.float64]) -> int:
    """The cut (at least 8 frames from both ends) that leaves the least squares to two free lines."""
    n = len(curve)
    x = np.arange(n, dtype=np.float64)
    y = curve - curve[0] - (curve[-1] - curve[0]) * x / (n - 1)
    cuts = np.arange(8, n - 7)
    sse = _line_sse(x, y, cuts) + _line_sse(x, y[::-1], n - cuts)
    return int(cuts[np.argmin(sse)])


def _line_sse(x: NDArray[np.float64], y: NDArray[np.float64], counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sum of squares that the best line leaves over the first `counts` points, from running sums."""
    m = counts.astype(np.float64)
    sy, sxy, syy = (np.cumsum(v)[counts - 1] for v in (y, x * y, y * y))
    sxx = (m**3 - m) / 12
    cov = sxy - (m - 1) / 2 * sy
    return np.asarray(np.maximum(syy - sy**2 / m - cov**2 / sxx, 0))


def _window_rms(curve: NDArray[np.float64], slope: float, span: int) -> float:
    """RMS distance of the stamps from a line of `slope` that is refitted every `span` frames."""
    span = min(span, len(curve))
    whole = len(curve) // span * span
    residuals = (curve[:whole] - slope * np.arange(whole)).reshape(-1, span)
    return float(np.sqrt(np.mean(np.var(residuals, axis=1))))
