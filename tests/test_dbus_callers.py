"""How much of the agent one caller, and one user, may hold."""

import asyncio
from contextlib import ExitStack

import pytest

from libmh.bus import connect
from libmh.errors import Unavailable
from mh_dbus.callers import MAX_PER_SENDER, MAX_PER_USER, Callers
from testbed.bus import private_bus


def test_the_uid_is_the_one_that_the_bus_daemon_authenticated() -> None:
    async def test(address: str) -> None:
        bus = await connect(address)
        callers = Callers(bus)
        (name,) = (await bus.ask("ListNames"))[0][-1:]
        assert await callers.uid(name) == 0
        with pytest.raises(Unavailable):
            await callers.uid(":9.9")
        await bus.close()

    with private_bus() as address:
        asyncio.run(asyncio.wait_for(test(address), 20))


def test_one_user_gets_a_share_and_root_is_never_refused() -> None:
    async def test(address: str) -> None:
        bus = await connect(address)
        callers = Callers(bus)
        with ExitStack() as held:
            for _ in range(MAX_PER_USER):
                held.enter_context(callers.share(1000))
                held.enter_context(callers.share(0))
            with pytest.raises(Unavailable, match="calls of uid 1000 are outstanding"), callers.share(1000):
                pass
            with callers.share(1001), callers.share(0):
                pass
        with callers.share(1000):
            pass
        await bus.close()

    with private_bus() as address:
        asyncio.run(asyncio.wait_for(test(address), 20))


def test_one_sender_gets_less_than_its_user() -> None:
    async def test(address: str) -> None:
        bus = await connect(address)
        callers = Callers(bus)
        for _ in range(MAX_PER_SENDER):
            callers.begin(":1.7")
        with pytest.raises(Unavailable, match="of your calls are outstanding"):
            callers.begin(":1.7")
        callers.begin(":1.8")
        callers.end(":1.7")
        callers.begin(":1.7")
        assert callers.outstanding == MAX_PER_SENDER + 1
        await bus.close()

    with private_bus() as address:
        asyncio.run(asyncio.wait_for(test(address), 20))
