"""How long a connection may take: uvicorn waits for ever for a request that does not come, or comes byte by
byte, and for a client that does not read its answer.
"""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

MAX_CONNECTIONS = 512
LOOK_SECONDS = 5.0
HEAD_SECONDS = 30.0
ANSWER_SECONDS = 150.0


@dataclass(frozen=True, slots=True)
class Limits:
    """`head`: seconds for a request to be there whole, `answer`: for it to be answered; `look`: between two
    looks at it."""

    connections: int = MAX_CONNECTIONS
    look: float = LOOK_SECONDS
    head: float = HEAD_SECONDS
    answer: float = ANSWER_SECONDS


@dataclass(eq=False)  # the transport of asyncio wants to set attributes
class Patient(asyncio.Protocol):
    """uvicorn's protocol `inner`, until its patience ends."""

    inner: Any
    limits: Limits = field(default_factory=Limits)
    _transport: asyncio.Transport | None = None
    _looking: asyncio.TimerHandle | None = None
    _since: float = 0.0
    _seen: tuple[bool, object] = (False, None)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - asyncio gives no other to a server
        self._transport, self._since = transport, time.monotonic()
        self.inner.connection_made(transport)
        if len(self.inner.connections) > self.limits.connections:
            transport.abort()
            return
        self._look_later()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._looking is not None:
            self._looking.cancel()
        self.inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self.inner.data_received(data)

    def eof_received(self) -> bool | None:
        self.inner.eof_received()
        return None

    def pause_writing(self) -> None:
        self.inner.pause_writing()

    def resume_writing(self) -> None:
        self.inner.resume_writing()

    def _look_later(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(self.limits.look, self._look)

    def _look(self) -> None:
        cycle = self.inner.cycle
        busy = cycle is not None and not cycle.response_complete
        now = time.monotonic()
        if (busy, cycle) != self._seen:
            self._seen, self._since = (busy, cycle), now
        elif now - self._since > (self.limits.answer if busy else self.limits.head) and self._transport:
            self._transport.abort()
            return
        self._look_later()
