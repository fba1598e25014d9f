"""Movie files opened by FFmpeg: what its errors mean, and which packets of a file are frames."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from ingest.errors import (
    IngestError,
    NoFramesError,
    SourceError,
    SourceFormatError,
    TruncatedSourceError,
)
from ingest.sources.plain_file import MAX_FRAME_BYTES, explain_os

__all__ = [
    "Movie",
    "check_readable",
    "container_name",
    "explain",
    "may_be_coded",
    "packets",
    "read_errors",
    "shows_a_frame",
]

# Playlists name other files, and text is no movie, though FFmpeg would draw it.
REFUSED_FORMATS = frozenset({"hls", "concat", "dash", "tty", "imf"})
# Decoders that by themselves say nothing of most damage: of 14 damaged packets JPEG's reported 1 and H.265's 1, with
# this option 14 and 8. For H.264, MPEG-4, MPEG-2 and AV1 it was 14 of 14 without it.
SILENT_CODECS = frozenset({"mjpeg", "hevc"})
MAX_CHECKED_BYTES = 64 * 2**20
BLOCK_BYTES = 2**20
MAX_FAILURES = 100  # of the demuxer, one after the other: it skips what it cannot read, and goes on
BOXES = frozenset({b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot"})
VP8_SHOW_FRAME = 0x10  # RFC 6386, 9.1


class Movie:
    """A movie file, open for reading in this thread; close it.

    Parameters
    ----------
    path : str
        The file, absolute.
    strict : bool
        A frame in which the decoder finds an error is one that cannot be decoded, also of codecs that are shown with
        such errors by players.

    Attributes
    ----------
    path : str
        The file.
    container : av.container.InputContainer
        Its container.
    stream : av.video.stream.VideoStream
        The stream of frames: the first that is no cover picture. Decoded in this thread alone, so that as many files
        can be decoded at once as there are workers.

    Raises
    ------
    SourceNotFoundError, SourceReadError
        There is no such file, or the operating system does not let us read it.
    SourceFormatError
        Not a movie, or frames that cannot be decoded here or take over 512 MB each; `TruncatedSourceError`: an MP4
        without its index (``moov``); `NoFramesError`: sound only.
    """

    def __init__(self, path: str, *, strict: bool = True) -> None:
        self.path = path
        self.container = _open(path)
        try:
            self.stream = _stream_of(self.container, path)
        except BaseException:
            self.container.close()
            raise
        self.stream.thread_type = "NONE"
        self.stream.thread_count = 1
        # A frame within the stream may be larger than the header says.
        options = {"max_pixels": str(MAX_FRAME_BYTES)}
        if strict and self.stream.codec_context.name in SILENT_CODECS:
            options["err_detect"] = "explode"
        self.stream.codec_context.options = options

    def close(self) -> None:
        """Close the file; safe to repeat."""
        self.container.close()

    def __enter__(self) -> Movie:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _open(path: str) -> InputContainer:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            raise SourceFormatError(f"{path}: is a folder, a pipe or a device, not a movie")
        # No network, whatever a file asks for; and tags are not always UTF-8.
        container = av.open(path, metadata_errors="replace", options={"protocol_whitelist": "file"})
    except IngestError:
        raise
    except (av.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise _explain_open(path, error) from error
    name = str(container.format.name)
    if REFUSED_FORMATS & set(name.split(",")):
        container.close()
        raise SourceFormatError(
            f"{path}: is a playlist or text ({name}), not a movie", hint="name the movies themselves"
        )
    return container


def _stream_of(container: InputContainer, path: str) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & av.stream.Disposition.attached_pic]
    if not streams:
        others = ", ".join(sorted({str(s.type) for s in container.streams})) or "nothing"
        raise NoFramesError(f"{path}: no video in it, only {others}")
    stream = streams[0]
    if getattr(stream, "codec_context", None) is None:
        raise SourceFormatError(
            f"{path}: coded as {stream.codec_tag!r}, for which FFmpeg has no decoder here",
            hint="convert it without loss where it was recorded: `ffmpeg -i FILE -c:v ffv1 OUT.mkv`",
        )
    width, height = stream.codec_context.width, stream.codec_context.height
    if not width or not height or stream.codec_context.pix_fmt is None:
        raise SourceFormatError(
            f"{path}: its header gives no size or pixel format that FFmpeg would take ({width} x {height} px)",
            hint="copy it again from where it was recorded",
        )
    found = stream.codec_context.format
    bits = max((part.bits for part in found.components), default=8) if found is not None else 8
    frame_bytes = width * height * -(-bits // 8)
    if frame_bytes > MAX_FRAME_BYTES:
        raise SourceFormatError(f"{path}: frames of {width} x {height} px, {frame_bytes} bytes each")
    return stream


def container_name(container: InputContainer, path: str) -> str:
    """Return a container's everyday name: the file's suffix, where FFmpeg knows it as such; else FFmpeg's own."""
    names = container.format.name.split(",")
    suffix = os.path.splitext(path)[1].lower().lstrip(".")
    return suffix if suffix in names or suffix in container.format.extensions else names[0]


