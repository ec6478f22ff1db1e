"""One queue of the broker: bounded, in order, each message to one consumer that has credit, in turn."""

import asyncio
import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from mh_amqp import raw as messages
from mh_amqp.links import Receiver, Sender
from mh_amqp.outcome import Outcome, Word

log = logging.getLogger(__name__)

SEQUENCE = itertools.count(1)


@dataclass(slots=True)
class Counters:
    """What went through the broker since it started; messages, except `connections`.

    `received` from producers, `delivered` handed to consumers, `expired` outlived their time, `refused`
    told to the producer, `dropped` came settled and could not be kept, `rejected` by the consumer,
    `returned` came back and were queued again, `abandoned` waited for a receiver that went away, `spent`
    were delivered too often.
    """

    connections: int = 0
    received: int = 0
    delivered: int = 0
    expired: int = 0
    refused: int = 0
    dropped: int = 0
    rejected: int = 0
    returned: int = 0
    abandoned: int = 0
    spent: int = 0
    messages: int = 0
    bytes: int = 0


@dataclass(frozen=True, slots=True)
class Bounds:
    """Of one queue: messages and bytes that wait or are unsettled, and how often one may be delivered."""

    depth: int
    size: int
    deliveries: int = 20


class Stored:
    """A message in the broker; `expires` is a time of `time.time()`, None for never; `kept` is its number on
    disk, 0 for one that is not there. Its order is that of arrival."""

    __slots__ = ("attempts", "expires", "failures", "kept", "number", "raw", "settled")

    def __init__(self, raw: bytes, expires: float | None, *, settled: bool, kept: int = 0) -> None:
        self.raw = raw
        self.settled = settled
        self.expires = expires
        self.failures = 0
        self.attempts = 0
        self.kept = kept
        self.number = next(SEQUENCE)


NOTHING: deque[Stored] = deque()
"""Stays empty: a deque of one's own takes 760 bytes, and most queues never need one."""


