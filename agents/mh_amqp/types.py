"""The type tree of the declaration on the wire: as AMQP values, and as JSON between our own halves.

=============  ==========================  =====================================
declared       AMQP value                  JSON
=============  ==========================  =====================================
bool           boolean                     true, false
u8 u16         ubyte, ushort               number
u32 u64        uint, ulong                 number
i8 i16         byte, short                 number
i32 i64        int, long                   number
double         double                      number; NaN and infinities are refused
string, Words  string                      string
bytes          binary                      base64 string
time           timestamp (milliseconds)    number of nanoseconds
list, dict     list, map                   array, object
record         map; absent is absent       object; absent is absent
Anything       by value: int is long       by value; bytes is {"$bytes": base64}
=============  ==========================  =====================================

Everything here is made once per type and kept: what is left per value is one call.
"""

import base64
import binascii
import functools
import json
import zlib
from collections.abc import Callable
from typing import Any

from libmh.errors import InvalidArguments
from libmh.spec import Anything, ListOf, MapOf, OptionalOf, Plain, RecordOf, Scalar, Type, Word, Words
from mh_amqp import codec

DEFLATE = "deflate"
DEFLATE_ABOVE = 2048
DEFLATE_LEVEL = 1
MAX_INFLATED = 8 << 20
MAX_VALUES = 1 << 19  # in JSON text: read in C, but each takes memory that its few bytes do not
BYTES_KEY = "$bytes"
ANYTHING = Anything()

Encoder = Callable[[Any], bytes]
Change = Callable[[Any], Any]

SCALARS: dict[Word, Encoder] = {
    Word.BOOL: codec.boolean,
    Word.U8: codec.ubyte,
    Word.U16: codec.ushort,
    Word.U32: codec.uint,
    Word.U64: codec.ulong,
    Word.I8: codec.byte,
    Word.I16: codec.short,
    Word.I32: codec.int32,
    Word.I64: codec.long,
    Word.DOUBLE: codec.double,
    Word.STRING: codec.string,
    Word.BYTES: codec.binary,
    Word.TIME: codec.timestamp,
}


@functools.cache
def encoder(declared: Type) -> Encoder:
    """What turns a plain tree of that type into an encoded AMQP value."""
    match declared:
        case Scalar(word):
            return SCALARS[word]
        case OptionalOf(item):
            inner = encoder(item)
            return lambda plain: codec.NULL if plain is None else inner(plain)
        case ListOf(item):
            inner = encoder(item)
            return lambda plain: codec.list_of([inner(each) for each in plain])
        case MapOf(value):
            return _map_encoder(encoder(value))
        case RecordOf(_, fields):
            return _record_encoder([(f.name, codec.string(f.name), encoder(f.type)) for f in fields])
        case Words():
            return codec.string
        case Anything():
            return codec.any_value


def _map_encoder(value: Encoder) -> Encoder:
    def encode(plain: dict[str, Plain]) -> bytes:
        return codec.map_of(
            [part for key, each in plain.items() for part in (codec.string(key), value(each))]
        )

    return encode


def _record_encoder(fields: list[tuple[str, bytes, Encoder]]) -> Encoder:
    def encode(plain: dict[str, Plain]) -> bytes:
        parts: list[bytes] = []
        for name, key, value in fields:
            if (held := plain.get(name)) is not None:
                parts += (key, value(held))
        return codec.map_of(parts)

    return encode


@functools.cache
def to_json(declared: Type) -> Change | None:
    """What makes a plain tree fit for JSON; None where it is as it stands."""
    return _changing(declared, _base64, _any_to_json)


@functools.cache
def from_json(declared: Type) -> Change | None:
    """What makes a plain tree of what JSON gave; None where it is as it stands. Values of another type are
    left alone: `libmh.wire` refuses them with their name."""
    return _changing(declared, _unbase64, _any_from_json)


