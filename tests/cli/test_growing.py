"""A run that is still being written is not sent as if it were whole."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ingest.cli.growing import refuse_growing
from ingest.cli.planning import find_candidates
from ingest.config import BackfillSettings
from ingest.errors import UnclosedSourceError
from tests.support import make_run

SETTINGS = BackfillSettings(rotations_per_min=0.0, fps=10.0, start="2023-10-18T08:00:00Z", ignore_stamps=True)


def candidates(folder: Path):
    return find_candidates([str(folder)], SETTINGS, planning=True)


def pictures(folder: Path, *numbers: int) -> None:
    import numpy as np
    from PIL import Image

    folder.mkdir(exist_ok=True)
    for number in numbers:
        Image.fromarray(np.full((8, 9), number, np.uint8)).save(folder / f"f_{number:03d}.png")


def test_a_file_that_grows_meanwhile_is_refused_and_the_others_go_on(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make_run(tmp_path / f"{name}.h5", frames=60)
    slept = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        with (tmp_path / "a.h5").open("ab") as file:
            file.write(b"more")

    growing, whole = refuse_growing(candidates(tmp_path), sleep=sleep)
    assert slept == [1.0]
    assert (growing.plan, type(growing.error), whole.error) == (None, UnclosedSourceError, None)
    assert "--follow" in growing.error.hint


def test_pictures_that_still_come_in_are_seen(tmp_path: Path) -> None:
    pictures(tmp_path / "seq", *range(20))
    [one] = refuse_growing(candidates(tmp_path), sleep=lambda _: pictures(tmp_path / "seq", 20))
    assert isinstance(one.error, UnclosedSourceError)


def test_what_is_old_costs_no_time(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", frames=60)
    os.utime(tmp_path / "a.h5", (1e9, 1e9))

    def sleep(_seconds: float) -> None:
        pytest.fail("waited")

    [one] = refuse_growing(candidates(tmp_path), sleep=sleep)
    assert one.plan is not None


def test_what_is_fresh_and_stays_as_it_is_goes(tmp_path: Path) -> None:
    make_run(tmp_path / "a.h5", frames=60)
    [one] = refuse_growing(candidates(tmp_path), sleep=lambda _: None)
    assert one.error is None
