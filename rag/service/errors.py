"""The one table of which error is which HTTP status, and the one shape errors are sent in."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import orjson

from rag import errors

logger = logging.getLogger(__name__)

STATUS: Mapping[type[errors.RequestError], int] = {
    errors.InvalidRequest: 400,
    errors.InvalidFilter: 400,
    errors.Unauthorized: 401,
    errors.Forbidden: 403,
    errors.NoSuchBundle: 404,
    errors.NotAcceptable: 406,
    errors.BundleLoaded: 409,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.Overloaded: 429,
    errors.RequestError: 500,
    errors.ModelFailure: 500,
    errors.RerankerFailure: 502,
    errors.RerankerUnavailable: 502,
    errors.RerankerThrottled: 502,
    errors.RerankerProtocolError: 502,
    errors.GeneratorFailure: 502,
    errors.GeneratorUnavailable: 502,
    errors.GeneratorCircuitOpen: 502,
    errors.GeneratorThrottled: 502,
    errors.GeneratorProtocolError: 502,
    errors.NotReady: 503,
    errors.GeneratorTimeout: 504,
    errors.GeneratorSkipped: 504,
    errors.RerankerTimeout: 504,
    errors.DeadlineExceeded: 504,
    errors.OutOfMemory: 507,
}
INTERNAL = "internal error; the log has its cause under this request_id"


class Problem(NamedTuple):
    """An error as a client sees it: `type` is the class in snake case; headers are lower case."""

    status: int
    type: str
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def body(self, request_id: str) -> dict[str, object]:
        """`{"error": {"type", "message", "request_id"}}`."""
        error = {"type": self.type, "message": self.message, "request_id": request_id}
        return {"error": error}

    def to_json(self, request_id: str) -> bytes:
        return orjson.dumps(self.body(request_id))


def problem_of(error: Exception, request_id: str) -> Problem:
    """What a client is told of `error`; what it is not told goes to the log with the id.

    Anything but a RequestError is 500 'internal': its text may hold paths, hosts or documents.
    """
    if not isinstance(error, errors.RequestError):
        logger.error("unhandled error", exc_info=error, extra={"request_id": request_id})
        return Problem(500, "internal", INTERNAL)
    status = status_of(type(error))
    if status >= 500 and not isinstance(error, errors.NotReady):
        cause = error if error.__cause__ is not None else None
        logger.warning(str(error), exc_info=cause, extra={"request_id": request_id})
    headers: tuple[tuple[bytes, bytes], ...] = ()
    if isinstance(error, errors.Overloaded):
        headers = ((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))),)
    elif isinstance(error, errors.Unauthorized):
        headers = ((b"www-authenticate", b"Bearer"),)
    return Problem(status, type_name(type(error)), one_line(str(error)), headers)


def status_of(kind: type[errors.RequestError]) -> int:
    """The table's status for `kind`, or for the nearest of its parents that the table names."""
    for parent in kind.__mro__:
        if parent in STATUS:
            return STATUS[parent]
    raise KeyError(kind.__name__)


def type_name(kind: type[Exception]) -> str:
    """`GeneratorTimeout` -> `generator_timeout`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", kind.__name__).lower()


def one_line(text: str, limit: int = 500) -> str:
    """`text` on one line, cut at `limit` characters."""
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
