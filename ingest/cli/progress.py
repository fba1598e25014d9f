"""How far a job is: bars on a terminal, a line now and then elsewhere; all on stderr."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ingest.journal import StreamRow

__all__ = ["JobProgress"]

LINE_EVERY_S = 5.0


class JobProgress:
    """Draws what `run_backfill` shows it; a context manager.

    Parameters
    ----------
    console : Console
        Where to; bars if it is a terminal.
    clock : callable
        Monotonic seconds.
    """

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began_s: float | None = None
        self._base_bytes = 0.0
        self._last_line_s = clock()
        self._tasks: dict[str, TaskID] = {}
        self._bars: Progress | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f} frames"),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def show(self, rows: Sequence[StreamRow]) -> None:
        """Draw the state of all runs."""
        now_s = self._clock()
        done_bytes = sum(row.bytes_in * _share(row) for row in rows)
        if self._began_s is None:
            self._began_s, self._base_bytes = now_s, done_bytes
        seconds = now_s - self._began_s
        rate = (done_bytes - self._base_bytes) / 1e6 / seconds if seconds > 0.5 else 0.0
        if self._bars is None:
            self._line(rows, rate, now_s)
        else:
            self._draw(self._bars, rows, rate)

    def _draw(self, bars: Progress, rows: Sequence[StreamRow], rate: float) -> None:
        ended = sum(row.end is not None for row in rows)
        frames, total = sum(row.frames * _share(row) for row in rows), sum(row.frames for row in rows)
        self._bar(bars, "all", f"{ended}/{len(rows)} runs", frames, total, f"{rate:.0f} MB/s")
        for row in rows:
            if len(rows) > 1 and row.end is None and (row.confirmed or row.key in self._tasks):
                self._bar(bars, row.key, row.name[:32], row.frames * _share(row), row.frames, "")
            elif row.key in self._tasks and row.end is not None:
                bars.remove_task(self._tasks.pop(row.key))

    def _bar(self, bars: Progress, key: str, text: str, done: float, total: float, rate: str) -> None:
        if key not in self._tasks:
            self._tasks[key] = bars.add_task(text, total=total, rate=rate)
        bars.update(self._tasks[key], description=text, completed=done, total=total, rate=rate)

    def _line(self, rows: Sequence[StreamRow], rate: float, now_s: float) -> None:
        if now_s - self._last_line_s < LINE_EVERY_S:
            return
        self._last_line_s = now_s
        ended = sum(row.end is not None for row in rows)
        frames, total = sum(row.frames * _share(row) for row in rows), sum(row.frames for row in rows)
        left_bytes = sum(row.bytes_in * (1 - _share(row)) for row in rows)
        eta = f", {left_bytes / 1e6 / rate:.0f} s left" if rate > 0 else ""
        self._console.print(
            f"{ended} of {len(rows)} runs, {frames:.0f} of {total} frames, {rate:.0f} MB/s{eta}", highlight=False
        )


def _share(row: StreamRow) -> float:
    return row.confirmed / row.chunks if row.chunks else 0.0
