"""Folders of pictures: formats, order, times beside them, damage."""

import json
import os
import struct
import time
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image

from ingest.errors import (
    FrameDataError,
    SourceChangedError,
    SourceFormatError,
    SourceNotFoundError,
    SourceReadError,
    TruncatedSourceError,
)
from ingest.frames import to_uint8
from ingest.plan import PlanOptions, plan_run
from ingest.sources import discover, inspect, open_source
from tests.sources.contract import Made, SourceContract
from tests.sources.files import NS, SAMPLES, kinds, look, pixels

SHARED = SAMPLES.parent


def save(folder, frames, name="img_{}.png", **how):
    """Write pictures numbered from 1, without leading zeros."""
    folder.mkdir(exist_ok=True)
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(folder / name.format(i + 1), **how)
    return folder


class TestPng(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        info = look(save(tmp_path / "run", frames))
        assert (info.name, info.spec.dataset, info.format) == ("run", "img_#.png", "PNG pictures")
        return Made(info, frames)


class TestPngOf16Bit(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u2", top=4096)
        info = look(save(tmp_path / "run", frames))
        assert (info.scale.full_scale, info.scale.full_scale_from) == (4095.0, "sampled maximum")
        return Made(info, to_uint8(frames, info.scale))


class TestBmp(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, 12, 17)  # rows are padded
        return Made(look(save(tmp_path / "run", frames, "d{:04d}.BMP")), frames)


class TestTiffs(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u2", top=4096)
        for i, frame in enumerate(frames):
            tifffile.imwrite(tmp_path / f"a{i}.tif", frame, compression="zlib", photometric="minisblack")
        info = look(tmp_path)
        return Made(info, to_uint8(frames, info.scale))


class TestColour(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        colours = np.random.default_rng(0).integers(0, 256, (20, 12, 16, 4)).astype("u1")
        folder = save(tmp_path / "run", colours)
        info = look(folder, colour="luma")
        expected = np.rint(colours[..., :3] @ [0.299, 0.587, 0.114])
        assert expected.max() > 200
        return Made(info, ((colours[..., :3] @ [299, 587, 114] + 500) // 1000).astype(np.uint8))


class TestRawFile(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype=">u2", top=4096)
        (tmp_path / "a.raw").write_bytes(b"\0" * 8 + frames.tobytes())
        info = look(tmp_path / "a.raw", raw_shape=(12, 16), raw_dtype=">u2", raw_header_bytes=8)
        return Made(info, to_uint8(frames.astype("u2"), info.scale))


class TestRawSequence(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        for i, frame in enumerate(frames):
            (tmp_path / f"a{i}.bin").write_bytes(struct.pack(">II", *frame.shape) + frame.tobytes())
        return Made(look(tmp_path, raw_shape=(12, 16), raw_dtype="u1", raw_header_bytes=8), frames)


class TestPictures:
    def test_jpeg(self, tmp_path):
        frames = np.repeat(np.arange(5, dtype="u1")[:, None, None] * 40, 16, 1).repeat(16, 2)
        info = look(save(tmp_path / "run", frames, "a{}.jpg", quality=95))
        with open_source(info.spec) as source:
            assert np.abs(source.read(0, 5).astype(int) - frames).max() <= 2

    @pytest.mark.parametrize("mode", ["1", "P", "LA"])
    def test_grey_of_other_kinds(self, tmp_path, mode):
        grey = pixels(3) // 128 * 255
        for i, frame in enumerate(grey):
            picture = Image.fromarray(frame).convert(mode)
            picture.save(tmp_path / f"a{i}.png")
        info = look(tmp_path)
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), grey)

    def test_bmp_whose_palette_turns_grey_over(self, tmp_path):
        frames = pixels(3)
        folder = save(tmp_path / "run", frames, "a{}.bmp")
        for path in folder.iterdir():
            data = bytearray(path.read_bytes())
            for i in range(256):
                data[54 + 4 * i : 58 + 4 * i] = bytes([255 - i] * 3 + [0])
            path.write_bytes(data)
        with open_source(look(folder).spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), 255 - frames)

    def test_bmp_from_the_top_down(self, tmp_path):
        frames = pixels(3)
        folder = save(tmp_path / "run", frames, "a{}.bmp")
        for path in folder.iterdir():
            data = bytearray(path.read_bytes())
            struct.pack_into("<i", data, 22, -struct.unpack_from("<i", data, 22)[0])
            path.write_bytes(data)
        with open_source(look(folder).spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), frames[:, ::-1])

    def test_a_coloured_palette_is_colour(self, tmp_path):
        picture = Image.fromarray(pixels(1)[0]).convert("P")
        picture.putpalette([255, 0, 0] * 256)
        picture.save(tmp_path / "a.png")
        with pytest.raises(SourceFormatError, match="colour pictures") as caught:
            look(tmp_path)
        assert "--colour" in caught.value.hint
        with open_source(look(tmp_path, colour="red").spec) as source:
            assert source.read(0, 1).min() == 255

    def test_grey_stored_as_colour(self, tmp_path):
        frames = pixels(3)
        info = look(save(tmp_path / "run", np.repeat(frames[..., None], 3, -1)))
        assert kinds(info) == ["colour"]
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), frames)

    def test_the_user_says_the_scale(self, tmp_path):
        info = look(save(tmp_path / "run", pixels(3)), full_scale=127.5)
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), np.minimum(pixels(3).astype(int) * 2, 255))


