"""Ctrl-C and SIGTERM as an event: what is under way ends in good order, and a second one ends it at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import click

__all__ = ["stop_on_signals"]


@contextmanager
def stop_on_signals(said: str) -> Iterator[threading.Event]:
    """Turn the first SIGINT or SIGTERM into an event, saying so on stderr; the second one ends the program at once.

    Parameters
    ----------
    said : str
        What happens now.
    """
    stop = threading.Event()

    def handle(_number: int, _frame: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        click.echo(f"{said}; once more to leave at once", err=True)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
