"""Which grey a movie's frames become: luma as it is, range, channels, wide pixels; and what is said of colour."""

import numpy as np
import pytest

from ingest.errors import SettingsError
from ingest.frames import FrameScale, to_uint8
from ingest.sources import open_source
from ingest.sources.video_pixels import plan_pixels
from tests.sources.files import kinds
from tests.sources.video_files import look, pictures, plain_decode, write_movie

JET = [(0, 0, 0.5), (0, 0, 1), (0, 1, 1), (1, 1, 0), (1, 0, 0), (0.5, 0, 0)]
VIRIDIS = [
    (0.267, 0.005, 0.329),
    (0.229, 0.322, 0.546),
    (0.128, 0.567, 0.551),
    (0.369, 0.789, 0.383),
    (0.993, 0.906, 0.144),
]
INFERNO = [(0, 0, 0.014), (0.342, 0.062, 0.429), (0.736, 0.215, 0.33), (0.978, 0.557, 0.035), (0.988, 0.998, 0.645)]
GREEN_PHOSPHOR = [(0, 0, 0), (0.1, 0.9, 0.2)]
GREY = [(0, 0, 0), (1, 1, 1)]


def read_all(info) -> np.ndarray:
    with open_source(info.spec) as source:
        return source.read(0, info.frames)


def message(info, kind: str) -> str:
    (found,) = [finding.message for finding in info.findings if finding.kind == kind]
    return found


def spots() -> np.ndarray:
    """A diffraction pattern: (frame, y, x) of 0 to 1, mostly dark."""
    y, x = np.mgrid[:240, :320]
    spot = np.exp(-((x - 160) ** 2 + (y - 100) ** 2) / 300) + 0.6 * np.exp(
        -((x - 90) ** 2 / 100 + (y - 120) ** 2 / 1500)
    )
    base = 0.15 * np.exp(-(((x - 160) / 150) ** 2)) + np.random.default_rng(0).normal(0.05, 0.01, (4, 240, 320))
    return np.clip(base + 0.8 * spot, 0, 1)


def through(stops, values) -> np.ndarray:
    """Colours of intensities, (frame, y, x, 3) uint8."""
    table = np.array(stops)
    at = np.linspace(0, 1, len(stops))
    return np.stack([np.interp(values, at, table[:, k]) for k in range(3)], -1).__mul__(255).astype(np.uint8)


class TestRange:
    def test_luma_of_a_limited_range_stays_as_it_is(self, tmp_path):
        values = pictures(6, low=16, high=235)
        info = look(write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="yuv420p"))
        np.testing.assert_array_equal(read_all(info), values)
        assert "limited range" in message(info, "colour range")
        assert dict(info.spec.options)["colour_range"] == "limited"

    def test_it_is_expanded_when_asked(self, tmp_path):
        values = pictures(6, low=16, high=235)
        info = look(write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="yuv420p"), expand_range=True)
        expected = np.rint((values.astype(float) - 16) * 255 / 219)
        np.testing.assert_array_equal(read_all(info), expected)
        assert "brought to 0 to 255" in message(info, "colour range")
        assert dict(info.spec.options)["expand_range"] is True

    @pytest.mark.parametrize("extremes", [(3, 200), (20, 250)])
    def test_luma_outside_says_full_range(self, tmp_path, extremes):
        values = pictures(6, low=extremes[0], high=extremes[1])
        path = write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="yuv420p", gop=1)
        np.testing.assert_array_equal(read_all(look(path)), values)
        asked = look(path, expand_range=True)
        np.testing.assert_array_equal(read_all(asked), values)
        assert "%" in message(asked, "colour range")
        assert "nothing to expand" in message(asked, "colour range")

    @pytest.mark.parametrize(("percent", "full"), [(0.04, False), (0.4, False), (0.6, True), (3.6, True)])
    def test_what_overshoots_here_and_there_does_not(self, tmp_path, percent, full):
        values = pictures(6, 100, 200)
        values.reshape(6, -1)[:, : round(20_000 * percent / 100)] = 250
        path = write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="yuv420p", gop=1)
        info = look(path)
        np.testing.assert_array_equal(read_all(info), values)
        assert dict(info.spec.options)["colour_range"] == ("full" if full else "limited")
        assert f"{percent:.2f}%" in message(info, "colour range")
        if not full:
            expected = np.clip(np.rint((values.astype(float) - 16) * 255 / 219), 0, 255)
            np.testing.assert_array_equal(read_all(look(path, expand_range=True)), expected)

    def test_a_flag_of_limited_range_is_believed(self, tmp_path):
        values = pictures(6, low=3, high=250)
        path = write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="yuv420p", colour_range=1)
        info = look(path, expand_range=True)
        assert "flagged as limited" in message(info, "colour range")
        expected = np.clip(np.rint((values.astype(float) - 16) * 255 / 219), 0, 255)  # clipped, not wrapped
        np.testing.assert_array_equal(read_all(info), expected)

    @pytest.mark.parametrize(("pix_fmt", "codec", "file"), [("yuvj422p", "mjpeg", "a.avi"), ("gray", "ffv1", "a.mkv")])
    def test_full_range_is_never_expanded(self, tmp_path, pix_fmt, codec, file):
        path = write_movie(tmp_path / file, 6, codec, pix_fmt=pix_fmt)
        info = look(path, expand_range=True)
        np.testing.assert_array_equal(read_all(info), plain_decode(path))
        assert "nothing to expand" in message(info, "colour range")


