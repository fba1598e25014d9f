"""Movies: what they are, read from headers, packets and three decoded frames; the frames are `video_read`'s."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from av.video.frame import VideoFrame

from ingest.errors import FrameDataError, IngestError, NoFramesError, SettingsError, SourceFormatError
from ingest.frames import FrameScale
from ingest.sources.assemble import RunFacts, run_name, source_info
from ingest.sources.base import Access, ReaderOption, SourceInfo, SourceOptions, SourceSpec
from ingest.sources.fingerprint import Fingerprint
from ingest.sources.found import Discovered
from ingest.sources.hdf5_times import Stamps
from ingest.sources.plain_file import MAX_FRAME_BYTES, os_errors
from ingest.sources.video_decode import Decoder
from ingest.sources.video_file import Movie, container_name, read_errors
from ingest.sources.video_index import MovieIndex, read_index
from ingest.sources.video_look import (
    INTER_CODED,
    ColourRange,
    Rotation,
    colour_findings,
    field_findings,
    range_of_luma,
    rotation_of,
)
from ingest.sources.video_pixels import COLOURS, PixelPlan, plan_pixels
from ingest.sources.video_read import VideoSource, number_ranges, open_source
from ingest.timing import Finding

__all__ = ["VideoSource", "find_runs", "inspect", "open_source"]

KIND = "video"
MAX_CUTS = 64
MAX_FPS = 100_000
SHORT_S = 0.5  # that a stream may end before its header says, or two frames: containers round


def find_runs(paths: Sequence[str], options: SourceOptions) -> list[Discovered]:  # noqa: ARG001  as for other kinds
    """List the runs of some movie files of one folder: one a file, by headers only.

    Parameters
    ----------
    paths : sequence of str
        The files.
    options : SourceOptions
        Not needed here.

    Returns
    -------
    list of Discovered
        In the order of `paths`; a file that is no movie is an entry with its error.
    """
    entries = []
    for path in paths:
        try:
            with Movie(path):
                entries.append(Discovered(path, SourceSpec(KIND, (path,))))
        except IngestError as error:
            entries.append(Discovered(path, error=error))
    return entries


@dataclass(frozen=True)
class Header:
    """What a movie's header says; a claim, but for the codec and the tags."""

    codec: str
    container: str
    frames: int
    duration: Fraction | None
    rates: tuple[Fraction | None, ...]
    creation_time: str | None
    streams: int


def inspect(spec: SourceSpec, options: SourceOptions) -> SourceInfo:
    """Find out what a movie is: all its packets are gone through, and up to three frames are decoded.

    Parameters
    ----------
    spec : SourceSpec
        One file.
    options : SourceOptions
        What the user says of it.

    Returns
    -------
    SourceInfo
        Its `spec` has the scale, the frame count, whether the movie can be cut, and what is done with its frames.

    Raises
    ------
    SourceError
        As `Movie`; `NoFramesError`: no packet of it is a frame; `FrameDataError`: none of the frames tried decodes; and
        as `resolve_start`.
    SettingsError
        A full scale that is not a positive number, or one together with `expand_range`.

    Notes
    -----
    Holds 80 bytes per packet and three frames.
    """
    path = spec.paths[0]
    with read_errors(path):
        with Movie(path) as movie:
            header = _header(movie)
            index = read_index(movie)
        if not index.frames:
            raise NoFramesError(
                f"{path}: not one whole frame in it", hint="its recording may have been stopped at once"
            )
        sample = _sampled(path, index)
        index = index if sample.seeks else index.from_start()
        return _info(path, options, header, index if sample.cut else index.uncut(), sample)


def _header(movie: Movie) -> Header:
    stream, container = movie.stream, movie.container
    duration = None
    if stream.duration is not None and stream.time_base is not None:
        duration = stream.duration * stream.time_base
    elif container.duration is not None and len(container.streams) == 1:
        duration = Fraction(container.duration, 1_000_000)
        if "matroska" in container.format.name and stream.start_time and stream.time_base is not None:
            # It counts from 0, not from the first frame (RFC 9559, 5.1.2.10).
            duration -= max(0, stream.start_time) * stream.time_base
    tags = {key.lower(): value for key, value in (*stream.metadata.items(), *container.metadata.items())}
    # 1904 and 1970 are where clocks that were never set begin.
    created = re.match(r"(?!1904|1970)\d{4}-.*", tags.get("creation_time", ""))
    return Header(
        codec=stream.codec_context.name,
        container=container_name(container, movie.path),
        frames=stream.frames,
        duration=duration,
        rates=(stream.guessed_rate, stream.base_rate, stream.average_rate),
        creation_time=created[0] if created else None,
        streams=len(container.streams.video),
    )


@dataclass(frozen=True)
class Sample:
    """Some decoded keyframes.

    Attributes
    ----------
    cut, strict, seeks : bool
        Whether they stand alone; whether the decoder finds no errors in them; whether seeking leads to them.
    """

    frames: Sequence[VideoFrame]
    cut: bool
    strict: bool
    seeks: bool


