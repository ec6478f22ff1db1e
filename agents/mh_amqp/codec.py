"""AMQP 1.0 values <-> bytes (part 1 of the standard), for what comes from peers and for answers.

By hand, because proton's own decoder recurses without a limit in C (CVE-2026-105042), hands out views into
memory that is freed with its message, and spends one foreign call on every value: 60 % of the time of a
small request. Here a peer's bytes are only ever sliced, nesting and sizes are checked before they are
believed, and an encoded value can be kept.

A decoded value is plain: None bool int float str bytes list dict; a timestamp becomes nanoseconds, a
symbol, a char or a UUID a str, an array a list. What a plain tree cannot hold (decimals, described types)
is `Malformed`.
"""

import struct
import uuid
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import cast

from libmh.spec import Plain

MAX_DEPTH = 32
MAX_VALUES = 1 << 17  # in one body: an empty list takes one byte of it, and a microsecond
MILLISECOND = 1_000_000
NULL = b"\x40"
TRUE = b"\x41"
FALSE = b"\x42"
EMPTY_LIST = b"\x45"
SMALL = 256
SIGNED_END = 2**63
BYTE = range(-128, 128)
WORD = struct.Struct(">I")
LONG = struct.Struct(">q")
WIDTHS: Mapping[int, int] = MappingProxyType({0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16})
SIZED_BY_BYTE = (0xA, 0xC, 0xE)
SIZED_BY_WORD = (0xB, 0xD, 0xF)
BY_BYTE, BY_WORD, OTHER = -1, -2, -3
STEPS = tuple(  # by constructor: how wide a fixed value is, or how its size is written
    WIDTHS.get(
        code >> 4,
        BY_BYTE if code >> 4 in SIZED_BY_BYTE else BY_WORD if code >> 4 in SIZED_BY_WORD else OTHER,
    )
    for code in range(256)
)
SHORT_STRING = 0xA1
TEXT = frozenset({str})


class Malformed(ValueError):
    """The bytes are not what the standard says, or nothing that a plain tree can hold."""


# bytes from values


def boolean(value: bool) -> bytes:  # noqa: FBT001 - the value itself
    return TRUE if value else FALSE


def ubyte(value: int) -> bytes:
    return b"\x50" + value.to_bytes(1)


def ushort(value: int) -> bytes:
    return b"\x60" + value.to_bytes(2)


def uint(value: int) -> bytes:
    if value < SMALL:
        return b"\x52" + value.to_bytes(1) if value else b"\x43"
    return b"\x70" + value.to_bytes(4)


def ulong(value: int) -> bytes:
    if value < SMALL:
        return b"\x53" + value.to_bytes(1) if value else b"\x44"
    return b"\x80" + value.to_bytes(8)


def byte(value: int) -> bytes:
    return b"\x51" + value.to_bytes(1, signed=True)


def short(value: int) -> bytes:
    return b"\x61" + value.to_bytes(2, signed=True)


def int32(value: int) -> bytes:
    return (
        b"\x54" + value.to_bytes(1, signed=True)
        if value in BYTE
        else b"\x71" + value.to_bytes(4, signed=True)
    )


def long(value: int) -> bytes:
    return b"\x55" + value.to_bytes(1, signed=True) if value in BYTE else b"\x81" + LONG.pack(value)


def double(value: float) -> bytes:
    return b"\x82" + struct.pack(">d", value)


