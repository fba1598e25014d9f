"""Where runs come from. `discover` finds them, `inspect` says what one is, `open_source` reads its frames."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ingest.errors import SettingsError
from ingest.sources.base import FrameView, FrameWindow, Source, SourceInfo, SourceOptions, SourceSpec
from ingest.sources.series_base import SeriesInfo, SeriesReader, SeriesSpec

if TYPE_CHECKING:
    from ingest.sources.discovery import Discovered

__all__ = [
    "FrameView",
    "FrameWindow",
    "SeriesInfo",
    "SeriesReader",
    "SeriesSpec",
    "Source",
    "SourceInfo",
    "SourceOptions",
    "SourceSpec",
    "discover",
    "inspect",
    "inspect_series",
    "open_series",
    "open_source",
]

# Kind to module with `inspect` and `open_source`. Imported when first used: naming a source costs no h5py.
READERS = {
    "hdf5": "ingest.sources.hdf5",
    "video": "ingest.sources.video",
    "ksa": "ingest.sources.ksa",
    "images": "ingest.sources.images",
    "zarr": "ingest.sources.zarr_arrays",
}
# Kind to module with `inspect` and `open_series`.
SERIES_READERS = {
    "text-log": "ingest.sources.text_log",
    "hdf5-log": "ingest.sources.hdf5_log",
    "zarr-log": "ingest.sources.zarr_log",
}


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
        8 bytes per frame and stamp column; of the part of the run that ``options.window`` takes.

    Raises
    ------
    SourceError
        The files cannot be read or hold no run; see the `inspect` of the kind's module.
    SettingsError
        There is no reader of that kind, or an option cannot be.
    """
    from ingest.sources.view import viewed_info

    chosen = options or SourceOptions()
    info: SourceInfo = _module(READERS, spec.kind).inspect(spec, chosen)
    return viewed_info(info, chosen.window)


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
    source: Source = _module(READERS, spec.kind).open_source(spec)
    if spec.view is None:
        return source
    from ingest.sources.view import ViewedSource

    return ViewedSource(source, spec.view)


def inspect_series(spec: SeriesSpec, options: SourceOptions | None = None) -> SeriesInfo:
    """Find out what a run of readings is; its rows are gone through once, and not kept.

    Raises
    ------
    SourceError
        The files cannot be read or hold no readings; see the `inspect` of the kind's module.
    SettingsError
        There is no reader of that kind, or an option cannot be.
    """
    info: SeriesInfo = _module(SERIES_READERS, spec.kind).inspect(spec, options or SourceOptions())
    return info


def open_series(spec: SeriesSpec) -> SeriesReader:
    """Open an inspected run of readings in this process; to be closed.

    Raises
    ------
    SettingsError
        There is no reader of that kind, or the spec was never inspected.
    """
    reader: SeriesReader = _module(SERIES_READERS, spec.kind).open_series(spec)
    return reader


def _module(readers: dict[str, str], kind: str) -> Any:
    if kind not in readers:
        raise SettingsError(f"there is no reader of {kind!r}", hint=f"kinds known: {', '.join(readers)}")
    return import_module(readers[kind])
