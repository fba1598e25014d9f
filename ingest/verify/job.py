"""A verification of several runs or streams, at one destination after the other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ingest.destinations import is_lake
from ingest.errors import AuthenticationError, DestinationError, IngestError, SettingsError
from ingest.lake.opening import open_store
from ingest.lake.store import LakeStore
from ingest.plan import RunPlan
from ingest.retry import RetryPolicy
from ingest.series_plan import ArchivePlan, SeriesPlan
from ingest.telemetry import Secret
from ingest.verify.findings import StreamReport
from ingest.verify.giving import GiveOut
from ingest.verify.lake_alone import StreamAlone
from ingest.verify.lake_frames import FramesInLake
from ingest.verify.lake_log import POINT_BYTES, LogInLake
from ingest.verify.platform_frames import NOT_REPAIRED, REPAIR_HINT, FramesOnPlatform, check_reads_back
from ingest.verify.streams import Found, LakeStreams, Sent, by_name
from ingest.verify.work import Ask, NotDone, Progress, SeriesChecked, SeriesOrder
from ingest.wire.client import PlatformClient

__all__ = ["VerifyRequest", "verify_all"]

MISSING_HINT = "`rheed-ingest backfill` with the same arguments sends it"


@dataclass(frozen=True)
class VerifyRequest:
    """What is to be verified.

    Attributes
    ----------
    destinations : sequence of str
        Canonical URLs.
    runs : sequence of (str, RunPlan or SeriesPlan)
        Canonical path and plan of each source; none: the streams of a lake by themselves.
    streams : sequence of str
        Which streams; with a run, the one that it is compared with. Default: that of each run, or all of a lake.
    state_dir : Path
        Folder of the journal.
    repair : bool
        Write anew what differs.
    api_key : Secret or None
        For platforms.
    retry : RetryPolicy
        How long one call is tried.
    streams_at_once : int
        How many are gone through at the same time.
    """

    destinations: Sequence[str]
    runs: Sequence[tuple[str, ArchivePlan]]
    state_dir: Path
    streams: Sequence[str] = ()
    repair: bool = False
    api_key: Secret | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    streams_at_once: int = 4


async def verify_all(request: VerifyRequest, ask: Ask, packers: int, progress: Progress) -> list[StreamReport]:
    """Verify everything that was asked for; one bad stream, or destination, never stops the others.

    Parameters
    ----------
    request : VerifyRequest
        What.
    ask : callable
        Has a packer work off an order.
    packers : int
        How many there are.
    progress : callable
        Is told how many frames were gone through.

    Raises
    ------
    SettingsError
        Streams of a platform without a source, or one stream for several runs.
    """
    if request.runs and request.streams and len(request.runs) != 1:
        raise SettingsError(
            f"--stream is for one run at a time; there are {len(request.runs)}", hint="name one source, or leave it out"
        )
    give = GiveOut(ask, packers, progress)
    reports: list[StreamReport] = []
    for destination in request.destinations:
        kind: type[_Destination] = _Lake if is_lake(destination) else _Platform
        try:
            reports += await kind(request, destination, give).verify()
        except DestinationError as exc:
            sources: Sequence[str | None] = [path for path, _ in request.runs] or (None,)
            reports += [StreamReport(destination, source).fail(exc) for source in sources]
    return reports


class _Destination:
    """What lakes and platforms have in common: several streams at once, each with a report whatever happens."""

    def __init__(self, request: VerifyRequest, destination: str, give: GiveOut) -> None:
        self.request, self.destination, self.give = request, destination, give
        self._slots = asyncio.Semaphore(request.streams_at_once)

    async def verify(self) -> list[StreamReport]:
        """Return a report for each stream."""
        raise NotImplementedError

    async def _each(self, works: Sequence[tuple[StreamReport, Callable[[StreamReport], Awaitable[None]]]]) -> None:
        async with asyncio.TaskGroup() as group:
            for report, work in works:
                group.create_task(self._one(report, work))

    async def _one(self, report: StreamReport, work: Callable[[StreamReport], Awaitable[None]]) -> None:
        async with self._slots:
            began_s = time.monotonic()
            try:
                await work(report)
            except IngestError as exc:
                report.fail(exc)
            report.seconds = time.monotonic() - began_s

    def _settled(self, report: StreamReport, found: Found) -> bool:
        """Write into a report what was found; return whether that is all that can be said."""
        report.data_id = found.data_id
        if found.note:
            report.findings.append(found.note)
        if found.problem is not None:
            report.conclude([found.problem])
            report.hint = "verify with the settings that it was made with"
        elif found.data_id is None:
            report.status, report.error = "missing", "there is no stream of this run"
            report.hint = MISSING_HINT
        return found.problem is not None or found.data_id is None


class _Lake(_Destination):
    """Streams of a lake."""

    async def verify(self) -> list[StreamReport]:
        store = open_store(self.destination, retry=self.request.retry)
        sent = Sent(self.request.state_dir) if self.request.repair else None
        try:
            streams = LakeStreams(store)
            if self.request.runs:
                return await self._runs(store, streams, sent)
            return await self._alone(store, streams)
        finally:
            store.close()
            if sent is not None:
                sent.close()

    async def _alone(self, store: LakeStore, streams: LakeStreams) -> list[StreamReport]:
        ids = self.request.streams or await asyncio.to_thread(streams.ids)
        reports = [StreamReport(self.destination, data_id=data_id) for data_id in ids]

        async def work(report: StreamReport) -> None:
            data_id = report.data_id or ""
            await asyncio.to_thread(streams.need, data_id)
            await StreamAlone(store, self.destination, data_id, self.give).verify(report)

        await self._each([(report, work) for report in reports])
        return reports

    async def _runs(self, store: LakeStore, streams: LakeStreams, sent: Sent | None) -> list[StreamReport]:
        works = []
        for path, plan in self.request.runs:

            async def work(report: StreamReport, path: str = path, plan: ArchivePlan = plan) -> None:
                if self.request.streams:
                    found = Found(self.request.streams[0])
                    await asyncio.to_thread(streams.need, self.request.streams[0])
                else:
                    found = await asyncio.to_thread(streams.find, plan)
                if self._settled(report, found) or found.data_id is None:
                    return
                checker = self._checker(store, found.data_id, plan)
                if sent is None:
                    await checker.verify(report, repair=False)
                else:
                    async with sent.lease(self.destination, path, plan):
                        await checker.verify(report, repair=True)

            works.append((StreamReport(self.destination, path), work))
        await self._each(works)
        return [report for report, _ in works]

    def _checker(self, store: LakeStore, data_id: str, plan: ArchivePlan) -> FramesInLake | LogInLake:
        if isinstance(plan, SeriesPlan):
            return LogInLake(store, self.destination, data_id, plan, self.give)
        return FramesInLake(store, self.destination, data_id, plan, self.give)


class _Platform(_Destination):
    """Streams of the embedded platform."""

    async def verify(self) -> list[StreamReport]:
        if not self.request.runs:
            raise SettingsError(
                f"without a source only the streams of a lake can be verified, and {self.destination} is a platform",
                hint="name what was sent there",
            )
        if self.request.api_key is None:
            raise AuthenticationError(f"{self.destination} needs an API key", hint="set AS_API_KEY")
        client = PlatformClient(self.destination, self.request.api_key, retry=self.request.retry)
        sent = Sent(self.request.state_dir)
        try:
            listed = await check_reads_back(client)
            listed += await client.list_timeseries_streams()
            works = []
            for path, plan in self.request.runs:

                async def work(report: StreamReport, path: str = path, plan: ArchivePlan = plan) -> None:
                    found, as_sent = sent.found(self.destination, path, plan)
                    if self.request.streams:
                        found = Found(self.request.streams[0])
                    elif found.data_id is None:
                        found = by_name(listed, plan)
                    if not self._settled(report, found) and found.data_id is not None:
                        await self._compare(client, found.data_id, as_sent, report)

                works.append((StreamReport(self.destination, path), work))
            await self._each(works)
            return [report for report, _ in works]
        finally:
            sent.close()
            await client.aclose()

    async def _compare(self, client: PlatformClient, data_id: str, plan: ArchivePlan, report: StreamReport) -> None:
        if isinstance(plan, RunPlan):
            await FramesOnPlatform(client, data_id, plan, self.give).verify(report, repair=self.request.repair)
            return
        outcome = await self.give.one("verify", SeriesOrder(self.destination, data_id, plan, plan.settings))
        if isinstance(outcome, NotDone):
            raise outcome.error
        if isinstance(outcome, SeriesChecked):
            report.chunks, report.points = len(plan.chunks), sum(outcome.points.values())
            report.n_bytes = report.points * POINT_BYTES
            report.conclude(outcome.differences)
            if self.request.repair and outcome.differences:
                report.error, report.hint = NOT_REPAIRED, REPAIR_HINT
