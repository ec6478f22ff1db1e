"""Typed value <-> plain tree, all that crosses a transport: None bool int float str bytes list dict.

`parse` refuses what does not fit with `InvalidArguments`, naming the place: `links[2].mtu: expected u32, got
'no'`. `dump` does the same for what a provider answers: a provider that breaks its declaration is found out
here.
"""

import dataclasses
import math
from typing import Any

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


def parse(declared: Type, plain: object, where: str) -> Any:
    """The typed value of a plain tree that came from outside."""
    match declared:
        case Scalar(word):
            return _scalar(word, plain, where)
        case OptionalOf(item):
            return None if plain is None else parse(item, plain, where)
        case ListOf(item):
            return [parse(item, each, f"{where}[{at}]") for at, each in enumerate(_list(plain, where))]
        case MapOf(value):
            found = _map(plain, where)
            return {key: parse(value, each, _inside(where, key)) for key, each in found.items()}
        case RecordOf(record, fields):
            return _record(record, fields, plain, where)
        case Words(choices):
            return _word(choices, plain, where)
        case Anything():
            return _tree(plain, where, 0)


def dump(declared: Type, value: Any, where: str) -> Plain:
    """The plain tree of a typed value that goes outside."""
    match declared:
        case Scalar(word):
            return _scalar(word, value, where)
        case OptionalOf(item):
            return None if value is None else dump(item, value, where)
        case ListOf(item):
            return [dump(item, each, where) for each in _list(value, where)]
        case MapOf(item):
            return {key: dump(item, each, where) for key, each in _map(value, where).items()}
        case RecordOf(record, fields):
            return _dump_record(record, fields, value, where)
        case Words(choices):
            return str(_word(choices, value, where))
        case Anything():
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


def _record(record: type, fields: tuple[Field, ...], plain: object, where: str) -> Any:
    if not isinstance(plain, dict) or len(plain) > MAX_ITEMS:
        plain = _map(plain, where)
    # unknown keys are a newer peer's fields: growth by addition must not break an older reader
    values = {}
    for field in fields:
        name = field.name
        if name in plain:
            held = plain[name]
            fits = _at_a_glance(field.type, held)
            values[name] = held if fits else parse(field.type, held, _inside(where, name))
        elif field.required and isinstance(field.type, Anything):
            values[name] = None  # nothing is a value of it, and is carried as an absent key
        elif field.required:
            here = _inside(where, name)
            raise InvalidArguments(f"{here}: is missing", argument=here)
    try:
        return record(**values)
    except ValueError as error:  # the record's own check: fields that do not go together
        raise InvalidArguments(f"{where}: {error}", argument=where) from None


def _dump_record(record: type, fields: tuple[Field, ...], value: object, where: str) -> dict[str, Plain]:
    if type(value) is not record or not dataclasses.is_dataclass(value):
        raise refuse(where, f"a {record.__name__}", value)
    plain = {}
    for field in fields:
        held = getattr(value, field.name)
        if held is not None:
            fits = _at_a_glance(field.type, held)
            plain[field.name] = held if fits else dump(field.type, held, f"{where}.{field.name}")
        elif not isinstance(field.type, OptionalOf | Anything):
            raise refuse(f"{where}.{field.name}", "a value", held)
    return plain


def _at_a_glance(declared: Type, value: object) -> bool:
    """Whether a scalar fits, without a place to name: in long lists of records that is most of the work.
    What is not seen here is looked at by `parse` and `dump`."""
    if isinstance(declared, OptionalOf):
        declared = declared.item
    if not isinstance(declared, Scalar):
        return False
    if type(value) is str:
        short = declared.word is Word.STRING and len(value) <= MAX_STRING
        return short and value.isascii() and "\0" not in value
    if type(value) is int:
        low, high = RANGES.get(declared.word, NOTHING)
        return low <= value <= high
    return type(value) is bool and declared.word is Word.BOOL


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
