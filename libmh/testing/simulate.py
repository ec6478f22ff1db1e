"""A fleet that does not exist, to size a broker with: real agents with invented facts, thousands in one
process.

    python -m libmh.testing.simulate --hosts 5000 --broker amqp://127.0.0.1:5672

Each has its own dispatcher, its own half of the protocol, and its own connection, which it keeps by itself
as an agent does. With `--connections N` they share so many: where file descriptors end.
"""

import argparse
import resource
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

from libmh.agent import ThisAgent
from libmh.api.agent import Agent
from libmh.api.host import Host
from libmh.call import Bound
from libmh.capability import Reporter
from libmh.connections import Connections
from libmh.context import Context
from libmh.dispatch import Dispatcher
from libmh.errors import InvalidArguments
from libmh.providers import Providers
from libmh.serve import Command, CrowdHost, Process, crowd_for, main
from libmh.spec import Interface, interface_of
from libmh.testing.invented import Identity, InventedHost, Kinds

MOST_HOSTS = 100_000
SPARE_FILES = 64


@lru_cache
def inline(declared: Interface) -> Interface:
    """The interface with every member answered in the loop: what is invented never blocks."""
    members = {name: replace(member, inline=True) for name, member in declared.members.items()}
    return replace(declared, members=MappingProxyType(members))


@dataclass(frozen=True, slots=True)
class Invention:
    """Makes hosts; the same seed makes the same."""

    seed: int
    kinds: Kinds

    def host(self, number: int) -> CrowdHost:
        who = Identity(number, self.seed)
        context = Context()
        host = InventedHost(who, self.kinds, context)
        connections = Connections(context.events)
        providers = Providers()
        this = ThisAgent("simulated", providers, connections)
        for declared, provider in ((Host, host), (Agent, this)):
            interface = inline(interface_of(declared))
            providers.bound[interface.name] = Bound(interface, provider)
        dispatcher = Dispatcher(providers.bound, context)
        this.attach(dispatcher)
        reporter = Reporter(host, context.settings)
        return CrowdHost(who.uuid, who.hostname, who.boot_id, dispatcher, connections, reporter)


def invented(count: int, first: int = 0, seed: int = 0) -> Iterator[CrowdHost]:
    """So many hosts, by number."""
    invention = Invention(seed, Kinds())
    return (invention.host(number) for number in range(first, first + count))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--broker", metavar="URL", action="append", default=[], help="the broker")
    parser.add_argument("--hosts", metavar="N", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--first", metavar="N", type=int, default=0, help="number of the first (default 0)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="makes other hosts (default 0)")
    parser.add_argument(
        "--connections", metavar="N", type=int, default=0, help="share so many (default: one for each host)"
    )
    parser.add_argument(
        "--report-interval",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="between capability reports and between heartbeats of each host (default 0: none)",
    )
    parser.add_argument(
        "--rate", metavar="N", type=float, default=500.0, help="hosts started in a second (default 500)"
    )
    parser.add_argument(
        "--open", action="store_true", help="let everybody do everything: there is nothing to be harmed"
    )


async def body(process: Process) -> None:
    """Run the hosts until the process is told to stop."""
    options = process.options
    urls = list(dict.fromkeys(options.broker))
    if not urls:
        raise InvalidArguments("--broker: expected the URL of a broker")
    if not 1 <= options.hosts <= MOST_HOSTS:
        raise InvalidArguments(f"--hosts: expected 1 to {MOST_HOSTS}")
    if options.rate <= 0 or options.connections < 0 or options.report_interval < 0:
        raise InvalidArguments("--rate, --connections, --report-interval: expected a positive number")
    _check_files(options.connections or options.hosts)
    open_to_all: Mapping[str, object] = {"authority": {"*": "operator"}} if options.open else {}
    opened = replace(process, config={**process.config, **open_to_all})
    hosts = invented(options.hosts, options.first, options.seed)
    await crowd_for(urls[0])(opened, urls, list(hosts), options.connections)


def _check_files(connections: int) -> None:
    """Raise the limit of open files as far as it goes, and say so when that is not far enough."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = connections + SPARE_FILES
    if hard != resource.RLIM_INFINITY and needed > hard:
        raise InvalidArguments(
            f"{connections} connections need {needed} open files, this process may have {hard}: "
            f"share them with --connections {hard - SPARE_FILES}"
        )
    if soft != resource.RLIM_INFINITY and needed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


COMMAND = Command(
    "simulate",
    "Run agents of invented hosts.",
    body,
    add_options,
    frozenset({"amqp", "authority", "roles", "tls", "login"}),
)

if __name__ == "__main__":
    raise SystemExit(main(COMMAND))
