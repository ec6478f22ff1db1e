"""AMQP 1.0 messages <-> bytes: the sections that requests, replies and events use (part 3.2 of the
standard).

The envelope (properties and application-properties) is read at once; the body stays as it came until it is
asked for, because a refusal or an answer from the record needs none. Ids are kept as encoded, so that a
reply has the type of the request's id without a look at it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from types import MappingProxyType
from typing import Any, TypeVar

from libmh.spec import Plain
from mh_amqp import codec
from mh_amqp.codec import NULL, TRUE, Malformed

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
SHORT_SECTION = b"\x00\x53"
"""How a section begins whose descriptor is a smallulong, as everybody's is."""
MAX_ID = 256
MAX_TTL = 2**32 - 1
MAX_KEPT = 256


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
    durable: bool = False
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
    if message.ttl is not None or message.durable:
        ttl = NULL if message.ttl is None else codec.uint(min(message.ttl, MAX_TTL))
        parts.append(section(HEADER, codec.list_of([TRUE if message.durable else NULL, NULL, ttl])))
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
    at, size = 0, len(raw)
    while at < size:
        code, start = _descriptor(raw, at)
        at = codec.skip(raw, start)
        if code == DATA:
            data.append(_binary(raw, start))
        elif code in found:
            raise Malformed(f"the section 0x{code:02x} comes twice")
        found[code] = (start, at)
    if not found:
        raise Malformed("a message has at least one section")
    body = found.get(VALUE) or found.get(SEQUENCE)
    if (DATA in found) + (SEQUENCE in found) + (VALUE in found) > 1:
        raise Malformed("a message has one kind of body")
    said = _named(raw, found[PROPERTIES], FIELDS) if PROPERTIES in found else {}
    if HEADER in found:
        said |= _named(raw, found[HEADER], HEADER_FIELDS)
    if APPLICATION_PROPERTIES in found:
        said["properties"] = _application(raw, *found[APPLICATION_PROPERTIES])
    if data:
        said["data"] = data[0] if len(data) == 1 else b"".join(data)
    if body is not None:
        said["value"] = raw[body[0] : body[1]]
    return Message(**said)


def _descriptor(raw: bytes, at: int) -> tuple[int, int]:
    """The section's code and where its value starts."""
    if raw.startswith(SHORT_SECTION, at):
        if at + 3 > len(raw):
            raise Malformed("a section is cut short")
        return _known(raw[at + 2]), at + 3
    if raw[at] != 0:
        raise Malformed("expected the section of a message")
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


def _id(encoded: bytes) -> bytes:
    value, _ = codec.decode(encoded)
    if isinstance(value, bool) or not isinstance(value, int | str | bytes):
        raise Malformed("a message id is a ulong, a UUID, binary or a string")
    return encoded


def _value(encoded: bytes, kind: type[T]) -> T:
    value, _ = codec.decode(encoded)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise Malformed(f"a field of a message is not of its type: expected {kind.__name__}")
    return value


def _text(encoded: bytes) -> str:
    return _value(encoded, str)


def _milliseconds(encoded: bytes) -> int:
    return _value(encoded, int) // codec.MILLISECOND


Field = tuple[str, Callable[[bytes], Any]]
FIELDS: tuple[Field, ...] = (
    ("message_id", _id),
    ("user_id", lambda encoded: _value(encoded, bytes)),
    ("to", _text),
    ("subject", _text),
    ("reply_to", _text),
    ("correlation_id", _id),
    ("content_type", _text),
    ("content_encoding", _text),
    ("expiry", _milliseconds),
)
HEADER_FIELDS: tuple[Field | None, ...] = (None, None, ("ttl", lambda encoded: _value(encoded, int)))


def _named(raw: bytes, place: tuple[int, int], fields: Sequence[Field | None]) -> dict[str, Any]:
    """What the fields of a list say, by the names that a message has for them; what is null is left out."""
    return {
        field[0]: field[1](encoded)
        for field, encoded in zip(fields, _fields(raw, *place), strict=False)
        if field is not None and encoded != NULL
    }


def _fields(raw: bytes, at: int, end: int) -> list[bytes]:
    """The encoded fields of a list, without decoding them."""
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
        step = codec.STEPS[raw[start]]
        behind = start + 1 + step if step >= 0 else codec.skip(raw, start)
        found.append(raw[start:behind])
        start = behind
    if start != end or len(found) != count:
        raise Malformed("a list of fields is not as long as it says")
    return found


def _application(raw: bytes, at: int, end: int) -> Mapping[str, Plain]:
    """A peer says the same again and again: what is short is read once."""
    return _kept(raw[at:end]) if end - at <= MAX_KEPT else _map(raw, at)


@lru_cache(maxsize=256)
def _kept(encoded: bytes) -> Mapping[str, Plain]:
    return MappingProxyType(_map(encoded))


def _map(raw: bytes, at: int = 0) -> dict[str, Plain]:
    value, _ = codec.decode(raw, at)
    if not isinstance(value, dict):
        raise Malformed("application properties are a map")
    return value
