"""Reading a Protocol class into members, and refusing a bad one; `libmh.spec` has the table of types."""

import dataclasses
import inspect
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from math import inf
from typing import Any, TypeVar, Union

from libmh.errors import InvalidArguments
from libmh.spec import (
    ARGUMENT_NAME,
    MEMBER_NAME,
    Anything,
    Argument,
    BadDeclaration,
    Field,
    Kind,
    ListOf,
    MapOf,
    Mark,
    Member,
    Name,
    OptionalOf,
    Plain,
    RecordOf,
    Scalar,
    Type,
    Width,
    Word,
    Words,
)
from libmh.wire import dump

SCALARS: Mapping[object, Word] = {bool: Word.BOOL, float: Word.DOUBLE, str: Word.STRING, bytes: Word.BYTES}
PLAIN_CHOICES = frozenset(typing.get_args(Plain))
MAX_NESTING = 8
MAX_NAME = 255  # D-Bus


def read(interface: str, protocol: type) -> dict[str, Member]:
    """The members of a Protocol class by wire name, in the order of declaration."""
    if not getattr(protocol, "_is_protocol", False):
        raise BadDeclaration(f"{interface}: {protocol.__qualname__} must be a typing.Protocol class")
    if not (protocol.__doc__ or "").strip() or (protocol.__doc__ or "").startswith("Protocol class"):
        raise BadDeclaration(f"{interface}: {protocol.__qualname__} has no docstring")
    inherited = [base.__qualname__ for base in protocol.__mro__[1:-1] if base is not typing.Generic]
    if inherited != ["Protocol"]:
        raise BadDeclaration(
            f"{interface}: {protocol.__qualname__} inherits: each interface is declared whole"
        )
    members: dict[str, Member] = {}
    setters: list[tuple[str, types.FunctionType, Mark]] = []
    # what is annotated and has no value stands in the annotations alone
    for attribute, value in (dict.fromkeys(protocol.__annotations__) | vars(protocol)).items():
        if attribute.startswith("_"):
            continue
        where = f"{interface}.{attribute}"
        function, mark = _marked(where, value)
        if mark.writes is not None:
            setters.append((mark.writes, function, mark))
            continue
        member = _member(interface, attribute, function, mark)
        if member.name in members:
            raise BadDeclaration(f"{where}: the wire name '{member.name}' is declared twice")
        members[member.name] = member
        vars(function)["__mh_member__"] = member
    for name, function, mark in setters:
        members[name] = _with_setter(members.get(name), name, function, mark)
        vars(vars(protocol)[members[name].attribute])["__mh_member__"] = members[name]
    return members


def _marked(where: str, value: object) -> tuple[types.FunctionType, Mark]:
    if not isinstance(value, types.FunctionType):
        raise BadDeclaration(f"{where}: a declaration has only properties, methods and events")
    mark = vars(value).get("__mh_mark__")
    if not isinstance(mark, Mark):
        raise BadDeclaration(
            f"{where}: is public but not declared: decorate it with @prop, @method or @event"
        )
    return value, mark


def _member(interface: str, attribute: str, function: types.FunctionType, mark: Mark) -> Member:
    where = f"{interface}.{attribute}"
    options = dict(mark.options)
    name = options.pop("name", None) or attribute
    returns = options.pop("returns", "value")
    doc = inspect.cleandoc(function.__doc__ or "").strip()
    if not doc:
        raise BadDeclaration(f"{where}: has no docstring")
    _check_name(where, name)
    hints = _hints(where, function)
    member = Member(
        interface=interface,
        name=name,
        attribute=attribute,
        kind=mark.kind,
        doc=doc,
        arguments=_arguments(where, function, hints),
        results=_results(where, hints, returns),
        **options,
    )
    return _checked(where, member)


def _check_name(where: str, name: str, allowed: "re.Pattern[str]" = MEMBER_NAME) -> None:
    if not allowed.fullmatch(name) or len(name) > MAX_NAME:
        raise BadDeclaration(
            f"{where}: '{name}' is not a name that can be carried: expected letters, digits and underscores"
        )


def _checked(where: str, member: Member) -> Member:
    known = {argument.name for argument in member.arguments}
    if len({result.name for result in member.results}) != len(member.results):
        raise BadDeclaration(f"{where}: two results have one name")
    for name in (*known, *(result.name for result in member.results)):
        _check_name(where, name, ARGUMENT_NAME)
    if member.kind is Kind.PROPERTY and (member.arguments or len(member.results) != 1):
        raise BadDeclaration(f"{where}: a property takes no arguments and answers one value")
    if member.kind is Kind.EVENT and member.results:
        raise BadDeclaration(f"{where}: an event answers nothing")
    for name in member.objects:
        if name not in known:
            raise BadDeclaration(f"{where}: acts on '{name}', which is not one of its arguments")
    if not 0 < member.deadline < inf:
        raise BadDeclaration(f"{where}: its deadline must be more than 0 s")
    return member


