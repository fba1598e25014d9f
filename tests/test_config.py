"""Job files and what may stand in them."""

import math
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.config import BackfillSettings, load_job_file, parse_duration_s, parse_start_ns
from ingest.errors import SettingsError
from ingest.plan import PlanOptions
from ingest.sources.base import SourceOptions

CONFIGS = Path(__file__).parent.parent / "configs"
KEY = "as-secret-123456"


@pytest.fixture
def load(tmp_path):
    """Write a job file and load it."""

    def load(text: str | bytes) -> BackfillSettings:
        path = tmp_path / "job.yaml"
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return load_job_file(path)

    return load


def refusal(load, text) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load(text)
    assert "job.yaml" in str(caught.value)
    return caught.value


# -- lengths of time ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (90, 90), (0, 0), (1.5, 1.5), ("90", 90), ("90s", 90), ("15m", 900), ("15min", 900), ("2h", 7200),
        ("0.5h", 1800), (" 15 m ", 900), ("0", 0),
    ],
)  # fmt: skip
def test_lengths_of_time(text, seconds):
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "m", "15 days", "-5", "-5m", "1e3", "inf", "nan", "1h30m", "15M", -1, math.nan, math.inf, None, "٣m٣"]
)
def test_what_is_no_length_of_time(text):
    with pytest.raises(SettingsError, match="no length of time") as caught:
        parse_duration_s(text)
    assert "15m" in caught.value.hint


# -- starts ------------------------------------------------------------------------------------------------------------


def ns(*parts):
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("text", "timezone", "expected"),
    [
        ("2023-10-18T08:00:00+02:00", None, ns(2023, 10, 18, 6)),
        ("2023-10-18T06:00:00Z", None, ns(2023, 10, 18, 6)),
        ("2023-10-18 08:00:00.250+02:00", None, ns(2023, 10, 18, 6) + 250_000_000),
        ("2023-10-18T08:00:00.000001+02:00", None, ns(2023, 10, 18, 6) + 1000),
        ("2023-10-18T08:00:00+02:00", "America/New_York", ns(2023, 10, 18, 6)),
        ("2023-10-18T08:00:00", "Europe/Berlin", ns(2023, 10, 18, 6)),
        ("2023-12-18T08:00:00", "Europe/Berlin", ns(2023, 12, 18, 7)),
        ("2023-10-29T02:30:00+02:00", "Europe/Berlin", ns(2023, 10, 29, 0, 30)),
        ("2023-10-29T02:30:00+01:00", "Europe/Berlin", ns(2023, 10, 29, 1, 30)),
        ("2023-10-29T01:59:59", "Europe/Berlin", ns(2023, 10, 28, 23, 59, 59)),
        ("2023-10-29T03:00:00", "Europe/Berlin", ns(2023, 10, 29, 2)),
        ("1969-12-31T23:59:59.750Z", None, -250_000_000),
        ("2023-10-18", "UTC", ns(2023, 10, 18)),
    ],
)
def test_starts(text, timezone, expected):
    """A zone in the text wins over the one beside it."""
    assert parse_start_ns(text, timezone) == expected


@pytest.mark.parametrize(
    ("text", "timezone", "message", "hint"),
    [
        ("2023-10-18T08:00:00", None, "no zone", "--timezone"),
        ("yesterday", "UTC", "not an ISO 8601", "2023-10-18T08:00:00"),
        ("18.10.2023 08:00", "UTC", "not an ISO 8601", "2023-10-18T08:00:00"),
        ("1697608800", "UTC", "not an ISO 8601", "2023-10-18T08:00:00"),
        ("", "UTC", "not an ISO 8601", "2023-10-18T08:00:00"),
        ("2023-10-18T08:00:00", "Mars/Olympus", "no time zone 'Mars/Olympus'", "Europe/Berlin"),
        ("2023-10-18T08:00:00", "Europe", "no time zone 'Europe'", "Europe/Berlin"),
        ("2023-10-18T08:00:00", "../etc/passwd", "no time zone", "Europe/Berlin"),
        ("2023-10-18T08:00:00", "", "no time zone", "Europe/Berlin"),
        ("2023-10-29T02:30:00", "Europe/Berlin", "twice or never", "offset"),
        ("2023-03-26T02:30:00", "Europe/Berlin", "twice or never", "offset"),
    ],
)
def test_starts_that_say_too_little(text, timezone, message, hint):
    with pytest.raises(SettingsError, match=message) as caught:
        parse_start_ns(text, timezone)
    assert hint in caught.value.hint


