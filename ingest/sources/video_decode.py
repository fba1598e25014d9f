"""Frames out of a movie, from anywhere on: seeking keyframes, decoding packet by packet, finding what is lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import chain, dropwhile, islice

import av
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.sources.video_damage import damage_check
from ingest.sources.video_file import Movie, explain, packets
from ingest.sources.video_index import NO_TIME, MovieIndex
from ingest.sources.video_place import ByCount, ByTime, Places

__all__ = ["Decoder"]

NOWHERE = -1
DAMAGED = "its parts do not fit together, or not their checksums"


class Decoder:
    """Decodes one movie, in one thread; see `frames`. Close it.

    Parameters
    ----------
    path : str
        The file, absolute.
    index : MovieIndex
        Of this file, as it is now.
    strict : bool
        As in `Movie`.

    Attributes
    ----------
    position : int
        The frame that comes next without seeking.
    trouble : str or None
        What FFmpeg last said of a packet that it could not decode.
    strayed : bool
        Whether seeking led elsewhere, so that the file was read from its beginning.

    Raises
    ------
    SourceError
        As `Movie`.
    """

    def __init__(self, path: str, index: MovieIndex, *, strict: bool = True) -> None:
        self.path = path
        self.position = 0
        self.trouble: str | None = None
        self.strayed = False
        self._index = index
        self._strict = strict
        self._movie = Movie(path, strict=strict)
        self._is_damaged = damage_check(self._movie.stream.codec_context) if strict else None
        self._begin(packets(self._movie), 0, 0)

    def _begin(self, source: Iterator[Packet[VideoStream]], packet: int, frame: int) -> None:
        self._packets: Iterator[Packet[VideoStream]] | None = source
        self._next_packet = packet
        self.position = frame
        self._ready: deque[tuple[int, VideoFrame]] = deque()
        self._places: Places = ByTime(self._index, frame) if self._index.by_stamps else ByCount(self._index)

    def reaches(self, frame: int) -> bool:
        """Whether a frame comes by going on, with no keyframe before it that would be nearer."""
        least = self._index.key_before(frame)[1] if self._index.by_stamps else 0
        return least <= self.position <= frame

    def frames(self, start: int, stop: int) -> Iterator[tuple[int, VideoFrame]]:
        """Decode frames `start` to `stop` (exclusive), from where the decoder is, or from the keyframe before.

        Yields
        ------
        number : int
            Of the frame in the movie, rising; a number that is left out is a frame that is lost.
        frame : av.VideoFrame
            As decoded.

        Raises
        ------
        SourceReadError
            The operating system could not read.

        Notes
        -----
        Lost are: what does not come out of the decoder, found by its time of presentation (some codecs give no error);
        what comes out flagged as corrupt, or of a packet that gave an error; and what is decoded after that up to the
        next keyframe, since it consists of changes to frames that are not there. So a frame is given once all that was
        decoded before it has come out. Holds frames that wait for that, and the decoder's own: up to 2 x 16 of H.264,
        one of intra-frame codecs. Damage of which FFmpeg does not know (H.264 has no checksums) shows in the picture.
        """
        index = self._index
        if not self.reaches(start):
            self._go_to(*(index.key_before(start) if index.by_stamps else (0, 0)))
        while self.position < stop and (self._ready or self._pull()):
            number, frame = self._ready[0]
            if number >= stop:
                break
            while number >= start and not self._places.is_settled(number) and self._pull():
                pass
            self._ready.popleft()
            self.position = number + 1
            if not self._places.is_spoilt(number) and number >= start:
                yield number, frame
        self.position = max(self.position, stop)

    def sample(self, packet: int) -> VideoFrame | None:
        """Decode one keyframe alone, by its packet number; None: it cannot be."""
        self._go_to(packet, self._index.frames + 1)  # a place from which `frames` never just goes on
        for found in self._packets or ():
            if self._is_damaged is not None and self._is_damaged(bytes(found)):
                self.trouble = DAMAGED
                return None
            try:
                frames = [*found.decode(), *self._movie.stream.decode(None)]
            except av.FFmpegError as error:
                self.trouble = str(error.strerror)
                return None
            return frames[0] if frames else None
        return None

    def close(self) -> None:
        """Close the file; safe to repeat."""
        self._packets = None
        self._ready.clear()
        self._movie.close()

    def _pull(self) -> bool:
        """Decode until something is ready; False: there is no more."""
        before = len(self._ready)
        while len(self._ready) == before:
            if self._packets is None:
                return False
            packet = next(self._packets, None)
            if packet is None:
                self._packets = None
                decoded = self._drain()
            else:
                decoded = self._decode(packet)
            for frame in decoded:
                number = self._places.place(frame)
                if number is not None:
                    self._ready.append((number, frame))
            if self._packets is None:
                self._places.end()
        return True

    def _decode(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        index = self._index
        number = index.place_of(packet, self._next_packet)
        if number is None:
            return []
        if index.listed:
            if number < self._next_packet:
                return []
            for missing in range(self._next_packet, number):
                self.trouble = f"byte {index.position[missing]} holds no packet, though the file's index lists one"
                self._places.fail(missing)
            if index.by_stamps:
                packet.pts = int(index.pts[number])
        self._next_packet = number + 1
        self._places.feed(packet, number)
        if self._is_damaged is not None and self._is_damaged(bytes(packet)):
            self.trouble = DAMAGED
            self._places.fail(number)
            return []
        try:
            return packet.decode()
        except (av.FFmpegError, MemoryError) as error:
            if isinstance(error, OSError | MemoryError):
                raise explain(self.path, error) from error
            self.trouble = str(error.strerror)
            self._places.fail(number)
            return []

    def _drain(self) -> list[VideoFrame]:
        """Return what the decoder still holds after the last packet."""
        try:
            return self._movie.stream.decode(None)
        except av.FFmpegError as error:
            self.trouble = str(error.strerror)
            return []

    def _go_to(self, packet: int, frame: int) -> None:
        """Begin anew so that a packet is the next to be decoded, which is a keyframe or the first."""
        may_seek = self._index.by_stamps and self._index.seeks and packet > 0
        source = self._sought(packet) if may_seek else None
        if source is None:
            self.strayed |= may_seek
            self._movie.close()
            self._movie = Movie(self.path, strict=self._strict)
            source = self._after(packet)
        self._begin(source, packet, frame)

    def _after(self, packet: int) -> Iterator[Packet[VideoStream]]:
        """Pass over all packets before one, in a movie that was just opened."""
        source = packets(self._movie)
        if not self._index.listed:
            return islice(source, packet, None)
        return dropwhile(lambda found: (self._index.place_of(found, -1) or 0) < packet, source)

    def _sought(self, packet: int) -> Iterator[Packet[VideoStream]] | None:
        """Seek to a packet; None if that does not lead there.

        Containers seek by time of decoding or of presentation, or near it only (MPEG-TS): what comes is compared.
        """
        for time in (int(self._index.pts[packet]), int(self._index.dts[packet])):
            if time == NO_TIME:
                continue
            try:
                self._movie.container.seek(time, stream=self._movie.stream, backward=True, any_frame=False)
            except av.FFmpegError:
                continue
            source = packets(self._movie)
            for found in source:
                number = self._index.place_of(found, NOWHERE)
                if number == packet and self._index.is_at(found, packet):
                    return chain((found,), source)
                if number is not None and (number >= packet or number == NOWHERE):
                    break
        return None
