"""The embedded platform: what `rheed-ingest serve` runs, and what the official SDK can stream into."""
