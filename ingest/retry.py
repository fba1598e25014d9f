"""One predicate: give up, or wait so long (PROTOCOL.md "Failures"). Pure: clock, dice and sleep are the caller's."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from ingest.errors import SettingsError

__all__ = ["Failure", "FailureKind", "RetryPolicy", "is_final", "next_wait_s"]

MAX_DOUBLINGS = 60

TOO_LARGE = 413
RETRIED_STATUS = frozenset({408, 429})
STALLED_BODY = "RequestTimeout"
"""S3's code for a body that stalled; it comes as a 400."""

# 502 and 504 are a gateway's: what stands behind it may have done the work all the same.
UNSURE_STATUS = frozenset({500, 502, 504})


class FailureKind(StrEnum):
    """What an attempt failed of."""

    CONNECTION = "connection"
    """No answer: no connection, a time-out, a reset."""
    STATUS = "status"
    """An API call was answered with a status that is not 2xx."""
    GARBLED = "garbled"
    """A 2xx whose body is not what was promised."""
    UPLOAD = "upload"
    """A presigned PUT failed, in whatever way; the next attempt takes a fresh URL."""


@dataclass(frozen=True, slots=True)
class Failure:
    """How one attempt failed.

    Attributes
    ----------
    kind : FailureKind
        What it failed of.
    status : int or None
        The HTTP status, where there was one.
    retry_after_s : float or None
        What the server asked for, in seconds from now.
    detail : str
        For people, and free of secrets: the answer's text, or what the network said.
    """

    kind: FailureKind
    status: int | None = None
    retry_after_s: float | None = None
    detail: str = ""

    @property
    def may_have_happened(self) -> bool:
        """Whether the server may have done what was asked, although no proper answer came."""
        if self.kind is FailureKind.STATUS:
            return self.status in UNSURE_STATUS
        return True

    def __str__(self) -> str:
        status = "" if self.status is None else f"{self.kind} {self.status}"
        return ": ".join(part for part in (status or str(self.kind), self.detail) if part)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long, and how often, to try.

    Attributes
    ----------
    first_s : float, default 0.5
        The wait after the first failure, in seconds; it doubles with each further one.
    max_s : float, default 30
        The most that doubling reaches, in seconds. ``Retry-After`` may ask for more.
    retry_for_s : float, default 900
        The whole budget in seconds, from the start of the first attempt; 0: one attempt, ``inf``: for ever.

    Raises
    ------
    SettingsError
        A value that is negative or not a number.
    """

    first_s: float = 0.5
    max_s: float = 30.0
    retry_for_s: float = 900.0

    def __post_init__(self) -> None:
        for name, value in (("first_s", self.first_s), ("max_s", self.max_s), ("retry_for_s", self.retry_for_s)):
            if math.isnan(value) or value < 0:
                raise SettingsError(f"a retry policy with {name}={value!r}: seconds are 0 or more")
        if not math.isfinite(self.first_s) or not math.isfinite(self.max_s):
            raise SettingsError("a retry policy with an infinite wait: only the budget, retry_for_s, may be inf")


def is_final(failure: Failure) -> bool:
    """Return whether asking again is useless: a 3xx or 4xx of an API call, but for 408, 429 and S3's 400.

    Of a presigned PUT, only 413 is: whatever else it failed of may be the URL's fault, and the next one is fresh.
    """
    if failure.kind is FailureKind.UPLOAD:
        return failure.status == TOO_LARGE
    if failure.kind is not FailureKind.STATUS or failure.status is None:
        return False
    if failure.status in RETRIED_STATUS or failure.status >= 500:
        return False
    return not (failure.status == 400 and STALLED_BODY in failure.detail)


def next_wait_s(policy: RetryPolicy, failure: Failure, attempt: int, elapsed_s: float, jitter: float) -> float | None:
    """Return how long to wait before the next attempt; None: give up.

    Parameters
    ----------
    policy : RetryPolicy
        The budget.
    failure : Failure
        How the attempt failed.
    attempt : int
        Its number, from 1.
    elapsed_s : float
        Seconds since the first attempt began.
    jitter : float
        A throw of the dice in [0, 1): the wait lies between half the doubled time and the whole, so that many clients
        do not come back at one moment.

    Returns
    -------
    float or None
        Seconds, never more than what is left of the budget: the last attempt is made when it ends.
    """
    left_s = policy.retry_for_s - elapsed_s
    if is_final(failure) or left_s <= 0:
        return None
    doubled_s = min(policy.max_s, policy.first_s * 2.0 ** min(attempt - 1, MAX_DOUBLINGS))
    wait_s = doubled_s * (0.5 + 0.5 * jitter)
    return min(left_s, max(wait_s, failure.retry_after_s or 0.0))
