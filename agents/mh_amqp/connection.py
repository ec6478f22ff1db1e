"""One AMQP 1.0 connection: its sessions and links, whichever side dialled. `engine` makes them."""

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Protocol

from proton import symbol

from libmh import errors
from mh_amqp import outcome, pn
from mh_amqp.limits import Limits
from mh_amqp.links import Asked, Delivery, Link, Receiver, Sender
from mh_amqp.pn import Handle, lib
from mh_amqp.pump import Closed, Pump
from mh_amqp.security import Door, Login

RELAY = "ANONYMOUS-RELAY"
PAIRED = "paired"


class Served(Protocol):
    """What a listener does with its peers. Called in the loop; must not block."""

    def opened(self, connection: "Connection") -> None:
        """A peer has authenticated and opened."""

    def attach(self, connection: "Connection", link: Link) -> None:
        """A peer wants a link (`link.asked`): answer with `connection.admit` or `connection.refuse`, now
        or later."""

    def closed(self, connection: "Connection", reason: Closed) -> None:
        """The peer is gone; all its links were told before."""


class Connection:
    """One AMQP connection. `closed` is done, with the reason, when it has ended; it is never cancelled or
    failed."""

    def __init__(self, container: str, limits: Limits, side: Login | Door, served: Served | None) -> None:
        self.limits = limits
        self.container = container
        self.closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        self.ready: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.peer = ""
        self.user = ""
        self.login_user = "" if isinstance(side, Door) else side.user or ""
        self.remote_container = ""
        self.product = ""
        self.version = ""
        self.state: object = None
        self._served = served
        self._server = isinstance(side, Door)
        self._links: dict[Handle, Link] = {}
        self._sessions: set[Handle] = set()
        self._alone: dict[Handle, None] = {}  # as a set, of which an empty one takes thrice the memory
        self._attaching: dict[Handle, asyncio.Future[None]] = {}
        self._blocked: dict[Sender, None] = {}
        self._names = itertools.count(1)
        self._shared: Handle = None
        self.pump = Pump(self._handle, limits, side)
        self.pump.engine.container = container
        self.pump.on_made = self._made
        self.pump.on_lost = self._lost
        self.pump.on_flushed = self._flushed
        self.pump.on_resumed = self._resumed

    # for callers

    @property
    def paused(self) -> bool:
        """Whether the peer does not read what we write."""
        return self.pump.paused

    async def sender(
        self,
        address: str | None,
        *,
        settled: bool | None = None,
        shared: bool = False,
        durable: bool = False,
        pair: str = "",
        deadline: float | None = None,
    ) -> Sender:
        """Attach a sending link; None is the anonymous terminus (messages go where their `to` says).

        A link has a session of its own, since some brokers answer a bad attach by ending the session; with
        `shared` it joins the connection's common one. `durable` asks for a node that outlives the broker,
        where the broker makes it. `pair` is the name of a link pair (AMQP-PL). Raises the Problem of the
        peer's condition, `Timeout`, `Unavailable`.
        """
        session = self._session(shared=shared)
        name = pair or f"{self.container}-{next(self._names)}"
        link = pn.pn_sender(session, name)
        pn.put_flags(lib.pn_link_properties(link), [PAIRED] if pair else [])
        sender = Sender(self, link, session, name)
        sender.address = address
        pn.pn_terminus_set_address(lib.pn_link_target(link), address)
        pn.pn_terminus_set_address(lib.pn_link_source(link), name)
        if durable:
            lib.pn_terminus_set_durability(lib.pn_link_target(link), pn.DURABLE)
        await self._attach(sender, link, settled=settled, deadline=deadline)
        return sender

    async def receiver(
        self,
        address: str | None,
        on_delivery: Callable[[Delivery], None],
        *,
        dynamic: bool = False,
        credit: int = 100,
        hold: bool = False,
        settled: bool | None = None,
        shared: bool = False,
        durable: bool = False,
        capabilities: Sequence[str] = (),
        pair: str = "",
        deadline: float | None = None,
    ) -> Receiver:
        """Attach a receiving link and give `credit`; a dynamic one's `address` is the name that the peer
        chose.

        `settled=True` asks for messages that need no answer. Errors as for `sender`.
        """
        session = self._session(shared=shared)
        name = pair or f"{self.container}-{next(self._names)}"
        link = pn.pn_receiver(session, name)
        pn.put_flags(lib.pn_link_properties(link), [PAIRED] if pair else [])
        receiver = Receiver(self, link, name)
        receiver.address = address
        receiver.on_delivery = on_delivery
        source = lib.pn_link_source(link)
        if dynamic:
            lib.pn_terminus_set_dynamic(source, True)  # noqa: FBT003 - C
        else:
            pn.pn_terminus_set_address(source, address)
        if durable:
            lib.pn_terminus_set_durability(source, pn.DURABLE)
        pn.put_symbols(lib.pn_terminus_capabilities(source), capabilities)
        pn.pn_terminus_set_address(lib.pn_link_target(link), name)
        lib.pn_link_set_max_message_size(link, self.limits.message)
        await self._attach(receiver, link, settled=settled, deadline=deadline)
        if dynamic:
            receiver.address = pn.pn_terminus_get_address(lib.pn_link_remote_source(link))
        receiver.start(credit, hold=hold)
        return receiver

    def admit(
        self, link: Link, address: str | None = None, *, credit: int = 100, hold: bool = False
    ) -> None:
        """Let a peer's link be; `address` names the node that was made for a dynamic one. `credit` is for
        receivers."""
        handle = _unanswered(link)
        if handle is None:
            return
        lib.pn_terminus_copy(lib.pn_link_source(handle), lib.pn_link_remote_source(handle))
        lib.pn_terminus_copy(lib.pn_link_target(handle), lib.pn_link_remote_target(handle))
        lib.pn_link_set_snd_settle_mode(handle, lib.pn_link_remote_snd_settle_mode(handle))
        if address is not None:
            link.address = address
            own = lib.pn_link_source(handle) if isinstance(link, Sender) else lib.pn_link_target(handle)
            pn.pn_terminus_set_address(own, address)
        lib.pn_link_set_max_message_size(handle, self.limits.message)
        lib.pn_link_open(handle)
        self.touch()
        if isinstance(link, Receiver):
            link.start(credit, hold=hold)
        else:
            link.pump()

    def refuse(self, link: Link, condition: str, description: str) -> None:
        """Turn a peer's link down: an attach without a terminus, then a detach with the error (AMQP 1.0
        part 2.6.3)."""
        handle = _unanswered(link)
        if handle is None:
            return
        own = lib.pn_link_source(handle) if isinstance(link, Sender) else lib.pn_link_target(handle)
        lib.pn_terminus_set_type(own, pn.NO_TERMINUS)
        lib.pn_link_open(handle)
        link.close(condition, description)

    async def close(self, condition: str = "", description: str = "") -> Closed:
        """Say close, wait for the peer's answer (`limits.closing` at most), and give the reason."""
        self.fail(condition, description or "closed on this side")
        return await asyncio.shield(self.closed)

    def fail(self, condition: str, description: str) -> None:
        """Start closing, with an error for the peer when a condition is given; `closed` tells when it is
        over."""
        self.pump.fail(condition, description)
        if not self.closed.done():
            self.pump.close_engine(condition, description)

    def abort(self, description: str = "aborted on this side") -> None:
        """End at once, without a word to the peer."""
        self.pump.fail("", description)
        self.pump.abort()

    # for links

    def touch(self) -> None:
        self.pump.touch()

    def wait_for_room(self, sender: Sender) -> None:
        self._blocked[sender] = None

    def detaching(self, handle: Handle) -> None:
        self._end_alone(lib.pn_link_session(handle))
        self.touch()

    # events

    def _handle(self, kind: int, event: Handle) -> None:
        handler = self.HANDLERS.get(kind)
        if handler is not None:
            handler(self, event)

    def _made(self) -> None:
        self.peer = self.pump.peer
        if not self._server:
            self.pump.engine.open()

    def _remote_open(self, _: Handle) -> None:
        self.remote_container = str(self.pump.engine.remote_container or "")
        if not self._server:
            self.product, self.version = self._said("product"), self._said("version")
        self.user = self.pump.user
        if self._server:
            self.pump.engine.offered_capabilities = [symbol(RELAY)]
            self.pump.engine.open()
            self.pump.engine.offered_capabilities_list = None  # it has been said
        self.pump.opened()
        if not self.ready.done():
            self.ready.set_result(True)
            if self._served is not None:
                self._served.opened(self)

    def _said(self, name: str) -> str:
        """A text among the properties of the peer's open frame."""
        try:
            found = (self.pump.engine.remote_properties or {}).get(symbol(name))
        except (AttributeError, TypeError):  # no map, or one whose keys are no symbols
            return ""
        return found[: self.limits.address] if isinstance(found, str) else ""

    def _remote_close(self, _: Handle) -> None:
        condition, description = pn.condition_of(
            lib.pn_connection_remote_condition(pn.impl(self.pump.engine))
        )
        self.pump.fail(condition, description or "closed by the peer")
        self.pump.close_engine()

    def _transport_error(self, _: Handle) -> None:
        self.pump.fail(*self.pump.transport_condition())
        self.pump.finish()

    def _session_open(self, event: Handle) -> None:
        session = lib.pn_event_session(event)
        if session in self._sessions:
            return
        self._sessions.add(session)
        if len(self._sessions) > self.limits.channels:
            self.fail(outcome.RESOURCE_LIMIT, f"more than {self.limits.channels} sessions")
            return
        lib.pn_session_set_incoming_capacity(session, self.limits.capacity)
        lib.pn_session_open(session)
        self.touch()

    def _session_close(self, event: Handle) -> None:
        session = lib.pn_event_session(event)
        if session not in self._sessions:
            return
        condition, description = pn.condition_of(lib.pn_session_remote_condition(session))
        for handle in [each for each in self._links if lib.pn_link_session(each) == session]:
            self._end_link(handle, condition, description or "the peer ended the session")
        self._sessions.discard(session)
        self._alone.pop(session, None)
        if session == self._shared:
            self._shared = None
        lib.pn_session_close(session)
        lib.pn_session_free(session)
        self.touch()

    def _link_open(self, event: Handle) -> None:
        handle = lib.pn_event_link(event)
        link = self._links.get(handle)
        if link is None:
            self._peer_attaches(handle)
            return
        waiting = self._attaching.get(handle)
        sends = isinstance(link, Sender)
        terminus = lib.pn_link_remote_target(handle) if sends else lib.pn_link_remote_source(handle)
        if (
            waiting is not None
            and not waiting.done()
            and lib.pn_terminus_get_type(terminus) != pn.NO_TERMINUS
        ):
            waiting.set_result(None)  # without a terminus it is a refusal: the detach that follows says why

    def _peer_attaches(self, handle: Handle) -> None:
        name = str(pn.pn_link_name(handle) or "")
        sends = bool(lib.pn_link_is_sender(handle))
        terminus = lib.pn_link_remote_source(handle) if sends else lib.pn_link_remote_target(handle)
        address = pn.pn_terminus_get_address(terminus)
        own = lib.pn_link_remote_target(handle) if sends else lib.pn_link_remote_source(handle)
        mode = lib.pn_link_remote_snd_settle_mode(handle)
        other = pn.pn_terminus_get_address(own)
        asked = Asked(
            address or None,
            dynamic=bool(lib.pn_terminus_is_dynamic(terminus)),
            settled=None if mode == pn.SND_MIXED else mode == pn.SND_SETTLED,
            coordinator=lib.pn_terminus_get_type(terminus) == pn.COORDINATOR,
            other=name if other == name else other or None,
        )
        session = lib.pn_link_session(handle)
        link: Link = (
            Sender(self, handle, session, name, asked) if sends else Receiver(self, handle, name, asked)
        )
        self._links[handle] = link
        if len(self._links) > self.limits.links:
            self.fail(outcome.RESOURCE_LIMIT, f"more than {self.limits.links} links")
        elif len(address or "") > self.limits.address or len(name) > self.limits.address:
            self.refuse(
                link, outcome.INVALID_FIELD, f"an address has at most {self.limits.address} characters"
            )
        elif self._served is None:
            self.refuse(link, outcome.NOT_ALLOWED, "nothing can be attached here")
        elif asked.coordinator:
            self.refuse(link, outcome.NOT_IMPLEMENTED, "there are no transactions here")
        else:
            self._served.attach(self, link)

    def _link_close(self, event: Handle) -> None:
        handle = lib.pn_event_link(event)
        if handle in self._links:
            condition, description = pn.condition_of(lib.pn_link_remote_condition(handle))
            session = lib.pn_link_session(handle)
            self._end_link(handle, condition, description or "detached by the peer")
            lib.pn_link_close(handle)
            lib.pn_link_free(handle)
            self._end_alone(session)
            self.touch()

    def _link_flow(self, event: Handle) -> None:
        link = self._links.get(lib.pn_event_link(event))
        if type(link) is Sender:
            link.pump()

    def _delivery(self, event: Handle) -> None:
        handle = lib.pn_event_link(event)
        link = self._links.get(handle)
        if type(link) is Receiver:
            if link.open:
                link.arrived()
            else:  # detached here: what was under way must not fill the session's window
                while delivery := lib.pn_link_current(handle):
                    lib.pn_delivery_settle(delivery)
        elif type(link) is Sender:
            delivery = lib.pn_event_delivery(event)
            if not link.updated(delivery) and lib.pn_link_current(handle) == delivery:
                self.abort("the peer sent a message on a link that it receives on")

    def _flushed(self) -> None:
        if self._blocked:
            blocked, self._blocked = self._blocked, {}
            for sender in blocked:
                sender.pump()

    def _resumed(self) -> None:
        for link in list(self._links.values()):
            if isinstance(link, Receiver):
                link.top_up()

    def _lost(self, reason: Closed) -> None:
        for handle in list(self._links):
            self._end_link(handle, reason.condition, reason.description)
        self._sessions.clear()
        self._alone.clear()
        self._blocked.clear()
        self._shared = None
        if not self.closed.done():
            self.closed.set_result(reason)
        if not self.ready.done():
            self.ready.set_result(False)
        elif self._served is not None:
            self._served.closed(self, reason)

    # pieces

    def _session(self, *, shared: bool) -> Handle:
        if self.closed.done() or self.pump.reason is not None:
            raise errors.Unavailable(f"the connection has ended: {self.pump.reason}")
        shared = shared or len(self._sessions) >= self.pump.channels() - 1
        if shared and self._shared:
            return self._shared
        session = lib.pn_session(pn.impl(self.pump.engine))
        lib.pn_session_set_incoming_capacity(session, self.limits.capacity)
        lib.pn_session_open(session)
        self._sessions.add(session)
        if shared:
            self._shared = session
        else:
            self._alone[session] = None
        return session

    async def _attach(
        self, link: Link, handle: Handle, *, settled: bool | None, deadline: float | None
    ) -> None:
        mode = pn.SND_MIXED if settled is None else pn.SND_SETTLED if settled else pn.SND_UNSETTLED
        lib.pn_link_set_snd_settle_mode(handle, mode)
        lib.pn_link_open(handle)
        link.settles = settled
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._links[handle] = link
        self._attaching[handle] = waiting
        self.touch()
        seconds = self.limits.attach if deadline is None else deadline
        try:
            async with asyncio.timeout(seconds):
                await waiting
        except TimeoutError as late:
            raise errors.Timeout(f"the peer did not attach '{link.address or ''}' in {seconds} s") from late
        finally:
            self._attaching.pop(handle, None)
            if not waiting.done() or waiting.cancelled() or waiting.exception():
                link.close()

    def _end_link(self, handle: Handle, condition: str, description: str) -> None:
        link = self._links.pop(handle)
        link.ended(condition, description)
        if isinstance(link, Sender):
            self._blocked.pop(link, None)
        waiting = self._attaching.pop(handle, None)
        if waiting is not None and not waiting.done():
            waiting.set_exception(
                outcome.problem(condition, description, f"cannot attach '{link.address or ''}'")
            )

    def _end_alone(self, session: Handle) -> None:
        if session in self._alone:
            del self._alone[session]
            lib.pn_session_close(session)

    HANDLERS: ClassVar[Mapping[int, Callable[["Connection", Handle], None]]] = {
        lib.PN_CONNECTION_REMOTE_OPEN: _remote_open,
        lib.PN_CONNECTION_REMOTE_CLOSE: _remote_close,
        lib.PN_SESSION_REMOTE_OPEN: _session_open,
        lib.PN_SESSION_REMOTE_CLOSE: _session_close,
        lib.PN_LINK_REMOTE_OPEN: _link_open,
        lib.PN_LINK_REMOTE_CLOSE: _link_close,
        lib.PN_LINK_REMOTE_DETACH: _link_close,
        lib.PN_LINK_FLOW: _link_flow,
        lib.PN_DELIVERY: _delivery,
        lib.PN_TRANSPORT_ERROR: _transport_error,
    }
    """By type of event; one table for all: thousands of connections would each keep a kilobyte of it."""


def _unanswered(link: Link) -> Handle:
    """The C link that waits for our answer; None when it has gone meanwhile or was answered."""
    handle = link.handle
    return handle if handle is not None and lib.pn_link_state(handle) & pn.LOCAL_UNINIT else None
