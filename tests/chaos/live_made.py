"""What a live trial pushes: a script of steps and their contents, the same for whoever asks with the same seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ingest.timeseries import ApiGeneration, encode_channel, encode_channels

SHAPE = (24, 24, 32)
FPS = 10.0
FIRST_MS = 1_700_000_000_000
POINTS = 10
CHANNELS = {"temperature": "degC", "pressure": "Torr", "flux": None}
SAMPLE, TAG = "chaos sample", "chaos"

RUN, PUSH, SERIES = "run", "push", "series"
"""The three streams of a script, by how they are fed."""


@dataclass(frozen=True)
class FramesStep:
    """One chunk of frames; `version` counts the pushes of the same index."""

    index: int
    version: int = 0


@dataclass(frozen=True)
class PointsStep:
    """One call of `push` (one channel) or `push_multi`."""

    index: int
    channels: tuple[str, ...]
    is_multi: bool


@dataclass(frozen=True)
class Script:
    """What is pushed into the three streams."""

    seed: int
    chunks: int = 24
    generation: ApiGeneration = "tool-state"

    def run_steps(self) -> list[FramesStep]:
        return [FramesStep(index) for index in range(self.chunks - 4)]

    def push_steps(self) -> list[FramesStep]:
        """Out of order here and there; two chunks are pushed a second time, with other frames."""
        dice = random.Random(self.seed)
        steps = [FramesStep(index) for index in range(self.chunks)]
        place = dice.randrange(self.chunks - 1)
        steps[place], steps[place + 1] = steps[place + 1], steps[place]
        for _ in range(2):
            place = dice.randrange(self.chunks - 2)
            index = steps[place].index
            version = 1 + max(step.version for step in steps if step.index == index)
            # At once behind the first one, where the order is easiest to lose, or a little later.
            later = max(number for number, step in enumerate(steps) if step.index == index)
            steps.insert(later + dice.choice((1, 1, 3)), FramesStep(index, version))
        return steps

    def points_steps(self) -> list[PointsStep]:
        names = tuple(CHANNELS)
        steps = []
        for index in range(self.chunks):
            if index % 2:
                steps.append(PointsStep(index, names, is_multi=True))
            else:
                steps += [PointsStep(index, (name,), is_multi=False) for name in names[: 1 + index % 3]]
        return steps

    def frames(self, stream: str, step: FramesStep) -> NDArray[np.uint8]:
        dice = np.random.default_rng([self.seed, stream == RUN, step.index, step.version])
        return dice.integers(0, 256, SHAPE, np.uint8)

    def start_ms(self, index: int) -> int:
        """Return the explicit time of a chunk of the `RUN` stream."""
        return FIRST_MS + index * 2_417

    def points(self, step: PointsStep, channel: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        dice = np.random.default_rng([self.seed, 2, step.index, list(CHANNELS).index(channel)])
        values = dice.normal(size=POINTS)
        values[dice.integers(POINTS)] = np.nan
        return FIRST_MS / 1000 + (step.index + np.arange(POINTS) / POINTS), values

    def multi(self, step: PointsStep) -> dict[str, dict[str, object]]:
        channels: dict[str, dict[str, object]] = {}
        for name in step.channels:
            stamps, values = self.points(step, name)
            channels[name] = {"timestamps": stamps, "values": values, "units": CHANNELS[name]}
        return channels

    def bodies(self, data_id: str, step: PointsStep) -> list[bytes]:
        """Return the requests that a step becomes, one for each push in the order of pushes."""
        if step.is_multi:
            return [body for _, body in encode_channels(data_id, step.index, self.multi(step), self.generation)]
        [name] = step.channels
        return [encode_channel(data_id, step.index, name, *self.points(step, name), CHANNELS[name])[1]]
