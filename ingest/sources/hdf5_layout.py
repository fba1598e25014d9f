"""Where the frames are in an HDF5 file, and what is written beside them."""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

import h5py
import numpy as np

from ingest.errors import IngestError, NoFramesError
from ingest.sources.facts import Fact, StoredArray, add_fact
from ingest.sources.hdf5_images import named_time_ns
from ingest.sources.hdf5_nexus import frames_of, holders, text_of
from ingest.sources.natural import natural_key

__all__ = ["CHUNK_FILE_STREAM", "Contents", "DatasetFact", "choose_frames", "list_contents", "read_facts", "runs_in"]

MAX_OBJECTS = 20_000
CHUNK_FILE_STREAM = "rheed"
"""Root attribute ``data_stream`` of Atomscale chunk files."""
# Sources: ADCore NDFileHDF5LayoutXML.cpp (default layout, hard link in /entry/data), APS data exchange, Atomscale's
# chunk files and RHEED-tools' save_frames_h5 (FORMATS.md 1.5).
KNOWN_FRAMES = ("/entry/instrument/detector/data", "/entry/data/data", "/exchange/data", "/frames")
WANTED_SCALARS = re.compile(
    r"^(start_time|start_datetime|start_unix_ms_utc|end_unix_ms_utc|saturation_value|bit_depth_readout|bit_depth"
    r"|bits|full_scale|fps|source_fps|raw_frame_rate|frame_rate)$",
    re.IGNORECASE,
)


class DatasetFact(StoredArray):
    """A dataset as its header describes it; its path inside the file is absolute."""

    @property
    def numeric(self) -> bool:
        """Whether its values can be grey levels."""
        return self.dtype.kind in "buif"

    @property
    def stack(self) -> bool:
        """Whether it can be a stack of grey frames: (frame, y, x), and not the (y, x, colour) of one picture."""
        return self.numeric and len(self.shape) == 3 and self.shape[2] > 4 and 0 not in self.shape[1:]


@dataclass(frozen=True)
class Contents:
    """Every dataset of a file, links followed; the links that lead nowhere; what NeXus says.

    Attributes
    ----------
    classes : dict
        Path to ``NX_class`` of each group that has one.
    nexus_frames : tuple of str
        Where by these the frames are.
    """

    datasets: tuple[DatasetFact, ...]
    broken_links: tuple[str, ...]
    classes: dict[str, str] = field(default_factory=dict)
    nexus_frames: tuple[str, ...] = ()

    def get(self, path: str) -> DatasetFact | None:
        """Return the dataset of this path, or None."""
        wanted = "/" + path.strip("/")
        return next((found for found in self.datasets if found.path == wanted), None)


def list_contents(file: h5py.File, also: str | None = None) -> Contents:
    """List every dataset of a file, by header only.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    also : str, optional
        A dataset that is listed under this path, whatever other links lead to it.

    Returns
    -------
    Contents
        At most 20,000 objects are looked at, those nearest the root first; each once, however many links lead to it,
        but for datasets at the well-known paths.
    """
    datasets: list[DatasetFact] = []
    broken: list[str] = []
    classes: dict[str, str] = {}
    if also is not None and isinstance(file.get(also), h5py.Dataset):
        datasets.append(_fact("/" + also.strip("/"), file[also]))
    seen: set[tuple[int, int]] = set()
    groups: deque[tuple[str, Any]] = deque([("", file["/"])])
    looked_at = 0
    while groups and looked_at < MAX_OBJECTS:
        prefix, group = groups.popleft()
        for name in group:
            looked_at += 1
            path = f"{prefix}/{name}"
            try:
                child = group[name]
                info = h5py.h5o.get_info(child.id)
            except IngestError:
                raise
            except (KeyError, OSError, RuntimeError):
                broken.append(path)
                continue
            address = (info.fileno, info.addr)
            if address in seen and path not in KNOWN_FRAMES:
                continue
            seen.add(address)
            if isinstance(child, h5py.Group):
                groups.append((path, child))
                if (kind := text_of(child.attrs.get("NX_class"))) is not None:
                    classes[path] = kind
            elif isinstance(child, h5py.Dataset):
                datasets.append(_fact(path, child))
            if looked_at >= MAX_OBJECTS:
                break
    nexus_frames = frames_of(file, classes, lambda dataset: _fact("", dataset).stack)
    listed = {found.path for found in datasets}
    datasets += [_fact(path, file[path]) for path in nexus_frames if path not in listed]
    return Contents(tuple(datasets), tuple(broken), classes, nexus_frames)


def _fact(path: str, dataset: Any) -> DatasetFact:
    try:
        dtype = dataset.dtype
    except TypeError:  # a type that NumPy does not know
        dtype = np.dtype("V1")
    return DatasetFact(path, tuple(dataset.shape or ()), dtype)


def runs_in(contents: Contents, path: str) -> tuple[str, ...]:
    """Find the datasets that hold frames, one for each run.

    Parameters
    ----------
    contents : Contents
        What the file holds.
    path : str
        The file, for messages.

    Returns
    -------
    tuple of str
        The dataset at a well-known path; else what NeXus says; else the top-level stacks that are named alike but for
        a number (``/growth_1``, ``/growth_2``), in natural order; else the largest stack. Where there is no stack, the
        groups of images that are named by their Unix times.

    Raises
    ------
    NoFramesError
        Nothing of the shape of grey frames, or no frame in it.
    """
    stacks = [found for found in contents.datasets if found.stack]
    filled = [found for found in stacks if found.shape[0] > 0]
    if not filled:
        if groups := _image_groups(contents):
            return groups
        raise _no_frames(contents, stacks, path)
    for known in KNOWN_FRAMES:
        if any(found.path == known for found in filled):
            return (known,)
    if nexus := tuple(known for known in contents.nexus_frames if any(found.path == known for found in filled)):
        return nexus
    largest = max(filled, key=lambda found: found.bytes)
    alike = [found.path for found in filled if _stem(found.path) == _stem(largest.path) and found.path.count("/") == 1]
    return tuple(sorted(alike, key=natural_key)) if len(alike) > 1 and largest.path in alike else (largest.path,)


