"""Secrets stay secret, events reach their hooks."""

from __future__ import annotations

import copy
import logging
import pickle

import pytest

from ingest.telemetry import Event, Secret, Telemetry, redact_url


def test_a_secret_is_shown_by_nothing() -> None:
    secret = Secret("sk-1")
    for text in (
        repr(secret),
        str(secret),
        f"{secret}",
        f"{secret!r}",
        repr([secret]),
        str({1: secret}),
    ):
        assert "sk-1" not in text
    assert not hasattr(secret, "__dict__")


def test_a_secret_pickles_and_copies() -> None:
    secret = Secret("sk-1")
    assert pickle.loads(pickle.dumps(secret)).reveal() == "sk-1"
    assert copy.deepcopy(secret) == secret
    assert hash(Secret("sk-1")) == hash(secret)
    assert Secret("sk-2") != secret
    assert secret != "sk-1"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://u:p@h:8/a/b?X-Amz-Signature=1#f", "https://h:8/a/b"),
        ("https://h", "https://h"),
        ("s3://bucket/key?versionId=3", "s3://bucket/key"),
        ("/plain/path.h5", "/plain/path.h5"),
    ],
)
def test_urls_lose_what_may_be_secret(url: str, shown: str) -> None:
    assert redact_url(url) == shown


def test_events_reach_every_hook_in_order(caplog: pytest.LogCaptureFixture) -> None:
    first: list[Event] = []
    second: list[Event] = []
    telemetry = Telemetry(first.append)
    telemetry.emit("chunk_put", "s1", 3, "12 bytes")
    telemetry.add(second.append)
    with caplog.at_level(logging.DEBUG, "rheed_ingest"):
        telemetry.emit("stream_closed", "s1")
    assert first == [Event("chunk_put", "s1", 3, "12 bytes"), Event("stream_closed", "s1")]
    assert second == first[1:]
    assert "stream_closed s1" in caplog.text


def test_what_a_hook_raises_reaches_the_caller() -> None:
    def broken(_event: Event) -> None:
        raise KeyError("broken")

    with pytest.raises(KeyError, match="broken"):
        Telemetry(broken).emit("chunk_put", "s1")
