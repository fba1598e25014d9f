"""Rules over paths, and who wins where several say something of a run."""

import pickle
import re
from datetime import date, datetime, time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import SettingsError
from ingest.name_times import check_date_format, read_date, read_moment, read_time
from ingest.path_rules import MAX_PATH, glob_matches, rule_from
from ingest.rules import rules_from, settings_for, sidecar_from
from ingest.settings import JOB_KEYS, RUN_KEYS, BackfillSettings

FOLDER = "/lab/jobs"
FILE = "/lab/jobs/runs/STO-17_20231003-161713.h5"


def job(*rules: dict, **settings) -> BackfillSettings:
    return BackfillSettings(rules=rules_from(list(rules), "the job", FOLDER), **settings)


def refused(*rules) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        rules_from(list(rules), "the job", FOLDER)
    return caught.value


# -- dates and times in names ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "day"),
    [
        ("20220629", date(2022, 6, 29)), ("2022-06-29", date(2022, 6, 29)), ("2022_06_29", date(2022, 6, 29)),
        ("2022.6.29", date(2022, 6, 29)), ("2022/06/29", date(2022, 6, 29)), ("06292022", date(2022, 6, 29)),
        ("29062022", date(2022, 6, 29)), ("29.06.2022", date(2022, 6, 29)), ("7.6.2022", date(2022, 6, 7)),
        ("06-29-2022", date(2022, 6, 29)), ("29/06/2022", date(2022, 6, 29)), ("06062022", date(2022, 6, 6)),
        ("20101112", date(2010, 11, 12)), ("20112010", date(2010, 11, 20)), ("20240229", date(2024, 2, 29)),
    ],
)  # fmt: skip
def test_dates(text, day):
    assert read_date(text) == day


@pytest.mark.parametrize(
    ("text", "both"),
    [
        ("06072022", "2022-06-07 or 2022-07-06"),
        ("06-07-2022", "2022-06-07 or 2022-07-06"),
        ("6/7/2022", "2022-06-07 or 2022-07-06"),
    ],
)
def test_a_date_that_may_be_two_is_neither(text, both):
    with pytest.raises(SettingsError, match=both) as caught:
        read_date(text)
    assert "date_format: '%m%d%Y'" in caught.value.hint
    separator = text[2] if text[1].isdigit() else text[1]
    separator = "" if separator.isdigit() else separator
    assert read_date(text, separator.join(["%m", "%d", "%Y"])) == date(2022, 6, 7)
    assert read_date(text, separator.join(["%d", "%m", "%Y"])) == date(2022, 7, 6)


@pytest.mark.parametrize(
    "text",
    ["", "220629", "2022-06_29", "2022-13-01", "20230229", "99999999", "06.29.2022", "12345678", "18000101",
     "2200-01-01", "29 June 2022", "2022-06-29x", "٢٠٢٢٠٦٢٩"],
)  # fmt: skip
def test_what_is_no_date(text):
    with pytest.raises(SettingsError, match="is no date") as caught:
        read_date(text)
    assert "date_format" in caught.value.hint


@given(st.dates(date(1970, 1, 1), date(2102, 12, 31)))
def test_a_date_is_read_as_it_was_written_or_not_at_all(day):
    for form in ("%Y%m%d", "%Y-%m-%d", "%Y_%m_%d", "%d.%m.%Y"):
        assert read_date(day.strftime(form)) == day
    for form in ("%m%d%Y", "%d%m%Y", "%m-%d-%Y"):
        text = day.strftime(form)
        assert read_date(text, form) == day
        try:
            assert read_date(text) == day
        except SettingsError:
            assert day.day <= 12
            assert day.day != day.month


@pytest.mark.parametrize(
    ("text", "clock"),
    [
        ("161713", time(16, 17, 13)), ("16-17-13", time(16, 17, 13)), ("16:17:13", time(16, 17, 13)),
        ("16_17_13", time(16, 17, 13)), ("16.17.13", time(16, 17, 13)), ("16h17m13", time(16, 17, 13)),
        ("16h17m13s", time(16, 17, 13)), ("16:17:13.250", time(16, 17, 13, 250_000)), ("000000", time(0)),
        ("161713.25", time(16, 17, 13, 250_000)), ("161713-250", time(16, 17, 13, 250_000)),
        ("16.17.13,000001", time(16, 17, 13, 1)), ("16:17:13.123456789", time(16, 17, 13, 123_456)),
    ],
)  # fmt: skip
def test_times_of_day(text, clock):
    assert read_time(text) == clock


