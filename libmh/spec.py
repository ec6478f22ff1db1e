"""The vocabulary of a declaration: typed Protocol classes, read once at import into `Interface` records.

A declaration that no transport could carry is refused here with `BadDeclaration`, naming the member: a
missing hint, a missing docstring, a type outside this table, in the members themselves or in any record that
they mention.

===================  ==========================  ===============================================
hint                 type tree                   plain tree
===================  ==========================  ===============================================
bool, float, str     Scalar(bool, double, ...)   the same
bytes                Scalar(bytes)               the same
U8 ... U64, I8..I64  Scalar(u8 ... i64)          int, in range
Time                 Scalar(time)                int, nanoseconds since the epoch
Plain                Anything()                  None bool int float str bytes list dict, nested
list[T]              ListOf(T)                   list
dict[str, T]         MapOf(T)                    dict
T | None             OptionalOf(T)               None or T
a StrEnum            Words(cls)                  str
a frozen dataclass   RecordOf(cls, fields)       dict: an absent optional is an absent key
===================  ==========================  ===============================================

A string in `Annotated` is the documentation of a record's field or of an argument; `Name` gives it another
wire name.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias, TypeVar, Union, runtime_checkable

F = TypeVar("F", bound=Callable[..., Any])
DEFAULT_DEADLINE = 20.0
PROPERTY_DEADLINE = 2.0


class BadDeclaration(TypeError):
    """An API declaration that cannot be served; raised at import."""


class Word(StrEnum):
    """The scalars that every transport can carry."""

    BOOL = "bool"
    U8 = "u8"
    U16 = "u16"
    U32 = "u32"
    U64 = "u64"
    I8 = "i8"
    I16 = "i16"
    I32 = "i32"
    I64 = "i64"
    DOUBLE = "double"
    STRING = "string"
    BYTES = "bytes"
    TIME = "time"


RANGES: Mapping[Word, tuple[int, int]] = MappingProxyType(
    {Word(f"u{bits}"): (0, 2**bits - 1) for bits in (8, 16, 32, 64)}
    | {Word(f"i{bits}"): (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) for bits in (8, 16, 32, 64)}
    | {Word.TIME: (0, 2**63 - 1)}
)


@dataclass(frozen=True, slots=True)
class Width:
    """The wire width of an `int`."""

    word: Word


@dataclass(frozen=True, slots=True)
class Name:
    """The wire name of an argument, where Python's grammar or the ancestor's contract wants another one."""

    wire: str


U8 = Annotated[int, Width(Word.U8)]
U16 = Annotated[int, Width(Word.U16)]
U32 = Annotated[int, Width(Word.U32)]
U64 = Annotated[int, Width(Word.U64)]
I8 = Annotated[int, Width(Word.I8)]
I16 = Annotated[int, Width(Word.I16)]
I32 = Annotated[int, Width(Word.I32)]
I64 = Annotated[int, Width(Word.I64)]
Time = Annotated[int, Width(Word.TIME)]
Plain: TypeAlias = Union[bool, int, float, str, bytes, list[Any], dict[str, Any], None]  # noqa: UP007 - compared at run time


@dataclass(frozen=True, slots=True)
class Scalar:
    word: Word


@dataclass(frozen=True, slots=True)
class ListOf:
    item: "Type"


@dataclass(frozen=True, slots=True)
class MapOf:
    """Keys are strings."""

    value: "Type"


@dataclass(frozen=True, slots=True)
class OptionalOf:
    item: "Type"


@dataclass(frozen=True, slots=True)
class Words:
    choices: type[StrEnum]


@dataclass(frozen=True, slots=True)
class Anything:
    """A value whose type only the value knows: D-Bus `v`."""


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a record, or one named result of a method."""

    name: str
    type: "Type"
    doc: str = ""
    required: bool = True


@dataclass(frozen=True, slots=True)
class RecordOf:
    record: type
    fields: tuple[Field, ...]

    def __hash__(self) -> int:
        # types are looked up by at every call, and the hash of all fields costs more than most calls do
        return hash(self.record)


Type: TypeAlias = Scalar | ListOf | MapOf | OptionalOf | Words | Anything | RecordOf


class Kind(StrEnum):
    PROPERTY = "property"
    METHOD = "method"
    EVENT = "event"


class Access(StrEnum):
    """What a local caller in an active session needs: the word that polkit uses."""

    OPEN = "yes"
    ADMIN = "auth_admin"


class Effect(StrEnum):
    """What a member does to the machine; remote policy and confirmations follow from it."""

    READS = "reads"
    CHANGES = "changes"
    DISRUPTS = "disrupts"


@dataclass(frozen=True, slots=True)
class Argument:
    name: str
    parameter: str
    type: Type
    doc: str
    required: bool
    default: object = None


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """One property, method or event; there is one object for each, so it is compared by identity.

    `attribute` is its name in Python, `setter` the one that writes it (properties), `objects` name the
    arguments that say what is acted on, `max_age` is how old in seconds an answered property may be,
    `deadline` is in seconds.
    """

    interface: str
    name: str
    attribute: str
    kind: Kind
    doc: str
    access: Access = Access.OPEN
    effect: Effect = Effect.READS
    deadline: float = DEFAULT_DEADLINE
    objects: tuple[str, ...] = ()
    idempotent: bool = True
    inline: bool = False
    constant: bool = False
    max_age: float = 0.0
    source: str = ""
    setter: str | None = None
    arguments: tuple[Argument, ...] = ()
    results: tuple[Field, ...] = ()

    @property
    def action(self) -> str:
        """The polkit action id."""
        return f"{self.interface}.{self.name}"

    @property
    def type(self) -> Type:
        """Of a property: its type."""
        return self.results[0].type

    @property
    def summary(self) -> str:
        """The first paragraph of the documentation, on one line."""
        return " ".join(self.doc.split("\n\n", 1)[0].split())


