"""One socket and proton's engine between them: bytes in, events out, bytes out once per turn of the loop.

`Pump` is the asyncio protocol of clients, listeners and the broker alike. Nothing that a peer sends raises
out of it: what proton or the decoding of a peer's strings raises ends that connection alone, with the
reason in the log.
"""

import asyncio
import logging
import socket
import ssl
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from proton import Collector, ProtonException, Transport
from proton import Connection as Engine

from mh_amqp import outcome, pn
from mh_amqp.limits import Limits
from mh_amqp.pn import Handle, ffi, lib
from mh_amqp.sasl import Dialling, Listening, Negotiation, Refused
from mh_amqp.security import Door, Login
from mh_amqp.tls import ends, subject

log = logging.getLogger(__name__)

PEER_FAULTS = (UnicodeDecodeError, RecursionError, ProtonException, OverflowError)
OURS_SECONDS = 0.5
LOOK_SECONDS = 3600.0
"""How long to trust that the clock is not set meanwhile."""
UCRED = struct.Struct("3i")
"""unix(7), SO_PEERCRED: process, user, group."""


def nothing(*_: object) -> None:
    """What has been called for the last time, or by nobody yet."""


def nobody_asks(_why: str) -> None:
    """A refusal that is not written down: a dialler's."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Why a connection ended: the AMQP error condition if there was one, and words for people."""

    condition: str
    description: str

    def __str__(self) -> str:
        return f"{self.description} ({self.condition})" if self.condition else self.description