def _with_setter(member: Member | None, name: str, function: types.FunctionType, mark: Mark) -> Member:
    if member is None or member.kind is not Kind.PROPERTY:
        raise BadDeclaration(f"{function.__qualname__}: writes '{name}', which is not a declared property")
    where = f"{member.interface}.{function.__name__}"
    if not (function.__doc__ or "").strip():
        raise BadDeclaration(f"{where}: has no docstring")
    hints = _hints(where, function)
    arguments = _arguments(where, function, hints)
    if len(arguments) != 1 or arguments[0].type != member.type or hints.get("return") is not type(None):
        raise BadDeclaration(f"{where}: must take one argument of the type of '{name}' and answer None")
    if member.setter is not None:
        raise BadDeclaration(f"{where}: '{name}' is written by '{member.setter}' already")
    if member.constant:
        raise BadDeclaration(f"{where}: '{name}' is declared constant, so nothing can write it")
    written = replace(member, setter=function.__name__, arguments=(), **mark.options)
    vars(function)["__mh_member__"] = written
    return written


def _read_hints(where: str, declared: object) -> dict[str, Any]:
    try:
        return typing.get_type_hints(declared, include_extras=True)
    except (NameError, TypeError) as error:  # a name imported for the type checker only; no type at all
        raise BadDeclaration(f"{where}: {error}; hints are read at run time") from error


def _hints(where: str, function: Callable[..., Any]) -> dict[str, Any]:
    if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
        raise BadDeclaration(f"{where}: is asynchronous; declarations are plain functions")
    hints = _read_hints(where, function)
    if "return" not in hints:
        raise BadDeclaration(f"{where}: what it answers has no type hint")
    return hints


def _arguments(where: str, function: Callable[..., Any], hints: Mapping[str, Any]) -> tuple[Argument, ...]:
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or parameters[0].name != "self":
        raise BadDeclaration(f"{where}: must be a method, its first parameter 'self'")
    found = tuple(_argument(where, parameter, hints) for parameter in parameters[1:])
    if len({argument.name for argument in found}) != len(found):
        raise BadDeclaration(f"{where}: two arguments have one wire name")
    return found


