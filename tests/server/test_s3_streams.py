"""Data in S3: how streams live, fail and are sealed, also through restarts."""

# ruff: noqa: F811 - fixtures are imported, and asked for by name

import time

import httpx
import numpy as np
import xarray
import zarr

from ingest.server.run import start_server_process
from ingest.shard import pack
from tests.s3 import BUCKET
from tests.server.conftest import START_MS, CutStore, frames_of, metadata
from tests.server.s3_api import URL, gate, settings, staged_key, start  # noqa: F401  fixtures
from tests.server.test_seal import expected_times_ns, stream_of, times_ns
from tests.server.test_timeseries import T0, details, finalize, initialize, points, send_multi


def fail(*_):
    raise OSError("the catalogue's disk failed")


class TestStreams:
    def test_an_upload_is_a_sign_of_life(self, start, clock, settings):
        api = start()
        data_id = api.create()
        url = api.url(data_id, 0, metadata())
        clock.now_s += settings.silent_stream_s - 1
        api.put(url, pack(frames_of(4)).tobytes())
        api.platform.tend()
        clock.now_s += 2
        assert api.end(data_id)["chunks"] == 1

    def test_a_silent_stream_fails(self, start, clock, settings):
        api = start()
        data_id = api.create()
        api.url(data_id, 0, metadata())
        clock.now_s += settings.silent_stream_s + 1
        api.platform.tend()
        assert api.details(data_id)["status"] == "failed"
        assert api.post(f"/rheed/stream/{data_id}/end").status_code == 409
        assert api.ask_url(data_id, 1, metadata()).status_code == 409

    def test_nothing_fails_while_nobody_knows_whether_it_was_silent(self, start, clock, settings, gate):
        api = start()
        data_id = api.create()
        api.url(data_id, 0, metadata())
        clock.now_s += settings.silent_stream_s + 1
        gate.is_shut = True
        api.platform.tend()
        query = "SELECT status FROM streams"
        assert api.platform._database.read(lambda db: db.execute(query).fetchone()[0]) == "open"

    def test_a_store_that_does_not_answer_is_a_503_and_nothing_is_closed(self, start, gate):
        api = start()
        data_id, url = api.create(), None
        url = api.url(data_id, 0, metadata())
        body = pack(frames_of(4)).tobytes()
        api.put(url, body)
        gate.is_shut = True
        for answer in (api.post(f"/rheed/stream/{data_id}/end"), api.get(f"/rheed/stream/{data_id}")):
            assert answer.status_code == 503
            assert answer.json()["detail"] == "the platform's store does not answer; try again"
        gate.is_shut = False
        assert api.end(data_id)["chunks"] == 1
        assert api.end(data_id)["chunks"] == 1
        assert api.sealed(data_id)["times_closed"] == 1

    def test_a_seal_that_found_no_store_is_tried_again_without_a_restart(self, start, gate, caplog):
        api = start()
        data_id, bodies, *_ = stream_of(api, (7, 20))
        api.platform.uploads.look(data_id)
        api.platform.catalogue.end_stream(data_id, api.platform.clock())
        gate.is_shut = True
        api.platform.seal_later(data_id)
        api.platform._sealer.submit(int).result()
        assert "it is tried again soon" in caplog.text
        gate.is_shut = False
        assert api.bodies(data_id, 2) == bodies
        api.platform.tend()
        api.sealed(data_id)
        assert api.bodies(data_id, 2) == bodies

    def test_points_of_time_series_are_sealed_there_too(self, start, tmp_path):
        api = start()
        data_id = initialize(api)
        for index in range(3):
            fields = {"timestamps": [T0 + index, T0 + index + 0.5], "values": [index, None], "units": "K"}
            send_multi(api, data_id, index, {"a": fields, "b/c": fields})
        before = {name: points(api, data_id, name) for name in ("a", "b/c")}
        finalize(api, data_id)
        api.platform._sealer.submit(int).result()
        assert details(api, data_id)["sealed"]
        assert {name: points(api, data_id, name) for name in before} == before
        group = zarr.open_group(api.lake(data_id, tmp_path), mode="r")["timeseries"]
        assert group["a/time"][:].tolist() == before["a"]["timestamps"]
        sample_id = api.post("/physical_samples/", {"name": "late"}).json()["physical_sample_id"]
        api.post("/data_entries/physical_sample", {"data_ids": [data_id], "physical_sample_id": sample_id})
        api.platform._sealer.submit(int).result()
        assert zarr.open_group(api.lake(data_id, tmp_path), mode="r").attrs["sample"] == "late"


