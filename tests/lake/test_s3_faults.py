"""S3 that fails, or is not quite S3."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ingest.errors import AuthenticationError, MissingObjectError, RefusedError, UnreachableError
from ingest.lake.s3_store import S3Store
from ingest.pipeline import refuses_the_chunk
from ingest.retry import RetryPolicy
from tests.lake.fakes import FakeTime
from tests.lake.stub_s3 import running_stub
from tests.s3 import SECRET

ROOT = Path(__file__).parents[2]


@pytest.fixture
def time():
    return FakeTime()


@pytest.fixture
def stub(aws_environment):
    with running_stub() as server:
        aws_environment.setenv("AWS_ENDPOINT_URL", server.url)
        yield server


@pytest.fixture
def store(stub, time):
    store = S3Store("s3://lab/growth", retry=RetryPolicy(retry_for_s=60), clock=time.clock, sleep=time.sleep)
    yield store
    store.close()


class TestPassing:
    def test_is_tried_again_and_then_works(self, stub, store, time):
        for answer in (
            (503, "SlowDown"), (500, "InternalError"), (400, "RequestTimeout"), (429, "TooManyRequests"), (0, ""),
            (507, "XMinioStorageFull"),
        ):  # fmt: skip
            time.waits_s.clear()
            stub.answers = [answer, answer]
            assert store.put("a", [b"content"]) == hashlib.md5(b"content").hexdigest()
            # aiohttp itself asks once more where a connection was closed.
            assert len(time.waits_s) == 2 or answer == (0, ""), answer
            assert all(0.25 <= wait_s <= 1 for wait_s in time.waits_s)
            stub.answers = [answer, answer]
            assert store.get("a") == b"content"

    @pytest.mark.parametrize(
        ("answer", "words", "hint"),
        [((503, "SlowDown"), "SlowDown", "resumes"), ((507, "XMinioStorageFull"), "store is full", "make room")],
    )
    def test_is_given_up_when_the_time_is_up(self, stub, store, time, answer, words, hint):
        stub.always = answer
        with pytest.raises(UnreachableError, match=words) as caught:
            store.put("a", [b"content"])
        assert "s3://lab/growth: could not put 'a' (7 bytes)" in str(caught.value)
        assert hint in caught.value.hint
        assert sum(time.waits_s) == pytest.approx(60)
        assert len(stub.requests) == len(time.waits_s) + 1

    def test_nobody_there(self, aws_environment, time):
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            aws_environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{taken.getsockname()[1]}")
            store = S3Store("s3://lab", retry=RetryPolicy(retry_for_s=1), clock=time.clock, sleep=time.sleep)
            with pytest.raises(UnreachableError, match=r"[Cc]onnect"):
                store.put("a", [b"x"])
            store.close()
        assert time.waits_s


def test_what_no_second_try_will_mend(stub, store, time):
    for answer, kind, words, hint in [
        ((403, "AccessDenied"), AuthenticationError, "because of AccessDenied", "AWS_ACCESS_KEY_ID"),
        ((403, "SignatureDoesNotMatch"), AuthenticationError, "SignatureDoesNotMatch", "AWS_ACCESS_KEY_ID"),
        ((400, "ExpiredToken"), AuthenticationError, "ExpiredToken", "get new credentials"),
        ((403, "RequestTimeTooSkewed"), AuthenticationError, "RequestTimeTooSkewed", "clock"),
        ((404, "NoSuchBucket"), RefusedError, "there is no such bucket", "create the bucket"),
        ((400, "EntityTooLarge"), RefusedError, "EntityTooLarge", "check"),
        ((413, "TooLarge"), RefusedError, "TooLarge", "check"),
        ((405, "MethodNotAllowed"), RefusedError, "MethodNotAllowed", "check"),
    ]:
        stub.always = answer
        for call in (lambda: store.put("a", [b"x"]), lambda: store.get("a"), lambda: list(store.objects())):
            with pytest.raises(kind, match=words) as caught:
                call()
            assert type(caught.value) is kind
            assert hint in caught.value.hint
            assert not refuses_the_chunk(caught.value), "the chunk would be given up"
            assert SECRET not in str(caught.value)
    assert time.waits_s == []


def test_a_head_that_is_denied(stub, store):
    stub.always = (403, "AccessDenied")
    with pytest.raises(AuthenticationError):
        store.size("a")


def test_no_credentials(aws_environment, tmp_path, time):
    aws_environment.delenv("AWS_ACCESS_KEY_ID")
    aws_environment.delenv("AWS_SECRET_ACCESS_KEY")
    aws_environment.setenv("HOME", str(tmp_path))
    store = S3Store("s3://lab", clock=time.clock, sleep=time.sleep)
    with pytest.raises(AuthenticationError, match="credentials") as caught:
        store.put("a", [b"x"])
    assert "AWS_ACCESS_KEY_ID" in caught.value.hint
    store.close()


class TestChecksums:
    def test_the_store_is_given_one_that_it_checks_and_no_trailer(self, stub, store):
        store.put("a", [b"1234", b"56789"])
        (headers,) = stub.made("PUT")
        assert headers["x-amz-checksum-crc32c"] == "4waSgw=="  # of "123456789": RFC 3720, appendix B.4, as base64
        assert not {"x-amz-trailer", "x-amz-checksum-crc32", "content-encoding", "content-md5"} & set(headers)
        assert stub.objects == {"lab/growth/a": b"123456789"}

    @pytest.mark.parametrize("crc32c", ["refuses", "ignores"])
    def test_one_that_does_not_know_it_is_given_md5_from_then_on(self, stub, store, time, crc32c):
        stub.crc32c = crc32c
        for _ in range(2):
            store.put("a", [b"content"])
        made = stub.made("PUT")
        assert ["x-amz-checksum-crc32c" in headers for headers in made] == [True, False, False]
        assert ["content-md5" in headers for headers in made] == [False, True, True]
        assert time.waits_s == []

    def test_etags_that_are_no_md5_cost_one_look(self, stub, store):
        stub.crc32c, stub.etag_is_md5 = "ignores", False
        for _ in range(3):
            assert store.put("a", [b"content"]) == "0" * 32
        assert len(stub.made("GET")) == 1

    def test_a_store_that_holds_something_else_is_noticed(self, stub, store):
        stub.crc32c, stub.etag_is_md5, stub.damages = "ignores", False, True
        with pytest.raises(UnreachableError, match="other bytes than those that were sent"):
            store.put("a", [b"content"])

    def test_an_error_that_is_not_about_the_checksum_changes_nothing(self, stub, store):
        stub.answers = [(400, "InvalidRequest"), (403, "AccessDenied")]
        with pytest.raises(AuthenticationError):
            store.put("a", [b"x"])
        store.put("a", [b"x"])
        assert "x-amz-checksum-crc32c" in stub.made("PUT")[-1]


class TestLookAlikes:
    def test_the_bucket_is_in_the_path(self, stub, store):
        store.put("a", [b"x"])
        assert stub.requests[0][1].startswith("/lab/growth/a")

    def test_ranges_that_are_ignored(self, stub, store):
        stub.knows_ranges = False
        store.put("a", [b"0123456"])
        for start, stop in ((2, 5), (-3, None), (4, None), (0, 2)):
            assert store.get("a", start, stop) == b"0123456"[start:stop]

    def test_objects_are_removed_one_by_one_where_many_at_once_are_refused(self, stub, store):
        stub.deletes_in_bulk = False
        for name in "abc":
            store.put(name, [b"x"])
        store.delete(["a", "b", "none"])
        store.delete(["c"])
        assert stub.objects == {}
        assert len(stub.made("POST")) == 1

    def test_one_of_many_that_could_not_be_removed_is_said(self, stub, store):
        stub.kept = {"growth/a"}
        with pytest.raises(AuthenticationError, match="remove 'growth/a'"):
            store.delete(["a", "b"])

    def test_the_endpoint_may_be_in_the_config_file(self, stub, aws_environment, tmp_path, time):
        for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            aws_environment.delenv(name)
        config = f"endpoint_url = {stub.url}\naws_access_key_id = test\naws_secret_access_key = {SECRET}\n"
        (tmp_path / "config").write_text(f"[profile lab]\n{config}")
        aws_environment.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
        aws_environment.setenv("AWS_PROFILE", "lab")
        store = S3Store("s3://lab", retry=RetryPolicy(retry_for_s=0))
        store.put("a", [b"x"])
        store.close()
        assert stub.objects == {"lab/a": b"x"}

    def test_the_endpoint_may_be_for_s3_only(self, stub, aws_environment):
        aws_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
        aws_environment.setenv("AWS_ENDPOINT_URL_S3", stub.url)
        store = S3Store("s3://lab", retry=RetryPolicy(retry_for_s=0))
        store.put("a", [b"x"])
        store.close()
        assert stub.objects == {"lab/a": b"x"}


def test_no_more_requests_at_once_than_asked_for(stub):
    store = S3Store("s3://lab", max_connections=3)
    stub.delay_s = 0.02
    with ThreadPoolExecutor(12) as pool:
        list(pool.map(lambda n: store.put(str(n), [b"x"]), range(24)))
    store.close()
    assert (len(stub.objects), stub.most_at_once) == (24, 3)


class TestInParts:
    @pytest.fixture
    def store(self, s3, time):
        store = S3Store(
            "s3://lab-runs/growth", retry=RetryPolicy(retry_for_s=60), clock=time.clock, sleep=time.sleep,
            single_put_bytes=1_000_000,
        )  # fmt: skip
        yield store
        store.close()

    def test_is_one_object_of_checked_parts(self, store, s3):
        store._part_bytes = 5 << 20
        content = os.urandom(11_000_001)
        etag = store.put("run/a", [content[:6_000_000], content[6_000_000:]])
        assert etag.endswith("-3")
        assert store.get("run/a", 5_000_000, 6_500_000) == content[5_000_000:6_500_000]
        assert store._checks_crc32c

    def test_the_store_gone_leaves_the_old_object_and_no_upload(self, store, s3, monkeypatch):
        store.put("run/a", [b"before"])
        ask = store._ask

        def asking(method, **arguments):
            if method == "complete_multipart_upload":
                raise TimeoutError("gone")
            return ask(method, **arguments)

        monkeypatch.setattr(store, "_ask", asking)
        with pytest.raises(UnreachableError, match="gone"):
            store.put("run/a", [b"x" * 1_500_000])
        assert store.get("run/a") == b"before"
        assert "Uploads" not in s3.list_multipart_uploads(Bucket="lab-runs")

    def test_clean_removes_what_a_killed_writer_left(self, store, s3):
        s3.create_multipart_upload(Bucket="lab-runs", Key="growth/run/a")
        s3.create_multipart_upload(Bucket="lab-runs", Key="growth/run2/a")
        assert list(store.objects()) == []
        store.clean("run", older_than_s=10**10)
        # Young ones may be those of writers who live.
        assert len(s3.list_multipart_uploads(Bucket="lab-runs")["Uploads"]) == 2
        store.clean("run")
        (left,) = s3.list_multipart_uploads(Bucket="lab-runs")["Uploads"]
        assert left["Key"] == "growth/run2/a"


def test_a_bucket_that_is_not_there(s3, time):
    store = S3Store("s3://no-such-bucket/x", clock=time.clock, sleep=time.sleep)
    for call in (
        lambda: store.size("a"), lambda: store.get("a"), lambda: store.put("a", [b"x"]), lambda: store.delete(["a"]),
        lambda: list(store.objects()),
    ):  # fmt: skip
        with pytest.raises(RefusedError, match="there is no such bucket") as caught:
            call()
        assert not isinstance(caught.value, MissingObjectError)
    store.close()


def test_lists_all_pages(s3, monkeypatch):
    monkeypatch.setenv("MOTO_S3_DEFAULT_MAX_KEYS", "4")
    store = S3Store("s3://lab-runs", retry=RetryPolicy(retry_for_s=0))
    for n in range(9):
        store.put(f"run/{n}", [b"x"])
    assert [found.name for found in store.objects("run")] == [f"run/{n}" for n in range(9)]
    store.delete_below("run")
    assert list(store.objects()) == []
    store.close()


def test_a_forked_process_has_connections_of_its_own(s3):
    script = """if True:
        import os
        from ingest.lake.opening import open_store
        store = open_store("s3://lab-runs/x")
        store.put("a", [b"from the parent"])
        child = os.fork()
        if child == 0:
            os._exit(0 if store.get("a") == b"from the parent" and store.put("b", [b"x"]) else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert store.get("b") == b"x"
        store.close()"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
