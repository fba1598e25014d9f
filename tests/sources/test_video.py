"""What is found out about a movie before it is read: times, start, count, how it may be cut."""

import os
import shutil

import numpy as np
import pytest

from ingest.errors import SourceTimeError
from ingest.plan import PlanOptions, plan_run
from ingest.sources import SourceOptions, discover, open_source
from tests.sources.files import NS, kinds
from tests.sources.video_files import look, pictures, plain_decode, rewrite, write_movie


def message(info, kind: str) -> str:
    (found,) = [finding.message for finding in info.findings if finding.kind == kind]
    return found


class TestTimes:
    UNEVEN_MS = (0, 40, 90, 180, 200, 260, 300, 1300, 1333, 1370)

    @pytest.mark.parametrize(("file", "worst_ns"), [("a.mp4", 0), ("a.mkv", 0), ("a.avi", 0), ("a.mov", 0)])
    def test_uneven_times_are_kept(self, tmp_path, file, worst_ns):
        codec = "mpeg4" if file.endswith("avi") else "libx264"
        info = look(write_movie(tmp_path / file, 10, codec, stamps_ms=self.UNEVEN_MS, gop=4))
        np.testing.assert_allclose(info.timestamps_ns, np.array(self.UNEVEN_MS) * 1_000_000, atol=worst_ns)
        assert "presentation times" in message(info, "stamps")
        assert "equal" not in message(info, "stamps")
        assert (info.start_ns, info.start_from) == (None, None)

    def test_a_start_given_is_where_they_begin(self, tmp_path):
        info = look(write_movie(tmp_path / "a.mkv", 10, stamps_ms=self.UNEVEN_MS), start_ns=1_700_000_000 * NS)
        assert info.timestamps_ns[0] == info.start_ns == 1_700_000_000 * NS
        assert info.timestamps_ns[-1] - info.timestamps_ns[0] == 1_370_000_000

    @pytest.mark.parametrize("file", ["a.mp4", "a.mkv"])
    def test_a_stream_that_begins_late(self, tmp_path, file):
        info = look(write_movie(tmp_path / file, 10, start=150))
        assert (info.timestamps_ns[0], info.frames) == (0, 10)
        assert "short read" not in kinds(info)

    def test_even_times_are_said_to_be_even(self, tmp_path):
        info = look(write_movie(tmp_path / "a.mkv", 10))
        assert "all steps are equal" in message(info, "stamps")
        assert info.timestamps_ns is not None

    @pytest.mark.parametrize("b_frames", [0, 2])
    def test_avi_of_constant_rate_has_none(self, tmp_path, b_frames):
        info = look(write_movie(tmp_path / "a.avi", 20, "mpeg4", fps=22, b_frames=b_frames))
        assert info.timestamps_ns is None
        assert info.fps_claimed == 22.0
        assert "frame number / fps" in message(info, "stamps")

    def test_avi_with_dropped_frames_has_gaps(self, tmp_path):
        frames = [0, 1, 2, 5, 6, 7, 11, 12]
        info = look(
            write_movie(tmp_path / "a.avi", 8, "mjpeg", pix_fmt="yuvj420p", stamps_ms=[1000 * i for i in frames])
        )
        assert (np.diff(info.timestamps_ns) // NS).tolist() == np.diff(frames).tolist()

    def test_single_drops_at_a_thousand_frames_a_second(self, tmp_path):
        stamps = [0, 1, 2, 4, 5, 6, 7, 9]
        info = look(write_movie(tmp_path / "a.avi", 8, "mjpeg", pix_fmt="yuvj420p", stamps_ms=stamps))
        assert (info.timestamps_ns // 1_000_000).tolist() == stamps

    def test_avi_that_counts_milliseconds_has_times(self, tmp_path):
        info = look(write_movie(tmp_path / "a.avi", 8, "mpeg4", stamps_ms=range(0, 320, 40)))
        assert (info.timestamps_ns // 1_000_000).tolist() == [*range(0, 320, 40)]
        assert info.fps_claimed == 25.0
        assert "short read" not in kinds(info)

    @pytest.mark.parametrize("fps", [25, 34])
    def test_the_rate_that_the_header_claims_is_said(self, tmp_path, fps):
        info = look(write_movie(tmp_path / "a.avi", 10, "mpeg4", fps=fps))
        assert f"the header claims {fps} fps" in message(info, "stamps")

    def test_h264_in_avi_has_none(self, tmp_path):
        info = look(write_movie(tmp_path / "a.avi", 20, b_frames=2))
        assert (info.timestamps_ns, info.fps_claimed, info.spec.access) == (None, 30.0, "single")
        assert "another order" in message(info, "stamps")

    def test_how_finely_time_is_counted_is_no_claim(self, tmp_path):
        info = look(write_movie(tmp_path / "a.avi", 10, "mpeg4", stamps_ms=self.UNEVEN_MS))
        assert info.fps_claimed is None

    def test_the_user_s_rate_goes_before(self, tmp_path):
        info = look(write_movie(tmp_path / "a.avi", 10, "mpeg4"), fps=17.5, start_ns=0)
        assert info.fps_claimed == 17.5
        assert plan_run(info, PlanOptions()).settings.fps == 17.5

    def test_the_plan_ends_a_chunk_at_a_pause(self, tmp_path):
        stamps = [*range(0, 2000, 40), *range(5000, 7000, 40)]
        info = look(write_movie(tmp_path / "a.mkv", 100, stamps_ms=stamps), start_ns=0)
        assert 50 in [task.start for task in plan_run(info, PlanOptions()).chunks]


class TestStart:
    def test_from_the_file_s_name(self, tmp_path):
        path = write_movie(tmp_path / "Vid_x_20231003-161713.avi", 5, "mpeg4")
        info = look(path, timezone="Europe/Copenhagen")
        assert (info.start_ns, info.start_from) == (1_696_342_633 * NS, "file name")
        naive = look(path)
        assert naive.start_ns is None
        assert "time zone" in message(naive, "start time")

    def test_from_the_container(self, tmp_path):
        path = write_movie(tmp_path / "a.mp4", 5, metadata={"creation_time": "2024-05-06T07:08:09Z"})
        info = look(path)
        assert (info.start_ns, info.start_from) == (1_714_979_289 * NS, "container tag")
        assert "export" in message(info, "start time")

    def test_the_name_goes_before_the_container(self, tmp_path):
        path = write_movie(
            tmp_path / "a_20240102T030405Z.mkv", 5, metadata={"creation_time": "2024-05-06T07:08:09.123456Z"}
        )
        assert look(path).start_from == "file name"

    def test_a_clock_that_was_never_set(self, tmp_path):
        path = write_movie(tmp_path / "a.mkv", 5, metadata={"creation_time": "1970-01-01T00:00:00Z"})
        assert look(path).start_from is None

    def test_from_mtime(self, tmp_path):
        path = write_movie(tmp_path / "a.avi", 30, "mpeg4", fps=10)
        os.utime(path, ns=(1_700_000_000 * NS,) * 2)
        info = look(path, start_from_mtime=True)
        assert (info.start_ns, info.start_from) == (1_699_999_997 * NS, "mtime")

    def test_nothing_says_it(self, tmp_path):
        info = look(write_movie(tmp_path / "Ga988.avi", 5, "mpeg4"))
        with pytest.raises(SourceTimeError):
            plan_run(info, PlanOptions())


class TestFrames:
    def test_those_cut_away_by_an_edit_list_do_not_count(self, tmp_path):
        info = look(write_movie(tmp_path / "a.mp4", 40, b_frames=2, start=-10))
        assert info.frames == 30
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 30), plain_decode(info.spec.paths[0]))
            np.testing.assert_array_equal(source.read(0, 1), plain_decode(info.spec.paths[0])[:1])

    def test_vp8_that_is_only_referred_to_does_not_count(self, tmp_path):
        shown = write_movie(tmp_path / "a.webm", 20, "libvpx")
        path = rewrite(
            shown, tmp_path / "b.webm", lambda i, data: bytes([data[0] & ~0x10]) + data[1:] if i == 7 else data
        )
        info = look(path)
        assert info.frames == 19
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 19), np.delete(plain_decode(shown), 7, 0))

    def test_mpeg4_that_says_as_before_does_not_count(self, tmp_path):
        # vop_coding_type P, no whole second, marker, 5 bits of time, marker, not coded (ISO 14496-2, 6.2.5)
        as_before = bytes([0, 0, 1, 0xB6, 0b01_0_1_0011, 0b1_1_0_00000])
        shown = write_movie(tmp_path / "a.avi", pictures(20, 96, 128), "mpeg4")
        info = look(rewrite(shown, tmp_path / "b.avi", lambda i, data: as_before if i == 7 else data))
        assert info.frames == 19
        assert np.argmax(np.diff(info.timestamps_ns)) == 6  # between the frames before and after it
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 8)[:7], plain_decode(shown)[:7])

    def test_refreshed_bit_by_bit_is_not_cut(self, tmp_path):
        refresh = {"x264-params": "intra-refresh=1:keyint=20:min-keyint=20:bframes=0"}
        info = look(write_movie(tmp_path / "a.mp4", 80, **refresh))
        assert info.spec.access == "single"
        ref = plain_decode(info.spec.paths[0])
        with open_source(info.spec) as source:
            for start in (45, 0, 61, 30):
                np.testing.assert_array_equal(source.read(start, start + 10), ref[start : start + 10])

    @pytest.mark.parametrize("b_frames", [0, 2])
    def test_what_is_known_of_the_format(self, tmp_path, b_frames):
        info = look(write_movie(tmp_path / "a.mkv", 5, b_frames=b_frames))
        assert info.format == "video (h264 in mkv, yuv420p)"
        assert info.name == "a"
        assert info.block_frames == 1