@given(st.datetimes(datetime(1950, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - Hypothesis adds it
def test_a_start_is_exact_to_the_microsecond(time):
    since = time - datetime(1970, 1, 1, tzinfo=UTC)
    exact = (since.days * 86_400 + since.seconds) * 10**9 + since.microseconds * 1000
    assert parse_start_ns(time.isoformat(), None) == exact


# -- job files ---------------------------------------------------------------------------------------------------------


def test_everything_that_a_job_can_say(load, tmp_path):
    settings = load("""
        sources: [a.h5, sub/b.h5, /abs/c.h5, "s3://bucket/d.h5"]
        to: http://platform.test
        name: a run
        sample: S1
        project: p1
        tag: [x, y]
        azimuth: "[110]"
        fps: 30
        rotations-per-min: 0
        start: 2023-10-18T08:00:00
        start_from: mtime
        timezone: Europe/Berlin
        dataset: /frames
        timestamps: /times
        full-scale: 4095
        chunk-size: 100
        chunking: regular
        packers: 3
        open-runs: 2
        level: 3
        retry-for: 15m
        restart: true
        state: /state
        address: auto
    """)
    assert set(settings.model_fields_set) == set(BackfillSettings.model_fields)
    assert settings.sources == (str(tmp_path / "a.h5"), str(tmp_path / "sub/b.h5"), "/abs/c.h5", "s3://bucket/d.h5")
    assert settings.retry_for == 900.0
    assert settings.source_options() == SourceOptions(
        "/frames", "/times", ns(2023, 10, 18, 6), "Europe/Berlin", True, 30.0, 4095.0
    )
    assert settings.plan_options() == PlanOptions("a run", 0.0, 100, "regular", 30.0, "[110]", "S1", "p1", ("x", "y"))


def test_a_job_may_say_nothing(load):
    assert load("{}") == BackfillSettings()
    assert BackfillSettings().plan_options() == PlanOptions()
    assert BackfillSettings().source_options() == SourceOptions()


def test_one_source_and_one_tag_need_no_list(load, tmp_path):
    settings = load("sources: a.h5\ntag: x\n")
    assert (settings.sources, settings.tag) == ((str(tmp_path / "a.h5"),), ("x",))


def test_the_home_folder_is_expanded(load):
    assert load("sources: ~/a.h5").sources == (str(Path.home() / "a.h5"),)


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        ("2023-10-18T08:00:00+02:00", ns(2023, 10, 18, 6)),
        ('"2023-10-18T08:00:00+02:00"', ns(2023, 10, 18, 6)),
        ("2023-10-18T08:00:00.250Z", ns(2023, 10, 18, 8) + 250_000_000),
        ("2023-10-18 08:00:00 -5", ns(2023, 10, 18, 13)),
    ],
)
def test_starts_that_yaml_reads_by_itself(load, start, expected):
    assert load(f"start: {start}").source_options().start_ns == expected


def test_a_naive_start_needs_the_zone_in_a_job_file_too(load):
    with pytest.raises(SettingsError, match="no zone"):
        load("start: 2023-10-18T08:00:00").source_options()


@pytest.mark.parametrize(
    ("key", "near"),
    [
        ("chunksize", "chunk_size"), ("chunk_sise", "chunk_size"), ("tags", "tag"), ("source", "sources"),
        ("rpm_per_min", "rotations_per_min"), ("Name", "name"), ("time-zone", "timezone"), ("retries_for", "retry_for"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest(load, key, near):
    error = refusal(load, f"{key}: 1")
    assert f"unknown key {key.replace('-', '_')!r}" in str(error)
    assert error.hint == f"did you mean {near!r}?"


def test_a_key_that_is_near_nothing_names_them_all(load):
    error = refusal(load, "zzzz: 1")
    assert all(name in error.hint for name in BackfillSettings.model_fields)


@pytest.mark.parametrize("name", ["api_key", "api-key", "key", "AS_API_key", "apikey"])
def test_an_api_key_is_refused_and_not_shown(load, name):
    error = refusal(load, f"to: http://platform.test\n{name}: {KEY}\n")
    assert "AS_API_KEY" in error.hint
    assert KEY not in str(error) + error.hint + repr(error)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chunk_size: 0", "chunk_size"),
        ("chunk_size: many", "chunk_size"),
        ("chunking: often", "chunking"),
        ("packers: 0", "packers"),
        ("open_runs: 65", "open_runs"),
        ("level: 23", "level"),
        ("start_from: ctime", "start_from"),
        ("retry_for: soon", "no length of time"),
        ("retry_for: -1", "no length of time"),
        ("sources: [1]", "sources.0"),
        ("fps: [1, 2]", "fps"),
        ("restart: perhaps", "restart"),
        ("start: 2023-10-18", "start"),
    ],
)
def test_a_value_that_cannot_be_names_its_key(load, text, message):
    assert message in str(refusal(load, text))


@pytest.mark.parametrize(
    "text",
    [
        "a: [", "a: 1: 2", "\tname: x", "? [1]\n: 2", "!!python/object/apply:os.system ['true']", "start: 2023-02-30",
        "[" * 20_000, "\x00", "name: *unknown",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_not_yaml(load, text):
    assert "not YAML" in str(refusal(load, text))


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "42", "null"])
def test_what_is_no_mapping(load, text):
    error = refusal(load, text)
    assert "not a mapping" in str(error)
    assert error.hint


def test_what_cannot_be_read(load, tmp_path):
    assert "cannot be read" in str(refusal(load, b"name: \xff\xfe"))
    assert "larger than 1 MiB" in str(refusal(load, "# " + "x" * (1 << 20)))
    for path in (tmp_path / "absent.yaml", tmp_path):
        with pytest.raises(SettingsError, match="cannot be read"):
            load_job_file(path)


def test_the_ready_job_files_load():
    """None may be there yet; each that is must load."""
    for path in sorted(CONFIGS.glob("*.yaml")):
        assert isinstance(load_job_file(path), BackfillSettings), path
