import asyncio
import base64
import dataclasses
import uuid
from urllib.parse import parse_qsl, urlencode, urlsplit

import google_crc32c
import httpx
import pytest

from ingest.shard import assemble, pack
from tests.server.conftest import START_MS, create_body, frames_of, metadata, with_path


def staged(api, data_id):
    return sorted(path.name for path in api.platform.store.staging_path(data_id).glob("*"))


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
        answer = api.post(
            "/data_entries/raw_data/staged/upload_urls/", metadata().body(data_id), params=params
        )
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


class TestPut:
    def test_stores_the_bytes_and_answers_an_etag_that_is_no_md5(self, api):
        data_id, frames = api.create(), frames_of(4)
        body = pack(frames).tobytes()
        answer = api.put(api.url(data_id, 0, metadata()), body)
        assert answer.status_code == 200
        assert answer.headers["etag"] == f'"crc32c-{google_crc32c.value(body):08x}"'
        assert api.get(f"/rheed/stream/{data_id}/chunks/0").content == body

    def test_large_bodies_in_odd_pieces_are_stored_whole(self, api):
        frames = frames_of(30, size=(300, 301))
        data_id, body = api.create(), pack(frames).tobytes()

        async def pieces():
            for start in range(0, len(body), 1777):
                yield body[start : start + 1777]

        assert api.put(api.url(data_id, 0, metadata(frames.shape, chunk_size=30)), pieces()).status_code == 200
        assert api.get(f"/rheed/stream/{data_id}/chunks/0").content == body

    def test_again_replaces_and_leaves_one_file(self, api):
        data_id = api.create()
        url = api.url(data_id, 0, metadata())
        one, other = pack(frames_of(4, 1)).tobytes(), pack(frames_of(4, 2)).tobytes()
        for body in (one, one, other):
            assert api.put(url, body).status_code == 200
        assert api.get(f"/rheed/stream/{data_id}/chunks/0").content == other
        assert api.details(data_id)["chunk_list"][0]["puts"] == 3
        assert len(staged(api, data_id)) == 1

    def test_the_metadata_that_counts_is_that_of_the_url_put_last(self, api):
        data_id = api.create()
        early, late = api.url(data_id, 0, metadata((4, 6, 8))), api.url(data_id, 0, metadata((5, 6, 8), START_MS + 1))
        assert api.put(late, pack(frames_of(5)).tobytes()).status_code == 200
        assert api.put(early, pack(frames_of(4)).tobytes()).status_code == 200
        chunk = api.details(data_id)["chunk_list"][0]
        assert (chunk["frames"], chunk["start_unix_ms_utc"]) == (4, START_MS)

    @pytest.mark.parametrize("name", ["expires", "upload_id", "metadata", "signature"])
    def test_a_url_that_was_changed_is_refused(self, api, name):
        data_id = api.create()
        parts = urlsplit(api.url(data_id, 0, metadata()))
        query = dict(parse_qsl(parts.query))
        changed = {
            "expires": str(int(query["expires"]) + 1),
            "upload_id": "0" * 32,
            "metadata": base64.urlsafe_b64encode(b"{}").decode(),
            "signature": query["signature"][:-1] + ("0" if query["signature"][-1] != "0" else "1"),
        }[name]
        for new in ({**query, name: changed}, {key: value for key, value in query.items() if key != name}):
            answer = api.put(parts._replace(query=urlencode(new)).geturl(), b"x")
            assert answer.status_code == 403
            assert "signature" in answer.json()["detail"]
        assert staged(api, data_id) == []

    @pytest.mark.parametrize("path", ["/uploads/{id}/1", "/uploads/{id}/00", "/uploads/{other}/0", "/uploads/{id}/%30"])
    def test_a_url_is_good_for_its_own_chunk_only(self, api, path):
        data_id, other = api.create(), api.create()
        url = with_path(api.url(data_id, 0, metadata()), path.format(id=data_id, other=other))
        expected = 200 if path.endswith("%30") else 403  # an escaped 0 is the same path
        assert api.put(url, pack(frames_of(4)).tobytes()).status_code == expected

    def test_a_url_expires(self, api, clock, settings):
        data_id, body = api.create(), pack(frames_of(4)).tobytes()
        url = api.url(data_id, 0, metadata())
        clock.now_s += settings.upload_url_ttl_s - 1
        assert api.put(url, body).status_code == 200
        clock.now_s += 1
        answer = api.put(url, body)
        assert answer.status_code == 403
        assert "expired" in answer.json()["detail"]

    @pytest.mark.parametrize("declared", [True, False])
    def test_a_body_that_is_too_large_is_refused(self, start, settings, declared):
        api = start(dataclasses.replace(settings, max_shard_bytes=1000))
        data_id = api.create()

        async def pieces():
            for _ in range(6):
                yield b"x" * 200

        answer = api.put(api.url(data_id, 0, metadata()), b"x" * 1001 if declared else pieces())
        assert answer.status_code == 413
        assert staged(api, data_id) == []

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"x" * 500,
            pack(frames_of(4)).tobytes()[:-1],
            pack(frames_of(3)).tobytes(),
            pack(frames_of(5)).tobytes(),
            pack(frames_of(4)).tobytes()[100:],
        ],
        ids=["empty", "noise", "cut", "one frame less", "one frame more", "head lost"],
    )
    def test_a_torn_body_is_refused(self, api, body):
        data_id = api.create()
        answer = api.put(api.url(data_id, 0, metadata()), body)
        assert answer.status_code == 400
        assert "shard of 4 frames" in answer.json()["detail"]
        assert staged(api, data_id) == []
        assert api.details(data_id)["chunks"] == 0

    def test_a_shard_without_its_black_frames_is_taken(self, api):
        data_id = api.create()
        encoded = pack(frames_of(4)).parts[:4]
        body = assemble([encoded[0], None, encoded[2], None]).tobytes()
        assert api.put(api.url(data_id, 0, metadata()), body).status_code == 200
        assert api.get(f"/rheed/stream/{data_id}/chunks/0").content == body

    def test_after_the_end_only_the_same_bytes_are_fine(self, api):
        data_id, body = api.create(), pack(frames_of(4)).tobytes()
        url, late = api.url(data_id, 0, metadata()), api.url(data_id, 1, metadata())
        api.put(url, body)
        api.end(data_id)
        for _ in ("maybe before", "after"):
            assert api.put(url, body).status_code == 200
            assert api.put(url, pack(frames_of(4, 9)).tobytes()).status_code == 409
            assert api.put(late, body).status_code == 409
            api.sealed(data_id)
        assert api.details(data_id)["chunk_list"][0]["puts"] == 1

    def test_an_end_that_comes_during_the_upload_wins(self, api):
        data_id, body = api.create(), pack(frames_of(4)).tobytes()
        url = api.url(data_id, 0, metadata())

        async def pieces():
            yield body[:100]
            await asyncio.to_thread(api.end, data_id)
            yield body[100:]

        assert api.put(url, pieces()).status_code == 409
        assert api.sealed(data_id)["chunks"] == 0

    def test_a_client_that_goes_away_leaves_nothing(self, api):
        data_id = api.create()
        parts = urlsplit(api.url(data_id, 0, metadata()))
        messages = [
            {"type": "http.request", "body": b"x" * 1000, "more_body": True},
            {"type": "http.disconnect"},
        ]
        sent = []

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "PUT",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "headers": [],
            "scheme": "http",
            "http_version": "1.1",
        }
        asyncio.run(api.app(scope, receive, send))
        assert staged(api, data_id) == []
        assert api.details(data_id)["chunks"] == 0

    def test_concurrent_uploads_of_one_chunk_leave_one_of_them(self, api):
        data_id = api.create()
        bodies = [pack(frames_of(4, seed)).tobytes() for seed in range(8)]
        urls = [api.url(data_id, 0, metadata()) for _ in bodies]

        async def both():
            async with httpx.AsyncClient(transport=httpx.ASGITransport(api.app)) as client:
                return await asyncio.gather(*(client.put(u, content=b) for u, b in zip(urls, bodies, strict=True)))

        assert {answer.status_code for answer in asyncio.run(both())} == {200}
        assert api.get(f"/rheed/stream/{data_id}/chunks/0").content in bodies
        assert len(staged(api, data_id)) == 1
        assert api.details(data_id)["chunk_list"][0]["puts"] == 8


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
