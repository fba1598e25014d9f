"""What TIFF descriptions say of a stack: ImageJ's, OME-XML, JSON as tifffile and RHEEDCapture write it. Pure."""

from __future__ import annotations

import json
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ingest.errors import SourceFormatError
from ingest.sources.facts import FPS_FACTS, START_FACTS, Fact, add_fact, first_named, first_number
from ingest.sources.hdf5_times import Stamps
from ingest.sources.tiff_ifd import TiffPage
from ingest.sources.time_texts import stamps_of
from ingest.timing import Finding

__all__ = ["PAGE_TIMES", "START_NAMES", "Description", "describe", "json_facts", "rate_said"]

# Scalars that say when the picture of one page or file was taken, and so, on the first, when the run began.
PAGE_TIMES = ("timestamp", "timestamp_ns", "timestamp_ms", "timestamp_s", "acquisition_time")
START_NAMES = (*START_FACTS, *PAGE_TIMES, "created_at", "acquisitiondate")
COLUMNS = ("timestamps", "timestamp", "times", "time", "t")
INTERVALS_MS = ("target_interval_ms", "interval_ms", "frame_interval_ms")
INTERVALS_S = ("finterval", "frame_interval_s", "interval_s", "frame_interval")
_UNIT = re.compile(r"_(s|ms|us|ns)$")
# ImageJ and OME names of units of time, in seconds.
SECONDS = {
    "ns": 1e-9, "us": 1e-6, "µs": 1e-6, "usec": 1e-6, "ms": 1e-3, "msec": 1e-3, "s": 1.0, "sec": 1.0, "seconds": 1.0,
    "min": 60.0, "h": 3600.0,
}  # fmt: skip
MAX_CHANNELS = 4  # more are none of a camera
AXES_HINT = "save one channel and one plane as a stack of its own (axes TYX)"


@dataclass
class Description:
    """What the first page's description says.

    Attributes
    ----------
    writer : str
        ``"ImageJ"``, ``"OME"``, ``"tifffile"`` or nothing.
    promised : int or None
        Frames that the file should hold.
    facts : dict
        Whatever else it says, by lower-case name.
    stamps : Stamps or None
        Of all frames.
    findings : list of Finding
        What is odd about it.
    """

    writer: str = ""
    promised: int | None = None
    facts: dict[str, Fact] = field(default_factory=dict)
    stamps: Stamps | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def start(self) -> tuple[str, Fact] | None:
        """Name and value of what says when the run began."""
        name = first_named(self.facts, START_NAMES)
        return None if name is None else (name, self.facts[name])


def rate_said(facts: Mapping[str, Fact]) -> float | None:
    """Return the frame rate that facts claim, by an interval or as it is; None: they do not."""
    for names, per_s in ((INTERVALS_MS, 1000.0), (INTERVALS_S, 1.0)):
        interval = first_number(facts, names)
        if interval is not None:
            return per_s / interval
    return first_number(facts, FPS_FACTS)


def describe(texts: Sequence[str], page: TiffPage, path: str, timezone: str | None) -> Description:
    """Read a first page's descriptions.

    Parameters
    ----------
    texts : sequence of str
        As they stand in the file.
    page : TiffPage
        The page.
    path : str
        For messages.
    timezone : str or None
        IANA zone of times without one.

    Returns
    -------
    Description
        Empty for a text of none of these kinds.

    Raises
    ------
    SourceFormatError
        Several channels or focal planes beside time: which of them is the run?
    SourceTimeError
        A local time that the zone's clock showed twice or never.
    """
    for text in texts:
        if text.startswith("ImageJ="):
            return _imagej(text, path)
        if "<OME" in text[:4096]:
            return _ome(text, path)
    document = _json_of(texts)
    return _shaped(document, page, path, timezone) if document else Description()


def _json(text: str) -> dict[str, Any] | None:
    if not text.lstrip().startswith("{"):
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _json_of(texts: Sequence[str]) -> dict[str, Any]:
    """Return what all JSON objects among some texts say together; the first goes before the others."""
    together: dict[str, Any] = {}
    for text in texts:
        together = {**(_json(text) or {}), **together}
    return together


def json_facts(texts: Sequence[str]) -> dict[str, Fact]:
    """Return what JSON descriptions say, by lower-case name; nothing where they are none."""
    facts: dict[str, Fact] = {}
    for name, value in _json_of(texts).items():
        add_fact(facts, name, value)
    return facts


def _imagej(text: str, path: str) -> Description:
    said = Description("ImageJ")
    for line in text.splitlines():
        name, found, value = line.partition("=")
        if found:
            add_fact(said.facts, name.strip(), value.strip())
    images, *counts = (
        int(first_number(said.facts, (name,)) or 1) for name in ("images", "channels", "slices", "frames")
    )
    channels, slices, frames = counts
    if channels > MAX_CHANNELS and slices == frames == 1:
        # What tifffile writes of (N, Y, X) that nobody named the axes of.
        said.findings.append(Finding("description", f"{channels} ImageJ channels are taken as frames"))
        channels, frames = 1, channels
    _one_axis(path, {"channels": channels, "slices": slices, "frames": frames})
    said.promised = max(images, slices * frames)
    unit = SECONDS.get(str(said.facts.get("tunit", "s")).lower(), 1.0)
    interval = first_number(said.facts, ("finterval",))
    if interval is not None:
        said.facts["finterval"] = interval * unit
    return said