@pytest.mark.parametrize(
    "text", ["", "1617", "16:17", "16-17:13", "246060", "161760", "251713", "16:17:13 PM", "161713-25"]
)
def test_what_is_no_time_of_day(text):
    with pytest.raises(SettingsError, match="no time of day"):
        read_time(text)


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("20231003-161713", "2023-10-03T16:17:13"), ("20231003161713", "2023-10-03T16:17:13"),
        ("20231003T161713Z", "2023-10-03T16:17:13Z"), ("2023-10-03_16-17-13", "2023-10-03T16:17:13"),
        ("2023-10-03 16:17:13.250 UTC", "2023-10-03T16:17:13.250000Z"), ("03.10.2023_161713", "2023-10-03T16:17:13"),
        ("2023-10-03T16:17:13+02:00", "2023-10-03T16:17:13+02:00"),
        ("2025-12-22___15-39-57.878", "2025-12-22T15:39:57.878000"),
        ("20231003-161713-0200", "2023-10-03T16:17:13-0200"),
    ],
)  # fmt: skip
def test_moments(text, start):
    assert read_moment(text) == start
    assert datetime.fromisoformat(start)


@pytest.mark.parametrize(
    "text", ["", "20231003", "20231003-1617", "2023-10-03T24:00:00", "1696349833", "20231003-noon"]
)
def test_what_is_no_moment(text):
    with pytest.raises(SettingsError):
        read_moment(text)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2102, 12, 31)).map(lambda t: t.replace(microsecond=0)))  # noqa: DTZ001
def test_a_moment_is_read_as_it_was_written(moment):
    for form in ("%Y%m%d-%H%M%S", "%Y-%m-%d_%H-%M-%S", "%Y%m%dT%H%M%S", "%d.%m.%Y %H:%M:%S"):
        assert datetime.fromisoformat(read_moment(moment.strftime(form))) == moment
    form = "%H%M%S%d%m%Y"
    assert read_moment(moment.strftime(form), form) == moment.isoformat()


@pytest.mark.parametrize(
    ("form", "with_time", "is_whole"),
    [
        ("%m%d%Y", False, True), ("%y%m%d", False, True), ("%d %b %Y", False, True), ("%j %Y", False, True),
        ("%m%d", False, False), ("%Y%m", False, False), ("%H%M", False, False), ("%Y%m%d%Q", False, False),
        ("%d%d", False, False), ("", False, False), ("%", False, False),
        ("%Y%m%d_%H%M%S", True, True), ("%Y%m%d%H%M", True, True), ("%Y%m%d%H%M%S%z", True, True),
        ("%Y%m%d_%I%M%S", True, False), ("%Y%m%d_%I%M%S%p", True, True), ("%Y%m%d", True, False),
    ],
)  # fmt: skip
def test_a_date_format_says_the_whole_date(form, with_time, is_whole):
    if is_whole:
        check_date_format(form, with_time=with_time)
        return
    with pytest.raises(SettingsError, match="date_format"):
        check_date_format(form, with_time=with_time)


# -- globs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "path", "is_of_it"),
    [
        ("*.h5", "/lab/jobs/a.h5", True), ("*.h5", "/far/away/a.h5", True), ("*.h5", "/lab/jobs/a.h5/b", False),
        ("a?.h5", "/x/a1.h5", True), ("a[12].h5", "/x/a3.h5", False), ("a[!12].h5", "/x/a3.h5", True),
        ("runs/*.h5", "/lab/jobs/runs/a.h5", True), ("runs/*.h5", "/lab/jobs/runs/x/a.h5", False),
        ("./runs/*.h5", "/lab/jobs/runs/a.h5", True), ("runs/*.h5", "/other/runs/a.h5", False),
        ("runs/**/*.h5", "/lab/jobs/runs/a.h5", True), ("runs/**/*.h5", "/lab/jobs/runs/x/y/a.h5", True),
        ("runs/**", "/lab/jobs/runs/x/y/a.h5", True), ("runs/", "/lab/jobs/runs/x/y/a.h5", True),
        ("runs", "/lab/jobs/runs/a.h5", False), ("runs/a**b/c", "/lab/jobs/runs/axb/c", True),
        ("../data/**", "/lab/data/x/a.h5", True), ("**", "/any/thing", True), ("**/rot/**", "/lab/jobs/rot/a.h5", True),
        ("**/rot/**", "/far/rot/x/a.h5", True), ("**/rot/**", "/far/unrot/a.h5", False),
        ("/lab/jobs/runs/*.h5", "/lab/jobs/runs/a.h5", True), ("/lab/**/a.h5", "/lab/a.h5", True),
        ("/runs/*.h5", "/lab/jobs/runs/a.h5", False), ("*.H5", "/x/a.h5", False), ("x/*/", "/lab/jobs/x/y/", True),
        ("s3://bucket/**", "s3://bucket/x/a.h5", True), ("runs/*.h5", "s3://runs/a.h5", False),
    ],
)  # fmt: skip
def test_globs(glob, path, is_of_it):
    assert glob_matches(glob, path, FOLDER) is is_of_it


