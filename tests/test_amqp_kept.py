"""Durable messages at the embedded broker: on disk as long as they wait, whatever becomes of the broker."""

import asyncio
import logging
from contextlib import ExitStack
from pathlib import Path

import pytest

from amqp_peers import HOST, dialled, encoded
from amqp_serving import (
    TOY,
    UUID,
    CountingToy,
    Toy,
    ask,
    asking,
    broker_agent,
    command,
    port_of,
    request,
    run,
    toys,
)
from libmh.call import Request
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.providers import find_interface
from libmh.selection import Where
from libmh.spec import interface_of
from mh_amqp import client, kept, messages, raw
from mh_amqp.authority import roles
from mh_amqp.broker import BrokerLimits
from mh_amqp.broker_main import serve
from mh_amqp.client import connect
from mh_amqp.connection import Connection
from mh_amqp.engine import Delivery, Word
from mh_amqp.fleet import AmqpLine
from mh_amqp.intake import Intake
from mh_amqp.kept import Kept
from mh_amqp.management import Management
from mh_amqp.messages import Message
from mh_amqp.names import host_address
from mh_amqp.queues import Bounds
from test_amqp_broker import Inbox, outcome_of
from waiting import eventually

STATE = "broker.queues"


@pytest.fixture(autouse=True)
def _toy_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        client, "find_interface", lambda name: interface_of(Toy) if name == TOY else find_interface(name)
    )


def durable(number: int, ttl: float = 600.0) -> bytes:
    return encoded(address="q", durable=True, body=number, ttl=ttl)


async def heard(connection: Connection) -> None:
    """The broker has taken all that was said before."""
    sender = await connection.sender("elsewhere")
    await sender.send_acked(encoded(address="elsewhere", body=1))


def test_what_is_durable_is_told_and_read() -> None:
    for said in (True, False):
        for ttl in (None, 5):
            made = messages.encode(Message(to="q", durable=said, ttl=ttl))
            assert raw.routing(made).durable is said
            assert raw.routing(made).ttl == ttl
    assert raw.routing(encoded(address="q", durable=True)).durable
    assert not raw.routing(encoded(address="q", priority=3)).durable


def test_a_broker_that_is_killed_has_them_still_and_delivers_them_once(tmp_path: Path) -> None:
    words = ("--listen", f"{HOST}:0", "--state", str(tmp_path))

    async def fill(port: int) -> None:
        async with dialled(port) as connection:
            sender = await connection.sender("q")
            for number in range(10):
                await sender.send_acked(durable(number))
                await sender.send_acked(encoded(address="q", body=100 + number))
            await sender.send_acked(durable(10, ttl=0.05))
            first = Inbox(hold=True)
            await connection.receiver("q", first, credit=4, hold=True)
            await eventually(lambda: first.has(4))
            first.deliveries[0].accept()  # the others were under way
            await heard(connection)

    async def drain(port: int, count: int) -> None:
        async with dialled(port) as connection:
            inbox = Inbox()
            await connection.receiver("q", inbox)
            await eventually(lambda: inbox.has(count), 30)
            await (await connection.sender("q")).send_acked(encoded(address="q", body=1))
            await eventually(lambda: inbox.has(count + 1), 30)  # and nothing more
            assert inbox.raw[:count] == [durable(number) for number in range(1, count + 1)]
            await heard(connection)

    with command("mh_amqp.broker_main", *words) as (process, line):
        run(fill(port_of(line)), 120)
        process.kill()
        process.wait(10)
    for count in (9, 0):
        with command("mh_amqp.broker_main", *words) as (_, line):
            run(drain(port_of(line), count), 120)


@pytest.fixture
def limits() -> BrokerLimits:
    return BrokerLimits(sweep=0.05, queue=Bounds(5, 100_000, deliveries=2))


def test_each_way_to_end_is_an_end(tmp_path: Path, limits: BrokerLimits) -> None:
    async def test() -> None:
        store = Kept(tmp_path / STATE)
        broker, listener = await serve(f"{HOST}:0", limits, kept=store)
        sweeping = asyncio.create_task(broker.sweep())
        async with dialled(listener.port) as connection:
            sender, inbox = await connection.sender("q"), Inbox(hold=True)
            await sender.send_acked(durable(1, ttl=0.05))
            await eventually(lambda: broker.counters.expired == 1)
            assert store.count == 0  # too late
            for number in range(3):
                await sender.send_acked(durable(number))
            assert store.count == 3
            receiver = await connection.receiver("q", inbox, credit=3, hold=True)
            await eventually(lambda: inbox.has(3))
            accepted, rejected, released = inbox.deliveries
            accepted.accept()
            rejected.reject("amqp:not-allowed")
            await eventually(lambda: store.count == 1)
            released.release()
            await eventually(lambda: inbox.has(4))
            assert store.count == 1
            inbox.deliveries[3].release()  # too often
            await eventually(lambda: store.count == 0)
            receiver.close()
            # to who takes it as settled
            await sender.send_acked(durable(4))
            assert store.count == 1
            await connection.receiver("q", Inbox(), settled=True)
            await eventually(lambda: store.count == store.size == 0)
        sweeping.cancel()
        await listener.close()
        store.close()

    run(test())


