"""The embedded broker: for one machine and small sites, in memory but for what is durable, and never reading
more of a message than its header.

=====================  ====================================================================================
address                node
=====================  ====================================================================================
mh.hosts, mh.group.*   multicast: every receiver gets every message; none there: accepted, without effect
mh.event.#             topic: receivers name an address or a pattern (`*` one word, `#` any number); else as
                       multicast
mh.reply.<random>      made for a dynamic source, private to its connection and gone with it; to one that is
                       not there a message is *released* and an attach refused (`amqp:not-found`)
$management            the broker's own node, where it has one
$...                   refused (`amqp:not-found`)
mh.host.<uuid>         queue with one receiver: whoever attaches drives out the one before
                       (`amqp:link:stolen`)
anything else          queue, made at first use, removed when it is empty and nobody is attached
=====================  ====================================================================================

A message is accepted when it is queued or copied; one that is durable, for a queue, when it is on disk, too,
where the broker has one. What cannot be kept is *rejected*, with
`amqp:resource-limit-exceeded`, or counted as dropped when it came settled; before that producers of a busy
queue get no more credit. A subscriber that lags by more than its bounds is detached with the same
condition, so that it knows. Links without a settle mode of their own (mixed) get a message as it came:
settled or not.
"""

import asyncio
import logging
import secrets
import time
from dataclasses import dataclass, field
from typing import Protocol

from mh_amqp import outcome
from mh_amqp import raw as messages
from mh_amqp.access import Way
from mh_amqp.addresses import MOST_PATTERN_WORDS, REPLY_PREFIX, Kind, has_wildcards, kind
from mh_amqp.connection import Connection
from mh_amqp.gate import Gate
from mh_amqp.kept import Kept
from mh_amqp.limits import MIB, Limits
from mh_amqp.links import Delivery, Link, Receiver, Sender
from mh_amqp.names import HOST_PREFIX, MANAGEMENT
from mh_amqp.pump import Closed
from mh_amqp.queues import Bounds, Counters, Queue, Stored
from mh_amqp.topics import Topics

log = logging.getLogger(__name__)

ANONYMOUS = "anonymous"

QUEUE_BOUNDS = Bounds(depth=10_000, size=64 * MIB)
PRIVATE_BOUNDS = Bounds(depth=20_000, size=32 * MIB)


@dataclass(frozen=True, slots=True)
class BrokerLimits:
    """`peer` is what one connection may use; the rest bounds the broker. `memory` in bytes of queued
    messages, `lifetime` in seconds for a message that names none, `credit` what a producer may send
    ahead."""

    peer: Limits = field(default_factory=lambda: Limits(links=1024))
    queue: Bounds = QUEUE_BOUNDS
    private: Bounds = PRIVATE_BOUNDS
    queues: int = 10_000
    memory: int = 256 * MIB
    lifetime: float = 24 * 3600.0
    sweep: float = 5.0
    credit: int = 500


@dataclass(frozen=True, slots=True)
class QueueState:
    name: str
    depth: int
    size: int
    consumers: int
    producers: int


class OwnNode(Protocol):
    """Answers for the broker at `$management`."""

    def take(self, connection: Connection, delivery: Delivery) -> None: ...

    def attach(self, connection: Connection, link: Receiver | Sender) -> None: ...


