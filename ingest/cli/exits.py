"""Exit codes, and what is said on the way out."""

from __future__ import annotations

import os

import click

from ingest.errors import IngestError, SettingsError

__all__ = ["FAILED", "INTERRUPTED", "OK", "PARTIAL", "USAGE", "exit_code_of", "say_error"]

OK, FAILED, USAGE, PARTIAL, INTERRUPTED = 0, 1, 2, 3, 130


def say_error(error: BaseException, where: str = "") -> None:
    """Write an error and its hint to stderr."""
    click.echo(f"error: {where}{error}", err=True)
    hint = getattr(error, "hint", None)
    if hint:
        click.echo(f"hint: {hint}", err=True)


def exit_code_of(exc: BaseException) -> int:
    """Say what ended the program, and return its exit code."""
    match exc:
        case click.exceptions.Exit():
            return exc.exit_code
        case click.ClickException():
            exc.show()
            return exc.exit_code
        case click.Abort() | KeyboardInterrupt():
            click.echo("interrupted", err=True)
            return INTERRUPTED
        case SettingsError():
            say_error(exc)
            return USAGE
        case IngestError():
            say_error(exc)
            return FAILED
        case BrokenPipeError():
            os._exit(FAILED)  # the reader of our output left; there is no one to tell
        case SystemExit():
            return exc.code if isinstance(exc.code, int) else FAILED
        case _:
            raise exc
