"""The actor that holds a job's streams: it creates and links them, and remembers what each was created with."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

from actors.creating import Creator
from actors.handles import Handle
from ingest.contents import StreamOrigin
from ingest.destinations import Destination, TimeseriesDestination, open_destination, open_timeseries
from ingest.orders import Order, orders_of
from ingest.plan import RunPlan
from ingest.retry import RetryPolicy
from ingest.series_plan import ArchivePlan
from ingest.telemetry import Secret, Telemetry
from ingest.wire.models import check_settings

__all__ = ["StreamerState"]

PLANS_KEPT = 16


class StreamerState:
    """Serves many streams, of frames and of readings, without mixing them; the journal knows what it remembers.

    Parameters
    ----------
    aggregator : Handle
        Journals each step before the next is taken.
    api_key : Secret or None
        For platforms.
    retry : RetryPolicy
        How long a call is tried.
    telemetry : Telemetry
        Gets ``create_posting`` and ``create_answered``.
    """

    def __init__(
        self,
        aggregator: Handle,
        api_key: Secret | None,
        retry: RetryPolicy,
        telemetry: Telemetry | None = None,
    ) -> None:
        self._aggregator = aggregator
        self._api_key = api_key
        self._retry = retry
        self._telemetry = telemetry or Telemetry()
        self._frames: dict[str, Destination] = {}
        self._points: dict[str, TimeseriesDestination] = {}
        self._plans: OrderedDict[str, ArchivePlan] = OrderedDict()

    def _maker(self, plan: ArchivePlan, url: str) -> Any:
        """Return where streams of this kind are made."""
        if isinstance(plan, RunPlan):
            if url not in self._frames:
                self._frames[url] = open_destination(url, self._api_key, retry=self._retry)
            return self._frames[url]
        if url not in self._points:
            self._points[url] = open_timeseries(url, self._api_key, retry=self._retry)
        return self._points[url]

    async def initialize(
        self, key: str, epoch: int, plan: ArchivePlan, data_id: str | None, destination: str, anew: bool = False
    ) -> str:
        """Create and link a stream, or go on where an earlier call stopped; return its ``data_id``. Safe to repeat.

        Parameters
        ----------
        key, epoch : str, int
            The stream in the journal, and the caller's lease.
        plan : RunPlan or SeriesPlan
            What to create, and later to make orders from.
        data_id : str or None
            Where the stream exists already and is only to be linked.
        destination : str
            URL.
        anew : bool, default False
            Whether it shall not be what an earlier job made of the same source.

        Raises
        ------
        SettingsError, UnknownNameError
            Nothing was created.
        LinkError
            The stream exists and was closed; the journal knows it as gone.
        """
        if isinstance(plan, RunPlan):
            check_settings(plan.settings)
        creator: Creator[Any] = Creator(self._aggregator, self._maker(plan, destination), self._telemetry)
        data_id = await creator.create(key, epoch, plan.settings, data_id, StreamOrigin.of(plan, anew=anew))
        self._remember(key, plan)
        return data_id

    def _remember(self, key: str, plan: ArchivePlan) -> None:
        self._plans[key] = plan
        self._plans.move_to_end(key)
        while len(self._plans) > PLANS_KEPT:
            self._plans.popitem(last=False)

    async def ping(self) -> bool:
        """Return True: the streamer is up."""
        return True

    async def aclose(self) -> None:
        """Let go of connections; the end of the process does the same. Safe to repeat."""
        opened_here: list[Destination | TimeseriesDestination] = [*self._frames.values(), *self._points.values()]
        for opened in opened_here:
            await opened.aclose()
        self._frames.clear()
        self._points.clear()

    async def orders(
        self, job_id: str, key: str, data_id: str, indices: Sequence[int], destination: str, copies: int = 1
    ) -> list[Order]:
        """Return the orders for some chunks of a stream, made from what it was initialized with.

        Parameters
        ----------
        job_id, key, data_id : str
            The job, and the stream in the journal and at its destination.
        indices : sequence of int
            Which chunks; a few hundred at a time keep the answer small.
        destination : str
            URL.
        copies : int, default 1
            Streams of the job that get the same frames.
        """
        plan = self._plans.get(key)
        if plan is None:  # another process initialized it, or it was long ago
            plan = await self._aggregator.call("plan", job_id, key)
        self._remember(key, plan)
        return orders_of(key, data_id, plan, indices, destination, copies)
