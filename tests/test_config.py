"""Job files and what may stand in them."""

import contextlib
import math
import os
import pickle
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.config import (
    BackfillSettings,
    find_sidecar,
    load_job_file,
    load_sidecar,
    parse_duration_s,
    parse_start_ns,
    run_settings,
    settings_from,
)
from ingest.errors import SettingsError
from ingest.plan import PlanOptions
from ingest.rules import settings_for
from ingest.series_plan import SeriesOptions
from ingest.settings import KEYS
from ingest.settings_text import parse_dtype, parse_follow_s, parse_moment, parse_roi, parse_shape
from ingest.sources.base import FrameWindow, SourceOptions

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
    "text",
    [
        "",
        "m",
        "15 days",
        "-5",
        "-5m",
        "1e3",
        "inf",
        "nan",
        "1h30m",
        "15M",
        -1,
        math.nan,
        math.inf,
        None,
        "٣m٣",
        "٣m",
        True,
        "9" * 400,
    ],
)
def test_what_is_no_length_of_time(text):
    with pytest.raises(SettingsError, match="no length of time") as caught:
        parse_duration_s(text)
    assert "15m" in caught.value.hint


@given(st.floats(0, 1e6, allow_subnormal=False).map(lambda s: round(s, 6)), st.sampled_from(["", "s", "m", "min", "h"]))
def test_a_length_of_time_comes_back(number, unit):
    text = f"{number:.6f} {unit}"
    assert parse_duration_s(text) == float(f"{number:.6f}") * {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}[unit]


@pytest.mark.parametrize(
    ("value", "seconds"), [(True, 30), (False, None), (None, None), (5, 5), ("2m", 120), ("0.5", 0.5)]
)
def test_how_long_a_file_must_be_quiet(value, seconds):
    assert parse_follow_s(value) == seconds


@pytest.mark.parametrize(
    ("value", "hint"), [(0, "30s"), ("0m", "30s"), ("runs/", "--follow=30s"), (-1, "--follow=30s")]
)
def test_a_file_is_never_quiet_for_nothing(value, hint):
    with pytest.raises(SettingsError) as caught:
        parse_follow_s(value)
    assert hint in caught.value.hint


# -- regions, shapes, types of pixels, moments -------------------------------------------------------------------------

SIZES = st.integers(1, 999_999_999)
PLACES = st.integers(0, 999_999_999)


@given(PLACES, PLACES, SIZES, SIZES, st.sampled_from([",", ", ", " , "]))
def test_a_region_comes_back(left, top, width, height, comma):
    region = (left, top, width, height)
    assert parse_roi(comma.join(map(str, region))) == parse_roi(list(region)) == parse_roi(region) == region


@pytest.mark.parametrize(
    "value",
    ["", "1,2,3", "1,2,3,4,5", "1,2,0,4", "1,2,3,0", "-1,2,3,4", "1.5,2,3,4", "1 2 3 4", "a,b,c,d", "1,2,3,٤",
     [1, 2, 3], [1, 2, 3, "4"], [1, 2, 3, -4], [1, 2, 3, 4.0], [True, 2, 3, 4], [1, 2, 3, 10**9],
     "1,2,3,1000000000", 1234, None, {"left": 1}],
)  # fmt: skip
def test_what_is_no_region(value):
    with pytest.raises(SettingsError, match="no region") as caught:
        parse_roi(value)
    assert "LEFT,TOP,WIDTH,HEIGHT" in caught.value.hint


@given(SIZES, SIZES, st.sampled_from(["x", " x ", "x "]))
def test_a_shape_comes_back(height, width, by):
    assert parse_shape(f"{height}{by}{width}") == parse_shape([height, width]) == (height, width)


