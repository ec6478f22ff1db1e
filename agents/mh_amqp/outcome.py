"""How a delivery ended, and what a peer's error condition means to our callers."""

from dataclasses import dataclass
from enum import StrEnum

from libmh import errors


class Word(StrEnum):
    """The terminal delivery states of AMQP 1.0 part 3.4, and LOST: the link went away before one came."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    RELEASED = "released"
    MODIFIED = "modified"
    LOST = "lost"


@dataclass(frozen=True, slots=True)
class Outcome:
    word: Word
    condition: str = ""
    description: str = ""


ACCEPTED = Outcome(Word.ACCEPTED)
LOST = Outcome(Word.LOST)

RESOURCE_LIMIT = "amqp:resource-limit-exceeded"
MESSAGE_SIZE = "amqp:link:message-size-exceeded"
TRANSFER_LIMIT = "amqp:link:transfer-limit-exceeded"
DECODE_ERROR = "amqp:decode-error"
NOT_FOUND = "amqp:not-found"
NOT_ALLOWED = "amqp:not-allowed"
NOT_IMPLEMENTED = "amqp:not-implemented"
UNAUTHORIZED = "amqp:unauthorized-access"
INVALID_FIELD = "amqp:invalid-field"
PRECONDITION = "amqp:precondition-failed"
LOCKED = "amqp:resource-locked"
STOLEN = "amqp:link:stolen"

PROBLEMS: dict[str, type[errors.Problem]] = {
    NOT_FOUND: errors.NotFound,
    UNAUTHORIZED: errors.NotAuthorized,
    NOT_IMPLEMENTED: errors.NotImplementedHere,
    INVALID_FIELD: errors.InvalidArguments,
    MESSAGE_SIZE: errors.InvalidArguments,
    DECODE_ERROR: errors.InvalidArguments,
    RESOURCE_LIMIT: errors.Unavailable,
    LOCKED: errors.Conflict,
    STOLEN: errors.Conflict,
    PRECONDITION: errors.Conflict,
}


def problem(condition: str, description: str, what: str) -> errors.Problem:
    """The error that a peer's condition means; `details` carry the condition itself."""
    kind = PROBLEMS.get(condition, errors.Failed)
    said = " ".join(part for part in (condition, description and f"({description})") if part)
    return kind(f"{what}: {said or 'the peer gave no reason'}", condition=condition)