def _image_groups(contents: Contents) -> tuple[str, ...]:
    counts: Counter[str] = Counter()
    for found in contents.datasets:
        group, _, name = found.path.rpartition("/")
        if found.numeric and len(found.shape) == 2 and 0 not in found.shape and named_time_ns(name) is not None:
            counts[group or "/"] += 1
    return tuple(sorted((group for group, count in counts.items() if count > 1), key=natural_key))


def _stem(path: str) -> str:
    return re.sub(r"\d+", "#", path)


def choose_frames(contents: Contents, path: str, dataset: str | None) -> str:
    """Find the one dataset that is read.

    Parameters
    ----------
    contents : Contents
        What the file holds.
    path : str
        The file, for messages.
    dataset : str or None
        What the user, or an earlier look, says; None: find out.

    Returns
    -------
    str
        Absolute path inside the file.

    Raises
    ------
    NoFramesError
        There is no such dataset, or it is not a stack of grey frames.
    """
    if dataset is None:
        runs = runs_in(contents, path)
        return max(runs, key=lambda run: found.bytes if (found := contents.get(run)) else 0)
    if (group := "/" + dataset.strip("/")) in _image_groups(contents):
        return group
    found = contents.get(dataset)
    stacks = [known for known in contents.datasets if known.stack]
    if found is None:
        there = ", ".join(str(known) for known in stacks) or "none"
        raise NoFramesError(
            f"{path}: there is no dataset {dataset!r}; three-dimensional ones: {there}",
            hint="name one of these, or leave the choice to us",
        )
    if not found.stack or found.shape[0] == 0:
        raise _no_frames(Contents((found,), ()), [found] if found.stack else [], path)
    return found.path


def _no_frames(contents: Contents, stacks: list[DatasetFact], path: str) -> NoFramesError:
    """Say why nothing in the file is a stack of frames, as precisely as can be."""
    held = ", ".join(str(found) for found in contents.datasets[:8]) or "no dataset"
    held += ", ..." if len(contents.datasets) > 8 else ""
    if contents.broken_links:
        held += f"; links that lead nowhere: {', '.join(contents.broken_links[:4])}"
    if stacks:
        return NoFramesError(
            f"{path}: {stacks[0]} holds zero frames", hint="the recording was made ready but never begun: leave it out"
        )
    if any(_colour(found) for found in contents.datasets):
        return NoFramesError(
            f"{path}: the frames are in colour: {held}",
            hint="write one channel, or the mean of them, as a (frame, y, x) dataset",
        )
    if any(found.dtype.kind in "cSUOV" and len(found.shape) >= 2 for found in contents.datasets):
        return NoFramesError(
            f"{path}: no pixel type that could be grey values: {held}",
            hint="frames are integers or floats; write the magnitude of complex ones",
        )
    if any(found.numeric and len(found.shape) == 2 for found in contents.datasets):
        return NoFramesError(
            f"{path}: only two-dimensional datasets: {held}",
            hint="a run is a (frame, y, x) stack; stack single images into one",
        )
    return NoFramesError(
        f"{path}: nothing of the shape (frame, y, x): {held}", hint="name the dataset that holds the frames"
    )


def _colour(found: DatasetFact) -> bool:
    shape = found.shape
    return found.numeric and (
        (len(shape) == 4 and (3 in shape[1:] or 4 in shape[1:])) or (len(shape) == 3 and shape[2] in (3, 4))
    )


def read_facts(file: h5py.File, frames_path: str, contents: Contents, *, own_only: bool = False) -> dict[str, Fact]:
    """Collect what is written about the frames: attributes, and NeXus fields beside them.

    Parameters
    ----------
    file : h5py.File
        Open for reading.
    frames_path : str
        The frames.
    contents : Contents
        What the file holds.
    own_only : bool
        Only the attributes of the dataset itself, as where the file holds several runs.

    Returns
    -------
    dict
        Lower-case name to scalar; what is nearer to the frames hides what is further away. Byte strings are decoded.
    """
    facts: dict[str, Fact] = {}
    if not own_only:
        parents = [frames_path[:i] or "/" for i, letter in enumerate(frames_path) if letter == "/"]
        extra = [name for name in ("metadata", "Metadata") if name in file]
        extra += holders(file, contents.classes, frames_path)
        for group_path in [parents[0], *extra, *parents[1:]]:
            group = file[group_path]
            _add_attributes(facts, group)
            inside = group_path.strip("/")
            for found in contents.datasets:
                parent, _, name = found.path.strip("/").rpartition("/")
                if parent == inside and found.shape in ((), (1,)) and WANTED_SCALARS.match(name):
                    add_fact(facts, name, file[found.path][()])
    _add_attributes(facts, file[frames_path])
    return facts


def _add_attributes(facts: dict[str, Fact], holder: Any) -> None:
    for name in holder.attrs:
        try:
            value = holder.attrs[name]
        except IngestError:
            raise
        except (OSError, TypeError, RuntimeError):  # an attribute of a type that h5py cannot read says nothing to us
            continue
        add_fact(facts, name, value)
