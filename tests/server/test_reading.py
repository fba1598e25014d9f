import uuid

import pytest

from ingest.shard import unpack
from tests.server.conftest import START_MS, frames_of, metadata


def test_the_list_shows_every_stream(api, clock):
    first = api.create("one", project_id="p")
    clock.now_s += 1
    second = api.create("two")
    api.upload(first, 0, frames_of(4))
    api.end(first)
    streams = api.get("/rheed/stream/").json()
    assert [stream["id"] for stream in streams] == [first, second]
    assert streams[0] == {
        "id": first,
        "name": "one",
        "status": "closed",
        "frames": 4,
        "chunks": 1,
        "created_unix_s": clock.now_s - 1,
        "sample": None,
        "tags": [],
        "project": "p",
        "end_calls": 1,
    }
    assert (streams[1]["status"], streams[1]["frames"]) == ("open", 0)


def test_details_hold_what_was_said_of_each_chunk(api):
    data_id = api.create("one", 12.5, 30.0, azimuth_label=None)
    body = api.upload(data_id, 1, frames_of(3), START_MS, 25, 12.5)
    api.url(data_id, 2, metadata(clock_offset_ms=-7, clock_uncertainty_ms=0.25))
    details = api.details(data_id)
    assert (details["fps"], details["rotations_per_min"], details["rotational_period"]) == (12.5, 30.0, 25.0)
    assert details["missing_chunks"] == [0, 2]
    chunk = details["chunk_list"][0]
    assert chunk.pop("crc32c") == api.get(f"/rheed/stream/{data_id}/chunks/1").headers["x-chunk-crc32c"]
    assert chunk == {
        "index": 1,
        "frames": 3,
        "dims": [3, 6, 8],
        "chunk_size": 25,
        "fps": 12.5,
        "is_rotating": False,
        "start_unix_ms_utc": START_MS,
        "end_unix_ms_utc": START_MS + 240,
        "clock_offset_ms": None,
        "clock_uncertainty_ms": None,
        "lost_frames": [],
        "bytes": len(body),
        "puts": 1,
    }


def test_a_clock_correction_is_kept(api):
    data_id = api.create()
    url = api.url(data_id, 0, metadata(clock_offset_ms=-7, clock_uncertainty_ms=0.25))
    assert api.put(url, api.upload(data_id, 1, frames_of(4))).status_code == 200
    chunk = api.details(data_id)["chunk_list"][0]
    assert (chunk["clock_offset_ms"], chunk["clock_uncertainty_ms"]) == (-7.0, 0.2)


def test_a_chunk_says_its_shape_and_start(api):
    data_id, frames = api.create(), frames_of(5)
    body = api.upload(data_id, 3, frames)
    for _ in ("staged", "sealed"):
        answer = api.get(f"/rheed/stream/{data_id}/chunks/3")
        assert answer.content == body
        assert answer.headers["x-chunk-dims"] == "5,6,8"
        assert answer.headers["x-chunk-start-unix-ms-utc"] == str(START_MS)
        assert answer.headers["x-chunk-fps"] == "10.0"
        assert (unpack(answer.content, (5, 6, 8)) == frames).all()
        api.end(data_id)
        api.sealed(data_id)


@pytest.mark.parametrize("index", ["0", "7", "-1", "x", "1" * 30, "%2e%2e"])
def test_a_chunk_that_is_not_there_is_a_404(api, index):
    data_id = api.create()
    api.url(data_id, 0, metadata())
    api.upload(data_id, 1, frames_of(4))
    assert api.get(f"/rheed/stream/{data_id}/chunks/{index}").status_code == 404


@pytest.mark.parametrize("path", ["", "/chunks/0"])
@pytest.mark.parametrize("data_id", [str(uuid.uuid4()), "..", "%00", "x'; DROP TABLE streams; --"])
def test_an_unknown_stream_is_a_404(api, path, data_id):
    assert api.get(f"/rheed/stream/{data_id}{path}").status_code in (404, 405)
    assert api.get("/rheed/stream/").status_code == 200