NAMES = st.text("ab.é[", min_size=1, max_size=6).filter(lambda name: name not in (".", ".."))


@given(st.lists(NAMES, min_size=1, max_size=6), st.data())
def test_a_glob_made_from_a_path_is_of_it(names, data):
    path = "/" + "/".join(names)
    wanted = [
        data.draw(st.sampled_from([name.replace("[", "[[]"), "*", "?" * len(name), name[0].replace("[", "[[]") + "*"]))
        for name in names
    ]
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(names))] * 2)))
    assert glob_matches("/" + "/".join(wanted), path)
    assert glob_matches("/" + "/".join([*wanted[:a], "**", *wanted[b:]]), path)
    assert not glob_matches("/" + "/".join([*wanted, "more"]), path)


def test_a_glob_of_many_stars_takes_no_time():
    assert not glob_matches("/" + "**/" * 200 + "*a" * 100 + "b", "/" + "a/" * 1000 + "a" * 255)


# -- what a rule may be ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "message", "hint"),
    [
        ("x", "is not a mapping", "match"),
        ({}, "neither match nor regex", "one pattern"),
        ({"set": {"fps": 1}}, "neither match nor regex", "one pattern"),
        ({"match": "*", "regex": "x", "set": {"fps": 1}}, "both match and regex", "one pattern"),
        ({"match": "*", "sets": {"fps": 1}}, "unknown key 'sets'", "did you mean 'set'?"),
        ({"match": "*", "fps": 1}, "unknown key 'fps'", "below set"),
        ({"glob": "*", "set": {"fps": 1}}, "unknown key 'glob'", "known keys: match"),
        ({"match": 3, "set": {"fps": 1}}, "match is not a text", "quotes"),
        ({"match": "", "set": {"fps": 1}}, "match is not a text", "quotes"),
        ({"regex": ["a"], "set": {"fps": 1}}, "regex is not a text", "quotes"),
        ({"match": "*"}, "says nothing", "set"),
        ({"match": "*", "set": {}}, "says nothing", "set"),
        ({"regex": "abc"}, "says nothing", "named groups"),
        ({"match": "*", "set": [1]}, "set is not a mapping", "set:"),
        ({"match": "*", "set": {"fsp": 1}}, "unknown key 'fsp'", "did you mean 'fps'?"),
        ({"match": "*", "set": {"fps": "fast"}}, "fps: Input should be a valid number", None),
        ({"match": "*", "set": {"roi": [1, 2]}}, "roi: [1, 2] is no region", "LEFT,TOP"),
        ({"match": "*", "set": {"chunk-size": 1, "chunk_size": 2}}, "'chunk_size' twice", "one of them"),
        ({"match": "*", "set": {"sample": "{run}"}}, "sample has {run}, which is no group", "only a regex has groups"),
        ({"regex": "(?P<run>x)", "set": {"name": "{rum}"}}, "name has {rum}", "known: run; "),
        ({"regex": "(?P<run>x)", "set": {"tag": ["a", "{rum}"]}}, "tag has {rum}", "known: run; "),
        ({"regex": "(?P<run>x)", "set": {"fsp": "{run}"}}, "unknown key 'fsp'", "did you mean 'fps'?"),
        ({"regex": "(?P<run>x)", "set": {"name": "{run.real}"}}, "{run.real} is not the name of a group", "twice"),
        ({"regex": "(?P<run>x)", "set": {"name": "{run!r}"}}, "{run!r} is not the name of a group", "twice"),
        ({"regex": "(?P<run>x)", "set": {"name": "{run:>999999999}"}}, "{run:>999999999} is not the name", "twice"),
        ({"regex": "(?P<run>x)", "set": {"name": "{}"}}, "{} is not the name of a group", "twice"),
        ({"regex": "(?P<run>x)", "set": {"name": "a}"}}, "Single '}'", "twice"),
        ({"match": "*", "set": {"azimuth": "{100}"}}, "{100} is not the name of a group", "twice"),
        ({"regex": "(?P<sampel>x)"}, "the group 'sampel' is used nowhere", "did you mean 'sample'?"),
        ({"regex": "(?P<qqq>x)"}, "the group 'qqq' is used nowhere", "known: sample"),
        ({"match": "*", "date_format": "%Y%m%d", "set": {"fps": 1}}, "no group date", None),
        ({"regex": "(?P<date>x)", "date_format": "%m%d"}, "does not say the whole date", "%Y"),
        ({"regex": "(?P<datetime>x)", "date_format": "%Y%m%d"}, "the whole date and time", "%H"),
        ({"regex": "(?P<date>x)", "date_format": 3}, "date_format is not a text", "quotes"),
        ({"regex": "ab(c"}, "missing ), unterminated subpattern at character 3: '(c'", "(?P<sample>...)"),
        ({"regex": "*a"}, "nothing to repeat at character 1", "single quotes"),
        ({"regex": "(?P<a b>x)"}, "bad character in group name 'a b' at character 5", "(?P<sample>...)"),
        ({"regex": "a{99999999999999}"}, "the regex cannot be", "simpler"),
        ({"regex": "(" * 3000 + ")" * 3000 + "a" * 0}, "too long", None),
        ({"regex": "(" * 2000 + ")" * 2000}, "the regex cannot be", "simpler"),
    ],
    ids=lambda value: str(value)[:60],
)  # fmt: skip
def test_what_is_no_rule(rule, message, hint):
    error = refused({"match": "*", "set": {"fps": 1}}, rule)
    assert str(error).startswith("rule 2 of the job")
    assert message in str(error)
    assert (error.hint is None) if hint is None else (hint in error.hint)


