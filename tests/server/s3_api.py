"""The platform in this process with its data in S3, behind a gate that checks presigned URLs."""

import time

import httpx
import pytest

from ingest.server.app import create_app
from ingest.server.settings import ServerSettings
from ingest.telemetry import Secret
from tests.s3 import BUCKET, download
from tests.server.conftest import KEY, Api
from tests.server.s3_gate import running_gate

URL = f"s3://{BUCKET}/rheed"


class S3Api(Api):
    """A client that uploads where it is told to, and looks into the bucket."""

    def __init__(self, app, s3):
        super().__init__(app)
        self.s3 = s3

    def put(self, url, body):
        return httpx.put(url, content=body, headers={"Content-Type": ""})

    def objects(self, below=""):
        listed = self.s3.list_objects_v2(Bucket=BUCKET, Prefix=f"rheed/{below}")
        return [item["Key"].removeprefix("rheed/") for item in listed.get("Contents", ())]

    def sealed(self, data_id):
        for _ in range(1000):
            found = self.details(data_id)
            if found["sealed"] and not self.objects(f".staging/{data_id}/"):
                return found
            time.sleep(0.02)
        raise TimeoutError(found)

    def lake(self, data_id, folder):
        """Return a copy of a sealed stream."""
        return download(self.s3, f"rheed/{data_id}.zarr/", folder) / f"rheed/{data_id}.zarr"

    def chunk(self, data_id, index):
        return self.get(f"/rheed/stream/{data_id}/chunks/{index}")

    def bodies(self, data_id, n):
        return [self.chunk(data_id, index).content for index in range(n)]


@pytest.fixture
def gate(s3, s3_server, aws_environment):
    with running_gate(s3_server) as gate:
        aws_environment.setenv("AWS_ENDPOINT_URL", gate.url)
        yield gate


@pytest.fixture
def settings(tmp_path, clock):
    return ServerSettings(URL, (Secret(KEY),), tmp_path / "state", fsync=False, clock=clock, patience_s=0.1)


@pytest.fixture
def start(settings, s3, gate):
    apis = []

    def start(settings=settings):
        apis.append(S3Api(create_app(settings), s3))
        return apis[-1]

    yield start
    for api in apis:
        api.platform.close()


def staged_key(url):
    return url.partition("?")[0].partition(f"/{BUCKET}/rheed/")[2]