@dataclass(frozen=True, slots=True, eq=False)
class Interface:
    """A declared interface: `version` is `major.minor`; `bus` and `path` are its D-Bus place."""

    name: str
    version: str
    doc: str
    protocol: type
    bus: str
    path: str
    members: Mapping[str, Member] = field(repr=False)

    def of(self, kind: Kind) -> tuple[Member, ...]:
        return tuple(member for member in self.members.values() if member.kind is kind)

    @property
    def short(self) -> str:
        """The last element of the name: `Host`."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, slots=True)
class Mark:
    """What a decorator leaves on a function until `@interface` reads the class."""

    kind: Kind
    options: Mapping[str, Any]
    writes: str | None = None


def _mark(kind: Kind, *, writes: str | None = None, **options: Any) -> Callable[[F], F]:
    def leave(function: F) -> F:
        vars(function)["__mh_mark__"] = Mark(kind, options, writes)
        return function

    return leave


def prop(
    *,
    source: str = "",
    constant: bool = False,
    max_age: float = 0.0,
    inline: bool = False,
    deadline: float = PROPERTY_DEADLINE,
    name: str | None = None,
) -> Callable[[F], F]:
    """A property: a method of no arguments that answers its value. `constant`: never changes while the agent
    runs; `max_age`: an answer may be that many seconds old; `inline`: answers from memory, never waits."""
    return _mark(
        Kind.PROPERTY,
        source=source,
        constant=constant,
        max_age=max_age,
        inline=inline,
        deadline=deadline,
        name=name,
    )


def writes(name: str, *, access: Access = Access.ADMIN, effect: Effect = Effect.CHANGES) -> Callable[[F], F]:
    """The half that sets the property `name`: a method of one argument of the property's type."""
    return _mark(Kind.PROPERTY, writes=name, access=access, effect=effect)


def method(
    *,
    access: Access = Access.ADMIN,
    effect: Effect = Effect.READS,
    deadline: float = DEFAULT_DEADLINE,
    objects: tuple[str, ...] = (),
    idempotent: bool | None = None,
    inline: bool = False,
    returns: str | tuple[str, ...] = "result",
    name: str | None = None,
) -> Callable[[F], F]:
    """A method. `returns` names what it answers (a tuple of names for a `tuple[...]` hint). What only reads
    is idempotent; anything else is not unless it says so: it is then run again when its answer was lost."""
    return _mark(
        Kind.METHOD,
        access=access,
        effect=effect,
        deadline=deadline,
        objects=objects,
        idempotent=effect is Effect.READS if idempotent is None else idempotent,
        inline=inline,
        returns=returns,
        name=name,
    )


def event(*, name: str | None = None) -> Callable[[F], F]:
    """Something that happens: its arguments are the fields that are delivered. Its body is `return`, not
    `...`: a type checker then does not ask providers to implement it."""
    return _mark(Kind.EVENT, name=name)


INTERFACE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+")
MEMBER_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
ARGUMENT_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")  # the ancestor has an `expected-rc`
VERSION = re.compile(r"[0-9]{1,4}\.[0-9]{1,4}")
OBJECT_PATH = re.compile(r"(/[A-Za-z0-9_]+)+")


def interface(
    name: str, *, version: str, bus: str | None = None, path: str | None = None
) -> Callable[[type], type]:
    """Read a Protocol class into an `Interface`. `bus` and `path` default to the name itself, for D-Bus."""
    from libmh.declaration import read

    def declare(protocol: type) -> type:
        if not INTERFACE_NAME.fullmatch(name) or len(name) > 255:
            raise BadDeclaration(f"'{name}' is not an interface name: expected words joined by dots")
        if not VERSION.fullmatch(version):
            raise BadDeclaration(f"{name}: version '{version}' is not 'major.minor'")
        place = path or "/" + name.replace(".", "/")
        if not OBJECT_PATH.fullmatch(place) or not INTERFACE_NAME.fullmatch(bus or name):
            raise BadDeclaration(f"{name}: '{place}' or '{bus or name}' is not a place on D-Bus")
        declared = Interface(
            name=name,
            version=version,
            doc=(protocol.__doc__ or "").strip(),
            protocol=protocol,
            bus=bus or name,
            path=place,
            members=MappingProxyType(read(name, protocol)),
        )
        type.__setattr__(protocol, "__mh_interface__", declared)
        return runtime_checkable(protocol)

    return declare


def interface_of(protocol: type) -> Interface:
    """The interface that a Protocol class, or a class that implements it, declares."""
    declared = getattr(protocol, "__mh_interface__", None)
    if not isinstance(declared, Interface):
        raise BadDeclaration(
            f"{protocol.__qualname__} does not declare an interface: decorate it with @interface"
        )
    return declared


def member_of(function: Callable[..., Any]) -> Member:
    """The member that a function of a declared Protocol class is: `member_of(Host.heartbeat)`."""
    member = getattr(function, "__mh_member__", None)
    if not isinstance(member, Member):
        raise BadDeclaration(f"{function!r} is not a member of a declared interface")
    return member
