"""Many hosts at once: who is meant, who is asked when, and that every one of them is accounted for."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
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
from libmh.fleet import Hear, Refused, Reply, Way, fan_out
from libmh.outcomes import Account, Host, Known, Plan, Result, Share, State, share, waves
from libmh.selection import Where, received, where
from libmh.spec import Plain, interface_of
from mh_amqp import fleet as amqp_fleet
from mh_amqp.authority import roles
from mh_amqp.casts import Casts, Knowledge, cast_addresses
from mh_amqp.events import Source
from mh_amqp.intake import spread
from mh_amqp.names import host_address, is_private
from mh_amqp.record import FLEET, WHERE
from waiting import eventually

STRIKE = Request(TOY, "strike", Verb.CALL, {"what": "a bell"}, deadline=2.0)
LEVEL = Request(TOY, "level", Verb.GET, deadline=5.0)


def uuid_of(number: int) -> str:
    return f"{number:032x}"


# who is meant


def test_requirements_are_read_as_people_write_them() -> None:
    found = where(["cpu_flags=<in> avx2", "memory=>= 8000000", "hostname = web1"])
    assert found.texts() == ["cpu_flags=<in> avx2", "memory=>= 8000000", "hostname=web1"]
    assert found.fits({"cpu_flags": ["aes", "avx2"], "memory": 8_000_001, "hostname": "web1"})
    assert found.lacking({"cpu_flags": ["aes"], "memory": 9_000_000}) == "cpu_flags lacks 'avx2'"
    assert received(found.text()) == found
    assert received('{"memory": ">= 8000000"}') == where(["memory=>= 8000000"])
    assert Where().fits({})


def test_what_is_not_known_does_not_match() -> None:
    assert not where(["memory=!= 1"]).fits({})


@pytest.mark.parametrize(
    "text", ["memory", "memory=", "=8", "memory=>=8", "memory=> 8", "memory== 8", "a=<in>"]
)
def test_what_could_not_be_meant_is_refused(text: str) -> None:
    with pytest.raises(InvalidArguments, match="where: "):
        where([text])


@pytest.mark.parametrize(
    "text",
    ["", "x", "3", "null", '"a=b"', "[1]", '{"a": 1}', '["a"]', "[" * 9999, '["a=' + "b" * 2000 + '"]'],
)
def test_nonsense_from_the_way_is_refused(text: str) -> None:
    with pytest.raises(InvalidArguments, match=r"where: expected"):
        received(text)


def test_groups_are_named_in_the_configuration() -> None:
    assert cast_addresses({}) == ("mh.hosts",)
    groups = cast_addresses({"fleet": {"groups": ["web", "db-1", "web"]}})
    assert groups == ("mh.hosts", "mh.group.web", "mh.group.db-1")


@pytest.mark.parametrize(
    "table", [{"group": []}, {"groups": "web"}, {"groups": ["a.b"]}, {"groups": [""]}, {"groups": ["*"]}]
)
def test_what_is_no_group_is_refused(table: dict[str, object]) -> None:
    with pytest.raises(InvalidArguments, match=r"\[fleet\]: expected groups"):
        cast_addresses({"fleet": table})


def test_no_answer_goes_where_requests_do() -> None:
    assert is_private("mh.reply.1")
    assert not any(map(is_private, ("mh.hosts", "mh.group.web", "mh.host.x", "mh.report")))


# who is asked when


@pytest.mark.parametrize(
    ("plan", "sizes"),
    [
        (Plan(), [10]),
        (Plan(batch=Share(3)), [3, 3, 3, 1]),
        (Plan(batch=Share(20, percent=True)), [2] * 5),
        (Plan(batch=Share(1, percent=True)), [1] * 10),
        (Plan(canary=2), [2, 8]),
        (Plan(canary=2, batch=Share(50, percent=True)), [2, 5, 3]),
        (Plan(canary=99), [10]),
    ],
)
def test_waves(plan: Plan, sizes: list[int]) -> None:
    hosts = [Host(uuid_of(number)) for number in range(10)]
    found = list(waves(hosts, plan))
    assert [len(each) for each in found] == sizes
    assert [host for wave in found for host in wave] == hosts


def test_shares_are_read() -> None:
    assert share("10%", "batch") == Share(10, percent=True)
    assert share(25, "batch") == Share(25)
    assert (Share(10, percent=True).of(25), Share(10, percent=True).of(1)) == (3, 1)
    assert not Share(5, percent=True).exceeded(1, 20)
    assert Share(5, percent=True).exceeded(2, 20)
    for text in ("", "x", "-1", "101%", "1.5", "5 %"):
        with pytest.raises(InvalidArguments, match="batch: expected"):
            share(text, "batch")
    with pytest.raises(InvalidArguments, match="at least 1"):
        Plan(batch=Share(0))
    with pytest.raises(InvalidArguments, match="canary"):
        Plan(canary=-1)


# the account, over a line of a test's own


@dataclass
class ToyReply:
    host: str
    told: Plain = None
    fault: Problem | None = None

    def problem(self) -> Problem | None:
        return self.fault

    def value(self) -> Plain:
        return self.told


@dataclass
class ToyLine:
    """Hosts that answer as a test says; None is silence, and `there` answers a ping."""

    answers: dict[str, Plain | Problem]
    known: bool = True
    there: Sequence[str] = ()
    jobs: dict[str, Plain] = field(default_factory=dict)
    sent: list[tuple[str, int]] = field(default_factory=list)

    async def select(self, where: Where) -> list[Host] | None:
        return [Host(uuid, f"node{uuid[-1]}") for uuid in self.answers] if self.known else None

    async def cast(self, request: Request, way: Way, hear: Hear) -> None:
        self.sent.append((request.member, 0))
        for uuid in self.answers:
            self._answer(request, uuid, hear)

    async def send(
        self, request: Request, hosts: Sequence[str], way: Way, hear: Hear, refused: Refused
    ) -> None:
        self.sent.append((request.member, len(hosts)))
        for uuid in hosts:
            self._answer(request, uuid, hear)

    def _answer(self, request: Request, uuid: str, hear: Hear) -> None:
        told = self.answers[uuid]
        if request.member == "ping":
            if uuid in self.there:
                hear(ToyReply(uuid))
        elif request.member == "job":
            job = self.jobs.get(uuid)
            hear(ToyReply(uuid, job, None if job else NotFound("not asked")))
        elif isinstance(told, Problem):
            hear(ToyReply(uuid, fault=told))
        elif told is not None:
            hear(ToyReply(uuid, told))

    async def leave(
        self, request: Request, hosts: Sequence[str], where: Where, seconds: float
    ) -> dict[str, Problem | None]:
        raise Unavailable("nothing is left here")

    def forget(self, request: Request) -> None:
        return

    async def close(self) -> None:
        return


def asked(line: ToyLine, plan: Plan | None = None, member: str = "strike") -> tuple[Account, list[Result]]:
    told: list[Result] = []
    given = replace(STRIKE, member=member, deadline=0.2)
    account = asyncio.run(fan_out(line, given, plan or Plan(), told.append))
    return account, told


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MARGIN", "QUIET_SECONDS", "PROBE_SECONDS"):
        monkeypatch.setattr(f"libmh.fleet.{name}", 0.1 if name != "MARGIN" else 1.0)
    monkeypatch.setattr("libmh.fleet.ROLL_PAUSE", 0.3)
    monkeypatch.setattr(amqp_fleet, "SELECT_SECONDS", 0.1)


def test_every_host_is_accounted_for() -> None:
    from libmh.errors import Failed, NotAuthorized

    line = ToyLine(
        {
            uuid_of(1): 1,
            uuid_of(2): Failed("it broke"),
            uuid_of(3): NotAuthorized("you may not"),
            uuid_of(4): None,
            uuid_of(5): None,
        },
        there=[uuid_of(4)],
    )
    account, told = asked(line)
    ends = {uuid[-1]: result.state for uuid, result in account.results.items()}
    assert ends == {
        "1": State.ANSWERED,
        "2": State.FAILED,
        "3": State.DENIED,
        "4": State.TIMED_OUT,
        "5": State.OFFLINE,
    }
    assert account.results[uuid_of(2)].word == "failed"
    assert account.results[uuid_of(2)].message == "it broke"
    assert account.results[uuid_of(1)].value() == 1
    assert {result.hostname for result in told} == {f"node{number}" for number in range(1, 6)}
    assert account.summary() == "1 of 5 answered, 1 failed, 1 denied, 1 timed out, 1 offline"
    assert not account.good
    assert line.sent == [("strike", 0), ("ping", 2), ("job", 1)]
    assert "it may still do it within" in account.results[uuid_of(5)].message


def test_who_is_silent_is_asked_again_only_for_what_may_run_twice() -> None:
    line = ToyLine({uuid_of(1): None})
    asked(line, member="level")
    assert ("level", 1) not in line.sent  # nobody here knows the toy's declaration
    given = Request("org.matahariproject.Host", "hostname", Verb.GET, deadline=0.2)
    asyncio.run(fan_out(line, given, Plan()))
    assert ("hostname", 1) in line.sent


def test_an_answer_that_was_lost_is_looked_up() -> None:
    uuids = [uuid_of(number) for number in range(1, 6)]
    line = ToyLine(dict.fromkeys(uuids), there=uuids)
    line.jobs = {
        uuid_of(1): {"outcome": "done", "result": 7},
        uuid_of(2): {"outcome": "conflict", "message": "it changed"},
        uuid_of(3): {"outcome": "running"},
        uuid_of(4): {"outcome": "interrupted", "message": "the agent ended meanwhile"},
    }
    account, _ = asked(line)
    assert [account.results[uuid].state for uuid in uuids] == [
        State.ANSWERED,
        State.FAILED,
        State.TIMED_OUT,
        State.FAILED,
        State.TIMED_OUT,
    ]
    assert account.results[uuid_of(1)].value() == 7
    assert account.results[uuid_of(2)].word == "conflict"
    assert account.results[uuid_of(3)].message.startswith("it still runs: see job ")
    assert account.results[uuid_of(4)].word == "interrupted"


def test_a_failed_canary_stops_the_rest() -> None:
    from libmh.errors import Failed

    line = ToyLine({uuid_of(1): Failed("no"), uuid_of(2): 1, uuid_of(3): 1, uuid_of(4): 1})
    account, told = asked(line, Plan(canary=2))
    assert line.sent == [("strike", 2)]
    assert account.stopped == "1 of the first 2 canaries did not do it, at most 0 may fail"
    assert [result.state for result in told].count(State.NOT_ASKED) == 2
    assert account.summary() == "1 of 4 answered, 1 failed, 2 not asked"


def test_too_many_failures_stop_the_rest() -> None:
    from libmh.errors import Failed

    answers: dict[str, Plain | Problem] = {
        uuid_of(n): Failed("no") if n in (3, 4, 5) else 1 for n in range(10)
    }
    account, _ = asked(ToyLine(answers), Plan(batch=Share(2), stop_on_fail=Share(30, percent=True)))
    assert account.counts() == {State.ANSWERED: 3, State.FAILED: 3, State.NOT_ASKED: 4}
    assert account.stopped.startswith("3 of the first 6 hosts")
    account, _ = asked(ToyLine(answers), Plan(batch=Share(2), stop_on_fail=Share(3)))
    assert account.counts() == {State.ANSWERED: 7, State.FAILED: 3}
    assert account.stopped == ""


def test_without_a_conductor_the_roll_is_called() -> None:
    line = ToyLine({uuid_of(1): 1, uuid_of(2): 1}, known=False)
    account, _ = asked(line)
    assert account.known is Known.ROLL_CALL
    assert line.sent == [("hostname", 0), ("strike", 0)]
    assert account.good


def test_no_host_is_meant() -> None:
    with pytest.raises(NotFound, match="no host that is known"):
        asked(ToyLine({}, known=True))


def test_who_answers_unexpected_is_expected_since() -> None:
    line = ToyLine({uuid_of(1): 1})

    async def one_knows(where: Where) -> list[Host]:
        return [Host(uuid_of(2), "other")]

    line.select = one_knows  # type: ignore[method-assign]
    line.there = [uuid_of(2)]
    line.answers = {uuid_of(1): 1, uuid_of(2): 2}
    account, _ = asked(line)
    assert account.unexpected == 1
    assert account.summary() == "2 of 2 answered"


# agents at a broker


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
            assert time.monotonic() - began < 10
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
