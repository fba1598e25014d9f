"""A Ray to run on: our own local one, which ends with us, or a cluster that is there."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from ingest.errors import ClusterError

__all__ = ["Runtime", "SharedRay", "connect", "disconnect", "ray_runtime", "refuse_client", "usable_cpus"]

OBJECT_STORE_BYTES = 128 << 20
"""Backfill sends no frames through the object store; Ray takes no less than 75 MB."""
PREALLOCATE = "RAY_preallocate_plasma_memory"


@dataclass(frozen=True, slots=True)
class Runtime:
    """The Ray that a job runs on.

    Attributes
    ----------
    is_local : bool
        Whether it was started by us and ends with us.
    cpus : int
        Free processors on all nodes: how many packers make sense.
    node_id : str
        Ours.
    nodes : int
        How many are alive.
    """

    is_local: bool
    cpus: int
    node_id: str
    nodes: int


@contextmanager
def ray_runtime(address: str | None, *, cpus: int | None = None) -> Iterator[Runtime]:
    """Connect to Ray for the length of a block.

    Parameters
    ----------
    address : str or None
        Of a cluster (``"auto"``, ``"host:6379"``, ``"ray://..."``); None: start a local Ray, which ends with the block.
        A Ray to which this process is connected already is used and left alone.
    cpus : int, optional
        The least number of processors that a local Ray shall believe in; default: those that this process may use.

    Raises
    ------
    ClusterError
        No Ray at that address, or it does not start.
    """
    connected = connect(address, cpus=cpus)
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]
        yield Runtime(
            is_local=address is None,
            cpus=max(1, int(ray.available_resources().get("CPU", 1))),
            node_id=ray.get_runtime_context().get_node_id(),
            nodes=len(alive),
        )
    finally:
        if connected:
            ray.shutdown()


def connect(
    address: str | None,
    *,
    cpus: int | None = None,
    object_store_bytes: int = OBJECT_STORE_BYTES,
    preallocate: bool = False,
) -> bool:
    """Connect this process to Ray; return whether it was not before, so that the caller has to disconnect it.

    Parameters
    ----------
    address, cpus
        As for `ray_runtime`.
    object_store_bytes : int
        Size of a local Ray's object store.
    preallocate : bool, default False
        Have a local Ray touch all of its store now, so that the first large objects are as quick as later ones; costs
        1.4 s and the memory itself for each GiB (RAY.md 2).

    Raises
    ------
    ClusterError
        No Ray at that address, or it does not start.
    """
    if ray.is_initialized():
        return False
    before = os.environ.get(PREALLOCATE)
    if preallocate:
        os.environ[PREALLOCATE] = "1"
    try:
        _connect(address, cpus, object_store_bytes)
    finally:
        os.environ.pop(PREALLOCATE, None)
        if before is not None:
            os.environ[PREALLOCATE] = before
    return True


def disconnect() -> None:
    """Disconnect this process from Ray; a local one ends. Safe to repeat."""
    if ray.is_initialized():
        ray.shutdown()


class SharedRay:
    """Ray as several parts of a process use it: the first connects, the last disconnects what was connected so.

    Parameters
    ----------
    connect : callable
        `connect`, or something like it.
    disconnect : callable
        `disconnect`, or something like it.
    """

    def __init__(self, connect: Callable[..., bool], disconnect: Callable[[], None]) -> None:
        self._connect = connect
        self._disconnect = disconnect
        self._lock = threading.Lock()
        self._users = 0
        self._is_ours = False

    def join(self, address: str | None, **options: Any) -> None:
        """Be one of its users, connecting if need be; arguments as for `connect`."""
        with self._lock:
            self._is_ours = self._connect(address, **options) or self._is_ours
            self._users += 1

    def leave(self) -> None:
        """Be none any more; for each `join` once."""
        with self._lock:
            self._users -= 1
            if self._users == 0 and self._is_ours:
                self._is_ours = False
                self._disconnect()


def refuse_client(address: str | None) -> None:
    """Refuse the address of a Ray client, which is on no node of its cluster.

    Raises
    ------
    ClusterError
        It is one.
    """
    if address is not None and address.startswith("ray://"):
        raise ClusterError(
            f"{address}: journal and spool are files beside the driver, and a Ray client is on no node of the cluster",
            hint="run it on a node of the cluster, with the address auto",
        )


def _connect(address: str | None, cpus: int | None, object_store_bytes: int) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # It warns that token authentication is on, as it should be.
    logging.getLogger("ray._private.authentication.authentication_token_setup").setLevel(logging.ERROR)
    # Ray takes SIGTERM for itself; whoever handled it before shall have it back.
    before = signal.getsignal(signal.SIGTERM)
    quiet = {"log_to_driver": False, "configure_logging": False}
    try:
        if address is not None:
            ray.init(address=address, **quiet)
            return
        ray.init(
            address="local",
            num_cpus=max(cpus or 0, usable_cpus()),
            include_dashboard=False,
            object_store_memory=object_store_bytes,
            **quiet,
        )
    except Exception as exc:
        what = "a local Ray does not start" if address is None else f"no Ray at {address}"
        raise ClusterError(
            f"{what}: {type(exc).__name__}: {exc}",
            hint="check the address with `ray status --address ...`, and that versions and token agree",
        ) from exc
    finally:
        _protect_token()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def usable_cpus() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _protect_token() -> None:
    """Take the group's and others' rights from the token that Ray 2.60 writes with mode 0644 (RAY.md 4)."""
    token = Path.home() / ".ray" / "auth_token"
    if token.exists() and token.stat().st_mode & 0o077:
        token.chmod(0o600)
