"""Agents, brokers and conductors for the AMQP tests: in this process with providers that only count, or as
the real commands."""

import argparse
import asyncio
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Protocol

from libmh.call import Bound
from libmh.caller import stoppable
from libmh.connections import Connections
from libmh.context import Context
from libmh.dispatch import Authority, Dispatcher
from libmh.errors import Conflict, Failed
from libmh.providers import shipped_interfaces
from libmh.serve import Process
from libmh.spec import (
    U32,
    Access,
    Effect,
    Interface,
    Kind,
    Plain,
    Time,
    event,
    interface,
    interface_of,
    method,
    prop,
    writes,
)
from mh_amqp import codec
from mh_amqp.asking import Asker, asker
from mh_amqp.authority import roles
from mh_amqp.broker import Broker, BrokerLimits
from mh_amqp.casts import Casts, Knowledge
from mh_amqp.connection import Connection
from mh_amqp.direct import listen_at
from mh_amqp.engine import Listener, dial, listen
from mh_amqp.events import Source
from mh_amqp.messages import Message
from mh_amqp.names import MANAGEMENT, host_address
from mh_amqp.server import Serving, serving
from mh_amqp.upkeep import DEFAULT_PACE, Pace
from testbed.child import child

HOST = "127.0.0.1"
UUID = "11112222333344445555666677778888"
SOURCE = Source(UUID, "testhost", "boot-1")
EVERYBODY = roles({"authority": {"*": "operator"}})
TOY = "org.example.Toy"


@interface(TOY, version="1.2")
class Toy(Protocol):
    """A thing with one member of each kind that matters on the way."""

    @prop(source="a test", max_age=0.0)
    def level(self) -> U32:
        """How much."""
        ...

    @writes("level")
    def set_level(self, value: U32) -> None:
        """Set it."""
        ...

    @prop(source="a test", constant=True)
    def born(self) -> Time:
        """When."""
        ...

    @prop(source="a test")
    def note(self) -> str | None:
        """May be unknown."""
        ...

    @prop(source="a test")
    def blob(self) -> bytes:
        """Any bytes."""
        ...

    @method(access=Access.OPEN)
    def echo(self, value: Annotated[Plain, "anything"] = None) -> Plain:
        """Comes back."""
        ...

    @method(access=Access.OPEN, returns=("low", "high"))
    def split(self, value: Annotated[U32, "a number"]) -> tuple[U32, U32]:
        """Two results."""
        ...

    @method(effect=Effect.CHANGES, objects=("what",), returns="count")
    def strike(self, what: Annotated[str, "what is struck"]) -> U32:
        """Not idempotent: counts."""
        ...

    @method(access=Access.OPEN, deadline=5.0)
    def wait(self) -> str:
        """Answers when the test lets it."""
        ...

    @method(effect=Effect.CHANGES, deadline=5.0)
    def strike_slowly(self) -> U32:
        """Counts, and answers when the test lets it."""
        ...

    @method(access=Access.OPEN)
    def fail(self, how: Annotated[str, "conflict, failed or bug"]) -> None:
        """Fails."""
        ...

    @event()
    def rang(self, times: Annotated[U32, "how often"], at: Annotated[Time, "when"]) -> None:
        """It rang."""
        return


@dataclass
class CountingToy(Toy):
    """Says how often each member was run; `gate` opens `wait` and `strike_slowly`."""

    calls: Counter[str] = field(default_factory=Counter)
    gate: threading.Event = field(default_factory=threading.Event)
    held: int = 1
    attends: bool = False
    waiting: bool = False

    def level(self) -> int:
        self.calls["level"] += 1
        return self.held

    def set_level(self, value: int) -> None:
        self.calls["set_level"] += 1
        self.held = value

    def born(self) -> int:
        return 1_700_000_000_123_000_000

    def note(self) -> str | None:
        return None

    def blob(self) -> bytes:
        return b"\x00\xff"

    def echo(self, value: Plain = None) -> Plain:
        self.calls["echo"] += 1
        return value

    def split(self, value: int) -> tuple[int, int]:
        return value // 2, value - value // 2

    def strike(self, what: str) -> int:
        self.calls["strike"] += 1
        return self.calls["strike"]

    def wait(self) -> str:
        self.calls["wait"] += 1
        assert self.gate.wait(10)
        return "done"

    def strike_slowly(self) -> int:
        self.calls["strike_slowly"] += 1
        with stoppable(self.gate.set) if self.attends else nullcontext():
            self.waiting = True
            assert self.gate.wait(10)
        return self.calls["strike_slowly"]

    def fail(self, how: str) -> None:
        if how == "conflict":
            raise Conflict("it changed meanwhile", generation="7")
        if how == "failed":
            raise Failed("it did not work")
        raise ZeroDivisionError(how)


def inert(declared: Interface) -> Bound:
    """A provider whose every member fails, so that no test can touch the machine."""

    def refuse(*_given: Any) -> Any:
        raise Failed("nothing is done in a test")

    body = {
        name: refuse
        for member in declared.members.values()
        if member.kind is not Kind.EVENT
        for name in (member.attribute, member.setter)
        if name
    }
    made = type(f"Inert{declared.short}", (declared.protocol,), body)
    return Bound(declared, made())


def everything() -> dict[str, Bound]:
    """Every interface that we ship, inert."""
    return {each.name: inert(each) for each in shipped_interfaces()}


def toys(toy: CountingToy) -> dict[str, Bound]:
    return {TOY: Bound(interface_of(Toy), toy)}


