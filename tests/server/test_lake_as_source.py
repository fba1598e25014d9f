"""What a stream was, the source of Zarr lakes gives back: frames bit for bit, times, and what was lost."""

import numpy as np
import pytest

from ingest.errors import FrameDataError, NoFramesError
from ingest.shard import assemble, pack
from ingest.sources import open_source
from tests.server.conftest import START_MS, frames_of, metadata
from tests.sources.files import kinds, look


def streamed(api, lengths, **more):
    """Stream chunks of these lengths and end the stream; return its id, the start of each and their frames."""
    data_id = api.create(**more)
    frames = [frames_of(length, seed) for seed, length in enumerate(lengths)]
    starts = [START_MS + 10_000 * number for number in range(len(lengths))]
    for i, part in enumerate(frames):
        api.upload(data_id, i, part, starts[i])
    return data_id, starts, frames


def sealed(api, data_id) -> str:
    api.end(data_id)
    api.sealed(data_id)
    return str(api.platform.store.sealed_path(data_id))


def test_whole(api):
    lengths = (20, 7, 33, 1)
    data_id, starts, frames = streamed(api, lengths, rotations_per_min=12.0)
    path = sealed(api, data_id)
    info = look(path)
    times = [start * 1_000_000 + 100_000_000 * np.arange(n) for start, n in zip(starts, lengths, strict=True)]
    np.testing.assert_array_equal(info.timestamps_ns, np.concatenate(times))
    np.testing.assert_array_equal(info.frame_numbers, np.arange(61))
    assert (info.name, info.fps_claimed, info.rotations_per_min) == ("a stream", 10.0, 12.0)
    assert (info.start_from, info.findings) == ("frame stamps", ())
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(0, 61), np.concatenate(frames))


def test_a_chunk_that_never_came_is_lost_not_black(api):
    data_id = api.create()
    first, last = frames_of(20, 0), frames_of(5, 2)
    api.upload(data_id, 0, first)
    api.url(data_id, 1, metadata((20, 6, 8), START_MS + 2000))
    api.upload(data_id, 2, last, START_MS + 4000)
    info = look(sealed(api, data_id))
    assert (info.frames, kinds(info)) == (45, ["lost frames"])
    assert (info.findings[0].frame, info.findings[0].message[:8]) == (20, "20 of 45")
    assert (np.diff(info.timestamps_ns) > 0).all()
    assert info.timestamps_ns[40] == (START_MS + 4000) * 1_000_000
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(0, 20), first)
        np.testing.assert_array_equal(source.read(40, 45), last)
        for start, stop in ((0, 45), (20, 21), (39, 40), (19, 21)):
            with pytest.raises(FrameDataError, match=r"lost|not there"):
                source.read(start, stop)
        np.testing.assert_array_equal(source.read(19, 20), first[19:])


def test_frames_that_a_client_left_out_as_black_are_black(api):
    data_id = api.create()
    frames = frames_of(8)
    frames[3] = 0
    encoded = [None if i == 3 else part for i, part in enumerate(pack(frames).parts[:8])]
    assert api.put(api.url(data_id, 0, metadata(frames.shape)), assemble(encoded).tobytes()).status_code == 200
    info = look(sealed(api, data_id))
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(0, 8), frames)


def test_a_stream_without_frames_says_so(api):
    with pytest.raises(NoFramesError, match="zero frames"):
        look(sealed(api, api.create()))
