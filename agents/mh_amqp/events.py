"""Events as messages: encoded once when they are raised, told in order, and kept while nobody takes them.

Address `mh.event.<interface>.<event>`, subject `<interface>.<event>`, application-properties `mh:host`,
`mh:hostname`, `mh:sequence`, `mh:boot-id`, `mh:time` (ns), `mh:event-id`, body a map of the declared fields.
A change of properties is the event `properties_changed`, whose fields are the new values.

What tells how things are now (heartbeats, properties, connections) is sent settled, lives for a minute, and
waits in memory. All other events are kept on disk until the broker has taken them: they come at least once,
and one that comes again has the same `mh:event-id`.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from libmh.api.agent import Agent, PastEvent
from libmh.events import Event, Hub
from libmh.spec import Interface, Kind, Member, Plain, Type
from mh_amqp import codec, messages, types
from mh_amqp.messages import Message
from mh_amqp.names import CHANGED, EVENT_PREFIX, event_address
from mh_amqp.outcome import Word
from mh_amqp.spool import Spool
from mh_amqp.status import body_of

log = logging.getLogger(__name__)
LIFETIME = 60.0
MAX_KEPT = 256
MAX_RAISED = 1000
MAX_KEPT_BYTES = 1 << 20
MAX_FLYING = 200
BATCH = 100
PASSING = frozenset({"heartbeat", "connection_changed", "going_away"})
"""Events of this moment: later they are of no use."""


@dataclass(frozen=True, slots=True)
class Source:
    """Whose events these are; "" for what is not known."""

    host: str = ""
    hostname: str = ""
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event on its way out; `expires` is a time of `time.monotonic`. One with a `number` is kept on disk,
    and has to be taken before it is forgotten."""

    address: str
    raw: bytes
    expires: float
    number: int = 0


def field_types(interface: Interface | None, member: str) -> dict[str, Type]:
    """The declared types of an event's fields, or of the properties that may have changed."""
    if interface is None:
        return {}
    if not member:
        return {each.name: each.type for each in interface.of(Kind.PROPERTY)}
    declared = interface.members.get(member)
    return {a.name: a.type for a in declared.arguments} if isinstance(declared, Member) else {}


def encode_event(event: Event, source: Source, interface: Interface | None, event_id: str = "") -> bytes:
    """The message that an event is; `event_id` is for those that may come twice."""
    known = field_types(interface, event.member)
    body = codec.map_of_pairs(
        [
            codec.string(name) + types.encoder(known.get(name, types.ANYTHING))(value)
            for name, value in event.fields.items()
            if value is not None
        ]
    )
    properties: dict[str, Plain] = {
        "mh:host": source.host,
        "mh:hostname": source.hostname,
        "mh:boot-id": source.boot_id,
        "mh:sequence": event.sequence,
        "mh:time": event.time,
        "mh:event-id": event_id,
    }
    return messages.encode(
        Message(
            to=event_address(event.interface, event.member),
            subject=f"{event.interface}.{event.member or CHANGED}",
            ttl=int(LIFETIME * 1000),
            properties={name: value for name, value in properties.items() if value != ""},
            value=body,
        )
    )


def decode_event(message: Message) -> Event | None:
    """The event that a message is; None for what is none."""
    # brokers that route by the subject have the whole address in it
    subject = (message.subject or message.to or "").removeprefix(EVENT_PREFIX)
    interface, _, member = subject.rpartition(".")
    body = body_of(message)
    if not interface or not isinstance(body, dict):
        return None
    sequence = message.number("mh:sequence") or 0
    when = message.number("mh:time") or 0
    host = message.text("mh:host") or ""
    return Event(interface, "" if member == CHANGED else member, body, when, sequence, host)


def lasting(event: Event) -> bool:
    """Whether an event is worth telling later."""
    return bool(event.member) and event.member not in PASSING


