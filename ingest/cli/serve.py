"""``rheed-ingest serve``: the embedded platform."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ingest.cli.exits import OK

__all__ = ["serve"]


@click.command()
@click.option(
    "--data",
    required=True,
    metavar="DIR|URL",
    help="Folder for all that it keeps; or s3://bucket/prefix, which clients then upload their chunks to.",
)
@click.option(
    "--state",
    type=click.Path(path_type=Path),
    help="Folder of the catalogue of data at a URL; default: one in the user's state folder.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=int, default=8000, show_default=True, help="0: any free one.")
@click.option("--api-key-file", type=click.Path(path_type=Path), help="API keys, one a line; default: AS_API_KEY.")
@click.option("--silent-stream-s", type=float, default=7200.0, show_default=True, help="Fail streams silent so long.")
@click.option("--upload-url-ttl-s", type=float, default=900.0, show_default=True, help="How long upload URLs hold.")
@click.option("--fsync/--no-fsync", default=True, help="Whether a chunk is on disk before it is confirmed.")
def serve(
    data: str,
    state: Path | None,
    host: str,
    port: int,
    api_key_file: Path | None,
    silent_stream_s: float,
    upload_url_ttl_s: float,
    fsync: bool,
) -> int:
    """Serve the embedded platform: for a lab without the cloud.

    \b
    Examples:
      AS_API_KEY=... rheed-ingest serve --data /srv/rheed --host 0.0.0.0
      AS_API_KEY=... rheed-ingest serve --data s3://lab/rheed --state /var/lib/rheed
    """  # noqa: D301 - \b is click's
    from ingest.server.run import serve as run_server
    from ingest.server.settings import ServerSettings, load_keys, new_key

    keys = load_keys(os.environ, api_key_file)
    if not keys:
        keys = (new_key(),)
        click.echo(f"api key: {keys[0].reveal()}")
    settings = ServerSettings(
        data=data,
        api_keys=keys,
        state=state,
        upload_url_ttl_s=upload_url_ttl_s,
        silent_stream_s=silent_stream_s,
        fsync=fsync,
    )
    run_server(settings, host, port, on_ready=lambda url: click.echo(f"listening on {url}"))
    return OK
