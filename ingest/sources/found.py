"""What discovery answers with: one entry for each run, or for each reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass

from ingest.errors import IngestError
from ingest.sources.base import SourceSpec
from ingest.sources.series_base import SeriesSpec

__all__ = ["Discovered"]


@dataclass(frozen=True)
class Discovered:
    """One run, or one reason why there is none.

    Attributes
    ----------
    path : str
        The file (the first, of several), or what the user named.
    spec : SourceSpec, SeriesSpec or None
        The run: of frames, or of instrument readings.
    error : IngestError or None
        Why there is none.
    ignored_files : int
        On the first entry of a folder: files in it that are of no known format.
    """

    path: str
    spec: SourceSpec | SeriesSpec | None = None
    error: IngestError | None = None
    ignored_files: int = 0
