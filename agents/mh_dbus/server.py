"""The server half: on the bus under its names, and back there by itself whenever the bus went away."""

import asyncio
import contextlib
import logging
import random
from collections.abc import Sequence
from typing import Any

from libmh.bus import Bus, connect
from libmh.connections import Connections
from libmh.dispatch import Dispatcher
from libmh.errors import BackendFailed, Conflict, InvalidArguments, NotAuthorized, Problem, Unavailable
from libmh.serve import DRAIN_SECONDS, Process
from mh_dbus.files import by_bus
from mh_dbus.polkit import Polkit
from mh_dbus.session import Session
from mh_dbus.signals import Signals
from mh_dbus.surface import Surface, surface_of

log = logging.getLogger("mh_dbus.server")
FIRST_PAUSE = 0.1
LONGEST_PAUSE = 30.0
CLOSE_SECONDS = 1.0
SETTLE_SECONDS = 1.0
FATAL = (Conflict, NotAuthorized, InvalidArguments, BackendFailed)
"""At the first connection: another agent, no leave, no address, no D-Bus library. Waiting mends none of
these."""


class Server:
    """Serves a dispatcher's interfaces at one bus address. `without` are interfaces that get no bus name
    here."""

    def __init__(
        self,
        address: str,
        dispatcher: Dispatcher,
        polkit: Polkit,
        connections: Connections,
        without: Sequence[str] = (),
    ) -> None:
        interfaces = [bound.interface for bound in dispatcher.interfaces.values()]
        self._address = address
        self._dispatcher = dispatcher
        self._polkit = polkit
        self._connections = connections
        self._names = list(by_bus(each for each in interfaces if each.name not in without))
        self._surface: Surface = surface_of(interfaces)
        self._signals = Signals(dispatcher.context.events, self._surface)
        self._url = address if address.startswith("unix:") else f"{address}:"

    async def run(self, process: Process) -> None:
        """Serve until the process is told to stop. Raises what is FATAL when the first
        connection meets it; everything else is waited out."""
        if not self._names:
            raise BackendFailed(
                "there is nothing to serve: no provider of what was asked for could be loaded"
            )
        pause, served = FIRST_PAUSE, False
        try:
            while not process.stop.is_set():
                self._connections.connecting(self._url)
                try:
                    bus, session = await self._begin()
                except Problem as problem:
                    if not served and isinstance(problem, FATAL):
                        raise
                    log.warning("%s; next try in %.1f s", problem, pause)
                    self._connections.waiting(self._url, str(problem))
                    await _pause(process, pause * random.uniform(0.8, 1.2))  # noqa: S311 - spreads tries
                    pause = min(pause * 2, LONGEST_PAUSE)
                    continue
                served, pause = True, FIRST_PAUSE
                self._connections.connected(self._url)
                process.ready(f"on {self._address} as {' '.join(self._names)}")
                await self._serve(process, bus, session)
        finally:
            self._signals.end()
            self._connections.closed(self._url)

    async def _begin(self) -> tuple[Bus, Session]:
        bus = await connect(self._address)
        try:
            self._polkit.attach(bus)
            session = Session(bus, self._surface, self._dispatcher, self._polkit)
            await self._own(bus)
            self._signals.attach(bus)
        except Problem:
            await bus.close()
            raise
        return bus, session

    async def _own(self, bus: Bus) -> None:
        """Own every name that we can. A plug-in's name may be refused: its object answers under the others
        too."""
        refused: dict[str, Problem] = {}
        for name in self._names:
            try:
                await bus.own(name)
            except Unavailable:
                raise
            except Problem as problem:
                refused[name] = problem
        ours = [name for name in refused if name.startswith("org.matahariproject.")]
        if ours or len(refused) == len(self._names):
            raise refused[ours[0] if ours else self._names[0]]
        for name, reason in refused.items():
            log.warning("the name '%s' is not ours: %s, ignoring", name, reason)

    async def _serve(self, process: Process, bus: Bus, session: Session) -> None:
        stop = asyncio.ensure_future(process.stop.wait())
        both: set[asyncio.Future[Any]] = {stop, bus.closed}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
        if bus.closed.done():
            log.warning("the bus at '%s' is lost: %s", self._address, bus.closed.result())
            self._connections.waiting(self._url, bus.closed.result())
        else:
            await self._retire(bus)
            await session.settle(SETTLE_SECONDS)
        self._polkit.attach(None)
        self._signals.attach(None)
        session.cancel()
        await bus.close()

    async def _retire(self, bus: Bus) -> None:
        """Give the names back, so that callers look elsewhere, and finish what is under way."""
        for name in self._names:
            with contextlib.suppress(Problem):  # the bus goes away at the same time
                async with asyncio.timeout(CLOSE_SECONDS):
                    await bus.release(name)
        if not await self._dispatcher.drain(DRAIN_SECONDS):
            log.warning("some calls did not end within %g s, leaving", DRAIN_SECONDS)


async def _pause(process: Process, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.stop.wait(), seconds)