def timestamp(nanoseconds: int) -> bytes:
    return b"\x83" + LONG.pack(nanoseconds // MILLISECOND)


def string(value: str) -> bytes:
    raw = value.encode()
    return b"\xa1" + len(raw).to_bytes(1) + raw if len(raw) < SMALL else b"\xb1" + WORD.pack(len(raw)) + raw


def symbol(value: str) -> bytes:
    raw = value.encode("ascii")
    return b"\xa3" + len(raw).to_bytes(1) + raw if len(raw) < SMALL else b"\xb3" + WORD.pack(len(raw)) + raw


def binary(value: bytes) -> bytes:
    size = len(value)
    return b"\xa0" + size.to_bytes(1) + value if size < SMALL else b"\xb0" + WORD.pack(size) + value


def list_of(items: Sequence[bytes]) -> bytes:
    """A list of values that are encoded already."""
    return _compound(b"\xc0", b"\xd0", items, len(items)) if items else EMPTY_LIST


def map_of(items: Sequence[bytes]) -> bytes:
    """A map of keys and values in turn, encoded already."""
    return _compound(b"\xc1", b"\xd1", items, len(items))


def map_of_pairs(pairs: Sequence[bytes]) -> bytes:
    """A map of pairs, each an encoded key with its encoded value behind it."""
    return _compound(b"\xc1", b"\xd1", pairs, 2 * len(pairs))


def _compound(short_code: bytes, long_code: bytes, items: Sequence[bytes], count: int) -> bytes:
    body = b"".join(items)
    size = len(body)
    if size + 1 < SMALL and count < SMALL:
        return short_code + bytes((size + 1, count)) + body
    return long_code + WORD.pack(size + 4) + WORD.pack(count) + body


def any_value(value: Plain) -> bytes:
    """A plain tree whose types only the values know."""
    if isinstance(value, str):
        return string(value)
    if value is None:
        return NULL
    if isinstance(value, bool):
        return boolean(value)
    if isinstance(value, int):
        return ulong(value) if value >= SIGNED_END else long(value)
    if isinstance(value, float):
        return double(value)
    if isinstance(value, bytes):
        return binary(value)
    if isinstance(value, dict):
        return map_of([part for key, each in value.items() for part in (string(key), any_value(each))])
    return list_of([any_value(each) for each in value])


# values from bytes


class Walk:
    """How deep a reader of nested values is, and how many it may still read."""

    __slots__ = ("depth", "left")

    def __init__(self) -> None:
        self.depth = 0
        self.left = MAX_VALUES

    def enter(self, count: int) -> None:
        """Go into a compound value of `count` items."""
        self.depth += 1
        self.left -= count
        if self.depth > MAX_DEPTH:
            raise Malformed(f"values nest deeper than {MAX_DEPTH}")
        if self.left < 0:
            raise Malformed(f"there are more than {MAX_VALUES} values")


def decode(raw: bytes, at: int = 0, walk: Walk | None = None) -> tuple[Plain, int]:
    """The value at an offset and the offset behind it. Raises `Malformed`."""
    try:
        code = raw[at]
        if code == SHORT_STRING and (end := at + 2 + raw[at + 1]) <= len(raw):
            return raw[at + 2 : end].decode(), end
        reader = READERS.get(code)
        if reader is None:
            raise Malformed(f"cannot read a value of constructor 0x{code:02x}")
        end = skip(raw, at)
        return reader(raw, at + 1, end, walk), end
    except (IndexError, struct.error, UnicodeDecodeError) as error:  # cut short; not UTF-8
        raise Malformed(f"cannot read a value at byte {at}: {error}") from error


def skip(raw: bytes, at: int) -> int:
    """The offset behind the value at an offset, without reading it; it lies within the bytes. Raises
    `Malformed`."""
    try:
        code = raw[at]
        at = _behind(raw, at + 1, code) if code else _behind_described(raw, at)
    except (IndexError, struct.error) as error:
        raise Malformed("a value is cut short") from error
    if at > len(raw):
        raise Malformed("a value is cut short")
    return at


def _behind_described(raw: bytes, at: int) -> int:
    """A described value: its descriptor, which may be one too, then itself."""
    pending = 1
    while pending:
        code = raw[at]
        at += 1
        if code:
            at = _behind(raw, at, code)
            pending -= 1
        else:
            pending += 1
    return at


def _behind(raw: bytes, at: int, code: int) -> int:
    step = STEPS[code]
    if step >= 0:
        return at + step
    if step == BY_BYTE:
        return at + 1 + raw[at]
    if step == BY_WORD:
        return at + 4 + int(WORD.unpack_from(raw, at)[0])
    raise Malformed(f"there is no constructor 0x{code:02x}")


Reader = Callable[[bytes, int, int, Walk | None], Plain]


def _fixed(value: Plain) -> Reader:
    return lambda _raw, _at, _end, _walk: value


def _number(*, signed: bool) -> Reader:
    return lambda raw, at, end, _walk: int.from_bytes(raw[at:end], signed=signed)


def _real(form: str) -> Reader:
    return lambda raw, at, _end, _walk: float(struct.unpack_from(form, raw, at)[0])


def _text(header: int) -> Reader:
    return lambda raw, at, end, _walk: raw[at + header : end].decode()


def _bytes(header: int) -> Reader:
    return lambda raw, at, end, _walk: raw[at + header : end]


def _milliseconds(raw: bytes, at: int, _end: int, _walk: Walk | None) -> Plain:
    return int(LONG.unpack_from(raw, at)[0]) * MILLISECOND


def _boolean(raw: bytes, at: int, _end: int, _walk: Walk | None) -> Plain:
    return raw[at] != 0


def _char(raw: bytes, at: int, end: int, _walk: Walk | None) -> Plain:
    return raw[at:end].decode("utf-32-be")


def _uuid(raw: bytes, at: int, end: int, _walk: Walk | None) -> Plain:
    return str(uuid.UUID(bytes=raw[at:end]))


def _count(raw: bytes, at: int, end: int, width: int) -> tuple[int, int]:
    """How many items a compound value has and where the first begins; an item has at least one byte."""
    start = at + 2 * width
    if start > end:
        raise Malformed("a compound value is cut short")
    count = int.from_bytes(raw[at + width : start])
    if count > end - start:
        raise Malformed(f"a compound value of {end - start} bytes cannot have {count} items")
    return count, start


def _items(raw: bytes, at: int, end: int, walk: Walk | None, width: int) -> list[Plain]:
    count, at = _count(raw, at, end, width)
    walk = walk or Walk()
    walk.enter(count)
    found = []
    for _ in range(count):
        value, at = decode(raw, at, walk)
        found.append(value)
    walk.depth -= 1
    if at != end:
        raise Malformed("a compound value is not as long as it says")
    return found


def _list(width: int) -> Reader:
    return lambda raw, at, end, walk: _items(raw, at, end, walk, width)


def _map(width: int) -> Reader:
    def read(raw: bytes, at: int, end: int, walk: Walk | None) -> Plain:
        items = _items(raw, at, end, walk, width)
        keys = items[::2]
        if len(items) % 2 == 0 and TEXT.issuperset(map(type, keys)):
            found = dict(zip(cast("list[str]", keys), items[1::2], strict=True))
            if len(found) == len(keys):
                return found
        raise Malformed("expected a map with strings as keys, each once")

    return read


def _array(width: int) -> Reader:
    def read(raw: bytes, at: int, end: int, walk: Walk | None) -> Plain:
        count, at = _count(raw, at, end, width)
        if at >= end:
            raise Malformed("an array has no constructor")
        code = raw[at]
        reader = READERS.get(code)
        if reader is None or code >> 4 == 0x4:
            raise Malformed(f"cannot read an array of constructor 0x{code:02x}")
        at += 1
        walk = walk or Walk()
        walk.enter(count)
        found = []
        for _ in range(count):
            behind = _behind(raw, at, code)
            if behind > end:
                raise Malformed("an array is cut short")
            found.append(reader(raw, at, behind, walk))
            at = behind
        walk.depth -= 1
        return found

    return read


READERS: Mapping[int, Reader] = MappingProxyType(
    {0x40: _fixed(None), 0x41: _fixed(True), 0x42: _fixed(False), 0x43: _fixed(0), 0x44: _fixed(0)}  # noqa: FBT003
    | {
        0x45: lambda _raw, _at, _end, _walk: [],
        0x56: _boolean,
        0x73: _char,
        0x83: _milliseconds,
        0x98: _uuid,
    }
    | dict.fromkeys((0x50, 0x60, 0x70, 0x80, 0x52, 0x53), _number(signed=False))
    | dict.fromkeys((0x51, 0x61, 0x71, 0x81, 0x54, 0x55), _number(signed=True))
    | {0x72: _real(">f"), 0x82: _real(">d")}
    | {0xA0: _bytes(1), 0xB0: _bytes(4), 0xA1: _text(1), 0xB1: _text(4), 0xA3: _text(1), 0xB3: _text(4)}
    | {0xC0: _list(1), 0xD0: _list(4), 0xC1: _map(1), 0xD1: _map(4), 0xE0: _array(1), 0xF0: _array(4)}
)
