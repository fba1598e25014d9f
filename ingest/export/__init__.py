"""A run as one plain file again, with its times: MP4, HDF5 or TIFF."""

from __future__ import annotations

from ingest.export.base import FORMATS, Exported, ExportOptions, export_run, file_name

__all__ = ["FORMATS", "ExportOptions", "Exported", "export_run", "file_name"]
