"""`mh-dbus`: this host on D-Bus."""

import argparse
import asyncio
from collections.abc import Callable, Iterable, Sequence

from libmh.api.agent import Agent
from libmh.errors import NotFound
from libmh.serve import Command, Process, heartbeats, host_agent
from libmh.serve import main as run
from libmh.spec import Interface, interface_of
from mh_dbus.files import activation, bus_policy, by_bus, host_interfaces, polkit_policy
from mh_dbus.introspection import installed_xml
from mh_dbus.polkit import Polkit
from mh_dbus.server import Server

ALL = ""


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(COMMAND, argv)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bus", metavar="ADDRESS", default="system", help="'system', or a D-Bus address: unix:path=..."
    )
    parser.add_argument(
        "--only", metavar="NAME,...", action="append", help="serve these interfaces alone: Host,Network"
    )
    prints = parser.add_argument_group("printing instead of serving; INTERFACE is all when left out")
    for name, what in (
        ("introspection", "the introspection data"),
        ("polkit", "the polkit actions"),
        ("bus-policy", "the bus policy"),
        ("activation", "the bus activation files"),
    ):
        prints.add_argument(f"--print-{name}", metavar="INTERFACE", nargs="?", const=ALL, help=what)


async def _body(process: Process) -> None:
    options = process.options
    printers: dict[str, Callable[[Sequence[Interface]], str]] = {
        "print_introspection": _introspection,
        "print_polkit": lambda interfaces: _joined(map(polkit_policy, interfaces)),
        "print_bus_policy": lambda interfaces: _joined(
            bus_policy(bus, served) for bus, served in by_bus(interfaces).items()
        ),
        "print_activation": lambda interfaces: _joined(map(activation, by_bus(interfaces))),
    }
    asked = [name for name in printers if getattr(options, name) is not None]
    for name in asked:
        print(printers[name](_wanted(getattr(options, name))), end="")
    if not asked:
        await _serve(process)


def _introspection(interfaces: Sequence[Interface]) -> str:
    return installed_xml(interfaces)


def _joined(texts: Iterable[str]) -> str:
    return "\n".join(texts)


def _wanted(name: str) -> tuple[Interface, ...]:
    known = host_interfaces()
    found = tuple(each for each in known if name in (ALL, each.name, each.short))
    if not found:
        names = ", ".join(each.short for each in known)
        raise NotFound(f"there is no interface '{name}': expected one of {names}")
    return found


async def _serve(process: Process) -> None:
    words = ",".join(process.options.only or ()).split(",")
    only = tuple(word for word in words if word)
    polkit = Polkit()
    agent = host_agent(process, polkit, only)
    # of several agents on one bus, the one that serves all is the one called Agent
    without = (interface_of(Agent).name,) if only else ()
    server = Server(process.options.bus, agent.dispatcher, polkit, agent.connections, without)
    beats = asyncio.create_task(heartbeats(agent, process.stop))
    try:
        await server.run(process)
    finally:
        beats.cancel()


COMMAND = Command("mh-dbus", "Serve this host on D-Bus.", _body, _options)

if __name__ == "__main__":
    raise SystemExit(main())
