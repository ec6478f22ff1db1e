"""Answers as a management node gives them: status codes, words, and bodies that are encoded already."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from libmh.errors import InvalidArguments, Problem, from_word
from libmh.spec import Plain
from mh_amqp import codec, messages, types
from mh_amqp.messages import JSON, Message

OK = 200
NO_CONTENT = 204
STATUS: Mapping[str, int] = MappingProxyType(
    {
        "invalid-arguments": 400,
        "not-authorized": 403,
        "not-found": 404,
        "timeout": 408,
        "conflict": 409,
        "internal": 500,
        "backend-failed": 500,
        "download-failed": 500,
        "failed": 500,
        "not-implemented": 501,
        "unavailable": 503,
    }
)
WORDS: Mapping[int, str] = MappingProxyType(
    {
        400: "invalid-arguments",
        401: "not-authorized",
        403: "not-authorized",
        404: "not-found",
        408: "timeout",
        409: "conflict",
        501: "not-implemented",
        503: "unavailable",
    }
)
PASSING = ("unavailable", "timeout", "internal", "failed", "backend-failed", "download-failed")
MAX_DESCRIPTION = 2000


class Form(StrEnum):
    """How a body is carried; a reply has its request's form."""

    AMQP = "amqp"
    JSON = "json"


JSON_CONTENT = (codec.symbol(JSON),)
DEFLATED_CONTENT = (codec.symbol(JSON), codec.symbol(types.DEFLATE))


@dataclass(frozen=True, slots=True)
class Answer:
    """All of a reply but its addressing: encoded content-type and -encoding, and the sections behind the
    properties. One that is not `final` may be another when it is asked for again."""

    content: tuple[bytes, ...]
    sections: bytes
    final: bool = True

    def reply(self, to: str, correlation_id: bytes) -> bytes:
        """The message for one requester."""
        return messages.encode_reply(to, correlation_id, self.content, self.sections)


def head(status: int, description: str, host: str, **more: Plain) -> bytes:
    """The application-properties of a reply; the second spelling of the status is what Azure's clients
    read."""
    description = description[:MAX_DESCRIPTION]
    parts = [
        *(codec.string("statusCode"), codec.int32(status)),
        *(codec.string("statusDescription"), codec.string(description)),
        *(codec.string("status-code"), codec.int32(status)),
        *(codec.string("status-description"), codec.string(description)),
    ]
    for name, value in {"mh:host": host or None, **more}.items():
        if value is not None:
            parts += (codec.string(name.replace("_", ":", 1)), codec.any_value(value))
    return messages.section(messages.APPLICATION_PROPERTIES, codec.map_of(parts))


def in_json(front: bytes, text: bytes) -> Answer:
    """An answer whose body is JSON text."""
    data, encoding = types.deflated(text)
    return Answer(DEFLATED_CONTENT if encoding else JSON_CONTENT, front + messages.data_section(data))


def in_amqp(front: bytes, encoded: bytes) -> Answer:
    """An answer whose body is an encoded AMQP value."""
    return Answer((), front + messages.value_section(encoded))


def refusal(problem: Problem, host: str, form: Form) -> Answer:
    """The answer that a problem is; its details are the body."""
    status = STATUS.get(problem.word, 500)
    front = head(status, problem.message, host, mh_error=problem.word)
    details: dict[str, Plain] = {
        name: str(value)[:MAX_DESCRIPTION] for name, value in problem.details.items()
    }
    if form is Form.JSON:
        made = in_json(front, types.dump_json(details))
    else:
        made = in_amqp(front, codec.any_value(details))
    return replace(made, final=problem.word not in PASSING)


def form_of(message: Message) -> Form:
    """JSON where the message says so, AMQP values otherwise."""
    return Form.JSON if message.content_type == JSON else Form.AMQP


def body_of(message: Message) -> Any:
    """The plain tree of a body: JSON in data sections, or an AMQP value; None where there is none. Raises
    `InvalidArguments`."""
    if message.data is not None:
        if form_of(message) is not Form.JSON:
            raise InvalidArguments(
                "body: expected a map, or data with the content-type application/json", argument="body"
            )
        text = types.inflated(message.data, message.content_encoding)
        return types.load_json(text) if text else None
    if message.value is None:
        return None
    try:
        return codec.decode(message.value)[0]
    except codec.Malformed as error:
        raise InvalidArguments(f"body: {error}", argument="body") from error


def problem_of(reply: Message) -> Problem | None:
    """The problem that a reply tells, whoever sent it; None for a success. Details come from its body."""
    status = reply.number("statusCode")
    if status is None:
        status = reply.number("status-code")
    if status is None:
        return from_word("failed", "the reply has no statusCode")
    if 200 <= status < 300:
        return None
    word = reply.text("mh:error") or WORDS.get(status, "failed")
    text = reply.text("statusDescription") or reply.text("status-description") or f"status {status}"
    return from_word(word, text, **_details(reply))


def _details(reply: Message) -> dict[str, str]:
    try:
        body = body_of(reply)
    except InvalidArguments:
        return {}  # the refusal counts, whatever its body is
    if not isinstance(body, dict):
        return {}
    return {key: value for key, value in body.items() if isinstance(value, str) and key.isidentifier()}
