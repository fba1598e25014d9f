"""How the platform says no: one exception that carries an HTTP status and its detail."""

from __future__ import annotations

from ingest.errors import IngestError

__all__ = ["ApiError", "no_such_stream"]


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
