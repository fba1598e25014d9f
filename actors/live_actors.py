"""A live session's actors: which classes, where they run, and their start with a time-out."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import ray
import ray.exceptions

from actors.aggregator import Aggregator
from actors.handles import Handle, RayHandle
from actors.live_dispatcher import LiveDispatcher
from actors.live_packer import LivePacker
from actors.live_setup import LiveSetup
from actors.live_states import LiveRHEEDState, LiveTimeseriesState
from actors.options import NAMESPACE, actor_class, actor_name
from ingest.allocator import collect_garbage_rarely, keep_freed_memory
from ingest.errors import ClusterError

__all__ = ["LiveActorClasses", "LiveActors"]

PACKER_CALLS = 64


class _LiveDispatcherActor(LiveDispatcher):
    """The live dispatcher as an actor: begins in its constructor, so that it goes on by itself after a restart."""

    def __init__(self, setup: LiveSetup) -> None:
        super().__init__(setup, setup.handle("aggregator"))
        self.start()


class _LiveRHEEDActor(LiveRHEEDState):
    def __init__(self, setup: LiveSetup) -> None:
        super().__init__(setup, setup.handle("aggregator"))


class _LiveTimeseriesActor(LiveTimeseriesState):
    def __init__(self, setup: LiveSetup) -> None:
        super().__init__(setup, setup.handle("aggregator"))


class _LivePackerActor(LivePacker):
    """A packer as an actor. Ray gives its process the least priority, so that it never delays a push."""

    def __init__(self, setup: LiveSetup) -> None:
        super().__init__(setup, setup.handle("aggregator"))
        keep_freed_memory()
        collect_garbage_rarely()


@dataclass(frozen=True)
class LiveActorClasses:
    """The plain classes behind a session's actors; each takes the setup only, the aggregator its folder and lease."""

    aggregator: type = Aggregator
    live_dispatcher: type = _LiveDispatcherActor
    rheed_streamer: type = _LiveRHEEDActor
    timeseries_streamer: type = _LiveTimeseriesActor
    live_packer: type = _LivePackerActor


class LiveActors:
    """Makes a session's actors when they are first needed; all on one node.

    Parameters
    ----------
    setup : LiveSetup
        What they are made from.
    node_id : str
        The producer's node.
    classes : LiveActorClasses
        Their classes.
    """

    def __init__(self, setup: LiveSetup, node_id: str, classes: LiveActorClasses) -> None:
        self._setup = setup
        self._node_id = node_id
        self._classes = classes
        self._handles: dict[str, RayHandle] = {}

    def handle(self, role: str) -> Handle:
        """Return the session's one actor of a role, made if need be; Ray queues calls until it is up."""
        if role not in self._handles:
            arguments: tuple[Any, ...] = (self._setup,)
            if role == "aggregator":
                setup = self._setup
                arguments = (setup.state_dir, setup.options.lease_s, setup.telemetry_of(role))
            # Kept: a named actor that is not detached dies with the last of its handles.
            self._handles[role] = self._make(role, arguments, name=actor_name(self._setup.session_id, role))
        return self._handles[role]

    def new_packer(self, _number: int) -> Handle:
        """Return a new packer."""
        return self._make("live_packer", (self._setup,), max_concurrency=PACKER_CALLS)

    def _make(self, role: str, arguments: tuple[Any, ...], **options: Any) -> RayHandle:
        if not ray.is_initialized():  # `remote` would start another one
            raise ClusterError("this process is not connected to Ray any more")
        if "name" in options:
            options["namespace"] = NAMESPACE
        options["label_selector"] = {"ray.io/node-id": self._node_id}
        return RayHandle(actor_class(getattr(self._classes, role), role, **options).remote(*arguments))

    def end(self) -> None:
        """Kill the actors; the packers end with their handles. Safe to repeat."""
        while self._handles:
            _, handle = self._handles.popitem()
            with contextlib.suppress(ray.exceptions.RayError):
                ray.kill(handle.actor)
