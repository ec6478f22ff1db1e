"""Where connections come in: so many and no more, also while they have not spoken TLS yet. asyncio's own
servers take whatever comes and wait a minute for each, until there is no file descriptor left for the store.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field

from mh_conductor.rest.patience import Limits

log = logging.getLogger("mh_conductor.rest")
PAUSE_SECONDS = 1.0


@dataclass(slots=True)
class Door:
    """Of the socket `bound`, which listens and does not block; `make` gives each connection its protocol,
    `inside` tells how many have come in."""

    bound: socket.socket
    make: Callable[[], asyncio.Protocol]
    inside: Callable[[], int]
    limits: Limits
    tls: ssl.SSLContext | None = None
    _entering: "set[asyncio.Task[None]]" = field(default_factory=set)

    async def keep(self) -> None:
        """Until cancelled; then the socket is closed, and whoever is on his way in is sent away."""
        try:
            while True:
                await self._next()
        finally:
            self.bound.close()
            for task in self._entering:
                task.cancel()

    async def _next(self) -> None:
        try:
            peer, _address = await asyncio.get_running_loop().sock_accept(self.bound)
        except ConnectionError:  # he has gone already
            return
        except OSError as error:  # of file descriptors, or of memory, there are none left
            log.warning("no connection can be taken: %s, trying again", error.strerror)
            await asyncio.sleep(PAUSE_SECONDS)
            return
        if len(self._entering) + self.inside() >= self.limits.connections:
            peer.close()
            return
        task = asyncio.create_task(self._enter(peer))
        self._entering.add(task)
        task.add_done_callback(self._entering.discard)

    async def _enter(self, peer: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        seconds = None if self.tls is None else self.limits.head
        try:
            await loop.connect_accepted_socket(self.make, peer, ssl=self.tls, ssl_handshake_timeout=seconds)
        except OSError as error:  # TLS that is none, or none in time: ssl.SSLError is an OSError, too
            log.debug("a connection did not come about: %s", error)
