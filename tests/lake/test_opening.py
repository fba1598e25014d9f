"""Which store a URL means, and how it is written."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

from ingest.errors import SettingsError
from ingest.lake.fsspec_store import FsspecStore
from ingest.lake.local_store import LocalStore
from ingest.lake.opening import canonical_lake_url, open_store
from ingest.lake.s3_store import S3Store
from tests.s3 import SECRET


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("/data/lake/", "/data/lake"),
        ("/data/a/../lake//x", "/data/lake/x"),
        ("~/lake", str(Path.home() / "lake")),
        ("lake?#", f"{Path.cwd()}/lake?#"),
        ("file:///data/lake", "/data/lake"),
        ("file://localhost/data/lake/", "/data/lake"),
        ("S3://Lab/growth//", "s3://Lab/growth"),
        ("s3a://lab", "s3://lab"),
        ("gcs://lab/x", "gs://lab/x"),
        ("abfss://lake@account.dfs.core.windows.net/x", "abfs://lake@account.dfs.core.windows.net/x"),
        ("memory:///lab/", "memory://lab"),
        ("sftp://me@host/data", "sftp://me@host/data"),
    ],
)
def test_one_way_to_write_each(url, canonical):
    assert canonical_lake_url(url) == canonical
    assert canonical_lake_url(canonical) == canonical


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "no lake"),
        ("/a\nb", "no lake"),
        (f"s3://key:{SECRET}@lab/x", "password"),
        (f"s3://{SECRET}@lab/x", "must not hold a key"),
        (f"s3://lab/x?versionId={SECRET}", "no query"),
        (f"s3://lab/x#{SECRET}", "and no fragment"),
        ("simplecache::s3://lab/x", "URL has no ::"),
        (f"zip://a::s3://key:{SECRET}@lab/x", "URL has no ::"),
        ("https://api.example.org/lake", "nothing can be stored at https"),
        ("s3://", "write scheme://bucket/path"),
        ("s3:///x", "write scheme://bucket/path"),
        ("s3://lab/../x", "write scheme://bucket/path"),
        ("s3://lab//x", "write scheme://bucket/path"),
        ("file://server/share", "absolute path of this machine"),
        ("file://relative", "absolute path of this machine"),
    ],
)
def test_what_is_no_lake(url, words):
    with pytest.raises(SettingsError) as caught:
        open_store(url)
    assert words in f"{caught.value} {caught.value.hint}"
    assert caught.value.hint
    assert SECRET not in str(caught.value)


def test_each_kind_has_its_store(tmp_path, aws_environment):
    for url, kind in ((str(tmp_path), LocalStore), ("memory://x", FsspecStore), ("s3://lab/x", S3Store)):
        store = open_store(url)
        assert type(store) is kind
        assert store.url == url
        store.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "module", "hint"),
    [
        ("s3://lab/x", "s3fs", "pip install 'rheed-ingest[s3]'"),
        ("gs://lab/x", "gcsfs", "pip install gcsfs"),
        ("abfs://lab/x", "adlfs", "pip install adlfs"),
    ],
)
def test_a_missing_client_is_named(monkeypatch, url, module, hint):
    monkeypatch.setitem(sys.modules, module, None)
    registry = importlib.import_module("fsspec.registry")._registry
    monkeypatch.delitem(registry, url.partition(":")[0], raising=False)
    with pytest.raises(SettingsError) as caught:
        open_store(url)
    assert caught.value.hint == hint


def test_a_scheme_that_nobody_knows():
    with pytest.raises(SettingsError, match="there are no nonsense:// URLs"):
        open_store("nonsense://lab/x")
