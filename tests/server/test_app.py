import asyncio
import dataclasses

import httpx
import pytest

from ingest.errors import SettingsError
from ingest.server.app import create_app

PRIVATE = [
    ("GET", "/rheed/stream/"),
    ("POST", "/rheed/stream/"),
    ("GET", "/rheed/stream/x"),
    ("POST", "/rheed/stream/x/end"),
    ("GET", "/rheed/stream/x/chunks/0"),
    ("POST", "/data_entries/raw_data/staged/upload_urls/"),
    ("POST", "/data_entries/physical_sample"),
    ("GET", "/physical_samples/"),
    ("POST", "/physical_samples/"),
    ("POST", "/projects/p/configuration/tracking_samples"),
    ("GET", "/tags/"),
    ("POST", "/tags/"),
    ("POST", "/tags/data-items/"),
    ("GET", "/"),
    ("GET", "/nowhere"),
]


@pytest.mark.parametrize(("method", "path"), PRIVATE)
@pytest.mark.parametrize("key", [None, "", "wrong", "a test's ke", "a test's key2", "\xe9"])
def test_nothing_private_answers_without_a_key(api, method, path, key):
    headers = {} if key is None else {"X-API-KEY": key.encode("latin-1")}
    answer = api.request(method, path, key=None, headers=headers)
    assert answer.status_code == 401
    assert "X-API-KEY" in answer.json()["detail"]


@pytest.mark.parametrize("key", ["another key", "a test's key"])
def test_every_key_opens(api, key):
    assert api.get("/rheed/stream/", key=key).json() == []


def test_health_and_time_are_open(api, clock):
    assert api.get("/healthz", key=None).status_code == 200
    answer = api.get("/gateway/time", key=None).json()
    assert answer == {"receivedAtUnixMs": clock.now_s * 1000, "transmittedAtUnixMs": clock.now_s * 1000}


@pytest.mark.parametrize("path", ["/rheed/stream", "/rheed/stream/", "/tags", "/tags/", "/physical_samples"])
def test_a_trailing_slash_makes_no_difference_and_nothing_redirects(api, path):
    assert api.get(path).status_code == 200


@pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nowhere", 404), ("DELETE", "/rheed/stream/", 405)])
def test_errors_are_json(api, method, path, status):
    answer = api.request(method, path)
    assert answer.status_code == status
    assert isinstance(answer.json()["detail"], str)


def test_a_defect_is_a_500_that_shows_nothing(api, monkeypatch):
    def defect(*_):
        raise RuntimeError("something inside")

    monkeypatch.setattr(api.platform.catalogue, "streams", defect)
    api.raises = False
    answer = api.get("/rheed/stream/")
    assert answer.status_code == 500
    assert "inside" not in answer.json()["detail"]


def test_a_second_server_on_the_folder_is_refused(api, settings):
    with pytest.raises(SettingsError, match="another server is using"):
        create_app(settings)
    api.platform.close()
    create_app(settings).state.platform.close()


def test_the_lifespan_fails_silent_streams_and_releases_the_folder(settings, clock, start):
    async def live():
        app = create_app(dataclasses.replace(settings, silent_stream_s=0.5))
        platform = app.state.platform
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(
                transport=httpx.ASGITransport(app), base_url="http://x", headers={"X-API-KEY": "another key"}
            ) as client,
        ):
            body = {"data_item_name": "s", "rotations_per_min": 0.0, "fps_capture_rate": 1.0}
            data_id = (await client.post("/rheed/stream/", json=body)).json()
            clock.now_s += 1
            query = "SELECT status FROM streams WHERE data_id = ?"
            for _ in range(200):
                status = platform._database.read(lambda db: db.execute(query, (data_id,)).fetchone()[0])
                if status == "failed":
                    break
                await asyncio.sleep(0.01)
            assert status == "failed"

    asyncio.run(live())
    start().platform.close()
