"""Reaching a host: `connect(url)`, and proxies that *are* a `Host`, `Network`, ... wherever the host is.

==============================  =====================================================
URL                             reaches
==============================  =====================================================
local:                          this host, in this process
system:                         the agent on the system bus
unix:path=/run/my/bus           the agent on another D-Bus bus
amqp://host:port/HOST-UUID      a host's agent through a broker
amqp://host:port                a listening agent; of a broker: the fleet's conductor
amqps://user@host:port/...      the same over TLS, as a user or by a certificate
amqps+srv://domain/...          the same through the brokers that the domain's DNS names
==============================  =====================================================

::

    with connect("system:") as here:
        print(here.proxy(Host).memory())
"""

import functools
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping
from types import FunctionType, TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self, TypeVar, cast

from libmh.call import Request, Verb, is_unknown_value, restore
from libmh.errors import InvalidArguments, NotFound
from libmh.events import Event
from libmh.spec import Argument, Kind, Member, Plain, interface_of
from libmh.wire import dump

if TYPE_CHECKING:
    from libmh.together import Fleet

P = TypeVar("P")

TRANSPORTS: Mapping[str, str] = {
    "system": "mh_dbus.client",
    "unix": "mh_dbus.client",
    **dict.fromkeys(("amqp", "amqps", "amqp+srv", "amqps+srv", "amqp+unix"), "mh_amqp.client"),
}
"""URL scheme -> module with `async connect(url) -> Transport`; imported when it is first asked for."""


FLEETS: Mapping[str, str] = dict.fromkeys(("amqp", "amqps", "amqp+srv", "amqps+srv"), "mh_amqp.fleet")
"""URL scheme -> module with `async connect(url) -> libmh.fleet.Line`; imported as those above."""


class Transport(Protocol):
    """One verb, and events. Everything it raises is a `Problem`; nothing outlives its deadline."""

    async def call(self, request: Request) -> Plain:
        """Carry a request to a dispatcher and its answer back."""
        ...

    def events(self, interface: str = "", member: str = "") -> AsyncIterator[Event]:
        """Events of one interface or member, when named; `unavailable` ends it when the peer is lost."""
        ...

    async def close(self) -> None:
        """Let go of the connection."""
        ...


def request_for(member: Member, attribute: str, given: tuple[Any, ...], named: Mapping[str, Any]) -> Request:
    """The request that a Python call of `attribute` means; what does not fit is refused here already."""
    if member.kind is Kind.PROPERTY and attribute != member.setter:
        if given or named:
            raise InvalidArguments(f"{member.name}: a property takes no arguments", argument=member.name)
        return Request(member.interface, member.name, Verb.GET)
    if member.kind is Kind.PROPERTY:
        values = (*given, *named.values())
        if len(values) != 1:
            raise InvalidArguments(
                f"{member.name}: expected one value, got {len(values)}", argument=member.name
            )
        return Request(member.interface, member.name, Verb.SET, [dump(member.type, values[0], member.name)])
    return Request(member.interface, member.name, Verb.CALL, _by_name(member, given, named))


def _by_name(member: Member, given: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Plain]:
    if len(given) > len(member.arguments):
        raise InvalidArguments(
            f"{member.name}: takes {len(member.arguments)} arguments, got {len(given)}", argument=member.name
        )
    by_parameter: dict[str, Argument] = {argument.parameter: argument for argument in member.arguments}
    values = {argument.parameter: value for argument, value in zip(member.arguments, given, strict=False)}
    for parameter, value in named.items():
        if parameter not in by_parameter or parameter in values:
            raise InvalidArguments(
                f"{member.name}: there is no further argument '{parameter}'", argument=parameter
            )
        values[parameter] = value
    for argument in member.arguments:
        if argument.required and argument.parameter not in values:
            raise InvalidArguments(f"{argument.name}: is missing", argument=argument.name)
    return {
        by_parameter[parameter].name: dump(by_parameter[parameter].type, value, by_parameter[parameter].name)
        for parameter, value in values.items()
    }


class Connection(Protocol):
    """A connection for plain Python: each call blocks its own thread."""

    def request(self, request: Request) -> Plain:
        """The plain tree that answers a request."""
        ...

    def proxy(self, protocol: Callable[..., P]) -> P:
        """The host's object of that interface: it is a `protocol`, and each call of it is a request."""
        ...

    def events(self, interface: str = "", member: str = "", timeout: float | None = None) -> Iterator[Event]:
        """Events as they come; ends with `Timeout` when none came for `timeout` seconds."""
        ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def connect(url: str = "local:", seconds: float | None = None) -> Connection:
    """A connection to the host that a URL names, within `seconds` when that is less than it would take by
    itself. Raises `invalid-arguments` for a URL that it cannot read, `unavailable` or `timeout` when nobody
    answers there."""
    scheme = url.partition(":")[0]
    if scheme == "local":
        from libmh.local import LocalConnection

        return LocalConnection()
    from libmh.remote import CONNECT_SECONDS, BlockingConnection, open_transport

    limit = CONNECT_SECONDS if seconds is None else min(seconds, CONNECT_SECONDS)
    return BlockingConnection(functools.partial(open_transport, url), limit)


def fleet(url: str) -> "Fleet":
    """Many hosts at once, through the broker that they are at. Raises as `connect`."""
    from libmh.together import Fleet

    return Fleet(url)


def proxy(protocol: Callable[..., P], ask: Callable[[Request], Plain]) -> P:
    """An object that is a `protocol`, a declared Protocol class, and makes a request of every call."""
    made: P = _proxy_class(cast("Hashable", protocol))(ask)
    return made


@functools.cache
def _proxy_class(key: Hashable) -> type[Any]:
    protocol = cast("type[Any]", key)
    interface = interface_of(protocol)

    def start(self: Any, ask: Callable[[Request], Plain]) -> None:
        self._ask = ask

    body: dict[str, Any] = {
        "__init__": start,
        "__doc__": protocol.__doc__,
        "__module__": protocol.__module__,
    }
    for member in interface.members.values():
        if member.kind is not Kind.EVENT:
            for attribute in filter(None, (member.attribute, member.setter)):
                body[attribute] = _forwarder(member, attribute, getattr(protocol, attribute))
    return type(f"{protocol.__name__}Proxy", (protocol,), body)


def _forwarder(member: Member, attribute: str, declared: FunctionType) -> Callable[..., Any]:
    code = declared.__code__
    known = code.co_varnames[1 : code.co_argcount]

    @functools.wraps(declared)
    def forward(self: Any, *given: Any, **named: Any) -> Any:
        unknown = named.keys() - known
        if unknown:
            raise InvalidArguments(
                f"{member.name}: there is no argument '{min(unknown)}'", argument=min(unknown)
            )
        request = request_for(member, attribute, given, named)
        try:
            return restore_for(member, attribute, self._ask(request))
        except NotFound as problem:
            if is_unknown_value(member, problem):
                return None
            raise

    return forward


def restore_for(member: Member, attribute: str, plain: Plain) -> Any:
    """The typed answer of `attribute`; a setter answers nothing."""
    return None if attribute == member.setter else restore(member, plain)
