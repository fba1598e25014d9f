"""kSA 400 movies and images, whole and damaged."""

import os
import pickle
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from ingest.errors import FrameDataError, SourceChangedError, SourceFormatError, TruncatedSourceError
from ingest.frames import to_uint8
from ingest.plan import PlanOptions, plan_run
from ingest.sources import discover, inspect, open_source
from ingest.sources.ksa_header import decode_header
from tests.sources.contract import Made, SourceContract
from tests.sources.files import NS, SAMPLES, kinds, look, pixels
from tests.sources.ksa_files import ksa_header, write_ksa

KSA_SAMPLES = SAMPLES.parent / "ksa"


def scaled(frames, full_scale):
    return np.clip(np.floor(frames * (255 / full_scale) + 1e-9), 0, 255).astype(np.uint8)


class TestMovie(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u2", top=4097)
        info = look(write_ksa(tmp_path / "a.imm", frames, overlays=3, version="KSA00J"))
        assert info.scale.full_scale == 4096
        return Made(info, scaled(frames, 4096))


class TestMovieOf8Bit(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        return Made(look(write_ksa(tmp_path / "a.imm", frames, bits=8, full_scale=255)), frames)


class TestMovieOf28Bit(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u4", top=2**28)
        info = look(write_ksa(tmp_path / "a.imm", frames, bits=28))
        assert info.scale.full_scale == 2**28 - 1  # not the header's 4096, which would make all of it white
        return Made(info, scaled(frames, 2**28 - 1))


class TestColourMovie(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        bgr = np.random.default_rng(0).integers(0, 4096, (20, 12, 16, 3)).astype("u4")
        info = look(write_ksa(tmp_path / "a.imm", bgr, overlays=1), colour="red")
        assert "colour" in kinds(info)
        return Made(info, scaled(bgr[..., 2], 4096))


class TestImages(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u2", top=4096)
        for i in range(20):  # natural order of names, whose regions differ
            write_ksa(tmp_path / f"Image{i + 1}.img", frames[i : i + 1], [1_500_000_000_000 + 700 * i], overlays=i % 3)
        info = look(tmp_path)
        assert info.spec.canonical_path == f"{tmp_path}/::Image#.img"
        return Made(info, scaled(frames, 4096))


def test_header_fields():
    header = decode_header(
        ksa_header(
            480, 640, stamp_ms=1_484_169_089_122, overlays=2, full_scale=16383, bits=14, exposure_s=0.088, dst=1,
            minutes_west=-60, version="KSA00J",
        )
    )  # fmt: skip
    assert (header.version, header.width_px, header.height_px, header.overlays) == ("KSA00J", 640, 480, 2)
    assert (header.full_scale, header.bits, header.header_bytes) == (16383, 14, 670)
    assert (header.unix_s, header.milliseconds, header.minutes_west, header.dst) == (1_484_169_089, 122, -60, 1)
    assert header.exposure_s == pytest.approx(0.088)


class TestTimes:
    def test_every_frames_own(self, tmp_path):
        stamps_ms = 1_500_000_000_000 + np.cumsum([0, 50, 51, 1300, 49])
        info = look(write_ksa(tmp_path / "a.imm", pixels(5, dtype="u2"), stamps_ms))
        np.testing.assert_array_equal(info.timestamps_ns, stamps_ms * 1_000_000)
        assert info.start_from == "frame stamps"

    def test_one_time_for_all_is_the_start(self, tmp_path):
        path = write_ksa(tmp_path / "a.imm", pixels(5, dtype="u2"), [1_500_000_000_250] * 5)
        info = look(path, fps=20.0)
        assert info.timestamps_ns is None
        assert (info.start_ns, info.start_from, info.fps_claimed) == (1_500_000_000_250_000_000, "file attributes", 20)
        assert "stamps" in kinds(info)
        assert plan_run(info, PlanOptions()).start_unix_ms_utc == 1_500_000_000_250

    def test_none_at_all(self, tmp_path):
        info = look(write_ksa(tmp_path / "a.imm", pixels(5, dtype="u2"), [0] * 5))
        assert (info.timestamps_ns, info.start_ns) == (None, None)
        assert "stamps" in kinds(info)

    def test_backward_ones_are_used_and_found_by_the_plan(self, tmp_path):
        stamps_ms = [1_500_000_000_000 + s for s in (0, 50, 100, 90, 140, 190, 240)]
        info = look(write_ksa(tmp_path / "a.imm", pixels(7, dtype="u2"), stamps_ms))
        np.testing.assert_array_equal(info.timestamps_ns, np.array(stamps_ms) * 1_000_000)
        assert "backward stamps" in {finding.kind for finding in plan_run(info, PlanOptions()).findings}

    def test_a_frame_without_one_lies_between_its_neighbours(self, tmp_path):
        stamps_ms = [1_500_000_000_000, 1_500_000_000_050, 0, 1_500_000_000_150]
        info = look(write_ksa(tmp_path / "a.imm", pixels(4, dtype="u2"), stamps_ms))
        assert np.diff(info.timestamps_ns).tolist() == [50_000_000] * 3
        assert [finding.frame for finding in info.findings] == [2]

    def test_odd_zone_is_found(self, tmp_path):
        info = look(write_ksa(tmp_path / "a.imm", pixels(2, dtype="u2"), minutes_west=2000))
        assert kinds(info) == ["header"]


class TestScale:
    def test_saturated_pixels_are_white(self, tmp_path):
        frames = np.array([[[0, 2048], [4095, 4096]]], "u2")
        info = look(write_ksa(tmp_path / "a.imm", frames))
        with open_source(info.spec) as source:
            assert source.read(0, 1).tolist() == [[[0, 127], [254, 255]]]

    def test_the_user_goes_first(self, tmp_path):
        info = look(write_ksa(tmp_path / "a.imm", pixels(2, dtype="u2", top=500)), full_scale=1000.0)
        assert (info.scale.full_scale, info.scale.full_scale_from) == (1000.0, "user")

    def test_too_low_a_full_scale_is_found(self, tmp_path):
        info = look(write_ksa(tmp_path / "a.imm", pixels(2, dtype="u2", top=16000)))
        assert kinds(info) == ["scale"]

    def test_without_one_the_bits_count(self, tmp_path):
        info = look(write_ksa(tmp_path / "a.imm", pixels(2, dtype="u2", top=500), full_scale=0, bits=14))
        assert info.scale.full_scale == 16383


class TestDamage:
    @pytest.fixture
    def frames(self):
        return pixels(20, dtype="u2", top=4096)

    @pytest.fixture
    def movie(self, tmp_path, frames):
        return write_ksa(tmp_path / "a.imm", frames)

    STRIDE = 640 + 12 * 16 * 2

    def test_a_cut_last_frame_is_left_out(self, movie, frames):
        os.truncate(movie, 19 * self.STRIDE + 700)
        info = look(movie)
        assert (info.frames, kinds(info)) == (19, ["cut frame"])
        assert "700 of its 1024" in info.findings[0].message
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 19), to_uint8(frames[:19], info.scale))

    def test_a_damaged_header_loses_its_frame_only(self, movie, frames):
        with open(movie, "r+b") as file:
            file.seek(7 * self.STRIDE)
            file.write(b"\xaa" * 400)
        info = look(movie)
        assert (info.frames, kinds(info)) == (20, ["lost frames", "stamps"])
        assert info.findings[0].frame == 7
        assert np.diff(info.timestamps_ns).tolist() == [50_000_000] * 19
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="frame 7"):
                source.read(5, 12)
            with pytest.raises(FrameDataError):
                source.read(7, 8)
            np.testing.assert_array_equal(source.read(8, 20), to_uint8(frames[8:], info.scale))
            np.testing.assert_array_equal(source.read(6, 7), to_uint8(frames[6:7], info.scale))

    def test_the_second_header_damaged(self, movie):
        with open(movie, "r+b") as file:
            file.seek(self.STRIDE)
            file.write(bytes(640))
        assert (look(movie).frames, look(movie).findings[0].frame) == (20, 1)

    def test_a_tail_of_zeros_is_no_frames(self, movie):
        with open(movie, "r+b") as file:
            file.truncate(12 * self.STRIDE)
            file.truncate(20 * self.STRIDE)
        info = look(movie)
        assert (info.frames, kinds(info)) == (12, ["cut frame"])
        with open(movie, "r+b") as file:
            file.truncate(5 * self.STRIDE)
            file.truncate(20 * self.STRIDE)
        info = look(movie)
        assert (info.frames, kinds(info)) == (5, ["cut frame"])
        assert "room for 15 more" in info.findings[0].message

    # By how many bytes are missing: how many frames are left, and the first good one before and after the piece.
    @pytest.mark.parametrize(
        ("missing", "count", "lost", "then"), [(300, 20, 1, 9), (900, 20, 2, 10), (3000, 18, 2, 12)]
    )
    def test_frames_after_a_missing_piece_are_found_again(self, movie, frames, missing, count, lost, then):
        data, at = Path(movie).read_bytes(), 8 * self.STRIDE + 700
        Path(movie).write_bytes(data[:at] + data[at + missing :])
        info = look(movie)
        assert (info.frames, info.findings[0].kind) == (count, "cut frames")
        assert [f.frame for f in info.findings if f.kind == "lost frames"] == list(range(8, 8 + lost))
        stamps = 1_500_000_000 * NS + 50_000_000 * np.arange(20)
        assert info.timestamps_ns[:9].tolist() == stamps[:9].tolist()
        assert info.timestamps_ns[8 + lost :].tolist() == stamps[then:].tolist()
        with open_source(pickle.loads(pickle.dumps(info.spec))) as source:
            for i in range(8, 8 + lost):
                with pytest.raises(FrameDataError, match=f"frame {i}: a piece"):
                    source.read(i, i + 1)
            np.testing.assert_array_equal(source.read(0, 8), to_uint8(frames[:8], info.scale))
            np.testing.assert_array_equal(source.read(8 + lost, count), to_uint8(frames[then:], info.scale))

    def test_frames_after_rubbish_are_found_again(self, movie, frames):
        data = Path(movie).read_bytes()
        at = 8 * self.STRIDE
        Path(movie).write_bytes(data[:at] + b"x" * (self.STRIDE + 10) + data[at:])
        info = look(movie)
        assert (info.frames, info.findings[0].kind) == (22, "cut frames")
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 7), to_uint8(frames[:7], info.scale))
            np.testing.assert_array_equal(source.read(10, 22), to_uint8(frames[8:], info.scale))
            for lost in (7, 8, 9):
                with pytest.raises(FrameDataError):
                    source.read(lost, lost + 1)

    @pytest.mark.parametrize("damage", [b"\xff" * 100, b"\0\0\0\x08"])
    def test_the_first_header_damaged(self, movie, frames, damage):
        with open(movie, "r+b") as file:
            file.seek(0 if len(damage) > 4 else 47)  # all of it, or its width alone
            file.write(damage)
        info = look(movie)
        assert (info.frames, info.width_px) == (20, 16)
        assert [f.frame for f in info.findings if f.kind == "lost frames"] == [0]
        assert info.start_ns == 1_500_000_000 * NS
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="frame 0"):
                source.read(0, 1)
            np.testing.assert_array_equal(source.read(1, 20), to_uint8(frames[1:], info.scale))

    def test_the_first_header_damaged_and_a_piece_missing(self, movie, frames):
        data = Path(movie).read_bytes()
        Path(movie).write_bytes(bytes(640) + data[700:])
        info = look(movie)
        assert (info.frames, info.start_ns) == (20, 1_500_000_000 * NS)
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="frame 0"):
                source.read(0, 1)
            np.testing.assert_array_equal(source.read(1, 20), to_uint8(frames[1:], info.scale))

    def test_a_terabyte_of_holes_is_one_frame(self, movie):
        os.truncate(movie, self.STRIDE)
        os.truncate(movie, 10**12)
        began = time.perf_counter()
        info = look(movie)
        assert (info.frames, kinds(info)) == (1, ["cut frame"])
        assert time.perf_counter() - began < 5

    def test_less_than_a_frame(self, movie):
        os.truncate(movie, 900)
        with pytest.raises(TruncatedSourceError, match=r"900 bytes.*takes 1024"):
            look(movie)

    @pytest.mark.parametrize("content", [b"", b"KSA", b"\0" * 5000])
    def test_what_is_no_movie(self, tmp_path, content):
        (tmp_path / "a.imm").write_bytes(content)
        (entry,) = discover([str(tmp_path / "a.imm")])
        assert type(entry.error) is SourceFormatError
        assert entry.error.hint

    def test_a_rigaku_image_is_named(self, tmp_path):
        text = b"OD SAPPHIRE  4.0\r\nCOMPRESSION= TY6 (0.50%)\r\nNX=1024 NY=1024\r\n"
        (tmp_path / "a.imm").write_bytes(text.ljust(5120))
        (entry,) = discover([str(tmp_path / "a.imm")])
        assert "Rigaku" in str(entry.error)

    @pytest.mark.parametrize("size", [(10**6, 10**6), (2**32 - 1, 2**32 - 1), (0, 640)])
    def test_frames_that_cannot_be(self, tmp_path, size):
        header = bytearray(ksa_header(1, 1))
        struct.pack_into(">I", header, 319, size[0])
        struct.pack_into(">I", header, 47, size[1])
        (tmp_path / "a.imm").write_bytes(bytes(header) + bytes(1000))
        (entry,) = discover([str(tmp_path / "a.imm")])
        assert type(entry.error) is SourceFormatError

    def test_a_movie_that_shrank(self, movie):
        info = look(movie)
        os.truncate(movie, 5 * self.STRIDE)
        with open_source(info.spec) as source, pytest.raises(SourceChangedError, match="has 5 frames; 20 were"):
            source.read(0, 1)
        os.truncate(movie, 100)
        with open_source(info.spec) as source, pytest.raises(SourceChangedError):
            source.read(0, 1)