class TestFolders:
    def test_runs_of_a_folder(self, tmp_path):
        save(tmp_path / "f", pixels(12), "b{}.png")
        save(tmp_path / "f", pixels(2), "a{}.bmp")
        save(tmp_path / "f", pixels(1), "lone.png")
        tifffile.imwrite(tmp_path / "f" / "s1.tif", pixels(4), photometric="minisblack")
        tifffile.imwrite(tmp_path / "f" / "s2.tif", pixels(5), photometric="minisblack")
        (tmp_path / "f" / "x.raw").write_bytes(b"1234")
        entries = discover([str(tmp_path)])
        assert [len(entry.spec.paths) for entry in entries] == [2, 12, 1, 1, 1]
        assert entries[0].ignored_files == 1
        infos = [inspect(entry.spec) for entry in entries]
        assert [info.name for info in infos] == ["f a", "f b", "lone", "s1", "s2"]
        assert [info.frames for info in infos] == [2, 12, 1, 4, 5]
        assert len({info.spec.canonical_path for info in infos}) == 5

    def test_natural_order_and_lost_numbers(self, tmp_path):
        frames = pixels(12)
        folder = save(tmp_path / "run", frames)
        os.remove(folder / "img_7.png")
        info = look(folder, fps=10.0, start_ns=10**18)
        assert info.frame_numbers.tolist() == [1, 2, 3, 4, 5, 6, 8, 9, 10, 11, 12]
        assert "lost frames" in {finding.kind for finding in plan_run(info, PlanOptions()).findings}
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(6, 11), frames[7:])

    def test_ten_thousand_pictures(self, tmp_path):
        frame = pixels(1)[0]
        Image.fromarray(frame).save(tmp_path / "a0.png")
        data = (tmp_path / "a0.png").read_bytes()
        for i in range(1, 10_000):
            (tmp_path / f"a{i}.png").write_bytes(data)
        began = time.perf_counter()
        info = look(tmp_path)
        assert time.perf_counter() - began < 20
        assert info.frames == 10_000
        spec, start, stop = info.spec.part(9_990, 9_995)
        assert len(spec.paths) == 5
        with open_source(spec) as source:
            assert (source.read(start, stop) == frame).all()

    def test_a_copy_has_the_same_fingerprint_and_another_run_not(self, tmp_path):
        infos = [look(save(tmp_path / name, pixels(30, seed=seed))) for name, seed in (("a", 0), ("b", 0), ("c", 1))]
        assert infos[0].fingerprint == infos[1].fingerprint != infos[2].fingerprint

    def test_a_picture_with_a_wrong_suffix(self, tmp_path):
        frames = pixels(3)
        save(tmp_path / "run", frames, "a{}.tif", format="PNG")
        with open_source(look(tmp_path / "run").spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), frames)


