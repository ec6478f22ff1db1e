"""Following the links of this machine: the kernel tells of changes on a netlink socket, which the process's
background loop listens to. It costs nothing while nothing happens.

A link that changes faster than five times a second is told of five times a second, its last state always.
Where the kernel could not tell all (it drops what is not read in time, and says so), everything is read
anew and what changed is told then.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from dataclasses import dataclass

from libmh.bus import background
from libmh.errors import NotImplementedHere, Problem
from libmh.linux.net import linktable, netlink
from libmh.linux.net.linktable import LinkState, LinkTable
from libmh.linux.net.netlink import RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR, RTMGRP_LINK

log = logging.getLogger("libmh.linux.net.linkwatch")
GROUPS = RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR
PAUSE = 0.2  # between two changes of a link that are told, and between two readings of everything
BATCH = 256  # datagrams; then the loop's others have their turn
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class LinkChange:
    """A link that is another than was told last. One that came has no `old`, one that went no `new`."""

    name: str
    old: LinkState | None
    new: LinkState | None


class LinkWatch:
    """`changed` is called in the background loop and must not wait."""

    def __init__(self, changed: Callable[[LinkChange], None]) -> None:
        self.current = False
        self._changed = changed
        self._table = LinkTable()
        self._told: dict[str, LinkState] = {}
        self._pausing: dict[str, asyncio.TimerHandle] = {}
        self._came = False  # what was there before we came is no news
        self._stale = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin, from any thread."""
        background().call_soon_threadsafe(self._start)

    def close(self) -> None:
        """End, from any thread."""
        background().call_soon_threadsafe(self._stop)

    def _start(self) -> None:
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        for timer in self._pausing.values():
            timer.cancel()
        self._pausing.clear()

    async def _run(self) -> None:
        pause = FIRST_WAIT
        while True:
            try:
                with netlink.listen(GROUPS) as line:
                    await self._fill()
                    self.current, pause = True, FIRST_WAIT
                    await self._follow(line)
            except NotImplementedHere as problem:
                log.info("links are not followed: %s", problem)
                return
            except (Problem, OSError) as problem:
                log.info("links are not followed: %s; asking again in %g s", problem, pause)
            finally:
                self.current = False
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_WAIT)

    async def _fill(self) -> None:
        """Read everything, in a thread: a driver may make the kernel's answer late. What is told meanwhile
        waits in the socket."""
        self._stale = False
        touched = self._table.fill(await asyncio.to_thread(linktable.read))
        if not self._came:
            self._came = True
            self._told = {name: state for name in touched if (state := self._table.state(name))}
        for name in touched:
            self._notice(name)

    async def _follow(self, line: socket.socket) -> None:
        while True:
            await _readable(line)
            for name in self._drain(line):
                self._notice(name)
            if self._stale:
                await asyncio.sleep(PAUSE)
                await self._fill()

    def _drain(self, line: socket.socket) -> set[str]:
        """Take what there is; answers the links that it was about. Raises OSError where the socket is of no
        more use."""
        touched: set[str] = set()
        for _ in range(BATCH):
            try:
                data = netlink.hear(line)
            except BlockingIOError:  # that was all
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                data = None
            if data is None:
                self._stale = True
            else:
                touched |= self._table.heard(data)
        return touched

    def _notice(self, name: str) -> None:
        """Something was said of a link: tell, now or when its pause is over."""
        if name not in self._pausing:
            self._tell(name)

    def _tell(self, name: str) -> None:
        old, new = self._told.get(name), self._table.state(name)
        if new == old:
            return
        if new is None:
            del self._told[name]
        else:
            self._told[name] = new
        self._pausing[name] = asyncio.get_running_loop().call_later(PAUSE, self._over, name)
        self._changed(LinkChange(name, old, new))

    def _over(self, name: str) -> None:
        del self._pausing[name]
        self._tell(name)


async def _readable(line: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(line, _set, ready)
    try:
        await ready
    finally:
        loop.remove_reader(line)


def _set(ready: "asyncio.Future[None]") -> None:
    if not ready.done():
        ready.set_result(None)
