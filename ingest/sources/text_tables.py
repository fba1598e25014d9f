"""Rows of text logs, read piece by piece: the same ones wherever in the file the reading begins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from ingest.errors import SourceChangedError, SourceFormatError
from ingest.sources.log_columns import MISSING
from ingest.sources.log_times import TimeRule, read_times
from ingest.sources.plain_file import PlainFile
from ingest.sources.text_layout import Line, split_line

__all__ = ["MAX_LINE_BYTES", "ParsedRows", "Piece", "RowParser", "head_lines", "read_pieces"]

PIECE_BYTES = 2**20
MAX_LINE_BYTES = 2**20
HEAD_BYTES = 64 * 2**10
LONG_HEAD_BYTES = 4 * 2**20  # a header as long as a line may be, and rows
HEAD_LINES = 200
FEW_LINES = 20


def head_lines(path: str) -> tuple[list[Line], bool]:
    """Read the first lines of a text file.

    Parameters
    ----------
    path : str
        The file.

    Returns
    -------
    lines : list of Line
        At most 200, of the first 64 KiB (4 MiB where these have fewer than 20). UTF-8, else Latin-1.
    whole : bool
        Whether these are all.

    Raises
    ------
    SourceFormatError
        Not text, text as UTF-16, or a first line of over 1 MiB.
    SourceReadError, SourceNotFoundError
        The file could not be read.
    """
    with PlainFile(path) as file:
        raw = file.read(0, HEAD_BYTES)
        if raw.count(b"\n") < FEW_LINES and len(raw) < file.size_bytes:
            raw = file.read(0, LONG_HEAD_BYTES)
    _check_text(raw, path)
    parts = raw.split(b"\n")
    whole = len(raw) >= file.size_bytes
    rest = parts.pop() if not whole or not parts[-1] else b""
    if len(parts[0] if parts else rest) > MAX_LINE_BYTES:
        raise SourceFormatError(f"{path}: its first line has more than {MAX_LINE_BYTES} bytes: not a text log")
    ends = [min(end, len(raw)) for end in accumulate(len(part) + 1 for part in parts)]
    # Long ones further down are left out when rows are read.
    kept = [part if len(part) <= MAX_LINE_BYTES else b"" for part in parts[:HEAD_LINES]]
    joined = b"\n".join(kept).removeprefix(b"\xef\xbb\xbf")
    try:
        texts = joined.decode("utf-8").split("\n")
    except UnicodeDecodeError:
        texts = joined.decode("latin-1").split("\n")
    lines = [Line(i + 1, text.rstrip("\r"), end) for i, (text, end) in enumerate(zip(texts, ends, strict=False))]
    return lines, whole and len(parts) <= HEAD_LINES


def _check_text(raw: bytes, path: str) -> None:
    if raw[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SourceFormatError(f"{path}: text as UTF-16", hint="save it as UTF-8: `iconv -f UTF-16 -t UTF-8`")
    head = raw[:HEAD_BYTES]
    controls = len(head.translate(None, bytes(range(0x20)))) + sum(head.count(byte) for byte in b"\t\n\r\f\x1b")
    if b"\0" in head or 100 * (len(head) - controls) > len(head):
        raise SourceFormatError(f"{path}: not text, whatever its name says", hint="leave it out, or copy it again")


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines of a file, as Latin-1, so that a character is a byte; `too_long`: one line that is left out."""

    offset: int
    text: str
    too_long: bool = False


def read_pieces(file: PlainFile, start: int, stop: int) -> Iterator[Piece]:
    """Yield the lines from byte `start` to byte `stop`, of which both are the beginnings of lines or the file's end.

    Holds at most 2 MiB however long a line is.

    Raises
    ------
    SourceChangedError
        The file ends before `stop`.
    SourceReadError
        The file could not be read.
    """
    carry, begin, position, skipping = b"", start, start, False
    while position < stop:
        data = file.read(position, min(PIECE_BYTES, stop - position))
        if not data:
            raise SourceChangedError(f"{file.path}: ends at byte {position}; it had {stop} when it was inspected")
        position += len(data)
        if skipping:
            _, found, data = data.partition(b"\n")
            if not found:
                continue
            yield Piece(begin, "", too_long=True)
            skipping, begin = False, position - len(data)
        cut = data.rfind(b"\n") + 1
        if cut:
            yield Piece(begin, (carry + data[:cut]).decode("latin-1"))
            carry, begin = data[cut:], position - len(data) + cut
        else:
            carry += data
        if len(carry) > MAX_LINE_BYTES:
            carry, skipping = b"", True
    if skipping:
        yield Piece(begin, "", too_long=True)
    elif carry:
        yield Piece(begin, carry.decode("latin-1"))


