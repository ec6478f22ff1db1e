"""Typed value <-> plain tree, all that crosses a transport: None bool int float str bytes list dict.

`parse` refuses what does not fit with `InvalidArguments`, naming the place: `links[2].mtu: expected u32, got
'no'`. `dump` does the same for what a provider answers: a provider that breaks its declaration is found out
here.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from libmh.errors import InvalidArguments
from libmh.spec import (
    RANGES,
    Anything,
    Field,
    ListOf,
    MapOf,
    OptionalOf,
    Plain,
    RecordOf,
    Scalar,
    Type,
    Word,
    Words,
)

MAX_STRING = 65_535  # the ancestor's lstr
MAX_BYTES = 1 << 20
MAX_ITEMS = 65_536
MAX_DEPTH = 16
MAX_PLACE = 200
NOTHING = (1, 0)
SHOWN = 60
QUICK: Mapping[Word, type] = {Word.STRING: str, Word.BOOL: bool}
ABSENT = object()

Converter: TypeAlias = Callable[[Any, str], Any]
"""A value and its place -> the value on the other side."""
Row: TypeAlias = tuple[str, Converter, type | None, int, int, Field]
"""A field of a record: its name; for what does not fit at a glance; what does: the exact type of a scalar,
with the least and the most of an integer; the field itself. In long lists of records the glance is most of
the work."""


def parse(declared: Type, plain: object, where: str) -> Any:
    """The typed value of a plain tree that came from outside."""
    return _parser(declared)(plain, where)


def dump(declared: Type, value: Any, where: str) -> Plain:
    """The plain tree of a typed value that goes outside."""
    plain: Plain = _dumper(declared)(value, where)
    return plain


@functools.cache
def _parser(declared: Type) -> Converter:
    # made once for a type: looking at the type again for each value is most of the work in a long list
    match declared:
        case Scalar(word):
            return functools.partial(_scalar, word)
        case OptionalOf(item):
            return _unless_absent(_parser(item))
        case ListOf(item):
            return _each(_parser(item))
        case MapOf(item):
            return _each_by_key(_parser(item), _inside)
        case RecordOf():
            return _record_parser(declared)
        case Words(choices):
            return functools.partial(_word, choices)
        case Anything():
            return _anything


@functools.cache
def _dumper(declared: Type) -> Converter:
    match declared:
        case Scalar(word):
            return functools.partial(_scalar, word)
        case OptionalOf(item):
            return _unless_absent(_dumper(item))
        case ListOf(item):
            return _all(_dumper(item))
        case MapOf(item):
            return _each_by_key(_dumper(item), lambda where, _key: where)
        case RecordOf():
            return _record_dumper(declared)
        case Words(choices):
            return lambda value, where: str(_word(choices, value, where))
        case Anything():
            return _anything


def _unless_absent(one: Converter) -> Converter:
    return lambda value, where: None if value is None else one(value, where)


def _each(one: Converter) -> Converter:
    return lambda value, where: [one(each, f"{where}[{at}]") for at, each in enumerate(_list(value, where))]


def _all(one: Converter) -> Converter:
    return lambda value, where: [one(each, where) for each in _list(value, where)]


def _each_by_key(one: Converter, inside: Callable[[str, str], str]) -> Converter:
    return lambda value, where: {
        key: one(each, inside(where, key)) for key, each in _map(value, where).items()
    }


def _anything(value: object, where: str) -> Plain:
    return _tree(value, where, 0)


def refuse(where: str, expected: str, got: object) -> InvalidArguments:
    """The error for a value that does not fit, with the value shortened."""
    return InvalidArguments(f"{where}: expected {expected}, got {_shown(got)}", argument=where)


def too_many(where: str, expected: str, size: int) -> InvalidArguments:
    """The error for a value that is too long."""
    return InvalidArguments(f"{where}: expected {expected}, got {size}", argument=where)


def _shown(got: object) -> str:
    # never the repr of the whole: it may be megabytes, and Python spells no int of thousands of digits
    if isinstance(got, list | tuple | dict):
        return f"a {'map' if isinstance(got, dict) else 'list'} of {len(got)}"
    if isinstance(got, str | bytes):
        return repr(got[:SHOWN]) + ("..." if len(got) > SHOWN else "")
    if isinstance(got, int) and got.bit_length() > 128:
        return f"an integer of {got.bit_length()} bits"
    return repr(got)[:SHOWN]


def _inside(where: str, key: str) -> str:
    # keys are the peer's: deep in a tree their sum would grow without limit
    return f"{where}.{key[:SHOWN]}"[:MAX_PLACE]


def _scalar(word: Word, plain: object, where: str) -> Plain:
    if word is Word.STRING:
        return _string(plain, where)
    if word is Word.BOOL:
        if isinstance(plain, bool):
            return plain
    elif word is Word.DOUBLE:
        if isinstance(plain, int | float) and not isinstance(plain, bool):
            return _double(plain, where)
    elif word is Word.BYTES:
        if isinstance(plain, bytes):
            return _bytes(plain, where)
    # a bool is an int to isinstance
    elif isinstance(plain, int) and not isinstance(plain, bool):
        low, high = RANGES[word]
        if low <= plain <= high:
            return int(plain)
        raise refuse(where, f"{word} ({low} to {high})", plain)
    raise refuse(where, word, plain)


def _bytes(plain: bytes, where: str) -> bytes:
    if len(plain) > MAX_BYTES:
        raise too_many(where, f"at most {MAX_BYTES} bytes", len(plain))
    return bytes(plain)


def _double(plain: float, where: str) -> float:
    try:
        value = float(plain)
    except OverflowError:
        raise refuse(where, "a double", plain) from None
    if not math.isfinite(value):
        raise refuse(where, "a finite number", plain)
    return value


def _string(plain: object, where: str) -> str:
    if not isinstance(plain, str):
        raise refuse(where, Word.STRING, plain)
    if len(plain) > MAX_STRING:
        raise too_many(where, f"a string of at most {MAX_STRING} characters", len(plain))
    if "\0" in plain:
        raise refuse(where, "a string without NUL", plain)
    try:
        plain.encode()
    except UnicodeEncodeError:
        raise refuse(where, "a string of Unicode characters", plain) from None
    return str(plain)


def _list(plain: object, where: str) -> list[Any]:
    if not isinstance(plain, list | tuple):
        raise refuse(where, "a list", plain)
    if len(plain) > MAX_ITEMS:
        raise too_many(where, f"at most {MAX_ITEMS} items", len(plain))
    return list(plain)


def _map(plain: object, where: str) -> dict[str, Any]:
    if not isinstance(plain, dict):
        raise refuse(where, "a map", plain)
    if len(plain) > MAX_ITEMS:
        raise too_many(where, f"at most {MAX_ITEMS} entries", len(plain))
    return {_key(key, where): value for key, value in plain.items()}


def _key(key: object, where: str) -> str:
    try:
        return _string(key, where)
    except InvalidArguments:
        raise refuse(where, "keys that are strings without NUL, of Unicode characters", key) from None


def _word(choices: Any, plain: object, where: str) -> Any:
    try:
        return choices(plain)
    except ValueError:
        raise refuse(where, "one of " + ", ".join(choices), plain) from None


def _rows(fields: tuple[Field, ...], one: Callable[[Type], Converter]) -> list[Row]:
    return [_row(field, one(field.type)) for field in fields]


def _row(field: Field, one: Converter) -> Row:
    declared = field.type.item if isinstance(field.type, OptionalOf) else field.type
    word = declared.word if isinstance(declared, Scalar) else None
    low, high = RANGES.get(word, NOTHING) if word else NOTHING
    quick = int if word in RANGES else QUICK.get(word) if word else None
    return field.name, one, quick, low, high, field


def _record_parser(declared: RecordOf) -> Converter:
    record, rows = declared.record, _rows(declared.fields, _parser)

    def parse_record(plain: object, where: str) -> Any:
        if not isinstance(plain, dict) or len(plain) > MAX_ITEMS:
            plain = _map(plain, where)
        # unknown keys are a newer peer's fields: growth by addition must not break an older reader
        values = {}
        for name, one, quick, low, high, field in rows:
            held = plain.get(name, ABSENT)
            kind = type(held)
            if kind is quick and (
                low <= held <= high
                if kind is int
                else kind is bool or (len(held) <= MAX_STRING and held.isascii() and "\0" not in held)
            ):
                values[name] = held
            elif held is not ABSENT:
                values[name] = one(held, _inside(where, name))
            elif field.required:
                _refuse_missing(field, where)
                values[name] = None
        try:
            return record(**values)
        except ValueError as error:  # the record's own check: fields that do not go together
            raise InvalidArguments(f"{where}: {error}", argument=where) from None

    return parse_record


def _refuse_missing(field: Field, where: str) -> None:
    # nothing is a value of Anything, and is carried as an absent key
    if not isinstance(field.type, Anything):
        here = _inside(where, field.name)
        raise InvalidArguments(f"{here}: is missing", argument=here)


def _record_dumper(declared: RecordOf) -> Converter:
    record, rows = declared.record, _rows(declared.fields, _dumper)
    fits = dataclasses.is_dataclass(record)

    def dump_record(value: object, where: str) -> dict[str, Plain]:
        if type(value) is not record or not fits:
            raise refuse(where, f"a {record.__name__}", value)
        plain = {}
        for name, one, quick, low, high, field in rows:
            held = getattr(value, name)
            kind = type(held)
            if kind is quick and (
                low <= held <= high
                if kind is int
                else kind is bool or (len(held) <= MAX_STRING and held.isascii() and "\0" not in held)
            ):
                plain[name] = held
            elif held is not None:
                plain[name] = one(held, f"{where}.{name}")
            elif not isinstance(field.type, OptionalOf | Anything):
                raise refuse(f"{where}.{name}", "a value", held)
        return plain

    return dump_record


def _tree(plain: object, where: str, depth: int) -> Plain:
    if depth > MAX_DEPTH:
        raise refuse(where, f"nesting of at most {MAX_DEPTH}", plain)
    if plain is None or isinstance(plain, bool):
        return plain
    if isinstance(plain, str):
        return _string(plain, where)
    if isinstance(plain, int):
        if not RANGES[Word.I64][0] <= plain <= RANGES[Word.U64][1]:
            raise refuse(where, "an integer of 64 bits", plain)
        return int(plain)
    if isinstance(plain, float):
        return _double(plain, where)
    if isinstance(plain, bytes):
        return _bytes(plain, where)
    if isinstance(plain, list | tuple):
        here = where[:MAX_PLACE]
        return [_tree(each, f"{here}[{at}]", depth + 1) for at, each in enumerate(_list(plain, where))]
    if isinstance(plain, dict):
        found = _map(plain, where)
        return {key: _tree(each, _inside(where, key), depth + 1) for key, each in found.items()}
    raise refuse(where, "a plain value", plain)
