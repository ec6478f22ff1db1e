"""The embedded broker, over real sockets."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import pytest
from proton import Message
from proton.utils import BlockingConnection, SyncRequestResponse

from amqp_peers import HOST, dialled, encoded
from libmh import errors
from mh_amqp.addresses import Kind, kind, matches
from mh_amqp.broker import Broker, BrokerLimits
from mh_amqp.broker_main import serve
from mh_amqp.connection import Connection
from mh_amqp.engine import Delivery, Outcome, Receiver, Sender, Word
from mh_amqp.limits import Limits
from mh_amqp.queues import Bounds
from test_amqp_engine import run
from waiting import eventually

LIMITS = BrokerLimits(sweep=0.05)
SMALL = replace(LIMITS, queue=Bounds(20, 100_000), private=Bounds(20, 100_000), credit=10)


@asynccontextmanager
async def brokered(limits: BrokerLimits = LIMITS) -> AsyncIterator[tuple[Broker, int]]:
    broker, listener = await serve(f"{HOST}:0", limits)
    sweeping = asyncio.create_task(broker.sweep())
    try:
        yield broker, listener.port
    finally:
        sweeping.cancel()
        await listener.close()


class Inbox:
    """Deliveries of one receiver; accepted at once unless told to hold them."""

    def __init__(self, *, hold: bool = False) -> None:
        self.deliveries: list[Delivery] = []
        self.hold = hold

    def __call__(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)
        if not self.hold:
            delivery.accept()

    @property
    def raw(self) -> list[bytes]:
        return [delivery.raw for delivery in self.deliveries]

    def has(self, count: int) -> bool:
        return len(self.deliveries) >= count


def depth(broker: Broker, name: str) -> int:
    return broker.queues[name].depth if name in broker.queues else 0


def numbered(count: int) -> list[bytes]:
    return [encoded(id=number, address="q", body=number) for number in range(count)]


async def outcome_of(sender: Sender, raw: bytes) -> Outcome:
    answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    sender.send(raw, on_outcome=answered.set_result)
    async with asyncio.timeout(5):
        return await answered


def test_a_queue_keeps_until_somebody_comes() -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as one, dialled(port) as other:
            sender = await one.sender("q")
            sent = numbered(50)
            for raw in sent:
                await sender.send_acked(raw)
            assert depth(broker, "q") == 50
            inbox = Inbox()
            await other.receiver("q", inbox)
            await eventually(lambda: inbox.has(50))
            assert inbox.raw == sent
            await eventually(lambda: depth(broker, "q") == 0)
            assert broker.counters.messages == broker.counters.bytes == 0

    run(test())


def test_consumers_share_a_queue_in_turn_as_far_as_they_have_credit() -> None:
    async def test() -> None:
        async with brokered() as (_, port), dialled(port) as connection:
            inboxes = [Inbox(), Inbox(), Inbox(hold=True)]
            for inbox in inboxes:
                await connection.receiver("q", inbox, credit=5, hold=True)
            sender = await connection.sender("q")
            for raw in numbered(65):
                sender.send(raw)
            await eventually(lambda: sum(len(inbox.deliveries) for inbox in inboxes) == 65)
            assert len(inboxes[2].deliveries) == 5
            assert abs(len(inboxes[0].deliveries) - len(inboxes[1].deliveries)) <= 10

    run(test())


def test_what_a_lost_consumer_held_goes_to_the_next_in_order() -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as connection, dialled(port) as doomed:
            holding = Inbox(hold=True)
            await doomed.receiver("q", holding, credit=10, hold=True)
            sender = await connection.sender("q")
            for raw in numbered(15):
                await sender.send_acked(raw)
            await eventually(lambda: holding.has(10))
            for delivery in holding.deliveries[:5]:
                delivery.accept()
            await eventually(lambda: holding.has(15))
            doomed.abort()
            await eventually(lambda: broker.counters.returned == 10)
            inbox = Inbox()
            await connection.receiver("q", inbox)
            await sender.send_acked(numbered(16)[15])
            await eventually(lambda: inbox.has(11))
            messages = [Message() for _ in inbox.raw]
            for message, raw in zip(messages, inbox.raw, strict=True):
                message.decode(raw)
            assert [message.body for message in messages] == list(range(5, 16))
            assert [message.delivery_count for message in messages] == [1] * 10 + [0]

    run(test())


def test_a_full_queue_holds_producers_back_and_then_refuses() -> None:
    async def test() -> None:
        async with brokered(SMALL) as (broker, port), dialled(port) as connection:
            relay = await connection.sender(None)
            named = await connection.sender("q")
            outcomes: list[Outcome] = []
            for raw in numbered(100):
                named.send(raw, on_outcome=outcomes.append)
            await eventually(lambda: len(outcomes) >= 10)
            await asyncio.sleep(0.05)
            assert {outcome.word for outcome in outcomes} == {Word.ACCEPTED}
            held_back = named.waiting
            assert held_back >= 80
            for raw in numbered(20 - depth(broker, "q")):
                await relay.send_acked(raw)
            came = await outcome_of(relay, numbered(1)[0])
            assert (came.word, came.condition) == (Word.REJECTED, "amqp:resource-limit-exceeded")
            relay.send(numbered(1)[0], settled=True)
            await eventually(lambda: broker.counters.dropped == 1)
            inbox = Inbox()
            await connection.receiver("q", inbox)
            await eventually(lambda: inbox.has(100 + 20 - (100 - held_back)))
            assert named.waiting == 0
            await eventually(lambda: {outcome.word for outcome in outcomes} == {Word.ACCEPTED})

    run(test())


def test_memory_is_bounded_over_all_queues() -> None:
    async def test() -> None:
        limits = replace(LIMITS, memory=50_000)
        async with brokered(limits) as (broker, port), dialled(port) as connection:
            relay = await connection.sender(None)
            words = [
                (await outcome_of(relay, encoded(address=f"q{number}", body=b"x" * 1000))).word
                for number in range(100)
            ]
            assert words == [Word.ACCEPTED] * words.index(Word.REJECTED) + [Word.REJECTED] * (
                100 - words.index(Word.REJECTED)
            )
            assert broker.counters.bytes <= 52_000

    run(test())


def test_producers_go_on_when_memory_is_free_again() -> None:
    async def test() -> None:
        async with (
            brokered(replace(LIMITS, memory=5_000, credit=4)) as (broker, port),
            dialled(port) as connection,
        ):
            hoard = await connection.sender("hoard")
            await hoard.send_acked(encoded(body=b"x" * 6_000))
            sender = await connection.sender("q")
            outcomes: list[Outcome] = []
            for raw in numbered(20):
                sender.send(raw, on_outcome=outcomes.append)
            await eventually(lambda: outcomes and outcomes[0].word is Word.REJECTED)
            await asyncio.sleep(0.2)
            assert sender.waiting > 10
            await connection.receiver("hoard", Inbox())
            await eventually(lambda: broker.counters.bytes < 5_000)
            await eventually(lambda: len(outcomes) == 20)
            assert outcomes[-1].word is Word.ACCEPTED

    run(test())


def test_messages_expire_where_they_wait() -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as connection:
            sender = await connection.sender("q")
            await sender.send_acked(encoded(ttl=0.1, body="short"))
            await sender.send_acked(encoded(expiry_time=time.time() + 0.1, body="absolute"))
            await sender.send_acked(encoded(ttl=60, body="long"))
            await sender.send_acked(encoded(expiry_time=time.time() - 1, body="late already"))
            await eventually(lambda: broker.counters.expired == 3)
            assert depth(broker, "q") == 1
            inbox = Inbox()
            await connection.receiver("q", inbox)
            await eventually(lambda: inbox.has(1))
            assert b"long" in inbox.raw[0]

    run(test())


def test_multicast_reaches_all_and_nobody() -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as connection:
            sender = await connection.sender("mh.hosts")
            await sender.send_acked(numbered(1)[0])
            inboxes = [Inbox() for _ in range(450)]
            limits = Limits(links=600)
            async with dialled(port, limits) as agents:
                for inbox in inboxes:
                    await agents.receiver("mh.hosts", inbox, settled=True, shared=True)
                for raw in numbered(3):
                    await sender.send_acked(raw)
                await eventually(lambda: all(inbox.has(3) for inbox in inboxes))
                assert {tuple(inbox.raw) for inbox in inboxes} == {tuple(numbered(3))}
            await eventually(lambda: broker.counters.connections == 1)
            await sender.send_acked(numbered(1)[0])

    run(test())


def test_topics_go_by_pattern() -> None:
    async def test() -> None:
        wanted = {
            "mh.event.#": {"a", "b", "c"},
            "mh.event.org.Host.*": {"a", "b"},
            "mh.event.#.heartbeat": {"a"},
            "mh.event.org.Host.heartbeat": {"a"},
        }
        async with brokered() as (_, port), dialled(port) as connection:
            inboxes = {pattern: Inbox() for pattern in wanted}
            for pattern, inbox in inboxes.items():
                await connection.receiver(pattern, inbox)
            relay = await connection.sender(None)
            topics = {"a": "org.Host.heartbeat", "b": "org.Host.online", "c": "org.Network.links"}
            for name, topic in topics.items():
                await relay.send_acked(encoded(address=f"mh.event.{topic}", body=name))
            for pattern, names in wanted.items():
                await eventually(partial(inboxes[pattern].has, len(names)))
            bodies = {
                pattern: {raw.decode("latin1")[-1] for raw in inbox.raw}
                for pattern, inbox in inboxes.items()
            }
            assert bodies == wanted

    run(test())


@pytest.mark.parametrize("address", ["mh.*", "a.#.b", "$management", "mh.reply.guessed", "#"])
def test_what_is_no_queue_is_refused(address: str) -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as connection:
            with pytest.raises((errors.InvalidArguments, errors.NotFound)):
                await connection.receiver(address, print)
            with pytest.raises((errors.InvalidArguments, errors.NotFound)):
                await connection.sender(address)
            assert not broker.queues

    run(test())


def test_reply_nodes_are_private_and_end_with_their_connection() -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as connection, dialled(port) as other:
            inbox = Inbox()
            receiver = await connection.receiver(None, inbox, dynamic=True, credit=2, hold=True)
            address = receiver.address or ""
            assert kind(address) is Kind.REPLY
            with pytest.raises(errors.Conflict, match="private"):
                await other.receiver(address, print)
            relay = await other.sender(None)
            to_it = encoded(address=address, body=1)
            await relay.send_acked(to_it)
            named = await other.sender(address)
            await named.send_acked(to_it)
            await eventually(lambda: inbox.has(2))
            connection.abort()
            await eventually(lambda: not broker.queues)
            assert (await outcome_of(relay, to_it)).word is Word.RELEASED
            with pytest.raises(errors.NotFound):
                await other.sender(address)

    run(test())


def test_queues_go_when_they_are_idle_and_empty() -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as connection:
            sender = await connection.sender("q")
            await sender.send_acked(numbered(1)[0])
            sender.close()
            inbox = Inbox()
            await asyncio.sleep(0.1)
            assert list(broker.queues) == ["q"]
            receiver = await connection.receiver("q", inbox)
            await eventually(lambda: inbox.has(1))
            receiver.close()
            await eventually(lambda: not broker.queues)

    run(test())


def test_too_many_queues_are_refused() -> None:
    async def test() -> None:
        async with brokered(replace(LIMITS, queues=3)) as (broker, port), dialled(port) as connection:
            relay = await connection.sender(None)
            words = [(await outcome_of(relay, encoded(address=f"q{n}", body=n))).word for n in range(5)]
            assert words == [Word.ACCEPTED] * 3 + [Word.RELEASED] * 2
            with pytest.raises(errors.Unavailable, match="3 queues"):
                await connection.sender("one more")
            assert len(broker.queues) == 3

    run(test())


def test_a_slow_subscriber_is_told_and_stops_nobody() -> None:
    async def test() -> None:
        async with brokered(SMALL) as (broker, port), dialled(port) as connection, dialled(port) as sloth:
            quick = Inbox()
            await connection.receiver("mh.event.#", quick)
            told: list[str] = []
            slow = await sloth.receiver("mh.event.#", Inbox(hold=True), credit=5, hold=True)
            slow.on_closed = lambda condition, _: told.append(condition)
            sender = await connection.sender("mh.event.x.y")
            for raw in numbered(100):
                await sender.send_acked(raw)
            await eventually(lambda: quick.has(100))
            await eventually(lambda: told == ["amqp:resource-limit-exceeded"])
            await eventually(lambda: broker.counters.messages == 0)

    run(test())


def test_a_consumer_that_always_releases_does_not_spin_for_ever() -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as connection:
            count = 0

            def unwilling(delivery: Delivery) -> None:
                nonlocal count
                count += 1
                delivery.release()

            await connection.receiver("q", unwilling)
            await (await connection.sender("q")).send_acked(numbered(1)[0])
            await eventually(lambda: broker.counters.spent == 1)
            assert count == LIMITS.queue.deliveries
            assert broker.counters.messages == 0

    run(test())


@pytest.mark.parametrize(
    ("user", "word"), [(b"anonymous", Word.ACCEPTED), (None, Word.ACCEPTED), (b"root", Word.REJECTED)]
)
def test_nobody_speaks_in_anothers_name(user: bytes | None, word: Word) -> None:
    async def test() -> None:
        async with brokered() as (_, port), dialled(port) as connection:
            raw = encoded(address="q", user_id=user, body=1) if user else encoded(address="q", body=1)
            for sender in (await connection.sender(None), await connection.sender("q")):
                assert (await outcome_of(sender, raw)).word is word

    run(test())


def test_what_cannot_be_read_is_rejected() -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as connection:
            for sender in (await connection.sender(None), await connection.sender("q")):
                came = await outcome_of(sender, b"this is no message")
                assert (came.word, came.condition) == (Word.REJECTED, "amqp:decode-error")
            assert broker.counters.messages == 0

    run(test())


def test_the_settle_mode_is_the_consumers() -> None:
    async def test() -> None:
        async with brokered() as (_, port), dialled(port) as connection:
            sender = await connection.sender("q")
            for settled, expected in ((True, [True, True]), (False, [False, False]), (None, [True, False])):
                inbox = Inbox()
                receiver = await connection.receiver("q", inbox, settled=settled)
                sender.send(numbered(1)[0], settled=True)
                sender.send(numbered(1)[0])
                await eventually(partial(inbox.has, 2))
                assert [delivery.settled for delivery in inbox.deliveries] == expected
                receiver.close()

    run(test())


def test_proton_request_response_works_through_it() -> None:
    async def serve_requests(connection: Connection) -> Receiver:
        out = await connection.sender(None)

        def answer(delivery: Delivery) -> None:
            request = Message()
            request.decode(delivery.raw)
            reply = Message(address=request.reply_to, correlation_id=request.correlation_id, body="pong")
            out.send(bytes(reply.encode()))
            delivery.accept()

        return await connection.receiver("mh.host.1", answer)

    def ask(port: int) -> object:
        connection = BlockingConnection(f"{HOST}:{port}", timeout=5)
        client = SyncRequestResponse(connection, "mh.host.1")
        reply = client.call(Message(body="ping"))
        connection.close()
        return reply.body

    async def test() -> None:
        async with brokered() as (_, port), dialled(port) as connection:
            await serve_requests(connection)
            assert await asyncio.to_thread(ask, port) == "pong"

    run(test())


def test_its_state_can_be_read() -> None:
    async def test() -> None:
        async with brokered() as (broker, port), dialled(port) as connection:
            sender = await connection.sender("q")
            await sender.send_acked(numbered(1)[0])
            (state,) = broker.states()
            assert (state.name, state.depth, state.consumers, state.producers) == ("q", 1, 0, 1)
            assert broker.counters.connections == 1
            assert broker.counters.received == 1

    run(test())


@pytest.mark.parametrize(
    ("pattern", "address", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a.*", "a", False),
        ("a.#", "a", True),
        ("a.#", "a.b.c", True),
        ("#.c", "a.b.c", True),
        ("#.c", "c", True),
        ("a.#.c", "a.c", True),
        ("a.#.c", "a.b.b.c", True),
        ("a.#.c", "a.b.b.d", False),
        ("#", "", True),
        ("*.*", "a", False),
        ("a.b.c", "a.b", False),
    ],
)
def test_patterns(pattern: str, address: str, *, expected: bool) -> None:
    assert matches(pattern, address) is expected