class Broker:
    """Serves the peers of one or more listeners; all state is in here. `node` answers at `$management`;
    `gate` says who may use which address, None lets everybody; `kept` is where durable messages wait, None
    keeps them in memory as all others."""

    def __init__(self, limits: BrokerLimits, gate: Gate | None = None, kept: Kept | None = None) -> None:
        self.limits = limits
        self.gate = gate
        self.kept = kept
        self.counters = Counters()
        self.node: OwnNode | None = None
        self.queues: dict[str, Queue] = {}
        self._owners: dict[str, Connection] = {}
        self._subscribers: dict[Queue, Sender] = {}
        self._topics = Topics(self._overflowed)

    def restore(self) -> None:
        """Queue what an earlier process has kept."""
        for each in self.kept.open() if self.kept is not None else ():
            queue = self._find(each.queue)
            stored = Stored(each.raw, each.expires, settled=False, kept=each.number)
            if queue is None or not queue.put(stored):
                log.warning("a message for '%s' was kept, and finds no room now: it stays", each.queue)

    def states(self) -> list[QueueState]:
        """Every queue and reply node, by name."""
        return [
            QueueState(name, queue.depth, queue.size, len(queue.consumers), queue.producers)
            for name, queue in sorted(self.queues.items())
        ]

    async def sweep(self) -> None:
        """Drop what expires, for ever; a task of whoever runs the broker."""
        while True:
            await asyncio.sleep(self.limits.sweep)
            now = time.time()
            if self.gate is not None and self.gate.access.changed():
                self._review(self.gate)
            for queue in [*self.queues.values(), *self._subscribers]:
                queue.sweep(now)
                queue.look_idle()
                if not self._crowded():
                    queue.relent()

    def _review(self, gate: Gate) -> None:
        """The rules are others: who receives what he may no longer does not go on for as long as he stays
        connected. What is sent is looked at message by message."""
        for queue in [*self.queues.values(), *self._subscribers]:
            for link in list(queue.consumers):
                if why := gate.use(link.owner, Way.RECEIVE, queue.name):
                    link.close(outcome.UNAUTHORIZED, why)

    # what peers do

    def opened(self, connection: Connection) -> None:
        self.counters.connections += 1
        log.debug("peer %s: '%s' is open", connection.peer, connection.remote_container)

    def closed(self, connection: Connection, reason: Closed) -> None:
        self.counters.connections -= 1
        log.debug("peer %s: '%s' has ended: %s", connection.peer, connection.remote_container, reason)

    def attach(self, connection: Connection, link: Link) -> None:
        if self.node is not None and link.address == MANAGEMENT:
            self.node.attach(connection, link)
        elif self.gate is not None and (why := self.gate.attach(connection, link)):
            connection.refuse(link, outcome.UNAUTHORIZED, why)
        elif isinstance(link, Sender):
            self._attach_consumer(connection, link)
        else:
            self._attach_producer(connection, link)

    def _attach_consumer(self, connection: Connection, link: Sender) -> None:
        if link.asked and link.asked.dynamic:
            self._make_reply_node(connection, link)
            return
        address = link.address or ""
        node = kind(address)
        if not address or (node is not Kind.TOPIC and has_wildcards(address)):
            connection.refuse(link, outcome.INVALID_FIELD, f"'{address}' is no address to receive from")
        elif node in (Kind.TOPIC, Kind.MULTICAST):
            self._subscribe(connection, link, address)
        elif node is Kind.REPLY and self._owners.get(address) not in (None, connection):
            connection.refuse(link, outcome.LOCKED, f"'{address}' is private to another connection")
        elif (queue := self._find(address)) is None:
            self._refuse_missing(connection, link, address)
        else:
            self._consume(connection, link, queue)

    def _make_reply_node(self, connection: Connection, link: Sender) -> None:
        address = REPLY_PREFIX + secrets.token_hex(16)
        queue = Queue(address, self.limits.private, self.counters, private=True)
        self.queues[address] = queue
        self._owners[address] = connection
        queue.add(link)

        def gone(*_: object) -> None:
            self.queues.pop(address, None)
            self._owners.pop(address, None)
            queue.remove(link)
            queue.discard()

        link.on_closed = gone
        connection.admit(link, address)

    def _subscribe(self, connection: Connection, link: Sender, address: str) -> None:
        if address.count(".") >= MOST_PATTERN_WORDS:
            connection.refuse(
                link, outcome.INVALID_FIELD, f"a pattern has at most {MOST_PATTERN_WORDS} words"
            )
            return
        queue = Queue(address, self.limits.private, self.counters, private=True)
        queue.add(link)
        self._subscribers[queue] = link
        self._topics.subscribe(address, queue)

        def gone(*_: object) -> None:
            self._topics.unsubscribe(address, queue)
            self._subscribers.pop(queue, None)
            queue.remove(link)
            queue.discard()

        link.on_closed = gone
        connection.admit(link)

    def _consume(self, connection: Connection, link: Sender, queue: Queue) -> None:
        earlier = list(queue.consumers) if queue.name.startswith(HOST_PREFIX) else []
        queue.add(link)
        for old in earlier:
            self._take_over(link, old, queue)
        link.on_closed = lambda *_: queue.remove(link)
        connection.admit(link)

    def _take_over(self, link: Sender, old: Sender, queue: Queue) -> None:
        """A host has one agent: the last that came. It is the same one, whose connection was lost and does
        not know it yet, or there are two with one UUID: then each is told of the other as often as it is
        driven out."""
        if link.container != old.container:
            log.warning(
                "'%s' is served by %s, and %s wants to: two hosts with one UUID, or one whose agent was "
                "started anew",
                *(queue.name, link.whose, old.whose),
            )
        why = f"'{queue.name}' is served by {link.whose} now: is there another host of this UUID?"
        old.close(outcome.STOLEN, why)

    def _attach_producer(self, connection: Connection, link: Receiver) -> None:
        if link.asked and link.asked.dynamic:
            connection.refuse(link, outcome.NOT_IMPLEMENTED, "only a source can be dynamic here")
            return
        if link.address is None:
            link.on_delivery = lambda delivery: self._relay(connection, delivery)
        elif has_wildcards(link.address):
            connection.refuse(
                link, outcome.INVALID_FIELD, f"'{link.address}' is a pattern, no address to send to"
            )
            return
        elif kind(link.address) in (Kind.TOPIC, Kind.MULTICAST):
            address = link.address
            link.on_delivery = lambda delivery: self._publish(connection, address, delivery)
        elif (queue := self._find(link.address)) is None:
            self._refuse_missing(connection, link, link.address)
            return
        else:
            self._produce(connection, link, queue)
        connection.admit(link, credit=self.limits.credit)

    def _produce(self, connection: Connection, link: Receiver, queue: Queue) -> None:
        queue.producers += 1

        def gone(*_: object) -> None:
            queue.producers -= 1
            if link in queue.throttled:
                queue.throttled.remove(link)
            queue.look_idle()

        def arrived(delivery: Delivery) -> None:
            self._enqueue(connection, queue, delivery)
            if queue.busy() or self._crowded():
                queue.throttle(link)

        link.on_closed = gone
        link.on_delivery = arrived

    # messages

    def _relay(self, connection: Connection, delivery: Delivery) -> None:
        """A message for the anonymous terminus goes where its `to` says."""
        read = self._read(connection, delivery)
        if read is None:
            return
        routing, raw = read
        address = routing.to or ""
        if address == MANAGEMENT and self.node is not None:
            self.node.take(connection, delivery)
            return
        node = kind(address)
        if not address or has_wildcards(address) or len(address) > self.limits.peer.address:
            self._refuse(delivery, outcome.INVALID_FIELD, f"'{address[:100]}' is no address to send to")
        elif why := self._forbidden(connection, address, delivery.raw):
            self._refuse(delivery, outcome.UNAUTHORIZED, why)
        elif node in (Kind.TOPIC, Kind.MULTICAST):
            self._copy(address, delivery, routing, raw)
        elif (queue := self._find(address)) is not None:
            self._keep(queue, delivery, routing, raw)
        else:
            self.counters.refused += 1
            delivery.release()

    def _publish(self, connection: Connection, address: str, delivery: Delivery) -> None:
        read = self._read(connection, delivery)
        if read is None:
            return
        if why := self._forbidden(connection, address, delivery.raw):
            self._refuse(delivery, outcome.UNAUTHORIZED, why)
        else:
            self._copy(address, delivery, *read)

    def _enqueue(self, connection: Connection, queue: Queue, delivery: Delivery) -> None:
        read = self._read(connection, delivery)
        if read is None:
            return
        if why := self._forbidden(connection, queue.name, delivery.raw):
            self._refuse(delivery, outcome.UNAUTHORIZED, why)
        else:
            self._keep(queue, delivery, *read)

    def _forbidden(self, connection: Connection, address: str, raw: bytes) -> str:
        """Why a message may not go there; "" when it may, by the rules that are in force now."""
        gate = self.gate
        if gate is None:
            return ""
        return gate.use(connection, Way.SEND, address) or gate.speak(connection, address, raw)

    def _read(self, connection: Connection, delivery: Delivery) -> tuple[messages.Routing, bytes] | None:
        """What routing needs, and the message with the user that it is from; None when it was refused:
        unreadable, or in another user's name."""
        self.counters.received += 1
        try:
            routing = messages.routing(delivery.raw)
        except messages.Malformed as error:
            self._refuse(delivery, outcome.DECODE_ERROR, str(error))
            return None
        if routing.user_id and routing.user_id != connection.user.encode():
            self._refuse(delivery, outcome.UNAUTHORIZED, f"the user-id is not that of '{connection.user}'")
            return None
        start, end = routing.properties
        # one without properties in their place could have some where we do not look: with ours it has two
        if routing.user_id or (connection.user == ANONYMOUS and start != end):
            return routing, delivery.raw
        return routing, messages.with_user_id(delivery.raw, routing, connection.user.encode())

    def _copy(self, address: str, delivery: Delivery, routing: messages.Routing, raw: bytes) -> None:
        expires = self._expires(routing)
        if self._crowded():
            self._refuse(delivery, outcome.RESOURCE_LIMIT, "the broker's memory is used up")
        elif self._topics.publish(address, raw, expires, settled=delivery.settled):
            delivery.accept()
        else:
            self._refuse(delivery, outcome.RESOURCE_LIMIT, "too many messages are being copied")

    def _keep(self, queue: Queue, delivery: Delivery, routing: messages.Routing, raw: bytes) -> None:
        stored = Stored(raw, self._expires(routing), settled=delivery.settled)
        lasting = routing.durable and self.kept is not None and not queue.private
        if stored.expires is not None and stored.expires <= time.time():
            self.counters.expired += 1
            delivery.accept()
        elif self._crowded() or (lasting and queue.full(len(raw))):
            self._refuse(delivery, outcome.RESOURCE_LIMIT, f"'{queue.name}' is full")
        elif lasting and not self._written(queue, stored):
            self._refuse(delivery, outcome.RESOURCE_LIMIT, "it cannot be kept on disk")
        elif queue.put(stored):
            delivery.accept()
        else:
            self._refuse(delivery, outcome.RESOURCE_LIMIT, f"'{queue.name}' is full")

    def _written(self, queue: Queue, stored: Stored) -> bool:
        if self.kept is not None:
            stored.kept = self.kept.add(queue.name, stored.raw, stored.expires)
        return stored.kept > 0

    def _ended(self, stored: Stored) -> None:
        if self.kept is not None:
            self.kept.remove(stored.kept, len(stored.raw))

    def _expires(self, routing: messages.Routing) -> float | None:
        ends = [] if routing.expiry is None else [routing.expiry / 1000]
        if routing.ttl is not None or not ends:
            lifetime = self.limits.lifetime if routing.ttl is None else routing.ttl / 1000
            ends.append(time.time() + lifetime)
        return min(ends)

    def _refuse(self, delivery: Delivery, condition: str, description: str) -> None:
        if delivery.settled:
            self.counters.dropped += 1
            log.info("dropped a message that came settled: %s", description)
        else:
            self.counters.refused += 1
        delivery.reject(condition, description)

    # nodes

    def _crowded(self) -> bool:
        return self.counters.bytes >= self.limits.memory

    def _find(self, address: str) -> Queue | None:
        """The queue of that name, made when it is new; None for a reply node that is not there, or one too
        many."""
        queue = self.queues.get(address)
        if queue is None and kind(address) is Kind.QUEUE and len(self.queues) < self.limits.queues:
            queue = Queue(address, self.limits.queue, self.counters)
            queue.on_idle = self._remove
            queue.on_end = self._ended
            self.queues[address] = queue
        return queue

    def _refuse_missing(self, connection: Connection, link: Link, address: str) -> None:
        if kind(address) is Kind.QUEUE:
            connection.refuse(link, outcome.RESOURCE_LIMIT, f"there are {len(self.queues)} queues already")
        else:
            connection.refuse(link, outcome.NOT_FOUND, f"there is no '{address}' here")

    def _remove(self, queue: Queue) -> None:
        if self.queues.get(queue.name) is queue:
            del self.queues[queue.name]

    def _overflowed(self, queue: Queue) -> None:
        link = self._subscribers.get(queue)
        if link is not None:
            log.warning("a receiver of '%s' does not keep up, detaching it", queue.name)
            self.counters.dropped += 1
            link.close(outcome.RESOURCE_LIMIT, f"too slow: {queue.depth} messages wait")
