"""Waiting until a source is quiet, with a clock that tests set."""

import os

import pytest

from ingest.sources.follow import FileState, is_quiet, state_of, wait_until_quiet
from tests.sources.files import pixels, write
from tests.sources.test_hdf5_swmr import killed


class World:
    """A clock that sleeping moves, and files that change as it goes: path to (time, state) in order."""

    def __init__(self, **changes):
        self.now_s = 1000.0
        self.looks = 0
        self.changes = changes

    def clock(self):
        return self.now_s

    def sleep(self, seconds):
        self.now_s += seconds

    def state(self, path):
        self.looks += 1
        return [state for since, state in self.changes[path] if since <= self.now_s][-1]

    def wait(self, quiet_s=10.0, until_s=2000.0):
        return wait_until_quiet(
            list(self.changes), quiet_s, clock=self.clock, sleep=self.sleep,
            stop=lambda: self.now_s >= until_s, state=self.state,
        )  # fmt: skip


def test_what_is_old_is_quiet_at_once():
    world = World(a=[(0, FileState(5, mtime_s=990.0))])
    assert world.wait()
    assert world.now_s == 1000


def test_what_was_just_written_is_waited_for():
    world = World(a=[(0, FileState(5, mtime_s=997.0))])
    assert world.wait()
    assert 1007 <= world.now_s <= 1009


@pytest.mark.parametrize(
    "later",
    [FileState(6, mtime_s=900.0), FileState(5, 2, 900.0), FileState(5, mtime_s=901.0), FileState(5, 1, 900.0, "", 7)],
)
def test_any_change_starts_anew(later):
    first = FileState(5, mtime_s=900.0)
    changes = [(0, None), (1001, first)]
    changes += [(1005 + 4 * i, later if i % 2 else first) for i in range(10)]
    world = World(a=changes)
    assert world.wait()
    assert 1051 <= world.now_s <= 1055


def test_the_last_of_several_counts():
    quiet = [(0, FileState(5, mtime_s=0.0))]
    world = World(a=quiet, b=[(0, FileState(5)), (1008, FileState(6)), (1016, FileState(7))], c=quiet)
    assert world.wait()
    assert 1026 <= world.now_s <= 1028


def test_a_file_that_is_not_there_yet_is_waited_for():
    world = World(a=[(0, None), (1100, FileState(1, mtime_s=1100.0))])
    assert world.wait()
    assert 1110 <= world.now_s <= 1114


def test_a_clock_of_the_file_system_that_is_ahead_does_not_end_it_early():
    world = World(a=[(0, FileState(5, mtime_s=5000.0))])
    assert world.wait()
    assert 1010 <= world.now_s <= 1012


def test_stops_when_told_to():
    world = World(a=[(1000 + i, FileState(i)) for i in range(-1, 100)])
    assert not world.wait(until_s=1050)
    assert world.now_s <= 1055


def test_looks_are_rare():
    world = World(a=[(0, FileState(5, mtime_s=1000.0))])
    assert world.wait(100.0)
    assert world.looks <= 22


def test_states_of_real_things(tmp_path):
    assert state_of(str(tmp_path / "none")) is None
    assert state_of("memory://follow/none") is None
    plain = write(tmp_path / "a.h5", {"frames": pixels(3)})
    assert state_of(plain) == FileState(os.path.getsize(plain), 1, os.stat(plain).st_mtime)
    growing = killed(tmp_path / "below" / "b.h5") if (tmp_path / "below").mkdir() is None else ""
    assert state_of(growing).frames == 20
    folder = state_of(str(tmp_path))
    assert (folder.files, folder.size_bytes) == (2, os.path.getsize(plain) + os.path.getsize(growing))
    assert is_quiet(growing)
    assert not is_quiet(plain)
    assert is_quiet(plain, clock=lambda: os.stat(plain).st_mtime + 11)
    assert not is_quiet(str(tmp_path / "none"))
