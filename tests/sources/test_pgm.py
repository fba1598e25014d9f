"""PGM pictures: values as written, whatever their maximum says."""

import numpy as np
import pytest

from ingest.errors import FrameDataError, SourceFormatError
from ingest.sources import discover, open_source
from ingest.sources.pgm import decode_head, decode_pixels
from tests.sources.contract import Made, SourceContract
from tests.sources.files import kinds, look, pixels


def write_p5(path, frame, maximum):
    path.write_bytes(b"P5\n# by a test\n%d %d\n%d\n" % (*frame.shape[::-1], maximum) + frame.tobytes())
    return str(path)


def write_p2(path, frame, maximum):
    rows = "\n".join(" ".join(map(str, row)) for row in frame.tolist())
    path.write_text(f"P2\n{frame.shape[1]} {frame.shape[0]} # size\n{maximum}\n{rows}\n")
    return str(path)


class TestBinary(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        for i, frame in enumerate(frames):
            write_p5(tmp_path / f"a{i}.pgm", frame, 255)
        return Made(look(tmp_path), frames)


class TestBinaryOf12Bit(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype=">u2", top=4096)
        for i, frame in enumerate(frames):
            write_p5(tmp_path / f"a{i}.pgm", frame, 4095)
        info = look(tmp_path)
        assert (info.scale.full_scale, info.scale.full_scale_from) == (4095.0, "file")
        return Made(info, (frames.astype(float) * 255 / 4095 + 1e-9).astype(np.uint8))


class TestAsciiAboveItsMaximum(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20, dtype="u2", top=1000)
        for i, frame in enumerate(frames):
            write_p2(tmp_path / f"a{i}.pgm", frame, 255)
        info = look(tmp_path)
        assert "scale" in kinds(info)
        assert info.scale.full_scale == 1023
        return Made(info, (frames * (255 / 1023) + 1e-9).astype(np.uint8))


class TestScale:
    def test_a_few_bright_ascii_pixels_are_clipped(self, tmp_path):
        frames = pixels(40, 4, 4, top=200)
        for i, frame in enumerate(frames):
            write_p2(tmp_path / f"a{i}.pgm", frame, 255)
        info = look(tmp_path)
        (tmp_path / "a0.pgm").write_text("P2 4 4 255\n" + " 70000" * 16)  # in a picture that was not looked at
        with open_source(info.spec) as source:
            assert source.read(0, 1).min() == 255
            np.testing.assert_array_equal(source.read(1, 40), frames[1:])

    def test_a_low_maximum_is_white(self, tmp_path):
        info = look(write_p5(tmp_path / "a.pgm", np.array([[0, 50, 100]], "u1"), 100))
        with open_source(info.spec) as source:
            assert source.read(0, 1).tolist() == [[[0, 127, 255]]]

    def test_a_maximum_for_each_picture_is_no_scale(self, tmp_path):
        for i, maximum in enumerate((900, 1000, 500)):
            write_p5(tmp_path / f"a{i}.pgm", np.full((2, 2), maximum, ">u2"), maximum)
        info = look(tmp_path)
        assert (info.scale.full_scale, kinds(info)) == (1023.0, ["scale"])

    def test_8_bit_maxima_among_16_bit_ones(self, tmp_path):
        for i, dtype in enumerate((">u2", "u1", ">u2")):
            write_p5(tmp_path / f"a{i}.pgm", np.full((2, 2), 200, dtype), 255 if dtype == "u1" else 1000)
        info = look(tmp_path)
        with open_source(info.spec) as source:
            assert len(np.unique(source.read(0, 3))) == 1


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b"P2 2 2 9 1 2 3 4", [[1, 2], [3, 4]]),
        (b"P2\n#a\n2\n#b\n2\n9\n1 #c\n2\n3 4 5\n", [[1, 2], [3, 4]]),
        (b"P2\r\n2 1\r\n65535\r\n65535 99999999999999999999999\r\n", [[65535, 65535]]),
        (b"P5 2 1 255\n\n\t", [[10, 9]]),
        (b"P5#\n1 1 65535 \x01\x02", [[258]]),
    ],
)
def test_what_can_be_read(text, values):
    head = decode_head(text, "x")
    assert decode_pixels(text, head, "x").tolist() == values


@pytest.mark.parametrize(
    "text",
    [
        b"P2", b"P2 2 2", b"P2 2 2 9", b"P2 2 2 9 1 2 3", b"P2 2 2 9 1 2 3 -4", b"P2 2 2 9 1 2 3 x", b"P5 2 2 9 \0\0\0",
        b"P5 0 2 9 ", b"P5 2 2 0 \0\0\0\0", b"P5 2 2 65536 \0\0\0\0", b"P5 2 2 9", b"P2 99999999999 2 9 1",
    ],
)  # fmt: skip
def test_what_cannot(text):
    with pytest.raises(FrameDataError, match=r"^x: "):
        decode_pixels(text, decode_head(text, "x"), "x")


def test_a_bomb_is_refused(tmp_path):
    for kind in ("P2", "P5"):
        (tmp_path / "a.pgm").write_text(f"{kind} 1000000 1000000 255\n1 1 1")
        (entry,) = discover([str(tmp_path / "a.pgm")])
        assert type(entry.error) is SourceFormatError
        assert "512 MB" in str(entry.error)
