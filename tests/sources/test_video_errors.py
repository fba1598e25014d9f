"""Movies that are damaged, cut short, empty, or no movies: what can be read is right, and in its place."""

import multiprocessing
import os
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from ingest.errors import (
    FrameDataError,
    NoFramesError,
    SettingsError,
    SourceChangedError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
    TruncatedSourceError,
)
from ingest.sources import SourceOptions, SourceSpec, discover, inspect, open_source
from ingest.sources.video_place import ByCount, ByTime
from ingest.sources.video_stock import release_movies
from tests.sources.files import NS, kinds
from tests.sources.video_files import (
    look,
    may_be_lost,
    packet_table,
    pictures,
    plain_decode,
    rewrite,
    scribble,
    write_movie,
)

COUNT = 48
GOP = 12


def message(info, kind: str) -> str:
    (found,) = [finding.message for finding in info.findings if finding.kind == kind]
    return found


def read_what_can_be(info, step: int = 20) -> dict[int, np.ndarray]:
    """As the layer above does: chunk by chunk, and frame by frame where a chunk cannot be read."""
    got = {}
    with open_source(info.spec) as source:
        for start in range(0, info.frames, step):
            stop = min(start + step, info.frames)
            try:
                got.update(enumerate(source.read(start, stop).copy(), start))
            except FrameDataError:
                for i in range(start, stop):
                    with suppress(FrameDataError):
                        got[i] = source.read(i, i + 1)[0].copy()
    return got


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Movies of many codecs, with frames of a few KB, and what they decode to."""
    folder = tmp_path_factory.mktemp("whole")
    made = {}

    def get(file: str, codec: str, **options):
        if file not in made:
            path = write_movie(folder / file, pictures(COUNT, 160, 224), codec, gop=GOP, **options)
            made[file] = (path, plain_decode(path))
        return made[file]

    yield get
    release_movies()


CODECS = [
    ("b.mp4", "libx264", {"b_frames": 2}),
    ("open.mkv", "libx264", {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}),
    ("p.avi", "mpeg4", {}),
    ("j.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
    ("f.mkv", "ffv1", {"pix_fmt": "gray", "level": "3", "slicecrc": "1"}),
    ("m.mkv", "mpeg2video", {"b_frames": 2}),
    ("counted.avi", "libx264", {"b_frames": 2}),
]


PACKETS = [(21,), (24,), (7, 8, 40)]  # 24 is a keyframe
CASES = [(*case, packets) for case in CODECS for packets in PACKETS]


@pytest.mark.parametrize(
    ("file", "codec", "options", "packets"), CASES, ids=[f"{file}-{packets[0]}" for file, _, _, packets in CASES]
)
def test_damage_in_the_middle_costs_only_what_is_built_on_it(tmp_path, whole, file, codec, options, packets):
    path, frames = whole(file, codec, **options)
    damaged = scribble(path, tmp_path / file, packets)
    info = look(damaged)
    assert info.frames == COUNT
    got = read_what_can_be(info)
    for i, frame in got.items():
        np.testing.assert_array_equal(frame, frames[i], err_msg=f"frame {i}")
    lost = set(range(COUNT)) - set(got)
    assert lost
    assert lost <= may_be_lost(path, packets, counted=file == "counted.avi")
    if codec == "mjpeg":
        assert lost == set(packets)


@pytest.mark.parametrize("options", [{"level": "3"}, {"level": "4", "strict": "experimental"}], ids=["3", "4"])
@pytest.mark.parametrize("checksums", ["0", "1"])
def test_checksums_of_ffv1(tmp_path, options, checksums):
    path = write_movie(tmp_path / "a.mkv", 12, "ffv1", pix_fmt="gray", gop=1, slicecrc=checksums, **options)
    assert len(read_what_can_be(look(path))) == 12
    content = bytearray(Path(path).read_bytes())
    position, size, _, _ = packet_table(path)[5]
    content[position + size // 2] ^= 4
    (tmp_path / "b.mkv").write_bytes(content)
    assert (5 in read_what_can_be(look(tmp_path / "b.mkv"))) == (checksums == "0")


@pytest.mark.parametrize("at", [1, 24, 200])  # start of image, quantisation table, Huffman table
def test_damaged_tables_of_a_jpeg(tmp_path, whole, at):
    path, frames = whole("j.avi", "mjpeg", pix_fmt="yuvj420p")
    content = bytearray(Path(path).read_bytes())
    begin = packet_table(path)[20][0] + at
    content[begin : begin + 400] = np.random.default_rng(at).bytes(400)
    (tmp_path / "a.avi").write_bytes(content)
    got = read_what_can_be(look(tmp_path / "a.avi"))
    assert set(range(COUNT)) - set(got) == {20}
    for i, frame in got.items():
        np.testing.assert_array_equal(frame, frames[i])


@pytest.mark.parametrize("step", [7, 48])
def test_lost_frames_are_the_same_however_one_reads(tmp_path, whole, step):
    path, _ = whole("b.mp4", "libx264", b_frames=2)
    info = look(scribble(path, tmp_path / "b.mp4", [21]))
    once = read_what_can_be(info, 20)
    release_movies()
    again = read_what_can_be(info, step)
    assert once.keys() == again.keys()


def test_a_good_frame_can_be_read_right_after_a_bad_one(tmp_path, whole):
    path, frames = whole("j.avi", "mjpeg", pix_fmt="yuvj420p")
    info = look(scribble(path, tmp_path / "j.avi", [21]))
    with open_source(info.spec) as source:
        for _ in range(2):
            with pytest.raises(FrameDataError, match="frames 21 of 48 cannot be decoded"):
                source.read(21, 22)
            np.testing.assert_array_equal(source.read(22, 23)[0], frames[22])
            np.testing.assert_array_equal(source.read(20, 21)[0], frames[20])
        with pytest.raises(FrameDataError, match="frames 21 of 48"):
            source.read(18, 30)


def test_a_frame_that_is_missing_without_an_error_is_lost_in_its_place(tmp_path, whole, monkeypatch):
    path, frames = whole("p.avi", "mpeg4")
    info = look(path)
    place = ByTime.place
    monkeypatch.setattr(ByTime, "place", lambda self, frame: None if frame.pts == 15 else place(self, frame))
    release_movies()
    got = read_what_can_be(info)
    assert sorted(set(range(COUNT)) - set(got)) == list(range(15, 24))  # up to the next keyframe
    for i, frame in got.items():
        np.testing.assert_array_equal(frame, frames[i])


def test_a_lost_packet_is_a_gap_in_time_not_a_frame(tmp_path, whole):
    path, frames = whole("b.mp4", "libx264", b_frames=2)
    times = sorted(pts for _, _, pts, _ in packet_table(path))
    dropped = packet_table(path)[23][2]
    info = look(rewrite(path, tmp_path / "b.mkv", lambda i, data: None if i == 23 else data))
    assert info.frames == COUNT - 1
    assert np.argmax(np.diff(info.timestamps_ns)) == times.index(dropped) - 1
    got = read_what_can_be(info)
    for i, frame in got.items():
        np.testing.assert_array_equal(frame, frames[i + (i >= times.index(dropped))])


class TestCounted:
    """H.264 in AVI, where times do not tell frames apart."""

    def test_frames_after_the_next_keyframe_are_in_their_place(self, tmp_path, whole):
        path, frames = whole("counted.avi", "libx264", b_frames=2)
        info = look(scribble(path, tmp_path / "c.avi", [21]))
        got = read_what_can_be(info)
        assert set(got) >= {*range(17), *range(36, 48)}
        assert 21 not in got
        for i, frame in got.items():
            np.testing.assert_array_equal(frame, frames[i])

    def test_one_that_is_missing_without_an_error(self, whole, monkeypatch):
        path, frames = whole("counted.avi", "libx264", b_frames=2)
        info = look(path)
        place = ByCount.place
        monkeypatch.setattr(ByCount, "place", lambda self, frame: None if frame.pts == 13 else place(self, frame))
        release_movies()
        got = read_what_can_be(info)
        for i in range(36, 48):
            np.testing.assert_array_equal(got[i], frames[i])
        wrong = [i for i, frame in got.items() if not np.array_equal(frame, frames[i])]
        assert all(13 <= i < 36 for i in wrong)


class TestCut:
    @pytest.mark.parametrize("file", ["a.mp4", "a.mov"])
    def test_mp4_without_moov(self, tmp_path, file):
        path = write_movie(tmp_path / file, 30)
        size = os.path.getsize(path)
        os.truncate(path, size * 6 // 10)
        with pytest.raises(TruncatedSourceError, match=f"moov atom not found.*byte {size * 6 // 10}") as caught:
            look(path)
        assert "reference file" in caught.value.hint

    @pytest.mark.parametrize(
        ("file", "codec", "options", "words"),
        [
            ("a.mkv", "libx264", {}, "s are missing at the end"),
            ("a.avi", "mpeg4", {}, "the header says 60 frames"),
            ("j.avi", "mjpeg", {"pix_fmt": "yuvj420p"}, "the header says 60 frames"),
            ("a.mp4", "libx264", {"container_options": {"movflags": "faststart"}}, "the header says 60 frames"),
            ("f.mp4", "libx264", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}, "cut short"),
        ],
        ids=["mkv", "avi", "mjpeg", "faststart", "fragmented"],
    )
    def test_what_is_there_is_read_and_the_rest_is_said(self, tmp_path, file, codec, options, words):
        path = write_movie(tmp_path / file, 60, codec, **options)
        frames = plain_decode(path)
        assert "short read" not in kinds(look(path))
        os.truncate(path, os.path.getsize(path) * 7 // 10)
        info = look(path)
        assert words in message(info, "short read")
        assert 10 < info.frames < 55
        numbers = np.arange(info.frames)
        if info.timestamps_ns is not None:  # the last ones that are there may be shown after some that are not
            numbers = np.rint(info.timestamps_ns * 30 / NS).astype(int)
        got = read_what_can_be(info)
        for i, frame in got.items():
            np.testing.assert_array_equal(frame, frames[numbers[i]])
        assert len(got) >= info.frames - 3

    def test_avi_of_uneven_rate(self, tmp_path):
        stamps = np.cumsum(np.random.default_rng(0).integers(20, 90, 60)).tolist()
        path = write_movie(tmp_path / "a.avi", 60, "mpeg4", stamps_ms=stamps)
        assert "short read" not in kinds(look(path))
        os.truncate(path, packet_table(path)[40][0])
        assert "ticks of 1/1000 s" in message(look(path), "short read")

    @pytest.mark.parametrize("keep", [0, 1, 20, 400])
    @pytest.mark.parametrize("file", ["a.mp4", "a.avi", "a.mkv"])
    def test_cut_in_the_header(self, tmp_path, file, keep):
        path = write_movie(tmp_path / file, 30, "mpeg4")
        os.truncate(path, keep)
        with pytest.raises(SourceFormatError):
            look(path)


class TestNotMovies:
    def test_missing(self):
        with pytest.raises(SourceNotFoundError):
            inspect(SourceSpec("video", ("/nowhere/a.avi",)), SourceOptions())

    def test_sound_only(self, tmp_path):
        path = str(tmp_path / "a.mp4")
        with av.open(path, "w") as container:
            stream = container.add_stream("aac", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 8000
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
        with pytest.raises(NoFramesError, match="only audio"):
            look(path)

    @pytest.mark.parametrize(
        "content", [b"", b"hello", b"\0" * 5000, os.urandom(5000), b"RIFF\0\0\0\0AVI " + b"\0" * 400]
    )
    @pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv", "wmv", "h264"])
    def test_other_bytes(self, tmp_path, content, suffix):
        path = tmp_path / f"a.{suffix}"
        path.write_bytes(content)
        with pytest.raises(SourceFormatError) as caught:
            look(path)
        assert str(path) in str(caught.value)

    def test_a_playlist_is_not_followed(self, tmp_path):
        write_movie(tmp_path / "a.mp4", 5)
        (tmp_path / "b.avi").write_text("ffconcat version 1.0\nfile a.mp4\n")
        with pytest.raises(SourceFormatError):
            look(tmp_path / "b.avi")

    def test_one_bad_file_does_not_hide_the_others(self, tmp_path):
        write_movie(tmp_path / "b.avi", 5, "mpeg4")
        (tmp_path / "a.avi").write_bytes(b"x" * 100)
        found = discover([str(tmp_path)], SourceOptions())
        assert [entry.spec is None for entry in found] == [True, False]
        assert isinstance(found[0].error, SourceFormatError)

    def test_permission_denied(self, tmp_path):
        # Root may read everything: the child becomes nobody, once it has loaded what it needs.
        code = """if True:
            import os, sys, ingest.sources.video
            from ingest.sources import SourceOptions, SourceSpec, inspect
            from ingest.sources.video import find_runs
            path = sys.argv[1]
            os.chmod(path, 0)
            as_root = os.geteuid() == 0
            if as_root:
                os.seteuid(65534)
            print(repr(find_runs([path], SourceOptions())[0].error))"""
        os.chmod(tmp_path, 0o755)
        path = write_movie(tmp_path / "a.avi", 3, "mpeg4")
        done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=False)
        assert "SourceReadError" in done.stdout, done.stderr
        assert "permission denied" in done.stdout


class TestBombs:
    @pytest.mark.parametrize("size", [30_000, 65_535])
    def test_a_size_in_the_header(self, tmp_path, size):
        content = bytearray(Path(write_movie(tmp_path / "a.avi", 3, "rawvideo", pix_fmt="gray")).read_bytes())
        struct.pack_into("<II", content, content.find(b"strf") + 12, size, size)
        (tmp_path / "b.avi").write_bytes(content)
        with pytest.raises(SourceFormatError):
            look(tmp_path / "b.avi")

    def test_a_size_in_a_matroska_header(self, tmp_path):
        # PixelWidth and PixelHeight (RFC 9559, 5.1.4.1.28.6) of 2 bytes each.
        path = write_movie(
            tmp_path / "a.mkv", pictures(3, 272, 320).astype("<u2"), "ffv1", pix_fmt="gray16le", dtype="<u2"
        )
        content = Path(path).read_bytes()
        for tag, value in ((b"\xb0\x82", 320), (b"\xba\x82", 272)):
            assert tag + struct.pack(">H", value) in content
            content = content.replace(tag + struct.pack(">H", value), tag + struct.pack(">H", 16_100), 1)
        (tmp_path / "b.mkv").write_bytes(content)
        with pytest.raises(SourceFormatError, match="16100 x 16100 px, 518420000 bytes"):
            look(tmp_path / "b.mkv")

    def test_a_frame_that_is_larger_than_the_header_says(self, tmp_path):
        small = write_movie(tmp_path / "a.avi", 6, "mjpeg", pix_fmt="yuvj420p")
        large = write_movie(tmp_path / "b.avi", pictures(2, 96, 128), "mjpeg", pix_fmt="yuvj420p")
        with av.open(large) as container:
            picture = bytes(next(p for p in container.demux(video=0) if p.size))
        path = rewrite(small, tmp_path / "c.avi", lambda i, data: picture if i == 3 else data)
        info = look(path)
        frames = plain_decode(small)
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match=r"frames 3 of 6.*128 x 96 px, where the run has 64 x 48"):
                source.read(0, 6)
            np.testing.assert_array_equal(source.read(4, 6), frames[4:])
            np.testing.assert_array_equal(source.read(0, 3), frames[:3])


class TestChanges:
    def test_another_movie_at_the_path(self, tmp_path):
        info = look(write_movie(tmp_path / "a.avi", 10, "mpeg4"))
        write_movie(tmp_path / "a.avi", 12, "mpeg4")
        with open_source(info.spec) as source, pytest.raises(SourceChangedError, match="holds 12 frames"):
            source.read(0, 2)

    def test_as_many_frames_of_another_movie(self, tmp_path):
        info = look(write_movie(tmp_path / "a.avi", 10, "mpeg4"))
        with open_source(info.spec) as source:
            source.read(0, 2)
            write_movie(tmp_path / "a.avi", pictures(11)[1:], "mpeg4")
            with pytest.raises(SourceChangedError):
                source.read(2, 4)

    def test_a_touched_file_is_the_same(self, tmp_path):
        info = look(write_movie(tmp_path / "a.avi", 10, "mpeg4"))
        with open_source(info.spec) as source:
            before = source.read(0, 2)
            os.utime(info.spec.paths[0])
            np.testing.assert_array_equal(source.read(0, 2), before)

    def test_a_file_that_went_away(self, tmp_path):
        info = look(write_movie(tmp_path / "a.avi", 10, "mpeg4"))
        os.unlink(info.spec.paths[0])
        with open_source(info.spec) as source, pytest.raises(SourceNotFoundError):
            source.read(0, 2)

    def test_an_io_error_is_no_lost_frame(self, tmp_path, whole, monkeypatch):
        path, _ = whole("j.avi", "mjpeg", pix_fmt="yuvj420p")
        info = look(scribble(path, tmp_path / "j.avi", [21]))

        def pread(*args):
            raise OSError(5, "Input/output error")

        monkeypatch.setattr("ingest.sources.video_file.os.pread", pread)
        with open_source(info.spec) as source, pytest.raises(SourceReadError, match="Input/output error"):
            source.read(20, 24)

    def test_io_error_when_opened(self):
        with pytest.raises(SourceReadError, match="Input/output error"):
            inspect(SourceSpec("video", ("/proc/self/mem",)), SourceOptions())

    def test_a_spec_that_was_never_inspected(self, tmp_path):
        path = write_movie(tmp_path / "a.avi", 3, "mpeg4")
        with pytest.raises(SettingsError, match="missing in the spec"):
            open_source(SourceSpec("video", (path,)))


def test_a_forked_child_reads_with_decoders_of_its_own(tmp_path):
    info = look(write_movie(tmp_path / "a.mp4", 40, b_frames=2))
    frames = plain_decode(info.spec.paths[0])
    with open_source(info.spec) as source:
        source.read(0, 5)
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()

        def child():
            with open_source(info.spec) as own:
                queue.put(own.read(5, 30).copy())

        process = context.Process(target=child)
        process.start()
        there = queue.get()
        np.testing.assert_array_equal(source.read(5, 30), frames[5:30])
        process.join()
    np.testing.assert_array_equal(there, frames[5:30])


def test_few_decoders_stay_open(tmp_path):
    release_movies()

    def open_files() -> int:
        return sum(os.path.realpath(f"/proc/self/fd/{fd}").endswith(".avi") for fd in os.listdir("/proc/self/fd"))

    infos = [look(write_movie(tmp_path / f"{i}.avi", 30, "mpeg4")) for i in range(7)]
    for info in infos:
        with open_source(info.spec) as source:
            for start in (25, 2, 14):
                source.read(start, start + 2)
            threads = [threading.Thread(target=source.read, args=(start, start + 5)) for start in (0, 5, 10, 15, 20)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    assert 1 <= open_files() <= 4
    release_movies()
    assert open_files() == 0
