"""What is served on D-Bus, by path, interface and member; and values, encoded once while they stay the
same."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from libmh.bus import variant
from libmh.call import Request, Verb
from libmh.errors import Failed, InvalidArguments
from libmh.spec import Interface, Kind, Member, Plain
from mh_dbus.introspection import object_xml
from mh_dbus.signatures import (
    Encoder,
    arguments_signature,
    complete_types,
    encoder,
    property_type,
    results_signature,
    signature_of,
)

ROOT = "/org/matahariproject"
MANAGERS = frozenset({"/", ROOT})
MAX_REPLY = 16 << 20  # bytes; a system bus disconnects whoever sends more than 32 MiB
NOTHING_YET = object()


@dataclass(slots=True)
class Property:
    """A property at its place. Its value stays encoded as long as the dispatcher answers the very same
    object."""

    interface: Interface
    member: Member
    request: Request
    signature: str
    _encode: Encoder
    plain: object = NOTHING_YET
    held: Any = None
    size: int = 0

    def encoded(self, plain: Plain) -> Any:
        """The value as a variant. Raises `Failed` when it is too large for a message."""
        if plain is not self.plain:
            self.size = checked_size(plain, self.member.action)
            self.held = variant(self.signature, self._encode(plain))
            self.plain = plain
        return self.held


@dataclass(frozen=True, slots=True)
class Method:
    """A method at its place, with the signatures of what it takes and answers."""

    interface: Interface
    member: Member
    takes: str
    answers: str

    def check(self, signature: str) -> None:
        """Refuse a body that is not of the declared types, naming the argument."""
        if signature == self.takes:
            return
        given = complete_types(signature)
        for at, argument in enumerate(self.member.arguments):
            wanted = signature_of(argument.type)
            if at >= len(given):
                raise InvalidArguments(f"{argument.name}: is missing", argument=argument.name)
            if given[at] != wanted:
                raise InvalidArguments(
                    f"{argument.name}: expected the D-Bus type '{wanted}', got '{given[at]}'",
                    argument=argument.name,
                )
        raise InvalidArguments(
            f"{self.member.name}: takes {len(self.member.arguments)} arguments, got {len(given)}",
            argument=self.member.name,
        )

    def body(self, plain: Plain) -> list[Any]:
        """What the method answers as a body. Raises `Failed` when it is too large for a message."""
        checked_size(plain, self.member.action)
        results = self.member.results
        if not results:
            return []
        values = plain if len(results) > 1 and isinstance(plain, list) else [plain]
        return [encoder(each.type)(value) for each, value in zip(results, values, strict=True)]


@dataclass(frozen=True, slots=True)
class Place:
    """An object path: the interfaces there, and what Introspect answers."""

    path: str
    interfaces: tuple[Interface, ...]
    xml: str


@dataclass(slots=True)
class Surface:
    """Everything that is served, by what a message asks for."""

    places: dict[str, Place] = field(default_factory=dict)
    interfaces: dict[str, Interface] = field(default_factory=dict)
    methods: dict[tuple[str, str, str], Method] = field(default_factory=dict)
    properties: dict[tuple[str, str, str], Property] = field(default_factory=dict)
    reads: dict[tuple[str, str], Request] = field(default_factory=dict)
    """GetAll by path and interface."""

    def of(self, path: str, interface: str) -> dict[str, Property]:
        """The properties of an interface at a path, by name."""
        return {
            name: entry
            for (place, declared, name), entry in self.properties.items()
            if (place, declared) == (path, interface)
        }


def surface_of(interfaces: Iterable[Interface]) -> Surface:
    """Lay declared interfaces out on their paths."""
    surface = Surface()
    by_path: dict[str, tuple[Interface, ...]] = {}
    for interface in interfaces:
        by_path[interface.path] = (*by_path.get(interface.path, ()), interface)
        surface.interfaces[interface.name] = interface
        surface.reads[interface.path, interface.name] = Request(interface.name, verb=Verb.GET_ALL)
        for member in interface.members.values():
            _lay(surface, interface, member)
    for path, children in _tree(by_path).items():
        here = by_path.get(path, ())
        surface.places[path] = Place(
            path, here, object_xml(here, sorted(children), manager=path in MANAGERS)
        )
    return surface


def _lay(surface: Surface, interface: Interface, member: Member) -> None:
    place = (interface.path, interface.name, member.name)
    if member.kind is Kind.METHOD:
        surface.methods[place] = Method(
            interface, member, arguments_signature(member), results_signature(member)
        )
    elif member.kind is Kind.PROPERTY:
        kind = property_type(member)
        request = Request(interface.name, member.name, Verb.GET)
        surface.properties[place] = Property(interface, member, request, signature_of(kind), encoder(kind))


def _tree(paths: Mapping[str, object]) -> dict[str, set[str]]:
    """Every path and all that lie above it, with the names of the nodes directly below."""
    tree: dict[str, set[str]] = {"/": set()}
    for path in (*paths, ROOT):
        above = "/"
        for name in path.strip("/").split("/"):
            tree[above].add(name)
            above = f"{above.rstrip('/')}/{name}"
            tree.setdefault(above, set())
    return tree


def checked_size(plain: Plain, action: str) -> int:
    """About how many bytes a value takes in a message. Raises `Failed` above MAX_REPLY."""
    size = _size(plain)
    if size > MAX_REPLY:
        raise Failed(f"{action}: the answer of {size} bytes is too large for D-Bus", limit=str(MAX_REPLY))
    return size


def _size(plain: Plain) -> int:
    if isinstance(plain, str):
        return (len(plain) if plain.isascii() else 4 * len(plain)) + 16
    if isinstance(plain, bytes):
        return len(plain) + 16
    if isinstance(plain, list):
        return 16 + sum(map(_size, plain))
    if isinstance(plain, dict):
        return 16 * (1 + len(plain)) + sum(map(len, plain)) + sum(map(_size, plain.values()))
    return 16
