"""NeXus files, by what their groups say of themselves; and images in datasets of their own."""

import h5py
import numpy as np
import pytest

from ingest.errors import FrameDataError, NoFramesError, SourceFormatError, SourceTimeError
from ingest.sources import SourceOptions, discover, inspect, open_source
from tests.sources.contract import Made, SourceContract
from tests.sources.files import NS, START_S, kinds, look, pixels, write

N = 10
FRAMES = pixels(N)
ISO = "2023-11-14T22:13:20Z"  # START_S
ENTRY = {"entry@NX_class": "NXentry", "entry/plot@NX_class": "NXdata"}


def plot(**more):
    """An entry whose frames are small beside another stack, so that size does not find them."""
    return {"entry/plot/image": FRAMES, "entry/noise": pixels(N, 30, 40), **more}


class TestFrames:
    def test_default_leads_to_the_signal(self, tmp_path):
        datasets = plot(**{"entry/aaa/data": pixels(3)})
        attrs = {**ENTRY, "entry/aaa@NX_class": "NXdata", "@default": "entry", "entry@default": "plot"}
        info = look(write(tmp_path / "a.h5", datasets, {**attrs, "entry/plot@signal": "image"}))
        assert info.spec.dataset == "/entry/plot/image"
        with open_source(info.spec) as source:
            np.testing.assert_array_equal(source.read(0, N), FRAMES)

    def test_signal_marked_as_in_old_files(self, tmp_path):
        info = look(write(tmp_path / "a.h5", plot(), {**ENTRY, "entry/plot/image@signal": 1}))
        assert info.spec.dataset == "/entry/plot/image"

    def test_a_plot_of_a_curve_is_passed_over(self, tmp_path):
        datasets = {"entry/curve/y": np.arange(5.0), "entry/cam/data": FRAMES, "entry/noise": pixels(N, 30, 40)}
        attrs = {
            "@default": "entry", "entry@NX_class": "NXentry", "entry@default": "curve", "entry/curve@signal": "y",
            "entry/curve@NX_class": "NXdata", "entry/cam@NX_class": "NXdetector",
        }  # fmt: skip
        assert look(write(tmp_path / "a.h5", datasets, attrs)).spec.dataset == "/entry/cam/data"

    def test_one_run_for_each_entry(self, tmp_path):
        datasets = {f"run{i}/cam/data": pixels(N, seed=i) for i in (2, 10, 1)}
        attrs = {f"run{i}@NX_class": "NXentry" for i in (1, 2, 10)}
        attrs |= {f"run{i}/cam@NX_class": "NXdetector" for i in (1, 2, 10)}
        path = write(tmp_path / "a.h5", datasets, attrs)
        entries = discover([path])
        assert [entry.spec.dataset for entry in entries] == ["/run1/cam/data", "/run2/cam/data", "/run10/cam/data"]
        assert inspect(entries[2].spec).name == "a run10/cam/data"

    def test_a_ring_of_defaults_ends(self, tmp_path):
        with h5py.File(tmp_path / "a.h5", "w") as file:
            entry = file.create_group("entry")
            entry["entry"] = h5py.SoftLink("/entry")
            entry["frames"] = FRAMES
            for group in (file, entry):
                group.attrs.update(default="entry", NX_class="NXentry")
        assert look(tmp_path / "a.h5").spec.dataset == "/entry/frames"

    def test_colour_is_refused(self, tmp_path):
        datasets = {"entry/plot/image": np.zeros((N, 12, 16, 3), "u1")}
        with pytest.raises(NoFramesError, match="colour"):
            look(write(tmp_path / "a.h5", datasets, {**ENTRY, "entry/plot@signal": "image"}))


