import asyncio
import dataclasses
import uuid
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from ingest.shard import pack
from tests.server.conftest import create_body, frames_of, metadata, staged


class TestCreate:
    def test_answers_a_uuid4_as_json_string(self, api):
        assert uuid.UUID(api.create()).version == 4

    def test_the_same_idempotency_key_gives_the_same_stream(self, api, start):
        headers = {"Idempotency-Key": "k1"}
        first = api.post("/rheed/stream/", create_body(), headers=headers).json()
        assert api.post("/rheed/stream/", create_body(), headers=headers).json() == first
        api.platform.close()
        again = start()
        assert again.post("/rheed/stream/", create_body(), headers=headers).json() == first
        assert len(again.get("/rheed/stream/").json()) == 1

    def test_the_same_key_with_another_body_is_refused(self, api):
        headers = {"Idempotency-Key": "k1"}
        api.post("/rheed/stream/", create_body(), headers=headers)
        answer = api.post("/rheed/stream/", create_body("another"), headers=headers)
        assert answer.status_code == 422
        assert "Idempotency-Key" in answer.json()["detail"]

    def test_without_a_key_each_call_creates(self, api):
        assert api.create() != api.create()

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"data_item_name": " "}, "data_item_name"),
            ({"data_item_name": 3}, "data_item_name"),
            ({"fps_capture_rate": 0}, "fps_capture_rate"),
            ({"fps_capture_rate": "10"}, "fps_capture_rate"),
            ({"fps_capture_rate": True}, "fps_capture_rate"),
            ({"rotations_per_min": None}, "rotations_per_min"),
            ({"rotational_period": -1.0}, "rotational_period"),
            ({"project_id": ""}, "project_id"),
            ({"azimuth_label": 5}, "azimuth_label"),
        ],
    )
    def test_a_bad_field_is_named(self, api, change, field):
        answer = api.post("/rheed/stream/", {**create_body(), **change})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(field)

    @pytest.mark.parametrize(("content", "status"), [(b"{", 400), (b"", 400), (b"\xff", 400), (b"[]", 422)])
    def test_a_body_that_is_not_an_object_is_refused(self, api, content, status):
        answer = api.request("POST", "/rheed/stream/", content=content)
        assert answer.status_code == status
        assert answer.json()["detail"]

    def test_a_deeply_nested_body_is_refused(self, api):
        assert api.request("POST", "/rheed/stream/", content=b"[" * 200_000).status_code == 400

    @pytest.mark.parametrize("declared", [True, False])
    def test_a_body_that_is_too_large_is_refused(self, start, settings, declared):
        api = start(dataclasses.replace(settings, max_json_bytes=1000))

        async def pieces():
            for _ in range(3):
                yield b" " * 400

        content = b" " * 1200 if declared else pieces()
        assert api.request("POST", "/rheed/stream/", content=content).status_code == 413


class TestUploadUrls:
    def test_the_url_is_on_the_host_that_was_asked(self, api):
        data_id = api.create()
        answer = api.ask_url(data_id, 3, metadata()).json()
        parts = urlsplit(answer[0]["url"])
        assert (parts.scheme, parts.netloc, parts.path) == ("http", "platform.test:8000", f"/uploads/{data_id}/3")
        assert answer[0]["part"] == 0
        assert answer[0]["upload_id"] == dict(parse_qsl(parts.query))["upload_id"]

    @pytest.mark.parametrize(
        "name",
        [
            "frames.zarr/frames/c/../0/0",
            "frames.zarr/frames/c/-1/0/0",
            "frames.zarr/frames/c/01/0/0",
            "frames.zarr/frames/c/1/0/0/",
            "frames.zarr/frames/c/1/0/0\n",
            "frames.zarr/frames/c/1/1/0",
            "frames.zarr/frames/c/1000000/0/0",
            "frames.zarr/frames/c/\u0661/0/0",
            "/frames.zarr/frames/c/1/0/0",
            "frames.zarr/../frames.zarr/frames/c/1/0/0",
            "..%2f..%2fetc/passwd",
            "",
        ],
    )
    def test_only_the_key_of_a_chunk_is_taken(self, api, name):
        data_id = api.create()
        params = {"original_filename": name, "num_parts": 1, "staging_type": "stream"}
        answer = api.post("/data_entries/raw_data/staged/upload_urls/", metadata().body(data_id), params=params)
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("original_filename")

    @pytest.mark.parametrize("change", [{"num_parts": 2}, {"staging_type": "core"}])
    def test_only_one_part_of_a_stream_is_taken(self, api, change):
        params = {"original_filename": "frames.zarr/frames/c/1/0/0", "num_parts": 1, "staging_type": "stream"}
        url = "/data_entries/raw_data/staged/upload_urls/"
        assert api.post(url, metadata().body(api.create()), params={**params, **change}).status_code == 422

    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("data_stream", "xrd"),
            ("is_stream", 1),
            ("is_rotating", "2"),
            ("raw_frame_rate", 120.0),
            ("raw_frame_rate", "0.0"),
            ("raw_frame_rate", "nan"),
            ("raw_frame_rate", "inf"),
            ("raw_frame_rate", "1_0"),
            ("avg_frame_rate", None),
            ("chunk_size", "0"),
            ("chunk_size", 20),
            ("dims", "4,6"),
            ("dims", "4,6,0"),
            ("dims", "0,6,8"),
            ("dims", "4,6,-8"),
            ("dims", "4, 6,8"),
            ("dims", "4,6,70000"),
            ("dims", [4, 6, 8]),
            ("start_unix_ms_utc", "1.5"),
            ("start_unix_ms_utc", 5),
            ("start_unix_ms_utc", "-5"),
            ("end_unix_ms_utc", "5"),
            ("clock_offset_ms", 5),
            ("data_id", None),
        ],
    )
    def test_a_bad_field_is_named(self, api, field, value):
        answer = api.ask_url(api.create(), 0, metadata(), **{field: value})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(field)

    def test_frames_of_another_size_are_refused(self, api):
        data_id = api.create()
        api.url(data_id, 0, metadata((4, 6, 8)))
        answer = api.ask_url(data_id, 1, metadata((4, 8, 6)))
        assert answer.status_code == 422
        assert "6 x 8 px" in answer.json()["detail"]
        assert api.ask_url(data_id, 1, metadata((7, 6, 8))).status_code == 200

    def test_an_unknown_stream_is_a_404(self, api):
        assert api.ask_url(str(uuid.uuid4()), 0, metadata()).status_code == 404

    def test_a_closed_stream_is_a_409(self, api):
        data_id = api.create()
        api.end(data_id)
        answer = api.ask_url(data_id, 0, metadata())
        assert answer.status_code == 409
        assert "closed" in answer.json()["detail"]


