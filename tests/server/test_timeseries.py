"""Time series at the embedded platform: what it takes, refuses, keeps and gives back."""

import asyncio
import dataclasses
import json
import math
import uuid

import httpx
import pytest

from tests.server.conftest import create_body

T0 = 1_700_000_000.125
both = pytest.mark.parametrize("prefix", ["tool-state", "metrology"])


def initialize(api, prefix="tool-state", name="log", **more) -> str:
    body = {"stream_name": name, "points_per_chunk": 100, "project_id": None, **more}
    answer = api.post(f"/{prefix}/stream/initialize", body)
    assert answer.status_code == 200, answer.text
    return answer.json()["data_id"]


def send(api, data_id, index, channel, timestamps, values, prefix="tool-state", **more):
    body = {"data_id": data_id, "chunk_index": index, "channel_name": channel, "timestamps": timestamps}
    return api.post(f"/{prefix}/stream/chunk", {**body, "values": values, **more})


def send_multi(api, data_id, index, channels, prefix="tool-state"):
    body = {"data_id": data_id, "chunk_index": index, "channels": channels}
    return api.post(f"/{prefix}/stream/chunk/multi", body)


def finalize(api, data_id, prefix="tool-state"):
    return api.post(f"/{prefix}/stream/{data_id}/finalize")


def details(api, data_id):
    return api.get(f"/tool-state/stream/{data_id}").json()


def points(api, data_id, channel):
    answer = api.get(f"/tool-state/stream/{data_id}/points", params={"channel": channel})
    assert answer.status_code == 200, answer.text
    return answer.json()


class TestInitialize:
    @both
    def test_answers_two_ids(self, api, prefix):
        body = {"stream_name": None, "points_per_chunk": 5, "project_id": None}
        answer = api.post(f"/{prefix}/stream/initialize/", body).json()
        assert set(answer) == {"data_id", "processed_data_id"}
        assert {uuid.UUID(value).version for value in answer.values()} == {4, 5}
        assert details(api, answer["data_id"])["processed_data_id"] == answer["processed_data_id"]

    def test_the_same_idempotency_key_gives_the_same_stream(self, api, start):
        body, headers = {"stream_name": "s", "points_per_chunk": 5}, {"Idempotency-Key": "k1"}
        first = api.post("/tool-state/stream/initialize", body, headers=headers).json()
        assert api.post("/tool-state/stream/initialize", body, headers=headers).json() == first
        api.platform.close()
        again = start()
        assert again.post("/tool-state/stream/initialize", body, headers=headers).json() == first
        assert len(again.get("/tool-state/stream").json()) == 1

    def test_the_same_key_with_another_body_or_kind_is_refused(self, api):
        headers = {"Idempotency-Key": "k1"}
        api.post("/rheed/stream", create_body(), headers=headers)
        for prefix in ("tool-state", "metrology"):
            answer = api.post(f"/{prefix}/stream/initialize", {"points_per_chunk": 5}, headers=headers)
            assert answer.status_code == 422
            assert "Idempotency-Key" in answer.json()["detail"]
        assert api.post("/tool-state/stream/initialize", {}, headers={"Idempotency-Key": "x" * 256}).status_code == 422

    @pytest.mark.parametrize(("name", "shown"), [(None, None), ("", None), (" log ", "log")])
    def test_a_stream_without_a_name_gets_one(self, api, name, shown):
        data_id = initialize(api, name=name)
        assert details(api, data_id)["name"] == (shown or f"Time series {data_id[:8]}")

    @pytest.mark.parametrize(
        ("change", "field"),
        [
            ({"stream_name": 3}, "stream_name"),
            ({"stream_name": "x" * 1001}, "stream_name"),
            ({"points_per_chunk": 0}, "points_per_chunk"),
            ({"points_per_chunk": None}, "points_per_chunk"),
            ({"points_per_chunk": "5"}, "points_per_chunk"),
            ({"points_per_chunk": 5.5}, "points_per_chunk"),
            ({"points_per_chunk": True}, "points_per_chunk"),
            ({"points_per_chunk": 2**63}, "points_per_chunk"),
            ({"synth_source_id": "7"}, "synth_source_id"),
            ({"synth_source_id": 2**70}, "synth_source_id"),
            ({"project_id": 5}, "project_id"),
        ],
    )
    def test_a_bad_field_is_named(self, api, change, field):
        answer = api.post("/tool-state/stream/initialize", {"points_per_chunk": 5, **change})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(field)
        assert api.get("/tool-state/stream").json() == []


