"""Lakes to verify, and every way to damage one."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import zarr
import zstandard

from ingest.cli.planning import find_candidates
from ingest.config import BackfillSettings
from ingest.contents import StreamContents
from ingest.destinations import open_destination
from ingest.ledger import Receipt
from ingest.manifest import live_manifest, manifest_digest
from ingest.plan import StreamSettings
from ingest.series_plan import ArchivePlan
from ingest.shard import assemble, frames_digest, pack, read_index
from ingest.sources.synthetic import GrowthRun
from ingest.sources.synthetic_hdf5 import write_hdf5
from ingest.verify.findings import StreamReport
from ingest.verify.here import verify_here
from ingest.verify.job import VerifyRequest
from ingest.wire.models import ChunkMetadata
from tests.support import KEY, QUICK, backfill_without_ray

LOST = (100, 101)
"""Frames that the source cannot give; both in shard 2 of 41 frames."""
SIZE = 41
SHAPE = (24, 32)


def lossy_run(path: Path, *, frames: int = 200, gap: int | None = 70, lost: tuple[int, ...] = LOST) -> Path:
    """Write a run of 20 fps some frames of which do not decompress."""
    gaps = () if gap is None else ((gap, 0.8),)
    target, path = path, path.with_name("written")  # over the other one at once, which may be open
    write_hdf5(path, GrowthRun(frames, *SHAPE, fps=20.0, jitter_s=0.002, gaps=gaps), compression="gzip")
    with h5py.File(path) as file:
        data = file["entry/instrument/detector/data"]
        places = [data.id.get_chunk_info(i) for i in range(frames)]
    with path.open("r+b") as file:
        for i in lost:
            file.seek(places[i].byte_offset)
            file.write(b"\xff" * (places[i].size // 2))
    return path.replace(target)


def plan_for(source: Path, *to: str, **settings) -> tuple[str, ArchivePlan]:
    settings = {"rotations_per_min": 0.0, **settings}
    [candidate] = find_candidates([str(source)], BackfillSettings(**settings), planning=True, to=to)
    assert candidate.plan is not None, candidate.error
    return candidate.path, candidate.plan


@dataclass
class Sent:
    """A run that lies in a lake."""

    lake: Path
    state: Path
    path: str
    plan: ArchivePlan
    data_id: str

    @classmethod
    def make(cls, folder: Path, source: Path, **settings) -> Sent:
        lake = folder / "lake"
        path, plan = plan_for(source, str(lake), **settings)
        [row] = backfill_without_ray(str(lake), folder / "state", (path, plan))
        assert row.data_id is not None
        assert row.end is not None
        assert row.end.status in ("complete", "partial"), row.end
        return cls(lake, folder / "state", path, plan, row.data_id)

    def copied(self, to: Path) -> Sent:
        """Return a copy of the lake, with the same times of its files."""
        shutil.copytree(self.lake, to / "lake")
        return Sent(to / "lake", to / "state", self.path, self.plan, self.data_id)

    @property
    def group(self) -> Path:
        return self.lake / f"{self.data_id}.zarr"

    @property
    def manifest(self) -> Path:
        return self.lake / f"{self.data_id}.manifest.json"

    def shard(self, number: int) -> Path:
        return self.group / f"frames/c/{number}/0/0"

    def verify(self, *, repair: bool = False, alone: bool = False, **more) -> StreamReport:
        level = more.pop("level", 1)
        runs = [] if alone else [(self.path, more.pop("plan", self.plan))]
        request = VerifyRequest([str(self.lake)], runs, self.state, repair=repair, retry=QUICK, api_key=KEY, **more)
        [report] = asyncio.run(verify_here(request, level=level))
        return report

    def files(self) -> dict[str, tuple[int, bytes]]:
        """Return when each file was written, and what is in it."""
        found = (path for path in self.lake.rglob("*") if path.is_file())
        return {str(path.relative_to(self.lake)): (path.stat().st_mtime_ns, path.read_bytes()) for path in found}


def write_log(path: Path) -> Path:
    """Write a log of two channels and 21 rows, with a value missing."""
    rows = [f"2023-11-14T22:13:{20 + i}Z,{700 + i % 5},{'' if i == 9 else f'1e-{i % 3 + 7}'}" for i in range(21)]
    path.write_text("time,temperature [C],pressure [mbar]\n" + "\n".join(rows) + "\n")
    return path


def live(folder: Path, lengths: tuple[int, ...], size: int = 4) -> Sent:
    """Put a live stream of chunks of such lengths into a lake."""
    settings = StreamSettings("live", 2.0, 0.0, size)
    frames = np.random.default_rng(1).integers(1, 255, (sum(lengths), 4, 6)).astype(np.uint8)

    async def stream() -> str:
        destination = open_destination(str(folder / "lake"))
        data_id = await destination.open_stream(settings, "some key")
        receipts, at = [], 0
        for index, n in enumerate(lengths):
            part = frames[at : at + n]
            meta = ChunkMetadata(n, 4, 6, size, 2.0, False, 1_700_000_000_000 + 500 * at)
            shard = pack(part)
            await destination.deliver(data_id, index, meta, shard)
            span = (meta.start_unix_ms_utc, meta.end_unix_ms_utc)
            digest = frames_digest(part)
            receipts.append(Receipt(index, n, *span, shard.n_bytes, shard.crc32c(), digest, None, 1, "", 0))
            at += n
        told = live_manifest(settings, data_id, "closed", receipts, {}, is_sealed=True)
        await destination.close_stream(data_id, StreamContents(settings, None, tuple(receipts), {}, told))
        await destination.aclose()
        return data_id

    return Sent(folder / "lake", folder / "state", "", None, asyncio.run(stream()))  # type: ignore[arg-type]


# -- damage ------------------------------------------------------------------------------------------------------------


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 0xFF
    path.write_bytes(data)


def parts_of(path: Path, size: int = SIZE) -> list[bytes | None]:
    body = path.read_bytes()
    return [None if entry is None else body[entry[0] : sum(entry)] for entry in read_index(body, size)]


def with_parts(path: Path, change: Callable[[list[bytes | None]], None], size: int = SIZE) -> None:
    parts = parts_of(path, size)
    change(parts)
    path.write_bytes(assemble(parts).tobytes())


def encoded(frame: np.ndarray, level: int = 1) -> bytes:
    return zstandard.ZstdCompressor(level=level).compress(np.ascontiguousarray(frame))


def _set(parts: list[bytes | None], at: int, value: bytes | None) -> None:
    parts[at] = value


def another_pixel(sent: Sent) -> None:
    def change(parts: list[bytes | None]) -> None:
        frame = np.frombuffer(zstandard.ZstdDecompressor().decompress(parts[7] or b""), np.uint8).copy()
        frame[11] ^= 1
        parts[7] = encoded(frame)

    with_parts(sent.shard(1), change)


def black_for_lost(sent: Sent) -> None:
    with_parts(sent.shard(2), lambda parts: _set(parts, LOST[0] - 2 * SIZE, encoded(np.zeros(SHAPE, np.uint8))))


def truncated(sent: Sent) -> None:
    path = sent.shard(1)
    path.write_bytes(path.read_bytes()[:-30])


def swapped(sent: Sent) -> None:
    a, b = sent.shard(0), sent.shard(1)
    first, second = a.read_bytes(), b.read_bytes()
    a.write_bytes(second)
    b.write_bytes(first)


def encoded_otherwise(sent: Sent) -> None:
    def change(parts: list[bytes | None]) -> None:
        parts[:] = [None if p is None else encoded_at(p) for p in parts]

    def encoded_at(part: bytes) -> bytes:
        return encoded(np.frombuffer(zstandard.ZstdDecompressor().decompress(part), np.uint8), level=15)

    with_parts(sent.shard(1), change)


def with_junk(sent: Sent) -> None:
    """Put bytes between the frames and the index."""
    path = sent.shard(1)
    body, index = path.read_bytes(), 16 * SIZE + 4
    path.write_bytes(body[:-index] + b"junk" + body[-index:])


def past_the_end(sent: Sent) -> None:
    with_parts(sent.shard(4), lambda parts: _set(parts, 40, encoded(np.zeros(SHAPE, np.uint8))))


def extra(sent: Sent) -> None:
    path = sent.shard(7)
    path.parent.mkdir(parents=True)
    path.write_bytes(sent.shard(0).read_bytes())


def number(sent: Sent, array: str, at: int, value: int) -> None:
    zarr.open_array(sent.group / array, mode="r+")[at] = value


def document(path: Path, change: Callable[[dict], None]) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def manifest_with_digest(sent: Sent, change: Callable[[dict], None]) -> None:
    def changed(value: dict) -> None:
        change(value)
        value["digest"] = manifest_digest(value)

    document(sent.manifest, changed)


DAMAGE: dict[str, tuple[Callable[[Sent], object], set[str]]] = {
    "a flipped byte of a frame": (lambda s: flip(s.shard(1), 400), {"frames"}),
    "another pixel": (another_pixel, {"frames"}),
    "a truncated shard": (truncated, {"torn"}),
    "an empty shard": (lambda s: s.shard(0).write_bytes(b""), {"torn"}),
    "a removed shard": (lambda s: s.shard(3).unlink(), {"missing object"}),
    "swapped shards": (swapped, {"frames"}),
    "an extra shard": (extra, {"extra object"}),
    "an extra chunk of time": (lambda s: (s.group / "time/c/1").write_bytes(b"x"), {"extra object"}),
    "a frame past the end": (past_the_end, {"frames"}),
    "junk in a shard": (with_junk, {"checksum"}),
    "frames encoded otherwise": (encoded_otherwise, {"checksum"}),
    "a frame that is gone": (lambda s: with_parts(s.shard(0), lambda p: _set(p, 5, None)), {"lost frame"}),
    "a black frame for a lost one": (black_for_lost, {"lost frame"}),
    "an edited time": (lambda s: number(s, "time", 17, 1_700_000_000_123_456_789), {"time"}),
    "a time for a lost frame": (lambda s: number(s, "time", LOST[0], 1_700_000_000_123_456_789), {"time"}),
    "an edited frame_index": (lambda s: number(s, "frame_index", 17, 77), {"frame_index"}),
    "no times": (lambda s: (s.group / "time/c/0").unlink(), {"missing object"}),
    "torn times": (lambda s: flip(s.group / "time/c/0", 3), {"torn"}),
    "an edited attribute": (
        lambda s: document(s.group / "zarr.json", lambda d: d["attributes"].update(fps=99.0)), {"attributes"},
    ),
    "an edited dimension": (
        lambda s: document(s.group / "frames/zarr.json", lambda d: d.update(dimension_names=["a", "b", "c"])),
        {"metadata"},
    ),
    "no metadata": (lambda s: (s.group / "frame_index/zarr.json").unlink(), {"missing object"}),
    "an edited manifest": (lambda s: document(s.manifest, lambda d: d["counts"].update(frames=7)), {"manifest"}),
    "no manifest": (lambda s: s.manifest.unlink(), {"manifest"}),
    "no commit marker": (lambda s: (s.group / "zarr.json").unlink(), {"uncommitted"}),
}  # fmt: skip
"""Each kind of damage: what does it, and which kinds of differences tell of it, and no others."""


def kinds(report: StreamReport) -> set[str]:
    return {difference.kind for difference in report.differences}


def shards(files: dict[str, tuple[int, bytes]]) -> Iterator[tuple[str, tuple[int, bytes]]]:
    return ((name, file) for name, file in files.items() if "/frames/c/" in name)
