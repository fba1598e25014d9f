"""Where runs come from. `discover` finds them, `inspect` says what one is, `open_source` reads its frames."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ingest.errors import SettingsError
from ingest.sources.base import Source, SourceInfo, SourceOptions, SourceSpec

if TYPE_CHECKING:
    from ingest.sources.discovery import Discovered

__all__ = ["Source", "SourceInfo", "SourceOptions", "SourceSpec", "discover", "inspect", "open_source"]

# Kind to module with `inspect` and `open_source`. Imported when first used: naming a source costs no h5py.
READERS = {"hdf5": "ingest.sources.hdf5"}


def discover(sources: Sequence[str], options: SourceOptions | None = None) -> list[Discovered]:
    """Find the runs in files, folders and globs; see `ingest.sources.discovery.discover`."""
    from ingest.sources.discovery import discover as find

    return find(sources, options or SourceOptions())


def inspect(spec: SourceSpec, options: SourceOptions | None = None) -> SourceInfo:
    """Find out what a run is without reading its frames.

    Parameters
    ----------
    spec : SourceSpec
        As `discover` gave it.
    options : SourceOptions, optional
        What the user says of it.

    Returns
    -------
    SourceInfo
        8 bytes per frame and stamp column.

    Raises
    ------
    SourceError
        The files cannot be read or hold no run; see `ingest.sources.hdf5.inspect`.
    SettingsError
        There is no reader of that kind, or an option cannot be.
    """
    info: SourceInfo = _reader(spec).inspect(spec, options or SourceOptions())
    return info


def open_source(spec: SourceSpec) -> Source:
    """Open an inspected run for reading in this process.

    Parameters
    ----------
    spec : SourceSpec
        ``SourceInfo.spec``.

    Returns
    -------
    Source
        To be closed, or used as a context manager.

    Raises
    ------
    SettingsError
        There is no reader of that kind, or the spec was never inspected.
    """
    source: Source = _reader(spec).open_source(spec)
    return source


def _reader(spec: SourceSpec) -> Any:
    if spec.kind not in READERS:
        raise SettingsError(f"there is no reader of {spec.kind!r}", hint=f"kinds known: {', '.join(READERS)}")
    return import_module(READERS[spec.kind])