class TestChunks:
    @both
    def test_what_was_sent_is_given_back_in_order_of_the_chunks(self, api, prefix):
        data_id = initialize(api, prefix)
        assert send(api, data_id, 2, "T", [T0 + 2], [2], prefix, units="C").json()["points"] == 1
        assert send(api, data_id, 0, "T", [T0, T0 + 0.1], [0.1, None], prefix).status_code == 200
        assert send(api, data_id, 1, "T", [], [], prefix).status_code == 200
        assert points(api, data_id, "T") == {
            "timestamps": [T0, T0 + 0.1, T0 + 2],
            "values": [0.1, None, 2.0],
            "units": "C",
            "chunk_indices": [0, 1, 2],
            "chunk_points": [2, 0, 1],
        }

    def test_several_channels_at_once(self, api):
        data_id = initialize(api)
        channels = {
            "T": {"timestamps": [T0], "values": [1.0], "units": "C"},
            "p": {"timestamps": [T0, T0 + 1], "values": [None, -0.0]},
        }
        assert send_multi(api, data_id, 7, channels).json() == {"data_id": data_id, "chunk_index": 7, "points": 3}
        assert points(api, data_id, "p")["values"] == [None, 0.0]
        assert math.copysign(1, points(api, data_id, "p")["values"][1]) == -1

    def test_metrology_has_no_multi(self, api):
        channels = {"T": {"timestamps": [T0], "values": [1.0]}}
        answer = send_multi(api, initialize(api, "metrology"), 0, channels, "metrology")
        assert answer.status_code == 404
        assert "one chunk request per channel" in answer.json()["detail"]

    def test_sending_again_overwrites_and_is_counted(self, api):
        data_id = initialize(api)
        send(api, data_id, 0, "T", [T0, T0 + 1], [1, 2], units="C")
        send_multi(api, data_id, 0, {"T": {"timestamps": [T0], "values": [9.0]}, "p": {"timestamps": [], "values": []}})
        send(api, data_id, 1, "T", [T0], [3], units="K")
        got = details(api, data_id)
        assert got["channels"] == [
            {
                "name": "T",
                "units": "K",
                "points": 2,
                "chunks": 2,
                "puts": 3,
                "chunk_indices": [0, 1],
                "chunk_points": [1, 1],
                "chunk_puts": [2, 1],
            },
            {
                "name": "p",
                "units": None,
                "points": 0,
                "chunks": 1,
                "puts": 1,
                "chunk_indices": [0],
                "chunk_points": [0],
                "chunk_puts": [1],
            },
        ]
        assert (got["points"], got["chunks"], got["puts"]) == (2, 2, 4)
        assert points(api, data_id, "T")["values"] == [9.0, 3.0]

    def test_chunks_of_many_requests_at_once_all_land(self, api):
        data_id = initialize(api)

        async def calls():
            transport, headers = httpx.ASGITransport(api.app), {"X-API-KEY": "another key"}
            async with httpx.AsyncClient(transport=transport, base_url="http://x", headers=headers) as client:
                channels = {f"c{i}": {"timestamps": [T0], "values": [float(i)]} for i in range(5)}
                bodies = [{"data_id": data_id, "chunk_index": i, "channels": channels} for i in range(30)]
                url = "/tool-state/stream/chunk/multi"
                return await asyncio.gather(*(client.post(url, json=body) for body in bodies))

        assert {answer.status_code for answer in asyncio.run(calls())} == {200}
        got = details(api, data_id)
        assert (got["points"], got["puts"], len(got["channels"])) == (150, 150, 5)
        assert all(channel["chunk_indices"] == list(range(30)) for channel in got["channels"])

    def test_a_stamp_that_is_null_has_no_time(self, api):
        """The SDK sends NaN stamps so."""
        data_id = initialize(api)
        assert send(api, data_id, 0, "T", [None, T0], [1, 2]).status_code == 200
        assert points(api, data_id, "T")["timestamps"] == [None, T0]

    @pytest.mark.parametrize("name", ["", " ", "a/b", "../x", ".", "\x00", "°C" * 400, "'; DROP TABLE points; --"])
    def test_any_text_is_a_channel(self, api, name):
        data_id = initialize(api)
        assert send(api, data_id, 0, name, [T0], [5]).status_code == 200
        assert points(api, data_id, name)["values"] == [5.0]

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"data_id": None}, "data_id must be"),
            ({"data_id": 5}, "data_id must be"),
            ({"chunk_index": -1}, "chunk_index must be an integer"),
            ({"chunk_index": 2**32}, "chunk_index must be an integer"),
            ({"chunk_index": True}, "chunk_index must be an integer"),
            ({"chunk_index": 1.0}, "chunk_index must be an integer"),
            ({"chunk_index": None}, "chunk_index must be an integer"),
            ({"channel_name": None}, "channel_name must be a string"),
            ({"channel_name": "x" * 1001}, "channel_name must be a string"),
            ({"timestamps": None}, "timestamps must be a list of numbers"),
            ({"timestamps": ["1"]}, "timestamps must be a list of numbers; one is '1'"),
            ({"timestamps": [[1.0]]}, "timestamps must be a list of numbers"),
            ({"timestamps": [T0, T0]}, "values must be as many as timestamps: 2; got 1"),
            ({"timestamps": [T0 * 1000]}, "timestamps must be Unix seconds"),
            ({"timestamps": [-1e300]}, "timestamps must be Unix seconds"),
            ({"values": 5.0}, "values must be a list of numbers"),
            ({"values": [True]}, "values must be a list of numbers; one is True"),
            ({"values": ["nan"]}, "values must be a list of numbers"),
            ({"units": 5}, "units must be a string"),
        ],
    )
    def test_a_bad_field_is_named(self, api, change, says):
        data_id = initialize(api)
        body = {"data_id": data_id, "chunk_index": 0, "channel_name": "T", "timestamps": [T0], "values": [1.0]}
        answer = api.post("/tool-state/stream/chunk", {**body, **change})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(says)
        if {"channel_name", "data_id"}.isdisjoint(change):
            fields = {key: {**body, **change}[key] for key in ("timestamps", "values", "units") if key in body | change}
            index = {**body, **change}["chunk_index"]
            answer = send_multi(api, data_id, index, {"good": {"timestamps": [], "values": []}, "bad": fields})
            assert answer.status_code == 422
            assert answer.json()["detail"].startswith(says if "chunk_index" in change else f"channels['bad'].{says}")
        assert details(api, data_id)["channels"] == []

    @pytest.mark.parametrize("channels", [None, {}, [], "T", {"T": None}, {"T": []}, {"T": {}}])
    def test_multi_wants_channels(self, api, channels):
        answer = send_multi(api, initialize(api), 0, channels)
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("channels")

    @pytest.mark.parametrize(
        ("content", "status"),
        [(b"{", 400), (b"", 400), (b"\xff", 400), (b"[]", 422), (b"[" * 200_000, 400), (b'{"values": [NaN]}', 400)],
    )
    def test_a_body_that_is_not_an_object_is_refused(self, api, content, status):
        answer = api.request("POST", "/tool-state/stream/chunk", content=content)
        assert answer.status_code == status
        assert answer.json()["detail"]

    def test_a_number_too_large_for_a_float_is_refused(self, api):
        data_id = initialize(api)
        body = {"data_id": data_id, "chunk_index": 0, "channel_name": "T", "timestamps": [T0], "values": [12321]}
        for number in ("1e999", "1" + "0" * 400):
            content = json.dumps(body).replace("12321", number)
            assert api.request("POST", "/tool-state/stream/chunk", content=content).status_code in (400, 422)

    def test_a_chunk_may_be_larger_than_other_calls(self, api, settings):
        data_id, n = initialize(api), 60_000
        values = [i / 7 for i in range(n)]
        assert len(json.dumps(values)) > settings.max_json_bytes
        assert send(api, data_id, 0, "T", [T0] * n, values).status_code == 200
        assert points(api, data_id, "T")["values"] == values

    def test_a_body_that_is_too_large_is_refused(self, start, settings):
        api = start(dataclasses.replace(settings, max_points_bytes=1000))
        assert send(api, initialize(api), 0, "T", [T0] * 100, [1.0] * 100).status_code == 413


