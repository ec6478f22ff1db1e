"""Every way to reach a host, with the same providers behind it: the shipped ones and `tests/probe.py`.

The agents are real processes; the probe comes to them as a plug-in.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libmh.agent import ThisAgent
from libmh.call import Request, Verb
from libmh.client import Connection, connect
from libmh.connections import Connections
from libmh.context import Context, Settings
from libmh.errors import Problem
from libmh.providers import find_interface, load
from libmh.spec import Plain
from libmh.systembus import SystemBus
from libmh.testing import loopback
from mh_dbus.signatures import _free
from processes import Agent, agent
from testbed.bus import private_bus

GROUP = "matahari.providers"
OPERATOR = '[authority]\n"*" = "operator"\n'
Answer = Callable[[str, str, Sequence[Any]], Plain]


@dataclass(frozen=True, slots=True)
class Reached:
    """A host that is reached: `ask` calls a method with arguments that no client of ours has looked at."""

    connection: Connection
    ask: Answer
    agent: Agent | None = None

    def problem(self, interface: str, member: str, arguments: Sequence[Any]) -> Problem | None:
        """What a call fails with, or None."""
        try:
            self.ask(interface, member, arguments)
        except Problem as problem:
            return problem
        return None


def plug_in(directory: Path) -> Mapping[str, str]:
    """Make an entry point for the probe; answers the environment in which it is found."""
    information = directory / "mh_probe-1.0.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mh-probe\nVersion: 1.0\n")
    (information / "entry_points.txt").write_text(f"[{GROUP}]\nprobe = probe:ProbeHost\n")
    return {"PYTHONPATH": f"{directory}:{Path(__file__).parent}"}


def _by_request(connection: Connection) -> Answer:
    def ask(interface: str, member: str, arguments: Sequence[Any]) -> Plain:
        return connection.request(Request(interface, member, Verb.CALL, arguments))

    return ask


@contextmanager
def in_memory(state: Path, environment: Mapping[str, str]) -> Iterator[Reached]:
    context = Context(settings=Settings(state / "settings.json"))
    providers = load(context)
    providers.add(ThisAgent("test", providers, Connections(context.events)))
    served = [each.provider for each in providers.bound.values()]
    with loopback(*served, context=context) as connection:
        yield Reached(connection, _by_request(connection))


@contextmanager
def on_dbus(state: Path, environment: Mapping[str, str]) -> Iterator[Reached]:
    with private_bus() as address:
        options = ["--bus", address, "--state", str(state)]
        with agent("mh-dbus", *options, env=environment) as started, connect(address) as connection:
            bus = SystemBus(address)
            yield Reached(connection, _by_message(bus), started)
            bus.close()


def _by_message(bus: SystemBus) -> Answer:
    def ask(interface: str, member: str, arguments: Sequence[Any]) -> Plain:
        declared = find_interface(interface)
        place = (declared.bus, declared.path) if declared else ("org.matahariproject.Host", "/")
        typed = [_free(argument) for argument in arguments]
        signature = "".join(kind for kind, _ in typed)
        return bus.call(*place, interface, member, signature, *(value for _, value in typed))

    return ask


@contextmanager
def on_amqp(state: Path, environment: Mapping[str, str]) -> Iterator[Reached]:
    (state / "amqp.toml").write_text(OPERATOR)
    options = ["--listen", "127.0.0.1:0", "--state", str(state), "--config", str(state / "amqp.toml")]
    with agent("mh-amqp", *options, env=environment) as started, connect(started.url) as connection:
        yield Reached(connection, _by_request(connection), started)


@contextmanager
def through_a_broker(state: Path, environment: Mapping[str, str]) -> Iterator[Reached]:
    (state / "amqp.toml").write_text(OPERATOR)
    with agent("mh-broker", "--listen", "127.0.0.1:0", "--state", str(state)) as broker:
        options = ["--broker", broker.url, "--state", str(state), "--config", str(state / "amqp.toml")]
        with agent("mh-amqp", *options, env=environment) as started:
            uuid = started.ready.split(" host ")[1].split()[0]
            with connect(f"{broker.url}/{uuid}") as connection:
                yield Reached(connection, _by_request(connection), started)


@contextmanager
def handed_on(state: Path, environment: Mapping[str, str]) -> Iterator[Reached]:
    """AMQP before D-Bus: an agent that answers nothing itself."""
    (state / "amqp.toml").write_text(OPERATOR)
    options = ["--listen", "127.0.0.1:0", "--state", str(state), "--config", str(state / "amqp.toml")]
    with (
        private_bus() as address,
        agent("mh-dbus", "--bus", address, "--state", str(state), env=environment),
        agent("mh-amqp", "--via", address, *options, env=environment) as front,
        connect(front.url) as connection,
    ):
        yield Reached(connection, _by_request(connection), front)


@contextmanager
def of_the_fleet(state: Path, environment: Mapping[str, str]) -> Iterator[Reached]:
    """The conductor, which serves what no single host does."""
    with (
        agent("mh-broker", "--listen", "127.0.0.1:0", "--state", str(state)) as broker,
        agent("mh-conductor", "--broker", broker.url, "--state", str(state), env=environment),
        connect(broker.url) as connection,
    ):
        yield Reached(connection, _by_request(connection))


Transport = Callable[[Path, Mapping[str, str]], AbstractContextManager[Reached]]
TRANSPORTS: tuple[Transport, ...] = (in_memory, on_dbus, on_amqp, through_a_broker, handed_on)
