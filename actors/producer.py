"""The caller's side of a live stream: the window between push and durable, and what became of each chunk."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from ingest.errors import FrameDataError, SettingsError, StreamerError
from ingest.journal import LiveSettings

__all__ = ["ProducedStream", "PushWindow"]


class PushWindow:
    """How much may be on its way between ``push`` and durable; for threads.

    Parameters
    ----------
    chunks : int
        At most so many at once.
    n_bytes : int
        At most so many bytes at once; one chunk that is larger is admitted alone.
    """

    def __init__(self, chunks: int, n_bytes: int) -> None:
        if chunks < 1:
            raise SettingsError(f"a window of {chunks} chunks lets nothing through", hint="pass 1 or more")
        self._chunks = chunks
        self._bytes = n_bytes
        self._held = 0
        self._held_bytes = 0
        self._changed = threading.Condition()

    def _fits(self, n_bytes: int) -> bool:
        return self._held == 0 or (self._held < self._chunks and self._held_bytes + n_bytes <= self._bytes)

    def admit(self, n_bytes: int, *, block: bool) -> bool:
        """Take room for a chunk, waiting for it if `block`; return whether there is room."""
        with self._changed:
            if not block and not self._fits(n_bytes):
                return False
            self._changed.wait_for(lambda: self._fits(n_bytes))
            self._held += 1
            self._held_bytes += n_bytes
            return True

    def give_back(self, n_bytes: int) -> None:
        """Give back what `admit` took."""
        with self._changed:
            self._held -= 1
            self._held_bytes -= n_bytes
            self._changed.notify_all()

    def wait_empty(self, timeout_s: float | None) -> bool:
        """Wait until everything admitted was given back; return whether it was."""
        with self._changed:
            return self._changed.wait_for(lambda: self._held == 0, timeout_s)

    @property
    def held(self) -> tuple[int, int]:
        """Chunks and bytes that are on their way."""
        with self._changed:
            return self._held, self._held_bytes


class ProducedStream:
    """One stream of this process: what was pushed, and what is known of it here. For threads.

    Parameters
    ----------
    key, data_id : str
        In the journal and at the platform.
    settings : StreamSettings or TimeseriesSettings
        What it was created with.
    window : PushWindow
        Shared by all pushes into it.
    """

    def __init__(
        self,
        key: str,
        data_id: str,
        settings: LiveSettings,
        window: PushWindow,
    ) -> None:
        self.key = key
        self.data_id = data_id
        self.settings = settings
        self.window = window
        self._lock = threading.Condition()
        self._seq = 0
        self._next_index = 0
        self._next_chunk: dict[str, int] = {}
        self._frame_shape: tuple[int, int] | None = None
        self._on_their_way: dict[int, str] = {}
        self._accepted: set[int] = set()
        self._lost: dict[int, str] = {}
        self._versions_lost: list[tuple[int, str]] = []
        self._is_finalized = False
        self._warned: set[str] = set()
        self.pushed = 0
        self.acknowledged = 0

    def begin(self, index: int | None, name: str) -> tuple[int, int]:
        """Enter a push; return its number in the order of pushes, and its index (that number if it has none).

        Raises
        ------
        StreamerError
            `finalize` was called.
        """
        with self._lock:
            if self._is_finalized:
                raise StreamerError(
                    f"stream {self.data_id} takes no {name}: finalize was called",
                    hint="call initialize for a new stream",
                )
            seq = self._seq
            self._seq += 1
            self.pushed += 1
            index = seq if index is None else index
            self._next_index = max(self._next_index, index + 1)
            self._on_their_way[seq] = name
            return seq, index

    def check_frame_shape(self, index: int, shape: tuple[int, int]) -> None:
        """Hold all frames to the height and width of the first, where one array is to take them.

        Raises
        ------
        FrameDataError
            Those of chunk `index` are another; it is a ValueError.
        """
        with self._lock:
            self._frame_shape = known = self._frame_shape or shape
        if shape != known:
            raise FrameDataError(
                f"stream {self.data_id}, chunk {index}: frames of {shape} (y, x); the stream's first are of {known}",
                hint="call initialize for a new stream",
            )

    def withdraw(self, seq: int) -> None:
        """Forget a push that raised before its chunk was on its way; nothing if it is settled."""
        with self._lock:
            if self._on_their_way.pop(seq, None) is not None:
                self.pushed -= 1
                self._lock.notify_all()

    def accept(self, seq: int, index: int, refused: str | None = None) -> None:
        """Note that a push is durable, or `refused` by the platform: it is expected from now on."""
        with self._lock:
            self._on_their_way.pop(seq, None)
            self.acknowledged += 1
            if refused is not None and index in self._accepted:
                self._versions_lost.append((index, f"a later version: {refused}"))
            self._accepted.add(index)
            self._lost.pop(index, None)
            self._lock.notify_all()

    def drop(self, seq: int, index: int, reason: str) -> None:
        """Note that a push was given up before it was durable; an earlier version of its chunk stays."""
        with self._lock:
            name = self._on_their_way.pop(seq, f"chunk {index}")
            self.acknowledged += 1
            if index in self._accepted:
                self._versions_lost.append((index, f"{name}: a later version was dropped: {reason}"))
            else:
                self._lost[index] = f"{name}: dropped: {reason}"
            self._lock.notify_all()

    def finalize(self) -> None:
        """Take no more pushes. Safe to repeat."""
        with self._lock:
            self._is_finalized = True

    def expected(self) -> tuple[set[int], dict[int, str]]:
        """Return the indices that are expected, dropped ones included, and why those were dropped."""
        with self._lock:
            return self._accepted | set(self._lost), dict(self._lost)

    def versions_lost(self) -> list[tuple[int, str]]:
        """Return the chunks of which an earlier version stays, since a later one was refused or dropped, and why."""
        with self._lock:
            return list(self._versions_lost)

    def wait_settled(self, timeout_s: float | None) -> bool:
        """Wait until every push is durable or lost; return whether it is."""
        with self._lock:
            return self._lock.wait_for(lambda: not self._on_their_way, timeout_s)

    def next_index(self) -> int:
        """Return the least index above all that were pushed, those on their way included."""
        with self._lock:
            return self._next_index

    def note_chunk(self, channels: Iterable[str], chunk_index: int) -> None:
        """Note that a chunk of some channels was pushed."""
        with self._lock:
            for channel in channels:
                self._next_chunk[channel] = max(self._next_chunk.get(channel, 0), chunk_index + 1)

    def next_chunk(self, channel: str) -> int:
        """Return the least chunk index above all that were pushed of a channel."""
        with self._lock:
            return self._next_chunk.get(channel, 0)

    def on_their_way(self) -> list[str]:
        """Return the names of the pushes that are not durable yet."""
        with self._lock:
            return list(self._on_their_way.values())

    def first_time(self, what: str) -> bool:
        """Return whether this is asked for the first time of `what`."""
        with self._lock:
            if what in self._warned:
                return False
            self._warned.add(what)
            return True
