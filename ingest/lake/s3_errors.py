"""What S3 and its look-alikes answer when they do not do what was asked, as ours.

Codes: "Error responses" in the Amazon S3 API reference; those with XMinio are MinIO's.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from typing import Any

from ingest.errors import AuthenticationError, DestinationError, RefusedError
from ingest.lake.attempts import AttemptFailedError
from ingest.sources.urls import redacted_text

__all__ = [
    "cannot_copy",
    "explain",
    "explain_answer",
    "is_missing",
    "is_no_range",
    "refuses_bulk_delete",
    "refuses_checksum",
]

CREDENTIALS_HINT = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, of a user who may list the bucket and read, "
    "write and delete its objects; for a store that is not Amazon's set AWS_ENDPOINT_URL, too"
)
FULL_STATUS = 507
UNKNOWN_STATUS = 501
"""Not implemented: it will not be on a second try."""
PASSING_STATUS = frozenset({408, 425, 429})
_PASSING = frozenset({
    "SlowDown", "SlowDownRead", "SlowDownWrite", "ServiceUnavailable", "InternalError", "RequestTimeout",
    "RequestTimeoutException", "Throttling", "ThrottlingException", "RequestLimitExceeded", "OperationAborted",
    "BandwidthLimitExceeded", "BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody",
    "XMinioServerNotInitialized",
})  # fmt: skip
_FULL = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientCapacity"})
_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken"})
_DENIED = frozenset({
    "AccessDenied", "AllAccessDisabled", "AccountProblem", "InvalidAccessKeyId", "SignatureDoesNotMatch",
    "InvalidSecurity", "NotSignedUp", "Forbidden", "Unauthorized",
})  # fmt: skip
_ELSEWHERE = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_NO_CREDENTIALS = frozenset({
    "NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError",
    "TokenRetrievalError", "UnauthorizedSSOTokenError", "SSOTokenLoadError", "NoAuthTokenError",
})  # fmt: skip
_NO_ANSWER = frozenset({
    "HTTPClientError", "ConnectionError", "FSTimeoutError", "IncompleteReadError", "ResponseStreamingError",
    "ClientError", "ResponseParserError", "TimeoutError",
})  # fmt: skip
"""Classes of botocore, aiohttp, s3fs and Python; botocore's own ClientError, which holds an answer, comes before."""
_UNKNOWN_CHECKSUM = frozenset({
    "InvalidRequest", "InvalidArgument", "InvalidHeader", "InvalidDigest", "NotImplemented", "XNotImplemented",
    "UnsupportedHeader", "BadDigest", "400", "501",
})  # fmt: skip
_UNKNOWN_BULK = frozenset({
    "NotImplemented", "XNotImplemented", "MissingContentMD5", "InvalidRequest", "InvalidArgument", "InvalidDigest",
    "BadDigest", "MalformedXML", "MethodNotAllowed", "400", "405", "501",
})  # fmt: skip

_UNKNOWN_COPY = frozenset({
    "NotImplemented", "XNotImplemented", "InvalidRequest", "MethodNotAllowed", "EntityTooLarge", "405", "501",
})  # fmt: skip


def is_missing(error: Exception) -> bool:
    """Return whether the store says that there is no such object, or (of a HEAD) no such bucket either."""
    return _code(error) in ("NoSuchKey", "404", "NotFound")


def is_no_range(error: Exception) -> bool:
    """Return whether an object ends before the range that was asked for."""
    return _code(error) in ("InvalidRange", "416")


def cannot_copy(error: Exception) -> bool:
    """Return whether a store that does not copy by itself, or not an object of that size, may answer so."""
    return _code(error) in _UNKNOWN_COPY


def refuses_checksum(error: Exception) -> bool:
    """Return whether a store that does not know a kind of checksum may answer so."""
    return _code(error) in _UNKNOWN_CHECKSUM


def refuses_bulk_delete(error: Exception) -> bool:
    """Return whether a store that deletes objects only one by one may answer so."""
    return _code(error) in _UNKNOWN_BULK


