"""What a declaration looks like on AMQP, for people and for review: `mh-amqp --print-schema`."""

import json
from collections.abc import Sequence
from typing import Any

from libmh.spec import (
    Anything,
    Argument,
    Field,
    Interface,
    Kind,
    ListOf,
    MapOf,
    Member,
    OptionalOf,
    RecordOf,
    Scalar,
    Type,
    Word,
    Words,
)
from mh_amqp.names import event_address

SCALARS = {
    Word.BOOL: "boolean",
    Word.U8: "ubyte",
    Word.U16: "ushort",
    Word.U32: "uint",
    Word.U64: "ulong",
    Word.I8: "byte",
    Word.I16: "short",
    Word.I32: "int",
    Word.I64: "long",
    Word.DOUBLE: "double",
    Word.STRING: "string",
    Word.BYTES: "binary",
    Word.TIME: "timestamp",
}


def shown(declared: Type) -> Any:
    """A type as AMQP has it: a word, `[item]` for a list, `{"*": value}` for a map, `{field: type}` for a
    record, where a `?` behind the name says that the field may be absent."""
    match declared:
        case Scalar(word):
            return SCALARS[word]
        case OptionalOf(item):
            return shown(item)
        case ListOf(item):
            return [shown(item)]
        case MapOf(value):
            return {"*": shown(value)}
        case RecordOf(_, fields):
            return {_named(field): shown(field.type) for field in fields}
        case Words(choices):
            return "string: " + " | ".join(choices)
        case Anything():
            return "any"


def _named(item: Field | Argument) -> str:
    optional = isinstance(item.type, OptionalOf) or not item.required
    return f"{item.name}?" if optional else item.name


def schema(interfaces: Sequence[Interface]) -> str:
    """All that can be asked of interfaces, as JSON."""
    return json.dumps({each.name: _interface(each) for each in interfaces}, indent=1) + "\n"


def _interface(declared: Interface) -> dict[str, Any]:
    return {
        "version": declared.version,
        "attributes": {each.name: _attribute(each) for each in declared.of(Kind.PROPERTY)},
        "operations": {each.name: _operation(each) for each in declared.of(Kind.METHOD)},
        "events": {
            event_address(declared.name, each.name): {_named(a): shown(a.type) for a in each.arguments}
            for each in declared.of(Kind.EVENT)
        },
    }


def _attribute(member: Member) -> dict[str, Any]:
    found: dict[str, Any] = {"type": shown(member.type)}
    return found | ({"writable": True} if member.setter else {})


def _operation(member: Member) -> dict[str, Any]:
    return {
        "effect": str(member.effect),
        "idempotent": member.idempotent,
        "arguments": {_named(a): shown(a.type) for a in member.arguments},
        "results": {_named(r): shown(r.type) for r in member.results},
    }
