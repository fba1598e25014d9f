"""What a movie's packets say, without decoding them: how many frames, when, and where decoding can begin."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
import xxhash
from av.packet import Packet
from av.video.stream import VideoStream
from numpy.typing import NDArray

from ingest.sources.hdf5_times import Stamps
from ingest.sources.start import NS
from ingest.sources.video_avi import ListedPackets, first_break, listed_packets, match_packets
from ingest.sources.video_file import Movie, may_be_coded, packets, shows_a_frame

__all__ = ["NO_TIME", "MovieIndex", "read_index"]

NO_TIME = -(2**63)
# Containers whose packets carry their own time of presentation. AVI and ASF have the order of decoding only, from which
# FFmpeg makes times that fall where frames are decoded in another order than they are shown (FORMATS.md 3).
TIMED = frozenset({"mov", "matroska", "mpegts", "mpeg", "flv", "nut", "ogg", "ivf"})
# Containers that FFmpeg seeks by looking for a time near it: it may begin within a frame.
SEEKS_NEAR = frozenset({"mpeg", "mpegts", "mpegvideo", "m4v", "h261", "h263", "h264", "hevc"})


@dataclass(frozen=True)
class MovieIndex:
    """The packets of a movie. Frames are numbered as they are shown, packets as they are decoded.

    Holds 80 bytes per packet.

    Attributes
    ----------
    time_base : Fraction
        Of `pts` and `dts`, in s.
    pts, dts, position, size : ndarray of int64, (packet,)
        Times of presentation and of decoding, `NO_TIME` where there is none; byte in the file, or -1; bytes.
    key, shown, present : ndarray of bool, (packet,)
        Whether decoding can begin there; whether it is a frame of the movie; whether it can be read where the file's
        own index lists it.
    by_stamps : bool
        Whether `pts` tell the frames apart, so that they are found by them; else they are counted as they come.
    packets_read : int
        All that are in the file, also one that is cut short.
    cut_short : bool
        Whether the last one is, so that it was left out.
    listed : bool
        Whether the file's own index lists all these packets, so that one is known by its byte.
    broken_at : int or None
        The byte after which packets may be missing in the middle, where no index tells which.
    seeks : bool
        Whether decoding may begin elsewhere than at the beginning.
    """

    time_base: Fraction
    pts: NDArray[np.int64]
    dts: NDArray[np.int64]
    position: NDArray[np.int64]
    size: NDArray[np.int64]
    key: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    present: NDArray[np.bool_]
    by_stamps: bool
    packets_read: int
    cut_short: bool
    listed: bool = False
    broken_at: int | None = None
    seeks: bool = True

    @cached_property
    def frames(self) -> int:
        """Frames of the movie."""
        return int(self.shown.sum())

    @cached_property
    def packet_of_frame(self) -> NDArray[np.int64]:
        """Number of each frame's packet, (frame,); where frames are counted: in the order of decoding."""
        numbers = np.flatnonzero(self.shown)
        return numbers[np.argsort(self.pts[numbers], kind="stable")] if self.by_stamps else numbers

    @cached_property
    def frame_pts(self) -> NDArray[np.int64]:
        """Time of presentation of each frame, (frame,)."""
        return self.pts[self.packet_of_frame]

    @cached_property
    def built_on(self) -> NDArray[np.int64]:
        """The last frame, as they are shown, of those that are decoded before each, (frame,); -1: none."""
        order = np.argsort(self.packet_of_frame, kind="stable")
        latest = np.full(self.frames, -1, np.int64)
        latest[order[1:]] = np.maximum.accumulate(order)[:-1]
        return latest

    @cached_property
    def cuts(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Where decoding can begin: keyframes' packet numbers, and the first frame that is right from each on.

        What is shown before a keyframe but decoded after it may refer to frames before it, and belongs to the key
        before (an open group of pictures). A key before which a later frame is decoded is none.
        """
        keys = np.flatnonzero(self.key)
        if not self.by_stamps:
            return keys, np.searchsorted(self.packet_of_frame, keys)
        frames = np.searchsorted(self.frame_pts, self.pts[keys])
        earliest_after = np.minimum.accumulate(self.packet_of_frame[::-1])[::-1]
        sound = frames < self.frames
        sound[sound] = earliest_after[frames[sound]] >= keys[sound]
        return keys[sound], frames[sound]

    @cached_property
    def _by_time(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        order = np.argsort(self.pts, kind="stable")
        return self.pts[order], order

    @cached_property
    def all_keys(self) -> bool:
        """Whether each frame stands alone, in the order in which it is shown."""
        return bool((self.key | ~self.present).all()) and bool((np.diff(self.packet_of_frame) > 0).all())

    @cached_property
    def is_even(self) -> bool:
        """Whether frames follow each other by one step, up to the rounding of a container that counts ms."""
        steps = np.diff(self.frame_pts)
        allowed = 1 if self.mean_step >= 5 else 0
        return not len(steps) or int(steps.max() - steps.min()) <= allowed

    @property
    def counts_frames(self) -> bool:
        """Whether the times are no more than the numbers of the frames."""
        return self.by_stamps and self.is_even and self.mean_step <= 1

    @property
    def mean_step(self) -> Fraction:
        """Mean of the steps between frames, in units of `time_base`; 0 for a single frame."""
        if self.frames < 2:
            return Fraction(0)
        return Fraction(int(self.frame_pts[-1]) - int(self.frame_pts[0]), self.frames - 1)

    def stamps(self) -> Stamps:
        """Return the frames' times of presentation from the first one on, (frame,) int64 ns, exact to 1 ns."""
        ticks = self.frame_pts - self.frame_pts[0]
        # Whole seconds apart: ticks * 10^9 would not fit.
        whole, rest = np.divmod(ticks * self.time_base.numerator, self.time_base.denominator)
        ns = whole * NS + (rest * NS + self.time_base.denominator // 2) // self.time_base.denominator
        return Stamps(ns.astype(np.int64), absolute=False, origin="presentation times")

    def number_of(self, pts: int | None) -> int | None:
        """Return the number of the packet with this time of presentation."""
        times, order = self._by_time
        at = int(np.searchsorted(times, NO_TIME if pts is None else pts))
        return int(order[at]) if at < len(times) and int(times[at]) == pts else None

    def place_of(self, packet: Packet[VideoStream], expected: int) -> int | None:
        """Return the number of a packet that was read, of which `expected` would be the next; None: it is none."""
        if not self.listed:
            number = self.number_of(packet.pts) if self.by_stamps else None
            return expected if number is None else number
        at = int(self.position.searchsorted(-1 if packet.pos is None else packet.pos))
        there = at < len(self.position) and bool(self.present[at])
        return at if there and (self.position[at], self.size[at]) == (packet.pos, packet.size) else None

    def is_at(self, packet: Packet[VideoStream], number: int) -> bool:
        """Whether a packet that was read is where the one with this number is in the file."""
        return int(self.position[number]) in (-1, packet.pos)

    def missing_frames(self) -> list[int]:
        """Return the frames whose packets cannot be read where the file's index lists them."""
        return np.flatnonzero(~self.present[self.packet_of_frame]).tolist()

    def key_before(self, frame: int) -> tuple[int, int]:
        """Return where to begin for a frame: a packet number, and the first frame that is right from there on."""
        if not self.seeks:
            return (0, 0)
        keys, frames = self.cuts
        at = int(np.searchsorted(frames, frame, side="right")) - 1
        return (0, 0) if at < 0 else (int(keys[at]), int(frames[at]))

    def end_of_damage(self, packet: int) -> int:
        """Return the first frame that owes nothing to a damaged packet: that of the next key."""
        keys, frames = self.cuts
        at = int(np.searchsorted(keys, packet, side="right"))
        return int(frames[at]) if at < len(keys) else self.frames

    def uncut(self) -> MovieIndex:
        """Return the index of a movie that is only decoded from its beginning; itself if it is anyway."""
        if not self.by_stamps:
            return self
        key = np.zeros_like(self.key)
        key[:1] = True
        return replace(self, key=key)

    def from_start(self) -> MovieIndex:
        """Return the index of a movie in which seeking leads elsewhere; keyframes still end damage."""
        return replace(self, seeks=False)

    @cached_property
    def digest(self) -> str:
        """Return what tells whether a file still has the packets that it had: 16 hex digits."""
        found = xxhash.xxh3_64()
        for column in (self.pts, self.dts, self.position, self.size, self.key, self.shown, self.present):
            found.update(np.ascontiguousarray(column).tobytes())
        return str(found.hexdigest())


def read_index(movie: Movie) -> MovieIndex:
    """Go through all packets of a movie that was just opened: the whole file is read, nothing is decoded.

    Raises
    ------
    SourceReadError
        The operating system could not read.
    """
    listed = listed_packets(movie)
    context = movie.stream.codec_context
    codec = context.name
    macroblocks = (context.width // 16) * (context.height // 16)
    columns = array("q")  # six numbers a packet, in 48 bytes
    cut_short = False
    for packet in packets(movie):
        pts, dts, position = packet.pts, packet.dts, packet.pos
        columns.append(NO_TIME if pts is None else pts)
        columns.append(NO_TIME if dts is None else dts)
        columns.append(-1 if position is None else position)
        columns.append(packet.size)
        columns.append(packet.is_keyframe)
        columns.append(shows_a_frame(packet, codec, macroblocks))
        cut_short = packet.is_corrupt
    table = np.frombuffer(columns, np.int64).reshape(-1, 6)
    read = len(table)
    table = table[: read - cut_short]
    times = table[:, 0].copy()
    shown = table[:, 5].astype(bool)
    index = MovieIndex(
        time_base=movie.stream.time_base or Fraction(1, 1000),
        pts=times,
        dts=table[:, 1].copy(),
        position=table[:, 2].copy(),
        size=table[:, 3].copy(),
        key=table[:, 4].astype(bool),
        shown=shown,
        present=np.ones(len(table), bool),
        by_stamps=_tell_frames_apart(movie, times[shown]),
        packets_read=read,
        cut_short=cut_short,
        seeks=not SEEKS_NEAR & set(movie.container.format.name.split(",")),
    )
    return _compared(movie, index, listed) if movie.container.format.name == "avi" else index


def _compared(movie: Movie, index: MovieIndex, listed: ListedPackets | None) -> MovieIndex:
    """Compare what came out of an AVI with its own index: what is missing gets its place, or is known to have none.

    FFmpeg goes on after damage where it finds something like a packet, and numbers it as if none were missing.
    """
    numbers = None if listed is None else match_packets(listed, index.position, index.size)
    if listed is None or numbers is None:
        broken_at = first_break(movie, index.position, index.size)
        return replace(index, broken_at=broken_at, seeks=broken_at is None)
    if len(numbers) == len(listed.position) and (numbers == np.arange(len(numbers))).all():
        return replace(index, listed=True)
    context = movie.stream.codec_context
    macroblocks = (context.width // 16) * (context.height // 16)
    there = np.flatnonzero(numbers >= 0)
    shown = np.array([may_be_coded(context.name, int(size), macroblocks) for size in listed.size], bool)
    shown[numbers[there]] = index.shown[there]
    present = np.zeros(len(shown), bool)
    present[numbers[there]] = True
    return replace(
        index,
        pts=listed.tick,
        dts=listed.tick,
        position=listed.position,
        size=listed.size,
        key=listed.key & present,
        shown=shown,
        present=present,
        # Which of the packets are shown in another order than they are stored, only those that are there would tell.
        by_stamps=not context.has_b_frames and bool((np.diff(index.pts[index.shown]) > 0).all()),
        packets_read=len(shown),
        listed=True,
    )


def _tell_frames_apart(movie: Movie, pts: NDArray[np.int64]) -> bool:
    if not len(pts) or (pts == NO_TIME).any() or len(np.unique(pts)) != len(pts):
        return False
    timed = bool(TIMED & set(movie.container.format.name.split(",")))
    in_order = bool((np.diff(pts) > 0).all())
    return timed or not (in_order and movie.stream.codec_context.has_b_frames)
