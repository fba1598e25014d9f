"""Virtual datasets: what their parts lack is never shown as a black frame."""

import h5py
import numpy as np
import pytest

from ingest.errors import NoFramesError, SourceFormatError, TruncatedSourceError
from ingest.sources import open_source
from tests.sources.contract import Made, SourceContract
from tests.sources.files import kinds, look, pixels, write


def virtual(path, parts, frames, *, take=False):
    """`parts`: (place, file, dataset, promised frames); `take`: by a selection, which HDF5 2.0 reads as garbage."""
    layout = h5py.VirtualLayout((frames, 12, 16), "u1")
    for place, name, dataset, promised in parts:
        source = h5py.VirtualSource(name, dataset, (promised, 12, 16))
        layout[place : place + promised] = source[:promised] if take else source
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("frames", layout, fillvalue=0)
    return path


class TestPartsAndNested(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(20)
        write(tmp_path / "b1.h5", {"data": {"data": frames[:4], "chunks": (1, 12, 16), "compression": "gzip"}})
        write(tmp_path / "b2.h5", {"x/data": frames[4:9]})
        virtual(tmp_path / "nested.h5", [(0, "b1.h5", "data", 4), (4, "b2.h5", "x/data", 5)], 9)
        write(tmp_path / "c.h5", {"data": frames[9:]})
        parts = [(0, "nested.h5", "frames", 9), (9, str(tmp_path / "c.h5"), "data", 11)]
        return Made(look(virtual(tmp_path / "a.h5", parts, 20)), frames)


def test_interleaved_parts_and_one_of_the_same_file(tmp_path):
    frames = pixels(12)
    write(tmp_path / "odd.h5", {"data": frames[1::2]})
    layout = h5py.VirtualLayout((12, 12, 16), "u1")
    layout[0::2] = h5py.VirtualSource(".", "even", (6, 12, 16))
    layout[1::2] = h5py.VirtualSource("odd.h5", "data", (6, 12, 16))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["even"] = frames[::2]
        file.create_virtual_dataset("frames", layout)
    info = look(tmp_path / "a.h5")
    assert info.findings == ()
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(0, 12), frames)


@pytest.mark.parametrize("take", [False, True])
def test_a_shorter_part_at_the_end_ends_the_run(tmp_path, take):
    write(tmp_path / "b1.h5", {"data": pixels(6)})
    write(tmp_path / "b2.h5", {"data": pixels(2, seed=1)})
    parts = [(0, "b1.h5", "data", 6), (6, "b2.h5", "data", 4)]
    info = look(virtual(tmp_path / "a.h5", parts, 10, take=take))
    assert info.frames == 8
    assert [(found.kind, found.frame) for found in info.findings] == [("unwritten frames", 8)]
    with open_source(info.spec) as source:
        np.testing.assert_array_equal(source.read(6, 8), pixels(2, seed=1))


def test_a_shorter_part_of_a_nested_one_in_between_is_a_finding(tmp_path):
    write(tmp_path / "b1.h5", {"data": pixels(3)})
    write(tmp_path / "b2.h5", {"data": pixels(6)})
    virtual(tmp_path / "nested.h5", [(0, "b1.h5", "data", 4)], 4)
    info = look(virtual(tmp_path / "a.h5", [(0, "nested.h5", "frames", 4), (4, "b2.h5", "data", 6)], 10))
    assert info.frames == 10
    assert [(found.kind, found.frame) for found in info.findings] == [("unwritten frames", 3)]
    assert info.findings[0].message.startswith("1 frames")


def test_what_no_part_shows_is_a_finding(tmp_path):
    write(tmp_path / "b.h5", {"data": pixels(6)})
    info = look(virtual(tmp_path / "a.h5", [(2, "b.h5", "data", 6)], 10))
    assert info.frames == 8
    assert kinds(info) == ["unwritten frames", "unwritten frames"]


def test_mostly_nothing_is_refused(tmp_path):
    write(tmp_path / "b.h5", {"data": pixels(2)})
    with pytest.raises(TruncatedSourceError, match="promises 10 frames, about 2"):
        look(virtual(tmp_path / "a.h5", [(0, "b.h5", "data", 10)], 10))


def test_a_part_that_was_never_written(tmp_path):
    write(tmp_path / "b.h5", {"data": {"shape": (10, 12, 16), "dtype": "u1"}})
    with pytest.raises(TruncatedSourceError):
        look(virtual(tmp_path / "a.h5", [(0, "b.h5", "data", 10)], 10))


def test_a_part_without_the_dataset(tmp_path):
    write(tmp_path / "b.h5", {"other": pixels(6)})
    with pytest.raises(NoFramesError, match=r"b\.h5 has no dataset data"):
        look(virtual(tmp_path / "a.h5", [(0, "b.h5", "data", 6)], 6))


def test_a_part_that_is_no_hdf5_file_is_named(tmp_path):
    (tmp_path / "b.h5").write_bytes(b"text" * 100)
    with pytest.raises(SourceFormatError, match=r"its part .*b\.h5: not an HDF5 file"):
        look(virtual(tmp_path / "a.h5", [(0, "b.h5", "data", 6)], 6))


def test_one_picture_in_each_file(tmp_path):
    frames = pixels(3)
    layout = h5py.VirtualLayout((3, 12, 16), "u1")
    for i, frame in enumerate(frames):
        write(tmp_path / f"p{i}.h5", {"image": frame})
        layout[i] = h5py.VirtualSource(f"p{i}.h5", "image", (12, 16))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_virtual_dataset("frames", layout)
    with open_source(look(tmp_path / "a.h5").spec) as source:
        np.testing.assert_array_equal(source.read(0, 3), frames)


def test_a_virtual_dataset_of_itself(tmp_path):
    with pytest.raises(NoFramesError, match="of itself"):
        look(virtual(tmp_path / "a.h5", [(0, "a.h5", "frames", 6)], 6))
