"""How many reports wait at the broker, as it tells."""

import asyncio
import logging

from libmh.api.broker import Broker
from libmh.call import Request
from libmh.connections import Connections
from libmh.errors import Problem
from libmh.spec import Plain, member_of

log = logging.getLogger("mh_conductor.depth")
SECONDS = 2.0


class Depth:
    """Asked from any thread but the loop's own; unknown until it was told of which queue it is."""

    def __init__(self) -> None:
        self._connections: Connections | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue = ""

    def of(self, connections: Connections, queue: str) -> None:
        """The queue of this address, asked for in the running loop."""
        self._connections, self._queue = connections, queue
        self._loop = asyncio.get_running_loop()

    def __call__(self) -> int | None:
        """None where the broker does not tell, or not in time."""
        if self._loop is None:
            return None
        asking = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        try:
            return asking.result(SECONDS)
        except TimeoutError:
            asking.cancel()
        except Problem as problem:
            log.debug("the broker does not tell how many reports wait: %s, ignoring", problem)
        return None

    async def _ask(self) -> int | None:
        ask = self._connections.broker if self._connections else None
        if ask is None:
            return None
        member = member_of(Broker.waiting)
        named: dict[str, Plain] = {"name": self._queue}
        told = await ask(Request(member.interface, member.name, arguments=named, deadline=SECONDS))
        return told if isinstance(told, int) else None
