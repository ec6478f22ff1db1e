"""Serving a dispatcher at addresses of a broker: requests in, replies and events out, over one connection.

A connection has one session and few links: a receiver for each address, and a sender for replies, events
and reports alike; what they are called at the broker is the dialect's business. What runs when the
connection is lost goes on; its answer waits for the requester who asks again.
"""

import asyncio
import ipaddress
import logging
import secrets
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from libmh.agent import ThisAgent
from libmh.api.agent import Agent
from libmh.connections import Connections
from libmh.dispatch import Dispatcher, Everybody
from libmh.errors import Unavailable
from libmh.serve import DRAIN_SECONDS, Process
from libmh.spec import interface_of
from mh_amqp import dialects
from mh_amqp.authority import ANONYMOUS, Roles, roles
from mh_amqp.casts import Casts
from mh_amqp.connection import Connection
from mh_amqp.dialects import Dialect
from mh_amqp.events import Encoded, Outbox, Source
from mh_amqp.intake import CREDIT, Intake
from mh_amqp.links import Receiver, Sender
from mh_amqp.management import Management
from mh_amqp.messages import Message
from mh_amqp.names import HOST_PREFIX, place
from mh_amqp.node_asking import NodeAsking
from mh_amqp.outcome import Outcome
from mh_amqp.post import Post, post, receive
from mh_amqp.signatures import IDENTITY as BY_KEY
from mh_amqp.signatures import signatures_of
from mh_amqp.spool import Spool
from mh_amqp.tls import Tls, files_of
from mh_amqp.tls import watch as tls_watch
from mh_amqp.upkeep import DEFAULT_PACE, Pace, Upkeep

log = logging.getLogger(__name__)
FAREWELL_SECONDS = 1.0
BY_NUMBER = "uid:"

Extra = Callable[[Post], Awaitable[None]]
"""Something more to do with each connection, as long as it lasts."""


async def serve(
    process: Process,
    urls: Sequence[str],
    dispatcher: Dispatcher,
    addresses: Mapping[str, Collection[str]],
    connections: Connections,
) -> None:
    """Serve interfaces (named in full) at addresses of the first broker that answers, until `process.stop`
    is set; events of the dispatcher's hub are published there. A dispatcher without an authority gets the
    configuration's roles."""
    served = serving(process, dispatcher, addresses, Source())
    try:
        await served.run(urls, connections)
    finally:
        served.outbox.close()


def serving(
    process: Process, dispatcher: Dispatcher, addresses: Mapping[str, Collection[str]], source: Source
) -> "Serving":
    """The parts that outlive connections."""
    if isinstance(dispatcher.authority, Everybody):
        dispatcher.authority = roles(process.config, process.options.config)
    if isinstance(dispatcher.authority, Roles):
        known = [each.interface for each in dispatcher.interfaces.values()]
        for words in dispatcher.authority.policy.idle(known):
            log.warning("[roles] %s: it does nothing here", words)
    nodes = {
        address: Management(dispatcher, source.host or _host_of(address), names)
        for address, names in addresses.items()
    }
    bound = dispatcher.interfaces
    spool = Spool(process.state / f"{process.name}.events")
    spool.open()
    outbox = Outbox(
        dispatcher.context.events,
        source,
        lambda name: bound[name].interface if name in bound else None,
        spool,
    )
    this = bound.get(interface_of(Agent).name)
    if this is not None and isinstance(this.provider, ThisAgent):
        this.provider.remember(outbox.past)
    signatures = signatures_of(process.config, process.state / f"{process.name}.seen")
    return Serving(
        process,
        dispatcher,
        Intake(nodes, signatures=signatures, shared=not any(map(_host_of, addresses))),
        outbox,
        dialect=dialects.chosen(process.config),
    )


def _host_of(address: str) -> str:
    return address.removeprefix(HOST_PREFIX) if address.startswith(HOST_PREFIX) else ""