@pytest.mark.parametrize("key", sorted(JOB_KEYS | {"api_key", "AS_API_KEY", "commanded", "from_"}))
def test_what_is_of_the_whole_job_stands_in_no_rule(key):
    error = refused({"match": "*", "set": {key: "x"}})
    assert repr(key) in str(error)
    assert ("AS_API_KEY" in error.hint) == ("key" in key.lower())


def test_keys_of_a_run_and_of_the_job_are_all_keys():
    assert {"fps", "from", "until", "roi", "tag", "group", "follow", "log_start"} <= set(RUN_KEYS)
    assert not JOB_KEYS & set(RUN_KEYS)


def test_a_regex_that_python_only_warns_of_is_taken():
    assert rule_from({"regex": "[[a](?P<sample>x)"}, "here").groups("/[x") == {"sample": "x"}


def test_rules_are_a_list():
    with pytest.raises(SettingsError, match="rules is not a list") as caught:
        rules_from({"match": "*"}, "the job", FOLDER)
    assert "dash" in caught.value.hint


# -- what a rule reads -------------------------------------------------------------------------------------------------


def of(rule: dict, path: str = FILE, **settings) -> BackfillSettings:
    return settings_for(job(rule, **settings), path)


def test_every_group_becomes_its_setting():
    regex = (
        r"/(?P<project>\w+)/(?P<sample>[^/_]+)_(?P<name>\w+?)_(?P<azimuth>\d+)_(?P<fps>[\d.]+)fps_(?P<rpm>\d+)rpm_"
        r"(?P<tag>\w+)_(?P<date>\d{8})_(?P<time>\d{6})_(?P<timezone>UTC)_(?P<run>\d+)\.avi$"
    )
    path = "/p1/STO-17_growth_110_29.97fps_0rpm_archive_20231003_161713_UTC_4.avi"
    settings = of({"regex": regex}, path)
    changed = {name: getattr(settings, name) for name in settings.model_fields_set - {"rules"}}
    assert changed == {
        "project": "p1", "sample": "STO-17", "name": "growth 4", "azimuth": "110", "fps": 29.97,
        "rotations_per_min": 0.0, "tag": ("archive",), "start": "2023-10-03T16:17:13", "timezone": "UTC",
        "start_said_by": "file name",
    }  # fmt: skip
    options = settings.source_options()
    assert (options.start_ns, options.start_said_by) == (1_696_349_833_000_000_000, "file name")


