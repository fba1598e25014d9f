"""From a decoded frame to 8-bit grey: the luma plane as it is, or one channel, by the run's one scale."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from ingest.errors import FrameDataError
from ingest.frames import FrameScale, to_uint8

__all__ = ["COLOURS", "GreyMaker", "PixelPlan", "plan_pixels", "plane_of"]

COLOURS = ("red", "green", "blue", "mean")
FULL_RANGE = 2  # AVCOL_RANGE_JPEG
# Luma at every second byte, from the first or the second on.
PACKED = {"yuyv422": 0, "yvyu422": 0, "uyvy422": 1, "ya8": 0}
# 8-bit limited range (ITU-R BT.601, 2.5): black is 16, white 235.
LIMITED_BLACK, LIMITED_WHITE = 16, 235


@dataclass(frozen=True, slots=True)
class PixelPlan:
    """How grey values are taken out of frames of one pixel format.

    Attributes
    ----------
    convert : str or None
        The pixel format to which FFmpeg brings them first; None: taken as they are.
    dtype : str
        NumPy type of the values: ``"|u1"``, ``"<u2"``, ``">u2"``.
    bits : int
        That are used of it.
    step, offset : int
        Values from one pixel to the next, and before the first.
    channel : str or None
        Of RGB; None: luma.
    is_yuv, is_grey : bool
        Whether the recorded format has luma that may be of limited range; whether it has no colour.
    """

    convert: str | None
    dtype: str = "|u1"
    bits: int = 8
    step: int = 1
    offset: int = 0
    channel: str | None = None
    is_yuv: bool = False
    is_grey: bool = False


@lru_cache(maxsize=64)
def plan_pixels(pix_fmt: str, colour: str | None) -> PixelPlan:
    """Decide how grey values are taken out of a pixel format.

    Parameters
    ----------
    pix_fmt : str
        FFmpeg's name.
    colour : {"luma", "mean", "red", "green", "blue"} or None
        What to take; of grey formats there is nothing to choose.

    Returns
    -------
    PixelPlan
        A plane of luma or grey is copied as it is, at whatever width it has. RGB becomes luma (0.299 R + 0.587 G +
        0.114 B, exact where R = G = B), a Bayer mosaic is interpolated first.
    """
    found = VideoFormat(pix_fmt, 16, 16)
    parts = [part for part in found.components if not part.is_alpha]
    first = parts[0]
    plain = first.is_luma and first.plane == 0 and not (found.has_palette or found.is_bit_stream or found.is_rgb)
    is_grey = plain and len(parts) == 1
    is_yuv = plain and len(parts) > 1 and not pix_fmt.startswith("xyz")
    if colour in COLOURS and not is_grey:
        return PixelPlan("rgb24", step=3, channel=colour, is_yuv=is_yuv)
    if pix_fmt in PACKED:
        return PixelPlan(None, step=2, offset=PACKED[pix_fmt], is_yuv=is_yuv, is_grey=is_grey)
    # P010 and the like have their bits at the upper end.
    aligned = pix_fmt[:2] not in ("p0", "p2", "p4") and "msb" not in pix_fmt
    if plain and aligned and first.bits <= 16 and all(part.plane for part in found.components[1:]):
        order = "|u1" if first.bits == 8 else ">u2" if found.is_big_endian else "<u2"
        return PixelPlan(None, order, first.bits, is_yuv=is_yuv, is_grey=is_grey)
    if max(part.bits for part in parts) > 8:
        return PixelPlan("gray16le", "<u2", 16, is_yuv=is_yuv, is_grey=is_grey)
    return PixelPlan("gray", is_yuv=is_yuv, is_grey=is_grey)


def plane_of(frame: VideoFrame, plan: PixelPlan, plane: int = 0) -> NDArray[Any]:
    """View a plane of a frame as (y, x) values, without the padding of its lines (PyAV#525)."""
    data: Any = frame.planes[plane]
    line = data.line_size // np.dtype(plan.dtype).itemsize
    width = frame.width if plane == 0 else data.width
    values = np.frombuffer(data, plan.dtype).reshape(-1, line)[: data.height]
    return values[:, plan.offset : plan.offset + width * plan.step : plan.step]


class GreyMaker:
    """Makes 8-bit grey frames of decoded ones, in one thread.

    Parameters
    ----------
    pix_fmt : str
        Of the run.
    colour : str or None
        As in `plan_pixels`.
    scale : FrameScale
        The run's.
    size : (int, int)
        Height and width of decoded frames, px.
    full_range : bool
        Whether luma goes from 0 to 255; else from 16 to 235.
    expand : bool
        Bring limited range to 0 to 255, clipped.
    quarter_turns : int
        Counter-clockwise.

    Notes
    -----
    Holds a table of 64 KiB for frames of over 8 bit, and one converted frame.
    """

    def __init__(
        self,
        pix_fmt: str,
        colour: str | None,
        scale: FrameScale,
        size: tuple[int, int],
        *,
        full_range: bool = True,
        expand: bool = False,
        quarter_turns: int = 0,
    ) -> None:
        self._pix_fmt = pix_fmt
        self._colour = colour
        self._plan = plan_pixels(pix_fmt, colour)
        self._size = size
        self._turns = quarter_turns
        self._full_range = full_range
        self._table = _table(self._plan, scale, expand=expand)
        self._reformatter = VideoReformatter()

    def put(self, frame: VideoFrame, out: NDArray[np.uint8]) -> None:
        """Write a frame's grey values into `out`, (y, x) uint8, turned.

        Raises
        ------
        FrameDataError
            A frame of another size or pixel format than the first, of which there is no telling how it fits the run.
        """
        name = frame.format.name
        if (frame.height, frame.width) != self._size:
            height, width = self._size
            raise FrameDataError(f"{frame.width} x {frame.height} px, where the run has {width} x {height}")
        plan = self._plan
        if name != self._pix_fmt:
            other = plan_pixels(name, self._colour)
            if (other.bits, other.convert, other.channel) != (plan.bits, plan.convert, plan.channel):
                raise FrameDataError(f"pixel format {name}, where the run has {self._pix_fmt}")
            plan = other
        if plan.convert is not None:
            frame = self._converted(frame, plan)
        values = _channel(plane_of(frame, plan), frame, plan)
        if self._turns:
            values = np.rot90(values, self._turns)
        if self._table is None:
            out[...] = values
        else:
            np.take(self._table, values, out=out, mode="clip")

    def _converted(self, frame: VideoFrame, plan: PixelPlan) -> VideoFrame:
        # Luma stays as it is, whatever its range; RGB always has the full one.
        source = FULL_RANGE if self._full_range or plan.channel is None else 1
        return self._reformatter.reformat(
            frame, format=plan.convert, src_color_range=source, dst_color_range=FULL_RANGE
        )


def _channel(values: NDArray[Any], frame: VideoFrame, plan: PixelPlan) -> NDArray[Any]:
    if plan.channel is None:
        return values
    data: Any = frame.planes[0]
    pixels = np.frombuffer(data, np.uint8).reshape(-1, data.line_size)[:, : 3 * frame.width]
    colours = pixels.reshape(frame.height, frame.width, 3)
    if plan.channel == "mean":
        red, green, blue = (colours[:, :, i].astype(np.uint16) for i in range(3))
        return ((red + green + blue) // 3).astype(np.uint8)
    return colours[:, :, COLOURS.index(plan.channel)]


def _table(plan: PixelPlan, scale: FrameScale, *, expand: bool) -> NDArray[np.uint8] | None:
    """Return the grey value of each stored value; None: taken as it is."""
    if scale.full_scale is None and not expand:
        return None
    dtype = np.dtype(plan.dtype).newbyteorder("=")
    table: NDArray[np.uint8] = to_uint8(
        np.arange(2 ** (8 * dtype.itemsize)).astype(dtype)[np.newaxis, np.newaxis], scale
    )[0, 0]
    if expand:
        steps = np.rint((np.arange(256) - LIMITED_BLACK) * (255 / (LIMITED_WHITE - LIMITED_BLACK)))
        table = np.clip(steps, 0, 255).astype(np.uint8)[table]
    return table