def test_it_is_bounded_and_says_so(
    tmp_path: Path, limits: BrokerLimits, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test() -> None:
        store = Kept(tmp_path / STATE)
        _, listener = await serve(f"{HOST}:0", limits, kept=store)
        async with dialled(listener.port) as connection:
            relay = await connection.sender(None)
            for number in range(5):
                assert (await outcome_of(relay, durable(number))).word is Word.ACCEPTED
            full = await outcome_of(relay, durable(5))
            assert (full.word, full.condition) == (Word.REJECTED, "amqp:resource-limit-exceeded")
            assert store.count == 5
            monkeypatch.setattr(kept, "MAX_MESSAGES", 5)
            other = encoded(address="other", durable=True, body=1)
            assert "kept on disk" in (await outcome_of(relay, other)).description
            assert (await outcome_of(relay, encoded(address="other", body=1))).word is Word.ACCEPTED
        await listener.close()
        store.close()

    run(test())


def test_a_disk_that_fails_refuses_what_is_durable_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")

    async def test() -> None:
        _, listener = await serve(f"{HOST}:0", BrokerLimits(), kept=Kept(tmp_path / "file" / STATE))
        async with dialled(listener.port) as connection:
            relay = await connection.sender(None)
            assert (await outcome_of(relay, durable(1))).word is Word.REJECTED
            assert (await outcome_of(relay, encoded(address="q", body=1))).word is Word.ACCEPTED
        await listener.close()

    run(test())
    assert len([each for each in caplog.records if each.levelno == logging.ERROR]) == 1


def test_a_file_that_is_none_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / STATE).write_text("no database" * 1000)
    store = Kept(tmp_path / STATE)
    assert store.open() == []
    assert store.add("q", b"x", None)
    store.close()
    assert (tmp_path / f"{STATE}.damaged").exists()
    again = Kept(tmp_path / STATE)
    assert [(each.queue, each.raw) for each in again.open()] == [("q", b"x")]
    assert (tmp_path / STATE).stat().st_mode & 0o777 == 0o600
    # another broker does not deliver it as well
    assert Kept(tmp_path / STATE).open() == []
    again.close()


def test_what_is_left_for_a_host_outlives_the_broker_and_runs_once(tmp_path: Path) -> None:
    words = ("--listen", f"{HOST}:0", "--state", str(tmp_path / "broker"))
    asked = Request(TOY, "strike", arguments={"what": "it"})

    async def leave(port: int) -> None:
        line = AmqpLine(await connect(f"amqp://{HOST}:{port}"))
        assert await line.leave(asked, [UUID], Where(), 60.0) == {UUID: None}
        await line.close()

    async def comes(port: int) -> None:
        async with broker_agent(tmp_path / "agent", port) as agent:
            await eventually(lambda: agent.toy.calls["strike"] == 1, 20)
            async with asking(port) as console:  # the broker has heard that it was taken
                await ask(console, request("echo", to=host_address(UUID)), 20)

    async def comes_again(port: int) -> None:
        async with broker_agent(tmp_path / "agent", port) as agent:
            await eventually(
                lambda: [str(each.state) for each in agent.connections.list()] == ["connected"], 30
            )
            async with dialled(port) as connection:
                probe: list[Delivery] = []
                await connection.receiver("q", probe.append)
                await (await connection.sender("q")).send_acked(encoded(address="q", body=1))
                await eventually(lambda: probe, 30)
            assert agent.toy.calls["strike"] == 0

    for work in (leave, comes, comes_again):
        with ExitStack() as stack:
            process, line = stack.enter_context(command("mh_amqp.broker_main", *words))
            run(work(port_of(line)), 120)
            process.kill()
            process.wait(10)


def test_what_comes_while_the_only_one_ends_stays(tmp_path: Path) -> None:
    """It comes back at once to who leaves it to others, again and again."""

    async def test() -> None:
        broker, listener = await serve(f"{HOST}:0", BrokerLimits(), kept=Kept(tmp_path / STATE))
        toy = CountingToy()
        dispatcher = Dispatcher(toys(toy), Context(), roles({"authority": {"*": "operator"}}))
        intake = Intake({"q": Management(dispatcher, "", [TOY])}, shared=True)
        async with dialled(listener.port) as console:
            sender = await console.sender("q")
            async with dialled(listener.port) as conductor:
                receiver = await conductor.receiver("q", lambda _delivery: None, credit=10, hold=True)
                receiver.on_delivery = intake.deliveries(receiver, "q", lambda _: "x", lambda *_: None)
                working = asyncio.create_task(dispatcher.call(Request(TOY, "strike_slowly")))
                await eventually(lambda: toy.calls["strike_slowly"] == 1)
                stopping = asyncio.create_task(intake.stop(60))
                await asyncio.sleep(0)
                await sender.send_acked(messages.encode(request("strike", to="q", body={"what": "it"})))
                await eventually(lambda: broker.counters.returned or broker.counters.spent)
                for _ in range(50):  # there and back
                    await heard(console)
                toy.gate.set()
                await asyncio.gather(working, stopping)
            await eventually(lambda: broker.queues["q"].consumers == [])
            await eventually(lambda: len(broker.queues["q"].waiting) == 1)
            assert broker.counters.spent == 0
            assert broker.counters.delivered < 5
        await listener.close()

    run(test())
