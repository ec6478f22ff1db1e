"""The declaration: what is read from it, and every way in which a bad one is refused at import."""

import types
import typing
from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from enum import StrEnum
from typing import Annotated, Any, Protocol, TypeVar

import pytest

from libmh.api.host import Host
from libmh.providers import shipped_interfaces
from libmh.spec import (
    I32,
    U8,
    U32,
    U64,
    Access,
    Anything,
    BadDeclaration,
    Effect,
    Interface,
    Kind,
    ListOf,
    MapOf,
    Name,
    OptionalOf,
    Plain,
    RecordOf,
    Scalar,
    Type,
    Word,
    event,
    interface,
    interface_of,
    member_of,
    method,
    prop,
    writes,
)

T = TypeVar("T")
NAME = "org.example.Thing"


def declared(**functions: object) -> Interface:
    """Declare a Protocol class with these attributes."""
    return declare(type("Thing", (Protocol,), {"__doc__": "A thing.", **functions}))


def declare(protocol: type) -> Interface:
    return interface_of(interface(NAME, version="1.0")(protocol))


def value(hint: Any) -> Interface:
    """A thing with the property `value` of that hint."""

    def read(self: object) -> None:
        """A value."""

    read.__annotations__ = {"return": hint}
    return declared(value=prop()(read))


def taking(hint: Any, *default: object) -> Interface:
    """A thing with the method `act` that takes `given` of that hint."""

    def act(self: object, given: object) -> None:
        """Act."""

    act.__annotations__ = {"given": hint, "return": None}
    act.__defaults__ = default or None
    return declared(act=method()(act))


@dataclass(frozen=True, slots=True)
class Inner:
    """Inside."""

    name: Annotated[str, "its name"]


@dataclass(frozen=True, slots=True)
class Bare:
    """Has a field of no width."""

    name: Annotated[int, "a number"]


@dataclass(frozen=True, slots=True)
class Outer:
    """Holds one that is bad."""

    inner: Annotated[list[Bare], "several"]


@dataclass(frozen=True, slots=True)
class Undescribed:
    """A field without its documentation."""

    name: str


@dataclass(slots=True)
class Thawed:
    """Not frozen."""

    name: Annotated[str, "a name"]


@dataclass(frozen=True, slots=True)
class Silent:
    name: Annotated[str, "a name"]


@dataclass(frozen=True, slots=True)
class Endless:
    """Holds itself."""

    more: Annotated["list[Endless]", "more"]


@dataclass(frozen=True, slots=True)
class Optimist:
    """Is optional and has no default."""

    name: Annotated[str | None, "a name"]


@dataclass(frozen=True, slots=True)
class Mistaken:
    """Its default is not of its type."""

    size: Annotated[U8, "a size"] = 300


@dataclass(frozen=True, slots=True)
class Derived:
    """Has a field that its maker does not take."""

    name: Annotated[str, "a name"]
    size: Annotated[U8, "a size"] = field(default=0, init=False)


@dataclass(frozen=True, slots=True)
class Seeded:
    """Takes what is no field."""

    name: Annotated[str, "a name"]
    seed: InitVar[int]


@dataclass(frozen=True, slots=True)
class Forward:
    """Names a type that does not exist at run time."""

    name: Annotated["Nowhere", "a name"]  # type: ignore[name-defined]  # noqa: F821 - that is the point


class Nothing(StrEnum):
    """No words."""


class Empty(StrEnum):
    """An empty word."""

    NONE = ""


