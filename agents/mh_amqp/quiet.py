"""Peers that have said nothing yet, and how long that may last. Nothing is read of them, and all of them
together take one file of the process: an epoll of our own, below that of the loop (epoll(7))."""

import asyncio
import logging
import select
from contextlib import suppress
from dataclasses import dataclass, field

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Quiet:
    """Belongs to one event loop, whose transports do not read meanwhile."""

    _poll: "select.epoll | None" = None
    _waiting: "dict[int, asyncio.Future[None]]" = field(default_factory=dict)

    async def over(self, transport: asyncio.BaseTransport, seconds: float) -> bool:
        """Wait until the peer has said something, or hung up; False when it has not within its time. Where
        the system cannot tell, everybody counts as one who has."""
        raw = transport.get_extra_info("socket")
        number = -1 if raw is None else raw.fileno()
        if number < 0 or not self._register(number):
            return True
        heard = self._waiting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                await heard
        except TimeoutError:
            return False
        finally:
            del self._waiting[number]
            if self._poll is not None:
                with suppress(OSError):  # it has been closed
                    self._poll.unregister(number)
        return True

    def close(self) -> None:
        """Who still waits is left alone."""
        poll, self._poll = self._poll, None
        if poll is not None:
            asyncio.get_running_loop().remove_reader(poll.fileno())
            poll.close()

    def _register(self, number: int) -> bool:
        try:
            if self._poll is None:
                self._poll = select.epoll()
                asyncio.get_running_loop().add_reader(self._poll.fileno(), self._look)
            self._poll.register(number, select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLONESHOT)
        except (AttributeError, OSError) as error:  # not on this system; no files left
            log.debug("who says nothing is not noticed: %s", error)
            return False
        return True

    def _look(self) -> None:
        for number, _ in [] if self._poll is None else self._poll.poll(0):
            heard = self._waiting.get(number)
            if heard is not None and not heard.done():
                heard.set_result(None)
