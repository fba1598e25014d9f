"""Which frame of a movie it is that comes out of the decoder, and which are lost: by their times, or by counting."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ingest.sources.video_index import MovieIndex

__all__ = ["ByCount", "ByTime", "Places"]

# How many packets may lie between a frame and one that is decoded after it but shown before it: H.264 and H.265 keep at
# most 16 pictures (ITU-T H.264, A.3.1).
REORDERED = 16
HIDDEN = -1


class Places(Protocol):
    """Follows one pass of a decoder from a keyframe on; packets and frames are told in the order in which they come."""

    def feed(self, packet: Packet[VideoStream], number: int) -> None:
        """Note that a packet goes into the decoder."""
        ...

    def fail(self, number: int) -> None:
        """Note that the decoder gave an error for a packet."""
        ...

    def place(self, frame: VideoFrame) -> int | None:
        """Return the number of the frame that came out, higher than those before it; None: it has no place."""
        ...

    def end(self) -> None:
        """Note that no more frames come."""
        ...

    def is_settled(self, number: int) -> bool:
        """Whether all has come that was decoded before a frame, so that damage it may be built on is known."""
        ...

    def is_spoilt(self, number: int) -> bool:
        """Whether a frame that came is damaged, or built on what is. Asked in rising order."""
        ...


class ByTime:
    """Finds frames by their times of presentation; see `Places`.

    Parameters
    ----------
    index : MovieIndex
        Of the movie.
    first : int
        The first frame that is right, when decoding begins at its keyframe.
    """

    def __init__(self, index: MovieIndex, first: int) -> None:
        self._index = index
        self._first = first
        self._came = first - 1
        self._damage: list[tuple[int, int]] = []  # packet, first frame that owes nothing to it
        self._spoilt: set[int] = set()

    def feed(self, packet: Packet[VideoStream], number: int) -> None:
        """Do nothing: a packet has its time."""

    def fail(self, number: int) -> None:
        """Note a damaged packet, unless it is shown before the keyframe where decoding began: it owes to others."""
        index = self._index
        if number >= len(index.shown):
            return
        frame = int(index.frame_pts.searchsorted(index.pts[number]))
        if frame >= self._first:
            self._note(number, frame if index.shown[number] else None)

    def place(self, frame: VideoFrame) -> int | None:
        """Return the frame with this time; those that are left out did not come."""
        number = self._find(frame.pts)
        if number is None or number <= self._came:
            return None
        if number > self._came + 1:
            self._did_not_come(number)
        self._came = number
        if frame.is_corrupt:
            self._note(int(self._index.packet_of_frame[number]), number)
        return number

    def end(self) -> None:
        """Note that all that did not come is lost."""
        self._did_not_come(self._index.frames)
        self._came = self._index.frames

    def is_settled(self, number: int) -> bool:
        """Whether all has come that was decoded before a frame."""
        return bool(self._came >= self._index.built_on[number])

    def is_spoilt(self, number: int) -> bool:
        """Whether a frame is damaged, or decoded after damage and before the next keyframe."""
        if not self._damage:
            return False
        self._damage = [damage for damage in self._damage if damage[1] > number]
        self._spoilt = {frame for frame in self._spoilt if frame >= number}
        packet = int(self._index.packet_of_frame[number])
        return number in self._spoilt or any(first < packet and number < end for first, end in self._damage)

    def _find(self, pts: int | None) -> int | None:
        if pts is None:
            return None
        times, expected = self._index.frame_pts, self._came + 1
        if expected < len(times) and times[expected] == pts:
            return expected
        at = int(times.searchsorted(pts))
        return at if at < len(times) and times[at] == pts else None

    def _did_not_come(self, number: int) -> None:
        for frame in range(self._came + 1, number):
            self._note(int(self._index.packet_of_frame[frame]), frame)

    def _note(self, packet: int, frame: int | None) -> None:
        if frame is not None:
            self._spoilt.add(frame)
        end = self._index.end_of_damage(packet)
        if not any(first <= packet and end == known for first, known in self._damage):
            self._damage.append((packet, end))


class ByCount:
    """Counts frames in the order in which they come out, where their times do not tell which is which; see `Places`.

    Each packet gets its own number for its time, so the frame that comes of it says where it is from. After a lost one
    nobody can say where among its neighbours it was missing: they are lost with it, up to the next keyframe. Its place
    is known: all packets before it are shown before it, and those after it that came out before it are counted.

    Parameters
    ----------
    index : MovieIndex
        Of the movie, which is decoded from its beginning.
    """

    def __init__(self, index: MovieIndex) -> None:
        self._index = index
        self._next = 0
        self._latest = -1  # packet that went in
        self._inside: deque[int] = deque()
        self._until: int | None = None  # the key where counting begins anew
        self._before_key = 0
        self._damage: list[tuple[int, int]] = []  # packet, packet of the next key
        self._packet_of: dict[int, int] = {}  # of frames that came

    def feed(self, packet: Packet[VideoStream], number: int) -> None:
        """Write its number on a packet."""
        counts = number < len(self._index.shown) and bool(self._index.shown[number])
        packet.pts = number if counts else HIDDEN
        packet.dts = None
        if counts:
            self._latest = number
            self._inside.append(number)

    def fail(self, number: int) -> None:
        """Note that a packet's frame will not come, or not whole."""
        keys, _ = self._index.cuts
        at = int(keys.searchsorted(max(number, self._latest), side="right"))
        self._until = int(keys[at]) if at < len(keys) else len(self._index.shown)
        self._before_key = 0
        self._damage.append((number, self._until))
        if number in self._inside:
            self._inside.remove(number)

    def place(self, frame: VideoFrame) -> int | None:
        """Return how many frames came before, with those that are known to be lost."""
        packet = frame.pts
        if packet is None or packet not in self._inside:
            return None
        if frame.is_corrupt:
            self.fail(packet)
            return None
        self._inside.remove(packet)
        while self._inside and self._inside[0] < packet - REORDERED:
            self.fail(self._inside[0])
        number = self._count(packet)
        if number is not None:
            self._packet_of[number] = packet
        return number

    def end(self) -> None:
        """Note that all that is missing is lost."""
        self._inside.clear()

    def is_settled(self, number: int) -> bool:
        """Whether all has come that was decoded before a frame."""
        return not self._inside or self._inside[0] > self._packet_of[number]

    def is_spoilt(self, number: int) -> bool:
        """Whether a frame is decoded after damage and before the next keyframe."""
        packet = self._packet_of.pop(number)
        return any(first < packet < end for first, end in self._damage)

    def _count(self, packet: int) -> int | None:
        if self._until is None:
            self._next += 1
            return self._next - 1
        if packet < self._until:
            return None
        if packet > self._until:
            self._before_key += 1
            return None
        number = int(self._index.packet_of_frame.searchsorted(packet)) + self._before_key
        self._until = None
        self._next = number + 1
        return number