class Pump(asyncio.Protocol):
    """`handle` is called with the type and the C event of each event; `on_lost` once, at the end."""

    def __init__(
        self,
        handle: Callable[[int, Handle], None],
        limits: Limits,
        side: Login | Door,
    ) -> None:
        self.limits = limits
        self.paused = False
        self.reason: Closed | None = None
        self.engine = Engine()
        self.on_made: Callable[[], None] = nothing
        self.on_lost: Callable[[Closed], None] = nothing
        self.on_flushed: Callable[[], None] = nothing
        self.on_resumed: Callable[[], None] = nothing
        self.on_refused: Callable[[str], None] = nobody_asks
        self._handle = handle
        self._side = side
        self._loop = asyncio.get_running_loop()
        self._collector = Collector()
        self._transport = self._make_transport(server=isinstance(side, Door))
        self._t = pn.impl(self._transport)
        self._negotiation: Negotiation | None = None
        self._socket: asyncio.Transport | None = None
        self._identity = ""
        self._scheduled = False
        self._turn = False
        self._deaf = False
        self._unanswered = 0
        self._opens_by = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}

    # asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if not isinstance(transport, asyncio.Transport):
            raise TypeError(f"expected a stream transport, not {transport!r}")
        self._socket = transport
        self.engine.collect(self._collector)
        self._transport.bind(self.engine)
        self._opens_by = self._loop.time() + self.limits.handshake
        self.later("handshake", self.limits.handshake, self._handshake_late)
        self._negotiation = self._begin()
        transport.write(self._negotiation.begin())
        made, self.on_made = self.on_made, nothing
        made()
        self._look_at_certificate()
        self.touch()

    def _begin(self) -> Negotiation:
        if isinstance(self._side, Login):
            return Dialling(self._side)
        return Listening(self._side.offer(self._external()))

    def _external(self) -> str:
        """Whom the connection itself proves the peer to be: by a certificate, or on a Unix socket."""
        if self._socket is None:
            return ""
        secured, raw = (self._socket.get_extra_info(name) for name in ("ssl_object", "socket"))
        if secured is not None:
            return subject(secured)
        if raw is not None and raw.family == socket.AF_UNIX:
            return (
                f"uid:{UCRED.unpack(raw.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))[1]}"
            )
        return ""

    def _look_at_certificate(self) -> None:
        """A connection lasts as long as the peer's certificate: then it has to be made again, with a new
        one."""
        secured = None if self._socket is None else self._socket.get_extra_info("ssl_object")
        until = None if secured is None else ends(secured)
        if until is None:
            return
        left = until - time.time()
        if left > 0:
            self.later("certificate", min(left, LOOK_SECONDS), self._look_at_certificate)
            return
        why = "the peer's certificate has ended"
        self.on_refused(f"{why} while it was connected")
        self.fail(outcome.UNAUTHORIZED, why)
        self.close_engine(outcome.UNAUTHORIZED, "the certificate has ended")

    def data_received(self, data: bytes) -> None:
        self._turn = True
        if self.paused:
            self._hold_back(len(data))
        try:
            self._feed(data)
        except Refused as error:
            self._refuse(error)
        finally:
            self._turn = False
        self._flush()

    def eof_received(self) -> None:
        self.fail("", "the peer closed the socket")
        lib.pn_transport_close_tail(self._t)
        self._dispatch()
        self._flush()

    def pause_writing(self) -> None:
        self.paused = True
        self.later("stall", self.limits.stall, self._stalled)

    def resume_writing(self) -> None:
        self.paused = False
        self._unanswered = 0
        if self._socket is not None:
            self._socket.resume_reading()
        self.cancel("stall")
        self._flush()
        self.on_resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        # an alert of TLS 1.3 comes after the handshake
        condition = outcome.UNAUTHORIZED if isinstance(exc, ssl.SSLError) else ""
        self.fail(condition, str(exc) if exc else "the peer closed the socket")
        self._socket = None
        for name in list(self._timers):
            self.cancel(name)
        lib.pn_transport_close_tail(self._t)
        lib.pn_transport_close_head(self._t)
        self._dispatch()
        self._transport.unbind()
        self.on_lost(self.reason or Closed("", "lost"))
        self.engine.free()
        self._handle = lambda _kind, _event: None
        self._dispatch()
        self.on_flushed = self.on_resumed = nothing
        self.on_refused = nobody_asks
        self.on_lost = nothing

    # the engine's side

    @property
    def peer(self) -> str:
        """`127.0.0.1:4711`; the path or "unix" for a Unix socket."""
        name = self._socket.get_extra_info("peername") if self._socket else None
        return f"{name[0]}:{name[1]}" if isinstance(name, tuple) else str(name or "unix")

    @property
    def own(self) -> Any:
        """Our own end, as `socket.getsockname` tells it; None for what is no socket."""
        return self._socket.get_extra_info("sockname") if self._socket else None

    @property
    def user(self) -> str:
        """Whom the peer authenticated as; `anonymous` for ANONYMOUS; for EXTERNAL the subject of its
        certificate, or `uid:1000` on a Unix socket."""
        return self._identity

    def channels(self) -> int:
        """How many sessions both sides allow."""
        return int(min(self.limits.channels, lib.pn_transport_remote_channel_max(self._t) + 1))

    def transport_condition(self) -> tuple[str, str]:
        return pn.condition_of(lib.pn_transport_condition(self._t))

    def touch(self) -> None:
        """Flush at the end of this turn of the loop, or at once after the data that is being handled."""
        if not self._scheduled and not self._turn:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def fail(self, condition: str, description: str) -> None:
        """Remember why this ends; the first reason counts."""
        if self.reason is None:
            self.reason = Closed(condition, description)

    def abort(self) -> None:
        """End now, without a word to the peer."""
        if self._socket is not None:
            self._socket.abort()

    def finish(self) -> None:
        """A close was said or heard: the socket ends when it is written, at the latest after
        `limits.closing`."""
        self.later("closing", self.limits.closing, self.abort)
        self.touch()

    def opened(self) -> None:
        """The peer's open has come: the handshake is over, and idle time-outs count from now."""
        self.cancel("handshake")
        self._tick()

    def later(self, name: str, seconds: float, call: Callable[[], None]) -> None:
        if name not in self._timers and self._socket is not None:
            self._timers[name] = self._loop.call_later(seconds, self._timer, name, call)

    def cancel(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _timer(self, name: str, call: Callable[[], None]) -> None:
        self._timers.pop(name, None)
        call()

    def _make_transport(self, *, server: bool) -> Transport:
        transport = Transport(Transport.SERVER if server else Transport.CLIENT)
        transport.max_frame_size = self.limits.frame
        transport.channel_max = self.limits.channels - 1
        transport.idle_timeout = self.limits.idle
        return transport

    def _feed(self, data: bytes) -> None:
        if self._deaf:
            return
        if self._negotiation is not None:
            say, data = self._negotiation.take(data)
            if say and self._socket is not None:
                self._socket.write(say)
            if self._negotiation.done:
                self._identity, self._negotiation = self._negotiation.identity, None
        if data:
            self._push(data)

    def _refuse(self, refused: Refused) -> None:
        """Nothing more is read, and what is left to say is written before the end."""
        self._deaf = True
        self.on_refused(str(refused))
        self.fail(outcome.UNAUTHORIZED, str(refused))
        if self._socket is not None:
            self._socket.write(refused.say)
            self._socket.close()
            self.later("closing", self.limits.closing, self.abort)

    def _push(self, data: bytes) -> None:
        t = self._t
        while data:
            room: int = lib.pn_transport_capacity(t)
            if room < 0:  # the engine is past reading; what it has to say is still written
                return
            piece = data if len(data) <= room else data[:room]
            taken: int = lib.pn_transport_push(t, ffi.from_buffer(piece), len(piece))
            self._dispatch()
            if taken <= 0:
                return
            data = data[taken:]

    def _dispatch(self) -> None:
        collector = pn.impl(self._collector)
        while event := lib.pn_collector_peek(collector):
            try:
                self._handle(lib.pn_event_type(event), event)
            except PEER_FAULTS as error:
                self._peer_fault(error)
            finally:
                lib.pn_collector_pop(collector)

    def _peer_fault(self, error: Exception) -> None:
        log.info("peer %s: what it sent cannot be read, closing: %s", self.peer, error)
        self.fail(outcome.DECODE_ERROR, f"what the peer sent cannot be read: {error}")
        self.close_engine(outcome.DECODE_ERROR, "what was sent cannot be read")

    def close_engine(self, condition: str = "", description: str = "") -> None:
        """Say close, with an error when a condition is given, and end when it is written."""
        engine = pn.impl(self.engine)
        if condition:
            pn.set_condition(lib.pn_connection_condition(engine), condition, description)
        lib.pn_connection_close(engine)
        self.finish()

    def _flush(self) -> None:
        self._scheduled = False
        t = self._t
        while (out := self._writable()) is not None:
            pending: int = lib.pn_transport_pending(t)
            if pending <= 0:
                if pending < 0:
                    out.close()
                    self.later("closing", self.limits.closing, self.abort)
                break
            buffer = bytearray(pending)
            lib.pn_transport_peek(t, ffi.from_buffer(buffer), pending)
            out.write(buffer)
            lib.pn_transport_pop(t, pending)
        self._dispatch()
        if not self.paused:
            self.on_flushed()

    def _writable(self) -> asyncio.Transport | None:
        free = self._socket is not None and not self.paused and not self._socket.is_closing()
        return self._socket if free and self._negotiation is None else None

    def _tick(self) -> None:
        if self._socket is None:
            return
        now = int(self._loop.time() * 1000)
        deadline: int = lib.pn_transport_tick(self._t, now)
        if deadline > 0:
            self.cancel("tick")
            self.later("tick", max(deadline - now, 10) / 1000, self._tick)
        self.touch()

    def _hold_back(self, size: int) -> None:
        """Who does not read what we answer may not ask for ever: answers would pile up in the engine.

        Some is still read, for two peers that both wait to be read would wait for ever.
        """
        self._unanswered += size
        if self._unanswered > self.limits.outgoing and self._socket is not None:
            self._socket.pause_reading()

    def _handshake_late(self) -> None:
        late = self._loop.time() - self._opens_by
        if late > OURS_SECONDS:  # the time was not the peer's alone: this loop was busy
            self._opens_by += late + self.limits.handshake
            self.later("handshake", self.limits.handshake, self._handshake_late)
            return
        why = f"the peer did not open within {self.limits.handshake:g} s"
        if self._negotiation is not None:
            self.on_refused(why)
        self.fail("", why)
        self.abort()

    def _stalled(self) -> None:
        self.fail(outcome.RESOURCE_LIMIT, f"the peer read nothing for {self.limits.stall} s")
        self.abort()
