import stat

from ingest.server.signing import load_secret
from ingest.shard import pack
from tests.server.conftest import frames_of, metadata


def test_the_secret_is_made_once_and_private(tmp_path):
    path = tmp_path / "secret"
    (tmp_path / "secret.part").write_text("left by a crash")
    secret = load_secret(path)
    assert load_secret(path) == secret
    assert len(secret.reveal()) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_secret(tmp_path / "other") != secret


def test_a_url_survives_a_restart(api, start):
    data_id = api.create()
    url = api.url(data_id, 0, metadata())
    api.platform.close()
    assert start().put(url, pack(frames_of(4)).tobytes()).status_code == 200


def test_the_secret_is_in_no_answer(api, settings):
    secret = (settings.data / ".signing-secret").read_text()
    assert secret not in api.url(api.create(), 0, metadata())
    assert secret not in repr(api.platform.settings)
