"""Who may use which addresses of the embedded broker, and that nobody speaks for a host that he is not."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from amqp_peers import HOST, encoded
from amqp_serving import SOURCE, TOY, CountingToy, ask, code, request, toys, value
from amqp_serving import process as process_of
from audited import Lines, audited
from certificates import Authority, authority
from libmh import watched
from libmh.api.aggregates import Accepted, CapabilityReport, Reports
from libmh.call import Bound
from libmh.caller import Caller, asking
from libmh.capability import Reporter
from libmh.connections import Connections
from libmh.context import Context, Settings
from libmh.dispatch import Dispatcher
from libmh.errors import Conflict, InvalidArguments, NotAuthorized
from libmh.spec import interface_of
from mh_amqp import access as rules
from mh_amqp import codec, messages
from mh_amqp.access import Access, Way, access_of, rules_of
from mh_amqp.asking import Asker, asker
from mh_amqp.authority import roles
from mh_amqp.broker import Broker, BrokerLimits
from mh_amqp.broker_main import gate_of, serve
from mh_amqp.broker_node import Node
from mh_amqp.connection import Connection
from mh_amqp.engine import Delivery, Door, Login, Outcome, Sender, Word, dial
from mh_amqp.gate import Gate
from mh_amqp.limits import Limits
from mh_amqp.names import MANAGEMENT, REPORT, host_address
from mh_amqp.reports import Pace, Sending
from mh_amqp.security import EXTERNAL
from mh_amqp.server import Serving, serving
from mh_amqp.tls import Tls
from mh_amqp.users import Users
from test_amqp_engine import run
from test_amqp_reports import Machine, at_boot
from waiting import eventually

ONE, OTHER = "1" * 32, "2" * 32
SHORT = Limits(handshake=5.0, closing=0.2)
ROLES = {
    "CN=agent-*": "host",
    "CN=console": "console",
    "CN=conductor": "conductor",
    "CN=chief": "operator",
}


# the rules alone


def judged(config: Mapping[str, Any], identity: str, way: str, address: str) -> bool:
    return Access(rules_of(config)).judge(identity, Way(way), address).allowed


@pytest.mark.parametrize(
    ("role", "sends", "receives"),
    [
        (
            "host",
            {"mh.report", "mh.conductor", "mh.event.org.x.Y.z", "mh.reply.1"},
            {"mh.hosts", "mh.group.web", "mh.host.free", "mh.reply.1"},
        ),
        (
            "console",
            {"mh.host.free", "mh.hosts", "mh.group.web", "mh.conductor", "mh.reply.1"},
            {"mh.event.org.x.Y.z", "mh.event.#", "mh.event.*.z", "mh.reply.1"},
        ),
        (
            "conductor",
            {"mh.host.free", "mh.hosts", "mh.group.web", "mh.conductor", "mh.event.org.x.Y.z", "mh.reply.1"},
            {"mh.report", "mh.conductor", "mh.event.org.x.Y.z", "mh.event.#", "mh.event.*.z", "mh.reply.1"},
        ),
        ("none", set(), set()),
    ],
)
def test_what_the_roles_may(role: str, sends: set[str], receives: set[str]) -> None:
    config = {"access": {"x": role}}
    addresses = {
        *("mh.report", "mh.conductor", "mh.hosts", "mh.group.web", "mh.host.free", "mh.reply.1", "other"),
        *("mh.event.org.x.Y.z", "mh.event.#", "mh.event.*.z"),
    }
    assert {each for each in addresses if judged(config, "x", "receive", each)} == receives
    plain = {each for each in addresses if "#" not in each and "*" not in each}
    assert {each for each in plain if judged(config, "x", "send", each)} == sends
    assert not judged(config, "somebody else", "send", "mh.reply.1")
    assert judged({"access": {"x": "operator"}}, "x", "send", "other")


def test_a_host_speaks_for_no_conductor() -> None:
    address = "mh.event.org.matahariproject.Aggregates.host_changed"
    assert not judged({"access": {"x": "host"}}, "x", "send", address)
    assert judged({"access": {"x": "conductor"}}, "x", "send", address)


@pytest.mark.parametrize(
    ("address", "may"),
    [
        ("mh.event.a.b", True),
        ("mh.event.a.secret", False),
        ("mh.event.#", False),  # some of it is denied
        ("mh.event.*.secret", False),
        ("mh.event.b.#", True),
        ("mh.event.b.*.c", True),
        ("mh.event.c.#", False),  # some of it may be
        ("mh.event.c.*.d", False),
        ("other.x", True),
        ("other.y", False),
    ],
)
def test_a_pattern_may_bring_nothing_that_is_denied(address: str, *, may: bool) -> None:
    table = {
        "rules": [
            {"deny": ["mh.event.a.s*", "mh.event.c.{host}.d"], "to": "receive"},
            {"allow": ["mh.event.*", "other.x"], "to": "receive"},
        ]
    }
    config = {"access": {"x": "mine"}, "addresses": {"mine": table}}
    assert judged(config, "x", "receive", address) is may
    assert not judged(config, "x", "send", "mh.event.a.b")


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rules, "MAX_KNOWN", 10)
    found = Access(rules_of({"access": {"x": "operator"}}))
    for number in range(25):
        assert found.judge("x", Way.SEND, f"q{number}").allowed
        assert found.judge("x", Way.SEND, f"q{number}" + "\U0001f600" * 1000).allowed
        assert len(found._known) <= 10
    assert max(len(address) for _, _, address in found._known) < 10


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"access": {"x": "king"}}, "expected one of none, host"),
        ({"addresses": {"host": {"rules": []}}}, "built in"),
        ({"addresses": {"a": {}}}, "expected rules"),
        ({"addresses": {"a": {"rules": [{"allow": "x", "deny": "y"}]}}}, "one of allow, deny and use"),
        ({"addresses": {"a": {"rules": [{"allow": 3}]}}}, "expected a pattern"),
        ({"addresses": {"a": {"rules": [{"allow": "x", "too": "send"}]}}}, "there is no 'too'"),
        ({"addresses": {"a": {"rules": [{"allow": "x", "to": "listen"}]}}}, "send or receive"),
        ({"addresses": {"a": {"rules": [{"allow": "mh.*.{host}"}]}}}, "mean themselves"),
        ({"addresses": {"a": {"rules": [{"use": "a"}]}}}, "another role"),
        ({"hosts": {"x": []}}, "expected the UUID"),
    ],
)
def test_a_mistake_is_named(config: Mapping[str, Any], why: str) -> None:
    with pytest.raises(InvalidArguments, match=why):
        rules_of(config)


def test_rules_that_change_are_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watched, "LOOK_SECONDS", 0.0)
    file = tmp_path / "broker.toml"
    file.write_text('[access]\n"x" = "console"\n')
    found = access_of({"access": {"x": "console"}}, str(file), tmp_path)
    assert found.judge("x", Way.SEND, "mh.hosts").allowed
    file.write_text(f'[access]\n"x" = "host"\n[hosts]\n"x" = "{ONE}"\n')
    assert not found.judge("x", Way.SEND, "mh.hosts").allowed
    assert not found.judge("x", Way.RECEIVE, host_address(OTHER)).allowed
    for unusable in ("what is this", "", "\n"):  # as it is for a moment when it is written
        file.write_text(unusable)
        os.utime(file, (1, 1))
        assert found.judge("x", Way.RECEIVE, host_address(ONE)).allowed
        assert not found.judge("x", Way.SEND, "mh.hosts").allowed


# at a broker


@pytest.fixture
def record() -> Iterator[Lines]:
    with audited() as lines:
        yield lines


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


@dataclass
class Guarded:
    broker: Broker
    port: int
    authority: Authority

    async def as_(self, name: str) -> Connection:
        login = Login((EXTERNAL,), tls=Tls(self.authority.give(name)))
        return await dial(HOST, self.port, container=name, login=login, limits=SHORT)

    async def asking(self, name: str) -> Asker:
        return await asker(await self.as_(name))


@asynccontextmanager
async def guarded(
    ours: Authority, state: Path, table: Mapping[str, Any] = ROLES, source: Path | None = None
) -> AsyncIterator[Guarded]:
    gate = Gate(access_of({"access": table}, None if source is None else str(source), state))
    door = Door(tls=Tls(ours.give("broker")))
    broker, listener = await serve(f"{HOST}:0", BrokerLimits(sweep=0.05), door, gate)
    sweeping = asyncio.create_task(broker.sweep())
    try:
        yield Guarded(broker, listener.port, ours)
    finally:
        sweeping.cancel()
        await listener.close()


def deaf(_delivery: Delivery) -> None:
    """Nothing comes of it."""


async def outcome_of(sender: Sender, raw: bytes) -> Outcome:
    answered: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    sender.send(raw, on_outcome=answered.set_result)
    async with asyncio.timeout(20):
        return await answered


def test_nobody_takes_the_requests_of_another_host(ours: Authority, tmp_path: Path, record: Lines) -> None:
    async def test() -> None:
        async with guarded(ours, tmp_path) as site:
            one, thief = await site.as_("agent-1"), await site.as_("agent-2")
            mine = await one.receiver(host_address(ONE), deaf)
            with pytest.raises(NotAuthorized, match=r"may not receive from 'mh\.host\.1111"):
                await thief.receiver(host_address(ONE), deaf)
            assert mine.open
            with pytest.raises(NotAuthorized):
                await thief.receiver(REPORT, deaf)
            with pytest.raises(NotAuthorized):
                await thief.receiver("mh.event.#", deaf)
            with pytest.raises(NotAuthorized):
                await thief.sender("mh.hosts")
            await thief.receiver(host_address(OTHER), deaf)
            with pytest.raises(NotAuthorized):
                await (await site.as_("console")).receiver(host_address("3" * 32), deaf)
            with pytest.raises(NotAuthorized):
                await (await site.as_("stranger")).receiver("mh.event.#", deaf)
            # the same host, whose connection was lost, comes in place of itself
            again = await site.as_("agent-1")
            await again.receiver(host_address(ONE), deaf)
            await eventually(lambda: not mine.open)

    run(test())
    assert len(record.lines) == 6
    first = record.lines[0]
    assert (first["verb"], first["identity"], first["outcome"]) == (
        "use",
        "CN=agent-2",
        "amqp:unauthorized-access",
    )
    assert first["use"] == f"receive from 'mh.host.{ONE}'"
    assert str(first["peer"]).startswith(HOST)
    assert (tmp_path / "broker.hosts").read_text() == f"{ONE} CN=agent-1\n{OTHER} CN=agent-2\n"


def test_what_is_relayed_is_looked_at_too(ours: Authority, tmp_path: Path, record: Lines) -> None:
    async def test() -> None:
        async with guarded(ours, tmp_path) as site:
            one = await site.as_("agent-1")
            await one.receiver(host_address(ONE), deaf)
            relay = await one.sender(None)
            for address, word in (
                (REPORT, Word.ACCEPTED),
                (host_address(ONE), Word.ACCEPTED),
                (host_address(OTHER), Word.REJECTED),
                ("mh.hosts", Word.REJECTED),
                ("elsewhere", Word.REJECTED),
            ):
                came = await outcome_of(relay, encoded(address=address, body=1))
                assert came.word is word, address
                assert came.word is Word.ACCEPTED or came.condition == "amqp:unauthorized-access"
            relay.send(encoded(address="mh.hosts", body=1), settled=True)
            await eventually(lambda: site.broker.counters.dropped == 1)

    run(test())
    refused = {f"send to '{each}'" for each in ("mh.hosts", "elsewhere", host_address(OTHER))}
    assert {line["use"] for line in record.lines} == refused


def test_who_may_nothing_has_no_reply_address(ours: Authority, tmp_path: Path) -> None:
    async def test() -> None:
        async with guarded(ours, tmp_path) as site:
            with pytest.raises(NotAuthorized):
                await (await site.as_("stranger")).receiver(None, deaf, dynamic=True)
            await (await site.as_("console")).receiver(None, deaf, dynamic=True)

    run(test())


def test_rules_that_change_end_what_they_forbid(
    ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Links that are there already, as those that come."""
    monkeypatch.setattr(watched, "LOOK_SECONDS", 0.0)
    file = tmp_path / "broker.toml"
    before = '[access]\n"CN=console" = "console"\n"CN=agent-1" = "host"\n'
    file.write_text(before)
    table = {"CN=console": "console", "CN=agent-1": "host"}

    async def test() -> None:
        async with guarded(ours, tmp_path, table, file) as site:
            console, agent = await site.as_("console"), await site.as_("agent-1")
            own = await agent.receiver(host_address(ONE), deaf)
            received = [
                await console.receiver("mh.event.#", deaf),
                await console.receiver(None, deaf, dynamic=True),
            ]
            sent = [(each, await console.sender(each)) for each in ("mh.hosts", host_address(ONE))]
            for address, sender in sent:
                assert (await outcome_of(sender, encoded(address=address, body=1))).word is Word.ACCEPTED
            file.write_text(before.replace('"CN=console" = "console"', '"CN=console" = "none"'))
            await eventually(lambda: not any(each.open for each in received), 30)
            for address, sender in sent:
                assert (await outcome_of(sender, encoded(address=address, body=1))).word is Word.REJECTED
            assert own.open

    run(test())


