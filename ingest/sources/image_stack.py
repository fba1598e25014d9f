"""Runs that are one TIFF file each: what they are."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ingest.sources.assemble import RunFacts, run_name, source_info
from ingest.sources.base import ReaderOption, SourceInfo, SourceOptions, SourceSpec
from ingest.sources.fingerprint import spread
from ingest.sources.image_common import decide_colour, sampled_maximum, steps_of, usable_start
from ingest.sources.image_read import FLAT, PAGES, frame_pages
from ingest.sources.image_sidecars import full_scale_said
from ingest.sources.many_files import fingerprint_of_files, sizes_of
from ingest.sources.plain_file import PlainFile
from ingest.sources.scale import decide_scale, is_wide, sample_frames
from ingest.sources.tiff_pages import PageReader
from ingest.sources.tiff_stack import StackLook, look_at_stack
from ingest.sources.tiff_times import rate_said
from ingest.timing import Finding

__all__ = ["inspect_stack"]

NAMES = {"ImageJ": "ImageJ TIFF", "OME": "OME-TIFF"}


def inspect_stack(spec: SourceSpec, options: SourceOptions) -> SourceInfo:
    """Find out what a TIFF file is, by its directories.

    Parameters
    ----------
    spec : SourceSpec
        Of one path.
    options : SourceOptions
        What the user says of it.

    Returns
    -------
    SourceInfo
        Its `spec` says where frames stand in the file, if they do so uncompressed and evenly, else that they are
        pages.

    Raises
    ------
    SourceError
        See `look_at_stack`, `decide_colour` and `resolve_start`; no page of it can be read.
    MissingFilterError
        Compressed in a way that nothing installed here can undo.

    Notes
    -----
    Reads the directory of each page, 18 x 64 KiB, and up to 16 frames that are wider than 8 bit or compressed. Holds
    about 300 bytes per page meanwhile.
    """
    path = spec.paths[0]
    look = look_at_stack(path, options.timezone)
    page, findings = look.page, look.findings
    known: dict[str, ReaderOption] = {
        "form": PAGES if look.flat is None else FLAT,
        "height_px": page.height_px,
        "width_px": page.width_px,
    }
    if look.flat is not None and page.dtype is not None:
        dtype: np.dtype[Any] = page.dtype
        known |= {"dtype": dtype.str, "offset": look.flat[0], "stride": look.flat[1]}
    else:
        dtype, colour, finding = _decoded(path, look, options)
        if finding is not None:
            known["colour"] = colour
            findings.append(finding)
    if page.photometric == 0:
        findings.append(Finding("inverted", "0 is white in this file: its values are turned over"))
    bare = SourceSpec(
        spec.kind, spec.paths, spec.dataset, file_frames=(look.frames,), options=tuple(sorted(known.items()))
    )
    wide = is_wide(dtype)
    maximum = sampled_maximum(bare, dtype, range(look.frames)) if wide else None
    said = full_scale_said(look.said.facts) if wide else None
    scale, more = decide_scale(dtype, options.full_scale, said, maximum)
    start = look.said.start or (None if look.date_time is None else ("DateTime", look.date_time))
    start = usable_start(start, options.timezone, findings)
    facts = RunFacts(
        spec=replace(bare, scale=scale),
        name=run_name(spec.paths),
        format=f"{NAMES.get(look.said.writer, 'TIFF')}{' stack' if look.frames > 1 else ''}",
        height_px=page.height_px,
        width_px=page.width_px,
        pixel_bytes=dtype.itemsize,
        fingerprint=fingerprint_of_files(spec.paths, sizes_of(spec.paths), steps_of(look.stamps)),
        stamps=look.stamps,
        attribute=None if start is None else start[1],
        attribute_name="start_time" if start is None else start[0],
        file_name=os.path.basename(path),
        mtime_path=path,
        fps_claimed=rate_said(look.said.facts),
        findings=(*findings, *more),
    )
    return source_info(facts, options)


def _decoded(path: str, look: StackLook, options: SourceOptions) -> tuple[np.dtype[Any], str, Finding | None]:
    """Return the type of pages that have to be decoded, and what is taken of colour ones."""
    offsets, numbers = frame_pages(path)
    with PlainFile(path) as file, PageReader(file) as reader:

        def read(number: int) -> NDArray[Any]:
            page, _ = reader.tiff.page(int(offsets[number]))
            return reader.pixels(page, int(numbers[number]))

        some = spread(look.frames, 16)
        (first,) = sample_frames(some, read, enough=1)
        dtype = first.dtype.newbyteorder("=")
        if first.ndim == 2:
            return dtype, "", None
        return dtype, *decide_colour(path, options, some, read)