@dataclass(slots=True)
class Serving:
    """A process's half at brokers. `label` is said in the ready line before the URL; `casts` takes what is
    asked of many hosts; `dialect` is the configuration's, None to go by what a broker says of itself."""

    process: Process
    dispatcher: Dispatcher
    intake: Intake
    outbox: Outbox
    label: str = ""
    extras: list[Extra] = field(default_factory=list)
    pace: Pace = DEFAULT_PACE
    casts: Casts | None = None
    dialect: Dialect | None = None
    _warned: set[str] = field(default_factory=set)

    def take_casts(self, casts: Casts) -> None:
        """Receive what is asked of many hosts, too."""
        self.casts = casts
        self.intake.gate, self.intake.also = casts.judge, frozenset(casts.addresses)

    async def run(self, urls: Sequence[str], connections: Connections) -> None:
        """Until the process is told to stop; what runs then is finished or refused."""

        async def session(connection: Connection, url: str) -> None:
            await self.session(connection, url, connections)

        tls = Tls(files_of(self.process.config))
        self.process.beside(tls_watch(tls, connections.certificates))
        upkeep = Upkeep(
            urls,
            f"{self.process.name}-{secrets.token_hex(6)}",
            connections,
            self.process.stop,
            session,
            lambda shown: self._say(f"waiting for {shown}"),
            self.pace,
            tls,
        )
        await upkeep.run()
        await self.intake.stop(DRAIN_SECONDS)

    def _say(self, text: str) -> None:
        said = f"{self.label} {text}".strip()
        self.process.ready(said)
        self.process.status(said)

    async def session(self, connection: Connection, url: str, connections: Connections) -> None:
        """Serve over a connection as long as it lasts. Raises the Problem that ends it."""
        sending = await post(connection, self.dialect)
        self._warn(sending.dialect, url)
        self.intake.private = lambda to: sending.dialect.reply(to) is not None
        lost: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        addresses = [*self.intake.nodes, *(self.casts.addresses if self.casts else ())]
        receivers = [await self._receive(sending, address, lost) for address in addresses]
        for sender in sending.standing.values():
            watch(sender, lost)
        connections.connected(url)
        connections.broker = NodeAsking(sending)
        self._say(f"via {place(url).shown}")
        self._publish_through(sending)
        work: list[asyncio.Future[Any]] = [asyncio.ensure_future(extra(sending)) for extra in self.extras]
        stopping: asyncio.Future[Any] = asyncio.ensure_future(self.process.stop.wait())
        try:
            await asyncio.wait({lost, stopping, *work}, return_when=asyncio.FIRST_COMPLETED)
            if self.process.stop.is_set():
                await self._leave(receivers)
            elif lost.done():
                raise Unavailable(lost.result())
            for each in work:
                if each.done():
                    each.result()
        finally:
            connections.broker = None
            self.outbox.pause()
            for task in (stopping, *work):
                task.cancel()

    def _warn(self, dialect: Dialect, url: str) -> None:
        """Say once what this broker's administrator has to know."""
        if dialect.warning and dialect.name not in self._warned:
            self._warned.add(dialect.name)
            log.warning("%s speaks %s: %s", place(url).shown, dialect.name, dialect.warning)

    async def _receive(self, sending: Post, address: str, lost: "asyncio.Future[str]") -> Receiver:
        connection, dialect = sending.connection, sending.dialect
        who = identity_at(connection, believed=dialect.checks_user)
        cast = self.casts is not None and address in self.casts.addresses
        # nobody would get what was sent to all a second time, so it need not be settled
        receiver = await receive(
            connection,
            dialect,
            address,
            lambda _delivery: None,
            credit=0,
            hold=True,
            settled=cast or None,
            shared=True,
        )
        node = self.casts.home if self.casts and cast else address
        receiver.on_delivery = self.intake.deliveries(receiver, node, who, sending.reply)
        watch(receiver, lost)
        receiver.start(CREDIT, hold=True)
        return receiver

    def _publish_through(self, sending: Post) -> None:
        def deliver(event: Encoded) -> bool:
            if not sending.ready(event.address):
                return False
            if event.number:
                settled = partial(self._settled, event)
                sending.send(event.address, event.raw, on_outcome=settled)
            else:
                sending.send(event.address, event.raw, settled=True)
            return True

        for sender in sending.standing.values():
            sender.on_credit = self.outbox.flush
        self.outbox.resume(deliver, confirms=True)

    def _settled(self, event: Encoded, came: Outcome) -> None:
        self.outbox.settled(event, came.word)

    async def _leave(self, receivers: Sequence[Receiver]) -> None:
        """Take no more, finish what runs or refuse it, and say good-bye."""
        for receiver in receivers:
            receiver.suspend()
        await self.intake.stop(DRAIN_SECONDS)
        await farewell(self.dispatcher, self.outbox)


async def farewell(dispatcher: Dispatcher, outbox: Outbox) -> None:
    """Say `going_away`, and wait for a moment until it is handed to the connection."""
    dispatcher.context.events.emit(Agent.going_away, reason="stopped")
    await asyncio.sleep(0)  # it comes through the loop, as from any thread
    try:
        await asyncio.wait_for(outbox.empty.wait(), FAREWELL_SECONDS)
    except TimeoutError:
        log.info("%d events were not taken before the end, ignoring", outbox.waiting)


def watch(link: Sender | Receiver, lost: "asyncio.Future[str]") -> None:
    """Let `lost` tell when a link ends."""

    def closed(condition: str, description: str) -> None:
        if not lost.done():
            said = f"{description} ({condition})" if description and condition else description or condition
            lost.set_result(f"the link to '{link.address or ''}' ended: {said}")

    link.on_closed = closed


def identity_at(connection: Connection, *, believed: bool = True) -> Callable[[Message], str]:
    """Whom a message that came through a broker is from: its user-id, which is `believed` where the broker
    has checked it; without one, `anonymous`, with the broker's host where that is not this machine."""
    host = connection.peer.rpartition(":")[0].strip("[]")
    nobody = ANONYMOUS if not host or is_local(host) else f"{ANONYMOUS}@{host}"

    def identity(message: Message) -> str:
        if not message.user_id or not believed:
            return nobody
        try:
            said = message.user_id.decode()
        except UnicodeDecodeError:  # no name that a policy could list
            return nobody
        # who is known by a key has to sign, and a user's number is one of this machine: a broker's users
        # could have any name
        claimed = said.startswith(BY_KEY) or (said.startswith(BY_NUMBER) and nobody != ANONYMOUS)
        return nobody if said == ANONYMOUS or claimed or not said.isprintable() else said

    return identity


def is_local(host: str) -> bool:
    """Whether a numeric address is this machine's own loopback; an empty or odd one belongs to a Unix
    socket."""
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return True
