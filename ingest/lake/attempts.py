"""What all stores share: a call is tried until it succeeds, is refused, or its time is up; data is counted first."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

import google_crc32c

from ingest.errors import DestinationError, LakeDamagedError, SettingsError, UnreachableError
from ingest.lake.store import check_object_name
from ingest.retry import Failure, FailureKind, RetryPolicy, next_wait_s

__all__ = [
    "PART_SUFFIX",
    "RESUME_HINT",
    "AttemptFailedError",
    "Attempts",
    "checked_crc32c",
    "checked_name",
    "is_part",
    "resolve_range",
]

T = TypeVar("T")
PART_SUFFIX = ".part"
RESUME_HINT = "run the same command again once it answers: it resumes"

logger = logging.getLogger("rheed_ingest")


class AttemptFailedError(Exception):
    """One attempt failed and another may not; never leaves `ingest.lake`.

    Attributes
    ----------
    failure : Failure
        How.
    hint : str or None
        What would help.
    """

    def __init__(
        self, detail: str, *, status: int | None = None, wait_s: float | None = None, hint: str | None = None
    ) -> None:
        super().__init__(detail)
        kind = FailureKind.CONNECTION if status is None else FailureKind.STATUS
        self.failure = Failure(kind, status, wait_s, detail)
        self.hint = hint


class Attempts:
    """Tries calls of one store as long as a policy says.

    Parameters
    ----------
    shown : str
        The store, for messages.
    explain : callable
        Takes what was asked and what was raised, and returns an `AttemptFailedError` or an error of ours.
    policy : RetryPolicy, optional
        For how long.
    clock : callable
        Monotonic seconds.
    sleep : callable, optional
        Waits so many seconds; by default until `close` at most.
    rng : random.Random, optional
        Throws the dice for the waits.
    """

    def __init__(
        self,
        shown: str,
        explain: Callable[[str, Exception], AttemptFailedError | DestinationError],
        policy: RetryPolicy | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._shown = shown
        self._explain = explain
        self._policy = policy or RetryPolicy()
        self._clock = clock
        self._closed = threading.Event()
        self._sleep = sleep or self._closed.wait
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret

    def close(self) -> None:
        """End every wait: those calls then fail. Safe to repeat."""
        self._closed.set()

    def run(self, asked: str, attempt: Callable[[], T]) -> T:
        """Return what `attempt` returns, once it does.

        Parameters
        ----------
        asked : str
            What it is for, as an infinitive: ``"put 'a/b' (12 bytes)"``.
        attempt : callable
            Safe to repeat.

        Raises
        ------
        UnreachableError
            It failed for as long as the policy says, or the store was closed meanwhile.
        DestinationError
            What it was refused for.
        """
        began_s, number = self._clock(), 0
        while True:
            number += 1
            try:
                return attempt()
            except DestinationError:
                raise
            except Exception as error:
                failed = error if isinstance(error, AttemptFailedError) else self._explain(asked, error)
                if not isinstance(failed, AttemptFailedError):
                    raise failed from error
                elapsed_s = self._clock() - began_s
                wait_s = next_wait_s(self._policy, failed.failure, number, elapsed_s, self._rng.random())
                if wait_s is None or self._closed.is_set():
                    tried = f"{number} attempt{'s' * (number > 1)} in {elapsed_s:.0f} s"
                    raise UnreachableError(
                        f"{self._shown}: could not {asked}: {failed} ({tried})", hint=failed.hint or RESUME_HINT
                    ) from error
            log = logger.warning if number == 1 else logger.info
            log("%s: could not %s: %s; trying again in %.1f s", self._shown, asked, failed, wait_s)
            self._sleep(wait_s)


def is_part(name: str) -> bool:
    """Return whether a name is one of those that objects have while they are written."""
    last = name.rpartition("/")[2]
    return last.startswith(".") and last.endswith(PART_SUFFIX)


def checked_name(name: str) -> str:
    """Return an object's name.

    Raises
    ------
    SettingsError
        It is none, or one that listings hide.
    """
    if is_part(check_object_name(name)):
        raise SettingsError(f"{name!r} is a name that objects have only while they are written")
    return name


def checked_crc32c(shown: str, name: str, data: Sequence[bytes], promised: int | None) -> int:
    """Count the CRC-32C of an object's parts.

    Raises
    ------
    LakeDamagedError
        It is not the promised one: the bytes changed since they were made.
    """
    crc = 0
    for part in data:
        crc = google_crc32c.extend(crc, part)
    if promised is not None and crc != promised:
        raise LakeDamagedError(
            f"{shown}: the bytes for {name!r} have the CRC-32C {crc:08x}, not {promised:08x} as when they were made; "
            "nothing was stored",
            hint="run the same command again; if it happens again, test this machine's memory",
        )
    return int(crc)


def resolve_range(start: int, stop: int | None, n_bytes: int) -> tuple[int, int]:
    """Return which of `n_bytes` bytes Python's slice means; the second number is never below the first."""
    first, last, _ = slice(start, stop).indices(n_bytes)
    return first, max(first, last)