def test_the_broker_answers_nowhere_where_the_asker_may_not_send(
    ours: Authority, tmp_path: Path, record: Lines
) -> None:
    async def test() -> None:
        async with guarded(ours, tmp_path) as site:
            everybody = roles({"authority": {"*": "operator"}})
            dispatcher = Dispatcher(toys(CountingToy()), Context(), everybody)
            site.broker.node = Node(site.broker, dispatcher, frozenset({TOY}))
            chief, agent = await site.as_("chief"), await site.as_("agent-1")
            heard: list[Delivery] = []
            await chief.receiver("jobs", heard.append)
            own = await agent.receiver(None, heard.append, dynamic=True)
            relay = await agent.sender(None)
            for to in ("jobs", own.address or ""):
                asked = replace(request("echo", to=MANAGEMENT), reply_to=to)
                assert (await outcome_of(relay, messages.encode(asked))).word is Word.ACCEPTED
            await eventually(lambda: heard)
            await (await chief.sender("jobs")).send_acked(encoded(address="jobs", body=1))
            await eventually(lambda: len(heard) == 2)
            assert messages.decode(heard[0].raw).to == own.address

    run(test())
    assert [each["use"] for each in record.lines] == ["send to 'jobs'"]


def claiming(address: str, host: str | None) -> bytes:
    return encoded(address=address, properties={} if host is None else {"mh:host": host}, body=1)


