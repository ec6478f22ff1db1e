"""Many hosts at once: who is meant, who is asked when, and that every one of them is accounted for."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import pytest

from amqp_serving import (
    TOY,
)
from libmh.call import Request, Verb
from libmh.errors import InvalidArguments, NotFound, Problem, Unavailable
from libmh.fleet import Hear, Refused, Way, fan_out
from libmh.outcomes import Account, Host, Known, Plan, Result, Share, State, share, waves
from libmh.selection import Where, received, where
from libmh.spec import Plain
from mh_amqp import fleet as amqp_fleet
from mh_amqp.casts import cast_addresses
from mh_amqp.names import is_private

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
