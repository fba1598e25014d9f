import asyncio
import base64
import dataclasses
import errno
import os
from urllib.parse import parse_qsl, urlencode, urlsplit

import google_crc32c
import httpx
import pytest

from ingest.shard import assemble, pack
from tests.server.conftest import START_MS, frames_of, metadata, staged, with_path


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

    @pytest.mark.parametrize("call", ["pwrite", "fsync"])
    def test_a_full_disk_is_a_507_and_leaves_nothing(self, start, settings, monkeypatch, call):
        api = start(dataclasses.replace(settings, fsync=True))
        data_id, body = api.create(), pack(frames_of(4)).tobytes()
        url = api.url(data_id, 0, metadata())

        def full(*_):
            raise OSError(errno.ENOSPC, "no space left")

        monkeypatch.setattr(os, call, full)
        answer = api.put(url, body)
        assert (answer.status_code, answer.json()["detail"]) == (507, "the platform's disk is full")
        assert staged(api, data_id) == []
        monkeypatch.undo()
        assert api.put(url, body).status_code == 200

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