def test_events_and_replies_name_no_other_host(ours: Authority, tmp_path: Path, record: Lines) -> None:
    event = "mh.event.org.x.Y.rang"

    async def test() -> None:
        async with guarded(ours, tmp_path) as site:
            one, console = await site.as_("agent-1"), await site.as_("console")
            await one.receiver(host_address(ONE), deaf)
            heard: list[str | None] = []

            def hear(delivery: Delivery) -> None:
                heard.append(messages.decode(delivery.raw).text("mh:host"))
                delivery.accept()

            replies = await console.receiver(None, hear, dynamic=True)
            await console.receiver("mh.event.#", hear)
            relay, named = await one.sender(None), await one.sender(event)
            to = replies.address or ""
            for sender in (relay, named):
                for host, word in ((ONE, Word.ACCEPTED), (OTHER, Word.REJECTED), (None, Word.REJECTED)):
                    assert (await outcome_of(sender, claiming(event, host))).word is word
            for host, word in ((ONE, Word.ACCEPTED), (OTHER, Word.REJECTED), (None, Word.ACCEPTED)):
                assert (await outcome_of(relay, claiming(to, host))).word is word
            broken = messages.properties_section(
                [codec.NULL] * 2 + [b"\xa1" + bytes([len(to)]) + to.encode()]
            )
            assert (await outcome_of(relay, broken + b"\x00\x53\x74\x45")).word is Word.REJECTED
            # whoever may take what is asked of any host may answer for any
            chief = await (await site.as_("chief")).sender(None)
            assert (await outcome_of(chief, claiming(to, OTHER))).word is Word.ACCEPTED
            await eventually(lambda: len(heard) == 5)
            assert heard == [ONE, ONE, ONE, None, OTHER]

    run(test())
    assert any("which is not the sender's" in str(line["why"]) for line in record.lines)


