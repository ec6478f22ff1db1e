"""A certificate that ends while it is in use: the connection ends with it, and is made again with the one
that has taken its place, by agents and consoles that nobody restarts."""

import asyncio
from pathlib import Path

import pytest

from amqp_peers import HOST, Echo, listening
from amqp_serving import SOURCE, TOY, CountingToy, Toy, process, toys
from certificates import Authority, authority
from libmh.call import Request
from libmh.connections import Connections
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.errors import NotAuthorized
from libmh.providers import find_interface
from libmh.spec import interface_of
from mh_amqp import client
from mh_amqp.authority import roles
from mh_amqp.broker import BrokerLimits
from mh_amqp.broker_main import serve
from mh_amqp.client import AmqpTransport
from mh_amqp.engine import Door, Login, dial
from mh_amqp.names import host_address, place
from mh_amqp.security import EXTERNAL
from mh_amqp.server import serving
from mh_amqp.tls import Files, Tls
from mh_amqp.upkeep import Pace
from test_amqp_engine import run
from waiting import eventually

SOON = 10 / 86_400
"""Days: time enough to connect on a machine that is busy."""
SECONDS = 60


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return authority(tmp_path_factory.mktemp("ours"))


def table(files: Files) -> dict[str, str]:
    return {name: str(getattr(files, name)) for name in ("certificate", "key", "authorities")}


def test_connections_end_with_their_certificates_and_are_made_again(
    ours: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(
        client, "find_interface", lambda name: interface_of(Toy) if name == TOY else find_interface(name)
    )
    told: list[str] = []

    def strike() -> Request:
        return Request(TOY, "strike", arguments={"what": "it"}, deadline=30.0)

    async def test() -> None:
        door = Door(tls=Tls(ours.give("broker")))
        broker, listener = await serve(f"{HOST}:0", BrokerLimits(), door)
        url = f"amqps://{HOST}:{listener.port}"
        own = process(tmp_path, "agent", {"tls": table(ours.give("agent", days=SOON))})
        toy, context = CountingToy(), Context()
        everybody = roles({"authority": {"*": "operator"}})
        dispatcher = Dispatcher(toys(toy), context, everybody)
        served = serving(own, dispatcher, {host_address(SOURCE.host): [TOY]}, SOURCE)
        served.pace = Pace(first=0.1, most=0.5)
        connections = Connections(context.events)
        task = asyncio.create_task(served.run([url], connections))
        console = AmqpTransport(
            place(f"{url}/{SOURCE.host}"), Tls(ours.give("console", days=SOON)), None, None
        )
        assert await console.call(strike()) == 1
        first = {each.user: each for each in listener.connections}
        assert set(first) == {"CN=agent", "CN=console"}
        for name in ("agent", "console"):
            ours.give(name)  # whoever gives certificates has given the next
        await eventually(lambda: all(each.closed.done() for each in first.values()), SECONDS)
        told.extend(str(each.closed.result()) for each in first.values())
        assert await console.call(strike()) == 2
        assert {each.user for each in listener.connections} == {"CN=agent", "CN=console"}
        assert [each.state for each in connections.list()] == ["connected"]
        assert toy.calls["strike"] == 2
        assert broker.counters.connections == 2
        await console.close()
        own.stop.set()
        await task
        served.outbox.close()
        await listener.close()

    async def both() -> None:
        await asyncio.gather(test(), who_dials_leaves_a_listener_whose_certificate_has_ended(ours))

    run(both(), 3 * SECONDS)
    assert told == ["the peer's certificate has ended (amqp:unauthorized-access)"] * 2
    audited = [each.getMessage() for each in caplog.records if each.name == "libmh.audit"]
    assert sum("certificate has ended while it was connected" in each for each in audited) == 2


async def who_dials_leaves_a_listener_whose_certificate_has_ended(ours: Authority) -> None:
    door = Door(tls=Tls(ours.give("late", days=SOON)))
    login = Login((EXTERNAL,), tls=Tls(ours.give("other")))
    async with listening(Echo(), door=door) as listener:
        connection = await dial(HOST, listener.port, container="test", login=login)
        async with asyncio.timeout(SECONDS):
            ended = await connection.closed
        assert ended.condition == "amqp:unauthorized-access"
        with pytest.raises(NotAuthorized, match="could not prove who it is"):
            await dial(HOST, listener.port, container="test", login=login)
