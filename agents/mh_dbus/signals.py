"""Events as D-Bus signals: declared events under their own names, property changes as PropertiesChanged."""

import asyncio
import logging
from collections import deque
from collections.abc import Callable

from libmh.bus import Bus
from libmh.errors import Problem
from libmh.events import Event, Hub
from libmh.spec import Kind
from mh_dbus.names import PROPERTIES
from mh_dbus.signatures import arguments_signature, encode_all
from mh_dbus.surface import Surface, checked_size

log = logging.getLogger("mh_dbus.signals")
MAX_WAITING = 1000


class Signals:
    """Carries events from the threads that raise them to the connection of the day. A signal is for those
    who listen now: without a connection it is dropped, and so is the oldest when too many wait."""

    def __init__(self, hub: Hub, surface: Surface) -> None:
        self._surface = surface
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[Event] = deque(maxlen=MAX_WAITING)
        self._told = False
        self._bus: Bus | None = None
        self.end: Callable[[], None] = hub.subscribe(self._take)

    def attach(self, bus: Bus | None) -> None:
        """Emit on `bus` from now on; None when there is no connection."""
        self._bus = bus

    def _take(self, event: Event) -> None:
        if event.interface in self._surface.interfaces:
            self._waiting.append(event)
            if not self._told:  # a thread may be faster than the loop
                self._told = True
                self._loop.call_soon_threadsafe(self._emit)

    def _emit(self) -> None:
        self._told = False
        for _ in range(len(self._waiting)):
            event = self._waiting.popleft()
            if self._bus is None:
                continue
            try:
                self._send(self._bus, event)
            except Problem as problem:
                log.warning("the signal %s was not sent: %s, ignoring", event.name, problem)

    def _send(self, bus: Bus, event: Event) -> None:
        interface = self._surface.interfaces[event.interface]
        if not event.member:
            self._changed(bus, interface.path, event)
            return
        member = interface.members[event.member]
        if member.kind is not Kind.EVENT:
            return
        values = [event.fields[argument.name] for argument in member.arguments]
        checked_size(values, member.action)
        body = encode_all([argument.type for argument in member.arguments], values)
        bus.signal(interface.path, interface.name, member.name, arguments_signature(member), body)

    def _changed(self, bus: Bus, path: str, event: Event) -> None:
        entries = self._surface.of(path, event.interface)
        changed = {
            name: entries[name].encoded(plain) for name, plain in event.fields.items() if plain is not None
        }
        gone = [name for name, plain in event.fields.items() if plain is None]
        bus.signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", [event.interface, changed, gone])
