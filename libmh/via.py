"""A dispatcher whose providers are elsewhere: an agent without privileges before the host's own agent.

Whoever faces the network authorises its callers itself and hands what they ask on, as it is, to the agent
that serves the same interfaces on the host's bus; that one then decides again, about the user that this
process runs as. Its events become this process's own. An agent that is absent, restarting or hung costs each
call one answer, `unavailable` or `timeout`, and nothing else.
"""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, cast

from libmh.call import Bound, Request, Verb
from libmh.client import Transport, proxy
from libmh.connections import Connections
from libmh.context import Context
from libmh.dispatch import Elsewhere
from libmh.errors import InvalidArguments, NotFound, NotImplementedHere, Problem, Timeout, Unavailable
from libmh.events import Event, Hub
from libmh.providers import SHIPPED, Providers, load, plugin_interfaces, resolve, wanted
from libmh.remote import open_transport
from libmh.spec import DEFAULT_DEADLINE, Interface, Kind, Plain, interface_of

log = logging.getLogger("libmh.via")
P = TypeVar("P")
LOCAL = "local"
NEIGHBOURS = ("system", "unix")
"""URL schemes whose transports are a `Neighbour`."""
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 5.0
HOP = 0.5
"""Seconds beyond a member's own deadline: the other agent keeps it, too, and says better what was late."""
BUS_ERROR = "org.freedesktop.DBus.Error."
UNDECLARED = frozenset(
    f"{BUS_ERROR}{word}"
    for word in (
        *("UnknownMethod", "UnknownObject", "UnknownInterface", "UnknownProperty"),
        *("InvalidArgs", "InvalidSignature", "PropertyReadOnly"),
    )
)
"""What a bus says of a request that fits the declaration here: there it is another one."""


class Neighbour(Transport, Protocol):
    """A transport to agents on the same machine, whose events are followed while they come and go."""

    def follow(self, interfaces: Sequence[Interface]) -> AsyncIterator[Event]:
        """Events of some interfaces, whoever serves them meanwhile; `unavailable` ends it when the way to
        them is lost."""
        ...


def shipped_here(context: Context) -> Providers:
    """Our own providers in this process, which nobody calls: they tell which host this is, and what the
    things on it are called."""
    return load(context, [interface_of(resolve(each.declaration)).name for each in SHIPPED])


def host_interfaces(only: Collection[str] = ()) -> tuple[Interface, ...]:
    """What a host's agent can serve: ours, and those of plug-ins. `only` names the ones wanted; raises
    `invalid-arguments` for a name that is none of them."""
    shipped = (interface_of(resolve(each.declaration)) for each in SHIPPED)
    known = (*shipped, *plugin_interfaces())
    for name in only:
        if not any(wanted(interface, (name,)) for interface in known):
            raise InvalidArguments(f"--only: there is no interface '{name}' here")
    return tuple(interface for interface in known if wanted(interface, only))


@dataclass(frozen=True, slots=True)
class Named(Elsewhere):
    """One whose things have several names. Who decides here by the names of what is acted on gets those that
    the host itself uses, as the provider there would tell them: it takes no privilege to ask for them."""

    canonical: Callable[[str, Mapping[str, str]], Mapping[str, str]]


@dataclass(frozen=True, slots=True)
class Lines:
    """Two connections: what may take minutes, however much of it there is, keeps nothing quick waiting."""

    quick: Neighbour
    patient: Neighbour

    async def close(self) -> None:
        """Let go of both."""
        await asyncio.gather(self.quick.close(), self.patient.close())


