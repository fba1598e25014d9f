"""What all tests share: a clean environment, one Ray a session, one embedded platform a session."""

from __future__ import annotations

import os

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled", RAY_DEDUP_LOGS="0")

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from ingest.server.run import ServerProcess, start_server_process
from tests.s3 import aws_environment, s3, s3_server  # noqa: F401  fixtures
from tests.support import KEY

settings.register_profile("same", derandomize=True)  # a change that breaks something breaks it in every run
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No key, endpoint or journal of the developer's reaches a test."""
    for name in ("AS_API_KEY", "AS_API_ENDPOINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "xdg-state"))


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One local Ray for all tests that need one."""
    import ray

    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:
        ray.init(
            address="local",
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            _temp_dir=short,
            log_to_driver=False,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="session")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    """One embedded platform in a process of its own."""
    with start_server_process(tmp_path_factory.mktemp("platform"), api_key=KEY, fsync=False) as server:
        yield server
