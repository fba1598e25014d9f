"""Run by test_sdk_timeseries.py in a process of its own: the official SDK, unmodified, streams some channels.

Prints one JSON document with the id of the stream; the test says on standard input when all chunks have arrived, since
those of ``push`` and ``push_multi`` are fire and forget, and then the stream is finalized.
"""

import json
import os
import sys

from atomscale.streaming import TimeseriesStreamer


def main() -> None:
    url, path = sys.argv[1:]
    with open(path) as file:
        plan = json.load(file)
    streamer = TimeseriesStreamer(os.environ["AS_API_KEY"], url, plan["points_per_chunk"])
    data_id = streamer.initialize(" growth log ", 7, " GaN 42 ", plan["project"], ["growth", "Growth", " test "])
    unnamed = streamer.initialize()
    for push in plan["pushes"]:
        streamer.push(data_id, *push)
    for index, channels in plan["multi"]:
        streamer.push_multi(data_id, index, channels)
    streamer.run(data_id, "by run", iter([tuple(pair) for pair in plan["run"]]), "K")
    sys.stdout.write(json.dumps({"data_id": data_id, "unnamed": unnamed}) + "\n")
    sys.stdout.flush()
    sys.stdin.readline()
    streamer.finalize(data_id)


if __name__ == "__main__":
    main()
