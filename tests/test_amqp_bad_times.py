"""Bad times, one by one: what is lost comes back by itself, nothing runs twice, who is in trouble is told.

With all hosts and rounds, which takes some minutes:

    .venv/bin/pytest -m slow tests/test_amqp_bad_times.py
"""

import asyncio
import bisect
import logging
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from amqp_peers import HOST, Wire, dialled
from amqp_serving import (
    SOURCE,
    UUID,
    BrokerAgent,
    CountingToy,
    ask,
    asking,
    broker_agent,
    command,
    port_of,
    request,
    run,
    running_broker,
    value,
)
from libmh.errors import InvalidArguments
from libmh.spec import Plain
from mh_amqp import codec, messages, srv, upkeep
from mh_amqp.asking import Asker
from mh_amqp.broker import Broker
from mh_amqp.connection import Connection
from mh_amqp.engine import Delivery
from mh_amqp.messages import Message
from mh_amqp.names import Place, host_address
from mh_amqp.status import problem_of
from mh_amqp.upkeep import Pace
from test_amqp_srv import names
from testbed.child import child
from waiting import eventually

TO = host_address(UUID)
QUICK = Pace(first=0.05, most=0.2)
BACK_SECONDS = 60
DOWN_SECONDS = 2.0
MOST_AT_ONCE = 0.75
"""Of all hosts, those that come back within any one second."""


def states(agent: BrokerAgent) -> list[str]:
    return [each.state for each in agent.connections.list()]


async def connected(agent: BrokerAgent, seconds: float = 10) -> None:
    await eventually(lambda: states(agent) == ["connected"], seconds)


async def struck(console: Asker, seconds: float = 5.0) -> int:
    found = value(await ask(console, request("strike", to=TO, body={"what": "it"}, ttl=5000), seconds))
    return int(found["count"])


# the broker dies


@contextmanager
def simulated(hosts: int, url: str, state: Path, *more: str) -> Iterator["subprocess.Popen[str]"]:
    """So many hosts in another process, all of them connected once."""
    words = ("--hosts", str(hosts), "--broker", url, "--state", str(state), "--log-level", "error", *more)
    simulator = [sys.executable, "-m", "libmh.testing.simulate", *words]
    with child(simulator, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready: ")
        yield process


def busiest_second(times: Sequence[float]) -> int:
    """The most that came within any one second."""
    ordered = sorted(times)
    return max(bisect.bisect(ordered, since + 1.0) - at for at, since in enumerate(ordered))


@pytest.mark.parametrize("hosts", [100, pytest.param(1000, marks=pytest.mark.slow)])
def test_all_come_back_to_a_broker_that_was_killed_and_not_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hosts: int
) -> None:
    came: dict[str, float] = {}
    opened = Broker.opened

    def noting(broker: Broker, connection: Connection) -> None:
        came[connection.remote_container] = time.monotonic()
        opened(broker, connection)

    monkeypatch.setattr(Broker, "opened", noting)
    with ExitStack() as stack:
        words = ("--listen", f"{HOST}:0", "--state", str(tmp_path / "broker"))
        first, line = stack.enter_context(command("mh_amqp.broker_main", *words))
        port = port_of(line)
        stack.enter_context(simulated(hosts, f"amqp://{HOST}:{port}", tmp_path / "hosts"))
        first.kill()
        first.wait(5)
        killed = time.monotonic()

        async def test() -> None:
            await asyncio.sleep(DOWN_SECONDS)
            async with running_broker(port):
                await eventually(lambda: len(came) == hosts, BACK_SECONDS)

        run(test(), BACK_SECONDS + 10)
    took = max(came.values()) - killed
    busiest = busiest_second(list(came.values()))
    print(f"{hosts} hosts: all back after {took:.1f} s, at most {busiest} within a second")
    assert took <= BACK_SECONDS
    assert busiest <= hosts * MOST_AT_ONCE


# the network


def test_a_cable_that_was_pulled_is_noticed_and_what_waited_comes_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "IDLE_SECONDS", 0.4)
    monkeypatch.setattr(upkeep, "DIAL_SECONDS", 0.4)

    async def test() -> None:
        async with (
            running_broker() as (_, port),
            Wire(port) as wire,
            broker_agent(tmp_path, wire.port, pace=QUICK) as agent,
            asking(port) as console,
        ):
            await connected(agent)
            assert await struck(console) == 1
            wire.pull()
            await eventually(lambda: states(agent) != ["connected"], 10)
            waits = asyncio.create_task(struck(console, 10))
            await asyncio.sleep(0.2)
            wire.heal()
            assert await waits == 2
            assert agent.toy.calls["strike"] == 2

    run(test(), 30)


