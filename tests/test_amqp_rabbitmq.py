"""Requests, replies, events and reports over a RabbitMQ: Debian's 3.10, and another one by its own command.

    debootstrap --variant=minbase trixie DIR http://deb.debian.org/debian
    mount -t proc proc DIR/proc; mount --bind /dev DIR/dev; cp /usr/sbin/policy-rc.d DIR/usr/sbin/
    chroot DIR apt-get install -y --no-install-recommends rabbitmq-server
    MATAHARI_RABBITMQ4=DIR pytest -m slow tests/test_amqp_rabbitmq.py

as root; /usr/sbin/policy-rc.d is `exit 101`, which keeps the service from being started.
"""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from amqp_serving import HOST, SOURCE, TOY, UUID, CountingToy, Toy, ask, broker_agent, request, run, value
from libmh.call import Request, Verb
from libmh.caller import asking as who_asks
from libmh.errors import Conflict, NotAuthorized, NotFound, Problem
from libmh.keys import Trusted, generate, load, trust
from libmh.providers import find_interface
from libmh.selection import Where
from libmh.spec import Plain, interface_of
from mh_amqp import client, messages, raw
from mh_amqp.asking import Asker, asker
from mh_amqp.client import connect
from mh_amqp.dialects import RABBITMQ_3, RABBITMQ_4, Dialect
from mh_amqp.engine import Login, dial
from mh_amqp.fleet import AmqpLine
from mh_amqp.links import Delivery
from mh_amqp.names import host_address
from mh_amqp.post import receive
from mh_amqp.signatures import Signatures
from mh_amqp.upkeep import Pace
from processes import agent, mhctl
from rabbitmq import PASSWORD, RabbitMQ, rabbitmq_3, rabbitmq_4
from waiting import eventually, wait_for

__all__ = ["rabbitmq_3", "rabbitmq_4"]
QUICK = Pace(first=0.1, most=0.5)
NEWER = pytest.param("rabbitmq_4", marks=pytest.mark.slow)


@pytest.fixture(params=["rabbitmq_3", NEWER])
def broker(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


@pytest.fixture(autouse=True)
def _toy_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        client, "find_interface", lambda name: interface_of(Toy) if name == TOY else find_interface(name)
    )


class NamingToy(CountingToy):
    """Its echo says who asked."""

    def echo(self, value: Plain = None) -> Plain:
        return who_asks().identity if value == "who" else super().echo(value)


def asked(member: str, *arguments: Any, verb: Verb = Verb.CALL, **more: Any) -> Request:
    return Request(TOY, member, verb, arguments, **more)


def at_host(broker: RabbitMQ, user: str = "") -> str:
    return f"{broker.url(user)}/{UUID}"


def connected(agent: Any) -> bool:
    return [str(each.state) for each in agent.connections.list()] == ["connected"]


@asynccontextmanager
async def serving(broker: RabbitMQ, state: Path) -> AsyncIterator[Any]:
    """An agent that is connected."""
    async with broker_agent(state, broker.port, toy=NamingToy()) as agent:
        agent.served.pace = QUICK
        await eventually(lambda: connected(agent), 20)
        yield agent


@asynccontextmanager
async def console(broker: RabbitMQ, user: str = "") -> AsyncIterator[Asker]:
    """A connection without the client on top, as a user or as nobody."""
    login = Login(("PLAIN",), user, PASSWORD) if user else Login()
    connection = await dial(HOST, broker.port, container=f"console-{secrets.token_hex(4)}", login=login)
    try:
        yield await asker(connection)
    finally:
        await connection.close()


def dialect(broker: RabbitMQ) -> Dialect:
    return RABBITMQ_3 if broker.root == Path("/") else RABBITMQ_4


def test_it_is_known_by_what_it_says(broker: RabbitMQ) -> None:
    async def test() -> None:
        async with console(broker) as made:
            assert made.connection.product == "RabbitMQ"
            assert made.post.dialect is dialect(broker)

    run(test())


