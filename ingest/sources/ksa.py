"""kSA 400 movies (``.imm``) and images (``.img``): which runs there are, and what each is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ingest.errors import IngestError, SourceFormatError
from ingest.frames import FrameScale
from ingest.sources.assemble import RunFacts, run_name, source_info
from ingest.sources.base import ReaderOption, SourceInfo, SourceOptions, SourceSpec
from ingest.sources.colours import COLOUR_HINT
from ingest.sources.found import Discovered
from ingest.sources.hdf5_times import Stamps
from ingest.sources.ksa_header import KsaHeader
from ingest.sources.ksa_look import KsaLook, look_at_images, look_at_movie, pixel_bytes_in
from ingest.sources.ksa_read import DTYPES, HEADLESS, SEGMENTS, KsaSource, open_source
from ingest.sources.ksa_walk import first_header, movie_header
from ingest.sources.many_files import fingerprint_of_files, sizes_of
from ingest.sources.picture_names import frame_numbers_in, sequence_spec, sequences
from ingest.sources.plain_file import PlainFile
from ingest.sources.scale import as_stored, decide_scale, is_wide, largest_pixel, sampled
from ingest.sources.start import unix_number_to_ns
from ingest.timing import Finding

__all__ = ["KsaSource", "find_runs", "inspect", "open_source"]

KIND = "ksa"
MOVIE_SUFFIX = ".imm"
ORIGIN = "kSA frame headers"


def find_runs(paths: Sequence[str], options: SourceOptions) -> list[Discovered]:  # noqa: ARG001  as all finders
    """List the runs of some kSA files of one folder, by their first headers.

    Parameters
    ----------
    paths : sequence of str
        The files.
    options : SourceOptions
        Nothing of it matters here.

    Returns
    -------
    list of Discovered
        One for each movie: an ``.imm``, or a file with several frames. Other images whose names differ only in numbers
        and whose frames have one size are one run, in natural order.
    """
    entries: list[Discovered] = []
    images: dict[tuple[int, int], list[str]] = {}
    for path in paths:
        try:
            with PlainFile(path) as file:
                is_movie = os.path.splitext(path)[1].lower() == MOVIE_SUFFIX
                header = movie_header(file)[0] if is_movie else first_header(file)
                is_movie = is_movie or _holds_several(file, header)
        except IngestError as error:
            entries.append(Discovered(path, error=error))
            continue
        if is_movie:
            entries.append(Discovered(path, SourceSpec(KIND, (path,))))
        else:
            images.setdefault((header.width_px, header.height_px), []).append(path)
    runs: dict[str, list[str]] = {}
    for (width_px, height_px), members in images.items():
        for label, run in sequences(members).items():
            # Two frame sizes under one pattern are two runs, which need two labels.
            runs[label if label not in runs else f"{width_px}x{height_px} {label}"] = run
    return entries + [
        Discovered(run[0], sequence_spec(KIND, label, run, named_apart=len(runs) > 1)) for label, run in runs.items()
    ]


def _holds_several(file: PlainFile, header: KsaHeader) -> bool:
    try:
        pixel_bytes = pixel_bytes_in(file, header)
    except SourceFormatError:
        return False
    return file.size_bytes >= 2 * (header.header_bytes + header.pixels * pixel_bytes)


def inspect(spec: SourceSpec, options: SourceOptions) -> SourceInfo:
    """Find out what a run is, without reading its frames.

    Parameters
    ----------
    spec : SourceSpec
        One movie, or images in order of capture.
    options : SourceOptions
        What the user says of it.

    Returns
    -------
    SourceInfo
        Its `spec` has geometry, scale and frame counts, for every worker alike.

    Raises
    ------
    SourceError
        See `look_at_movie`, `look_at_images` and `resolve_start`.
    SettingsError
        A full scale that is not a positive number.

    Notes
    -----
    Reads 640 bytes of each frame, 18 x 64 KiB of up to 18 files, and for frames wider than 8 bit up to 16 frames.
    Holds 9 bytes per frame.
    """
    look = look_at_movie(spec.paths[0]) if len(spec.paths) == 1 else look_at_images(spec.paths)
    header = look.header
    findings = list(look.findings)
    stamps, attribute = _stamps(look, findings)
    known: dict[str, ReaderOption] = {
        "height_px": header.height_px,
        "width_px": header.width_px,
        "pixel_bytes": look.pixel_bytes,
        "movie": len(spec.paths) == 1,
    }
    if len(look.segments) > 1:
        known[SEGMENTS] = " ".join(f"{number}:{at}" for number, at in look.segments)
    if not look.begins_well:
        known[HEADLESS] = header.overlays
    if look.pixel_bytes == 12:
        known["colour"] = options.colour or "mean"
        said = "as asked" if options.colour else f"by default: {COLOUR_HINT}"
        findings.append(Finding("colour", f"of each colour pixel the {known['colour']} is taken, {said}"))
    if header.is_odd_zone:
        message = f"the header's zone fields are odd ({header.minutes_west} min west of UTC, summer time {header.dst})"
        findings.append(Finding("header", f"{message}; times are UTC all the same"))
    frames = len(look.good)
    movie = len(spec.paths) == 1
    decided = SourceSpec(
        KIND,
        spec.paths,
        spec.dataset,
        file_frames=(frames,) if movie else (1,) * frames,
        options=tuple(known.items()),
    )
    scale, more = _scale(decided, look, options)
    facts = RunFacts(
        spec=replace(decided, scale=scale),
        name=str(spec.option("name") or run_name(spec.paths)),
        format=f"kSA {'movie' if movie and frames > 1 else 'images'} ({header.version}, {header.bits} bit)",
        height_px=header.height_px,
        width_px=header.width_px,
        pixel_bytes=DTYPES[look.pixel_bytes].itemsize,
        fingerprint=fingerprint_of_files(spec.paths, sizes_of(spec.paths), look.stamps_ns),
        stamps=stamps,
        attribute=attribute,
        attribute_name="the time in every frame header",
        file_name=os.path.basename(spec.paths[0]),
        mtime_path=spec.paths[-1],
        frame_numbers=None if movie else frame_numbers_in(spec.paths),
        findings=(*findings, *more),
    )
    return source_info(facts, options)


def _stamps(look: KsaLook, findings: list[Finding]) -> tuple[Stamps | None, float | None]:
    """Return the frames' own stamps; where they have none that differ, the one time there is."""
    stamps_ns, more = look.times()
    findings += more
    if stamps_ns is None:
        return None, look.start_s()
    absolute = unix_number_to_ns(int(stamps_ns[0]) // 1_000_000_000) is not None
    if not absolute:
        message = f"the frame headers' times begin {int(stamps_ns[0]) / 1e9:.3f} s after 1970: taken as relative"
        findings.append(Finding("stamps", message))
    return Stamps(stamps_ns, absolute, ORIGIN), None


def _scale(spec: SourceSpec, look: KsaLook, options: SourceOptions) -> tuple[FrameScale, tuple[Finding, ...]]:
    dtype = DTYPES[look.pixel_bytes]
    if not is_wide(dtype):
        return decide_scale(dtype, options.full_scale, None, None)
    numbers = sampled(np.flatnonzero(look.good).tolist(), look.header.pixels * look.pixel_bytes)
    with KsaSource(replace(spec, scale=as_stored(dtype))) as source:
        maximum = largest_pixel(numbers, source.stored) or 0.0
    return decide_scale(dtype, options.full_scale, _said(look, maximum), maximum)


def _said(look: KsaLook, maximum: float) -> float | None:
    """Return the header's full scale; of accumulated (4-byte) pixels only if they stay under it."""
    header = look.header
    of_bits = 2**header.bits - 1 if 1 <= header.bits <= 8 * DTYPES[look.pixel_bytes].itemsize else 0
    candidates = (header.full_scale, of_bits)
    if look.pixel_bytes == 2:
        return next((float(value) for value in candidates if value > 0), None)
    return next((float(value) for value in candidates if value > 0 and maximum <= value + 1), None)
