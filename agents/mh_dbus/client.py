"""The client half: `system:` and `unix:path=...` URLs as transports of `libmh.client`."""

import asyncio
import itertools
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

from libmh import bus as dbus
from libmh.bus import Bus, Message
from libmh.call import Bound, Request, Verb, prepare
from libmh.errors import BackendFailed, InvalidArguments, NotFound, Problem, Unavailable
from libmh.events import Event
from libmh.providers import find_interface
from libmh.spec import DEFAULT_DEADLINE, Anything, Interface, Kind, Member, Plain
from libmh.wire import dump
from mh_dbus.files import by_bus, host_interfaces
from mh_dbus.session import PROPERTIES
from mh_dbus.signatures import (
    NULL,
    arguments_signature,
    decode,
    encode_all,
    encoder,
    property_type,
    signature_of,
)

log = logging.getLogger("mh_dbus.client")
MARGIN = 2.0
"""What the way there and back may take beyond the deadline that the agent keeps."""
MAX_EVENTS = 1000


async def connect(url: str) -> "DBusTransport":
    """A transport to the agents on a bus. Raises `invalid-arguments` for a URL that it cannot read,
    `unavailable` when there is no bus."""
    scheme, _, rest = url.partition(":")
    if scheme == "system" and rest.strip("/"):
        raise InvalidArguments(f"'{url}': expected 'system:' alone", argument="url")
    return DBusTransport(await dbus.connect(dbus.SYSTEM if scheme == "system" else url))