def test_a_path_on_which_packets_vanish_is_left_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "IDLE_SECONDS", 0.4)

    async def test() -> None:
        async with (
            running_broker() as (broker, port),
            Wire(port) as wire,
            broker_agent(tmp_path, wire.port, pace=QUICK) as agent,
            asking(port) as console,
        ):
            await connected(agent)
            assert await struck(console) == 1
            wire.strand()
            # the broker still believes in the old connection, and nothing goes there any more
            await eventually(lambda: len(broker.queues[TO].consumers) == 1 and agent.connections, 5)
            await eventually(lambda: agent.connections.list()[0].last_error, 10)
            await connected(agent)
            assert await struck(console) == 2

    run(test(), 30)


def test_names_that_are_dead_at_the_start_and_a_broker_that_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(srv, "LOOKUP_SECONDS", 0.3)
    zone: dict[str, list[str]] = {}
    record = "_amqp._tcp.localhost."

    async def test() -> None:
        async with (
            names(zone) as (server, servers),
            AsyncExitStack() as first,
            running_broker() as (_, other),
        ):

            async def looked_up(where: Place) -> list[Place]:
                return await srv.targets(where, servers)

            monkeypatch.setattr(upkeep, "targets", looked_up)
            _, port = await first.enter_async_context(running_broker())
            domain = "amqp+srv://localhost"
            async with broker_agent(tmp_path, 0, url=domain, pace=QUICK) as agent:
                await eventually(lambda: len(server.asked) > 4)
                assert "no broker is known" in str(agent.connections.list()[0].last_error)
                zone[record] = [f"0 0 {port} localhost."]
                await connected(agent)
                async with asking(port) as console:
                    assert await struck(console) == 1
                zone[record] = [f"0 0 {other} localhost."]
                await first.aclose()
                await connected(agent)
                async with asking(other) as console:
                    assert await struck(console) == 2

    run(test(), 40)


# those who are slow, and what is too much


