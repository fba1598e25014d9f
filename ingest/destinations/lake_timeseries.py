"""A lake as a destination of instrument time series: requests wait as they are, and are joined at the close."""

from __future__ import annotations

from typing import Any

import google_crc32c
import xxhash

from ingest.contents import HeldStream, StreamContents
from ingest.destinations.lake import LakeStreams
from ingest.lake.series_layout import series_folder, staged_body_name
from ingest.lake.series_seal import seal_series
from ingest.timeseries import ApiGeneration, TimeseriesMeta
from ingest.wire.models import Delivery

__all__ = ["LakeTimeseries"]


class LakeTimeseries(LakeStreams):
    """Writes time series into a lake. One for each event loop, shared by its tasks."""

    generation: ApiGeneration = "tool-state"

    async def deliver(self, data_id: str, meta: TimeseriesMeta, body: bytes) -> Delivery:  # noqa: ARG002 - the contract's
        """Store one request where it waits for the end. Safe to repeat, in any order, also by several processes.

        Parameters
        ----------
        data_id : str
            The stream.
        meta : TimeseriesMeta
            What `ingest.timeseries` said of it.
        body : bytes
            Its JSON, of one channel or of several.
        """
        # Named by its digest: the same request has the same name, and another one for the same chunk never takes it.
        name = staged_body_name(data_id, str(xxhash.xxh3_128(body).hexdigest()))
        crc32c = int(google_crc32c.value(body))
        etag = await self._call(lambda: self._store.put(name, [body], crc32c=crc32c))
        return Delivery(etag, 1)

    async def close_stream(self, data_id: str, contents: StreamContents | None = None) -> None:
        """Join what waits, write manifest and attributes, and commit. Safe to repeat.

        Raises
        ------
        RefusedError
            Without `contents` nobody can say whether the stream is whole.
        LakeDamagedError
            Something that was delivered is not there any more, or not as it was.
        """
        await self._finish(seal_series, data_id, contents)

    def _is_there(self, data_id: str, manifest: dict[str, Any], held: HeldStream) -> bool:  # noqa: ARG002 - the base's
        there = {entry.name for entry in self._store.objects(series_folder(data_id))}
        return bool(there) or not held.receipts
