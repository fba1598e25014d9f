"""Frames that the source could not give: named by a header, and never taken for black ones."""

import numpy as np
import pytest
import zarr

from ingest.lake import layout as layout_module
from ingest.server.seal import NOT_A_TIME
from ingest.shard import assemble, pack
from ingest.wire.lost_frames import MAX_CHARS
from tests.server.conftest import START_MS, UPLOAD_URLS, frames_of, metadata, staged
from tests.server.test_seal import SIZE, expected_times_ns, sealed_data, times_ns

HEADER = "X-Rheed-Lost-Frames"


def ask(api, data_id, *values, frames=20):
    """Ask for an upload URL with the header on as many lines as there are values."""
    params = {"original_filename": "frames.zarr/frames/c/0/0/0", "num_parts": 1, "staging_type": "stream"}
    body = metadata((frames, 6, 8)).body(data_id)
    return api.post(UPLOAD_URLS, body, params=params, headers=[(HEADER, value) for value in values])


def chunk_of(api, data_id, index=0):
    return next(chunk for chunk in api.details(data_id)["chunk_list"] if chunk["index"] == index)


@pytest.mark.parametrize(
    ("values", "lost"),
    [
        ((), []),
        (("0",), [0]),
        (("3,17-18",), [3, 17, 18]),
        (("3, 17-18",), [3, 17, 18]),
        (("3", "17-18"), [3, 17, 18]),
        (("0-19",), [*range(20)]),
        (("19-19",), [19]),
    ],
    ids=str,
)
def test_the_header_names_the_lost_frames_of_the_chunk(api, values, lost):
    data_id = api.create()
    answer = ask(api, data_id, *values)
    assert answer.status_code == 200, answer.text
    assert api.put(answer.json()[0]["url"], pack(frames_of(20), lost=lost).tobytes()).status_code == 200
    assert chunk_of(api, data_id)["lost_frames"] == lost
    assert (api.details(data_id)["frames"], api.details(data_id)["frames_lost"]) == (20, len(lost))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (("",), "must be frame numbers and ranges that rise, such as 3,17-18; got ''"),
        (("all",), "got 'all'"),
        (("3;5",), "got '3;5'"),
        (("[3]",), "got '[3]'"),
        (("-1",), "got '-1'"),
        (("0x3",), "got '0x3'"),
        (("\u00b3".encode("latin-1"),), "got '\u00b3'"),
        (("18-17",), "got '18-17'"),
        (("5,3",), "got '3'"),
        (("5", "5"), "got '5'"),
        (("20",), "names frame 20 of a chunk that has 0 to 19"),
        (("3,17-20",), "names frame 20 of a chunk that has 0 to 19"),
        (("0-999999999",), "names frame 999999999 of a chunk that has 0 to 19"),
        ((",".join("7" * (MAX_CHARS // 2 + 1)),), f"must have {MAX_CHARS} characters at most; got {MAX_CHARS + 1}"),
    ],
    ids=lambda values: repr(values)[:24],
)
def test_a_bad_header_is_refused_with_a_word(api, values, words):
    data_id = api.create()
    answer = ask(api, data_id, *values)
    assert answer.status_code == 422
    assert answer.json()["detail"].startswith(HEADER)
    assert words in answer.json()["detail"]
    assert api.details(data_id)["missing_chunks"] == [], "nothing was announced"


def test_many_scattered_frames_fit_an_upload_url(api):
    data_id, lost = api.create(), tuple(range(1, 1600, 2))
    body = api.upload(data_id, 0, frames_of(1600), lost=lost)
    assert chunk_of(api, data_id)["lost_frames"] == list(lost)
    assert api.get(f"/rheed/stream/{data_id}/chunks/0").content == body


@pytest.mark.parametrize("again", [(), (3,)], ids=["whole", "another frame"])
def test_the_chunk_that_comes_again_counts(api, again):
    data_id, frames = api.create(), frames_of(4)
    api.upload(data_id, 0, frames, lost=(1, 2))
    api.upload(data_id, 1, frames, lost=(0,))
    assert api.details(data_id)["frames_lost"] == 3
    api.url(data_id, 0, metadata(frames.shape, lost_frames=again))
    assert chunk_of(api, data_id)["lost_frames"] == [1, 2], "a URL that nobody used changes nothing"
    api.upload(data_id, 0, frames, lost=again)
    assert chunk_of(api, data_id)["lost_frames"] == list(again)
    assert api.details(data_id)["frames_lost"] == 1 + len(again)
    api.end(data_id)
    api.sealed(data_id)
    lost = [*again, 4]
    assert np.flatnonzero(sealed_data(api, data_id)["frame_index"].values == -1).tolist() == lost


def test_a_url_is_good_for_the_lost_frames_that_it_was_asked_for(api):
    data_id, frames = api.create(), frames_of(4)
    lossy, whole = (api.url(data_id, 0, metadata(frames.shape, lost_frames=lost)) for lost in ((2,), ()))
    assert api.put(whole, pack(frames).tobytes()).status_code == 200
    assert api.put(lossy, pack(frames, lost=(2,)).tobytes()).status_code == 200
    assert chunk_of(api, data_id)["lost_frames"] == [2]


def test_after_the_end_the_same_chunk_with_the_same_losses_is_fine(api):
    data_id, frames = api.create(), frames_of(4)
    body = pack(frames, lost=(2,)).tobytes()
    lossy, whole = (api.url(data_id, 0, metadata(frames.shape, lost_frames=lost)) for lost in ((2,), ()))
    api.put(lossy, body)
    api.end(data_id)
    assert api.put(lossy, body).status_code == 200
    assert api.put(whole, body).status_code == 409


# The first chunk is a full shard of the grid, and is linked as it is; the others are laid out again.
LENGTHS, LOST = (20, 7, 20, 3), ((0, 19), (), (3, 4, 5, 19), (2,))
PLACES = [0, 19, 30, 31, 32, 46, 49]


def lossy_stream(api):
    data_id = api.create()
    starts = [START_MS + 10_000 * number for number in range(len(LENGTHS))]
    frames = [frames_of(length, seed) for seed, length in enumerate(LENGTHS)]
    bodies = [
        api.upload(data_id, i, part, starts[i], SIZE, lost=lost)
        for i, (part, lost) in enumerate(zip(frames, LOST, strict=True))
    ]
    return data_id, np.concatenate(frames), starts, bodies


def assert_lost_in_their_places(api, data_id, frames, starts):
    data = sealed_data(api, data_id)
    here = np.isin(np.arange(50), PLACES, invert=True)
    assert np.flatnonzero(np.isnat(data["time"].values)).tolist() == PLACES
    assert data["frame_index"].values.tolist() == [i if i not in PLACES else -1 for i in range(50)]
    np.testing.assert_array_equal(times_ns(data)[here], expected_times_ns(starts, LENGTHS)[here])
    np.testing.assert_array_equal(data["frames"].values, frames * here[:, np.newaxis, np.newaxis])
    return data


@pytest.mark.parametrize("block", [1 << 16, 16], ids=["one block", "blocks of 16"])
def test_a_lost_frame_is_sealed_without_number_and_time_and_the_others_as_ever(api, monkeypatch, block):
    monkeypatch.setattr(layout_module, "VALUES_PER_CHUNK", block)
    data_id, frames, starts, bodies = lossy_stream(api)
    api.end(data_id)
    api.sealed(data_id)
    data = assert_lost_in_their_places(api, data_id, frames, starts)
    assert (data.attrs["frames_stored"], data.attrs["frames_lost"], data.attrs["missing_chunks"]) == (43, 7, [])
    group = zarr.open_group(str(api.platform.store.sealed_path(data_id)), mode="r")
    assert set(group["time"][:][PLACES].tolist()) == {NOT_A_TIME}
    assert [chunk["lost_frames"] for chunk in api.details(data_id)["chunk_list"]] == [list(lost) for lost in LOST]
    for index, body in enumerate(bodies):
        assert api.get(f"/rheed/stream/{data_id}/chunks/{index}").content == body


def test_a_stream_that_was_closed_by_another_process_is_sealed_the_same(api, start, monkeypatch):
    data_id, frames, starts, _ = lossy_stream(api)
    monkeypatch.setattr(api.platform, "seal_later", lambda _: None)
    api.end(data_id)
    api.platform.close()
    again = start()
    again.sealed(data_id)
    assert_lost_in_their_places(again, data_id, frames, starts)
    assert staged(again, data_id) == []


def test_black_frames_that_a_client_leaves_out_are_frames_with_times(api):
    """As the official SDK does, which knows no header."""
    data_id, frames = api.create(), frames_of(20)
    frames[[0, 7, 8]] = 0
    encoded = [part if frame.any() else None for part, frame in zip(pack(frames).parts[:20], frames, strict=True)]
    assert api.put(api.url(data_id, 0, metadata(frames.shape)), assemble(encoded).tobytes()).status_code == 200
    api.end(data_id)
    details = api.sealed(data_id)
    data = sealed_data(api, data_id)
    np.testing.assert_array_equal(data["frames"].values, frames)
    np.testing.assert_array_equal(times_ns(data), expected_times_ns([START_MS], [20]))
    assert data["frame_index"].values.tolist() == list(range(20))
    assert (data.attrs["frames_stored"], data.attrs["frames_lost"], details["frames_lost"]) == (20, 0, 0)


def test_a_lost_frame_and_a_chunk_that_never_came_are_both_without_time(api):
    data_id = api.create()
    api.upload(data_id, 0, frames_of(20), lost=(5,))
    api.url(data_id, 1, metadata((20, 6, 8), START_MS + 2000, lost_frames=(1,)))
    api.end(data_id)
    api.sealed(data_id)
    data = sealed_data(api, data_id)
    assert np.flatnonzero(np.isnat(data["time"].values)).tolist() == [5, *range(20, 40)]
    assert (data.attrs["frames_stored"], data.attrs["frames_lost"], data.attrs["missing_chunks"]) == (19, 1, [1])
