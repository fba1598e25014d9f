"""Which format a file is of: by its first bytes, and by its name where these do not say."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from ingest.errors import UnclosedSourceError
from ingest.sources.base import SourceOptions
from ingest.sources.urls import redacted

__all__ = [
    "FORMATS",
    "HDF5_SIGNATURE",
    "HEAD_BYTES",
    "ZARR_NAMES",
    "ZARR_SUFFIX",
    "is_manifest",
    "is_zarr",
    "kind_of",
    "kind_of_url",
    "not_finished",
    "read_head",
]

HEAD_BYTES = 4096
FORMATS = (
    "HDF5, video (avi, mp4, mkv, mov, wmv, ...), kSA .imm and .img, TIFF, PNG, BMP, PGM, JPEG, Zarr; "
    "logs as CSV, TSV, PARADIM GM1 .txt, SAFIRE .asc, HDF5, Zarr"
)

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
HDF5_SUFFIXES = frozenset({".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx5", ".nexus"})
VIDEO_SUFFIXES = frozenset(
    {
        ".3gp", ".asf", ".avi", ".dv", ".f4v", ".flv", ".gif", ".h264", ".m2ts", ".m4v", ".mjpeg", ".mjpg", ".mkv",
        ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".mxf", ".nut", ".ogv", ".ts", ".vob", ".webm", ".wmv",
    }
)  # fmt: skip
IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".png", ".bmp", ".pgm", ".pnm", ".jpg", ".jpeg"})
RAW_SUFFIXES = frozenset({".raw", ".bin", ".dat"})
LOG_SUFFIXES = frozenset({".csv", ".tsv"})
# Sidecars: they describe a recording beside them.
SIDECARS = frozenset({"frames.csv", "recording.json", "growth.yaml", "growth.yml"})
ZARR_NAMES = ("zarr.json", ".zarray", ".zgroup")
"""The files of which one makes a folder a Zarr array or group."""

ZARR_SUFFIX = ".zarr"
MANIFEST = ".manifest.json"
# Bytes at their offsets. RIFF holds AVI and much else; an MP4's first box is named at offset 4.
_MAGIC: tuple[tuple[int, bytes, str], ...] = (
    (0, HDF5_SIGNATURE, "hdf5"),
    (39, b"KSA", "ksa"),
    (8, b"AVI ", "video"),
    (4, b"ftyp", "video"),
    (4, b"moov", "video"),
    (4, b"mdat", "video"),
    (0, b"\x1aE\xdf\xa3", "video"),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "video"),
    (0, b"II*\0", "images"),
    (0, b"MM\0*", "images"),
    (0, b"II+\0", "images"),
    (0, b"MM\0+", "images"),
    (0, b"\x89PNG\r\n\x1a\n", "images"),
    (0, b"\xff\xd8\xff", "images"),
)
_PGM = re.compile(rb"P[25]\s")
# PARADIM's logs and SAFIRE's point scans (FORMATS.md 1.2, 1.6); other text is a log only by its name.
_LOG_HEAD = re.compile(rb"(\xef\xbb\xbf)?(Elapsed time \[s\]\t|Recorded at \d{4}-\d{2}-\d{2})")


def read_head(path: str) -> bytes:
    """Return the first bytes of a regular file; nothing where there is none, or it cannot be read."""
    if not os.path.isfile(path):  # opening a pipe would wait for its writer
        return b""
    try:
        with open(path, "rb", buffering=0) as file:
            return file.read(HEAD_BYTES)
    except OSError:
        return b""


def kind_of(path: str, options: SourceOptions) -> str | None:
    """Return the kind of reader for a file; None: of no known format.

    Parameters
    ----------
    path : str
        A file, or the folder of a Zarr array or group.
    options : SourceOptions
        With `raw_shape`, headerless files are pictures.

    Returns
    -------
    str or None
        A kind of `ingest.sources.READERS`, or ``"text-log"``. What the first bytes say goes before the suffix, so that
        a movie that calls itself ``.h5`` is a movie.
    """
    if os.path.isdir(path):
        return "zarr" if is_zarr(path) else None
    name = os.path.basename(path).lower()
    suffix = os.path.splitext(name)[1]
    if name in SIDECARS or not os.path.isfile(path):
        return None
    return _by_content(read_head(path), suffix) or _by_suffix(suffix, options)


def kind_of_url(url: str) -> str | None:
    """Return the kind of what is at a URL, by its name alone; None: the name does not say."""
    suffix = os.path.splitext(redacted(url).rstrip("/"))[1].lower()
    return "zarr" if suffix == ZARR_SUFFIX else _by_suffix(suffix, SourceOptions())


def is_zarr(path: str) -> bool:
    """Whether a folder is a Zarr array or group, of format 2 or 3."""
    return any(os.path.isfile(os.path.join(path, name)) for name in ZARR_NAMES)


def is_manifest(name: str, beside: Collection[str]) -> bool:
    """Whether a file is the manifest of a stream in a lake, whose folder is among the names `beside` it."""
    return name.endswith(MANIFEST) and name.removesuffix(MANIFEST) + ZARR_SUFFIX in beside


def not_finished(path: str) -> UnclosedSourceError:
    """Return what is to be said of a folder ``x.zarr`` that has not the metadata that are written last."""
    return UnclosedSourceError(
        f"{path}: not finished: the metadata that make it a Zarr store are written last, and are not there",
        hint="its backfill was interrupted: run it again; if this is a copy, copy all of it",
    )


def _by_content(head: bytes, suffix: str) -> str | None:
    for offset, magic, kind in _MAGIC:
        if head[offset : offset + len(magic)] == magic:
            return kind
    if head[:2] == b"BM" and suffix in IMAGE_SUFFIXES:
        return "images"
    if _PGM.match(head):
        return "images"
    return "text-log" if _LOG_HEAD.match(head) else None


def _by_suffix(suffix: str, options: SourceOptions) -> str | None:
    if suffix in HDF5_SUFFIXES:
        return "hdf5"
    if suffix in VIDEO_SUFFIXES:
        return "video"
    if suffix == ".imm":
        return "ksa"
    if suffix in IMAGE_SUFFIXES or (options.raw_shape is not None and suffix in RAW_SUFFIXES):
        return "images"
    return "text-log" if suffix in LOG_SUFFIXES else None
