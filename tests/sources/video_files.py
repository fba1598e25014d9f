"""Movies for tests, written to order, and what a plain decoder makes of them."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ingest.sources import SourceInfo, SourceOptions, discover, inspect

SIZE = (48, 64)  # height and width, px


def pictures(count: int, height: int = SIZE[0], width: int = SIZE[1], *, low: int = 16, high: int = 235) -> np.ndarray:
    """Moving stripes and noise, so that frames differ and a lost one shows; frame numbers in the upper corner."""
    y, x = np.mgrid[:height, :width]
    made = np.empty((count, height, width), np.uint8)
    for i in range(count):
        noise = np.random.default_rng(i).normal(0, 6, (height, width))
        made[i] = np.clip(110 + 60 * np.sin(x / 5 + i / 3) + 40 * np.cos(y / 4 - i / 5) + noise, low, high)
        for bit in range(8):
            made[i, :6, 4 * bit : 4 * bit + 4] = high if i >> bit & 1 else low
    return made


def write_movie(
    path,
    frames: np.ndarray | int,
    codec: str = "libx264",
    *,
    pix_fmt: str = "yuv420p",
    fps: int = 30,
    stamps_ms: Sequence[int] | None = None,
    gop: int = 12,
    b_frames: int | None = None,
    rotation: int | None = None,
    hflip: bool = False,
    metadata: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    change: Callable[[int, av.Packet], av.Packet] | None = None,
    dtype: str = "u1",
    start: int = 0,
    colour_range: int | None = None,
    **options: str,
) -> str:
    """Write frames, (frame, y, x) grey or (frame, y, x, 3) RGB; `change` may alter each packet before it is written."""
    shown = pictures(frames) if isinstance(frames, int) else frames
    time_base = Fraction(1, 1000) if stamps_ms is not None else Fraction(1, fps)
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.height, stream.width = shown.shape[1:3]
        stream.pix_fmt = pix_fmt
        stream.gop_size = gop
        stream.codec_context.time_base = time_base
        if b_frames is not None:
            stream.codec_context.max_b_frames = b_frames
        if colour_range is not None:
            stream.codec_context.color_range = colour_range
        if rotation is not None or hflip:
            stream.set_display_rotation(rotation or 0, hflip=hflip)
        number = 0
        for i in [*range(len(shown)), None]:
            frame = None
            if i is not None:
                frame = _frame(shown[i], pix_fmt, dtype)
                frame.pts = start + (i if stamps_ms is None else stamps_ms[i])
                frame.time_base = time_base
                if colour_range is not None:
                    frame.color_range = colour_range
            for packet in stream.encode(frame):
                container.mux(packet if change is None else change(number, packet))
                number += 1
    return str(path)


def _frame(values: np.ndarray, pix_fmt: str, dtype: str) -> av.VideoFrame:
    height, width = values.shape[:2]
    if values.ndim == 3:
        return av.VideoFrame.from_ndarray(values, format="rgb24").reformat(format=pix_fmt)
    frame = av.VideoFrame(width, height, pix_fmt)
    for k, plane in enumerate(frame.planes):
        lines = np.full((plane.height, plane.line_size // np.dtype(dtype).itemsize), 128, dtype)
        if k == 0:
            step, offset = {"yuyv422": (2, 0), "uyvy422": (2, 1)}.get(pix_fmt, (1, 0))
            lines[:, offset : offset + step * width : step] = values
        plane.update(lines)
    return frame


def rewrite(path, out, change: Callable[[int, bytes], bytes | None]) -> str:
    """Copy a movie packet by packet, each as `change` returns it; None: left out."""
    with av.open(str(path)) as source, av.open(str(out), "w") as container:
        stream = source.streams.video[0]
        target = container.add_stream_from_template(stream)
        number = 0
        for packet in source.demux(stream):
            if not packet.size:
                continue
            data = change(number, bytes(packet))
            number += 1
            if data is None:
                continue
            copy = av.Packet(data)
            copy.pts, copy.dts, copy.time_base = packet.pts, packet.dts, packet.time_base
            copy.duration, copy.is_keyframe, copy.stream = packet.duration, packet.is_keyframe, target
            container.mux(copy)
    return str(out)


def packet_table(path) -> list[tuple[int | None, int, int | None, bool]]:
    """Byte in the file, size, time and whether it is a keyframe, of each packet."""
    with av.open(str(path)) as container:
        return [(p.pos, p.size, p.pts, p.is_keyframe) for p in container.demux(video=0) if p.size]


def scribble(path, out, packets: Sequence[int], fraction: float = 0.3) -> str:
    """Copy a file with random bytes in the middle of some packets."""
    content = bytearray(Path(path).read_bytes())
    table = packet_table(path)
    for packet in packets:
        position, size, _, _ = table[packet]
        begin, count = position + 12 + int(size * fraction), max(16, size // 4)
        content[begin : begin + count] = np.random.default_rng(packet).bytes(count)
    Path(out).write_bytes(content)
    return str(out)


def may_be_lost(path, packets: Sequence[int], *, counted: bool) -> set[int]:
    """Frames that may depend on packets: their groups, from a keyframe to the next, with what that one shows before it.

    Also what is still in the decoder when an error comes, which H.264 then gives in a wrong order; and where frames are
    `counted`, all before the next keyframe that goes in after that.
    """
    table = packet_table(path)
    keys = [i for i, (_, _, _, is_key) in enumerate(table) if is_key] + [len(table)]
    order = list(range(len(table))) if counted else sorted(range(len(table)), key=lambda i: table[i][2])
    lost: set[int] = set()
    for packet in packets:
        first = max(key for key in keys if key <= packet)
        last = min(key for key in keys if key > packet)
        if counted:
            lost |= set(range(packet - 4, min([key for key in keys if key > packet + 4] or [len(table)])))
        else:
            end = order.index(last) if last < len(table) else len(table)
            lost |= {i for i in range(end) if order[i] >= first - 2}
    return lost


def plain_decode(path, plane: bool = True) -> np.ndarray:
    """Decode all of a movie in one go: the luma plane, or frames as FFmpeg turns them to grey."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        made = []
        for frame in container.decode(stream):
            if plane:
                data = frame.planes[0]
                lines = np.frombuffer(data, np.uint8).reshape(-1, data.line_size)
                made.append(lines[: frame.height, : frame.width].copy())
            else:
                made.append(frame.to_ndarray(format="gray"))
    return np.stack(made)


def look(path, **options) -> SourceInfo:
    """Discover one movie, and inspect it."""
    chosen = SourceOptions(**options)
    (found,) = discover([str(path)], chosen)
    if found.error is not None:
        raise found.error
    return inspect(found.spec, chosen)
