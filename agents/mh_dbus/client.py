"""The client half: `system:` and `unix:path=...` URLs as transports of `libmh.client`."""

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import Any

from libmh import bus as dbus
from libmh.bus import Bus
from libmh.call import Bound, Request, Verb, prepare
from libmh.errors import BackendFailed, InvalidArguments, NotFound
from libmh.events import Event
from libmh.providers import find_interface
from libmh.spec import DEFAULT_DEADLINE, Interface, Member, Plain
from libmh.wire import dump
from mh_dbus.names import PROPERTIES
from mh_dbus.signatures import (
    NULL,
    arguments_signature,
    decode,
    decode_properties,
    encode_all,
    encoder,
    property_type,
    signature_of,
)

log = logging.getLogger("mh_dbus.client")
MARGIN = 2.0
"""What the way there and back may take beyond the deadline that the agent keeps."""


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
        return decode_properties(interface, values)

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
        from mh_dbus.files import host_interfaces

        wanted = [_declared(interface)] if interface else list(host_interfaces())
        async with aclosing(self._signals(wanted, lasting=False)) as signals:
            async for event in signals:
                if member in ("", event.member):
                    yield event

    def follow(self, interfaces: Sequence[Interface]) -> AsyncGenerator[Event, None]:
        """Events of some interfaces while agents come and go. It ends with `unavailable` when the bus is
        lost."""
        return self._signals(interfaces, lasting=True)

    async def _signals(
        self, interfaces: Sequence[Interface], *, lasting: bool
    ) -> AsyncGenerator[Event, None]:
        from mh_dbus.listener import Listener

        listener = Listener(self._bus, interfaces, lasting=lasting)
        try:
            await listener.start()
            while True:
                yield await listener.next()
        finally:
            await listener.stop()


def _declared(name: str) -> Interface:
    found = find_interface(name)
    if found is None:
        raise NotFound(f"no interface '{name[:255]}' is declared here", interface=name[:255])
    return found


def _seconds(request: Request, member: Member) -> float:
    return request.deadline or member.deadline + MARGIN
