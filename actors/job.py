"""A job's actors, assembled: which classes, how they find each other, and their start with a time-out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import ray
import ray.exceptions

from actors.aggregator import Aggregator
from actors.dispatcher import Dispatcher, DispatcherOptions
from actors.handles import Handle, NamedHandle, RayHandle, unwrap
from actors.options import NAMESPACE, actor_class, actor_name
from actors.packer import Packer
from actors.streamer_states import StreamerState
from ingest.destinations import open_destination, open_timeseries
from ingest.errors import ClusterError
from ingest.retry import RetryPolicy
from ingest.shard import DEFAULT_LEVEL
from ingest.telemetry import Secret, Telemetry

__all__ = ["ActorClasses", "DispatcherActor", "JobActors", "JobSetup"]

START_TIMEOUT_S = 120.0
IDLE_S = 60.0


@dataclass(frozen=True)
class ActorClasses:
    """The plain classes behind a job's actors; each has to be importable on every node."""

    aggregator: type = Aggregator
    dispatcher: type = field(default_factory=lambda: DispatcherActor)
    streamer: type = StreamerState
    packer: type = Packer


@dataclass(frozen=True)
class JobSetup:
    """What a job's actors are made from: small values that pickle.

    Attributes
    ----------
    api_key : Secret or None
        For platforms; inline, never in a runtime_env.
    destinations : int
        How many.
    state_dir : str
        Folder of the journal, on the aggregator's node.
    options : DispatcherOptions
        How work is given out.
    retry : RetryPolicy
        How long a call or chunk is tried.
    level : int
        zstd level.
    detached : bool
        Whether the job outlives its driver: on a cluster that is not ours.
    node_id : str or None
        Where aggregator and dispatcher have to be; None: anywhere.
    classes : ActorClasses
        The actors' classes.
    telemetry : callable
        Makes each actor's telemetry, inside it.
    """

    api_key: Secret | None
    destinations: int
    state_dir: str
    options: DispatcherOptions
    retry: RetryPolicy
    level: int = DEFAULT_LEVEL
    detached: bool = False
    node_id: str | None = None
    classes: ActorClasses = field(default_factory=ActorClasses)
    telemetry: Callable[[str], Telemetry] | None = None

    def telemetry_of(self, role: str) -> Telemetry:
        """Return the telemetry of an actor of a role."""
        return Telemetry() if self.telemetry is None else self.telemetry(role)

    @property
    def primary_retry(self) -> RetryPolicy:
        """How long a destination is tried, which a failover makes shorter."""
        return self.retry if self.options.failover is None else self.options.failover.primary(self.retry)

    def handle(self, role: str) -> NamedHandle:
        """Return a handle on one of the job's named actors."""
        return NamedHandle(actor_name(self.options.job_id, role), NAMESPACE)


class DispatcherActor(Dispatcher):
    """The dispatcher as an actor: finds the others by name, makes its packers, starts in its constructor.

    Starting there, and not in a call, is what makes it go on by itself after a restart (RAY.md 1d).
    """

    def __init__(self, setup: JobSetup) -> None:
        self._setup = setup
        super().__init__(
            setup.options,
            setup.handle("aggregator"),
            setup.handle("streamer"),
            self._new_packer,
            lambda url: open_destination(url, setup.api_key, retry=setup.primary_retry),
            lambda url: open_timeseries(url, setup.api_key, retry=setup.primary_retry),
            setup.telemetry_of("dispatcher"),
        )
        self.start()
        if setup.detached:
            self._ending = asyncio.get_running_loop().create_task(self._end_when_idle())

    def _new_packer(self, _number: int) -> Handle:
        setup = self._setup
        orders = setup.options.orders_per_packer * setup.destinations
        packer = (setup.api_key, setup.retry, setup.level, setup.telemetry_of("packer"), setup.options.failover)
        remote = actor_class(setup.classes.packer, "packer", max_concurrency=orders + 1)
        return RayHandle(remote.remote(*packer))

    async def _end_when_idle(self) -> None:
        """End the job's detached actors a minute after the last run, since no driver may be there to do it."""
        await self._finished.wait()
        await self._sleep(IDLE_S)
        await asyncio.to_thread(end_actors, self._setup.options.job_id)


def end_actors(job_id: str) -> None:
    """Kill a job's named actors, the dispatcher last, which takes its packers along; safe to repeat."""
    for role in ("streamer", "aggregator", "dispatcher"):
        with contextlib.suppress(ValueError, ray.exceptions.RayError):
            ray.kill(ray.get_actor(actor_name(job_id, role), NAMESPACE))


class JobActors:
    """A job's three named actors; the dispatcher begins to work as soon as it is there.

    Parameters
    ----------
    setup : JobSetup
        What they are made from.
    """

    def __init__(self, setup: JobSetup) -> None:
        self._setup = setup
        self._started: dict[str, Any] = {}

    def _start(self, role: str) -> Any:
        setup = self._setup
        options: dict[str, Any] = {
            "name": actor_name(setup.options.job_id, role),
            "namespace": NAMESPACE,
            "lifetime": "detached" if setup.detached else "non_detached",
        }
        if setup.node_id is not None:
            options["label_selector"] = {"ray.io/node-id": setup.node_id}
        classes, telemetry = setup.classes, setup.telemetry_of(role)
        match role:
            case "aggregator":
                arguments: tuple[Any, ...] = (setup.state_dir, setup.options.lease_s, telemetry)
            case "streamer":
                arguments = (setup.handle("aggregator"), setup.api_key, setup.primary_retry, telemetry)
            case _:
                arguments = (setup,)
        return actor_class(getattr(classes, role), role, **options).remote(*arguments)

    def begin(self) -> None:
        """Start them: the job's registered runs are worked off.

        Raises
        ------
        ClusterError
            They do not start in two minutes.
        """
        # The handles are kept: a named actor that is not detached dies with the last of them.
        self._started = {role: self._start(role) for role in ("aggregator", "streamer", "dispatcher")}
        for role in self._started:
            self._ask("ping", role)

    def finished(self) -> tuple[bool, str | None]:
        """Return what the dispatcher says of its end."""
        answer: tuple[bool, str | None] = self._ask("finished")
        return answer

    def drain(self) -> None:
        """Have nothing new begun."""
        self._ask("drain")

    def end(self) -> None:
        """Kill the actors; safe to repeat."""
        end_actors(self._setup.options.job_id)

    def _ask(self, method: str, role: str = "dispatcher") -> Any:
        try:
            return ray.get(getattr(self._started[role], method).remote(), timeout=START_TIMEOUT_S)
        except ray.exceptions.GetTimeoutError as exc:
            raise ClusterError(
                f"the {role} has not answered {method!r} in {START_TIMEOUT_S:.0f} s",
                hint="is there room on the cluster? Actors wait for free resources; see `ray status`",
            ) from exc
        except ray.exceptions.RayError as exc:
            raise unwrap(exc, method) from exc
