"""Mutated sessions against the broker, without sockets between: nothing gets out, nothing piles up; and
mutated logins, of which none lets a stranger in.

200,000 sessions and as many logins: .venv/bin/pytest -m slow tests/test_amqp_fuzz.py
For an hour: .venv/bin/python tests/test_amqp_fuzz.py --seconds 3600
"""

import argparse
import asyncio
import logging
import random
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from amqp_peers import (
    AMQP_HEADER,
    ANYONE,
    CLOSE,
    DETACH,
    DISPOSITION,
    END,
    FLOW,
    HOST,
    RECEIVES,
    SASL_HEADER,
    TRUE,
    attach,
    begin,
    described,
    encoded,
    frame,
    hello,
    hostile,
    opening,
    sasl_init,
    transfer,
    uint,
)
from mh_amqp.broker import Broker, BrokerLimits
from mh_amqp.connection import Connection
from mh_amqp.engine import listen
from mh_amqp.sasl import Dialling, Listening, Refused
from mh_amqp.security import PLAIN, SCRAM, Door, Login, Offer
from mh_amqp.users import Users, verifier
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


async def feed(broker: Broker, pieces: list[bytes], door: Door = ANYONE) -> None:
    connection = Connection("fuzz", broker.limits.peer, door, broker)
    socket = NoSocket()
    connection.pump.connection_made(socket)
    for piece in pieces:
        connection.pump.data_received(piece)
        await asyncio.sleep(0)
    connection.pump.connection_lost(None)
    await asyncio.sleep(0)


async def survive(seed: int, count: int, most_growth: int = 6_000) -> None:
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
    assert resident() - before < most_growth
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


# logins


NAME, PASSWORD = "otto", "correct horse"
WRONG = "battery staple"
MOST_TURNS = 12
MOST_GROWTH = 20_000
"""Kilobytes."""


@pytest.fixture(scope="module")
def users(tmp_path_factory: pytest.TempPathFactory) -> Users:
    return known_users(tmp_path_factory.mktemp("users"))


def known_users(directory: Path) -> Users:
    path = directory / "users"
    path.write_text(verifier(NAME, PASSWORD).line(NAME) + "\n")
    return Users(path)


def dialogue(chance: random.Random, login: Login, offer: Offer) -> Listening:
    """Both sides talk, and one of the messages between them is mutated, or none; what they raise is
    `Refused`."""
    dialling, listening = Dialling(login), Listening(offer)
    spoiled = chance.randrange(MOST_TURNS)
    said = dialling.begin()
    try:
        for turn in range(MOST_TURNS):
            if turn == spoiled:
                said = mutated(chance, said)
            cut = chance.randrange(len(said) + 1)
            ours = dialling if turn % 2 else listening
            said = b"".join(ours.take(piece)[0] for piece in (said[:cut], said[cut:]))
            if dialling.done and not listening.done:
                listening.take(AMQP_HEADER)
    except Refused:
        pass
    return listening


def logins(chance: random.Random, users: Users, count: int, *, costly: float = 0.02) -> Iterator[str]:
    """Who was let in by each of so many logins, "" for nobody: the name is known, the password is not.
    SCRAM takes milliseconds, and has its share."""
    for _ in range(count):
        mechanism = SCRAM[0] if chance.random() < costly else PLAIN
        listening = dialogue(chance, Login((mechanism,), NAME, WRONG), Offer((*SCRAM, PLAIN), users))
        yield listening.identity if listening.done else ""


@pytest.mark.parametrize("mechanism", [PLAIN, SCRAM[0]])
def test_the_dialogue_itself_lets_in(users: Users, mechanism: str) -> None:
    """Unspoiled it comes to its end: otherwise the mutations would try nothing but its beginning."""
    offer = Offer((*SCRAM, PLAIN), users)
    known = [
        dialogue(random.Random(seed), Login((mechanism,), NAME, PASSWORD), offer).identity
        for seed in range(20)
    ]
    assert known.count(NAME) > 5
    assert set(known) <= {NAME, ""}


def test_no_mutation_of_a_login_lets_a_stranger_in(users: Users) -> None:
    assert set(logins(random.Random(1), users, 3000)) == {""}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 12))
def test_no_mutation_of_many_logins_lets_a_stranger_in(users: Users, seed: int) -> None:
    assert set(logins(random.Random(seed), users, 20_000)) == {""}


def test_mutated_sessions_of_a_stranger_reach_nothing(users: Users) -> None:
    """What comes in one piece with a login that is refused is not acted upon."""

    async def test() -> None:
        broker = Broker(BrokerLimits())
        chance = random.Random(3)
        stolen = SASL_HEADER + sasl_init("PLAIN", f"\0{NAME}\0{WRONG}".encode()) + AMQP_HEADER
        stream = stolen + opening() + begin() + LINKS + TRAFFIC
        for _ in range(1000):
            await feed(broker, [mutated(chance, stream)], Door(users=users))
        assert broker.counters.received == 0
        assert broker.queues == {}

    run(test(), 60)


def soak(seconds: float) -> None:
    """Sessions and logins, with new seeds, for so long; what is found ends it."""
    ends = time.monotonic() + seconds
    chance = random.SystemRandom()
    sessions = tried = 0
    with TemporaryDirectory() as directory:
        known = known_users(Path(directory))
        begun = 0
        while time.monotonic() < ends:
            seed = chance.randrange(2**32)
            print(f"{sessions} sessions, {tried} logins, {resident()} kB, seed {seed}", flush=True)
            run(survive(seed, 2000), 600)
            assert set(logins(random.Random(seed), known, 2000)) == {""}
            sessions, tried = sessions + 2000, tried + 2000
            begun = begun or resident()
            assert resident() - begun < MOST_GROWTH, "memory grows"
    print(f"{sessions} sessions, {tried} logins: nothing found")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Mutate sessions and logins.")
    parser.add_argument("--seconds", type=float, default=3600.0)
    logging.disable()  # what is refused is said, thousands of times
    soak(parser.parse_args().seconds)
