"""A run as an OME-TIFF: one BigTIFF of a page for each frame, with each frame's time to the nanosecond.

The times stand in the OME-XML of the first page, as `DeltaT` of each plane from `AcquisitionDate` on, which Bio-Formats
(Fiji, napari, QuPath) and our own reader understand; and for anything else, to the second (UTC), in each page's
`DateTime`. Sources: OME-XML schema 2016-06 (Image, Pixels, Plane, MapAnnotation); TIFF 6.0, tags 270 and 306.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self
from xml.sax.saxutils import escape, quoteattr

import numpy as np
import tifffile
from numpy.typing import NDArray

from ingest.export.base import CREATOR, NS, ExportOptions, RunToWrite, iso_ns, ranges_text
from ingest.timing import Finding

__all__ = ["TiffWriter", "ome_xml", "open_writer"]

DESCRIPTION = 270
NAMESPACE = "http://www.openmicroscopy.org/Schemas/OME/2016-06"
_NOT_IN_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class TiffWriter:
    """Writes one OME-TIFF. Lost frames have no page: the times of the others show the gap.

    Holds one frame, and at the end about 200 bytes of OME-XML per frame. See `ingest.export.base.FrameWriter`.
    """

    def __init__(self, path: Path, run: RunToWrite, options: ExportOptions) -> None:
        self._path, self._run = path, run
        self._present = np.zeros(run.shape[0], bool)
        self._compression = "zlib" if options.compression == "zlib" else None
        self._tiff: Any = tifffile.TiffWriter(path, bigtiff=True, ome=False, imagej=False, shaped=False)
        self._pages = 0

    def write(self, first: int, frames: NDArray[np.uint8], present: NDArray[np.bool_]) -> None:
        """Add a page for each frame that is present."""
        self._present[first : first + len(frames)] = present
        for i in np.flatnonzero(present).tolist():
            self._tiff.write(
                frames[i],
                photometric="minisblack",
                contiguous=False,
                compression=self._compression,
                metadata=None,
                rowsperstrip=self._run.shape[1],
                # What it says is known when all frames are read, and then written in its place.
                description="-" if self._pages == 0 else None,
                software=CREATOR if self._pages == 0 else False,
                datetime=self._second_of(first + i),
            )
            self._pages += 1

    def _second_of(self, frame: int) -> str | None:
        if self._run.start_ns is None:
            return None
        seconds = (self._run.start_ns + int(self._run.since_ns[frame])) // NS
        return f"{datetime.fromtimestamp(seconds, UTC):%Y:%m:%d %H:%M:%S}"

    def finish(self) -> tuple[Finding, ...]:
        """Close the list of pages and write the OME-XML."""
        self._tiff.close()
        text = ome_xml(self._run, self._present)
        with tifffile.TiffFile(self._path, mode="r+") as file:
            page: Any = file.pages.first
            page.tags[DESCRIPTION].overwrite(text)
        since_ns = self._run.since_ns[self._present]
        stuck = int(np.count_nonzero(np.diff(since_ns) <= 0))
        if not stuck:
            return ()
        message = f"{stuck} stamps are not later than the one before: written as they are, but some readers ignore them"
        return (Finding("times in the file", message),)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._tiff.close()


def open_writer(path: Path, run: RunToWrite, options: ExportOptions) -> TiffWriter:
    """Open a file for writing; see `TiffWriter`."""
    return TiffWriter(path, run, options)


def ome_xml(run: RunToWrite, present: NDArray[np.bool_]) -> bytes:
    """Return the OME-XML of a run, of which the frames that are `present`, (frame,), have pages; pure ASCII."""
    return "".join(_xml_parts(run, present)).encode("ascii", "xmlcharrefreplace")


def _xml_parts(run: RunToWrite, present: NDArray[np.bool_]) -> Iterator[str]:
    planes = np.flatnonzero(present)
    since_ns = run.since_ns[planes] - run.since_ns[planes[0]]
    yield '<?xml version="1.0" encoding="UTF-8"?>\n'
    yield f'<OME xmlns="{NAMESPACE}" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" '
    yield f'xsi:schemaLocation="{NAMESPACE} {NAMESPACE}/ome.xsd" Creator={_quoted(CREATOR)}>\n'
    yield f'<Image ID="Image:0" Name={_quoted(run.info.name)}>\n'
    if run.start_ns is not None:
        begin_ns = run.start_ns + int(run.since_ns[planes[0]])
        yield f"<AcquisitionDate>{iso_ns(begin_ns)}</AcquisitionDate>\n"
    yield '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SignificantBits="8" '
    yield f'SizeX="{run.shape[2]}" SizeY="{run.shape[1]}" SizeC="1" SizeZ="1" SizeT="{len(planes)}"'
    fps = run.info.fps_claimed or run.median_fps
    yield f' TimeIncrement="{1 / fps!r}" TimeIncrementUnit="s">\n' if fps else ">\n"
    yield '<Channel ID="Channel:0:0" SamplesPerPixel="1"/>\n'
    yield f'<TiffData IFD="0" FirstC="0" FirstZ="0" FirstT="0" PlaneCount="{len(planes)}"/>\n'
    for number, ns in enumerate(since_ns.tolist()):
        yield f'<Plane TheZ="0" TheC="0" TheT="{number}" DeltaT="{_seconds(ns)}" DeltaTUnit="s"/>\n'
    yield '</Pixels>\n<AnnotationRef ID="Annotation:0"/>\n</Image>\n'
    said: dict[str, str | int | float] = run.provenance()
    if not present.all():
        said["lost_frames"] = ranges_text(tuple(np.flatnonzero(~present).tolist()))
    yield '<StructuredAnnotations><MapAnnotation ID="Annotation:0" Namespace="rheed-ingest"><Value>\n'
    for name, value in said.items():
        yield f"<M K={_quoted(name)}>{escape(_clean(str(value)))}</M>\n"
    yield "</Value></MapAnnotation></StructuredAnnotations>\n</OME>\n"


def _seconds(ns: int) -> str:
    whole, rest = divmod(abs(ns), NS)
    return f"{'-' if ns < 0 else ''}{whole}.{rest:09d}"


def _quoted(text: str) -> str:
    return quoteattr(_clean(text))


def _clean(text: str) -> str:
    return _NOT_IN_XML.sub("_", text)
