"""TIFF stacks: ImageJ, OME, tifffile, libtiff; whole, cut and damaged."""

import json
import os
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image

from ingest.errors import (
    FrameDataError,
    MissingFilterError,
    SourceChangedError,
    SourceFormatError,
    TruncatedSourceError,
)
from ingest.frames import to_uint8
from ingest.sources import discover, open_source
from tests.sources.contract import Made, SourceContract
from tests.sources.files import NS, START_S, kinds, look, pixels


def write(path, frames, **how):
    tifffile.imwrite(path, frames, photometric=how.pop("photometric", "minisblack"), **how)
    return str(path)


def write_pages(path, frames, compression=None):
    """Page after page, as libtiff does: each directory after its pixels."""
    first, *rest = [Image.fromarray(frame) for frame in frames]
    first.save(path, "TIFF", save_all=True, append_images=rest, compression=compression)
    return str(path)


class TestTifffile(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        info = look(write(tmp_path / "a.tif", frames))
        assert info.spec.option("form") == "flat"
        return Made(info, frames)


class TestBigEndianOf16Bit(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u2", top=4096)
        info = look(write(tmp_path / "a.tif", frames, byteorder=">", bigtiff=True))
        return Made(info, to_uint8(frames, info.scale))


class TestImageJWithOneDirectory(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u2", top=4096)
        path = write(
            tmp_path / "a.tif", frames, imagej=True, truncate=True, metadata={"axes": "TYX", "finterval": 0.05}
        )
        with tifffile.TiffFile(path) as tiff:
            assert len(tiff.pages) == 1
        info = look(path)
        assert (info.fps_claimed, info.format) == (20.0, "ImageJ TIFF stack")
        return Made(info, to_uint8(frames, info.scale))


class TestPageAfterPage(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, 13, 17)
        info = look(write_pages(tmp_path / "a.tif", frames))
        return Made(info, frames)


class TestDeflated(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u2", top=4096)
        info = look(write(tmp_path / "a.tif", frames, compression="zlib", predictor=False, rowsperstrip=5))
        assert info.spec.option("form") == "pages"
        return Made(info, to_uint8(frames, info.scale))


class TestDeflatedWithPredictor(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u2", top=4096)
        info = look(write(tmp_path / "a.tif", frames, compression="zlib", predictor=True, byteorder=">"))
        return Made(info, to_uint8(frames, info.scale))


class TestLzwWithoutImagecodecs(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        return Made(look(write_pages(tmp_path / "a.tif", frames, "tiff_lzw")), frames)


class TestTiled(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, 40, 50)
        return Made(look(write(tmp_path / "a.tif", frames, tile=(16, 16))), frames)


class TestColour(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        colours = np.random.default_rng(0).integers(0, 256, (20, 12, 16, 3)).astype("u1")
        path = write(tmp_path / "a.tif", colours, photometric="rgb")
        with pytest.raises(SourceFormatError) as caught:
            look(path)
        assert "--colour" in caught.value.hint
        info = look(path, colour="mean")
        return Made(info, ((colours.astype(int).sum(-1) + 1) // 3).astype(np.uint8))


class TestPages:
    def test_thumbnails_are_no_frames(self, tmp_path):
        frames = pixels(6)
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for frame in frames:
                tiff.write(frame, photometric="minisblack", metadata=None)
                tiff.write(frame[::2, ::2], photometric="minisblack", subfiletype=1, metadata=None)
        info = look(tmp_path / "a.tif")
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 6), frames)

    def test_lzw_pages_among_thumbnails_by_place_in_the_chain(self, tmp_path):
        frames = pixels(4)
        write_pages(tmp_path / "a.tif", frames, "tiff_lzw")
        data = bytearray((tmp_path / "a.tif").read_bytes())
        with tifffile.TiffFile(tmp_path / "a.tif") as tiff:  # make the second page a thumbnail: tag 278 becomes 254
            tag = next(tag for tag in tiff.pages[1].tags if tag.code == 278)
        struct.pack_into("<HHII", data, tag.offset, 254, 4, 1, 1)
        (tmp_path / "a.tif").write_bytes(data)
        info = look(tmp_path / "a.tif")
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), frames[[0, 2, 3]])

    def test_where_0_is_white(self, tmp_path):
        frames = pixels(3)
        info = look(write(tmp_path / "a.tif", frames, photometric="miniswhite"))
        assert kinds(info) == ["inverted"]
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), 255 - frames)

    def test_grey_stored_as_colour(self, tmp_path):
        frames = pixels(3)
        info = look(write(tmp_path / "a.tif", np.repeat(frames[..., None], 3, -1), photometric="rgb"))
        assert kinds(info) == ["colour"]
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), frames)

    def test_planes_of_colour(self, tmp_path):
        planes = np.random.default_rng(0).integers(0, 256, (4, 3, 12, 16)).astype("u1")
        info = look(write(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate"), colour="green")
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 4), planes[:, 1])

    def test_floats(self, tmp_path):
        frames = pixels(3).astype("f4") / 255
        info = look(write(tmp_path / "a.tif", frames))
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 3), to_uint8(frames, info.scale))

    def test_one_page(self, tmp_path):
        info = look(write(tmp_path / "a.tif", pixels(1)[0]))
        assert (info.frames, info.format) == (1, "TIFF")

    def test_bit_depth_in_the_description(self, tmp_path):
        said = {"bit_depth_sensor": 12, "bit_depth_saved": 16, "alignment": "MsbAligned"}
        info = look(write(tmp_path / "a.tif", pixels(3, dtype="u2", top=4096) * 16, metadata=said))
        assert (info.scale.full_scale, info.scale.full_scale_from) == (65520.0, "file")

    def test_a_missing_codec_is_named(self, tmp_path):
        path = write(tmp_path / "a.tif", pixels(3), compression="zlib")
        data = bytearray((tmp_path / "a.tif").read_bytes())
        with tifffile.TiffFile(path) as tiff:
            tags = [page.tags[259] for page in tiff.pages]
        for tag in tags:
            struct.pack_into("<H", data, tag.valueoffset, 34712)
        (tmp_path / "a.tif").write_bytes(data)
        with pytest.raises(MissingFilterError, match="JPEG 2000") as caught:
            look(path)
        assert "rheed-ingest[codecs]" in caught.value.hint


