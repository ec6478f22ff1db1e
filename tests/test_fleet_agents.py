"""Agents at a broker that are asked together: who answers, who stays silent, and that nothing runs twice."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amqp_serving import (
    HOST,
    TOY,
    BrokerAgent,
    CountingToy,
    Toy,
    ask,
    asking,
    broker_agent,
    code,
    request,
    run,
    running_broker,
)
from libmh.call import Request, Verb
from libmh.capability import Reporter
from libmh.context import Settings
from libmh.errors import InvalidArguments, NotFound, Problem, Unavailable
from libmh.fleet import Reply, Way, fan_out
from libmh.outcomes import Host, Known, Plan, Share, State
from libmh.selection import Where, where
from libmh.spec import Plain, interface_of
from mh_amqp import fleet as amqp_fleet
from mh_amqp.authority import roles
from mh_amqp.casts import Casts, Knowledge
from mh_amqp.events import Source
from mh_amqp.intake import spread
from mh_amqp.names import host_address
from mh_amqp.record import FLEET, WHERE
from waiting import eventually

STRIKE = Request(TOY, "strike", Verb.CALL, {"what": "a bell"}, deadline=2.0)
LEVEL = Request(TOY, "level", Verb.GET, deadline=5.0)


def uuid_of(number: int) -> str:
    return f"{number:032x}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MARGIN", "QUIET_SECONDS", "PROBE_SECONDS"):
        monkeypatch.setattr(f"libmh.fleet.{name}", 0.1 if name != "MARGIN" else 1.0)
    monkeypatch.setattr("libmh.fleet.ROLL_PAUSE", 0.3)
    monkeypatch.setattr(amqp_fleet, "SELECT_SECONDS", 0.1)


@asynccontextmanager
async def fleet_of(
    state: Path, count: int, **differences: Any
) -> AsyncIterator[tuple[amqp_fleet.AmqpLine, list[BrokerAgent], Any]]:
    """Toys 1 to `count` at a broker in this process, and a line to them."""
    async with AsyncExitStack() as stack:
        _, port = await stack.enter_async_context(running_broker())
        agents = [
            await stack.enter_async_context(
                broker_agent(
                    state / str(number),
                    port,
                    toy=CountingToy(),
                    source=Source(uuid_of(number), f"node{number}", "boot"),
                    **differences.get(f"host{number}", {}),
                )
            )
            for number in range(1, count + 1)
        ]
        await eventually(lambda: all(map(is_connected, agents)), 30)
        line = await amqp_fleet.connect(f"amqp://{HOST}:{port}")
        try:
            yield line, agents, port
        finally:
            await line.close()


def is_connected(agent: BrokerAgent) -> bool:
    return [str(each.state) for each in agent.connections.list()] == ["connected"]


def known_to(line: amqp_fleet.AmqpLine, *uuids: str) -> amqp_fleet.AmqpLine:
    """A conductor knows these."""

    async def select(_where: Where) -> list[Host]:
        return [Host(uuid, f"node{int(uuid, 16)}") for uuid in uuids]

    line.select = select  # type: ignore[method-assign,assignment]
    return line


def test_all_answer_one_request(tmp_path: Path) -> None:
    async def test() -> None:
        async with fleet_of(tmp_path, 5) as (line, agents, _):
            account = await fan_out(line, STRIKE, Plan())
            assert account.known is Known.ROLL_CALL
            assert account.summary() == "5 of 5 answered"
            assert [agent.toy.calls["strike"] for agent in agents] == [1] * 5
            assert {result.value() for result in account.results.values()} == {1}

    run(test())


def test_only_those_that_match_answer(tmp_path: Path) -> None:
    async def test() -> None:
        async with fleet_of(tmp_path, 4) as (line, agents, _):
            plan = Plan(where(["hostname=<or> node2 <or> node4"]))
            account = await fan_out(line, STRIKE, plan)
            assert sorted(account.results) == [uuid_of(2), uuid_of(4)]
            assert [agent.toy.calls["strike"] for agent in agents] == [0, 1, 0, 1]
            with pytest.raises(NotFound):
                await fan_out(line, STRIKE, Plan(where(["memory=>= 1"])))
            # also one by one, when the conductor's inventory is not what the host knows of itself
            known_to(line, uuid_of(1), uuid_of(2))
            account = await fan_out(line, STRIKE, Plan(where(["hostname=node2"]), batch=Share(1)))
            assert [agent.toy.calls["strike"] for agent in agents] == [0, 2, 0, 1]
            assert (
                account.results[uuid_of(1)].state is State.OFFLINE
                or account.results[uuid_of(1)].state is State.TIMED_OUT
            )

    run(test())


def test_failed_denied_and_offline_are_told_apart(tmp_path: Path) -> None:
    async def test() -> None:
        refusing = {"authority": roles({"authority": {"*": "none"}})}
        async with fleet_of(tmp_path, 3, host2=refusing) as (line, agents, _):
            agents[2].toy.strike = None  # type: ignore[assignment,method-assign]  # raises within
            known_to(line, *map(uuid_of, range(1, 5)))
            account = await fan_out(line, STRIKE, Plan())
            ends = {int(uuid, 16): result.state for uuid, result in account.results.items()}
            assert ends == {1: State.ANSWERED, 2: State.DENIED, 3: State.FAILED, 4: State.OFFLINE}
            assert account.results[uuid_of(3)].word == "internal"

    run(test())


def test_one_that_is_slow_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    async def test() -> None:
        async with fleet_of(tmp_path, 2) as (line, agents, _):
            agents[0].toy.gate.set()
            known_to(line, uuid_of(1), uuid_of(2), uuid_of(9))
            waiting = Request(TOY, "wait", Verb.CALL, {}, deadline=30.0)
            began = time.monotonic()
            working = asyncio.ensure_future(fan_out(line, replace(waiting, deadline=0.5), Plan()))
            account = await working
            assert time.monotonic() - began < 25
            ends = {int(uuid, 16): result for uuid, result in account.results.items()}
            assert ends[1].state is State.ANSWERED
            assert (ends[2].state, ends[2].word) == (State.FAILED, "timeout")
            assert ends[9].state is State.OFFLINE

    run(test())


def test_a_cast_that_comes_twice_runs_once(tmp_path: Path) -> None:
    async def test() -> None:
        async with fleet_of(tmp_path, 3) as (line, agents, _):
            heard: list[str] = []

            def came(reply: Reply) -> None:
                heard.append(reply.host)

            way = Way(5.0, 3, where(["hostname=<or> node1 <or> node2"]))
            await line.cast(STRIKE, way, came)
            await line.cast(STRIKE, way, came)
            await line.send(STRIKE, [uuid_of(1), uuid_of(3)], way, came, lambda _uuid, _problem: None)
            await eventually(lambda: len(heard) == 5)
            assert sorted(heard) == [uuid_of(1)] * 3 + [uuid_of(2)] * 2
            assert [agent.toy.calls["strike"] for agent in agents] == [1, 1, 0]

    run(test())


def test_a_console_that_lost_its_connection_asks_again_and_nothing_runs_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libmh.fleet.find_interface", lambda _name: interface_of(Toy))

    async def test() -> None:
        async with fleet_of(tmp_path, 3) as (line, agents, _):
            known_to(line, *map(uuid_of, range(1, 4)))
            asked = Request(TOY, "wait", Verb.CALL, {}, deadline=5.0)
            working = asyncio.ensure_future(fan_out(line, asked, Plan()))
            # in one process reads of one kind take turns
            await eventually(lambda: sum(agent.toy.calls["wait"] for agent in agents) == 1)
            made = await line._transport.open(1.0)
            made.connection.abort()
            await eventually(lambda: sum(agent.served.intake.record.repeated for agent in agents) == 3)
            for agent in agents:
                agent.toy.gate.set()
            account = await working
            assert account.summary() == "3 of 3 answered"
            assert [agent.toy.calls["wait"] for agent in agents] == [1, 1, 1]

    run(test())


def test_an_expired_cast_is_not_run(tmp_path: Path) -> None:
    async def test() -> None:
        async with fleet_of(tmp_path, 1) as (_, agents, port), asking(port) as console:
            past = request(
                "strike",
                body={"what": "x"},
                to="mh.hosts",
                expiry=int(time.time() * 1000) - 1,
                mh_where="[]",
            )
            with pytest.raises(Problem):
                await ask(console, past, 0.5)
            assert agents[0].toy.calls["strike"] == 0
            again = request("strike", body={"what": "x"}, to="mh.hosts", mh_where="[]", ttl=5000)
            assert code(await ask(console, again)) == 200

    run(test())


@pytest.mark.parametrize("said", ["x", "[1]", '["hostname=other"]', 7])
def test_what_is_not_for_this_host_is_not_answered(tmp_path: Path, said: Plain) -> None:
    async def test() -> None:
        async with fleet_of(tmp_path, 1) as (_, agents, port), asking(port) as console:
            for to in ("mh.hosts", host_address(uuid_of(1))):
                given = request("strike", body={"what": "x"}, to=to, properties={WHERE: said, FLEET: 1})
                with pytest.raises(Problem):
                    await ask(console, given, 0.3)
            assert agents[0].toy.calls["strike"] == 0

    run(test())


def test_three_hundred_hosts_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("libmh.fleet.QUIET_SECONDS", 5.0)

    async def test() -> None:
        async with fleet_of(tmp_path, 300) as (line, agents, _):
            known_to(line, *(uuid_of(number) for number in range(1, 301)))
            for _ in range(3):
                account = await fan_out(
                    line, replace(STRIKE, id=f"{time.time_ns():032x}", deadline=20.0), Plan()
                )
                assert account.summary() == "300 of 300 answered"
            assert {agent.toy.calls["strike"] for agent in agents} == {3}
            account = await fan_out(line, replace(LEVEL, deadline=20.0), Plan(batch=Share(25, percent=True)))
            assert account.summary() == "300 of 300 answered"

    run(test(), 120)


def test_a_fleet_is_not_one_host(tmp_path: Path) -> None:
    from amqp_serving import direct_agent

    async def test() -> None:
        async with direct_agent(tmp_path) as agent:
            with pytest.raises(InvalidArguments, match="is one host"):
                await amqp_fleet.connect(agent.url)

    run(test())


# what a host knows of itself


class Machine:
    """Facts that are counted."""

    def __init__(self) -> None:
        self.asked = 0
        self.broken = False

    def facts(self) -> dict[str, Any]:
        from fleet import fact

        self.asked += 1
        if self.broken:
            raise Unavailable("not now")
        told: dict[str, Plain] = {"uuid": uuid_of(1), "hostname": "one", "boot_id": "b", "memory": 4_000_000}
        return {name: fact(value) for name, value in told.items()}


def test_facts_are_not_collected_for_each_request(tmp_path: Path) -> None:
    async def test() -> None:
        machine = Machine()
        reporter = Reporter(machine, Settings(tmp_path / "settings.json"))
        casts = Casts("mh.host.x", Knowledge(Source(uuid_of(1), "one", "b"), reporter))
        ran: list[str] = []

        def judge(text: str) -> None:
            said = request("strike", properties={WHERE: where([text]).text()})
            casts.judge(said, lambda: ran.append(text), lambda: ran.append(""))

        for _ in range(5):
            judge("memory=>= 4000000")
        await eventually(lambda: len(ran) == 5)
        assert machine.asked == 1
        judge("memory=>= 5000000")
        assert ran == ["memory=>= 4000000"] * 5 + [""]
        reporter.report()
        judge("hostname=one")
        assert machine.asked == 2
        reporter.surveyed -= 10_000
        machine.broken = True
        judge("memory=>= 1")  # what was known last still counts
        await eventually(lambda: len(ran) == 8)
        assert ran[-2:] == ["hostname=one", "memory=>= 1"]
        assert casts.counters.passed == 1

    run(test())


def test_a_host_without_facts_is_not_meant(tmp_path: Path) -> None:
    async def test() -> None:
        machine = Machine()
        machine.broken = True
        casts = Casts("x", Knowledge(Source("1", "one"), Reporter(machine, Settings(tmp_path / "s.json"))))
        passed: list[bool] = []
        said = request("strike", properties={WHERE: where(["memory=>= 1"]).text()})
        casts.judge(said, lambda: passed.append(False), lambda: passed.append(True))
        await eventually(lambda: passed == [True])
        assert casts.counters.unclear == 1

    run(test())


def test_answers_of_a_large_fleet_are_spread() -> None:
    async def test() -> None:
        sent: list[float] = []
        loop = asyncio.get_running_loop()
        began = loop.time()
        spread(lambda _to, _raw: sent.append(0.0), 5)("x", b"")
        assert sent == [0.0]
        later = spread(lambda _to, _raw: sent.append(loop.time() - began), 2000)
        for _ in range(100):
            later("x", b"")
        assert len(sent) == 1
        await eventually(lambda: len(sent) == 101)
        assert max(sent) < 1.0
        assert max(sent) - sorted(sent)[1] > 0.05

        def gone(_to: str, _raw: bytes) -> None:
            raise Unavailable("the connection has gone")

        spread(gone, 100)("x", b"")
        await asyncio.sleep(0.05)

    run(test())