class TestFoldersOfImages:
    def test_runs_by_pattern_and_size(self, tmp_path):
        for i in (1, 2, 10):
            write_ksa(tmp_path / f"growth{i}.img", pixels(1, dtype="u2"))
        for i in (3, 4):
            write_ksa(tmp_path / f"growth{i}.img", pixels(1, 8, 8, dtype="u2"))
        write_ksa(tmp_path / "lone.img", pixels(1, dtype="u2"))
        write_ksa(tmp_path / "movie.img", pixels(3, dtype="u2"))
        write_ksa(tmp_path / "growth5.imm", pixels(1, dtype="u2", seed=1))
        entries = discover([str(tmp_path)])
        runs = {tuple(os.path.basename(path) for path in entry.spec.paths) for entry in entries}
        assert runs == {
            ("growth1.img", "growth2.img", "growth10.img"), ("growth3.img", "growth4.img"), ("lone.img",),
            ("movie.img",), ("growth5.imm",),
        }  # fmt: skip
        assert len({entry.spec.canonical_path for entry in entries}) == 5
        infos = [inspect(entry.spec) for entry in entries]
        assert len({info.name for info in infos}) == 5
        assert len({info.fingerprint for info in infos}) == 5

    def test_a_missing_number_is_a_lost_frame(self, tmp_path):
        for i in (1, 2, 3, 5, 6):
            write_ksa(tmp_path / f"a{i}.img", pixels(1, dtype="u2", seed=i), [1_500_000_000_000 + 100 * i])
        info = look(tmp_path)
        assert info.frame_numbers.tolist() == [1, 2, 3, 5, 6]
        assert "lost frames" in {finding.kind for finding in plan_run(info, PlanOptions()).findings}

    def test_a_cut_image_is_a_lost_frame(self, tmp_path):
        frames = pixels(5, dtype="u2", top=4096)
        for i in range(5):
            write_ksa(tmp_path / f"a{i}.img", frames[i : i + 1], [1_500_000_000_000 + 100 * i])
        os.truncate(tmp_path / "a0.img", 800)
        os.truncate(tmp_path / "a3.img", 800)
        info = look(tmp_path)
        assert [(f.kind, f.frame) for f in info.findings[:2]] == [("lost frames", 0), ("lost frames", 3)]
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError):
                source.read(0, 5)
            np.testing.assert_array_equal(source.read(1, 3), to_uint8(frames[1:3], info.scale))
            np.testing.assert_array_equal(source.read(4, 5), to_uint8(frames[4:], info.scale))

    def test_a_workers_part_of_one_cut_image(self, tmp_path):
        for i in range(12):
            write_ksa(tmp_path / f"a{i}.img", pixels(1, dtype="u2"), [1_500_000_000_000 + 100 * i])
        os.truncate(tmp_path / "a3.img", 800)
        spec, start, stop = look(tmp_path).spec.part(3, 4)
        with open_source(spec) as source, pytest.raises(FrameDataError, match="a3"):
            source.read(start, stop)
        (tmp_path / "a4.img").write_bytes(b"")
        spec, start, stop = look(tmp_path).spec.part(3, 4)
        with open_source(spec) as source, pytest.raises(FrameDataError):
            source.read(start, stop)


