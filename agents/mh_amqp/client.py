"""The client half: `amqp://host:port[/HOST-UUID]` as a transport of `libmh.client`.

Requests go to `mh.host.<uuid>`. Without a UUID they go to `$management` of an agent that listens itself,
and through a broker to the fleet's conductor for the interfaces that it serves. A connection that is lost
while a call is out is made again within the call's deadline, and the request is sent again under its id:
an agent that has it already does not run it twice.
"""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace

from libmh.api.agent import Agent
from libmh.api.aggregates import Aggregates, Reports
from libmh.api.broker import Broker
from libmh.api.conductor import Conductor
from libmh.api.sinks import Sinks
from libmh.call import Bound, Request, Verb, prepare
from libmh.errors import Failed, InvalidArguments, Timeout, Unavailable
from libmh.events import Event
from libmh.keys import PrivateKey
from libmh.providers import find_interface
from libmh.spec import DEFAULT_DEADLINE, Interface, Kind, Member, Plain, Type, interface_of
from mh_amqp import codec, messages, types
from mh_amqp.asking import Asker, asker
from mh_amqp.bodies import arguments_in_json
from mh_amqp.connection import Connection
from mh_amqp.console import configuration, key_of, with_password
from mh_amqp.dialects import Dialect, chosen
from mh_amqp.events import decode_event, field_types
from mh_amqp.links import Delivery
from mh_amqp.management import READ, UPDATE
from mh_amqp.messages import JSON, Message
from mh_amqp.names import (
    AGENT_CONTAINER,
    CONDUCTOR,
    MANAGEMENT,
    REPORT,
    SELF,
    Place,
    event_pattern,
    host_address,
    place,
)
from mh_amqp.post import receive
from mh_amqp.signatures import signed
from mh_amqp.status import body_of, problem_of
from mh_amqp.tls import Tls, files_of
from mh_amqp.upkeep import NO_FILES, dial_place

log = logging.getLogger(__name__)
MARGIN = 1.0
"""Seconds that the way there and back may take beyond the deadline that the agent keeps."""
RETRY_SECONDS = 0.2
CONNECT_SECONDS = 8.0
MAX_EVENTS = 1000
EVENT_CREDIT = 100
FLEET: Mapping[str, str] = {
    interface_of(Aggregates).name: CONDUCTOR,
    interface_of(Conductor).name: CONDUCTOR,
    interface_of(Sinks).name: CONDUCTOR,
    interface_of(Agent).name: CONDUCTOR,
    interface_of(Reports).name: REPORT,
    interface_of(Broker).name: MANAGEMENT,
}
"""Where a broker has what no single host serves."""


async def connect(url: str) -> "AmqpTransport":
    """A transport to a host, a listening agent or a broker. Raises `invalid-arguments` for a URL that it
    cannot read, `unavailable` or `timeout` when nobody answers there."""
    where = place(url)
    config = configuration()
    tls = Tls(files_of(config)) if where.secured else NO_FILES
    transport = AmqpTransport(with_password(where), tls, key_of(config), chosen(config))
    await transport.open(CONNECT_SECONDS)
    return transport


