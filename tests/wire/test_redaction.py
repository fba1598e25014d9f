"""Neither the key nor a signature shows in anything that people read."""

from __future__ import annotations

import asyncio
import logging
import traceback

import httpx
import pytest

from ingest.errors import DestinationError
from ingest.retry import RetryPolicy
from ingest.telemetry import Secret
from ingest.wire.client import PlatformClient
from ingest.wire.failures import MAX_TEXT_CHARS, answer_text, redact
from tests.wire.fakes import ENDPOINT, KEY, META, SHARD, SIGNATURE, Answer, FakePlatform, Rig, ok, refuse

S3_BODY = f"""<?xml version="1.0"?><Error><Code>SignatureDoesNotMatch</Code><Message>not the one</Message>
<AWSAccessKeyId>AKIA1</AWSAccessKeyId><StringToSign>{KEY}</StringToSign><SignatureProvided>{SIGNATURE}</SignatureProvided></Error>"""

ANSWERS: list[Answer] = [
    httpx.Response(403, text=S3_BODY),
    httpx.Response(403, text=f"bad https://store.test/k?X-Amz-Signature={SIGNATURE}1&a=b"),
    httpx.Response(500, text=f"X-Amz-Credential=AKIA1&X-Amz-Signature={SIGNATURE} key {KEY}"),
    httpx.Response(307, headers={"location": f"https://else.test/k?X-Amz-Signature={SIGNATURE}"}),
    httpx.ConnectError(f"cannot reach https://store.test/k?X-Amz-Signature={SIGNATURE}1 with {KEY}"),
]


def assert_clean(text: str) -> None:
    for secret in (KEY, SIGNATURE, "AKIA1"):
        assert secret not in text


@pytest.mark.parametrize("answer", ANSWERS, ids=repr)
@pytest.mark.parametrize("where", ["PUT", "POST"])
def test_nothing_readable_holds_a_secret(answer: Answer, where: str, caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(RetryPolicy(retry_for_s=2))
    rig.platform.streams["s0"] = "x"
    rig.platform.plan(where, ".*", *[answer] * 20)
    with caplog.at_level(0), pytest.raises(DestinationError) as caught:
        asyncio.run(rig.client.put_shard("s0", 0, META, SHARD))
    assert_clean("".join(traceback.format_exception(caught.value)))
    assert_clean(repr(caught.value) + str(caught.value.hint))
    assert_clean("".join(map(str, rig.events)))
    assert_clean(caplog.text)
    assert_clean(repr(rig.client))


def test_httpx_logs_our_requests_without_their_query(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.platform.streams["s0"] = "x"
    with caplog.at_level(logging.DEBUG):
        asyncio.run(rig.client.put_shard("s0", 0, META, SHARD))
    assert "PUT https://store.test/s0/frames.zarr/frames/c/0/0/0 " in caplog.text
    assert_clean(caplog.text)


def test_the_requests_of_others_are_logged_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    asyncio.run(Rig().client.server_time())

    with (
        caplog.at_level(logging.INFO, "httpx"),
        httpx.Client(transport=httpx.MockTransport(lambda _: ok({}))) as other,
    ):
        other.get("https://other.test/?page=2")
    assert "https://other.test/?page=2" in caplog.text


def test_the_text_of_a_refusal_is_one_line_of_500_characters() -> None:
    text = answer_text(("line\n" * 400).encode())
    assert len(text) == MAX_TEXT_CHARS
    assert "\n" not in text
    assert answer_text(b"\xff\xfe") == "\ufffd\ufffd"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b'{"detail": "no such stream"}', "no such stream"),
        (b'{"detail": [{"loc": "x"}]}', '{"detail": [{"loc": "x"}]}'),
        (b"[1]", "[1]"),
        (b"<html>502</html>", "<html>502</html>"),
        (b"", ""),
    ],
)
def test_says_the_detail_of_a_refusal_or_else_its_whole_text(content: bytes, text: str) -> None:
    assert answer_text(content) == text


def test_a_key_cut_by_the_limit_does_not_show_either() -> None:
    text = answer_text(("x" * (MAX_TEXT_CHARS - 5) + KEY).encode(), KEY)
    assert "sk-" not in text


def test_redacts_queries_and_signed_parameters() -> None:
    assert redact("see http://h/p?a=b&c=d, or") == "see http://h/p or"
    assert redact("token=abc&x=1") == "token=***&x=1"
    assert redact("abc", "") == "abc"


def test_a_garbled_upload_url_is_not_quoted(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()
    rig.platform.plan("POST", ".*", ok({"url": f"ftp://h/?X-Amz-Signature={SIGNATURE}"}), refuse(401, KEY))
    with caplog.at_level(0), pytest.raises(DestinationError) as caught:
        asyncio.run(rig.client.upload_url("s0", 0, META))
    assert_clean("".join(map(str, rig.events)) + "".join(traceback.format_exception(caught.value)) + caplog.text)


def test_a_client_shows_its_endpoint_only() -> None:
    client = PlatformClient(ENDPOINT, Secret(KEY), transport=FakePlatform())
    assert repr(client) == "PlatformClient('https://platform.test')"
