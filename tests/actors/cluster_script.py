"""A script that streams from a node of a cluster of two; run in a process of its own by test_cluster.py."""

from __future__ import annotations

import json
import os
import sys

os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_AUTH_MODE="disabled")

import numpy as np
import ray
from ray.cluster_utils import Cluster

from actors import RHEEDStreamer, TimeseriesStreamer
from ingest.telemetry import Secret

KEY = os.environ["AS_API_KEY"]


@ray.remote(num_cpus=1)
class Camera:
    """Films on the other node, where nothing of the script's is."""

    def film(self, url: str, state: str, key: Secret) -> tuple[str, str, dict]:
        with RHEEDStreamer(key.reveal(), url, state_dir=state) as streamer:
            data_id = streamer.initialize(20.0, 0.0, 40, "in an actor")
            streamer.run(data_id, [(np.full((40, 24, 32), i + 1, np.uint8), 2000 * i) for i in range(3)])
            return ray.get_runtime_context().get_node_id(), data_id, dict(streamer.finalize(data_id))


def main() -> None:
    url, state = sys.argv[1:]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=2)
        with (
            RHEEDStreamer(KEY, url, state_dir=f"{state}/head", address=cluster.address) as streamer,
            TimeseriesStreamer(KEY, url, state_dir=f"{state}/head", address=cluster.address) as log,
        ):
            data_id = streamer.initialize(20.0, 0.0, 40, "by address")
            streamer.run(data_id, [(np.full((40, 24, 32), i + 1, np.uint8), 2000 * i) for i in range(3)])
            report = dict(streamer.finalize(data_id))
            log_id = log.initialize("a log")
            log.push(log_id, 0, "T", [1.7e9], [20.0])
            log.finalize(log_id)
            camera = Camera.remote()
            filming = camera.film.remote(url, f"{state}/node", Secret(KEY))
            node, filmed, filmed_report = ray.get(filming, timeout=90)
            here = ray.get_runtime_context().get_node_id()
        print(
            json.dumps(
                {
                    "streams": [data_id, filmed],
                    "log": log_id,
                    "uploaded": [report["chunks_uploaded"], filmed_report["chunks_uploaded"]],
                    "other_node": node != here,
                    "still_connected": ray.is_initialized(),
                }
            )
        )
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main()
