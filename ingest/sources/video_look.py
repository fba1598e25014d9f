"""What a few decoded frames show of a movie: range of its luma, colour, rotation, fields."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from ingest.sources.video_pixels import FULL_RANGE, LIMITED_BLACK, LIMITED_WHITE, PixelPlan, plan_pixels, plane_of
from ingest.timing import Finding

__all__ = ["ColourRange", "Rotation", "colour_findings", "field_findings", "range_of_luma", "rotation_of"]

INTER_CODED = (2, 3)  # AV_PICTURE_TYPE_P and B: built on other frames
MPEG_RANGE = 1  # AVCOL_RANGE_MPEG
SAMPLED_PIXELS = 60_000
# Luma outside of the limited range: 3.6 % in a movie of full range, up to 0.04 % in ones whose coding overshoots.
FULL_RANGE_SHARE = 0.005
# Distance from grey in the chroma plane, of 180 at most: what lossy coding leaves of a grey picture is under 4.
TINTED, COLOURED = 8, 16
TINTED_SHARE = 0.01
# A colormap gives each intensity a hue of its own; a lamp, a phosphor or a filter gives all of them nearly one.
# Measured: jet 167, viridis 106, inferno 93, magma 77, hot 63 degrees; a green phosphor 1, a real colour camera 16.
COLORMAP_TURN_DEG = 30
COLORMAP_SHARE = 0.5
COLORMAP_COHERENCE = 0.8
NOT_BLACK = 32
BINS = 16
LEAST_OF_BIN = 0.002


@dataclass(frozen=True, slots=True)
class ColourRange:
    """Whether luma uses all of 0 to 255 (of its bits), whether it is to be brought there, and what to say of it."""

    full: bool
    expand: bool
    findings: tuple[Finding, ...]


@dataclass(frozen=True, slots=True)
class Rotation:
    """How the container wants its frames shown: quarter turns counter-clockwise, and what to say of it."""

    quarter_turns: int
    findings: tuple[Finding, ...]


def range_of_luma(frames: Sequence[VideoFrame], plan: PixelPlan, *, expand: bool) -> ColourRange:
    """Decide whether luma is of full or of limited range.

    Parameters
    ----------
    frames : sequence of av.VideoFrame
        A sample, not empty.
    plan : PixelPlan
        Of their pixel format.
    expand : bool
        The user wants limited range brought to the full one.

    Returns
    -------
    ColourRange
        As flagged; where nothing is flagged (or "limited" by default), by what occurs: 0.5 % of luma below 16 or above
        235 mean full range, which players would clip (FORMATS.md 3); less is what coding leaves beside bright spots.
    """
    first = frames[0]
    flag = FULL_RANGE if first.format.name.startswith("yuvj") else int(first.color_range)
    if not plan.is_yuv and not (plan.is_grey and flag == MPEG_RANGE):
        return ColourRange(True, False, _nothing_to_expand("pixels are of full range") if expand else ())
    if flag == FULL_RANGE:
        return _full("flagged as full range (0 to 255)", expand=expand)
    outside = _share_outside(frames)
    if flag != MPEG_RANGE and outside >= FULL_RANGE_SHARE:
        seen = f"not flagged, but {outside:.2%} of luma in {len(frames)} sampled frames is below 16 or above 235"
        return _full(f"{seen}: full range (0 to 255)", expand=expand)
    if flag == MPEG_RANGE:
        said = "flagged as limited range"
    else:
        said = f"not flagged; {f'only {outside:.2%}' if outside else 'no'} sampled luma is outside of it"
    if plan.channel is not None:
        expand, done = False, "conversion to RGB brings it to 0 to 255"
    else:
        done = "brought to 0 to 255, as asked" if expand else "luma is taken as it is: 16 is black, 235 white"
    return ColourRange(False, expand, (Finding("colour range", f"limited range (16 to 235), {said}; {done}"),))


def _full(said: str, *, expand: bool) -> ColourRange:
    more = _nothing_to_expand(said) if expand else (Finding("colour range", f"{said}; luma is taken as it is"),)
    return ColourRange(True, False, more)


def _nothing_to_expand(said: str) -> tuple[Finding, ...]:
    return (Finding("colour range", f"{said}; there is nothing to expand, though it was asked for"),)


def _share_outside(frames: Sequence[VideoFrame]) -> float:
    own = plan_pixels(frames[0].format.name, None)
    if own.convert is not None:
        return 0.0
    unit = 1 << (own.bits - 8)
    planes = [plane_of(frame, own) for frame in frames]
    outside = sum(np.count_nonzero((y < LIMITED_BLACK * unit) | (y > LIMITED_WHITE * unit)) for y in planes)
    return outside / sum(y.size for y in planes)


def colour_findings(frames: Sequence[VideoFrame], plan: PixelPlan) -> tuple[Finding, ...]:
    """Say whether a movie is coloured, and whether by a colormap.

    Parameters
    ----------
    frames : sequence of av.VideoFrame
        A sample.
    plan : PixelPlan
        Of their pixel format, and of what is taken of it.

    Returns
    -------
    tuple of Finding
        ``"colormap"``: each intensity has a hue of its own. ``"colour"``: anything else that is not grey.
    """
    if plan.is_grey or not frames:
        return ()
    reformatter = VideoReformatter()
    luma, u, v = (np.concatenate(parts) for parts in zip(*(_yuv(f, reformatter) for f in frames), strict=True))
    chroma = np.hypot(u, v)
    tinted = float((chroma >= TINTED).mean())
    if tinted < TINTED_SHARE:
        return ()
    taken = f"the {plan.channel} channel" if plan.channel not in (None, "mean") else plan.channel or "luma"
    turn = _turn_of_hue(luma, u, v)
    lit = luma >= NOT_BLACK
    share = float((chroma[lit] >= COLOURED).mean()) if lit.any() else 0.0
    if share >= COLORMAP_SHARE and turn >= COLORMAP_TURN_DEG:
        message = (
            f"LOOKS COLORMAPPED: {share:.0%} of the lit pixels are coloured, and the hue turns by {turn:.0f} degrees "
            f"with brightness. Intensity cannot be recovered from a colormap ({taken} is taken, and may fall where "
            "intensity rises): ingest the raw recording instead"
        )
        return (Finding("colormap", message),)
    message = (
        f"{tinted:.0%} of the sampled pixels are coloured: {taken} is taken"
        f"{', which weighs red, green and blue as the eye does: not intensity' if taken == 'luma' else ''}"
        "; --colour red, green, blue or mean takes another"
    )
    return (Finding("colour", message),)


def _yuv(frame: VideoFrame, reformatter: VideoReformatter) -> tuple[NDArray[np.float32], ...]:
    """Return luma, U - 128 and V - 128 of a sample of pixels."""
    full = reformatter.reformat(frame, format="yuv444p", src_color_range=FULL_RANGE, dst_color_range=FULL_RANGE)
    step = max(1, int((frame.width * frame.height / SAMPLED_PIXELS) ** 0.5))
    plan = plan_pixels("yuv444p", None)
    planes = [plane_of(full, plan, i)[::step, ::step].astype(np.float32).ravel() for i in range(3)]
    return planes[0], planes[1] - 128, planes[2] - 128


def _turn_of_hue(luma: NDArray[np.float32], u: NDArray[np.float32], v: NDArray[np.float32]) -> float:
    """Return by how many degrees the mean hue differs between any two brightnesses that have one."""
    chroma = np.hypot(u, v)
    where = np.where(chroma >= COLOURED, luma.astype(np.int64) * BINS // 256, BINS)
    count, total_u, total_v, total = (
        np.bincount(where, weights, BINS + 1)[:BINS] for weights in (np.ones_like(u), u, v, chroma)
    )
    together = np.hypot(total_u, total_v)
    used = (count >= max(4, LEAST_OF_BIN * len(luma))) & (together >= COLORMAP_COHERENCE * total)
    hues = np.degrees(np.arctan2(total_v[used], total_u[used]))
    if len(hues) < 2:
        return 0.0
    apart = np.abs(hues[:, np.newaxis] - hues) % 360
    return float(np.minimum(apart, 360 - apart).max())


def rotation_of(frame: VideoFrame, *, apply: bool) -> Rotation:
    """Say how the container wants frames turned (its display matrix), and whether that is done."""
    if _is_mirrored(frame):
        message = "the container wants frames mirrored: not done; --orientation does what is right"
        return Rotation(0, (Finding("rotation", message),))
    degrees = int(frame.rotation)
    turns, rest = divmod(degrees, 90)
    if degrees % 360 == 0:
        return Rotation(0, ())
    way = f"{abs(degrees)} degrees {'counter-' if degrees > 0 else ''}clockwise"
    if rest:
        return Rotation(
            0, (Finding("rotation", f"the container wants frames turned by {way}: no quarter turn, not done"),)
        )
    if apply:
        return Rotation(turns % 4, (Finding("rotation", f"frames are turned by {way}, as the container wants it"),))
    message = f"the container wants frames turned by {way} for display: not done; --apply-rotation does it"
    return Rotation(0, (Finding("rotation", message),))


def _is_mirrored(frame: VideoFrame) -> bool:
    side_data: Any = frame.side_data  # iterates over its values, whatever its type says
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            a, b, _, c, d = np.frombuffer(bytes(data), np.int32)[:5].astype(np.float64)
            return bool(a * d - b * c < 0)
    return False


def field_findings(frames: Sequence[VideoFrame]) -> tuple[Finding, ...]:
    """Say whether frames are interlaced: two fields, taken one after the other, in alternating lines."""
    if not any(frame.interlaced_frame for frame in frames):
        return ()
    return (Finding("interlaced", "even and odd lines were taken one after the other: a frame holds two moments"),)
