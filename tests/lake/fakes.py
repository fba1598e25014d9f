"""A clock that only `sleep` moves."""

from __future__ import annotations


class FakeTime:
    """Monotonic seconds, and every wait that was asked for."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.waits_s: list[float] = []

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        self.waits_s.append(seconds)
        self.now_s += seconds