@pytest.mark.parametrize(
    ("hint", "says"),
    [
        (int, "bare int has no width"),
        (complex, "cannot be carried"),
        (object, "cannot be carried"),
        (Any, "cannot be carried"),
        (list, "cannot be carried"),
        (dict, "cannot be carried"),
        (typing.List, "type of the items"),  # noqa: UP006 - a bare one is the case
        (typing.Dict, "keys of a dict must be str"),  # noqa: UP006
        (typing.List[T], "type of the items"),  # type: ignore[valid-type]  # noqa: UP006
        (list[U8 | None], "items cannot be absent"),
        (dict[str, U8 | None], "items cannot be absent"),
        (list[int], r"value\[\]: a bare int"),
        (dict[str, int], r"value\{\}: a bare int"),
        (dict[U8, str], "keys of a dict must be str"),
        (set[str], "cannot be carried"),
        (tuple[str, U8], "each of its items must be named"),
        (str | U8, "only 'T | None'"),
        (str | U8 | None, "only 'T | None'"),
        (Bare, "Bare.name: a bare int"),
        (Outer, r"Outer.inner\[\]: record Bare.name: a bare int"),
        (Undescribed, "Undescribed.name: has no documentation"),
        (Thawed, "Thawed is not frozen"),
        (Silent, "Silent has no docstring"),
        (Endless, "Endless contains itself"),
        (Optimist, "Optimist.name: is optional, so its default must be None"),
        (Mistaken, "Mistaken.size: its default 300"),
        (Derived, "Derived is not made from its fields"),
        (Seeded, "Seeded is not made from its fields"),
        (Forward, "Forward: name 'Nowhere' is not defined"),
        (Nothing, "Nothing needs words"),
        (Empty, "Empty needs words"),
        (list[list[list[list[list[list[list[list[list[list[str]]]]]]]]]], "nest deeper than"),
        ("Nowhere", "'Nowhere' is not defined"),
        (None, "answers one value"),
    ],
    ids=str,
)
def test_a_type_that_nothing_carries_is_refused(hint: Any, says: str) -> None:
    with pytest.raises(BadDeclaration, match=says) as refused:
        value(hint)
    assert f"{NAME}.value" in str(refused.value)


@pytest.mark.parametrize(
    ("hint", "default"),
    [
        (U8, 256),
        (U8, True),
        (U8, "1"),
        (U8, None),
        (bool, 1),
        (str, None),
        (str, "\0"),
        (float, "1"),
        (bytes, "b"),
        (list[str], ()),
        (dict[str, str], {}),
        (Inner, Inner("a")),
        (Access, "yes"),
    ],
    ids=str,
)
def test_a_default_that_does_not_fit_is_refused(hint: Any, default: object) -> None:
    with pytest.raises(BadDeclaration, match=rf"{NAME}.act\(given\): its default .* is not of its type"):
        taking(hint, default)


@pytest.mark.parametrize(
    ("hint", "default"),
    [
        (U8, 255),
        (bool, False),
        (str, ""),
        (float, 1.5),
        (bytes, b""),
        (U8 | None, None),
        (Access, Access.OPEN),
    ],
    ids=str,
)
def test_a_default_that_fits_is_kept(hint: Any, default: object) -> None:
    [argument] = taking(hint, default).members["act"].arguments
    assert (argument.required, argument.default) == (False, default)


def no_hint(self, given):  # type: ignore[no-untyped-def]
    """Act."""


def no_answer(self, given: str):  # type: ignore[no-untyped-def]
    """Act."""


def no_doc(self: object) -> None: ...


def no_self() -> None:
    """Act."""


def starred(self: object, *given: str) -> None:
    """Act."""


def keyword_only(self: object, *, given: str) -> None:
    """Act."""


def same_name(self: object, one: Annotated[str, Name("a")], two: Annotated[str, Name("a")]) -> None:
    """Act."""


def bad_name(self: object, one: Annotated[str, Name("a b")]) -> None:
    """Act."""


def fine(self: object, given: str) -> None:
    """Act."""


def answers(self: object) -> str:
    """Answer."""
    return ""


def answers_two(self: object) -> tuple[str, str]:
    """Answer."""
    return "", ""


async def waits(self: object) -> str:
    """Answer."""
    return ""


def copy_of(function: Callable[..., Any]) -> types.FunctionType:
    """A copy, so that marks do not pile up on one function."""
    assert isinstance(function, types.FunctionType)
    made = types.FunctionType(function.__code__, function.__globals__, function.__name__)
    made.__kwdefaults__, made.__doc__ = function.__kwdefaults__, function.__doc__
    made.__annotations__ = dict(function.__annotations__)
    return made


