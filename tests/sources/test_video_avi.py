"""AVI files damaged in the middle: what is missing is lost in its place, or it is said that nobody knows where."""

from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.errors import FrameDataError
from ingest.sources import open_source
from ingest.sources.video_stock import release_movies
from tests.sources.files import kinds
from tests.sources.video_files import look, may_be_lost, packet_table, pictures, plain_decode, write_movie

COUNT = 96
GOP = 12


def message(info, kind: str) -> str:
    (found,) = [finding.message for finding in info.findings if finding.kind == kind]
    return found


def read_pieces(info, seed: int) -> dict[int, np.ndarray]:
    """What can be read of a movie by decoders that were not used before, in pieces and an order of the seed's."""
    release_movies()
    random = np.random.default_rng(seed)
    cuts = sorted({0, info.frames, *random.integers(1, info.frames, 3 * seed).tolist()})
    pieces = list(pairwise(cuts))
    if seed > 1:
        random.shuffle(pieces)
    got = {}
    with open_source(info.spec) as source:
        for start, stop in pieces:
            try:
                got.update(enumerate(source.read(start, stop).copy(), start))
            except FrameDataError:
                for i in range(start, stop):
                    try:
                        got[i] = source.read(i, i + 1)[0].copy()
                    except FrameDataError:
                        continue
    return got


def read_any_way(info) -> dict[int, np.ndarray]:
    """What can be read, which must be the same in each order."""
    once = read_pieces(info, 0)
    for seed in (1, 2, 3):
        again = read_pieces(info, seed)
        assert again.keys() == once.keys()
        for i, frame in again.items():
            np.testing.assert_array_equal(frame, once[i], err_msg=f"frame {i}, order {seed}")
    return once


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Movies, and what they decode to."""
    folder = tmp_path_factory.mktemp("whole")
    made = {}

    def get(codec: str, **options):
        key = (codec, *sorted(options.items()))
        if key not in made:
            path = write_movie(folder / f"{len(made)}.avi", pictures(COUNT), codec, **{"gop": GOP, **options})
            made[key] = (path, plain_decode(path))
        return made[key]

    yield get
    release_movies()


def break_heads(path: str, out, packets) -> bytearray:
    """Copy a file with random bytes over the heads of packets' chunks, and where the packets begin."""
    content = bytearray(Path(path).read_bytes())
    table = packet_table(path)
    for packet in packets:
        begin = table[packet][0] - 8
        content[begin : begin + 16] = np.random.default_rng(packet).bytes(16)
    Path(out).write_bytes(content)
    return content


CODECS = [
    ("mjpeg", {"pix_fmt": "yuvj420p"}),
    ("mpeg4", {}),
    ("ffv1", {"pix_fmt": "gray", "level": "3", "slicecrc": "1"}),
    ("rawvideo", {"pix_fmt": "gray"}),
    ("libx264", {"b_frames": 0}),
]


@pytest.mark.parametrize("packets", [(30,), (48,), (31, 68, 70)], ids=str)
@pytest.mark.parametrize(("codec", "options"), CODECS, ids=[codec for codec, _ in CODECS])
def test_what_is_missing_is_lost_in_its_place(tmp_path, whole, codec, options, packets):
    path, frames = whole(codec, **options)
    break_heads(path, tmp_path / "a.avi", packets)
    info = look(tmp_path / "a.avi")
    assert info.frames == COUNT
    assert "short read" not in kinds(info)
    said = message(info, "lost frames")
    assert all(str(packet) in said for packet in packets)
    got = read_any_way(info)
    lost = set(range(COUNT)) - set(got)
    assert set(packets) <= lost <= may_be_lost(path, packets, counted=False)
    for i, frame in got.items():
        np.testing.assert_array_equal(frame, frames[i], err_msg=f"frame {i}")


