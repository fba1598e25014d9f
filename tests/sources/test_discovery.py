"""Runs in what a user names."""

import os
import time

import pytest

from ingest.errors import NoFramesError, SettingsError, SourceFormatError, SourceNotFoundError, UnclosedSourceError
from ingest.sources import SourceOptions, SourceSpec, discover, inspect
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from tests.sources.files import pixels, write


def names(entries):
    return [os.path.basename(entry.path) for entry in entries]


def test_folders_are_searched_in_natural_order(tmp_path):
    for name in ("run10.h5", "run2.h5", "below/run3.hdf5", "below/noext"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, {"frames": pixels(2)})
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".run1.h5.swp").write_text("x")
    (tmp_path / "lake.zarr").mkdir()
    (tmp_path / "lake.zarr" / "a.h5").write_text("x")
    (tmp_path / "bad.h5").write_text("not HDF5")
    os.mkfifo(tmp_path / "pipe")
    entries = discover([str(tmp_path)])
    assert names(entries) == ["bad.h5", "noext", "run3.hdf5", "lake.zarr", "run2.h5", "run10.h5"]
    failed = {entry.path.rpartition("/")[2]: type(entry.error) for entry in entries if entry.error}
    assert failed == {"bad.h5": SourceFormatError, "lake.zarr": UnclosedSourceError}
    assert entries[0].ignored_files == 3
    assert all(os.path.isabs(entry.path) for entry in entries)


def test_globs(tmp_path):
    for i in (1, 2, 10):
        write(tmp_path / f"g{i}.h5", {"frames": pixels(2)})
    (tmp_path / "g3.txt").write_text("x")
    assert names(discover([str(tmp_path / "g*")])) == ["g1.h5", "g2.h5", "g10.h5"]
    assert names(discover([str(tmp_path / "**" / "*.h5")])) == ["g1.h5", "g2.h5", "g10.h5"]
    (entry,) = discover([str(tmp_path / "x*.h5")])
    assert isinstance(entry.error, SourceNotFoundError)


def test_a_name_with_brackets_is_a_name(tmp_path):
    write(tmp_path / "STO[100].h5", {"frames": pixels(2)})
    assert discover([str(tmp_path / "STO[100].h5")])[0].spec is not None


def test_what_fails_does_not_stop_the_rest(tmp_path):
    good = write(tmp_path / "good.h5", {"frames": pixels(2)})
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "empty").mkdir()
    sources = ["/nowhere", str(tmp_path / "a.txt"), "s3://bucket/a.avi", str(tmp_path / "empty"), good]
    entries = discover(sources)
    expected = [SourceNotFoundError, SourceFormatError, SettingsError, NoFramesError, type(None)]
    assert [type(entry.error) for entry in entries] == expected
    assert [entry.spec is None for entry in entries] == [True] * 4 + [False]


def test_what_holds_nothing_is_said_when_it_is_all_that_was_named(tmp_path):
    (tmp_path / "notes.csv").write_text("who,what\nme,grew\nyou,looked\n")
    write(tmp_path / "a.h5", {"frames": pixels(2)})
    assert names(discover([str(tmp_path)])) == ["a.h5"]
    (entry,) = discover([str(tmp_path / "notes.csv")])
    assert isinstance(entry.error, NoFramesError)
    assert "neither frames nor readings" in str(entry.error)


def test_an_img_of_another_instrument_is_said_to_be_one(tmp_path):
    (tmp_path / "a.img").write_bytes(b"OD SAPPHIRE  4.0\r\nNX=1024 NY=1024\r\n" + bytes(6000))
    (entry,) = discover([str(tmp_path / "a.img")])
    assert "Rigaku" in str(entry.error)


def test_a_file_named_twice_is_one_run(tmp_path):
    path = write(tmp_path / "a.h5", {"frames": pixels(2)})
    os.symlink(path, tmp_path / "b.h5")
    assert len(discover([str(tmp_path), path, f"file://{path}"])) == 1