class Outbox:
    """Takes every event of a hub from any thread, and hands it to `deliver` in the loop; what `deliver`
    cannot take (it returns False) waits, in order. What does not fit, or has outlived its time, is dropped
    and counted.

    With a spool, lasting events wait on disk. Whoever delivers then says with `settled` what became of
    each, unless `confirms` is False: what is delivered is done."""

    def __init__(
        self,
        hub: Hub,
        source: Source,
        interfaces: Callable[[str], Interface | None],
        spool: Spool | None = None,
    ) -> None:
        self.deliver: Callable[[Encoded], bool] = lambda _event: False
        self.confirms = False
        self.dropped = 0
        self.sent = 0
        self.empty = asyncio.Event()
        self.empty.set()
        self.spool = spool
        self._hub = hub
        self._source = source
        self._interfaces = interfaces
        self._loop = asyncio.get_running_loop()
        self._raised: deque[Event] = deque()
        self._told = False
        self._kept: deque[Encoded] = deque()
        self._bytes = 0
        self._flying: dict[int, Encoded] = {}
        self._queued = 0  # the last number that came to memory; what is behind it is on disk alone
        self._untold = 0
        self._end = hub.subscribe(self._raise)

    def close(self) -> None:
        self._end()
        if self.spool is not None:
            self.spool.close()

    @property
    def waiting(self) -> int:
        """Events in memory that were not taken yet."""
        return len(self._kept) + len(self._flying)

    @property
    def _behind(self) -> bool:
        return self.spool is not None and self._queued < self.spool.last

    def past(self, since: int, limit: int) -> list[PastEvent]:
        """What the spool has: see `Agent.past_events`."""
        found = []
        for each in self.spool.past(since, limit) if self.spool else ():
            message = messages.decode(each.raw)
            event = decode_event(message)
            if event is not None:
                name = f"{event.interface}.{event.member}"
                found.append(
                    PastEvent(name, message.text("mh:event-id") or "", each.time, dict(event.fields))
                )
        return found

    def resume(self, deliver: Callable[[Encoded], bool], *, confirms: bool) -> None:
        """Somebody takes events from now on; what went untold is told first."""
        self.deliver, self.confirms = deliver, confirms
        dropped = self.dropped + (self.spool.dropped if self.spool else 0)
        if dropped > self._untold:
            self._hub.emit(Agent.events_dropped, count=dropped - self._untold)
            self._untold = dropped
        self.flush()

    def pause(self) -> None:
        """Nobody takes them any more: what was not settled is sent again, in its place."""
        self.deliver = lambda _event: False
        for number in sorted(self._flying, reverse=True):
            again = self._flying.pop(number)
            self._kept.appendleft(again)
            self._bytes += len(again.raw)

    def settled(self, event: Encoded, word: Word) -> None:
        """What became of an event that was delivered. One that was refused, or that nobody wanted, would be
        next time, too."""
        if word is Word.LOST or self._flying.pop(event.number, None) is None:
            return
        if word is Word.REJECTED:
            self.dropped += 1
        self._done(event)
        self.flush()

    def flush(self) -> None:
        """Hand out what waits, as far as it is taken."""
        while self._kept or self._load():
            first = self._kept[0]
            if first.expires <= time.monotonic():
                self.dropped += 1
            elif first.number and len(self._flying) >= MAX_FLYING:
                return
            elif self.deliver(first):
                self.sent += 1
                if first.number and self.confirms:
                    self._flying[first.number] = first
                elif first.number:
                    self._done(first)
            else:
                return
            self._kept.popleft()
            self._bytes -= len(first.raw)
        if not self._flying:
            self.empty.set()

    def _done(self, event: Encoded) -> None:
        if self.spool is not None:
            self.spool.told(event.number)
        if not self._flying and not self._kept and not self._behind:
            self.empty.set()

    def _load(self) -> bool:
        """Bring the next events from the disk."""
        if self.spool is None or not self._behind:
            return False
        found = self.spool.untold(self._queued, BATCH)
        self._queued = found[-1].number if found else self.spool.last
        for each in found:
            self._kept.append(Encoded(each.address, each.raw, inf, each.number))
            self._bytes += len(each.raw)
        return bool(found)

    def _raise(self, event: Event) -> None:
        # in any thread, which may be faster than the loop
        if len(self._raised) >= MAX_RAISED:
            self.dropped += 1
            return
        self._raised.append(event)
        if not self._told:
            self._told = True
            self._loop.call_soon_threadsafe(self._take_all)

    def _take_all(self) -> None:
        self._told = False
        for _ in range(len(self._raised)):
            self._take(self._raised.popleft())

    def _take(self, event: Event) -> None:
        address, interface = event_address(event.interface, event.member), self._interfaces(event.interface)
        encoded = self._spooled(event, address, interface) if lasting(event) else None
        if encoded is None:
            raw = encode_event(event, self._source, interface)
            encoded = Encoded(address, raw, time.monotonic() + LIFETIME)
        if len(encoded.raw) > MAX_KEPT_BYTES:
            self.dropped += 1
            return
        self.empty.clear()
        if not encoded.number or encoded.number == self._queued + 1:
            self._kept.append(encoded)
            self._bytes += len(encoded.raw)
            self._queued = encoded.number or self._queued
        self.flush()
        while len(self._kept) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES:
            self._leave_out()

    def _spooled(self, event: Event, address: str, interface: Interface | None) -> Encoded | None:
        if self.spool is None:
            return None
        number = f"{self.spool.epoch}-{self.spool.last + 1}"
        raw = encode_event(event, self._source, interface, number)
        kept = self.spool.add(address, raw, event.time) if len(raw) <= MAX_KEPT_BYTES else 0
        return Encoded(address, raw, inf, kept) if kept else None

    def _leave_out(self) -> None:
        """Of what waits in memory: the newest that is on disk, too, and will be brought again; else the
        oldest, for good."""
        newest = self._kept[-1]
        if newest.number and newest.number == self._queued:
            self._kept.pop()
            self._queued = next(
                (each.number for each in reversed(self._kept) if each.number), newest.number - 1
            )
            self._bytes -= len(newest.raw)
            return
        oldest = self._kept.popleft()
        self._bytes -= len(oldest.raw)
        self.dropped += not oldest.number