class TestEnd:
    def test_reports_what_came_and_what_did_not(self, api):
        data_id = api.create()
        for index in (0, 2, 5):
            api.upload(data_id, index, frames_of(4))
        api.url(data_id, 6, metadata())
        assert api.end(data_id) == {
            "data_id": data_id,
            "status": "completed",
            "frames": 12,
            "chunks": 3,
            "missing_chunks": [1, 3, 4, 6],
        }

    def test_again_gives_the_same_report_and_closes_once(self, api):
        data_id = api.create()
        api.upload(data_id, 0, frames_of(4))
        assert api.end(data_id) == api.end(data_id)
        api.sealed(data_id)
        api.end(data_id)
        details = api.details(data_id)
        assert (details["end_calls"], details["times_closed"], details["status"]) == (3, 1, "closed")

    def test_concurrent_ends_close_once(self, api):
        data_id = api.create()

        async def ends():
            headers = {"X-API-KEY": "another key"}
            async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app), headers=headers) as client:
                url = f"http://x/rheed/stream/{data_id}/end"
                return await asyncio.gather(*(client.post(url) for _ in range(10)))

        assert {answer.status_code for answer in asyncio.run(ends())} == {200}
        details = api.details(data_id)
        assert (details["end_calls"], details["times_closed"]) == (10, 1)

    def test_an_unknown_stream_is_a_404(self, api):
        assert api.post(f"/rheed/stream/{uuid.uuid4()}/end").status_code == 404


class TestSilence:
    def test_a_silent_stream_has_failed(self, api, clock, settings):
        data_id, body = api.create(), pack(frames_of(4)).tobytes()
        clock.now_s += settings.silent_stream_s
        url = api.url(data_id, 0, metadata())
        clock.now_s += settings.silent_stream_s + 0.1
        for answer in (api.ask_url(data_id, 1, metadata()), api.post(f"/rheed/stream/{data_id}/end")):
            assert answer.status_code == 409
            assert "failed: it got nothing for 7200 s" in answer.json()["detail"]
        assert api.put(url, body).status_code == 403
        assert api.details(data_id)["status"] == "failed"

    def test_an_upload_to_it_is_refused(self, start, settings, clock):
        api = start(dataclasses.replace(settings, silent_stream_s=10.0))
        data_id = api.create()
        url = api.url(data_id, 0, metadata())
        clock.now_s += 11
        answer = api.put(url, pack(frames_of(4)).tobytes())
        assert answer.status_code == 409
        assert staged(api, data_id) == []

    def test_every_chunk_counts_as_a_sign_of_life(self, api, clock, settings):
        data_id = api.create()
        for index in range(4):
            clock.now_s += settings.silent_stream_s * 0.9
            api.upload(data_id, index, frames_of(4))
        assert api.details(data_id)["status"] == "open"

    def test_what_it_has_stays_readable(self, api, clock, settings):
        data_id = api.create()
        body = api.upload(data_id, 0, frames_of(4))
        clock.now_s += settings.silent_stream_s + 1
        assert api.platform.catalogue.fail_silent(clock()) == 1
        assert api.platform.catalogue.fail_silent(clock()) == 0
        assert api.get(f"/rheed/stream/{data_id}/chunks/0").content == body

    def test_a_closed_stream_does_not_fail(self, api, clock, settings):
        data_id = api.create()
        api.end(data_id)
        clock.now_s += settings.silent_stream_s + 1
        assert api.platform.catalogue.fail_silent(clock()) == 0
        assert api.details(data_id)["status"] == "closed"
