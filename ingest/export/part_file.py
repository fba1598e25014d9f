"""A file that appears under its name complete, or not at all."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ingest.errors import DestinationError, SettingsError

__all__ = ["part_file"]


@contextmanager
def part_file(out: Path, *, force: bool) -> Iterator[Path]:
    """Give a file beside `out` to write to; when the block ends well it gets that name, else it is removed.

    Parameters
    ----------
    out : Path
        The final name.
    force : bool
        Whether a file of that name may be replaced.

    Raises
    ------
    SettingsError
        There is something of that name, before the block or after it; or its folder does not exist.
    DestinationError
        The file system refuses.
    """
    if out.is_dir():
        raise SettingsError(f"{out} is a folder", hint="pass another place by --out")
    if not force and os.path.lexists(out):
        raise _exists(out)
    part = out.with_name(f".rheed-export-{secrets.token_hex(8)}.part")
    try:
        # Reserved here, so that the file has the user's usual permissions whoever writes it.
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    except FileNotFoundError as error:
        raise SettingsError(f"there is no folder {out.parent}", hint="make it first") from error
    except OSError as error:
        raise DestinationError(f"{out} could not be written: {error.strerror}", hint="pass another --out") from error
    try:
        yield part
        try:
            _sync(part)
            _publish(part, out, force=force)
        except OSError as error:
            if isinstance(error, DestinationError):
                raise
            raise DestinationError(f"{out} could not be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            # A library that failed to close its file keeps the disk's room otherwise.
            if part.stat().st_nlink == 1:
                os.truncate(part, 0)
            part.unlink()


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _publish(part: Path, out: Path, *, force: bool) -> None:
    if force:
        os.replace(part, out)
        return
    try:
        os.link(part, out)  # unlike a rename, it never replaces a file that came meanwhile
    except FileExistsError as error:
        raise _exists(out) from error
    except OSError:  # a file system without hard links
        if os.path.lexists(out):
            raise _exists(out) from None
        os.replace(part, out)


def _exists(out: Path) -> SettingsError:
    return SettingsError(f"{out} exists", hint="pass --force to replace it, or another place by --out")
