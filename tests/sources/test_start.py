"""When a run began: the table of evidence."""

import datetime as dt

import pytest

from ingest.errors import SettingsError, SourceTimeError
from ingest.sources.start import ResolvedStart, StartEvidence, parse_time, resolve_start, unix_number_to_ns

S = 1_000_000_000
AT = int(dt.datetime(2023, 10, 3, 14, 17, 13, tzinfo=dt.UTC).timestamp()) * S  # 16:17:13 in Copenhagen
CPH = "Europe/Copenhagen"


@pytest.mark.parametrize(
    ("evidence", "start_ns", "start_from"),
    [
        ({"user_ns": 5, "frame_ns": 6, "attribute": "garbage"}, 5, "user"),
        ({"user_ns": 5, "user_from": "sidecar", "frame_ns": 6}, 5, "sidecar"),
        ({"user_ns": 5, "user_from": "file name", "frame_ns": 6}, 6, "frame stamps"),
        ({"user_ns": 5, "user_from": "file name", "attribute": "2023-10-03T14:17:13Z"}, AT, "file attributes"),
        ({"user_ns": 5, "user_from": "file name", "file_name": "20200101-000000Z.h5"}, 5, "file name"),
        (
            {"container_tag": "2023-10-03T14:17:13Z", "file_name": "20231003-141713Z.mp4", "mtime_ns": 3},
            AT,
            "file name",
        ),
        ({"frame_ns": 6, "attribute": "2023-10-03T14:17:13Z"}, 6, "frame stamps"),
        (
            {"attribute": "2023-10-03T14:17:13Z", "file_name": "20200101-000000.h5", "timezone": "UTC"},
            AT,
            "file attributes",
        ),
        ({"attribute": "2023-10-03 16:17:13", "timezone": CPH}, AT, "file attributes"),
        ({"attribute": "2023-10-03T16:17:13.25+02:00"}, AT + S // 4, "file attributes"),
        ({"attribute": "2023-10-03T16:17:13.123456789+0200"}, AT + 123_456_789, "file attributes"),
        ({"attribute": "2023-10-03T09:47:13-04:30"}, AT, "file attributes"),
        ({"attribute": "1696342633000"}, AT, "file attributes"),
        ({"attribute": 1696342633}, AT, "file attributes"),
        ({"attribute": 1696342633.5}, AT + S // 2, "file attributes"),
        ({"attribute": 1696342633000000}, AT, "file attributes"),
        ({"attribute": AT}, AT, "file attributes"),
        ({"file_name": "output_video_20231003-161713.h5", "timezone": CPH}, AT, "file name"),
        ({"file_name": "2023-10-03_16-17-13_STO.h5", "timezone": CPH}, AT, "file name"),
        ({"file_name": "2023-10-03T16.17.13.h5", "timezone": CPH}, AT, "file name"),
        ({"file_name": "STO_2023_10_03_16_17_13.h5", "timezone": CPH}, AT, "file name"),
        ({"file_name": "20231003_161713.250.h5", "timezone": CPH}, AT + S // 4, "file name"),
        ({"file_name": "20231003T141713Z.h5"}, AT, "file name"),
        ({"mtime_ns": AT + 7 * S, "duration_ns": 7 * S, "file_name": "a.h5"}, AT, "mtime"),
        ({}, None, None),
        ({"file_name": "growth_20231003.h5", "timezone": CPH}, None, None),
        ({"file_name": "99999999-999999.h5", "timezone": CPH}, None, None),
        ({"file_name": "1234567820231003-161713.h5", "timezone": CPH}, None, None),
    ],
)
def test_order_of_trust(evidence, start_ns, start_from):
    assert resolve_start(StartEvidence(**evidence)) == ResolvedStart(start_ns, start_from)


def test_a_name_without_a_zone_is_a_finding():
    found = resolve_start(StartEvidence(file_name="output_video_20231003-161713.h5"))
    assert (found.start_ns, found.start_from) == (None, None)
    assert "2023-10-03 16:17:13" in found.findings[0].message
    assert "zone" in found.findings[0].message


def test_an_attribute_that_is_no_time_is_a_finding_and_the_name_counts():
    found = resolve_start(StartEvidence(attribute="yesterday", file_name="20231003-161713.h5", timezone=CPH))
    assert (found.start_ns, found.start_from) == (AT, "file name")
    assert "yesterday" in found.findings[0].message


@pytest.mark.parametrize(
    ("evidence", "words"),
    [
        ({"attribute": "2023-10-03T16:17:13"}, "no time zone"),
        ({"attribute": "2023-10-29T02:30:00", "timezone": CPH}, "twice"),
        ({"attribute": "2023-03-26T02:30:00", "timezone": CPH}, "never"),
        ({"file_name": "20231029-023000.h5", "timezone": CPH}, "ambiguous"),
        ({"mtime_ns": AT}, "how long it took"),
    ],
)
def test_what_is_not_known_well_enough(evidence, words):
    with pytest.raises(SourceTimeError, match=words) as caught:
        resolve_start(StartEvidence(**evidence))
    assert caught.value.hint


@pytest.mark.parametrize("zone", ["Europe/Kopenhagen", "../etc/passwd", "", "Europe"])
def test_zones_that_are_none(zone):
    with pytest.raises(SettingsError, match="no time zone"):
        resolve_start(StartEvidence(attribute="2023-10-03T16:17:13", timezone=zone))


@pytest.mark.parametrize("text", ["", "2023-13-03T16:17:13Z", "2023-10-03", "now", "16:17:13", "2023-10-03T25:00:00Z"])
def test_texts_that_are_no_time(text):
    assert parse_time(text, "x", "UTC") is None


@pytest.mark.parametrize("value", [0, -1, 12.5, 999_999_999, 4.2e9, 5e10, 1e30, float("nan"), float("inf")])
def test_numbers_that_are_no_unix_time(value):
    assert unix_number_to_ns(value) is None


def test_a_container_tag_is_better_than_mtime_and_says_what_it_is():
    resolved = resolve_start(StartEvidence(container_tag="2023-10-03T14:17:13.000000Z", mtime_ns=3, duration_ns=1))
    assert (resolved.start_ns, resolved.start_from) == (AT, "container tag")
    assert "often that of an export" in resolved.findings[0].message