REFUSED: list[tuple[Any, str]] = [
    (copy_of(fine), "public but not declared"),
    (5, "only properties, methods and events"),
    (staticmethod(fine), "only properties, methods and events"),
    (method()(copy_of(no_hint)), "has no type hint"),
    (method()(copy_of(no_answer)), "what it answers has no type hint"),
    (method()(copy_of(no_doc)), "has no docstring"),
    (method()(copy_of(no_self)), "first parameter 'self'"),
    (method()(copy_of(starred)), r"\(given\): only plain named arguments"),
    (method()(copy_of(keyword_only)), r"\(given\): only plain named arguments"),
    (method()(copy_of(same_name)), "two arguments have one wire name"),
    (method()(copy_of(bad_name)), "'a b' is not a name that can be carried"),
    (method(name="a-b")(copy_of(answers)), "'a-b' is not a name that can be carried"),
    (method(name="a" * 256)(copy_of(answers)), "is not a name that can be carried"),
    (method(returns="a b")(copy_of(answers)), "'a b' is not a name that can be carried"),
    (method(returns=("a", "b"))(copy_of(answers)), "names several results but answers one value"),
    (method()(copy_of(answers_two)), "each of its items must be named"),
    (method(returns=("a",))(copy_of(answers_two)), "each of its items must be named"),
    (method(returns=("a", "a"))(copy_of(answers_two)), "two results have one name"),
    (method(objects=("nothing",))(copy_of(fine)), "acts on 'nothing', which is not one of its arguments"),
    (method(deadline=0)(copy_of(answers)), "deadline must be more than 0 s"),
    (method(deadline=float("inf"))(copy_of(answers)), "deadline must be more than 0 s"),
    (method()(copy_of(waits)), "is asynchronous"),
    (prop()(copy_of(fine)), "a property takes no arguments and answers one value"),
    (prop()(copy_of(answers_two)), "each of its items must be named"),
    (event()(copy_of(answers)), "an event answers nothing"),
    (writes("absent")(copy_of(fine)), "writes 'absent', which is not a declared property"),
]


@pytest.mark.parametrize(("function", "says"), REFUSED, ids=[says for _, says in REFUSED])
def test_a_bad_member_is_refused_by_name(function: object, says: str) -> None:
    with pytest.raises(BadDeclaration, match=says) as refused:
        declared(act=function)
    assert "act" in str(refused.value) or "fine" in str(refused.value)


def sets(self: object, value: U8) -> None:
    """Set it."""


def sets_text(self: object, value: str) -> None:
    """Set it."""


def sets_silently(self: object, value: str) -> None: ...


def sets_and_tells(self: object, value: str) -> str:
    """Set it."""
    return value


@pytest.mark.parametrize(
    ("read", "write", "says"),
    [
        (prop(), sets, "must take one argument of the type of 'value'"),
        (prop(), answers, "must take one argument of the type of 'value'"),
        (prop(), sets_and_tells, "must take one argument of the type of 'value'"),
        (prop(), sets_silently, "has no docstring"),
        (prop(constant=True), sets_text, "is declared constant"),
        (method(), sets_text, "is not a declared property"),
    ],
    ids=str,
)
def test_a_setter_that_does_not_fit_is_refused(
    read: Callable[[Any], Any], write: Callable[..., Any], says: str
) -> None:
    with pytest.raises(BadDeclaration, match=says):
        declared(value=read(copy_of(answers)), set_value=writes("value")(write))


def test_two_setters_of_one_property_are_refused() -> None:
    one, two = (writes("value")(copy_of(sets_text)) for _ in range(2))
    with pytest.raises(BadDeclaration, match="is written by 'sets_text' already"):
        declared(value=prop()(copy_of(answers)), set_one=one, set_two=two)


def test_two_members_of_one_wire_name_are_refused() -> None:
    one, two = (method(name="list")(copy_of(answers)) for _ in range(2))
    with pytest.raises(BadDeclaration, match="the wire name 'list' is declared twice"):
        declared(one=one, two=two)


def test_what_is_annotated_alone_is_refused() -> None:
    class Thing(Protocol):
        """A thing."""

        size: U8

    with pytest.raises(BadDeclaration, match=rf"{NAME}\.size: a declaration has only properties"):
        declare(Thing)


def test_a_class_that_inherits_is_refused() -> None:
    class Base(Protocol):
        """A base."""

    class Thing(Base, Protocol):
        """A thing."""

    with pytest.raises(BadDeclaration, match="inherits"):
        declare(Thing)