def _one_axis(path: str, axes: dict[str, int]) -> None:
    """Refuse a stack of more than time: channels at all, or two axes."""
    long = {name: length for name, length in axes.items() if length > 1}
    if len(long) > 1 or long.keys() & {"channels", "C"}:
        text = ", ".join(f"{length} {name}" for name, length in long.items())
        raise SourceFormatError(f"{path}: a stack of {text}: which of them is the run is not said", hint=AXES_HINT)


def _shaped(document: dict[str, Any], page: TiffPage, path: str, timezone: str | None) -> Description:
    said = Description("tifffile" if "shape" in document else "")
    for name, value in document.items():
        add_fact(said.facts, name, value)
    said.promised = _promised(document.get("shape"), page, path)
    for name, value in document.items():
        unit = _UNIT.search(name)
        column = _UNIT.sub("", name.lower())
        if column in COLUMNS and isinstance(value, list) and len(value) == (said.promised or 0):
            said.stamps = stamps_of(
                [entry if isinstance(entry, str | int | float) else None for entry in value],
                f"{name} in the description",
                timezone,
                said.findings,
                unit[1] if unit else None,
            )
            break
    return said


def _promised(shape: Any, page: TiffPage, path: str) -> int | None:
    if not isinstance(shape, list) or not all(isinstance(length, int) and length > 0 for length in shape):
        return None
    lead = list(shape)
    if page.samples > 1 and page.planar == 1 and lead[-1:] == [page.samples]:
        lead = lead[:-1]
    if lead[-2:] != [page.height_px, page.width_px]:
        return None
    lead = lead[:-2]
    if page.samples > 1 and page.planar == 2 and lead[-1:] == [page.samples]:
        lead = lead[:-1]
    _one_axis(path, {f"along axis {i}": length for i, length in enumerate(lead)})
    return max(lead, default=1)


def _ome(text: str, path: str) -> Description:
    said = Description("OME")
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        said.findings.append(Finding("description", "its OME-XML declares entities: not read"))
        return said
    try:
        root = ET.fromstring(text[text.index("<") :])  # noqa: S314  without entities there is nothing to expand
    except ET.ParseError as error:
        said.findings.append(Finding("description", f"its OME-XML is damaged and not read: {error}"))
        return said
    space = root.tag[: root.tag.index("}") + 1] if root.tag.startswith("{") else ""
    image = root.find(f"{space}Image")
    pixels = None if image is None else image.find(f"{space}Pixels")
    if image is None or pixels is None:
        return said
    sizes = {axis: int(first_number({"n": pixels.get(f"Size{axis}", "1")}, ("n",)) or 1) for axis in "TZC"}
    if sizes["Z"] > 1 or sizes["C"] > 1:
        raise SourceFormatError(
            f"{path}: an OME stack of {sizes['T']} times, {sizes['Z']} focal planes and {sizes['C']} channels; a run "
            "has times only",
            hint=AXES_HINT + "; if its Z axis is time, save it with that name",
        )
    said.promised = sizes["T"]
    files = {uuid.get("FileName") for uuid in pixels.iter(f"{space}UUID")} - {None, os.path.basename(path)}
    if files:
        said.promised = None
        message = (
            f"by its OME-XML it is one of a set of files ({min(map(str, files))}, ...): only its own pages are taken"
        )
        said.findings.append(Finding("description", message))
    date = image.find(f"{space}AcquisitionDate")
    if date is not None and date.text:
        said.facts["acquisitiondate"] = date.text
    increment = first_number({"n": pixels.get("TimeIncrement", "")}, ("n",))
    if increment is not None:
        said.facts["finterval"] = increment * SECONDS.get(pixels.get("TimeIncrementUnit", "s"), 1.0)
    _check_order(pixels, space, path)
    if not files:
        said.stamps = _delta_t(pixels, space, sizes["T"], said.findings)
    return said


def _check_order(pixels: ET.Element, space: str, path: str) -> None:
    """Refuse a file whose pages are not in order of time."""
    for data in pixels.iter(f"{space}TiffData"):
        page, time = data.get("IFD"), data.get("FirstT")
        if page is not None and time is not None and page != time and data.find(f"{space}UUID") is None:
            raise SourceFormatError(
                f"{path}: by its OME-XML, page {page} is time {time}: its pages are not in order of time",
                hint="save it again with its pages in order of time",
            )


def _delta_t(pixels: ET.Element, space: str, frames: int, findings: list[Finding]) -> Stamps | None:
    times: dict[int, float] = {}
    for plane in pixels.iter(f"{space}Plane"):
        number, delta = plane.get("TheT", ""), plane.get("DeltaT")
        if delta is None or not number.isdecimal():
            continue
        try:
            times[int(number)] = float(delta) * SECONDS.get(plane.get("DeltaTUnit", "s"), 1.0)
        except ValueError:
            continue
    if 2 * len(times) < frames:
        return None
    return stamps_of([times.get(i) for i in range(frames)], "DeltaT in the OME-XML", None, findings, "s")
