"""The broker's own node, `$management`: it answers for itself as any agent does."""

import fnmatch
from collections.abc import Collection
from dataclasses import asdict
from functools import partial

from libmh.api import broker as api
from libmh.dispatch import Dispatcher
from libmh.errors import NotFound, Unavailable
from mh_amqp.access import Way
from mh_amqp.broker import Broker
from mh_amqp.connection import Connection
from mh_amqp.intake import Intake
from mh_amqp.links import Delivery, Receiver, Sender
from mh_amqp.management import Management
from mh_amqp.messages import Message
from mh_amqp.names import MANAGEMENT
from mh_amqp.queues import Stored

MAX_QUEUES = 1000
MAX_SHOWN = 200
CREDIT = 100


class BrokerState(api.Broker):
    """Read from the broker that lives in this process's loop; a dict that changes meanwhile is copied."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def traffic(self) -> api.Traffic:
        return api.Traffic(**asdict(self._broker.counters))

    def queues(self, pattern: str = "", limit: int = MAX_QUEUES) -> list[api.QueueState]:
        found = [
            api.QueueState(each.name, each.depth, each.size, each.consumers, each.producers)
            for each in self._broker.states()
            if not pattern or fnmatch.fnmatchcase(each.name, pattern)
        ]
        fullest = sorted(found, key=lambda each: -each.messages)[: min(limit or MAX_QUEUES, MAX_QUEUES)]
        return sorted(fullest, key=lambda each: each.name)

    def waiting(self, name: str) -> int:
        queue = self._broker.queues.get(name)
        if queue is None:
            raise NotFound(f"there is no queue '{name[:MAX_SHOWN]}' here", name=name[:MAX_SHOWN])
        return queue.depth


class Node:
    """Takes requests off links and off messages that say `to`, and puts replies where they are awaited: into
    a reply address of the broker, or to the far end of a link from here."""

    def __init__(self, broker: Broker, dispatcher: Dispatcher, interfaces: Collection[str]) -> None:
        self.intake = Intake({MANAGEMENT: Management(dispatcher, "", interfaces)})
        self._broker = broker
        self._paired: dict[tuple[Connection, str], Sender] = {}

    def take(self, connection: Connection, delivery: Delivery) -> None:
        """A request that came by the anonymous terminus."""
        self.intake.take(delivery, MANAGEMENT, partial(_user, connection), partial(self._reply, connection))

    def attach(self, connection: Connection, link: Receiver | Sender) -> None:
        """A link to here, or from here."""
        if isinstance(link, Receiver):
            user, reply = partial(_user, connection), partial(self._reply, connection)
            link.on_delivery = self.intake.deliveries(link, MANAGEMENT, user, reply)
            connection.admit(link, credit=CREDIT)
            return
        key = (connection, (link.asked.other if link.asked else None) or MANAGEMENT)
        self._paired[key] = link

        def gone(_condition: str, _description: str) -> None:
            self._paired.pop(key, None)

        link.on_closed = gone
        connection.admit(link, MANAGEMENT)

    def _reply(self, connection: Connection, to: str, raw: bytes) -> None:
        paired = self._paired.get((connection, to))
        if paired is not None:
            paired.send(raw, settled=True)
            return
        gate, queue = self._broker.gate, self._broker.queues.get(to)
        # what comes from the broker is put where whoever asks could not
        if gate is not None and gate.use(connection, Way.SEND, to):
            queue = None
        if queue is None or not queue.put(Stored(raw, None, settled=True)):
            raise Unavailable(f"'{to}' takes no replies")


def _user(connection: Connection, _message: Message) -> str:
    return connection.user