def test_a_plain_class_is_refused() -> None:
    class Thing:
        """A thing."""

    with pytest.raises(BadDeclaration, match=r"must be a typing\.Protocol class"):
        declare(Thing)


def test_a_class_without_documentation_is_refused() -> None:
    class Thing(Protocol): ...

    with pytest.raises(BadDeclaration, match="has no docstring"):
        declare(Thing)


@pytest.mark.parametrize(
    "options",
    [
        {"name": "Thing"},
        {"name": "org.example."},
        {"name": "org.exa-mple.Thing"},
        {"name": "org." + "a" * 255},
        {"version": "1"},
        {"version": "1.0.0"},
        {"version": "x.y"},
        {"path": "org/example"},
        {"path": "/org/example/"},
        {"bus": "example"},
    ],
    ids=str,
)
def test_a_bad_name_version_or_place_is_refused(options: dict[str, Any]) -> None:
    class Thing(Protocol):
        """A thing."""

    given = {"name": NAME, "version": "1.0"} | options
    with pytest.raises(BadDeclaration):
        interface(given.pop("name"), **given)(Thing)


def test_nothing_else_declares() -> None:
    with pytest.raises(BadDeclaration, match="does not declare an interface"):
        interface_of(Inner)
    with pytest.raises(BadDeclaration, match="is not a member of a declared interface"):
        member_of(fine)


@pytest.mark.parametrize(
    ("hint", "tree"),
    [
        (bool, Scalar(Word.BOOL)),
        (float, Scalar(Word.DOUBLE)),
        (bytes, Scalar(Word.BYTES)),
        (Annotated[I32, "with words"], Scalar(Word.I32)),
        (Annotated[U32 | None, "or none"], OptionalOf(Scalar(Word.U32))),
        (typing.Optional[str], OptionalOf(Scalar(Word.STRING))),  # noqa: UP045 - the older spelling counts, too
        (Plain, Anything()),
        (Annotated[Plain, "anything"], Anything()),
        (dict[str, list[U64]], MapOf(ListOf(Scalar(Word.U64)))),
    ],
    ids=str,
)
def test_hints_become_type_trees(hint: Any, tree: Type) -> None:
    assert value(hint).members["value"].type == tree


def test_a_record_becomes_its_fields() -> None:
    tree = value(Inner).members["value"].type
    assert isinstance(tree, RecordOf)
    assert [(each.name, each.type, each.doc, each.required) for each in tree.fields] == [
        ("name", Scalar(Word.STRING), "its name", True)
    ]


def test_a_member_tells_what_a_transport_needs() -> None:
    host = interface_of(Host)
    member = host.members["set_uuid"]
    assert (host.short, host.path, host.bus) == ("Host", "/org/matahariproject/Host", host.name)
    assert (member.action, member.kind) == ("org.matahariproject.Host.set_uuid", Kind.METHOD)
    assert (member.access, member.effect, member.objects) == (Access.ADMIN, Effect.CHANGES, ("lifetime",))
    assert [(a.name, a.required) for a in member.arguments] == [("lifetime", True), ("uuid", True)]
    assert [result.name for result in member.results] == ["rc"]
    assert member.summary.startswith("Set the Custom UUID. Answers 0")


def test_a_property_and_its_setter_are_one_member() -> None:
    member = interface_of(Host).members["update_interval"]
    assert member.setter == "set_update_interval"
    assert member_of(Host.update_interval) is member
    assert member_of(Host.set_update_interval) is member


def test_what_reads_is_idempotent_and_the_rest_says_so() -> None:
    members = interface_of(Host).members
    assert members["get_uuid"].idempotent
    assert members["set_uuid"].idempotent
    assert not members["reboot"].idempotent


@pytest.mark.parametrize("shipped", shipped_interfaces(), ids=lambda shipped: shipped.short)
def test_what_is_shipped_is_documented_throughout(shipped: Interface) -> None:
    assert shipped.doc
    undocumented = [
        f"{member.action}({argument.name})"
        for member in shipped.members.values()
        for argument in member.arguments
        if not argument.doc and member.name != "set_is_postboot_configured"
    ]
    assert undocumented == []
    unsourced = [member.action for member in shipped.of(Kind.PROPERTY) if not member.source]
    assert unsourced == []