def test_a_receiver_that_does_not_read_stops_nobody(tmp_path: Path) -> None:
    count, size = 3000, 10_000

    async def test() -> None:
        heard = 0

        def hear(delivery: Delivery) -> None:
            nonlocal heard
            heard += 1
            delivery.accept()

        async with (
            running_broker() as (broker, port),
            dialled(port, container="slow") as slow,
            dialled(port, container="quick") as quick,
            dialled(port, container="source") as source,
        ):
            await slow.receiver("mh.event.#", lambda _delivery: None, credit=count, hold=True)
            await quick.receiver("mh.event.#", hear, credit=500)
            deaf(slow)
            sender = await source.sender("mh.event.x.y")
            raw = messages.encode(Message(to="mh.event.x.y", data=b"x" * size))
            for _ in range(count // 100):
                for _ in range(100):
                    sender.send(raw)
                await eventually(lambda: not sender.waiting and not sender.unsettled, 10)
            await eventually(lambda: heard == count, 10)
            # what waits for the slow one is bounded, and it is let go where that does not do
            assert broker.counters.bytes <= broker.limits.private.size + size

    run(test(), 60)


def deaf(connection: Connection) -> None:
    """From now on it reads nothing from its socket."""
    assert connection.pump._socket is not None
    connection.pump._socket.pause_reading()


def hearing(connection: Connection) -> None:
    assert connection.pump._socket is not None
    connection.pump._socket.resume_reading()


def test_ten_thousand_replies_at_once_are_all_heard() -> None:
    count = 10_000

    async def test() -> None:
        heard: set[int] = set()
        async with running_broker() as (broker, port), asking(port) as console, dialled(port) as hosts:
            assert console.receiver is not None
            key, to = codec.string("one question to all"), console.receiver.address or ""
            console.hearing[key] = lambda came: heard.add(came.number("mh:number") or 0)
            deaf(console.connection)
            sender = await hosts.sender(None)
            for number in range(count):
                reply = Message(to=to, correlation_id=key, properties={"mh:number": number + 1}, data=b"{}")
                sender.send(messages.encode(reply), settled=True)
            await eventually(lambda: broker.counters.received == count, 20)
            hearing(console.connection)
            await eventually(lambda: len(heard) == count, 20)
            assert broker.counters.dropped == 0

    run(test(), 60)


class Verbose(CountingToy):
    """Has more to say than is carried."""

    def echo(self, value: Plain = None) -> Plain:
        return ["x" * 60_000] * 400


def test_a_reply_of_twenty_megabytes_is_refused_and_nothing_hangs(tmp_path: Path) -> None:
    async def test() -> None:
        async with (
            running_broker() as (_, port),
            broker_agent(tmp_path, port, toy=Verbose()) as agent,
            asking(port) as console,
        ):
            await connected(agent)
            reply = await ask(console, request("echo", to=TO), 10)
            problem = problem_of(reply)
            assert isinstance(problem, InvalidArguments)
            assert "at most" in problem.message
            assert await struck(console) == 1

    run(test(), 40)


def test_a_request_of_twenty_megabytes_is_refused_and_nothing_hangs(tmp_path: Path) -> None:
    async def test() -> None:
        async with running_broker() as (_, port), broker_agent(tmp_path, port) as agent:
            await connected(agent)
            async with asking(port) as console:
                with pytest.raises(InvalidArguments, match="the peer takes at most"):
                    await ask(console, request("echo", to=TO, body={"value": "x" * (20 << 20)}), 10)
                assert await struck(console) == 1

    run(test(), 40)


# requests that come twice, late, or in another order


def test_copies_in_any_order_run_once_and_what_has_expired_never(tmp_path: Path) -> None:
    chance = random.Random(1)
    hour = 3600

    async def test() -> None:
        async with running_broker() as (_, port), broker_agent(tmp_path, port) as agent:
            await connected(agent)
            async with asking(port) as console:
                assert console.receiver is not None
                expiry = int((time.time() + 30) * 1000)
                live = [
                    replace(
                        request("strike", to=TO, body={"what": str(number)}, ttl=30_000),
                        reply_to=console.receiver.address,
                        expiry=expiry,
                    )
                    for number in range(60)
                ]
                # by a clock that is an hour behind
                late = [
                    replace(
                        request("strike", to=TO, body={"what": "late"}),
                        reply_to=console.receiver.address,
                        expiry=expiry - hour * 1000,
                    )
                    for _ in range(20)
                ]
                copies = [*live * 3, *late]
                chance.shuffle(copies)
                for each in copies:
                    await console.post.carry(TO, messages.encode(each), lambda _came: None)
                counts = [value(await console.ask(each, 10))["count"] for each in live]
                assert sorted(counts) == list(range(1, 61))
                assert agent.toy.calls["strike"] == 60
                # replayed by somebody else
                async with asking(port, "replaying") as other:
                    again = replace(live[0], reply_to=other.receiver.address if other.receiver else None)
                    assert value(await other.ask(again, 10))["count"] == counts[0]
                assert agent.toy.calls["strike"] == 60

    run(test(), 40)


# two of one name


def told_of_a_twin(agent: BrokerAgent) -> bool:
    return "another host of this UUID" in str(agent.connections.list()[0].last_error)


def test_two_agents_with_one_uuid_are_told_of_each_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        async with running_broker() as (broker, port), broker_agent(tmp_path / "a", port, pace=QUICK) as one:
            await connected(one)
            twin = replace(SOURCE, hostname="twin", boot_id="boot-2")
            async with broker_agent(tmp_path / "b", port, source=twin, pace=QUICK) as other:
                for agent in (one, other):
                    await eventually(partial(told_of_a_twin, agent), 10)
                assert len(broker.queues[TO].consumers) <= 1
            await connected(one)
            async with asking(port) as console:
                assert await struck(console) == 1
                assert one.toy.calls["strike"] == 1

    with caplog.at_level(logging.WARNING, "mh_amqp.broker"):
        run(test(), 40)
    said = [record.getMessage() for record in caplog.records if record.name == "mh_amqp.broker"]
    assert any("two hosts with one UUID" in each and each.count(HOST) == 2 for each in said)


# kill -9


SCRIPT = Path(__file__).with_name("striking.py")
ASKED = 4000
"""More than are asked before somebody dies."""


def script(stack: ExitStack, *words: str) -> "subprocess.Popen[str]":
    spoken = subprocess.PIPE if words[0] == "console" else subprocess.DEVNULL
    return stack.enter_context(child([sys.executable, str(SCRIPT), *words], stdout=spoken))


def one_dies(victim: str, turn: int, state: Path, chance: random.Random) -> int:
    """A console asks without pause, somebody is killed and started again; how many were answered."""
    with ExitStack() as stack:
        listen = ("mh_amqp.broker_main", "--state", str(state / "broker"), "--listen")
        broker, line = stack.enter_context(command(*listen, f"{HOST}:0"))
        port = str(port_of(line))
        host = script(stack, "host", port, str(state))
        console = script(stack, "console", port, f"{victim}{turn}", str(ASKED))
        assert console.stdout is not None
        assert console.stdout.readline()  # they are under way
        threading.Event().wait(chance.uniform(0.0, 0.3))
        dies = {"broker": broker, "host": host, "console": console}[victim]
        dies.kill()
        dies.wait(5)
        if victim == "broker":
            stack.enter_context(command(*listen, f"{HOST}:{port}"))
        elif victim == "host":
            script(stack, "host", port, str(state))
        another = script(stack, "console", port, f"after-{victim}{turn}", "20")
        assert another.stdout is not None
        return len(another.stdout.read().split())


@pytest.mark.parametrize(
    ("victim", "turns"),
    [
        *((victim, 1) for victim in ("host", "console", "broker")),
        *(pytest.param(victim, 25, marks=pytest.mark.slow) for victim in ("host", "console", "broker")),
    ],
)
def test_nothing_runs_twice_whoever_is_killed(tmp_path: Path, victim: str, turns: int) -> None:
    chance = random.Random(victim)
    for turn in range(turns):
        assert one_dies(victim, turn, tmp_path, chance) == 20
    ran = Counter((tmp_path / "ran").read_text().split())
    assert len(ran) > 20 * turns
    assert [what for what, times in ran.items() if times > 1] == []
