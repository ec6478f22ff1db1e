"""From a delivery to its reply: what is malformed, expired or repeated, when it is accepted, and what runs
now.

Deliveries of idempotent requests are accepted after their reply was handed out: if this process dies in
between, the broker delivers them again. All others are accepted on arrival, so that they run at most once.
A request without a reply-to runs only if it does more than read.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import partial

from libmh import audit
from libmh.caller import Caller
from libmh.errors import Conflict, Internal, InvalidArguments, NotAuthorized, Unavailable
from mh_amqp import codec, messages
from mh_amqp.links import Delivery, Receiver
from mh_amqp.management import Management
from mh_amqp.messages import Message
from mh_amqp.names import MANAGEMENT, is_private
from mh_amqp.outcome import DECODE_ERROR, NOT_ALLOWED, NOT_FOUND
from mh_amqp.record import FLEET, WHERE, Record, key_of, lifetime
from mh_amqp.signatures import Signatures, Ticket
from mh_amqp.status import OK, Answer, form_of, head, in_amqp, refusal

log = logging.getLogger(__name__)
MAX_REPLY = 4 << 20
SPREAD_PER_HOST = 0.0001
MOST_SPREAD = 1.0
SMALL_FLEET = 20
CREDIT = 10
MAX_LEFT = 10_000
MAX_SHOWN = 200

Gate = Callable[[Message, Callable[[], None], Callable[[], None]], None]
"""Calls the first to run a request, or the second to let it pass, now or soon."""
Send = Callable[[str, bytes], None]
"""Hand a reply to the link that leads to its address; raises `Unavailable` when there is none any more."""


@dataclass(slots=True)
class Counters:
    """What became of the deliveries that did not simply run."""

    malformed: int = 0
    expired: int = 0
    ignored: int = 0
    unsent: int = 0


@dataclass(slots=True)
class Intake:
    """Takes requests for its nodes, by address; `private` tells where replies may go, `gate` whether this
    host is one of those that a request with `mh:where` means; `also` are addresses of many hosts, this among
    them. `shared`: others serve the same nodes, so that what comes while this process ends is for them. It
    outlives connections: what runs goes on when one is lost, and its answer is kept for the requester who
    asks again."""

    nodes: dict[str, Management]
    record: Record = field(default_factory=Record)
    counters: Counters = field(default_factory=Counters)
    signatures: Signatures | None = None
    own: set[bytes] = field(default_factory=set)
    private: Callable[[str], bool] = is_private
    gate: Gate = lambda _message, _run, pass_by: pass_by()
    also: frozenset[str] = frozenset()
    shared: bool = False
    _stopping: bool = False
    _left: set[int] = field(default_factory=set)
    _tasks: set["asyncio.Task[None]"] = field(default_factory=set)
    _suspended: set[Receiver] = field(default_factory=set)

    def deliveries(
        self, receiver: Receiver, address: str | None, identity: Callable[[Message], str], send: Send
    ) -> Callable[[Delivery], None]:
        """What a receiver's deliveries are given to: while `CREDIT` requests run, it gets no further
        credit."""

        def arrived(delivery: Delivery) -> None:
            self.take(delivery, address, identity, send)
            if len(self._tasks) >= CREDIT:
                receiver.suspend()
                self._suspended.add(receiver)

        return arrived

    def take(
        self, delivery: Delivery, address: str | None, identity: Callable[[Message], str], send: Send
    ) -> None:
        """Deal with one delivery; `address` None means the message says where it goes. Never raises what a
        peer causes."""
        if self._stopping and self.shared:
            self._leave(delivery)
            return
        try:
            message = messages.decode(delivery.raw)
        except codec.Malformed as error:
            self.counters.malformed += 1
            log.info("a message cannot be read, rejecting it: %s", error)
            delivery.reject(DECODE_ERROR, str(error))
            return
        node = self.nodes.get(message.to or "" if address is None else address)
        if node is None:
            delivery.reject(NOT_FOUND, f"there is no node '{(message.to or '')[:256]}' here")
        elif message.reply_to is not None and not self.private(message.reply_to):
            # we may send there, whoever asks may not: what came from us would be believed
            self.counters.malformed += 1
            delivery.reject(NOT_ALLOWED, f"'{message.reply_to[:256]}' is no place for replies")
        elif _expired(message):
            self.counters.expired += 1
            delivery.accept()
        elif message.message_id in self.own:  # from ourselves: that it has come is all there is to say
            self._reply(message, delivery, send, in_amqp(head(OK, "OK", node.host), codec.NULL))
        elif message.reply_to is None and node.reads(message):
            self.counters.ignored += 1
            delivery.accept()
        elif WHERE in message.properties:
            run = partial(self._begin, node, message, delivery, identity(message), send)
            self.gate(message, run, delivery.accept)
        else:
            self._begin(node, message, delivery, identity(message), send)

    def _leave(self, delivery: Delivery) -> None:
        """For the others; what comes back is kept until this link ends, for there are none now, and the
        broker gives up what it has delivered too often."""
        mark = hash(delivery.raw)
        if mark not in self._left and len(self._left) < MAX_LEFT:
            self._left.add(mark)
            delivery.release()

    def _begin(
        self, node: Management, message: Message, delivery: Delivery, identity: str, send: Send
    ) -> None:
        ticket = None
        if FLEET in message.properties:
            send = spread(send, message.number(FLEET))
        if self.signatures is not None:
            try:
                identity, ticket = self.signatures.check(message, identity)
                if ticket is not None:
                    self._check_meant(node, message)
            except NotAuthorized as problem:
                action = f"{message.text('type') or ''}.{message.text('operation') or ''}"
                audit.record("call", action, {}, Caller("amqp", identity), str(problem), message.id_text())
                self._reply(message, delivery, send, refusal(problem, node.host, form_of(message)))
                return
        now = node.answer_now(message, identity)
        if now is not None:  # nothing runs, so nothing is recorded
            self._reply(message, delivery, send, now)
            return
        caller = Caller("amqp", identity)
        hand_out = partial(self._reply, message, delivery, send)
        key = key_of(message, identity)
        if not self.record.begin(key, hand_out):
            return
        if ticket is not None and self.signatures is not None and key is not None:
            try:
                self.signatures.seen.remember(ticket.number, ticket.expires_ms)
            except (Conflict, Unavailable) as problem:
                self.record.finish(key, refusal(problem, node.host, form_of(message)), 0)
                return
        if not node.idempotent(message):
            delivery.accept()
        task = asyncio.ensure_future(self._run(node, message, caller, key, hand_out, ticket))
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _check_meant(self, node: Management, message: Message) -> None:
        """Raise `NotAuthorized` for what was signed to go elsewhere: the link that brought it could be
        anybody's, and `$management` is on every host."""
        to = message.to or ""
        named = to != MANAGEMENT or not node.host or message.text("name") == node.host
        if not named or (to not in self.nodes and to not in self.also):
            raise NotAuthorized(f"this was signed for '{to[:MAX_SHOWN]}', which could be another host")

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a request could not be answered", exc_info=error)  # a bug of ours
        if self._suspended and len(self._tasks) < CREDIT:
            suspended, self._suspended = self._suspended, set()
            for receiver in suspended:
                receiver.resume()

    async def _run(
        self,
        node: Management,
        message: Message,
        caller: Caller,
        key: Hashable | None,
        hand_out: Callable[[Answer], None],
        ticket: Ticket | None,
    ) -> None:
        answer = None
        try:
            answer = await node.answer(message, caller)
        except asyncio.CancelledError:
            gone = Unavailable("this agent has shut down before it could answer")
            answer = refusal(gone, node.host, form_of(message))
            raise
        finally:  # whatever happens, who waits is told
            if answer is None:
                answer = refusal(Internal("the answer could not be made"), node.host, form_of(message))
            if key is None:
                hand_out(answer)
            else:
                again = not answer.final and node.idempotent(message)  # it may go better next time
                if again and ticket is not None and self.signatures is not None:
                    self.signatures.seen.forget(ticket.number)
                self.record.finish(key, answer, 0 if again else lifetime(message, reads=node.reads(message)))

    def _reply(self, message: Message, delivery: Delivery, send: Send, answer: Answer) -> None:
        if message.reply_to is not None:
            raw = answer.reply(message.reply_to, message.correlation_id or message.message_id)
            if len(raw) > MAX_REPLY:
                raw = _too_long(raw, message)
            try:
                try:
                    send(message.reply_to, raw)
                except InvalidArguments:  # the peer takes less than we would send
                    send(message.reply_to, _too_long(raw, message))
            except (Unavailable, InvalidArguments) as error:  # the connection has gone; it may ask again
                self.counters.unsent += 1
                log.debug("a reply was not sent: %s", error)
        delivery.accept()

    async def stop(self, grace: float) -> None:
        """Refuse what comes from now on, wait for what runs, and answer the rest that it was in vain."""
        self._stopping = True
        for dispatcher in {node.dispatcher for node in self.nodes.values()}:
            await dispatcher.drain(grace)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=0.2)  # answered by dispatch, but not handed out yet
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        if self.signatures is not None:
            self.signatures.seen.close()


def spread(send: Send, fleet: int | None) -> Send:
    """`send` after a random pause that grows with the fleet: a console is not answered by all at once."""
    if fleet is None or fleet <= SMALL_FLEET:
        return send
    most = min(fleet * SPREAD_PER_HOST, MOST_SPREAD)

    def later(to: str, raw: bytes) -> None:
        def now() -> None:
            try:
                send(to, raw)
            except (Unavailable, InvalidArguments) as error:  # the connection has gone; it may ask again
                log.debug("a reply was not sent: %s", error)

        pause = random.uniform(0.0, most)  # noqa: S311 - jitter is no secret
        asyncio.get_running_loop().call_later(pause, now)

    return later


def _expired(message: Message) -> bool:
    if message.ttl == 0:
        return True
    return message.expiry is not None and message.expiry <= time.time() * 1000


def _too_long(raw: bytes, message: Message) -> bytes:
    problem = InvalidArguments(
        f"the answer has {len(raw)} bytes, at most {MAX_REPLY} are sent: ask for less", argument="body"
    )
    answer = refusal(problem, "", form_of(message))
    return answer.reply(message.reply_to or "", message.correlation_id or message.message_id)