class Queue:
    """`private` queues have one consumer, whose refusals end a message; from others it goes back to its
    place. `on_end` is called for each that was kept on disk, when it is over."""

    __slots__ = (
        "_returned",
        "bounds",
        "consumers",
        "counters",
        "in_flight",
        "name",
        "on_end",
        "on_idle",
        "private",
        "producers",
        "size",
        "throttled",
        "waiting",
    )

    def __init__(self, name: str, bounds: Bounds, counters: Counters, *, private: bool = False) -> None:
        self.name = name
        self.bounds = bounds
        self.counters = counters
        self.private = private
        self.waiting: deque[Stored] = NOTHING
        self.in_flight = 0
        self.size = 0
        self.consumers: list[Sender] = []
        self.producers = 0
        self.throttled: list[Receiver] = []
        self.on_idle: Callable[[Queue], None] | None = None
        self.on_end: Callable[[Stored], None] | None = None
        self._returned: list[Stored] = []

    @property
    def depth(self) -> int:
        return len(self.waiting) + self.in_flight + len(self._returned)

    def full(self, size: int) -> bool:
        return self.depth >= self.bounds.depth or self.size + size > self.bounds.size

    def busy(self) -> bool:
        """More than half full: producers get no more credit."""
        return self.depth * 2 >= self.bounds.depth or self.size * 2 >= self.bounds.size

    def put(self, stored: Stored) -> bool:
        """Deliver at once or keep; False when it is full, and then it was not taken."""
        size = len(stored.raw)
        if not self.waiting and not self._returned and (consumer := self._ready_consumer()):
            self._count(size, 1)
            self._deliver(consumer, stored)
            return True
        if self.full(size):
            return False
        self._count(size, 1)
        if self.waiting is NOTHING:
            self.waiting = deque()
        self.waiting.append(stored)
        return True

    def serve(self) -> None:
        """Deliver what waits, as far as there is credit, and let producers go on when there is room
        again."""
        while self.waiting and (consumer := self._ready_consumer()):
            stored = self.waiting.popleft()
            if stored.expires is not None and stored.expires <= time.time():
                self._expire(stored)
            else:
                self._deliver(consumer, stored)
        self.relent()

    def throttle(self, producer: Receiver) -> None:
        """No more credit for this producer until the queue is half empty."""
        producer.suspend()
        if producer not in self.throttled:
            self.throttled.append(producer)

    def sweep(self, now: float) -> None:
        """Drop what has outlived its time, wherever it waits."""
        if any(stored.expires is not None and stored.expires <= now for stored in self.waiting):
            kept: deque[Stored] = deque()
            for stored in self.waiting:
                if stored.expires is not None and stored.expires <= now:
                    self._expire(stored)
                else:
                    kept.append(stored)
            self.waiting = kept
            self.relent()

    def add(self, consumer: Sender) -> None:
        self.consumers.append(consumer)
        consumer.on_credit = self.serve

    def remove(self, consumer: Sender) -> None:
        """Its unsettled messages have been given back by then."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
        self.look_idle()

    def discard(self) -> None:
        """The queue ends with all that is in it."""
        lost = [*self.waiting, *self._returned]
        self.counters.abandoned += len(lost)
        self.waiting.clear()
        self._returned.clear()
        for stored in lost:
            self._over(stored)
        for producer in self.throttled:
            producer.resume()
        self.throttled.clear()

    def look_idle(self) -> None:
        if self.on_idle and not self.depth and not self.consumers and not self.producers:
            self.on_idle(self)

    def _count(self, size: int, messages_: int) -> None:
        self.size += size
        self.counters.bytes += size
        self.counters.messages += messages_

    def _over(self, stored: Stored) -> None:
        self._count(-len(stored.raw), -1)
        if stored.kept and self.on_end is not None:
            self.on_end(stored)

    def _ready_consumer(self) -> Sender | None:
        consumers = self.consumers
        for index, consumer in enumerate(consumers):
            if consumer.ready():
                if len(consumers) > 1:
                    consumers.append(consumers.pop(index))
                return consumer
        return None

    def _deliver(self, consumer: Sender, stored: Stored) -> None:
        self.counters.delivered += 1
        settled = stored.settled if consumer.settles is None else consumer.settles
        raw = (
            stored.raw if not stored.failures else messages.with_delivery_count(stored.raw, stored.failures)
        )
        if settled:
            self._over(stored)
            consumer.send(raw, settled=True)
            return
        self.in_flight += 1
        stored.attempts += 1
        consumer.send(raw, on_outcome=lambda came: self._settled(stored, came))

    def _settled(self, stored: Stored, came: Outcome) -> None:
        self.in_flight -= 1
        if came.word is Word.ACCEPTED:
            self._over(stored)
        elif came.word is Word.REJECTED:
            self.counters.rejected += 1
            self._over(stored)
        elif self.private or stored.attempts >= self.bounds.deliveries:
            self._give_up(stored)
        else:
            self._take_back(stored, failed=came.word is not Word.RELEASED)
        if self.throttled:
            self.relent()
        if not self.consumers:
            self.look_idle()

    def _give_up(self, stored: Stored) -> None:
        if self.private:
            self.counters.abandoned += 1
        else:
            self.counters.spent += 1
            log.warning(
                "queue '%s': a message was delivered %d times in vain, dropping it",
                self.name,
                stored.attempts,
            )
        self._over(stored)

    def _take_back(self, stored: Stored, *, failed: bool) -> None:
        """To its old place, in the next turn of the loop: many come back together when a consumer goes
        away."""
        self.counters.returned += 1
        stored.failures += failed
        if not self._returned:
            asyncio.get_running_loop().call_soon(self._merge)
        self._returned.append(stored)

    def _merge(self) -> None:
        returned, self._returned = self._returned, []
        self.waiting = deque(sorted([*returned, *self.waiting], key=lambda stored: stored.number))
        self.serve()

    def _expire(self, stored: Stored) -> None:
        self.counters.expired += 1
        self._over(stored)

    def relent(self) -> None:
        """Let producers go on when there is room again."""
        if self.throttled and not self.busy():
            throttled, self.throttled = self.throttled, []
            for producer in throttled:
                producer.resume()