def test_without_a_table_everybody_is_a_host_and_a_console(ours: Authority, tmp_path: Path) -> None:
    async def test() -> None:
        async with guarded(ours, tmp_path, rules.EVERYBODY) as site:
            one, other = await site.as_("agent-1"), await site.as_("agent-2")
            await one.receiver(host_address(ONE), deaf)
            await other.sender(host_address(ONE))
            await other.receiver("mh.event.#", deaf)
            with pytest.raises(NotAuthorized):
                await other.receiver(host_address(ONE), deaf)
            with pytest.raises(NotAuthorized):
                await other.receiver("mh.conductor", deaf)
            relay = await other.sender(None)
            forged = claiming("mh.event.org.x.Y.rang", ONE)
            assert (await outcome_of(relay, forged)).word is Word.REJECTED

    run(test())


# who is behind a report, and who answers


class Told(Reports):
    """Knows who reported."""

    def __init__(self) -> None:
        self.callers: list[Caller] = []

    def report(self, report: CapabilityReport) -> Accepted:
        self.callers.append(asking())
        if report.uuid != SOURCE.host:
            raise Conflict("whose is this")
        return Accepted(generation=report.generation, changed=True, aggregates=[])


async def conducted(site: Guarded, state: Path, told: Reports, name: str) -> tuple[Serving, Any]:
    name_of = interface_of(Reports).name
    context = Context()
    files = site.authority.give(name)
    tls = {
        "certificate": str(files.certificate),
        "key": str(files.key),
        "authorities": str(files.authorities),
    }
    run_ = process_of(state, name, {"tls": tls})
    policy = roles({"authority": {"*": "operator"}})
    dispatcher = Dispatcher({name_of: Bound(interface_of(Reports), told)}, context, policy)
    served = serving(run_, dispatcher, {REPORT: [name_of]}, replace(SOURCE, host=""))
    connections = Connections(context.events)
    task = asyncio.create_task(served.run([f"amqps://{HOST}:{site.port}"], connections))
    await eventually(lambda: [each.state for each in connections.list()] == ["connected"])

    async def end() -> None:
        run_.stop.set()
        await task
        served.outbox.close()

    return served, end