class TestRestarts:
    def test_a_restart_in_the_middle_loses_no_upload(self, start):
        api = start()
        data_id, bodies = api.create(), [pack(frames_of(7, seed)).tobytes() for seed in range(4)]
        urls = [api.url(data_id, index, metadata((7, 6, 8), START_MS + 1000 * index)) for index in range(4)]
        api.put(urls[0], bodies[0])
        assert api.details(data_id)["chunks"] == 1
        api.put(urls[1], bodies[1])
        api.platform.close()
        api.put(urls[2], bodies[2])
        api.s3.put_object(Bucket=BUCKET, Key=f"rheed/.staging/{data_id}/0.stranger", Body=b"x")
        api.s3.put_object(Bucket=BUCKET, Key="rheed/.staging/unknown/0.stranger", Body=b"x")
        again = start()
        again.put(urls[3], bodies[3])
        assert sorted(again.objects(".staging/")) == sorted(map(staged_key, urls))
        assert again.end(data_id)["missing_chunks"] == []
        again.sealed(data_id)
        assert again.bodies(data_id, 4) == bodies

    def test_a_seal_that_was_cut_off_is_continued(self, start, tmp_path):
        lengths = (20, 7)
        api = start()
        whole, streams = api.platform.lake, []
        for changes in range(9):
            data_id, bodies, frames, starts = stream_of(api, lengths)
            api.platform.lake = CutStore(whole, changes)
            if changes == 8:
                api.platform.catalogue.mark_sealed = fail
            api.end(data_id)
            api.platform._sealer.submit(int).result()
            assert (f"{data_id}.zarr/zarr.json" in api.objects(data_id)) == (changes == 8)
            assert api.details(data_id)["sealed"] is False
            assert api.bodies(data_id, 2) == bodies
            streams.append((data_id, bodies, frames, starts))
        api.platform.close()
        again = start()
        for data_id, bodies, frames, starts in streams:
            again.sealed(data_id)
            assert again.bodies(data_id, 2) == bodies
            with xarray.open_zarr(str(again.lake(data_id, tmp_path)), consolidated=False) as data:
                np.testing.assert_array_equal(data["frames"].values, np.concatenate(frames))
                np.testing.assert_array_equal(times_ns(data), expected_times_ns(starts, lengths))

    def test_a_close_in_the_middle_of_a_seal_ends_it(self, start, caplog):
        api = start()
        data_id, bodies, *_ = stream_of(api, (7, 20, 20, 20))
        real, copies = api.platform.lake.put, []

        def put(name, data, **more):
            copies.append(name)
            api.platform._closed = True
            return real(name, data, **more)

        api.platform.lake.put = put
        api.end(data_id)
        api.platform._sealer.submit(int).result()
        api.platform._closed = False
        api.platform.close()
        assert caplog.text == ""
        again = start()
        again.sealed(data_id)
        assert again.bodies(data_id, 4) == bodies

    def test_a_kill_loses_nothing(self, s3, gate, tmp_path):
        bodies = [pack(frames_of(length, seed)).tobytes() for seed, length in enumerate((20, 7))]

        def started(key=None):
            return start_server_process(URL, state=tmp_path / "state", api_key=key)

        def client(server):
            return httpx.Client(base_url=server.url, headers={"X-API-KEY": server.api_key.reveal()}, timeout=30)

        def put(http, data_id, index, length):
            params = {
                "original_filename": f"frames.zarr/frames/c/{index}/0/0", "num_parts": 1, "staging_type": "stream"
            }  # fmt: skip
            body = metadata((length, 6, 8)).body(data_id)
            url = http.post("/data_entries/raw_data/staged/upload_urls/", json=body, params=params).json()[0]["url"]
            assert httpx.put(url, content=bodies[index]).status_code == 200

        with started() as server, client(server) as http:
            body = {"data_item_name": "n", "rotational_period": None, "rotations_per_min": 0.0, "fps_capture_rate": 10}
            data_id = http.post("/rheed/stream/", json=body).json()
            put(http, data_id, 0, 20)
            key = server.api_key
            server.kill()
        with started(key) as server, client(server) as http:
            put(http, data_id, 1, 7)
            assert http.post(f"/rheed/stream/{data_id}/end").json()["missing_chunks"] == []
            while not http.get(f"/rheed/stream/{data_id}").json()["sealed"]:
                time.sleep(0.01)
            assert [http.get(f"/rheed/stream/{data_id}/chunks/{i}").content for i in (0, 1)] == bodies
            assert server.log() == ""
            assert server.data == tmp_path / "state"
