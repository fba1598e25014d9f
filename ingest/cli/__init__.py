"""The command line: parse, call, print, exit code. Nothing heavy is imported before a command needs it."""

from __future__ import annotations

import sys
from importlib import import_module

import click

from ingest import __version__

__all__ = ["main"]

COMMANDS = {
    "backfill": "ingest.cli.backfill",
    "demo": "ingest.cli.demo",
    "export": "ingest.cli.export",
    "inspect": "ingest.cli.inspect",
    "reconcile": "ingest.cli.reconcile",
    "serve": "ingest.cli.serve",
    "spool": "ingest.cli.spool",
    "status": "ingest.cli.state",
    "streams": "ingest.cli.state",
    "verify": "ingest.cli.verify",
}


class _LazyGroup(click.Group):
    """Imports a command's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click calls it so
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(import_module(COMMANDS[cmd_name]), cmd_name)
        return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rheed-ingest")
def cli() -> None:
    """Bring growth runs (RHEED movies) out of the lab: every frame, with its true capture time, provably.

    Exit codes: 0 all confirmed or nothing to do; 1 failed; 2 usage; 3 some runs or chunks missing; 130 interrupted.
    """


def main() -> None:
    """Run the command line and exit with its code."""
    from ingest.cli.exits import exit_code_of

    try:
        result = cli.main(standalone_mode=False)
        code = result if isinstance(result, int) else 0
    except BaseException as exc:  # noqa: BLE001 - one place turns whatever happened into words and a code
        code = exit_code_of(exc)
    sys.exit(code)
