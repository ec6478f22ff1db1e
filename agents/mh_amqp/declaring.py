"""Queues and bindings at RabbitMQ 4, which makes none by itself: HTTP over a pair of links to `/management`.

`PUT /queues/:queue` and `POST /bindings` are all of it (the protocol of RabbitMQ's own AMQP 1.0 clients). A
queue of requests stays for a week without a consumer; one of casts, events or replies ends with its
connection.
"""

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from libmh.errors import BackendFailed, Timeout
from libmh.spec import Plain
from mh_amqp import codec, messages
from mh_amqp.addresses import Kind, kind
from mh_amqp.connection import Connection
from mh_amqp.dialects import Node
from mh_amqp.links import Delivery, Receiver, Sender
from mh_amqp.messages import Message

MANAGEMENT = "/management"
EXCHANGE = "amq.topic"
ANSWER_SECONDS = 10.0
KEPT_MS = 7 * 24 * 3600 * 1000
THERE = ("200", "201", "204", "409")
"""409: it is there with other settings, which its administrator wants."""


async def declare(connection: Connection, address: str, node: Node) -> Node:
    """Make what a logical address needs; answers where to receive. Errors as for `Connection.sender`;
    `BackendFailed` with the broker's status when it does not do it."""
    pair = await _pair(connection)
    try:
        if kind(address) is Kind.QUEUE:
            await pair.ask("PUT", f"/queues/{quote(address, safe='')}", _queue(exclusive=False))
            return node
        name = f"mh.own.{secrets.token_urlsafe(16)}"
        await pair.ask("PUT", f"/queues/{quote(name, safe='')}", _queue(exclusive=True))
        binding: Mapping[str, Plain] = {
            "source": EXCHANGE,
            "destination_queue": name,
            "binding_key": address,
            "arguments": {},
        }
        await pair.ask("POST", "/bindings", binding)
        return Node(f"/queues/{quote(name, safe='')}")
    finally:
        pair.close()


def _queue(*, exclusive: bool) -> Mapping[str, Plain]:
    arguments: dict[str, Plain] = {} if exclusive else {"x-expires": KEPT_MS}
    return {
        "durable": not exclusive,
        "exclusive": exclusive,
        "auto_delete": exclusive,
        "arguments": arguments,
    }


@dataclass(slots=True)
class Pair:
    """Two links of one name, in both directions."""

    sender: Sender
    receiver: Receiver
    answers: "asyncio.Queue[bytes]"

    async def ask(self, method: str, path: str, body: Mapping[str, Plain]) -> None:
        message = Message(
            message_id=codec.string(secrets.token_hex(8)),
            to=path,
            subject=method,
            reply_to="$me",
            value=codec.any_value(dict(body)),
        )
        self.sender.send(messages.encode(message), settled=True)
        try:
            raw = await asyncio.wait_for(self.answers.get(), ANSWER_SECONDS)
            status = messages.decode(raw).subject
        except TimeoutError as late:
            raise Timeout(f"{MANAGEMENT} did not answer {method} {path} in {ANSWER_SECONDS:g} s") from late
        except codec.Malformed as error:
            raise BackendFailed(f"the answer of {MANAGEMENT} cannot be read: {error}") from error
        if status not in THERE:
            raise BackendFailed(f"the broker answered {status} to {method} {path}")

    def close(self) -> None:
        self.sender.close()
        self.receiver.close()


async def _pair(connection: Connection) -> Pair:
    answers: asyncio.Queue[bytes] = asyncio.Queue()
    name = f"mh-pair-{secrets.token_hex(4)}"

    def came(delivery: Delivery) -> None:
        answers.put_nowait(delivery.raw)  # no more than were asked for: there is no further credit
        delivery.accept()

    receiving = connection.receiver(MANAGEMENT, came, credit=2, settled=True, shared=True, pair=name)
    sending = connection.sender(MANAGEMENT, settled=True, shared=True, pair=name)
    receiver, sender = await asyncio.gather(receiving, sending)
    return Pair(sender, receiver, answers)
