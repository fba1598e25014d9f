"""A camera and a log for minutes, a platform that fails, cuts and freezes: `python -m tests.soak --minutes 10`."""
