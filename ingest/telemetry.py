"""What happens, as frozen events handed to hooks; and what must never be seen, kept out of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit, urlunsplit

__all__ = ["Event", "Hook", "Secret", "Telemetry", "redact_url"]

logger = logging.getLogger("rheed_ingest")


class Secret:
    """A value that no ``repr``, ``str``, format or log shows; pickles, since actors need it.

    Parameters
    ----------
    value : str
        The key itself; `reveal` gives it back, at the one place that sends it.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the value itself."""
        return self._value

    def __repr__(self) -> str:
        return "Secret('***')"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._value == other._value

    def __hash__(self) -> int:
        return hash((Secret, self._value))


def redact_url(url: str) -> str:
    """Return `url` without query, fragment, user and password, fit for logs and messages."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened.

    Attributes
    ----------
    name : str
        Past tense, such as ``"chunk_put"``.
    stream : str
        The run's key in the journal, or its ``data_id``.
    index : int or None
        The chunk, where it is about one.
    detail : str
        More, for people.
    """

    name: str
    stream: str
    index: int | None = None
    detail: str = ""


Hook = Callable[[Event], None]


class Telemetry:
    """Hands events to hooks; without any, it logs them at DEBUG.

    Parameters
    ----------
    hooks : tuple of callables
        Each is called with every event, in the caller's thread; what it raises reaches the caller.
    """

    def __init__(self, *hooks: Hook) -> None:
        self._hooks = list(hooks)

    def add(self, hook: Hook) -> None:
        """Call `hook` with every event from now on."""
        self._hooks.append(hook)

    def emit(self, name: str, stream: str, index: int | None = None, detail: str = "") -> None:
        """Hand one event to all hooks."""
        event = Event(name, stream, index, detail)
        logger.debug("%s %s %s %s", event.name, event.stream, event.index, event.detail)
        for hook in self._hooks:
            hook(event)
