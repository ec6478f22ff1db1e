"""Events: raised by providers from any thread, delivered to the transports that subscribed.

A hub never waits: a subscriber is a callable that takes the event and returns at once (a transport puts it
on its own bounded queue). Property changes are events too, with the reserved name `""`.
"""

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from libmh.errors import InvalidArguments
from libmh.spec import BadDeclaration, Interface, Kind, Member, Plain, Type, interface_of, member_of
from libmh.wire import dump

log = logging.getLogger("libmh.events")


@dataclass(frozen=True, slots=True)
class Event:
    """`member` is empty for a change of properties; `time` is nanoseconds since the epoch; `sequence` counts
    the events of this process from 1; `fields` is the plain tree by wire name."""

    interface: str
    member: str
    fields: Mapping[str, Plain]
    time: int
    sequence: int
    host: str = ""

    @property
    def name(self) -> str:
        """`org.matahariproject.Host.heartbeat`."""
        return f"{self.interface}.{self.member}"


Subscriber = Callable[[Event], None]


class Hub:
    """Where the events of a process meet those who deliver them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._subscribers: tuple[Subscriber, ...] = ()
        self._numbers = itertools.count(1)

    def subscribe(self, subscriber: Subscriber) -> Callable[[], None]:
        """Deliver every event to `subscriber`, in whatever thread raises it; answers what ends that."""
        with self._lock:
            self._subscribers = (*self._subscribers, subscriber)

        def end() -> None:
            with self._lock:
                self._subscribers = tuple(each for each in self._subscribers if each is not subscriber)

        return end

    def emit(self, declared: Callable[..., None], /, **fields: Any) -> None:
        """Raise a declared event: `hub.emit(Host.heartbeat, sequence=1, ...)`, fields by parameter name."""
        member = member_of(declared)
        if member.kind is not Kind.EVENT:
            raise BadDeclaration(f"{member.action} is not an event")
        self._deliver(member.interface, member.name, dump_fields(member, fields))

    def changed(self, protocol: type | Interface, /, **values: Any) -> None:
        """Say that properties have changed: `hub.changed(Host, custom_uuid="...")`."""
        declared = protocol if isinstance(protocol, Interface) else interface_of(protocol)
        plain = {}
        for name, value in values.items():
            member = declared.members.get(name)
            if member is None or member.kind is not Kind.PROPERTY:
                raise BadDeclaration(f"{declared.name}.{name} is not a property")
            plain[name] = _dumped(member.type, value, member.action)
        self._deliver(declared.name, "", plain)

    def pass_on(self, event: Event) -> None:
        """Deliver what was raised elsewhere: it keeps its time, and gets a number of this process's."""
        self._deliver(event.interface, event.member, event.fields, event.time)

    def _deliver(
        self, interface: str, member: str, fields: Mapping[str, Plain], when: int | None = None
    ) -> None:
        event = Event(interface, member, fields, when or time.time_ns(), next(self._numbers))
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except RuntimeError as error:  # its loop has ended: it is on its way out
                log.debug("a subscriber did not take %s: %s, ignoring", event.name, error)


def dump_fields(member: Member, fields: Mapping[str, Any]) -> dict[str, Plain]:
    """The plain tree of an event's fields; a missing or unknown field is the raiser's bug."""
    expected = {argument.parameter for argument in member.arguments}
    if expected != set(fields):
        raise BadDeclaration(f"{member.action}: takes the fields {sorted(expected)}, got {sorted(fields)}")
    return {
        argument.name: _dumped(
            argument.type, fields[argument.parameter], f"{member.action}({argument.name})"
        )
        for argument in member.arguments
    }


def _dumped(declared: Type, value: Any, where: str) -> Plain:
    try:
        return dump(declared, value, where)
    except InvalidArguments as error:  # the raiser's bug, never that of whose call it answers
        raise BadDeclaration(f"an event does not fit its declaration: {error}") from error
