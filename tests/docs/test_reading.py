"""The page about reading a lake does what it says: its Python runs, in order, and so do its commands."""

import glob
import re
import shlex
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from ingest.server.app import create_app
from ingest.server.settings import ServerSettings
from ingest.sources import open_source
from ingest.telemetry import Secret
from tests.server.conftest import KEY, START_MS, Api, Clock, frames_of
from tests.server.test_series_seal import sealed
from tests.server.test_timeseries import finalize, initialize, send_multi
from tests.sources.files import look

PAGE = Path(__file__).parents[2] / "docs" / "reading.md"
FRAMES, LOST = 130, (25, 26, 80)


def blocks(language) -> list[tuple[int, str]]:
    """Return line and text of each fenced block of this language."""
    text = PAGE.read_text("utf-8")
    found = re.finditer(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(text[: match.start(1)].count("\n"), match[1]) for match in found]


@pytest.fixture(scope="module")
def lake(tmp_path_factory):
    """A folder with a lake of a stream of frames, three of them lost, and a stream of readings."""
    folder = tmp_path_factory.mktemp("reading")
    app = create_app(ServerSettings(folder / "data", (Secret(KEY),), fsync=False, clock=Clock()))
    api = Api(app)
    data_id = api.create(name="STO 17", rotations_per_min=12.0)
    frames = frames_of(FRAMES)
    for index, start in enumerate(range(0, FRAMES, 20)):
        lost = [i - start for i in LOST if start <= i < start + 20]
        api.upload(data_id, index, frames[start : start + 20], START_MS + 100 * start, lost=lost)
    api.end(data_id)
    api.sealed(data_id)
    log_id = initialize(api, name="STO 17 log")
    seconds = [START_MS / 1000 + i for i in range(15)]
    readings = {"timestamps": seconds, "values": [600.0 + i for i in range(15)]}
    channels = {"T sample": {**readings, "units": "°C"}, "p/chamber": {**readings, "units": "mbar"}}
    answer = send_multi(api, log_id, 0, channels)
    assert answer.status_code == 200, answer.text
    finalize(api, log_id)
    (folder / "lake").mkdir()
    shutil.copytree(api.platform.store.sealed_path(data_id), folder / "lake" / "sto-17-0a1b2c3d.zarr")
    shutil.copytree(sealed(api, log_id), folder / "lake" / "sto-17-log-5e6f7a8b.zarr")
    app.state.platform.close()
    return folder, frames


@pytest.fixture
def viewer(monkeypatch):
    """What the page uses of napari, in place of it: a window that nobody sees."""
    callbacks = []
    made = SimpleNamespace(
        shown=None,
        text_overlay=SimpleNamespace(visible=False, text=""),
        dims=SimpleNamespace(
            current_step=(0, 0, 0), events=SimpleNamespace(current_step=SimpleNamespace(connect=callbacks.append))
        ),
        callbacks=callbacks,
        ran=False,
    )

    def view_image(array, *, name, contrast_limits):
        made.shown = (array, name, contrast_limits)
        return made

    module = ModuleType("napari")
    module.view_image = view_image
    module.run = lambda: setattr(made, "ran", True)
    monkeypatch.setitem(sys.modules, "napari", module)
    return made


def run_cli(line, capsys, monkeypatch):
    from ingest.cli import main

    words = [word for part in shlex.split(line) for word in (sorted(glob.glob(part)) if "*" in part else [part])]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, capsys.readouterr()


def test_the_page_runs(lake, viewer, tmp_path, monkeypatch, capsys):
    folder, frames = lake
    shutil.copytree(folder / "lake", tmp_path / "lake")
    monkeypatch.chdir(tmp_path)
    lines = [line for _, text in blocks("sh") for line in text.splitlines()]
    assert len(lines) == 4
    for line in lines:
        code, said = run_cli(line, capsys, monkeypatch)
        assert code == 3, (line, said)  # three frames are lost
        assert "3 of 130 frames cannot be read (25-26,80)" in said.out or "--from 2" in line
    assert sorted(path.name for path in (tmp_path / "stacks").iterdir()) == ["STO 17.ome.tif"]
    spot = look("spot.mp4")
    with open_source(spot.spec) as source:
        kept = [i for i in range(20, 50) if i not in LOST]
        np.testing.assert_array_equal(source.read(0, spot.frames), frames[kept, 1:5, 1:6])

    here: dict = {}
    for line, text in blocks("python"):
        exec(compile("\n" * line + text, str(PAGE), "exec"), here)
    held = np.setdiff1d(np.arange(FRAMES), LOST)
    np.testing.assert_array_equal(here["held"], np.isin(np.arange(FRAMES), held))
    np.testing.assert_array_equal(np.isnan(here["intensity"]), ~here["held"])
    times_ms = START_MS + 100 * held
    np.testing.assert_array_equal(here["time"][held].astype("M8[ms]").astype(int), times_ms)
    np.testing.assert_array_equal(here["measured"].time.values.astype("M8[ms]").astype(int), times_ms)
    np.testing.assert_array_equal(here["part"].values, frames[9:29][np.isin(np.arange(9, 29), held)])
    np.testing.assert_array_equal(here["nearest"].values, frames[14])
    assert np.flatnonzero(here["masked"].isnull().all(("y", "x")).values).tolist() == [5, 6]
    assert here["angle_deg"].values[10] == pytest.approx(72.0)
    np.testing.assert_array_equal(here["some"], frames[100:110])
    np.testing.assert_allclose(here["at_frames"], 600 + 0.1 * held)
    assert set(here["channels"]) == {"T sample", "p/chamber"}
    assert abs(here["warm"].time.values[0].astype("M8[ns]").astype(int) - (START_MS + 1000) * 1_000_000) < 1000
    np.testing.assert_array_equal(here["again"][held], here["time"][held])
    np.testing.assert_array_equal(np.flatnonzero(~here["kept"]), LOST)
    np.testing.assert_array_equal(here["first"], frames[0])

    array, name, limits = viewer.shown
    assert (array.shape, name, limits, viewer.ran) == ((FRAMES, 6, 8), "STO 17", (0, 255), True)
    assert viewer.text_overlay.text.startswith("2023-11-14T22:13:20.123")
    for step, text in ((25, "this frame was lost"), (30, "2023-11-14T22:13:23.123000000 UTC")):
        viewer.dims.current_step = (step, 0, 0)
        viewer.callbacks[0](None)
        assert viewer.text_overlay.text == text
