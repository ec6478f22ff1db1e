"""Declared types on D-Bus: the signature of a type, and plain tree <-> body.

====================  ==========  ==================================================================
type                  signature   on the wire
====================  ==========  ==================================================================
Scalar                b y q u t   u8 u16 u32 u64
..                    n i x d s   i8 and i16 are `n`; `ay` is bytes; a time is `t`, nanoseconds
Words                 s           the word
ListOf(T)             aT          ..
MapOf(T)              a{sT}       ..
RecordOf              a{sv}       each field a variant of its declared type, an absent optional an absent key
OptionalOf(T)         aT          no item, or one: D-Bus has no null. A property is of its T, and absent
Anything              v           bool b, int x (t above 2^63-1), float d, str s, bytes ay, list av,
..                                dict a{sv}; None is an empty signature (`g`), which nothing else uses
====================  ==========  ==================================================================

A property that may be absent is made so by writing that empty signature. Every argument of a method is
sent, those with a default included: D-Bus knows no others.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from libmh.bus import unwrap, variant
from libmh.spec import (
    RANGES,
    Anything,
    Interface,
    Kind,
    ListOf,
    MapOf,
    Member,
    OptionalOf,
    Plain,
    RecordOf,
    Scalar,
    Type,
    Word,
    Words,
)

Encoder: TypeAlias = Callable[[Any], Any]

WORDS: Mapping[Word, str] = {
    Word.BOOL: "b",
    Word.U8: "y",
    Word.U16: "q",
    Word.U32: "u",
    Word.U64: "t",
    Word.I8: "n",
    Word.I16: "n",
    Word.I32: "i",
    Word.I64: "x",
    Word.DOUBLE: "d",
    Word.STRING: "s",
    Word.BYTES: "ay",
    Word.TIME: "t",
}
NULL = "g"
ANY = "v"
CLOSING: Mapping[str, str] = {"(": ")", "{": "}"}


@functools.cache
def signature_of(declared: Type) -> str:
    """The D-Bus signature of a type, one complete type."""
    match declared:
        case Scalar(word):
            return WORDS[word]
        case Words():
            return "s"
        case ListOf(item) | OptionalOf(item):
            return "a" + signature_of(item)
        case MapOf(value):
            return "a{s" + signature_of(value) + "}"
        case RecordOf():
            return "a{sv}"
        case Anything():
            return "v"


def property_type(member: Member) -> Type:
    """The type of a property's value: one that may be absent is then not there at all, so its item's."""
    return _present(member.type)


def arguments_signature(member: Member) -> str:
    """What a method takes, or an event carries."""
    return "".join(signature_of(argument.type) for argument in member.arguments)


def results_signature(member: Member) -> str:
    """What a method answers."""
    return "".join(signature_of(result.type) for result in member.results)


def complete_types(signature: str) -> list[str]:
    """A valid signature cut into its complete types: `sa{sv}u` is `s`, `a{sv}`, `u`."""
    found, start, at, depth = [], 0, 0, 0
    for at, letter in enumerate(signature, 1):
        depth += (letter in "({") - (letter in ")}")
        if not depth and letter != "a":
            found.append(signature[start:at])
            start = at
    return found


@functools.cache
def encoder(declared: Type) -> Encoder:
    """A function from a plain tree that `libmh.wire` has passed to what the D-Bus library marshals."""
    match declared:
        case ListOf(item):
            if signature_of(item) == "y":
                return bytes
            one = encoder(item)
            return lambda plain: [one(each) for each in plain]
        case OptionalOf(item):
            present = encoder(item)
            return lambda plain: [] if plain is None else [present(plain)]
        case MapOf(value):
            held = encoder(value)
            return lambda plain: {key: held(each) for key, each in plain.items()}
        case RecordOf():
            return _record_encoder(declared)
        case Anything():
            return _anything
        case _:
            return _as_it_is


def _as_it_is(plain: Any) -> Any:
    return plain


def _record_encoder(declared: RecordOf) -> Encoder:
    fields = {name: (signature_of(kind), encoder(kind)) for name, kind in _field_types(declared).items()}

    def encode(plain: Mapping[str, Plain]) -> dict[str, Any]:
        return {
            name: one(plain[name]) if signature == ANY else variant(signature, one(plain[name]))
            for name, (signature, one) in fields.items()
            if plain.get(name) is not None
        }

    return encode


def _present(declared: Type) -> Type:
    return declared.item if isinstance(declared, OptionalOf) else declared


def _anything(plain: Plain) -> Any:
    signature, value = _free(plain)
    return variant(signature, value)


def _free(plain: Plain) -> tuple[str, Any]:
    if plain is None:
        return NULL, ""
    if isinstance(plain, bool):
        return "b", plain
    if isinstance(plain, int):
        return ("x" if plain <= RANGES[Word.I64][1] else "t"), plain
    if isinstance(plain, float):
        return "d", plain
    if isinstance(plain, str):
        return "s", plain
    if isinstance(plain, bytes):
        return "ay", plain
    if isinstance(plain, list):
        return "av", [_anything(each) for each in plain]
    return "a{sv}", {key: _anything(each) for key, each in plain.items()}


def decode(declared: Type, value: Any) -> Plain:
    """The plain tree of a value from a body. It does not judge: what does not fit its type comes out as it
    is, for `libmh.wire.parse` to refuse by name."""
    if _is_variant(value):
        return _decode_variant(declared, value)
    match declared:
        case ListOf(item) if isinstance(value, list | bytes):
            return [decode(item, each) for each in value]
        case OptionalOf(item) if isinstance(value, list | bytes) and len(value) <= 1:
            return decode(item, value[0]) if value else None
        case MapOf(item) if isinstance(value, dict):
            return {key: decode(item, each) for key, each in value.items()}
        case RecordOf() if isinstance(value, dict):
            kinds = _field_types(declared)
            return {key: decode(kinds.get(key, Anything()), each) for key, each in value.items()}
    plain: Plain = unwrap(value)
    return plain


@functools.cache
def _field_types(declared: RecordOf) -> Mapping[str, Type]:
    return {field.name: _present(field.type) for field in declared.fields}


def _is_variant(value: Any) -> bool:
    return hasattr(value, "signature") and hasattr(value, "value")


def _decode_variant(declared: Type, value: Any) -> Plain:
    if value.signature == NULL:
        return None
    if isinstance(declared, Anything):
        return _decode_anything(value.value)
    return decode(declared, value.value)


def _decode_anything(value: Any) -> Plain:
    if _is_variant(value):
        return _decode_variant(Anything(), value)
    if isinstance(value, list | tuple):
        return [decode(Anything(), each) for each in value]
    if isinstance(value, dict):
        return {key: decode(Anything(), each) for key, each in value.items()}
    plain: Plain = unwrap(value)
    return plain


def encode_all(kinds: Sequence[Type], values: Sequence[Plain]) -> list[Any]:
    """A body: values that `libmh.wire` has passed, by their types."""
    return [encoder(kind)(value) for kind, value in zip(kinds, values, strict=True)]


def decode_properties(interface: Interface, values: Mapping[str, Any]) -> dict[str, Plain]:
    """The values of GetAll by their declared types; a newer agent may have more than we know."""
    kinds = {member.name: property_type(member) for member in interface.of(Kind.PROPERTY)}
    return {name: decode(kinds.get(name, Anything()), value) for name, value in values.items()}
