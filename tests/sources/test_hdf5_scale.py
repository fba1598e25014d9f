"""One recorded scale per run."""

import numpy as np
import pytest

from ingest.errors import FrameDataError, SettingsError
from ingest.sources import open_source
from tests.sources.files import kinds, look, pixels, write


@pytest.mark.parametrize(
    ("frames", "attrs", "options", "full_scale", "origin"),
    [
        (pixels(5), {}, {}, None, "8 bit"),
        (pixels(5), {}, {"full_scale": 200}, 200.0, "user"),
        (pixels(5, dtype="u2", top=4000), {"@bits": 12}, {}, 4095.0, "file"),
        (pixels(5, dtype="u2", top=4000), {"frames@bit_depth_readout": 14}, {}, 16383.0, "file"),
        (pixels(5, dtype="u2", top=4000), {"metadata@saturation_value": "5000"}, {}, 5000.0, "file"),
        (pixels(5, dtype="u2", top=4000), {"@bits": 12}, {"full_scale": 9999.0}, 9999.0, "user"),
        (pixels(5, dtype="u2", top=4000), {}, {}, 4095.0, "sampled maximum"),
        (pixels(5, dtype="u2", top=1), {}, {}, 255.0, "sampled maximum"),
        (pixels(5, dtype="f4", top=2), {}, {}, 1.0, "sampled maximum"),
        (pixels(5, dtype="f8", top=900), {}, {}, 1023.0, "sampled maximum"),
        (pixels(5, dtype="?", top=2), {}, {}, 1.0, "file"),
        (pixels(5, dtype="i2", top=900), {}, {}, 1023.0, "sampled maximum"),
    ],
)
def test_who_says_the_scale(tmp_path, frames, attrs, options, full_scale, origin):
    info = look(write(tmp_path / "a.h5", {"frames": frames}, attrs), **options)
    assert (info.scale.full_scale, info.scale.full_scale_from) == (full_scale, origin)
    assert info.spec.scale == info.scale
    assert kinds(info) == []


def test_nexus_field_beside_the_frames(tmp_path):
    path = write(tmp_path / "a.h5", {"entry/d/data": pixels(4, dtype="u2", top=99), "entry/d/saturation_value": 1000})
    assert look(path).scale.full_scale == 1000.0


def test_brighter_than_the_file_says_is_a_finding(tmp_path):
    frames = pixels(5, dtype="u2", top=60000)  # 12 bits, but in the upper ones
    assert kinds(look(write(tmp_path / "a.h5", {"frames": frames}, {"@bits": 12}))) == ["scale"]


def test_a_bad_full_scale_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="full scale"):
        look(write(tmp_path / "a.h5", {"frames": pixels(5, dtype="u2")}), full_scale=-1.0)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_named_by_its_frame_in_the_run(tmp_path, bad):
    frames = pixels(40, dtype="f4", top=100)
    frames[33, 2, 2] = bad
    info = look(write(tmp_path / "a.h5", {"frames": frames}))
    with open_source(info.spec) as source:
        source.read(0, 33)
        with pytest.raises(FrameDataError, match="frame 33 "):
            source.read(30, 40)
