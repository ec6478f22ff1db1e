"""Who shakes hands next: so many at a time, each place that peers come from in its turn, so that many from
one keep nobody from elsewhere waiting."""

import asyncio
import ipaddress
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

AT_ONCE = 64
TURN_SECONDS = 1.0
LATE_SECONDS = 3.0
"""How long those who are let in line wait; agents and consoles give up after ten."""


@dataclass(slots=True)
class Line:
    """Of those from one place, with the times at which they came; its first is first of it `since` then."""

    since: float
    waiting: "deque[tuple[float, asyncio.Future[None]]]" = field(default_factory=deque)


@dataclass(slots=True)
class Turns:
    """So many handshakes run at a time, those that wait for their peer aside."""

    free: int = AT_ONCE
    _lines: OrderedDict[str, Line] = field(default_factory=OrderedDict)

    @property
    def waiting(self) -> int:
        return sum(len(line.waiting) for line in self._lines.values())

    def late(self, place: str) -> bool:
        """Whether somebody from there would wait for too long, as whoever is next, or is before him in his
        own line, has done already."""
        if not self._lines:
            return False
        since = next(iter(self._lines.values())).since
        if place in self._lines:
            since = min(since, self._lines[place].waiting[0][0])
        return asyncio.get_running_loop().time() - since > LATE_SECONDS

    async def take(self, place: str) -> Callable[[], None]:
        """Wait for one's turn; answers what ends it, and ends by itself soon."""
        if self.free > 0 and not self._lines:
            self.free -= 1
        else:
            await self._stand(place)
        over = False

        def end() -> None:
            nonlocal over
            timer.cancel()
            if not over:
                over = True
                self._pass_on()

        timer = asyncio.get_running_loop().call_later(TURN_SECONDS, end)
        return end

    async def _stand(self, place: str) -> None:
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        line = self._lines.setdefault(place, Line(loop.time()))
        line.waiting.append((loop.time(), turn))
        await turn

    def _pass_on(self) -> None:
        while self._lines:
            place, line = self._lines.popitem(last=False)
            _, turn = line.waiting.popleft()
            if line.waiting:  # the next from there comes after one from everywhere else
                line.since = asyncio.get_running_loop().time()
                self._lines[place] = line
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1


def place_of(host: str) -> str:
    """Where an address is from: of IPv6 the network, of which one machine may have any address."""
    try:
        address = ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:  # a path
        return host
    return str(int(address) >> 64) if isinstance(address, ipaddress.IPv6Address) else host