def _changing(declared: Type, scalar: Change, anything: Change) -> Change | None:
    match declared:
        case Scalar(Word.BYTES):
            return scalar
        case Anything():
            return anything
        case OptionalOf(item):
            return _unless_none(_changing(item, scalar, anything))
        case ListOf(item):
            return _each(_changing(item, scalar, anything))
        case MapOf(value):
            return _each_value(_changing(value, scalar, anything))
        case RecordOf(_, fields):
            found = {f.name: change for f in fields if (change := _changing(f.type, scalar, anything))}
            return _each_field(found) if found else None
        case _:
            return None


def _unless_none(change: Change | None) -> Change | None:
    return change and (lambda value: None if value is None else change(value))


def _each(change: Change | None) -> Change | None:
    return change and (lambda value: [change(each) for each in value] if isinstance(value, list) else value)


def _each_value(change: Change | None) -> Change | None:
    def over(value: Any) -> Any:
        return {k: change(v) for k, v in value.items()} if change and isinstance(value, dict) else value

    return over if change else None


def _each_field(changes: dict[str, Change]) -> Change:
    def over(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: changes[key](each) if key in changes else each for key, each in value.items()}

    return over


def _base64(value: Any) -> Any:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _unbase64(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):  # ValueError: characters beyond ASCII
        return value


def _any_to_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {BYTES_KEY: _base64(value)}
    if isinstance(value, dict):
        return {key: _any_to_json(each) for key, each in value.items()}
    return [_any_to_json(each) for each in value] if isinstance(value, list) else value


def _any_from_json(value: Any) -> Any:
    if isinstance(value, dict):
        if value.keys() == {BYTES_KEY}:
            return _unbase64(value[BYTES_KEY])
        return {key: _any_from_json(each) for key, each in value.items()}
    return [_any_from_json(each) for each in value] if isinstance(value, list) else value


def dump_json(value: Any) -> bytes:
    """Compact JSON in UTF-8; NaN and infinities are a `ValueError`."""
    return WRITER.encode(value).encode()


def load_json(data: bytes, where: str = "body") -> Any:
    """What JSON text holds. `InvalidArguments` for what is no JSON, nests too deep, has too many values or
    is not UTF-8."""
    if len(data) > MAX_VALUES and sum(map(data.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise InvalidArguments(f"{where}: expected JSON of at most {MAX_VALUES} values", argument=where)
    try:
        return READER.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
    except (ValueError, RecursionError) as error:  # also not UTF-8, NaN, an integer of thousands of digits
        raise InvalidArguments(f"{where}: expected JSON: {error}"[:500], argument=where) from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"'{name}' is not a JSON number")


# json makes one for each text that it does not read or write in its own way
WRITER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)
READER = json.JSONDecoder(parse_constant=_refuse_constant)


def deflated(data: bytes) -> tuple[bytes, str | None]:
    """The data, deflated where that pays, and its content-encoding."""
    if len(data) <= DEFLATE_ABOVE:
        return data, None
    return zlib.compress(data, DEFLATE_LEVEL), DEFLATE


def inflated(data: bytes, encoding: str | None, where: str = "body") -> bytes:
    """The data behind its content-encoding, at most `MAX_INFLATED` bytes; `InvalidArguments` otherwise."""
    if encoding is None:
        if len(data) > MAX_INFLATED:
            raise InvalidArguments(f"{where}: expected at most {MAX_INFLATED} bytes", argument=where)
        return data
    if encoding != DEFLATE:
        raise InvalidArguments(
            f"{where}: expected the content-encoding '{DEFLATE}', got '{encoding[:40]}'", argument=where
        )
    worker = zlib.decompressobj()
    try:
        plain = worker.decompress(data, MAX_INFLATED)
    except zlib.error as error:
        raise InvalidArguments(f"{where}: cannot be inflated: {error}", argument=where) from error
    if not worker.eof:
        kind = "is longer than that" if worker.unconsumed_tail else "is cut short"
        raise InvalidArguments(f"{where}: expected at most {MAX_INFLATED} bytes; it {kind}", argument=where)
    return plain