@pytest.mark.skipif(not KSA_SAMPLES.is_dir(), reason="the shared samples are not on this machine")
class TestSamples:
    @pytest.mark.parametrize(
        ("name", "stamp_ns", "version"),
        [("Image107.img", 1_484_169_089_122_000_000, "KSA00F"), ("test.img", 1_527_361_874_129_000_000, "KSA00J")],
    )
    def test_images(self, name, stamp_ns, version):
        info = look(KSA_SAMPLES / name)
        assert (info.frames, info.height_px, info.width_px) == (1, 480, 640)
        assert (info.start_ns, info.start_from) == (stamp_ns, "frame stamps")
        assert (info.scale.full_scale, info.scale.full_scale_from) == (4096.0, "file")
        assert version in info.format
        with open_source(info.spec) as source:
            frame = source.read(0, 1).astype(int)
        # Neighbours differ little: pixels are in place and in the right byte order.
        assert np.abs(np.diff(frame[0], axis=1)).mean() < 10

    def test_movie(self):
        info = look(KSA_SAMPLES / "synth_F_12bit.imm")
        assert (info.frames, info.height_px, info.width_px) == (60, 128, 128)
        steps_s = np.diff(info.timestamps_ns) / NS
        assert np.delete(steps_s, 30) == pytest.approx(0.05, abs=0.009)
        assert steps_s[30] == pytest.approx(1.35, abs=0.009)
        plan = plan_run(info, PlanOptions())
        assert plan.settings.fps == pytest.approx(20, rel=0.02)
        assert "gap" in {finding.kind for finding in plan.findings}
