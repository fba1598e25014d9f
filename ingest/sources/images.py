"""Pictures: TIFF stacks, folders of PNG, BMP, JPEG, PGM and TIFF, headerless frames. Which runs there are."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

from ingest.errors import FrameDataError, IngestError
from ingest.sources.base import SourceInfo, SourceOptions, SourceSpec
from ingest.sources.found import Discovered
from ingest.sources.image_common import as_format_error
from ingest.sources.image_files import is_picture, picture_head
from ingest.sources.image_raw import inspect_raw, raw_layout
from ingest.sources.image_read import ImageSource, open_source
from ingest.sources.image_sequence import inspect_sequence
from ingest.sources.image_stack import inspect_stack
from ingest.sources.picture_names import name_pattern, sequence_spec, sequences
from ingest.sources.plain_file import PlainFile
from ingest.sources.tiff_ifd import is_tiff
from ingest.sources.tiff_stack import is_stack

__all__ = ["ImageSource", "find_runs", "inspect", "open_source"]

KIND = "images"
HEAD_BYTES = 64
RAW_SUFFIXES = frozenset({".raw", ".bin", ".dat"})
OTHER_SUFFIXES = frozenset({".png", ".bmp", ".pgm", ".pnm", ".jpg", ".jpeg"})  # not looked into for TIFF pages


def find_runs(paths: Sequence[str], options: SourceOptions) -> list[Discovered]:
    """List the runs of some pictures of one folder.

    Parameters
    ----------
    paths : sequence of str
        The files.
    options : SourceOptions
        With `raw_shape` and `raw_dtype`, headerless files are frames.

    Returns
    -------
    list of Discovered
        One for each TIFF of several pages and each headerless file of several frames. Of the others, those whose names
        differ only in numbers are one run, in natural order of names.
    """
    entries: list[Discovered] = []
    singles: list[str] = []
    patterns = Counter(name_pattern(path) for path in paths)
    for path in paths:
        try:
            is_run = _is_run(path, options, alone=patterns[name_pattern(path)] == 1)
        except FrameDataError:
            is_run = False  # a lost frame of its sequence
        except IngestError as error:
            entries.append(Discovered(path, error=error))
            continue
        if is_run:
            entries.append(Discovered(path, SourceSpec(KIND, (path,))))
        else:
            singles.append(path)
    runs = sequences(singles)
    for label, run in runs.items():
        entries.append(_entry(label, run, options, named_apart=len(runs) > 1))
    return entries


def _is_run(path: str, options: SourceOptions, *, alone: bool) -> bool:
    """Whether a file is a run of its own because of what it holds."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in RAW_SUFFIXES and _is_headerless(path):
        layout = raw_layout(options, path)
        with PlainFile(path) as file:
            return file.size_bytes >= layout.header_bytes + 2 * layout.frame_bytes
    return suffix not in OTHER_SUFFIXES and is_stack(path, alone)


def _is_headerless(path: str) -> bool:
    with PlainFile(path) as file:
        return not is_picture(file.read(0, HEAD_BYTES))


def _entry(label: str, run: list[str], options: SourceOptions, *, named_apart: bool) -> Discovered:
    if len(run) == 1:
        try:
            _check_single(run[0], options)
        except IngestError as error:
            return Discovered(run[0], error=error)
    return Discovered(run[0], sequence_spec(KIND, label, run, named_apart=named_apart))


def _check_single(path: str, options: SourceOptions) -> None:
    if os.path.splitext(path)[1].lower() in RAW_SUFFIXES and _is_headerless(path):
        raw_layout(options, path)
        return
    try:
        picture_head(path)
    except FrameDataError as error:
        raise as_format_error(error) from error


def inspect(spec: SourceSpec, options: SourceOptions) -> SourceInfo:
    """Find out what a run is; see `inspect_stack`, `inspect_sequence` and `inspect_raw`.

    Parameters
    ----------
    spec : SourceSpec
        As `find_runs` gave it.
    options : SourceOptions
        What the user says of it.

    Returns
    -------
    SourceInfo
        Its `spec` has form, scale and frame counts, for every worker alike.

    Raises
    ------
    SourceError, SettingsError
        As these.
    """
    try:
        return _inspect(spec, options)
    except FrameDataError as error:
        raise as_format_error(error) from error


def _inspect(spec: SourceSpec, options: SourceOptions) -> SourceInfo:
    first = spec.paths[0]
    with PlainFile(first) as file:
        head = file.read(0, HEAD_BYTES)
    if os.path.splitext(first)[1].lower() in RAW_SUFFIXES and not is_picture(head):
        return inspect_raw(spec, options)
    if len(spec.paths) == 1 and is_tiff(head):
        return inspect_stack(spec, options)
    return inspect_sequence(spec, options)
