"""TIFF stacks looked at: how many pages there really are, where their pixels stand, and what they say of themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.errors import FrameDataError, SourceFormatError, TruncatedSourceError
from ingest.sources.hdf5_times import Stamps
from ingest.sources.lost import lost_frames
from ingest.sources.picture_names import stamps_in_names
from ingest.sources.plain_file import MAX_FRAME_BYTES, PlainFile
from ingest.sources.tiff_ifd import DATE_TIME, DESCRIPTION, Tiff, TiffPage
from ingest.sources.tiff_times import PAGE_TIMES, Description, describe, json_facts
from ingest.sources.time_texts import exif_as_iso, stamps_of
from ingest.timing import Finding

__all__ = ["StackLook", "is_stack", "look_at_stack", "page_time"]

MAX_ODD_PART = 10


@dataclass
class StackLook:
    """What a stack was found to be.

    Attributes
    ----------
    page : TiffPage
        The first that is a frame.
    frames : int
        How many there are.
    said : Description
        By the first page's description.
    date_time : str or None
        The first page's DateTime, local, as ISO 8601.
    flat : (int, int) or None
        Byte of the first frame and distance to the next, where all stand like that, uncompressed; None: page by page.
    stamps : Stamps or None
        One a frame.
    findings : list of Finding
        Cut, lost, odd.
    """

    page: TiffPage
    frames: int
    said: Description
    date_time: str | None
    flat: tuple[int, int] | None
    stamps: Stamps | None = None
    findings: list[Finding] = field(default_factory=list)


@dataclass
class _Pages:
    """All pages of a file that are frames: (page,) columns."""

    first: TiffPage
    offsets: list[int] = field(default_factory=list)
    data: list[int] = field(default_factory=list)
    plain: list[bool] = field(default_factory=list)
    alike: list[bool] = field(default_factory=list)
    whole: list[bool] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)

    def add(self, page: TiffPage, size_bytes: int) -> None:
        self.offsets.append(page.offset)
        self.data.append(page.offsets[0] if page.offsets else 0)
        self.plain.append(page.is_plain and page.dtype == self.first.dtype)
        self.alike.append(page.signature == self.first.signature)
        self.whole.append(bool(page.offsets) and page.data_end <= size_bytes)
        self.sizes.append((page.width_px, page.height_px))

    def cut_to(self, count: int) -> None:
        for column in (self.offsets, self.data, self.plain, self.alike, self.whole, self.sizes):
            del column[count:]


def is_stack(path: str, alone: bool) -> bool:
    """Whether a TIFF is a run of its own: it has several pages, or says so.

    Parameters
    ----------
    path : str
        The file. Reads one or two directories.
    alone : bool
        Whether no other picture is named like it. Of a set of OME files, each describes the whole set.

    Raises
    ------
    FrameDataError
        Not a TIFF, or cut.
    SourceReadError
        It cannot be read.
    """
    with PlainFile(path) as file:
        tiff = Tiff(file)
        page, following = tiff.page(tiff.first)
        if following:
            return True
        texts = tiff.descriptions(page)
        if not texts or ("<OME" in texts[0] and not alone):
            return False
        try:
            said = describe(texts, page, path, None)
        except SourceFormatError:
            return True
        return (said.promised or 1) > 1


def look_at_stack(path: str, timezone: str | None) -> StackLook:
    """Look at all pages of a TIFF, by their directories.

    Parameters
    ----------
    path : str
        The file.
    timezone : str or None
        IANA zone of times without one.

    Returns
    -------
    StackLook
        Holds some 40 bytes a page, and about 300 meanwhile.

    Raises
    ------
    TruncatedSourceError
        Less than half of the frames that it promises are there, or none.
    SourceFormatError
        Not a TIFF; pages of several sizes; several channels or planes; pages of over 512 MB.
    SourceTimeError
        A local time that the zone's clock showed twice or never.
    """
    with PlainFile(path) as file:
        try:
            tiff = Tiff(file)
        except FrameDataError as error:
            raise SourceFormatError(str(error), hint="leave it out, or copy it again") from error
        try:
            pages, broken = _walk(tiff)
        except FrameDataError as error:
            raise TruncatedSourceError(str(error), hint="copy it again from where it was recorded") from error
        first = pages.first
        if first.frame_bytes > MAX_FRAME_BYTES:
            raise SourceFormatError(
                f"{path}: its header says frames of {first.width_px} x {first.height_px} px, "
                f"{first.frame_bytes / 1e6:.0f} MB; at most 512 MB can be",
                hint="copy the file again from where it was recorded",
            )
        texts = tiff.descriptions(first)
        said = describe(texts, first, path, timezone)
        if not texts and DESCRIPTION in first.tags:
            message = "its description lies beyond the end of the file: what it said of times and axes is not known"
            said.findings.append(Finding("cut file", message))
            said.promised = _room_before_next(tiff, first)
        date_time = exif_as_iso(tiff.text(first, DATE_TIME))
        look = StackLook(first, len(pages.offsets), said, date_time, _flat(pages), findings=list(said.findings))
        _count(look, pages, path, file.size_bytes, broken)
        look.stamps = _stamps(look, tiff, pages, timezone)
    if first.orientation != 1:
        message = (
            f"its pages are to be shown turned (TIFF orientation {first.orientation}): not done; see --orientation"
        )
        look.findings.append(Finding("orientation", message))
    return look


def _room_before_next(tiff: Tiff, first: TiffPage) -> int | None:
    """Count the frames that there is room for up to the second directory, where pixels of all frames stand before it.

    So do tifffile's, whose description may be the last thing in the file (OME).
    """
    following = tiff.page(first.offset)[1]
    if not first.is_plain or following <= first.data_end:
        return None
    return (following - first.offsets[0]) // first.frame_bytes


def _walk(tiff: Tiff) -> tuple[_Pages, str | None]:
    """Return all pages, without thumbnails, and why the chain breaks off before its end."""
    broken = None
    chain = tiff.pages()
    found: _Pages | None = None
    thumbnail: TiffPage | None = None
    while True:
        try:
            page = next(chain)
        except StopIteration:
            break
        except FrameDataError as error:
            if found is None and thumbnail is None:
                raise
            broken = str(error)
            break
        if page.is_reduced:
            thumbnail = thumbnail or page
            continue
        found = found or _Pages(page)
        found.add(page, tiff.file.size_bytes)
    if found is None:
        raise FrameDataError(f"{tiff.file.path}: it holds no pages" + (" but thumbnails" if thumbnail else ""))
    return found, broken


def _flat(pages: _Pages) -> tuple[int, int] | None:
    if not (all(pages.plain) and all(pages.alike)):
        return None
    first, size = pages.first, pages.first.frame_bytes
    if len(pages.data) == 1:
        return pages.data[0], size
    steps = np.diff(pages.data)
    stride = int(steps[0])
    return (first.offsets[0], stride) if stride >= size and bool((steps == stride).all()) else None


def _count(look: StackLook, pages: _Pages, path: str, size_bytes: int, broken: str | None) -> None:
    """Decide how many frames there are, against what is promised and what the file can hold."""
    promised = look.said.promised or 0
    size = look.page.frame_bytes
    end = pages.data[0] + promised * size if look.flat else 0
    if look.flat and look.flat[1] == size and promised > len(pages.offsets):
        # ImageJ's stacks of over 4 GB have one page and then all pixels; so have those whose list of pages,
        # at the end of the file, was cut off.
        look.frames = max(0, min(promised, (size_bytes - pages.data[0]) // size))
    else:
        whole = np.flatnonzero(pages.whole)
        look.frames = int(whole[-1]) + 1 if len(whole) else 0
        if look.frames < len(pages.offsets):
            message = f"the last {len(pages.offsets) - look.frames} page(s) are cut: left out"
            look.findings.append(Finding("cut frame", message))
        pages.cut_to(look.frames)
        _odd_pages(look, pages, path)
    if look.frames == 0 or 2 * look.frames < promised:
        needed = f", which take {end} bytes" if end else ""
        raise TruncatedSourceError(
            f"{path}: {look.frames} of {max(promised, len(pages.offsets), 1)} frames are there: the file has "
            f"{size_bytes} bytes{needed}" + (f" ({broken})" if broken else ""),
            hint="copy it again; if it is the original, its writer was stopped",
        )
    if look.frames < promised:
        message = f"{look.frames} of the {promised} frames that it promises are there; the rest is cut off"
        look.findings.append(Finding("cut frames", message))
    if broken:
        look.findings.append(Finding("cut file", f"the list of pages breaks off: {broken}"))


def _odd_pages(look: StackLook, pages: _Pages, path: str) -> None:
    odd = [i for i, alike in enumerate(pages.alike) if not alike]
    if len(odd) > max(2, len(pages.alike) // MAX_ODD_PART):
        width, height = pages.sizes[odd[0]]
        raise SourceFormatError(
            f"{path}: page {odd[0]} is {width} x {height} px, the first one {look.page.width_px} x "
            f"{look.page.height_px} px (or of another type), so are {len(odd) - 1} more: a run has one size and type",
            hint="save those of one size as a stack of their own",
        )
    lost = dict.fromkeys(odd, "its size or type is not the run's")
    lost |= {i: "its pixels lie beyond the end of the file" for i, whole in enumerate(pages.whole) if not whole}
    look.findings += lost_frames(lost)


def page_time(tiff: Tiff, page: TiffPage) -> tuple[str, Any] | None:
    """Return what a page says of when it was taken: a name and a text or number; None: nothing."""
    facts = json_facts(tiff.descriptions(page))
    for name in PAGE_TIMES:
        if name in facts:
            return name, facts[name]
    text = exif_as_iso(tiff.text(page, DATE_TIME))
    return None if text is None else ("DateTime", text)


def _stamps(look: StackLook, tiff: Tiff, pages: _Pages, timezone: str | None) -> Stamps | None:
    """Return the frames' own stamps: of the description, of each page, or of ImageJ's slice labels."""
    if look.said.stamps is not None:
        stamps = look.said.stamps
        return Stamps(stamps.ns[: look.frames], stamps.absolute, stamps.origin)
    if 1 < look.frames == len(pages.offsets):
        first, last = (page_time(tiff, tiff.page(pages.offsets[i])[0]) for i in (0, -1))
        if first is not None and last is not None and first[0] == last[0] and first[1] != last[1]:
            times = (page_time(tiff, tiff.page(offset)[0]) for offset in pages.offsets)
            values = [None if time is None or time[0] != first[0] else time[1] for time in times]
            unit = first[0].rpartition("_")[2] if first[0] != "timestamp" else None
            unit = unit if unit in ("s", "ms", "ns") else None
            return stamps_of(values, f"{first[0]} of each page", timezone, look.findings, unit)
    if look.said.writer == "ImageJ":
        labels = _labels(tiff, look)
        if labels is not None:
            named, more = stamps_in_names(labels, timezone)
            look.findings += more
            return None if named is None else Stamps(named.ns, named.absolute, "ImageJ slice labels")
    return None


# ImageJ's TiffEncoder: tag 50838 has the bytes of each block of tag 50839, whose head names the blocks' kinds.
COUNTS, METADATA = 50838, 50839
LABEL_KIND = 0x6C61626C  # "labl"


def _labels(tiff: Tiff, look: StackLook) -> Sequence[str] | None:
    """Return ImageJ's slice labels, one a frame; None: there are none."""
    counts = tiff.numbers(look.page, COUNTS)
    data = tiff.raw(look.page, METADATA)
    if not counts or len(data) < counts[0] or counts[0] < 12:
        return None
    order = "<" if data[:4] == b"JIJI" else ">"
    kinds: NDArray[Any] = np.frombuffer(data[4 : counts[0] // 8 * 8 + 4], f"{order}u4")
    labels: list[str] = []
    at, block = counts[0], 1
    for kind, number in zip(kinds[::2].tolist(), kinds[1::2].tolist(), strict=False):
        for _ in range(min(number, len(counts) - block)):
            if kind == LABEL_KIND:
                text = data[at : at + counts[block]].decode("utf-16-le" if order == "<" else "utf-16-be", "replace")
                labels.append(text.splitlines()[0] if text else "")
            at += counts[block]
            block += 1
    return labels[: look.frames] if len(labels) >= look.frames else None