class TestFormats:
    @pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p", "yuv444p", "yuva420p", "gray", "yuv410p"])
    def test_the_first_plane_is_copied_whatever_its_padding(self, tmp_path, pix_fmt):
        values = pictures(4, 30, 50)
        info = look(write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt=pix_fmt))
        np.testing.assert_array_equal(read_all(info), values)

    @pytest.mark.parametrize("pix_fmt", ["nv12", "yuyv422", "uyvy422"])
    def test_luma_between_chroma(self, tmp_path, pix_fmt):
        values = pictures(4, 30, 50)
        info = look(write_movie(tmp_path / "a.avi", values, "rawvideo", pix_fmt=pix_fmt))
        np.testing.assert_array_equal(read_all(info), values)

    @pytest.mark.parametrize(
        ("pix_fmt", "bits"), [("gray10le", 10), ("gray12le", 12), ("gray16le", 16), ("yuv420p10le", 10)]
    )
    def test_wide_pixels_are_scaled_by_their_bits(self, tmp_path, pix_fmt, bits):
        values = np.random.default_rng(0).integers(0, 2**bits, (3, 20, 32)).astype("<u2")
        info = look(write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt=pix_fmt, dtype="<u2"))
        assert info.scale == FrameScale("uint16", 2.0**bits - 1, "file")
        np.testing.assert_array_equal(read_all(info), to_uint8(values, info.scale))

    def test_the_user_s_full_scale(self, tmp_path):
        values = np.random.default_rng(0).integers(0, 4097, (3, 20, 32)).astype("<u2")
        path = write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="gray16le", dtype="<u2")
        info = look(path, full_scale=4096)
        assert info.scale == FrameScale("uint16", 4096.0, "user")
        np.testing.assert_array_equal(read_all(info), to_uint8(values, info.scale))
        with pytest.raises(SettingsError, match="expand_range"):
            look(path, full_scale=4096, expand_range=True)

    def test_grey_that_is_stored_as_rgb_is_exact(self, tmp_path):
        values = pictures(4, low=0, high=255)
        info = look(
            write_movie(tmp_path / "a.avi", np.repeat(values[..., np.newaxis], 3, 3), "rawvideo", pix_fmt="bgr24")
        )
        np.testing.assert_array_equal(read_all(info), values)
        assert not {"colour", "colormap"} & set(kinds(info))

    @pytest.mark.parametrize("colour", ["red", "green", "blue", "mean", "luma", None])
    def test_channels(self, tmp_path, colour):
        values = np.random.default_rng(0).integers(0, 256, (3, 20, 32, 3), np.uint8)
        info = look(write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="bgr0"), colour=colour)
        wide = values.astype(int)
        if colour == "mean":
            expected = wide.sum(-1) // 3
        elif colour in ("luma", None):
            expected = np.rint(wide @ [0.299, 0.587, 0.114])
        else:
            expected = wide[..., ("red", "green", "blue").index(colour)]
        assert np.abs(read_all(info) - expected).max() <= (1 if colour in ("luma", None) else 0)
        assert dict(info.spec.options).get("colour") == (None if colour == "luma" else colour)

    def test_a_channel_of_yuv_has_full_range(self, tmp_path):
        rgb = np.zeros((2, 32, 32, 3), np.uint8)
        rgb[:, :16] = (255, 255, 255)
        rgb[:, 16:, :16] = (255, 0, 0)
        info = look(write_movie(tmp_path / "a.mkv", rgb, "ffv1", pix_fmt="yuv444p"), colour="red", expand_range=True)
        read = read_all(info)
        assert read[:, :16].min() >= 254
        assert read[:, 16:, :16].min() >= 252
        assert read[:, 16:, 16:].max() <= 1
        assert "RGB" in message(info, "colour range")

    def test_a_channel_of_grey_is_grey(self, tmp_path):
        values = pictures(3)
        info = look(write_movie(tmp_path / "a.mkv", values, "ffv1", pix_fmt="gray"), colour="red")
        np.testing.assert_array_equal(read_all(info), values)

    @pytest.mark.parametrize("pix_fmt", ["p010le", "rgb48le", "ya16le", "grayf32le", "pal8", "monow", "bayer_rggb8"])
    def test_other_formats_are_converted(self, pix_fmt):
        plan = plan_pixels(pix_fmt, None)
        assert plan.convert == ("gray16le" if pix_fmt in ("p010le", "rgb48le", "ya16le", "grayf32le") else "gray")