def explain(shown: str, asked: str, error: Exception) -> AttemptFailedError | DestinationError:
    """Return what an exception of the client means.

    Parameters
    ----------
    shown : str
        The lake's URL.
    asked : str
        What was asked, as an infinitive.
    error : Exception
        As s3fs raised it.

    Returns
    -------
    AttemptFailedError or DestinationError
        Never with an HTTP status that would blame the chunk: a store takes any bytes.
    """
    answer = _answer(error)
    if answer is not None:
        return explain_answer(shown, asked, answer)
    text = redacted_text(" ".join(str(error).split())) or type(error).__name__
    return _explain_silence(f"{shown}: could not {asked}: {text}", text, error)


def explain_answer(shown: str, asked: str, answer: dict[str, Any]) -> AttemptFailedError | DestinationError:
    """Return what an answer means that botocore has parsed; as `explain`."""
    code = str(answer.get("Error", {}).get("Code", ""))
    text = redacted_text(" ".join(str(answer.get("Error", {}).get("Message", "")).split())) or "no reason given"
    said = f"{shown}: could not {asked}: {text}"
    status = int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = f"{said} ({code})" if code and code not in text else said
    if code in _FULL or status == FULL_STATUS:
        return AttemptFailedError(f"the store is full: {text}", hint="make room there, then run the same command again")
    if code in _PASSING or status in PASSING_STATUS or (status >= 500 and status != UNKNOWN_STATUS):
        detail = f"{code}: {text}" if code and code not in text else text
        return AttemptFailedError(detail, status=status if status >= 500 else None, wait_s=_retry_after_s(answer))
    return _explain_refusal(said, code, status)


def _explain_refusal(said: str, code: str, status: int) -> DestinationError:
    if code in ("NoSuchBucket", "InvalidBucketName"):
        return RefusedError(f"{said}: there is no such bucket", hint="create the bucket, or check the URL")
    if code in _EXPIRED:
        return AuthenticationError(
            said, hint="get new credentials (such as `aws sso login`), then run the same command again: it resumes"
        )
    if code == "RequestTimeTooSkewed":
        return AuthenticationError(said, hint="set this machine's clock")
    if code in _DENIED or status in (401, 403):
        return AuthenticationError(said, hint=CREDENTIALS_HINT)
    if code in _ELSEWHERE or status in (301, 307):
        return RefusedError(said, hint="set AWS_DEFAULT_REGION to the bucket's region")
    if status == 400:  # a HEAD's answer has no more than that
        return RefusedError(said, hint="check the URL, AWS_DEFAULT_REGION, and that the credentials have not expired")
    return RefusedError(said, hint="check the URL, and AWS_ENDPOINT_URL if the store is not Amazon's")


def _explain_silence(said: str, text: str, error: Exception) -> AttemptFailedError | DestinationError:
    kinds = {kind.__name__ for one in _causes(error) for kind in type(one).__mro__}
    if kinds & _NO_CREDENTIALS:
        return AuthenticationError(said, hint=CREDENTIALS_HINT)
    if "CERTIFICATE_VERIFY_FAILED" in text:
        return RefusedError(said, hint="set AWS_CA_BUNDLE to the file of the store's certificate authority")
    if kinds & _NO_ANSWER or (isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EMFILE, errno.ENFILE)):
        return AttemptFailedError(text)
    return RefusedError(said, hint="check the URL, AWS_ENDPOINT_URL, AWS_PROFILE and AWS_DEFAULT_REGION")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__


def _answer(error: Exception) -> dict[str, Any] | None:
    """Return what the store answered, as botocore parsed it; s3fs hides it behind an OSError."""
    for one in _causes(error):
        response = getattr(one, "response", None)
        if isinstance(response, dict):
            return response
    return None


def _code(error: Exception) -> str:
    return str((_answer(error) or {}).get("Error", {}).get("Code", ""))


def _retry_after_s(answer: dict[str, Any]) -> float | None:
    value = str(answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("retry-after", ""))
    return float(value) if value.isdecimal() else None
