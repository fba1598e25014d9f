"""The contract of sources for movies: each way of reading gives what a plain decoding from the beginning gives."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.frames import to_uint8
from ingest.sources import open_source
from ingest.sources.video_decode import Decoder
from ingest.sources.video_index import MovieIndex
from ingest.sources.video_stock import release_movies
from tests.sources.contract import Made, SourceContract
from tests.sources.video_files import look, pictures, plain_decode, write_movie

OPEN_GOP = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}
UNEVEN_MS = np.cumsum(np.random.default_rng(3).integers(20, 80, 40)).tolist()


@dataclass(frozen=True)
class Variant:
    file: str
    codec: str
    access: str
    options: dict

    def __str__(self):
        return f"{self.codec}-{self.file}"


VARIANTS = [
    Variant("b.mp4", "libx264", "lanes", {"b_frames": 2}),
    Variant("frag.mp4", "libx264", "lanes", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    Variant("vfr.mkv", "libx264", "lanes", {"stamps_ms": UNEVEN_MS, **OPEN_GOP}),
    Variant("open.mov", "libx264", "lanes", OPEN_GOP),
    Variant("b.avi", "libx264", "single", {"b_frames": 2}),
    Variant("one-key.mp4", "libx264", "single", {"gop": 100}),
    Variant("p.avi", "mpeg4", "lanes", {}),
    Variant("pb.avi", "mpeg4", "lanes", {"b_frames": 2}),
    Variant("vfr.avi", "mpeg4", "lanes", {"stamps_ms": UNEVEN_MS}),
    Variant("j.avi", "mjpeg", "random", {"pix_fmt": "yuvj420p"}),
    Variant("f.avi", "ffv1", "lanes", {"pix_fmt": "gray"}),
    Variant("f.mkv", "ffv1", "random", {"pix_fmt": "gray", "gop": 1}),
    Variant("b.ts", "libx264", "single", {"b_frames": 2}),
    Variant("w.wmv", "wmv2", "lanes", {}),
    Variant("m.mpg", "mpeg2video", "single", {"b_frames": 2}),
    Variant("open-hevc.mp4", "libx265", "lanes", {"x265-params": "open-gop=1:keyint=12:min-keyint=12:log-level=none"}),
    Variant("raw.h264", "libx264", "single", {"b_frames": 2}),
]
COUNT = 40


@pytest.fixture(scope="module")
def movies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("movies")
    made = {}

    def get(variant: Variant) -> Made:
        if variant.file not in made:
            path = write_movie(folder / variant.file, COUNT, variant.codec, **variant.options)
            made[variant.file] = Made(look(path), plain_decode(path))
        return made[variant.file]

    yield get
    release_movies()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
class TestMovies(SourceContract):
    @pytest.fixture
    def made(self, movies, variant):
        return movies(variant)

    def test_no_frame_is_lost_in_counting(self, made, variant):
        assert made.info.frames == COUNT
        assert made.info.spec.access == variant.access

    def test_from_several_threads(self, made, variant):
        def read(start):
            with open_source(made.info.spec) as source:
                return np.array_equal(source.read(start, start + 10), made.frames[start : start + 10])

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(read, [0, 20, 10, 30, 5, 0, 25, 30]))


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_any_cover_in_any_order_is_the_movie(movies, variant):
    made = movies(variant)

    @settings(max_examples=8, deadline=None)
    @given(cuts=st.sets(st.integers(1, COUNT - 1), max_size=12), seed=st.integers(0, 1000))
    def check(cuts, seed):
        pieces = list(pairwise([0, *sorted(cuts), COUNT]))
        np.random.default_rng(seed).shuffle(pieces)
        out = np.zeros_like(made.frames)
        with open_source(made.info.spec) as source:
            for start, stop in pieces:
                out[start:stop] = source.read(start, stop)
        np.testing.assert_array_equal(out, made.frames)

    check()


MANY = 100
HEALTHY = [
    ("m.mpg", "mpeg2video", {"fps": 25, "gop": 30}),
    ("b.mpg", "mpeg2video", {"fps": 25, "gop": 12, "b_frames": 2}),
    ("one.mpg", "mpeg1video", {"fps": 25, "gop": 30}),
    ("m.vob", "mpeg2video", {"fps": 25, "gop": 12}),
    ("b.ts", "mpeg2video", {"fps": 25, "gop": 12, "b_frames": 2}),
    ("h.ts", "libx264", {"gop": 12, "b_frames": 2}),
    ("h.flv", "libx264", {"gop": 12, "b_frames": 2}),
    ("s.flv", "flv", {"gop": 12}),
    ("m.nut", "mpeg4", {"gop": 12, "b_frames": 2}),
    ("v.webm", "libvpx", {"gop": 12}),
    ("h.mkv", "libx264", {"gop": 12, "b_frames": 2}),
    ("h.mp4", "libx264", {"gop": 12, "b_frames": 2}),
    ("h.avi", "libx264", {"gop": 12, "b_frames": 2}),
    ("m.avi", "mpeg4", {"gop": 12}),
    ("m.wmv", "wmv2", {"gop": 12}),
]


def plain_pictures() -> np.ndarray:
    """Fields of one grey each, by the number's bits: their packets are so small that many fit into one of MPEG's."""
    bits = np.arange(MANY)[:, np.newaxis, np.newaxis] >> np.arange(12).reshape(3, 4) & 1
    return np.kron(np.where(bits, 210, 40), np.ones((16, 16), int)).astype(np.uint8)


@pytest.mark.parametrize(("file", "codec", "options"), HEALTHY, ids=[f"{codec}-{file}" for file, codec, _ in HEALTHY])
def test_no_frame_of_a_healthy_movie_is_lost_wherever_reading_begins(tmp_path, file, codec, options):
    path = write_movie(tmp_path / file, plain_pictures(), codec, **options)
    info, frames = look(path), plain_decode(path)
    assert info.frames == len(frames) == MANY
    random = np.random.default_rng(0)
    for _ in range(6):
        release_movies()
        with open_source(info.spec) as source:
            for start in random.integers(0, MANY - 10, 4).tolist():
                np.testing.assert_array_equal(source.read(start, start + 10), frames[start : start + 10])


@pytest.mark.parametrize("wrong", ["position", "time"])
def test_where_seeking_leads_elsewhere_a_movie_is_read_from_its_beginning(tmp_path, monkeypatch, wrong):
    path = write_movie(tmp_path / "a.mkv", pictures(60))
    if wrong == "position":
        monkeypatch.setattr(MovieIndex, "is_at", lambda self, packet, number: number == 0)
    else:
        monkeypatch.setattr(MovieIndex, "number_of", lambda self, pts: None)
    release_movies()
    info, frames = look(path), plain_decode(path)
    assert info.spec.access == "single"
    assert dict(info.spec.options)["from_start"] is True
    with open_source(info.spec) as source:
        for start in (40, 7, 29):
            np.testing.assert_array_equal(source.read(start, start + 9), frames[start : start + 9])


class TestTenBits(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        values = (pictures(14).astype("u2") * 4)[:, :, :60]
        path = write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="gray10le", dtype="<u2", gop=5)
        info = look(path)
        assert (info.scale.dtype, info.scale.full_scale, info.scale.full_scale_from) == ("uint16", 1023.0, "file")
        return Made(info, to_uint8(values, info.scale))


class TestTurned(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        path = write_movie(tmp_path / "a.mp4", 14, rotation=-90, gop=5)
        info = look(path, apply_rotation=True)
        return Made(info, np.ascontiguousarray(np.rot90(plain_decode(path), -1, axes=(1, 2))))


class TestRed(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        values = np.random.default_rng(0).integers(0, 256, (13, 20, 30, 3), np.uint8)
        path = write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="bgr0")
        return Made(look(path, colour="red"), np.ascontiguousarray(values[..., 0]))


def test_memory_is_used_again(movies):
    made = movies(VARIANTS[0])
    memory = np.empty(made.frames[0].size * 7, np.uint8)
    with open_source(made.info.spec) as source:
        frames = source.read(3, 10, memory)
        assert np.shares_memory(frames, memory)
        np.testing.assert_array_equal(frames, made.frames[3:10])
        assert not np.shares_memory(source.read(3, 11, memory), memory)


def test_reading_on_decodes_nothing_twice(movies, monkeypatch):
    made = movies(VARIANTS[0])
    release_movies()
    decoded = []
    original = Decoder._decode
    monkeypatch.setattr(Decoder, "_decode", lambda self, packet: decoded.append(packet.pts) or original(self, packet))
    for start in range(0, COUNT, 4):
        with open_source(made.info.spec) as source:
            source.read(start, start + 4)
    assert len(decoded) == len(set(decoded)) == COUNT