def process(state: Path, name: str = "test", config: Mapping[str, Any] | None = None) -> Process:
    return Process(name, argparse.Namespace(state=str(state), config=None), config or {})


@dataclass
class Agent:
    """An agent in this process, listening."""

    served: Serving
    listener: Listener
    dispatcher: Dispatcher
    toy: CountingToy

    @property
    def url(self) -> str:
        return f"amqp://{HOST}:{self.listener.port}"


@asynccontextmanager
async def direct_agent(
    state: Path, bound: dict[str, Bound] | None = None, authority: Authority | None = None
) -> AsyncIterator[Agent]:
    """A listening agent with a toy, or with what is given."""
    toy = CountingToy()
    dispatcher = Dispatcher(bound or toys(toy), Context(), authority or EVERYBODY)
    names = frozenset(dispatcher.interfaces)
    served = serving(process(state), dispatcher, {host_address(UUID): names, MANAGEMENT: names}, SOURCE)
    listener = await listen_at((HOST, 0), UUID, served.intake, served.outbox)
    try:
        yield Agent(served, listener, dispatcher, toy)
    finally:
        toy.gate.set()
        await served.intake.stop(2)
        served.outbox.close()
        await listener.close()


@asynccontextmanager
async def running_broker(port: int = 0) -> AsyncIterator[tuple[Broker, int]]:
    """A broker in this process, and its port."""
    limits = BrokerLimits()
    broker = Broker(limits)
    listener = await listen(HOST, port, broker, container="mh-broker", limits=limits.peer)
    sweeping = asyncio.create_task(broker.sweep())
    try:
        yield broker, listener.port
    finally:
        sweeping.cancel()
        await listener.close()


@dataclass
class BrokerAgent:
    """An agent in this process, at a broker."""

    served: Serving
    process: Process
    connections: Connections
    context: Context
    toy: CountingToy
    task: "asyncio.Task[None]"


@asynccontextmanager
async def broker_agent(
    state: Path,
    port: int,
    addresses: Mapping[str, list[str]] | None = None,
    *,
    toy: CountingToy | None = None,
    source: Source = SOURCE,
    authority: Authority = EVERYBODY,
    url: str = "",
    pace: Pace = DEFAULT_PACE,
) -> AsyncIterator[BrokerAgent]:
    """A toy's agent that keeps itself connected to a broker on this machine, or at a URL."""
    toy = toy or CountingToy()
    context = Context()
    dispatcher = Dispatcher(toys(toy), context, authority)
    run = process(state)
    home = host_address(source.host)
    served = serving(run, dispatcher, addresses or {home: [TOY]}, source)
    if addresses is None:
        served.take_casts(Casts(home, Knowledge(source)))
    connections = Connections(context.events)
    served.pace = pace
    task = asyncio.create_task(served.run([url or f"amqp://{HOST}:{port}"], connections))
    try:
        yield BrokerAgent(served, run, connections, context, toy, task)
    finally:
        toy.gate.set()
        run.stop.set()
        async with asyncio.timeout(10):
            await task
        served.outbox.close()


@asynccontextmanager
async def asking(port: int, container: str = "console") -> AsyncIterator[Asker]:
    """Something that asks, over a connection of its own."""
    connection: Connection = await dial(HOST, port, container=container)
    try:
        yield await asker(connection)
    finally:
        await connection.close()


def request(operation: str, type_: str = TOY, body: Plain = None, **more: Any) -> Message:
    """A request in AMQP values; `more` are fields of the message, or `mh_...` application properties."""
    properties: dict[str, Plain] = {"operation": operation, "type": type_, "name": "self"}
    properties |= {
        name.replace("_", ":", 1): more.pop(name) for name in list(more) if name.startswith("mh_")
    }
    properties |= more.pop("properties", {})
    identity = more.pop("message_id", None) or codec.string(f"{next(NUMBERS):032x}")
    return Message(
        message_id=identity,
        to=more.pop("to", MANAGEMENT),
        properties=properties,
        value=codec.any_value(body),
        **more,
    )


NUMBERS = iter(range(1, 10**9))


def run(test: Coroutine[Any, Any, None], seconds: float = 30) -> None:
    async def limited() -> None:
        async with asyncio.timeout(seconds):
            await test

    asyncio.run(limited())


@contextmanager
def command(
    name: str, *arguments: str, ready: str = "ready:"
) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """One of our commands as a process, and its ready line."""
    code = f"import sys; from {name} import main; sys.exit(main())"
    with child([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        line = running.stdout.readline()
        assert line.startswith(ready), line
        yield running, line.strip()


def port_of(line: str) -> int:
    """The port in a ready line."""
    return int(line.partition(f"{HOST}:")[2].split()[0])


async def ask(asker_: Asker, message: Message, deadline: float = 5.0) -> Message:
    """Send a request with this asker's reply address, and return the reply."""
    assert asker_.receiver is not None
    return await asker_.ask(replace(message, reply_to=asker_.receiver.address), deadline)


def value(reply: Message) -> Any:
    """The body of a reply in AMQP values."""
    return None if reply.value is None else codec.decode(reply.value)[0]


def with_agent(state: Path, check: Any, **options: Any) -> None:
    """Run `check(agent, asker)` against a listening agent."""

    async def test() -> None:
        async with direct_agent(state, **options) as agent, asking(agent.listener.port) as console:
            await check(agent, console)

    run(test())


def code(reply: Message) -> int | None:
    return reply.number("statusCode")