class AmqpTransport:
    """`libmh.client.Transport` over one connection at a time."""

    def __init__(
        self,
        where: Place,
        tls: Tls = NO_FILES,
        key: PrivateKey | None = None,
        dialect: Dialect | None = None,
    ) -> None:
        self.place = where
        self._dialect = dialect
        self._tls = tls
        self.key = key
        self._asker: Asker | None = None
        self._opening = asyncio.Lock()
        self._container = f"mh-client-{secrets.token_hex(6)}"
        self._declared: dict[str, Interface | None] = {}
        self._closed = False

    async def open(self, deadline: float) -> Asker:
        """The connection as it is, or a new one. Raises `Unavailable`, `Timeout`, `NotAuthorized`."""
        if self._closed:
            raise Unavailable("this connection was closed here")
        if self._asker is not None and self._asker.open:
            return self._asker
        async with self._opening:
            if self._asker is None or not self._asker.open:
                self._asker = await self._connected(deadline)
            return self._asker

    async def _connected(self, deadline: float) -> Asker:
        connection = await dial_place(self.place, self._container, tls=self._tls, deadline=deadline)
        try:
            return await asker(connection, chosen=self._dialect)
        except BaseException:
            connection.abort()
            raise

    async def call(self, request: Request) -> Plain:
        """Carry a request to the dispatcher that answers it, and its answer back."""
        interface = self._interface(request.interface)
        member = interface.members.get(request.member) if interface else None
        # the agent keeps the member's own deadline; here there is time to make a lost connection again
        deadline = request.deadline or max(member.deadline if member else 0.0, DEFAULT_DEADLINE)
        try:
            body = body_for(request, member)
        except (ValueError, TypeError, RecursionError) as error:  # no JSON: NaN, half a character, too deep
            raise _misfit(interface, request, error) from error
        reply = await self._ask(request, body, deadline)
        problem = problem_of(reply)
        if problem is not None:
            raise problem
        try:
            told = body_of(reply)
        except InvalidArguments as error:  # not ours: those of the call were taken
            raise Failed(f"the answer of {self.place.shown} cannot be read: {error.message}") from error
        return result_of(request, member, interface, told)

    async def _ask(self, request: Request, body: bytes, deadline: float) -> Message:
        """Ask until there is an answer or no time is left: a lost connection is made again, and the same
        id sent again."""
        ends = time.monotonic() + deadline + MARGIN
        while True:
            left = ends - time.monotonic()
            try:
                made = await self.open(max(left, RETRY_SECONDS))
                to = self._address(request.interface, made.connection)
                reply_to = made.receiver.address if made.receiver else None
                message = request_message(request, body, to)
                if self.key is not None:
                    message = signed(message, self.key, int((deadline + MARGIN) * 1000))
                sent = replace(message, reply_to=reply_to, ttl=max(1, int(left * 1000)))
                return await made.ask(sent, max(left, 0.001))
            except Unavailable:
                if self._closed or time.monotonic() + RETRY_SECONDS > ends:
                    raise
                await asyncio.sleep(RETRY_SECONDS)
            except Timeout:
                if time.monotonic() >= ends - RETRY_SECONDS:
                    raise Timeout(f"{self.place.shown} did not answer within {deadline:g} s") from None

    def _address(self, interface: str, connection: Connection) -> str:
        if self.place.uuid:
            return host_address(self.place.uuid)
        if listens(connection):
            # what is signed says which host is meant
            host = connection.remote_container.removeprefix(AGENT_CONTAINER)
            return host_address(host) if self.key is not None and host else MANAGEMENT
        if interface in FLEET:
            return FLEET[interface]
        raise InvalidArguments(
            f"{self.place.shown} is a broker: '{interface}' needs the UUID of a host behind the URL; see: "
            f"mhctl --on {self.place.shown} aggregate hosts",
            argument="url",
        )

    def _interface(self, name: str) -> Interface | None:
        if name not in self._declared:
            self._declared[name] = find_interface(name)
        return self._declared[name]

    async def events(self, interface: str = "", member: str = "") -> AsyncIterator[Event]:
        """Events as they come; `unavailable` when the connection or the subscription is lost."""
        made = await self.open(CONNECT_SECONDS)
        came: asyncio.Queue[Event | None] = asyncio.Queue()
        lost = Unavailable(f"{self.place.shown}: the events have ended")

        def arrived(delivery: Delivery) -> None:
            delivery.accept()
            event = _event(delivery)
            if event is not None and came.qsize() < MAX_EVENTS and self._wanted(event, interface, member):
                came.put_nowait(event)

        receiver = await receive(
            made.connection,
            made.post.dialect,
            event_pattern(interface, member),
            arrived,
            credit=EVENT_CREDIT,
            settled=True,
        )
        receiver.on_closed = lambda _condition, _description: came.put_nowait(None)
        try:
            while (event := await came.get()) is not None:
                yield event
            raise lost
        finally:
            receiver.on_closed = lambda _condition, _description: None
            receiver.close()

    def _wanted(self, event: Event, interface: str, member: str) -> bool:
        if self.place.uuid and event.host not in ("", self.place.uuid):
            return False
        return interface in ("", event.interface) and member in ("", event.member)

    async def close(self) -> None:
        """Let go of the connection."""
        self._closed = True
        if self._asker is not None:
            await self._asker.connection.close()


