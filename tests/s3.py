"""An S3 store on loopback, in this process, for all tests that need one."""

from __future__ import annotations

import logging
import urllib.request
from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

SECRET = "hunter2"
BUCKET = "lab-runs"


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The endpoint of one moto server, on a free port."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials of nobody, and nothing of the developer's own; tests set AWS_ENDPOINT_URL."""
    for name in (
        "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return monkeypatch


@pytest.fixture
def s3(s3_server: str, aws_environment: pytest.MonkeyPatch) -> Iterator[Any]:
    """A boto3 client of an S3 store that holds one empty bucket, ``lab-runs``; the environment points there."""
    import boto3

    aws_environment.setenv("AWS_ENDPOINT_URL", s3_server)
    urllib.request.urlopen(urllib.request.Request(f"{s3_server}/moto-api/reset", method="POST")).close()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()
    fsspec.get_filesystem_class("s3").clear_instance_cache()