class TestTimes:
    @pytest.mark.parametrize("axes", [["when", "y", "x"], "when:y:x", "[when,y,x]", "when"])
    def test_first_axis(self, tmp_path, axes):
        datasets = plot(**{"entry/plot/when": 50.0 * np.arange(N), "entry/plot/t": np.arange(N)})
        attrs = {"entry/plot@signal": "image", "entry/plot@axes": axes, "entry/plot/when@units": "ms"}
        info = look(write(tmp_path / "a.h5", datasets, {**ENTRY, **attrs, "entry/plot/when@start": ISO}))
        np.testing.assert_array_equal(info.timestamps_ns, START_S * NS + 50_000_000 * np.arange(N))
        assert (info.start_from, info.format) == ("frame stamps", "HDF5 with /entry/plot/when")

    def test_axes_of_the_signal(self, tmp_path):
        datasets = plot(**{"entry/plot/when": 0.5 * np.arange(N)})
        attrs = {"entry/plot@signal": "image", "entry/plot/image@axes": "when:y:x", "entry/plot/when@units": "s"}
        info = look(write(tmp_path / "a.h5", datasets, {**ENTRY, **attrs}))
        assert (info.timestamps_ns[-1], info.start_from) == (4_500_000_000, None)

    def test_an_axis_that_is_no_time(self, tmp_path):
        datasets = plot(**{"entry/plot/temp": 300.0 + np.arange(N)})
        attrs = {"entry/plot@signal": "image", "entry/plot@axes": ["temp", "y", "x"], "entry/plot/temp@units": "K"}
        assert look(write(tmp_path / "a.h5", datasets, {**ENTRY, **attrs})).timestamps_ns is None

    def test_start_times_of_the_detector_behind_a_link(self, tmp_path):
        path = tmp_path / "a.h5"
        write(path, {"entry/cam/data": FRAMES, "entry/cam/start_time": 0.1 * np.arange(N)}, {
            "entry@NX_class": "NXentry", "entry/cam@NX_class": "NXdetector", "entry/cam/start_time@start": ISO,
        })  # fmt: skip
        with h5py.File(path, "r+") as file:
            file["entry"].create_group("shown").attrs.update(NX_class="NXdata", signal="data")
            file["entry/shown/data"] = h5py.SoftLink("/entry/cam/data")
            file.attrs["default"] = "entry"
            file["entry"].attrs["default"] = "shown"
        info = look(path)
        assert info.spec.dataset == "/entry/shown/data"
        np.testing.assert_array_equal(info.timestamps_ns, START_S * NS + 100_000_000 * np.arange(N))

    def test_a_start_without_zone_asks_for_one(self, tmp_path):
        datasets = {"entry/cam/data": FRAMES, "entry/cam/start_time": 0.1 * np.arange(N)}
        attrs = {"entry@NX_class": "NXentry", "entry/cam@NX_class": "NXdetector"}
        path = write(tmp_path / "a.h5", datasets, {**attrs, "entry/cam/start_time@start": ISO[:-1]})
        with pytest.raises(SourceTimeError, match="zone"):
            look(path)
        assert look(path, timezone="Europe/Copenhagen").start_ns == (START_S - 3600) * NS

    @pytest.mark.parametrize(
        ("name", "value", "units", "fps", "finding"),
        [
            ("frame_time", 0.04, None, 25.0, False),
            ("frame_time", 40, "ms", 25.0, False),
            ("frame_time", np.full(N, 0.1), "s", 10.0, False),
            ("count_time", 0.05, "s", 20.0, True),
            ("count_time", -1.0, "s", None, False),
            ("frame_time", 40, "K", None, False),
        ],
    )
    def test_claimed_rate(self, tmp_path, name, value, units, fps, finding):
        attrs = {"entry@NX_class": "NXentry", "entry/cam@NX_class": "NXdetector"}
        attrs |= {} if units is None else {f"entry/cam/{name}@units": units}
        info = look(write(tmp_path / "a.h5", {"entry/cam/data": FRAMES, f"entry/cam/{name}": value}, attrs))
        assert info.fps_claimed == (None if fps is None else pytest.approx(fps))
        assert ("frame rate" in kinds(info)) == finding

    def test_saturation_of_the_detector(self, tmp_path):
        datasets = {"entry/cam/data": pixels(N, dtype="u2", top=900), "entry/cam/saturation_value": 1000}
        attrs = {"entry@NX_class": "NXentry", "entry/cam@NX_class": "NXdetector", "entry@start_time": ISO}
        info = look(write(tmp_path / "a.h5", datasets, attrs))
        assert (info.scale.full_scale, info.start_ns, info.start_from) == (1000.0, START_S * NS, "file attributes")


NAMES = [f"{START_S + i // 4}.{25 * (i % 4):02d}" for i in range(11)]


class TestImagesNamedByTime(SourceContract):
    @pytest.fixture
    def made(self, tmp_path):
        frames = pixels(11)
        images = {f"images/{name}": frame for name, frame in zip(NAMES, frames, strict=True)}
        order = np.random.default_rng(0).permutation(11)
        path = write(tmp_path / "a.h5", {list(images)[i]: images[list(images)[i]] for i in order})
        return Made(look(path), frames)

    def test_times_are_the_names(self, made):
        np.testing.assert_array_equal(made.info.timestamps_ns, START_S * NS + 250_000_000 * np.arange(11))
        assert (made.info.start_from, made.info.spec.dataset, made.info.name) == ("frame stamps", "/images", "a")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("1700000000", START_S * NS),
        ("1700000000.123456789", START_S * NS + 123_456_789),
        ("1700000000.5", START_S * NS + 500_000_000),
        ("1700000000123", START_S * NS + 123_000_000),
    ],
)
def test_names_in_any_unit(tmp_path, name, expected):
    image = pixels(1, dtype="u2", top=4096)[0]
    info = look(write(tmp_path / "a.h5", {f"images/{name}": image, "images/1800000000": image, "images/dark": image}))
    assert (info.frames, info.timestamps_ns[0]) == (2, expected)


def test_images_of_several_sizes_are_named(tmp_path):
    images = {"images/1700000000": pixels(1)[0], "images/1700000001": pixels(1, 5, 6)[0]}
    with pytest.raises(SourceFormatError, match=r"1700000001 is \(5, 6\)"):
        look(write(tmp_path / "a.h5", images))


def test_an_image_that_was_never_written_is_not_black(tmp_path):
    images = {f"images/{START_S + i}": frame for i, frame in enumerate(pixels(3))}
    path = write(tmp_path / "a.h5", {**images, f"images/{START_S + 3}": {"shape": (12, 16), "dtype": "u1"}})
    with open_source(look(path).spec) as source:
        assert len(source.read(0, 3)) == 3
        with pytest.raises(FrameDataError, match="frames 3 to 3"):
            source.read(3, 4)


def test_the_group_may_be_chosen(tmp_path):
    images = {f"images/{START_S + i}": frame for i, frame in enumerate(pixels(3))}
    path = write(tmp_path / "a.h5", images)
    options = SourceOptions(dataset="images")
    (entry,) = discover([path], options)
    assert inspect(entry.spec, options).frames == 3
