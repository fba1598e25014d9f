"""A fingerprint tells one recording from another, wherever it lies."""

import os
import shutil

import numpy as np
import pytest

from ingest.sources.fingerprint import BLOCK_BYTES, INTERIOR_BLOCKS, Fingerprint
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from tests.sources.files import look, pixels, write


def of(path, dataset="/frames", stamps=None):
    made = Fingerprint(dataset)
    made.add_file(str(path))
    made.add_stamps(stamps)
    return made.hexdigest()


@pytest.fixture
def big(tmp_path):
    path = tmp_path / "big"
    path.write_bytes(np.random.default_rng(0).bytes(40 * BLOCK_BYTES + 17))
    return path


def test_neither_path_nor_mtime_count(big, tmp_path):
    copy = tmp_path / "other"
    shutil.copyfile(big, copy)
    os.utime(copy, (1, 1))
    assert of(copy) == of(big)
    assert len(of(big)) == 32


def test_everything_else_counts(big):
    stamps = np.arange(5)
    made = {
        of(big),
        of(big, "/growth_2"),
        of(big, stamps=stamps),
        of(big, stamps=stamps + 1),
        of(big, stamps=stamps[:4]),
    }
    assert len(made) == 5
    before = of(big)
    with open(big, "ab") as file:
        file.write(b"x")
    assert of(big) != before


@pytest.mark.parametrize("block", [0, 1, 8, INTERIOR_BLOCKS + 1])
def test_each_sampled_block_counts(big, block):
    before = of(big)
    size = os.path.getsize(big)
    with open(big, "r+b") as file:
        file.seek((size - BLOCK_BYTES) * block // (INTERIOR_BLOCKS + 1))
        file.write(b"changed")
    assert of(big) != before


def test_a_short_file_counts_whole(tmp_path):
    path = tmp_path / "short"
    made = set()
    for place in range(0, 200_000, 20_000):
        content = bytearray(200_000)
        content[place] = 1
        path.write_bytes(content)
        made.add(of(path))
    assert len(made) == 10


def test_runs_of_one_file_and_copies_of_one_run(tmp_path):
    path = write(tmp_path / "a.h5", {"growth_1": pixels(3), "growth_2": pixels(3)})
    assert look(path, dataset="growth_1").fingerprint != look(path, dataset="growth_2").fingerprint
    write_hdf5(tmp_path / "one", GrowthRun(20, 16, 16), "chunk_files", frames_per_file=5)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    assert look(tmp_path / "one").fingerprint == look(tmp_path / "two").fingerprint
