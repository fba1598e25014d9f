"""The platform in this process, called through ASGI, with a clock that tests set."""

import asyncio
import time
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest

from ingest.server.app import create_app
from ingest.server.settings import ServerSettings
from ingest.shard import pack
from ingest.telemetry import Secret
from ingest.wire.models import ChunkMetadata, object_key

KEY = "a test's key"
START_MS = 1_700_000_000_123
UPLOAD_URLS = "/data_entries/raw_data/staged/upload_urls/"


class Clock:
    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now_s


class Api:
    """A client of one application; every call is a whole request."""

    def __init__(self, app) -> None:
        self.app = app
        self.raises = True
        self.platform = app.state.platform

    def request(self, method, url, *, key=KEY, headers=None, **kwargs) -> httpx.Response:
        async def call():
            transport = httpx.ASGITransport(self.app, raise_app_exceptions=self.raises)
            async with httpx.AsyncClient(transport=transport, base_url="http://platform.test:8000") as client:
                sent = httpx.Headers({} if key is None else {"X-API-KEY": key})
                sent.update(headers)
                return await client.request(method, url, headers=sent, **kwargs)

        return asyncio.run(call())

    def get(self, url, **kwargs):
        return self.request("GET", url, **kwargs)

    def post(self, url, body=None, **kwargs):
        return self.request("POST", url, json=body, **kwargs)

    def create(self, name="a stream", fps=10.0, rotations_per_min=0.0, **more) -> str:
        answer = self.post("/rheed/stream/", create_body(name, fps, rotations_per_min, **more))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def ask_url(self, data_id, index, metadata, /, **changes) -> httpx.Response:
        body = {**metadata.body(data_id), **changes}
        params = {"original_filename": object_key(index), "num_parts": 1, "staging_type": "stream"}
        body = {name: value for name, value in body.items() if value is not None}
        return self.post(UPLOAD_URLS, body, params=params, headers=metadata.headers())

    def url(self, data_id, index, metadata) -> str:
        answer = self.ask_url(data_id, index, metadata)
        assert answer.status_code == 200, answer.text
        return answer.json()[0]["url"]

    def put(self, url, body) -> httpx.Response:
        return self.request("PUT", url, key=None, content=body, headers={"Content-Type": ""})

    def upload(self, data_id, index, frames, start_ms=START_MS, chunk_size=20, fps=10.0, lost=()) -> bytes:
        body = pack(frames, lost=lost).tobytes()
        said = metadata(frames.shape, start_ms, chunk_size, fps, lost_frames=lost)
        answer = self.put(self.url(data_id, index, said), body)
        assert answer.status_code == 200, answer.text
        return body

    def end(self, data_id) -> dict:
        answer = self.post(f"/rheed/stream/{data_id}/end")
        assert answer.status_code == 200, answer.text
        return answer.json()

    def details(self, data_id) -> dict:
        return self.get(f"/rheed/stream/{data_id}").json()

    def sealed(self, data_id) -> dict:
        for _ in range(2000):
            details = self.details(data_id)
            if details["sealed"] and not self.platform.store.staging_path(data_id).exists():
                return details
            time.sleep(0.005)
        raise TimeoutError(details)


def create_body(name="a stream", fps=10.0, rotations_per_min=0.0, **more):
    return {
        "data_item_name": name,
        "rotational_period": fps * 60 / rotations_per_min if rotations_per_min > 0 else None,
        "rotations_per_min": rotations_per_min,
        "fps_capture_rate": fps,
        **more,
    }


def metadata(shape=(4, 6, 8), start_ms=START_MS, chunk_size=20, fps=10.0, **more) -> ChunkMetadata:
    return ChunkMetadata(*shape, chunk_size, fps, False, start_ms, **more)


class CutStore:
    """A store that fails every change after so many: as if the process had been killed there."""

    def __init__(self, store, changes_left):
        self.store = store
        self.changes_left = changes_left
        self.changes = 0

    def __getattr__(self, name):
        call = getattr(self.store, name)
        if name not in ("put", "copy", "delete"):
            return call

        def changing(*args, **kwargs):
            if self.changes == self.changes_left:
                raise Crash
            self.changes += 1
            return call(*args, **kwargs)

        return changing


class Crash(Exception):
    pass


def frames_of(n, seed=0, size=(6, 8)):
    return np.random.default_rng(seed).integers(1, 255, (n, *size), np.uint8)


def with_path(url, path):
    return urlsplit(url)._replace(path=path).geturl()


def staged(api, data_id):
    return sorted(path.name for path in api.platform.store.staging_path(data_id).glob("*"))


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def settings(tmp_path, clock):
    return ServerSettings(tmp_path / "data", (Secret("another key"), Secret(KEY)), fsync=False, clock=clock)


@pytest.fixture
def start(settings):
    """Start an application on the data folder; ends when the test does."""
    apps = []

    def start(settings=settings) -> Api:
        apps.append(create_app(settings))
        return Api(apps[-1])

    yield start
    for app in apps:
        app.state.platform.close()


@pytest.fixture
def api(start):
    return start()
