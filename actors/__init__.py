"""The Ray side: actors that hold streams, pack, dispatch and close, and the jobs made of them."""

from actors.rheed_streamer import RHEEDStreamer
from actors.timeseries_streamer import TimeseriesStreamer

__all__ = ["RHEEDStreamer", "TimeseriesStreamer"]
