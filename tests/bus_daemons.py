"""System daemons on a private bus: the names, paths and signatures of the real ones, answers from a
table."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from libmh.bus import Message, connect
from testbed.bus import private_bus

Answer = tuple[str, list[Any]]  # signature and body
Methods = Mapping[
    tuple[str, str], Callable[..., Answer]
]  # (path, interface.member) -> answer to its arguments


@contextmanager
def machine_with(place: Path, *daemons: tuple[str, Methods], systemd: bool = True) -> Iterator[Path]:
    """A root directory whose system bus has the given (name, methods); the bus is at its usual place
    below."""
    with private_bus() as address:
        socket = place / "run/dbus/system_bus_socket"
        socket.parent.mkdir(parents=True)
        socket.symlink_to(address.removeprefix("unix:path=").partition(",")[0])
        if systemd:
            (place / "run/systemd/system").mkdir(parents=True)
        with serving(address, *daemons):
            yield place


@contextmanager
def serving(address: str, *daemons: tuple[str, Methods]) -> Iterator[None]:
    """Answer on the bus at `address` until the block ends."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    buses = [
        asyncio.run_coroutine_threadsafe(_serve(address, name, methods), loop).result(10)
        for name, methods in daemons
    ]
    try:
        yield
    finally:
        for bus in buses:
            asyncio.run_coroutine_threadsafe(bus.close(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


async def _serve(address: str, name: str, methods: Methods) -> Any:
    bus = await connect(address)

    def answer(call: Message) -> None:
        method = methods.get((call.path, f"{call.interface}.{call.member}"))
        if method is None:
            bus.fail(call, "org.freedesktop.DBus.Error.UnknownMethod", "not in the table")
        else:
            bus.reply(call, *method(*call.body))

    bus.on_call(answer)
    await bus.own(name)
    return bus
