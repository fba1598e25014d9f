"""Data in S3: clients upload straight to it, and what comes of that is what a data folder has."""

# ruff: noqa: F811 - fixtures are imported, and asked for by name

import asyncio
import dataclasses
import logging
import time

import httpx
import numpy as np
import xarray
import zarr

from ingest.destinations import open_destination
from ingest.destinations.readback import read_back
from ingest.plan import StreamSettings
from ingest.server import presigned as presigned_module
from ingest.server.app import create_app
from ingest.server.settings import ServerSettings
from ingest.shard import pack
from ingest.telemetry import Secret
from ingest.wire.models import ChunkMetadata
from tests.s3 import SECRET, download
from tests.server.conftest import KEY, START_MS, Api, frames_of, metadata
from tests.server.s3_api import URL, gate, settings, staged_key, start  # noqa: F401  fixtures
from tests.server.test_seal import SIZE, expected_times_ns, stream_of, times_ns
from tests.support import KEY as CLIENT_KEY
from tests.support import QUICK, ThreadServer


class TestUploads:
    def test_a_client_puts_straight_to_the_bucket_and_all_of_it_is_sealed(self, s3, gate, tmp_path):
        lengths, lost = (20, 7, 13, 20, 3), (1, 4)
        frames = [frames_of(length, seed) for seed, length in enumerate(lengths)]
        frames[2][list(lost)] = 0
        starts = [START_MS + 10_000 * number for number in range(len(lengths))]

        async def stream(url):
            to = open_destination(url, CLIENT_KEY, retry=QUICK)
            data_id = await to.open_stream(StreamSettings("growth", 10.0, 0.0, SIZE), "key")
            for index, part in enumerate(frames):
                gone = lost if index == 2 else ()
                meta = ChunkMetadata(len(part), 6, 8, SIZE, 10.0, False, starts[index], lost_frames=gone)
                await to.deliver(data_id, index, meta, pack(part, lost=gone))
            await to.close_stream(data_id)
            while not (await to.client.stream(data_id))["sealed"]:
                await asyncio.sleep(0.01)
            back = [chunk async for chunk in read_back(to.client, data_id)]
            await to.aclose()
            return data_id, back

        with ThreadServer(URL, state=tmp_path / "state") as server:
            data_id, back = asyncio.run(stream(server.url))
        assert [status for _, status in gate.presigned] == [200] * 5
        for chunk, part in zip(back, frames, strict=True):
            np.testing.assert_array_equal(chunk.frames, part)
        assert [(chunk.puts, chunk.lost_frames) for chunk in back] == [(1, lost if i == 2 else ()) for i in range(5)]
        path = download(s3, "rheed/", tmp_path) / f"rheed/{data_id}.zarr"
        with xarray.open_zarr(str(path), consolidated=False) as data:
            np.testing.assert_array_equal(data["frames"].values, np.concatenate(frames))
            at = [27 + i for i in lost]
            expected = expected_times_ns(starts, lengths)
            assert np.isnat(data["time"].values[at]).all()
            np.testing.assert_array_equal(np.delete(times_ns(data), at), np.delete(expected, at))
            assert data.attrs["frames_lost"] == 2

    def test_what_lies_in_the_bucket_is_what_lies_in_a_folder(self, start, tmp_path, clock):
        local = Api(create_app(ServerSettings(tmp_path / "data", (Secret(KEY),), fsync=False, clock=clock)))
        api = start()
        for lengths in ((20, 20, 7), (3, 41, 1)):
            found = []
            for each in (local, api):
                data_id, bodies, *_ = stream_of(each, lengths)
                before = [each.get(f"/rheed/stream/{data_id}/chunks/{i}").content for i in range(len(lengths))]
                each.end(data_id)
                each.sealed(data_id)
                after = [each.get(f"/rheed/stream/{data_id}/chunks/{i}").content for i in range(len(lengths))]
                assert before == after == bodies
                path = each.platform.store.sealed_path(data_id) if each is local else api.lake(data_id, tmp_path)
                files = [file for file in path.rglob("*") if file.is_file()]
                found.append({f.relative_to(path): f.read_bytes().replace(data_id.encode(), b"id") for f in files})
            assert found[0] == found[1]
        local.platform.close()

    def test_a_whole_shard_is_copied_by_the_store(self, start):
        api = start()
        data_id, bodies, *_ = stream_of(api, (20, 20, 7))
        real, reads = api.platform.lake.get, []
        api.platform.lake.get = lambda name, *place: reads.append((name, *place)) or real(name, *place)
        api.end(data_id)
        api.platform._sealer.submit(int).result()
        del api.platform.lake.get
        whole = [name for name, *place in reads if name.startswith(".staging/") and (not place or place[0] >= 0)]
        assert [name.rpartition("/")[2].partition(".")[0] for name in whole] == ["2"]
        api.sealed(data_id)
        assert api.bodies(data_id, 3) == bodies

    def test_details_tell_the_etag_and_no_crc_that_nobody_counted(self, start):
        api = start()
        data_id, body = api.create(), pack(frames_of(4)).tobytes()
        etag = api.put(api.url(data_id, 0, metadata()), body).headers["etag"].strip('"')
        [chunk] = api.details(data_id)["chunk_list"]
        assert (chunk["bytes"], chunk["etag"], chunk["crc32c"], chunk["puts"]) == (len(body), etag, None, 1)
        answer = api.chunk(data_id, 0)
        assert answer.content == body
        assert "x-chunk-crc32c" not in answer.headers
        assert answer.headers["x-chunk-dims"] == "4,6,8"

    def test_the_upload_that_came_last_counts(self, start):
        api = start()
        data_id = api.create()
        one, other = pack(frames_of(4, 1)).tobytes(), pack(frames_of(5, 2)).tobytes()
        early, late = api.url(data_id, 0, metadata()), api.url(data_id, 0, metadata((5, 6, 8), START_MS + 1))
        api.put(early, one)
        assert api.chunk(data_id, 0).content == one
        api.put(late, other)
        assert api.details(data_id)["chunk_list"][0]["frames"] == 5
        time.sleep(1.1)  # what S3 tells of the time are seconds
        api.put(early, one)
        assert api.end(data_id)["frames"] == 4
        found = api.sealed(data_id)
        assert (found["chunk_list"][0]["start_unix_ms_utc"], found["chunk_list"][0]["puts"]) == (START_MS, 3)
        assert api.bodies(data_id, 1) == [one]

    def test_what_was_put_over_a_confirmed_chunk_is_seen_at_the_end(self, start):
        api = start()
        data_id, url = api.create(), None
        first, second = pack(frames_of(4, 1)).tobytes(), pack(frames_of(4, 2)).tobytes()
        url = api.url(data_id, 0, metadata())
        api.put(url, first)
        assert api.details(data_id)["chunks"] == 1
        api.put(url, second)
        assert api.end(data_id)["chunks"] == 1
        api.sealed(data_id)
        assert api.bodies(data_id, 1) == [second]

    def test_a_chunk_replaced_while_it_is_read_is_asked_for_again(self, start):
        api = start()
        data_id = api.create()
        url = api.url(data_id, 0, metadata())
        api.put(url, pack(frames_of(4)).tobytes())
        assert api.details(data_id)["chunks"] == 1
        other = pack(np.zeros((4, 6, 8), np.uint8)).tobytes()
        api.put(url, other)
        assert api.chunk(data_id, 0).status_code == 503
        assert api.chunk(data_id, 0).content == other

    def test_what_is_no_shard_does_not_count(self, start, settings, caplog):
        api = start(dataclasses.replace(settings, max_shard_bytes=100_000))
        data_id, good = api.create(), pack(frames_of(4)).tobytes()
        torn = [b"", b"x" * 500, good[:-1], pack(frames_of(3)).tobytes(), b"x" * 100_001]
        urls = [api.url(data_id, index, metadata()) for index in range(len(torn))]
        for url, body in zip(urls, torn, strict=True):
            assert api.put(url, body).status_code == 200  # S3 takes anything
        assert (api.details(data_id)["chunks"], api.chunk(data_id, 0).status_code) == (0, 404)
        for index in range(len(torn)):
            assert f"stream {data_id}, chunk {index}: what was uploaded does not count" in caplog.text
            api.put(api.url(data_id, index, metadata()), good)
        assert api.details(data_id)["chunks"] == len(torn)
        time.sleep(1.1)
        for url in urls[1:]:
            api.put(url, b"torn, and later")
        api.put(urls[0], good)
        assert api.end(data_id)["missing_chunks"] == []
        assert [chunk["puts"] for chunk in api.sealed(data_id)["chunk_list"]] == [2, 1, 1, 1, 1]
        assert api.bodies(data_id, len(torn)) == [good] * len(torn)

    def test_a_chunk_that_was_announced_and_never_came_keeps_its_room(self, start, tmp_path):
        api = start()
        data_id = api.create()
        api.upload(data_id, 0, frames_of(20, 0))
        api.url(data_id, 1, metadata((20, 6, 8), START_MS + 2000))
        api.upload(data_id, 2, frames_of(5, 2), START_MS + 4000)
        assert api.end(data_id) == {
            "data_id": data_id,
            "status": "completed",
            "frames": 25,
            "chunks": 2,
            "missing_chunks": [1],
        }
        api.sealed(data_id)
        group = zarr.open_group(api.lake(data_id, tmp_path), mode="r")
        assert group["frame_index"][:].tolist() == [*range(20), *[-1] * 20, *range(40, 45)]
        assert group.attrs["missing_chunks"] == [1]
        assert f"{data_id}.zarr/frames/c/1/0/0" not in api.objects()

    def test_more_chunks_than_are_looked_at_one_by_one(self, start, monkeypatch):
        monkeypatch.setattr(presigned_module, "MAX_LOOKS", 3)
        api = start()
        data_id = api.create()
        urls = [api.url(data_id, index, metadata((1, 6, 8))) for index in range(6)]
        body = pack(frames_of(1)).tobytes()
        for url in urls[:4]:
            api.put(url, body)
        assert api.details(data_id)["chunks"] == 4
        assert api.end(data_id)["missing_chunks"] == [4, 5]

    def test_what_came_is_noticed_in_the_background(self, start, gate):
        api = start()
        data_id = api.create()
        api.platform.uploads._looked_s[data_id] = time.monotonic() + 60
        api.upload(data_id, 0, frames_of(4))
        api.platform.uploads._looked_s[data_id] = 0
        api.url(data_id, 1, metadata())
        for _ in range(1000):
            if api.get("/rheed/stream/").json()[0]["chunks"] == 1:
                break
            time.sleep(0.005)
        else:
            raise TimeoutError

    def test_a_url_takes_its_own_object_only_and_for_as_long_as_was_said(self, start, gate, settings):
        api = start()
        data_id, body = api.create(), pack(frames_of(4)).tobytes()
        url = api.url(data_id, 0, metadata())
        key = staged_key(url)
        assert key.startswith(f".staging/{data_id}/0.")
        assert api.put(url.replace(key, key[:-1] + "z"), body).status_code == 403
        gate.late_s = [settings.upload_url_ttl_s + 1]
        assert api.put(url, body).status_code == 403
        assert httpx.put(url, content=body, headers={"Content-Type": "image/png"}).status_code == 200
        assert httpx.put(url, content=body, headers={"x-amz-acl": "public-read"}).status_code == 403

    def test_a_client_asks_for_a_fresh_url_when_one_has_expired(self, gate, tmp_path):
        gate.late_s = [1e4, 1e4]

        async def stream(url):
            to = open_destination(url, CLIENT_KEY, retry=QUICK)
            data_id = await to.open_stream(StreamSettings("growth", 10.0, 0.0, SIZE), "key")
            delivery = await to.deliver(data_id, 0, metadata(), pack(frames_of(4)))
            await to.aclose()
            return data_id, delivery

        with ThreadServer(URL, state=tmp_path / "state") as server:
            _, delivery = asyncio.run(stream(server.url))
        assert delivery.attempts == 3
        assert [status for _, status in gate.presigned] == [403, 403, 200]
        assert len({path for path, _ in gate.presigned}) == 3

    def test_no_upload_comes_through_the_server(self, start):
        api = start()
        data_id = api.create()
        assert api.request("PUT", f"/uploads/{data_id}/0", content=b"x").status_code == 403


def test_no_upload_url_and_no_credential_is_said_anywhere(start, gate, caplog, settings):
    caplog.set_level(logging.DEBUG, "rheed_ingest")
    caplog.set_level(logging.DEBUG, "rheed_ingest.server")
    api = start()
    data_id = api.create()
    url = api.url(data_id, 0, metadata())
    api.put(url, b"noise")
    said = [api.get(f"/rheed/stream/{data_id}").text]
    gate.is_shut = True
    said += [api.get(f"/rheed/stream/{data_id}").text, api.post(f"/rheed/stream/{data_id}/end").text]
    gate.is_shut = False
    said += [api.post(f"/rheed/stream/{data_id}/end").text, caplog.text, repr(settings), repr(api.platform.lake)]
    assert "does not count" in caplog.text
    for secret in ("X-Amz-", "Signature", SECRET, staged_key(url).partition(".staging")[2]):
        assert not [text for text in said if secret in text], secret