def _sampled(path: str, index: MovieIndex) -> Sample:
    """Decode the first, the middle and the last keyframe."""
    keys = [int(packet) for packet in index.cuts[0] if index.shown[packet]] or [0]
    chosen = sorted({keys[0], keys[len(keys) // 2], keys[-1]})
    trouble = None
    for strict in (True, False):
        decoder = Decoder(path, index, strict=strict)
        try:
            sample = _decode_alone(decoder, chosen, strict=strict)
        finally:
            decoder.close()
        if sample.frames:
            _check_size(path, sample.frames[0])
            return sample
        trouble = trouble or decoder.trouble
    raise FrameDataError(
        f"{path}: of {index.frames} frames, none of the {len(chosen)} that were tried decodes ({trouble})",
        hint="copy the file again from where it was recorded",
    )


def _check_size(path: str, frame: VideoFrame) -> None:
    frame_bytes = frame.width * frame.height * -(-plan_pixels(frame.format.name, None).bits // 8)
    if frame_bytes > MAX_FRAME_BYTES:
        raise SourceFormatError(f"{path}: frames of {frame.width} x {frame.height} px, {frame_bytes} bytes each")


def _decode_alone(decoder: Decoder, packets: Sequence[int], *, strict: bool) -> Sample:
    """Decode keyframes, each by itself.

    A stream that is refreshed bit by bit has "keyframes" that are built on others: alone they are of another type, or
    do not come out, without an error.
    """
    frames: list[VideoFrame] = []
    whole = True
    for packet in packets:
        decoder.trouble = None
        frame = decoder.sample(packet)
        if frame is not None:
            frames.append(frame)
            whole &= int(frame.pict_type) not in INTER_CODED
        elif decoder.trouble is None:
            whole = False
    return Sample(frames, whole, strict, not decoder.strayed)


def _info(path: str, options: SourceOptions, header: Header, index: MovieIndex, sample: Sample) -> SourceInfo:
    first = sample.frames[0]
    plan = plan_pixels(first.format.name, options.colour if options.colour in COLOURS else None)
    scale = _scale(plan, options)
    luma = range_of_luma(sample.frames, plan, expand=options.expand_range)
    rotation = rotation_of(first, apply=options.apply_rotation)
    stamps, said = _stamps(header, index)
    findings = (
        said,
        *luma.findings,
        *colour_findings(sample.frames, plan),
        *rotation.findings,
        *field_findings(sample.frames),
        *_stream_findings(header, sample),
        *_lost_frames(index),
        *_short_read(header, index),
    )
    size = (first.height, first.width)
    height_px, width_px = size[::-1] if rotation.quarter_turns % 2 else size
    reader = _reader_options(index, sample, plan, luma, rotation)
    facts = RunFacts(
        spec=SourceSpec(KIND, (path,), None, scale, (index.frames,), _access(index), None, reader, _lane_cuts(index)),
        name=run_name([path]),
        format=f"video ({header.codec} in {header.container}, {first.format.name})",
        height_px=height_px,
        width_px=width_px,
        pixel_bytes=1 if plan.bits == 8 else 2,
        fingerprint=_fingerprint(path, stamps),
        stamps=stamps,
        container_tag=header.creation_time,
        file_name=os.path.basename(path),
        mtime_path=path,
        fps_claimed=_claimed_rate(header, index),
        findings=findings,
    )
    return source_info(facts, options)


def _reader_options(
    index: MovieIndex, sample: Sample, plan: PixelPlan, luma: ColourRange, rotation: Rotation
) -> tuple[tuple[str, ReaderOption], ...]:
    """Return what `VideoSource` has to know, so that every worker makes the same of a frame."""
    first = sample.frames[0]
    said: dict[str, ReaderOption] = {
        "index": index.digest,
        "pix_fmt": first.format.name,
        "height_px": first.height,
        "width_px": first.width,
        "colour_range": "full" if luma.full else "limited",
    }
    changes: dict[str, ReaderOption | None] = {
        "colour": plan.channel,
        "expand_range": luma.expand,
        "quarter_turns": rotation.quarter_turns,
        "uncut": not sample.cut,
        "lenient": not sample.strict,
        "from_start": not sample.seeks,
    }
    said.update({name: value for name, value in changes.items() if value})
    return tuple(said.items())


def _stream_findings(header: Header, sample: Sample) -> tuple[Finding, ...]:
    found = []
    if header.streams > 1:
        found.append(Finding("streams", f"{header.streams} video streams or pictures: only the first movie is read"))
    if not sample.strict:
        message = "the decoder finds errors in all sampled frames: they are taken as players show them"
        found.append(Finding("decoding errors", message))
    return tuple(found)


def _scale(plan: PixelPlan, options: SourceOptions) -> FrameScale:
    dtype = "uint8" if plan.bits == 8 else "uint16"
    if options.full_scale is not None:
        if options.expand_range:
            raise SettingsError(
                "full_scale and expand_range both say which value becomes 255", hint="pass one of them for a movie"
            )
        return FrameScale(dtype, float(options.full_scale), "user")
    return FrameScale(dtype, None, "8 bit") if plan.bits == 8 else FrameScale(dtype, 2.0**plan.bits - 1, "file")


def _access(index: MovieIndex) -> Access:
    """Say in which order frames are best read; see `Access`."""
    if not index.by_stamps or not index.seeks or len(index.cuts[0]) < 2:
        return "single"
    return "random" if index.all_keys else "lanes"


def _lane_cuts(index: MovieIndex) -> tuple[int, ...]:
    """Return the first frames of up to 64 keyframes, spread over the movie."""
    if _access(index) != "lanes":
        return ()
    frames = index.cuts[1]
    return tuple(frames[:: max(1, -(-len(frames) // MAX_CUTS))].tolist())


def _stamps(header: Header, index: MovieIndex) -> tuple[Stamps | None, Finding]:
    if not index.by_stamps:
        why = "packets are stored in another order than they are shown, without times that tell which is which"
        return None, Finding("stamps", f"none ({why}): times are frame number / fps")
    if header.container == "avi" and index.counts_frames:
        rate = _claimed_rate(header, index)
        claimed = "the header claims none" if rate is None else f"the header claims {rate:.10g} fps"
        return None, Finding("stamps", f"none (AVI of constant rate): times are frame number / fps; {claimed}")
    even = "; all steps are equal, as of a writer that counts frames: the camera may have been slower"
    more = even if index.is_even else ""
    return index.stamps(), Finding(
        "stamps", f"presentation times of the container, in units of {index.time_base} s{more}"
    )


def _claimed_rate(header: Header, index: MovieIndex) -> float | None:
    """Return the header's frame rate; None where it only says how finely time is counted."""
    for rate in header.rates:
        if rate is None or not 0 < rate <= MAX_FPS:
            continue
        if rate * index.time_base == 1 and index.by_stamps and index.mean_step > Fraction(3, 2):
            continue
        return float(rate)
    return None


def _fingerprint(path: str, stamps: Stamps | None) -> str:
    fingerprint = Fingerprint(KIND)
    with os_errors(path):
        fingerprint.add_file(path)
    fingerprint.add_stamps(None if stamps is None else stamps.ns)
    return fingerprint.hexdigest()


def _lost_frames(index: MovieIndex) -> tuple[Finding, ...]:
    """Say which frames are listed by the file's index, but not there."""
    lost = index.missing_frames()
    if not lost:
        return ()
    about = "" if index.by_stamps else ", counted as they are stored"
    message = (
        f"{len(lost)} of {index.frames} are not there where the file's index lists them ({number_ranges(lost)}{about})"
        ": the file is damaged; those that build on them are lost too, up to the next keyframe"
    )
    return (Finding("lost frames", message, lost[0]),)


def _short_read(header: Header, index: MovieIndex) -> tuple[Finding, ...]:
    """Say whether the file ends before its header says."""
    cut = " (the last one is cut short, and left out)" if index.cut_short else ""
    there = f"{index.frames} are there{cut}"
    unit = "frames"
    if header.container == "avi" and index.by_stamps:
        # AVI counts ticks: empty packets stand for times without a frame.
        last = int(index.frame_pts[-1]) + 1
        if not index.counts_frames:
            unit, last = f"ticks of {index.time_base} s", last + int(2 * index.mean_step)
        promised = header.frames - last
    else:
        promised = header.frames - index.packets_read
    tail = "it was cut short, or its recording was not closed"
    if index.counts_frames and index.broken_at is not None:
        promised = header.frames - index.packets_read
    if index.broken_at is not None and (promised or not header.frames):
        many = f"{promised} of them are missing" if promised > 0 and header.frames else "some may be missing or false"
        message = (
            f"the header says {header.frames or 'no number of'} {unit}, {many}, it is not known where: the file is "
            f"damaged, first after byte {index.broken_at}, and has no whole index that would tell; {there}, numbered "
            "one after the other"
        )
        return (Finding("short read", message, index.frames),)
    if header.frames and promised > 0:
        message = f"the header says {header.frames} {unit}, {promised} of them are missing at the end; {there}: {tail}"
        return (Finding("short read", message, index.frames),)
    if header.duration is not None and index.by_stamps and header.container != "avi":
        step_s = index.mean_step * index.time_base
        ends_s = (int(index.frame_pts[-1]) - int(index.frame_pts[0])) * index.time_base + step_s
        missing_s = header.duration - ends_s
        if missing_s > max(2 * step_s, Fraction(SHORT_S)):
            message = f"the header says {float(header.duration):.3f} s, {float(missing_s):.3f} s are missing at the end"
            return (Finding("short read", f"{message}; {there}: {tail}", index.frames),)
    return (Finding("short read", f"{there}: {tail}", index.frames),) if cut else ()
