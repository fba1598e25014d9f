"""``python -m ingest``: the command line."""

from ingest.cli import main

if __name__ == "__main__":
    main()
