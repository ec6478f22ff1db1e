"""Sending to logical addresses and receiving from them, in the dialect of whoever is on the other side.

What is sent all the time (replies, events) goes by links that are attached at the start. A request may
need a link of its own, which is attached on the way, in a session of its own: RabbitMQ answers an attach
that it does not like by ending the session.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TypedDict, Unpack

from libmh.errors import InvalidArguments, Unavailable
from mh_amqp import raw as messages
from mh_amqp.connection import Connection
from mh_amqp.declaring import declare
from mh_amqp.dialects import Dialect, Target, spoken
from mh_amqp.links import Delivery, OnOutcome, Receiver, Sender, nothing

log = logging.getLogger(__name__)
SLACK = 1000
"""Messages that a broker may send ahead: at most those that it was given credit for before."""
MAX_LINKS = 8
"""Links to addresses that need one of their own; the one used longest ago is detached for another."""


class Receiving(TypedDict, total=False):
    """What `Connection.receiver` may be told beside the address."""

    credit: int
    hold: bool
    settled: bool | None
    shared: bool


def dialect_of(connection: Connection, chosen: Dialect | None = None) -> Dialect:
    """What the peer speaks, unless the configuration says it."""
    return chosen or spoken(connection.remote_container, connection.product, connection.version)


async def receive(
    connection: Connection,
    dialect: Dialect,
    address: str,
    on_delivery: Callable[[Delivery], None],
    **options: Unpack[Receiving],
) -> Receiver:
    """A receiver at a logical address, whose `address` is that one. Errors as for `Connection.receiver`."""
    node = dialect.node(address)
    if dialect.declares:
        node = await declare(connection, address, node)
    made = await connection.receiver(
        node.link, on_delivery, capabilities=node.capabilities, durable=node.durable, **options
    )
    made.address = address
    made.slack = SLACK if dialect.overshoots else 0
    return made


class Post:
    """Made by `post`. `on_credit` and `on_closed` are those of the links that are there from the start."""

    def __init__(self, connection: Connection, dialect: Dialect) -> None:
        self.connection = connection
        self.dialect = dialect
        self.standing: dict[str | None, Sender] = {}
        self._passing: OrderedDict[str, Sender] = OrderedDict()
        says = dialect.checks_user and not dialect.stamps and connection.login_user
        self._user = connection.login_user.encode() if says else b""

    @property
    def open(self) -> bool:
        return all(sender.open for sender in self.standing.values())

    @property
    def waiting(self) -> int:
        """Messages kept back for want of credit."""
        return sum(sender.waiting for sender in (*self.standing.values(), *self._passing.values()))

    def ready(self, address: str) -> bool:
        """Whether a message sent there now goes out now, rather than being kept."""
        sender = self.standing.get(self.dialect.target(address).link)
        return sender is not None and sender.ready()

    def send(
        self, address: str, raw: bytes, *, settled: bool = False, on_outcome: OnOutcome = nothing
    ) -> None:
        """Send by a link that is there. Raises `Unavailable`: closed, too much kept, or none leads there."""
        target = self.dialect.target(address)
        self._put(self._standing(target), raw, target, on_outcome, settled=settled)

    def reply(self, address: str, raw: bytes) -> None:
        """Send to what a request has as its reply-to. Raises `InvalidArguments`, `Unavailable`."""
        target = self.dialect.reply(address)
        if target is None:
            raise InvalidArguments(f"'{address[:256]}' is no place for replies")
        self._put(self._standing(target), raw, target, settled=True)

    async def carry(self, address: str, raw: bytes, on_outcome: OnOutcome = nothing) -> None:
        """Send by the link that leads there, which is attached if there is none yet. Errors as for
        `Connection.sender` and `Sender.send`."""
        target = self.dialect.target(address)
        sender = self.standing.get(target.link)
        if sender is None and target.link is not None:
            sender = await self._link(target, target.link, address)
        if sender is None:
            raise Unavailable(f"no link leads to '{address}'")
        self._put(sender, raw, target, on_outcome)

    def _standing(self, target: Target) -> Sender:
        sender = self.standing.get(target.link)
        if sender is None:
            raise Unavailable(f"no link leads to '{target.link}'")
        return sender

    def _put(
        self,
        sender: Sender,
        raw: bytes,
        target: Target,
        on_outcome: OnOutcome = nothing,
        *,
        settled: bool = False,
    ) -> None:
        if target.subject is not None:
            raw = messages.with_subject(raw, messages.routing(raw), target.subject)
        if target.to is not None:
            raw = messages.with_to(raw, messages.routing(raw), target.to)
        if self._user:
            raw = messages.with_user_id(raw, messages.routing(raw), self._user)
        sender.send(raw, settled=settled, on_outcome=on_outcome)

    async def _link(self, target: Target, link: str, address: str) -> Sender:
        sender = self._passing.get(link)
        if sender is None or not sender.open:
            if self.dialect.declares:
                await declare(self.connection, address, self.dialect.node(address))
            sender = await self.connection.sender(link, durable=target.durable)
            self._passing[link] = sender
            while len(self._passing) > MAX_LINKS:
                self._passing.popitem(last=False)[1].close()
        self._passing.move_to_end(link)
        return sender


async def post(connection: Connection, chosen: Dialect | None = None) -> Post:
    """Attach what is needed to send. Errors as for `Connection.sender`."""
    made = Post(connection, dialect_of(connection, chosen))
    for link in made.dialect.standing:
        made.standing[link] = await connection.sender(link, shared=True)
    return made