class TestFingerprint:
    def test_a_copy_has_it_another_recording_not(self, tmp_path):
        path = write_movie(tmp_path / "a.mkv", 10)
        (tmp_path / "sub").mkdir()
        copy = shutil.copy(path, tmp_path / "sub" / "b.mkv")
        other = write_movie(tmp_path / "c.mkv", 10, stamps_ms=[33 * i + i % 3 for i in range(10)])
        assert look(path).fingerprint == look(copy).fingerprint != look(other).fingerprint


def test_a_folder_of_movies_is_one_run_each_in_natural_order(tmp_path):
    for name in ("m10.avi", "m2.avi"):
        write_movie(tmp_path / name, 3, "mpeg4")
    (tmp_path / "m3.avi").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("x")
    found = discover([str(tmp_path)], SourceOptions())
    assert [os.path.basename(entry.path) for entry in found] == ["m2.avi", "m3.avi", "m10.avi"]
    assert [entry.error is None for entry in found] == [True, False, True]
    assert found[0].ignored_files == 1


def test_a_movie_with_a_wrong_suffix_is_a_movie(tmp_path):
    path = shutil.move(write_movie(tmp_path / "a.avi", 5, "mjpeg", pix_fmt="yuvj420p"), tmp_path / "a.h5")
    assert look(path).format == "video (mjpeg in avi, yuvj420p)"


class TestRotation:
    def test_is_reported(self, tmp_path):
        info = look(write_movie(tmp_path / "a.mp4", 5, rotation=-90))
        assert (info.height_px, info.width_px) == (48, 64)
        assert "90 degrees clockwise" in message(info, "rotation")

    @pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (-90, -1), (180, 2)])
    def test_is_done_when_asked(self, tmp_path, rotation, turns):
        info = look(write_movie(tmp_path / "a.mp4", 5, rotation=rotation), apply_rotation=True)
        plain = plain_decode(info.spec.paths[0])
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 5), np.rot90(plain, turns, axes=(1, 2)))
        assert "quarter_turns" in dict(info.spec.options)

    def test_a_mirrored_one_is_reported_only(self, tmp_path):
        info = look(write_movie(tmp_path / "a.mp4", 5, hflip=True), apply_rotation=True)
        assert "mirrored" in message(info, "rotation")
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 5), plain_decode(info.spec.paths[0]))

    def test_none_no_finding(self, tmp_path):
        assert "rotation" not in kinds(look(write_movie(tmp_path / "a.mp4", 5)))
