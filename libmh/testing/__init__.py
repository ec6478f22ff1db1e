"""For tests, here and in other distributions: a transport in memory, and checks for every provider."""

import asyncio
import copy
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from libmh.call import Bound, Request
from libmh.caller import Caller
from libmh.context import Context, Root
from libmh.dispatch import Authority, Dispatcher
from libmh.errors import Problem
from libmh.events import Event
from libmh.providers import load
from libmh.remote import BlockingConnection
from libmh.spec import Kind, Plain, interface_of
from libmh.wire import dump

MAX_EVENTS = 1000


class Loopback:
    """A transport that carries requests to a dispatcher in the same loop, copied as by a bus."""

    def __init__(self, dispatcher: Dispatcher, caller: Caller | None = None) -> None:
        self._dispatcher = dispatcher
        self._caller = caller or Caller("loopback", "test", 0)

    async def call(self, request: Request) -> Plain:
        carried = replace(request, arguments=copy.deepcopy(request.arguments), caller=self._caller)
        return copy.deepcopy(await self._dispatcher.call(carried))

    async def events(self, interface: str = "", member: str = "") -> AsyncIterator[Event]:
        loop = asyncio.get_running_loop()
        came: asyncio.Queue[Event] = asyncio.Queue()
        end = self._dispatcher.context.events.subscribe(lambda event: _later(loop, came, event))
        try:
            while True:
                event = await came.get()
                if interface in ("", event.interface) and member in ("", event.member):
                    yield event
        finally:
            end()

    async def close(self) -> None:
        """Nothing is held open."""


def _later(loop: asyncio.AbstractEventLoop, came: "asyncio.Queue[Event]", event: Event) -> None:
    if came.qsize() < MAX_EVENTS:
        loop.call_soon_threadsafe(came.put_nowait, event)


def loopback(
    *providers: object,
    context: Context | None = None,
    authority: Authority | None = None,
    caller: Caller | None = None,
) -> BlockingConnection:
    """A blocking connection to providers in this process: `loopback(MyProvider()).proxy(MyInterface)`."""
    bound = {interface_of(type(each)).name: Bound(interface_of(type(each)), each) for each in providers}

    async def opening() -> Loopback:
        return Loopback(Dispatcher(bound, context or Context(), authority), caller)

    return BlockingConnection(opening)


def captured(base: Path) -> BlockingConnection:
    """A blocking connection to a captured machine: what this host's providers make of the files below
    `base`, laid out as below `/`. Nothing outside of `base` is asked but what the kernel alone can tell."""
    context = Context(root=Root(base))
    found = load(context)
    return loopback(*(bound.provider for bound in found.bound.values()), context=context)


def unanswered(provider: type) -> list[str]:
    """Conformance: the members of its declaration that a provider's class does not implement."""
    interface = interface_of(provider)
    names = [
        name
        for member in interface.members.values()
        if member.kind is not Kind.EVENT
        for name in (member.attribute, member.setter)
        if name
    ]
    return [name for name in names if getattr(provider, name, None) is getattr(interface.protocol, name)]


def conforming(provider: object) -> dict[str, Plain]:
    """Conformance: read every property of a provider and convert it as a transport would; answers the plain
    values of those that this machine knows. Raises `InvalidArguments` for a value that its declaration does
    not allow."""
    plain: dict[str, Plain] = {}
    for member in interface_of(type(provider)).of(Kind.PROPERTY):
        try:
            value = getattr(provider, member.attribute)()
        except Problem:
            continue  # not known on this machine
        plain[member.name] = dump(member.type, value, member.action)
    return plain