def packets(movie: Movie) -> Iterator[Packet[VideoStream]]:
    """Go through a movie's packets from where it is, in the order of decoding; what cannot be read is passed over.

    Yields
    ------
    av.Packet
        Never an empty one: AVI has them where a frame was dropped (FORMATS.md 3).

    Raises
    ------
    SourceReadError
        The operating system could not read.
    """
    failures, position = 0, 0
    while failures < MAX_FAILURES:
        try:
            for packet in movie.container.demux(movie.stream):
                failures = 0
                if packet.size:
                    position = packet.pos or position
                    yield packet
            return
        except EOFError:
            return
        except av.FFmpegError as error:
            if isinstance(error, OSError):
                check_readable(movie.path, position, position + MAX_CHECKED_BYTES)
            failures += 1


def check_readable(path: str, first: int, last: int) -> None:
    """Read bytes of a file, to tell what FFmpeg does not: an IO error, for which it also takes the end of a cut file.

    Parameters
    ----------
    path : str
        The file.
    first, last : int
        Bytes, of which at most 64 MiB are read; the file may end before.

    Raises
    ------
    SourceReadError
        The operating system could not read.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            for offset in range(first, min(last, first + MAX_CHECKED_BYTES), BLOCK_BYTES):
                if len(os.pread(file.fileno(), BLOCK_BYTES, offset)) < BLOCK_BYTES:
                    break
    except OSError as error:
        raise explain(path, error) from error


def shows_a_frame(packet: Packet[VideoStream], codec: str, macroblocks: int) -> bool:
    """Tell whether a packet is a frame of the movie.

    Parameters
    ----------
    packet : av.Packet
        Not empty.
    codec : str
        FFmpeg's name.
    macroblocks : int
        Of a frame, 16 x 16 px each.

    Returns
    -------
    bool
        False: an edit list cuts it away; VP8 that is only referred to; an MPEG-4 frame that says "as before", which is
        how XviD writes one that was dropped (a coded one has a bit for each macroblock at least, after 5 bytes).
    """
    if packet.is_discard:
        return False
    if codec == "vp8":
        return bool(memoryview(packet)[0] & VP8_SHOW_FRAME)
    return may_be_coded(codec, packet.size, macroblocks)


def may_be_coded(codec: str, size: int, macroblocks: int) -> bool:
    """Whether a packet of a size can be more than a frame that says "as before"; see `shows_a_frame`."""
    return codec != "mpeg4" or (size - 5) * 8 >= macroblocks


@contextmanager
def read_errors(path: str) -> Iterator[None]:
    """Turn what PyAV raises into errors of ours."""
    try:
        yield
    except IngestError:
        raise
    except (av.FFmpegError, OSError, MemoryError) as error:
        raise explain(path, error) from error


def explain(path: str, error: BaseException) -> SourceError:
    """Say what an error of PyAV means: `SourceReadError` where the operating system failed, else damage."""
    if isinstance(error, OSError | MemoryError):
        return explain_os(path, error)
    text = getattr(error, "strerror", None) or str(error)
    return SourceFormatError(f"{path}: FFmpeg cannot read it: {text}", hint="copy it again from where it was recorded")


def _explain_open(path: str, error: Exception) -> SourceError:
    if isinstance(error, OSError) and error.errno == errno.EIO:
        try:
            check_readable(path, 0, MAX_CHECKED_BYTES)
        except SourceError as failure:
            return failure
    elif not isinstance(error, av.error.InvalidDataError):
        return explain(path, error)
    try:
        size_bytes = os.stat(path).st_size
        boxes = _boxes(path)
    except OSError as failure:
        return explain(path, failure)
    if not size_bytes:
        return SourceFormatError(f"{path}: the file is empty")
    if boxes and all(box.kind != b"moov" for box in boxes):
        last = boxes[-1]
        said = f"its {last.kind.decode()} box should end at byte {last.end}, " if last.end > size_bytes else ""
        return TruncatedSourceError(
            f"{path}: moov atom not found: {said}the file ends at byte {size_bytes}; the recording was not closed",
            hint="an MP4 without its moov box cannot be recovered without a reference file: a whole movie of the same "
            "camera and settings, which tools such as untrunc take",
        )
    return SourceFormatError(
        f"{path}: not a movie that FFmpeg knows, or its header is damaged ({size_bytes} bytes)",
        hint="copy it again; record as MKV or AVI, of which a cut file can still be read",
    )


@dataclass(frozen=True, slots=True)
class Box:
    """A top-level box of an MP4 or MOV file, and the byte where it says that it ends."""

    kind: bytes
    end: int


def _boxes(path: str) -> list[Box]:
    """List top-level boxes of an MP4 or MOV file (ISO 14496-12, 4.2); nothing for another file, or a damaged one."""
    boxes: list[Box] = []
    with open(path, "rb") as file:
        while len(boxes) < 1000:
            begin = file.tell()
            head = file.read(16)
            if len(head) < 8:
                break
            if head[4:8] not in BOXES and (not boxes or not head[4:8].isalnum()):
                return []
            size = struct.unpack(">I", head[:4])[0]
            if size == 1 and len(head) == 16:
                size = struct.unpack(">Q", head[8:])[0]
            boxes.append(Box(bytes(head[4:8]), begin + size))
            if size < 8:  # 0: up to the end of the file
                break
            file.seek(begin + size)
    return boxes
