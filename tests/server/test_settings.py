import pytest

from ingest.errors import SettingsError
from ingest.server.settings import ServerSettings, load_keys, new_key
from ingest.telemetry import Secret


def test_keys_are_one_a_line(tmp_path):
    assert load_keys({"AS_API_KEY": " one \n\ntwo\r\n"}) == (Secret("one"), Secret("two"))
    assert load_keys({}) == ()
    file = tmp_path / "keys"
    file.write_text("three\nfour")
    assert load_keys({"AS_API_KEY": "one"}, file) == (Secret("three"), Secret("four"))


def test_a_key_file_without_keys_is_refused(tmp_path):
    with pytest.raises(SettingsError, match="cannot read"):
        load_keys({}, tmp_path / "nowhere")
    (tmp_path / "empty").write_text("\n")
    with pytest.raises(SettingsError, match="has no API key"):
        load_keys({}, tmp_path / "empty")


def test_new_keys_differ():
    assert new_key() != new_key()


@pytest.mark.parametrize(
    "change",
    [
        {"api_keys": ()},
        {"api_keys": (Secret(""),)},
        {"api_keys": (Secret("schl\u00fcssel"),)},
        {"silent_stream_s": 0},
        {"upload_url_ttl_s": float("nan")},
        {"max_shard_bytes": -1},
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path, change):
    with pytest.raises(SettingsError):
        ServerSettings(**{"data": tmp_path, "api_keys": (Secret("k"),), **change})


def test_keys_are_not_in_the_repr(tmp_path):
    assert "hidden" not in repr(ServerSettings(tmp_path, (Secret("hidden"),)))
