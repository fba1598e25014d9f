"""What every log source must do, whatever its format."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from ingest.errors import SettingsError
from ingest.sources import SeriesInfo, SeriesSpec, SourceOptions, discover, inspect_series, open_series
from ingest.sources.series_base import Rows


@dataclass(frozen=True)
class MadeLog:
    """A log on disk, and for each table the rows that it must give: (row,) ns, (channel, row)."""

    info: SeriesInfo
    tables: list[tuple[np.ndarray, np.ndarray]]


def look_at_log(path, **options) -> SeriesInfo:
    """Discover one path, and inspect the one log that must be there."""
    chosen = SourceOptions(**options)
    (found,) = discover([str(path)], chosen)
    if found.error is not None:
        raise found.error
    return inspect_series(found.spec, chosen)


def read_all(info: SeriesInfo, table: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rows = open_series(info.spec).read(table, 0, info.spec.tables[table].rows)
    return rows.timestamps_ns, rows.values


def read_elsewhere(spec: SeriesSpec, table: int, start: int, stop: int) -> Rows:
    """Runs in another process."""
    return open_series(spec).read(table, start, stop)


def same(rows: Rows, times_ns: np.ndarray, values: np.ndarray) -> None:
    assert rows.timestamps_ns.dtype == np.int64
    assert rows.values.dtype == np.float64
    np.testing.assert_array_equal(rows.timestamps_ns, times_ns)
    np.testing.assert_array_equal(rows.values, values)


class SeriesContract:
    """Subclasses give a fixture `made`; everything else is the same for all formats."""

    def test_facts_are_those_of_the_rows(self, made):
        info = made.info
        assert [table.rows for table in info.spec.tables] == [len(times) for times, _ in made.tables]
        assert info.points == sum(values.size for _, values in made.tables)
        facts = iter(info.channels)
        for table, (times, values) in zip(info.spec.tables, made.tables, strict=True):
            assert len(table.channels) == len(values)
            for channel in table.channels:
                fact = next(facts)
                assert (fact.name, fact.units, fact.points) == (channel.name, channel.units, len(times))
                assert (fact.first_ns, fact.last_ns) == (times.min(), times.max())
        assert len({channel.name for channel in info.channels}) == len(info.channels)
        assert (info.start_ns is None) == (info.start_from is None)
        if info.start_ns is not None:
            assert info.start_ns == min(times.min() for times, _ in made.tables)

    def test_spec_pickles_small(self, made):
        spec = made.info.spec
        data = pickle.dumps(spec)
        assert pickle.loads(data) == spec
        rows = sum(table.rows for table in spec.tables)
        assert len(data) < 1000 + 400 * len(spec.tables) + 100 * len(made.info.channels) + rows // 100

    @pytest.mark.parametrize("step", [1, 7, 100, 10**6])
    def test_slices_cover_exactly(self, made, step):
        for number, (times, values) in enumerate(made.tables):
            reader = open_series(made.info.spec)
            stops = range(0, min(len(times), 300 * step), step)
            for start in stops:
                stop = min(start + step, len(times))
                same(reader.read(number, start, stop), times[start:stop], values[:, start:stop])

    def test_any_order_gives_the_same(self, made):
        rng = np.random.default_rng(1)
        for number, (times, values) in enumerate(made.tables):
            for start in rng.integers(0, len(times), 30).tolist():
                stop = start + 1 + int(rng.integers(0, len(times) - start))
                reader = open_series(made.info.spec)
                same(reader.read(number, start, stop), times[start:stop], values[:, start:stop])

    def test_another_process_reads_the_same(self, made, elsewhere):
        for number, (times, values) in enumerate(made.tables[:3]):
            there = elsewhere.submit(read_elsewhere, made.info.spec, number, len(times) // 2, len(times)).result()
            same(there, times[len(times) // 2 :], values[:, len(times) // 2 :])

    def test_one_table_alone_reads_the_same(self, made):
        for number, (times, values) in enumerate(made.tables):
            part = made.info.spec.part(number)
            assert len(part.tables) == len(part.paths) == 1
            same(open_series(part).read(0, 0, len(times)), times, values)

    def test_what_was_read_is_the_callers(self, made):
        times, values = made.tables[0]
        reader = open_series(made.info.spec)
        first = reader.read(0, 0, len(times))
        first.values[:] = 7
        first.timestamps_ns[:] = 7
        same(reader.read(0, 0, len(times)), times, values)

    def test_rows_that_are_not_there(self, made):
        reader = open_series(made.info.spec)
        rows = made.info.spec.tables[0].rows
        for table, start, stop in [
            (0, -1, 1),
            (0, 0, rows + 1),
            (0, 1, 1),
            (0, 3, 1),
            (len(made.tables), 0, 1),
            (-1, 0, 1),
        ]:
            with pytest.raises(SettingsError):
                reader.read(table, start, stop)

    def test_close_is_safe_to_repeat(self, made):
        reader = open_series(made.info.spec)
        reader.close()
        reader.close()

    def test_a_bare_spec_is_refused_by_name(self, made):
        with pytest.raises(SettingsError) as caught:
            open_series(SeriesSpec(made.info.spec.kind, made.info.spec.paths))
        assert caught.value.hint
