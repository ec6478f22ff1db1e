"""`mh-broker`: the embedded broker as a command of its own."""

import argparse
import asyncio
import getpass
import logging
import resource
import sys
from collections.abc import Sequence
from dataclasses import replace

from libmh.context import Context, Settings
from libmh.errors import InvalidArguments
from libmh.providers import Providers
from libmh.serve import Command, Process, with_agent
from libmh.serve import main as run
from mh_amqp.access import TABLES, access_of
from mh_amqp.authority import roles
from mh_amqp.broker import Broker, BrokerLimits
from mh_amqp.broker_node import BrokerState, Node
from mh_amqp.engine import DEFAULT_DOOR, Door, Listener, listen
from mh_amqp.gate import Gate
from mh_amqp.kept import Kept
from mh_amqp.security import door_of
from mh_amqp.users import verifier

log = logging.getLogger(__name__)
DEFAULT_LISTEN = "127.0.0.1:5672"
DEFAULT_CONNECTIONS = 10_000
MOST_CONNECTIONS = 100_000
SPARE_FILES = 64


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(COMMAND, argv)


def address_of(text: str) -> tuple[str, int]:
    """`HOST:PORT`, `[::1]:PORT` or the path of a Unix socket. Raises `InvalidArguments`."""
    if text.startswith("/"):
        return text, 0
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isascii() and port.isdigit() and int(port) < 2**16):
        raise InvalidArguments(f"'{text}' is no address to listen on: expected HOST:PORT or /PATH")
    return host.strip("[]"), int(port)


async def serve(
    address: str,
    limits: BrokerLimits,
    door: Door = DEFAULT_DOOR,
    gate: Gate | None = None,
    kept: Kept | None = None,
) -> tuple[Broker, Listener]:
    """A broker that listens at `address`, with what was kept. Errors as for `engine.listen`."""
    broker = Broker(limits, gate, kept)
    broker.restore()
    place = address_of(address)
    listener = await listen(*place, broker, container="mh-broker", door=door, limits=limits.peer)
    return broker, listener


def limits_of(connections: int) -> BrokerLimits:
    """The limits of a broker for so many connections, as far as open files go; each may come from the same
    machine, as behind a translated address. Raises `InvalidArguments`."""
    if not 1 <= connections <= MOST_CONNECTIONS:
        raise InvalidArguments(f"--connections: expected 1 to {MOST_CONNECTIONS}, not {connections}")
    limits = BrokerLimits()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        connections = max(1, most - SPARE_FILES)
    peer = replace(limits.peer, connections=connections, per_peer=connections)
    return replace(limits, peer=peer, queues=max(limits.queues, 2 * connections))


def listening_at(address: str, listener: Listener) -> str:
    """The address with the port that was really taken."""
    host = address_of(address)[0]
    if listener.path is not None:
        return host
    return f"[{host}]:{listener.port}" if ":" in host else f"{host}:{listener.port}"


def _user_line(name: str) -> str:
    """A user's line for the file of `[login]`; the password is read, and shown nowhere."""
    password = getpass.getpass(f"password of {name}: ") if sys.stdin.isatty() else sys.stdin.readline()
    return verifier(name, password.rstrip("\n")).line(name)


def gate_of(process: Process, door: Door) -> Gate | None:
    """Who may use which address; None, where nobody has to say who he is and nothing else is said, lets
    everybody. Raises `InvalidArguments`."""
    if door.anonymous and not TABLES & process.config.keys():
        return None
    if "access" not in process.config:
        log.warning(
            "there is no [access]: whoever logs in is a host and a console, and nobody a conductor, which "
            "has to be listed there"
        )
    return Gate(access_of(process.config, process.options.config, process.state))


async def _body(process: Process) -> None:
    if process.options.make_user is not None:
        print(_user_line(process.options.make_user))
        return
    address: str = process.options.listen
    door = door_of(process.config)
    limits = limits_of(process.options.connections)
    kept = Kept(process.state / "broker.queues")
    broker, listener = await serve(address, limits, door, gate_of(process, door), kept)
    providers = Providers()
    providers.add(BrokerState(broker))
    context = Context(settings=Settings(process.state / "broker.json"))
    agent = with_agent(process, context, providers, roles(process.config, process.options.config))
    broker.node = Node(broker, agent.dispatcher, frozenset(providers.bound))
    work = [broker.sweep(), *(listener.attach(path) for path in dict.fromkeys(process.options.attach))]
    tasks = [asyncio.create_task(each) for each in work]
    try:
        process.ready(f"listening on {listening_at(address, listener)}")
        await process.stop.wait()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        await listener.close()
        kept.close()
        if broker.gate is not None:
            broker.gate.refusals.flush()


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--make-user",
        metavar="NAME",
        help="print a user's line for the file that [login] names, instead of serving; the password comes "
        "from the terminal, or is the first line of the input",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default=DEFAULT_LISTEN,
        help=f"beyond loopback it needs [tls]; port 0 picks one (default {DEFAULT_LISTEN})",
    )
    parser.add_argument(
        "--attach",
        metavar="PATH",
        action="append",
        default=[],
        help="also serve the other end of a character device, or of a Unix socket that another listens on,"
        " such as QEMU's end of a virtio-serial port; repeat it for more",
    )
    parser.add_argument(
        "--connections",
        metavar="N",
        type=int,
        default=DEFAULT_CONNECTIONS,
        help="let so many peers in at once, as far as the limit of open files goes "
        f"(default {DEFAULT_CONNECTIONS})",
    )


COMMAND = Command(
    "mh-broker",
    "Carry messages between the agents and consoles of one machine or small site.",
    _body,
    _options,
    frozenset({"authority", "roles", "tls", "login"}) | TABLES,
)

if __name__ == "__main__":
    raise SystemExit(main())
