"""The retry predicate against PROTOCOL.md's table, and its budget against any sequence of failures."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import SettingsError
from ingest.retry import Failure, FailureKind, RetryPolicy, is_final, next_wait_s

POLICY = RetryPolicy()
STATUS = FailureKind.STATUS

RETRIED = [
    Failure(FailureKind.CONNECTION),
    Failure(FailureKind.GARBLED),
    Failure(FailureKind.GARBLED, 200),
    *(Failure(STATUS, status) for status in (408, 429, 500, 501, 502, 503, 504, 507, 599)),
    Failure(STATUS, 400, detail="RequestTimeout: Your socket connection was not read from in time"),
    *(Failure(FailureKind.UPLOAD, status) for status in (None, 200, 307, 400, 403, 404, 409, 412, 500, 503)),
]
FINAL = [
    *(Failure(STATUS, s) for s in (301, 307, 400, 401, 402, 403, 404, 405, 409, 410, 413, 415, 422, 451)),
    Failure(FailureKind.UPLOAD, 413),
]

failures = st.builds(
    Failure,
    st.sampled_from(FailureKind),
    st.none() | st.integers(300, 599),
    st.none() | st.floats(0, 1e6),
    st.sampled_from(["", "RequestTimeout"]),
)
jitters = st.floats(0, 1, exclude_max=True)


@pytest.mark.parametrize("failure", RETRIED, ids=str)
def test_retries_what_may_pass(failure: Failure) -> None:
    assert not is_final(failure)
    assert next_wait_s(POLICY, failure, 1, 0.0, 0.999) == pytest.approx(0.5, rel=1e-2)


@pytest.mark.parametrize("failure", FINAL, ids=str)
def test_gives_up_at_once_on_a_final_answer(failure: Failure) -> None:
    assert is_final(failure)
    assert next_wait_s(POLICY, failure, 1, 0.0, 0.5) is None


def test_doubles_from_half_a_second_to_thirty() -> None:
    most = [next_wait_s(POLICY, Failure(FailureKind.CONNECTION), n, 0.0, math.nextafter(1, 0)) for n in range(1, 10)]
    assert most == pytest.approx([0.5, 1, 2, 4, 8, 16, 30, 30, 30])
    least = [next_wait_s(POLICY, Failure(FailureKind.CONNECTION), n, 0.0, 0.0) for n in range(1, 10)]
    assert least == pytest.approx([0.25, 0.5, 1, 2, 4, 8, 15, 15, 15])


def test_never_comes_back_before_retry_after_even_above_the_most() -> None:
    assert next_wait_s(POLICY, Failure(STATUS, 503, retry_after_s=120.0), 1, 0.0, 0.5) == 120.0
    assert next_wait_s(POLICY, Failure(STATUS, 429, retry_after_s=0.0), 1, 0.0, 0.0) == 0.25
    assert next_wait_s(POLICY, Failure(STATUS, 503, retry_after_s=3.0), 9, 0.0, 0.0) == 15.0


def test_retry_after_does_not_soften_a_final_answer() -> None:
    assert next_wait_s(POLICY, Failure(STATUS, 403, retry_after_s=1.0), 1, 0.0, 0.5) is None


def test_makes_the_last_attempt_when_the_budget_ends() -> None:
    busy = Failure(STATUS, 503, retry_after_s=120.0)
    assert next_wait_s(POLICY, busy, 7, 890.0, 0.5) == pytest.approx(10.0)
    assert next_wait_s(POLICY, busy, 8, 900.0, 0.5) is None
    assert next_wait_s(RetryPolicy(retry_for_s=0), busy, 1, 0.0, 0.5) is None


def test_an_infinite_budget_never_ends() -> None:
    assert next_wait_s(RetryPolicy(retry_for_s=math.inf), Failure(STATUS, 503), 10**6, 1e12, 0.0) == 15.0


@given(failures, st.integers(1, 10**6), st.floats(0, 1e4), jitters)
def test_waits_within_the_budget_or_not_at_all(failure: Failure, attempt: int, elapsed_s: float, jitter: float) -> None:
    wait_s = next_wait_s(POLICY, failure, attempt, elapsed_s, jitter)
    if is_final(failure) or elapsed_s >= POLICY.retry_for_s:
        assert wait_s is None
    else:
        assert wait_s is not None
        assert 0 <= wait_s <= POLICY.retry_for_s - elapsed_s
        least = min(POLICY.retry_for_s - elapsed_s, failure.retry_after_s or 0.0)
        assert wait_s >= least


@given(st.lists(failures, min_size=1, max_size=200), st.data(), st.floats(0, 1000))
def test_waits_in_total_no_longer_than_the_budget(seen: list[Failure], data: st.DataObject, budget_s: float) -> None:
    policy = RetryPolicy(retry_for_s=budget_s)
    total_s = 0.0
    for attempt, failure in enumerate(seen, 1):
        wait_s = next_wait_s(policy, failure, attempt, total_s, data.draw(jitters))
        if wait_s is None:
            break
        total_s += wait_s
    assert total_s <= budget_s + 1e-6


@pytest.mark.parametrize("field", ["first_s", "max_s", "retry_for_s"])
@pytest.mark.parametrize("value", [-1.0, math.nan])
def test_refuses_a_policy_that_is_none(field: str, value: float) -> None:
    with pytest.raises(SettingsError, match=field):
        RetryPolicy(**{field: value})


def test_refuses_an_infinite_wait() -> None:
    with pytest.raises(SettingsError, match="retry_for_s"):
        RetryPolicy(max_s=math.inf)


@pytest.mark.parametrize(
    ("failure", "may"),
    [
        (Failure(FailureKind.CONNECTION), True),
        (Failure(FailureKind.GARBLED), True),
        (Failure(STATUS, 502), True),
        (Failure(STATUS, 503), False),
        (Failure(STATUS, 429), False),
        (Failure(STATUS, 404), False),
    ],
    ids=str,
)
def test_knows_what_may_have_happened_all_the_same(failure: Failure, may: bool) -> None:
    assert failure.may_have_happened is may
