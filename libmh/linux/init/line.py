"""A line to systemd: a connection of its own to the bus, on which systemd tells what happens.

It is made at the first need and again after a loss, whether the bus or systemd has gone. Everything here
runs in the loop of `libmh.bus.background`; `wait` is the way in from other threads.
"""

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from libmh.bus import DAEMON, Bus, BusCall, Message, background, connect, unwrap
from libmh.errors import Problem, Timeout, Unavailable
from libmh.guard import SHARED
from libmh.linux.daemons import PROPERTIES, SYSTEMD
from libmh.linux.init.unitnames import UNITS

log = logging.getLogger("libmh.linux.init.line")
T = TypeVar("T")
UNIT = "org.freedesktop.systemd1.Unit"
SERVICE = "org.freedesktop.systemd1.Service"
RULES = (
    f"type='signal',sender='{DAEMON}',member='NameOwnerChanged',arg0='{SYSTEMD.name}'",
    f"type='signal',sender='{SYSTEMD.name}',interface='{SYSTEMD.interface}'",
)
WATCHED = tuple(
    f"type='signal',sender='{SYSTEMD.name}',interface='{PROPERTIES}',member='PropertiesChanged',"
    f"path_namespace='{UNITS}',arg0='{interface}'"
    for interface in (UNIT, SERVICE)
)
CALL_SECONDS = 10.0
OWNED = "NameOwnerChanged"
GRACE = 2.0

Asked = tuple[str, str, str]
"""A property: object path, interface, name."""
Heard = Callable[[str, str, Sequence[Any]], None]
"""Told of each signal: its member, its object's path, its body."""


class Line:
    """The process's line to one systemd. `rules` are the signals that are wanted beside its own."""

    def __init__(self, address: str, heard: Heard, rules: Sequence[str] = ()) -> None:
        self._address = address
        self._heard = heard
        self._rules = (*RULES, *rules)
        self._bus: Bus | None = None
        self._owner = ""
        self._opening = asyncio.Lock()
        self._ending: asyncio.Future[None] | None = None

    async def bus(self) -> Bus:
        """The connection; what systemd says is heard from then on. Raises as `libmh.bus.connect`."""
        async with self._opening:
            if self._bus is None or not self._bus.connected:
                self._bus = await self._open()
            return self._bus

    async def close(self) -> None:
        """End the connection; a later call makes a new one."""
        bus, self._bus = self._bus, None
        if bus is not None:
            await bus.close()

    async def call(
        self, member: str, signature: str = "", *arguments: Any, seconds: float = CALL_SECONDS
    ) -> list[Any]:
        """Call a method of the manager."""
        bus = await self.bus()
        return await bus.call(
            SYSTEMD.name, SYSTEMD.path, SYSTEMD.interface, member, signature, arguments, timeout=seconds
        )

    async def get(self, asked: Sequence[Asked]) -> list[Any]:
        """Properties, asked side by side; a `Problem` for each that was not answered."""
        bus = await self.bus()
        return list(await asyncio.gather(*(self._get(bus, each) for each in asked)))

    async def _get(self, bus: Bus, asked: Asked) -> Any:
        path, interface, name = asked
        try:
            (value,) = await bus.make(
                BusCall(SYSTEMD.name, path, PROPERTIES, "Get", "ss", (interface, name)), timeout=CALL_SECONDS
            )
        except Problem as problem:
            return problem
        return value

    async def _open(self) -> Bus:
        bus = await connect(self._address)
        try:
            bus.on_signal(self._signal)
            for rule in self._rules:
                await bus.add_match(rule)
            (self._owner,) = await bus.ask("GetNameOwner", "s", SYSTEMD.name)
            await bus.call(SYSTEMD.name, SYSTEMD.path, SYSTEMD.interface, "Subscribe", timeout=CALL_SECONDS)
        except Problem:
            await bus.close()
            raise
        return bus

    def _signal(self, message: Message) -> None:
        if message.sender == self._owner:
            self._heard(str(message.member), str(message.path), message.body)
        elif (message.sender, message.member, message.body[:1]) == (DAEMON, OWNED, [SYSTEMD.name]):
            self._left()

    def _left(self) -> None:
        """It has left the bus, or has come back to it: systemd no longer knows that we listen."""
        if self._owner and self._bus is not None:
            log.info("systemd is another on the bus")
            self._owner = ""
            self._ending = asyncio.ensure_future(self._bus.close())


def changes(body: Sequence[Any], wanted: frozenset[str]) -> dict[str, Any]:
    """What a PropertiesChanged says of some properties."""
    if len(body) != 3 or not isinstance(body[1], dict):
        return {}
    return {name: unwrap(body[1][name]) for name in wanted & body[1].keys()}


def wait(work: Coroutine[Any, Any, T], seconds: float) -> T:
    """Run in the bus's loop, and wait for it in this thread: `timeout` after so many seconds."""
    future = asyncio.run_coroutine_threadsafe(work, background())
    try:
        with SHARED.aside():
            return future.result(seconds + GRACE)
    except concurrent.futures.TimeoutError:
        future.cancel()
        raise Timeout(f"systemd did not answer within {seconds:g} s", source=SYSTEMD.name) from None
    except concurrent.futures.CancelledError:
        raise Unavailable("systemd is no longer asked: the process is ending") from None
