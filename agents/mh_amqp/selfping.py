"""A request to oneself, through the broker and back: what notices a path of which only one half works, or a
broker that keeps connections and carries nothing."""

import asyncio
import secrets

from libmh.api.agent import Agent
from libmh.errors import Timeout, Unavailable
from libmh.spec import member_of
from mh_amqp import codec
from mh_amqp.asking import Asker
from mh_amqp.messages import Message

EVERY_SECONDS = 30.0
ANSWER_SECONDS = 10.0


async def ping(asker: Asker, address: str, own: set[bytes]) -> None:
    """Ask at an address of our own, for ever; `own` is where the intake there knows our requests from, which
    it answers whatever the policy says. Raises `Unavailable` when no answer comes back."""
    member = member_of(Agent.ping)
    while True:
        await asyncio.sleep(EVERY_SECONDS)
        message = Message(
            message_id=codec.string(secrets.token_hex(16)),
            to=address,
            reply_to=asker.receiver.address if asker.receiver else None,
            ttl=int(ANSWER_SECONDS * 1000),
            properties={"operation": member.name, "type": member.interface, "name": "self"},
        )
        own.add(message.message_id)
        try:
            await asker.ask(message, ANSWER_SECONDS)
        except Timeout as problem:
            raise Unavailable(f"what we send ourselves does not come back: {problem}") from problem
        finally:
            own.discard(message.message_id)
