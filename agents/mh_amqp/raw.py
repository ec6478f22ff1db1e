"""The few fields that routing needs, read straight from the bytes of an encoded message (AMQP 1.0 parts
1.6 and 3.2).

proton's decoder costs some hundred microseconds for each message and recurses as deep as the sender likes;
this reads the header and the properties, skips annotations by their size, and never looks at the body. No
recursion, and every offset is checked: what does not fit is `Malformed`.
"""

from typing import NamedTuple

HEADER, DELIVERY_ANNOTATIONS, MESSAGE_ANNOTATIONS, PROPERTIES = 0x70, 0x71, 0x72, 0x73
LAST_SECTION = 0x78
SECTION_NAMES = {
    b"amqp:header:list": HEADER,
    b"amqp:delivery-annotations:map": DELIVERY_ANNOTATIONS,
    b"amqp:message-annotations:map": MESSAGE_ANNOTATIONS,
    b"amqp:properties:list": PROPERTIES,
}
DESCRIBED, NULL, TRUE = 0x00, 0x40, 0x41
BOOLEAN_TRUE = b"\x56\x01"
SMALL_ULONG, ULONG = 0x53, 0x80
LIST0, LIST8, LIST32 = 0x45, 0xC0, 0xD0
FIXED = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}  # width by the high half of a constructor
SIZED = {0xA: 1, 0xB: 4, 0xC: 1, 0xD: 4, 0xE: 1, 0xF: 4}  # width of the size that follows it
ONE_BYTE_SIZE, OTHER = -1, -9
STEPS = tuple(  # by constructor: the width of a fixed value, or how its size is written
    FIXED.get(code >> 4, -SIZED.get(code >> 4, -OTHER)) for code in range(256)
)
UINTS = {0x43: 0, 0x52: 1, 0x70: 4}
MOST_FIELDS = 16
MOST_DESCRIPTORS = 8


class Malformed(ValueError):
    """Not an AMQP message as far as it was read."""


class Routing(NamedTuple):
    """`ttl` in milliseconds, `expiry` (absolute) in milliseconds since the epoch; None where absent.

    `message_id` and `correlation_id` are the encoded values, type and all. `header` and `properties` are
    where those sections lie in the message; where they would begin, twice, when there are none.
    """

    to: str | None = None
    subject: str | None = None
    reply_to: str | None = None
    user_id: bytes | None = None
    message_id: bytes | None = None
    correlation_id: bytes | None = None
    expiry: int | None = None
    ttl: int | None = None
    delivery_count: int = 0
    durable: bool = False
    header: tuple[int, int] = (0, 0)
    properties: tuple[int, int] = (0, 0)


def routing(raw: bytes) -> Routing:
    """Read header and properties. Raises `Malformed`."""
    try:
        return _routing(raw)
    except IndexError as error:
        raise Malformed("the message ends inside a value") from error
    except UnicodeDecodeError as error:
        raise Malformed("an address or subject is not UTF-8") from error


def _routing(raw: bytes) -> Routing:
    at, span, ttl, count, durable = 0, (0, 0), None, 0, False
    length = len(raw)
    if not length:
        raise Malformed("the message is empty")
    while at < length:
        section, value = _section(raw, at)
        if section == HEADER:
            starts, end = _fields(raw, value)
            span = (at, end)
            ttl, count = _uint(raw, starts, 2), _uint(raw, starts, 4) or 0
            durable = _flag(raw, starts, 0)
        elif section == PROPERTIES:
            starts, end = _fields(raw, value)
            return Routing(
                to=_text(raw, starts, 2),
                subject=_text(raw, starts, 3),
                reply_to=_text(raw, starts, 4),
                user_id=_binary(raw, starts, 1),
                message_id=_encoded(raw, starts, 0),
                correlation_id=_encoded(raw, starts, 5),
                expiry=_timestamp(raw, starts, 8),
                ttl=ttl,
                delivery_count=count,
                durable=durable,
                header=span,
                properties=(at, end),
            )
        elif section > PROPERTIES:
            break
        else:
            end = skip(raw, value)
        at = end
    return Routing(ttl=ttl, delivery_count=count, durable=durable, header=span, properties=(at, at))


def with_delivery_count(raw: bytes, count: int) -> bytes:
    """The message with the delivery-count of its header set; for one that is delivered again."""
    value = b"\x70" + min(count, 0xFFFFFFFF).to_bytes(4)
    return _with_field(raw, routing(raw).header, HEADER, 4, value)


def with_user_id(raw: bytes, told: Routing, user: bytes) -> bytes:
    """The message with the user-id of its properties set; for one whose sender is known and has not said."""
    value = b"\xb0" + len(user).to_bytes(4) + user
    return _with_field(raw, told.properties, PROPERTIES, 1, value)


def with_subject(raw: bytes, told: Routing, subject: str) -> bytes:
    """The message with the subject of its properties set; for a broker that routes by it."""
    return _with_field(raw, told.properties, PROPERTIES, 3, _string(subject))


def with_to(raw: bytes, told: Routing, to: str) -> bytes:
    """The message with the address of its properties set; for a broker that calls it otherwise."""
    return _with_field(raw, told.properties, PROPERTIES, 2, _string(to))


def _string(text: str) -> bytes:
    encoded = text.encode()
    return b"\xb1" + len(encoded).to_bytes(4) + encoded


