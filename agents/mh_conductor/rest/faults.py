"""Failures as Nova's API words them: `{"itemNotFound": {"code": 404, "message": "..."}}`."""

from collections.abc import Mapping

from libmh.errors import (
    Conflict,
    InvalidArguments,
    NotAuthorized,
    NotFound,
    NotImplementedHere,
    Problem,
    Timeout,
    Unavailable,
)

NAMES: Mapping[int, str] = {
    400: "badRequest",
    401: "unauthorized",
    403: "forbidden",
    404: "itemNotFound",
    405: "badMethod",
    409: "conflictingRequest",
    413: "overLimit",
    415: "badMediaType",
    429: "overLimit",
    501: "notImplemented",
    503: "serviceUnavailable",
}
OTHER = "computeFault"
STATUSES: tuple[tuple[type[Problem], int], ...] = (
    (InvalidArguments, 400),
    (NotAuthorized, 403),
    (NotFound, 404),
    (Conflict, 409),
    (NotImplementedHere, 501),
    (Timeout, 503),
    (Unavailable, 503),
)
FAILED = 500
NO_RESOURCE = "The resource could not be found."
MAX_MESSAGE = 4000


class Fault(Exception):
    """An answer that is no success. `headers` go with it."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        self.status = status
        self.message = message[:MAX_MESSAGE]
        self.headers = headers or {}
        super().__init__(self.message)

    def body(self) -> Mapping[str, object]:
        """What is sent."""
        return {NAMES.get(self.status, OTHER): {"code": self.status, "message": self.message}}


def fault_of(problem: Problem) -> Fault:
    """What a problem is to a client of Nova's API. Where Nova has words for it, it has them already."""
    status = next((status for kind, status in STATUSES if isinstance(problem, kind)), FAILED)
    if isinstance(problem, NotAuthorized) and "action" in problem.details:
        return Fault(status, f"Policy doesn't allow {problem.details['action']} to be performed.")
    return Fault(status, problem.message)
