"""Requests to many hosts through a broker: `libmh.fleet.Line`.

Everybody at once is asked by one message to `mh.hosts`, a few hosts by one message to each, all by one
sending link and with one reply address. A request has the same id wherever it goes, so that a host that it
reaches twice runs it once.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from libmh.api.aggregates import Aggregates
from libmh.call import Request, Verb
from libmh.errors import (
    InvalidArguments,
    NotAuthorized,
    NotFound,
    NotImplementedHere,
    Problem,
    Timeout,
    Unavailable,
)
from libmh.fleet import LATE_SECONDS, Hear, Refused, Reply, Way
from libmh.outcomes import Host
from libmh.providers import find_interface
from libmh.selection import Where
from libmh.spec import Interface, Member, Plain, interface_of
from mh_amqp import codec, messages
from mh_amqp.addresses import GROUP_PREFIX, MULTICAST
from mh_amqp.asking import Asker
from mh_amqp.casts import is_group
from mh_amqp.client import AmqpTransport, body_for, listens, request_message, result_of
from mh_amqp.client import connect as connect_one
from mh_amqp.messages import Message
from mh_amqp.names import HOST_PREFIX, host_address
from mh_amqp.outcome import Outcome, Word, problem
from mh_amqp.record import FLEET, WHERE
from mh_amqp.signatures import signed
from mh_amqp.status import body_of, problem_of

SELECT_SECONDS = 2.0
OPEN_SECONDS = 8.0
LEAVE_SECONDS = 10.0
SLICE = 100
"""Messages that are sent before the loop may do something else."""
BACKLOG = 500
PAUSE = 0.005
MOST_PAUSES = 1000
NOBODY = (Timeout, Unavailable, NotFound, NotImplementedHere, NotAuthorized)
"""What is raised where there is no conductor that selects."""


async def connect(url: str) -> "AmqpLine":
    """A line to the hosts at a broker. Raises as `mh_amqp.client.connect`, and `InvalidArguments` for a URL
    that names one host, or leads to an agent."""
    transport = await connect_one(url)
    made = await transport.open(OPEN_SECONDS)
    if transport.place.uuid or listens(made.connection):
        await transport.close()
        raise InvalidArguments(
            f"'{transport.place.shown}' is one host: many are asked through the broker that they are at",
            argument="url",
        )
    return AmqpLine(transport)


@dataclass(slots=True)
class AmqpReply:
    """`libmh.fleet.Reply`: its body is read when it is asked for."""

    message: Message
    request: Request
    member: Member | None
    interface: Interface | None

    @property
    def host(self) -> str:
        return self.message.text("mh:host") or ""

    def problem(self) -> Problem | None:
        return problem_of(self.message)

    def value(self) -> Plain:
        return result_of(self.request, self.member, self.interface, body_of(self.message))


class AmqpLine:
    """Over the connection of a transport, which is made again when it is lost."""

    def __init__(self, transport: AmqpTransport) -> None:
        self._transport = transport
        self._hearing: dict[bytes, Asker] = {}

    async def select(self, where: Where) -> list[Host] | None:
        interface = interface_of(Aggregates)
        # not only those that something could be placed on
        given: dict[str, Plain] = {"where": list(where.texts()), "policy": "inventory"}
        asked = Request(interface.name, "select", Verb.CALL, given, deadline=SELECT_SECONDS)
        try:
            told = await self._transport.call(asked)
        except NOBODY:
            return None
        hosts = told.get("hosts") if isinstance(told, dict) else None
        rows = [row for row in hosts if isinstance(row, dict)] if isinstance(hosts, list) else []
        return [Host(str(row["uuid"]), str(row["hostname"]), _whole(row["last_seen"])) for row in rows]

    async def cast(self, request: Request, way: Way, hear: Hear) -> None:
        if way.group and not is_group(way.group):
            raise InvalidArguments(f"group: '{way.group[:100]}' is no name of a group", argument="group")
        to = GROUP_PREFIX + way.group if way.group else MULTICAST
        made, message = await self._prepared(request, way, hear)
        taken: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        raw = messages.encode(self._addressed(message, to, way))
        await made.post.carry(to, raw, partial(_settle, taken))
        async with asyncio.timeout(way.lifetime):
            came = await taken
        refusal = _refusal(came, to)
        if refusal is not None:
            raise refusal

    async def send(
        self, request: Request, hosts: Sequence[str], way: Way, hear: Hear, refused: Refused
    ) -> None:
        made, message = await self._prepared(request, way, hear)
        for number, uuid in enumerate(hosts, 1):
            to = host_address(uuid)
            raw = messages.encode(self._addressed(message, to, way))
            await made.post.carry(to, raw, partial(_came, uuid, refused))
            if number % SLICE == 0:
                await self._breathe(made)

    async def _breathe(self, made: Asker) -> None:
        """Let answers in, and out what is to be sent."""
        await asyncio.sleep(0)
        for _ in range(MOST_PAUSES):
            if made.post.waiting <= BACKLOG:
                break
            await asyncio.sleep(PAUSE)

    async def _prepared(self, request: Request, way: Way, hear: Hear) -> tuple[Asker, Message]:
        made = await self._transport.open(min(OPEN_SECONDS, way.lifetime))
        interface = find_interface(request.interface)
        member = interface.members.get(request.member) if interface else None
        try:
            body = body_for(request, member)
        except (ValueError, TypeError, RecursionError) as error:  # no JSON: NaN, half a character, too deep
            raise InvalidArguments(f"{request.member}: cannot be carried: {error}") from error
        message = request_message(request, body, "")
        address = made.receiver.address if made.receiver else None
        properties: dict[str, Plain] = {**message.properties, FLEET: way.fleet}
        if way.where.requirements:
            properties[WHERE] = way.where.text()
        self._hearing[message.message_id] = made
        made.hearing[message.message_id] = lambda came: _hear(came, request, member, interface, hear)
        return made, replace(message, properties=properties, reply_to=address)

    def _addressed(self, message: Message, to: str, way: Way) -> Message:
        milliseconds = int(way.lifetime * 1000)
        expiry = int((time.time() + LATE_SECONDS) * 1000) + milliseconds
        addressed = replace(message, to=to)
        if self._transport.key is not None:
            addressed = signed(addressed, self._transport.key, milliseconds)
        return replace(addressed, ttl=milliseconds, expiry=expiry)

    async def leave(
        self, request: Request, hosts: Sequence[str], where: Where, seconds: float
    ) -> dict[str, Problem | None]:
        way = Way(seconds, 0, where)
        made, message = await self._prepared(request, way, _nobody)
        self.forget(request)
        left: dict[str, asyncio.Future[Outcome]] = {}
        for number, uuid in enumerate(hosts, 1):
            left[uuid] = asyncio.get_running_loop().create_future()
            asked = replace(message, reply_to=None, durable=True)
            raw = messages.encode(self._addressed(asked, host_address(uuid), way))
            await made.post.carry(host_address(uuid), raw, partial(_settle, left[uuid]))
            if number % SLICE == 0:
                await self._breathe(made)
        if left:
            await asyncio.wait(left.values(), timeout=LEAVE_SECONDS)
        return {uuid: _left(came, host_address(uuid)) for uuid, came in left.items()}

    def forget(self, request: Request) -> None:
        key = codec.string(request.id)
        made = self._hearing.pop(key, None)
        if made is not None:
            made.hearing.pop(key, None)

    async def close(self) -> None:
        await self._transport.close()


def _hear(
    came: Message, request: Request, member: Member | None, interface: Interface | None, hear: Hear
) -> None:
    if came.text("mh:host"):  # a reply of nobody is nobody's
        hear(AmqpReply(came, request, member, interface))


def _nobody(_reply: Reply) -> None:
    """Nobody waits for an answer."""


def _settle(taken: "asyncio.Future[Outcome]", came: Outcome) -> None:
    if not taken.done():
        taken.set_result(came)


def _left(taken: "asyncio.Future[Outcome]", to: str) -> Problem | None:
    if not taken.done():
        return Timeout(f"the broker did not say that it keeps what is for '{to}'")
    return _refusal(taken.result(), to)


def _came(uuid: str, refused: Refused, came: Outcome) -> None:
    refusal = _refusal(came, HOST_PREFIX + uuid)
    if refusal is not None:
        refused(uuid, refusal)


def _refusal(came: Outcome, to: str) -> Problem | None:
    if came.word is Word.ACCEPTED:
        return None
    what = f"'{to}' did not take the request"
    if came.word is Word.REJECTED:
        return problem(came.condition, came.description, what)
    if came.word is Word.LOST:
        return Unavailable("the connection was lost")
    return NotFound(f"{what}: nobody is there")


def _whole(value: object) -> int:
    return value if isinstance(value, int) else 0