def _with_field(raw: bytes, span: tuple[int, int], section: int, index: int, value: bytes) -> bytes:
    """The message with a field of a section, which lies at `span` or is made there."""
    start, end = span
    fields: list[bytes] = []
    if end > start:
        starts, _ = _fields(raw, _section(raw, start)[1])
        fields = [raw[first : skip(raw, first)] for first in starts]
    fields += [b"\x40"] * (index + 1 - len(fields))
    fields[index] = value
    body = b"".join(fields)
    # the producer's fields may be of any type and length: nobody looked at those that routing does not need
    size = (4 + len(body)).to_bytes(4) + len(fields).to_bytes(4)
    return raw[:start] + bytes((0, SMALL_ULONG, section, LIST32)) + size + body + raw[end:]


def skip(raw: bytes, at: int) -> int:
    """The offset after the value at `at`. Raises `Malformed`, IndexError at the end of the message."""
    left = 1
    while left:
        code = raw[at]
        at += 1
        if code == DESCRIBED:
            left += 1
            if left > MOST_DESCRIPTORS:
                raise Malformed(f"more than {MOST_DESCRIPTORS} descriptors within each other")
            continue
        at = _after(raw, at, code)
        left -= 1
    return at


def _after(raw: bytes, at: int, code: int) -> int:
    """The offset after the rest of a value whose constructor `code` has been read."""
    kind = code >> 4
    width = FIXED.get(kind)
    if width is None:
        prefix = SIZED.get(kind)
        if prefix is None:
            raise Malformed(f"0x{code:02x} begins no AMQP value")
        if at + prefix > len(raw):
            raise Malformed("the message ends inside a value")
        width = prefix + int.from_bytes(raw[at : at + prefix])
    if at + width > len(raw):
        raise Malformed("the message ends inside a value")
    return at + width


def _section(raw: bytes, at: int) -> tuple[int, int]:
    """The code of the section at `at`, and where its value begins."""
    if raw[at] != DESCRIBED:
        raise Malformed(f"expected a section at byte {at}, not 0x{raw[at]:02x}")
    code = raw[at + 1]
    if code == SMALL_ULONG:
        section, value = raw[at + 2], at + 3
    elif code == ULONG:
        value = _after(raw, at + 2, code)
        section = int.from_bytes(raw[at + 2 : value])
    else:
        value = skip(raw, at + 1)
        section = SECTION_NAMES.get(raw[at + 3 : value], LAST_SECTION)
    if not HEADER <= section <= LAST_SECTION:
        raise Malformed(f"0x{section:x} is no section of a message")
    return section, value


def _fields(raw: bytes, at: int) -> tuple[list[int], int]:
    """Where each field of the list at `at` begins, and where the list ends."""
    code = raw[at]
    end = skip(raw, at)
    if code == LIST0:
        return [], end
    if code == LIST8:
        count, at = raw[at + 2], at + 3
    elif code == LIST32:
        count, at = int.from_bytes(raw[at + 5 : at + 9]), at + 9
    else:
        raise Malformed(f"expected a list, not 0x{code:02x}")
    if count > MOST_FIELDS:
        raise Malformed(f"a section with {count} fields, expected at most {MOST_FIELDS}")
    starts = []
    for _ in range(count):
        starts.append(at)
        step = STEPS[raw[at]]
        if step >= 0:
            at += 1 + step
        elif step == ONE_BYTE_SIZE:
            at += 2 + raw[at + 1]
        else:
            at = skip(raw, at)
    if at > end:
        raise Malformed("fields reach beyond their list")
    return starts, end


def _encoded(raw: bytes, starts: list[int], index: int) -> bytes | None:
    if index >= len(starts) or raw[starts[index]] == NULL:
        return None
    return raw[starts[index] : skip(raw, starts[index])]


def _sized(raw: bytes, starts: list[int], index: int, short: int, what: str) -> bytes | None:
    """The bytes of a string or binary field whose constructors are `short` and `short + 0x10`."""
    if index >= len(starts):
        return None
    at = starts[index]
    code = raw[at]
    if code == NULL:
        return None
    if code == short:
        return raw[at + 2 : at + 2 + raw[at + 1]]
    if code == short + 0x10:
        return raw[at + 5 : at + 5 + int.from_bytes(raw[at + 1 : at + 5])]
    raise Malformed(f"expected a {what} in field {index}, not 0x{code:02x}")


def _text(raw: bytes, starts: list[int], index: int) -> str | None:
    found = _sized(raw, starts, index, 0xA1, "string")
    return None if found is None else found.decode()


def _binary(raw: bytes, starts: list[int], index: int) -> bytes | None:
    return _sized(raw, starts, index, 0xA0, "binary")


def _uint(raw: bytes, starts: list[int], index: int) -> int | None:
    if index >= len(starts):
        return None
    at = starts[index]
    code = raw[at]
    if code == NULL:
        return None
    width = UINTS.get(code)
    if width is None:
        raise Malformed(f"expected a uint in field {index}, not 0x{code:02x}")
    return int.from_bytes(raw[at + 1 : at + 1 + width])


def _flag(raw: bytes, starts: list[int], index: int) -> bool:
    at = starts[index] if index < len(starts) else -1
    return at >= 0 and (raw[at] == TRUE or raw[at : at + 2] == BOOLEAN_TRUE)


def _timestamp(raw: bytes, starts: list[int], index: int) -> int | None:
    if index >= len(starts) or raw[starts[index]] == NULL:
        return None
    at = starts[index]
    if raw[at] != 0x83:
        raise Malformed(f"expected a timestamp in field {index}, not 0x{raw[at]:02x}")
    return int.from_bytes(raw[at + 1 : at + 9], signed=True)
