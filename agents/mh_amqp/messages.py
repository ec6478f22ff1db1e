"""AMQP 1.0 messages <-> bytes: the sections that requests, replies and events use (part 3.2 of the
standard).

The envelope (properties and application-properties) is read at once; the body stays as it came until it is
asked for, because a refusal or an answer from the record needs none. Ids are kept as encoded, so that a
reply has the type of the request's id without a look at it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from libmh.spec import Plain
from mh_amqp import codec
from mh_amqp.codec import NULL, Malformed

T = TypeVar("T")
JSON = "application/json"
HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES, APPLICATION_PROPERTIES, DATA = range(
    0x70, 0x76
)
SEQUENCE, VALUE, FOOTER = range(0x76, 0x79)
SECTIONS: Mapping[str, int] = MappingProxyType(
    {
        "amqp:header:list": HEADER,
        "amqp:delivery-annotations:map": DELIVERY_ANNOTATIONS,
        "amqp:message-annotations:map": MESSAGE_ANNOTATIONS,
        "amqp:properties:list": PROPERTIES,
        "amqp:application-properties:map": APPLICATION_PROPERTIES,
        "amqp:data:binary": DATA,
        "amqp:amqp-sequence:list": SEQUENCE,
        "amqp:amqp-value:*": VALUE,
        "amqp:footer:map": FOOTER,
    }
)
TTL_FIELD = 2
MAX_ID = 256
MAX_TTL = 2**32 - 1
MESSAGE_ID, USER_ID, TO, SUBJECT, REPLY_TO, CORRELATION_ID, CONTENT_TYPE, CONTENT_ENCODING, EXPIRY = range(9)


@dataclass(frozen=True, slots=True)
class Message:
    """One message. `message_id` and `correlation_id` are encoded values, empty where there is none; `ttl`
    is in milliseconds, `expiry` in milliseconds since the epoch; `data` is the body in data sections,
    `value` the encoded value of an amqp-value body."""

    message_id: bytes = b""
    correlation_id: bytes = b""
    user_id: bytes | None = None
    to: str | None = None
    subject: str | None = None
    reply_to: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    ttl: int | None = None
    expiry: int | None = None
    properties: Mapping[str, Plain] = field(default_factory=dict)
    data: bytes | None = None
    value: bytes | None = None

    def id_text(self) -> str:
        """The message-id for people, "" where there is none."""
        return str(codec.decode(self.message_id)[0])[:MAX_ID] if self.message_id else ""

    def text(self, name: str) -> str | None:
        """An application property that has to be a string; anything else counts as absent."""
        found = self.properties.get(name)
        return found if isinstance(found, str) else None

    def number(self, name: str) -> int | None:
        """An application property that has to be an integer; anything else counts as absent."""
        found = self.properties.get(name)
        return found if isinstance(found, int) and not isinstance(found, bool) else None


def section(code: int, encoded: bytes) -> bytes:
    """A section of a message around its encoded value."""
    return b"\x00\x53" + code.to_bytes(1) + encoded


def properties_section(fields: list[bytes]) -> bytes:
    while fields and fields[-1] == NULL:
        fields.pop()
    return section(PROPERTIES, codec.list_of(fields))


def application_section(properties: Mapping[str, Plain]) -> bytes:
    return section(APPLICATION_PROPERTIES, codec.any_value(dict(properties)))


def data_section(data: bytes) -> bytes:
    return section(DATA, codec.binary(data))


def value_section(encoded: bytes) -> bytes:
    return section(VALUE, encoded)


def encode(message: Message) -> bytes:
    """The bytes of a message; `user_id` is left to the broker. A message without a body gets an amqp-value
    of null."""
    parts = []
    if message.ttl is not None:
        parts.append(section(HEADER, codec.list_of([NULL, NULL, codec.uint(min(message.ttl, MAX_TTL))])))
    parts.append(
        properties_section(
            [
                message.message_id or NULL,
                NULL,
                _string(message.to),
                _string(message.subject),
                _string(message.reply_to),
                message.correlation_id or NULL,
                _symbol(message.content_type),
                _symbol(message.content_encoding),
                NULL if message.expiry is None else codec.timestamp(message.expiry * codec.MILLISECOND),
            ]
        )
    )
    if message.properties:
        parts.append(application_section(message.properties))
    if message.data is not None:
        parts.append(data_section(message.data))
    else:
        parts.append(value_section(message.value or NULL))
    return b"".join(parts)


def encode_reply(to: str, correlation_id: bytes, content: tuple[bytes, ...], rest: bytes) -> bytes:
    """A reply from sections that are encoded already; `content` is its encoded content-type and
    content-encoding, if any."""
    fields = [NULL, NULL, codec.string(to), NULL, NULL, correlation_id or NULL, *content]
    return properties_section(fields) + rest


def _string(text: str | None) -> bytes:
    return NULL if text is None else codec.string(text)


def _symbol(text: str | None) -> bytes:
    return NULL if text is None else codec.symbol(text)


def decode(raw: bytes) -> Message:
    """The message that bytes are. Raises `Malformed`."""
    found: dict[int, tuple[int, int]] = {}
    data: list[bytes] = []
    at = 0
    while at < len(raw):
        code, start = _descriptor(raw, at)
        at = codec.skip(raw, start)
        if code == DATA:
            data.append(_binary(raw, start))
        elif code in found:
            raise Malformed(f"the section 0x{code:02x} comes twice")
        found[code] = (start, at)
    if not found:
        raise Malformed("a message has at least one section")
    if len(found.keys() & {DATA, SEQUENCE, VALUE}) > 1:
        raise Malformed("a message has one kind of body")
    return _message(raw, found, b"".join(data) if data else None)


def _descriptor(raw: bytes, at: int) -> tuple[int, int]:
    """The section's code and where its value starts."""
    if raw[at] != 0:
        raise Malformed("expected the section of a message")
    if raw[at + 1 : at + 2] == b"\x53":
        if at + 3 > len(raw):
            raise Malformed("a section is cut short")
        return _known(raw[at + 2]), at + 3
    descriptor, start = codec.decode(raw, at + 1)
    return _known(SECTIONS.get(descriptor, 0) if isinstance(descriptor, str) else descriptor), start