class Via:
    """Stands for the providers of some interfaces, which answer behind a URL; `kept` holds the connection.
    It belongs to one event loop. Raises `invalid-arguments` for a URL that leads to no neighbour."""

    def __init__(self, url: str, interfaces: Sequence[Interface], events: Hub) -> None:
        if url.partition(":")[0] not in NEIGHBOURS:
            known = ", ".join((LOCAL, *NEIGHBOURS))
            raise InvalidArguments(
                f"--via: '{url}' leads to no agent of this host: expected one of {known}", argument="via"
            )
        self.url = url
        self._interfaces: Mapping[str, Interface] = {each.name: each for each in interfaces}
        self._events = events
        self._lines: Lines | None = None
        self._why = "not connected yet"

    def providers(self, here: Providers) -> Providers:
        """Everything that is handed on, for a dispatcher. Of the providers `here` only names are asked."""
        found = Providers()
        for name, interface in self._interfaces.items():
            local = here.bound.get(name)
            canonical = getattr(local.provider, "canonical", None) if local else None
            stands = Named(self.hand_on, canonical) if canonical else Elsewhere(self.hand_on)
            found.bound[name] = Bound(interface, stands)
        return found

    async def hand_on(self, request: Request) -> Plain:
        """The answer from there, within the deadline asked for, or little more than the declared one. What
        is not served there, or otherwise, is `not-implemented`."""
        seconds = self._seconds(request)
        lines = self._lines
        if lines is None:
            raise Unavailable(f"'{self.url}' cannot be reached: {self._why}")
        line = lines.quick if self._declared(request) <= DEFAULT_DEADLINE else lines.patient
        try:
            async with asyncio.timeout(seconds):
                return await line.call(replace(request, deadline=seconds))
        except TimeoutError:
            raise Timeout(f"'{self.url}' did not answer within {seconds:g} s", source=self.url) from None
        except (NotFound, InvalidArguments) as problem:
            if problem.details.get("dbus_error") not in UNDECLARED:
                raise
            asked = f"{request.interface}.{request.member or '*'}"
            raise NotImplementedHere(f"the agent at '{self.url}' does not serve '{asked}'") from problem

    def _declared(self, request: Request) -> float:
        interface = self._interfaces[request.interface]
        if request.verb is Verb.GET_ALL:
            return max((each.deadline for each in interface.of(Kind.PROPERTY)), default=DEFAULT_DEADLINE)
        return interface.members[request.member].deadline

    def _seconds(self, request: Request) -> float:
        longest = self._declared(request) + HOP
        return longest if request.deadline is None else min(request.deadline, longest)

    def proxy(self, protocol: Callable[..., P]) -> P:
        """The object behind the URL, for other threads than the loop's: each call blocks its own."""
        loop = asyncio.get_running_loop()

        def ask(request: Request) -> Plain:
            answer = asyncio.run_coroutine_threadsafe(self.hand_on(request), loop)
            return answer.result(self._seconds(request) + HOP)

        return proxy(protocol, ask)

    @contextlib.asynccontextmanager
    async def kept(self, connections: Connections) -> AsyncIterator[None]:
        """Connected as well as can be, as long as the block lasts. Raises `invalid-arguments` for a URL that
        cannot be read, `not-implemented` where the software for it is not installed."""
        try:
            await self._open(connections)
        except (InvalidArguments, NotImplementedHere):
            raise
        except Problem as problem:
            self._lost(connections, problem)
        keeping = asyncio.create_task(self._keep(connections))
        keeping.add_done_callback(_tell)
        try:
            yield
        finally:
            keeping.cancel()
            await asyncio.wait({keeping})
            await self._close()
            connections.closed(self.url)

    async def _open(self, connections: Connections) -> None:
        connections.connecting(self.url)
        quick = cast("Neighbour", await open_transport(self.url))
        try:
            patient = cast("Neighbour", await open_transport(self.url))
        except BaseException:
            await quick.close()
            raise
        self._lines = Lines(quick, patient)
        connections.connected(self.url)

    def _lost(self, connections: Connections, problem: Problem) -> None:
        log.warning("'%s' cannot be reached: %s, trying again", self.url, problem)
        self._why = problem.message
        connections.waiting(self.url, problem.message)

    async def _keep(self, connections: Connections) -> None:
        pause = FIRST_PAUSE
        while True:
            began = time.monotonic()
            try:
                if self._lines is None:
                    await self._open(connections)
                if self._lines is not None:
                    await self._listen(self._lines)
            except Problem as problem:
                await self._close()
                self._lost(connections, problem)
            if time.monotonic() - began > LONGEST_PAUSE:
                pause = FIRST_PAUSE
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads tries
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _close(self) -> None:
        lines, self._lines = self._lines, None
        if lines is not None:
            await lines.close()

    async def _listen(self, lines: Lines) -> None:
        """Pass events on until one of the connections is lost."""
        following = {
            asyncio.create_task(self._follow(lines.quick, list(self._interfaces.values()))),
            asyncio.create_task(self._follow(lines.patient, [])),
        }
        try:
            done, _ = await asyncio.wait(following, return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        finally:
            for each in following:
                each.cancel()
            await asyncio.gather(*following, return_exceptions=True)

    async def _follow(self, line: Neighbour, interfaces: Sequence[Interface]) -> None:
        async for event in line.follow(interfaces):
            interface = self._interfaces[event.interface]
            if not event.member:
                # another version may have other properties
                known = {name: value for name, value in event.fields.items() if name in interface.members}
                event = replace(event, fields=known)  # noqa: PLW2901 - the same event
            self._events.pass_on(event)


def _tell(keeping: "asyncio.Task[None]") -> None:
    if not keeping.cancelled() and (error := keeping.exception()) is not None:
        log.error("events are no longer passed on", exc_info=error)
