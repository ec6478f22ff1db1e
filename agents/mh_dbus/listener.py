"""The signals of agents as events."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Mapping, Sequence

from libmh import bus as dbus
from libmh.bus import Bus, Message
from libmh.errors import Problem, Unavailable
from libmh.events import Event
from libmh.spec import Interface, Plain
from mh_dbus.files import by_bus
from mh_dbus.names import PROPERTIES
from mh_dbus.signatures import arguments_signature, decode, decode_properties

log = logging.getLogger("mh_dbus.listener")
MAX_EVENTS = 1000


class Listener:
    """The signals of some interfaces as events, from those who own their bus names and from nobody else. A
    `lasting` one stays on when they leave, and hears those who come later."""

    def __init__(self, bus: Bus, interfaces: Sequence[Interface], *, lasting: bool = False) -> None:
        self._bus = bus
        self._lasting = lasting
        self._interfaces = {interface.name: interface for interface in interfaces}
        self._owners: dict[str, str] = {}
        self._rules: list[str] = []
        self._came: asyncio.Queue[Event | Unavailable] = asyncio.Queue()
        self._numbers = itertools.count(1)
        self._on = True
        self._end: Callable[[], None] = bus.on_signal(self._take)

    async def start(self) -> None:
        """Ask for the signals. Raises `Unavailable` when none of the names has an owner, unless it is
        lasting."""
        self._bus.closed.add_done_callback(lambda _: self._lost("the connection to the bus is lost"))
        for name, served in by_bus(self._interfaces.values()).items():
            await self._match(f"sender='{dbus.DAEMON}',member='NameOwnerChanged',arg0='{name}'")
            for path in {interface.path for interface in served}:
                await self._match(f"sender='{name}',path='{path}'")
            try:
                (self._owners[name],) = await self._bus.ask("GetNameOwner", "s", name)
            except Unavailable:
                log.debug("nobody owns '%s', ignoring", name)
        if not self._owners and not self._lasting:
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
            self._owner_changed(*message.body)
            return
        event = self._event(message)
        if event is None:
            return
        if self._came.qsize() >= MAX_EVENTS:
            log.warning("events come faster than they are taken: %s is dropped", event.name)
            return
        self._came.put_nowait(event)

    def _owner_changed(self, name: str, before: str, after: str) -> None:
        if self._lasting:
            self._owners[name] = after
        elif self._owners.get(name) == before:
            self._lost(f"the agent '{name}' left the bus")

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
            return self._made(interface, "", decode_properties(interface, message.body[1]) | gone)
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
