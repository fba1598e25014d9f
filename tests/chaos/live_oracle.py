"""Compares what the server, the journal and the spool hold with what a live script pushed and was told."""

from __future__ import annotations

import asyncio
import json
import math
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from ingest.destinations.readback import read_back
from ingest.errors import IngestError
from ingest.journal import Journal
from ingest.ledger import StreamLedger
from ingest.shard import frames_digest
from ingest.telemetry import Secret
from ingest.wire.client import PlatformClient
from tests.chaos.hooks import lease_thefts, stale_commits
from tests.chaos.live_made import CHANNELS, FPS, PUSH, RUN, SAMPLE, SERIES, SHAPE, FramesStep, PointsStep, Script

WINDOW = 4
DURABLE = ("Delivered", "Spooled")
MORE = 6
"""Of differences alike, so many are told."""


@dataclass
class Push:
    """One call of ``push`` or item of ``run``, as the driver logged it."""

    seqs: list[int]
    index: int
    version: int = 0
    channels: tuple[str, ...] = ()
    ms: tuple[int, int] | None = None
    returned: bool = False


@dataclass
class Pushed:
    """What a driver did with one stream."""

    name: str
    data_id: str
    key: str
    pushes: list[Push] = field(default_factory=list)
    settled: dict[int, str] = field(default_factory=dict)
    report: dict[str, Any] | None = None
    warned: list[str] = field(default_factory=list)

    def is_durable(self, push: Push) -> bool:
        return all(self.settled.get(seq) in DURABLE for seq in push.seqs)


@dataclass
class DriverLog:
    """All that the drivers of a trial did."""

    streams: dict[str, Pushed]
    failed: list[str]


def read_log(folder: Path) -> DriverLog:
    """Read the drivers' log; the last line of a killed one may be cut off."""
    log = DriverLog({}, [])
    early: list[dict[str, Any]] = []
    file = folder / "live.log"
    for text in file.read_text().splitlines() if file.exists() else ():
        with suppress(ValueError):
            early.append(json.loads(text))
    for line in early:
        if line["what"] == "stream":
            log.streams[line["name"]] = Pushed(line["name"], line["data_id"], line["key"])
    by_id = {stream.data_id: stream for stream in log.streams.values()}
    for line in early:
        match line["what"]:
            case "failed":
                log.failed.append(f"{line['driver']}: {line['error']}")
            case "push":
                push = Push(line["seqs"], line["index"], line.get("version", 0), tuple(line.get("channels", ())))
                push.ms = tuple(line["ms"]) if "ms" in line else None
                log.streams[line["name"]].pushes.append(push)
            case "returned":
                [push] = [push for push in log.streams[line["name"]].pushes if push.seqs == line["seqs"]]
                push.returned = True
                push.ms = tuple(line["ms"]) if "ms" in line else push.ms
            case "settled":
                by_id[line["data_id"]].settled[line["seq"]] = line["how"]
            case "finalized":
                log.streams[line["name"]].report = line["report"]
                log.streams[line["name"]].warned = line["warned"]
    return log


class SpoolWatch:
    """Looks at the spool again and again: what is not there any more must have a receipt by then."""

    def __init__(self, state: Path) -> None:
        self.wrong: list[str] = []
        self._state = state
        self._known: set[Path] = set()
        self._journal: Journal | None = None

    def look(self) -> None:
        now = set((self._state / "spool").glob("*/*/*.chunk"))
        gone, self._known = self._known - now, now
        ledgers: dict[str, StreamLedger] = {}
        for path in gone:
            key, index = path.parent.name, int(path.stem.partition("-")[2])
            if path.with_name(f"{path.name}.refused").exists():
                continue
            if key not in ledgers:
                ledgers[key] = self._open().load(key)
            if index not in ledgers[key].confirmed:
                self.wrong.append(f"{path.name} of stream {key} left the spool without a receipt")

    def is_empty(self) -> bool:
        self.look()
        return not self._known

    def _open(self) -> Journal:
        if self._journal is None:
            self._journal = Journal(self._state, time.time)
        return self._journal

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()