class TestLife:
    @both
    def test_finalize_reports_and_again_the_same(self, api, prefix):
        data_id = initialize(api, prefix)
        for index in (0, 2):
            send(api, data_id, index, "T", [T0, T0], [1, 2], prefix)
        send(api, data_id, 5, "p", [T0], [1], prefix)
        first = finalize(api, data_id, prefix)
        assert first.json() == {"data_id": data_id, "status": "completed", "channels": 2, "chunks": 3, "points": 5}
        assert finalize(api, data_id, prefix).json() == first.json()
        got = details(api, data_id)
        assert (got["status"], got["end_calls"], got["times_closed"]) == ("closed", 2, 1)

    def test_a_closed_stream_takes_nothing(self, api):
        data_id = initialize(api)
        finalize(api, data_id)
        for answer in (
            send(api, data_id, 0, "T", [T0], [1]),
            send_multi(api, data_id, 0, {"T": {"timestamps": [T0], "values": [1]}}),
        ):
            assert answer.status_code == 409
            assert "closed" in answer.json()["detail"]

    def test_a_silent_stream_has_failed(self, api, clock, settings):
        data_id = initialize(api)
        clock.now_s += settings.silent_stream_s
        assert send(api, data_id, 0, "T", [T0], [1]).status_code == 200
        clock.now_s += settings.silent_stream_s + 0.1
        for answer in (send(api, data_id, 1, "T", [T0], [1]), finalize(api, data_id)):
            assert answer.status_code == 409
            assert "failed: it got nothing for 7200 s" in answer.json()["detail"]
        assert details(api, data_id)["status"] == "failed"
        assert api.platform.catalogue.fail_silent(clock()) == 1
        assert points(api, data_id, "T")["values"] == [1.0]

    @both
    def test_an_unknown_stream_is_a_404(self, api, prefix):
        nobody = str(uuid.uuid4())
        multi = send_multi(api, nobody, 0, {"T": {"timestamps": [T0], "values": [1]}})
        one, end = send(api, nobody, 0, "T", [T0], [1], prefix), finalize(api, nobody, prefix)
        read = [api.get(f"/{prefix}/stream/{nobody}{rest}") for rest in ("", "/points?channel=T")]
        assert {answer.status_code for answer in (one, multi, end, *read)} == {404}

    def test_the_kinds_of_streams_do_not_mix(self, api):
        frames, series = api.create(), initialize(api)
        assert send(api, frames, 0, "T", [T0], [1]).status_code == 404
        assert finalize(api, frames).status_code == 404
        assert api.get(f"/tool-state/stream/{frames}").status_code == 404
        assert api.post(f"/rheed/stream/{series}/end").status_code == 404
        assert api.get(f"/rheed/stream/{series}").status_code == 404
        assert [stream["id"] for stream in api.get("/rheed/stream").json()] == [frames]
        assert [stream["id"] for stream in api.get("/tool-state/stream").json()] == [series]

    def test_a_channel_that_is_not_there_is_a_404(self, api):
        data_id = initialize(api)
        send(api, data_id, 0, "T", [T0], [1])
        url = f"/metrology/stream/{data_id}/points"
        assert api.get(url, params={"channel": "t"}).status_code == 404
        assert api.get(url).status_code == 422
        assert api.get(url, params={"channel": "T"}).status_code == 200

    def test_nobody_without_a_key(self, api):
        assert api.post("/tool-state/stream/initialize", {"points_per_chunk": 5}, key=None).status_code == 401

    def test_what_was_answered_is_there_after_a_restart(self, api, start):
        data_id = initialize(api)
        send(api, data_id, 0, "T", [T0], [1.25], units="C")
        api.platform.close()
        again = start()
        assert points(again, data_id, "T")["values"] == [1.25]
        assert send(again, data_id, 1, "T", [T0], [2]).status_code == 200


def test_sample_project_and_tags_are_linked(api):
    series, frames = initialize(api, project_id="p1"), api.create()
    sample_id = api.post("/physical_samples/", {"name": "GaN"}).json()["physical_sample_id"]
    tag_id = api.post("/tags/", {"name": "growth"}).json()["id"]
    for url, body in (
        ("/data_entries/physical_sample", {"data_ids": [series, frames], "physical_sample_id": sample_id}),
        ("/tags/data-items/", {"data_ids": [series, frames], "tag_ids": [tag_id]}),
    ):
        assert api.post(url, body).status_code == 200
    got = details(api, series)
    assert got["sample"] == {"id": sample_id, "name": "GaN"}
    assert got["tags"] == [{"id": tag_id, "name": "growth"}]
    assert got["project"] == "p1"
    assert api.get("/tool-state/stream").json()[0]["tags"] == got["tags"]
    assert api.details(frames)["sample"] == got["sample"]
