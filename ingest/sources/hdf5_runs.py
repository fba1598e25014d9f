"""The runs that HDF5 files hold, by their headers: one a file, several in one file, or one in many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import h5py

from ingest.errors import IngestError, NoFramesError
from ingest.sources.base import SourceOptions, SourceSpec
from ingest.sources.facts import FILE_START, Fact
from ingest.sources.found import Discovered
from ingest.sources.hdf5_file import H5PY_ERRORS, h5_errors, is_swmr_written, open_file
from ingest.sources.hdf5_layout import CHUNK_FILE_STREAM, choose_frames, list_contents, read_facts, runs_in
from ingest.sources.hdf5_log import find_logs
from ingest.sources.natural import natural_key
from ingest.sources.start import unix_number_to_ns
from ingest.sources.urls import redacted

__all__ = ["count_growing_frames", "find_runs"]

KIND = "hdf5"


@dataclass(frozen=True)
class FoundRun:
    """A run of one file; `group` joins chunk files of one stream, `start_ns` orders them."""

    spec: SourceSpec
    group: str | None = None
    start_ns: int = 0


def find_runs(paths: Sequence[str], options: SourceOptions) -> list[Discovered]:
    """List the runs of some HDF5 files of one folder.

    Parameters
    ----------
    paths : sequence of str
        The files.
    options : SourceOptions
        `dataset` restricts every file to that one.

    Returns
    -------
    list of Discovered
        One for each top-level stack that is named alike, else one a file. Chunk files of one stream (root attributes
        ``data_stream``, ``data_id``, ``start_unix_ms_utc``; FORMATS.md 1.5) are one run in order of their starts. The
        instrument readings of a file are a run of their own, after its frames; a file may hold nothing else.
    """
    entries: list[Discovered] = []
    groups: dict[str, list[FoundRun]] = {}
    for path in paths:
        try:
            runs, logs = _runs_of(path, options)
        except IngestError as error:
            entries.append(Discovered(redacted(path), error=error))
            continue
        for run in runs:
            if run.group is None:
                entries.append(Discovered(redacted(path), run.spec))
            else:
                groups.setdefault(run.group, []).append(run)
        entries += logs
    for members in groups.values():
        members.sort(key=lambda run: (run.start_ns, natural_key(run.spec.paths[0])))
        together = tuple(run.spec.paths[0] for run in members)
        entries.append(Discovered(redacted(together[0]), SourceSpec(KIND, together, members[0].spec.dataset)))
    return entries


def count_growing_frames(path: str) -> int | None:
    """Count the frames that can be read of a file that is open for SWMR writing; None: it is not, or holds none.

    Takes no lock, so that it never stands in the way of whoever records.
    """
    try:
        if not is_swmr_written(path):
            return None
        with h5py.File(path, "r", libver="latest", swmr=True, locking=False) as file:
            contents = list_contents(file)
            found = [contents.get(run) for run in runs_in(contents, path)]
    except (*H5PY_ERRORS, IngestError):
        return None
    return sum(run.shape[0] for run in found if run is not None)


def _runs_of(path: str, options: SourceOptions) -> tuple[list[FoundRun], list[Discovered]]:
    with open_file(path) as file, h5_errors(path):
        contents = list_contents(file, options.dataset)
        chosen = options.dataset
        logs = find_logs(file, contents, path, chosen)
        try:
            runs = runs_in(contents, path) if chosen is None else (choose_frames(contents, path, chosen),)
        except NoFramesError:
            if not logs:
                raise
            return [], logs
        facts = read_facts(file, runs[0], contents)
    group, start_ns = None, 0
    if facts.get("data_stream") == CHUNK_FILE_STREAM and "data_id" in facts and FILE_START in facts:
        group = f"{facts['data_id']}\0{runs[0]}"
        start_ns = _unix_ns(facts[FILE_START]) or 0
    return [FoundRun(SourceSpec(KIND, (path,), run), group, start_ns) for run in runs], logs


def _unix_ns(value: Fact) -> int | None:
    try:
        return unix_number_to_ns(float(value))
    except ValueError:
        return None
