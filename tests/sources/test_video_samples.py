"""Real movies of a RHEED camera, against what the samples' manifest says of them."""

from pathlib import Path

import numpy as np
import pytest

from ingest.shard import frames_digest
from ingest.sources import SourceOptions, discover, open_source
from tests.sources.files import NS, kinds
from tests.sources.video_files import look, plain_decode

FOLDER = Path(__file__).parents[3] / "shared" / "samples" / "video"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="the shared samples are not on this machine")

# File, frames, start (Europe/Copenhagen is 2 h before UTC then), XXH3-128 of the first and of the last frame's luma.
SAMPLES = [
    ("161713", 204, 1_696_342_633, "d23d9dfd1c57d7f6fdada13571862dec", "2028d40cb9c749d776a11e6ad2ed2529"),
    ("161808", 94, 1_696_342_688, "3198a64b227abaa4f83d65263950f4e0", "624e73abaec2d9b45bce4617665eb416"),
]


def test_the_folder_holds_two_runs():
    found = discover([str(FOLDER)], SourceOptions())
    assert [(entry.error, entry.spec.kind) for entry in found] == [(None, "video")] * 2


@pytest.mark.parametrize(("name", "frames", "start_s", "first", "last"), SAMPLES)
def test_facts(name, frames, start_s, first, last):
    info = look(FOLDER / f"output_video_20231003-{name}.avi", timezone="Europe/Copenhagen")
    assert (info.frames, info.height_px, info.width_px) == (frames, 1080, 1440)
    assert info.format == "video (mpeg4 in avi, yuv420p)"
    assert (info.timestamps_ns, info.fps_claimed) == (None, 34.0)
    assert (info.start_ns, info.start_from) == (start_s * NS, "file name")
    assert info.spec.access == "lanes"
    assert set(kinds(info)) == {"stamps", "colour range", "colour"}
    assert dict(info.spec.options)["colour_range"] == "limited"
    assert "the header claims 34 fps" in next(f.message for f in info.findings if f.kind == "stamps")
    with open_source(info.spec) as source:
        assert frames_digest(source.read(frames - 1, frames)) == last
        assert frames_digest(source.read(0, 1)) == first


def test_without_a_zone_there_is_no_start():
    info = look(FOLDER / "output_video_20231003-161808.avi")
    assert (info.start_ns, info.start_from) == (None, None)
    assert "start time" in kinds(info)


def test_every_frame_is_that_of_a_plain_decoding():
    info = look(FOLDER / "output_video_20231003-161808.avi")
    plain = plain_decode(info.spec.paths[0])
    with open_source(info.spec) as source:
        for start in (48, 0, 24, 72):
            stop = min(start + 24, info.frames)
            np.testing.assert_array_equal(source.read(start, stop), plain[start:stop])