def listens(connection: Connection) -> bool:
    """Whether the peer is an agent that listens, not a broker."""
    return connection.remote_container.startswith(AGENT_CONTAINER)


def _event(delivery: Delivery) -> Event | None:
    try:
        return decode_event(messages.decode(delivery.raw))
    except (codec.Malformed, InvalidArguments) as error:
        log.warning("an event cannot be read: %s, ignoring", error)
        return None


def request_message(request: Request, body: bytes, to: str) -> Message:
    """The message that a request is, still without its reply address."""
    operations = {Verb.CALL: request.member, Verb.SET: UPDATE}
    data, encoding = types.deflated(body)
    properties: dict[str, Plain] = {
        "operation": operations.get(request.verb, READ),
        "type": request.interface,
        "name": SELF,
    }
    if request.deadline is not None:
        properties["mh:deadline"] = max(1, int(request.deadline * 1000))
    if request.version is not None:
        properties["mh:v"] = request.version
    return Message(
        message_id=codec.string(request.id),
        to=to,
        content_type=JSON,
        content_encoding=encoding,
        properties=properties,
        data=data,
    )


def body_for(request: Request, member: Member | None) -> bytes:
    """The JSON body of a request. Raises `InvalidArguments`, and what JSON cannot carry."""
    if request.verb is Verb.GET:
        return types.dump_json({"attributeNames": [request.member]})
    if request.verb is Verb.GET_ALL:
        return b""
    given = request.arguments
    if request.verb is Verb.SET:
        values = list(given.values()) if isinstance(given, Mapping) else list(given)
        if len(values) != 1:
            raise InvalidArguments(
                f"{request.member}: expected one value, got {len(values)}", argument=request.member
            )
        return _written(request.member, member, values[0])
    return arguments_in_json(member, given if isinstance(given, Mapping) else list(given))


def _misfit(interface: Interface | None, request: Request, error: Exception) -> InvalidArguments:
    if interface is not None:
        prepare(Bound(interface, None), request)  # raises in the words that the agent would use
    return InvalidArguments(f"{request.member}: cannot be carried: {error}", argument=request.member)


def _written(name: str, member: Member | None, value: Plain) -> bytes:
    change = types.to_json(member.type if member and member.kind is Kind.PROPERTY else types.ANYTHING)
    return types.dump_json({name: change(value) if change else value})


def result_of(request: Request, member: Member | None, interface: Interface | None, body: object) -> Plain:
    """The plain answer, as a dispatcher gives it, of a reply's body."""
    if request.verb is Verb.SET:
        return None
    found = body if isinstance(body, dict) else {}
    if request.verb is Verb.GET_ALL:
        known = field_types(interface, "")
        return {name: _from_json(known.get(name, types.ANYTHING), value) for name, value in found.items()}
    if request.verb is Verb.GET:
        declared = member.type if member and member.kind is Kind.PROPERTY else types.ANYTHING
        return _from_json(declared, found.get(request.member))
    if member is None:
        values = [_from_json(types.ANYTHING, value) for value in found.values()]
        return None if not values else values[0] if len(values) == 1 else values
    results = [_from_json(each.type, found.get(each.name)) for each in member.results]
    return None if not results else results[0] if len(results) == 1 else results


def _from_json(declared: Type, value: Plain) -> Plain:
    change = types.from_json(declared)
    result: Plain = change(value) if change else value
    return result
