import uuid

import pytest


class TestSamples:
    def test_created_ones_are_listed(self, api):
        sample_id = api.post("/physical_samples/", {"name": "  GaN 42 "}).json()["physical_sample_id"]
        assert api.get("/physical_samples/").json() == [{"id": sample_id, "name": "GaN 42"}]

    @pytest.mark.parametrize("name", ["GaN 42", " gan 42", "GAN 42\t"])
    def test_a_name_that_exists_is_a_409_with_its_id(self, api, name):
        sample_id = api.post("/physical_samples/", {"name": "GaN 42"}).json()["physical_sample_id"]
        answer = api.post("/physical_samples/", {"name": name})
        assert answer.status_code == 409
        assert answer.json()["detail"]["physical_sample_id"] == sample_id
        assert len(api.get("/physical_samples/").json()) == 1

    @pytest.mark.parametrize("body", [{}, {"name": " "}, {"name": 5}, {"name": "x" * 1001}])
    def test_a_bad_name_is_refused(self, api, body):
        assert api.post("/physical_samples/", body).status_code == 422

    def test_linking_shows_in_the_stream(self, api):
        data_id = api.create()
        sample_id = api.post("/physical_samples/", {"name": "s"}).json()["physical_sample_id"]
        body = {"data_ids": [data_id], "physical_sample_id": sample_id}
        for _ in range(2):
            assert api.post("/data_entries/physical_sample", body).status_code == 200
        assert api.details(data_id)["sample"] == {"id": sample_id, "name": "s"}

    def test_all_or_nothing_is_linked(self, api):
        data_id, unknown = api.create(), str(uuid.uuid4())
        sample_id = api.post("/physical_samples/", {"name": "s"}).json()["physical_sample_id"]
        for body in (
            {"data_ids": [data_id, unknown], "physical_sample_id": sample_id},
            {"data_ids": [data_id], "physical_sample_id": unknown},
        ):
            answer = api.post("/data_entries/physical_sample", body)
            assert answer.status_code == 404
            assert unknown in answer.json()["detail"]
        assert api.details(data_id)["sample"] is None

    @pytest.mark.parametrize("data_ids", [None, "x", [1], {}])
    def test_data_ids_must_be_a_list_of_ids(self, api, data_ids):
        answer = api.post("/data_entries/physical_sample", {"data_ids": data_ids, "physical_sample_id": "x"})
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith("data_ids")


class TestProjects:
    def test_one_tracked_sample_is_active(self, api):
        url = "/projects/p1/configuration/tracking_samples"
        first, second = (api.post("/physical_samples/", {"name": n}).json()["physical_sample_id"] for n in "ab")
        for sample_id in (first, second):
            assert api.post(url, {"physical_sample_id": sample_id, "set_active": True}).status_code == 200
        assert api.get(url).json() == [
            {"physical_sample_id": first, "name": "a", "active": False},
            {"physical_sample_id": second, "name": "b", "active": True},
        ]

    def test_an_unknown_sample_is_a_404(self, api):
        url = "/projects/p1/configuration/tracking_samples"
        assert api.post(url, {"physical_sample_id": "x", "set_active": True}).status_code == 404
        assert api.post(url, {"physical_sample_id": "x", "set_active": "yes"}).status_code == 422

    def test_a_stream_keeps_its_project(self, api):
        assert api.details(api.create(project_id="p1"))["project"] == "p1"


class TestTags:
    def test_created_ones_are_listed(self, api):
        tag_id = api.post("/tags/", {"name": " growth "}).json()["id"]
        assert api.get("/tags/").json() == [{"id": tag_id, "name": "growth"}]

    def test_a_name_that_exists_is_a_400(self, api):
        api.post("/tags/", {"name": "growth"})
        assert api.post("/tags/", {"name": "GROWTH "}).status_code == 400
        assert len(api.get("/tags/").json()) == 1

    def test_linking_adds_to_what_is_linked(self, api):
        one, two = api.create(), api.create()
        tags = [api.post("/tags/", {"name": name}).json()["id"] for name in ("b", "a")]
        assert api.post("/tags/data-items/", {"data_ids": [one, two], "tag_ids": tags}).status_code == 200
        assert api.post("/tags/data-items/", {"data_ids": [one], "tag_ids": tags[:1]}).status_code == 200
        for data_id in (one, two):
            assert [tag["name"] for tag in api.details(data_id)["tags"]] == ["a", "b"]

    def test_all_or_nothing_is_linked(self, api):
        data_id = api.create()
        tag_id = api.post("/tags/", {"name": "a"}).json()["id"]
        for body in (
            {"data_ids": [data_id], "tag_ids": [tag_id, "unknown"]},
            {"data_ids": [data_id, "unknown"], "tag_ids": [tag_id]},
        ):
            assert api.post("/tags/data-items/", body).status_code == 404
        assert api.details(data_id)["tags"] == []

    def test_text_that_is_not_unicode_does_no_harm(self, api):
        answer = api.request("POST", "/tags/", content=b'{"name": "\\ud800"}')
        assert answer.status_code == 200
        assert api.get("/tags/").json()[0]["name"] == "?"
