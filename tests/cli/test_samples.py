"""Every real sample, inspected and backfilled by one job file, against a table of what is in it."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from ingest.destinations.readback import read_back
from ingest.server.run import ServerProcess
from ingest.shard import frames_digest
from ingest.wire.client import PlatformClient
from tests.support import KEY

SAMPLES = Path(__file__).parents[3] / "shared" / "samples"
pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason="the shared samples are not there")
GIVEN = 1_697_616_000_000  # 2023-10-18T08:00:00Z, where the job file says the start

JOB = """
sources: [{samples}]
rotations_per_min: 0
tag: samples
rules:
  - {{match: "**/mbe_logs/*", set: {{log_start: "2019-05-01T10:00:00-04:00"}}}}
  - {{match: "**/safire/*", set: {{timezone: Europe/Berlin}}}}
  - {{match: "**/bmp_sequence/*", set: {{start: "2023-10-18T08:00:00Z", fps: 5}}}}
  - {{match: "**/tiff/*", set: {{start: "2023-10-18T08:00:00Z", fps: 2}}}}
  - {{match: "**/ksa/*.img", set: {{fps: 1}}}}
  - {{match: "**/growths_12bit.h5", set: {{start: "2023-10-18T08:00:00Z", fps: 10}}}}
  - {{match: "**/frames_timestamps.h5", set: {{start: "2023-10-18T08:00:00Z"}}}}
  - regex: 'output_video_(?P<date>\\d{{8}})-(?P<time>\\d{{6}})\\.avi$'
    set: {{timezone: Europe/Copenhagen, sample: "NQCP {{date}}"}}
