"""Presigned URLs, and what the store tells of what came by them."""

from __future__ import annotations

import base64
from urllib.parse import parse_qs, urlsplit

import google_crc32c
import httpx
import pytest

from ingest.errors import SettingsError, UnreachableError
from ingest.lake.s3_uploads import MAX_URL_TTL_S, Arrival, UploadStore, open_upload_store
from ingest.retry import RetryPolicy
from tests.s3 import BUCKET

ONCE = RetryPolicy(retry_for_s=0)


@pytest.fixture
def store(s3):
    store = open_upload_store(f"s3://{BUCKET}/runs", retry=ONCE)
    assert isinstance(store, UploadStore)
    yield store
    store.close()


def query_of(url):
    return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}


def test_a_url_signs_the_host_and_nothing_else_that_a_client_sends(store):
    url = store.upload_url("a b/0.x", 900)
    assert urlsplit(url).path == f"/{BUCKET}/runs/a%20b/0.x"
    query = query_of(url)
    assert (query["X-Amz-Algorithm"], query["X-Amz-SignedHeaders"]) == ("AWS4-HMAC-SHA256", "host")
    assert query.keys() == {f"X-Amz-{n}" for n in ("Algorithm", "Credential", "Date", "Expires", "SignedHeaders")} | {
        "X-Amz-Signature"
    }
    assert httpx.put(url, content=b"shard", headers={"Content-Type": ""}).status_code == 200
    assert store.get("a b/0.x") == b"shard"


@pytest.mark.parametrize(("ttl_s", "expires"), [(0.001, 1), (900.2, 901), (1e9, MAX_URL_TTL_S)])
def test_a_url_is_good_for_as_long_as_s3_can(store, ttl_s, expires):
    assert query_of(store.upload_url("a", ttl_s))["X-Amz-Expires"] == str(expires)


def test_what_came_is_told_the_same_by_a_look_and_a_list(store, s3):
    s3.put_object(Bucket=BUCKET, Key="runs/a/1", Body=b"one")
    s3.put_object(Bucket=BUCKET, Key="runs/a/b/2", Body=b"three")
    s3.put_object(Bucket=BUCKET, Key="runs/ab/3", Body=b"x")
    listed = list(store.arrivals("a"))
    assert [(arrival.name, arrival.n_bytes) for arrival in listed] == [("a/1", 3), ("a/b/2", 5)]
    assert [store.arrival(arrival.name) for arrival in listed] == listed
    assert len({arrival.etag for arrival in listed}) == 2
    assert all(isinstance(a, Arrival) and a.modified_unix_s.is_integer() and '"' not in a.etag for a in listed)
    assert store.arrival("a/none") is None
    assert list(store.arrivals("none")) == []


def test_a_checksum_that_the_store_counted_is_told(store, s3):
    crc = google_crc32c.value(b"one")
    text = base64.b64encode(crc.to_bytes(4, "big")).decode()
    s3.put_object(Bucket=BUCKET, Key="runs/a", Body=b"one", ChecksumCRC32C=text, ChecksumAlgorithm="CRC32C")
    assert store.arrival("a").crc32c == crc


def test_giving_up_ends_the_wait_for_a_store_that_is_away(aws_environment):
    aws_environment.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    store = open_upload_store(f"s3://{BUCKET}/runs", retry=RetryPolicy(first_s=60, max_s=60))
    store.give_up()
    with pytest.raises(UnreachableError):
        store.arrival("a")
    store.close()


@pytest.mark.parametrize("url", ["memory://lab", "gs://lab/runs", "sftp://lab/runs", "/srv/runs"])
def test_other_stores_are_refused(url):
    with pytest.raises(SettingsError, match="no URLs are known here by which clients could upload") as caught:
        open_upload_store(url)
    assert "s3://" in caught.value.hint
