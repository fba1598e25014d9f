"""Fields of JSON objects that somebody else wrote, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ingest.errors import SettingsError

__all__ = ["MAX_INT", "MAX_TEXT", "blank_free", "integer_field", "shown", "text_field"]

MAX_TEXT = 1_000
"""Characters in a name, or in units."""

MAX_INT = (1 << 63) - 1
"""What int64 and SQLite hold."""


def text_field(body: Mapping[str, Any], field: str) -> str:
    """Return a string field, trimmed.

    Raises
    ------
    SettingsError
        Blank, too long, or no string; names the field and what it must be.
    """
    value = body.get(field)
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        raise SettingsError(f"{field} must be a string of 1 to {MAX_TEXT} characters, not blank; got {shown(value)}")
    return blank_free(value)


def integer_field(body: Mapping[str, Any], field: str, least: int, most: int = MAX_INT) -> int:
    """Return an integer field.

    Raises
    ------
    SettingsError
        No integer, or out of range; names the field and what it must be.
    """
    value = body.get(field)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise SettingsError(f"{field} must be an integer of {least} to {most}; got {shown(value)}")
    return value


def blank_free(text: str) -> str:
    """Return `text` trimmed, without what UTF-8 cannot carry."""
    return text.strip().encode("utf-8", "replace").decode()


def shown(value: object) -> str:
    """Return a value as a message shows it: 80 characters at most."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
