"""A listening agent: consoles connect to it with no broker between, and find the same addresses.

`$management` and `mh.host.<uuid>` take requests, as does a sender without an address by the `to` of its
messages. A dynamic source is a reply address, private to its connection; a source below `mh.event.` gives
events, where `*` stands for one word and `#` for any number, as far as the policy lets its user read what
they tell. A reply may also go to the far end of a link from `$management`, which is how clients work that
pair two links. Anything else is refused with `amqp:not-found`.
"""

import asyncio
import logging
import secrets
from dataclasses import dataclass, field

from libmh.errors import Unavailable
from mh_amqp.addresses import REPLY_PREFIX, matches
from mh_amqp.authority import Roles
from mh_amqp.connection import Connection
from mh_amqp.engine import DEFAULT_DOOR, Door, Listener, listen
from mh_amqp.events import Encoded, Outbox
from mh_amqp.intake import Intake
from mh_amqp.limits import Limits
from mh_amqp.links import Link, Receiver, Sender
from mh_amqp.messages import Message
from mh_amqp.names import AGENT_CONTAINER, EVENT_PREFIX, MANAGEMENT
from mh_amqp.outcome import NOT_FOUND
from mh_amqp.pump import Closed

log = logging.getLogger(__name__)
CREDIT = 100
"""More than at a broker, where what one agent holds back another could not take either."""
MAX_HELD = 32 << 20
"""Bytes of replies that wait for credit, of all consoles together."""
LIMITS = Limits(idle=30.0, connections=200, per_peer=200)


@dataclass(slots=True)
class Peer:
    """What a console has attached."""

    replies: dict[str, Sender] = field(default_factory=dict)
    subscriptions: dict[Sender, str] = field(default_factory=dict)


class Direct:
    """`engine.Served` for consoles. `missed` counts events that a subscriber had no credit for."""

    def __init__(self, intake: Intake, outbox: Outbox) -> None:
        self.missed = 0
        self._intake = intake
        self._peers: dict[Connection, Peer] = {}
        outbox.resume(self.publish, confirms=False)

    def opened(self, connection: Connection) -> None:
        self._peers[connection] = Peer()

    def closed(self, connection: Connection, reason: Closed) -> None:
        log.debug("%s is gone: %s", connection.peer, reason)
        self._peers.pop(connection, None)

    def attach(self, connection: Connection, link: Link) -> None:
        peer = self._peers[connection]
        if isinstance(link, Receiver):
            self._attach_requests(connection, peer, link)
        elif link.asked is not None and link.asked.dynamic:
            self._attach_replies(connection, peer, link, REPLY_PREFIX + secrets.token_urlsafe(16))
        elif (link.address or "").startswith(EVENT_PREFIX):
            peer.subscriptions[link] = link.address or ""
            link.on_closed = lambda _condition, _description: _forget(peer, link)
            connection.admit(link)
        elif link.address in self._intake.nodes:
            other = link.asked.other if link.asked else None
            self._attach_replies(connection, peer, link, other or MANAGEMENT, keep=link.address)
        else:
            connection.refuse(link, NOT_FOUND, f"there is no node '{link.address or ''}' here")

    def _attach_requests(self, connection: Connection, peer: Peer, link: Receiver) -> None:
        if link.address is not None and link.address not in self._intake.nodes:
            connection.refuse(link, NOT_FOUND, f"there is no node '{link.address}' here")
            return

        def identity(_message: Message) -> str:
            return connection.user

        def send(to: str, raw: bytes) -> None:
            sender = peer.replies.get(to)
            if sender is None:
                raise Unavailable(f"'{to}' is no reply address of this connection")
            if sender.offer(raw):
                return
            if not sender.ready() and self._held() + len(raw) > MAX_HELD:
                raise Unavailable("too much waits for consoles that take no replies")
            sender.send(raw, settled=True)

        link.on_delivery = self._intake.deliveries(link, link.address, identity, send)
        connection.admit(link, credit=CREDIT)

    def _held(self) -> int:
        return sum(link.waiting_bytes for peer in self._peers.values() for link in peer.replies.values())

    def _attach_replies(
        self, connection: Connection, peer: Peer, link: Sender, address: str, keep: str | None = None
    ) -> None:
        peer.replies[address] = link
        link.on_closed = lambda _condition, _description: _forget(peer, link)
        connection.admit(link, keep or address)

    def publish(self, event: Encoded) -> bool:
        """Give an event to every console that receives it and keeps up; True, for nothing is kept for one
        that does not."""
        for connection, peer in self._peers.items():
            for sender, pattern in peer.subscriptions.items():
                if not matches(pattern, event.address) or not self._may_hear(connection.user, event.address):
                    continue
                if sender.ready():
                    sender.send(event.raw, settled=True)
                else:
                    self.missed += 1
        return True

    def _may_hear(self, identity: str, address: str) -> bool:
        name, _, member = address.removeprefix(EVENT_PREFIX).rpartition(".")
        for node in self._intake.nodes.values():
            if name in node.interfaces:
                roles = node.dispatcher.authority
                return not isinstance(roles, Roles) or roles.may_hear(
                    identity, node.interfaces[name], member
                )
        return False


def _forget(peer: Peer, link: Sender) -> None:
    peer.subscriptions.pop(link, None)
    for address in [each for each, sender in peer.replies.items() if sender is link]:
        del peer.replies[address]


async def listen_at(
    place: tuple[str, int], host: str, intake: Intake, outbox: Outbox, door: Door = DEFAULT_DOOR
) -> Listener:
    """Accept consoles at host and port. Errors as for `engine.listen`."""
    served = Direct(intake, outbox)
    return await listen(*place, served, container=AGENT_CONTAINER + host, door=door, limits=LIMITS)


async def settle(listener: Listener, seconds: float) -> None:
    """Let what was handed to the connections reach their sockets, then close them."""
    try:
        async with asyncio.timeout(seconds):
            await listener.close()
    except TimeoutError:
        log.info("a console did not take part in the good-bye, leaving")
