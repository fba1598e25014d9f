"""Names in the order in which people count: ``img_9`` before ``img_10``. Pure."""

from __future__ import annotations

import re

__all__ = ["natural_key"]


def natural_key(text: str) -> tuple[tuple[int, int, str], ...]:
    """Return a sort key by which ``2.h5`` comes before ``10.h5``."""
    parts = re.split(r"(\d+)", text)
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part)
