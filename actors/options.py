"""The one table of what Ray grants each actor, and the one place where classes become actors."""

from __future__ import annotations

from typing import Any, Final

import ray

from ingest import __version__

__all__ = ["ACTOR_OPTIONS", "NAMESPACE", "actor_class", "actor_name"]

NAMESPACE: Final = "rheed-ingest"

# max_restarts=-1: a small number would be used up by a bad minute. max_task_retries is -1 or 0, never between
# (RAY.md 7): -1 where every method is idempotent, 0 where the dispatcher itself retries elsewhere.
ACTOR_OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "aggregator": {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1},
    "dispatcher": {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1},
    "streamer": {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1},
    # A live session's actors take no CPU: they have to start at once, on the node where the producer is.
    "live_dispatcher": {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1},
    "rheed_streamer": {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1},
    "timeseries_streamer": {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1},
    "live_packer": {"num_cpus": 0, "max_restarts": -1, "max_task_retries": 0},
    "packer": {"num_cpus": 1, "max_restarts": -1, "max_task_retries": 0, "scheduling_strategy": "SPREAD"},
}


def actor_class(plain: type, role: str, **overrides: Any) -> Any:
    """Return a plain class as a Ray actor class with its role's options."""
    return ray.remote(**{**ACTOR_OPTIONS[role], **overrides})(plain)


def actor_name(job_id: str, role: str) -> str:
    """Return the name of a job's actor; carries the version, so that two versions never talk to each other."""
    return f"rheed-ingest/{__version__}/{job_id}/{role}"