class TestColour:
    @pytest.mark.parametrize("stops", [JET, VIRIDIS, INFERNO], ids=["jet", "viridis", "inferno"])
    @pytest.mark.parametrize(("file", "codec", "pix_fmt"), [("a.avi", "mjpeg", "yuvj420p"), ("a.mkv", "ffv1", "bgr0")])
    def test_a_colormap_is_loud(self, tmp_path, stops, file, codec, pix_fmt):
        info = look(write_movie(tmp_path / file, through(stops, spots()), codec, pix_fmt=pix_fmt))
        said = message(info, "colormap")
        assert "cannot be recovered" in said
        assert "raw recording" in said

    def test_a_phosphor_is_coloured_only(self, tmp_path):
        path = write_movie(tmp_path / "a.avi", through(GREEN_PHOSPHOR, spots()), "mjpeg", pix_fmt="yuvj420p")
        assert "not intensity" in message(look(path), "colour")
        assert "green channel" in message(look(path, colour="green"), "colour")
        assert "colormap" not in kinds(look(path))

    @pytest.mark.parametrize(("codec", "pix_fmt"), [("mjpeg", "yuvj420p"), ("mpeg4", "yuv420p")])
    def test_grey_is_not(self, tmp_path, codec, pix_fmt):
        info = look(write_movie(tmp_path / "a.avi", through(GREY, spots()), codec, pix_fmt=pix_fmt))
        assert not {"colour", "colormap"} & set(kinds(info))


def test_interlaced_is_said(tmp_path):
    interlaced = {"flags": "+ilme+ildct"}
    info = look(write_movie(tmp_path / "a.mkv", 6, "mpeg2video", fps=25, **interlaced))
    assert "interlaced" in kinds(info)
    assert "interlaced" not in kinds(look(write_movie(tmp_path / "b.mkv", 6, "mpeg2video", fps=25)))