class TestTimes:
    def test_a_time_for_each_page(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for i, frame in enumerate(pixels(5)):
                said = {"timestamp": f"2025-12-22T15:39:{37 + i}.25+09:00", "exposure_ms": 10}
                tiff.write(frame, photometric="minisblack", metadata=said)
        info = look(tmp_path / "a.tif")
        assert (info.frames, info.start_from) == (5, "frame stamps")
        assert np.diff(info.timestamps_ns).tolist() == [NS] * 4
        assert info.start_ns % (60 * NS) == 37_250_000_000

    @pytest.mark.parametrize(("name", "unit"), [("timestamps", 1), ("timestamps_ms", 1000)])
    def test_all_in_one_description(self, tmp_path, name, unit):
        times = [(START_S + 0.25 * i) * unit for i in range(5)]
        info = look(write(tmp_path / "a.tif", pixels(5), metadata={name: times}))
        assert (info.start_ns, info.start_from) == (START_S * NS, "frame stamps")
        assert np.diff(info.timestamps_ns).tolist() == [NS // 4] * 4

    def test_the_users_description_and_tifffiles_own(self, tmp_path):
        said = json.dumps({"created_at": "2025-12-22T15:39:37.25+09:00", "target_interval_ms": 100})
        path = write(tmp_path / "a.tif", pixels(20), description=said, truncate=True)
        assert look(path).start_ns == 1_766_385_577_250_000_000
        os.truncate(path, os.path.getsize(path) * 3 // 4)
        info = look(path)
        assert info.fps_claimed == 10
        assert "of the 20 frames" in " ".join(finding.message for finding in info.findings)

    def test_rate_and_start_in_the_description(self, tmp_path):
        said = {"fps": 12.5, "start_time": "2023-10-03T16:17:13Z"}
        info = look(write(tmp_path / "a.tif", pixels(5), metadata=said))
        assert (info.fps_claimed, info.start_from, info.timestamps_ns) == (12.5, "file attributes", None)

    def test_imagej_labels(self, tmp_path):
        labels = [f"img_2025-12-22_15-39-{37 + i}.500.tif" for i in range(5)]
        path = write(tmp_path / "a.tif", pixels(5), imagej=True, metadata={"axes": "TYX", "Labels": labels})
        info = look(path, timezone="Europe/Berlin")
        assert np.diff(info.timestamps_ns).tolist() == [NS] * 4
        assert info.start_ns % (60 * NS) == 37_500_000_000

    def test_imagej_interval_in_ms(self, tmp_path):
        metadata = {"finterval": 40.0, "tunit": "ms", "fps": 7.0}
        info = look(write(tmp_path / "a.tif", pixels(5), imagej=True, metadata=metadata))
        assert (info.frames, info.fps_claimed) == (5, 25.0)
        assert "5 ImageJ channels" in info.findings[0].message  # tifffile's name for an axis without one

    def test_ome(self, tmp_path):
        planes = {"DeltaT": [0.0, 40.0, 85.0, 120.0, 160.0], "DeltaTUnit": ["ms"] * 5}
        metadata = {"axes": "TYX", "Plane": planes, "TimeIncrement": 40.0, "TimeIncrementUnit": "ms"}
        path = write(tmp_path / "a.ome.tif", pixels(5), ome=True, metadata=metadata)
        info = look(path, start_ns=START_S * NS)
        assert (info.format, info.fps_claimed) == ("OME-TIFF stack", 25.0)
        assert np.diff(info.timestamps_ns).tolist() == [40_000_000, 45_000_000, 35_000_000, 40_000_000]

    def test_date_time_needs_a_zone(self, tmp_path):
        path = write(tmp_path / "a.tif", pixels(5), datetime="2023:10:03 16:17:13")
        info = look(path)
        assert (info.start_ns, kinds(info)) == (None, ["start time"])
        info = look(path, timezone="Europe/Copenhagen")
        assert (info.start_ns, info.start_from) == (1_696_342_633 * NS, "file attributes")
        assert info.timestamps_ns is None

    def test_date_times_of_slow_pages(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for i, frame in enumerate(pixels(5)):
                tiff.write(frame, photometric="minisblack", metadata=None, datetime=f"2023:10:03 16:17:{13 + 2 * i}")
        info = look(tmp_path / "a.tif", timezone="Europe/Copenhagen")
        assert (info.start_ns, info.start_from) == (1_696_342_633 * NS, "frame stamps")

    def test_date_times_above_1_fps_are_no_stamps(self, tmp_path):
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for i, frame in enumerate(pixels(6)):
                tiff.write(frame, photometric="minisblack", metadata=None, datetime=f"2023:10:03 16:17:{13 + i // 2}")
        info = look(tmp_path / "a.tif", timezone="Europe/Copenhagen")
        assert (info.timestamps_ns, info.start_from) == (None, "file attributes")


class TestAxes:
    @pytest.mark.parametrize(
        ("shape", "how"),
        [
            ((3, 2, 12, 16), {"ome": True, "metadata": {"axes": "TZYX"}}),
            ((3, 2, 12, 16), {"ome": True, "metadata": {"axes": "TCYX"}}),
            ((4, 12, 16), {"ome": True, "metadata": {"axes": "ZYX"}}),
            ((3, 2, 12, 16), {"imagej": True, "metadata": {"axes": "TZYX"}}),
            ((3, 12, 16), {"imagej": True, "metadata": {"axes": "CYX"}}),
            ((3, 2, 12, 16), {}),
        ],
    )
    def test_more_than_time_is_refused(self, tmp_path, shape, how):
        with pytest.raises(SourceFormatError) as caught:
            look(write(tmp_path / "a.tif", np.zeros(shape, "u1"), **how))
        assert "TYX" in caught.value.hint

    def test_pages_out_of_order_of_time(self, tmp_path):
        path = write(tmp_path / "a.tif", pixels(3), ome=True, metadata={"axes": "TYX"})
        xml = tifffile.tiffcomment(path)
        data = '<TiffData IFD="0" FirstT="2" PlaneCount="1"/>'
        start, end = xml.index("<TiffData"), xml.index("/>", xml.index("<TiffData")) + 2
        tifffile.tiffcomment(path, xml[:start] + data + xml[end:])
        with pytest.raises(SourceFormatError, match="order of time"):
            look(path)

    def test_entities_are_not_expanded(self, tmp_path):
        xml = '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "b">]><OME>&a;</OME>'
        info = look(write(tmp_path / "a.tif", pixels(3), description=xml, metadata=None))
        assert (info.frames, kinds(info)) == (3, ["description"])


class TestDamage:
    FRAME = 12 * 16

    def test_cut_imagej_stack(self, tmp_path):
        frames = pixels(20)
        path = write(tmp_path / "a.tif", frames, imagej=True, metadata={"axes": "ZYX"})
        with tifffile.TiffFile(path) as tiff:
            offset = tiff.pages[0].dataoffsets[0]
        os.truncate(path, offset + 14 * self.FRAME + 100)
        info = look(path)
        assert (info.frames, kinds(info)) == (14, ["cut frames", "cut file"])
        assert "14 of the 20" in info.findings[0].message
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 14), frames[:14])
        os.truncate(path, offset + 9 * self.FRAME + 100)
        with pytest.raises(TruncatedSourceError, match="9 of 20"):
            look(path)
        os.truncate(path, offset + 10)
        with pytest.raises(TruncatedSourceError, match="0 of 20"):
            look(path)

    def test_cut_ome_stack(self, tmp_path):
        frames = pixels(50, 40, 30, dtype="u2", top=4096)
        said = {"axes": "TYX", "TimeIncrement": 0.1, "TimeIncrementUnit": "s"}
        path = write(tmp_path / "a.ome.tif", frames, ome=True, metadata=said)
        os.truncate(path, os.path.getsize(path) * 3 // 5)  # its OME-XML stands at the end
        info = look(path)
        there = (os.path.getsize(path) - info.spec.option("offset")) // (40 * 30 * 2)
        assert (info.frames, kinds(info)[:3]) == (there, ["cut file", "cut frames", "cut file"])
        assert 25 < there < 40
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, there), to_uint8(frames[:there], info.scale))

    def test_cut_in_the_list_of_pages_only(self, tmp_path):
        frames = pixels(20)
        path = write(tmp_path / "a.tif", frames)
        os.truncate(path, os.path.getsize(path) - 1000)
        info = look(path)
        assert (info.frames, kinds(info)) == (20, ["cut file"])
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 20), frames)

    def test_cut_deflated_stack(self, tmp_path):
        path = write(tmp_path / "a.tif", pixels(20), compression="zlib")
        os.truncate(path, os.path.getsize(path) // 2)
        with pytest.raises(TruncatedSourceError, match="9 of 20"):
            look(path)

    def test_cut_page_after_page(self, tmp_path):
        frames = pixels(20)
        path = write_pages(tmp_path / "a.tif", frames)
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages[12]
        os.truncate(path, max(page.dataoffsets[0], page.offset) + 50)
        info = look(path)
        assert info.frames == 12
        assert "cut f" in kinds(info)[0]
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, 12), frames[:12])

    def test_a_damaged_page_is_lost_alone(self, tmp_path):
        frames = pixels(20)
        path = write(tmp_path / "a.tif", frames, compression="zlib")
        with tifffile.TiffFile(path) as tiff:
            offset = tiff.pages[7].dataoffsets[0]
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(b"\xff" * 60)
        info = look(path)
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="frame 7"):
                source.read(0, 20)
            np.testing.assert_array_equal(source.read(8, 20), frames[8:])
            with pytest.raises(FrameDataError):
                source.read(7, 8)
            np.testing.assert_array_equal(source.read(6, 7), frames[6:7])

    def test_damaged_lzw_page_is_lost_alone(self, tmp_path):
        frames = pixels(20)
        path = write_pages(tmp_path / "a.tif", frames, "tiff_lzw")
        with tifffile.TiffFile(path) as tiff:
            offset, count = tiff.pages[7].dataoffsets[0], tiff.pages[7].databytecounts[0]
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(b"\xff" * count)
        info = look(path)
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="frame 7"):
                source.read(7, 8)
            np.testing.assert_array_equal(source.read(8, 20), frames[8:])
            np.testing.assert_array_equal(source.read(0, 7), frames[:7])

    def test_an_odd_page_is_lost_and_many_are_too_many(self, tmp_path):
        frames = pixels(20)
        with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
            for i, frame in enumerate(frames):
                tiff.write(frame[:8] if i == 5 else frame, photometric="minisblack", metadata=None)
        info = look(tmp_path / "a.tif")
        assert [(finding.kind, finding.frame) for finding in info.findings] == [("lost frames", 5)]
        with open_source(info.spec) as source:
            with pytest.raises(FrameDataError, match="16 x 8 px"):
                source.read(4, 7)
            np.testing.assert_array_equal(source.read(6, 20), frames[6:])
        with tifffile.TiffWriter(tmp_path / "b.tif") as tiff:
            for i, frame in enumerate(frames):
                tiff.write(frame[:8] if i % 2 else frame, photometric="minisblack", metadata=None)
        with pytest.raises(SourceFormatError, match="page 1 is 16 x 8 px, the first one 16 x 12 px"):
            look(tmp_path / "b.tif")

    def test_a_chain_that_leads_back(self, tmp_path):
        path = write_pages(tmp_path / "a.tif", pixels(4))
        with tifffile.TiffFile(path) as tiff:
            first, last = tiff.pages[0].offset, tiff.pages[3]
        with open(path, "r+b") as file:
            file.seek(last.offset + 2 + 12 * len(last.tags))
            file.write(struct.pack("<I", first))
        info = look(path)
        assert (info.frames, kinds(info)) == (4, ["cut file"])

    @pytest.mark.parametrize("content", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"II*\0\x08\0\0\0\xff\xff", b"text"])
    def test_what_is_no_tiff(self, tmp_path, content):
        (tmp_path / "a.tif").write_bytes(content)
        (entry,) = discover([str(tmp_path / "a.tif")])
        assert isinstance(entry.error, SourceFormatError)

    def test_bombs_are_refused(self, tmp_path):
        path = write(tmp_path / "a.tif", pixels(2))
        with tifffile.TiffFile(path) as tiff:
            tags = [tiff.pages[0].tags[code] for code in (256, 257)]
        with open(path, "r+b") as file:
            for tag in tags:
                file.seek(tag.valueoffset)
                file.write(struct.pack("<I", 10**6))
        with pytest.raises(SourceFormatError, match="1000000 x 1000000"):
            look(path)
        path = write(tmp_path / "b.tif", pixels(2), description="ImageJ=1.5\nimages=1000000000000\n", metadata=None)
        with pytest.raises(TruncatedSourceError, match="of 1000000000000 frames"):
            look(path)
        path = write(tmp_path / "c.tif", pixels(2), description=json.dumps({"shape": [10**12, 12, 16]}), metadata=None)
        with pytest.raises(TruncatedSourceError):
            look(path)

    def test_a_stack_that_shrank(self, tmp_path):
        for name, how in (("a", {}), ("b", {"compression": "zlib"})):
            path = write(tmp_path / f"{name}.tif", pixels(20), **how)
            info = look(path)
            os.truncate(path, 900)
            with open_source(info.spec) as source, pytest.raises(SourceChangedError):
                source.read(0, 2)

    def test_a_stack_written_anew_is_read_anew(self, tmp_path):
        path = write(tmp_path / "a.tif", pixels(20), compression="zlib")
        info = look(path)
        with open_source(info.spec) as source:
            source.read(0, 2)
        write(tmp_path / "a.tif", pixels(20, seed=5), compression="zlib")
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(3, 20), pixels(20, seed=5)[3:])