def _known(code: Plain) -> int:
    if not isinstance(code, int) or not HEADER <= code <= FOOTER:
        raise Malformed(f"there is no section '{code!r:.40}'")
    return code


def _binary(raw: bytes, at: int) -> bytes:
    value, _ = codec.decode(raw, at)
    if not isinstance(value, bytes):
        raise Malformed("a data section holds binary")
    return value


def _message(raw: bytes, found: Mapping[int, tuple[int, int]], data: bytes | None) -> Message:
    fields = _fields(raw, found.get(PROPERTIES))
    header = _fields(raw, found.get(HEADER))
    body = found.get(VALUE) or found.get(SEQUENCE)
    return Message(
        message_id=_raw_id(fields, MESSAGE_ID),
        correlation_id=_raw_id(fields, CORRELATION_ID),
        user_id=_field(fields, USER_ID, bytes),
        to=_field(fields, TO, str),
        subject=_field(fields, SUBJECT, str),
        reply_to=_field(fields, REPLY_TO, str),
        content_type=_field(fields, CONTENT_TYPE, str),
        content_encoding=_field(fields, CONTENT_ENCODING, str),
        ttl=_field(header, TTL_FIELD, int),
        expiry=_milliseconds(_field(fields, EXPIRY, int)),
        properties=_map(raw, found.get(APPLICATION_PROPERTIES)),
        data=data,
        value=None if body is None else raw[body[0] : body[1]],
    )


def _milliseconds(nanoseconds: int | None) -> int | None:
    return None if nanoseconds is None else nanoseconds // codec.MILLISECOND


def _fields(raw: bytes, place: tuple[int, int] | None) -> list[bytes]:
    """The encoded fields of a list, without decoding them."""
    if place is None:
        return []
    at, end = place
    code = raw[at]
    if code == codec.EMPTY_LIST[0]:
        return []
    if code not in (0xC0, 0xD0):
        raise Malformed("expected a list of fields")
    width = 1 if code == 0xC0 else 4
    start = at + 1 + 2 * width
    if start > end:
        raise Malformed("a list of fields is cut short")
    count = int.from_bytes(raw[at + 1 + width : start])
    found: list[bytes] = []
    while start < end and len(found) < count:
        behind = codec.skip(raw, start)
        found.append(raw[start:behind])
        start = behind
    if start != end or len(found) != count:
        raise Malformed("a list of fields is not as long as it says")
    return found


def _raw_id(fields: list[bytes], place: int) -> bytes:
    if place >= len(fields) or fields[place] == NULL:
        return b""
    value, _ = codec.decode(fields[place])
    if isinstance(value, bool) or not isinstance(value, int | str | bytes):
        raise Malformed("a message id is a ulong, a UUID, binary or a string")
    return fields[place]


def _field(fields: list[bytes], place: int, kind: type[T]) -> T | None:
    if place >= len(fields) or fields[place] == NULL:
        return None
    value, _ = codec.decode(fields[place])
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Malformed(f"field {place} of a message is not of its type")
    return value


def _map(raw: bytes, place: tuple[int, int] | None) -> Mapping[str, Plain]:
    if place is None:
        return {}
    value, _ = codec.decode(raw, place[0])
    if not isinstance(value, dict):
        raise Malformed("application properties are a map")
    return value
