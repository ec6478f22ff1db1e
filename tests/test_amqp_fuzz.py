"""Mutated sessions against the broker, without sockets between: nothing gets out, nothing piles up."""

import asyncio
import random
from collections.abc import Iterator

import pytest

from amqp_peers import (
    CLOSE,
    DETACH,
    DISPOSITION,
    END,
    FLOW,
    HOST,
    RECEIVES,
    TRUE,
    attach,
    begin,
    described,
    encoded,
    frame,
    hello,
    hostile,
    transfer,
    uint,
)
from mh_amqp.broker import Broker, BrokerLimits
from mh_amqp.connection import Connection
from mh_amqp.engine import listen
from mh_amqp.security import Door
from test_amqp_engine import run
from test_amqp_hazards import resident, settled_in, still_serves

FLOWS = [
    frame(FLOW, uint(0), uint(2048), uint(0), uint(2048), uint(handle), uint(0), uint(100))
    for handle in (1, 2)
]
MESSAGES = [
    encoded(address=to, id=to, body={"a": [1, "b"]}, ttl=60) for to in ("q", "mh.hosts", "mh.event.x")
]
HANDSHAKE = hello() + begin(1)
LINKS = (
    attach(0, "q")
    + attach(1, "q", RECEIVES)
    + attach(2, "mh.event.#", RECEIVES)
    + attach(3, None)
    + attach(0, "mh.hosts", channel=1)
)
TRAFFIC = (
    b"".join(FLOWS)
    + b"".join(transfer(3, n, message, settled=False) for n, message in enumerate(MESSAGES))
    + transfer(0, 3, MESSAGES[0], more=True)
    + transfer(0, 3, b"xyz", settled=True)
    + frame(DISPOSITION, TRUE, uint(0), uint(9), TRUE, described(0x24))
    + frame(DETACH, uint(1), TRUE)
    + frame(END, channel=1)
    + frame(CLOSE)
)
PIECES = (HANDSHAKE, LINKS, TRAFFIC)


class NoSocket(asyncio.Transport):
    """Takes what is written and forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True

    def abort(self) -> None:
        self.closing = True

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def mutated(chance: random.Random, stream: bytes) -> bytes:
    """One to five of: a bit flipped, a byte changed, a cut, a stretch repeated, inserted, deleted or
    moved."""
    data = bytearray(stream)
    for _ in range(chance.randint(1, 5)):
        at, length = chance.randrange(len(data) or 1), chance.randint(1, 40)
        match chance.randrange(8) if data else 3:
            case 0:
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                data[at] = chance.randrange(256)
            case 2:
                del data[at:]
            case 3:
                data[at:at] = chance.randbytes(length)
            case 4:
                data[at:at] = data[at : at + length] * chance.randint(1, 3)
            case 5:
                del data[at : at + length]
            case 6:
                piece = data[at : at + length]
                del data[at : at + length]
                other = chance.randrange(len(data) or 1)
                data[other:other] = piece
            case _:
                data[at : at + 4] = chance.choice((0, 7, 8, 255, 65536, 2**31, 2**32 - 1)).to_bytes(4)
    return bytes(data)


def streams(seed: int, count: int) -> Iterator[list[bytes]]:
    """The session in its three pieces, one of them mutated, or in two of them."""
    chance = random.Random(seed)
    for _ in range(count):
        pieces = list(PIECES)
        for index in chance.sample(range(3), chance.choice((1, 1, 2))):
            pieces[index] = mutated(chance, pieces[index])
        yield pieces


async def feed(broker: Broker, pieces: list[bytes]) -> None:
    connection = Connection("fuzz", broker.limits.peer, Door(), broker)
    socket = NoSocket()
    connection.pump.connection_made(socket)
    for piece in pieces:
        connection.pump.data_received(piece)
        await asyncio.sleep(0)
    connection.pump.connection_lost(None)
    await asyncio.sleep(0)


async def survive(seed: int, count: int) -> None:
    failures: list[str] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(repr(context)))
    broker = Broker(BrokerLimits())
    listener = await listen(HOST, 0, broker, container="fuzzed")
    before = 0
    for number, pieces in enumerate(streams(seed, count)):
        await feed(broker, pieces)
        broker.queues.clear()
        if number == count // 5:
            before = resident()
    assert failures == []
    assert broker.counters.connections == 0
    assert resident() - before < 6_000
    await still_serves(listener.port)
    await listener.close()


def test_the_session_itself_is_understood() -> None:
    """Unmutated it reaches every part: otherwise the mutations would try nothing but the handshake."""

    async def test() -> None:
        broker = Broker(BrokerLimits())
        await feed(broker, list(PIECES))
        assert broker.counters.received == 4
        assert broker.counters.delivered == 3
        assert broker.counters.connections == 0
        listener = await listen(HOST, 0, broker, container="fuzzed")
        async with hostile(listener.port) as peer:
            await settled_in(peer, attach(0, "q"))
        await listener.close()

    run(test())


def test_three_thousand_mutations_leave_it_serving() -> None:
    run(survive(seed=1, count=3000), 60)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_many_mutations_leave_it_serving(seed: int) -> None:
    run(survive(seed, count=20_000), 300)