@pytest.mark.parametrize(
    "value", ["", "480", "480x", "x640", "480x640x3", "0x640", "480x0", "480,640", [480], 480, None]
)
def test_what_is_no_shape(value):
    with pytest.raises(SettingsError, match="no shape") as caught:
        parse_shape(value)
    assert "height first" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("u1", "u1"), ("uint8", "u1"), ("|u1", "u1"), (">u1", "u1"), ("int8", "i1"), ("<u2", "<u2"), (">u2", ">u2"),
        ("<uint16", "<u2"), (" >uint16 ", ">u2"), ("<float32", "<f4"), (">f8", ">f8"), ("<i4", "<i4"), ("<f2", "<f2"),
    ],
)  # fmt: skip
def test_types_of_pixels(text, name):
    assert parse_dtype(text) == name
    assert parse_dtype(name) == name
    assert np.dtype(name).kind in "uif"


@pytest.mark.parametrize("text", ["u2", "uint16", "=u2", "|u2", "float32"])
def test_an_order_of_bytes_is_not_guessed(text):
    with pytest.raises(SettingsError, match="in which order") as caught:
        parse_dtype(text)
    assert "<u2" in caught.value.hint


@pytest.mark.parametrize(
    "text", ["", "<u3", "u", "f1", "<f1", "object", "O", "S4", "<U4", "M8[ns]", "i4,i4", "(2,)u1", "?", "bool", "c8", 2]
)
def test_what_is_no_type_of_pixels(text):
    with pytest.raises(SettingsError, match="no type of pixels"):
        parse_dtype(text)


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (12.5, 12.5), (0, 0.0), ("90s", 90.0), ("2m", 120.0), ("12.5", 12.5),
        ("2023-10-18T08:00:00Z", "2023-10-18T08:00:00Z"), (" 2023-10-18 08:00 ", "2023-10-18 08:00"),
        (datetime(2023, 10, 18, 8, tzinfo=UTC), "2023-10-18T08:00:00+00:00"),
    ],
)  # fmt: skip
def test_moments_of_a_run(value, moment):
    assert parse_moment(value) == moment