class LiveOracle:
    """Compares; every difference is a sentence."""

    def __init__(
        self, url: str, key: Secret, folder: Path, script: Script, refused: tuple[int, ...], lease_s: float
    ) -> None:
        self._url, self._key, self._folder, self._script, self._lease_s = url, key, folder, script, lease_s
        self._refused = set(refused)
        self._log = read_log(folder)

    def differences(self) -> list[str]:
        wrong = stale_commits(self._folder) + lease_thefts(self._folder, self._lease_s) + self._spooled()
        journal = Journal(self._folder / "state", time.time)
        try:
            return wrong + asyncio.run(self._compare(journal))
        finally:
            journal.close()

    def _spooled(self) -> list[str]:
        wrong = []
        for path in (self._folder / "state" / "spool").glob("*/*/*"):
            if path.suffix == ".chunk" or path.suffix == ".damaged":
                wrong.append(f"the spool still has {path.parent.name}/{path.name}")
            elif path.suffix == ".refused" and not self._refused:
                wrong.append(f"{path.name} was set aside as refused, and nobody refused it")
        return wrong

    async def _compare(self, journal: Journal) -> list[str]:
        wrong = []
        async with PlatformClient(self._url, self._key) as client:
            listed = {s["id"]: s for s in (*await client.list_streams(), *await client.list_timeseries_streams())}
            known = {stream.data_id for stream in self._log.streams.values()}
            for data_id in listed.keys() - known:
                # Of a driver that was killed while it began streams.
                if listed[data_id]["chunks"] or listed[data_id]["end_calls"]:
                    wrong.append(f"stream {data_id}, of which no driver knows, has chunks or was closed")
            if len(listed.keys() - known) > 3:
                wrong.append(f"{len(listed.keys() - known)} streams of which no driver knows")
            for name, stream in self._log.streams.items():
                if stream.data_id not in listed:
                    wrong.append(f"{name}: no stream on the server")
                    continue
                try:
                    compare = self._points if name == SERIES else self._frames
                    differences = await compare(client, stream, journal.load(stream.key))
                except IngestError as exc:
                    differences = [str(exc)]
                wrong += [f"{name}: {text}" for text in differences[:MORE]]
        return wrong

    # -- both kinds ----------------------------------------------------------------------------------------------------

    def _ends(self, stream: Pushed, server: dict[str, Any], ledger: StreamLedger) -> list[str]:
        """Say what is wrong with whether it is closed."""
        wrong = []
        closed = (server["status"], server["times_closed"]) == ("closed", 1)
        if stream.report is not None or ledger.expected is not None:
            if not closed or ledger.state != "closed":
                wrong.append(
                    f"sealed, but it is {server['status']}, closed {server['times_closed']} times; "
                    f"the journal says {ledger.state}"
                )
        elif server["times_closed"] or server["end_calls"] or ledger.state != "open":
            wrong.append(f"not sealed, but it is {server['status']}; the journal says {ledger.state}")
        lost = set(ledger.lost) - (self._refused if stream.name == PUSH else set())
        if lost:
            wrong.append(f"the journal calls chunks {sorted(lost)} lost: {[ledger.lost[i] for i in sorted(lost)][:2]}")
        return wrong

    def _report(self, stream: Pushed, held: int, lost: set[int]) -> list[str]:
        report = stream.report
        if report is None:
            return []
        truth = {
            "data_id": stream.data_id,
            "pushed": sum(len(push.seqs) for push in stream.pushes),
            "chunks_uploaded": held,
            "chunks_failed": len(lost),
            "chunks_dropped": 0,
            "chunks_not_uploaded": len(lost),
            "chunks_spooled": 0,
            "form": "close_with_losses" if lost else "close",
        }
        wrong = [f"finalize says {name}={report[name]!r}, not {value!r}" for name, value in truth.items()
                 if report[name] != value]  # fmt: skip
        if {index for index, _ in report["lost"]} != lost:
            wrong.append(f"finalize says lost={report['lost']}, not {sorted(lost)}")
        if len(stream.warned) != bool(lost):
            wrong.append(f"finalize warned: {stream.warned}")
        return wrong

    def _window(self, stream: Pushed, missing: list[Push]) -> list[str]:
        """Say which pushes are missing that must not be."""
        wrong = [f"chunk {p.index} (push {p.seqs}) was acknowledged and is not held" for p in missing
                 if stream.is_durable(p)]  # fmt: skip
        returned = [push for push in missing if push.returned]
        if stream.report is not None and missing:
            wrong.append(f"{len(missing)} pushed chunks are not held: {[push.index for push in missing][:MORE]}")
        elif stream.name != SERIES and len(returned) > WINDOW:
            wrong.append(f"{len(returned)} pushed chunks are missing, and the window is {WINDOW}")
        return wrong

    # -- frames --------------------------------------------------------------------------------------------------------

    async def _frames(self, client: PlatformClient, stream: Pushed, ledger: StreamLedger) -> list[str]:
        server = await client.stream(stream.data_id)
        wrong = self._ends(stream, server, ledger)
        linked = (None if server["sample"] is None else server["sample"]["name"], len(server["tags"]))
        if linked != ((SAMPLE, 1) if stream.name == RUN else (None, 0)):
            wrong.append(f"it is linked to sample and tags {linked}")
        details = {chunk["index"]: chunk for chunk in server["chunk_list"]}
        held: dict[int, str] = {}
        async for chunk in read_back(client, stream.data_id):
            held[chunk.index] = frames_digest(chunk.frames)
            wrong += self._one_chunk(stream, chunk.index, chunk.frames, details[chunk.index], ledger)
        refused = self._refused if stream.name == PUSH else set()
        lost = {push.index for push in stream.pushes if push.index in refused}
        if lost & held.keys():
            wrong.append(f"chunks {sorted(lost & held.keys())} are held, and were refused")
        wrong += self._window(stream, [p for p in stream.pushes if p.index not in held and p.index not in refused])
        for index in ledger.confirmed.keys() - held.keys():
            wrong.append(f"chunk {index} has a receipt and is not held")
        for push in stream.pushes:
            if stream.is_durable(push) and push.index not in ledger.confirmed and push.index not in refused:
                wrong.append(f"chunk {push.index} was acknowledged and has no receipt")
        wrong += self._report(stream, len(held), lost)
        return wrong

    def _one_chunk(
        self, stream: Pushed, index: int, frames: np.ndarray, details: dict[str, Any], ledger: StreamLedger
    ) -> list[str]:
        pushes = [push for push in stream.pushes if push.index == index]
        if not pushes:
            return [f"chunk {index} is held, and nobody pushed it"]
        durable = [number for number, push in enumerate(pushes) if stream.is_durable(push)]
        # The last that was acknowledged, or one after it that a killed driver was about to send.
        allowed = pushes[durable[-1] :] if durable else pushes
        wrong = []
        is_it = [
            p for p in allowed if np.array_equal(self._script.frames(stream.name, FramesStep(index, p.version)), frames)
        ]
        if not is_it:
            return [f"chunk {index} has other frames than push {allowed[0].seqs} gave"]
        push = is_it[0]
        start_ms, offset_ms = details["start_unix_ms_utc"], details["clock_offset_ms"] or 0
        if push.ms is not None and not push.ms[0] <= start_ms - offset_ms <= push.ms[1]:
            wrong.append(f"chunk {index} starts at {start_ms} (clock offset {offset_ms}), not in {push.ms}")
        if details["end_unix_ms_utc"] != start_ms + math.trunc(SHAPE[0] / FPS * 1000):
            wrong.append(f"chunk {index} ends at {details['end_unix_ms_utc']}, and starts at {start_ms}")
        if (details["fps"], details["is_rotating"], details["chunk_size"]) != (FPS, stream.name == PUSH, SHAPE[0]):
            wrong.append(f"chunk {index} has the settings of another stream: {details}")
        receipt = ledger.confirmed.get(index)
        if receipt != frames_digest(frames) and stream.is_durable(push):
            wrong.append(f"chunk {index} is held with other frames than its receipt is of")
        return wrong

    # -- points --------------------------------------------------------------------------------------------------------

    async def _points(self, client: PlatformClient, stream: Pushed, ledger: StreamLedger) -> list[str]:
        server = await client.timeseries_stream(stream.data_id)
        wrong = self._ends(stream, server, ledger)
        linked = None if server["sample"] is None else server["sample"]["name"]
        if linked != SAMPLE:
            wrong.append(f"it is linked to sample {linked}")
        held: set[tuple[str, int]] = set()
        for channel in server["channels"]:
            wrong += await self._one_channel(client, stream, channel, held)
        missing = [p for p in stream.pushes if any((name, p.index) not in held for name in p.channels)]
        wrong += self._window(stream, missing)
        digests: dict[int, str] = {}
        for push in stream.pushes:
            step = PointsStep(push.index, push.channels, is_multi=bool(push.index % 2))
            bodies = self._script.bodies(stream.data_id, step)
            digests |= {seq: xxhash.xxh3_128(body).hexdigest() for seq, body in zip(push.seqs, bodies, strict=True)}
        for seq, how in stream.settled.items():
            if how in DURABLE and seq not in ledger.confirmed:
                wrong.append(f"request {seq} was acknowledged and has no receipt")
        for seq, digest in ledger.confirmed.items():
            if digests.get(seq) != digest:
                wrong.append(f"the receipt of request {seq} is of other points than were pushed")
        if stream.report is not None and ledger.confirmed.keys() != digests.keys():
            wrong.append(f"{len(ledger.confirmed)} receipts for {len(digests)} requests")
        wrong += self._report(stream, len(digests), set())
        return wrong

    async def _one_channel(
        self, client: PlatformClient, stream: Pushed, channel: dict[str, Any], held: set[tuple[str, int]]
    ) -> list[str]:
        name, wrong = channel["name"], []
        got = await client.get_points(stream.data_id, name)
        if got["units"] != CHANNELS.get(name):
            wrong.append(f"channel {name} is in {got['units']}")
        place = 0
        for index, points in zip(got["chunk_indices"], got["chunk_points"], strict=True):
            stamps, values = (got[what][place : place + points] for what in ("timestamps", "values"))
            place += points
            held.add((name, index))
            pushes = [push for push in stream.pushes if push.index == index and name in push.channels]
            if not pushes:
                wrong.append(f"chunk {index} of {name} is held, and nobody pushed it")
                continue
            step = PointsStep(index, pushes[-1].channels, is_multi=bool(index % 2))
            made = self._script.points(step, name)
            numbers = np.array([math.nan if value is None else value for value in values])
            if not np.array_equal(made[0], stamps) or not np.array_equal(made[1], numbers, equal_nan=True):
                wrong.append(f"chunk {index} of {name} has other points than were pushed")
        return wrong
