"""Serve providers on a bus from a thread of the test, as `mh-dbus` does; and talk to them in raw
messages."""

import argparse
import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

from libmh.api.agent import ConnectionState
from libmh.connections import Connections
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.providers import Providers
from libmh.serve import Process
from libmh.systembus import SystemBus
from mh_dbus.polkit import Polkit
from mh_dbus.server import Server
from waiting import eventually


@dataclass(frozen=True, slots=True)
class Serving:
    """Providers that are served."""

    context: Context
    connections: Connections
    dispatcher: Dispatcher
    loop: asyncio.AbstractEventLoop


class _Bound(Protocol):
    def __init__(self, context: Context) -> None: ...


@contextmanager
def serving(address: str, *kinds: type) -> Iterator[Serving]:
    """Serve one provider of each class until the block ends; they answer when it begins."""
    ready: Future[tuple[Serving, asyncio.Event]] = Future()
    thread = threading.Thread(target=lambda: asyncio.run(_serve(address, kinds, ready)), daemon=True)
    thread.start()
    served, stop = ready.result(10)
    try:
        yield served
    finally:
        served.loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        assert not thread.is_alive()


async def _serve(
    address: str, kinds: tuple[type, ...], ready: "Future[tuple[Serving, asyncio.Event]]"
) -> None:
    context = Context()
    providers = Providers()
    for kind in kinds:
        providers.add(cast("type[_Bound]", kind)(context))
    connections = Connections(context.events)
    polkit = Polkit()
    dispatcher = Dispatcher(providers.bound, context, polkit)
    served = Serving(context, connections, dispatcher, asyncio.get_running_loop())
    process = Process("test", argparse.Namespace(), {})
    waiting = asyncio.create_task(_tell(served, process, ready))
    try:
        await Server(address, dispatcher, polkit, connections).run(process)
    except BaseException as error:
        if ready.done():
            raise
        ready.set_exception(error)
    finally:
        waiting.cancel()


async def _tell(served: Serving, process: Process, ready: "Future[tuple[Serving, asyncio.Event]]") -> None:
    def connected() -> bool:
        return any(each.state is ConnectionState.CONNECTED for each in served.connections.list())

    await eventually(connected)
    ready.set_result((served, process.stop))


@contextmanager
def raw(address: str) -> Iterator[SystemBus]:
    """A caller of its own on the bus."""
    client = SystemBus(address)
    try:
        yield client
    finally:
        client.close()
