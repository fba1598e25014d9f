"""The structure of TIFF files: one directory (IFD) a page, each naming the next (TIFF 6.0; BigTIFF).

Read here rather than by tifffile, which ends the list of pages without an error where a file is cut
(FORMATS.md 1.4), and reads all tags of each.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ingest.errors import FrameDataError
from ingest.sources.plain_file import PlainFile

__all__ = ["DATE_TIME", "DESCRIPTION", "Tiff", "TiffPage", "is_tiff"]

DESCRIPTION, DATE_TIME = 270, 306
UNCOMPRESSED = 1
DEFLATE = frozenset({8, 32946})
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3
MAX_TAGS = 4096
FIRST_GUESS_BYTES = 512
_KINDS = {1: "u", 2: "i", 3: "f", 4: "u"}
# Field type to struct's letter and size; only those that hold what is looked for here.
_FIELDS = {1: ("B", 1), 2: ("s", 1), 3: ("H", 2), 4: ("I", 4), 13: ("I", 4), 16: ("Q", 8), 18: ("Q", 8)}
Entry = tuple[int, int, bytes]  # type, count, value or its offset
MORE_DESCRIPTION = -DESCRIPTION  # no tag of TIFF's: where a second description is kept


def is_tiff(head: bytes) -> bool:
    """Whether a file that begins like this is a TIFF or BigTIFF."""
    return head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True, slots=True)
class TiffPage:
    """One page: what its picture is, and where.

    Attributes
    ----------
    offset : int
        Of its directory.
    width_px, height_px, samples, bits : int
        Its size, numbers per pixel, bits of each.
    dtype : numpy.dtype or None
        Of a number, with byte order; None: of a size that NumPy has not.
    compression, photometric, planar, predictor, orientation : int
        As TIFF 6.0 numbers them.
    is_reduced : bool
        A thumbnail of another page.
    is_tiled : bool
        Whether its parts are tiles, not strips of rows.
    rows_per_strip : int
        Rows in each strip but the last.
    offsets, counts : tuple of int
        Where its strips or tiles are, and their bytes.
    """

    offset: int
    width_px: int
    height_px: int
    samples: int
    bits: int
    dtype: np.dtype[Any] | None
    compression: int
    photometric: int
    planar: int
    predictor: int
    orientation: int
    is_reduced: bool
    is_tiled: bool
    fill_order: int
    rows_per_strip: int
    offsets: tuple[int, ...]
    counts: tuple[int, ...]
    tags: dict[int, Entry] = field(repr=False, compare=False)

    @property
    def frame_bytes(self) -> int:
        """Size of the picture, decoded."""
        return self.height_px * self.width_px * self.samples * ((self.bits + 7) // 8)

    @property
    def signature(self) -> tuple[int, ...]:
        """What all pages of a stack have in common."""
        kind = ord(self.dtype.kind) if self.dtype is not None else 0
        return self.width_px, self.height_px, self.samples, self.bits, kind, self.photometric

    @property
    def is_plain(self) -> bool:
        """Whether its pixels stand in the file as one grey frame, row after row."""
        if self.compression != UNCOMPRESSED or self.is_tiled or self.dtype is None or self.samples != 1:
            return False
        if self.photometric != BLACK_IS_ZERO or self.fill_order != 1 or not self.offsets:
            return False
        ends = [offset + count for offset, count in zip(self.offsets, self.counts, strict=False)]
        return ends[:-1] == list(self.offsets[1:]) and ends[-1] - self.offsets[0] >= self.frame_bytes

    @property
    def data_end(self) -> int:
        """Where the last of its parts ends."""
        return max((a + b for a, b in zip(self.offsets, self.counts, strict=False)), default=0)


class Tiff:
    """An open TIFF file's pages.

    Parameters
    ----------
    file : PlainFile
        The caller closes it.

    Raises
    ------
    FrameDataError
        Not a TIFF, or cut in its first bytes.
    """

    def __init__(self, file: PlainFile) -> None:
        self.file = file
        head = file.read(0, 16)
        if not is_tiff(head) or len(head) < 8:
            what = "is empty" if not head else f"no TIFF: it begins with {head[:4]!r}"
            raise FrameDataError(f"{file.path}: {what}")
        self.order = "<" if head[:1] == b"I" else ">"
        self.is_big = head[2:4] in (b"+\0", b"\0+")
        if self.is_big:
            if len(head) < 16:
                raise FrameDataError(f"{file.path}: cut: a BigTIFF of {len(head)} bytes")
            self.first = int(struct.unpack_from(self.order + "Q", head, 8)[0])
            self._count, self._entry, self._next = "Q", struct.Struct(self.order + "HHQ8s"), "Q"
        else:
            self.first = int(struct.unpack_from(self.order + "I", head, 4)[0])
            self._count, self._entry, self._next = "H", struct.Struct(self.order + "HHI4s"), "I"

    def pages(self) -> Iterator[TiffPage]:
        """Go through the pages in order of the chain.

        Raises
        ------
        FrameDataError
            Where it leads out of the file, to what is no directory, or back.
        """
        offset = self.first
        seen = set()
        while offset:
            if offset in seen:
                raise FrameDataError(f"{self.file.path}: damaged: the chain of pages leads back to byte {offset}")
            seen.add(offset)
            page, offset = self.page(offset)
            yield page

    def page(self, offset: int) -> tuple[TiffPage, int]:
        """Return the page whose directory is at a byte, and where the next one's is (0: there is none).

        Raises
        ------
        FrameDataError
            There is no directory, or not all of it.
        """
        tags, following = self._directory(offset)
        return self._page(offset, tags), following

    def text(self, page: TiffPage, tag: int) -> str | None:
        """Return a text of a page's, without trailing zeros; None: it has none, or it lies beyond a cut file's end."""
        entry = page.tags.get(tag)
        if entry is None or entry[0] not in (1, 2, 7):
            return None
        try:
            data = self._bytes((2, entry[1], entry[2]), page.offset)
        except FrameDataError:
            return None
        return data.split(b"\0", 1)[0].decode("utf-8", "replace")

    def descriptions(self, page: TiffPage) -> tuple[str, ...]:
        """Return a page's descriptions; tifffile writes its own after the user's, under the same tag."""
        texts = (self.text(page, tag) for tag in (DESCRIPTION, MORE_DESCRIPTION))
        return tuple(text for text in texts if text)

    def numbers(self, page: TiffPage, tag: int) -> tuple[int, ...]:
        """Return a tag's whole numbers; none where it is not there, or is of another type."""
        return self._numbers(page.tags.get(tag), page.offset)

    def raw(self, page: TiffPage, tag: int) -> bytes:
        """Return a tag's bytes; none where it is not there, or is of another type."""
        entry = page.tags.get(tag)
        return b"" if entry is None or entry[0] not in (1, 7) else self._bytes((1, entry[1], entry[2]), page.offset)

    def _directory(self, offset: int) -> tuple[dict[int, Entry], int]:
        data = self.file.read(offset, FIRST_GUESS_BYTES)
        count_bytes, next_bytes = struct.calcsize(f"={self._count}"), struct.calcsize(f"={self._next}")
        if len(data) < count_bytes:
            raise FrameDataError(
                f"{self.file.path}: cut: a page should begin at byte {offset}; the file has {self.file.size_bytes}"
            )
        tags = int(struct.unpack_from(self.order + self._count, data)[0])
        if not 0 < tags <= MAX_TAGS:
            raise FrameDataError(f"{self.file.path}: damaged: no page at byte {offset}, where one should begin")
        end = count_bytes + tags * self._entry.size
        if len(data) < end + next_bytes:
            data = self.file.read(offset, end + next_bytes)
        if len(data) < end + next_bytes:
            raise FrameDataError(f"{self.file.path}: cut in the directory of the page at byte {offset}")
        entries = self._entry.iter_unpack(data[count_bytes:end])
        following = int(struct.unpack_from(self.order + self._next, data, end)[0])
        found: dict[int, Entry] = {}
        for tag, kind, count, value in entries:
            found[MORE_DESCRIPTION if tag == DESCRIPTION and tag in found else tag] = (kind, count, value)
        return found, following

    def _page(self, offset: int, tags: dict[int, Entry]) -> TiffPage:
        def number(tag: int, default: int) -> int:
            values = self._numbers(tags.get(tag), offset)
            return values[0] if values else default

        width_px, height_px = number(256, 0), number(257, 0)
        samples, bits = number(277, 1), number(258, 1)
        if 0 in (width_px, height_px, samples, bits):
            raise FrameDataError(f"{self.file.path}: damaged: the page at byte {offset} has no width, height or bits")
        kind = _KINDS.get(number(339, 1))
        known = kind is not None and bits in ((8, 16, 32, 64) if kind != "f" else (16, 32, 64))
        is_tiled = 322 in tags
        planar = number(284, 1) if samples > 1 else 1
        offsets = self._numbers(tags.get(324 if is_tiled else 273), offset)
        counts = self._numbers(tags.get(325 if is_tiled else 279), offset)
        compression = number(259, UNCOMPRESSED)
        if compression == UNCOMPRESSED and len(offsets) == 1 and not any(counts):
            # Left out by old writers: one strip that is not compressed has no other size.
            counts = (width_px * height_px * samples * ((bits + 7) // 8),)
        return TiffPage(
            offset=offset,
            width_px=width_px,
            height_px=height_px,
            samples=samples,
            bits=bits,
            dtype=np.dtype(f"{self.order}{kind}{bits // 8}") if known else None,
            compression=compression,
            photometric=number(262, BLACK_IS_ZERO),
            planar=planar,
            predictor=number(317, 1),
            orientation=number(274, 1),
            is_reduced=bool(number(254, 0) & 1),
            is_tiled=is_tiled,
            fill_order=number(266, 1),
            rows_per_strip=min(number(278, height_px), height_px) or height_px,
            offsets=offsets,
            counts=counts,
            tags=tags,
        )

    def _numbers(self, entry: Entry | None, page: int) -> tuple[int, ...]:
        if entry is None or entry[0] not in _FIELDS or entry[0] == 2:
            return ()
        letter, _ = _FIELDS[entry[0]]
        return struct.unpack(f"{self.order}{entry[1]}{letter}", self._bytes(entry, page))

    def _bytes(self, entry: Entry, page: int) -> bytes:
        kind, count, value = entry
        needed = count * _FIELDS[kind][1]
        if needed <= len(value):
            return value[:needed]
        at = int(struct.unpack(self.order + self._next, value)[0])
        if at + needed > self.file.size_bytes:
            raise FrameDataError(
                f"{self.file.path}: cut: the page at byte {page} needs bytes up to {at + needed}; the file has "
                f"{self.file.size_bytes}"
            )
        return self.file.read(at, needed)
