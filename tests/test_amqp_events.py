"""Events on their way out: their messages, their order, and what happens while nobody takes them."""

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proton import Message as Foreign
from proton.utils import BlockingConnection

from amqp_serving import (
    HOST,
    SOURCE,
    TOY,
    UUID,
    Toy,
    asking,
    broker_agent,
    command,
    direct_agent,
    port_of,
    run,
    running_broker,
)
from libmh.context import Context
from libmh.events import Event, Hub
from libmh.providers import shipped_interfaces
from libmh.spec import Kind, interface_of
from mh_amqp import events, messages
from mh_amqp.addresses import matches
from mh_amqp.engine import Delivery
from mh_amqp.events import Encoded, Outbox, decode_event, encode_event
from mh_amqp.messages import Message
from mh_amqp.names import event_address, event_pattern
from mh_amqp.upkeep import Pace
from test_amqp_types import plain_of
from waiting import eventually

DECLARED = [event for each in shipped_interfaces() for event in each.of(Kind.EVENT)]


def keep(event: Encoded, where: list[Encoded]) -> bool:
    where.append(event)
    return True


def outbox(hub: Hub) -> Outbox:
    return Outbox(hub, SOURCE, lambda name: interface_of(Toy) if name == TOY else None)


@pytest.mark.parametrize("member", DECLARED, ids=lambda member: member.action)
def test_every_declared_event_comes_back(member: Any) -> None:
    interface = next(each for each in shipped_interfaces() if each.name == member.interface)

    @settings(max_examples=15, deadline=None)
    @given(st.fixed_dictionaries({a.name: plain_of(a.type) for a in member.arguments}))
    def check(fields: dict[str, Any]) -> None:
        event = Event(member.interface, member.name, fields, 5, 7, UUID)
        message = messages.decode(encode_event(event, SOURCE, interface))
        assert message.to == f"mh.event.{member.action}"
        assert decode_event(message) == event

    check()


def test_an_event_message_is_one_that_anybody_can_read() -> None:
    event = Event(TOY, "rang", {"times": 3, "at": 1_700_000_000_123_000_000}, 99, 4)
    foreign = Foreign()
    foreign.decode(encode_event(event, SOURCE, interface_of(Toy)))
    assert foreign.subject == "org.example.Toy.rang"
    assert foreign.properties == {
        "mh:host": UUID,
        "mh:hostname": "testhost",
        "mh:boot-id": "boot-1",
        "mh:sequence": 4,
        "mh:time": 99,
    }
    body: Any = foreign.body
    assert body == {"times": 3, "at": 1_700_000_000_123}
    assert foreign.ttl == 60


def test_a_change_of_properties_is_an_event_too() -> None:
    event = Event(TOY, "", {"level": 4}, 99, 4, UUID)
    message = messages.decode(encode_event(event, SOURCE, interface_of(Toy)))
    assert message.subject == "org.example.Toy.properties_changed"
    assert decode_event(message) == event
    assert matches(event_pattern(TOY, ""), event_address(TOY, ""))


def test_what_is_no_event_is_none() -> None:
    assert decode_event(Message(subject="word", value=b"\x45")) is None
    assert decode_event(Message(to="mh.event.a.b", value=b"\x40")) is None


def test_events_wait_in_order_until_they_are_taken() -> None:
    async def test() -> None:
        hub = Hub()
        out = outbox(hub)
        for number in range(5):
            hub.emit(Toy.rang, times=number, at=0)
        await eventually(lambda: out.waiting == 5)
        taken: list[Encoded] = []

        def take_two(event: Encoded) -> bool:
            taken.append(event)
            return len(taken) <= 2

        out.deliver = take_two
        out.flush()
        assert out.waiting == 3
        out.deliver = lambda event: keep(event, taken)
        out.flush()
        decoded = [decode_event(messages.decode(each.raw)) for each in taken]
        assert [event.fields["times"] for event in decoded if event] == [0, 1, 2, 2, 3, 4]
        assert (out.sent, out.dropped, out.waiting) == (5, 0, 0)
        assert out.empty.is_set()
        out.close()
        hub.emit(Toy.rang, times=9, at=0)
        await asyncio.sleep(0)
        assert out.waiting == 0

    run(test())


def test_what_does_not_fit_or_is_old_is_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        hub = Hub()
        out = outbox(hub)
        for number in range(events.MAX_KEPT + 10):
            hub.emit(Toy.rang, times=number, at=0)
        await eventually(lambda: out.dropped == 10)
        assert out.waiting == events.MAX_KEPT
        now = time.monotonic()
        monkeypatch.setattr(time, "monotonic", lambda: now + events.LIFETIME + 1)
        out.deliver = lambda _event: True
        out.flush()
        assert (out.sent, out.dropped) == (0, events.MAX_KEPT + 10)

    run(test())