def test_relative_paths_and_home(tmp_path, monkeypatch):
    path = write(tmp_path / "a.h5", {"frames": pixels(2)})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert discover(["a.h5"])[0].path == discover(["~/a.h5"])[0].path == path


class TestDatasets:
    def test_alike_are_runs_of_their_own(self, tmp_path):
        stacks = {f"growth_{i}": pixels(2) for i in (1, 2, 10)}
        path = write(tmp_path / "a.h5", {**stacks, "dark": pixels(1)})
        specs = [entry.spec for entry in discover([path])]
        assert specs == [SourceSpec("hdf5", (path,), name) for name in ("/growth_1", "/growth_2", "/growth_10")]

    def test_unlike_ones_are_not(self, tmp_path):
        path = write(tmp_path / "a.h5", {"raw": pixels(5), "processed": pixels(2), "roi/frames2": pixels(9, 8, 8)})
        assert [entry.spec.dataset for entry in discover([path])] == ["/raw"]

    def test_the_user_chooses(self, tmp_path):
        path = write(tmp_path / "a.h5", {"growth_1": pixels(2), "growth_2": pixels(2), "deep/er": pixels(3)})
        for dataset in ("growth_2", "/growth_2", "deep/er"):
            (entry,) = discover([path], SourceOptions(dataset=dataset))
            assert entry.spec.dataset == "/" + dataset.strip("/")
        assert isinstance(discover([path], SourceOptions(dataset="x"))[0].error, NoFramesError)

    def test_a_hard_link_may_be_chosen(self, tmp_path):
        write_hdf5(tmp_path / "a.h5", GrowthRun(3, 16, 16))
        options = SourceOptions(dataset="/entry/data/data")
        info = inspect(discover([str(tmp_path / "a.h5")], options)[0].spec, options)
        assert (info.spec.dataset, info.name, info.start_from) == ("/entry/data/data", "a", "frame stamps")


class TestChunkFiles:
    def test_one_run_in_order_of_start(self, tmp_path):
        paths = write_hdf5(tmp_path / "a", GrowthRun(120, 16, 16), "chunk_files", frames_per_file=10)
        write_hdf5(tmp_path / "b", GrowthRun(20, 16, 16), "chunk_files", frames_per_file=10)
        os.rename(paths[0], tmp_path / "a" / "zz.h5")  # names say nothing
        first, second = discover([str(tmp_path)])
        assert first.spec.paths == (str(tmp_path / "a" / "zz.h5"), *paths[1:])
        assert len(second.spec.paths) == 2

    def test_two_streams_in_one_folder(self, tmp_path):
        for seed in (1, 2):
            for path in write_hdf5(
                tmp_path / str(seed), GrowthRun(20, 16, 16, seed=seed), "chunk_files", frames_per_file=10
            ):
                os.rename(path, tmp_path / f"{seed}-{os.path.basename(path)}")
        assert [len(entry.spec.paths) for entry in discover([str(tmp_path)]) if entry.spec] == [2, 2]

    def test_a_bad_one_is_named(self, tmp_path):
        paths = write_hdf5(tmp_path, GrowthRun(40, 16, 16), "chunk_files", frames_per_file=10)
        os.truncate(paths[2], 1000)
        entries = discover([str(tmp_path)])
        assert sorted(entry.error is None for entry in entries) == [False, True]


def test_a_thousand_small_files(tmp_path):
    paths = write_hdf5(tmp_path, GrowthRun(1000, 8, 8), "chunk_files", frames_per_file=1)
    began = time.perf_counter()
    (entry,) = discover([str(tmp_path)])
    info = inspect(entry.spec)
    assert time.perf_counter() - began < 60
    assert (info.frames, len(entry.spec.paths)) == (1000, len(paths))


@pytest.mark.parametrize("source", ["", "\0", "a\0b.h5", "[", "~nobody-of-that-name/x"])
def test_odd_names_are_entries_too(source, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (entry,) = discover([source])
    assert entry.spec is None
    assert entry.error is not None