def test_a_start_that_was_read_needs_a_zone():
    settings = of({"regex": r"(?P<datetime>\d{8}-\d{6})"})
    with pytest.raises(SettingsError, match=r"that a rule read from the path.*has no zone") as caught:
        settings.source_options()
    assert "--timezone" in caught.value.hint


def test_other_paths_are_not_of_the_rule():
    settings = job(
        {"regex": r"_(?P<sample>x)\.avi$", "set": {"fps": 3}}, {"match": "*.avi", "set": {"fps": 4}}, fps=2.0
    )
    assert settings_for(settings, FILE) == settings


@pytest.mark.parametrize(
    ("regex", "values", "expected"),
    [
        (r"/(?P<sample>[^/_]+)_", {"name": "growth of {sample}"}, "growth of STO-17"),
        (r"/(?P<material>[A-Z]+)-(?P<number>\d+)", {"name": "{material}{number} {{x}}"}, "STO17 {x}"),
        (r"/(?P<name>STO)", {}, "STO"),
        (r"/(?P<name>STO)", {"name": "{name}!"}, "STO!"),
        (r"/(?P<name>STO)(?P<more>x)?", {"name": "{more}"}, "STO"),
        (r"/(?P<sample>STO)(?P<more>x)?", {"name": "{sample}{more}"}, "from the job"),
    ],
)
def test_groups_fill_in_what_is_set(regex, values, expected):
    assert of({"regex": regex, "set": values}, name="from the job").name == expected


@pytest.mark.parametrize(
    ("regex", "values", "tag"),
    [
        ("(?P<a>STO)-(?P<more>x)?", {"tag": ["{a}", "b", "{more}"]}, ("STO", "b")),
        ("(?P<a>STO)", {"tag": "{a}"}, ("STO",)),
        ("(?P<tag>STO)", {}, ("STO",)),
        ("(?P<tag>STO)", {"tag": []}, ()),
        ("STO-(?P<more>x)?", {"tag": ["{more}"]}, ("of the job",)),
    ],
)
def test_lists_are_filled_in_too(regex, values, tag):
    assert of({"regex": regex, "set": values}, tag=("of the job",)).tag == tag


def test_a_rule_may_say_what_is_one_growth():
    assert of({"regex": r"/(?P<sample>\w+)-(?P<day>\d+)", "set": {"group": "{sample} {day}"}}).group == "STO 17"


def test_a_value_that_was_read_and_cannot_be_names_rule_and_path():
    with pytest.raises(SettingsError, match=f"rule 1 of the job, of {FILE}: fps: .*got 'STO'"):
        of({"regex": "/(?P<fps>STO)"})
    with pytest.raises(SettingsError, match=r"rule 1 of the job, of s3://bucket/a\.h5: fps") as caught:
        of({"regex": "/(?P<fps>a).h5"}, "s3://key:secret@bucket/a.h5?token=secret")
    assert "secret" not in str(caught.value)


def test_a_date_that_may_be_two_names_the_rule():
    rule = {"regex": r"(?P<date>\d{8})-(?P<time>\d{6})"}
    with pytest.raises(SettingsError, match=r"rule 1 of the job: group date in /x/06072022-161713\.h5") as caught:
        of(rule, "/x/06072022-161713.h5")
    assert "date_format" in caught.value.hint
    assert of({**rule, "date_format": "%d%m%Y"}, "/x/06072022-161713.h5").start == "2022-07-06T16:17:13"
    with pytest.raises(SettingsError, match=r"group time in .*'251713' is no time of day"):
        of(rule, "/x/20231003-251713.h5")
    with pytest.raises(SettingsError, match="is not written as date_format"):
        of({**rule, "date_format": "%Y%m%d"}, "/x/06072022-161713.h5")


def test_a_date_alone_is_no_start():
    """Not even one that may be two."""
    for text in ("20231003", "06072022"):
        assert of({"regex": r"(?P<date>\d{8})", "set": {"name": "of {date}"}}, f"/x/{text}.h5").start is None


