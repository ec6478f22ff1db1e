"""The way in where there is TLS: the handshake, before anybody knows whom he has to do with.

asyncio's own servers drop a handshake that fails without a word. So a listener accepts plain sockets, reads
nothing of them until it is their turn, and begins TLS itself: every failure has a peer and a reason. Turns
are taken in order, for a handshake costs milliseconds and thousands of hosts may come at once after a
broker was away: the time that a peer may take begins with its turn. Who says nothing has no turn, and one
that lets us wait keeps it for a moment only. When turns come late, whoever comes then is sent away at once:
it would give up in the middle, after a part of the work, and comes again when it has waited for longer each
time.
"""

import asyncio
import logging
import socket
import ssl
from dataclasses import dataclass, field
from typing import Protocol

from mh_amqp.quiet import Quiet
from mh_amqp.refusals import host_of
from mh_amqp.turns import Turns, place_of

log = logging.getLogger(__name__)
HUNG_UP = "TLS: the peer hung up during the handshake"
ESTABLISHED = 1
"""TCP_ESTABLISHED, the first byte of struct tcp_info (tcp(7))."""


class Keeper(Protocol):
    """The listener behind the entrance."""

    def room(self, peer: str) -> bool:
        """Take a place for a peer; False, which was told, where there is none."""
        ...

    def leave(self, peer: str) -> None:
        """The peer's place is free again."""
        ...

    def refused(self, peer: str, why: str) -> None:
        """A peer did not come in."""
        ...

    def inside(self, peer: str) -> asyncio.Protocol:
        """What talks to a peer that has come in; the place is its own from now on."""
        ...


@dataclass(slots=True)
class Entrance:
    """Where peers of one listener come in; `seconds` is what a handshake may take. `sent_away` counts those
    who came while it was too busy."""

    keeper: Keeper
    context: ssl.SSLContext
    seconds: float
    turns: Turns = field(default_factory=Turns)
    quiet: Quiet = field(default_factory=Quiet)
    sent_away: int = 0
    tasks: "set[asyncio.Task[None]]" = field(default_factory=set)

    def accept(self) -> asyncio.Protocol:
        """A protocol for the next peer, for asyncio alone."""
        return _Arrival(self)

    def close(self) -> None:
        """Nobody comes in any more."""
        for task in self.tasks:
            task.cancel()
        self.quiet.close()

    def begin(self, arrival: "_Arrival", transport: asyncio.Transport) -> None:
        peer = shown(transport)
        if self.turns.late(place_of(host_of(peer))):
            self.sent_away += 1
            log.debug("peer %s: sent away, %d wait for their turn", peer, self.turns.waiting)
            transport.abort()
            return
        if not self.keeper.room(peer):
            transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._enter(arrival, transport, peer))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _enter(self, arrival: "_Arrival", transport: asyncio.Transport, peer: str) -> None:
        secured: asyncio.Transport | None = None
        try:
            secured = await self._handshake(arrival, transport, peer)
        finally:
            if secured is None:
                transport.abort()
                self.keeper.leave(peer)
        if secured is not None:
            arrival.hand_over(secured, self.keeper.inside(peer))

    async def _handshake(
        self, arrival: "_Arrival", transport: asyncio.Transport, peer: str
    ) -> asyncio.Transport | None:
        if not await self.quiet.over(transport, self.seconds):
            self.keeper.refused(peer, f"TLS: no handshake within {self.seconds:g} s")
            return None
        if has_gone(transport):
            self.keeper.refused(peer, HUNG_UP)
            return None
        end = await self.turns.take(place_of(host_of(peer)))
        try:
            if has_gone(transport):
                log.debug("peer %s: went away before it was its turn", peer)
                return None
            secured = await asyncio.get_running_loop().start_tls(
                transport, arrival, self.context, server_side=True, ssl_handshake_timeout=self.seconds
            )
        except ssl.SSLError as error:
            self.keeper.refused(peer, f"TLS: {reason(error)}")
        except ConnectionAbortedError:  # asyncio's word for too late
            self.keeper.refused(peer, f"TLS: no handshake within {self.seconds:g} s")
        except OSError:
            self.keeper.refused(peer, HUNG_UP)
        else:
            if secured is not None and not arrival.lost:
                return secured
            self.keeper.refused(peer, HUNG_UP)
        finally:
            end()
        return None


class _Arrival(asyncio.Protocol):
    """Keeps what a peer says between the end of the handshake and the begin of what talks to it."""

    def __init__(self, entrance: Entrance) -> None:
        self.lost = False
        self._entrance = entrance
        self._said: list[bytes] = []
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"expected a stream transport, not {transport!r}")
        transport.pause_reading()
        self._entrance.begin(self, transport)

    def data_received(self, data: bytes) -> None:
        self._said.append(data)

    def eof_received(self) -> None:
        self._ended = True

    def connection_lost(self, exc: Exception | None) -> None:
        log.debug("lost before it was inside: %s", exc or "hung up")
        self.lost = True

    def hand_over(self, secured: asyncio.Transport, inside: asyncio.Protocol) -> None:
        secured.set_protocol(inside)
        inside.connection_made(secured)
        if self._said:
            inside.data_received(b"".join(self._said))
        if self._ended:
            inside.eof_received()


def shown(transport: asyncio.BaseTransport) -> str:
    """The peer's address, for people: `127.0.0.1:4711`."""
    name = transport.get_extra_info("peername")
    return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "unix")


def has_gone(transport: asyncio.BaseTransport) -> bool:
    """Whether a peer, of whom nothing was read yet, has hung up: then a handshake would be for nothing."""
    raw = transport.get_extra_info("socket")
    if transport.is_closing() or raw is None:
        return True
    try:
        return bool(raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != ESTABLISHED)
    except (AttributeError, OSError):  # a system that does not tell, no TCP
        return False


def reason(error: ssl.SSLError) -> str:
    """Why a handshake has failed, without the place in OpenSSL's source."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate verify failed: {error.verify_message}"
    return (error.reason or str(error)).lower().replace("_", " ")
