"""Calls from one actor to another, with Ray's errors turned into ours at this edge."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import ray
import ray.actor
import ray.exceptions

from ingest.errors import ClusterError, IngestError

__all__ = ["ActorLostError", "Handle", "LocalHandle", "NamedHandle", "RayHandle", "unwrap"]


FOREIGN_ACTOR = "from a different cluster"


class ActorLostError(ClusterError):
    """The actor died or cannot be reached; what it was asked may or may not have happened.

    Attributes
    ----------
    for_ever : bool
        Whether Ray will not restart it.
    """

    for_ever: bool = False

    def __init__(self, message: str, *, hint: str | None = None, for_ever: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.for_ever = for_ever


def unwrap(error: ray.exceptions.RayError, what: str) -> IngestError:
    """Return Ray's error as ours: the actor's own where it is one, else what became of the actor."""
    if isinstance(error, ray.exceptions.RayTaskError):
        cause = error.cause
        if isinstance(cause, IngestError):
            return cause
        return ClusterError(f"{what} failed inside its actor: {type(cause).__name__}: {cause}")
    if isinstance(error, ray.exceptions.RayActorError):
        for_ever = isinstance(error, ray.exceptions.ActorDiedError)
        return ActorLostError(f"{what}: the actor is gone: {type(error).__name__}", for_ever=for_ever)
    return ActorLostError(f"{what}: {type(error).__name__}: {error}")


class Handle(Protocol):
    """Someone who can be asked."""

    async def call(self, method: str, *args: Any) -> Any:
        """Call a method by name and return what it returns; raises an `IngestError` and nothing else."""
        ...


class LocalHandle:
    """Asks an object of this process: the same system without Ray, for tests."""

    def __init__(self, target: Any) -> None:
        self._target = target

    async def call(self, method: str, *args: Any) -> Any:
        """Call ``target.method(*args)``, awaiting it if it is a coroutine."""
        result = getattr(self._target, method)(*args)
        return await result if asyncio.iscoroutine(result) else result


class RayHandle:
    """Asks an actor."""

    def __init__(self, actor: ray.actor.ActorHandle) -> None:
        self.actor = actor

    async def call(self, method: str, *args: Any) -> Any:
        """Call the actor's method.

        Raises
        ------
        ActorLostError
            It died or cannot be reached.
        IngestError
            What the method raised.
        """
        if not ray.is_initialized():  # `remote` would start another one
            raise ActorLostError(f"{method}: this process is not connected to Ray any more", for_ever=True)
        try:
            return await getattr(self.actor, method).remote(*args)
        except ray.exceptions.RayError as exc:
            raise unwrap(exc, method) from exc
        except Exception as exc:
            if FOREIGN_ACTOR not in str(exc):  # Ray has no class for it
                raise
            raise ActorLostError(f"{method}: the actor is of a Ray that is gone", for_ever=True) from exc


class NamedHandle:
    """Asks the actor that has a name by the time of the call; pickles, unlike a handle that a constructor may keep."""

    def __init__(self, name: str, namespace: str) -> None:
        self._name = name
        self._namespace = namespace
        self._handle: RayHandle | None = None

    def __reduce__(self) -> tuple[type[NamedHandle], tuple[str, str]]:
        return NamedHandle, (self._name, self._namespace)

    async def call(self, method: str, *args: Any) -> Any:
        """Call the actor's method; as `RayHandle.call`."""
        if self._handle is None:
            try:
                self._handle = RayHandle(await asyncio.to_thread(ray.get_actor, self._name, self._namespace))
            except ValueError as exc:
                raise ActorLostError(f"{method}: there is no actor {self._name}") from exc
        try:
            return await self._handle.call(method, *args)
        except ActorLostError as exc:
            if exc.for_ever:
                self._handle = None
            raise