def test_date_and_time_may_be_read_by_different_rules():
    settings = job({"regex": r"/(?P<date>\d{4}-\d\d-\d\d)/"}, {"regex": r"/(?P<time>\d{6})[^/]*$"})
    assert settings_for(settings, "/x/2023-10-03/161713.h5").start == "2023-10-03T16:17:13"
    assert settings_for(settings, "/x/2023-10-03/a.h5").start is None
    assert settings_for(settings, "/x/161713.h5").start is None


@pytest.mark.parametrize(
    ("rule", "start", "said_by"),
    [
        ({"match": "*", "set": {"start": "2023-10-03T16:00:00Z"}}, "2023-10-03T16:00:00Z", "user"),
        ({"regex": r"_(?P<y>\d{4})", "set": {"start": "{y}-01-01T00:00:00Z"}}, "2023-01-01T00:00:00Z", "file name"),
        (
            {"regex": r"(?P<datetime>\d{8}-\d{6})", "set": {"start": "2023-10-03T16:00:00Z"}},
            "2023-10-03T16:00:00Z",
            "user",
        ),
        ({"regex": r"(?P<datetime>\d{8}-\d{6})"}, "2023-10-03T16:17:13", "file name"),
        ({"match": "*.avi", "set": {"fps": 1}}, "2001-01-01T00:00:00Z", "user"),
    ],
)
def test_who_says_the_start(rule, start, said_by):
    settings = of(rule, start="2001-01-01T00:00:00Z", timezone="UTC")
    assert (settings.start, settings.start_said_by) == (start, said_by)
    assert settings.source_options().start_said_by == said_by


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"name": "growth"}, "growth 4"), ({"sample": "STO"}, "STO 4"),
        ({"name": "growth", "sample": "STO"}, "growth 4"),
        ({}, None), ({"name": "typed", "commanded": frozenset({"name"})}, "typed"),
    ],
)  # fmt: skip
def test_the_number_of_a_run_ends_its_name(settings, name):
    assert of({"regex": r"rec-(?P<run>\d+)"}, "/x/rec-4.h5", **settings).name == name


def test_a_dataset_is_seen_by_patterns_that_ask_for_it():
    both = [
        {"regex": r"(?P<sample>\w+)\.h5$"}, {"regex": r"::/growth_(?P<run>\d+)$", "set": {"name": "growth"}},
        {"match": "*.h5", "set": {"fps": 3}}, {"match": "**/*.h5::/*", "set": {"every": 2}},
    ]  # fmt: skip
    settings = settings_for(job(*both), "/x/a.h5::/growth_4")
    assert (settings.sample, settings.name, settings.fps, settings.every) == ("a", "growth 4", 3.0, 2)


def test_a_path_without_end_is_refused():
    assert of({"regex": "(?P<sample>a+)"}, "a" * MAX_PATH).sample == "a" * MAX_PATH
    with pytest.raises(SettingsError, match="rule 1 of the job: a path of 4097 characters"):
        of({"regex": "(?P<sample>a+)"}, "a" * (MAX_PATH + 1))


def test_relative_globs_begin_at_the_job_files_folder_or_where_they_are_told(tmp_path):
    settings = job({"match": "runs/*.h5", "set": {"fps": 3}})
    assert settings_for(settings, FILE).fps == 3.0
    assert settings_for(settings, str(tmp_path / "runs/a.h5")).fps is None
    assert settings_for(settings, str(tmp_path / "runs/a.h5"), root=tmp_path).fps == 3.0


# -- who wins ----------------------------------------------------------------------------------------------------------

SIDECAR = {"fps": 3, "azimuth": "beside", "files": {"*.h5": {"every": 3}, "STO*": {"every": 4}, "*.avi": {"every": 5}}}


@pytest.mark.parametrize(
    ("given", "rules", "beside", "fps"),
    [
        ([], [], None, 1.0),
        ([], [2], None, 2.0),
        ([], [2, 2.5], None, 2.5),
        ([], [2.5, 2], None, 2.0),
        ([], [2], 3, 3.0),
        ([], [], 3, 3.0),
        (["fps"], [2], 3, 1.0),
        (["fps"], [], 3, 1.0),
        (["fps"], [2], None, 1.0),
        (["every"], [2], 3, 3.0),
    ],
)
def test_command_over_sidecar_over_rules_over_job(given, rules, beside, fps):
    settings = job(*({"match": "*", "set": {"fps": rule}} for rule in rules), fps=1.0, commanded=frozenset(given))
    sidecar = None if beside is None else sidecar_from({"fps": beside}, "/lab/jobs/runs/growth.yaml")
    assert settings_for(settings, FILE, sidecar).fps == fps


