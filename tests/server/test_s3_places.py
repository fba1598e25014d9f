"""Which data a server takes, and that it has it for itself."""

# ruff: noqa: F811 - fixtures are imported, and asked for by name

import dataclasses
import shutil
import sys

import pytest

from ingest.cli import main as cli_main
from ingest.errors import SettingsError
from ingest.server.__main__ import main as server_main
from ingest.server.place import OWNER_NAME, state_folder
from ingest.shard import pack
from tests.s3 import BUCKET
from tests.server.conftest import frames_of, metadata
from tests.server.s3_api import URL, gate, settings, staged_key, start  # noqa: F401  fixtures


class TestPlaces:
    @pytest.mark.parametrize(
        ("url", "message"),
        [
            ("memory://lab", r"memory://lab: no URLs are known here by which clients could upload"),
            ("gs://lab/rheed", r"gs://lab/rheed: no URLs are known here"),
            ("https://lab.example/x", r"nothing can be stored at https:// URLs"),
            ("s3://key:hunter2@lab/rheed", r"password|key"),
            ("s3://no-such-bucket/rheed", r"cannot keep data at s3://no-such-bucket/rheed: .*no such bucket"),
        ],
    )
    def test_data_that_cannot_be_there_is_refused(self, start, settings, url, message):
        with pytest.raises(SettingsError, match=message) as caught:
            start(dataclasses.replace(settings, data=url))
        assert "hunter2" not in str(caught.value)
        assert caught.value.hint

    def test_a_folder_has_no_state_folder_of_its_own(self, start, settings, tmp_path):
        with pytest.raises(SettingsError, match="a state folder is for data at a URL"):
            start(dataclasses.replace(settings, data=tmp_path / "data"))

    def test_a_folder_may_be_named_as_text(self, settings, tmp_path):
        for text in (str(tmp_path / "data"), f"file://{tmp_path}/data"):
            assert state_folder(dataclasses.replace(settings, data=text, state=None)) == tmp_path / "data"

    def test_the_state_folder_is_named_after_the_url(self, settings, tmp_path, monkeypatch):
        plain = dataclasses.replace(settings, state=None)
        folder = state_folder(plain)
        assert folder.parent == tmp_path / "xdg-state/rheed-ingest/servers"
        assert folder.name.startswith("lab-runs-rheed-")
        assert state_folder(dataclasses.replace(plain, data=f"{URL}/")) == folder
        assert state_folder(dataclasses.replace(plain, data=f"{URL}-2")) != folder

    def test_a_state_folder_that_cannot_be_is_refused(self, start, settings, tmp_path):
        (tmp_path / "file").write_text("x")
        with pytest.raises(SettingsError, match=r"cannot use .*file/state for the catalogue of s3://lab-runs/rheed"):
            start(dataclasses.replace(settings, state=tmp_path / "file/state"))

    def test_a_second_server_is_refused(self, start):
        start()
        with pytest.raises(SettingsError, match=r"another server is using .*state"):
            start()

    def test_a_server_with_another_catalogue_is_refused_and_touches_nothing(self, start, settings, tmp_path):
        api = start()
        url = api.url(api.create(), 0, metadata())
        api.put(url, pack(frames_of(4)).tobytes())
        with pytest.raises(SettingsError, match="belongs to a server whose catalogue is not in") as caught:
            start(dataclasses.replace(settings, state=tmp_path / "other"))
        assert OWNER_NAME in caught.value.hint
        assert staged_key(url) in api.objects()

    def test_a_catalogue_of_other_data_is_refused(self, start, settings):
        start().platform.close()
        with pytest.raises(SettingsError, match=r"is the catalogue of s3://lab-runs/rheed, not of s3://lab-runs/other"):
            start(dataclasses.replace(settings, data=f"s3://{BUCKET}/other"))

    def test_a_lost_state_folder_is_named_and_can_be_given_up(self, start, settings, tmp_path):
        api = start()
        api.platform.close()
        shutil.rmtree(tmp_path / "state")
        with pytest.raises(SettingsError, match="belongs to a server"):
            start()
        api.s3.delete_object(Bucket=BUCKET, Key=f"rheed/{OWNER_NAME}")
        start()

    @pytest.mark.parametrize("program", [cli_main, server_main], ids=["rheed-ingest serve", "python -m ingest.server"])
    def test_the_command_line_says_what_works(self, program, capsys, tmp_path, monkeypatch):
        for options in (["--data", "memory://lab"], ["--data", str(tmp_path), "--state", str(tmp_path)]):
            command = ["serve", *options] if program is cli_main else options
            monkeypatch.setattr(sys, "argv", ["rheed-ingest", *command])
            with pytest.raises(SystemExit) as ended:
                sys.exit(program())
            assert ended.value.code == 2
        said = capsys.readouterr().err
        assert "hint: use a folder, or s3://bucket/path" in said
        assert "hint: leave out --state" in said
