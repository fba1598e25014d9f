"""The final statement about a stream: what was sent and when it was captured, what is missing, a digest over it all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import xxhash

from ingest.ledger import Receipt
from ingest.plan import RunPlan

__all__ = ["manifest"]

FORMAT = "rheed-ingest manifest 1"


def manifest(
    plan: RunPlan, data_id: str | None, state: str, receipts: Sequence[Receipt], losses: Mapping[int, str]
) -> dict[str, Any]:
    """Return a stream's manifest as JSON values.

    Parameters
    ----------
    plan : RunPlan
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
    content: dict[str, Any] = {
        "format": FORMAT,
        "data_id": data_id,
        "state": state,
        "stream": asdict(plan.settings),
        "source": {
            "paths": list(plan.spec.paths),
            "dataset": plan.spec.dataset,
            "layout": plan.format,
            "fingerprint": plan.fingerprint,
            "scale": asdict(plan.spec.scale) if plan.spec.scale else None,
        },
        "counts": {
            "frames": plan.frames,
            "frames_confirmed": sum(receipt.frames for receipt in receipts),
            "chunks": len(plan.chunks),
            "chunks_confirmed": len(receipts),
            "chunks_lost": len(losses),
            "bytes_in": plan.bytes_in,
            "bytes_out": sum(receipt.n_bytes for receipt in receipts),
        },
        "timing": {
            "start_unix_ms_utc": plan.start_unix_ms_utc,
            "start_from": plan.start_from,
            "fps": plan.settings.fps,
            "fps_claimed": plan.fps_claimed,
            "chunking": plan.chunking,
            **{f"time_error_{name}": value for name, value in asdict(plan.time_error).items()},
        },
        "chunks": [
            {
                "index": receipt.index,
                "frames": receipt.frames,
                "start_unix_ms_utc": receipt.start_unix_ms_utc,
                "n_bytes": receipt.n_bytes,
                "crc32c": f"{receipt.crc32c:08x}",
                "frames_xxh3_128": receipt.frames_digest,
                "etag": receipt.etag,
            }
            for receipt in receipts
        ],
        "losses": {str(index): reason for index, reason in sorted(losses.items())},
        "findings": [asdict(finding) for finding in plan.findings],
    }
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return {**content, "digest": str(xxhash.xxh3_128(canonical.encode()).hexdigest())}