def test_kept_events_are_bounded_in_bytes() -> None:
    async def test() -> None:
        hub = Hub()
        out = Outbox(hub, SOURCE, lambda _name: None)
        for number in range(40):
            out._take(Event("a.B", "c", {"text": "x" * 60_000}, 0, number))
        assert out.waiting < 20
        out._take(Event("a.B", "c", {"list": ["x" * 60_000] * 30}, 0, 1))
        assert out.waiting < 20

    run(test())


def test_events_of_many_threads_all_arrive() -> None:
    async def test() -> None:
        hub = Context().events
        out = outbox(hub)
        seen: list[Encoded] = []
        out.deliver = lambda event: keep(event, seen)

        def ring() -> None:
            for number in range(50):
                hub.emit(Toy.rang, times=number, at=0)

        threads = [threading.Thread(target=ring) for _ in range(4)]
        for thread in threads:
            thread.start()
        await eventually(lambda: len(seen) == 200)
        for thread in threads:
            thread.join()

    run(test())


def test_a_foreign_receiver_takes_events_from_a_broker(tmp_path: Path) -> None:
    async def test() -> None:
        with command("mh_amqp.broker_main", "--listen", f"{HOST}:0", "--state", str(tmp_path)) as (_, line):
            async with broker_agent(tmp_path, port_of(line)) as agent:
                connection = await asyncio.to_thread(
                    BlockingConnection, f"{HOST}:{port_of(line)}", timeout=10
                )
                receiver = await asyncio.to_thread(connection.create_receiver, f"mh.event.{TOY}.*")
                await eventually(lambda: [s.state for s in agent.connections.list()] == ["connected"])
                agent.context.events.emit(Toy.rang, times=2, at=0)
                message: Any = await asyncio.to_thread(receiver.receive, timeout=10)
                assert (message.subject, message.body["times"]) == ("org.example.Toy.rang", 2)
                await asyncio.to_thread(connection.close)

    run(test())


def test_events_of_a_broken_connection_come_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port):
            pass
        async with broker_agent(tmp_path, port) as agent:
            agent.served.pace = Pace(first=0.1, most=0.2)
            await eventually(lambda: [s.state for s in agent.connections.list()] == ["waiting"])
            agent.context.events.emit(Toy.rang, times=6, at=0)
            await eventually(lambda: agent.served.outbox.waiting)
            async with running_broker(port) as (_, port), asking(port) as console:
                came: list[Message] = []
                await console.connection.receiver(
                    "mh.event.#", lambda delivery: take(delivery, came), credit=10
                )
                await eventually(lambda: any(m.subject == f"{TOY}.rang" for m in came), 20)
                agent.process.stop.set()
                await eventually(lambda: came[-1].subject == "org.matahariproject.Agent.going_away", 10)

    run(test(), 60)


def take(delivery: Delivery, came: list[Message]) -> None:
    delivery.accept()
    came.append(messages.decode(delivery.raw))


def ready(direct: Any) -> int:
    """Subscribers whose first credit has come."""
    return sum(link.credit > 0 for peer in direct._peers.values() for link in peer.subscriptions)


def test_a_console_that_does_not_take_events_stops_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        async with direct_agent(tmp_path) as agent, asking(agent.listener.port) as console:
            came: list[Message] = []
            slow = await console.connection.receiver(
                "mh.event.#", lambda _delivery: None, credit=2, hold=True
            )
            await console.connection.receiver("mh.event.#", lambda d: take(d, came), credit=1000)
            peers: Any = agent.served.outbox.deliver.__self__  # type: ignore[attr-defined]  # a bound method
            await eventually(lambda: ready(peers) == 2)
            for number in range(100):
                agent.dispatcher.context.events.emit(Toy.rang, times=number, at=0)
            await eventually(lambda: len(came) == 100)
            assert agent.served.outbox.waiting == 0
            assert slow.open
            assert peers.missed == 98

    run(test())


def test_a_storm_of_events_takes_no_more_memory_than_it_may() -> None:
    async def test() -> None:
        hub = Hub()
        box = outbox(hub)
        scheduled: list[object] = []
        loop: Any = asyncio.get_running_loop()
        schedule = loop.call_soon_threadsafe

        def counted(callback: Any, *given: Any) -> Any:
            scheduled.append(callback)
            return schedule(callback, *given)

        loop.call_soon_threadsafe = counted
        for number in range(5000):
            hub.emit(Toy.rang, times=number, at=0)
        assert len(scheduled) == 1
        await eventually(lambda: box.waiting)
        assert box.waiting == events.MAX_KEPT
        assert box.dropped == 5000 - events.MAX_KEPT
        hub.emit(Toy.rang, times=1, at=0)
        await eventually(lambda: box.dropped == 5001 - events.MAX_KEPT)

    run(test())
