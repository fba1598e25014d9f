"""Movies that this process has open: their indexes, and a few decoders that wait where they were left."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ingest.sources.plain_file import version_of
from ingest.sources.video_decode import Decoder
from ingest.sources.video_file import Movie, read_errors
from ingest.sources.video_index import MovieIndex, read_index

__all__ = ["KnownMovie", "known_movie", "lend_decoder", "release_movies"]

MAX_IDLE_DECODERS = 4
MAX_KNOWN_MOVIES = 8

Key = tuple[str, int, int, int, int, bool, bool, bool]
"""Path, device, inode, size in bytes, mtime in ns; whether it may be cut, is decoded strictly, and may be sought in."""


@dataclass
class KnownMovie:
    """A file whose packets this process has gone through.

    Attributes
    ----------
    key : tuple
        What tells the file from what it is when it was written anew.
    index : MovieIndex
        Its packets.
    lost : set of int
        Frames that did not decode, so that a second failure is known to be one.
    """

    key: Key
    index: MovieIndex
    lost: set[int] = field(default_factory=set)

    @property
    def path(self) -> str:
        """The file."""
        return self.key[0]


class Stock:
    """What one process holds; a child that it forks begins with an empty one."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.indexing = threading.Lock()
        self.movies: OrderedDict[Key, KnownMovie] = OrderedDict()
        self.idle: list[tuple[Key, Decoder]] = []  # the one that was used last is the last


_stock = Stock()
_inherited: list[Stock] = []


def _leave_inherited() -> None:
    """After a fork: forget the parent's decoders without closing them; they share its file offsets, and its locks."""
    global _stock
    _inherited.append(_stock)
    _stock = Stock()


os.register_at_fork(after_in_child=_leave_inherited)


def known_movie(path: str, *, cut: bool, strict: bool, seek: bool) -> KnownMovie:
    """Return what is known of a movie; its packets are gone through at the first time, and when the file is another.

    Parameters
    ----------
    path : str
        The file, absolute.
    cut : bool
        Whether decoding may begin at its keyframes.
    strict : bool
        As in `Movie`.
    seek : bool
        Whether seeking led to its keyframes when it was inspected.

    Raises
    ------
    SourceError
        As `Movie` and `read_index`.
    """
    stock = _stock
    key = (path, *version_of(path), cut, strict, seek)
    with stock.indexing:  # so that threads that begin together do not all do it
        found = stock.movies.get(key)
        if found is None:
            with Movie(path) as movie, read_errors(path):
                index = read_index(movie)
            index = index if seek else index.from_start()
            found = KnownMovie(key, index if cut else index.uncut())
            with stock.lock:
                stock.movies[key] = found
                _forget_stale(stock, key)
        with stock.lock:
            stock.movies.move_to_end(key)
    return found


def _forget_stale(stock: Stock, key: Key) -> None:
    """Let go of what a file was before, and of the movies that were not used for the longest time."""
    for old in [old for old in stock.movies if old[0] == key[0] and old[:5] != key[:5]]:
        del stock.movies[old]
    while len(stock.movies) > MAX_KNOWN_MOVIES:
        stock.movies.popitem(last=False)
    kept = []
    for entry in stock.idle:
        if entry[0] in stock.movies:
            kept.append(entry)
        else:
            entry[1].close()
    stock.idle = kept


@contextmanager
def lend_decoder(movie: KnownMovie, frame: int) -> Iterator[Decoder]:
    """Lend a decoder of a movie for this thread alone, if possible one that stands shortly before a frame.

    Parameters
    ----------
    movie : KnownMovie
        The movie.
    frame : int
        Which will be decoded first.

    Yields
    ------
    Decoder
        Kept for the next one, unless the block raises. Up to 4 are kept, each with its decoder's own frames.
    """
    decoder = _take(movie, frame) or Decoder(movie.path, movie.index, strict=movie.key[6])
    try:
        yield decoder
    except BaseException:
        decoder.close()
        raise
    stock = _stock
    with stock.lock:
        stock.idle.append((movie.key, decoder))
        surplus = stock.idle[:-MAX_IDLE_DECODERS]
        stock.idle = stock.idle[-MAX_IDLE_DECODERS:]
    for _, old in surplus:
        old.close()


def _take(movie: KnownMovie, frame: int) -> Decoder | None:
    stock = _stock
    with stock.lock:
        own = [i for i, (key, _) in enumerate(stock.idle) if key == movie.key]
        best = max(
            (i for i in own if stock.idle[i][1].reaches(frame)), key=lambda i: stock.idle[i][1].position, default=None
        )
        if best is None and len(own) == MAX_IDLE_DECODERS:
            best = own[0]
        return None if best is None else stock.idle.pop(best)[1]


def release_movies() -> None:
    """Close every decoder that this process keeps, and forget all indexes."""
    stock = _stock
    with stock.lock:
        idle, stock.idle = stock.idle, []
        stock.movies.clear()
    for _, decoder in idle:
        decoder.close()
