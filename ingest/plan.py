"""What is to be done, as data: a run's stream settings and the chunks that cover it. Pure, printable, sizeable."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["StreamSettings"]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """What a destination is told of a stream when it is created.

    Attributes
    ----------
    name : str
        Shown to people; not unique.
    fps : float
        Frames per second that the stream declares.
    rotations_per_min : float
        <= 0: stationary.
    chunk_size : int
        Declared frames per chunk.
    azimuth : str or None
        Label of the azimuth; only for a stationary stream.
    physical_sample : str or None
        Name or UUID.
    project_id : str or None
        UUID.
    tags : tuple of str
        Names or UUIDs.
    """

    name: str
    fps: float
    rotations_per_min: float
    chunk_size: int
    azimuth: str | None = None
    physical_sample: str | None = None
    project_id: str | None = None
    tags: tuple[str, ...] = ()