def test_a_sidecar_says_more_of_single_files():
    sidecar = sidecar_from(SIDECAR, "/lab/jobs/growth.yaml")
    settings = settings_for(BackfillSettings(sample="job"), FILE, sidecar)
    assert (settings.fps, settings.azimuth, settings.every, settings.sample) == (3.0, "beside", 4, "job")
    assert settings_for(BackfillSettings(), "/lab/jobs/x/b.h5", sidecar).every == 3
    assert settings_for(BackfillSettings(), "/lab/jobs/x/b.imm", sidecar).every == 1
    relative = sidecar_from({"files": {"runs/*.h5": {"every": 2}}}, "/lab/jobs/growth.yaml")
    assert settings_for(BackfillSettings(), FILE, relative).every == 2
    assert settings_for(BackfillSettings(), "/lab/jobs/x/runs/b.h5", relative).every == 1


def test_a_sidecar_takes_back_with_null():
    sidecar = sidecar_from({"azimuth": None, "roi": None}, "/lab/jobs/runs/growth.yaml")
    settings = of({"match": "*", "set": {"azimuth": "[110]", "roi": "1,2,3,4"}})
    assert (settings.azimuth, settings.roi) == ("[110]", (1, 2, 3, 4))
    settings = settings_for(job({"match": "*", "set": {"azimuth": "[110]", "roi": "1,2,3,4"}}), FILE, sidecar)
    assert (settings.azimuth, settings.roi) == (None, None)


@pytest.mark.parametrize(
    ("commanded", "start", "said_by"),
    [((), "2023-10-03T16:17:00Z", "sidecar"), (("start",), "2001-01-01T00:00:00Z", "user")],
)
def test_a_start_of_the_sidecar_is_said_by_it(commanded, start, said_by):
    settings = job(
        {"regex": r"(?P<datetime>\d{8}-\d{6})"}, start="2001-01-01T00:00:00Z", commanded=frozenset(commanded)
    )
    for content in ({"start": "2023-10-03T16:17:00Z"}, {"files": {"*.h5": {"start": "2023-10-03T16:17:00Z"}}}):
        own = settings_for(settings, FILE, sidecar_from(content, "/lab/jobs/runs/growth.yaml"))
        assert (own.start, own.start_said_by) == (start, said_by)


def test_a_name_of_the_sidecar_stands_as_it_is():
    settings = job({"regex": r"-(?P<run>\d+)_", "set": {"name": "growth"}})
    assert settings_for(settings, FILE).name == "growth 17"
    assert settings_for(settings, FILE, sidecar_from({"name": "this"}, "/lab/jobs/runs/growth.yaml")).name == "this"
    beside = sidecar_from({"sample": "S"}, "/lab/jobs/runs/growth.yaml")
    assert settings_for(job({"regex": r"-(?P<run>\d+)_"}), FILE, beside).name == "S 17"


def test_settings_with_rules_travel():
    settings = job({"regex": r"/(?P<sample>[^/_]+)_", "set": {"tag": ["{sample}"]}})
    assert pickle.loads(pickle.dumps(settings)) == settings
    assert settings_for(pickle.loads(pickle.dumps(settings)), FILE).tag == ("STO-17",)


WORDS = st.text("abcXYZ0123456789-+. é{}", min_size=1, max_size=20)


@given(WORDS, WORDS)
def test_what_was_read_is_what_is_set(sample, name):
    rule = {"regex": r"^/(?P<sample>[^/]*)/(?P<other>[^/]*)$", "set": {"name": "a{other}{{}}b"}}
    settings = of(rule, f"/{sample}/{name}")
    assert (settings.sample, settings.name) == (sample, f"a{name}{{}}b")


@given(st.text(max_size=40), st.sampled_from(["match", "regex"]), st.text(max_size=20))
def test_any_pattern_is_a_rule_or_a_named_error(pattern, kind, name):
    try:
        rules = rules_from([{kind: pattern, "set": {"name": name}}], "the job", FOLDER)
    except SettingsError as exc:
        assert re.match("rule 1 of the job", str(exc))  # noqa: PT017 - both ends are right
    else:
        own = settings_for(BackfillSettings(rules=rules), FILE)
        assert own.name in (None, name.format())