def _argument(where: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> Argument:
    here = f"{where}({parameter.name})"
    if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
        raise BadDeclaration(f"{here}: only plain named arguments can be carried")
    if parameter.name not in hints:
        raise BadDeclaration(f"{here}: has no type hint")
    hint = hints[parameter.name]
    declared, _, name = type_of(here, hint), doc_of(hint), _wire_name(hint)
    required = parameter.default is inspect.Parameter.empty
    default = None if required else parameter.default
    if not required and not _fits(declared, default):
        raise BadDeclaration(f"{here}: its default {default!r} is not of its type")
    return Argument(name or parameter.name, parameter.name, declared, doc_of(hint), required, default)


def _fits(declared: Type, default: object) -> bool:
    if default is None:
        return isinstance(declared, OptionalOf | Anything)
    match declared:
        case OptionalOf(item):
            return _fits(item, default)
        case Words(choices):
            return isinstance(default, choices)
        case Scalar():
            try:
                dump(declared, default, "")
            except InvalidArguments:
                return False
            return True
    return False  # a list, map or record would be one object, shared by all calls


def _results(where: str, hints: Mapping[str, Any], returns: str | tuple[str, ...]) -> tuple[Field, ...]:
    hint = hints["return"]
    if hint is type(None):
        return ()
    bare = _bare(hint)
    if typing.get_origin(bare) is not tuple:
        if not isinstance(returns, str):
            raise BadDeclaration(f"{where}: names several results but answers one value")
        return (Field(returns, type_of(where, hint), doc_of(hint)),)
    items = typing.get_args(bare)
    if isinstance(returns, str) or len(returns) != len(items) or Ellipsis in items:
        raise BadDeclaration(
            f"{where}: answers a tuple, so each of its items must be named in returns=(...)"
        )
    return tuple(
        Field(name, type_of(f"{where}({name})", item), doc_of(item))
        for name, item in zip(returns, items, strict=True)
    )


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint


def _metadata(hint: Any) -> tuple[object, ...]:
    return typing.get_args(hint)[1:] if typing.get_origin(hint) is typing.Annotated else ()


def doc_of(hint: Any) -> str:
    """The documentation that `Annotated` carries, or ""."""
    return next((" ".join(item.split()) for item in _metadata(hint) if isinstance(item, str)), "")


def _wire_name(hint: Any) -> str | None:
    return next((item.wire for item in _metadata(hint) if isinstance(item, Name)), None)


def type_of(where: str, hint: Any, nesting: tuple[type, ...] = ()) -> Type:
    """The type tree of a hint; `BadDeclaration` names what cannot be carried."""
    if len(nesting) > MAX_NESTING:
        raise BadDeclaration(f"{where}: lists, dicts and records nest deeper than {MAX_NESTING}")
    bare, origin = _bare(hint), typing.get_origin(_bare(hint))
    if bare in SCALARS:
        return Scalar(SCALARS[bare])
    if bare is int:
        return _integer(where, hint)
    if origin in (Union, types.UnionType):
        return _union(where, bare, nesting)
    if origin is list:
        return ListOf(_item(f"{where}[]", typing.get_args(bare), (*nesting, list)))
    if origin is dict:
        return _map(where, bare, nesting)
    if isinstance(bare, type) and issubclass(bare, StrEnum):
        return _words(where, bare)
    if isinstance(bare, type) and dataclasses.is_dataclass(bare):
        return _record(where, bare, nesting)
    raise BadDeclaration(f"{where}: {bare!r} cannot be carried; see the table in libmh.spec")


def _integer(where: str, hint: Any) -> Scalar:
    width = next((item for item in _metadata(hint) if isinstance(item, Width)), None)
    if width is None:
        raise BadDeclaration(f"{where}: a bare int has no width: say U32, I64, Time ...")
    return Scalar(width.word)


def _union(where: str, bare: Any, nesting: tuple[type, ...]) -> Type:
    choices = typing.get_args(bare)
    if frozenset(choices) == PLAIN_CHOICES:
        return Anything()
    rest = [choice for choice in choices if choice is not type(None)]
    if len(rest) != 1 or len(choices) != 2:
        raise BadDeclaration(f"{where}: of unions only 'T | None' can be carried")
    return OptionalOf(type_of(where, rest[0], nesting))


def _words(where: str, choices: type[StrEnum]) -> Words:
    if not len(choices) or any(not choice or "\0" in choice for choice in choices):
        raise BadDeclaration(f"{where}: {choices.__name__} needs words, none of them empty")
    return Words(choices)


def _map(where: str, bare: Any, nesting: tuple[type, ...]) -> MapOf:
    key, *values = typing.get_args(bare) or (None,)
    if key is not str:
        raise BadDeclaration(f"{where}: the keys of a dict must be str")
    return MapOf(_item(f"{where}{{}}", values, (*nesting, dict)))


def _item(where: str, hints: Sequence[Any], nesting: tuple[type, ...]) -> Type:
    if len(hints) != 1 or isinstance(hints[0], TypeVar):
        raise BadDeclaration(f"{where}: the type of the items is not given")
    item = type_of(where, hints[0], nesting)
    if isinstance(item, OptionalOf):
        raise BadDeclaration(f"{where}: items cannot be absent: no bus carries that")
    return item


def _record(where: str, record: type, nesting: tuple[type, ...]) -> RecordOf:
    here = f"{where}: record {record.__name__}"
    if record in nesting:
        raise BadDeclaration(f"{here} contains itself")
    if not record.__dataclass_params__.frozen:  # type: ignore[attr-defined]  # every dataclass has it
        raise BadDeclaration(f"{here} is not frozen")
    if not (record.__doc__ or "").strip() or (record.__doc__ or "").startswith(f"{record.__name__}("):
        raise BadDeclaration(f"{here} has no docstring")
    hints = _read_hints(here, record)
    fields = dataclasses.fields(record)
    if [item.name for item in fields] != list(inspect.signature(record).parameters):
        raise BadDeclaration(
            f"{here} is not made from its fields: no InitVar, init=False or __init__ of its own"
        )
    return RecordOf(
        record, tuple(_field(here, item, hints[item.name], (*nesting, record)) for item in fields)
    )


def _field(where: str, item: "dataclasses.Field[Any]", hint: Any, nesting: tuple[type, ...]) -> Field:
    here = f"{where}.{item.name}"
    declared = type_of(here, hint, nesting)
    if not doc_of(hint):
        raise BadDeclaration(f"{here}: has no documentation: Annotated[type, 'what it is, its unit']")
    has_default = item.default is not dataclasses.MISSING or item.default_factory is not dataclasses.MISSING
    if isinstance(declared, OptionalOf) and item.default is not None:
        raise BadDeclaration(f"{here}: is optional, so its default must be None")
    if item.default is not dataclasses.MISSING and not _fits(declared, item.default):
        raise BadDeclaration(f"{here}: its default {item.default!r} is not of its type")
    _check_name(here, item.name)
    return Field(item.name, declared, doc_of(hint), required=not has_default)
