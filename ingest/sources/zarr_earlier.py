"""What a stream in a lake keeps of how it came there: settings, and what was found when it was ingested."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ingest.sources.base import EarlierStream
from ingest.sources.zarr_layout import LAKE_FORMAT, Store
from ingest.timing import Finding

__all__ = ["earlier_findings", "earlier_stream"]

MAX_FINDINGS = 1000


def earlier_stream(store: Store, chunk_size: int | None = None) -> EarlierStream | None:
    """Return what a stream says of itself (ingest/lake/seal.py, ingest/server/seal.py); None: it is none of ours."""
    said = store.attributes
    if said.get("format") != LAKE_FORMAT:
        return None
    fps, tags = said.get("fps"), said.get("tags")
    is_rate = isinstance(fps, int | float) and not isinstance(fps, bool) and fps > 0
    return EarlierStream(
        fps=float(fps) if is_rate and fps is not None else None,
        chunk_size=chunk_size,
        azimuth=_text(said.get("azimuth_label")),
        physical_sample=_text(said.get("sample")),
        project_id=_text(said.get("project")),
        tags=tuple(tag for tag in tags if _text(tag)) if isinstance(tags, list) else (),
    )


def earlier_findings(store: Store, now: Sequence[Finding] = ()) -> tuple[Finding, ...]:
    """Return what was found when a stream was ingested, and where from, but for what was found `now` all the same."""
    provenance = store.attributes.get("provenance")
    if store.attributes.get("format") != LAKE_FORMAT or not isinstance(provenance, dict):
        return ()
    listed = provenance.get("findings")
    told = [_finding(entry) for entry in (listed if isinstance(listed, list) else [])[:MAX_FINDINGS]]
    known = {*now}
    findings = [found for found in told if found is not None and found not in known]
    return (*_origin(provenance.get("source")), *findings)


def _origin(source: Any) -> tuple[Finding, ...]:
    if not isinstance(source, dict):
        return ()
    paths = [path for path in source.get("paths") or () if isinstance(path, str)]
    if not paths:
        return ()
    more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
    dataset, fingerprint = _text(source.get("dataset")), _text(source.get("fingerprint"))
    inside = f", {dataset}" if dataset else ""
    known_by = f" (fingerprint {fingerprint})" if fingerprint else ""
    return (Finding("ingested before", f"from {paths[0]}{more}{inside}{known_by}; what was found then is listed, too"),)


def _finding(entry: Any) -> Finding | None:
    if not isinstance(entry, Mapping):
        return None
    kind, message, frame = _text(entry.get("kind")), _text(entry.get("message")), entry.get("frame")
    if kind is None or message is None:
        return None
    return Finding(kind, message, frame if isinstance(frame, int) and not isinstance(frame, bool) else None)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value.strip() else None
