"""One connection to the bus: every method call that arrives is answered, and nothing that arrives raises.

What memory holds is answered in place; everything else in a task of its own, so that no call waits for
another.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from libmh.bus import ALLOW_INTERACTIVE_AUTHORIZATION, Bus, Message
from libmh.call import Request, Verb
from libmh.caller import Caller
from libmh.dispatch import Dispatcher
from libmh.errors import Failed, Internal, InvalidArguments, Problem, dbus_name
from libmh.spec import OptionalOf, Plain
from mh_dbus.callers import Callers
from mh_dbus.names import ERROR, INTROSPECTABLE, OBJECT_MANAGER, PEER, PROPERTIES
from mh_dbus.polkit import Polkit
from mh_dbus.signatures import NULL, decode, property_type
from mh_dbus.surface import MANAGERS, MAX_REPLY, Method, Property, Surface

log = logging.getLogger("mh_dbus.session")

MACHINE_ID = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
MAX_NAME = 255

Reply: TypeAlias = tuple[str, Sequence[Any]]
"""A signature and its body."""


class Refused(Exception):
    """An error in the bus's own words: what was asked for is not there, or a standard method was called
    wrongly."""

    def __init__(self, word: str, message: str) -> None:
        self.name = ERROR + word
        self.message = message
        super().__init__(message)


class Session:
    """Answers the calls of one connection through the dispatcher."""

    def __init__(self, bus: Bus, surface: Surface, dispatcher: Dispatcher, polkit: Polkit) -> None:
        self._bus = bus
        self._surface = surface
        self._dispatcher = dispatcher
        self._polkit = polkit
        self._callers = Callers(bus)
        self._tasks: set[asyncio.Task[None]] = set()
        self._standard: dict[tuple[str, str], tuple[str, Callable[[Message], None]]] = {
            (PROPERTIES, "Get"): ("ss", self._get),
            (PROPERTIES, "Set"): ("ssv", self._set),
            (PROPERTIES, "GetAll"): ("s", self._get_all),
            (INTROSPECTABLE, "Introspect"): ("", self._introspect),
            (PEER, "Ping"): ("", self._bus.reply),
            (PEER, "GetMachineId"): ("", self._machine_id),
            (OBJECT_MANAGER, "GetManagedObjects"): ("", self._managed_objects),
        }
        self._properties = {
            (place.path, interface.name): surface.of(place.path, interface.name)
            for place in surface.places.values()
            for interface in place.interfaces
        }
        self._sizes: dict[tuple[str, str], int] = {}
        bus.on_call(self.handle)

    def handle(self, message: Message) -> None:
        """Take one method call. Whatever is wrong with it is the caller's answer."""
        try:
            self._route(message)
        except (Problem, Refused) as error:
            self._refuse(message, error)

    def _route(self, message: Message) -> None:
        standard = self._standard.get((message.interface, message.member))
        if standard is not None and self._offers(message.path, message.interface):
            signature, handler = standard
            if message.signature != signature:
                raise Refused(
                    "InvalidArgs",
                    f"{message.member} takes the types '{signature}', got '{message.signature}'",
                )
            handler(message)
            return
        method = self._surface.methods.get((message.path, message.interface, message.member))
        if method is None:
            method = self._without_interface(message)
        method.check(message.signature)
        self._begin(message, self._call, method)

    def _offers(self, path: str, interface: str) -> bool:
        if interface == PEER:
            return True
        place = self._surface.places.get(path)
        if place is None:
            return False
        if interface == PROPERTIES:
            return bool(place.interfaces)
        return interface == INTROSPECTABLE or path in MANAGERS

    def _without_interface(self, message: Message) -> Method:
        """The method meant by a call that names no interface, which D-Bus allows; or what is wrong with
        it."""
        place = self._surface.places.get(message.path)
        if place is None:
            raise Refused("UnknownObject", f"there is no object '{message.path}'")
        known = [*(interface.name for interface in place.interfaces), PROPERTIES, INTROSPECTABLE, PEER]
        if message.interface is None:
            for interface in place.interfaces:
                method = self._surface.methods.get((message.path, interface.name, message.member))
                if method is not None:
                    return method
        elif message.interface not in known:
            raise Refused("UnknownInterface", f"'{message.path}' has no interface '{message.interface}'")
        raise Refused(
            "UnknownMethod", f"'{message.path}' has no method '{message.interface}.{message.member}'"
        )

    # the calls that a caller makes of what is declared

    async def _call(self, message: Message, method: Method) -> Reply:
        member = method.member
        arguments = [
            decode(argument.type, value)
            for argument, value in zip(member.arguments, message.body, strict=True)
        ]
        answer = await self._ask(message, method.interface.name, member.name, Verb.CALL, arguments)
        return method.answers, method.body(answer)

    async def _ask(
        self, message: Message, interface: str, member: str, verb: Verb, arguments: list[Plain]
    ) -> Plain:
        uid = await self._callers.uid(message.sender)
        request = Request(interface, member, verb, arguments, Caller("dbus", message.sender, uid))
        interactive = bool(message.flags.value & ALLOW_INTERACTIVE_AUTHORIZATION)
        with self._polkit.asking(request, interactive=interactive):
            return await self._dispatcher.call(request)

    # org.freedesktop.DBus.Properties

    def _get(self, message: Message) -> None:
        entry = self._find(message)
        try:
            value = self._dispatcher.answer_now(entry.request)
        except LookupError:
            self._begin(message, self._get_later, entry)
        else:
            self._bus.reply(message, "v", [entry.encoded(value)])

    async def _get_later(self, _message: Message, entry: Property) -> Reply:
        return "v", [entry.encoded(await self._dispatcher.call(entry.request))]

    def _set(self, message: Message) -> None:
        entry, value = self._find(message), message.body[2]
        if entry.member.setter is None:
            raise Refused("PropertyReadOnly", f"the property '{entry.member.action}' is read-only")
        cleared = value.signature == NULL and isinstance(entry.member.type, OptionalOf)
        if value.signature != entry.signature and not cleared:
            raise InvalidArguments(
                f"{entry.member.name}: expected the D-Bus type '{entry.signature}', got '{value.signature}'",
                argument=entry.member.name,
            )
        self._begin(message, self._set_later, entry)

    async def _set_later(self, message: Message, entry: Property) -> Reply:
        value = decode(property_type(entry.member), message.body[2])
        await self._ask(message, entry.interface.name, entry.member.name, Verb.SET, [value])
        return "", []

    def _get_all(self, message: Message) -> None:
        (asked,) = message.body
        names = self._interfaces(message.path, asked)
        try:
            found = [self._dispatcher.answer_now(self._surface.reads[message.path, name]) for name in names]
        except LookupError:
            self._begin(message, self._get_all_later, names)
        else:
            self._bus.reply(message, "a{sv}", [self._encode_all(message.path, names, found)])

    async def _get_all_later(self, message: Message, names: list[str]) -> Reply:
        return "a{sv}", [await self._read_all(message.path, names)]

    async def _read_all(self, path: str, names: list[str]) -> dict[str, Any]:
        reads = [self._surface.reads[path, name] for name in names]
        found = await asyncio.gather(*(self._dispatcher.call(read) for read in reads))
        return self._encode_all(path, names, found)

    def _encode_all(self, path: str, names: Sequence[str], found: Sequence[Plain]) -> dict[str, Any]:
        body: dict[str, Any] = {}
        size = 0
        for interface, values in zip(names, found, strict=True):
            entries, changed = self._properties[path, interface], False
            for name, plain in values.items() if isinstance(values, dict) else ():
                entry = entries[name]
                if plain is not entry.plain:
                    entry.encoded(plain)
                    changed = True
                body[name] = entry.held
            if changed:
                self._sizes[path, interface] = sum(entry.size for entry in entries.values())
            size += self._sizes.get((path, interface), 0)
        if size > MAX_REPLY:
            raise Failed(f"the properties of '{path}' take {size} bytes, too large for D-Bus: Get them")
        return body

    def _find(self, message: Message) -> Property:
        asked, name = message.body[0], message.body[1]
        for interface in self._interfaces(message.path, asked):
            entry = self._properties[message.path, interface].get(name)
            if entry is not None:
                return entry
        raise Refused("UnknownProperty", f"'{asked[:MAX_NAME]}' has no property '{name[:MAX_NAME]}'")

    def _interfaces(self, path: str, asked: str) -> list[str]:
        """The declared interfaces that a Properties call means: the one asked for, or all of the object for
        ""."""
        if (path, asked) in self._properties:
            return [asked]
        if asked == "":
            return [interface.name for interface in self._surface.places[path].interfaces]
        if asked in (PROPERTIES, INTROSPECTABLE, PEER):
            return []
        raise Refused("UnknownInterface", f"'{path}' has no interface '{asked[:MAX_NAME]}'")

    # the other standard interfaces

    def _introspect(self, message: Message) -> None:
        self._bus.reply(message, "s", [self._surface.places[message.path].xml])

    def _machine_id(self, message: Message) -> None:
        for path in MACHINE_ID:
            try:
                self._bus.reply(message, "s", [path.read_text("ascii").strip()])
            except (OSError, ValueError) as error:  # absent, or not readable to us
                log.debug("no machine id in '%s': %s, ignoring", path, error)
            else:
                return
        raise Refused("FileNotFound", "this machine has no machine id")

    def _managed_objects(self, message: Message) -> None:
        self._begin(message, self._managed_objects_later, message.path.rstrip("/") + "/")

    async def _managed_objects_later(self, _message: Message, below: str) -> Reply:
        objects: dict[str, dict[str, dict[str, Any]]] = {}
        for place in self._surface.places.values():
            if place.interfaces and place.path.startswith(below):
                objects[place.path] = {
                    interface.name: await self._read_all(place.path, [interface.name])
                    for interface in place.interfaces
                }
        return "a{oa{sa{sv}}}", [objects]

    # answering

    def _begin(
        self, message: Message, work: Callable[[Message, Any], Coroutine[Any, Any, Reply]], what: Any
    ) -> None:
        self._callers.begin(message.sender)
        task = asyncio.get_running_loop().create_task(self._finish(message, work(message, what)))
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._done(message, done))

    async def _finish(self, message: Message, work: Coroutine[Any, Any, Reply]) -> None:
        try:
            try:
                signature, body = await self._in_its_share(message, work)
            finally:
                # before the answer is out: whoever waits for it may call again at once
                self._callers.end(message.sender)
            self._bus.reply(message, signature, body)
        except (Problem, Refused) as error:
            self._refuse(message, error)

    async def _in_its_share(self, message: Message, work: Coroutine[Any, Any, Reply]) -> Reply:
        try:
            with self._callers.share(await self._callers.uid(message.sender)):
                return await work
        finally:
            work.close()  # which never began, when the share was used up

    def _done(self, message: Message, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:  # a bug on this side
            log.error("no answer to %s.%s", message.interface, message.member, exc_info=error)
            self._refuse(message, Internal("the answer could not be sent; the agent's journal says why"))

    def _refuse(self, message: Message, error: Problem | Refused) -> None:
        name = error.name if isinstance(error, Refused) else dbus_name(error)
        try:
            self._bus.fail(message, name, error.message)
        except Problem as problem:  # the connection is gone, and with it whoever asked
            log.debug("no answer to %s.%s: %s, ignoring", message.interface, message.member, problem)

    async def settle(self, seconds: float) -> None:
        """Wait, at most so long, until what has been worked out is answered."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    def cancel(self) -> None:
        """Give up what is under way: nobody is there any more to be answered."""
        for task in self._tasks:
            task.cancel()