@pytest.mark.parametrize("value", ["", "-5", -5, True, "later", "08:00", "18.10.2023", math.nan, None, [1]])
def test_what_is_no_moment(value):
    with pytest.raises(SettingsError, match="neither seconds nor a time") as caught:
        parse_moment(value)
    assert "12.5" in caught.value.hint


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
        ("0202-10-18T08:00:00Z", None, "before 1678", "year"),
        ("9999-10-18T08:00:00Z", None, "after 2261", "year"),
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
        ignore-stamps: true
        rotations-per-min: 0
        start: 2023-10-18T08:00:00
        start_from: mtime
        timezone: Europe/Berlin
        log-start: 2023-10-18T07:55:00
        dataset: /frames
        timestamps: /times
        full-scale: 4095
        orientation: rot90
        roi: 100,50,400,300
        every: 2
        from: 12.5
        until: 2023-10-18T09:00:00
        expand-range: yes
        apply-rotation: true
        colour: red
        raw-shape: 480x640
        raw-dtype: ">u2"
        raw-header-bytes: 640
        chunk-size: 100
        chunking: regular
        points-per-chunk: 50
        instrument: 7
        follow: true
        group: none
        packers: 3
        open-runs: 2
        level: 3
        retry-for: 15m
        failover: /mnt/failover
        failover-after: 2m
        restart: true
        state: /state
        address: auto
        rules: [{match: "*.h5", set: {fps: 20}}]
    """)
    assert {"from" if name == "from_" else name for name in settings.model_fields_set} == set(KEYS)
    assert settings.sources == (str(tmp_path / "a.h5"), str(tmp_path / "sub/b.h5"), "/abs/c.h5", "s3://bucket/d.h5")
    assert settings.retry_for == 900.0
    assert settings.source_options() == SourceOptions(
        dataset="/frames",
        timestamps="/times",
        start_ns=ns(2023, 10, 18, 6),
        timezone="Europe/Berlin",
        start_from_mtime=True,
        fps=30.0,
        ignore_stamps=True,
        full_scale=4095.0,
        series_start_ns=ns(2023, 10, 18, 5, 55),
        window=FrameWindow(
            from_s=12.5, until_ns=ns(2023, 10, 18, 7), every=2, roi=(100, 50, 400, 300), orientation="rot90"
        ),
        expand_range=True,
        apply_rotation=True,
        colour="red",
        raw_shape=(480, 640),
        raw_dtype=">u2",
        raw_header_bytes=640,
    )
    assert (settings.follow, settings.group, settings.instrument) == (30.0, "none", 7)
    assert settings.series_options() == SeriesOptions("a run", 50, 7, "S1", "p1", ("x", "y"))
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings.plan_options() == PlanOptions(
        "a run", 0.0, 100, "regular", 30.0, "[110]", "S1", "p1", ("x", "y"), chunking_asked=True
    )


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
        ("rpm", "rotations_per_min"), ("rotation", "rotations_per_min"), ("color", "colour"), ("form", "from"),
    ],
)  # fmt: skip
def test_an_unknown_key_names_the_nearest(load, key, near):
    error = refusal(load, f"{key}: 1")
    assert f"unknown key {key.replace('-', '_')!r}" in str(error)
    assert error.hint == f"did you mean {near!r}?"


def test_a_key_that_is_near_nothing_names_them_all(load):
    error = refusal(load, "zzzz: 1")
    assert all(name in error.hint for name in KEYS)
    assert not {"commanded", "start_said_by", "named_sidecars", "from_"} & set(error.hint.replace(",", "").split())


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
        ("every: 0", "every"),
        ("every: yes", "every: Value error, yes and no are no numbers"),
        ("rotations_per_min: no", "rotations_per_min"),
        ("orientation: upside-down", "orientation"),
        ("colour: grey", "colour"),
        ("roi: [1, 2, 3]", "roi: [1, 2, 3] is no region"),
        ("raw_shape: 480", "raw_shape: 480 is no shape"),
        ("raw_dtype: u2", "raw_dtype: pixels of type 'u2'"),
        ("raw_header_bytes: -1", "raw_header_bytes"),
        ("points_per_chunk: 0", "points_per_chunk"),
        ("instrument: MBE", "instrument"),
        ("from: soon", "from: 'soon' is neither"),
        ("until: 2023-10-18", "until"),
        ("follow: 0", "follow"),
        ("group: ''", "group"),
        ("commanded: [fps]", "unknown key 'commanded'"),
        ("start_said_by: sidecar", "unknown key 'start_said_by'"),
        ("chunk-size: 100\nchunk_size: 200", "'chunk_size' twice"),
        ("fps: 10\nfps: 20", "'fps' is there twice"),
        ("rules: {match: x}", "rules is not a list"),
        ("rules: [x]", "rule 1 of the job file"),
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


def test_a_text_that_yaml_reads_as_a_list_should_stand_between_quotes(load):
    assert refusal(load, "azimuth: [110]").hint == "put it between quotes: azimuth: '[110]'"


def test_the_hint_of_a_value_comes_along(load):
    assert "LEFT,TOP,WIDTH,HEIGHT" in refusal(load, "roi: 1,2").hint
    assert "single quotes" in refusal(load, r'rules: [{regex: "\d"}]').hint


def test_aliases_that_unfold_without_end_are_refused_shortly(load):
    levels = ", ".join(f"&x{i} [{', '.join([f'*x{i - 1}'] * 9)}]" for i in range(1, 8))
    for key in ("sample", "fps", "roi", "from", "unknown"):
        assert len(str(refusal(load, f"{key}: [&x0 [a], {levels}]"))) < 500
    assert len(str(refusal(load, "tag: &a [*a]"))) < 500


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "job.yaml")
    with pytest.raises(SettingsError, match="not a file"):
        load_job_file(tmp_path / "job.yaml")


@pytest.mark.parametrize(
    ("text", "window"),
    [
        ("", FrameWindow()),
        ("until: 2m", FrameWindow(until_s=120.0)),
        ("from: 1:30", FrameWindow(from_s=90.0)),  # YAML 1.1 counts in sixties
        ("from: 2023-10-18T08:00:00Z\nuntil: 20", FrameWindow(from_ns=ns(2023, 10, 18, 8), until_s=20.0)),
        ("from: '2023-10-18 08:00'\ntimezone: Europe/Berlin", FrameWindow(from_ns=ns(2023, 10, 18, 6))),
        ("from: null\nroi: null\nraw_shape: null", FrameWindow()),
    ],
)
def test_which_frames(load, text, window):
    assert load(text or "{}").source_options().window == window


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from: 10\nuntil: 10", "until 10.0 is not later than from 10.0"),
        ("from: 2m\nuntil: 90s", "not later"),
        ("from: 2023-10-18T08:00:00Z\nuntil: 2023-10-18T09:00:00+01:00", "not later"),
        ("from: 2023-10-18T08:00:00", "from '2023-10-18T08:00:00' has no zone"),
        ("log_start: 2023-10-18T08:00:00", "log_start '2023-10-18T08:00:00' has no zone"),
        ("log_start: eight", "log_start 'eight' is not an ISO"),
    ],
)
def test_which_frames_cannot_be(load, text, message):
    with pytest.raises(SettingsError, match=message):
        load(text).source_options()


def test_rotation_is_asked_for():
    """But not by `inspect`."""
    assert BackfillSettings().plan_options().rotations_per_min == 0.0
    for rpm in (0.0, 12.0):
        assert BackfillSettings(rotations_per_min=rpm).plan_options(require_rotation=True).rotations_per_min == rpm
    with pytest.raises(SettingsError, match="whether the sample rotated") as caught:
        BackfillSettings().plan_options(require_rotation=True)
    assert "--rotations-per-min 0" in caught.value.hint


@given(st.dictionaries(st.sampled_from(KEYS), st.none() | st.booleans() | st.integers() | st.floats() | st.text()
                       | st.lists(st.integers()), max_size=3))  # fmt: skip
def test_any_values_give_settings_or_a_named_error(values):
    with contextlib.suppress(SettingsError):
        settings = settings_from(values, "here")
        assert {"from" if name == "from_" else name for name in settings.model_fields_set} == set(values)
        settings.source_options()


# -- sidecars ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def lab(tmp_path):
    """Write files of a lab by their names in it; return its folder."""

    def lab(**texts: str) -> Path:
        for name, text in texts.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return tmp_path

    return lambda texts: lab(**texts)


@pytest.mark.parametrize(
    ("there", "stop_at", "found"),
    [
        (["lab/day/growth.yaml"], "lab", "lab/day/growth.yaml"),
        (["lab/day/growth.yml"], "lab", "lab/day/growth.yml"),
        (["lab/growth.yaml"], "lab", "lab/growth.yaml"),
        (["lab/growth.yaml", "lab/day/growth.yaml"], "lab", "lab/day/growth.yaml"),
        (["growth.yaml"], "lab", None),
        (["lab/growth.yaml"], "lab/day", None),
        (["lab/growth.yaml"], None, None),
        (["lab/day/growth.yaml"], None, "lab/day/growth.yaml"),
        (["lab/day/growth.yaml"], "elsewhere", "lab/day/growth.yaml"),
        (["lab/growth.yaml"], "elsewhere", None),
        (["lab/day/Growth.yaml", "lab/day/other.yaml"], "lab", None),
        ([], "lab", None),
    ],
)
def test_the_nearest_sidecar_is_found_below_what_was_named(lab, there, stop_at, found):
    folder = lab({"lab/day/a.h5": "", **dict.fromkeys(there, "fps: 1")})
    where = find_sidecar(folder / "lab/day/a.h5", None if stop_at is None else folder / stop_at)
    assert where == (None if found is None else folder / found)


def test_two_sidecars_in_one_folder_are_one_too_many(lab):
    folder = lab({"a.h5": "", "growth.yaml": "fps: 1", "growth.yml": "fps: 2"})
    with pytest.raises(SettingsError, match=r"both growth\.yaml and growth\.yml"):
        find_sidecar(folder / "a.h5")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("fsp: 3", "unknown key 'fsp'", "did you mean 'fps'?"),
        ("to: http://other", "'to' is of the whole job", "job file"),
        ("rules: []", "'rules' is of the whole job", "job file"),
        ("restart: true", "'restart' is of the whole job", "job file"),
        ("api_key: x", "unknown key", "AS_API_KEY"),
        ("file: {}", "unknown key 'file'", "did you mean 'files'?"),
        ("files: [a]", "files is not a mapping", "files:"),
        ("files: {a: 1}", "files is not a mapping", "files:"),
        ("files: {'*.avi': {rotation: 3}}", "files: *.avi has an unknown key 'rotation'", "rotations_per_min"),
        ("files: {'*.avi': {files: {}}}", "unknown key 'files'", "fps"),
        ("fps: fast", "fps", None),
        ("fps: 1\nfps: 2", "twice", None),
        ("- fps: 1", "not a mapping", "configs/growth.yaml"),
        ("", "not a mapping", "configs/growth.yaml"),
        ("fps: [", "not YAML", None),
        ("# " + "x" * (1 << 20), "larger than 1 MiB", None),
    ],
)
def test_what_cannot_stand_in_a_sidecar(lab, text, message, hint):
    path = lab({"growth.yaml": text}) / "growth.yaml"
    with pytest.raises(SettingsError) as caught:
        load_sidecar(path)
    assert f"the sidecar {path}" in str(caught.value)
    assert message in str(caught.value)
    assert hint is None or hint in caught.value.hint


@pytest.mark.parametrize("sources", [["."], ["day1", "day2"], ["day?"], ["day1/a.h5", "day2/a.h5"], ["**/*.h5"]])
def test_each_run_has_the_settings_of_its_sidecar_and_a_bad_one_fails_its_runs_only(lab, sources):
    folder = lab({"day1/a.h5": "", "day2/a.h5": "", "day1/growth.yaml": "sample: S1", "day2/growth.yaml": "sampel: S2"})
    named = [str(folder / source) for source in sources]
    settings = BackfillSettings(sample="S0", azimuth="[110]")
    one = run_settings(settings, str(folder / "day1/a.h5"), named)
    assert (one.sample, one.azimuth) == ("S1", "[110]")
    for _ in range(2):
        with pytest.raises(SettingsError, match=r"day2.*sampel") as caught:
            run_settings(settings, str(folder / "day2/a.h5"), named)
        assert caught.value.hint == "did you mean 'sample'?"


@pytest.mark.parametrize(
    ("sources", "sample"),
    [
        ([""], "S"),
        (["*"], "S"),
        (["day"], None),
        (["day/a.h5"], None),
        (["day", ""], "S"),
        (["d*/*.h5"], "S"),
        ([], None),
    ],
)
def test_a_sidecar_above_what_was_named_says_nothing(lab, sources, sample):
    folder = lab({"day/a.h5": "", "growth.yaml": "sample: S"})
    named = [str(folder / source) for source in sources]
    assert run_settings(BackfillSettings(), str(folder / "day/a.h5"), named).sample == sample
    himself = BackfillSettings(named_sidecars=(str(folder / "growth.yaml"),))
    assert run_settings(himself, str(folder / "day/a.h5"), named).sample == "S"


def test_relative_sources_are_of_the_working_folder(lab, monkeypatch):
    folder = lab(
        {"one/day/a.h5": "", "one/growth.yaml": "sample: S1", "two/day/a.h5": "", "two/growth.yaml": "sample: S2"}
    )
    for name, sample in (("one", "S1"), ("two", "S2")):
        monkeypatch.chdir(folder / name)
        assert run_settings(BackfillSettings(), str(folder / name / "day/a.h5"), ["."]).sample == sample


def test_a_sidecar_that_was_changed_is_read_again(lab):
    folder = lab({"a.h5": "", "growth.yaml": "sample: S1"})
    assert run_settings(BackfillSettings(), str(folder / "a.h5"), [str(folder)]).sample == "S1"
    (folder / "growth.yaml").write_text("sample: other")
    assert run_settings(BackfillSettings(), str(folder / "a.h5"), [str(folder)]).sample == "other"
    (folder / "growth.yaml").unlink()
    assert run_settings(BackfillSettings(), str(folder / "a.h5"), [str(folder)]).sample is None


def test_what_is_at_a_url_has_no_sidecar(lab, monkeypatch):
    monkeypatch.chdir(lab({"growth.yaml": "sample: S1"}))
    assert run_settings(BackfillSettings(), "s3://bucket/a.h5", ["s3://bucket/a.h5"]).sample is None


# -- ready files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", sorted(set(CONFIGS.glob("*.yaml")) - {CONFIGS / "growth.yaml"}), ids=lambda path: path.name
)
def test_the_ready_job_files_load(path):
    settings = load_job_file(path)
    assert settings.sources
    assert settings.to


def run_of(config: str, path: str) -> BackfillSettings:
    return settings_for(load_job_file(CONFIGS / config), str(CONFIGS / path))


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("runs/2023-10-18/rotating/low/a.avi", {"rotations_per_min": 12.0, "sample": "STO-17"}),
        ("runs/2023-10-18/a.avi", {"rotations_per_min": 0.0, "tag": ("STO", "homoepitaxy")}),
        ("runs/2023-10-18/a_preview.avi", {"tag": ("preview",), "every": 10}),
        (
            "runs/2023-10-18/STO-18_20231018-080000.h5",
            {"sample": "STO-18", "name": "STO-18 growth", "start": "2023-10-18T08:00:00", "start_said_by": "file name"},
        ),
    ],
)  # fmt: skip
def test_the_rules_of_the_ready_job_file(path, expected):
    settings = run_of("backfill.yaml", path)
    assert {name: getattr(settings, name) for name in expected} == expected
    assert settings.source_options().start_said_by == settings.start_said_by


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (
            "runs/STO17_2023-10-03_rec-1_00001.tiff",
            {"sample": "STO17", "name": "STO17 2023-10-03 rec 1", "start": None},
        ),
        (
            "runs/STO_STO_test6_06292022-standard.h5",
            {"sample": "test6", "name": "STO on STO, test6 (standard)", "tag": ("STO", "standard"), "start": None},
        ),
        (
            "runs/Vid_x_20231003-161713.avi",
            {"sample": "x", "tag": ("movie",), "start": "2023-10-03T16:17:13", "start_said_by": "file name"},
        ),
        ("runs/output_video_20231003-161713.avi", {"sample": None, "start": "2023-10-03T16:17:13"}),
        ("runs/2023-10-03/growth 4/16.17.13.imm", {"name": "growth 4", "start": "2023-10-03T16:17:13"}),
        ("runs/12.5rpm/a.avi", {"rotations_per_min": 12.5, "azimuth": None}),
        ("runs/[1-10]/a.avi", {"rotations_per_min": 0.0, "azimuth": "[1-10]"}),
        ("runs/1/2/cam2/a.avi", {"orientation": "rot180", "roi": (100, 50, 400, 300)}),
        ("other/1/cam2/a.avi", {"orientation": "none", "roi": None}),
    ],
)  # fmt: skip
def test_the_ready_rules(path, expected):
    settings = run_of("rules.yaml", path)
    assert {name: getattr(settings, name) for name in expected} == expected
    if settings.start:
        assert settings.source_options().start_ns == ns(2023, 10, 3, 14, 17, 13)


def test_the_ready_sidecar():
    sidecar = load_sidecar(CONFIGS / "growth.yaml")

    def said(name: str) -> BackfillSettings:
        return settings_for(BackfillSettings(sample="S", fps=30.0), str(CONFIGS / name), sidecar)

    assert (said("a.avi").sample, said("a.avi").fps, said("a.avi").azimuth) == ("STO-17", 30.0, "[110]")
    assert (said("a_rotating.avi").rotations_per_min, said("a_rotating.avi").azimuth) == (12.0, None)
    movie, log = said("growth_1.avi").source_options(), said("GM1_subs.txt").source_options()
    assert (movie.start_ns, movie.start_said_by) == (ns(2023, 10, 18, 6) + 250_000_000, "sidecar")
    assert movie.window == FrameWindow(until_s=1200.0, orientation="flip-ud")
    assert (log.start_ns, log.series_start_ns) == (None, ns(2023, 10, 18, 5, 55))