class DBusTransport:
    """`libmh.client.Transport` over one connection."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus

    async def call(self, request: Request) -> Plain:
        """Carry a request to the agent that serves its interface, and its answer back."""
        interface = _declared(request.interface)
        if request.verb is Verb.GET_ALL:
            return await self._get_all(interface, request)
        # what does not fit the declaration is refused here, in the words that the agent would use
        asked = prepare(Bound(interface, None), request)
        if request.verb is Verb.GET:
            return await self._get(interface, asked.member, request)
        if request.verb is Verb.SET:
            await self._set(interface, asked.member, asked.values[0], request)
            return None
        return await self._call(interface, asked.member, asked.values, request)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._bus.close()

    async def _call(
        self, interface: Interface, member: Member, values: Sequence[Any], request: Request
    ) -> Plain:
        plain = [
            dump(argument.type, value, argument.name)
            for argument, value in zip(member.arguments, values, strict=True)
        ]
        body = encode_all([argument.type for argument in member.arguments], plain)
        answer = await self._ask(
            interface,
            interface.name,
            member.name,
            arguments_signature(member),
            body,
            _seconds(request, member),
        )
        if len(answer) != len(member.results):
            raise BackendFailed(
                f"{member.action} answered {len(answer)} values, expected {len(member.results)}"
            )
        found = [decode(result.type, value) for result, value in zip(member.results, answer, strict=True)]
        return found if len(found) > 1 else (found[0] if found else None)

    async def _get(self, interface: Interface, member: Member, request: Request) -> Plain:
        names = [interface.name, member.name]
        (value,) = await self._ask(interface, PROPERTIES, "Get", "ss", names, _seconds(request, member))
        return decode(property_type(member), value)

    async def _set(self, interface: Interface, member: Member, value: Any, request: Request) -> None:
        kind = property_type(member)
        if value is None:
            held = dbus.variant(NULL, "")
        else:
            held = dbus.variant(signature_of(kind), encoder(kind)(dump(kind, value, member.name)))
        body = [interface.name, member.name, held]
        await self._ask(interface, PROPERTIES, "Set", "ssv", body, _seconds(request, member))

    async def _get_all(self, interface: Interface, request: Request) -> Plain:
        seconds = request.deadline or DEFAULT_DEADLINE + MARGIN
        (values,) = await self._ask(interface, PROPERTIES, "GetAll", "s", [interface.name], seconds)
        return _properties(interface, values)

    async def _ask(
        self,
        place: Interface,
        interface: str,
        member: str,
        signature: str,
        body: Sequence[Any],
        seconds: float,
    ) -> list[Any]:
        return await self._bus.call(
            place.bus, place.path, interface, member, signature, body, timeout=seconds, raw=True
        )

    async def events(self, interface: str = "", member: str = "") -> AsyncIterator[Event]:
        """Events of the agents that are there now, of one interface or member when named. It ends with
        `unavailable` when one of them goes away."""
        wanted = [_declared(interface)] if interface else list(host_interfaces())
        listener = Listener(self._bus, wanted)
        try:
            await listener.start()
            while True:
                event = await listener.next()
                if member in ("", event.member):
                    yield event
        finally:
            await listener.stop()


def _declared(name: str) -> Interface:
    found = find_interface(name)
    if found is None:
        raise NotFound(f"no interface '{name[:255]}' is declared here", interface=name[:255])
    return found


def _seconds(request: Request, member: Member) -> float:
    return request.deadline or member.deadline + MARGIN


def _properties(interface: Interface, values: Mapping[str, Any]) -> dict[str, Plain]:
    """The values of GetAll by their declared types; a newer agent may have more than we know."""
    kinds = {member.name: property_type(member) for member in interface.of(Kind.PROPERTY)}
    return {name: decode(kinds.get(name, Anything()), value) for name, value in values.items()}


class Listener:
    """The signals of some interfaces as events, from those who own their bus names and from nobody else."""

    def __init__(self, bus: Bus, interfaces: Sequence[Interface]) -> None:
        self._bus = bus
        self._interfaces = {interface.name: interface for interface in interfaces}
        self._owners: dict[str, str] = {}
        self._rules: list[str] = []
        self._came: asyncio.Queue[Event | Unavailable] = asyncio.Queue()
        self._numbers = itertools.count(1)
        self._on = True
        self._end: Callable[[], None] = bus.on_signal(self._take)

    async def start(self) -> None:
        """Ask for the signals. Raises `Unavailable` when none of the names has an owner."""
        self._bus.closed.add_done_callback(lambda _: self._lost("the connection to the bus is lost"))
        for name, served in by_bus(self._interfaces.values()).items():
            await self._match(f"sender='{dbus.DAEMON}',member='NameOwnerChanged',arg0='{name}'")
            for path in {interface.path for interface in served}:
                await self._match(f"sender='{name}',path='{path}'")
            try:
                (self._owners[name],) = await self._bus.ask("GetNameOwner", "s", name)
            except Unavailable:
                log.debug("nobody owns '%s', ignoring", name)
        if not self._owners:
            names = ", ".join(by_bus(self._interfaces.values()))
            raise Unavailable(f"no agent is on the bus at '{self._bus.address}' as {names}")

    async def _match(self, rule: str) -> None:
        rule = f"type='signal',{rule}"
        await self._bus.add_match(rule)
        self._rules.append(rule)

    async def next(self) -> Event:
        """The next event. Raises `Unavailable` when an agent is lost."""
        came = await self._came.get()
        if isinstance(came, Unavailable):
            raise came
        return came

    async def stop(self) -> None:
        """Ask for no more."""
        self._on = False
        self._end()
        for rule in self._rules if self._bus.connected else ():
            try:
                await self._bus.ask("RemoveMatch", "s", rule)
            except Problem as problem:  # the connection, and every rule with it, is gone
                log.debug("a match rule could not be removed: %s, ignoring", problem)

    def _lost(self, reason: str) -> None:
        if self._on:
            self._came.put_nowait(Unavailable(reason))

    def _take(self, message: Message) -> None:
        if message.sender == dbus.DAEMON and message.signature == "sss":
            name, before, _ = message.body
            if self._owners.get(name) == before:
                self._lost(f"the agent '{name}' left the bus")
            return
        event = self._event(message)
        if event is None:
            return
        if self._came.qsize() >= MAX_EVENTS:
            log.warning("events come faster than they are taken: %s is dropped", event.name)
            return
        self._came.put_nowait(event)

    def _event(self, message: Message) -> Event | None:
        """The event that a signal is, or None when it is none of ours, or not what is declared."""
        changed = message.interface == PROPERTIES and message.member == "PropertiesChanged"
        if changed and message.signature != "sa{sv}as":
            return None
        interface = self._interfaces.get(message.body[0] if changed else message.interface)
        if interface is None or message.path != interface.path:
            return None
        if self._owners.get(interface.bus) != message.sender:
            return None
        if changed:
            gone: dict[str, Plain] = dict.fromkeys(message.body[2])
            return self._made(interface, "", _properties(interface, message.body[1]) | gone)
        member = interface.members.get(message.member)
        if member is None or message.signature != arguments_signature(member):
            return None
        fields = {
            argument.name: decode(argument.type, value)
            for argument, value in zip(member.arguments, message.body, strict=True)
        }
        return self._made(interface, member.name, fields)

    def _made(self, interface: Interface, member: str, fields: Mapping[str, Plain]) -> Event:
        # a signal carries neither: when it came, and how many came before it
        return Event(interface.name, member, fields, time.time_ns(), next(self._numbers))