def test_frames_that_are_shown_in_another_order(tmp_path, whole):
    path, frames = whole("mpeg4", b_frames=2)
    break_heads(path, tmp_path / "a.avi", [40, 41])
    info = look(tmp_path / "a.avi")
    assert (info.frames, info.spec.access) == (COUNT, "single")
    got = read_any_way(info)
    assert set(got) >= {*range(30), *range(72, COUNT)}
    for i, frame in got.items():
        np.testing.assert_array_equal(frame, frames[i], err_msg=f"frame {i}")


def test_times_of_dropped_frames_stay(tmp_path):
    stamps = [1000 * i for i in range(60) if i % 7]
    path = write_movie(tmp_path / "a.avi", len(stamps), "mjpeg", pix_fmt="yuvj420p", stamps_ms=stamps)
    break_heads(path, tmp_path / "b.avi", [20])
    info, damaged = look(path), look(tmp_path / "b.avi")
    np.testing.assert_array_equal(damaged.timestamps_ns, info.timestamps_ns)
    assert "(20)" in message(damaged, "lost frames")


@pytest.mark.parametrize(("codec", "options"), CODECS, ids=[codec for codec, _ in CODECS])
def test_without_an_index_nobody_knows_where(tmp_path, whole, codec, options):
    path, _ = whole(codec, **options)
    content = break_heads(path, tmp_path / "a.avi", [30, 50])
    (tmp_path / "a.avi").write_bytes(content[: content.rfind(b"idx1")])
    info = look(tmp_path / "a.avi")
    assert info.spec.access == "single"
    said = message(info, "short read")
    assert f"the header says {COUNT} frames, {COUNT - info.frames} of them are missing, it is not known where" in said
    assert "at the end" not in said
    read_any_way(info)


class TestHealthyPackets:
    @pytest.mark.parametrize("codec", ["mpeg4", "mjpeg"])
    def test_an_index_that_was_cut_off(self, tmp_path, whole, codec):
        path, frames = whole(codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
        content = Path(path).read_bytes()
        (tmp_path / "a.avi").write_bytes(content[: content.rfind(b"idx1")])
        self._check(tmp_path / "a.avi", frames)

    @pytest.mark.parametrize("offset", [0, 4, 8, 12])
    def test_a_damaged_index(self, tmp_path, whole, offset):
        path, frames = whole("mpeg4")
        content = bytearray(Path(path).read_bytes())
        begin = content.rfind(b"idx1") + 8 + 16 * 40 + offset
        content[begin : begin + 4] = b"\xa7\x5b\x9c\x61"
        (tmp_path / "a.avi").write_bytes(content)
        got = read_any_way(look(tmp_path / "a.avi"))
        assert len(got) >= COUNT - GOP
        for i, frame in got.items():
            np.testing.assert_array_equal(frame, frames[i])

    @pytest.mark.parametrize("indexed", [True, False])
    def test_sound_between_them(self, tmp_path, whole, indexed):
        path, frames = whole("mpeg4")
        with av.open(path) as source, av.open(str(tmp_path / "a.avi"), "w") as container:
            stream = container.add_stream_from_template(source.streams.video[0])
            sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            for number, packet in enumerate(p for p in source.demux(video=0) if p.size):
                packet.stream = stream
                container.mux(packet)
                part = av.AudioFrame.from_ndarray(np.zeros((1, 267), np.int16), format="s16", layout="mono")
                part.sample_rate, part.pts = 8000, 267 * number
                container.mux(sound.encode(part))
        content = (tmp_path / "a.avi").read_bytes()
        if not indexed:
            (tmp_path / "a.avi").write_bytes(content[: content.rfind(b"idx1")])
        self._check(tmp_path / "a.avi", frames)

    def _check(self, path, frames):
        info = look(path)
        assert (info.frames, info.spec.access == "single") == (COUNT, False)
        assert not {"short read", "lost frames"} & set(kinds(info))
        np.testing.assert_array_equal(np.stack([frame for _, frame in sorted(read_any_way(info).items())]), frames)
