"""Events as messages: encoded once when they are raised, kept in a small bounded queue while nobody takes
them.

Address `mh.event.<interface>.<event>`, subject `<interface>.<event>`, application-properties `mh:host`,
`mh:hostname`, `mh:sequence`, `mh:boot-id`, `mh:time` (ns), body a map of the declared fields. A change of
properties is the event `properties_changed`, whose fields are the new values. Messages are settled and
live for a minute.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from libmh.events import Event, Hub
from libmh.spec import Interface, Kind, Member, Plain, Type
from mh_amqp import codec, messages, types
from mh_amqp.messages import Message
from mh_amqp.names import CHANGED, EVENT_PREFIX, event_address
from mh_amqp.status import body_of

log = logging.getLogger(__name__)
LIFETIME = 60.0
MAX_KEPT = 256
MAX_RAISED = 1000
MAX_KEPT_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Source:
    """Whose events these are; "" for what is not known."""

    host: str = ""
    hostname: str = ""
    boot_id: str = ""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An event on its way out; `expires` is a time of `time.monotonic`."""

    address: str
    raw: bytes
    expires: float


def field_types(interface: Interface | None, member: str) -> dict[str, Type]:
    """The declared types of an event's fields, or of the properties that may have changed."""
    if interface is None:
        return {}
    if not member:
        return {each.name: each.type for each in interface.of(Kind.PROPERTY)}
    declared = interface.members.get(member)
    return {a.name: a.type for a in declared.arguments} if isinstance(declared, Member) else {}


def encode_event(event: Event, source: Source, interface: Interface | None) -> bytes:
    """The message that an event is."""
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


class Outbox:
    """Takes every event of a hub from any thread, and hands it to `deliver` in the loop; what `deliver`
    cannot take (it returns False) waits, in order. What does not fit, or has outlived its time, is dropped
    and counted."""

    def __init__(self, hub: Hub, source: Source, interfaces: Callable[[str], Interface | None]) -> None:
        self.deliver: Callable[[Encoded], bool] = lambda _event: False
        self.dropped = 0
        self.sent = 0
        self.empty = asyncio.Event()
        self.empty.set()
        self._source = source
        self._interfaces = interfaces
        self._loop = asyncio.get_running_loop()
        self._raised: deque[Event] = deque()
        self._told = False
        self._kept: deque[Encoded] = deque()
        self._bytes = 0
        self._end = hub.subscribe(self._raise)

    def close(self) -> None:
        self._end()

    @property
    def waiting(self) -> int:
        return len(self._kept)

    def flush(self) -> None:
        """Hand out what waits, as far as it is taken."""
        while self._kept:
            first = self._kept[0]
            if first.expires <= time.monotonic():
                self.dropped += 1
            elif self.deliver(first):
                self.sent += 1
            else:
                return
            self._kept.popleft()
            self._bytes -= len(first.raw)
        self.empty.set()

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
        raw = encode_event(event, self._source, self._interfaces(event.interface))
        address = event_address(event.interface, event.member)
        if len(raw) > MAX_KEPT_BYTES:
            self.dropped += 1
            return
        self.empty.clear()
        self._kept.append(Encoded(address, raw, time.monotonic() + LIFETIME))
        self._bytes += len(raw)
        self.flush()
        while len(self._kept) > MAX_KEPT or self._bytes > MAX_KEPT_BYTES:
            self._bytes -= len(self._kept.popleft().raw)
            self.dropped += 1
