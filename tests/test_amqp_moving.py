"""A host that changes its own address while it is connected."""

import socket
from collections.abc import Iterator

import pytest

from amqp_peers import Echo, dialled, listening
from mh_amqp.lifeline import is_ours
from namespaces import Namespace, namespace
from test_amqp_engine import run

MOVES = """
import asyncio, subprocess
from libmh.connections import Connections
from libmh.events import Hub
from mh_amqp import lifeline
from mh_amqp.broker import Broker, BrokerLimits
from mh_amqp.engine import listen
from mh_amqp.upkeep import Pace, Upkeep

lifeline.LOOK_SECONDS = 0.5

async def brokered(host):
    broker = Broker(BrokerLimits())
    return broker, await listen(host, 0, broker, container="mh-broker")

async def connected(broker):
    async with asyncio.timeout(30):
        while broker.counters.connections != 1:
            await asyncio.sleep(0.05)

async def main():
    before, old = await brokered("127.0.0.5")
    after, new = await brokered("127.0.0.6")
    urls = [f"amqp://127.0.0.5:{old.port}", f"amqp://127.0.0.6:{new.port}"]
    connections, stop = Connections(Hub()), asyncio.Event()

    async def session(_connection, _url):
        await stop.wait()

    upkeep = Upkeep(urls, "agent", connections, stop, session, pace=Pace(first=0.1, most=0.2))
    task = asyncio.create_task(upkeep.run())
    await connected(before)
    subprocess.run(["ip", "address", "del", "127.0.0.5/32", "dev", "lo"], check=True)
    await connected(after)
    # the other side believes in the old one for another while
    print(before.counters.connections, *(each.last_error for each in connections.list()))
    stop.set()
    await task

asyncio.run(main())
"""


@pytest.fixture
def net() -> Iterator[Namespace]:
    with namespace() as made:
        made.batch(["link set lo up", "address del 127.0.0.1/8 dev lo"])
        made.batch([f"address add 127.0.0.{last}/32 dev lo" for last in (5, 6)])
        yield made


def test_an_agent_whose_address_has_gone_knows_it_at_once(net: Namespace) -> None:
    """Not when the broker has been silent for long: 43 to 64 seconds."""
    told = net.python(MOVES, seconds=90)
    assert told.startswith("1 ")
    assert "this machine has the address 127.0.0.5 no longer" in told


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="this system has no TCP_USER_TIMEOUT")
def test_the_kernel_gives_up_when_we_would() -> None:
    async def test() -> None:
        async with listening(Echo()) as listener, dialled(listener.port) as connection:
            assert connection.pump._socket is not None
            raw = connection.pump._socket.get_extra_info("socket")
            told = raw.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert told == connection.limits.stall * 1000

    run(test())


def test_which_addresses_are_ours() -> None:
    assert is_ours(("127.0.0.1", 1))
    assert is_ours(None)
    assert is_ours("/run/socket")
    assert not is_ours(("192.0.2.1", 1))
    if socket.has_ipv6:
        assert not is_ours(("2001:db8::1", 1, 0, 0))
