"""Requests from this side over a connection: to any address, with one private reply address, answers by
their id."""

import asyncio
import logging
import secrets
from collections.abc import Callable

from libmh.errors import InvalidArguments, NotFound, Problem, Timeout, Unavailable
from mh_amqp import codec, messages
from mh_amqp.connection import Connection
from mh_amqp.dialects import Dialect, private_address
from mh_amqp.links import Delivery, Receiver
from mh_amqp.messages import Message
from mh_amqp.outcome import Outcome, Word, problem
from mh_amqp.post import Post, post, receive

log = logging.getLogger(__name__)
REPLY_CREDIT = 1000


class Asker:
    """Made by `asker`; every future that it holds ends when the connection does, at the latest. `hearing` is
    called with every reply to a request, by its id: of those that many may answer."""

    def __init__(self, connection: Connection, sending: Post) -> None:
        self.connection = connection
        self.post = sending
        self.receiver: Receiver | None = None
        self._waiting: dict[bytes, asyncio.Future[Message]] = {}
        self.hearing: dict[bytes, Callable[[Message], None]] = {}
        connection.closed.add_done_callback(self._lost)

    @property
    def open(self) -> bool:
        return self.post.open and self.receiver is not None and self.receiver.open

    async def ask(self, message: Message, deadline: float) -> Message:
        """Send a request and return its reply, whatever its status. Raises `Unavailable` when the
        connection is lost or the message was not taken, the Problem of a refusal, `Timeout` after
        `deadline` seconds."""
        if not self.open or self.receiver is None:
            raise Unavailable("the connection is closed")
        key = message.message_id
        answered: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[key] = answered
        try:
            async with asyncio.timeout(deadline):
                await self.post.carry(
                    message.to or "",
                    messages.encode(message),
                    lambda came: self._came(answered, came, message.to),
                )
                return await answered
        except TimeoutError:
            raise Timeout(
                f"'{message.to}' did not answer within {deadline:.3g} s", source=str(message.to)
            ) from None
        finally:
            if self._waiting.get(key) is answered:
                del self._waiting[key]

    def reply(self, delivery: Delivery) -> None:
        """Give a reply to whoever waits for it; one that nobody waits for is dropped."""
        delivery.accept()
        try:
            message = messages.decode(delivery.raw)
        except codec.Malformed as error:
            log.warning("a reply cannot be read: %s, ignoring", error)
            return
        answered = self._waiting.get(message.correlation_id)
        if answered is not None and not answered.done():
            answered.set_result(message)
        elif message.correlation_id in self.hearing:
            self.hearing[message.correlation_id](message)

    @staticmethod
    def _came(answered: "asyncio.Future[Message]", came: Outcome, to: str | None) -> None:
        if answered.done() or came.word is Word.ACCEPTED:
            return
        what = f"'{to}' did not take the request"
        error: Problem
        if came.word is Word.REJECTED:
            error = problem(came.condition, came.description, what)
        elif came.word is Word.LOST:
            error = Unavailable("the connection was lost")
        else:
            error = NotFound(f"{what}: nobody is there")
        answered.set_exception(error)

    def _lost(self, _closed: object) -> None:
        for answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(
                    Unavailable(f"the connection was lost: {self.connection.closed.result()}")
                )


async def asker(
    connection: Connection, *, sending: Post | None = None, chosen: Dialect | None = None
) -> Asker:
    """Attach what requests need: links to send by, unless there are some to share, and a reply address,
    which a broker that makes none gets from us. `chosen` is what the configuration says of the dialect."""
    made = Asker(connection, sending or await post(connection, chosen))
    dialect = made.post.dialect
    if dialect.dynamic:
        made.receiver = await connection.receiver(
            None, made.reply, dynamic=True, credit=REPLY_CREDIT, shared=True
        )
    else:
        own = private_address(secrets.token_urlsafe(16))
        made.receiver = await receive(connection, dialect, own, made.reply, credit=REPLY_CREDIT, shared=True)
    if not made.receiver.address:
        raise InvalidArguments("the peer gave no reply address")
    return made