def test_a_conductor_knows_who_reports_whatever_the_message_says(ours: Authority, tmp_path: Path) -> None:
    async def test() -> None:
        async with guarded(ours, tmp_path) as site:
            told = Told()
            _, end = await conducted(site, tmp_path, told, "conductor")
            host = await site.asking("agent-1")
            reporter = Reporter(Machine(), Settings(tmp_path / "settings.json"), at_boot)
            out = Sending(reporter, Pace(interval=30.0, answer=5.0))
            work = asyncio.create_task(out.run(host))
            await eventually(lambda: told.callers)
            work.cancel()
            assert told.callers[0] == Caller("amqp", "CN=agent-1")
            # who says that he is another is not heard at all
            forged = encoded(address=REPORT, user_id=b"CN=agent-1", body=1)
            thief = await (await site.as_("agent-2")).sender(None)
            assert (await outcome_of(thief, forged)).word is Word.REJECTED
            await end()

    run(test())


def test_an_agent_works_behind_such_a_broker(ours: Authority, tmp_path: Path) -> None:
    """Requests, casts and its own pings pass, and its replies are its own."""

    async def test() -> None:
        async with guarded(ours, tmp_path) as site:
            files = site.authority.give("agent-1")
            toy, context = CountingToy(), Context()
            tls = {
                "certificate": str(files.certificate),
                "key": str(files.key),
                "authorities": str(files.authorities),
            }
            run_ = process_of(tmp_path, "agent", {"tls": tls})
            dispatcher = Dispatcher(toys(toy), context, roles({"authority": {"CN=console": "operator"}}))
            home = host_address(SOURCE.host)
            served = serving(run_, dispatcher, {home: [TOY]}, SOURCE)
            connections = Connections(context.events)
            task = asyncio.create_task(served.run([f"amqps://{HOST}:{site.port}"], connections))
            console = await site.asking("console")
            await eventually(lambda: [each.state for each in connections.list()] == ["connected"])
            reply = await ask(console, request("strike", to=home, body={"what": "it"}))
            assert (code(reply), reply.text("mh:host")) == (200, SOURCE.host)
            assert value(reply) == {"count": 1}
            run_.stop.set()
            await task
            served.outbox.close()

    run(test())


# the command


@pytest.mark.parametrize(
    ("door", "config", "role"),
    [
        (Door(), {}, None),
        (Door(), {"access": {"uid:0": "host"}}, "none"),
        (Door(users=Users(Path("users"))), {}, "member"),
        (Door(users=Users(Path("users"))), {"access": {"x": "host"}}, "none"),
    ],
)
def test_when_there_are_rules(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, door: Door, config: Mapping[str, Any], role: str | None
) -> None:
    gate = gate_of(process_of(tmp_path, "mh-broker", config), door)
    assert (gate and gate.access.rules.role("somebody")) == role
    assert ("there is no [access]" in caplog.text) is (role == "member")
