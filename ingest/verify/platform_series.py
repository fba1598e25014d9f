"""A log against the channels that the embedded platform gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.verify.findings import Difference
from ingest.verify.lake_series import LogRead, read_log
from ingest.verify.work import SeriesChecked, SeriesOrder
from ingest.wire.client import PlatformClient

__all__ = ["check_platform_series"]


async def check_platform_series(
    client: PlatformClient, order: SeriesOrder, run: Callable[..., Awaitable[Any]]
) -> SeriesChecked:
    """Compare a log with what the embedded platform holds of it. Holds it twice.

    Parameters
    ----------
    client : PlatformClient
        The platform.
    order : SeriesOrder
        Which log, and which stream.
    run : callable
        Runs a function in a thread.

    Raises
    ------
    SourceError
        The log cannot be read.
    DestinationError
        The platform does not answer, or holds no such stream.
    """
    log: LogRead = await run(read_log, order.data_id, order.plan)
    held = {str(channel["name"]) for channel in (await client.timeseries_stream(order.data_id))["channels"]}
    found = [_said("extra chunk", name, "is there, and not in the log") for name in sorted(held - log.channels.keys())]
    for name, (units, rows) in log.channels.items():
        if name not in held:
            found.append(_said("missing chunk", name, "is not there"))
            continue
        points = await client.get_points(order.data_id, name)
        if points.get("units") != units:
            found.append(_said("metadata", name, f"has units {points.get('units')!r}, the log {units!r}"))
        found += _rows(name, rows, points)
    return SeriesChecked(tuple(found), log.receipts, log.losses, log.points)


def _rows(name: str, rows: NDArray[np.float64], points: dict[str, Any]) -> list[Difference]:
    stored = np.array([points["timestamps"], points["values"]], np.float64).reshape(2, -1)  # null becomes NaN
    if stored.shape != rows.shape:
        return [_said("missing chunk", name, f"has {stored.shape[1]} points, the log {rows.shape[1]}")]
    found = []
    for kind, was, should in (("time", stored[0], rows[0]), ("value", stored[1], rows[1])):
        wrong = np.flatnonzero((was != should) & ~(np.isnan(was) & np.isnan(should)))
        if len(wrong):
            at = int(wrong[0])
            message = f"{kind} of row {at} is {was[at]!r}, the log has {should[at]!r} (of {len(wrong)} that differ)"
            found.append(_said(kind, name, message))
    return found


def _said(kind: Any, name: str, message: str) -> Difference:
    return Difference(kind, f"channel {name!r} {message}", can_mend=False)
