"""An S3 store on loopback, in this process, for all tests that need one."""

from __future__ import annotations

import contextlib
import logging
import os
import urllib.request
from collections.abc import Iterator
from pathlib import Path
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


def point_aws_at(environment: pytest.MonkeyPatch, endpoint: str | None) -> None:
    """Set credentials of nobody, and leave nothing of the developer's own."""
    for name in (
        "AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3",
    ):  # fmt: skip
        environment.delenv(name, raising=False)
    environment.setenv("AWS_ACCESS_KEY_ID", "test")
    environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
    environment.setenv("AWS_EC2_METADATA_DISABLED", "true")
    if endpoint is not None:
        environment.setenv("AWS_ENDPOINT_URL", endpoint)


@pytest.fixture
def aws_environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Credentials of nobody, and nothing of the developer's own; tests set AWS_ENDPOINT_URL."""
    point_aws_at(monkeypatch, None)
    return monkeypatch


@contextlib.contextmanager
def bucket() -> Iterator[Any]:
    """A boto3 client of the store that the environment points at, which holds one empty bucket, ``lab-runs``."""
    import boto3

    reset = f"{os.environ['AWS_ENDPOINT_URL']}/moto-api/reset"
    urllib.request.urlopen(urllib.request.Request(reset, method="POST")).close()
    client = boto3.client("s3")
    client.create_bucket(Bucket=BUCKET)
    yield client
    client.close()
    fsspec.get_filesystem_class("s3").clear_instance_cache()


@pytest.fixture
def s3(s3_server: str, aws_environment: pytest.MonkeyPatch) -> Iterator[Any]:
    """A boto3 client of an S3 store that holds one empty bucket, ``lab-runs``; the environment points there."""
    aws_environment.setenv("AWS_ENDPOINT_URL", s3_server)
    with bucket() as client:
        yield client


def download(client: Any, prefix: str, folder: Path) -> Path:
    """Copy all objects whose keys begin so into a folder."""
    for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix):
        for item in page.get("Contents", ()):
            path = folder / item["Key"]
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, item["Key"], str(path))
    return folder