def test_requests_are_answered(broker: RabbitMQ, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(broker, tmp_path) as agent:
            host = await connect(at_host(broker))
            assert await host.call(asked("split", 7)) == [3, 4]
            assert await host.call(asked("level", 5, verb=Verb.SET)) is None
            assert await host.call(asked("level", verb=Verb.GET)) == 5
            assert await host.call(asked("blob", verb=Verb.GET)) == b"\x00\xff"
            tree = {"a": [1, 2.5, None, b"\x00"], "b": ["ü" * 10_000] * 20}
            assert await host.call(asked("echo", tree)) == tree
            with pytest.raises(Conflict):
                await host.call(asked("fail", "conflict"))
            with pytest.raises(NotFound):
                await host.call(asked("nothing"))
            both = await asyncio.gather(*(host.call(asked("split", number)) for number in range(200)))
            assert both == [[number // 2, number - number // 2] for number in range(200)]
            assert agent.served.intake.counters.unsent == 0
            await host.close()

    run(test(), 60)


def test_events_come_by_their_names(broker: RabbitMQ, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(broker, tmp_path) as agent:
            host = await connect(at_host(broker))
            every, named = host.events(), host.events(TOY, "rang")
            waiting = [asyncio.ensure_future(anext(stream)) for stream in (every, named)]

            def rings() -> bool:
                agent.context.events.emit(Toy.rang, times=3, at=0)
                return all(each.done() for each in waiting)

            await eventually(rings, 10)
            for event in await asyncio.gather(*waiting):
                assert (event.member, event.fields, event.host) == ("rang", {"times": 3, "at": 0}, UUID)
            await host.close()

    run(test(), 60)


@pytest.mark.parametrize(("user", "known_as"), [("", "anonymous"), ("otto", "otto"), ("anna", "anna")])
def test_who_asks_is_whom_the_broker_let_in(
    broker: RabbitMQ, tmp_path: Path, user: str, known_as: str
) -> None:
    async def test() -> None:
        async with serving(broker, tmp_path):
            host = await connect(at_host(broker, user))
            assert await host.call(asked("echo", "who")) == known_as
            await host.close()

    run(test(), 60)


def test_nobody_can_say_that_he_is_another(broker: RabbitMQ, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(broker, tmp_path) as agent, console(broker, "otto") as made:
            to = host_address(UUID)
            forged = messages.encode(request("strike", body={"what": "x"}, to=to))
            forged = raw.with_user_id(forged, raw.routing(forged), b"anna")
            target = dialect(broker).target(to)
            sender = await made.connection.sender(target.link, durable=target.durable)
            gone: list[str] = []
            sender.on_closed = lambda condition, description: gone.append(f"{condition} {description}")
            sender.send(forged)
            await eventually(lambda: gone or made.connection.closed.done(), 10)
            assert not agent.toy.calls["strike"]
            # the session that it was sent in has ended, and that alone
            reply = await ask(made, request("split", body={"value": 3}, to=to))
            assert value(reply) == {"low": 1, "high": 2}

    run(test(), 60)


def test_replies_go_to_private_places_alone(broker: RabbitMQ, tmp_path: Path) -> None:
    places = ["mh.report", "mh.event.a.b", "mh.hosts", "/queue/mh.report", "/queues/q", "/topic/mh.report"]
    places += ["/exchange/amq.topic/mh.event.a.b", "/exchanges/amq.topic/mh%2Ereport", "/amq/queue/q"]
    places += ["x" * 300, "mh.reply.#"]

    async def test() -> None:
        async with serving(broker, tmp_path) as agent, console(broker) as made:
            for place in places:
                message = request("split", body={"value": 1}, to=host_address(UUID), reply_to=place)
                await made.post.carry(host_address(UUID), messages.encode(message))
            await eventually(lambda: agent.served.intake.counters.malformed == len(places), 10)
            assert connected(agent)
            assert agent.served.intake.counters.unsent == 0

    run(test(), 60)


def test_a_reply_goes_to_a_topic_of_other_clients(broker: RabbitMQ, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(broker, tmp_path), console(broker) as made:
            key = f"other.{secrets.token_hex(4)}"
            came: list[bytes] = []

            def take(delivery: Delivery) -> None:
                came.append(delivery.raw)
                delivery.accept()

            # a bare name is a queue, so what is received there is asked for as RabbitMQ calls it
            own = replace(dialect(broker), node=lambda _address: RABBITMQ_3.node(f"mh.reply.{key}"))
            spoken = dialect(broker) if dialect(broker).declares else own
            await receive(made.connection, spoken, f"mh.reply.{key}", take)
            prefix = "/exchanges/amq.topic/" if spoken.declares else "/topic/"
            message = request("split", to=host_address(UUID), body={"value": 3})
            sent = replace(message, reply_to=f"{prefix}mh.reply.{key}")
            await made.post.carry(host_address(UUID), messages.encode(sent))
            await eventually(lambda: came, 10)
            reply = messages.decode(came[0])
            assert (reply.number("statusCode"), value(reply)) == (200, {"low": 1, "high": 2})

    run(test(), 60)


def test_a_request_waits_for_an_agent_that_is_away(broker: RabbitMQ, tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(broker, tmp_path):
            pass
        host = await connect(at_host(broker))
        answer = asyncio.ensure_future(host.call(asked("split", 9, deadline=20.0)))
        expired = asyncio.ensure_future(host.call(asked("strike", "x", deadline=0.5)))
        with pytest.raises(Problem):
            await expired
        async with serving(broker, tmp_path) as agent:
            assert await answer == [4, 5]
            assert not agent.toy.calls["strike"]
        await host.close()

    run(test(), 60)


def test_everybody_comes_back_after_the_broker_was_killed(
    broker: RabbitMQ, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """And what was left for a host that is off is still there."""
    off = replace(SOURCE, host="9" * 32)

    async def test() -> None:
        async with serving(broker, tmp_path) as agent:
            host = await connect(at_host(broker, "otto"))
            assert await host.call(asked("split", 1)) == [0, 1]
            line = AmqpLine(await connect(broker.url()))
            assert await line.leave(asked("strike", "it"), [off.host], Where(), 300.0) == {off.host: None}
            await line.close()
            broker.kill()
            await eventually(lambda: not connected(agent), 10)
            answer = asyncio.ensure_future(host.call(asked("echo", "who", deadline=40.0)))
            broker.begin()
            await eventually(broker.listens, 60)
            await eventually(lambda: connected(agent), 20)
            assert len(told_of_queues(caplog)) == (1 if dialect(broker).warning else 0)
            assert await answer == "otto"
            await host.close()
            async with broker_agent(tmp_path / "off", broker.port, source=off) as late:
                await eventually(lambda: late.toy.calls["strike"] == 1, 20)

    run(test(), 150)


def test_a_signature_holds_on_the_way(broker: RabbitMQ, tmp_path: Path) -> None:
    generate("ops", tmp_path / "ops.key")
    key = load(tmp_path / "ops.key")
    trust(key.public, tmp_path / "keys")

    async def test() -> None:
        async with serving(broker, tmp_path) as agent:
            agent.served.intake.signatures = Signatures(Trusted(tmp_path / "keys"), required=True)
            unsigned, signing = await connect(at_host(broker)), await connect(at_host(broker))
            signing.key = key
            assert await signing.call(asked("echo", "who")) == "key:ops"
            with pytest.raises(NotAuthorized, match="only signed requests"):
                await unsigned.call(asked("echo", "who"))
            await unsigned.close()
            await signing.close()

    run(test(), 60)


def told_of_queues(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was said of the queues that subscriptions leave behind."""
    return [each.getMessage() for each in caplog.records if "set_policy" in each.getMessage()]


def test_a_fleet_works_over_it(broker: RabbitMQ, tmp_path: Path) -> None:
    url = broker.url()
    config = tmp_path / "mh.toml"
    config.write_text(f'[amqp]\ndialect = "{dialect(broker).name}"\n')
    common = ("--broker", url, "--config", str(config), "--state")
    with (
        agent("mh-conductor", *common, str(tmp_path / "c")),
        agent("mh-amqp", *common, str(tmp_path / "a"), "--report-interval", "5") as host,
    ):
        words = host.ready.split()
        uuid = words[words.index("host") + 1]

        def reported() -> bool:
            return uuid in mhctl("--on", url, "--json", "aggregate", "hosts").stdout

        wait_for(reported, 30)
        shown = mhctl("--on", f"{url}/{uuid}", "--json", "host", "show", "hostname", "memory")
        assert shown.returncode == 0, shown.stderr
        assert json.loads(shown.stdout)["memory"] > 0
        many = mhctl("--on", url, "--where", "memory=>= 1", "--json", "get", "Host.hostname")
        assert many.returncode == 0, many.stderr
        assert json.loads(many.stdout)["hosts"][0]["uuid"] == uuid
        refused = mhctl("--on", f"{url}/{uuid}", "call", "Services.restart", "nothing")
        assert refused.returncode == 3, refused.stderr
