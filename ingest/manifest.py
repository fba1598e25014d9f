"""The final statement about a stream: what was sent and when it was captured, what is missing, a digest over it all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import xxhash

from ingest.errors import LakeDamagedError
from ingest.ledger import Receipt
from ingest.plan import RunPlan, StreamSettings
from ingest.series_plan import ArchivePlan, SeriesPlan, origin_digest
from ingest.sources.urls import redacted
from ingest.timeseries import TimeseriesSettings

__all__ = ["live_manifest", "losses_of", "manifest", "manifest_digest", "receipts_of"]

FORMAT = "rheed-ingest manifest 1"


def manifest(
    plan: ArchivePlan, data_id: str | None, state: str, receipts: Sequence[Receipt], losses: Mapping[int, str]
) -> dict[str, Any]:
    """Return the manifest of a backfilled run's stream as JSON values.

    Parameters
    ----------
    plan : RunPlan or SeriesPlan
        What was to be sent.
    data_id : str or None
        The stream at its destination.
    state : str
        Where the stream is in its life.
    receipts : sequence of Receipt
        By index.
    losses : mapping of int to str
        Reason for each lost chunk.

    Returns
    -------
    dict
        ``digest`` is the XXH3-128 of everything else in it, as canonical JSON: sorted keys, no spaces.
    """
    is_series = isinstance(plan, SeriesPlan)
    unit = "points" if is_series else "frames"
    content: dict[str, Any] = {
        "format": FORMAT,
        "data_id": data_id,
        "state": state,
        "stream": asdict(plan.settings),
        "origin": origin_digest(plan),
        "source": _log_source(plan) if isinstance(plan, SeriesPlan) else _frames_source(plan),
        "counts": {
            unit: plan.frames,
            f"{unit}_confirmed": sum(receipt.frames - len(receipt.lost_frames) for receipt in receipts),
            f"{unit}_lost": sum(len(receipt.lost_frames) for receipt in receipts),
            "chunks": len(plan.chunks),
            "chunks_confirmed": len(receipts),
            "chunks_lost": len(losses),
            "bytes_in": plan.bytes_in,
            "bytes_out": sum(receipt.n_bytes for receipt in receipts),
        },
        "timing": {"start_unix_ms_utc": plan.start_unix_ms_utc, "start_from": plan.start_from, **_rates(plan)},
        "chunks": [_planned_chunk(plan, receipt) for receipt in receipts],
        "losses": _losses(losses),
        "findings": [asdict(finding) for finding in plan.findings],
    }
    return _with_digest(content)


def _frames_source(plan: RunPlan) -> dict[str, Any]:
    spec = plan.spec
    return {
        "paths": [redacted(path) for path in spec.paths],
        "dataset": spec.dataset,
        "layout": plan.format,
        "fingerprint": plan.fingerprint,
        "scale": asdict(spec.scale) if spec.scale else None,
        "view": asdict(spec.view) if spec.view else None,
        "reader": dict(spec.options),
    }


def _log_source(plan: SeriesPlan) -> dict[str, Any]:
    return {
        "paths": [redacted(path) for path in plan.spec.paths],
        "dataset": plan.spec.dataset,
        "layout": plan.format,
        "fingerprint": plan.fingerprint,
        "elapsed_zero_unix_ns": plan.spec.zero_ns or None,
        "channels": [asdict(channel) for channel in plan.channels],
    }


def _rates(plan: ArchivePlan) -> dict[str, Any]:
    if isinstance(plan, SeriesPlan):
        return {}
    return {
        "fps": plan.settings.fps,
        "fps_claimed": plan.fps_claimed,
        "chunking": plan.chunking,
        **{f"time_error_{name}": value for name, value in asdict(plan.time_error).items()},
    }


def live_manifest(
    settings: StreamSettings | TimeseriesSettings,
    data_id: str | None,
    state: str,
    receipts: Sequence[Receipt],
    losses: Mapping[int, str],
    *,
    is_sealed: bool,
    gone_reason: str | None = None,
) -> dict[str, Any]:
    """Return the manifest of a live stream: it has settings, and neither a plan nor a source.

    Parameters
    ----------
    settings : StreamSettings or TimeseriesSettings
        What it was created with.
    data_id, state, receipts, losses
        As for `manifest`; of time series, a chunk is a request, and its label says of which chunk and channels.
    is_sealed : bool
        Whether nothing more is expected.
    gone_reason : str or None
        What the platform said when it failed the stream.

    Returns
    -------
    dict
        With a ``digest`` as that of `manifest`.
    """
    is_series = isinstance(settings, TimeseriesSettings)
    unit = "points" if is_series else "frames"
    spans = [receipt for receipt in receipts if receipt.frames]
    content: dict[str, Any] = {
        "format": FORMAT,
        "data_id": data_id,
        "state": state,
        "kind": "timeseries" if is_series else "rheed",
        "sealed": is_sealed,
        "gone_reason": gone_reason,
        "stream": asdict(settings),
        "counts": {
            f"{unit}_confirmed": sum(receipt.frames for receipt in receipts),
            "chunks_confirmed": len(receipts),
            "chunks_lost": len(losses),
            "bytes_out": sum(receipt.n_bytes for receipt in receipts),
        },
        "timing": {
            "start_unix_ms_utc": min((receipt.start_unix_ms_utc for receipt in spans), default=None),
            "end_unix_ms_utc": max((receipt.end_unix_ms_utc for receipt in spans), default=None),
        },
        "chunks": [_points_chunk(receipt) if is_series else _frames_chunk(receipt) for receipt in receipts],
        "losses": _losses(losses),
    }
    return _with_digest(content)


def _planned_chunk(plan: ArchivePlan, receipt: Receipt) -> dict[str, Any]:
    if isinstance(plan, SeriesPlan):
        return _points_chunk(receipt)
    # Where it begins cannot be counted from the others once a chunk is lost.
    return {**_frames_chunk(receipt), "first_frame": plan.chunks[receipt.index].start}


def _frames_chunk(receipt: Receipt) -> dict[str, Any]:
    lost = {"lost_frames": list(receipt.lost_frames)} if receipt.lost_frames else {}
    return {
        "index": receipt.index,
        "frames": receipt.frames,
        "start_unix_ms_utc": receipt.start_unix_ms_utc,
        "end_unix_ms_utc": receipt.end_unix_ms_utc,
        "n_bytes": receipt.n_bytes,
        "crc32c": f"{receipt.crc32c:08x}",
        "frames_xxh3_128": receipt.frames_digest,
        "etag": receipt.etag,
        **lost,
    }


def _points_chunk(receipt: Receipt) -> dict[str, Any]:
    return {
        "index": receipt.index,
        "label": receipt.label,
        "points": receipt.frames,
        "start_unix_ms_utc": receipt.start_unix_ms_utc,
        "end_unix_ms_utc": receipt.end_unix_ms_utc,
        "n_bytes": receipt.n_bytes,
        "crc32c": f"{receipt.crc32c:08x}",
        "body_xxh3_128": receipt.frames_digest,
    }


def receipts_of(manifest: Mapping[str, Any]) -> tuple[Receipt, ...]:
    """Return the receipts that a manifest tells of, by index, as far as it does.

    Raises
    ------
    LakeDamagedError
        It is no manifest of ours, or its digest is not that of its content.
    """
    if manifest_digest(manifest) != manifest.get("digest"):
        raise LakeDamagedError("a manifest's digest is not that of its content", hint="it was altered since")
    try:
        return tuple(_receipt(chunk) for chunk in manifest["chunks"])
    except (KeyError, TypeError, ValueError) as exc:
        raise LakeDamagedError(f"not a manifest as this version writes it: {type(exc).__name__}: {exc}") from exc


def losses_of(manifest: Mapping[str, Any]) -> dict[int, str]:
    """Return why chunks are lost, by index, as a manifest tells it."""
    return {int(index): str(reason) for index, reason in manifest.get("losses", {}).items()}


def _receipt(chunk: Mapping[str, Any]) -> Receipt:
    start_ms = int(chunk["start_unix_ms_utc"])
    return Receipt(
        index=int(chunk["index"]),
        frames=int(chunk["frames"] if "frames" in chunk else chunk["points"]),
        start_unix_ms_utc=start_ms,
        end_unix_ms_utc=int(chunk.get("end_unix_ms_utc", start_ms)),
        n_bytes=int(chunk["n_bytes"]),
        crc32c=int(chunk["crc32c"], 16),
        frames_digest=str(chunk["frames_xxh3_128"] if "frames" in chunk else chunk["body_xxh3_128"]),
        etag=chunk.get("etag"),
        attempts=0,
        node="",
        put_unix_ms=0,
        label=chunk.get("label"),
        lost_frames=tuple(chunk.get("lost_frames", ())),
    )


def _losses(losses: Mapping[int, str]) -> dict[str, str]:
    return {str(index): reason for index, reason in sorted(losses.items())}


def manifest_digest(manifest: Mapping[str, Any]) -> str:
    """Return the XXH3-128 of everything but the digest itself, as canonical JSON."""
    content = {name: value for name, value in manifest.items() if name != "digest"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return str(xxhash.xxh3_128(canonical.encode()).hexdigest())


def _with_digest(content: dict[str, Any]) -> dict[str, Any]:
    return {**content, "digest": manifest_digest(content)}
