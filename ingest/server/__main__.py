"""``python -m ingest.server``: the embedded platform on its own."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ingest.errors import SettingsError
from ingest.server.run import serve
from ingest.server.settings import KEY_VARIABLE, ServerSettings, load_keys, new_key


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until told to stop; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        keys = load_keys(os.environ, options.api_key_file)
        if not keys:
            keys = (new_key(),)
            _say(f"api key: {keys[0].reveal()}")
        settings = ServerSettings(
            data=options.data,
            api_keys=keys,
            state=options.state,
            upload_url_ttl_s=options.upload_url_ttl_s,
            silent_stream_s=options.silent_stream_s,
            fsync=options.fsync,
        )
        serve(settings, options.host, options.port, on_ready=lambda url: _say(f"listening on {url}"))
    except SettingsError as exc:
        sys.stderr.write(f"error: {exc}\n" + (f"hint: {exc.hint}\n" if exc.hint else ""))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ingest.server",
        description=f"The embedded platform. API keys come from {KEY_VARIABLE}, one a line; without any it makes one.",
    )
    parser.add_argument("--data", required=True, metavar="DIR|URL", help="folder, or s3://bucket/prefix, for the data")
    parser.add_argument("--state", type=Path, metavar="DIR", help="folder of the catalogue of data at a URL")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0: any free one (default: %(default)s)")
    parser.add_argument("--api-key-file", type=Path, metavar="FILE", help="API keys, one a line")
    parser.add_argument("--silent-stream-s", type=float, default=7200.0, metavar="S", help="default: %(default)s")
    parser.add_argument("--upload-url-ttl-s", type=float, default=900.0, metavar="S", help="default: %(default)s")
    parser.add_argument("--no-fsync", dest="fsync", action="store_false", help="faster; a power cut may lose chunks")
    return parser


if __name__ == "__main__":
    sys.exit(main())
