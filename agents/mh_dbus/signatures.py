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

from libmh.bus import library, unwrap, variant
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
Decoder: TypeAlias = Callable[[Any], Plain]

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
LEAVES = frozenset({bool, int, float, str, bytes})
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
    fields = [(name, signature_of(kind), encoder(kind)) for name, kind in _field_types(declared).items()]

    def encode(plain: Mapping[str, Plain]) -> dict[str, Any]:
        hold, body = library().hold, {}
        for name, signature, one in fields:
            value = plain.get(name)
            if value is None:
                continue
            held = value if one is _as_it_is else one(value)
            body[name] = held if signature == ANY else hold(signature, held)
        return body

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
    return decoder(declared)(value)


@functools.cache
def decoder(declared: Type) -> Decoder:
    """A function from a value in a body to its plain tree."""
    inside = _inside(declared)

    def decode_one(value: Any) -> Plain:
        while _is_variant(value):
            if value.signature == NULL:
                return None
            value = value.value
        return inside(value)

    return decode_one


def _inside(declared: Type) -> Decoder:
    match declared:
        case ListOf(item):
            return _list_decoder(decoder(item))
        case OptionalOf(item):
            return _optional_decoder(decoder(item))
        case MapOf(item):
            return _map_decoder(decoder(item))
        case RecordOf():
            return _record_decoder(declared)
        case Anything():
            return _decode_anything
        case _:
            return _unwrapped


def _unwrapped(value: Any) -> Plain:
    plain: Plain = unwrap(value)
    return plain


def _list_decoder(one: Decoder) -> Decoder:
    return lambda value: (
        [one(each) for each in value] if isinstance(value, list | bytes) else _unwrapped(value)
    )


def _optional_decoder(one: Decoder) -> Decoder:
    def decode_optional(value: Any) -> Plain:
        if isinstance(value, list | bytes) and len(value) <= 1:
            return one(value[0]) if value else None
        return _unwrapped(value)

    return decode_optional


def _map_decoder(one: Decoder) -> Decoder:
    def decode_map(value: Any) -> Plain:
        if isinstance(value, dict):
            return {key: one(each) for key, each in value.items()}
        return _unwrapped(value)

    return decode_map


def _record_decoder(declared: RecordOf) -> Decoder:
    kinds = _field_types(declared)
    fields = {name: decoder(kind) for name, kind in kinds.items()}
    scalars = frozenset(name for name, kind in kinds.items() if isinstance(kind, Scalar | Words))
    unknown = decoder(Anything())

    def decode_record(value: Any) -> Plain:
        if not isinstance(value, dict):
            return _unwrapped(value)
        variants, plain = library().variant, {}
        for key, each in value.items():
            # most fields are a variant with a scalar: in a long list a call for each is most of the work
            held = each.value if type(each) is variants and each.signature != NULL else each
            known = key in scalars and type(held) in LEAVES
            plain[key] = held if known else fields.get(key, unknown)(each)
        return plain

    return decode_record


def _field_types(declared: RecordOf) -> Mapping[str, Type]:
    return {field.name: _present(field.type) for field in declared.fields}


def _is_variant(value: Any) -> bool:
    return hasattr(value, "signature") and hasattr(value, "value")


def _decode_anything(value: Any) -> Plain:
    one = decoder(Anything())
    if isinstance(value, list | tuple):
        return [one(each) for each in value]
    if isinstance(value, dict):
        return {key: one(each) for key, each in value.items()}
    return _unwrapped(value)


def encode_all(kinds: Sequence[Type], values: Sequence[Plain]) -> list[Any]:
    """A body: values that `libmh.wire` has passed, by their types."""
    return [encoder(kind)(value) for kind, value in zip(kinds, values, strict=True)]


def decode_properties(interface: Interface, values: Mapping[str, Any]) -> dict[str, Plain]:
    """The values of GetAll by their declared types; a newer agent may have more than we know."""
    kinds = {member.name: property_type(member) for member in interface.of(Kind.PROPERTY)}
    return {name: decode(kinds.get(name, Anything()), value) for name, value in values.items()}
