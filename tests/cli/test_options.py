"""What the command line gives, and what it wins over."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from ingest.cli.options import merged_settings, source_options, stream_options
from ingest.config import BackfillSettings, run_settings
from ingest.errors import SettingsError
from ingest.settings import RUN_KEYS
from ingest.sources.base import FrameWindow


@click.command()
@click.argument("sources", nargs=-1)
@click.option("--restart", is_flag=True)
@stream_options
@source_options
def command(sources, **given) -> BackfillSettings:
    return merged_settings(sources, given)


def settings(*arguments: object) -> BackfillSettings:
    return command.main([str(argument) for argument in arguments], standalone_mode=False)


def test_each_setting_of_a_run_is_an_option():
    assert {parameter.name for parameter in command.params} - {"sources", "restart"} == set(RUN_KEYS)


def test_help_says_what_must_be_said():
    text = " ".join(CliRunner().invoke(command, ["--help"]).output.split())
    assert "0: stationary. Must be said." in text


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ("--orientation flip-lr", {"orientation": "flip-lr"}),
        ("--roi 1,2,3,4", {"roi": (1, 2, 3, 4)}),
        ("--every 3", {"every": 3}),
        ("--from 2m --until 2023-10-18T08:00Z", {"from_": 120.0, "until": "2023-10-18T08:00Z"}),
        ("--expand-range --no-apply-rotation", {"expand_range": True, "apply_rotation": False}),
        ("--colour mean", {"colour": "mean"}),
        ("--color mean", {"colour": "mean"}),
        ("--raw-shape 480x640 --raw-dtype <uint16 --raw-header-bytes 8",
         {"raw_shape": (480, 640), "raw_dtype": "<u2", "raw_header_bytes": 8}),
        ("--log-start 2023-10-18T08:00Z", {"log_start": "2023-10-18T08:00Z"}),
        ("--points-per-chunk 5 --instrument 7", {"points_per_chunk": 5, "instrument": 7}),
        ("--group none", {"group": "none"}),
        ("--follow=2m", {"follow": 120.0}),
        ("--follow", {"follow": 30.0}),
        ("--follow --every 2", {"follow": 30.0, "every": 2}),
        ("--rotations-per-min 0", {"rotations_per_min": 0.0}),
        ("--restart --tag a --tag b", {"restart": True, "tag": ("a", "b")}),
        ("", {}),
    ],
)  # fmt: skip
def test_what_options_give(arguments, expected):
    given = settings("a.h5", *arguments.split())
    assert {name: getattr(given, name) for name in expected} == expected
    assert given.commanded == frozenset(expected)
    assert given.sources == ("a.h5",)
    unset = BackfillSettings()
    assert all(getattr(given, name) == getattr(unset, name) for name in set(RUN_KEYS) - {"from"} - set(expected))


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        ("--roi 1,2", "roi: '1,2' is no region", "LEFT,TOP,WIDTH,HEIGHT"),
        ("--raw-dtype u2", "raw_dtype", "<u2"),
        ("--from soon", "from: 'soon'", "12.5"),
        ("--follow a.h5", "follow: 'a.h5' is no length of time", "comes last"),
        ("--every 0", "every", None),
    ],
)
def test_what_options_cannot_be(arguments, message, hint):
    with pytest.raises(SettingsError) as caught:
        settings(*arguments.split())
    assert str(caught.value).startswith("the command: ")
    assert message in str(caught.value)
    assert hint is None or hint in caught.value.hint


def test_the_command_wins_over_job_rules_and_sidecar(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    job = tmp_path / "job.yaml"
    job.write_text(
        "{sources: [data], expand_range: true, fps: 1, every: 2, rules: [{match: '*', set: {fps: 2, every: 3}}]}"
    )
    (data / "growth.yaml").write_text("{fps: 3, expand_range: true, from: 5}")
    own = settings(job, data / "more.h5", "--fps", 4, "--no-expand-range")
    assert own.sources == (str(data), str(data / "more.h5"))
    run = run_settings(own, str(data / "a.h5"), own.sources)
    assert (run.fps, run.expand_range, run.every) == (4.0, False, 3)
    assert run.source_options().window == FrameWindow(from_s=5.0, every=3)


def test_a_sidecar_among_the_sources_is_no_job_file(tmp_path, capsys):
    (tmp_path / "day").mkdir()
    sidecar = tmp_path / "growth.yaml"
    sidecar.write_text("{sample: S, files: {}}")
    own = settings(sidecar, tmp_path / "day")
    assert own.sources == (str(tmp_path / "day"),)
    assert "no job file" in capsys.readouterr().err
    assert run_settings(own, str(tmp_path / "day/a.h5"), own.sources).sample == "S"
    with pytest.raises(SettingsError, match="is no job file") as caught:
        settings(sidecar)
    assert "folder" in caught.value.hint