"""


@dataclass(frozen=True)
class Fact:
    """What is known of a movie: frames, shape, claimed and measured rate, start and who says it, its two ends."""

    frames: int
    shape: tuple[int, int]
    fps_claimed: float | None
    fps: float
    start_unix_ms_utc: int
    start_from: str
    first: str
    last: str


AREA_FIRST, AREA_LAST = "4fce0cb23dfcb36d71ba2bacd39add08", "1e1efe87a2558e76db7411166d8f480b"
FACTS = {
    # The areaDetector file was made from the pictures: their ends are the same.
    "bmp_sequence/::depositionSb_#.bmp": Fact(12, (1038, 1388), 5, 5, GIVEN, "user", AREA_FIRST, AREA_LAST),
    "hdf5/deposition_areadetector.h5::/entry/instrument/detector/data": Fact(
        12, (1038, 1388), None, 4.9945, 1697616000253, "frame stamps", AREA_FIRST, AREA_LAST
    ),
    "hdf5/atomscale_chunks/::/frames": Fact(
        100, (354, 478), 10, 2.2232, 1696342633120, "file attributes",
        "8d360ff78fcc815c14c9b44aaf4d75bc", "e158c3674a540098bcda331b073c316d",
    ),
    "hdf5/frames_timestamps.h5::/frames": Fact(
        60, (177, 239), 15, 15.094, GIVEN, "user",
        "b661fa5d1b6494f596d811fbeac4c088", "cb9a81461fcf6c67abe55bded7a66a5f",
    ),
    "hdf5/growths_12bit.h5::/growth_1": Fact(
        40, (256, 256), 10, 10, GIVEN, "user",
        "66b3cebabe13f7a22719d4aa56371118", "d8c362982f83e36a931d5d9a56060df2",
    ),
    "hdf5/growths_12bit.h5::/growth_2": Fact(
        25, (256, 256), 10, 10, GIVEN, "user",
        "698e569cb8bce04d3bb8e0e69376d055", "a773c008b70f0949954d0b51704dba94",
    ),
    "ksa/Image107.img": Fact(
        1, (480, 640), 1, 1, 1484169089122, "frame stamps",
        "192804120ff4d0f6aa842041112f584e", "192804120ff4d0f6aa842041112f584e",
    ),
    "ksa/synth_F_12bit.imm": Fact(
        60, (128, 128), None, 20.119, 1484169089122, "frame stamps",
        "0b4a7d1c8e1bac21d8a1e0d3126f2094", "c6cd82e53874b224df02ee271dec5e37",
    ),
    "ksa/test.img": Fact(
        1, (480, 640), 1, 1, 1527361874129, "frame stamps",
        "a94e42ebe9ee13fd91109311f8671199", "a94e42ebe9ee13fd91109311f8671199",
    ),
    "tiff/rheed_series.tif": Fact(
        24, (48, 64), 2, 2, GIVEN, "user",
        "54316ebf7fb9f7b11b055eed6e20cf3e", "15615fbb3ed8a38586cb7b2bdcd0db3f",
    ),
    "video/output_video_20231003-161713.avi": Fact(
        204, (1080, 1440), 34, 34, 1696342633000, "file name",
        "d23d9dfd1c57d7f6fdada13571862dec", "2028d40cb9c749d776a11e6ad2ed2529",
    ),
    "video/output_video_20231003-161808.avi": Fact(
        94, (1080, 1440), 34, 34, 1696342688000, "file name",
        "3198a64b227abaa4f83d65263950f4e0", "624e73abaec2d9b45bce4617665eb416",
    ),
}  # fmt: skip
LOG_POINTS = {"mbe_logs/::logs": 5308, "safire/export point scan.asc": 96}


@pytest.fixture
def job(tmp_path: Path) -> Path:
    path = tmp_path / "job.yaml"
    path.write_text(JOB.format(samples=SAMPLES))
    return path


def by_name(runs: list[dict]) -> dict[str, dict]:
    return {run["source"].removeprefix(f"{SAMPLES}/"): run for run in runs}


def test_every_sample_is_inspected(run, job: Path) -> None:
    ran = run("inspect", job, "--json")
    document = json.loads(ran.out)
    found = by_name(document["runs"])
    assert ran.code == 0, ran.out
    assert sorted(found) == sorted({*FACTS, *LOG_POINTS})
    for name, fact in FACTS.items():
        entry = found[name]
        assert (entry["frames"], (entry["height_px"], entry["width_px"])) == (fact.frames, fact.shape), name
        assert (entry["fps_claimed"], entry["start_from"]) == (fact.fps_claimed, fact.start_from), name
        assert entry["fps"] == pytest.approx(fact.fps, rel=1e-4), name
        assert entry["start_unix_ms_utc"] == fact.start_unix_ms_utc, name
    scales = {name: found[name]["full_scale"] for name in FACTS if found[name]["full_scale"]}
    assert set(scales.values()) == {4096.0, 8191.0}
    assert any(f.startswith("colour: 68%") for f in found["video/output_video_20231003-161713.avi"]["findings"])
    assert any(
        "lacks 1 frame" in f
        for f in found["hdf5/deposition_areadetector.h5::/entry/instrument/detector/data"]["findings"]
    )
    shutter = next(c for c in found["mbe_logs/::logs"]["channels"] if c["name"] == "GM1_Shutter_Control.Value")
    assert (shutter["points"], shutter["holds"]) == (3, True)
    assert {name: found[name]["points"] for name in LOG_POINTS} == LOG_POINTS
    assert found["safire/export point scan.asc"]["start_unix_ms_utc"] == 1766414377869


@pytest.mark.cluster
@pytest.mark.usefixtures("ray_session")
def test_every_sample_is_backfilled_and_read_back(
    run, job: Path, platform: ServerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AS_API_KEY", KEY.reveal())
    ran = run("backfill", job, "--to", platform.url, "--json")
    assert ran.code == 0, ran.out + ran.err
    done = by_name(json.loads(ran.out)["runs"])
    assert sorted(done) == sorted({*FACTS, *LOG_POINTS})
    assert {entry["status"] for entry in done.values()} == {"complete"}

    async def ends(data_id: str) -> tuple[int, float, str, str]:
        async with PlatformClient(platform.url, KEY) as client:
            first = last = None
            frames = 0
            async for chunk in read_back(client, data_id):
                first, last = first or chunk, chunk
                frames += len(chunk.frames)
        return frames, first.timestamps_ms[0], frames_digest(first.frames[:1]), frames_digest(last.frames[-1:])

    for name, fact in FACTS.items():
        frames, start_ms, first, last = asyncio.run(ends(done[name]["data_id"]))
        assert (frames, first, last) == (fact.frames, fact.first, fact.last), name
        assert abs(start_ms - fact.start_unix_ms_utc) <= 500 / fact.fps + 1, name

    async def points(data_id: str, channel: str) -> dict:
        async with PlatformClient(platform.url, KEY) as client:
            return await client.get_points(data_id, channel)

    shutter = asyncio.run(points(done["mbe_logs/::logs"]["data_id"], "GM1_Shutter_Control.Value"))
    zero_s = 1556719200  # 2019-05-01T14:00:00Z
    assert shutter["values"] == [0.0, 36.0, 0.0], "as written: held, never interpolated"
    assert shutter["timestamps"] == [zero_s, zero_s + 2137.416, zero_s + 3922.078]

    again = run("backfill", job, "--to", platform.url)
    assert again.code == 0
    assert "Nothing to do: everything was confirmed before." in again.out
