"""How the platform says no: one exception that carries an HTTP status and its detail."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ingest.errors import IngestError, SettingsError

__all__ = ["ApiError", "checked", "no_such_stream"]

T = TypeVar("T")
P = ParamSpec("P")


class ApiError(IngestError):
    """A request that is refused; answered as ``{"detail": ...}``.

    Parameters
    ----------
    message : str
        What is wrong, and what it must be.
    status : int, default 422
        The HTTP status.
    detail : object, optional
        What the answer's ``detail`` holds instead of the message.
    """

    status: int = 422
    detail: object = None

    def __init__(self, message: str, *, status: int = 422, detail: object = None) -> None:
        super().__init__(message)
        self.status = status
        self.detail = message if detail is None else detail


def no_such_stream(data_id: str) -> ApiError:
    """Return the 404 for a stream that was never created."""
    return ApiError(f"there is no stream {data_id!r}", status=404)


def checked(read: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Return what `read` makes of a part of a request; what it does not take is a 422."""
    try:
        return read(*args, **kwargs)
    except SettingsError as exc:
        raise ApiError(str(exc)) from exc