@dataclass(frozen=True)
class ParsedRows:
    """Rows of one `Piece`, and what is no row.

    Attributes
    ----------
    times_ns : ndarray of int64, (row,)
        As recorded.
    values : ndarray of float64, (column, row)
        NaN where there is no number.
    lines : ndarray of int64, (row,)
        Which line of the piece each is.
    wrong_fields, wrong_times, unclear_times : list of int
        Lines left out: another number of fields than the header's, times that cannot be read, local times that the
        zone's clock showed twice or never.
    numbers : list of int
        Of each column, how many fields are numbers.
    words : list of list of (int, str)
        Of each column, fields that are neither number nor empty: line, text.
    line_bytes : list of int
        Length of each line of the piece, line end included.
    """

    times_ns: NDArray[np.int64]
    values: NDArray[np.float64]
    lines: NDArray[np.int64]
    wrong_fields: list[int]
    wrong_times: list[int]
    unclear_times: list[int]
    numbers: list[int]
    words: list[list[tuple[int, str]]]
    line_bytes: list[int]


@dataclass(frozen=True)
class RowParser:
    """Reads lines as rows; what a line gives depends on nothing but itself.

    Attributes
    ----------
    delimiter, decimal, width
        As in `TextLayout`.
    time : TimeRule
        With its zone and day order.
    columns : tuple of int
        The fields to read.
    """

    delimiter: str
    decimal: str
    width: int
    time: TimeRule
    columns: tuple[int, ...]

    def parse(self, text: str) -> ParsedRows:
        """Read the lines of a piece.

        Holds some 60 bytes per field beside what it returns.
        """
        lines = text.split("\n")
        line_bytes = [len(line) + 1 for line in lines]
        if not lines[-1]:
            lines.pop()
            line_bytes.pop()
        else:
            line_bytes[-1] -= 1
        rows, at, wrong = self._split(lines)
        times_ns, readable, unclear = read_times(self.time, self.time_texts(rows))
        line_of = np.array(at, np.int64)
        unclear_lines = [at[row] for row in unclear]
        unread: list[int] = []
        if not readable.all():
            unread = [
                at[row]
                for row in np.flatnonzero(~readable).tolist()
                if row not in unclear and any(cell.strip() for cell in rows[row])
            ]
            rows = [row for row, good in zip(rows, readable.tolist(), strict=True) if good]
            times_ns, line_of = times_ns[readable], line_of[readable]
        values = np.empty((len(self.columns), len(rows)))
        numbers, words = [], []
        for i, column in enumerate(self.columns):
            count, odd = _read_column([row[column] for row in rows], self.decimal, values[i])
            numbers.append(count)
            words.append([(int(line_of[row]), word) for row, word in odd])
        return ParsedRows(times_ns, values, line_of, wrong, unread, unclear_lines, numbers, words, line_bytes)

    def time_texts(self, rows: Sequence[Sequence[str]]) -> list[str]:
        """Return what rows say of their time, with decimal points."""
        if len(self.time.columns) == 2:
            day, clock = self.time.columns
            texts = [f"{row[day].strip()} {row[clock].strip()}" for row in rows]
        else:
            (column,) = self.time.columns
            texts = [row[column] for row in rows]
        is_number = self.time.kind in ("elapsed", "unix")
        return [text.replace(",", ".") for text in texts] if is_number and self.decimal == "," else texts

    def times_in(self, text: str) -> list[str]:
        """Return the texts of the times in some lines; the first and the last may be cut."""
        return [text for text in self.time_texts(self._split(text.split("\n"))[0]) if text.strip()]

    def _split(self, lines: Sequence[str]) -> tuple[list[list[str]], list[int], list[int]]:
        """Return rows of fields, the line of each, and the lines of another number of fields."""
        rows: list[list[str]] = []
        at: list[int] = []
        wrong: list[int] = []
        delimiter, width = self.delimiter, self.width
        plain = delimiter != " "
        for number, raw in enumerate(lines):
            line = raw.rstrip("\r")
            cells = line.split(delimiter) if plain and '"' not in line else split_line(line, delimiter)
            if "#" in line and line.lstrip().startswith("#"):
                continue
            if len(cells) > width and not "".join(cells[width:]).strip():
                cells = cells[:width]
            if len(cells) == width and len(raw) <= MAX_LINE_BYTES:
                rows.append(cells)
                at.append(number)
            elif line.strip():
                wrong.append(number)
        return rows, at, wrong


def _read_column(cells: Sequence[str], decimal: str, out: NDArray[np.float64]) -> tuple[int, list[tuple[int, str]]]:
    """Put numbers into `out`, (row,), NaN elsewhere; return how many there are, and texts that are something else."""
    texts = [cell.replace(",", ".") for cell in cells] if decimal == "," else cells
    try:
        if not any("_" in text for text in texts):
            out[:] = np.fromiter(map(float, texts), np.float64, len(texts))
            return len(texts), []
    except ValueError:
        pass
    count, odd = 0, []
    for row, text in enumerate(texts):
        try:
            # Python's own digit groups are none of a logger's.
            out[row] = float(text.replace("_", "x"))
            count += 1
        except ValueError:
            out[row] = np.nan
            if text.strip().lower() not in MISSING:
                odd.append((row, cells[row]))
    return count, odd
