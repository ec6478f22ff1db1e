"""`mh-amqp`: this host on AMQP 1.0."""

import argparse
from collections.abc import Sequence

from libmh.errors import InvalidArguments, NotFound
from libmh.providers import all_interfaces, find_interface
from libmh.serve import Command, Process
from libmh.serve import main as run
from mh_amqp.names import listening_place, place

ALL = ""
TABLES = frozenset({"amqp", "authority", "roles", "signing", "tls", "login", "fleet"})
LOCAL = "local"
DEFAULT_BROKER = "amqp://127.0.0.1:5672"


def main(argv: Sequence[str] | None = None) -> int:
    """The command."""
    return run(COMMAND, argv)


def _options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--broker",
        metavar="URL",
        action="append",
        default=[],
        help=f"a broker to connect to; repeat it for more, tried in order (default {DEFAULT_BROKER})",
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        help="listen for consoles instead, also at the /PATH of a Unix socket; beyond loopback it needs"
        " [tls], port 0 picks one",
    )
    parser.add_argument(
        "--only", metavar="NAME,...", default="", help="serve these interfaces alone: Host,Network"
    )
    parser.add_argument(
        "--via",
        metavar="URL",
        default=LOCAL,
        help="hand on what it has authorised to the agent there: system is mh-dbus on the system bus "
        f"(default {LOCAL}: answer in this process)",
    )
    parser.add_argument(
        "--report-interval",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="between capability reports, 0 sends none (default 60)",
    )
    parser.add_argument(
        "--print-schema",
        metavar="INTERFACE",
        nargs="?",
        const=ALL,
        help="print what can be asked over AMQP as JSON, of one interface or all, instead of serving",
    )


async def _body(process: Process) -> None:
    options = process.options
    if options.print_schema is not None:
        print(_schema(options.print_schema), end="")
        return
    if options.listen is not None and options.broker:
        raise InvalidArguments("--listen and --broker exclude each other: an agent does one of them")
    if options.listen is None:
        # each is named twice when a configuration file was read
        options.broker = list(dict.fromkeys(options.broker)) or [DEFAULT_BROKER]
        for url in options.broker:
            place(url)
    else:
        listening_place(options.listen)
    from mh_amqp.agent import run as serve

    await serve(process)


def _schema(name: str) -> str:
    from mh_amqp.schema import schema

    found = all_interfaces() if name == ALL else tuple(filter(None, [find_interface(name)]))
    if not found:
        raise NotFound(f"there is no interface '{name}'")
    return schema(found)


COMMAND = Command("mh-amqp", "Serve this host on AMQP 1.0.", _body, _options, TABLES)

if __name__ == "__main__":
    raise SystemExit(main())