class TestTimesBeside:
    HEAD = "frame_index,target_elapsed_ms,actual_elapsed_ms,timestamp,exposure_ms,gain,save_elapsed_ms,filename\n"

    def recorded(self, tmp_path, count=6, zone="+09:00", skip=()):
        save(tmp_path / "record-1", pixels(count), "S_20251222_rec-1_{:05d}.png")
        rows = [
            f"{i},{100 * i},{100 * i + i % 2}.5,2025-12-22T15:39:{37 + i // 10}.{i % 10}00{zone},50,1,8,"
            f"S_20251222_rec-1_{i + 1:05d}.png\n"
            for i in range(count)
            if i not in skip
        ]
        (tmp_path / "record-1" / "frames.csv").write_text(self.HEAD + "".join(rows))
        return tmp_path / "record-1"

    def test_frames_csv(self, tmp_path):
        info = look(self.recorded(tmp_path))
        assert info.start_ns == 1_766_385_577 * NS
        assert np.diff(info.timestamps_ns).tolist() == [NS // 10] * 5
        assert (info.start_from, info.frame_numbers.tolist()) == ("frame stamps", [0, 1, 2, 3, 4, 5])
        assert info.findings == ()

    def test_without_a_zone_only_steps_count(self, tmp_path):
        folder = self.recorded(tmp_path, zone="")
        info = look(folder)
        assert (info.start_ns, kinds(info)) == (None, ["stamps"])
        assert np.diff(info.timestamps_ns).tolist() == [NS // 10] * 5
        assert look(folder, timezone="Asia/Tokyo").start_ns == 1_766_385_577 * NS

    def test_times_to_the_second_give_way_to_elapsed_ones(self, tmp_path):
        folder = self.recorded(tmp_path)
        table = (folder / "frames.csv").read_text()
        for tenth in range(6):
            table = table.replace(f":37.{tenth}00+", ":37+")
        (folder / "frames.csv").write_text(table)
        info = look(folder)
        assert info.start_ns == 1_766_385_577 * NS
        assert np.diff(info.timestamps_ns).tolist() == [101_000_000, 99_000_000] * 2 + [101_000_000]

    def test_a_row_that_was_not_written(self, tmp_path):
        info = look(self.recorded(tmp_path, skip=(3,)))
        assert [(finding.kind, finding.frame) for finding in info.findings] == [("stamps", 3)]
        assert np.diff(info.timestamps_ns).tolist() == [NS // 10] * 5

    def test_the_last_row_that_was_not_written(self, tmp_path):
        info = look(self.recorded(tmp_path, skip=(5,)))
        assert [(finding.kind, finding.frame) for finding in info.findings] == [("stamps", 5)]
        assert info.findings[0].message.endswith("put after the last known time at the usual distance")
        assert np.diff(info.timestamps_ns).tolist() == [NS // 10] * 5

    def test_times_in_the_wrong_order(self, tmp_path):
        folder = self.recorded(tmp_path)
        table = (folder / "frames.csv").read_text()
        swapped = table.replace(":37.300", ":37.x").replace(":37.400", ":37.300").replace(":37.x", ":37.400")
        (folder / "frames.csv").write_text(swapped)
        info = look(folder)
        assert [(finding.kind, finding.frame) for finding in info.findings] == [("frames.csv", 4)]
        assert "before the one before it" in info.findings[0].message
        assert np.diff(info.timestamps_ns).tolist() == [101_000_000, 99_000_000] * 2 + [101_000_000]  # elapsed ones
        (folder / "frames.csv").write_text(swapped.replace("400,400.5", "400,200.5"))
        assert [finding.frame for finding in look(folder).findings] == [4, 4]

    def test_too_few_rows_are_not_used(self, tmp_path):
        info = look(self.recorded(tmp_path, skip=(1, 2, 3, 4)))
        assert (info.timestamps_ns, kinds(info)) == (None, ["frames.csv"])

    def test_a_table_of_other_pictures(self, tmp_path):
        folder = self.recorded(tmp_path)
        save(folder, pixels(2), "other{}.png")
        infos = [inspect(entry.spec) for entry in discover([str(folder)])]
        assert [info.timestamps_ns is None for info in infos] == [False, True]

    @pytest.mark.parametrize("table", ["", "a\n", "frame_index,filename\n", 'frame_index,filename\n"\0', "\xff\xfe"])
    def test_a_damaged_table(self, tmp_path, table):
        folder = self.recorded(tmp_path)
        (folder / "frames.csv").write_text(table)
        assert (look(folder).timestamps_ns, kinds(look(folder))) == (None, ["frames.csv"])

    @pytest.mark.parametrize(
        ("status", "found"), [("completed", []), ("running", ["recording"]), ("error", ["recording"])]
    )
    def test_recording_json(self, tmp_path, status, found):
        folder = save(tmp_path / "run", pixels(3, dtype="u2", top=4096) * 16)
        said = {
            "status": status,
            "created_at": "2025-12-22T15:39:37.5+09:00",
            "timing": {"target_interval_ms": 40.0},
            "image_format": {"bit_depth_sensor": 12, "bit_depth_saved": 16, "alignment": "MsbAligned"},
        }
        (folder / "recording.json").write_text(json.dumps(said))
        info = look(folder)
        assert (info.start_ns, info.start_from) == (1_766_385_577_500_000_000, "file attributes")
        assert (info.fps_claimed, info.scale.full_scale, info.scale.full_scale_from) == (25.0, 65520.0, "file")
        assert kinds(info) == found

    @pytest.mark.parametrize("text", ["", "{", "[1]", "[" * 100_000, '"x"'])
    def test_a_damaged_recording_json(self, tmp_path, text):
        folder = save(tmp_path / "run", pixels(3))
        (folder / "recording.json").write_text(text)
        assert look(folder).frames == 3

    def test_times_in_each_tiff(self, tmp_path):
        for i, frame in enumerate(pixels(5)):
            said = {"timestamp": f"2025-12-22T15:39:{37 + i}.25+09:00", "bit_depth_sensor": 8}
            tifffile.imwrite(tmp_path / f"a{i}.tif", frame, photometric="minisblack", metadata=said)
        info = look(tmp_path)
        assert (info.start_ns, info.start_from) == (1_766_385_577_250_000_000, "frame stamps")
        assert np.diff(info.timestamps_ns).tolist() == [NS] * 4

    @pytest.mark.parametrize("name", ["S_20251222_rec-1_{:05d}.tiff", "S_2025-12-22___10-00-{:02d}.250.tiff"])
    def test_times_in_each_tiff_go_before_names_and_recording_json(self, tmp_path, name):
        for i, frame in enumerate(pixels(5)):
            said = {"timestamp": f"2025-12-22T15:39:{37 + 2 * i}.25+09:00", "exposure_ms": 10, "frame_index": i}
            # tifffile adds a description of its own.
            tifffile.imwrite(tmp_path / name.format(i), frame, photometric="minisblack", description=json.dumps(said))
        said = {"status": "completed", "created_at": "2025-12-22T15:35:00+09:00", "target_interval_ms": 100}
        (tmp_path / "recording.json").write_text(json.dumps(said))
        info = look(tmp_path)
        assert (info.start_ns, info.start_from) == (1_766_385_577_250_000_000, "frame stamps")
        assert np.diff(info.timestamps_ns).tolist() == [2 * NS] * 4

    def test_times_in_names(self, tmp_path):
        for i, frame in enumerate(pixels(5)):
            Image.fromarray(frame).save(tmp_path / f"image_2025-12-22___15-39-{37 + i}.250.png")
        info = look(tmp_path)
        assert (info.start_ns, kinds(info)) == (None, ["start time"])
        assert np.diff(info.timestamps_ns).tolist() == [NS] * 4
        there = look(tmp_path, timezone="Asia/Tokyo")
        assert (there.start_ns, there.start_from) == (1_766_385_577_250_000_000, "frame stamps")
        assert there.fingerprint == info.fingerprint

    def test_a_start_in_names(self, tmp_path):
        info = look(save(tmp_path / "run", pixels(3), "a_20251222-153937_{:04d}.png"), timezone="Asia/Tokyo")
        assert (info.timestamps_ns, info.start_ns, info.start_from) == (None, 1_766_385_577 * NS, "file name")

    def test_nothing_says_a_time(self, tmp_path):
        info = look(save(tmp_path / "run", pixels(3)), fps=5.0)
        assert (info.timestamps_ns, info.start_ns, info.fps_claimed) == (None, None, 5.0)


class TestDamage:
    @pytest.fixture
    def frames(self):
        return pixels(30, 40, 50)

    @pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jpg", "pgm"])
    def test_empty_cut_and_odd_pictures_are_lost_frames(self, tmp_path, frames, suffix):
        folder = save(tmp_path / "run", frames, "a{}." + suffix)
        (folder / f"a4.{suffix}").write_bytes(b"")
        os.truncate(folder / f"a11.{suffix}", os.path.getsize(folder / f"a11.{suffix}") // 3)
        (folder / f"a20.{suffix}").write_bytes(b"no picture at all")
        Image.fromarray(frames[0][:8, :8]).save(folder / f"a25.{suffix}")
        whole = [i for i in range(30) if i + 1 not in (4, 11, 20, 25)]
        info = look(folder)
        assert (info.frames, info.height_px, info.width_px) == (30, 40, 50)
        lost = [finding.frame for finding in info.findings if finding.kind == "lost frames"]
        assert lost == [3, 10, 19, 24]
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError):
                source.read(0, 30)
            for i in (3, 10, 19, 24):
                with pytest.raises(FrameDataError, match=rf"a{i + 1}\.{suffix}"):
                    source.read(i, i + 1)
            read = np.concatenate([source.read(i, i + 1) for i in whole])
        if suffix != "jpg":
            np.testing.assert_array_equal(read, frames[whole])

    def test_a_cut_picture_that_was_not_looked_at_is_a_lost_frame(self, tmp_path, frames):
        info = look(save(tmp_path / "run", frames))
        path = tmp_path / "run" / "img_8.png"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="img_8"):
                source.read(5, 10)
            np.testing.assert_array_equal(source.read(8, 30), frames[8:])

    @pytest.mark.parametrize(("few", "many"), [("u2", "u1"), ("u1", "u2")])
    def test_a_picture_of_another_type_is_a_lost_frame(self, tmp_path, few, many):
        frames = pixels(20, dtype=many, top=200)
        folder = save(tmp_path / "run", frames)
        odd = Image.fromarray(pixels(1, dtype=few, top=200)[0] * 300 if few == "u2" else pixels(1)[0])
        odd.save(folder / "img_1.png")
        info = look(folder)  # the first picture is always looked at
        assert info.scale.dtype == np.dtype(many).name
        (lost,) = (finding for finding in info.findings if finding.kind == "lost frames")
        assert (lost.frame, "uint16" in lost.message, "uint8" in lost.message) == (0, True, True)
        odd.save(folder / "img_8.png")  # one that was not
        with open_source(info.spec) as source:
            for number in (0, 7):
                with pytest.raises(FrameDataError, match=f"img_{number + 1}.png"):
                    source.read(number, number + 1)
            np.testing.assert_array_equal(source.read(8, 20), to_uint8(frames[8:], info.scale))

    def test_half_of_another_type_are_refused(self, tmp_path):
        with pytest.raises(SourceFormatError, match="uint16"):
            look(save(tmp_path / "run", [*pixels(8), *pixels(8, dtype="u2", top=4000)]))

    def test_two_sizes_are_two_runs(self, tmp_path):
        folder = save(tmp_path / "run", [*pixels(6, 8, 8), *pixels(6, 9, 8)])
        with pytest.raises(SourceFormatError, match=r"img_\d+\.png: 8 x \d px.*img_\d+\.png: 8 x \d px"):
            look(folder)

    def test_mostly_empty_files(self, tmp_path):
        folder = save(tmp_path / "run", pixels(3))
        for i in range(4, 10):
            (folder / f"img_{i}.png").touch()
        with pytest.raises(TruncatedSourceError, match="5 more of 9"):
            look(folder)

    @pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.jpg", "a.pgm"])
    @pytest.mark.parametrize(
        "content", [b"", b"junk" * 50, b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"BM123", b"P5 "]
    )
    def test_a_lone_file_that_is_no_picture(self, tmp_path, name, content):
        (tmp_path / name).write_bytes(content)
        save(tmp_path / "run", pixels(2))
        entries = discover([str(tmp_path)])
        assert sorted(type(entry.error).__name__ for entry in entries) == ["NoneType", "SourceFormatError"]

    def test_bombs_are_refused(self, tmp_path):
        save(tmp_path, pixels(1), "a{}.png")
        save(tmp_path, pixels(1), "b{}.bmp")
        png = bytearray((tmp_path / "a1.png").read_bytes())
        struct.pack_into(">II", png, 16, 10**6, 10**6)
        struct.pack_into(">I", png, 29, zlib.crc32(png[12:29]))
        (tmp_path / "a1.png").write_bytes(png)
        bmp = bytearray((tmp_path / "b1.bmp").read_bytes())
        struct.pack_into("<ii", bmp, 18, 10**6, 10**6)
        (tmp_path / "b1.bmp").write_bytes(bmp)
        for entry in discover([str(tmp_path)]):
            assert type(entry.error) is SourceFormatError
            assert "1000000 x 1000000" in str(entry.error)

    def test_pictures_that_pillow_warns_of_are_read(self, tmp_path):
        Image.new("1", (9500, 9500), 1).save(tmp_path / "a.png")  # 90 MP: its "decompression bomb"
        with open_source(look(tmp_path).spec) as source:
            assert source.read(0, 1).min() == 255

    def test_a_picture_that_is_gone(self, tmp_path, frames):
        info = look(save(tmp_path / "run", frames))
        os.remove(tmp_path / "run" / "img_3.png")
        with open_source(info.spec) as source, pytest.raises(SourceNotFoundError):
            source.read(0, 5)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
    def test_a_picture_that_may_not_be_read(self, tmp_path, frames):
        info = look(save(tmp_path / "run", frames))
        os.chmod(tmp_path / "run" / "img_3.png", 0)
        with open_source(info.spec) as source, pytest.raises(SourceReadError):
            source.read(0, 5)


SHAPE = {"raw_shape": (12, 16), "raw_dtype": "<u2"}


class TestRaw:
    def test_without_a_shape_it_is_ignored_or_explained(self, tmp_path):
        (tmp_path / "a.raw").write_bytes(bytes(1000))
        (entry,) = discover([str(tmp_path / "a.raw")])
        assert "--raw-shape" in entry.error.hint
        with pytest.raises(Exception, match="no header") as caught:
            look(tmp_path / "a.raw", raw_shape=(12, 16))
        assert "--raw-dtype" in caught.value.hint

    @pytest.mark.parametrize(
        "said",
        [
            {"raw_dtype": "x9"}, {"raw_dtype": "U4"}, {"raw_shape": (0, 5)}, {"raw_header_bytes": -1},
            {"raw_shape": (10**6, 10**6)},
        ],
    )  # fmt: skip
    def test_what_cannot_be(self, tmp_path, said):
        (tmp_path / "a.raw").write_bytes(bytes(1000))
        (entry,) = discover([str(tmp_path / "a.raw")], look_options(**{**SHAPE, **said}))
        assert "--raw-shape" in entry.error.hint

    def test_a_rest_is_found(self, tmp_path):
        (tmp_path / "a.raw").write_bytes(bytes(2 * 384 + 100))
        info = look(tmp_path / "a.raw", **SHAPE)
        assert (info.frames, kinds(info)) == (2, ["cut frame"])
        (tmp_path / "a.raw").write_bytes(bytes(383))
        with pytest.raises(TruncatedSourceError, match="383 bytes; one frame takes 384"):
            look(tmp_path / "a.raw", **SHAPE)

    def test_short_files_of_a_sequence_are_lost_frames(self, tmp_path):
        frames = pixels(5, dtype="u2", top=4096)
        for i, frame in enumerate(frames):
            (tmp_path / f"a{i}.raw").write_bytes(frame.tobytes())
        os.truncate(tmp_path / "a2.raw", 100)
        info = look(tmp_path, **SHAPE)
        assert [(finding.kind, finding.frame) for finding in info.findings] == [("lost frames", 2)]
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="a2"):
                source.read(0, 5)
            np.testing.assert_array_equal(source.read(3, 5), to_uint8(frames[3:], info.scale))

    def test_a_workers_part_of_one_short_file(self, tmp_path):
        for i in range(12):
            (tmp_path / f"a{i}.raw").write_bytes(bytes(384 if i != 2 else 100))
        spec, start, stop = look(tmp_path, **SHAPE).spec.part(2, 3)
        with open_source(spec) as source, pytest.raises(FrameDataError, match="a2"):
            source.read(start, stop)

    def test_elapsed_seconds_in_names(self, tmp_path):
        for text in ("0.5", "1.5", "10.25"):
            (tmp_path / f"g-{text}-x.bin").write_bytes(bytes(384))
        info = look(tmp_path, **SHAPE)
        assert (np.diff(info.timestamps_ns) / NS).tolist() == [1.0, 8.75]
        assert look(tmp_path, **SHAPE, fps=3.0).timestamps_ns is None

    def test_a_file_that_shrank(self, tmp_path):
        (tmp_path / "a.raw").write_bytes(bytes(384 * 5))
        info = look(tmp_path / "a.raw", **SHAPE)
        os.truncate(tmp_path / "a.raw", 384 * 4)
        with open_source(info.spec) as source, pytest.raises(SourceChangedError):
            source.read(0, 1)


def look_options(**said):
    from ingest.sources import SourceOptions

    return SourceOptions(**said)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared samples are not on this machine")
class TestSamples:
    def test_bmp_sequence(self):
        info = look(SHARED / "bmp_sequence", fps=1.0)
        assert (info.frames, info.height_px, info.width_px) == (12, 1038, 1388)
        assert (info.timestamps_ns, info.start_ns, info.findings) == (None, None, ())
        assert info.scale.full_scale is None
        with open_source(info.spec) as source:
            frame = source.read(11, 12)[0]
        expected = np.fromfile(info.spec.paths[11], np.uint8)[1078:].reshape(1038, 1388)[
            ::-1
        ]  # rows from the bottom up
        np.testing.assert_array_equal(frame, expected)

    def test_tiff_series(self):
        path = SHARED / "tiff" / "rheed_series.tif"
        info = look(path)
        assert (info.frames, info.height_px, info.width_px) == (24, 48, 64)
        assert (info.timestamps_ns, info.start_ns, info.scale.dtype) == (None, None, "uint16")
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 24), to_uint8(tifffile.imread(path), info.scale))
